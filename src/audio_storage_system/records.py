"""The words of the system as values: what passes between its layers.

All times inside a recording are seconds from its start, as float. All vectors are float32 unit vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Any, TypeAlias

MetadataValue: TypeAlias = str | int | float | bool | datetime | date | list[Any] | dict[str, Any] | None
Metadata: TypeAlias = Mapping[str, MetadataValue]
# The archive's own owner, who is there from the beginning.
OWNER_ID = 1


class EmbeddingKind(StrEnum):
    """What a vector is made from; also the values of `embeddings.embedding_type`."""

    TRANSCRIPT = "transcript"
    AUDIO = "audio"
    COMBINED = "combined"


class Stage(StrEnum):
    """What of a recording is kept or removed by itself."""

    RECORDING = "recording"  # all of it
    AUDIO = "audio"  # its sound
    TRANSCRIPT = "transcript"  # what was said in it, with the vectors of that
    EMBEDDINGS = "embeddings"  # its vectors


class Outcome(StrEnum):
    """How a transcription ended. `SILENCE` is a result; the rest below it are failures with a reason."""

    OK = "ok"
    SILENCE = "silence"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    SERVICE_FAILED = "service_failed"
    DECODE_FAILED = "decode_failed"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"

    @property
    def succeeded(self) -> bool:
        return self in (Outcome.OK, Outcome.SILENCE)

    @property
    def retryable(self) -> bool:
        """Whether running the same transcription again can end differently."""
        return self in (Outcome.ENGINE_UNAVAILABLE, Outcome.SERVICE_FAILED, Outcome.OUT_OF_MEMORY)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What probing a file tells. `duration` in seconds, `None` where only decoding can tell."""

    duration: float | None
    sample_rate: int
    channels: int
    codec: str
    media_type: str
    recorded_at: datetime | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording, in seconds."""

    start: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; `probability` 0…1 where the engine gives one."""

    start: float
    end: float
    text: str
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A timed piece of a transcript. `confidence` 0…1; the other scores as Whisper defines them."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    speaker: str | None = None
    confidence: float | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    id: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive segments of one transcript: the unit that is embedded and searched."""

    sequence: int
    first_segment_id: int
    last_segment_id: int
    start: float
    end: float
    text: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """Kind + model + dimension: only vectors of one space are ever compared."""

    id: int
    kind: EmbeddingKind
    model: str
    dimension: int
    active: bool
    spec: str = ""  # how to open the embedder that fills it


@dataclass(frozen=True, slots=True)
class Recording:
    """One row of `audio_files` with its metadata."""

    id: int
    owner_id: int
    file_hash: str
    file_path: str
    file_size: int
    duration: float | None
    sample_rate: int | None
    channels: int | None
    codec: str | None
    media_type: str | None
    original_name: str
    recorded_at: datetime
    recorded_offset_minutes: int | None
    status: str
    created_at: datetime
    updated_at: datetime
    metadata: Metadata = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what is wrong with the file: a damaged piece, say

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `audio_id`."""
        data = {"audio_id": self.id, **asdict(self)}
        del data["id"]
        return {key: jsonable(value) for key, value in data.items()}


@dataclass(frozen=True, slots=True)
class Transcript:
    """One version of what was said. `outcome` is `None` while it runs."""

    id: int
    audio_id: int
    whisper_model: str
    engine: str
    parameters: Mapping[str, Any]
    outcome: Outcome | None
    reason: str | None
    transcription: str
    language: str | None
    confidence: float | None
    processing_time: float | None
    active: bool
    created_at: datetime
    flags: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `transcript_id`."""
        data = {"transcript_id": self.id, **asdict(self)}
        del data["id"]
        data["retryable"] = bool(self.outcome and self.outcome.retryable)
        return {key: jsonable(value) for key, value in data.items()}


class Priority(IntEnum):
    """Which jobs are done first."""

    HIGH = 1
    NORMAL = 2
    LOW = 3


class JobState(StrEnum):
    """Where a job is. The last three are its ends."""

    WAITING = "waiting"
    RUNNING = "running"
    DELAYED = "delayed"  # until it is tried again
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done to a recording in the background.

    kind: what; options: how. step, run: where it is, and how often a step was begun. failures, deaths: how often in a
    row the step failed, or its worker died. code, reason: why it failed. turn: the round in which it is served among
    those of the same priority.

    worker, until, seconds_done, seconds: who is at it, when it is tried again, and how much of the recording is done;
    known where jobs are listed. duplicate: the file was stored before; known where it is given.
    """

    id: int
    kind: str
    audio_id: int | None
    options: Mapping[str, Any]
    priority: Priority
    share: str
    turn: int
    step: str
    run: int
    failures: int
    deaths: int
    state: JobState
    code: str | None
    reason: str | None
    created_at: datetime
    updated_at: datetime
    worker: str | None = None
    until: datetime | None = None
    seconds_done: float | None = None
    seconds: float | None = None
    duplicate: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `job_id`."""
        data = {"job_id": self.id, **asdict(self), "priority": self.priority.name.lower()}
        for name in ("id", "run", "turn", "share", "deaths"):
            del data[name]
        return {key: jsonable(value) for key, value in data.items()}


def jsonable(value: Any) -> Any:
    """`value` with datetimes as ISO 8601 text, tuples as lists and NaN as `None`: what `json.dumps` writes portably."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, date):  # an instant is one too
        return value.isoformat()
    if isinstance(value, float) and value != value:
        return None
    return value


@dataclass(frozen=True, slots=True)
class Peaks:
    """A recording's sound as a player draws it. peaks: of each of many equal parts the lowest and the highest sample,
    -1…1. duration: the seconds of sound that were found."""

    audio_id: int
    duration: float
    peaks: tuple[tuple[float, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"audio_id": self.audio_id, "duration": self.duration, "peaks": [list(pair) for pair in self.peaks]}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrives in parts. offset: how many of its `size` bytes are safely here. expires_at: when it is
    removed unless something happens to it before. note: what its sender wants to have back. audio_id, job_id,
    duplicate: what it became, once it is finished."""

    id: str
    name: str
    size: int
    offset: int
    created_at: datetime
    expires_at: datetime
    note: str = ""
    audio_id: int | None = None
    job_id: int | None = None
    duplicate: bool = False

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self.offset == self.size

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `upload_id`."""
        values = {key: jsonable(value) for key, value in asdict(self).items()}
        return {"upload_id": values.pop("id"), **values}


class Added(int):
    """The id of a recording that was added; it also says what happened.

    duplicate: these bytes were stored before. transcript_id, outcome: the version that search follows, if any.
    """

    duplicate: bool
    transcript_id: int | None
    outcome: Outcome | None

    @classmethod
    def of(cls, audio_id: int, *, duplicate: bool, said: Transcript | None) -> Added:
        """The id with what happened to it."""
        added = cls(audio_id)
        added.duplicate = duplicate
        added.transcript_id = said.id if said else None
        added.outcome = said.outcome if said else None
        return added

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        said = {"transcript_id": self.transcript_id, "outcome": self.outcome}
        return {"audio_id": int(self), "duplicate": self.duplicate, **said}
