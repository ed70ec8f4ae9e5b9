"""Who calls a tool, and what the server's owner lets it do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from audio_storage_system import AudioStorageSystem, Cancellation
from audio_storage_system.server.mcp.folders import Folders

Progress = Callable[[float, float], None]


def _untold(done: float, total: float) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Caller:
    """storage: the archive as the caller may see it. allow_write: whether the server offers tools that write. folders:
    where files may be read from; `None` where paths mean nothing, because the caller is on another machine. seconds:
    after which a search is stopped; cancellation: ends a call earlier. progress: told how far a long call is; it may
    raise, to stop it. origin: what the audit log names as where the call came from; `None` for the process itself.
    """

    storage: AudioStorageSystem
    allow_write: bool = False
    folders: Folders | None = None
    seconds: float = 30.0
    cancellation: Cancellation = field(default_factory=Cancellation)
    progress: Progress = _untold
    origin: str | None = None

    @property
    def may_write(self) -> bool:
        """Whether tools that write are there for this caller."""
        return self.allow_write and self.storage.may_write
