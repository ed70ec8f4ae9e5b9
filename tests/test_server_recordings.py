"""Recordings over HTTP: put in, listed page by page, described, removed."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import InvalidMetadata
from audio_storage_system.testing import scripted
from catalogues import Catalogues
from serving import as_bearer, serving
from uploading import WAV, sound

RECORDINGS = "/api/v1/recordings"


def store(client: httpx.Client, data: bytes, name: str = "a.wav", wait: float = 0, **fields: str) -> httpx.Response:
    files = {"file": (name, data, "audio/wav")}
    return client.post(RECORDINGS, files=files, data=fields, params={"wait": wait} if wait else {})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that tests may leave recordings in."""
    with client_of(tmp_path_factory.mktemp("shared") / "archive") as client:
        yield client


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server in which nothing is ever stored."""
    with client_of(tmp_path_factory.mktemp("empty") / "archive") as client:
        yield client


class TestStoring:
    def test_a_file_with_what_is_said_of_it(self, served: httpx.Client) -> None:
        given = {"user": "john", "n": 3, "x": [1, {"y": None}], "none": None, "ü": "é"}
        answer = store(served, WAV, "café.wav", metadata=json.dumps(given), language="en", priority="high")
        assert answer.status_code == 201
        stored = answer.json()
        assert (stored["duplicate"], stored["state"]) == (False, "waiting")
        assert answer.headers["location"] == f"{RECORDINGS}/{stored['audio_id']}"
        found = served.get(answer.headers["location"]).json()
        assert (found["original_name"], found["metadata"], found["file_size"]) == ("café.wav", given, len(WAV))
        assert (found["duration"], found["media_type"], found["sample_rate"]) == (1.0, "audio/wav", 16_000)
        assert served.get(f"{answer.headers['location']}/audio").content == WAV

    def test_the_same_bytes_again_are_the_same_recording(self, served: httpx.Client) -> None:
        first = store(served, WAV, metadata='{"a": 1}')
        again = store(served, WAV, metadata='{"a": 2, "b": 3}')
        assert (again.status_code, again.json()["duplicate"]) == (200, True)
        assert again.headers["location"] == first.headers["location"]
        assert served.get(first.headers["location"]).json()["metadata"] == {"a": 1, "b": 3}
        refused = store(served, WAV, on_duplicate="error")
        assert (refused.status_code, refused.json()["code"]) == (409, "duplicate_recording")

    def test_when_it_was_recorded(self, shared: httpx.Client) -> None:
        answer = store(shared, WAV, recorded_at="2026-01-02T03:04:05+02:00")
        found = shared.get(answer.headers["location"]).json()
        assert found["recorded_at"] == "2026-01-02T01:04:05Z" and found["recorded_offset_minutes"] == 120

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"metadata": "{"}, 400),
            ({"metadata": "[1]"}, 400),
            ({"metadata": '{"a": NaN}'}, 400),
            ({"metadata": '{"a": "\\ud800"}'}, 422),
            ({"metadata": '{"": 1}'}, 422),
            ({"metadata": "[" * 60_000}, 400),
            ({"metadata": '{"a": "' + "x" * 70_000 + '"}'}, 400),
            ({"whisper_model": "nobody:knows"}, 400),
            ({"recorded_at": "2026-01-02T03:04:05"}, 422),
            ({"recorded_at": "yesterday"}, 422),
            ({"on_duplicate": "x"}, 422),
            ({"priority": "x"}, 422),
            ({"generate_embeddings": "perhaps"}, 422),
            ({"colour": "red"}, 422),
            ({"language": "a\0b"}, 422),
            ({"language": "xx1"}, 400),
        ],
    )
    def test_fields_that_make_no_sense(self, empty: httpx.Client, fields: dict[str, str], status: int) -> None:
        answer = store(empty, WAV, **fields)
        assert answer.status_code == status, answer.text[:500]
        assert answer.headers["content-type"] == "application/problem+json"
        assert empty.get(RECORDINGS).json()["items"] == []

    @pytest.mark.parametrize("data", [b"", b"hello", b"RIFF" + bytes(100), b"%PDF-1.7 " * 1000])
    def test_what_is_no_audio(self, empty: httpx.Client, data: bytes) -> None:
        answer = store(empty, data)
        assert (answer.status_code, answer.json()["code"]) == (415, "not_audio")
        assert empty.get(RECORDINGS).json()["items"] == []

    def test_forms_that_are_none(self, empty: httpx.Client) -> None:
        bad = [
            empty.post(RECORDINGS, content=WAV, headers={"Content-Type": "audio/wav"}),
            empty.post(RECORDINGS, json={"file": "x"}),
            empty.post(RECORDINGS, data={"name": "x"}, files={"other": WAV}),
            empty.post(RECORDINGS, files=[("file", ("a.wav", WAV)), ("file", ("b.wav", WAV))]),
            empty.post(RECORDINGS, files=[("file", ("a.wav", WAV)), ("more", ("b.wav", WAV))]),
            empty.post(RECORDINGS, content=b"--x", headers={"Content-Type": "multipart/form-data"}),
            empty.post(RECORDINGS, content=b"nonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}),
            empty.post(
                RECORDINGS,
                content=b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            ),
        ]
        assert [answer.status_code for answer in bad] == [400] * len(bad)
        assert empty.get(RECORDINGS).json()["items"] == []

    @pytest.mark.parametrize(
        "name", ["../../etc/passwd", "C:\\x\\..\\y.wav", "a" * 3000 + ".wav", "\n", "..", "%00.wav"]
    )
    def test_a_name_is_never_a_path(self, shared: httpx.Client, name: str) -> None:
        answer = store(shared, sound(0.1, seed=zlib.crc32(name.encode())), name)
        assert answer.status_code == 201
        kept = shared.get(answer.headers["location"]).json()["original_name"]
        assert "/" not in kept and "\\" not in kept and len(kept) <= 1000

    def test_one_can_wait_for_the_transcript(self, tmp_path: Path, scripted_engine: object) -> None:
        place = tmp_path / "archive"
        with AudioStorageSystem(place, transcriber=scripted.SPEC) as storage, client_of(storage.home) as client:
            stop = threading.Event()
            worker = threading.Thread(target=storage.worker().run, args=(stop,))
            worker.start()
            try:
                answer = store(client, WAV, wait=60)
            finally:
                stop.set()
                worker.join()
        assert (answer.status_code, answer.json()["state"]) == (201, "done")

    def test_waiting_holds_nobody_up(self, shared: httpx.Client) -> None:
        waiting = [
            threading.Thread(target=store, args=(shared, sound(0.1, seed=1000 + number)), kwargs={"wait": 2})
            for number in range(45)
        ]
        for thread in waiting:
            thread.start()
        assert shared.get("/api/v1/stats", timeout=20).status_code == 200
        for thread in waiting:
            thread.join()


def test_a_form_that_is_cut_off_leaves_nothing(empty: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    place = urlsplit(str(empty.base_url))
    lines = [f"POST {RECORDINGS} HTTP/1.1", f"Host: {place.netloc}", "Content-Length: 90000"]
    lines += ["Content-Type: multipart/form-data; boundary=x", "", "--x"]
    lines += ['Content-Disposition: form-data; name="file"; filename="a"', "", ""]
    with socket.create_connection((place.hostname or "", place.port or 0), 20) as connection:
        connection.sendall("\r\n".join(lines).encode() + WAV[:20_000])
        time.sleep(0.3)
    time.sleep(0.5)
    assert empty.get(RECORDINGS).json()["items"] == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_in_an_encrypted_archive_a_form_is_never_readable_on_the_disk(tmp_path: Path) -> None:
    """The file comes slowly; meanwhile nothing that the server has open holds what has come."""
    secret = b"RIFF" + b"a very secret sound " * 200_000
    lines = ["Content-Type: multipart/form-data; boundary=x", f"Content-Length: {len(secret) + 1000}", "", "--x"]
    lines += ['Content-Disposition: form-data; name="file"; filename="a"', "", ""]
    with Catalogues(encrypted=True).at(tmp_path / "archive") as home, client_of(home) as client:
        place = urlsplit(str(client.base_url))
        head = [f"POST {RECORDINGS} HTTP/1.1", f"Host: {place.netloc}", *lines]
        with socket.create_connection((place.hostname or "", place.port or 0), 20) as connection:
            connection.sendall("\r\n".join(head).encode() + secret)
            found, until = b"", time.monotonic() + 30
            while len(found) <= 1 << 20:
                assert time.monotonic() < until
                time.sleep(0.1)
                found = b"".join(_deleted_files())
                assert b"secret" not in found


def _deleted_files() -> Iterator[bytes]:
    """What is in the files without a name that this process has open."""
    for number in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{number}"
        try:
            if "(deleted)" in os.readlink(path) and Path(path).is_file():
                yield Path(path).read_bytes()
        except OSError:
            continue


@contextmanager
def client_of(home: Path) -> Iterator[httpx.Client]:
    with serving(lambda: AudioStorageSystem(home)) as url, httpx.Client(base_url=url, timeout=90) as client:
        yield client


@pytest.fixture(scope="module")
def asked(catalogues: Catalogues, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that is only asked, on each catalogue."""
    with catalogues.at(tmp_path_factory.mktemp("asked") / "archive") as home, client_of(home) as client:
        yield client


