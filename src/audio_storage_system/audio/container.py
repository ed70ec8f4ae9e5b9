"""Opening whatever ffmpeg reads, and naming plainly what is no audio."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from audio_storage_system.errors import NotAudio

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Source: TypeAlias = str | os.PathLike[str] | BinaryIO

_QUICK = {"probesize": "4096", "analyzeduration": "0"}
# A playlist or a reference inside a file must not make ffmpeg open another file or a URL: the bytes given are all.
CONFINED = {"protocol_whitelist": "none"}
# WAV files give so much sound at once: by its own default ffmpeg hands over 64 ms, and each costs 20 µs of Python.
_LARGE_PACKETS = {"max_size": str(1 << 16)}
_RATES = range(1_000, 768_001)
_CHANNELS = range(1, 65)
_HEAD = 4096
_MOST_WARNINGS = 20
_MOST_READ_FAILURES = 1_000
_HEADERS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b"\x1aE\xdf\xa3", b"NIST_1A")


@dataclass
class Warnings:
    """What was wrong with a recording, once each, and not without end."""

    messages: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Keep a message that is new, while there is room."""
        if message not in self.messages and len(self.messages) < _MOST_WARNINGS:
            self.messages.append(message)


@dataclass
class OpenAudio:
    """An open container and the audio track that is read from it."""

    name: str
    head: bytes
    container: InputContainer
    stream: AudioStream
    warnings: Warnings

    @property
    def origin(self) -> float:
        """The timestamp, in seconds, at which the recording begins."""
        return (self.container.start_time or 0) / 1_000_000

    @property
    def header_duration(self) -> float | None:
        """Seconds, as the header claims or ffmpeg guesses."""
        return self.container.duration / 1_000_000 if self.container.duration else None

    def time_of(self, frame: AudioFrame | None) -> float | None:
        """Seconds from the start of the recording; `None` without a timestamp."""
        return None if frame is None or frame.time is None else frame.time - self.origin

    def seek(self, seconds: float) -> None:
        """Continue reading at or before `seconds`. Raises av's errors where the format cannot."""
        self.container.seek(int((self.origin + seconds) / (self.stream.time_base or 1)), stream=self.stream)

    def frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded; a damaged one costs itself and a warning."""
        from av.error import FFmpegError

        for packet in self._packets():
            try:
                decoded = packet.decode()
            except FFmpegError:
                self._skip_damaged(packet.pts)
                continue
            yield from (frame for frame in decoded if frame.samples and frame.sample_rate)

    def _packets(self) -> Iterator[Any]:
        """All packets; reading goes on behind a place that the demuxer cannot read."""
        from av.error import EOFError as EndOfFile
        from av.error import FFmpegError

        for _ in range(_MOST_READ_FAILURES):
            try:
                yield from self.container.demux(self.stream)
                return
            except EndOfFile:
                return
            except FFmpegError:
                self._skip_damaged(None)

    def _skip_damaged(self, pts: int | None) -> None:
        place = "" if pts is None else f" at {float(pts * (self.stream.time_base or 1)) - self.origin:.2f} s"
        self.warnings.add(f"a damaged piece was skipped{place}")


class _Bytes:
    """A binary stream as PyAV wants it: with a text name, read from its beginning."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
        file.seek(0)


def kind_of(frame: AudioFrame) -> tuple[int, str, str]:
    """Frames of one kind can be resampled together."""
    return frame.sample_rate, frame.layout.name, frame.format.name


def name_of(source: Source) -> str:
    """The file name by which errors speak of `source`."""
    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return Path(name).name if isinstance(name, str | os.PathLike) else "the stream"


@contextmanager
def opened(source: Source, *, name: str | None = None) -> Iterator[OpenAudio]:
    """The audio of a file or of a seekable binary stream (which stays open); `name` is for the errors.

    Raises `NotAudio`, or `OSError` where the file cannot be opened.
    """
    name = name or name_of(source)
    with ExitStack() as stack:
        file = _handle(source, stack)
        file.seek(0)
        head = file.read(_HEAD)
        container = _quickly(file, name, stack) or _thoroughly(file, name, head, stack)
        yield OpenAudio(name, head, container, track_of(name, container), Warnings())


def _handle(source: Source, stack: ExitStack) -> BinaryIO:
    """`source` as an object: ffmpeg would read protocols into names such as "concat:a|b"."""
    if isinstance(source, str | os.PathLike):
        return cast("BinaryIO", stack.enter_context(open(source, "rb", buffering=0)))
    return source


def _quickly(file: BinaryIO, name: str, stack: ExitStack) -> InputContainer | None:
    """The container by a look at the first bytes; `None` where they do not tell enough."""
    from av.error import FFmpegError

    try:
        container = _open(file, name, _QUICK)
    except FFmpegError:
        return None
    if not container.streams.audio or not all(_shape(container.streams.audio[0])):
        container.close()
        return None
    return stack.enter_context(container)


def _thoroughly(file: BinaryIO, name: str, head: bytes, stack: ExitStack) -> InputContainer:
    from av.error import FFmpegError

    try:
        return stack.enter_context(_open(file, name, {}))
    except FFmpegError as error:
        raise NotAudio(name=name, reason=_why_not(head)) from error


def _open(file: BinaryIO, name: str, options: dict[str, str]) -> InputContainer:
    import av

    return av.open(_Bytes(file, name), "r", options=CONFINED | _LARGE_PACKETS | options, metadata_errors="replace")


def track_of(name: str, container: InputContainer) -> AudioStream:
    """The audio track that is read. Raises `NotAudio` where there is none that can be."""
    if not container.streams.audio:
        raise NotAudio(name=name, reason=f"it has no audio track ({container.format.long_name})")
    track = container.streams.audio[0]
    rate, channels = _shape(track)
    if not track.codec_context:
        raise NotAudio(name=name, reason="its audio codec is not known here")
    if rate not in _RATES:
        raise NotAudio(name=name, reason=f"its header names an impossible sample rate ({rate:,} Hz)")
    if channels not in _CHANNELS:
        raise NotAudio(name=name, reason=f"its header names an impossible number of channels ({channels:,})")
    return track


def _shape(track: AudioStream) -> tuple[int, int]:
    """Sample rate and channels; zeros where ffmpeg does not know the codec."""
    context: AudioCodecContext | None = track.codec_context
    return (context.sample_rate or 0, context.channels or 0) if context else (0, 0)


def _why_not(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.startswith(_HEADERS) or head[4:8] == b"ftyp":
        return "its header is damaged, or the file is cut off"
    if _is_text(head):
        return "it is a text file"
    return "no known audio format was recognised in it"


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", errors="replace").rstrip("\ufffd")  # a character may be cut at the end
    return "\ufffd" not in text and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
