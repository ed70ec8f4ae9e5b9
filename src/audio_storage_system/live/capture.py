"""The sound of a live session on its way to the disk: first of all, and whatever becomes of the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from audio_storage_system.audio.spool import Spool, SpoolWriter
from audio_storage_system.audio.wav import SAMPLE_BYTES
from audio_storage_system.errors import Conflict, InvalidInput, StorageFailed

logger = logging.getLogger(__name__)

Sound = bytes | bytearray | memoryview | npt.NDArray[np.float32] | npt.NDArray[np.int16]
FULL_SCALE = 32767


class Capture:
    """Appends sound to a spool, from any thread, one at a time. `heard` is called with all sound that is on its way to
    the disk, and must not wait for anything."""

    def __init__(self, writer: SpoolWriter, heard: Callable[[bytes], None]) -> None:
        self._writer = writer
        self._heard = heard
        self._lock = threading.Lock()
        self._lost = 0  # frames that the disk refused
        self.closed = False

    @property
    def seconds(self) -> float:
        """How much was written."""
        return self._writer.frames / self._writer.sample_rate

    @property
    def durable_seconds(self) -> float:
        """How much of it is safe on the disk."""
        return self._writer.synced / self._writer.sample_rate

    def write(self, sound: Sound) -> None:
        """Append sound. What the disk refuses is counted as missing, unless it is written again from `seconds` on.
        Raises `InvalidInput`, and what `SpoolWriter.write` raises."""
        pcm = as_pcm(sound, self._writer.channels)
        with self._lock:
            self._check_open()
            self._own_up()
            before = self._writer.frames
            try:
                self._writer.write(pcm)
            except StorageFailed:
                self._lost += len(pcm) // self._frame_bytes - (self._writer.frames - before)
                raise
            finally:
                written = (self._writer.frames - before) * self._frame_bytes
                if written:
                    self._heard(pcm[:written])

    def skip(self, frames: int) -> None:
        """Note that so many frames were lost here."""
        with self._lock:
            self._check_open()
            self._own_up()
            self._writer.skip(frames)

    def sync(self) -> None:
        """Make durable what is half a second old."""
        with self._lock:
            if not self.closed:
                self._writer.sync()

    def flush(self) -> None:
        """Make all of it durable."""
        with self._lock:
            self._check_open()
            self._writer.flush()

    def close(self) -> Spool:
        """The spool, with all that was written. Nothing can be written any more, also where this raises: the spool is
        let go of then, as it is."""
        with self._lock:
            self._check_open()
            self.closed = True
            try:
                self._own_up()
            except StorageFailed:
                logger.warning("That %d frames are missing at the end could not be noted", self._lost)
            return self._writer.close()

    @property
    def _frame_bytes(self) -> int:
        return self._writer.channels * SAMPLE_BYTES

    def _check_open(self) -> None:
        if self.closed:
            raise Conflict(reason=f"The live session {self._writer.folder.name} has ended")

    def _own_up(self) -> None:
        if self._lost:
            self._writer.skip(self._lost)
            self._lost = 0


def as_pcm(sound: Sound, channels: int) -> bytes:
    """Sound as interleaved little-endian 16-bit samples. Raises `InvalidInput` for what is not whole frames of so many
    channels."""
    if isinstance(sound, np.ndarray):
        return _of_array(sound, channels)
    if not isinstance(sound, bytes | bytearray | memoryview):
        raise InvalidInput(reason=f"sound is bytes or an array of samples, not {type(sound).__name__}")
    pcm = bytes(sound)
    if len(pcm) % (channels * SAMPLE_BYTES):
        what = f"16-bit samples of {channels} channel{'s' * (channels > 1)}"
        raise InvalidInput(reason=f"{len(pcm)} bytes are not whole {what}")
    return pcm


def _of_array(array: npt.NDArray[np.float32] | npt.NDArray[np.int16], channels: int) -> bytes:
    shape = array.shape[1:] or (1,)
    if array.ndim not in (1, 2) or shape != (channels,):
        raise InvalidInput(reason=f"an array of {channels} channels has the shape (frames, {channels}), {array.shape}")
    if array.dtype == np.int16:
        return array.astype("<i2").tobytes()
    if array.dtype.kind != "f":
        raise InvalidInput(reason=f"samples are floating-point in -1…1, or 16-bit, not {array.dtype}")
    if not np.isfinite(array).all():
        raise InvalidInput(reason="there are samples that are no numbers")
    return (np.clip(array, -1, 1) * FULL_SCALE).astype("<i2").tobytes()
