"""Recordings whose sound is still coming in: their row from the first second, and how it gets its bytes at the end.

The row's key is its own from the beginning, so whatever a crash leaves there belongs to nobody else; its hash is
`pending:` and the name of the spool's folder, which is the id of the session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import Connection

from audio_storage_system import deletion, outbox
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.audio import probe
from audio_storage_system.audio.spool import Spool, SpoolReport
from audio_storage_system.blobs import StagedBlob
from audio_storage_system.catalogue import data_keys, jobs, locks, metadata, recordings, transcripts
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import NotFound, StorageFailed
from audio_storage_system.outbox import Event
from audio_storage_system.pipeline import storing
from audio_storage_system.records import AudioInfo, Metadata, Outcome, Recording, Transcript

# Among the metadata of a spool: whose it is, and what a live session is to become. No key that a user gives is blank.
OWNER, LIVE = "", " "
CODEC, MEDIA_TYPE = "pcm_s16le", "audio/wav"
UNHEARD = "it was cut short before anything of it was heard"


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to become of a live session. options: of the job that it leaves to the workers. resume_seconds: for how
    long others leave it alone when its process is gone. transcriber, language: of the text that is made meanwhile."""

    options: Mapping[str, Any] = field(default_factory=dict)
    resume_seconds: float = 0.0
    transcriber: str = ""
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """A recording that has its sound now; `said`: the version that was made of it meanwhile. duplicate: another
    recording has the same bytes, and this one is gone."""

    audio_id: int
    report: SpoolReport
    said: Transcript | None
    job_id: int | None = None
    duplicate: bool = False


def spool_metadata(owner_id: int, values: Metadata, intent: Intent | None = None) -> dict[str, list[str | None]]:
    """What a spool is told of its recording, so that it is stored whatever else is lost."""
    typed = {key: list(metadata.encode(key, value)[:2]) for key, value in values.items()}
    typed[OWNER] = [str(owner_id), "integer"]
    if intent is not None:
        typed[LIVE] = [json.dumps(asdict(intent)), "json"]
    return typed


def owner_and_values(spool: Spool, default_owner: int) -> tuple[int, dict[str, Any]]:
    """Whose a spool is (one of an earlier version does not say), and the metadata of its recording."""
    values = {key: metadata.decode(*typed) for key, typed in spool.metadata.items() if key != LIVE}
    return values.pop(OWNER, default_owner), values


def intent_of(spool: Spool) -> Intent | None:
    """What is to become of it; `None` for what is no live session."""
    return Intent(**json.loads(spool.metadata[LIVE][0])) if LIVE in spool.metadata else None


def pending(folder: Path) -> str:
    """The hash of a recording as long as its sound is in this spool."""
    return recordings.PENDING + folder.name


def enter(archive: Archive, spool: Spool, owner_id: int, values: Metadata) -> Recording:
    """A recording that begins now."""
    begun = spool.started_at.astimezone(timezone(timedelta(minutes=spool.utc_offset_minutes)))
    name = f"live_{begun:%Y%m%d_%H%M%S}.wav"
    key = PurePosixPath(storing.blob_key(begun, name))
    with archive.database.write() as connection:
        audio_id = recordings.add(
            connection,
            owner_id=owner_id,
            file_hash=pending(spool.folder),
            file_path=str(key.with_stem(f"{key.stem}_{spool.folder.name}")),
            file_size=0,
            original_name=name,
            info=AudioInfo(0.0, spool.sample_rate, spool.channels, CODEC, MEDIA_TYPE),
            recorded_at=begun,
            offset_minutes=spool.utc_offset_minutes,
            values=values,
            status=recordings.RECORDING,
        )
        archive.audit.note(connection, "recording.begun", audio_id)
        return recordings.get(connection, audio_id)


def note_resumed(archive: Archive, recording: Recording, seconds: float) -> None:
    """Enter that somebody goes on with a recording. Raises `NotFound` where it is gone."""
    with archive.database.write(locks.of_recording(recording.id)) as connection:
        if not recordings.live_on(connection, recording.id, seconds):
            raise NotFound(kind="recording in progress", id=recording.id)
        archive.audit.note(connection, "recording.resumed", recording.id)


def find(archive: Archive, spool: Spool) -> Recording | None:
    """The recording whose sound is coming in, or was, through this spool."""
    owner_id, _ = owner_and_values(spool, archive.owner_id)
    with archive.database.read() as connection:
        audio_id = recordings.find_by_hash(connection, owner_id, pending(spool.folder))
        return None if audio_id is None else recordings.get(connection, audio_id, trashed=True)


