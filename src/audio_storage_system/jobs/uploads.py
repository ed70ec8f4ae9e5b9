"""The board of uploads: files that arrive in parts, with breaks between them, and end in the archive."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from audio_storage_system.access import Access, Role
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import metadata as encoding
from audio_storage_system.catalogue import principals, schemas
from audio_storage_system.clock import utc_now
from audio_storage_system.durable import FileLock, disk_errors, make_folders
from audio_storage_system.errors import (
    ArchiveBusy,
    ArchiveDamaged,
    AudioStorageSystemError,
    ChecksumMismatch,
    Conflict,
    InvalidInput,
    NotAudio,
    NotFound,
    TooLarge,
    TooManyUploads,
    UploadBusy,
)
from audio_storage_system.jobs import submission
from audio_storage_system.jobs.board import Jobs, priority_of
from audio_storage_system.pipeline import OnDuplicate, check_request, sha256_of
from audio_storage_system.records import Job, Metadata, Priority, Upload
from audio_storage_system.uploads import Appending, UploadFolder, folders

logger = logging.getLogger(__name__)

FOLDER = "uploads"
LOCK_SECONDS = 10.0
MAX_NAME_CHARACTERS = 1_000
MAX_NOTE_CHARACTERS = 64 << 10
MAX_METADATA_BYTES = 4 << 20


class Uploads:
    """Files that arrive in parts: each part is safe once it is acknowledged, and an upload that was cut off goes on
    where it stopped, in any process of this machine. Who asks has those that they began themselves; for everybody else
    they do not exist. Where the archive is encrypted, so are they."""

    def __init__(self, archive: Archive, board: Jobs) -> None:
        self._archive, self._board = archive, board
        self._root, self._key = _place_of(archive), archive.key_for(FOLDER)
        self._whose = str(archive.owner_id)

    def create(
        self,
        size: int,
        name: str,
        *,
        metadata: Metadata | None = None,
        whisper_model: str | None = None,
        language: str | None = None,
        generate_embeddings: bool = True,
        recorded_at: datetime | None = None,
        on_duplicate: OnDuplicate = "keep",
        priority: Priority | str = Priority.NORMAL,
        sha256: str | None = None,
        note: str = "",
    ) -> Upload:
        """Begin the upload of a file of `size` bytes that is called `name`. sha256: the hash that it must have, in hex.
        note: anything that `get` is to give back. What else is given is as of `submit`, and checked now.

        Raises `TooLarge`, `TooManyUploads`, `InvalidInput`, `InvalidMetadata`, `UnknownSpec`.
        """
        self._require_editor()
        self._check_size(size, name)
        if len(note) > MAX_NOTE_CHARACTERS:
            raise TooLarge(what="The note of an upload", limit=f"{MAX_NOTE_CHARACTERS:,} characters")
        values = metadata or {}
        check_request(values, recorded_at, on_duplicate)
        self._check_metadata(values)
        if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise InvalidInput(reason="sha256 is 64 hexadecimal digits")
        options = submission.options_of(self._archive, whisper_model, language, generate_embeddings=generate_embeddings)
        kept = {
            "size": size,
            "name": name,
            "created_at": utc_now().isoformat(),
            "metadata": {key: list(encoding.encode(key, value)[:2]) for key, value in values.items()},
            "options": options,
            "recorded_at": recorded_at.isoformat() if recorded_at else None,
            "on_duplicate": on_duplicate,
            "priority": priority_of(priority).name,
            "sha256": sha256.lower() if sha256 else None,
            "note": note,
        }
        return self._upload(self._made(size, kept))

    def _check_size(self, size: int, name: str) -> None:
        if size < 1:
            raise NotAudio(name=name[:MAX_NAME_CHARACTERS], reason="it is empty")
        if size > (most := self._archive.settings.max_file_bytes):
            raise TooLarge(what="The upload", limit=f"{most:,} bytes")
        if len(name) > MAX_NAME_CHARACTERS:
            raise InvalidInput(reason=f"A name has at most {MAX_NAME_CHARACTERS:,} characters")

    def _check_metadata(self, values: Metadata) -> None:
        """Better now than after the last byte."""
        if sum(len(encoding.encode(key, value).value or "") for key, value in values.items()) > MAX_METADATA_BYTES:
            raise TooLarge(what="The metadata of an upload", limit=f"{MAX_METADATA_BYTES:,} characters")
        with self._archive.database.read() as connection:
            name = None if self._archive.access.restricted else principals.name_in(values)
            owner = None if name is None else principals.find(connection, name)
            owner_id = self._archive.owner_id if name is None else owner.id if owner else None
            if owner_id is not None and (violation := schemas.first_violation(connection, owner_id, values)):
                raise violation.as_error()

    def _made(self, size: int, kept: dict[str, Any]) -> UploadFolder:
        """A new one, where there is room for it; looked at under a lock, or two at once would both find the last."""
        mine = self._root / self._whose
        with disk_errors(mine):
            make_folders(mine, private=True)
        lock = _lock_of(mine / "lock")
        try:
            _expire(self._archive, self._whose)
            going = [upload for upload in self.list() if upload.job_id is None]
            settings = self._archive.settings
            if len(going) >= settings.uploads_at_once:
                raise TooManyUploads(reason=f"{len(going)} are not finished")
            if sum(upload.size for upload in going) + size > settings.uploads_bytes:
                raise TooManyUploads(reason=f"unfinished ones may have {settings.uploads_bytes:,} bytes together")
            return UploadFolder.make(self._root, self._whose, self._key, kept)
        finally:
            lock.release()

    def get(self, upload_id: str) -> Upload:
        """One upload, and how much of it is safely here. Raises `NotFound`."""
        return self._upload(self._folder(upload_id))

    def list(self) -> list[Upload]:
        """One's own uploads, the latest first; finished ones too, until they expire."""
        found = []
        for folder in folders(self._root, self._key, self._whose):
            try:
                found.append(self._upload(folder))
            except (NotFound, ArchiveDamaged):  # just removed or half made; `tidy` tells of what is damaged
                continue
        return sorted(found, key=lambda upload: upload.created_at, reverse=True)

    def appending(self, upload_id: str, offset: int, checksum: tuple[str, bytes] | None = None) -> Appending:
        """An append from `offset` on, to be written to as bytes come in; see `append`. For one thread at a time."""
        self._require_editor()
        return Appending(self._folder(upload_id), offset, checksum)

    def append(
        self, upload_id: str, offset: int, chunks: Iterable[bytes], checksum: tuple[str, bytes] | None = None
    ) -> Upload:
        """Append bytes from `offset` on, which must be what `get` says. They are on the disk when this returns; where
        `chunks` raises, what came before that stays. checksum: the algorithm (`sha256`, `sha512`, `sha1`, `md5`) and
        digest of all these bytes together, which are discarded where they do not have it.

        An append that another call is in the middle of is ended by this one, with `UploadBusy`. Raises `NotFound`,
        `OffsetMismatch`, `UploadBusy` where the other does not end, `TooLarge` for more bytes than there should be,
        `ChecksumMismatch`, `Conflict` for an upload that is finished, `StorageFull`.
        """
        with self.appending(upload_id, offset, checksum) as appending:
            for chunk in chunks:
                appending.write(chunk)
        return self.get(upload_id)

    def finish(self, upload_id: str) -> Job:
        """Store an upload that is complete, and leave the rest to the workers; its job, as of `submit`. Called again,
        it gives the same job. A worker does it for an upload that is complete and whose sender never asks.

        Raises `Conflict` where bytes are missing, `ChecksumMismatch`, `UploadBusy`, and what `submit` raises; what is
        no audio, or not what was announced, is removed with that.
        """
        self._require_editor()
        folder = self._folder(upload_id)
        with folder.locked():
            if (result := folder.result()) is None:
                return _finish(self._archive, self._board, folder)
        return replace(self._board.get(result["job_id"]), duplicate=result["duplicate"])

    def abort(self, upload_id: str) -> None:
        """Remove an upload; what it has become, if it is finished, stays. Raises `NotFound`, `UploadBusy`."""
        self._require_editor()
        folder = self._folder(upload_id)
        with folder.locked():
            folder.remove()

    def _require_editor(self) -> None:
        self._archive.access.require_scope(Role.EDITOR, "store recordings")

    def _folder(self, upload_id: str) -> UploadFolder:
        return UploadFolder(self._root, self._whose, upload_id, self._key)

    def _upload(self, folder: UploadFolder) -> Upload:
        values, result = folder.values(), folder.result()
        became = {key: result[key] for key in ("audio_id", "job_id", "duplicate")} if result else {}
        return Upload(
            id=folder.id,
            name=values["name"],
            note=values["note"],
            size=values["size"],
            offset=values["size"] if result else folder.committed().offset,
            created_at=datetime.fromisoformat(values["created_at"]),
            expires_at=folder.changed_at() + timedelta(days=self._archive.settings.upload_days),
            **became,
        )


