"""The latest sound of a session for whoever listens: from memory, and from the disk where he is behind."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from audio_storage_system.audio.spool import Spool
from audio_storage_system.audio.wav import SAMPLE_BYTES

MOST_SECONDS = 10  # held in memory


class Tail:
    """Hands on the sound of a spool, in order and all of it, however far behind its reader is. Putting never waits.

    read, written: the frames of it that were heard already, and that are there.
    """

    def __init__(self, folder: Path, key: bytes | None, written: int = 0) -> None:
        self._spool = Spool(folder, key=key)
        self.sample_rate, self.channels = self._spool.sample_rate, self._spool.channels
        self._frame_bytes = self.channels * SAMPLE_BYTES
        self._most = MOST_SECONDS * self.sample_rate * self._frame_bytes
        self._changed = threading.Condition()
        self._recent: deque[tuple[int, bytes]] = deque()  # the first frame, and sound from there on
        self._held = 0
        self._disk: Iterator[bytes] = iter(())
        self._closed = False
        self.read, self.written = 0, written

    @property
    def behind_seconds(self) -> float:
        """How much is there that was not taken yet."""
        return (self.written - self.read) / self.sample_rate

    def put(self, pcm: bytes) -> None:
        """Sound that was just written."""
        with self._changed:
            self._recent.append((self.written, pcm))
            self._held += len(pcm)
            self.written += len(pcm) // self._frame_bytes
            while self._held > self._most:
                self._held -= len(self._recent.popleft()[1])
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will be written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """Whether all was taken and nothing more will come."""
        with self._changed:
            return self._closed and self.read >= self.written

    def take(self, timeout: float) -> bytes:
        """The next sound; nothing where none comes in so many seconds, or any more. Raises `OSError` where it has to be
        read from the disk and cannot be."""
        until = time.monotonic() + timeout
        with self._changed:
            while self.read >= self.written:
                left = until - time.monotonic()
                if self._closed or left <= 0:
                    return b""
                self._changed.wait(left)
            pcm = self._from_memory()
        pcm = pcm or self._from_disk()
        self.read += len(pcm) // self._frame_bytes
        return pcm

    def _from_memory(self) -> bytes:
        while self._recent and self._recent[0][0] <= self.read:
            first, pcm = self._recent.popleft()
            self._held -= len(pcm)
            if rest := pcm[(self.read - first) * self._frame_bytes :]:
                self._disk = iter(())
                return rest
        return b""

    def _from_disk(self) -> bytes:
        """The next piece of the spool, which may reach into what is in memory."""
        pcm = next(self._disk, b"")
        if not pcm:
            self._disk = self._spool.sound_from(self.read)
            pcm = next(self._disk, b"")
        if not pcm:
            raise OSError(f"the sound from frame {self.read} on is not in {self._spool.folder}")
        return pcm
