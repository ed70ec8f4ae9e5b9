"""Storing a file now and leaving the rest to the workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, BinaryIO

from audio_storage_system.archive import Archive, processing
from audio_storage_system.catalogue.jobs import ADD
from audio_storage_system.jobs.board import Jobs
from audio_storage_system.pipeline import OnDuplicate
from audio_storage_system.records import Job, Metadata, Priority


def submit(
    archive: Archive,
    board: Jobs,
    given: str | os.PathLike[str] | BinaryIO,
    options: Mapping[str, Any],
    *,
    name: str = "",
    metadata: Metadata | None = None,
    recorded_at: datetime | None = None,
    on_duplicate: OnDuplicate = "keep",
    priority: Priority | str = Priority.NORMAL,
    delay_seconds: float | None = None,
    kind: str = ADD,
) -> Job:
    """Store a file or stream, and give the job of all that follows, with these options (see `options_of`)."""
    named = metadata is not None and "user_id" in metadata and not archive.access.restricted
    whose = str(metadata["user_id"]) if metadata and named else None
    order: dict[str, Any] = {"priority": priority, "share": whose}
    entry = board.entry(kind, options, **order)
    stored = processing.store(archive, given, metadata, recorded_at, on_duplicate, entry, name=name)
    [job] = board.submit(kind, [stored.audio_id], options, **order, delay_seconds=delay_seconds)
    return replace(job, duplicate=stored.duplicate)


def options_of(
    archive: Archive,
    whisper_model: str | None,
    language: str | None,
    *,
    generate_embeddings: bool,
    prompt: str | None = None,
) -> dict[str, Any]:
    """What a job to add a recording is told: as it is set here, whoever does it. Raises `UnknownSpec`."""
    task = processing.task_of(archive, whisper_model, language)
    given = {
        "whisper_model": task.asked,
        "language": task.language,
        "prompt": prompt,
        "embed": None if generate_embeddings else False,
    }
    return {name: value for name, value in given.items() if value is not None}
