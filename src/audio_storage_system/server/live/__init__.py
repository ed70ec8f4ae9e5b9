"""Sockets: live sound comes in, and what is said comes back while it is spoken."""

from audio_storage_system.server.live import realtime, socket
from audio_storage_system.server.live.limits import UVICORN
from audio_storage_system.server.live.seats import Seats
from audio_storage_system.server.live.sweeping import sweeping

ROUTERS = [socket.router, realtime.router]

__all__ = ["ROUTERS", "UVICORN", "Seats", "sweeping"]
