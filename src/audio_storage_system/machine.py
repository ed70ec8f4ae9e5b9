"""What this process may use of the machine, and what it takes."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def resident_bytes(process: int | None = None) -> int | None:
    """The memory that a process (default: this one) has now; `None` where the system does not tell (it is Linux that
    does) and for a process that has ended."""
    try:
        pages = int(Path(f"/proc/{process or 'self'}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def process_place() -> str:
    """Names what shares its process ids with us: this machine since it was started, within one container. Empty where
    that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def process_is_gone(place: str, process: int) -> bool:
    """Whether a process of this `process_place` is known not to exist: only where its processes are ours to see."""
    if not place or place != process_place():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and somebody else's
        return False
    return _is_dead(process)


def _is_dead(process: int) -> bool:
    """Whether all that is left of a process is its exit code, which nobody has asked for."""
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
        )
    except OSError:
        return False
    return state in "ZX"
