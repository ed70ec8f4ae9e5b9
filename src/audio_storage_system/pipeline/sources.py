"""Where a step gets a recording's sound from: its blob, or samples that the caller already has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audio_storage_system.audio import Waveform, resample, stream
from audio_storage_system.blobs import BlobStore
from audio_storage_system.errors import AudioRemoved, InvalidInput
from audio_storage_system.records import Span

MODEL_RATE = 16_000
BLOCK_SECONDS = 10
KEPT_SECONDS = 300  # of a decoded recording, 19 MB

Samples = npt.NDArray[np.float32]


def as_waveform(samples: Samples) -> Waveform:
    """Samples as a `Waveform`; a plain array is taken to be mono at 16 kHz. Raises `InvalidInput` for more than one
    dimension and for whole numbers, whose full scale nobody knows."""
    array = np.asarray(samples)
    if array.ndim != 1 or (array.size and array.dtype.kind != "f"):
        reason = f"audio_data is one dimension of floating-point samples in -1…1, not {array.ndim} of {array.dtype}"
        raise InvalidInput(reason=reason)
    return samples if isinstance(samples, Waveform) else Waveform(samples, MODEL_RATE)


def as_model_input(samples: Samples) -> Samples:
    """Samples as models want them: mono at 16 kHz."""
    return resample(as_waveform(samples), MODEL_RATE)


@dataclass
class Source:
    """One recording's sound as blocks of 16 kHz mono; it can be read again and again, and a short one is decoded once.

    `warnings` tells what was wrong with the file, once it was read to its end. `tick` is called with every block; what
    it raises stops the reading.
    """

    blobs: BlobStore
    key: str
    waveform: Waveform | None = None
    warnings: list[str] = field(default_factory=list)
    tick: Callable[[], None] = field(default=lambda: None)
    removed: int | None = None  # the recording whose blob a retention rule removed
    _kept: list[Samples] | None = None  # all of a short recording

    def blocks(self) -> Iterator[Samples]:
        """The whole recording, block after block; memory stays flat."""
        for block in self._blocks():
            self.tick()
            yield block

    def _blocks(self) -> Iterator[Samples]:
        if self.waveform is not None:
            yield from _slices(resample(self.waveform, MODEL_RATE))
        elif self._kept is not None:
            yield from self._kept
        else:
            yield from self._decoded()

    def _decoded(self) -> Iterator[Samples]:
        if self.removed is not None:
            raise AudioRemoved(kind="audio", id=self.removed, audio_id=self.removed)
        kept, room = [], KEPT_SECONDS * MODEL_RATE
        with closing(self.blobs.open(self.key)) as file, stream(file, MODEL_RATE) as decoded:
            for block in decoded:
                room -= len(block)
                if room >= 0:
                    kept.append(block)
                else:
                    kept.clear()
                yield block
            self.warnings[:] = decoded.warnings
        self._kept = kept if room >= 0 else None

    def pieces(self, spans: list[Span]) -> Iterator[tuple[int, Samples]]:
        """The samples of these spans, which are in order of their start, each with its place in the list."""
        return cut(self.blocks(), spans)


def _slices(samples: Samples) -> Iterator[Samples]:
    step = BLOCK_SECONDS * MODEL_RATE
    for begin in range(0, len(samples), step):
        yield samples[begin : begin + step]


def cut(blocks: Iterator[Samples], spans: list[Span]) -> Iterator[tuple[int, Samples]]:
    """Cut `spans` (ordered by start) out of a stream of blocks, holding no more than the next span needs.

    A span that reaches beyond the end gets what there is; one with nothing in it is left out.
    """
    held, offset = np.zeros(0, dtype=np.float32), 0
    for number, span in enumerate(spans):
        first, last = round(span.start * MODEL_RATE), round(span.end * MODEL_RATE)
        held, offset = _drop_before(held, offset, first)
        parts = [held]
        while offset + sum(map(len, parts)) < last and (block := next(blocks, None)) is not None:
            parts, offset = _append(parts, block, offset, first)
        held = np.concatenate(parts) if len(parts) > 1 else held
        piece = held[max(first - offset, 0) : max(last - offset, 0)]
        if len(piece):
            yield number, piece.copy()  # a part of `held` would keep all of it for as long as the piece is kept


def _append(parts: list[Samples], block: Samples, offset: int, first: int) -> tuple[list[Samples], int]:
    """Add a block, forgetting everything when all of it lies before `first`."""
    end = offset + sum(map(len, parts)) + len(block)
    return ([np.zeros(0, dtype=np.float32)], end) if end <= first else ([*parts, block], offset)


def _drop_before(held: Samples, offset: int, first: int) -> tuple[Samples, int]:
    dropped = min(max(first - offset, 0), len(held))
    return held[dropped:], offset + dropped