class TestListing:
    def test_pages_hold_everything_once_while_more_comes(self, served: httpx.Client) -> None:
        """Some are of one moment, and each time between two pages another one comes and one goes."""
        times = ["2026-01-01T00:00:00Z"] * 4 + ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]
        for number, at in enumerate(times):
            assert store(served, sound(0.1, seed=number), recorded_at=at, metadata='{"kept": 1}').status_code == 201
        listed, cursor, seed = [], None, 100
        while True:
            page = served.get(RECORDINGS, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            listed += page["items"]
            if (cursor := page["next_cursor"]) is None:
                break
            store(served, sound(0.1, seed=(seed := seed + 1)), recorded_at="2026-02-01T00:00:00Z")
            served.delete(f"{RECORDINGS}/{page['items'][-1]['audio_id']}")
        assert [one["audio_id"] for one in listed] == [6, 5, 4, 3, 2, 1]

    def test_the_last_page_says_so(self, served: httpx.Client) -> None:
        assert served.get(RECORDINGS).json() == {"items": [], "next_cursor": None}
        for number in range(2):
            store(served, sound(0.1, seed=number))
        assert served.get(RECORDINGS, params={"limit": 2}).json()["next_cursor"] is None
        assert served.get(RECORDINGS, params={"limit": 1}).json()["next_cursor"] is not None

    def test_filters(self, served: httpx.Client) -> None:
        for number, user in enumerate(["john", "mary", "john"]):
            fields = {
                "metadata": json.dumps({"user": user, "n": number}),
                "recorded_at": f"2026-0{number + 1}-01T00:00:00Z",
            }
            store(served, sound(0.1, seed=number), **fields)

        def ids(**wanted: Any) -> list[int]:
            answer = served.get(RECORDINGS, params=wanted)
            assert answer.status_code == 200, answer.text
            return [one["audio_id"] for one in answer.json()["items"]]

        assert ids() == [3, 2, 1]
        assert ids(where='{"user": "john"}') == [3, 1]
        assert ids(where='{"n": {"gte": 1}}') == [3, 2]
        assert ids(where="user=john") == ids(where="user in john, jane") == [3, 1]
        assert ids(where="!mood") == ids(where="n") == [3, 2, 1]
        assert ids(where=["user=john", "n>=1"]) == ids(where=["user=john", '{"n": {"gte": 1}}']) == [3]
        assert ids(since="2026-02-01") == [3, 2]
        assert ids(until="2026-02-01T00:00:00Z") == [1]
        assert ids(language="de") == ids(speaker="nobody") == []

    @pytest.mark.parametrize(
        ("params", "status"),
        [
            ({"where": "{"}, 400),
            ({"where": "=1"}, 400),
            ({"where": ["week>=4", "week>=5"]}, 400),
            ({"where": ["week=4", '{"week": 4}']}, 400),
            ({"where": ["a=1"] * 9}, 422),
            ({"where": '{"a": {"near": 1}}'}, 400),
            ({"where": '{"original_name": "\\ud800"}'}, 400),
            ({"where": '{"original_name": "a\\u0000"}'}, 400),
            ({"where": '{"audio_id": {"in": [99999999999999999999]}}'}, 400),
            ({"since": "yesterday"}, 400),
            ({"language": "\0"}, 422),
            ({"speaker": "\0"}, 422),
            ({"cursor": "x"}, 400),
            ({"cursor": "MjAyNi0wMS0wMVQwMDowMDowMCA1"}, 400),
            ({"cursor": "é"}, 400),
            ({"limit": "0"}, 422),
            ({"limit": "1001"}, 422),
            ({"page": "2"}, 422),
        ],
    )
    def test_questions_that_make_no_sense(self, asked: httpx.Client, params: dict[str, Any], status: int) -> None:
        answer = asked.get(RECORDINGS, params=params)
        assert answer.status_code == status, answer.text


class TestDescribing:
    def test_a_patch_sets_and_removes_in_one_step(self, served: httpx.Client) -> None:
        path = store(served, WAV, metadata='{"a": 1, "b": {"x": 1, "y": 2}, "c": 3}').headers["location"]
        answer = served.patch(path, json={"metadata": {"a": None, "b": {"y": None, "z": 3}, "d": "new"}})
        assert answer.status_code == 200
        assert answer.json()["metadata"] == {"b": {"x": 1, "z": 3}, "c": 3, "d": "new"}
        changes = served.get(f"{path}/metadata/history").json()["items"]
        assert {(one["key"], one["op"]) for one in changes} == {("a", "remove"), ("b", "update"), ("d", "add")}
        first = served.get(f"{path}/metadata/history", params={"limit": 2}).json()
        rest = served.get(f"{path}/metadata/history", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert first["items"] + rest["items"] == changes and rest["next_cursor"] is None
        [one] = served.get(f"{path}/metadata/history", params={"key": "a"}).json()["items"]
        assert (one["old_value"], one["principal"]) == (1, "owner")

    def test_a_patch_adds_to_lists_in_the_same_step(self, served: httpx.Client) -> None:
        path = store(served, WAV, metadata='{"notes": ["one"], "state": "new"}').headers["location"]
        answer = served.patch(path, json={"append": {"notes": {"text": "two"}, "seen": "anna"}})
        assert answer.json()["metadata"] == {"notes": ["one", {"text": "two"}], "state": "new", "seen": ["anna"]}
        both = {"metadata": {"state": None, "seen": None}, "append": {"notes": 3, "seen": "bert"}}
        assert served.patch(path, json=both).json()["metadata"] == {
            "notes": ["one", {"text": "two"}, 3],
            "seen": ["bert"],
        }
        refused = served.patch(path, json={"metadata": {"state": "done"}, "append": {"notes": 4, "state": "x"}})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_metadata")
        assert served.get(path).json()["metadata"]["notes"] == ["one", {"text": "two"}, 3], "all of it or nothing"

    @pytest.mark.parametrize(
        "body",
        [
            *('{"append": {"a": 2}}', '{"append": ["a"]}', '{"append": {"b": "\\ud800"}}'),
            *("", "[]", "{}", '{"metadata": 1}', '{"metadata": {"": 1}}', '{"metadata": {}, "x": 1}'),
            *('{"metadata": {"a": 1e999}}', '{"metadata": {"a": "\\ud800"}}', '{"metadata": ' + '{"a":' * 2000),
            '{"metadata": {"' + "k" * 300 + '": 1}}',
        ],
    )
    def test_a_patch_that_makes_no_sense(self, shared: httpx.Client, body: str) -> None:
        path = store(shared, sound(0.1, seed=77), metadata='{"a": 1}').headers["location"]
        answer = shared.patch(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        assert shared.get(path).json()["metadata"] == {"a": 1}

    def test_a_merge_patch_is_json_too(self, shared: httpx.Client) -> None:
        path = store(shared, sound(0.1, seed=78)).headers["location"]
        headers = {"Content-Type": "application/merge-patch+json"}
        assert shared.patch(path, content=b'{"metadata": {"a": 1}}', headers=headers).json()["metadata"] == {"a": 1}

    def test_what_the_schema_wants_is_never_away_for_a_moment(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(WAV)
        with AudioStorageSystem(tmp_path / "archive") as storage:
            audio_id = storage.store_audio_file(tmp_path / "a.wav", metadata={"old": 1})
            storage.set_metadata_schema({"minProperties": 1, "maxProperties": 1})
            storage.patch_metadata(audio_id, {"old": None, "new": 2})
            with pytest.raises(InvalidMetadata):
                storage.patch_metadata(audio_id, {"new": None})
            assert storage.get_recording(audio_id).metadata == {"new": 2}


class TestRemoving:
    def test_it_goes_into_the_trash(self, served: httpx.Client) -> None:
        path = store(served, WAV).headers["location"]
        answer = served.delete(path)
        assert answer.status_code == 200 and answer.json()["purge_after"] > "2026"
        assert served.get(path).json()["code"] == "in_trash"
        assert served.get(f"{path}/audio").status_code == served.delete(path).status_code == 404

    def test_for_good_with_a_receipt(self, served: httpx.Client) -> None:
        path = store(served, WAV).headers["location"]
        answer = served.delete(path, params={"for_good": "true"})
        assert answer.status_code == 200 and answer.json()["receipt"]["rows"]["audio_files"] == 1
        assert served.get(path).json()["code"] == "not_found"
        assert store(served, WAV).status_code == 201


@pytest.mark.parametrize("audio_id", ["0", "-1", "x", "1.5", str(2**63), "9" * 400, "%00", "1%2F2"])
def test_an_id_is_a_number(shared: httpx.Client, audio_id: str) -> None:
    assert shared.get(f"{RECORDINGS}/{audio_id}").status_code in (404, 422)


def test_another_owners_recording_is_not_there(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        for name in ("ann", "ben"):
            storage.users.add(name)
        write = {name: storage.as_user(name).tokens.create(scopes=["admin"]).secret for name in ("ann", "ben")}
        read = storage.as_user("ann").tokens.create(scopes=["read"]).secret
    with client_of(tmp_path / "archive") as client:
        files = {"file": ("a.wav", WAV)}
        path = client.post(RECORDINGS, files=files, headers=as_bearer(write["ann"])).headers["location"]
        ben = as_bearer(write["ben"])
        answers = [
            client.get(path, headers=ben),
            client.patch(path, json={"metadata": {"a": 1}}, headers=ben),
            client.delete(path, headers=ben),
            client.delete(path, params={"for_good": "true"}, headers=ben),
            client.get(f"{path}/metadata/history", headers=ben),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert client.get(RECORDINGS, headers=ben).json()["items"] == []
        # The same bytes are a recording of one's own, which says nothing about somebody else's.
        mine = client.post(RECORDINGS, files=files, headers=ben)
        assert (mine.status_code, mine.json()["duplicate"]) == (201, False)
        reading = as_bearer(read)
        assert client.get(path, headers=reading).status_code == 200
        assert client.post(RECORDINGS, files=files, headers=reading).status_code == 403
        assert client.patch(path, json={"metadata": {}}, headers=reading).status_code == 403
        assert client.delete(path, headers=reading).status_code == 403


def test_a_cursor_of_no_time_is_refused(served: httpx.Client) -> None:
    cursor = base64.urlsafe_b64encode(b"0001-01-01T00:00:00+14:00 5").decode()
    assert served.get(RECORDINGS, params={"cursor": cursor}).status_code == 400
