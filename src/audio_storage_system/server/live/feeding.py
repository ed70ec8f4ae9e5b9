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
from audio_storage_system.server.live.pace import Pace


class Feed(Protocol):
    """Takes sound as it comes in. Its methods may wait: for a disk, or for a decoder. They raise what reading and
    storing the sound raises."""

    def write(self, data: bytes) -> float:
        """More of it; for how many seconds there is to be none, as it came too fast."""

    def close(self) -> None:
        """That was all: it is in the session when this returns."""

    def cut(self) -> None:
        """From another thread: nothing is to wait here any more; what is not in the session yet may be lost."""


class Samples:
    """16-bit samples as they are: whole frames go to the session, wherever messages cut them. begins: the second of the
    recording where they begin; what the session has of them is left out. Raises `InvalidInput` for a later one."""

    def __init__(self, session: LiveSession, begins: float | None = None) -> None:
        self._session = session
        self._frame_bytes = session.channels * SAMPLE_BYTES
        self._rest = b""
        self._pace = Pace()
        known = session.seconds - (session.seconds if begins is None else begins)
        if known < 0:
            raise InvalidInput(reason=f"begins is at most {session.seconds:g}, how much there is of the recording")
        self._surplus = round(known * session.sample_rate) * self._frame_bytes

    def write(self, data: bytes) -> float:
        """As of `Feed`."""
        dropped = min(self._surplus, len(data))
        self._surplus -= dropped
        held = self._rest + data[dropped:]
        whole = len(held) - len(held) % self._frame_bytes
        self._rest = held[whole:]
        if whole:
            self._session.write(held[:whole])
        return self._pace.wait_for(len(data) / self._frame_bytes / self._session.sample_rate)

    def close(self) -> None:
        """As of `Feed`; half a frame at the end is no sound."""

    def cut(self) -> None:
        """As of `Feed`: nothing here waits for its pace."""


class Coded:
    """Compressed sound, decoded in a thread of its own. enter: called once its form is known; where the samples go.
    failed: called with what ends it before its time."""

    def __init__(
        self,
        encoding: str,
        enter: Callable[[Form], Samples],
        failed: Callable[[Exception], None],
        wanted: Form | None = None,
    ) -> None:
        self._pipe, self._encoding, self._wanted = Pipe(), encoding, wanted
        self._enter, self._failed = enter, failed
        self._error: Exception | None = None
        self._closing = threading.Event()
        context = copy_context()  # where it comes from, for the audit log
        self._thread = threading.Thread(target=context.run, args=(self._decode,), name="live decoder", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> float:
        """As of `Feed`; what is too fast waits before it is decoded, whatever few bytes may hold."""
        if not self._pipe.write(data):
            self._raise()
        return 0.0

    def close(self) -> None:
        """As of `Feed`."""
        self._closing.set()
        self._pipe.close()
        self._thread.join()
        self._raise()

    def cut(self) -> None:
        """As of `Feed`."""
        self._closing.set()
        self._pipe.abandon()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _decode(self) -> None:
        samples: Samples | None = None
        try:
            for form, pcm in decode_stream(self._pipe, self._encoding, self._wanted):
                samples = samples or self._enter(form)
                if pause := samples.write(pcm):
                    self._closing.wait(pause)
        except Exception as error:  # raised where somebody hears of it
            self._error = error
            self._failed(error)
        finally:
            self._pipe.abandon()
