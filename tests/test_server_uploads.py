"""Uploads over HTTP: the protocol tus, cut connections, processes that die, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tusclient.client import TusClient

from audio_storage_system import AudioStorageSystem
from catalogues import Catalogues
from patience import until
from serving import as_bearer, connected, serving
from uploading import WAV, sound

OFFSET = "application/offset+octet-stream"
UPLOADS = "/api/v1/uploads"


@pytest.fixture(scope="module", params=["plain", "sealed"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An archive with users, encrypted or not."""
    folder = tmp_path_factory.mktemp("uploads") / "archive"
    with Catalogues(encrypted=request.param == "sealed").at(folder) as home:
        with AudioStorageSystem(home) as storage:
            for name in ("ann", "ben"):
                storage.users.add(name)
        yield home


@pytest.fixture(scope="module")
def urls(place: Path) -> Iterator[tuple[str, str]]:
    """Two servers over it, as two web processes."""
    with serving(lambda: AudioStorageSystem(place)) as one, serving(lambda: AudioStorageSystem(place)) as two:
        yield one, two


@pytest.fixture(scope="module")
def secrets(place: Path) -> dict[str, str]:
    with AudioStorageSystem(place) as storage:
        made = {name: storage.as_user(name).tokens.create(scopes=["write"]).secret for name in ("ann", "ben")}
        return {**made, "reader": storage.as_user("ann").tokens.create(scopes=["read"]).secret}


@pytest.fixture
def client(urls: tuple[str, str], secrets: dict[str, str]) -> Iterator[httpx.Client]:
    """As a client of tus, Ann."""
    headers = {"Tus-Resumable": "1.0.0", **as_bearer(secrets["ann"])}
    with httpx.Client(base_url=urls[0], headers=headers, timeout=30) as made:
        yield made
        for upload in made.get(UPLOADS).json()["items"]:
            made.delete(f"{UPLOADS}/{upload['upload_id']}")


def said(**texts: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in texts.items())


