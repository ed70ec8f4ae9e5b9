"""Spools: every frame written is joined again, byte for byte, and what is missing is proven; sealed or not."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import wave
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system.audio import spool_seal
from audio_storage_system.audio.spool import PIECE_SECONDS, Spool, SpoolWriter, find_abandoned
from audio_storage_system.audio.wav import wav_header
from audio_storage_system.errors import ArchiveDamaged, StorageFull
from sounds import join

RATE = 8000
KEY = bytes(range(32))
SECOND = os.urandom(RATE * 2)


@pytest.fixture(params=["plain", "sealed"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    """That of the archive, where it is encrypted."""
    return None if request.param == "plain" else KEY


def spooled(folder: Path, *parts: bytes, channels: int = 1, key: bytes | None = None) -> Spool:
    writer = SpoolWriter(folder, RATE, channels, key=key)
    for part in parts:
        writer.write(part)
    return writer.close()


def samples_of(path: Path) -> bytes:
    with wave.open(str(path), "rb") as file:
        return file.readframes(file.getnframes())


def pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pcm"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "one"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "joined.wav"


class TestJoining:
    @settings(max_examples=30, deadline=None)
    @given(
        channels=st.integers(1, 3),
        parts=st.lists(st.integers(1, 9000) | st.integers(-RATE, -1), max_size=8),
        sealed=st.booleans(),
    )
    def test_every_frame_comes_back_and_every_frame_lost_is_counted(
        self, channels: int, parts: list[int], sealed: bool
    ) -> None:
        with tempfile.TemporaryDirectory() as name:
            key = KEY if sealed else None
            writer, written = SpoolWriter(Path(name) / "spool", RATE, channels, key=key), b""
            for frames in parts:
                if frames < 0:
                    writer.skip(-frames)
                    continue
                sound = os.urandom(frames * channels * 2)
                writer.write(sound)
                written += sound
            target = Path(name) / "joined.wav"
            report = join(writer.close(), target)
            assert samples_of(target) == written
            assert report.frames == len(written) // channels // 2
            assert report.missing == -sum(frames for frames in parts if frames < 0)
            assert round(sum(gap.duration for gap in report.gaps) * RATE) == report.missing
            assert report.torn_bytes == 0

    def test_the_wav_file_has_the_spools_rate_and_channels(self, folder: Path, target: Path, key: bytes | None) -> None:
        report = join(spooled(folder, SECOND, channels=2, key=key), target)
        with wave.open(str(target)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 2, 2)
        assert (report.seconds, report.missing_seconds, report.complete) == (0.5, 0.0, True)

    def test_pieces_are_at_most_a_second_long(self, folder: Path, key: bytes | None) -> None:
        spooled(folder, SECOND * 3, key=key)
        assert len(pieces(folder)) == 3 / PIECE_SECONDS
        assert all(path.stat().st_size <= RATE * 2 for path in pieces(folder))

    def test_joining_writes_nothing(self, folder: Path, key: bytes | None) -> None:
        spool = spooled(folder, SECOND, key=key)
        before = {path.name: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
        stream, _ = spool.open()
        with stream:
            assert stream.read().endswith(SECOND)
        assert {path.name: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())} == before

    @settings(max_examples=30, deadline=None)
    @given(
        steps=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 9_000)), max_size=8),
        sealed=st.booleans(),
    )
    def test_the_joined_stream_is_read_from_anywhere(self, steps: list[tuple[int, int]], sealed: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            stream, _ = spooled(Path(name) / "spool", SECOND[:9000], SECOND, key=KEY if sealed else None).open()
            with stream:
                whole = stream.read()
                for start, size in steps:
                    assert stream.seek(start) == start
                    assert stream.read(size) == whole[start : start + size]
                assert stream.seek(0, os.SEEK_END) == len(whole)

    def test_frames_that_are_not_whole_are_refused(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="not whole frames"):
            spooled(folder, b"123")


class TestDamage:
    def test_a_piece_that_vanished_is_reported_with_its_place(
        self, folder: Path, target: Path, key: bytes | None
    ) -> None:
        spool = spooled(folder, SECOND * 2, key=key)
        pieces(folder)[1].unlink()
        report = join(spool, target)
        half = len(SECOND) // 2
        assert samples_of(target) == SECOND[:half] + SECOND
        assert (report.missing_seconds, report.complete) == (0.5, False)
        assert [(gap.start, gap.end) for gap in report.gaps] == [(0.5, 1.0)]

    def test_a_piece_that_changed_on_disk_is_left_out_and_reported(
        self, folder: Path, target: Path, key: bytes | None
    ) -> None:
        spool = spooled(folder, SECOND, key=key)
        last = pieces(folder)[-1]
        last.write_bytes(bytes(last.stat().st_size))
        report = join(spool, target)
        assert samples_of(target) == SECOND[: len(SECOND) // 2]
        assert report.missing_seconds == 0.5

    def test_a_damaged_journal_costs_no_sound(self, folder: Path, target: Path, key: bytes | None) -> None:
        spool = spooled(folder, SECOND * 2, key=key)
        journal = folder / "pieces.jsonl"
        lines = journal.read_bytes().splitlines()
        journal.write_bytes(b"\n".join([lines[0], b"\xff\x00{", lines[2], lines[3][:10]]))
        report = join(spool, target)
        assert samples_of(target) == SECOND * 2
        assert report.complete

    def test_a_torn_last_piece_is_trimmed_to_whole_frames(self, folder: Path, target: Path) -> None:
        spool = spooled(folder, SECOND, channels=2)
        (folder / "000002.pcm").write_bytes(b"12345678abc")
        assert spool.seconds == 0.5 + 2 / RATE
        report = join(spool, target)
        assert samples_of(target) == SECOND + b"12345678"
        assert (report.torn_bytes, report.missing) == (3, 0)

    def test_a_piece_that_changes_while_it_is_read_ends_the_reading(self, folder: Path, key: bytes | None) -> None:
        stream, _ = spooled(folder, SECOND, key=key).open()
        last = pieces(folder)[-1]
        last.write_bytes(bytes(last.stat().st_size))
        with stream, pytest.raises(ArchiveDamaged, match="piece 2 changed"):
            stream.read()

    def test_a_disk_that_was_full_for_a_while_costs_nothing_written_before(
        self, folder: Path, target: Path, key: bytes | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = SpoolWriter(folder, RATE, 1, key=key)
        writer.write(SECOND[:1000])
        real = os.write

        def full(descriptor: int, data: Any) -> int:
            if len(data) < 100:
                raise OSError(errno.ENOSPC, "full")
            return real(descriptor, data[: len(data) - 50])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(StorageFull):
                writer.write(SECOND[1000:2000])
        writer.write(SECOND[2000:3000])
        report = join(writer.close(), target)
        assert samples_of(target) == SECOND[:1000] + SECOND[2000:3000]
        assert report.complete


class TestDurability:
    def test_what_was_written_is_synced_within_a_second(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: set[int] = set()
        real = os.fsync

        def watched(descriptor: int) -> None:
            synced.add(os.fstat(descriptor).st_ino)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", watched)
        writer = SpoolWriter(folder, RATE, 1)
        writer.write(SECOND[:200])
        assert pieces(folder)[0].stat().st_ino not in synced
        time.sleep(PIECE_SECONDS)
        writer.sync()
        expected = {pieces(folder)[0], folder, folder / "pieces.jsonl", folder / "manifest.json"}
        assert {path.stat().st_ino for path in expected - {folder}} <= synced
        if sys.platform != "win32":
            assert folder.stat().st_ino in synced
        writer.close()

    def test_the_manifest_tells_when_and_how_and_what_for(self, folder: Path) -> None:
        before = datetime.now(UTC)
        when = datetime(2026, 11, 22, tzinfo=UTC)
        spool = SpoolWriter(folder, RATE, 2, {"user": "john", "when": when}).close()
        assert before <= spool.started_at <= datetime.now(UTC)
        assert (spool.sample_rate, spool.channels) == (RATE, 2)
        assert spool.metadata == {"user": "john", "when": "2026-11-22T00:00:00+00:00"}
        assert timedelta(minutes=spool.utc_offset_minutes) == datetime.now().astimezone().utcoffset()
        assert json.loads((folder / "manifest.json").read_text())["pid"] == os.getpid()


CHILD = """
import os, sys, time
from pathlib import Path
from audio_storage_system.audio.spool import SpoolWriter

