"""What was said, over HTTP: versions, their pieces, files of them; brought, compared, chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from builders import Talk, fill, say
from serving import as_bearer, serving

TEXTS = [f"sentence number {number} of many" for number in range(7)]
SRT = "1\n00:00:01,000 --> 00:00:02,500\nSomething else, été\n\n2\n00:00:03,000 --> 00:00:04,000\nand more\n".encode()


@pytest.fixture
def client(storage: AudioStorageSystem) -> Iterator[httpx.Client]:
    """A client of a server over an archive with a recording (1) of two versions (1, 2), and another (2)."""
    fill(storage._archive, [Talk(TEXTS, speakers=["Anna"] * 7), Talk(["of somebody else"])])
    with storage._archive.database.write() as connection:
        say(connection, 1, Talk([*TEXTS[:3], "another sentence here", *TEXTS[4:]]))
    with (
        serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted")) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=30) as made,
    ):
        yield made


def same(data: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(data))


def test_versions_are_those_of_the_library(client: httpx.Client, storage: AudioStorageSystem) -> None:
    listed = client.get("/recordings/1/transcripts").json()["items"]
    assert listed == same([version.as_dict() for version in storage.transcripts(1)])
    assert [(one["transcript_id"], one["active"]) for one in listed] == [(1, True), (3, False)]
    assert client.get("/transcripts/3").json() == listed[1]
    first = client.get("/recordings/1/transcripts", params={"limit": 1}).json()
    rest = client.get("/recordings/1/transcripts", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert first["items"] + rest["items"] == listed and rest["next_cursor"] is None


def test_segments_come_in_pages_with_their_words(client: httpx.Client, storage: AudioStorageSystem) -> None:
    pages, cursor = [], None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/transcripts/1/segments", params=params).json()
        pages.append(page["items"])
        if (cursor := page["next_cursor"]) is None:
            break
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [one for page in pages for one in page] == same([one.as_dict() for one in storage.segments(1)])


def test_words_come_with_their_speakers(storage: AudioStorageSystem, call: Path, scripted_engine: Any) -> None:
    storage.add(call)
    with serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted")) as url:
        words = httpx.get(f"{url}/api/v1/transcripts/1/words", timeout=30).json()["items"]
    segments = storage.segments(1)
    assert [word["text"] for word in words] == [word.text for one in segments for word in one.words]
    assert words[0] == {**same(vars_of(segments[0].words[0])), "segment_id": segments[0].id, "speaker": None}


def vars_of(word: Any) -> dict[str, Any]:
    return {"start": word.start, "end": word.end, "text": word.text, "probability": word.probability}


def test_versions_are_compared(client: httpx.Client, storage: AudioStorageSystem) -> None:
    found = client.get("/transcripts/1/diff/3").json()
    assert found == same(storage.diff_transcripts(1, 3).as_dict())
    assert found["changes"][0]["after"]
    refused = client.get("/transcripts/1/diff/2")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")


def test_another_version_is_chosen(storage: AudioStorageSystem, call: Path, scripted_engine: Any) -> None:
    storage.add(call)
    storage.generate_transcript(1, whisper_model="scripted:other")
    with serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted")) as url:
        answer = httpx.post(f"{url}/api/v1/transcripts/1/activate", timeout=30)
        made = httpx.post(f"{url}/api/v1/recordings/1/embeddings", timeout=30)
    assert (answer.json()["transcript_id"], answer.json()["active"]) == (1, True)
    assert [version.active for version in storage.transcripts(1)] == [True, False]
    assert made.json() == {"made": 0}, "choosing it has made them"


MEDIA_TYPES = {
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "txt": "text/plain",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
}


def test_exports_are_files(client: httpx.Client, storage: AudioStorageSystem) -> None:
    for name, media_type in MEDIA_TYPES.items():
        answer = client.get("/recordings/1/export", params={"format": name})
        assert answer.headers["content-type"].partition(";")[0] == media_type
        assert answer.headers["content-disposition"].startswith(f'attachment; filename="talk0.{name}"')
        assert answer.text == storage.export(1, name)
        other = client.get("/recordings/1/export", params={"format": name, "transcript_id": 3})
        assert other.text == storage.export(1, name, 3) != answer.text
        assert client.get("/recordings/2/export", params={"format": name, "transcript_id": 3}).status_code == 404


def test_names_of_any_kind_are_names_of_files(storage: AudioStorageSystem, call: Path, scripted_engine: Any) -> None:
    with call.open("rb") as file:
        storage.add(file, name='Grüße "an\r\nX: y" 東京/../%.flac')
    with serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted")) as url:
        answer = httpx.get(f"{url}/api/v1/recordings/1/export", timeout=30)
    assert answer.status_code == 200 and "x" not in answer.headers
    assert "\n" not in answer.headers["content-disposition"]
    assert "filename*=UTF-8''" in answer.headers["content-disposition"]


def test_a_transcript_is_brought(storage: AudioStorageSystem, call: Path, scripted_engine: Any) -> None:
    storage.store_audio_file(call)
    with serving(lambda: AudioStorageSystem(storage.home)) as url:
        place = f"{url}/api/v1/recordings/1/transcripts"
        first = httpx.post(place, files={"file": ("a.srt", SRT)}, data={"language": "fr"}, timeout=30)
        again = httpx.post(place, files={"file": ("C:\\x\\b.srt", SRT)}, data={"activate": "true"}, timeout=30)
    assert (first.status_code, first.json()["segments"], first.json()["language"]) == (201, 2, "fr")
    assert (first.json()["active"], first.json()["known"]) == (True, False)
    assert (again.status_code, again.json()["known"], again.json()["transcript_id"]) == (200, True, 1)
    assert "Something else, été" in storage.export(1, "txt")
    assert len(storage.transcripts(1)) == 1


NO_TRANSCRIPTS: list[tuple[tuple[str, bytes], dict[str, str], int]] = [
    (("a.exe", SRT), {}, 400),
    (("", SRT), {}, 400),
    (("a.srt", b""), {}, 400),
    (("a.srt", b"nothing of the kind"), {}, 400),
    (("a.json", b"[" * 100_000), {}, 400),
    (("a.json", b'{"segments": [{"start": NaN, "end": 1, "text": "x"}]}'), {}, 400),
    (("a.srt", SRT), {"activate": "perhaps"}, 422),
    (("a.srt", SRT), {"unknown": "1"}, 422),
    (("a.srt", SRT), {"language": "no language at all, and much too long for one"}, 422),
]


def test_what_is_no_transcript_is_refused(storage: AudioStorageSystem, client: httpx.Client) -> None:
    for file, fields, status in NO_TRANSCRIPTS:
        answer = client.post("/recordings/1/transcripts", files={"file": file}, data=fields)
        assert answer.status_code in (status, 422), (file, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert len(storage.transcripts(1)) == 2


def test_what_others_said_is_not_there(client: httpx.Client, storage: AudioStorageSystem) -> None:
    storage.users.add("anna")
    storage.grants.give("anna", "editor", audio_id=1)
    write = as_bearer(storage.tokens.create("anna", scopes=["write"]).secret)
    read = as_bearer(storage.tokens.create("anna").secret)
    for path in ("/recordings/1/transcripts", "/transcripts/1", "/transcripts/1/segments", "/recordings/1/export"):
        assert client.get(path, headers=read).status_code == 200
    files = {"file": ("a.srt", SRT)}
    hidden: list[tuple[str, str, Any]] = [
        ("GET", "/recordings/2/transcripts", None),
        ("GET", "/recordings/2/export", None),
        ("GET", "/recordings/1/export?transcript_id=2", None),
        ("GET", "/transcripts/2", None),
        ("GET", "/transcripts/2/segments", None),
        ("GET", "/transcripts/2/words", None),
        ("GET", "/transcripts/1/diff/2", None),
        ("POST", "/transcripts/2/activate", None),
        ("POST", "/recordings/2/embeddings", None),
        ("POST", "/recordings/1/embeddings?transcript_id=2", None),
        ("POST", "/recordings/2/transcripts", files),
    ]
    for method, path, given in hidden:
        answer = client.request(method, path, headers=write, files=given)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    for path, given in [
        ("/transcripts/1/activate", None),
        ("/recordings/1/embeddings", None),
        ("/recordings/1/transcripts", files),
    ]:
        answer = client.post(path, headers=read, files=given)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


LARGE = 10**30


def test_odd_requests_are_refused_in_words(client: httpx.Client) -> None:
    asked = [
        "/recordings/0/transcripts",
        f"/recordings/{LARGE}/transcripts",
        f"/recordings/{2**63 - 1}/transcripts",
        "/recordings/1/export?format=docx",
        "/recordings/1/export?transcript_id=-1",
        f"/recordings/1/export?transcript_id={LARGE}",
        "/recordings/99/export",
        "/transcripts/-1",
        "/transcripts/x",
        f"/transcripts/{2**63 - 1}",
        "/transcripts/1/segments?limit=0",
        "/transcripts/1/segments?limit=99999",
        f"/transcripts/1/segments?cursor={LARGE}",
        "/transcripts/1/segments?cursor=-1",
        "/transcripts/1/segments?unknown=1",
        f"/transcripts/1/diff/{LARGE}",
        "/transcripts/99/words",
    ]
    for path in asked:
        answer = client.get(path)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_recording_in_the_trash_says_nothing(client: httpx.Client, storage: AudioStorageSystem) -> None:
    storage.trash.put(1)
    for path in ("/recordings/1/transcripts", "/transcripts/1", "/transcripts/1/segments", "/recordings/1/export"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "in_trash"), path
