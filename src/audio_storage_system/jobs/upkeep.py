"""Recurring work: what one worker of all does at its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from audio_storage_system.archive import Archive, orphans, removal
from audio_storage_system.catalogue import jobs
from audio_storage_system.clock import utc_now
from audio_storage_system.jobs.board import Jobs
from audio_storage_system.jobs.uploads import tidy_uploads
from audio_storage_system.retention import Retention
from audio_storage_system.retention.trash import purge_due
from audio_storage_system.webhooks.rows import forget_deliveries

# How long it is known what became of a job, and of its runs.
JOBS_KEPT, RUNS_KEPT = timedelta(days=90), timedelta(days=7)
AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Recurring:
    """Work that recurs. schedule: as cron has it (minute hour day month weekday), in UTC."""

    schedule: str
    do: Callable[[Archive, Jobs], None]


def tidy(archive: Archive, board: Jobs) -> None:
    """Bring the vector index up to date, let nothing be left of what was deleted, finish or remove uploads whose sender
    has gone, and forget what was done long ago."""
    archive.follow()
    archive.blobs.tidy()
    removal.scrub(archive)
    tidy_uploads(archive, board)
    while board.runs.forget(utc_now() - RUNS_KEPT) == AT_ONCE:
        pass
    while _forget_jobs(archive) == AT_ONCE:
        pass
    while _forget_deliveries(archive) == AT_ONCE:
        pass


def keep(archive: Archive, board: Jobs) -> None:
    """Carry out the retention rules, where there are any, and delete what has been in the trash, or in quarantine, for
    its time."""
    retention = Retention(archive)
    if retention.rules():
        retention.run()
    purge_due(archive)
    orphans.purge(archive, timedelta(days=archive.settings.quarantine_days))


def _forget_jobs(archive: Archive) -> int:
    with archive.database.write() as connection:
        return jobs.forget(connection, utc_now() - JOBS_KEPT, AT_ONCE)


def _forget_deliveries(archive: Archive) -> int:
    before = utc_now() - timedelta(days=archive.settings.webhook_days)
    with archive.database.write() as connection:
        return forget_deliveries(connection, before, AT_ONCE)


RECURRING: Mapping[str, Recurring] = {"tidy": Recurring("23 * * * *", tidy), "keep": Recurring("41 * * * *", keep)}
