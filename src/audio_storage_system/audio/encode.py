"""The optional smaller copy of a recording: 16 kHz mono, as FLAC or as 16-bit WAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from audio_storage_system.audio.container import Source
from audio_storage_system.audio.decode import SAMPLE_RATE, stream

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import OutputContainer

Format = Literal["flac", "pcm16"]

_CONTAINERS = {"flac": ("flac", "flac"), "pcm16": ("wav", "pcm_s16le")}
# RF64 takes over above 4 GB; "bitexact" keeps the encoder's version out, so that equal sound gives equal bytes.
_OPTIONS = {"rf64": "auto", "fflags": "+bitexact"}


def write_copy(source: Source, target: Source, format: Format = "flac") -> None:
    """Write `source` to `target` as 16 kHz mono with 16 bits, in constant memory; lossless from there on.

    `target` is a path, where nothing is left when it fails, or a seekable stream. Raises `NotAudio`, or `OSError` where
    a file cannot be read or written.
    """
    import av

    container, codec = _CONTAINERS[format]
    path = Path(target) if isinstance(target, str | os.PathLike) else None
    options = _OPTIONS if container == "wav" else {"fflags": "+bitexact"}
    try:
        with (
            stream(source, SAMPLE_RATE) as blocks,
            av.open(path or target, "w", format=container, options=options) as output,
        ):
            _encode(blocks, output, codec)
    except BaseException:
        if path:
            path.unlink(missing_ok=True)
        raise


def _encode(blocks: Iterator[npt.NDArray[np.float32]], output: OutputContainer, codec: str) -> None:
    track: Any = output.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
    track.codec_context.format = "s16"
    track.codec_context.flags |= 1 << 23  # bitexact
    position = 0
    for block in blocks:
        output.mux(track.encode(_frame(block, position)))
        position += len(block)
    output.mux(track.encode(None))


def _frame(block: npt.NDArray[np.float32], position: int) -> AudioFrame:
    from av import AudioFrame

    samples = np.rint(block * 32767).astype(np.int16)
    frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, position
    return frame
