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

from audio_storage_system.archive import processing, sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.audio import microphone
from audio_storage_system.audio.spool import Spool, SpoolReport, find_abandoned
from audio_storage_system.catalogue import jobs, locks, metadata, schemas
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import AudioStorageSystemError, MicrophoneUnavailable
from audio_storage_system.pipeline import Stored, store
from audio_storage_system.records import Metadata, jsonable

logger = logging.getLogger(__name__)

# Among the metadata of a spool: whose it is. No key that a user gives is empty.
OWNER = ""


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
    typed = {key: list(metadata.encode(key, value)[:2]) for key, value in values.items()}
    typed[OWNER] = [str(owner_id), "integer"]
    spool = microphone.record(
        folder,
        duration=duration,
        device=device,
        on_level=on_level,
        stop=stop,
        metadata=typed,
        key=archive.key_for("spool"),
    )
    if spool.seconds == 0:
        spool.discard()
        raise MicrophoneUnavailable(reason="the microphone gave no sound")
    stored, report = _keep(archive, spool)
    spool.discard()
    if not report.complete:
        logger.warning("%.2f s of this recording are missing: the device lost them", report.missing_seconds)
    return stored


def recover(archive: Archive) -> list[Recovered]:
    """Store every capture whose process is gone; what they were."""
    recovered = []
    for spool in find_abandoned(archive.spool, archive.key_for("spool")):
        if spool.seconds == 0:
            spool.discard()
            continue
        try:
            stored, report = _keep(archive, spool)
            with archive.database.write(locks.of_recording(stored.audio_id)) as connection:
                jobs.leave_to_workers(connection, stored.audio_id, archive.owner_id)
                archive.audit.note(connection, "recording.recovered", stored.audio_id)
        except AudioStorageSystemError as error:  # it must not keep the archive from being opened
            logger.warning("The capture in %s could not be recovered and stays there: %s", spool.folder, error)
            spool.release()
            continue
        spool.discard()
        found = Recovered(stored.audio_id, spool.started_at, report.seconds, report.missing_seconds)
        logger.warning("%s", found)
        recovered.append(found)
    return recovered


def _keep(archive: Archive, spool: Spool) -> tuple[Stored, SpoolReport]:
    """Store what is in a spool; it is let go of by the caller."""
    values = {key: metadata.decode(*typed) for key, typed in spool.metadata.items()}
    owner_id = values.pop(OWNER, archive.owner_id)  # a spool of an earlier version does not say
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
