"""Errors as OpenAI's API words them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from audio_storage_system.errors import AudioStorageSystemError, InvalidInput, TranscriptionFailed
from audio_storage_system.server import withheld
from audio_storage_system.server.problems import Problem

Kind = Literal["invalid_request_error", "permission_error", "rate_limit_error", "server_error"]
# What others call a bad request: clients know only this.
BAD_REQUESTS = frozenset({HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY})
KINDS: dict[int, Kind] = {403: "permission_error", 429: "rate_limit_error"}
CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 429: "rate_limit_exceeded"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people.")
    type: Kind
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="For programs.", examples=["unsupported_value"])


class ErrorAnswer(BaseModel):
    """What went wrong, as OpenAI's API says it."""

    error: ErrorDetail


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: these statuses, and those that every route may answer with."""
    every = {400, 401, 403, 408, 413, 429, 500, 503, *statuses}
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in sorted(every)}


def refused(param: str, reason: str, code: str = "invalid_value") -> InvalidInput:
    """The error for a field that cannot be as it is."""
    return InvalidInput(reason=reason, param=param, code=code)


def as_error(problem: Problem, error: AudioStorageSystemError | None) -> JSONResponse:
    """A problem in this shape; of a transcription that failed, the status is what made it fail."""
    status = _status(problem, error)
    details = error.details if error else {}
    param = details.get("param") or (str(problem.faults[0].where[-1]) if problem.faults else None)
    code = str(details.get("code") or CODES.get(status) or problem.code)
    kind = KINDS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    fault = ErrorDetail(message=problem.detail, type=kind, param=param, code=code)
    stored = {"X-Audio-Id": str(details["audio_id"])} if details.get("audio_id") else None
    return JSONResponse(ErrorAnswer(error=fault).model_dump(), status, stored)


def _status(problem: Problem, error: AudioStorageSystemError | None) -> int:
    status = problem.status
    if isinstance(error, TranscriptionFailed) and isinstance(error.__cause__, AudioStorageSystemError):
        status = withheld.status_of(error.__cause__)
    return HTTPStatus.BAD_REQUEST if status in BAD_REQUESTS else status
