"""The archive over HTTP: `/api/v1` for everything, `/v1` for clients of OpenAI, sockets for live sound, `/mcp`.

The parts are imported when they are first used: the command `mcp` needs few of them, and a client waits for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audio_storage_system.server.app import create_app
    from audio_storage_system.server.serving import Options, serve

__all__ = ["Options", "create_app", "serve"]

_HOMES = {"Options": "serving", "create_app": "app", "serve": "serving"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
