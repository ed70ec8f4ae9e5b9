"""Which servers make an archive reachable, noted in its folder while they run: `serving/<process>.json`."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from audio_storage_system.clock import utc_now

FOLDER = "serving"
MOST_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: where it listens, in which process of which machine, since when."""

    host: str
    port: int
    process: int
    machine: str
    since: str


@contextmanager
def noted(home: Path, host: str, port: int) -> Iterator[None]:
    """Note a server of this process, for as long as the block. A folder that cannot be written stays without it."""
    note = Served(host, port, os.getpid(), socket.gethostname(), utc_now().isoformat(timespec="seconds"))
    file = home / FOLDER / f"{note.process}.json"
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(json.dumps(asdict(note)), encoding="utf-8")
    except OSError:
        pass
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running(home: Path) -> list[Served]:
    """The servers that run by now, as far as this machine can tell; notes of those that were killed are left out."""
    found = [_read(file) for file in sorted((home / FOLDER).glob("*.json"))]
    return [one for one in found if one is not None and _lives(one)]


def _read(file: Path) -> Served | None:
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        note = Served(**json.loads(file.read_text(encoding="utf-8")))
        datetime.fromisoformat(note.since)
        return note if isinstance(note.process, int) and isinstance(note.port, int) else None
    except (OSError, ValueError, TypeError):
        return None


def _lives(note: Served) -> bool:
    """Whether its process is there; of another machine nothing can be known, and the note counts."""
    if note.machine != socket.gethostname() or os.name == "nt":
        return True
    try:
        os.kill(note.process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
