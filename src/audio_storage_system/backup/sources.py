"""The audio of an archive on its way into a backup, as it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from sqlalchemy import select

from audio_storage_system.archive import Archive
from audio_storage_system.backup.format import DIGEST, Problem, blob_key
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.blobs import BlobStore, StagedBlob
from audio_storage_system.catalogue.recordings import STORED
from audio_storage_system.database.tables import audio_files
from audio_storage_system.errors import InvalidInput, NotFound


class Wanted(NamedTuple):
    """The audio of a recording as the catalogue names it. blob_id: of its data key, where it is sealed."""

    audio_id: int
    key: str
    file_hash: str
    size: int | None
    blob_id: str | None


class Blob(NamedTuple):
    """The audio of a recording in a backup: bytes as they are stored, with their hash."""

    audio_id: int
    key: str
    size: int
    sha256: str
    blob_id: str | None


class Brought(NamedTuple):
    """Audio that is in the backup; `copied`: by this run."""

    blob: Blob
    copied: bool


@dataclass
class Source:
    """Where audio comes from and goes to. Safe to use from several threads. problems: what could not be had."""

    archive: Archive
    place: BackupPlace
    stored: BlobStore
    present: set[str]
    problems: list[Problem] = field(default_factory=list)

    def known(self, one: Wanted, earlier: Blob | None) -> Blob | None:
        """What the backup has of this recording already: bytes under one key of one recording never change, and those
        that are not sealed are known by their hash."""
        if one.blob_id is None and not self._encrypted and one.size is not None and DIGEST.fullmatch(one.file_hash):
            blob = Blob(one.audio_id, one.key, one.size, one.file_hash, None)
        elif earlier is not None and (earlier.key, earlier.blob_id) == (one.key, one.blob_id):
            blob = earlier
        else:
            return None
        return blob if blob_key(blob.sha256) in self.present else None

    def bring(self, one: Wanted) -> Brought | None:
        """Have the audio of this recording in the backup; `None` where it was deleted meanwhile or cannot be had."""
        try:
            with self.stored.open(one.key) as file:
                staged = self._staged(one, file)
        except InvalidInput as error:  # a key that leads out of the archive: somebody else wrote this row
            self._refuse(one, error.message)
            return None
        except NotFound:
            if not self._is_gone(one):
                self._refuse(one, "its file is missing")
            return None
        if staged is None:
            return None
        key = blob_key(staged.sha256)
        new = key not in self.present
        if new:
            self.place.store.replace(staged, key)
            self.present.add(key)
        else:
            self.place.store.discard(staged)
        return Brought(Blob(one.audio_id, one.key, staged.size, staged.sha256, one.blob_id), new)

    @property
    def _encrypted(self) -> bool:
        return self.archive.keys is not None and self.archive.keys.encrypted

    def _staged(self, one: Wanted, file: BinaryIO) -> StagedBlob | None:
        try:
            staged = self.place.store.stage(file)
        except OSError as error:  # of the archive: the backup's own are of our tree
            self._refuse(one, f"its file cannot be read: {error.strerror}")
            return None
        told = one.blob_id is None and not self._encrypted  # what is sealed has another hash than what it holds
        if told and staged.sha256 == one.file_hash:
            return staged
        # A key that was given up may be another recording's by now.
        gone = self._is_gone(one)
        if not told and not gone:
            return staged
        self.place.store.discard(staged)
        if not gone:
            self._refuse(one, f"its file is damaged: {staged.size:,} bytes whose hash is not the one stored")
        return None

    def _refuse(self, one: Wanted, reason: str) -> None:
        self.problems.append(Problem(one.audio_id, one.key, reason))

    def _is_gone(self, one: Wanted) -> bool:
        """Whether the recording, or its audio, was removed since the catalogue was read."""
        stored = (audio_files.c.id == one.audio_id) & (audio_files.c.status == STORED)
        with self.archive.database.read() as connection:
            return connection.execute(select(audio_files.c.id).where(stored)).first() is None
