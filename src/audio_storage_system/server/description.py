"""How the API is described: OpenAPI at `/openapi.json`, for people at `/docs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from audio_storage_system.server.long_tasks import MEDIA_TYPE
from audio_storage_system.server.problems import Problem

TAGS = [
    {"name": "recordings", "description": "Recordings: to list, describe and remove; their sound, and how it looks."},
    {"name": "uploads", "description": "Bringing files, whole or in parts that survive a lost connection."},
    {"name": "transcripts", "description": "What was said: versions, their differences, files of them."},
    {"name": "search", "description": "Finding what was said, and text for a language model."},
    {"name": "jobs", "description": "What is done in the background, and how far it is."},
    {"name": "webhooks", "description": "Being told what happens."},
    {"name": "OpenAI-compatible", "description": "The endpoints that clients of OpenAI's API know."},
    {"name": "archive", "description": "The archive as a whole: who asks, how much there is, indexes, embedding anew."},
    {"name": "users", "description": "Users, groups and services. For administrators."},
    {"name": "grants", "description": "Who may what, with which recordings."},
    {"name": "tokens", "description": "What programs prove themselves with."},
    {"name": "retention", "description": "What is kept for how long, and the proof. For administrators."},
    {"name": "holds", "description": "Legal holds, which beat every rule and every hand. For administrators."},
    {"name": "trash", "description": "What was thrown away, and can be had back for a while."},
    {"name": "audit", "description": "Who did what: the log, and whether it is whole. For administrators."},
    {"name": "keys", "description": "The keys of an encrypted archive, without any key. For administrators."},
    {
        "name": "backups",
        "description": "Backups, at the places that the setting `backup_destinations` names. For administrators.",
    },
    {"name": "integrity", "description": "Whether everything is there, and safe. For administrators."},
    {"name": "models", "description": "What can transcribe and embed here."},
    {"name": "metadata", "description": "The schema that the metadata of one's recordings has to meet."},
    {"name": "health", "description": "Whether the server lives. Nobody needs a token."},
]


def operation_id(route: APIRoute) -> str:
    """A short and stable name: that of the function."""
    return route.name


def steadily(write: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the framework writes. It remembers the fields of models, and finds a field by which object it is: while
    another thread makes the same ones for the first time, it looks for its own in vain. The second time all have those
    that are remembered."""
    try:
        return write()
    except KeyError:
        return write()


def describe(app: FastAPI) -> None:
    """Complete what the framework writes."""
    write = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(steadily(write))
        assert app.openapi_schema is not None  # noqa: S101 - tells the type checker so
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(schema: dict[str, Any]) -> None:
    """Add the problem details that every route may answer, take `null` from parameters, which are left out instead,
    and say of answers in lines what each line is."""
    _, definitions = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schema["components"]["schemas"].update(definitions["$defs"])
    used = {tag for path in schema["paths"].values() for operation in path.values() for tag in operation["tags"]}
    schema["tags"] = [tag for tag in TAGS if tag["name"] in used]
    for operations in schema["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _without_null(parameter["schema"])
            lines = operation["responses"].get("200", {}).get("content", {}).get(MEDIA_TYPE)
            if lines is not None and "$ref" in lines.get("schema", {}):
                lines["itemSchema"] = {"$ref": lines["schema"]["$ref"]}
                lines["schema"] = {"type": "string", "description": "Lines of JSON, each like `itemSchema`."}


def _without_null(schema: dict[str, Any]) -> None:
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        schema.update(choices[0])
