"""A live session of what a microphone hears."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from audio_storage_system.audio import microphone
from audio_storage_system.errors import MicrophoneUnavailable
from audio_storage_system.live.events import LiveReport
from audio_storage_system.live.session import LiveSession


@dataclass(frozen=True, slots=True)
class Listening:
    """How to listen: for `duration` seconds or until `stop` is set or Ctrl-C, to a device by its number or a part of
    its name. on_level: see `microphone.record`."""

    duration: float | None = None
    device: int | str | None = None
    on_level: Callable[[float], None] | None = None
    stop: threading.Event | None = None


class _Sink:
    """Counts what the device lost in the session's own terms."""

    def __init__(self, session: LiveSession) -> None:
        self.session = session
        self.write = session.write

    def skip(self, frames: int) -> None:
        self.session.skip(frames / self.session.sample_rate)

    def sync(self) -> None:
        """It does so by itself."""


def listen(begin: Callable[[int], LiveSession], wanted: Listening) -> LiveReport:
    """Record what a microphone hears into the session that `begin` makes for a rate; what became of it.

    Raises `MicrophoneUnavailable`, also where the device goes away: what was recorded until then is complete.
    """
    opened: list[LiveSession] = []

    def make(rate: int) -> _Sink:
        opened.append(begin(rate))
        return _Sink(opened[0])

    about = {"device": wanted.device, "on_level": wanted.on_level, "stop": wanted.stop}
    try:
        fault = microphone.hear(make, duration=wanted.duration, **about)  # type: ignore[arg-type]
    finally:
        reports = [session.finish() for session in opened]
    if fault is not None:
        raise MicrophoneUnavailable(reason=microphone.kept(fault, reports[0].seconds))
    return reports[0]
