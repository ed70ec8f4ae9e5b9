"""One at a time makes, or removes, backups at a place: an object there says who, and gives signs of life."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from audio_storage_system.backup.places import MAX_MARKER, BackupPlace
from audio_storage_system.errors import AudioStorageSystemError, Conflict, NotFound
from audio_storage_system.machine import process_is_gone, process_place

LOCK = "in_use.json"
DOING = {"create": "makes a backup", "prune": "removes old backups", "repair": "repairs backups"}
BEAT_SECONDS = 5.0
# So long without a sign of life, and whoever holds it is dead. Watched by our own clock: theirs may be wrong.
DEAD_AFTER_SECONDS = 20.0


class Lease:
    """Held while the block runs. Raises `Conflict` where somebody else lives who has it."""

    def __init__(self, place: BackupPlace, purpose: str) -> None:
        self._place = place
        self._mine = {
            "holder": uuid4().hex,
            "purpose": purpose,
            "host": socket.gethostname(),
            "place": process_place(),
            "process": os.getpid(),
        }
        self._beats = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="backup lease", daemon=True)

    def __enter__(self) -> Self:
        watched: tuple[Any, float] | None = None
        while not self._take():
            found = self._read()
            if found is None:
                continue
            now = time.monotonic()
            if watched is None:
                watched = (found, now)
            elif watched[0] != found:
                self._refuse(found)
            if self._is_gone(found) or now - watched[1] >= DEAD_AFTER_SECONDS:
                self._place.store.delete(LOCK)
                watched = None
                continue
            time.sleep(min(1.0, BEAT_SECONDS / 5))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._holds():
            self._place.store.delete(LOCK)

    def check(self) -> None:
        """Raise `Conflict` when somebody else has taken it: this process stood still for so long that it seemed dead.
        Asked before anything that cannot be taken back."""
        if not self._holds():
            raise Conflict(reason=f"Another process took over at {self._place.shown} meanwhile. Run the command again")

    def _take(self) -> bool:
        store = self._place.store
        if store.has(LOCK):
            return False
        staged = store.stage(io.BytesIO(self._document()))
        given = store.publish(staged, LOCK)
        if given != LOCK:  # somebody else was faster
            store.delete(given)
        return given == LOCK

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                if not self._holds():
                    return
                self._beats += 1
                self._place.put(LOCK, self._document())
            except AudioStorageSystemError:  # for longer than others wait, `check` will tell
                continue

    def _document(self) -> bytes:
        return json.dumps({**self._mine, "beats": self._beats}).encode()

    def _holds(self) -> bool:
        found = self._read()
        return found is not None and found.get("holder") == self._mine["holder"]

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._place.get(LOCK, MAX_MARKER))
        except NotFound:
            return None
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _is_gone(self, found: dict[str, Any]) -> bool:
        process = found.get("process")
        return isinstance(process, int) and process_is_gone(str(found.get("place", "")), process)

    def _refuse(self, found: dict[str, Any]) -> None:
        who = f"process {found.get('process', '?')} on {found.get('host', 'another machine')}"
        what = DOING.get(str(found.get("purpose")), "is at work")
        raise Conflict(reason=f"{who} {what} at {self._place.shown} now. Try again when it is done")
