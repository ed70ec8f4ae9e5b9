"""The bytes of a recording over HTTP: ranges, conditions, names; and what a player draws."""

from __future__ import annotations

import io
import random
import re
import socket
import threading
import time
import tracemalloc
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import av
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem, Cancellation
from audio_storage_system.audio import peaks
from audio_storage_system.errors import AudioRemoved, Cancelled, DeadlineExceeded, InvalidInput
from audio_storage_system.server import ranges
from audio_storage_system.server.api.audio import disposition
from audio_storage_system.server.ranges import Version
from catalogues import Catalogues
from patience import until
from servers.faulty import Day
from serving import as_bearer, serving
from sounds import integers, tone
from uploading import sound

DATA = sound(100, seed=41)  # 3.2 MB: four segments where it is sealed


@pytest.fixture(scope="module", params=["plain", "sealed"])
def served_audio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server over an archive with one recording, encrypted or not; its base is the recording."""
    folder = tmp_path_factory.mktemp("audio")
    (folder / "one.wav").write_bytes(DATA)
    with Catalogues(encrypted=request.param == "sealed").at(folder / "archive") as home:
        with AudioStorageSystem(home) as storage:
            audio_id = storage.store_audio_file(folder / "one.wav", name='née "x";\n.wav')
        with (
            serving(lambda: AudioStorageSystem(home)) as url,
            httpx.Client(base_url=f"{url}/api/v1/recordings/{audio_id}", timeout=60) as client,
        ):
            yield client


def ranged(client: httpx.Client, wanted: str, **headers: str) -> httpx.Response:
    return client.get("audio", headers={"Range": wanted, **headers})


class TestWhole:
    def test_it_is_what_was_given(self, served_audio: httpx.Client) -> None:
        answer = served_audio.get("audio")
        assert (answer.status_code, answer.content) == (200, DATA)
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["content-length"] == str(len(DATA))
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-store"
        assert re.fullmatch(r'"[0-9a-f]{32}"', answer.headers["etag"])

    def test_its_name_is_there_for_every_client(self, served_audio: httpx.Client) -> None:
        shown = served_audio.get("audio").headers["content-disposition"]
        assert shown.startswith('inline; filename="n_e _x_;_.wav"; ')
        assert unquote(shown.rpartition("''")[2]) == 'née "x";\n.wav'
        saved = served_audio.get("audio", params={"download": "true"}).headers["content-disposition"]
        assert saved.startswith("attachment; ")

    def test_head_says_the_same_without_the_bytes(self, served_audio: httpx.Client) -> None:
        whole, head = served_audio.get("audio"), served_audio.head("audio")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag", "last-modified", "accept-ranges", "content-disposition"):
            assert head.headers[name] == whole.headers[name]

    @given(name=st.text(max_size=80))
    def test_a_disposition_is_one_line_of_ascii(self, name: str) -> None:
        name = name.encode("utf-8", "replace").decode()
        said = disposition(name, "inline")
        assert said.isascii() and said.isprintable() and said.count('"') == 2
        assert unquote(said.rpartition("''")[2]) == name


class TestRanges:
    @pytest.mark.parametrize(
        ("wanted", "start", "end"),
        [
            ("bytes=0-0", 0, 1),
            ("bytes=0-1023", 0, 1024),
            ("bytes=1048500-1048700", 1_048_500, 1_048_701),  # over a border of segments
            ("bytes=100-", 100, len(DATA)),
            ("bytes=-10", len(DATA) - 10, len(DATA)),
            (f"bytes=-{len(DATA) * 2}", 0, len(DATA)),
            (f"bytes=5-{len(DATA) * 2}", 5, len(DATA)),
            ("BYTES= 7-9", 7, 10),
        ],
    )
    def test_one_range(self, served_audio: httpx.Client, wanted: str, start: int, end: int) -> None:
        answer = ranged(served_audio, wanted)
        assert (answer.status_code, answer.content) == (206, DATA[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
        assert answer.headers["content-length"] == str(end - start)

    def test_any_range_is_that_slice(self, served_audio: httpx.Client) -> None:
        chance = random.Random(7)
        for _ in range(40):
            start = chance.randrange(len(DATA))
            end = min(len(DATA), start + chance.choice([1, 100, 70_000, 1_500_000]))
            assert ranged(served_audio, f"bytes={start}-{end - 1}").content == DATA[start:end]

    def test_several_ranges(self, served_audio: httpx.Client) -> None:
        answer = ranged(served_audio, "bytes=5-9, 100-299, -4")
        assert answer.status_code == 206 and len(answer.content) == int(answer.headers["content-length"])
        boundary = answer.headers["content-type"].partition("boundary=")[2].encode()
        assert answer.headers["content-type"].startswith("multipart/byteranges; ")
        before, *parts, end = answer.content.split(b"\r\n--" + boundary)
        assert (before, end) == (b"", b"--\r\n")
        found = [part.partition(b"\r\n\r\n") for part in parts]
        assert [content for _, _, content in found] == [DATA[5:10], DATA[100:300], DATA[-4:]]
        assert b"Content-Type: audio/wav\r\nContent-Range: bytes 100-299/" in found[1][0]

    @pytest.mark.parametrize("wanted", ["bytes=0-99,50-149", "bytes=50-149,0-49", "bytes=0-149,10-20,149-149"])
    def test_ranges_that_touch_are_one(self, served_audio: httpx.Client, wanted: str) -> None:
        answer = ranged(served_audio, wanted)
        assert (answer.status_code, answer.content) == (206, DATA[:150])

    @pytest.mark.parametrize("wanted", [f"bytes={len(DATA)}-", "bytes=-0", f"bytes={len(DATA)}-{len(DATA) + 5},-0"])
    def test_where_nothing_is(self, served_audio: httpx.Client, wanted: str) -> None:
        answer = ranged(served_audio, wanted)
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
        assert answer.headers["content-type"] == "application/problem+json"

    @pytest.mark.parametrize(
        "wanted",
        [
            *("", "bytes", "bytes=", "bytes=-", "bytes=9-5", "bytes=a-b", "bytes=1-2-3", "bytes=0-1,x", "bytes=١-٢"),
            *("lines=0-5", "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 200, 2))),
        ],
    )
    def test_what_is_no_range_is_ignored(self, served_audio: httpx.Client, wanted: str) -> None:
        answer = served_audio.get("audio", headers=[(b"Range", wanted.encode())])
        assert answer.status_code == 200 and len(answer.content) == len(DATA)

    @given(
        size=st.integers(1, 300),
        specs=st.lists(
            st.tuples(st.integers(0, 400) | st.none(), st.integers(0, 400) | st.none()), min_size=1, max_size=5
        ),
    )
    @settings(max_examples=300)
    def test_together_they_name_exactly_the_bytes_asked_for(
        self, size: int, specs: list[tuple[int | None, int | None]]
    ) -> None:
        text = ",".join(f"{'' if a is None else a}-{'' if b is None else b}" for a, b in specs)
        found = ranges.parse(f"bytes={text}", size)
        if any((a is None and b is None) or (None not in (a, b) and a > b) for a, b in specs):  # type: ignore[operator]
            assert found is None
            return
        asked = [
            range(size)[max(0, size - (b or 0)) :] if a is None else range(size)[a : None if b is None else b + 1]
            for a, b in specs
        ]
        wanted = set().union(*asked)
        assert found is not None and set().union(*found) == wanted
        assert sum(map(len, found)) == len(wanted)


class TestConditions:
    def test_a_range_of_what_the_client_has_begun_to_load(self, served_audio: httpx.Client) -> None:
        whole = served_audio.head("audio")
        for condition in (whole.headers["etag"], whole.headers["last-modified"]):
            assert ranged(served_audio, "bytes=0-9", **{"If-Range": condition}).status_code == 206
        for condition in ('"other"', f"W/{whole.headers['etag']}", "Thu, 01 Jan 1970 00:00:00 GMT"):
            answer = ranged(served_audio, "bytes=0-9", **{"If-Range": condition})
            assert answer.status_code == 200 and len(answer.content) == len(DATA)

    def test_what_the_client_has_is_not_sent_again(self, served_audio: httpx.Client) -> None:
        tag = served_audio.head("audio").headers["etag"]
        for condition in (tag, f'"x", W/{tag}', "*"):
            for answer in (
                served_audio.get("audio", headers={"If-None-Match": condition}),
                served_audio.head("audio", headers={"If-None-Match": condition}),
            ):
                assert (answer.status_code, answer.content) == (304, b"")
                assert answer.headers["etag"] == tag
        assert served_audio.get("audio", headers={"If-None-Match": '"x"'}).status_code == 200

    def test_what_must_not_have_changed(self, served_audio: httpx.Client) -> None:
        tag = served_audio.head("audio").headers["etag"]
        assert ranged(served_audio, "bytes=0-0", **{"If-Match": tag}).status_code == 206
        assert ranged(served_audio, "bytes=0-0", **{"If-Match": '"x"'}).status_code == 412

    def test_dates(self) -> None:
        at = datetime(2026, 11, 28, 12, 0, 0, 700_000, tzinfo=UTC)
        version = Version(10, "tag", at)
        same, before = version.last_modified, format_datetime(at - timedelta(days=1), usegmt=True)

        def status(**headers: str) -> int:
            return ranges.select({name.replace("_", "-"): value for name, value in headers.items()}, version).status

        assert status(if_modified_since=same) == 304
        assert status(if_modified_since=before) == 200
        assert status(if_modified_since="yesterday") == 200
        assert status(if_none_match='"other"', if_modified_since=same) == 200  # the tag alone counts
        assert status(if_unmodified_since=before) == 412
        assert status(if_unmodified_since=same, range="bytes=0-1") == 206


class TestPlayers:
    def test_a_browser_seeks(self, served_audio: httpx.Client) -> None:
        """As browsers do: all of it, given up after the head; then the end, then from the middle, each if unchanged."""
        with served_audio.stream("GET", "audio", headers={"Range": "bytes=0-"}) as first:
            assert first.status_code == 206 and next(first.iter_raw(4096)) == DATA[:4096]
            tag = first.headers["etag"]
        for start in (len(DATA) - 65_536, len(DATA) // 2, 44):
            with served_audio.stream("GET", "audio", headers={"Range": f"bytes={start}-", "If-Range": tag}) as next_one:
                assert next_one.status_code == 206
                assert next(next_one.iter_raw(1000)) == DATA[start : start + 1000]

    def test_ffmpeg_seeks_over_http(self, served_audio: httpx.Client) -> None:
        with av.open(f"{served_audio.base_url}audio") as container:
            container.seek(60 * 1_000_000)
            frame = next(container.decode(audio=0))
            assert frame.time is not None and 59 < frame.time <= 60
            start = 44 + round(frame.time * 16_000) * 2
            assert frame.to_ndarray().astype("<i2").tobytes() == DATA[start : start + frame.samples * 2]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Any]]]:
    """A server whose recordings tell what is read of them."""
    told: list[Any] = []
    original = AudioStorageSystem.open_audio

    class Telling(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            told.append(len(data))
            return data

        def close(self) -> None:
            if not self.closed:
                told.append("closed")
            super().close()

    def open_audio(self: AudioStorageSystem, audio_id: int) -> BinaryIO:
        return Telling(original(self, audio_id))  # type: ignore[arg-type,return-value]

    monkeypatch.setattr(AudioStorageSystem, "open_audio", open_audio)
    (tmp_path / "long.wav").write_bytes(sound(1200))  # 38 MB
    with AudioStorageSystem(tmp_path / "archive") as storage:
        storage.store_audio_file(tmp_path / "long.wav")
    with serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url:
        yield f"{url}/api/v1/recordings/1/audio", told


def test_only_what_is_asked_for_is_read(opened: tuple[str, list[Any]]) -> None:
    url, told = opened
    assert len(httpx.get(url, headers={"Range": "bytes=20000000-20000999"}, timeout=60).content) == 1000
    until(lambda: told == [1000, "closed"])


def test_a_client_that_reads_nothing_has_little_read_for_it(opened: tuple[str, list[Any]]) -> None:
    url, told = opened
    place = urlsplit(url)
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect((place.hostname, place.port))
        silent.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        read, end = 0, time.monotonic() + 30
        while not read or sum(told) != read:  # until no more is read
            assert time.monotonic() < end
            read = sum(told)
            time.sleep(0.5)
        assert read < 8 << 20
    until(lambda: "closed" in told)  # the client is gone: so is the file


class TestWhose:
    def test_what_one_may_not_see_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(sound())
        with AudioStorageSystem(tmp_path / "archive") as storage:
            for name in ("ann", "ben"):
                storage.users.add(name)
            audio_id = storage.as_user("ann").store_audio_file(tmp_path / "a.wav")
            ann, ben = (storage.as_user(name).tokens.create(scopes=["read"]).secret for name in ("ann", "ben"))
        with (
            serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            for path in ("", "/audio", "/waveform", "/metadata/history"):
                mine, other, none = (
                    client.get(f"/api/v1/recordings/{number}{path}", headers=as_bearer(secret))
                    for number, secret in ((audio_id, ann), (audio_id, ben), (audio_id + 1, ben))
                )
                assert (mine.status_code, other.status_code, none.status_code) == (200, 404, 404)
                assert other.text.replace(str(int(audio_id)), "N") == none.text.replace(str(audio_id + 1), "N")
            assert client.head(f"/api/v1/recordings/{audio_id}/audio", headers=as_bearer(ben)).status_code == 404
            assert client.get(f"/api/v1/recordings/{audio_id}/audio").status_code == 401

    def test_audio_that_a_rule_removed(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(sound())
        with AudioStorageSystem(tmp_path / "archive") as storage:
            audio_id = storage.store_audio_file(tmp_path / "a.wav")
            storage.retention.add("no audio", 0, stage="audio")
            storage.retention.run()
            with pytest.raises(AudioRemoved):
                storage.peaks(audio_id)
        with (
            serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            for answer in (
                client.get(f"/api/v1/recordings/{audio_id}/audio"),
                client.head(f"/api/v1/recordings/{audio_id}/audio"),
                client.get(f"/api/v1/recordings/{audio_id}/waveform"),
            ):
                assert answer.status_code == 410


def test_a_recording_that_is_still_spoken_has_no_bytes_yet(tmp_path: Path, scripted_engine: object) -> None:
    with (
        AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage,
        storage.live(transcriber="scripted") as session,
        serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url,
        httpx.Client(base_url=f"{url}/api/v1/recordings/{session.audio_id}", timeout=60) as client,
    ):
        session.write(integers(tone(1)).tobytes())
        for headers in ({}, {"Range": "bytes=0-9"}):
            answer = client.get("audio", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (409, "still_recording")
        assert client.head("audio").status_code == client.get("waveform").status_code == 409


@pytest.mark.parametrize(("encrypted", "most"), [(False, 1 << 20), (True, 5 << 20)])
def test_a_range_of_an_object_in_a_bucket_reads_little_of_it(
    tmp_path: Path, s3_url: str, bad_day: Day, *, encrypted: bool, most: int
) -> None:
    """The bucket counts what it sends: of a plain recording about what is asked for, of a sealed one its segment."""
    data = sound(640, seed=3)  # 20 MB
    options: dict[str, Any] = {"blobs": s3_url, "blob_cache_bytes": 0}
    (tmp_path / "long.wav").write_bytes(data)
    if encrypted:
        options |= {"encryption": bytes(range(32))}
    with AudioStorageSystem(tmp_path / "archive", **options) as storage:
        storage.store_audio_file(tmp_path / "long.wav")
    with (
        serving(lambda: AudioStorageSystem(tmp_path / "archive", **options)) as url,
        httpx.Client(timeout=60) as client,
    ):
        client.head(f"{url}/api/v1/recordings/1/audio")
        before = bad_day.sent
        for start in (15_000_000, 3_000_000):
            answer = client.get(f"{url}/api/v1/recordings/1/audio", headers={"Range": f"bytes={start}-{start + 999}"})
            assert answer.content == data[start : start + 1000]
        assert bad_day.sent - before < most


# What a player draws


class TestPeaks:
    @given(
        lengths=st.lists(st.integers(0, 3000), max_size=12),
        points=st.integers(1, 50),
        seed=st.integers(0, 2**32),
    )
    @settings(max_examples=200, deadline=None)
    def test_they_are_those_of_equal_parts(self, lengths: list[int], points: int, seed: int) -> None:
        samples = np.random.default_rng(seed).standard_normal(sum(lengths)).astype(np.float32)
        blocks = np.split(samples, np.cumsum(lengths)[:-1]) if lengths else []
        found = peaks(blocks, points)
        assert len(found) == min(points, len(samples))
        if not len(samples):
            return
        assert (found[:, 0].min(), found[:, 1].max()) == (samples.min(), samples.max())
        slack = len(samples) / points / 4 + 1  # a part begins at most so many samples off
        for number, (low, high) in enumerate(found):
            start, end = number * len(samples) / len(found), (number + 1) * len(samples) / len(found)
            inner = samples[int(start + slack) : max(0, int(end - slack))]
            outer = samples[max(0, int(start - slack)) : int(end + slack) + 1]
            assert outer.min() <= low and high <= outer.max()
            if len(inner):
                assert low <= inner.min() and high >= inner.max()

    def test_memory_does_not_grow(self) -> None:
        tracemalloc.start()
        try:
            found = peaks((np.full(16_000, 0.5, np.float32) for _ in range(2_000)), 1000)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
        assert found.shape == (1000, 2) and (found == 0.5).all()

    def test_of_a_recording(self, tmp_path: Path) -> None:
        loud_end = np.concatenate([tone(2, level=0.1), tone(2, level=0.8)])
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(integers(loud_end).tobytes())
        with AudioStorageSystem(tmp_path / "archive") as storage:
            audio_id = storage.store_audio_file(tmp_path / "a.wav")
            shape = storage.peaks(audio_id, 100)
            assert (len(shape.peaks), shape.duration) == (100, 4.0)
            for low, high in shape.peaks[:50]:
                assert (low, high) == (pytest.approx(-0.1, abs=0.002), pytest.approx(0.1, abs=0.002))
            for low, high in shape.peaks[50:]:
                assert (low, high) == (pytest.approx(-0.8, abs=0.002), pytest.approx(0.8, abs=0.002))
            for wrong in (0, 20_001):
                with pytest.raises(InvalidInput):
                    storage.peaks(audio_id, wrong)
            with pytest.raises(DeadlineExceeded):
                storage.peaks(audio_id, deadline=0)
            gone = Cancellation()
            gone.cancel()
            with pytest.raises(Cancelled):
                storage.peaks(audio_id, cancellation=gone)

    def test_over_http(self, served_audio: httpx.Client) -> None:
        answer = served_audio.get("waveform", params={"points": 250})
        assert answer.status_code == 200
        assert answer.json()["duration"] == pytest.approx(100)
        assert len(answer.json()["peaks"]) == 250
        assert all(-1 <= low < -0.9 and 0.9 < high <= 1 for low, high in answer.json()["peaks"])
        tag = answer.headers["etag"]
        assert served_audio.get("waveform", params={"points": 250}, headers={"If-None-Match": tag}).status_code == 304
        assert served_audio.get("waveform", params={"points": 9}, headers={"If-None-Match": tag}).status_code == 200
        assert served_audio.get("waveform", params={"points": 0}).status_code == 422

    def test_many_at_once_are_drawn_one_after_the_other(self, served_audio: httpx.Client) -> None:
        answers: list[int] = []

        def ask() -> None:
            answers.append(httpx.get(f"{served_audio.base_url}waveform", timeout=60).status_code)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert httpx.get(str(served_audio.base_url).rstrip("/"), timeout=60).status_code == 200
        for thread in threads:
            thread.join()
        assert answers == [200] * 8
