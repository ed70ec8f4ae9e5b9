"""How many runs of each queue a machine does at once."""

from __future__ import annotations

from collections.abc import Sequence

from audio_storage_system.errors import InvalidInput
from audio_storage_system.jobs.runs import QUEUES
from audio_storage_system.machine import usable_cores

# What asks a service over the network waits most of the time.
REMOTE_AT_ONCE = 8


def concurrency_of(wanted: int, queues: Sequence[str]) -> dict[str, int]:
    """Runs at once of each of these queues (default: all): as many transcriptions as `wanted` (0: one per core that
    this process may use, or one per graphics card), embeddings one per core. Raises `InvalidInput`."""
    for name in queues:
        if name not in QUEUES:
            raise InvalidInput(reason=f'There is no queue "{name}"; there are: {", ".join(QUEUES)}')
    if wanted < 0:
        raise InvalidInput(reason=f"concurrency is a number of runs, not {wanted}")
    whole = {
        "transcribe": wanted or _cards() or usable_cores(),
        "embed": usable_cores(),
        "remote": REMOTE_AT_ONCE,
        "upkeep": 1,
    }
    return {name: whole[name] for name in QUEUES if name in (queues or QUEUES)}


def _cards() -> int:
    """Graphics cards that recognisers can use; each does one recording at a time, in batches of windows."""
    import ctranslate2  # slow to import

    return int(ctranslate2.get_cuda_device_count())
