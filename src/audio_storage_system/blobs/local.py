"""Blobs as files below one folder.

Storing: write to a temporary file in `.staging`, hashing on the way → fsync → hard link to the key, which fails
when the key exists → fsync of the folder → unlink of the temporary file. At any moment a key has all of its bytes or
does not exist.

What a dead process left in `.staging` is removed by the next process that stores something. Each process holds a lock
on `.staging/<session>.lock` as long as it lives and names its temporary files `<session>-<random>`; a lock that can be
taken belongs to nobody alive.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from audio_storage_system.blobs.base import BlobStore, StagedBlob, checked_key, free_number, numbered
from audio_storage_system.durable import FileLock, disk_errors, make_folders, sync_folder
from audio_storage_system.errors import InvalidInput, NotFound, StorageFailed

STAGING = ".staging"
# What is read, hashed and written at once: while it stays in the processor's cache, a third of the copy's time is saved
# against 1 MiB.
COPIED_AT_ONCE = 1 << 18
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def from_url(url: str) -> LocalBlobStore:
    """The store of a `file://` URL. Raises `InvalidInput` for one that names another host."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise InvalidInput(reason=f"{url} is on another host; a file URL has three slashes: file:///folder")
    path = unquote(parts.path)
    return LocalBlobStore(Path(path.lstrip("/") if os.name == "nt" else path))


class LocalBlobStore(BlobStore):
    """A blob store in the folder `root`, which is made when the first blob is staged.

    A key is a path below `root` that passes no symbolic link. Several processes and threads may use one folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._staging = self._root / STAGING
        self._session: _Session | None = None
        self._session_lock = threading.Lock()
        self._durable_folders: set[Path] = set()
        self._numbers: dict[str, int] = {}  # the last key claimed, and its number
        self.url = self._root.as_uri()

    def stage(self, source: BinaryIO, *, name: str = "", hashed: bool = True) -> StagedBlob:
        with disk_errors(self._root):
            path = self._staging / f"{self._open_session().id}-{uuid4().hex}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            sha256, size = self._copy(source, descriptor, hashlib.sha256() if hashed else None)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)
        return StagedBlob(path.name, sha256, size)

    def _copy(self, source: BinaryIO, descriptor: int, digest: hashlib._Hash | None = None) -> tuple[str, int]:
        size = 0
        while block := source.read(
            COPIED_AT_ONCE
        ):  # outside `disk_errors`: a source that fails is not the archive's fault
            if digest is not None:
                digest.update(block)
            size += len(block)
            with disk_errors(self._root):
                _write_all(descriptor, block)
        with disk_errors(self._root):
            os.fsync(descriptor)
        return digest.hexdigest() if digest is not None else "", size

    def publish(self, staged: StagedBlob, key: str) -> str:
        """As promised by `BlobStore`. When it fails, the bytes stay staged: publish again, or discard."""
        temporary = self._staged_path(staged)
        folder = self._path(key).parent
        with disk_errors(self._root):
            self._make_durable(folder)
            key = self._claim(temporary, key)
            try:
                sync_folder(folder)
            except OSError:
                if temporary.exists():  # linked: the key can be taken back without losing the bytes
                    self._path(key).unlink()
                raise
            temporary.unlink(missing_ok=True)
        return key

    def replace(self, staged: StagedBlob, key: str) -> None:
        temporary = self._staged_path(staged)
        path = self._path(key)
        with disk_errors(self._root):
            self._make_durable(path.parent)
            temporary.replace(path)
            sync_folder(path.parent)

    def _make_durable(self, folder: Path) -> None:
        """Make `folder`, with its name and its parents' names on disk; once per process unless it disappears."""
        if folder not in self._durable_folders or not folder.is_dir():
            make_folders(folder, below=self._root)
            self._durable_folders.add(folder)

    def _claim(self, temporary: Path, key: str) -> str:
        """Give the file the first free name, and say which."""
        candidate = key
        number = 1
        while not _link(temporary, self._root / candidate):  # the folder was checked; a link never follows one
            after = max(number, self._numbers.get(key, 1)) + 1
            number = free_number(after, lambda n: os.path.lexists(self._root / numbered(key, n)))
            candidate = numbered(key, number)
        if number > 1:
            self._numbers = {key: number}
        return candidate

    def discard(self, staged: StagedBlob) -> None:
        with disk_errors(self._root):
            (self._staging / PurePosixPath(staged.token).name).unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        self._stat(key)
        try:
            return self._path(key).open("rb")
        except FileNotFoundError as error:
            raise NotFound(kind="blob", id=key) from error
        except OSError as error:
            raise StorageFailed(reason=str(error)) from error

    def size(self, key: str) -> int:
        return self._stat(key).st_size

    def age(self, key: str) -> timedelta | None:
        return timedelta(seconds=max(0.0, time.time() - self._stat(key).st_mtime))

    def delete(self, key: str) -> bool:
        path = self._path(key)
        with disk_errors(self._root):
            try:
                self._stat(key)
                path.unlink()
            except (NotFound, FileNotFoundError):
                return False
            sync_folder(path.parent)
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        yield from self._walk(folder, "" if folder == self._root else prefix.rstrip("/") + "/")

    def _walk(self, folder: Path, prefix: str) -> Iterator[str]:
        for name, is_folder in _entries(folder):
            if is_folder and prefix + name != STAGING:
                yield from self._walk(folder / name, f"{prefix}{name}/")
            elif not is_folder:
                yield prefix + name

    def _stat(self, key: str) -> os.stat_result:
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(kind="blob", id=key) from error
        except OSError as error:
            raise StorageFailed(reason=str(error)) from error
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(kind="blob", id=key)
        return found

    def _path(self, key: str) -> Path:
        """Where `key` lies. Raises `InvalidInput` for a key in `.staging` and for one that passes a symbolic link."""
        path = self._root / checked_key(key)
        parts = key.split("/")
        if parts[0].casefold() == STAGING or _passes_link(self._root, parts):
            raise InvalidInput(reason=f"{key!r} is not a key inside the archive")
        return path

    def _staged_path(self, staged: StagedBlob) -> Path:
        path = self._staging / PurePosixPath(staged.token).name
        if not path.is_file():
            raise NotFound(kind="staged blob", id=staged.token)
        return path

    def crashed(self) -> bool:
        own = self._session.id if self._session else ""
        return any(path.stem != own and _is_dead(path) for path in self._staging.glob("*.lock"))

    def tidy(self) -> None:
        with disk_errors(self._root):
            _sweep(self._staging)

    def close(self) -> None:
        with self._session_lock:
            if self._session is not None:
                self._session.end(self._staging)
                self._session = None

    def _open_session(self) -> _Session:
        with self._session_lock:
            if self._session is None or self._session.pid != os.getpid():
                make_folders(self._root, private=True)
                make_folders(self._staging)
                self._session = _Session.start(self._staging)
                _sweep(self._staging)
                weakref.finalize(self, self._session.end, self._staging)
            return self._session


