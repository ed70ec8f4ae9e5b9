"""The sound of a socket on its way into its session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol

from audio_storage_system.audio.streaming import Form, Pipe, decode_stream
from audio_storage_system.audio.wav import SAMPLE_BYTES
from audio_storage_system.errors import InvalidInput
from audio_storage_system.live import LiveSession


class Feed(Protocol):
    """Takes sound as it comes in. Its methods may wait: for a disk, or for a decoder. They raise what reading and
    storing the sound raises."""

    def write(self, data: bytes) -> None:
        """More of it."""

    def close(self) -> None:
        """That was all: it is in the session when this returns."""


class Samples:
    """16-bit samples as they are: whole frames go to the session, wherever messages cut them. begins: the second of the
    recording where they begin; what the session has of them is left out. Raises `InvalidInput` for a later one."""

    def __init__(self, session: LiveSession, begins: float | None = None) -> None:
        self._session = session
        self._frame_bytes = session.channels * SAMPLE_BYTES
        self._rest = b""
        known = session.seconds - (session.seconds if begins is None else begins)
        if known < 0:
            raise InvalidInput(reason=f"begins is at most {session.seconds:g}, how much there is of the recording")
        self._surplus = round(known * session.sample_rate) * self._frame_bytes

    def write(self, data: bytes) -> None:
        """As of `Feed`."""
        dropped = min(self._surplus, len(data))
        self._surplus -= dropped
        held = self._rest + data[dropped:]
        whole = len(held) - len(held) % self._frame_bytes
        self._rest = held[whole:]
        if whole:
            self._session.write(held[:whole])

    def close(self) -> None:
        """As of `Feed`; half a frame at the end is no sound."""


class Coded:
    """Compressed sound, decoded in a thread of its own. enter: called once its form is known; where the samples go."""

    def __init__(self, encoding: str, enter: Callable[[Form], Samples], wanted: Form | None = None) -> None:
        self._pipe, self._encoding, self._wanted, self._enter = Pipe(), encoding, wanted, enter
        self._error: BaseException | None = None
        context = copy_context()  # where it comes from, for the audit log
        self._thread = threading.Thread(target=context.run, args=(self._decode,), name="live decoder", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """As of `Feed`."""
        if not self._pipe.write(data):
            self._raise()

    def close(self) -> None:
        """As of `Feed`."""
        self._pipe.close()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _decode(self) -> None:
        samples: Samples | None = None
        try:
            for form, pcm in decode_stream(self._pipe, self._encoding, self._wanted):
                samples = samples or self._enter(form)
                samples.write(pcm)
        except BaseException as error:  # raised where somebody hears of it
            self._error = error
        finally:
            self._pipe.abandon()
