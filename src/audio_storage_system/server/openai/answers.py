"""What was said, in the formats of OpenAI's API."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.responses import Response

from audio_storage_system import formats
from audio_storage_system.formats import Document
from audio_storage_system.records import Segment
from audio_storage_system.search.context import estimate_tokens
from audio_storage_system.server.openai.faults import refused
from audio_storage_system.server.openai.forms import Asked
from audio_storage_system.transcribers.languages import LANGUAGES

ONE_SPEAKER = "A"
FRAMES_PER_SECOND = 100  # of Whisper's spectrogram, in which `seek` counts
AUDIO_TOKENS_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Said:
    """What was said in a file, in seconds of it. audio_id, transcript_id: where it is kept, if it is."""

    segments: tuple[Segment, ...]
    language: str | None
    duration: float
    engine: str
    flags: tuple[str, ...] = ()
    audio_id: int | None = None
    transcript_id: int | None = None

    @property
    def text(self) -> str:
        return " ".join(segment.text.strip() for segment in self.segments)

    @property
    def headers(self) -> dict[str, str]:
        """Where it is kept, and what has heard it."""
        ids = {"X-Audio-Id": self.audio_id, "X-Transcript-Id": self.transcript_id}
        known = {name: str(value) for name, value in ids.items() if value is not None}
        return {**known, "X-Audio-Storage-Engine": self.engine}


class Duration(BaseModel):
    """How much was heard."""

    type: Literal["duration"] = "duration"
    seconds: float


class AudioTokens(BaseModel):
    """Of what the tokens are."""

    audio_tokens: int
    text_tokens: int = 0


class Tokens(BaseModel):
    """How much was heard and said, estimated: ten tokens a second, and about those of the text."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    input_token_details: AudioTokens
    output_tokens: int
    total_tokens: int


class Language(BaseModel):
    """A language that was heard."""

    code: str = Field(description="ISO 639-1.")


class Kept(BaseModel):
    """Where in the archive it is; `null` where it is not kept."""

    audio_id: int | None
    transcript_id: int | None


class Transcription(Kept):
    """`json`."""

    text: str
    languages: list[Language] = []
    usage: Duration


class VerboseSegment(BaseModel):
    """A piece of what was said. What an engine does not tell: `tokens` is empty, `no_speech_prob` 0, `avg_logprob`
    comes of its confidence; `seek` is where the piece begins, in hundredths of a second."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class TimedWord(BaseModel):
    """A word."""

    word: str
    start: float
    end: float


class Verbose(Kept):
    """`verbose_json`; `segments` and `words` as asked for."""

    task: Literal["transcribe", "translate"]
    language: str = Field(description="Its name, as `english`; empty where it is not known.")
    duration: float
    text: str
    segments: list[VerboseSegment] | None = None
    words: list[TimedWord] | None = None
    usage: Duration


class SpeakerSegment(BaseModel):
    """A piece of what one person said."""

    type: Literal["transcript.text.segment"] = "transcript.text.segment"
    id: str
    start: float
    end: float
    speaker: str
    text: str


class Diarized(Kept):
    """`diarized_json`; everything is said by `A` as long as nothing tells speakers apart."""

    task: Literal["transcribe"] = "transcribe"
    duration: float
    text: str
    segments: list[SpeakerSegment]
    usage: Duration


def answer(said: Said, asked: Asked) -> Response:
    """The response in the format asked for. Raises `InvalidInput` where words are to be timed, and were not."""
    if asked.format == "text":
        return PlainTextResponse(said.text + "\n", headers=said.headers)
    if asked.format in ("srt", "vtt"):
        document = Document(said.segments, said.language, said.duration, said.engine, said.flags)
        kind = formats.find(asked.format)
        return Response(kind.write(document), media_type=f"{kind.media_type}; charset=utf-8", headers=said.headers)
    data = {"verbose_json": _verbose, "diarized_json": _diarized}.get(asked.format, _plain)(said, asked)
    return JSONResponse(data.model_dump(exclude=_left_out(asked)), headers=said.headers)


def _left_out(asked: Asked) -> set[str]:
    return {
        f"{name}s" for name in ("segment", "word") if name not in asked.granularities and asked.format == "verbose_json"
    }


def _plain(said: Said, asked: Asked) -> BaseModel:
    languages = [Language(code=said.language)] if said.language else []
    return Transcription(text=said.text, languages=languages, usage=_heard(said), **_kept(said))


def _verbose(said: Said, asked: Asked) -> BaseModel:
    return Verbose(
        task="translate" if asked.translate else "transcribe",
        language=LANGUAGES.get(said.language or "", said.language or ""),
        duration=said.duration,
        text=said.text,
        segments=[_segment(number, segment) for number, segment in enumerate(said.segments)],
        words=_words(said) if "word" in asked.granularities else None,
        usage=_heard(said),
        **_kept(said),
    )


def _diarized(said: Said, asked: Asked) -> BaseModel:
    segments = [speaker_segment(number, segment) for number, segment in enumerate(said.segments)]
    return Diarized(duration=said.duration, text=said.text, segments=segments, usage=_heard(said), **_kept(said))


def speaker_segment(number: int, segment: Segment) -> SpeakerSegment:
    """A segment with who says it."""
    speaker = segment.speaker or ONE_SPEAKER
    return SpeakerSegment(id=f"seg_{number}", start=segment.start, end=segment.end, speaker=speaker, text=segment.text)


def tokens_of(said: Said) -> Tokens:
    """About how many tokens there were."""
    heard, written = math.ceil(said.duration * AUDIO_TOKENS_PER_SECOND), estimate_tokens(said.text)
    details = AudioTokens(audio_tokens=heard)
    return Tokens(input_tokens=heard, input_token_details=details, output_tokens=written, total_tokens=heard + written)


def _kept(said: Said) -> dict[str, Any]:
    return {"audio_id": said.audio_id, "transcript_id": said.transcript_id}


def _heard(said: Said) -> Duration:
    return Duration(seconds=said.duration)


def _segment(number: int, segment: Segment) -> VerboseSegment:
    return VerboseSegment(
        id=number,
        seek=round(segment.start * FRAMES_PER_SECOND),
        start=segment.start,
        end=segment.end,
        text=segment.text,
        avg_logprob=_log_probability(segment),
        compression_ratio=_ratio(segment),
        no_speech_prob=segment.no_speech_prob or 0.0,
    )


def _log_probability(segment: Segment) -> float:
    if segment.avg_logprob is not None:
        return segment.avg_logprob
    return round(math.log(segment.confidence), 4) if segment.confidence else 0.0


def _ratio(segment: Segment) -> float:
    """Whisper's measure of repetition; it follows from the text."""
    if segment.compression_ratio is not None:
        return segment.compression_ratio
    text = segment.text.encode()
    return round(len(text) / len(zlib.compress(text)), 4)


def _words(said: Said) -> list[TimedWord]:
    if any(segment.text and not segment.words for segment in said.segments):
        error = refused("timestamp_granularities[]", f"{said.engine} does not time words", "unsupported_value")
        error.details["audio_id"] = said.audio_id
        raise error
    return [
        TimedWord(word=word.text, start=word.start, end=word.end) for segment in said.segments for word in segment.words
    ]
