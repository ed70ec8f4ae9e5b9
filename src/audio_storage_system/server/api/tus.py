"""The protocol tus 1.0.0 (https://tus.io/protocols/resumable-upload): its headers, and its way of saying things."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from audio_storage_system.errors import AudioStorageSystemError, ChecksumMismatch, InvalidInput, OffsetMismatch
from audio_storage_system.records import Upload
from audio_storage_system.server import problems
from audio_storage_system.server.problems import Problem

VERSION = "1.0.0"
CONTENT_TYPE = "application/offset+octet-stream"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
ALGORITHMS = "sha1,sha256,sha512,md5"
CHECKSUM_MISMATCH = 460  # tus has a status of its own for it
METADATA_PATTERN = r"^[ -~]*$"
# What clients say of a file besides its name, which the file itself says better.
UNUSED = frozenset({"filetype", "type", "relativePath"})
NAMES = ("filename", "name")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class TusRoute(APIRoute):
    """A route whose answers, also the bad ones, have the headers of tus, and that refuses other versions of it."""

    def get_route_handler(self) -> Handler:
        """As FastAPI asks for it."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await _answered(answer, request)
            response.headers["Tus-Resumable"] = VERSION
            return response

        return handle


async def _answered(answer: Handler, request: Request) -> Response:
    if request.method != "OPTIONS" and request.headers.get("tus-resumable", VERSION) != VERSION:
        refused = problems.answer(problems.of_status(412, f"This server speaks tus {VERSION}"))
        refused.headers["Tus-Version"] = VERSION
        return refused
    try:
        return await answer(request)
    except ChecksumMismatch as error:
        title = "Checksum Mismatch"
        return problems.answer(
            Problem(title=title, status=CHECKSUM_MISMATCH, detail=error.message, code=error.code, retryable=True)
        )
    except RequestValidationError as error:
        return problems.answer(problems.of_validation(error))
    except AudioStorageSystemError as error:
        return _problem(request, error)
    except HTTPException as error:
        if not isinstance(error.__cause__, AudioStorageSystemError):
            raise
        return _problem(request, error.__cause__)


def _problem(request: Request, error: AudioStorageSystemError) -> Response:
    response = problems.response_to(request.scope, error)
    if isinstance(error, OffsetMismatch):
        response.headers["Upload-Offset"] = str(error.details["offset"])
    return response


def headers_of(upload: Upload) -> dict[str, str]:
    """What is said of an upload."""
    said = {
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.size),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
        "Cache-Control": "no-store",
    }
    if upload.note:
        said["Upload-Metadata"] = upload.note
    if upload.job_id is not None:
        said |= {"X-Audio-Id": str(upload.audio_id), "X-Job-Id": str(upload.job_id)}
    return said


def number_in(request: Request, name: str) -> int:
    """A header that is a whole number. Raises `InvalidInput`."""
    given = request.headers.get(name, "")
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise InvalidInput(reason=f"The header {name} is a whole number")
    return int(given)


def checksum_in(request: Request) -> tuple[str, bytes] | None:
    """What the body is to be checked by, if anything. Raises `InvalidInput`."""
    given = request.headers.get("upload-checksum")
    if given is None:
        return None
    algorithm, _, digest = given.strip().partition(" ")
    return algorithm.lower(), _decoded(digest, "Upload-Checksum")


def metadata_in(request: Request) -> tuple[str, dict[str, str]]:
    """The header with what is said of the file: as it came, and as texts by their names. Raises `InvalidInput`."""
    given = request.headers.get("upload-metadata", "")
    if not re.fullmatch(METADATA_PATTERN, given):
        raise InvalidInput(reason="Upload-Metadata has characters that are not printable ASCII")
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in given.split(","))):
        key, _, value = pair.partition(" ")
        if key in found:
            raise InvalidInput(reason=f"Upload-Metadata has {key[:40]} twice")
        try:
            found[key] = _decoded(value.strip(), "Upload-Metadata").decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(reason="A value in Upload-Metadata is not UTF-8") from error
    return given, found


def _decoded(text: str, header: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(reason=f"A value in {header} is not base64") from error
