"""Finding: by a text, by an example, and as text for a language model."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from audio_storage_system import AudioStorageSystem, ContextPack, SearchResults
from audio_storage_system.server import forms, incoming, problems
from audio_storage_system.server.api.searching import (
    Example,
    Limits,
    Pack,
    Page,
    Question,
    Search,
    SearchAnswer,
    TextQuery,
)
from audio_storage_system.server.fields import where_of
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.offers import offered
from audio_storage_system.server.waiting import Patience, while_wanted

router = APIRouter(tags=["search"], responses=problems.documented(404))


@router.get("/search", summary="Find by a text", response_model=SearchAnswer)
async def search_by_query(request: Request, storage: Caller, wanted: Annotated[TextQuery, Query()]) -> Response:
    """The passages where something was said, by meaning and by words, best first."""
    return await _by_text(request, storage, wanted, wanted.mode, wanted.text, where_of(wanted.where))


@router.post("/search", summary="Find by a text, asked in JSON", response_model=SearchAnswer)
async def search(request: Request, storage: Caller, wanted: Search) -> Response:
    """The same, with conditions of any form."""
    return await _by_text(request, storage, wanted, wanted.mode, wanted.text, wanted.where)


@router.post(
    "/search/audio",
    summary="Find by an example",
    response_model=SearchAnswer,
    openapi_extra=forms.documented(Example, "The example: at most ten minutes of sound."),
    responses=problems.documented(404, 415),
)
async def search_by_audio(request: Request, storage: Caller) -> Response:
    """What sounds like an example, says the like, or both. The example is not stored."""
    async with incoming.form_of(request, storage) as form:
        file, wanted = incoming.file_in(form), forms.read(form, Example)
        patience = _patience(storage, wanted)
        model = offered(storage, wanted.whisper_model)
        further = {"audio": file.file, "by": wanted.by, "mode": wanted.mode, "whisper_model": model}
        call = partial(_found, storage, None, _page(wanted, wanted.where), patience, further)
        return _json(await while_wanted(request, patience, call, "examples"))


@router.post("/context", summary="Pack the best passages for a language model", response_model=Pack)
async def context(request: Request, storage: Caller, wanted: Question) -> Response:
    """The best passages that fit into a number of tokens, each under a numbered label, with links to listen to them."""
    patience = _patience(storage, wanted)
    limits = wanted.limits(wanted.where)

    def pack() -> bytes:
        found = storage.context_pack(
            wanted.text, wanted.max_tokens, deadline=patience.left, cancellation=patience.cancellation, **limits
        )
        return _bytes(Pack, _linked(found, str(request.scope.get("root_path", ""))))

    return _json(await while_wanted(request, patience, pack))


async def _by_text(
    request: Request, storage: AudioStorageSystem, wanted: Page, mode: str, text: str, where: dict[str, Any] | None
) -> Response:
    patience = _patience(storage, wanted)
    call = partial(_found, storage, text, _page(wanted, where), patience, {"mode": mode})
    return _json(await while_wanted(request, patience, call))


def _found(
    storage: AudioStorageSystem, text: str | None, page: dict[str, Any], patience: Patience, further: dict[str, Any]
) -> bytes:
    """The answer, ready to be sent: of many hits, putting it into words takes long enough to be a thread's work."""
    found: SearchResults = storage.search_similar_audio(
        text, deadline=patience.left, cancellation=patience.cancellation, **page, **further
    )
    return _bytes(SearchAnswer, found.as_dict())


def _patience(storage: AudioStorageSystem, wanted: Limits) -> Patience:
    return Patience(storage.settings.search_seconds, wanted.deadline)


def _page(wanted: Page, where: dict[str, Any] | None) -> dict[str, Any]:
    names = ("limit", "offset", "context", "space")
    return {**wanted.limits(where), **{name: getattr(wanted, name) for name in names}}


def _linked(pack: ContextPack, root: str) -> dict[str, Any]:
    """A pack with an address for each citation: media fragments (W3C) say from when to when."""
    data = pack.as_dict()
    for one in data["citations"]:
        span = f"{round(one['start'], 2)},{round(one['end'], 2)}"
        one["audio"] = f"{root}/api/v1/recordings/{one['audio_id']}/audio#t={span}"
    return data


def _bytes(model: type[BaseModel], data: dict[str, Any]) -> bytes:
    return model.model_validate(data).model_dump_json().encode()


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
