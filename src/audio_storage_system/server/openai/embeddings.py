"""`/v1/embeddings`: texts to vectors of the archive's own spaces. Nothing of it is kept."""

from __future__ import annotations

import base64
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import InvalidInput
from audio_storage_system.search.context import estimate_tokens
from audio_storage_system.server.openai import models
from audio_storage_system.server.openai.clients import Client
from audio_storage_system.server.openai.faults import documented, refused
from audio_storage_system.server.waiting import in_turn

router = APIRouter(responses=documented(404))

MOST_TEXTS, MOST_TOKENS, MOST_TOKENS_TOGETHER = 2048, 8192, 300_000


class EmbeddingRequest(BaseModel):
    """Texts to embed."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "text-embedding-3-small", "input": ["good morning"]}]}
    )

    input: str | list[str] | list[int] | list[list[int]] = Field(
        description="At most 2,048 texts of 8,192 tokens, 300,000 tokens together. Tokens of OpenAI's models mean "
        "nothing to others, and are refused."
    )
    model: str = Field(description="As `/v1/models` lists them.")
    dimensions: int | None = Field(default=None, ge=1, description="Only what the model has.")
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(default=None, description="Taken, and not used.")


class Embedding(BaseModel):
    """The vector of one text; with `base64`, its values as little-endian 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How much there was, estimated."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """A vector for each text, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


@router.post("/embeddings", summary="Texts to vectors", response_model=Embeddings)
async def embeddings(request: Request, storage: Client, asked: EmbeddingRequest) -> Response:
    """Unit vectors, comparable with those that the archive searches by. What is sent here is not kept."""
    return await in_turn(request, partial(_answer, storage, asked))


def _answer(storage: AudioStorageSystem, asked: EmbeddingRequest) -> Response:
    """In a thread, also the writing of so many numbers."""
    space = models.text_space(storage, asked.model)
    texts, tokens = _texts(asked)
    try:
        rows = storage.generate_text_embeddings(texts, space=space)
    except InvalidInput as error:
        raise refused("input", error.message) from error
    if asked.dimensions not in (None, rows.shape[1]):
        reason = f"{asked.model} has {rows.shape[1]} dimensions here, and they cannot be cut down"
        raise refused("dimensions", reason, "unsupported_value")
    encode = _base64 if asked.encoding_format == "base64" else _floats
    data = [Embedding(index=number, embedding=encode(row)) for number, row in enumerate(rows)]
    answer = Embeddings(data=data, model=asked.model, usage=Usage(prompt_tokens=tokens, total_tokens=tokens))
    return Response(answer.model_dump_json(), media_type="application/json")


def _texts(asked: EmbeddingRequest) -> tuple[list[str], int]:
    """The texts, and about how many tokens they have together. Raises `InvalidInput`."""
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    if not given or len(given) > MOST_TEXTS:
        raise refused("input", f"Give 1 to {MOST_TEXTS:,} texts, not {len(given):,}")
    texts = [item for item in given if isinstance(item, str)]
    if len(texts) < len(given):
        reason = "Tokens cannot be embedded: the archive's model counts them otherwise. Send the text itself"
        raise refused("input", reason, "unsupported_value")
    counts = [estimate_tokens(text) for text in texts]
    for number, text in enumerate(texts):
        if not text.strip() or counts[number] > MOST_TOKENS:
            what = "is empty" if not text.strip() else f"has more than {MOST_TOKENS:,} tokens"
            raise refused("input", f"Text {number} {what}")
    if sum(counts) > MOST_TOKENS_TOGETHER:
        raise refused("input", f"The texts have more than {MOST_TOKENS_TOGETHER:,} tokens together")
    return texts, sum(counts)


def _floats(row: npt.NDArray[np.float32]) -> list[float]:
    values: list[float] = row.tolist()
    return values


def _base64(row: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
