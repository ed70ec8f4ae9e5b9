"""Who asks, and what they may: the rule is a query, joined into every listing and search."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from audio_storage_system.errors import Forbidden
from audio_storage_system.records import OWNER_ID


class Role(StrEnum):
    """What somebody may: each may what those before it may."""

    READER = "reader"
    EDITOR = "editor"
    OWNER = "owner"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks. `restricted`: only what they own or were granted exists for them."""

    principal_id: int = OWNER_ID
    name: str = "owner"
    restricted: bool = False

    def require_admin(self, action: str) -> None:
        """Raise `Forbidden` unless they may do what concerns the whole archive; `action` completes "may not …"."""
        if self.restricted:
            raise Forbidden(principal=self.name, action=action)
