"""Ends the sessions that nobody came back to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import AudioStorageSystemError

logger = logging.getLogger(__name__)

LEAST_SECONDS, MOST_SECONDS = 1.0, 15.0


@asynccontextmanager
async def sweeping(storage: AudioStorageSystem) -> AsyncIterator[None]:
    """During the block, sessions whose time to be resumed is over become complete recordings, whichever process had
    them."""
    pause = min(MOST_SECONDS, max(LEAST_SECONDS, storage.settings.live_resume_seconds / 4))
    sweeper = asyncio.create_task(_sweep(storage, pause))
    try:
        yield
    finally:
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)


async def _sweep(storage: AudioStorageSystem, pause: float) -> None:
    while True:
        await asyncio.sleep(pause)
        try:
            await to_thread.run_sync(storage.recover)
        except AudioStorageSystemError as error:
            logger.warning("Sessions that nobody came back to cannot be ended now: %s", error)