key = bytes.fromhex(sys.argv[3]) or None
writer = SpoolWriter(Path(sys.argv[1]), 8000, 1, {"user": "john"}, key)
with open(sys.argv[2], "rb") as file:
    while block := file.read(1600):
        writer.write(block)
print("written", flush=True)
time.sleep(60)
"""


class TestAbandoned:
    def test_a_killed_writers_spool_is_found_with_all_that_it_wrote(
        self, folder: Path, target: Path, tmp_path: Path, key: bytes | None
    ) -> None:
        sound = SECOND * 2 + SECOND[:4000]
        (tmp_path / "sound").write_bytes(sound)
        command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "sound"), (key or b"").hex()]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout
        assert child.stdout.readline() == "written\n"
        assert find_abandoned(folder.parent) == []
        child.kill()
        child.wait()
        child.stdout.close()
        (spool,) = find_abandoned(folder.parent, key)
        report = join(spool, target)
        assert samples_of(target) == sound
        assert (report.complete, spool.metadata) == (True, {"user": "john"})
        spool.discard()
        assert list(folder.parent.iterdir()) == []

    def test_a_spool_that_is_being_recovered_is_not_found_again_until_released(self, folder: Path) -> None:
        spool = spooled(folder, SECOND)
        assert find_abandoned(folder.parent) == []
        spool.release()
        (found,) = find_abandoned(folder.parent)
        assert find_abandoned(folder.parent) == []
        found.release()

    def test_the_oldest_comes_first(self, folder: Path) -> None:
        for name in ("b", "a", "c"):
            spooled(folder.parent / name, SECOND).release()
        found = find_abandoned(folder.parent)
        assert [spool.folder.name for spool in found] == ["b", "a", "c"]
        assert all(one.started_at < other.started_at for one, other in pairwise(found))

    def test_joining_leaves_the_spool_and_only_discarding_removes_it(self, folder: Path, target: Path) -> None:
        spool = spooled(folder, SECOND)
        join(spool, target)
        assert len(pieces(folder)) == 2
        spool.discard()
        assert not folder.exists()

    def test_a_discard_that_was_interrupted_is_finished(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spool = spooled(folder, SECOND)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "unplugged")))
            spool.discard()
        assert len(pieces(folder)) == 2
        assert find_abandoned(folder.parent) == []
        assert not folder.exists()

    def test_one_unreadable_spool_hides_no_other_and_is_not_removed(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        spooled(folder, SECOND).release()
        spooled(folder.parent / "two", SECOND).release()
        (folder / "manifest.json").write_text('{"format": "pcm_s16le", "version": 99}')
        with caplog.at_level(logging.WARNING):
            assert [spool.folder.name for spool in find_abandoned(folder.parent)] == ["two"]
        assert "version 99 is not known" in caplog.text
        assert len(pieces(folder)) == 2
        with pytest.raises(ArchiveDamaged):
            Spool(folder)

    def test_there_may_be_no_spools_at_all(self, tmp_path: Path) -> None:
        assert find_abandoned(tmp_path / "absent") == []


class TestSealed:
    def test_nothing_that_was_captured_lies_there_in_clear(self, folder: Path) -> None:
        SpoolWriter(folder, RATE, 1, {"user": "john"}, KEY).write(SECOND[:1000])
        found = b"".join(path.read_bytes() for path in folder.iterdir())
        assert not any(SECOND[at : at + 16] in found for at in range(0, 984, 2))
        assert b"john" not in found and b"started_at" not in found and b"frames" not in found

    def test_another_key_or_none_leaves_the_spool_where_it_is(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        spooled(folder, SECOND, key=KEY).release()
        with caplog.at_level(logging.WARNING):
            assert find_abandoned(folder.parent) == [] == find_abandoned(folder.parent, bytes(32))
        assert "this archive has no key" in caplog.text and "another key" in caplog.text
        assert len(pieces(folder)) == 2

    def test_one_from_before_the_archive_had_a_key_is_recovered(self, folder: Path, target: Path) -> None:
        spooled(folder, SECOND).release()
        (spool,) = find_abandoned(folder.parent, KEY)
        join(spool, target)
        assert samples_of(target) == SECOND

    def test_a_record_torn_by_the_end_of_its_writer_costs_only_itself(self, folder: Path, target: Path) -> None:
        writer = SpoolWriter(folder, RATE, 1, key=KEY)
        for start in range(0, 3000, 1000):
            writer.write(SECOND[start : start + 1000])
        torn = pieces(folder)[0]
        torn.write_bytes(torn.read_bytes()[:-10])
        writer._lock.release()
        (spool,) = find_abandoned(folder.parent, KEY)
        report = join(spool, target)
        assert samples_of(target) == SECOND[:2000]
        assert (report.missing, report.torn_bytes) == (0, 1018)

    def test_pieces_that_change_places_are_left_out(self, folder: Path, target: Path) -> None:
        spool = spooled(folder, SECOND * 2, key=KEY)
        first, second, *_ = pieces(folder)
        first.rename(folder / "x")
        second.rename(first)
        (folder / "x").rename(second)
        report = join(spool, target)
        assert samples_of(target) == SECOND
        assert report.missing_seconds == 1

    def test_pieces_of_another_capture_are_left_out(self, folder: Path, target: Path) -> None:
        spool = spooled(folder, SECOND, key=KEY)
        spooled(folder.parent / "two", SECOND, key=KEY)
        pieces(folder.parent / "two")[0].replace(pieces(folder)[0])
        assert join(spool, target).missing_seconds == 0.5

    def test_no_place_is_used_twice_when_the_journal_could_not_be_written(
        self, folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places: list[bytes] = []
        encrypt = AESGCM.encrypt

        class Watched:
            def __init__(self, key: bytes) -> None:
                self._cipher = AESGCM(key)

            def encrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
                places.append(nonce)
                return encrypt(self._cipher, nonce, data, bound)

            def decrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
                return self._cipher.decrypt(nonce, data, bound)

        monkeypatch.setattr(spool_seal, "AESGCM", Watched)
        writer = SpoolWriter(folder, RATE, 1, key=KEY)
        real = os.write
        for broken in (writer._journal, -1):
            with monkeypatch.context() as patch, suppress(StorageFull):
                patch.setattr(os, "write", lambda to, data, broken=broken: full() if to == broken else real(to, data))
                writer.write(SECOND[: RATE + 100])
        assert join(writer.close(), target).complete
        assert len(places) == len(set(places)) > 4


def full() -> int:
    raise OSError(errno.ENOSPC, "full")


class TestMoreThanFourGigabytes:
    def test_the_largest_riff_file_still_is_one(self) -> None:
        frames = (2**32 - 1 - 36) // 2
        assert wav_header(RATE, 1, frames)[:4] == b"RIFF"
        assert wav_header(RATE, 1, frames + 1)[:4] == b"RF64"

    def test_an_rf64_file_is_read_to_its_end(self, tmp_path: Path) -> None:
        import av

        seconds = 300_000
        path = tmp_path / "long.wav"
        with path.open("wb") as file:
            header = wav_header(RATE, 1, seconds * RATE)
            file.write(header)
            file.truncate(len(header) + seconds * RATE * 2)  # a hole: takes no room on disk
            file.seek(-len(SECOND), os.SEEK_END)
            file.write(SECOND)
        with av.open(path) as container:
            assert container.duration == seconds * 1_000_000
            container.seek((seconds - 1) * 1_000_000)
            sound = b"".join(frame.to_ndarray().tobytes() for frame in container.decode(audio=0))
        assert sound.endswith(SECOND)
        assert path.stat().st_size == int.from_bytes(header[20:28], "little") + 8
