"""What a file is, without decoding it: length, rate, channels, codec, type, and when it was recorded."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from audio_storage_system.audio.container import OpenAudio, Source, opened
from audio_storage_system.audio.decode import SAMPLE_RATE, stream
from audio_storage_system.audio.wav import read_plain_wav
from audio_storage_system.clock import utc_now
from audio_storage_system.errors import NotAudio
from audio_storage_system.records import AudioInfo

if TYPE_CHECKING:
    from av import AudioFrame

_TAIL = 1.0  # seconds decoded at the end
_SLACK = 0.2  # seconds by which a header may differ from the sound: encoders pad

_MEDIA_TYPES = {
    "wav": "audio/wav",
    "w64": "audio/x-w64",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "au": "audio/basic",
    "amr": "audio/amr",
    "ac3": "audio/ac3",
    "eac3": "audio/eac3",
    "caf": "audio/x-caf",
    "nistsphere": "audio/x-nist",
    "mpegts": "video/mp2t",
    "mpeg": "video/mpeg",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
}
_BRANDS = {"qt": "quicktime", "3gp": "3gpp", "3g2": "3gpp2"}  # of the MP4 family, by the start of the major brand


def probe(source: Source, *, name: str | None = None) -> AudioInfo:
    """Describe a file or a seekable binary stream (which stays open); errors call it `name`.

    The header is believed only as far as the bytes bear it out: the first sound and the end that it promises are
    decoded, and where they are not there the whole is counted. Raises `NotAudio`, saying why, or `OSError` where the
    file cannot be opened.
    """
    return _plain(source) or _probed(source, name)


def _plain(source: Source) -> AudioInfo | None:
    """The same for the commonest WAV files in a tenth of the time: nothing of them needs to be decoded to be known."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            found = read_plain_wav(file)
    else:
        found = read_plain_wav(source)
    if found is None or found.frames < _TAIL * found.sample_rate:
        return None
    duration = round(found.frames / found.sample_rate, 5)
    return AudioInfo(duration, found.sample_rate, found.channels, "pcm_s16le", _MEDIA_TYPES["wav"])


def _probed(source: Source, name: str | None) -> AudioInfo:
    with opened(source, name=name) as audio:
        first = next(audio.frames(), None)
        if first is None:
            raise NotAudio(name=audio.name, reason="it holds no sound")
        return AudioInfo(
            duration=_confirmed(audio, audio.header_duration) or _counted(source, audio),
            sample_rate=first.sample_rate,
            channels=first.layout.nb_channels,
            codec=audio.stream.codec_context.codec.canonical_name,
            media_type=_media_type(audio),
            recorded_at=_recorded_at(audio),
            warnings=tuple(audio.warnings.messages),
        )


def _confirmed(audio: OpenAudio, claimed: float | None) -> float | None:
    """The end of the sound in seconds, if its last second is where the header claims; otherwise `None`."""
    from av.error import FFmpegError

    if claimed is None or claimed < _TAIL:
        return None
    try:
        audio.seek(claimed - _TAIL)
    except FFmpegError:
        return None
    end: Fraction | None = None  # exact: the same file gives the same length however it is cut into frames
    for frame in audio.frames():
        end = _exactly(audio, frame) if end is None else end
        if end is None or end > claimed + _SLACK:
            return None
        end += Fraction(frame.samples, frame.sample_rate)
    return round(float(end), 5) if end is not None and abs(end - claimed) <= _SLACK else None


def _exactly(audio: OpenAudio, frame: AudioFrame) -> Fraction | None:
    """Seconds from the start of the recording."""
    if frame.pts is None or not frame.time_base:
        return None
    return frame.pts * frame.time_base - Fraction(audio.container.start_time or 0, 1_000_000)


def _counted(source: Source, audio: OpenAudio) -> float:
    """The length in seconds by decoding everything."""
    with stream(source) as blocks:
        duration = sum(map(len, blocks)) / SAMPLE_RATE
    audio.warnings.messages[:] = blocks.warnings
    claimed = audio.header_duration
    headless = audio.container.format.long_name.startswith("raw ")  # its length is always a guess
    if claimed and not headless and abs(claimed - duration) > _SLACK:
        audio.warnings.add(f"its header promises {claimed:.2f} s, but {duration:.2f} s are there")
    return duration


def _media_type(audio: OpenAudio) -> str:
    names = audio.container.format.name.split(",")
    kind = "video" if _has_pictures(audio.container) else "audio"
    if "mp4" in names:
        brand = audio.container.metadata.get("major_brand", "").lower()
        subtype = next((known for start, known in _BRANDS.items() if brand.startswith(start)), "mp4")
        return f"video/{subtype}" if subtype == "quicktime" else f"{kind}/{subtype}"
    if "matroska" in names:
        return f"{kind}/webm" if b"webm" in audio.head[:64] else f"{kind}/x-matroska"
    if "asf" in names:
        return "video/x-ms-asf" if kind == "video" else "audio/x-ms-wma"
    return _MEDIA_TYPES.get(names[0], f"{kind}/x-{names[0]}")


def _has_pictures(container: Any) -> bool:
    from av.stream import Disposition

    return any(not video.disposition & Disposition.attached_pic for video in container.streams.video)


def _recorded_at(audio: OpenAudio) -> datetime | None:
    """The container's `creation_time`, where it is one: devices without a clock write 1904, 1970 or the far future."""
    text = audio.container.metadata.get("creation_time") or audio.stream.metadata.get("creation_time")
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    earliest, latest = datetime(1971, 1, 1, tzinfo=UTC), utc_now() + timedelta(days=1)
    return moment if earliest <= moment <= latest else None