def _lock_of(path: Path) -> FileLock:
    """The lock on the number of somebody's uploads, which is held for milliseconds. Raises `ArchiveBusy`."""
    until = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < until:
        with disk_errors(path):
            if lock := FileLock.acquire(path):
                return lock
        time.sleep(0.01)
    raise ArchiveBusy(place=path.parent)


def tidy_uploads(archive: Archive, board: Jobs) -> None:
    """Store what is complete and whose sender has gone, and remove what nothing has happened to for long. For who may
    everything."""
    for folder in folders(_place_of(archive), archive.key_for(FOLDER)):
        try:
            _finish_abandoned(archive, board, folder)
        except UploadBusy:
            continue
        except AudioStorageSystemError as error:
            logger.warning("The upload %s could not be stored yet: %s", folder.id, error)
    _expire(archive)


def _finish_abandoned(archive: Archive, board: Jobs, folder: UploadFolder) -> None:
    if folder.is_ruin() or folder.result() or folder.committed().offset != folder.values()["size"]:
        return
    with archive.database.read() as connection:
        owner = principals.find_id(connection, int(folder.path.parent.name))
    if owner is None:  # it expires
        return
    seen = archive if owner.id == archive.owner_id else archive.seen_by(Access(owner.id, owner.name, restricted=True))
    with folder.locked(wait=0):
        if folder.result() is None:
            _finish(seen, board.seen_by(seen), folder)


