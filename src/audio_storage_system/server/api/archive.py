"""The archive as a whole: who asks, how much there is, and making anew what is derived."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system.records import EmbeddingKind
from audio_storage_system.server import offers, problems
from audio_storage_system.server.api.shapes import PATTERN, Answer
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import Line, NdJson, Tasks, Tell

router = APIRouter(tags=["archive"], responses=problems.documented())


class Whoami(Answer):
    """Who asks, and what they may."""

    name: str = Field(examples=["anna"])
    kind: Literal["user", "group", "service"]
    groups: list[str] = Field(description="Those that they are in themselves.", examples=[["editors"]])
    scopes: list[Literal["read", "write", "admin"]] = Field(description="What the token is for.")
    restricted: bool = Field(description="Only what they own or were granted exists for them.")
    admin: bool = Field(description="They may do what concerns the whole archive.")


class SpaceStats(BaseModel):
    """A space of embeddings, and how many vectors of what one may see are in it."""

    kind: Literal["transcript", "audio", "combined"]
    model: str = Field(examples=["wordllama:l2_supercat_256"])
    dimension: int = Field(examples=[256])
    active: bool = Field(description="Searches use it.")
    embeddings: int


class Stats(BaseModel):
    """How much there is, of what one may see. What is in the trash is not counted, save as `trashed`."""

    archive_id: str = Field(examples=["2f0c1f7e-6f0b-4f0e-9c55-0d9a1c7e4a10"])
    home: str | None = Field(description="The archive's folder, told to administrators.", examples=["/srv/audio"])
    recordings: int
    trashed: int
    hours: float
    bytes: int
    transcripts: int = Field(description="All versions.")
    segments: int
    passages: int
    outcomes: dict[str, int] = Field(description="Versions by outcome.", examples=[{"ok": 12, "silence": 1}])
    languages: dict[str, int] = Field(description="Active versions by language.", examples=[{"en": 12, "unknown": 1}])
    engines: dict[str, int] = Field(description="Active versions by engine.", examples=[{"faster-whisper": 13}])
    spaces: list[SpaceStats]


class IndexState(BaseModel):
    """How far a vector index has followed the catalogue."""

    indexed: int
    total: int


class Reindexed(BaseModel):
    """The index of each space, by `kind:model`."""

    spaces: dict[str, IndexState]


class ReembeddingPlan(Answer):
    """What embedding anew would do."""

    kind: str
    model: str = Field(description="The model of the vectors to come.")
    before: str = Field(description="The model in use.")
    in_use: bool = Field(description="They are the same: only gaps are filled.")
    lacking: int = Field(description="Vectors to be made.")
    seconds: float = Field(description="Of sound.")
    frees: dict[str, int] = Field(description="Vectors by the models that are used no longer.")


@router.get("/me", summary="Who asks, and what they may")
def whoami(storage: Caller) -> Whoami:
    """Whose the token is. Without one, where none was ever made: the archive's own owner."""
    return Whoami.of(storage.whoami())


@router.get("/stats", summary="How much there is of everything")
def get_stats(storage: Caller) -> Stats:
    """In an archive with users: of everything that who asks may see."""
    stats = storage.stats()
    return Stats.model_validate(stats if storage.whoami().admin else {**stats, "home": None})


@router.post(
    "/reindex",
    summary="Make the indexes anew",
    response_class=NdJson,
    responses={200: {"model": Line[Reindexed]}},
)
def reindex(storage: Caller, tasks: Tasks) -> StreamingResponse:
    """Full text and the vector index of each space, from the catalogue. For administrators. A long task."""

    def do(tell: Tell) -> Reindexed:
        states = storage.reindex()
        return Reindexed(spaces={k: IndexState(indexed=v.indexed, total=v.total) for k, v in states.items()})

    return tasks.run(do)


@router.get("/reembed/plan", summary="What embedding anew would do")
def plan_reembedding(
    storage: Caller,
    embedder: Annotated[str | None, Query(max_length=1_000, pattern=PATTERN, examples=["wordllama"])] = None,
    kind: Literal["transcript", "audio"] = "transcript",
) -> ReembeddingPlan:
    """Makes nothing and loads no model. For administrators."""
    spec = offers.embedder(storage, embedder, EmbeddingKind(kind))
    return ReembeddingPlan.of(storage.plan_reembedding(spec, kind=kind))
