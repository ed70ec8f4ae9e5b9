"""Who asks, and what this machine has for an archive."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from audio_storage_system import diagnosis
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import principals
from audio_storage_system.catalogue.principals import Kind
from audio_storage_system.diagnosis import Check
from audio_storage_system.permissions import Scope, allowed
from audio_storage_system.permissions.users import groups_around


@dataclass(frozen=True, slots=True)
class Whoami:
    """Who asks. groups: those that they are in themselves. scopes: what the token is for; all where it is not by a
    token. restricted: only what they own or were granted exists for them. admin: they may do what concerns the whole
    archive."""

    name: str
    kind: Kind
    groups: tuple[str, ...]
    scopes: tuple[Scope, ...]
    restricted: bool
    admin: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "groups": list(self.groups), "scopes": [scope.value for scope in self.scopes]}


class Upkeep:
    """What is asked about the archive's surroundings."""

    _archive: Archive

    def whoami(self) -> Whoami:
        """Who this object acts for, and what they may. Raises `NotFound` for somebody who was removed meanwhile."""
        access = self._archive.access
        with self._archive.database.read() as connection:
            principal = principals.get(connection, access.name)
            groups = groups_around(connection, principal.id)
        return Whoami(principal.name, principal.kind, groups, allowed(access.most), access.restricted, access.is_admin)

    def diagnose(self) -> list[Check]:
        """Which engines, models and devices this archive could use on this machine, and how to get the rest. Loads no
        model and asks no network. Raises `Forbidden`."""
        self._archive.access.require_admin("look at what is installed")
        return diagnosis.diagnose(self._archive.home)
