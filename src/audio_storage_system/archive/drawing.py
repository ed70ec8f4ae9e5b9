"""What a player draws of a recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
import numpy.typing as npt

from audio_storage_system import audio
from audio_storage_system.archive.opening import Archive
from audio_storage_system.archive.retrieval import audio_key
from audio_storage_system.clock import Deadline
from audio_storage_system.errors import InvalidInput
from audio_storage_system.pipeline.sources import MODEL_RATE
from audio_storage_system.records import Peaks, Recording

MOST_POINTS = 20_000
DECIMALS = 4  # a screen has fewer lines than that

Samples = npt.NDArray[np.float32]


def peaks(archive: Archive, recording: Recording, points: int, deadline: Deadline) -> Peaks:
    """The peaks of a recording's sound. Raises `InvalidInput`, `AudioRemoved`, `DeadlineExceeded`,
    `Cancelled`."""
    if not 1 <= points <= MOST_POINTS:
        raise InvalidInput(reason=f"points are 1 to {MOST_POINTS:,}")
    rate, samples = recording.sample_rate or MODEL_RATE, 0

    def counted(blocks: Iterable[Samples]) -> Iterator[Samples]:
        nonlocal samples
        for block in blocks:
            deadline.check()
            samples += len(block)
            yield block

    with closing(archive.blobs.open(audio_key(recording))) as file, audio.stream(file, rate) as blocks:
        found = audio.peaks(counted(blocks), points)
    pairs = tuple((round(float(low), DECIMALS), round(float(high), DECIMALS)) for low, high in found)
    return Peaks(recording.id, samples / rate, pairs)
