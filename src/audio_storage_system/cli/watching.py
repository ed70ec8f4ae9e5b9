"""Which files in a folder are new and finished: what a watch sees, waits for and remembers.

By asking for size and time of every file again and again, which works on every system and on network shares too, where
nobody tells of changes. A look at 50,000 files takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audio_storage_system.cli.paths import OTHER_SUFFIXES

if TYPE_CHECKING:
    from audio_storage_system.archive.notes import Notes

# What browsers, downloaders and office programs call a file until it is whole.
UNFINISHED_SUFFIXES = frozenset(
    ".!ut .aria2 .bc! .crdownload .download .filepart .incomplete .opdownload .part .partial .swp .temp .tmp".split()
)


class Stamp(NamedTuple):
    """What tells that a file has changed, without reading it. `inode` is 0 where there is none."""

    size: int
    mtime_ns: int
    inode: int


@dataclass
class Seen:
    """One look at a folder. `problems` (path, message) tell which parts of it could not be looked at."""

    files: dict[str, Stamp] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def look(folder: str, archive: Path) -> Seen:
    """Every file at or below `folder` that may be audio. Hidden ones, unfinished downloads, what is plainly something
    else, and the archive's own folder are passed over; links to folders are not followed."""
    seen, folders = Seen(), [folder]
    while folders:
        place = folders.pop()
        try:
            with os.scandir(place) as entries:
                folders += _take(entries, archive, seen)
        except OSError as error:
            seen.problems.append((place, f"The folder {place} cannot be read: {error.strerror}"))
    return seen


def _take(entries: Iterator[os.DirEntry[str]], archive: Path, seen: Seen) -> list[str]:
    folders = []
    for entry in entries:
        if entry.name.startswith((".", "~$")):
            continue
        with suppress(OSError):  # gone again, or a link to nowhere
            if entry.is_dir(follow_symlinks=False):
                if entry.name != archive.name or Path(os.path.realpath(entry.path)) != archive:
                    folders.append(entry.path)
            elif may_be_audio(entry.name) and entry.is_file():
                known = entry.stat()
                seen.files[entry.path] = Stamp(known.st_size, known.st_mtime_ns, known.st_ino)
    return folders


def may_be_audio(name: str) -> bool:
    """Whether a file of this name is worth a look inside."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix not in OTHER_SUFFIXES and suffix not in UNFINISHED_SUFFIXES


class Arrivals:
    """Which of the files seen are new and settled. Pure: it is told what is there, and what the time is.

    A file is settled when it looked the same for `settle` seconds. It is told once, and again only when it has changed
    since it was noted as done with. `known`: what was done with before.
    """

    def __init__(self, settle: float, known: Mapping[str, Stamp] | None = None) -> None:
        self._settle = settle
        self._done: dict[str, Stamp] = dict(known or {})
        self._waiting: dict[str, tuple[Stamp, float]] = {}

    @property
    def waiting(self) -> list[str]:
        """The files that are new or changed, but not noted as done with."""
        return sorted(self._waiting)

    def settled(self, seen: Mapping[str, Stamp], now: float, *, complete: bool = True) -> list[tuple[str, Stamp]]:
        """What is new and settled at `now` (seconds, never going back), the one written first first.

        Until it is noted it is told again at every call. What is gone is forgotten, unless the look was not `complete`:
        a share that is away for a while has not lost its files.
        """
        fresh = {path: stamp for path, stamp in seen.items() if self._done.get(path) != stamp}
        if complete:
            self._done = {path: stamp for path, stamp in self._done.items() if path in seen}
        before = self._waiting
        self._waiting = {
            path: before[path] if path in before and before[path][0] == stamp else (stamp, now)
            for path, stamp in fresh.items()
        }
        ready = [(path, stamp) for path, (stamp, since) in self._waiting.items() if now - since >= self._settle]
        return sorted(ready, key=lambda item: (item[1].mtime_ns, item[0]))

    def note(self, path: str, stamp: Stamp) -> None:
        """This file, as it looked then, is done with."""
        self._done[path] = stamp
        if path in self._waiting and self._waiting[path][0] == stamp:
            del self._waiting[path]


class Memory:
    """What a watch was done with, for its next start: path, stamp and hash of each file in a file of the user's cache.

    It may be thrown away at any time: the files are then read and hashed once more. A line is appended for each file; a
    line cut short by a crash is passed over. `hash` is `None` for what is no audio. `notes` seals each line where the
    archive is encrypted.
    """

    def __init__(self, place: Path, notes: Notes) -> None:
        self._place = place
        self._notes = notes
        self.entries: dict[str, tuple[Stamp, str | None]] = dict(_read(place, notes))

    @classmethod
    def of(cls, folder: str, archive: str, notes: Notes, *, transcribed: bool) -> Memory:
        """The memory of watching `folder` for this archive. What was only stored has yet to be transcribed by a watch
        that does so: it remembers for itself."""
        from platformdirs import user_cache_path

        name = hashlib.sha256(json.dumps([archive, os.path.realpath(folder), transcribed]).encode()).hexdigest()[:32]
        return cls(user_cache_path("audio-storage") / "watch" / f"{name}.jsonl", notes)

    def keep_only(self, hashes: set[str]) -> dict[str, Stamp]:
        """Forget files whose bytes the archive does not know (it may have been restored from a backup), and write the
        rest anew; what remains, as `Arrivals` wants it."""
        self.entries = {path: entry for path, entry in self.entries.items() if entry[1] is None or entry[1] in hashes}
        lines = [self._line(path, *entry) for path, entry in self.entries.items()]
        with suppress(OSError):  # without a cache the next start takes longer, that is all
            self._place.parent.mkdir(parents=True, exist_ok=True)
            new = self._place.with_suffix(f".{os.getpid()}")
            new.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
            new.replace(self._place)
        return {path: stamp for path, (stamp, _) in self.entries.items()}

    def note(self, path: str, stamp: Stamp, file_hash: str | None) -> None:
        """Remember a file."""
        self.entries[path] = (stamp, file_hash)
        with suppress(OSError), self._place.open("a", encoding="utf-8") as file:
            file.write(self._line(path, stamp, file_hash))

    def _line(self, path: str, stamp: Stamp, file_hash: str | None) -> str:
        return self._notes.seal(json.dumps([path, *stamp, file_hash])) + "\n"


def _read(place: Path, notes: Notes) -> Iterator[tuple[str, tuple[Stamp, str | None]]]:
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        with suppress(ValueError, TypeError):
            path, size, mtime_ns, inode, file_hash = json.loads(notes.open(line) or "")
            yield str(path), (Stamp(int(size), int(mtime_ns), int(inode)), file_hash and str(file_hash))


if sys.platform == "linux":
    import fcntl
    import signal

    def being_written(path: str) -> bool:
        """Whether some process has the file open for writing; false where that cannot be known.

        Linux grants a read lease only on a file that nobody writes. It is given back at once; a process that opens the
        file for writing in between waits for that, and we hear of it by a signal that is ignored by default.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return True
        except OSError:  # somebody else's file, or a file system without leases
            return False
        finally:
            os.close(descriptor)
        return False

else:

    def being_written(path: str) -> bool:
        """Whether some process has the file open for writing: not known on this system."""
        return False
