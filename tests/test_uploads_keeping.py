"""Uploads that are bounded, shared, left behind, or tampered with."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import orphans
from audio_storage_system.errors import (
    ArchiveDamaged,
    Forbidden,
    InvalidInput,
    InvalidMetadata,
    NotAudio,
    NotFound,
    OffsetMismatch,
    TooLarge,
    TooManyUploads,
    UnknownSpec,
    UploadBusy,
)
from audio_storage_system.jobs.upkeep import tidy
from audio_storage_system.uploads import UploadFolder
from catalogues import Catalogues
from uploading import WAV, content_of, folder_of, sound, taking_uploads

pytestmark = pytest.mark.usefixtures("emptied")

OLD = "0" * 32


@pytest.fixture(scope="module", params=["plain", "sealed"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    """An archive, encrypted or not."""
    with taking_uploads(tmp_path_factory.mktemp("uploads") / "archive", sealed=request.param == "sealed") as opened:
        yield opened


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


@pytest.mark.usefixtures("patient")
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
        assert aborted.wait(60)
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
