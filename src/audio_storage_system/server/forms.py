"""The fields of forms beside their files: read like a JSON body, and described in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from audio_storage_system.errors import InvalidInput
from audio_storage_system.server.fields import parsed_object

M = TypeVar("M", bound=BaseModel)


def read(form: FormData, model: type[M]) -> M:
    """The fields of a form as `model`; what the model has as an object is JSON, and an empty field was left out. Raises
    `RequestValidationError`, `InvalidInput`."""
    given: dict[str, Any] = {}
    for name, value in form.multi_items():
        if not isinstance(value, str):
            if name != "file":
                raise InvalidInput(reason='The form has a file that is not called "file"')
            continue
        if name in given:
            raise InvalidInput(reason="The form has a field twice")
        given[name] = parsed_object(value, name) if value and _is_object(model, name) else value
    with checked():
        return model.model_validate({name: value for name, value in given.items() if value != ""})


@contextmanager
def checked() -> Iterator[None]:
    """What does not fit a model in this block is a fault of the request's body, as where the framework reads it. Raises
    `RequestValidationError`."""
    try:
        yield
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(faults) from error


def _is_object(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and "dict" in str(field.annotation)


def documented(model: type[BaseModel], file: str) -> dict[str, Any]:
    """For `openapi_extra=` of a route: a form with a file, which `file` describes, and the fields of `model`."""
    properties = model.model_json_schema()["properties"]
    fields = {
        name: {"type": "string", "description": "A JSON object."} if _is_object(model, name) else schema
        for name, schema in properties.items()
    }
    schema = {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {"file": {"type": "string", "format": "binary", "description": file}, **fields},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
