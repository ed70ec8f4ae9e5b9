"""Families of interchangeable parts, found by the scheme of a spec string.

A spec is `scheme` or `scheme:argument` (`faster-whisper:base`). A family maps each scheme to a lazy import string, so
nothing heavy is imported before it is asked for. Other packages add members through entry points of the group
`audio_storage_system.<family>`.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from audio_storage_system.errors import MissingExtra, UnknownSpec


def split_spec(spec: str) -> tuple[str, str]:
    """`"a:b:c"` → `("a", "b:c")`; without a colon the argument is empty."""
    scheme, _, argument = spec.strip().partition(":")
    return scheme, argument


@dataclass(frozen=True)
class Registry:
    """One family. `builtin` maps a scheme to `module:attribute`; `extras` a scheme to the extra that installs it."""

    kind: str
    family: str
    builtin: Mapping[str, str]
    extras: Mapping[str, str] = field(default_factory=dict)

    def schemes(self) -> list[str]:
        """Every known scheme, sorted."""
        return sorted({*self.builtin, *(point.name for point in self._entry_points())})

    def load(self, spec: str) -> Any:
        """The factory registered for the scheme of `spec`.

        Raises `UnknownSpec` (naming what exists) or `MissingExtra` (naming what to install).
        """
        scheme, _ = split_spec(spec)
        try:
            return self._find(scheme, spec)
        except ModuleNotFoundError as error:
            if scheme not in self.extras:
                raise
            raise MissingExtra(what=f"{self.kind} {scheme}", extra=self.extras[scheme]) from error

    def _find(self, scheme: str, spec: str) -> Any:
        if scheme in self.builtin:
            module, _, attribute = self.builtin[scheme].partition(":")
            return operator.attrgetter(attribute)(importlib.import_module(module))
        for point in self._entry_points():
            if point.name == scheme:
                return point.load()
        raise UnknownSpec(kind=self.kind, spec=spec, known=", ".join(self.schemes()))

    def _entry_points(self) -> Any:
        return _installed(f"audio_storage_system.{self.family}")


@cache
def _installed(group: str) -> Any:
    """What other packages bring, looked up once in a process: it means reading a file of every package there is."""
    return entry_points(group=group)
