"""The board of the trash: thrown away, had back, or gone for good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection

from audio_storage_system import outbox
from audio_storage_system.access import Role
from audio_storage_system.archive import Archive, removal
from audio_storage_system.catalogue import holds, jobs, locks, recordings, trash
from audio_storage_system.catalogue.trash import Trashed
from audio_storage_system.clock import utc_now
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import audio_files
from audio_storage_system.database.tables import jobs as job_table
from audio_storage_system.database.tables import trash as trash_table
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import NotFound, UnderLegalHold
from audio_storage_system.outbox import Event
from audio_storage_system.records import JobState, jsonable


@dataclass(frozen=True, slots=True)
class Emptied:
    """What emptying the trash did; `held`: the recordings that a legal hold keeps, and why."""

    receipts: list[Receipt]
    held: dict[int, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"deleted": [receipt.as_dict() for receipt in self.receipts], "held": self.held}


# Inside the class `list` is the method.
Entries = list[Trashed]
Ids = list[int]
Conditions = list[ColumnElement[bool]]


class Trash:
    """Recordings that were thrown away: nobody finds them, and for `trash_days` days they can be had back."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def put(self, *audio_ids: int) -> Entries:
        """Throw recordings away; all of them or none. Their jobs end. Raises `NotFound`, `InTrash`, `StillRecording`,
        and `UnderLegalHold`, as it could never be emptied of what is held."""
        now = utc_now()
        until = now + timedelta(days=self._archive.settings.trash_days)
        wanted = sorted({int(audio_id) for audio_id in audio_ids})
        with self._archive.database.write(*map(locks.of_recording, wanted)) as connection:
            for audio_id in wanted:
                self._archive.access.require(connection, audio_id, Role.OWNER, "delete")
                recordings.get(connection, audio_id)
                recordings.refuse_living(connection, audio_id)
                holds.refuse(connection, audio_id)
                trash.put(connection, audio_id, by=self._archive.access.principal_id, at=now, purge_after=until)
                _end_jobs(connection, audio_id)
                recordings.touch(connection, audio_id)
                self._archive.audit.note(connection, "recording.trashed", audio_id)
                outbox.tell(connection, Event.TRASHED, audio_id, purge_after=jsonable(until))
            those = within(trash_table.c.audio_file_id, wanted)
            found = {entry.audio_id: entry for entry in trash.entries(connection, those)}
        return [found[audio_id] for audio_id in wanted]

    def list(self, *, limit: int | None = None, after: tuple[datetime, int] | None = None) -> Entries:
        """What is in the trash, the latest first. limit: at most so many. after: `trashed_at` and `audio_id` of an
        entry, to go on behind it, wherever that is by now."""
        behind = [] if after is None else [trash.behind(*after)]
        with self._archive.database.read() as connection:
            return trash.entries(connection, *self._mine(), *behind, limit=limit)

    def restore(self, *audio_ids: int) -> Ids:
        """Put recordings back, as they were; their ids. What was not transcribed yet is left to the workers. Raises
        `NotFound` for one that is not in the trash, and restores none then."""
        wanted = sorted({int(audio_id) for audio_id in audio_ids})
        with self._archive.database.write(*map(locks.of_recording, wanted)) as connection:
            those = within(trash_table.c.audio_file_id, wanted)
            mine = {entry.audio_id: entry for entry in trash.entries(connection, those, *self._mine())}
            for audio_id in wanted:
                self._archive.access.require(connection, audio_id, Role.OWNER, "restore")
                if audio_id not in mine or not trash.take_out(connection, audio_id):
                    raise NotFound(kind="recording in the trash", id=audio_id)
                if _ended_jobs(connection, mine[audio_id]):
                    jobs.leave_to_workers(connection, audio_id, mine[audio_id].owner_id)
                recordings.touch(connection, audio_id)
                self._archive.audit.note(connection, "recording.restored", audio_id)
                outbox.tell(connection, Event.RESTORED, audio_id)
        return wanted

    def empty(self, *audio_ids: int) -> Emptied:
        """Delete these for good, or everything in the trash; what a legal hold covers stays. Raises `NotFound` for one
        that is not in the trash, before anything is deleted."""
        self._archive.access.require_scope(Role.OWNER, "empty the trash")
        mine = [entry.audio_id for entry in self.list()]
        for audio_id in audio_ids:
            if int(audio_id) not in mine:
                raise NotFound(kind="recording in the trash", id=audio_id)
        return purge(self._archive, [int(audio_id) for audio_id in audio_ids] or reversed(mine))

    def _mine(self) -> Conditions:
        """Who is restricted has in the trash what they could delete."""
        return self._archive.access.only(audio_files.c.id, Role.OWNER)


def purge(archive: Archive, audio_ids: Iterable[int]) -> Emptied:
    """Delete these recordings for good, save what is held, and what somebody else was faster with."""
    receipts, held = list[Receipt](), dict[int, str]()
    for audio_id in audio_ids:
        try:
            receipts.append(removal.remove_stage(archive, audio_id))
        except UnderLegalHold as error:
            held[audio_id] = error.message
        except NotFound:
            pass
    return Emptied(removal.finish(archive, receipts), held)


def purge_due(archive: Archive) -> Emptied:
    """Delete for good what has been in the trash for its time."""
    with archive.database.read() as connection:
        due: Sequence[int] = trash.due(connection, utc_now())
    return purge(archive, due) if due else Emptied([], {})


def _end_jobs(connection: Connection, audio_id: int) -> None:
    mine = jobs.select_where(connection, job_table.c.audio_file_id == audio_id)
    jobs.end_all(connection, [job.id for job in mine], JobState.CANCELLED)


def _ended_jobs(connection: Connection, entry: Trashed) -> bool:
    """Whether throwing it away ended a job."""
    ended = (job_table.c.outcome == JobState.CANCELLED.value, job_table.c.updated_at >= entry.trashed_at)
    return bool(jobs.select_where(connection, job_table.c.audio_file_id == entry.audio_id, *ended))
