"""Parameters in the query of a request: none that the description does not know, and none twice that is one value."""

from __future__ import annotations

from collections import Counter
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

LONGEST_NAME = 100


async def check_query(connection: HTTPConnection) -> None:
    """Refuse what would be left out without a word: a misspelt `limt=5`, the first of two cursors."""
    if not connection.query_params:
        return
    state = connection.app.state
    if not hasattr(state, "queries"):  # writing the description takes too long for the event loop
        state.queries = await to_thread.run_sync(_known, connection.app)
    known = state.queries.get(connection.scope["endpoint"].__name__)
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


def _known(app: FastAPI) -> dict[str, dict[str, bool]]:
    """The parameters of each operation by its id, and whether each may be given more than once."""
    operations = [one for path in app.openapi()["paths"].values() for one in path.values()]
    return {one["operationId"]: _parameters(one) for one in operations}


def _parameters(operation: dict[str, Any]) -> dict[str, bool]:
    parameters = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    return {one["name"]: one["schema"].get("type") == "array" for one in parameters}


def _fault(name: str, message: str) -> dict[str, Any]:
    return {"loc": ("query", name[:LONGEST_NAME]), "msg": message, "type": "query"}
