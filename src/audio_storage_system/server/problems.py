"""Errors as answers: problem details (RFC 9457) with the codes of the error tree."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from audio_storage_system.errors import (
    AudioStorageSystemError,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unauthorized,
    Unexpected,
)
from audio_storage_system.server import withheld

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# What somebody gave is shown back no longer than this.
LONGEST_REASON = 500
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: list[str | int] = Field(description="The way to it: `body`, `query` or `path`, then names and numbers.")
    message: str


class Problem(BaseModel):
    """What went wrong, as RFC 9457 says it."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="For people.", examples=["No recording with id 7."])
    code: str = Field(description="For programs: a stable name.", examples=["not_found"])
    retryable: bool = Field(description="Whether the same request can succeed later.")
    faults: list[Fault] = Field(default=[], description="What is wrong with the request, part by part.")

    def brief(self) -> dict[str, Any]:
        """As an error tells itself: code, message, retryable."""
        return {"code": self.code, "message": self.detail, "retryable": self.retryable}


# How a part of the application says what went wrong; the error is told where there is one.
Shape: TypeAlias = Callable[[Problem, AudioStorageSystemError | None], JSONResponse]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: these statuses, and those that every route may answer with."""
    every = {400, 401, 403, 408, 413, 422, 429, 500, 503, 504, *statuses}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(every)
    }


def answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as a response."""
    return JSONResponse(problem.model_dump(), problem.status, headers, MEDIA_TYPE)


def of_error(error: AudioStorageSystemError) -> Problem:
    """The problem that an error of the tree is, for who asks from elsewhere: what is withheld is in the log."""
    status, words = withheld.status_of(error), withheld.words_for(error)
    if words is not None:
        logger.warning("Answered with %s (%s): %s", status.value, error.code, error)
    return _problem(error, status, error.message if words is None else words)


def of_error_here(error: AudioStorageSystemError) -> Problem:
    """The same in full, for who runs the program."""
    return _problem(error, HTTPStatus(error.http_status), error.message)


def _problem(error: AudioStorageSystemError, status: HTTPStatus, words: str) -> Problem:
    return Problem(title=status.phrase, status=status, detail=words, code=error.code, retryable=error.retryable)


def of_validation(error: RequestValidationError) -> Problem:
    """The problem that a request has which is not as documented; what was given is not repeated."""
    faults = [Fault(where=list(one["loc"]), message=str(one["msg"])[:LONGEST_REASON]) for one in error.errors()]
    detail = "; ".join(f"{'.'.join(map(str, fault.where))}: {fault.message}" for fault in faults[:3])
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return Problem(
        title=status.phrase, status=status, detail=detail, code="invalid_request", retryable=False, faults=faults[:100]
    )


def of_status(status: int, detail: str = "") -> Problem:
    """The problem that the web framework saw: no such page, another method."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return Problem(title=phrase, status=status, detail=detail or phrase, code=code, retryable=status in (429, 503))


def response_to(scope: Scope, error: AudioStorageSystemError) -> JSONResponse:
    """The answer to a request that ends with this error."""
    return _shaped(scope, of_error(error), headers_of(error), error)


def _shaped(
    scope: Scope,
    problem: Problem,
    headers: Mapping[str, str] | None = None,
    error: AudioStorageSystemError | None = None,
) -> JSONResponse:
    """A problem as a response, as it looks in the part of the application that was asked."""
    shapes: Mapping[str, Shape] = scope["app"].state.shapes
    shape = next((shapes[start] for start in shapes if scope["path"].startswith(start)), None)
    response = answer(problem) if shape is None else shape(problem, error)
    response.headers.update(headers or {})
    return response


def headers_of(error: AudioStorageSystemError) -> dict[str, str]:
    """What belongs to the answer besides its content."""
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TooLarge | TooSlow):
        return {"Connection": "close"}  # nobody reads the rest of it
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(math.ceil(error.details["seconds"]))}
    return {"Retry-After": "1"} if error.retryable and error.http_status == HTTPStatus.SERVICE_UNAVAILABLE else {}


def handle(app: FastAPI, shapes: Mapping[str, Shape]) -> None:
    """Have every error of the application answered like this, and otherwise where a path starts with one of these."""
    app.state.shapes = shapes
    app.exception_handler(AudioStorageSystemError)(_known)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_framework)
    app.exception_handler(ClientDisconnect)(_gone)
    app.exception_handler(Exception)(_unexpected)


async def _known(request: Request, error: AudioStorageSystemError) -> JSONResponse:
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR and withheld.words_for(error) is None:
        logger.warning("%s %s: %s", request.method, request.url.path, error)
    return response_to(request.scope, error)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return _shaped(request.scope, of_validation(error))


async def _framework(request: Request, error: HTTPException) -> JSONResponse:
    if isinstance(error.__cause__, AudioStorageSystemError):
        return response_to(request.scope, error.__cause__)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return _shaped(request.scope, of_status(error.status_code, str(error.detail)), headers)


def _allowed(request: Request) -> list[str]:
    """All that is answered at this address; the framework names those of the first route that it finds."""
    asked: list[Scope] = [{**request.scope, "method": method} for method in METHODS]
    routes = request.app.router.routes
    return [one["method"] for one in asked if any(route.matches(one)[0] is Match.FULL for route in routes)]


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # which nobody is there to read


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s: this should not have happened", request.method, request.url.path, exc_info=error)
    return _shaped(request.scope, of_error(Unexpected()))