def complete(archive: Archive, spool: Spool, recording: Recording, intent: Intent, *, heard: bool = False) -> Completed:
    """Give a recording the sound of its spool, which the caller lets go of; end the version made of it, have search
    follow that, and leave the rest to the workers. heard: that version is of all of it. Safe to repeat after a crash.
    Raises `StorageFailed`, `NotFound` where the recording is gone."""
    if not _is_coming(archive, recording):
        with disk_errors(spool.folder):
            return _completed(archive, recording, spool.open()[1])
    with disk_errors(spool.folder):
        file, report = spool.open()
        with file:
            info = probe(file, name=recording.original_name)
            file.seek(0)
            staged = archive.blobs.stage(file, name=recording.original_name)
    archive.blobs.delete(recording.file_path)  # what an attempt before this one published: nobody else has this key
    key = archive.blobs.publish(staged, recording.file_path)
    end = _End(archive, recording, intent, staged, key, info, heard)
    known = end.enter()
    if known is not None:  # a crash had stored them there
        forget(archive, recording)
        return Completed(known, report, None, duplicate=True)
    sidecars.refresh(archive, recording.id)
    return _completed(archive, recording, report)


def _is_coming(archive: Archive, recording: Recording) -> bool:
    """Whether its sound is not there yet. Who holds its spool is told what stays true. Raises `NotFound`."""
    with archive.database.read() as connection:
        return recordings.get(connection, recording.id, trashed=True).status == recordings.RECORDING


def _completed(archive: Archive, recording: Recording, report: SpoolReport) -> Completed:
    with archive.database.read() as connection:
        said = transcripts.active_of(connection, recording.id)
        job = jobs.standing_for(connection, [recording.id], jobs.ADD, done=True).get(recording.id)
    return Completed(recording.id, report, said, job.id if job else None)


def forget(archive: Archive, recording: Recording) -> None:
    """Remove the row of a recording into which nothing ever came; one that is complete stays."""
    if not _is_coming(archive, recording):
        return
    deletion.delete_recording(
        archive.database, archive.blobs, recording.id, sidecars.derived_keys, archive.audit, unfinished=True
    )


@dataclass(frozen=True, slots=True)
class _End:
    archive: Archive
    recording: Recording
    intent: Intent
    staged: StagedBlob
    key: str
    info: AudioInfo
    heard: bool

    def enter(self) -> int | None:
        """Write that all of it is there; the id of another recording that has the same bytes, if there is one."""
        owner_id, audio_id = self.recording.owner_id, self.recording.id
        file_hash = self.archive.blobs.fingerprint(self.staged.sha256)
        names = locks.of_bytes(owner_id, file_hash), locks.of_blob(self.key), locks.of_recording(audio_id)
        with self.archive.database.write(*names) as connection:
            known = recordings.find_by_hash(connection, owner_id, file_hash)
            if known is not None:
                data_keys.forget_unbound(connection, self.staged.blob_id)
                return known
            if not self.archive.blobs.has(self.key):
                raise StorageFailed(reason=f"{self.key} was taken away while it was being stored")
            data_keys.bind(connection, self.staged.blob_id, self.key)
            recordings.complete(
                connection,
                audio_id,
                file_hash=file_hash,
                file_path=self.key,
                file_size=self.staged.size,
                info=self.info,
            )
            told = {"bytes": self.staged.size, "seconds": self.info.duration}
            outbox.tell(connection, Event.STORED, audio_id, **told)
            self._end_version(connection)
            jobs.leave_to_workers(connection, audio_id, owner_id, self.intent.options)
            self.archive.audit.note(connection, "recording.stored", audio_id, **told)
        return None

    def _end_version(self, connection: Connection) -> None:
        """What was heard of it live is a version like others; search follows it unless it follows one already."""
        transcript_id = transcripts.find_live(connection, self.recording.id)
        if transcript_id is None:
            return
        outcome, reason = self._outcome(connection, transcript_id)
        transcripts.finish(connection, transcript_id, outcome=outcome, reason=reason)
        present = transcripts.active_of(connection, self.recording.id)
        follow = outcome.succeeded and not (present and present.active)
        if follow:
            transcripts.activate(connection, transcript_id)
        of = {"transcript_id": transcript_id, "outcome": outcome}
        self.archive.audit.note(connection, "transcript.made", self.recording.id, **of, active=follow)
        if outcome.succeeded:
            [version] = transcripts.headers(connection, [transcript_id])
            outbox.tell(connection, Event.TRANSCRIBED, self.recording.id, **of, engine=version.engine, job_id=None)

    def _outcome(self, connection: Connection, transcript_id: int) -> tuple[Outcome, str | None]:
        if transcripts.segment_count(connection, transcript_id):
            return Outcome.OK, None
        return (Outcome.SILENCE, None) if self.heard else (Outcome.FAILED, UNHEARD)
