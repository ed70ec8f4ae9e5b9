"""JSON Schemas (2020-12) of what tools take and answer, as small as they can be: a model reads all of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from audio_storage_system.server.fields import TEXT_PATTERN

# What is in a schema by these names is named by us, and may be called `title` or `default` as well.
_NAMED = ("properties", "$defs")
# What a model knows without being told: that what may be absent may be, and that text has no NUL.
_KNOWN = (("default", None), ("pattern", TEXT_PATTERN))


def schema_of(model: type[BaseModel], *, of_answers: bool = False) -> dict[str, Any]:
    """The schema of a model, what must be there first; of answers, as it is after what is empty was left out."""
    made: dict[str, Any] = _smaller(model.model_json_schema())
    made.pop("description", None)
    made["properties"] = dict(
        sorted(made["properties"].items(), key=lambda one: one[0] not in made.get("required", []))
    )
    if of_answers:
        for one in made.get("$defs", {}).values():
            one.pop("description", None)
    return made


def _smaller(schema: Any) -> Any:
    """Without generated titles and with what may be absent never `null`, which says the same twice."""
    if isinstance(schema, list):
        return [_smaller(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "title"}
    some = [one for one in kept.get("anyOf", []) if one != {"type": "null"}]
    if len(some) == 1:
        del kept["anyOf"]
        kept = {**some[0], **kept}
    return {
        key: {name: _smaller(one) for name, one in value.items()} if key in _NAMED else _smaller(value)
        for key, value in kept.items()
        if (key, value) not in _KNOWN and not (key == "default" and value in ({}, []))
    }
