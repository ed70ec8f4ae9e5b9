"""The sound of a recording: its bytes, for players too, and its shape."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import Recording
from audio_storage_system.server import problems, ranges, sending
from audio_storage_system.server.fields import AudioId
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.ranges import Version
from audio_storage_system.server.waiting import Patience, while_wanted

router = APIRouter(prefix="/recordings/{audio_id}", tags=["recordings"], responses=problems.documented(404, 409, 410))

# Private sound does not stay in caches, and nothing in it is ever taken for a page.
GUARDED = {
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
DRAWN_AT_ONCE = 2
DRAWING_SECONDS = 60.0
_drawing = CapacityLimiter(DRAWN_AT_ONCE)

BINARY = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
PARTS = {"multipart/byteranges": {"schema": {"type": "string", "format": "binary"}}}
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"content": BINARY, "description": "All of it."},
    206: {"content": {**BINARY, **PARTS}, "description": "The ranges that were asked for."},
    304: {"description": "What the client has is what there is."},
    **problems.documented(404, 409, 410, 412, 416),
}


class Waveform(BaseModel):
    """What a player draws."""

    audio_id: int
    duration: float = Field(description="Seconds of sound.")
    peaks: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        description="Of each of as many equal parts as were asked for the lowest and the highest sample, -1…1.",
        examples=[[[-0.25, 0.31], [-0.02, 0.02]]],
    )


@router.get("/audio", summary="Its bytes", response_class=Response, responses=AUDIO)
def get_audio(
    request: Request,
    storage: Caller,
    audio_id: AudioId,
    download: Annotated[bool, Query(description="Have a browser save it instead of playing it.")] = False,
) -> Response:
    """Exactly as they were given. Ranges (RFC 9110) let a player seek, in an encrypted archive and on object storage
    too: only what is asked for is read."""
    recording = _with_bytes(storage, audio_id)
    version = _version(recording)
    part = ranges.select(request.headers, version)
    headers = _headers(recording, version, download=download)
    if part.status == 304:
        return Response(status_code=304, headers=headers)
    if not part.ranges:
        return _refused(part.status, version)
    file = storage.open_audio(audio_id)
    if part.status == 206:
        return sending.ranges_of(file, part.ranges, version.size, headers)
    return sending.FileResponse(file, [(b"", part.ranges[0])], b"", 200, headers)


@router.head("/audio", include_in_schema=False)
def head_audio(request: Request, storage: Caller, audio_id: AudioId) -> Response:
    """As GET, without the bytes."""
    recording = _with_bytes(storage, audio_id)
    version = _version(recording)
    headers = _headers(recording, version, download=False)
    status = ranges.select({**request.headers, "range": ""}, version).status
    if status == 412:
        return _refused(412, version)
    return Response(status_code=status, headers={**headers, "Content-Length": str(version.size)})


@router.get(
    "/waveform",
    summary="Its peaks, to draw",
    response_model=Waveform,
    responses={304: {"description": "What the client has is what there is."}},
)
async def get_waveform(
    request: Request,
    response: Response,
    storage: Caller,
    audio_id: AudioId,
    points: Annotated[int, Query(ge=1, le=20_000)] = 1000,
) -> Any:
    """The lowest and the highest sample of each of so many equal parts. All of the sound is decoded for it, a long
    recording takes a while; what a client has kept can be asked for with its tag."""
    recording = await to_thread.run_sync(_with_bytes, storage, audio_id)
    version = _version(recording, f"/peaks/{points}")
    headers = {"Cache-Control": "private, no-cache", "ETag": version.etag}
    if ranges.select(request.headers, version).status == 304:
        return Response(status_code=304, headers=headers)
    async with _drawing:
        patience = Patience(DRAWING_SECONDS)
        found = await while_wanted(
            request,
            patience,
            lambda: storage.peaks(audio_id, points, deadline=patience.left, cancellation=patience.cancellation),
            "drawing",
        )
    response.headers.update(headers)
    return found.as_dict()


def _with_bytes(storage: AudioStorageSystem, audio_id: int) -> Recording:
    """A recording that has its sound. Raises `AudioRemoved`, `StillRecording`."""
    recording = storage.get_recording(audio_id)
    if recording.status != "stored":
        storage.open_audio(audio_id).close()  # which says why not
    return recording


def _version(recording: Recording, derived: str = "") -> Version:
    tag = hashlib.sha256(f"{recording.file_hash}{derived}".encode()).hexdigest()[:32]
    return Version(recording.file_size, tag, recording.created_at)


def _headers(recording: Recording, version: Version, *, download: bool) -> dict[str, str]:
    return {
        **GUARDED,
        "Accept-Ranges": "bytes",
        "Content-Type": recording.media_type or "application/octet-stream",
        "Content-Disposition": disposition(recording.original_name, "attachment" if download else "inline"),
        "ETag": version.etag,
        "Last-Modified": version.last_modified,
    }


def _refused(status: int, version: Version) -> Response:
    answer = problems.answer(problems.of_status(status))
    if status == 416:
        answer.headers["Content-Range"] = f"bytes */{version.size}"
    return answer


def disposition(name: str, kind: str) -> str:
    """A `Content-Disposition` with a file's name (RFC 6266), for clients that know only ASCII too."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
