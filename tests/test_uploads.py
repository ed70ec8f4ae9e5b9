"""Uploads in parts: whatever cuts them off, what was acknowledged is there, and what comes out is what went in."""

from __future__ import annotations

import errno
import hashlib
import itertools
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import (
    ChecksumMismatch,
    Conflict,
    InvalidInput,
    NotAudio,
    NotFound,
    OffsetMismatch,
    StorageFull,
    TooLarge,
)
from audio_storage_system.uploads import appending
from uploading import WAV, content_of, folder_of, sound, taking_uploads

pytestmark = pytest.mark.usefixtures("emptied")


@pytest.fixture(scope="module", params=["plain", "sealed"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    """An archive, encrypted or not."""
    with taking_uploads(tmp_path_factory.mktemp("uploads") / "archive", sealed=request.param == "sealed") as opened:
        yield opened


class TestArriving:
    def test_a_file_in_three_parts_is_the_file(self, archive: AudioStorageSystem) -> None:
        data, given = sound(3, seed=1), {"day": 1, "when": datetime(2026, 1, 2, tzinfo=UTC), "no": None}
        upload = archive.uploads.create(len(data), "talk é.wav", metadata=given, language="en", priority="high")
        for start, end in ((0, 10), (10, 50_000), (50_000, len(data))):
            assert archive.uploads.get(upload.id).offset == start
            upload = archive.uploads.append(upload.id, start, [data[start:end]])
        assert upload.complete
        job = archive.uploads.finish(upload.id)
        found = archive.get_recording(job.audio_id or 0)
        assert content_of(archive, job.audio_id) == data
        assert (found.original_name, found.metadata) == ("talk é.wav", given)
        assert (job.options["language"], job.priority.name, job.duplicate) == ("en", "HIGH", False)

    def test_finishing_again_gives_the_same_job(self, archive: AudioStorageSystem) -> None:
        data = sound(seed=2)
        upload = archive.uploads.append(archive.uploads.create(len(data), "a.wav").id, 0, [data])
        first, second = archive.uploads.finish(upload.id), archive.uploads.finish(upload.id)
        assert first.id == second.id
        found = archive.uploads.get(upload.id)
        assert (found.audio_id, found.job_id, found.offset) == (first.audio_id, first.id, len(data))
        with pytest.raises(Conflict, match="finished"):
            archive.uploads.append(upload.id, len(data), [])

    def test_the_same_bytes_again_are_a_duplicate(self, archive: AudioStorageSystem) -> None:
        data = sound(seed=3)
        jobs = []
        for _ in range(2):
            upload = archive.uploads.append(archive.uploads.create(len(data), "a.wav").id, 0, [data])
            jobs.append(archive.uploads.finish(upload.id))
        assert [job.duplicate for job in jobs] == [False, True]
        assert jobs[0].audio_id == jobs[1].audio_id
        assert archive.uploads.get(upload.id).duplicate

    def test_a_wrong_offset_is_told_the_right_one(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        archive.uploads.append(upload.id, 0, [WAV[:100]])
        for wrong in (0, 99, 101, 10**18):
            with pytest.raises(OffsetMismatch) as told:
                archive.uploads.append(upload.id, wrong, [b"x"])
            assert told.value.details["offset"] == 100
        assert archive.uploads.get(upload.id).offset == 100

    def test_no_more_is_taken_than_was_announced(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        with pytest.raises(TooLarge):
            archive.uploads.append(upload.id, 0, [WAV, b"and more"])
        assert archive.uploads.get(upload.id).complete
        assert content_of(archive, archive.uploads.finish(upload.id).audio_id) == WAV

    def test_what_is_not_all_there_cannot_be_finished(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        archive.uploads.append(upload.id, 0, [WAV[:-1]])
        with pytest.raises(Conflict, match="bytes"):
            archive.uploads.finish(upload.id)

    def test_what_is_no_audio_is_removed(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(5, "a.wav")
        archive.uploads.append(upload.id, 0, [b"hello"])
        with pytest.raises(NotAudio):
            archive.uploads.finish(upload.id)
        with pytest.raises(NotFound):
            archive.uploads.get(upload.id)

    def test_a_sender_that_fails_loses_nothing_of_what_it_sent(self, archive: AudioStorageSystem) -> None:
        def chunks() -> Iterator[bytes]:
            yield WAV[:70]
            yield WAV[70:200]
            raise ConnectionResetError

        upload = archive.uploads.create(len(WAV), "a.wav")
        with pytest.raises(ConnectionResetError):
            archive.uploads.append(upload.id, 0, chunks())
        assert archive.uploads.get(upload.id).offset == 200
        archive.uploads.append(upload.id, 200, [WAV[200:]])
        assert content_of(archive, archive.uploads.finish(upload.id).audio_id) == WAV

    def test_a_full_disk_costs_nothing_that_was_written(
        self, archive: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The third write fails half-way, and what is written of it must not stand in the way of what follows."""
        data, whole, times = sound(100, seed=6), appending._write, itertools.count(1)  # 3.2 MB: four writes

        def fills_up(descriptor: int, record: bytes) -> None:
            if len(record) > 100 and next(times) == 3:
                whole(descriptor, record[: len(record) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(descriptor, record)

        upload = archive.uploads.create(len(data), "full.wav")
        monkeypatch.setattr(appending, "_write", fills_up)
        monkeypatch.setattr(appending, "COMMIT_SECONDS", math.inf)
        with pytest.raises(StorageFull):
            archive.uploads.append(upload.id, 0, (data[i : i + 100_000] for i in range(0, len(data), 100_000)))
        offset = archive.uploads.get(upload.id).offset
        assert offset == 2 << 20
        archive.uploads.append(upload.id, offset, [data[offset:]])
        assert content_of(archive, archive.uploads.finish(upload.id).audio_id) == data

    @settings(max_examples=25, deadline=None)
    @given(cuts=st.lists(st.integers(0, 3_000_000), max_size=6), seed=st.integers(0, 2**32))
    def test_cut_anywhere_it_comes_out_exactly(self, archive: AudioStorageSystem, cuts: list[int], seed: int) -> None:
        """Each part ends in a cut connection, in pieces of any size; a crash may leave rubbish behind it."""
        chance, data = random.Random(seed), sound(50, seed=seed)  # 1.6 MB: more than one record
        upload = archive.uploads.create(len(data), "cut.wav", sha256=hashlib.sha256(data).hexdigest())
        for cut in cuts:
            start = archive.uploads.get(upload.id).offset
            with pytest.raises(ConnectionResetError):
                archive.uploads.append(upload.id, start, _broken(data[start : start + cut], chance))
            offset = archive.uploads.get(upload.id).offset
            assert offset == min(len(data), start + cut)
            if chance.random() < 0.5:
                _leave_rubbish(folder_of(archive, upload.id), chance)
                assert archive.uploads.get(upload.id).offset == offset
        start = archive.uploads.get(upload.id).offset
        archive.uploads.append(upload.id, start, [data[start:]])
        job = archive.uploads.finish(upload.id)
        assert hashlib.sha256(content_of(archive, job.audio_id)).digest() == hashlib.sha256(data).digest()
        archive.delete(job.audio_id or 0)


def _broken(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while data:
        size = chance.randrange(1, 400_000)
        yield data[:size]
        data = data[size:]
    raise ConnectionResetError


def _leave_rubbish(folder: Path, chance: random.Random) -> None:
    """What a crash leaves: content that nobody acknowledged, and half a line."""
    with (folder / "content").open("ab") as file:
        file.write(chance.randbytes(chance.randrange(5_000)))
    with (folder / "journal").open("ab") as file:
        file.write(b"999999 99"[: chance.randrange(9)])


class TestChecksums:
    def test_a_part_with_its_checksum_is_kept(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        for name in ("sha1", "sha256"):
            start = archive.uploads.get(upload.id).offset
            part = WAV[start : start + 1000]
            archive.uploads.append(upload.id, start, [part], (name, hashlib.new(name, part).digest()))
        assert archive.uploads.get(upload.id).offset == 2000

    def test_a_part_without_it_is_discarded(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        archive.uploads.append(upload.id, 0, [WAV[:10]])
        with pytest.raises(ChecksumMismatch):
            archive.uploads.append(upload.id, 10, [WAV[10:]], ("sha256", hashlib.sha256(WAV).digest()))
        assert archive.uploads.get(upload.id).offset == 10

    def test_a_part_that_is_cut_off_before_it_could_be_checked_too(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        wanted = ("sha256", hashlib.sha256(WAV).digest())
        with pytest.raises(ConnectionResetError):
            archive.uploads.append(upload.id, 0, _broken(WAV[:1000], random.Random(0)), wanted)
        assert archive.uploads.get(upload.id).offset == 0

    def test_the_whole_file_is_checked_before_it_is_stored(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav", sha256="0" * 64)
        archive.uploads.append(upload.id, 0, [WAV])
        with pytest.raises(ChecksumMismatch):
            archive.uploads.finish(upload.id)
        with pytest.raises(NotFound):
            archive.uploads.get(upload.id)

    def test_an_unknown_algorithm_is_named(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        with pytest.raises(InvalidInput, match="crc32"):
            archive.uploads.append(upload.id, 0, [], ("crc32", b""))


DYING = """
import sys
from audio_storage_system import AudioStorageSystem
from audio_storage_system.uploads import appending

home, upload_id, source = sys.argv[1:]
appending.COMMIT_BYTES = 300_000
with AudioStorageSystem(home, create=False) as storage, open(source, "rb") as file:
    start = storage.uploads.get(upload_id).offset
    file.seek(start)
    def chunks():
        while data := file.read(70_000):
            yield data
            print(file.tell(), flush=True)
    storage.uploads.append(upload_id, start, chunks())
print("done", flush=True)
"""


def test_killed_in_the_middle_it_goes_on_from_what_is_safe(archive: AudioStorageSystem, tmp_path: Path) -> None:
    data, chance = sound(100, seed=5), random.Random(5)  # 3.2 MB
    source = tmp_path / "source.wav"
    source.write_bytes(data)
    upload, deaths = archive.uploads.create(len(data), "killed.wav"), 0
    while not archive.uploads.get(upload.id).complete:
        before = archive.uploads.get(upload.id).offset
        command = [sys.executable, "-c", DYING, str(archive.home), upload.id, str(source)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        if deaths < 2:
            sent = [int(process.stdout.readline()) for _ in range(chance.randrange(5, 16))][-1]
            time.sleep(chance.random() * 0.01)
            process.send_signal(signal.SIGKILL)
            deaths += 1
            rest = [int(line) for line in process.stdout if line.strip().isdigit()]
            process.wait()
            offset = archive.uploads.get(upload.id).offset
            assert before < offset and sent - 370_000 <= offset <= (rest or [sent])[-1] + 70_000
        else:
            assert process.communicate(timeout=60)[0].endswith("done\n") and process.returncode == 0
        process.stdout.close()
    assert content_of(archive, archive.uploads.finish(upload.id).audio_id) == data


def test_an_append_holds_a_megabyte_or_two(archive: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = archive.uploads.create(64 << 20, "big.wav")
    with archive.uploads.appending(upload.id, 0) as open_one:
        for _ in range(64 * 16):
            open_one.write(bytes(64 << 10))
            assert len(open_one._waiting) <= 1 << 20
        monkeypatch.setattr(appending, "COMMIT_SECONDS", 0.0)
    assert archive.uploads.get(upload.id).offset == 64 << 20
