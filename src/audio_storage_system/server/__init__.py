"""The archive over HTTP: `/api/v1` for everything, `/v1` for clients of OpenAI, sockets for live sound, `/mcp`."""

from audio_storage_system.server.app import create_app
from audio_storage_system.server.serving import Options, serve

__all__ = ["Options", "create_app", "serve"]