class _Session:
    """This process's claim on its files in `.staging`."""

    def __init__(self, id: str, lock: FileLock | None) -> None:
        self.id = id
        self.pid = os.getpid()
        self._lock = lock

    @classmethod
    def start(cls, staging: Path) -> _Session:
        """Take a lock under a new name. Three tries: another process may sweep a lock file before it is locked.

        Without a lock the file system has none, so nobody can ever take the lock file, and nothing is swept.
        """
        for _ in range(3):
            id = uuid4().hex
            if lock := FileLock.acquire(staging / f"{id}.lock"):
                return cls(id, lock)
        return cls(id, None)

    def end(self, staging: Path) -> None:
        """Give the claim up in good order. The file goes first: one that is there and not locked tells of a crash. But
        Windows removes no file that is open; whoever comes in between there looks for orphans in vain."""
        if self._lock is None or self.pid != os.getpid():  # after a fork the claim is the parent's
            return
        path = staging / f"{self.id}.lock"
        if sys.platform != "win32":
            path.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
        if sys.platform == "win32":
            path.unlink(missing_ok=True)


def _is_dead(lock_file: Path) -> bool:
    """Whether the process that made this lock file is gone without having removed it."""
    try:
        lock = FileLock.acquire(lock_file)
    except OSError:  # another user's, or removed this moment
        return False
    if lock is None:
        return False
    lock.release()
    return True


def _sweep(staging: Path) -> None:
    """Remove the temporary files of every process that is gone, then its lock file.

    A living process has its lock file before its first temporary file, so a file listed here whose session has no lock
    file belongs to nobody.
    """
    names = os.listdir(staging)
    for session in {name.split("-")[0].removesuffix(".lock") for name in names}:
        try:
            _sweep_session(staging, session, names)
        except OSError:  # another user's, who will sweep it: no reason not to store
            continue


def _sweep_session(staging: Path, session: str, names: list[str]) -> None:
    lock_file = staging / f"{session}.lock"
    if lock := FileLock.acquire(lock_file):
        for name in names:
            if name.startswith(f"{session}-"):
                (staging / name).unlink(missing_ok=True)
        lock.release()
        lock_file.unlink(missing_ok=True)


def _passes_link(root: Path, parts: list[str]) -> bool:
    """Whether one of the names below `root` is a symbolic link, or on Windows also a junction."""
    place = str(root)
    if os.name == "nt":
        path = os.path.join(place, *parts)
        return os.path.normcase(os.path.realpath(path)) != os.path.normcase(path)
    for part in parts:
        place = f"{place}/{part}"
        if os.path.islink(place):
            return True
    return False


def _link(temporary: Path, target: Path) -> bool:
    """Whether `target` now has the bytes; false when the name was taken.

    Without hard links the name is claimed by an empty file, which the temporary file then replaces in one step.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _move(temporary, target)
    return True


def _move(temporary: Path, target: Path) -> bool:
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    os.replace(temporary, target)
    return True


def _write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Files and folders, symbolic links left out, in the order that their keys have."""
    try:
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if not entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(entries, key=lambda entry: entry[0] + "/" * entry[1])