def begun(client: httpx.Client, size: int, **texts: str) -> str:
    """A new upload's address."""
    answer = client.post(UPLOADS, headers={"Upload-Length": str(size), "Upload-Metadata": said(**texts)})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def append(client: httpx.Client, upload: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    given = {"Upload-Offset": str(offset), "Content-Type": OFFSET, **headers}
    return client.patch(upload, content=data, headers=given)


def bytes_of(client: httpx.Client, audio_id: int | str) -> bytes:
    answer = client.get(f"/api/v1/recordings/{audio_id}/audio")
    assert answer.status_code == 200
    return answer.content


class TestTus:
    def test_it_says_what_it_speaks_and_asks_nobody_for_a_token(self, urls: tuple[str, str]) -> None:
        answer = httpx.options(f"{urls[0]}{UPLOADS}", timeout=60)
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
        extensions = {"creation", "creation-with-upload", "termination", "expiration", "checksum"}
        assert set(answer.headers["tus-extension"].split(",")) == extensions
        assert int(answer.headers["tus-max-size"]) == 64 << 30
        assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")

    def test_a_file_in_two_parts(self, client: httpx.Client) -> None:
        data, texts = sound(seed=11), {"filename": "meeting é.wav", "filetype": "audio/wav", "case": "7"}
        upload = begun(client, len(data), **texts, metadata='{"user": "john", "n": 3}', language="en")
        head = client.head(upload)
        assert head.status_code == 200 and head.content == b""
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("0", str(len(data)))
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["upload-metadata"].startswith(said(filename="meeting é.wav"))
        answer = append(client, upload, 0, data[:9999])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, "9999")
        assert answer.headers["tus-resumable"] == "1.0.0" and "GMT" in answer.headers["upload-expires"]
        assert "x-audio-id" not in answer.headers
        answer = append(client, upload, 9999, data[9999:])
        assert answer.status_code == 204
        recording = client.get(f"/api/v1/recordings/{answer.headers['x-audio-id']}").json()
        assert recording["original_name"] == "meeting é.wav"
        assert recording["metadata"] == {"user": "john", "n": 3, "case": "7"}
        assert bytes_of(client, recording["audio_id"]) == data
        head = client.head(upload)
        assert head.headers["upload-offset"] == str(len(data))
        assert head.headers["x-job-id"] == answer.headers["x-job-id"]
        assert client.get(upload).json()["audio_id"] == recording["audio_id"]

    def test_a_file_with_its_creation(self, client: httpx.Client) -> None:
        data = sound(seed=12)
        headers = {"Upload-Length": str(len(data)), "Content-Type": OFFSET}
        answer = client.post(UPLOADS, content=data, headers=headers)
        assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(len(data)))
        assert answer.json()["audio_id"] == int(answer.headers["x-audio-id"])
        assert bytes_of(client, answer.headers["x-audio-id"]) == data

    def test_its_beginning_with_its_creation(self, client: httpx.Client) -> None:
        headers = {"Upload-Length": str(len(WAV)), "Content-Type": OFFSET}
        answer = client.post(UPLOADS, content=WAV[:77], headers=headers)
        assert (answer.status_code, answer.headers["upload-offset"]) == (201, "77")

    def test_a_json_body_says_what_is_to_come(self, client: httpx.Client) -> None:
        data = sound(seed=13)
        wanted = {
            "size": len(data),
            "name": "C:\\Users\\x\\a.wav",
            "metadata": {"a": [1, None]},
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        answer = client.post(UPLOADS, json=wanted)
        assert answer.status_code == 201 and answer.json()["offset"] == 0
        answer = append(client, answer.headers["location"], 0, data)
        recording = client.get(f"/api/v1/recordings/{answer.headers['x-audio-id']}").json()
        assert (recording["original_name"], recording["metadata"]) == ("a.wav", {"a": [1, None]})

    def test_a_part_is_checked(self, client: httpx.Client) -> None:
        upload = begun(client, len(WAV))
        right = base64.b64encode(hashlib.sha1(WAV[:500], usedforsecurity=False).digest()).decode()
        wrong = append(client, upload, 0, WAV[:501], **{"Upload-Checksum": f"sha1 {right}"})
        assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum_mismatch")
        assert client.head(upload).headers["upload-offset"] == "0"
        assert append(client, upload, 0, WAV[:500], **{"Upload-Checksum": f"sha1 {right}"}).status_code == 204
        for bad in ("sha1 !!", f"crc32 {right}", "sha1"):
            refused = append(client, upload, 500, WAV[500:], **{"Upload-Checksum": bad})
            assert refused.status_code in (400, 460), bad
        assert client.head(upload).headers["upload-offset"] == "500"

    def test_the_wrong_offset_is_refused_before_the_body_is_read(self, client: httpx.Client) -> None:
        upload = begun(client, len(WAV))
        append(client, upload, 0, WAV[:10])
        answer = append(client, upload, 5, WAV[5:])
        assert (answer.status_code, answer.json()["code"]) == (409, "offset_mismatch")
        assert (answer.headers["upload-offset"], answer.headers["tus-resumable"]) == ("10", "1.0.0")

    @pytest.mark.parametrize("offset", ["", "-1", "1.5", "x", "9" * 40])
    def test_an_offset_is_a_number(self, client: httpx.Client, offset: str) -> None:
        upload = begun(client, len(WAV))
        headers = {"Content-Type": OFFSET, "Upload-Offset": offset}
        assert client.patch(upload, content=b"x", headers=headers).status_code == 400

    def test_another_version_is_refused(self, client: httpx.Client) -> None:
        answer = client.post(UPLOADS, headers={"Tus-Resumable": "0.2.2", "Upload-Length": "9"})
        assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")

    def test_another_content_type_is_refused(self, client: httpx.Client) -> None:
        upload = begun(client, len(WAV))
        for kind in ("audio/wav", "", "multipart/form-data; boundary=x"):
            answer = append(client, upload, 0, WAV, **{"Content-Type": kind})
            assert answer.status_code == 415
        assert client.head(upload).headers["upload-offset"] == "0"

    def test_what_is_aborted_is_gone(self, client: httpx.Client, place: Path) -> None:
        upload = begun(client, len(WAV))
        append(client, upload, 0, WAV[:1000])
        assert client.delete(upload).status_code == 204
        assert client.head(upload).status_code == client.delete(upload).status_code == 404
        assert append(client, upload, 1000, b"x").status_code == 404
        assert not list(place.glob(f"spool/uploads/*/{upload.rpartition('/')[2]}"))

    def test_a_client_that_can_only_post(self, client: httpx.Client) -> None:
        upload = begun(client, len(WAV))
        headers = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": OFFSET}
        assert client.post(upload, content=WAV[:5], headers=headers).headers["upload-offset"] == "5"
        assert client.post(upload, headers={"X-HTTP-Method-Override": "DELETE"}).status_code == 204
        assert client.post(upload).status_code == 405

    def test_it_can_be_finished_again(self, client: httpx.Client) -> None:
        data = sound(seed=14)
        upload = begun(client, len(data))
        assert client.post(f"{upload}/finish").status_code == 409
        audio_id = append(client, upload, 0, data).headers["x-audio-id"]
        answer = client.post(f"{upload}/finish")
        assert answer.status_code == 200 and str(answer.json()["audio_id"]) == audio_id


def test_a_client_that_others_wrote(urls: tuple[str, str], secrets: dict[str, str], client: httpx.Client) -> None:
    """tuspy: in parts with checksums, given up half-way, and taken up again by another one at the other process."""
    data = sound(20, seed=15)
    options = {"file_stream": io.BytesIO(data), "chunk_size": 100_000, "upload_checksum": True}
    made = [TusClient(f"{url}{UPLOADS}", headers=as_bearer(secrets["ann"])) for url in urls]
    first = made[0].uploader(**options, metadata={"filename": "from tuspy.wav", "project": "é"})
    first.upload(stop_at=250_000)
    assert first.offset == 250_000
    second = made[1].uploader(**options, url=first.url.replace(urls[0], urls[1]))
    assert second.offset == 250_000
    second.upload()
    audio_id = second.request.response_headers["x-audio-id"]
    assert bytes_of(client, audio_id) == data
    found = client.get(f"/api/v1/recordings/{audio_id}").json()
    assert (found["original_name"], found["metadata"]) == ("from tuspy.wav", {"project": "é"})


class TestRefused:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 400),
            ({"Upload-Length": "x"}, 400),
            ({"Upload-Length": "0"}, 422),
            ({"Upload-Length": str(1 << 40)}, 413),
            ({"Upload-Defer-Length": "1"}, 400),
            ({"Upload-Length": "9", "Upload-Metadata": "filename é"}, 400),
            ({"Upload-Length": "9", "Upload-Metadata": "filename ////"}, 400),
            ({"Upload-Length": "9", "Upload-Metadata": said(metadata="[1]")}, 400),
            ({"Upload-Length": "9", "Upload-Metadata": said(metadata="{")}, 400),
            ({"Upload-Length": "9", "Upload-Metadata": said(priority="now")}, 422),
            ({"Upload-Length": "9", "Upload-Metadata": said(whisper_model="nobody:knows")}, 400),
            ({"Upload-Length": "9", "Upload-Metadata": said(filename="a" * 2000)}, 422),
            ({"Upload-Length": "9", "Upload-Metadata": said(a="1") + "," + said(a="2")}, 400),
        ],
    )
    def test_what_makes_no_sense(self, client: httpx.Client, headers: dict[str, str], status: int) -> None:
        answer = client.post(UPLOADS, headers=[(name.encode(), value.encode()) for name, value in headers.items()])
        assert answer.status_code == status, answer.text
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert client.get(UPLOADS).json()["items"] == []

    @pytest.mark.parametrize(
        "body", ["", "[]", "{", '{"size": 9, "more": 1}', '{"size": "x"}', '{"size": 9, "name": "\\ud800"}']
    )
    def test_a_body_that_is_not_as_documented(self, client: httpx.Client, body: str) -> None:
        answer = client.post(UPLOADS, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")

    def test_what_is_no_audio(self, client: httpx.Client) -> None:
        data = b"<html>" * 1000
        upload = begun(client, len(data))
        answer = append(client, upload, 0, data)
        assert (answer.status_code, answer.json()["code"]) == (415, "not_audio")
        assert client.head(upload).status_code == 404

    def test_more_than_was_announced(self, client: httpx.Client, place: Path) -> None:
        upload = begun(client, 1000)
        answer = append(client, upload, 0, b"x" * 5_000_000)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert client.head(upload).headers["upload-offset"] == "0"

        def chunks() -> Iterator[bytes]:
            for _ in range(80):
                yield bytes(64 << 10)

        headers = {"Upload-Offset": "0", "Content-Type": OFFSET}
        try:
            assert client.patch(upload, content=chunks(), headers=headers).status_code == 413
        except httpx.WriteError:  # the server had answered and closed before all of it was sent
            pass
        folder = next(place.glob(f"spool/uploads/*/{upload.rpartition('/')[2]}"))
        assert sum(file.stat().st_size for file in folder.iterdir()) < 10_000

    def test_somebody_elses_upload(self, client: httpx.Client, secrets: dict[str, str]) -> None:
        upload = begun(client, len(WAV))
        ben = as_bearer(secrets["ben"])
        answers = [
            client.head(upload, headers=ben),
            client.get(upload, headers=ben),
            append(client, upload, 0, WAV, **ben),
            client.post(f"{upload}/finish", headers=ben),
            client.delete(upload, headers=ben),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert client.get(UPLOADS, headers=ben).json()["items"] == []
        assert client.head(upload).headers["upload-offset"] == "0"

    def test_a_list_comes_in_pages_the_latest_first(self, client: httpx.Client) -> None:
        mine = [begun(client, len(WAV)).rpartition("/")[2] for _ in range(3)]
        first = client.get(UPLOADS, params={"limit": 2}).json()
        begun(client, len(WAV))
        rest = client.get(UPLOADS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [one["upload_id"] for one in first["items"] + rest["items"]] == mine[::-1]
        assert rest["next_cursor"] is None

    def test_who_may_only_read(self, client: httpx.Client, secrets: dict[str, str]) -> None:
        upload, reader = begun(client, len(WAV)), as_bearer(secrets["reader"])
        assert client.head(upload, headers=reader).status_code == 200
        assert append(client, upload, 0, WAV, **reader).status_code == 403
        assert client.post(UPLOADS, headers={**reader, "Upload-Length": "9"}).status_code == 403
        assert client.delete(upload, headers=reader).status_code == 403

    @pytest.mark.parametrize("upload_id", ["..", "%2e%2e%2f1", "0" * 32, "x" * 5000, "%00"])
    def test_an_id_is_never_a_path(self, client: httpx.Client, upload_id: str) -> None:
        assert client.head(f"{UPLOADS}/{upload_id}").status_code in (404, 405, 422)


# Cut connections


def reset(connection: socket.socket) -> None:
    """Cut it as a network does: the server is told nothing but that it is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def request_head(url: str, upload: str, secret: str, offset: int, length: int) -> bytes:
    lines = [
        f"PATCH {upload} HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        f"Authorization: Bearer {secret}",
        f"Upload-Offset: {offset}",
        f"Content-Type: {OFFSET}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode()


def settled(client: httpx.Client, upload: str) -> int:
    """How far an upload is, a little after its connection is gone."""
    before = -1
    while (now := int(client.head(upload).headers["upload-offset"])) != before:
        before = now
        time.sleep(0.05)
    return now


def test_cut_at_random_places_and_resumed_in_any_process_it_is_the_same_file(
    client: httpx.Client, urls: tuple[str, str], secrets: dict[str, str]
) -> None:
    data, chance = sound(60, seed=21), random.Random(21)  # 1.9 MB
    upload, most = begun(client, len(data), filename="cut.wav"), 0
    for _ in range(12):
        offset, url = settled(client, upload), urls[chance.randrange(2)]
        with connected(url) as connection:
            connection.sendall(request_head(url, upload, secrets["ann"], offset, len(data) - offset))
            sent = chance.randrange(min(300_000, len(data) - offset))
            connection.sendall(data[offset : offset + sent])
            time.sleep(chance.random() * 0.05)
            reset(connection)
        most = max(most, offset + sent)
        assert offset <= settled(client, upload) <= most
    offset = settled(client, upload)
    assert offset > 0
    with httpx.Client(base_url=urls[1], headers=client.headers, timeout=30) as other:
        while (answer := append(other, upload, offset, data[offset:])).status_code == 409:  # one that was cut goes on
            offset = int(answer.headers["upload-offset"])
    assert answer.status_code == 204, answer.text
    found = bytes_of(client, answer.headers["x-audio-id"])
    assert hashlib.sha256(found).hexdigest() == hashlib.sha256(data).hexdigest()


def test_a_length_that_lies_costs_nothing_that_came(
    client: httpx.Client, urls: tuple[str, str], secrets: dict[str, str]
) -> None:
    """It promises all the rest and sends a part of it, then closes in order."""
    upload = begun(client, len(WAV))
    with connected(urls[0]) as connection:
        connection.sendall(request_head(urls[0], upload, secrets["ann"], 0, len(WAV)))
        connection.sendall(WAV[:20_000])
        # what has come is kept after two seconds
        until(lambda: client.head(upload).headers["upload-offset"] == "20000")
        connection.shutdown(socket.SHUT_WR)
    assert settled(client, upload) == 20_000
    assert append(client, upload, 20_000, WAV[20_000:]).status_code == 204


@pytest.mark.usefixtures("patient")
def test_a_connection_that_hangs_makes_room_for_the_next(
    client: httpx.Client, urls: tuple[str, str], secrets: dict[str, str], arrived: dict[str, int]
) -> None:
    """The network changed, and the server has not noticed: whoever comes with the same upload takes over."""
    upload = begun(client, len(WAV))
    with connected(urls[0]) as hanging:
        hanging.sendall(request_head(urls[0], upload, secrets["ann"], 0, len(WAV)))
        hanging.sendall(WAV[:5000])
        until(lambda: arrived == {upload.rpartition("/")[2]: 5000})
        with httpx.Client(base_url=urls[1], headers=client.headers, timeout=30) as other:
            answer = append(other, upload, 0, WAV)
            assert (answer.status_code, answer.headers["upload-offset"]) == (409, "5000")
            assert append(other, upload, 5000, WAV[5000:]).status_code == 204
        assert b"423" in hanging.recv(4096).split(b"\r\n")[0]


def test_many_slow_senders_leave_room_for_others(
    client: httpx.Client, urls: tuple[str, str], secrets: dict[str, str], arrived: dict[str, int]
) -> None:
    """More than there are threads: an upload holds none while nothing comes."""
    uploads = [begun(client, len(WAV)) for _ in range(50)]
    with ExitStack() as held:
        connections = [held.enter_context(connected(urls[0])) for _ in uploads]
        for connection, upload in zip(connections, uploads, strict=True):
            connection.sendall(request_head(urls[0], upload, secrets["ann"], 0, len(WAV)) + b"x")
        until(lambda: len(arrived) == 50)
        assert client.get("/api/v1/stats").status_code == 200
        assert select.select(connections, [], [], 0)[0] == [], "none of them has been answered"


def test_uploads_at_once_do_not_mix(client: httpx.Client, urls: tuple[str, str]) -> None:
    files = [sound(10, seed=100 + number) for number in range(4)]
    failed: list[object] = []

    def send(number: int) -> None:
        with httpx.Client(base_url=urls[number % 2], headers=client.headers, timeout=60) as mine:
            data, upload, answer = files[number], begun(mine, len(files[number])), None
            for start in range(0, len(data), 50_000):
                answer = append(mine, upload, start, data[start : start + 50_000])
            if answer is None or bytes_of(mine, answer.headers["x-audio-id"]) != data:
                failed.append(answer)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# A process that dies


def test_a_server_that_is_killed_goes_on_with_what_it_acknowledged(tmp_path: Path) -> None:
    place, data, chance = tmp_path / "archive", sound(100, seed=31), random.Random(31)
    AudioStorageSystem(place).close()
    upload, acknowledged = "", 0
    for death in range(2):
        with killable(place) as (process, url), httpx.Client(base_url=url, timeout=30) as client:
            upload = upload or begun(client, len(data), filename="killed.wav")
            offset = int(client.head(upload).headers["upload-offset"])
            assert offset >= acknowledged
            if death == 1:
                answer = append(client, upload, offset, data[offset:])
                assert bytes_of(client, answer.headers["x-audio-id"]) == data
                return
            acknowledged = int(append(client, upload, offset, data[offset : offset + 400_000]).headers["upload-offset"])
            with connected(url) as connection:
                connection.sendall(
                    request_head(url, upload, "", acknowledged, len(data) - acknowledged).replace(
                        b"Authorization: Bearer \r\n", b""
                    )
                )
                connection.sendall(data[acknowledged : acknowledged + 700_000])
                time.sleep(chance.random() * 0.1)
                process.kill()
                process.wait()


@contextmanager
def killable(place: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command `serve` in a process of its own, and its address."""
    command = [sys.executable, "-m", "audio_storage_system.cli", "serve", "--json", "--port", "0", "--no-worker"]
    with subprocess.Popen([*command, "--archive", str(place)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()
