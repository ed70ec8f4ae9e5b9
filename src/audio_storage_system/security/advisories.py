"""Installed packages with known vulnerabilities, by a database of advisories that lies on this machine.

The database is a folder (or one file) of advisories in the OSV format (https://ossf.github.io/osv-schema), as JSON, or
as the YAML of https://github.com/pypa/advisory-database. Nothing is asked of the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from platformdirs import user_data_path

from audio_storage_system.security.weakness import Audited, Gravity, Weakness

# An advisory is a page of text; what is larger is none.
MOST_BYTES, MOST_FILES = 4 << 20, 200_000


def check(audited: Audited) -> Iterator[Weakness]:
    """Each installed package with an advisory against its version."""
    place = audited.advisories or user_data_path("audio-storage") / "advisories"
    if not place.exists():
        audited.unchecked["vulnerable packages"] = f"no advisory database at {place}"
        return
    installed = {canonicalize_name(one.name): one.version for one in distributions() if one.name}
    read = 0
    for advisory in _advisories(place):
        read += 1
        yield from _against(advisory, installed)
    if not read:
        audited.unchecked["vulnerable packages"] = f"no advisory in {place} could be read"


def _advisories(place: Path) -> Iterator[dict[str, Any]]:
    files = [place] if place.is_file() else (path for path in place.rglob("*") if path.suffix in (".json", ".yaml"))
    for number, file in enumerate(files):
        if number >= MOST_FILES:
            return
        try:
            found = _parsed(file) if file.is_file() and file.stat().st_size <= MOST_BYTES else None
        except (OSError, ValueError, RecursionError):
            continue
        yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict))


def _parsed(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return json.loads(text)
    if find_spec("yaml") is None:
        return None
    yaml = import_module("yaml")  # comes with other packages, and only this format needs it
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _against(advisory: dict[str, Any], installed: Mapping[Any, str]) -> Iterator[Weakness]:
    """The installed packages that an advisory is about."""
    if advisory.get("withdrawn"):
        return
    for affected in _list(advisory.get("affected")):
        package = affected.get("package") if isinstance(affected, dict) else None
        if not isinstance(package, dict) or package.get("ecosystem") != "PyPI":
            continue
        name = canonicalize_name(_text(package.get("name")))
        if name in installed and _is_affected(affected, installed[name]):
            known = ", ".join(map(_text, [advisory.get("id"), *_list(advisory.get("aliases"))[:2]]))
            evidence = f"{name} {installed[name]}: {known}"
            fixed = _fixed(affected, installed[name])
            fix = f'pip install --upgrade "{name}>={fixed}"' if fixed else f"Follow {known}; there is no fixed version."
            yield Weakness("vulnerable package", Gravity.SERIOUS, evidence, fix)


def _is_affected(affected: dict[str, Any], version: str) -> bool:
    if version in _list(affected.get("versions")):
        return True
    ranges = [one for one in _list(affected.get("ranges")) if isinstance(one, dict)]
    return any(one.get("type") == "ECOSYSTEM" and _is_within(_list(one.get("events")), version) for one in ranges)


def _is_within(events: list[Any], version: str) -> bool:
    """The evaluation that the OSV format prescribes: the last event at or before the version decides."""
    here, inside = _version(version), False
    for kind, at in sorted(_points(events), key=lambda event: event[1]):
        if kind == "introduced" and here >= at:
            inside = True
        elif (kind == "fixed" and here >= at) or (kind == "last_affected" and here > at):
            inside = False
    return inside


def _points(events: list[Any]) -> Iterator[tuple[str, Version]]:
    for event in events:
        for kind, at in event.items() if isinstance(event, dict) else ():
            yield _text(kind), _version("0.dev0" if at == "0" else _text(at))


def _fixed(affected: dict[str, Any], version: str) -> str:
    """The first version after this one that is said to be mended; empty where none is."""
    ranges = [one for one in _list(affected.get("ranges")) if isinstance(one, dict) and one.get("type") == "ECOSYSTEM"]
    points = [point for one in ranges for point in _points(_list(one.get("events")))]
    later = sorted(at for kind, at in points if kind == "fixed" and at > _version(version))
    return str(later[0]) if later else ""


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _text(value: Any) -> str:
    """A text of the advisory; `?` for anything else, which a hostile file could make endless to write out."""
    return value[:200] if isinstance(value, str) else "?"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