def _finish(archive: Archive, board: Jobs, folder: UploadFolder) -> Job:
    """Store what has come. For who has its lock."""
    values = folder.values()
    if (offset := folder.committed().offset) != values["size"]:
        raise Conflict(reason=f"Upload {folder.id} has {offset:,} of its {values['size']:,} bytes")
    try:
        job = _submitted(archive, board, folder, values)
    except (NotAudio, ChecksumMismatch):
        folder.remove()
        raise
    folder.finish({"audio_id": job.audio_id, "job_id": job.id, "duplicate": job.duplicate})
    return job


def _submitted(archive: Archive, board: Jobs, folder: UploadFolder, values: dict[str, Any]) -> Job:
    with folder.open() as content:
        if values["sha256"] and sha256_of(content) != values["sha256"]:
            raise ChecksumMismatch(id=folder.id)
        return submission.submit(
            archive,
            board,
            content,
            values["options"],
            name=values["name"],
            metadata={key: encoding.decode(*typed) for key, typed in values["metadata"].items()},
            recorded_at=datetime.fromisoformat(values["recorded_at"]) if values["recorded_at"] else None,
            on_duplicate=values["on_duplicate"],
            priority=values["priority"],
        )


def _expire(archive: Archive, whose: str | None = None) -> None:
    """Remove what nothing has happened to for long, and what a crash left."""
    before = utc_now() - timedelta(days=archive.settings.upload_days)
    for folder in folders(_place_of(archive), archive.key_for(FOLDER), whose):
        try:
            if folder.is_ruin():
                folder.remove()
            elif folder.changed_at() < before:
                with folder.locked(wait=0):
                    folder.remove()
        except (NotFound, UploadBusy):
            continue


def _place_of(archive: Archive) -> Path:
    """The folder of all uploads."""
    return archive.spool / FOLDER
