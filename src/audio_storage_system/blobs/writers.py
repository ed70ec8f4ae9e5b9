"""Who is writing to a shared bucket: each process leaves a mark, so that a scan can tell its work from a dead one's.

A mark is the object `.staging/<session>.writer`. It is there before the first thing that the session stores, is written
anew every `BEAT` while the session stores, and is removed when the session ends in good order. A session counts as dead

- at once, if a lock file of its name on this machine can be locked: its process is gone;
- otherwise, when its mark is older than `STALE`. Servers and machines agree on the time to within 15 minutes, or the
  server refuses the signature; so no living session that is storing looks that old.

A session that slept for longer loses nothing: what it stored has a row, or is given one by whoever scans.
"""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from platformdirs import user_cache_path

from audio_storage_system.blobs.bucket import Bucket, Meta
from audio_storage_system.durable import FileLock
from audio_storage_system.errors import AudioStorageSystemError

STAGING = ".staging"
SUFFIX = ".writer"
PROOF = f"{STAGING}/conditional_put"
"""An empty object, once stored to see that the server refuses to overwrite it."""
BEAT = timedelta(minutes=5)
SETTLED = timedelta(minutes=30)
STALE = timedelta(hours=1)


class Session:
    """This process's mark in a bucket, made by the first `beat`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._claim: _Claim | None = None

    @property
    def id(self) -> str:
        """The session's name; empty before it has stored anything."""
        return self._claim.id if self._claim else ""

    def beat(self) -> str:
        """Say that this session is alive, unless it did so a moment ago; its id. After a fork it is a new session."""
        with self._lock:
            if self._claim is None or self._claim.pid != os.getpid():
                self._claim = _Claim(uuid4().hex, os.getpid())
                self._claim.lock = _lock_file(self._claim.id)
                weakref.finalize(self, _end, self._bucket, self._claim)
            if time.monotonic() - self._claim.beaten > BEAT.total_seconds():
                content = json.dumps({"written": datetime.now(UTC).isoformat()}).encode()
                self._bucket.put(_mark(self._claim.id), content)
                self._claim.beaten = time.monotonic()
            return self._claim.id

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the mark fresh while one call takes long. From a thread of its own: a source that is being read inside
        obstore must not call obstore."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat_until(self, done: threading.Event) -> None:
        while not done.wait(BEAT.total_seconds() / 2):
            with suppress(AudioStorageSystemError):  # the upload itself will tell
                self.beat()

    def doubt(self) -> None:
        """Leave the mark when the session ends: the server may have stored what it gave no answer for, so whoever opens
        the archive next shall scan."""
        with self._lock:
            if self._claim is not None:
                self._claim.doubtful = True

    def end(self) -> None:
        """Take the mark away."""
        with self._lock:
            if self._claim is not None:
                _end(self._bucket, self._claim)
                self._claim = None


@dataclass
class _Claim:
    id: str
    pid: int
    lock: FileLock | None = None
    beaten: float = field(default=float("-inf"))
    doubtful: bool = False


def _end(bucket: Bucket, claim: _Claim) -> None:
    """The mark goes first: one that is there, with a lock that can be taken, tells of a crash."""
    if claim.pid != os.getpid():  # after a fork it is the parent's
        return
    if claim.doubtful:
        if claim.lock is not None:
            claim.lock.release()
        return
    if claim.beaten > float("-inf"):
        claim.beaten = float("-inf")
        with suppress(AudioStorageSystemError):  # it will look like a crash: one scan too many, no harm
            bucket.remove(_mark(claim.id))
    if claim.lock is not None:
        with suppress(OSError):
            _lock_path(claim.id).unlink(missing_ok=True)
        claim.lock.release()
        claim.lock = None


@dataclass
class Census:
    """Who is writing to a bucket, as its marks tell: a look at one moment."""

    dead: dict[str, Meta] = field(default_factory=dict)
    living: set[str] = field(default_factory=set)

    @classmethod
    def take(cls, bucket: Bucket, own: str) -> Census:
        """List the marks, that of session `own` left out."""
        census = cls()
        for found in bucket.list(STAGING):
            session = found.key.removeprefix(f"{STAGING}/").removesuffix(SUFFIX)
            if session == own or not found.key.endswith(SUFFIX):
                continue
            if _is_dead(session, found):
                census.dead[session] = found
            else:
                census.living.add(session)
        return census

    def abandoned(self) -> list[str]:
        """The marks that nobody needs any more. While others are writing, a dead session's is left until everything it
        stored is `SETTLED`, so that whoever scans next still sees that there was a crash."""
        return [mark.key for _, mark in sorted(self.dead.items()) if not self.living or _age(mark) > STALE]


def is_settled(found: Meta) -> bool:
    """Whether an object is so old that a living process would have given it a row long ago."""
    return _age(found) > SETTLED


def _age(found: Meta) -> timedelta:
    return datetime.now(UTC) - found.modified


def _mark(session: str) -> str:
    return f"{STAGING}/{session}{SUFFIX}"


def _is_dead(session: str, mark: Meta) -> bool:
    if _age(mark) > STALE:
        return True
    path = _lock_path(session)
    if not session.isalnum() or not path.exists():  # another machine's
        return False
    try:
        lock = FileLock.acquire(path)
    except OSError:
        return False
    if lock is None:
        return False
    lock.release()
    return True


def _lock_path(session: str) -> Path:
    return user_cache_path("audio-storage") / "writers" / f"{session}.lock"


def _lock_file(session: str) -> FileLock | None:
    """Where no lock can be had, the age of the mark alone decides."""
    path = _lock_path(session)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock.acquire(path)
    except OSError:
        return None
