"""Uploads in parts: tus 1.0.0, which many clients speak, and JSON for those who only ask."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from audio_storage_system import AudioStorageSystem, records
from audio_storage_system.errors import InvalidInput, TooLarge
from audio_storage_system.server import forms, problems
from audio_storage_system.server.api import tus
from audio_storage_system.server.api.recordings import bare
from audio_storage_system.server.api.shapes import Answer, Page, page
from audio_storage_system.server.api.storing import Stored, Storing
from audio_storage_system.server.api.tus import TusRoute
from audio_storage_system.server.fields import LARGEST_ID, Cursor, Limit, Text
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.receiving import pour

router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=TusRoute, responses=problems.documented(412))

UploadId = Annotated[str, Path(max_length=64, description="The upload.", examples=["0f3c5e2a9b8d4c6f8e7a1b2c3d4e5f60"])]
OWN_NAMES = frozenset({*Storing.model_fields, "sha256"})


class NewUpload(Storing):
    """The upload of a file that is to come."""

    size: int = Field(ge=1, le=LARGEST_ID, description="Bytes of the whole file.", examples=[52_428_800])
    name: Annotated[Text, Field(max_length=1000)] = Field(default="", examples=["meeting.m4a"])
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        default=None, description="The hash that the whole file must have."
    )


class Upload(Answer):
    """A file that arrives in parts."""

    upload_id: str
    name: str
    size: int
    offset: int = Field(description="How many bytes are safely here.")
    created_at: datetime
    expires_at: datetime = Field(description="When it is removed, unless something happens to it before.")
    audio_id: int | None = Field(description="The recording that it became.")
    job_id: int | None = Field(description="The job that transcribes and embeds it.")
    duplicate: bool


CREATION: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, description, pattern in (
            ("Upload-Length", "Bytes of the whole file; instead of a JSON body.", r"^[0-9]{1,18}$"),
            ("Upload-Metadata", "Pairs of a key and its value in base64, separated by commas.", tus.METADATA_PATTERN),
        )
    ],
    "requestBody": {
        "content": {
            "application/json": {"schema": NewUpload.model_json_schema()},
            tus.CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}},
        }
    },
}
APPENDING: dict[str, Any] = {
    "parameters": [
        {
            "name": "Upload-Offset",
            "in": "header",
            "required": True,
            "description": "Where these bytes begin: what HEAD says.",
            "schema": {"type": "integer", "minimum": 0},
        },
        {
            "name": "Upload-Checksum",
            "in": "header",
            "required": False,
            "description": f"One of {tus.ALGORITHMS}, a blank, and the digest of these bytes in base64.",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {tus.CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    },
}
MISMATCH: dict[int | str, dict[str, Any]] = {
    tus.CHECKSUM_MISMATCH: {
        "description": "The bytes do not have their checksum, and were discarded.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


@router.options("", status_code=204, include_in_schema=False)
@router.options("/{upload_id}", status_code=204, include_in_schema=False)
def options(request: Request) -> Response:
    """What of tus is spoken here."""
    storage: AudioStorageSystem = request.app.state.storage
    said = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Checksum-Algorithm": tus.ALGORITHMS,
        "Tus-Max-Size": str(storage.settings.max_file_bytes),
    }
    return Response(status_code=204, headers=said)


@router.post(
    "",
    status_code=201,
    response_model=Upload,
    summary="Begin an upload",
    openapi_extra=CREATION,
    responses=problems.documented(409, 412, 415, 423, 507) | MISMATCH,
)
async def create_upload(request: Request, response: Response, storage: Caller) -> Upload:
    """With a JSON body that says what is to come; or as tus has it, with `Upload-Length` and, with the content type
    `application/offset+octet-stream`, the first bytes already. In `Upload-Metadata`, `filename` is the file's name,
    `metadata` a JSON object, the fields of the JSON body are what they are there, and any other key is metadata."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted, note = await _announced(request, kind)
    given = {**wanted.arguments(storage), "sha256": wanted.sha256, "note": note}
    begin = partial(storage.uploads.create, wanted.size, bare(wanted.name), **given)
    upload = await to_thread.run_sync(begin)
    if kind == tus.CONTENT_TYPE:
        upload = await _appended(request, storage, upload, 0)
    response.headers.update(tus.headers_of(upload))
    response.headers["Location"] = str(request.url_for("get_upload", upload_id=upload.id).path)
    return Upload.of(upload)


