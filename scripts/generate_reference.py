"""Write the reference pages that follow from the code: commands, settings, errors, Python, HTTP.

    python scripts/generate_reference.py [FOLDER]

`tests/test_docs.py` fails when the pages in `docs/reference` are not what this makes.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

import audio_storage_system
from audio_storage_system import errors
from audio_storage_system.archive.captures import Recovered
from audio_storage_system.archive.reembedding import Plan, Reembedded
from audio_storage_system.backup import (
    BackupProgress,
    BackupReport,
    Backups,
    BackupSet,
    Damage,
    PruneReport,
    RestoreReport,
    SetDecision,
    VerifyReport,
)
from audio_storage_system.catalogue.holds import Hold
from audio_storage_system.catalogue.principals import Principal
from audio_storage_system.catalogue.trash import Trashed
from audio_storage_system.cli import app
from audio_storage_system.deletion import Receipt
from audio_storage_system.diagnosis import Check, Model
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.facade.upkeep import Whoami
from audio_storage_system.integrity import Finding, Quarantine, Severity, Verification
from audio_storage_system.jobs import JobEvent, Jobs, Worker
from audio_storage_system.model_pool import LoadedModel
from audio_storage_system.permissions import Grant, Grants, NewToken, Token, Tokens, Users
from audio_storage_system.pipeline import Change, Comparison, Decision, Made
from audio_storage_system.records import Job, JobState, Outcome, Priority, Recording, Segment, Stage, Transcript, Word
from audio_storage_system.retention import Decision as Due
from audio_storage_system.retention import Emptied, Holds, Retention, RetentionRule, RetentionRun, Trash
from audio_storage_system.search import Filter
from audio_storage_system.search.context import Citation
from audio_storage_system.security import Gravity, SecurityReport, Weakness
from audio_storage_system.server import create_app
from audio_storage_system.server.long_tasks import MEDIA_TYPE as LINES
from audio_storage_system.server.mcp import resources, tools
from audio_storage_system.settings import DEFAULT_HOME, FILE_NAME, PREFIX, Settings
from audio_storage_system.transfer import CopyProblem, CopyProgress, TableCount

TARGET = Path(__file__).parents[1] / "docs" / "reference"
# What methods take and return without its name being needed.
VALUES = (
    *(Filter, Recording, Transcript, Outcome, Segment, Word, Citation, Receipt, Recovered, Check, Model, LoadedModel),
    *(CopyProgress, CopyProblem, TableCount, Job, JobState, Priority, JobEvent),
    *(Principal, Whoami, Grant, Token, NewToken),
    *(BackupReport, BackupSet, VerifyReport, Damage, PruneReport, SetDecision, RestoreReport, BackupProgress),
    *(Made, Decision, Comparison, Change, Plan, Reembedded),
    *(Stage, Hold, Trashed, Emptied, Due, RetentionRule, RetentionRun),
    *(Verification, Finding, Severity, SecurityReport, Weakness, Gravity),
)
# What the facade hands out that does things.
PARTS = (Jobs, Worker, Users, Grants, Tokens, Backups, Trash, Retention, Holds, Quarantine)
NOTE = "<!-- Made by scripts/generate_reference.py; do not edit. -->"


def main() -> None:
    """Write every page into the folder given, or into the documentation."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Every page by its file name."""
    made = {"cli.md": cli_page(), "settings.md": settings_page(), "errors.md": error_page(), "python.md": python_page()}
    made["http.md"] = http_page()
    made["mcp.md"] = mcp_page()
    return {name: "\n".join([NOTE, "", *lines]).rstrip() + "\n" for name, lines in made.items()}


def cli_page() -> Iterator[str]:
    """The commands with their arguments and options."""
    yield from ("# Command line", "", str(app.info.help), "", str(app.info.epilog), "")
    yield "Exit codes: 0 done · 1 part of it failed · 2 wrong usage · 130 stopped with Ctrl-C · 143 by SIGTERM ·"
    yield "70 a defect of ours · every other as in [errors](errors.md). With `--json` an error is the one document on"
    yield from ('stdout: `{"error": {"code", "message", "retryable"}}`.', "")
    for path, callback in _commands("audio-storage", app):
        yield from _command(path, callback)


