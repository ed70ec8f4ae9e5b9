"""Parameters in the query of a request: none that the description does not know, and none twice that is one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from anyio import to_thread
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from audio_storage_system.server.description import steadily

LONGEST_NAME = 100
# The parameters of each operation by its function, and whether each may be given more than once; `None` for what is not
# described.
_known: dict[Callable[..., Any], dict[str, bool] | None] = {}


async def check_query(connection: HTTPConnection) -> None:
    """Refuse what would be left out without a word: a misspelt `limt=5`, the first of two cursors."""
    if not connection.query_params:
        return
    operation = connection.scope["endpoint"]
    if operation not in _known:  # describing it takes too long for the event loop
        _known[operation] = await to_thread.run_sync(_parameters, connection.scope["route"])
    known = _known[operation]
    if known is None:
        return
    given = Counter(name for name, _ in connection.query_params.multi_items())
    wrong = [_fault(name, "There is no such parameter") for name in given if name not in known]
    wrong += [
        _fault(name, "It was given more than once")
        for name, times in given.items()
        if times > 1 and not known.get(name)
    ]
    if wrong:
        raise RequestValidationError(wrong)


def _parameters(route: APIRoute) -> dict[str, bool] | None:
    paths = steadily(lambda: get_openapi(title="", version="", routes=[route]))["paths"]
    if not paths:
        return None
    [operation] = paths[route.path].values()
    parameters = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    return {one["name"]: _is_list(one["schema"]) for one in parameters}


def _is_list(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", ())))


def _fault(name: str, message: str) -> dict[str, Any]:
    return {"loc": ("query", name[:LONGEST_NAME]), "msg": message, "type": "query"}
