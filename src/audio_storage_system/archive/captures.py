"""Capture: from the microphone into the archive, and the recovery of captures that were cut short."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Event
from typing import Any
from uuid import uuid4

from audio_storage_system import deletion
from audio_storage_system.archive import processing, sidecars, underway
from audio_storage_system.archive.opening import Archive
from audio_storage_system.archive.underway import Intent
from audio_storage_system.audio import microphone
from audio_storage_system.audio.spool import Spool, SpoolReport, find_abandoned
from audio_storage_system.catalogue import jobs, locks, metadata, schemas
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import AudioStorageSystemError, MicrophoneUnavailable
from audio_storage_system.pipeline import Stored, store
from audio_storage_system.records import Metadata, jsonable

logger = logging.getLogger(__name__)

NOTHING_MORE = Intent()


@dataclass(frozen=True, slots=True)
class Recovered:
    """A capture whose process had died, now stored. `missing_seconds`: what is known to be lost of it."""

    audio_id: int
    started_at: datetime
    seconds: float
    missing_seconds: float

    def __str__(self) -> str:
        return (
            f"Recovered {self.seconds:.1f} s of a recording cut short that began at {self.started_at:%H:%M:%S %Z}; "
            f"{self.missing_seconds:.2f} s missing; stored as recording {self.audio_id}, "
            f"not transcribed yet (audio-storage worker, or retranscribe {self.audio_id})"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: jsonable(getattr(self, name)) for name in self.__slots__}


def record(
    archive: Archive,
    *,
    duration: float | None,
    values: Metadata,
    device: int | str | None = None,
    on_level: Callable[[float], None] | None = None,
    stop: Event | None = None,
) -> Stored:
    """Record from the microphone and store it. Raises `MicrophoneUnavailable`; what was captured until then is stored
    by the next command."""
    metadata.validate(values)
    owner_id = processing.owner_of(archive, values)
    with archive.database.read() as connection:
        if violation := schemas.first_violation(connection, owner_id, values):
            raise violation.as_error()
    folder = archive.spool / uuid4().hex
    spool = microphone.record(
        folder,
        duration=duration,
        device=device,
        on_level=on_level,
        stop=stop,
        metadata=underway.spool_metadata(owner_id, values),
        key=archive.key_for("spool"),
    )
    if spool.seconds == 0:
        spool.discard()
        raise MicrophoneUnavailable(reason="the microphone gave no sound")
    stored, report = _store(archive, spool)
    spool.discard()
    if not report.complete:
        logger.warning("%.2f s of this recording are missing: the device lost them", report.missing_seconds)
    return stored


def recover(archive: Archive) -> list[Recovered]:
    """Store every capture whose process is gone; what they were. A live session is left to whoever may resume it, for
    the time that it asked for."""
    found = (_recovered(archive, spool) for spool in find_abandoned(archive.spool, archive.key_for("spool")))
    return [one for one in found if one is not None]


def _recovered(archive: Archive, spool: Spool) -> Recovered | None:
    try:
        intent = underway.intent_of(spool)
        if intent is not None and spool.idle_seconds < intent.resume_seconds:
            spool.release()
            return None
        kept = _keep(archive, spool) if intent is None else _complete(archive, spool, intent)
    except (AudioStorageSystemError, OSError) as error:  # it must not keep the archive from being opened
        logger.warning("The capture in %s could not be recovered and stays there: %s", spool.folder, error)
        spool.release()
        return None
    spool.discard()
    if kept is None:
        return None
    audio_id, report = kept
    found = Recovered(audio_id, spool.started_at, report.seconds, report.missing_seconds)
    logger.warning("%s", found)
    return found


def _complete(archive: Archive, spool: Spool, intent: Intent) -> tuple[int, SpoolReport] | None:
    """The recording of a live session gets what is in its spool; `None` where nothing is to be kept of it."""
    recording = underway.find(archive, spool)
    if recording is None:
        with archive.database.read() as connection:
            if deletion.is_buried(connection, underway.pending(spool.folder)):
                return None
        return _keep(archive, spool, intent)  # it died before it had a row, or after that was complete
    if spool.seconds == 0:
        underway.forget(archive, recording)
        return None
    done = underway.complete(archive, spool, recording, intent)
    with archive.database.write(locks.of_recording(done.audio_id)) as connection:
        archive.audit.note(connection, "recording.recovered", done.audio_id)
    return done.audio_id, done.report


def _keep(archive: Archive, spool: Spool, intent: Intent = NOTHING_MORE) -> tuple[int, SpoolReport] | None:
    """Store what is in a spool and leave it to the workers; `None` where there is nothing in it."""
    if spool.seconds == 0:
        return None
    stored, report = _store(archive, spool)
    with archive.database.write(locks.of_recording(stored.audio_id)) as connection:
        jobs.leave_to_workers(connection, stored.audio_id, archive.owner_id, intent.options)
        archive.audit.note(connection, "recording.recovered", stored.audio_id)
    return stored.audio_id, report


def _store(archive: Archive, spool: Spool) -> tuple[Stored, SpoolReport]:
    """Store what is in a spool; it is let go of by the caller."""
    owner_id, values = underway.owner_and_values(spool, archive.owner_id)
    begun = spool.started_at.astimezone(timezone(timedelta(minutes=spool.utc_offset_minutes)))
    with disk_errors(spool.folder):
        file, report = spool.open()
        with file:
            stored = store(
                archive.database,
                archive.blobs,
                file,
                owner_id=owner_id,
                values=values,
                name=f"recording_{begun:%Y%m%d_%H%M%S}.wav",
                recorded_at=begun,
                max_bytes=sys.maxsize,  # what was said is said
                audit=archive.audit,
                insist=False,  # and cannot be said again for the sake of its metadata
            )
    sidecars.refresh(archive, stored.audio_id)
    return stored, report