def _commands(path: str, program: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in program.registered_commands:
        if command.callback is not None:
            yield f"{path} {command.name}", command.callback
    for group in program.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(f"{path} {group.name}", group.typer_instance)


def _command(path: str, callback: Callable[..., Any]) -> Iterator[str]:
    parameters = list(_parameters(callback))
    arguments = [_argument(p) for p in parameters if isinstance(p.info, ArgumentInfo)]
    yield from (f"## {path}", "", f"    {' '.join([path, *arguments, '[OPTIONS]'])}", "")
    yield from (inspect.cleandoc(callback.__doc__ or ""), "")
    rows = [_option(p) for p in parameters if isinstance(p.info, OptionInfo) and p.name not in ("archive", "as_json")]
    if rows:
        yield from ("| option | meaning |", "|---|---|", *rows, "")


@dataclass(frozen=True)
class Parameter:
    """A command's parameter: its name and type in Python, and what Typer was told about it."""

    name: str
    kind: Any
    default: Any
    info: Any


def _parameters(callback: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, info = get_args(hints[name])[:2]
        yield Parameter(name, kind, parameter.default, info)


def _argument(parameter: Parameter) -> str:
    name = parameter.info.metavar or parameter.name.upper()
    optional = parameter.default is not inspect.Parameter.empty and not name.startswith("[")
    return f"[{name}]" if optional else str(name)


def _option(parameter: Parameter) -> str:
    first = parameter.info.default  # inside Annotated, Typer takes the first name for a default
    names = [*([first] if isinstance(first, str) else []), *(parameter.info.param_decls or ())]
    names = names or [f"--{parameter.name.replace('_', '-')}"]
    shown = ", ".join(f"`{name}`" for name in names)
    default = getattr(parameter.default, "value", parameter.default)
    told = "" if default is None or default is False else f" (default: {default})"
    return f"| {shown}{_cell(_value(parameter))} | {_cell(parameter.info.help or '')}{told} |"


def _value(parameter: Parameter) -> str:
    """What stands behind the option; nothing for a switch."""
    kinds = [kind for kind in get_args(parameter.kind) or (parameter.kind,) if kind is not type(None)]
    if bool in kinds:
        return ""
    if issubclass(kinds[0], Enum) if isinstance(kinds[0], type) else False:
        return " " + "/".join(member.value for member in kinds[0])
    return f" {parameter.info.metavar or kinds[0].__name__.upper()}"


def _cell(text: str) -> str:
    return re.sub(r"([<>*|])", r"\\\1", text)


def http_page() -> Iterator[str]:
    """The operations of the HTTP API, as its OpenAPI document describes them."""
    document = create_app(audio_storage_system.AudioStorageSystem).openapi()
    yield from (
        "# HTTP",
        "",
        "What a server (`audio-storage serve`) answers; with parameters, bodies and examples it is",
    )
    yield from ("described at `/docs` and, for programs, at `/openapi.json`.", "")
    operations = [(method, path, one) for path, by in document["paths"].items() for method, one in by.items()]
    for tag in document["tags"]:
        mine = [one for one in operations if tag["name"] in one[2]["tags"]]
        if mine:
            yield from (f"## {tag['name']}", "", tag["description"], "", "| request | operation | |", "|---|---|---|")
            yield from (_operation(*one) for one in mine)
            yield ""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = LINES in operation["responses"].get("200", {}).get("content", {})
    told = _cell(operation["summary"]) + (" (lines of JSON)" if lines else "")
    return f"| `{method.upper()} {path}` | `{operation['operationId']}` | {told} |"


def settings_page() -> Iterator[str]:
    """The settings with their defaults."""
    yield from ("# Settings", "")
    yield f"Given in code (`AudioStorageSystem(sidecars=True)`), else in the environment (`{PREFIX}…`), else in"
    yield from (f"`{FILE_NAME}` in the archive's folder, else in the same file in the user's configuration folder.", "")
    yield from ("| setting | environment | default | meaning |", "|---|---|---|---|")
    meanings = _meanings(inspect.getdoc(Settings) or "")
    for one in fields(Settings):
        default = repr(one.default).replace("'", '"')
        yield f"| `{one.name}` | `{PREFIX}{one.name.upper()}` | `{default}` | {meanings[one.name]} |"
    yield from ("", f"`{PREFIX}HOME` is the archive's folder where none is given (default `./{DEFAULT_HOME}`);")
    yield f"`{PREFIX}DEBUG=1` shows where an unexpected error of a command came from."
    yield f"`{PREFIX}TOKEN` is the token that the command `mcp` shows."


def _meanings(docstring: str) -> dict[str, str]:
    """`a, b: what it means.` at the beginning of a line starts an entry; what follows belongs to it."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[a-z_]+(?:, [a-z_]+)*: )", docstring.partition("\n\n")[2]):
        names, _, text = entry.partition(": ")
        for name in names.split(", "):
            found[name.strip()] = _cell(" ".join(text.split()))
    return found


def error_page() -> Iterator[str]:
    """The tree of errors."""
    yield from ("# Errors", "", "All of them are in `audio_storage_system.errors`.", "")
    tree = (inspect.getdoc(errors) or "").partition("\n\n")[2].partition("\n\nA class")[0]
    yield from ("```", dedent(tree), "```", "")
    yield from ("| error | code | exit code | HTTP | retryable | message |", "|---|---|---|---|---|---|")
    for kind in _tree(AudioStorageSystemError):
        message = _cell(" ".join((kind.__doc__ or "").split()))
        code, retry = kind("").code, "yes" if kind.retryable else ""
        yield f"| `{kind.__name__}` | `{code}` | {kind.exit_code} | {kind.http_status} | {retry} | {message} |"


def _tree(kind: type[AudioStorageSystemError]) -> Iterator[type[AudioStorageSystemError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def python_page() -> Iterator[str]:
    """What `audio_storage_system` offers, and the values it gives."""
    yield from ("# Python", "", "`from audio_storage_system import …`; errors are on [their own page](errors.md).", "")
    for name in audio_storage_system.__all__:
        if callable(thing := getattr(audio_storage_system, name)):
            yield from _described(name, thing)
    yield from ("# Values", "", "What is given and taken above.", "")
    for part in PARTS:
        yield from _described(part.__name__, part)
    for value in VALUES:
        yield from (f"## {value.__name__}", "", _prose(value), "", *_attributes(value))


def mcp_page() -> Iterator[str]:
    """The tools and resources for language models."""
    yield from ("# Tools for language models", "", "What [`audio-storage mcp` and `/mcp`](../howto/mcp.md) offer.", "")
    for tool in tools.TOOLS:
        wants = " With `--allow-write` only." * tool.writes + " Needs `--files`." * tool.reads_files
        yield from (f"## {tool.name}", "", tool.description + wants, "")
        shape = tool.described()
        yield from ("| takes | | |", "|---|---|---|", *_fields_of(shape.input_schema), "")
        yield from ("| answers | | |", "|---|---|---|", *_fields_of(shape.output_schema or {}), "")
    yield from ("## Resources", "", "| address | what |", "|---|---|")
    yield from (f"| `{one.uri_template}` | {one.description} |" for one in resources.TEMPLATES)


def _fields_of(schema: dict[str, Any]) -> Iterator[str]:
    """A row for each property of a schema; below one that is a list of objects or an object, a row for each of its."""
    pending = [("", schema)]
    while pending:
        path, part = pending.pop(0)
        for name, one in part.get("properties", {}).items():
            kind, inner = _kind_of(one, schema)
            told = "" if name in part.get("required", []) or "default" not in one else f" (default: {one['default']})"
            need = ", required" if name in part.get("required", []) and path == "" else ""
            yield f"| `{path}{name}` | {kind}{need} | {_cell(one.get('description', ''))}{told} |"
            if inner:
                pending.append((f"{path}{name}.", inner))


def _kind_of(one: dict[str, Any], schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type of a property in words, and the schema of what is in it where that is an object of ours."""
    item = one.get("items", one)
    inner = schema["$defs"][item["$ref"].rpartition("/")[2]] if "$ref" in item else {}
    kind = "object" if inner else item.get("type", "any")
    words = " or ".join(f"`{choice}`" for choice in item["enum"]) if "enum" in item else kind
    bounds = [str(one[name]) if name in one else "" for name in ("minimum", "maximum")]
    words += f" {bounds[0]}…{bounds[1]}" if all(bounds) and int(float(bounds[1])) < 2**40 else ""
    return (f"list of {words}" if "items" in one else words), inner


def _described(name: str, thing: Any) -> Iterator[str]:
    yield from (f"## {name}", "")
    if thing is audio_storage_system.AudioStorageSystem:
        yield from _header(thing.__init__)
    if not inspect.isclass(thing):
        yield from _header(thing)
    yield from (_prose(thing), "")
    if inspect.isclass(thing):
        yield from _attributes(thing)
        for member, value in _members(thing):
            yield from _method(name, member, value)


def _members(thing: type) -> Iterator[tuple[str, Any]]:
    """The public members of a class, those of its parts after its own."""
    parts = [part for part in thing.__mro__ if part.__module__.startswith(audio_storage_system.__name__)]
    for part in parts:
        yield from ((name, value) for name, value in vars(part).items() if not name.startswith("_"))


def _attributes(thing: type) -> Iterator[str]:
    """The fields of a class with their types, or the members of an enumeration."""
    fields_of = [f"`{name}: {kind}`" for name, kind in inspect.get_annotations(thing).items() if name[0] != "_"]
    members = [f"`{member.value}`" for member in thing] if issubclass(thing, Enum) else []
    yield from (f"- {item}" for item in fields_of + members)
    yield ""


def _method(owner: str, name: str, value: Any) -> Iterator[str]:
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    if inspect.isfunction(function) and function.__doc__:
        yield from (f"### {owner}.{name}", "")
        yield from _header(function)
        yield from (_prose(function), "")


def _header(function: Callable[..., Any]) -> Iterator[str]:
    """The lines before the body, as they are formatted in the source."""
    source = dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)  # noqa: S101 - tells the type checker what it is
    lines = source.splitlines()[: node.body[0].lineno - 1]
    yield from ("```python", *lines[:-1], lines[-1].removesuffix(":"), "```", "")


def _prose(thing: Any) -> str:
    """A docstring; its entries (`name: meaning`) as a list."""
    return re.sub(r"(?m)^(?=[a-z_]+(?:, [a-z_]+)*: )", "- ", inspect.getdoc(thing) or "")


if __name__ == "__main__":
    main()