async def _announced(request: Request, kind: str) -> tuple[NewUpload, str]:
    """What is to come, and the header that says it."""
    if kind == "application/json":
        with forms.checked():
            return NewUpload.model_validate_json(await request.body()), ""
    if "upload-defer-length" in request.headers:
        raise InvalidInput(reason="The length of an upload is said when it is created")
    note, texts = tus.metadata_in(request)
    name = next((texts[name] for name in tus.NAMES if name in texts), "")
    given = {key: value for key, value in texts.items() if key in OWN_NAMES}
    size = tus.number_in(request, "Upload-Length")
    wanted = NewUpload.of_texts({**given, "size": size, "name": name})
    further = {key: value for key, value in texts.items() if key not in {*OWN_NAMES, *tus.UNUSED, *tus.NAMES}}
    return wanted.model_copy(update={"metadata": {**further, **wanted.metadata}}), note


@router.get("", summary="One's own uploads", responses=problems.documented(412))
def list_uploads(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[Upload]:
    """The latest first; finished ones too, until they expire."""
    earlier = [one for one in storage.uploads.list() if cursor is None or _place(one) < cursor]
    shown, following = page(sorted(earlier, key=_place, reverse=True), limit, _place)
    return Page(items=[Upload.of(one) for one in shown], next_cursor=following)


def _place(upload: records.Upload) -> str:
    return f"{upload.created_at:%Y%m%dT%H%M%S%f}-{upload.id}"


@router.get("/{upload_id}", summary="One upload", responses=problems.documented(404, 412))
def get_upload(storage: Caller, response: Response, upload_id: UploadId) -> Upload:
    """How much of it is safely here, and what it became."""
    upload = storage.uploads.get(upload_id)
    response.headers.update(tus.headers_of(upload))
    return Upload.of(upload)


@router.head("/{upload_id}", include_in_schema=False)
def head_upload(storage: Caller, upload_id: UploadId) -> Response:
    """The same in the headers of tus."""
    return Response(headers=tus.headers_of(storage.uploads.get(upload_id)))


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    summary="Append to an upload",
    openapi_extra=APPENDING,
    responses=problems.documented(404, 409, 412, 415, 423, 507) | MISMATCH,
)
async def append_to_upload(request: Request, storage: Caller, upload_id: UploadId) -> Response:
    """What arrives is on the disk when this answers, and stays there when the connection is cut. With the last byte
    the file is stored: `X-Audio-Id` and `X-Job-Id` say what it became. An append that another request is in the middle
    of is ended by this one."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != tus.CONTENT_TYPE:
        return problems.answer(problems.of_status(415, f"What is appended has the content type {tus.CONTENT_TYPE}"))
    offset = tus.number_in(request, "Upload-Offset")
    upload = await to_thread.run_sync(storage.uploads.get, upload_id)
    upload = await _appended(request, storage, upload, offset)
    return Response(status_code=204, headers=tus.headers_of(upload))


async def _appended(
    request: Request, storage: AudioStorageSystem, upload: records.Upload, offset: int
) -> records.Upload:
    """The upload with the body of a request, finished where that is all of it."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and offset == upload.offset and int(declared) > upload.size - offset:
        raise TooLarge(what="The body", limit=f"the {upload.size - offset:,} bytes that are to come")
    begin = partial(storage.uploads.appending, upload.id, offset, tus.checksum_in(request))
    await pour(request, begin)
    upload = await to_thread.run_sync(storage.uploads.get, upload.id)
    if upload.complete and upload.job_id is None:
        await to_thread.run_sync(storage.uploads.finish, upload.id)
        upload = await to_thread.run_sync(storage.uploads.get, upload.id)
    return upload


@router.post(
    "/{upload_id}/finish",
    summary="Store an upload that is complete",
    responses=problems.documented(404, 409, 412, 415, 423, 507) | MISMATCH,
)
def finish_upload(storage: Caller, upload_id: UploadId) -> Stored:
    """Only needed where that was not possible when its last byte came. Called again, it answers the same."""
    return Stored.of(storage.uploads.finish(upload_id))


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    summary="Abort an upload",
    responses=problems.documented(404, 412, 423),
)
def abort_upload(storage: Caller, upload_id: UploadId) -> Response:
    """What has arrived is removed. A recording that it became stays."""
    storage.uploads.abort(upload_id)
    return Response(status_code=204)


@router.post("/{upload_id}", include_in_schema=False)
async def override(request: Request, storage: Caller, upload_id: UploadId) -> Response:
    """For clients that can send no PATCH or DELETE, `X-HTTP-Method-Override` says what is meant."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        return await append_to_upload(request, storage, upload_id)
    if method == "DELETE":
        return await to_thread.run_sync(abort_upload, storage, upload_id)
    raise HTTPException(405)
