"""Uploads in parts: whatever cuts them off, what was acknowledged is there, and what comes out is what went in."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import orphans
from audio_storage_system.errors import (
    ArchiveDamaged,
    ChecksumMismatch,
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidMetadata,
    NotAudio,
    NotFound,
    OffsetMismatch,
    StorageFull,
    TooLarge,
    TooManyUploads,
    UnknownSpec,
    UploadBusy,
)
from audio_storage_system.jobs.upkeep import tidy
from audio_storage_system.uploads import UploadFolder, appending
from catalogues import Catalogues

OLD = "0" * 32


def sound(seconds: float = 1.0, seed: int = 0) -> bytes:
    """A WAV file of noise."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, 16_000, 0, "NONE", ""))
        wav.writeframes(random.Random(seed).randbytes(int(seconds * 16_000) * 2))
    return file.getvalue()


WAV = sound()


@pytest.fixture(scope="module", params=["plain", "sealed"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    """An archive, encrypted or not."""
    place = tmp_path_factory.mktemp("uploads") / "archive"
    with Catalogues(encrypted=request.param == "sealed").at(place) as home, AudioStorageSystem(home) as opened:
        opened.users.add("ann")
        opened.users.add("ben")
        yield opened


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """No uploads are left to the next test."""
    yield
    if "archive" in request.fixturenames:
        opened = request.getfixturevalue("archive")
        for view in (opened, opened.as_user("ann"), opened.as_user("ben")):
            for upload in view.uploads.list():
                view.uploads.abort(upload.id)


def content_of(storage: AudioStorageSystem, audio_id: int | None) -> bytes:
    with storage.open_audio(audio_id or 0) as file:
        return file.read()


def folder_of(storage: AudioStorageSystem, upload_id: str, whose: int = 1) -> Path:
    return storage.home / "spool" / "uploads" / str(whose) / upload_id


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


class TestBounds:
    def test_what_could_never_be_stored_is_refused_before_a_byte_is_sent(self, archive: AudioStorageSystem) -> None:
        uploads = archive.uploads
        with pytest.raises(NotAudio):
            uploads.create(0, "a.wav")
        with pytest.raises(TooLarge):
            uploads.create(archive._archive.settings.max_file_bytes + 1, "a.wav")
        with pytest.raises(InvalidMetadata):
            uploads.create(1, "a.wav", metadata={"": 1})
        with pytest.raises(TooLarge):
            uploads.create(1, "a.wav", metadata={str(i): "x" * 900_000 for i in range(5)})
        with pytest.raises(UnknownSpec):
            uploads.create(1, "a.wav", whisper_model="nobody:knows")
        with pytest.raises(InvalidInput):
            uploads.create(1, "a" * 2000)
        with pytest.raises(InvalidInput):
            uploads.create(1, "a.wav", priority="soon")
        with pytest.raises(InvalidInput):
            uploads.create(1, "a.wav", sha256="12")
        assert uploads.list() == []

    def test_metadata_that_the_schema_refuses_is_refused_at_once(self, archive: AudioStorageSystem) -> None:
        view = archive.as_user("ben")
        view.set_metadata_schema({"required": ["case"]})
        try:
            with pytest.raises(InvalidMetadata):
                view.uploads.create(1, "a.wav")
            assert view.uploads.create(1, "a.wav", metadata={"case": 1}).size == 1
        finally:
            view.remove_metadata_schema()

    def test_one_may_have_so_many_and_so_much_unfinished(self, home: Path) -> None:
        with AudioStorageSystem(home, uploads_at_once=2, uploads_bytes=100_000) as storage:
            storage.users.add("ann")
            first = storage.uploads.create(40_000, "a.wav")
            with pytest.raises(TooManyUploads, match="bytes"):
                storage.uploads.create(60_001, "a.wav")
            storage.uploads.create(60_000, "a.wav")
            with pytest.raises(TooManyUploads, match="2 are not finished"):
                storage.uploads.create(1, "a.wav")
            assert storage.as_user("ann").uploads.create(1, "a.wav")  # everybody for themselves
            storage.uploads.abort(first.id)
            assert storage.uploads.create(1, "a.wav")

    def test_many_at_once_do_not_pass_the_bound(self, home: Path) -> None:
        with AudioStorageSystem(home, uploads_at_once=3) as storage:
            refused: list[TooManyUploads] = []

            def create() -> None:
                try:
                    storage.uploads.create(1, "a.wav")
                except TooManyUploads as error:
                    refused.append(error)

            threads = [threading.Thread(target=create) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (len(storage.uploads.list()), len(refused)) == (3, 5)


class TestWhose:
    def test_another_ones_upload_does_not_exist(self, archive: AudioStorageSystem) -> None:
        ann, ben = archive.as_user("ann").uploads, archive.as_user("ben").uploads
        upload = ann.create(len(WAV), "a.wav")
        for call in (
            lambda board: board.get(upload.id),
            lambda board: board.append(upload.id, 0, [b"x"]),
            lambda board: board.finish(upload.id),
            lambda board: board.abort(upload.id),
        ):
            for board in (ben, archive.uploads):
                with pytest.raises(NotFound):
                    call(board)
        assert (ben.list(), [one.id for one in ann.list()]) == ([], [upload.id])

    def test_what_is_uploaded_is_the_uploaders(self, archive: AudioStorageSystem) -> None:
        ann = archive.as_user("ann")
        upload = ann.uploads.append(ann.uploads.create(len(WAV), "a.wav").id, 0, [WAV])
        job = ann.uploads.finish(upload.id)
        assert ann.get_recording(job.audio_id or 0)
        with pytest.raises(NotFound):
            archive.as_user("ben").get_recording(job.audio_id or 0)
        ann.delete(job.audio_id or 0)

    @pytest.mark.parametrize(
        "upload_id", ["", "..", "../1/" + OLD, OLD.upper() + "A", "a" * 31 + "/", OLD, "\0", "é" * 32]
    )
    def test_an_id_is_never_a_path(self, archive: AudioStorageSystem, upload_id: str) -> None:
        for call in (archive.uploads.get, archive.uploads.abort, archive.uploads.finish):
            with pytest.raises(NotFound):
                call(upload_id)
        with pytest.raises(NotFound):
            archive.uploads.append(upload_id, 0, [b"x"])

    def test_a_token_that_only_reads_uploads_nothing(self, archive: AudioStorageSystem) -> None:
        upload = archive.as_user("ann").uploads.create(1, "a.wav")
        reading = archive.tokens.authenticate(archive.as_user("ann").tokens.create(scopes=["read"]).secret).uploads
        assert reading.get(upload.id) == upload
        for call in (
            lambda: reading.create(1, "a.wav"),
            lambda: reading.append(upload.id, 0, [b"x"]),
            lambda: reading.finish(upload.id),
            lambda: reading.abort(upload.id),
        ):
            with pytest.raises(Forbidden):
                call()


class TestTwoAtOnce:
    def test_a_new_sender_takes_over_from_one_that_hangs(self, archive: AudioStorageSystem) -> None:
        """As when a connection is gone and the server has not noticed."""
        upload = archive.uploads.create(len(WAV), "a.wav")
        begun, ended = threading.Event(), []

        def hanging() -> Iterator[bytes]:
            yield WAV[:1000]
            begun.set()
            while True:
                time.sleep(0.05)
                yield b""

        def first() -> None:
            try:
                archive.uploads.append(upload.id, 0, hanging())
            except UploadBusy as error:
                ended.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        begun.wait()
        with pytest.raises(OffsetMismatch) as told:  # it makes the first one end, and hears how far that came
            archive.uploads.append(upload.id, 0, [WAV])
        thread.join()
        assert len(ended) == 1 and told.value.details["offset"] == 1000
        archive.uploads.append(upload.id, 1000, [WAV[1000:]])
        assert content_of(archive, archive.uploads.finish(upload.id).audio_id) == WAV

    def test_one_that_does_not_give_way_is_waited_for_in_vain(
        self, archive: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(UploadFolder.lock, "__defaults__", (0.1,))
        upload = archive.uploads.create(len(WAV), "a.wav")
        with archive.uploads.appending(upload.id, 0) as appending:
            appending.write(WAV[:7])
            with pytest.raises(UploadBusy):
                archive.uploads.append(upload.id, 0, [WAV])
        assert archive.uploads.get(upload.id).offset == 7

    def test_what_is_aborted_meanwhile_is_gone(self, archive: AudioStorageSystem) -> None:
        upload, aborted = archive.uploads.create(len(WAV), "a.wav"), threading.Event()

        def hanging() -> Iterator[bytes]:
            yield WAV[:1000]
            thread.start()
            while True:
                time.sleep(0.05)
                yield b""

        def abort() -> None:
            archive.uploads.abort(upload.id)
            aborted.set()

        thread = threading.Thread(target=abort)
        with pytest.raises(UploadBusy):
            archive.uploads.append(upload.id, 0, hanging())
        assert aborted.wait(10)
        with pytest.raises(NotFound):
            archive.uploads.get(upload.id)


class TestKeeping:
    def test_what_nobody_goes_on_with_expires(self, archive: AudioStorageSystem) -> None:
        old, new = archive.uploads.create(9, "old.wav"), archive.uploads.create(9, "new.wav")
        days = archive._archive.settings.upload_days
        assert timedelta(0) < old.expires_at - datetime.now(UTC) <= timedelta(days=days)
        _age(folder_of(archive, old.id), days * 86_400 + 60)
        tidy(archive._archive, archive.jobs)
        assert [upload.id for upload in archive.uploads.list()] == [new.id]
        assert not folder_of(archive, old.id).exists()

    def test_beginning_another_removes_ones_own_that_expired(self, archive: AudioStorageSystem) -> None:
        """On a machine whose workers are elsewhere nothing else would."""
        old = archive.uploads.create(9, "old.wav")
        _age(folder_of(archive, old.id), 400 * 86_400)
        archive.uploads.create(9, "new.wav")
        assert not folder_of(archive, old.id).exists()

    def test_what_arrived_and_was_never_asked_for_again_is_stored(self, archive: AudioStorageSystem) -> None:
        ann, data = archive.as_user("ann"), sound(seed=9)
        upload = ann.uploads.append(ann.uploads.create(len(data), "a.wav").id, 0, [data])
        tidy(archive._archive, archive.jobs)
        found = ann.uploads.get(upload.id)
        assert content_of(ann, found.audio_id) == data
        ann.delete(found.audio_id or 0)

    def test_half_made_folders_are_removed_once_they_are_old(self, archive: AudioStorageSystem) -> None:
        folder = folder_of(archive, OLD)
        folder.mkdir(parents=True)
        (folder / "content").write_bytes(b"x")
        tidy(archive._archive, archive.jobs)
        assert folder.exists()
        _age(folder, 7200)
        tidy(archive._archive, archive.jobs)
        assert not folder.exists()

    def test_nothing_else_of_the_archive_trips_over_them(self, archive: AudioStorageSystem) -> None:
        upload = archive.uploads.create(len(WAV), "a.wav")
        archive.uploads.append(upload.id, 0, [WAV[:99]])
        assert orphans.scan(archive._archive, older_than=timedelta(0)).unowned == ()
        assert archive.verify(deep=True).clean
        settings: dict[str, Any] = {"create": False}
        with AudioStorageSystem(archive.home, **settings) as again:  # as another web process, after a crash
            assert again.recovered == []
            assert again.uploads.get(upload.id).offset == 99
            again.uploads.append(upload.id, 99, [WAV[99:]])
        assert content_of(archive, archive.uploads.finish(upload.id).audio_id) == WAV

    def test_in_an_encrypted_archive_nothing_of_it_can_be_read(self, tmp_path: Path) -> None:
        data = b"RIFF" + b"a very secret sound " * 100_000
        with Catalogues(encrypted=True).at(tmp_path / "archive") as home, AudioStorageSystem(home) as storage:
            upload = storage.uploads.create(len(data) + 1, "secret name.wav", metadata={"case": "secret value"})
            storage.uploads.append(upload.id, 0, [data])
            files = {path.name: path.read_bytes() for path in folder_of(storage, upload.id).iterdir()}
            assert {"upload.json", "content", "journal"} <= files.keys()
            assert not any(b"secret" in content for content in files.values())
            assert storage.uploads.get(upload.id).name == "secret name.wav"

    @pytest.mark.parametrize("name", ["content", "upload.json"])
    def test_what_was_changed_on_the_disk_is_refused(self, tmp_path: Path, name: str) -> None:
        with Catalogues(encrypted=True).at(tmp_path / "archive") as home, AudioStorageSystem(home) as storage:
            upload = storage.uploads.append(storage.uploads.create(len(WAV), "a.wav").id, 0, [WAV])
            path = folder_of(storage, upload.id) / name
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            with pytest.raises(ArchiveDamaged):
                storage.uploads.finish(upload.id)

    def test_content_cannot_be_moved_to_another_upload(self, tmp_path: Path) -> None:
        with Catalogues(encrypted=True).at(tmp_path / "archive") as home, AudioStorageSystem(home) as storage:
            one, two = (storage.uploads.append(storage.uploads.create(len(WAV), n).id, 0, [WAV]) for n in "ab")
            (folder_of(storage, one.id) / "content").replace(folder_of(storage, two.id) / "content")
            with pytest.raises(ArchiveDamaged):
                storage.uploads.finish(two.id)


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


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
