"""Compressed sound that is decoded while it still comes in, as a browser's `MediaRecorder` sends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_storage_system.audio.container import CONFINED, OpenAudio, Warnings, kind_of, track_of
from audio_storage_system.audio.wav import SAMPLE_BYTES
from audio_storage_system.errors import InvalidInput, NotAudio

if TYPE_CHECKING:
    from av import AudioFrame

# What may come in, and how ffmpeg calls that: it must not guess, among dozens of formats, what a stranger sends.
ENCODINGS = {"webm": "matroska", "ogg": "ogg", "mp4": "mov"}
NAME = "The stream"
# ffmpeg asks for so much at once; it waits for no more than what is there.
_ASKED = 4096
_LAYOUTS = {1: "mono", 2: "stereo"}
PIPE_BYTES = 1 << 18


class Pipe:
    """Bytes on their way from one thread to another, of which there are never more than `most` (`PIPE_BYTES`) here."""

    name = "the stream"  # PyAV asks for it

    def __init__(self, most: int | None = None) -> None:
        self._most = PIPE_BYTES if most is None else most
        self._held = bytearray()
        self._closed = self._abandoned = False
        self._changed = threading.Condition()

    def write(self, data: bytes) -> bool:
        """Add bytes, as soon as there is room; whether anybody will read them."""
        rest = memoryview(data)
        with self._changed:
            while rest and not self._abandoned:
                room = self._most - len(self._held)
                self._held += rest[:room]
                rest = rest[room:]
                self._changed.notify_all()
                if rest:
                    self._changed.wait()
            return not self._abandoned

    def close(self) -> None:
        """Nothing more will be written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        """What is here, as soon as there is anything, at most `size` bytes; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._closed or self._abandoned)
            data = b"" if self._abandoned else bytes(self._held[:size])
            del self._held[:size]
            self._changed.notify_all()
            return data

    def abandon(self) -> None:
        """Nothing more will be read."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Form:
    """Of sound as interleaved 16-bit samples: `sample_rate` in Hz, and how many channels."""

    sample_rate: int
    channels: int

    @property
    def bytes_per_second(self) -> int:
        return self.sample_rate * self.channels * SAMPLE_BYTES


def decode_stream(pipe: Pipe, encoding: str, wanted: Form | None = None) -> Iterator[tuple[Form, bytes]]:
    """The sound of a stream while it is written to `pipe`: interleaved little-endian 16-bit samples in the form that is
    wanted, otherwise in that of its beginning.

    encoding: one of `ENCODINGS`. An MP4 has to come in fragments. What is damaged is left out. Raises `NotAudio`,
    `InvalidInput` for another encoding, or a number of channels that cannot be made of those there are.
    """
    import av
    from av.error import FFmpegError

    if encoding not in ENCODINGS:
        raise InvalidInput(reason=f'The encoding "{encoding}" is not known; there are: {", ".join(ENCODINGS)}')
    kind = ENCODINGS[encoding]
    try:
        container = av.open(pipe, "r", kind, options=CONFINED, buffer_size=_ASKED, metadata_errors="replace")
    except FFmpegError as error:
        raise NotAudio(name=NAME, reason=f"it is no {encoding} that can be read as it comes in") from error
    with container:
        yield from _converted(OpenAudio(NAME, b"", container, track_of(NAME, container), Warnings()), wanted)


def _converted(audio: OpenAudio, wanted: Form | None) -> Iterator[tuple[Form, bytes]]:
    converter: _Converter | None = None
    for frame in audio.frames():
        wanted = wanted or Form(frame.sample_rate, frame.layout.nb_channels)
        if converter is None or not converter.fits(frame):
            if converter is not None:
                yield wanted, converter.rest()
            converter = _Converter(frame, wanted)
        yield wanted, converter.convert(frame)
    if converter is not None and wanted is not None:
        yield wanted, converter.rest()


class _Converter:
    """Makes 16-bit samples of one form of frames of another."""

    def __init__(self, frame: AudioFrame, wanted: Form) -> None:
        import av

        self._kind = kind_of(frame)
        self._resampler = av.AudioResampler("s16", _layout(frame, wanted.channels), wanted.sample_rate)

    def fits(self, frame: AudioFrame) -> bool:
        return self._kind == kind_of(frame)

    def convert(self, frame: AudioFrame) -> bytes:
        return _packed(self._resampler.resample(frame))

    def rest(self) -> bytes:
        return _packed(self._resampler.resample(None))


def _layout(frame: AudioFrame, channels: int) -> str:
    if frame.layout.nb_channels == channels:
        return frame.layout.name
    if channels not in _LAYOUTS:
        raise InvalidInput(reason=f"{frame.layout.nb_channels} channels cannot be made into {channels}")
    return _LAYOUTS[channels]


def _packed(frames: list[AudioFrame]) -> bytes:
    """The samples of packed frames; what ffmpeg keeps behind them, to align memory, is left out."""
    sizes = (frame.samples * frame.layout.nb_channels * SAMPLE_BYTES for frame in frames)
    return b"".join(bytes(frame.planes[0])[:size] for frame, size in zip(frames, sizes, strict=True))
