"""Files that survive a crash: folders synced to disk, locks that die with their process, and disk errors by name."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audio_storage_system.errors import ArchiveReadOnly, StorageFailed, StorageFull

FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
PRIVATE = 0o700
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Inside, an `OSError` becomes `StorageFull`, `ArchiveReadOnly` or `StorageFailed`, naming `place`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(place=place) from error
        if error.errno in READ_ONLY:
            raise ArchiveReadOnly(place=place, reason=error.strerror) from error
        raise StorageFailed(reason=str(error)) from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Windows has no such call and journals names by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, *, below: Path | None = None, private: bool = False) -> None:
    """Make `folder` and its parents, their names durable up to `below` (default: the nearest that existed). A `private`
    one that is new may be entered by its owner only, whatever the umask says; one that exists stays as it is.

    Folders that exist are synced too: another process may have made them a moment ago and not come further.
    """
    below = below or next(parent for parent in (folder, *folder.parents) if parent.exists())
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE if private else 0o777, exist_ok=True)
    for made in (folder, *folder.parents):
        if made == below:
            return
        sync_folder(made.parent)


class FileLock:
    """An exclusive lock on a file, held until `release`, or until the process is gone, however it ends.

    A child made by `fork` holds it too, so what it guards counts as in use until both are gone.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> FileLock | None:
        """Lock `path`, made if missing; `None` when someone holds it, or when it was removed meanwhile.

        Raises `OSError` where the file cannot be opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return cls(descriptor)
        except OSError:  # held by someone, removed, or a file system without locks: never ours
            pass
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Let go; calling it again does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
