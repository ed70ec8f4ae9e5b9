"""Storing: the bytes first, then the row."""

from __future__ import annotations

import hashlib
import logging
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from sqlalchemy import Connection

from audio_storage_system import outbox
from audio_storage_system.audio import probe
from audio_storage_system.audit import OFF, Audit
from audio_storage_system.blobs import BlobStore, StagedBlob
from audio_storage_system.catalogue import data_keys, jobs, locks, metadata, recordings, schemas, trash
from audio_storage_system.clock import utc_now
from audio_storage_system.database import Database
from audio_storage_system.errors import (
    DuplicateRecording,
    InvalidInput,
    NotAudio,
    NotFound,
    SealBroken,
    StorageFailed,
    TooLarge,
)
from audio_storage_system.records import AudioInfo, Metadata

logger = logging.getLogger(__name__)

OnDuplicate = Literal["keep", "update", "error"]
Entered = Callable[[Connection, int], None]
BLOB_PREFIX = "audio_files"
HASHED_AT_ONCE = 1 << 18
_IN_TRASH = ", which is in the trash. Put it back with: audio-storage trash restore {audio_id}"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a file went. `duplicate`: these bytes were stored before, under this id."""

    audio_id: int
    duplicate: bool


def store(
    database: Database,
    blobs: BlobStore,
    source: Path | BinaryIO,
    *,
    owner_id: int,
    values: Metadata,
    name: str = "",
    recorded_at: datetime | None = None,
    on_duplicate: OnDuplicate = "keep",
    max_bytes: int,
    look_first: bool = False,
    entered: Entered = lambda connection, audio_id: None,
    audit: Audit = OFF,
    insist: bool = True,
) -> Stored:
    """Store a file's bytes unchanged and enter it in the catalogue; durable when it returns.

    `source` is a path, or a seekable stream, which stays open; `name` is kept as the original name (default: the
    path's). The recording's time is the file's own tag, else
    `recorded_at`, else now. Bytes that the owner has already stored are not stored again: missing metadata keys are
    added, others left (`keep`), replaced (`update`), or the call refused (`error`, and always where the recording is in
    the trash). With `look_first` the bytes are
    looked up before anything is probed or copied: cheaper for a file that is stored already, dearer for another.
    `entered` is called in the transaction that enters a new recording, and may enter what belongs to it; `audit` is
    told there. Without `insist` metadata that the owner's schema refuses is stored all the same, with a warning: for
    what cannot be recorded again.

    Raises `NotAudio`, `TooLarge`, `InvalidMetadata`, `DuplicateRecording`, `StorageFailed`; after any of them nothing
    is half-stored.
    """
    check_request(values, recorded_at, on_duplicate)
    name = _clean_name(name or (source.name if isinstance(source, Path) else ""))
    with opened_file(source, max_bytes) if isinstance(source, Path) else nullcontext(source) as file:
        known = _known(database, blobs, file, owner_id) if look_first else None
        merge = _Merge(database, name, values, on_duplicate, audit, insist)
        if known is not None and merge.into(known):
            return Stored(known, duplicate=True)
        new = _New(owner_id, name, probe(file, name=name), values, recorded_at, entered, audit, insist)
        while (stored := _store_once(database, blobs, file, new)) is None or not (
            not stored.duplicate or merge.into(stored.audio_id)
        ):
            pass  # a deletion under way took the key just claimed for its own, or what was a duplicate: again
    if not stored.duplicate:
        for warning in new.info.warnings:
            logger.warning("%s: %s", name, warning)
    return stored


def sha256_of(file: BinaryIO) -> str:
    """The hash of all of a file; the catalogue has the fingerprint that the blob store makes of it."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(HASHED_AT_ONCE):
        digest.update(block)
    return digest.hexdigest()


def _known(database: Database, blobs: BlobStore, file: BinaryIO, owner_id: int) -> int | None:
    file_hash = blobs.fingerprint(sha256_of(file))
    with database.read() as connection:
        return recordings.find_by_hash(connection, owner_id, file_hash)


def check_request(values: Metadata, recorded_at: datetime | None, on_duplicate: OnDuplicate) -> None:
    """Raise what `store` would raise for these arguments, whatever the file: `InvalidInput`, `InvalidMetadata`."""
    metadata.validate(values)
    if recorded_at is not None:
        _check_moment(recorded_at)
    if on_duplicate not in get_args(OnDuplicate):
        raise InvalidInput(reason=f"on_duplicate is one of {', '.join(get_args(OnDuplicate))}, not {on_duplicate!r}")


def _check_moment(recorded_at: object) -> None:
    if not isinstance(recorded_at, datetime):
        raise InvalidInput(reason=f"recorded_at is a datetime, not {recorded_at!r}")
    if recorded_at.tzinfo is None:
        raise InvalidInput(reason=f"recorded_at={recorded_at} has no time zone")
    try:
        recorded_at.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(reason=f"recorded_at={recorded_at} is before the year 1 in UTC") from error


@dataclass(frozen=True, slots=True)
class _New:
    """A recording that is about to get its row."""

    owner_id: int
    name: str
    info: AudioInfo
    values: Metadata
    recorded_at: datetime | None
    entered: Entered = lambda connection, audio_id: None
    audit: Audit = OFF
    insist: bool = True

    @property
    def moment(self) -> datetime:
        return self.info.recorded_at or self.recorded_at or utc_now()

    @property
    def offset_minutes(self) -> int | None:
        if self.info.recorded_at is not None or self.recorded_at is None:
            return None
        offset = self.recorded_at.utcoffset()
        return round(offset.total_seconds() / 60) if offset is not None else None


def _store_once(database: Database, blobs: BlobStore, file: BinaryIO, new: _New) -> Stored | None:
    file.seek(0)
    staged = blobs.stage(file, name=new.name)
    key = _publish_unless_known(database, blobs, staged, new)
    if isinstance(key, Stored):
        return key
    stored = None
    try:
        stored = _enter(database, blobs, staged, key, new)
    finally:
        if stored is None or stored.duplicate:
            _withdraw_unless_used(database, blobs, staged, key)
    return stored


def _publish_unless_known(database: Database, blobs: BlobStore, staged: StagedBlob, new: _New) -> str | Stored:
    """The key that the bytes were given, or the recording that has them already; they are staged no longer."""
    published = False
    try:
        with database.read() as connection:
            known = recordings.find_by_hash(connection, new.owner_id, blobs.fingerprint(staged.sha256))
        if known is not None:
            return Stored(known, duplicate=True)
        key = blobs.publish(staged, blob_key(new.moment, new.name))
        published = True
        return key
    finally:
        if not published:
            blobs.discard(staged)


def _enter(database: Database, blobs: BlobStore, staged: StagedBlob, key: str, new: _New) -> Stored | None:
    """Write the row, unless another process has stored the same bytes since we looked: the locks make this look final.
    `None` when the blob is gone."""
    file_hash = blobs.fingerprint(staged.sha256)
    with database.write(locks.of_bytes(new.owner_id, file_hash), locks.of_blob(key)) as connection:
        known = recordings.find_by_hash(connection, new.owner_id, file_hash)
        if known is not None:
            return Stored(known, duplicate=True)
        if not blobs.has(key):
            return None
        audio_id = _insert(connection, staged, file_hash, key, new)
        new.entered(connection, audio_id)
        facts = {"bytes": staged.size, "seconds": new.info.duration}
        new.audit.note(connection, "recording.stored", audio_id, **facts)
        outbox.tell(connection, outbox.Event.STORED, audio_id, **facts)
        return Stored(audio_id, duplicate=False)


def _withdraw_unless_used(database: Database, blobs: BlobStore, staged: StagedBlob, key: str) -> None:
    """Leave no blob without a row, whatever happened. Another process may be adopting it this moment: whoever has the
    lock first decides, so that no row ever loses its bytes."""
    try:
        with database.write(locks.of_blob(key)) as connection:
            _withdraw(connection, blobs, key)
            data_keys.forget_unbound(connection, staged.blob_id)
    except StorageFailed:  # the catalogue takes no writes, so nobody can be adopting it
        with database.read() as connection:
            _withdraw(connection, blobs, key)


def _withdraw(connection: Connection, blobs: BlobStore, key: str) -> None:
    if recordings.find_by_path(connection, key) is None:
        blobs.delete(key)


def _insert(connection: Connection, staged: StagedBlob, file_hash: str, key: str, new: _New) -> int:
    data_keys.bind(connection, staged.blob_id, key)
    if violation := schemas.first_violation(connection, new.owner_id, new.values):
        if new.insist:
            raise violation.as_error()
        logger.warning("%s is stored, although: %s", new.name, violation.as_error())
    return recordings.add(
        connection,
        owner_id=new.owner_id,
        file_hash=file_hash,
        file_path=key,
        file_size=staged.size,
        original_name=new.name,
        info=new.info,
        recorded_at=new.moment,
        offset_minutes=new.offset_minutes,
        values=new.values,
    )


def blob_key(moment: datetime, name: str) -> str:
    """The key for a recording made at `moment`: `audio_files/2026/11/audio_20261122_120000.wav`, in UTC."""
    suffix = Path(name).suffix.lower()
    suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ".audio"
    moment = moment.astimezone(UTC)
    year = f"{moment.year:04}"  # %Y pads it on some systems only
    return f"{BLOB_PREFIX}/{year}/{moment:%m}/audio_{year}{moment:%m%d_%H%M%S}{suffix}"


@dataclass(frozen=True, slots=True)
class _Merge:
    """What a file that is stored already brings: a name, and metadata."""

    database: Database
    name: str
    values: Metadata
    on_duplicate: OnDuplicate
    audit: Audit
    insist: bool

    def into(self, audio_id: int) -> bool:
        """Give the recording what it lacks of that; false when it has been deleted since."""
        if self.on_duplicate == "error":
            raise DuplicateRecording(name=self.name, audio_id=audio_id, reason="")
        with self.database.read() as connection:
            if trash.has(connection, audio_id):  # adding does not undelete
                reason = _IN_TRASH.format(audio_id=audio_id)
                raise DuplicateRecording(name=self.name, audio_id=audio_id, reason=reason)
            if not recordings.has_audio(connection, audio_id):
                logger.warning("%s is recording %d, whose audio was removed and stays so", self.name, audio_id)
            names = recordings.names_of(connection, audio_id)
            lacking = bool(self.values) and names is not None and bool(self._lacking(connection, audio_id))
        if names is None:
            return False
        return True if not (self._renames(*names) or lacking) else self._complete(audio_id)

    def _complete(self, audio_id: int) -> bool:
        with self.database.write(locks.of_recording(audio_id)) as connection:
            names = recordings.names_of(connection, audio_id)
            if names is None:
                return False
            if self._renames(*names):
                recordings.rename(connection, audio_id, self.name)
            if wanted := self._lacking(connection, audio_id):
                self._put(connection, audio_id, wanted)
        return True

    def _put(self, connection: Connection, audio_id: int, wanted: Metadata) -> None:
        keys = metadata.put(connection, audio_id, wanted, self.audit.principal_id)
        recordings.touch(connection, audio_id)
        if self.insist:
            schemas.require(connection, audio_id)
        self.audit.note(connection, "metadata.set", audio_id, keys=keys)

    def _renames(self, original_name: str, file_path: str) -> bool:
        return _is_nameless(original_name, file_path) and self.name != original_name

    def _lacking(self, connection: Connection, audio_id: int) -> Metadata:
        present = metadata.get(connection, audio_id)
        wanted = {k: v for k, v in self.values.items() if self.on_duplicate == "update" or k not in present}
        return {key: value for key, value in wanted.items() if key not in present or present[key] != value}


def _is_nameless(original_name: str, file_path: str) -> bool:
    """A recording adopted after a crash is called after its blob, until the file that it was comes again."""
    return original_name == Path(file_path).name


@contextmanager
def opened_file(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """A file that could be stored, open. Raises `InvalidInput`, `NotAudio` for what is no file, `TooLarge`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise NotAudio(name=path.name, reason="it is not an ordinary file")  # opening a pipe would wait for ever
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InvalidInput(reason=f"There is no file {path}") from error
    except IsADirectoryError as error:
        raise InvalidInput(reason=f"{path} is a folder, not a file") from error
    except OSError as error:
        raise InvalidInput(reason=f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in it
        raise InvalidInput(reason=f"{str(path)!r} is no path: {error}") from error
    with file:
        if path.stat().st_size > max_bytes:
            raise TooLarge(what=path.name, limit=f"{max_bytes:,} bytes")
        yield file


def _clean_name(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are replaced, NUL is dropped."""
    return name.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def adopt_orphans(database: Database, blobs: BlobStore, *, owner_id: int, audit: Audit = OFF) -> list[int]:
    """Give every blob without a row a row, so that nothing stored before a crash is lost; the ids of those adopted.

    A blob whose bytes the owner has under another key was being stored a second time: it is removed.
    """
    with database.read() as connection:
        known = recordings.paths(connection)
    unknown = [key for key in blobs.settled(BLOB_PREFIX) if key not in known]
    adopted = [_adopt(database, blobs, key, owner_id, audit) for key in unknown]
    return [audio_id for audio_id in adopted if audio_id is not None]


def _adopt(database: Database, blobs: BlobStore, key: str, owner_id: int, audit: Audit) -> int | None:
    try:
        with blobs.open(key) as file:
            info = probe(file, name=key)
        staged = blobs.describe(key)
    except (NotAudio, SealBroken) as error:
        logger.warning("%s lies in the archive without a row and was left where it is: %s", key, error)
        return None
    except NotFound:  # withdrawn by whoever was storing it
        return None
    new = _New(owner_id, Path(key).name, info, {}, _moment_of(key), insist=False)
    file_hash = blobs.fingerprint(staged.sha256)
    with database.write(locks.of_bytes(owner_id, file_hash), locks.of_blob(key)) as connection:
        if recordings.find_by_path(connection, key) is not None or not blobs.has(key):  # whoever stores it is at work
            return None
        known = recordings.find_by_hash(connection, owner_id, file_hash)
        if known is None:
            audio_id = _insert(connection, staged, file_hash, key, new)
            jobs.leave_to_workers(connection, audio_id, owner_id)
            facts = {"bytes": staged.size, "seconds": info.duration}
            audit.note(connection, "recording.adopted", audio_id, **facts)
            outbox.tell(connection, outbox.Event.STORED, audio_id, **facts)
            return audio_id
        blobs.delete(key)
        data_keys.forget_unbound(connection, staged.blob_id)
    return None


def _moment_of(key: str) -> datetime | None:
    """When a recording was made, to the second, as its key tells: what `blob_key` wrote into it."""
    found = re.search(r"_(\d{8}_\d{6})\D", key)
    return datetime.strptime(found[1], "%Y%m%d_%H%M%S").replace(tzinfo=UTC) if found else None
