"""Sound from any file as mono float32 blocks, in constant memory, at the right second.

Frames → mono (every channel at equal weight, polarity corrected) → resampled by soxr. A frame that was lost becomes
silence of its length, so that whatever comes later keeps its time.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from audio_storage_system.audio.container import OpenAudio, Source, Warnings, kind_of, opened
from audio_storage_system.audio.waveform import Waveform
from audio_storage_system.errors import NotAudio

if TYPE_CHECKING:
    from av import AudioFrame

Samples: TypeAlias = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
_TOLERANCE = 0.01  # seconds; containers that count in milliseconds are this inexact
_RUN_UP = 1  # seconds read before `start`: codecs and the resampler need it
_LONGEST_SILENCE = 24 * 3600.0  # seconds inserted per file: a forged timestamp must not cost years
_RESTART = -1.0  # seconds; a clock that jumps back further than this was restarted
_OPPOSED = -0.8  # correlation below which two channels carry one sound with opposite polarity


def stream(source: Source, sample_rate: int = SAMPLE_RATE, *, start: float = 0.0) -> AudioStream:
    """The sound of a file or seekable binary stream as blocks of about a second, beginning at `start` seconds.

    Raises `NotAudio` when the first block is asked for, `OSError` where the file cannot be read.
    """
    return AudioStream(source, sample_rate, start)


def load_audio(path: Source, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """The whole recording, mono. Raises `NotAudio`, or `OSError` where the file cannot be read."""
    with stream(path, sample_rate) as blocks:
        return Waveform(np.concatenate(list(blocks)), sample_rate)


def decode_span(source: Source, start: float, end: float, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """The part from `start` to `end` seconds; shorter where the recording ends earlier. Raises as `load_audio` does."""
    wanted, pieces = round((end - start) * sample_rate), [np.zeros(0, np.float32)]
    with stream(source, sample_rate, start=start) as blocks:
        for block in blocks:
            pieces.append(block[:wanted])
            wanted -= len(pieces[-1])
            if wanted <= 0:
                break
    return Waveform(np.concatenate(pieces), sample_rate)


def resample(waveform: Waveform, sample_rate: int) -> Waveform:
    """The same sound at another rate, free of aliases; itself where the rate is already right."""
    if waveform.sample_rate == sample_rate:
        return waveform
    import soxr

    samples = soxr.resample(np.asarray(waveform), waveform.sample_rate, sample_rate)
    return Waveform(np.clip(samples, -1, 1), sample_rate)


class AudioStream(Iterator[Samples]):
    """Blocks of float32 mono at `sample_rate`. `warnings` grows with what was found damaged; `close` ends it early."""

    def __init__(self, source: Source, sample_rate: int, start: float) -> None:
        self.sample_rate = sample_rate
        self._source, self._start = source, start
        self._warnings = Warnings()
        self._blocks = self._decode()

    @property
    def warnings(self) -> list[str]:
        """What had to be skipped or filled so far."""
        return self._warnings.messages

    def __next__(self) -> Samples:
        return next(self._blocks)

    def close(self) -> None:
        self._blocks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self) -> Generator[Samples]:
        # Decoding begins at a whole second, where the rates' samples coincide: a part equals the whole's part exactly.
        begin = max(0, math.floor(self._start) - _RUN_UP)
        with opened(self._source) as audio:
            audio.warnings = self._warnings
            if begin:
                _seek(audio, begin)
            blocks = _sections(audio, _Timeline(begin, self._warnings), self.sample_rate)
            empty = True
            for block in _without(blocks, round((self._start - begin) * self.sample_rate)):
                empty = False
                yield block
            if empty and not begin:
                raise NotAudio(name=audio.name, reason="it holds no sound")


def _seek(audio: OpenAudio, seconds: float) -> None:
    """Go there where the format can; otherwise everything before is decoded and dropped."""
    from av.error import FFmpegError

    with suppress(FFmpegError):
        audio.seek(seconds)


def _without(blocks: Iterable[Samples], surplus: int) -> Iterator[Samples]:
    """`blocks` less the first `surplus` samples."""
    for block in blocks:
        if len(block) > surplus:
            yield block[surplus:]
        surplus = max(0, surplus - len(block))


def _sections(audio: OpenAudio, timeline: _Timeline, sample_rate: int) -> Iterator[Samples]:
    """All frames as mono blocks at `sample_rate`; a section lasts while rate, channels and format stay the same."""
    section: _Section | None = None
    for frame, following in _with_next(audio.frames()):
        if section is None or not section.fits(frame):
            yield from section.finish() if section else ()
            section = _Section(frame, sample_rate)
        early, silence = timeline.place(frame, audio.time_of(frame), audio.time_of(following))
        for length in silence:
            yield from section.add(np.zeros((length, section.channels), np.float32))
        if early < frame.samples:
            yield from section.add(section.packed(frame)[early:])
    yield from section.finish() if section else ()


def _with_next(frames: Iterator[AudioFrame]) -> Iterator[tuple[AudioFrame, AudioFrame | None]]:
    frame = next(frames, None)
    while frame is not None:
        following = next(frames, None)
        yield frame, following
        frame = following


class _Timeline:
    """Where samples belong, in seconds from the start of the recording; everything before `begin` is left out."""

    def __init__(self, begin: float, warnings: Warnings) -> None:
        self._begin = self._position = float(begin)
        self._shift = 0.0
        self._room = _LONGEST_SILENCE
        self._warnings = warnings

    def place(self, frame: AudioFrame, seconds: float | None, following: float | None) -> tuple[int, Iterable[int]]:
        """For a frame stamped `seconds`, with the next one's stamp: how many of its samples are too early, and how many
        samples of silence go before it, in pieces of at most a second."""
        rate, early, gap = frame.sample_rate, 0, 0.0
        if seconds is not None:
            if self._position == self._begin:
                early = min(frame.samples, max(0, round((self._begin - seconds) * rate)))
            # A stamp counts when the next one agrees: a single wrong one must not move what follows. Vorbis in Ogg
            # stamps some frames 448 samples late and takes it back.
            if not early and _close(following, seconds + frame.samples / rate):
                gap = self._gap(seconds)
        self._position += gap + (frame.samples - early) / rate
        whole, rest = divmod(round(gap * rate), rate)
        return early, chain(repeat(rate, whole), [rest] if rest else [])

    def _gap(self, seconds: float) -> float:
        gap = seconds + self._shift - self._position
        opening = self._position == self._begin
        if _RESTART < gap <= (0.0 if opening else _TOLERANCE):
            return 0.0
        if gap < 0 or gap > self._room:
            self._shift -= gap
            self._warnings.add(f"the clock jumps at {self._position:.2f} s; the sound was joined")
            return 0.0
        self._room -= gap
        if not opening:
            self._warnings.add(f"{gap:.2f} s are missing at {self._position:.2f} s; silence stands in")
        return gap


def _close(one: float | None, other: float) -> bool:
    return one is not None and abs(one - other) <= _TOLERANCE


class _Section:
    """Frames of one rate, layout and format on their way to mono blocks at `sample_rate`."""

    def __init__(self, frame: AudioFrame, sample_rate: int) -> None:
        import av
        import soxr

        self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
        self._kind = kind_of(frame)
        # Always to packed floats: AudioFrame.to_ndarray() crashes on planar frames of more than two channels.
        self._packer = av.AudioResampler(format="flt")
        self._resampler = (
            None if self.rate == sample_rate else soxr.ResampleStream(self.rate, sample_rate, 1, dtype="float32")
        )
        self._held: list[Samples] = [np.zeros((0, self.channels), np.float32)]
        self._count = 0

    def fits(self, frame: AudioFrame) -> bool:
        return self._kind == kind_of(frame)

    def packed(self, frame: AudioFrame) -> Samples:
        """The frame as an array of samples × channels."""
        arrays = [packed.to_ndarray() for packed in self._packer.resample(frame)]
        return np.concatenate(arrays, axis=1, dtype=np.float32).reshape(-1, self.channels)

    def add(self, samples: Samples) -> Iterator[Samples]:
        """Take samples × channels; give what whole seconds have come together."""
        self._held.append(samples)
        self._count += len(samples)
        while self._count >= self.rate:
            held = np.concatenate(self._held)
            self._held, self._count = [held[self.rate :]], self._count - self.rate
            yield from self._out(held[: self.rate], last=False)

    def finish(self) -> Iterator[Samples]:
        """What is left."""
        yield from self._out(np.concatenate(self._held), last=True)

    def _out(self, block: Samples, *, last: bool) -> Iterator[Samples]:
        mono = mix_down(block)
        if self._resampler is not None:
            mono = np.clip(self._resampler.resample_chunk(mono, last=last), -1, 1)
        if len(mono):
            yield mono


def mix_down(block: Samples) -> Samples:
    """Samples × channels to mono: every channel at equal weight, so that nobody's channel is dropped.

    A channel that carries the same sound as another with opposite polarity is turned round first: added as it is, the
    two would cancel to silence.
    """
    with np.errstate(invalid="ignore"):  # damage may make a NaN of the kind that signals
        block = np.clip(block, -1, 1)
        is_finite = np.isfinite(block.sum())
    if not is_finite:
        block = np.nan_to_num(block)
    channels = block.shape[1]
    return block[:, 0] if channels == 1 else block @ (_polarity(block) / np.float32(channels))


def _polarity(block: Samples) -> Samples:
    products = block.T @ block
    norms = np.sqrt(np.maximum(products.diagonal(), np.finfo(np.float32).tiny))
    opposed = products < _OPPOSED * np.outer(norms, norms)
    signs = np.ones(len(norms), np.float32)
    for channel in range(1, len(signs)):
        rivals = np.flatnonzero(opposed[channel, :channel])
        if len(rivals):
            signs[channel] = -signs[rivals[0]]
    return signs
