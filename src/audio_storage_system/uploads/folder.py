"""An upload in progress: a folder of its own, `<whose>/<id>/`, that any process of this machine can go on with.

    upload.json   what is to come (size, name …), written once, before any content
    lock          locked by whoever appends, finishes or removes it
    content       the bytes that have arrived, in their order
    journal       one synced line each time that content has been synced: "offset length", the bytes of content that
                  are safely there, and how long the file `content` is with them
    wanted        somebody waits for the lock: whoever appends makes room
    result.json   what became of it; then the content is gone

What a crash leaves in `content` beyond the last line of the journal was never acknowledged, and is cut off by the next
append. In an encrypted archive the texts and the content are sealed, see `writing.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from audio_storage_system.clock import utc_now
from audio_storage_system.durable import FileLock, disk_errors, make_folders, sync_folder
from audio_storage_system.errors import ArchiveDamaged, NotFound, UploadBusy
from audio_storage_system.uploads.writing import Writing, writing_of

MANIFEST, LOCK, CONTENT, JOURNAL, WANTED, RESULT = "upload.json", "lock", "content", "journal", "wanted", "result.json"
ID = re.compile(r"[0-9a-f]{32}")
WAIT_SECONDS = 5.0
POLL_SECONDS = 0.05
HALF_MADE_FOR = timedelta(hours=1)
_LINE = re.compile(rb"(\d+) (\d+)\n")


@dataclass(frozen=True, slots=True)
class Committed:
    """What is safely there: bytes of content, the length of the file with them, and that of the journal."""

    offset: int = 0
    length: int = 0
    journal: int = 0


class UploadFolder:
    """One upload. root: the folder of all of them; whose: its owner, as the name of a folder; key: of an encrypted
    archive, for uploads."""

    def __init__(self, root: Path, whose: str, upload_id: str, key: bytes | None) -> None:
        if not ID.fullmatch(upload_id):
            raise NotFound(kind="upload", id=upload_id[:40])
        self.id = upload_id
        self.path = root / whose / upload_id
        self.writing: Writing = writing_of(key, upload_id, whose)

    @classmethod
    def make(cls, root: Path, whose: str, key: bytes | None, values: Mapping[str, Any]) -> UploadFolder:
        """A new one, durable when this returns; `values` are JSON-able."""
        made = cls(root, whose, secrets.token_hex(16), key)
        with disk_errors(made.path):
            make_folders(made.path.parent, private=True)
            made.path.mkdir()
            for name in (LOCK, CONTENT, JOURNAL):
                (made.path / name).touch()
            made._write(MANIFEST, values)
            sync_folder(made.path.parent)
        return made

    def values(self) -> dict[str, Any]:
        """What it was made with. Raises `NotFound`, `ArchiveDamaged`."""
        found = self._read(MANIFEST)
        if found is None:
            raise NotFound(kind="upload", id=self.id)
        return found

    def result(self) -> dict[str, Any] | None:
        """What became of it, once that is decided. Raises `ArchiveDamaged`."""
        return self._read(RESULT)

    def committed(self) -> Committed:
        """What has safely arrived. Raises `NotFound`."""
        found = Committed()
        with self._present(), (self.path / JOURNAL).open("rb") as journal:
            for line in journal:
                if not (match := _LINE.fullmatch(line)):  # torn by a crash: nothing after it counts
                    break
                found = Committed(int(match[1]), int(match[2]), found.journal + len(line))
        return found

    def changed_at(self) -> datetime:
        """When something last happened to it. Raises `NotFound`."""
        with self._present():
            times = [
                path.stat().st_mtime for name in (MANIFEST, JOURNAL, RESULT) if (path := self.path / name).exists()
            ]
        if not times:
            raise NotFound(kind="upload", id=self.id)
        return datetime.fromtimestamp(max(times), UTC)

    def open(self) -> BinaryIO:
        """What has safely arrived, as a seekable stream. For who has the lock. Raises `ArchiveDamaged`, `NotFound`."""
        found = self.committed()
        with self._present():
            if (self.path / CONTENT).stat().st_size > found.length:
                os.truncate(self.path / CONTENT, found.length)
            file = (self.path / CONTENT).open("rb")
        try:
            return self.writing.opened(file, found.offset)
        except BaseException:
            file.close()
            raise

    @contextmanager
    def locked(self, wait: float = WAIT_SECONDS) -> Iterator[None]:
        """Inside, nobody else changes it. Raises `UploadBusy`, `NotFound`."""
        lock = self.lock(wait)
        try:
            yield
        finally:
            lock.release()

    def lock(self, wait: float = WAIT_SECONDS) -> FileLock:
        """Its lock, which an append under way gives up when it hears that somebody waits. Raises `UploadBusy` where it
        does not come free within `wait` seconds, `NotFound`."""
        until, asked = time.monotonic() + wait, False
        while True:
            with self._present():
                if not (self.path / MANIFEST).exists():
                    raise NotFound(kind="upload", id=self.id)
                if lock := FileLock.acquire(self.path / LOCK):
                    return self._own(lock)
                if wait and not asked:
                    (self.path / WANTED).touch()
                    asked = True
            if time.monotonic() >= until:
                raise UploadBusy(id=self.id)
            time.sleep(POLL_SECONDS)

    def _own(self, lock: FileLock) -> FileLock:
        (self.path / WANTED).unlink(missing_ok=True)
        if not (self.path / MANIFEST).exists():  # removed while this waited
            lock.release()
            raise NotFound(kind="upload", id=self.id)
        return lock

    def is_wanted(self) -> bool:
        """Whether somebody waits for the lock."""
        return (self.path / WANTED).exists()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep what became of it, and let go of its content. For who has the lock."""
        with disk_errors(self.path):
            self._write(RESULT, result)
            (self.path / CONTENT).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it. For who has the lock."""
        with disk_errors(self.path):
            (self.path / MANIFEST).unlink(missing_ok=True)  # from here on there is no such upload
            sync_folder(self.path)
            shutil.rmtree(self.path, ignore_errors=True)  # what cannot be removed now, `tidy` tries again

    def is_ruin(self) -> bool:
        """Whether this is what a crash left of making or removing one."""
        try:
            old = utc_now() - datetime.fromtimestamp(self.path.stat().st_mtime, UTC) > HALF_MADE_FOR
            return old and not (self.path / MANIFEST).exists()
        except FileNotFoundError:
            return False

    @contextmanager
    def _present(self) -> Iterator[None]:
        try:
            with disk_errors(self.path):
                yield
        except Exception as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise NotFound(kind="upload", id=self.id) from error
            raise

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            return self.writing.read(name, json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArchiveDamaged(place=path, reason=f"it cannot be read ({error})") from error

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        """In one step: the file has all of it or does not exist."""
        temporary = self.path / f"{name}.new"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(self.writing.text(name, values), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)
        sync_folder(self.path)


def folders(root: Path, key: bytes | None, whose: str | None = None) -> Iterator[UploadFolder]:
    """The uploads of one owner, or of all, in no order; also what is left of some."""
    for owner in [root / whose] if whose is not None else _folders_in(root):
        for path in _folders_in(owner):
            if ID.fullmatch(path.name):
                yield UploadFolder(root, owner.name, path.name, key)


def _folders_in(place: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [path for path in place.iterdir() if path.is_dir()]
    return []
