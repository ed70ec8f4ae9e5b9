"""JSON Schema (Draft 2020-12) for metadata: what a schema may be, so that checking against it stays quick and reads
nothing from anywhere, and what a recording's metadata breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from audio_storage_system.errors import InvalidInput, InvalidMetadata
from audio_storage_system.records import jsonable

if TYPE_CHECKING:  # it takes a fifth of a second to load, and most archives have no schema
    from jsonschema import ValidationError

MAX_CHARACTERS = 65_536
MAX_DEPTH = 32
MAX_PATTERN_CHARACTERS = 1_000
# How many rules a schema has when every reference is replaced by what it refers to.
MAX_RULES = 10_000
# Beyond this, a pattern is one that tries everything in vain.
PATTERN_SECONDS = 0.2
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFINITION = "#/$defs/"
# `unevaluated…` go through the whole schema again for every value, and with Python's `re`.
_REFUSED = (
    "$dynamicRef",
    "$recursiveRef",
    "$dynamicAnchor",
    "$anchor",
    "unevaluatedProperties",
    "unevaluatedItems",
)
_MAX_TOLD = 200


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that metadata breaks: the key concerned (empty: the metadata as a whole), the rule's keyword in the
    schema, and what it asks for."""

    key: str
    rule: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def as_error(self) -> InvalidMetadata:
        """The error that says so."""
        key = repr(self.key) if self.key else "as a whole"
        return InvalidMetadata(key=key, reason=f"{self.message} (rule {self.rule} of the owner's schema)")


def check_schema(schema: object) -> None:
    """Raise `InvalidInput` unless this is a schema that metadata can be checked against."""
    if not isinstance(schema, Mapping):
        raise InvalidInput(reason="A schema of metadata is a JSON object")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(reason=f"The schema is not JSON: {error}") from error
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(reason=f"A schema has at most {MAX_CHARACTERS:,} characters")
    plain = json.loads(text)
    if plain.get("$schema", DIALECT).rstrip("#") != DIALECT:
        raise InvalidInput(reason=f"A schema is of the dialect {DIALECT}")
    _check_parts(plain, "", 0)
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(plain)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "its top"
        raise InvalidInput(reason=f"The schema is not valid at {where}: {_short(error.message)}") from error
    if _rules(plain, plain.get("$defs", {}), {}, ()) > MAX_RULES:
        raise InvalidInput(reason=f"The schema has more than {MAX_RULES:,} rules, each reference written out")


def _check_parts(part: Any, where: str, depth: int) -> None:
    """What could make a check slow, or have it read something, is refused wherever it stands."""
    if depth > MAX_DEPTH:
        raise InvalidInput(reason=f"A schema is at most {MAX_DEPTH} levels deep")
    if isinstance(part, list):
        for item in part:
            _check_parts(item, where, depth + 1)
    if not isinstance(part, dict):
        return
    for name, value in part.items():
        here = f"{where}/{name}"
        if (name in _REFUSED and not where.endswith("/properties")) or (
            name == "$id" and depth > 0 and isinstance(value, str)
        ):
            raise InvalidInput(reason=f"The schema uses {name} at {here[:_MAX_TOLD]}, which is not supported here")
        if name == "$ref" and isinstance(value, str) and not _is_local(value):
            raise InvalidInput(reason=f'The schema refers to "{_short(value)}"; it may refer to {_DEFINITION}… only')
        if name == "pattern" and isinstance(value, str):
            _check_pattern(value)
        if name == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                _check_pattern(pattern)
        _check_parts(value, here, depth + 1)


def _is_local(reference: str) -> bool:
    name = reference.removeprefix(_DEFINITION)
    return reference.startswith(_DEFINITION) and not set(name) & set("/~%#")


def _check_pattern(pattern: str) -> None:
    import regex

    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise InvalidInput(reason=f"A pattern has at most {MAX_PATTERN_CHARACTERS:,} characters")
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise InvalidInput(reason=f'The pattern "{_short(pattern)}" cannot be used: {error}') from error


def _rules(part: Any, defined: Mapping[str, Any], known: dict[str, int], inside: tuple[str, ...]) -> int:
    """How many rules there are with every reference written out; each definition is counted once."""
    if isinstance(part, list):
        return sum(_rules(item, defined, known, inside) for item in part)
    if not isinstance(part, dict):
        return 0
    count = 1
    for name, value in part.items():
        if name == "$ref" and isinstance(value, str):
            count += _rules_of(value.removeprefix(_DEFINITION), defined, known, inside)
        elif name != "$defs":
            count += 1 + _rules(value, defined, known, inside)
    return count


def _rules_of(name: str, defined: Mapping[str, Any], known: dict[str, int], inside: tuple[str, ...]) -> int:
    if name in inside:
        raise InvalidInput(reason=f'The definition "{name[:_MAX_TOLD]}" of the schema refers to itself')
    if name not in defined:
        raise InvalidInput(reason=f'The schema has no definition "{name[:_MAX_TOLD]}"')
    if name not in known:
        known[name] = _rules(defined[name], defined, known, (*inside, name))
    return known[name]


# Checking


def violations(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Violation]:
    """What these values break, each as JSON has it: times are text. Raises `InvalidMetadata` where a pattern takes too
    long on a value."""
    from referencing import Registry

    instance = jsonable(dict(values))
    for error in _checker()(schema, registry=Registry()).iter_errors(instance):
        yield from _told(error, instance)


def _told(error: ValidationError, instance: Mapping[str, Any]) -> Iterator[Violation]:
    rule, asked = str(error.validator), error.validator_value
    key = str(error.absolute_path[0]) if error.absolute_path else ""
    if rule == "required" and not key:
        yield from (Violation(key, rule, "it is required") for key in cast("list[str]", asked) if key not in instance)
    elif rule == "additionalProperties" and asked is False and len(error.absolute_path) == 1:
        yield Violation(key, rule, "the schema does not know it")
    else:
        yield Violation(key, rule, f"{'its value' if key else 'it'} does not meet {rule}: {_short(_json(asked))}")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield _error("does not match")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, subschema in patterns.items():
            for key, value in instance.items():
                if _matches(pattern, key):
                    yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _additional(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [key for key in instance if key not in known and not any(_matches(one, key) for one in patterns)]
    for key in extra:
        if wanted is False:
            yield _error("is not known", path=[key])
        elif isinstance(wanted, dict):
            yield from validator.descend(instance[key], wanted, path=key)


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list) and len({_json(_number(item)) for item in instance}) < len(instance):
        yield _error("has the same item twice")


def _number(value: Any) -> Any:
    """1.0 is 1, as JSON Schema has it."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _matches(pattern: str, text: str) -> bool:
    import regex

    try:
        return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        reason = f'its pattern "{_short(pattern)}" takes too long on it'
        raise InvalidMetadata(key=repr(_short(text)), reason=reason) from None


@cache
def _checker() -> Any:
    """The library's checker of Draft 2020-12. Its own keywords for these use Python's `re`, which may take for ever, or
    compare every item with every other."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional,
        "uniqueItems": _unique,
    }
    return cast(Any, extend)(Draft202012Validator, keywords)


def _error(message: str, **of: Any) -> ValidationError:
    from jsonschema import ValidationError

    return ValidationError(message, **of)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TOLD else text[: _MAX_TOLD - 1] + "…"
