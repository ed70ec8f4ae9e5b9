"""The steps of the pipeline on an open archive, as the facade and background jobs call them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from audio_storage_system import pipeline
from audio_storage_system.access import Role
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.audio import probe, stream
from audio_storage_system.catalogue import jobs, locks, principals, recordings, transcripts, trash
from audio_storage_system.errors import AudioRemoved, InvalidInput, NotFound, TooLarge
from audio_storage_system.pipeline import OnDuplicate
from audio_storage_system.records import Added, Metadata, Transcript
from audio_storage_system.transcribers.languages import check_language

Progress = Callable[[float, float], None]


def task_of(
    archive: Archive,
    whisper_model: str | None = None,
    language: str | None = None,
    progress: Progress | None = None,
    *,
    allow_fallback: bool = True,
    activate: bool | str | None = None,
    **further: Any,
) -> pipeline.Task:
    """What to transcribe with: as given, else as the settings say. Raises `UnknownSpec`, `InvalidInput`."""
    asked = whisper_model or archive.settings.transcriber
    pipeline.check_spec(asked)
    check_language(language)
    task = pipeline.Task(
        asked=asked,
        language=language or archive.settings.language or None,
        fallback=(archive.settings.transcriber_fallback or None) if allow_fallback else None,
        activate=pipeline.rule_of(activate),
        audit=archive.audit,
        **further,
    )
    return replace(task, progress=progress) if progress else task


def store(
    archive: Archive,
    given: str | os.PathLike[str] | BinaryIO,
    values: Metadata | None,
    recorded_at: datetime | None,
    on_duplicate: OnDuplicate,
    entered: pipeline.Entered = lambda connection, audio_id: None,
    *,
    name: str = "",
    fernet_key: str | bytes | None = None,
) -> pipeline.Stored:
    """Store the bytes of a file or stream, or with a `fernet_key` what they decrypt to; see `pipeline.store`. After a
    file that was stored already, the next one is likely so too (a run that is taken up again), and is looked for
    first."""
    owner_id, most = owner_of(archive, values), archive.settings.max_file_bytes
    source, name = _source_of(given, name, fernet_key, most)
    stored = pipeline.store(
        archive.database,
        archive.blobs,
        source,
        owner_id=owner_id,
        values={} if values is None else values,
        name=name,
        recorded_at=recorded_at,
        on_duplicate=on_duplicate,
        max_bytes=most,
        look_first=archive.streak.duplicates,
        entered=entered,
        audit=archive.audit,
    )
    archive.streak.duplicates = stored.duplicate
    sidecars.refresh(archive, stored.audio_id)
    return stored


def _source_of(
    given: str | os.PathLike[str] | BinaryIO, name: str, fernet_key: str | bytes | None, most: int
) -> tuple[Path | BinaryIO, str]:
    """What to store, and what it is called."""
    if not isinstance(given, str | os.PathLike):
        if fernet_key is not None:
            raise InvalidInput(reason="What is encrypted with Fernet is given as a file")
        if _size_of(given) > most:
            raise TooLarge(what=name or "The recording", limit=f"{most} bytes")
        return given, name or "recording"
    path = Path(given)
    if fernet_key is None:
        return path, name or path.name
    return pipeline.decrypted(path, fernet_key, most), name or pipeline.inner_name(path)


def _size_of(stream: BinaryIO) -> int:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return size


def owner_of(archive: Archive, values: Metadata | None) -> int:
    """Whose a new recording is: of who stores it; where that is nobody in particular, of the `user_id` in its metadata,
    who becomes a principal if that is new. Raises `Forbidden` for who may only read."""
    archive.access.require_scope(Role.EDITOR, "store recordings")
    name = None if archive.access.restricted else principals.name_in(values or {})
    if name is None:
        return archive.owner_id
    with archive.database.read() as connection:
        known = principals.find(connection, name)
    if known is not None:
        return known.id
    with archive.database.write(locks.PRINCIPALS) as connection:
        return principals.ensure(connection, name).id


def process(archive: Archive, stored: pipeline.Stored, task: pipeline.Task, *, embedded: bool) -> Added:
    """Transcribe and embed what was stored, unless that was done before."""
    audio_id = stored.audio_id
    source, said = source_of(archive, audio_id), said_in(archive, audio_id)
    if said is None or not said.active:
        pipeline.transcribe(archive.database, archive.engines, source, audio_id, task)
        said = said_in(archive, audio_id)
    if embedded and said is not None:
        length = _seconds_of(archive, audio_id)
        source.tick = lambda: task.progress(length, length)  # it may raise, to stop here too
        embed(archive, audio_id, said.id, source)
    if stored.duplicate:
        _finish_waiting(archive, audio_id)
    return Added.of(audio_id, duplicate=stored.duplicate, said=said)


def _finish_waiting(archive: Archive, audio_id: int) -> None:
    """End the jobs of a recording that had been left to workers before: what they wait for is done."""
    with archive.database.read() as connection:
        waiting = jobs.standing_for(connection, [audio_id], jobs.ADD, done=False)
    if waiting:
        with archive.database.write(locks.of_recording(audio_id)) as connection:
            jobs.finish_waiting(connection, audio_id)


def transcribe(
    archive: Archive, audio_id: int, task: pipeline.Task, samples: npt.NDArray[np.float32] | None = None
) -> pipeline.Made:
    """A new version of what is said, or an interrupted one finished; its id. See `pipeline.transcribe`."""
    source = source_of(archive, audio_id, samples)
    if source.removed is not None and samples is None:
        raise AudioRemoved(kind="audio", id=audio_id, audio_id=audio_id)
    transcript_id = pipeline.transcribe(archive.database, archive.engines, source, audio_id, task)
    sidecars.refresh(archive, audio_id)
    return transcript_id


def listen(
    archive: Archive, given: str | os.PathLike[str] | BinaryIO, name: str, task: pipeline.Task
) -> pipeline.Heard:
    """What is said in a file or stream, of which nothing is stored; see `pipeline.listen`."""
    most = archive.settings.max_file_bytes
    source, name = _source_of(given, name, None, most)
    with pipeline.opened_file(source, most) if isinstance(source, Path) else nullcontext(source) as file:
        probe(file, name=name)  # it says by this name what is no audio
        file.seek(0)
        with stream(file, pipeline.MODEL_RATE) as blocks:
            heard = pipeline.listen(archive.engines, blocks, task)
    archive.audit.read("sound.transcribed", seconds=heard.duration, engine=heard.engine)
    return heard


def embed(
    archive: Archive,
    audio_id: int,
    transcript_id: int,
    source: pipeline.Source,
    made_some: Callable[[], None] = lambda: None,
) -> int:
    """Make every embedding that is missing for a version; how many were made; see `pipeline.embed`. Where other spaces
    are put in use meanwhile, it makes those of these as well."""
    made, embedders = 0, archive.spaces.available()
    while True:
        try:
            made += pipeline.embed(archive.database, source, embedders, audio_id, transcript_id, made_some)
        except NotFound:  # the space was freed, or it was the recording that was deleted
            if archive.spaces.available() == embedders:
                raise
        before, embedders = embedders, archive.spaces.available()
        if embedders == before:
            break
    archive.indexing.made(made, archive.follow)
    sidecars.refresh(archive, audio_id)
    return made


def source_of(archive: Archive, audio_id: int, samples: npt.NDArray[np.float32] | None = None) -> pipeline.Source:
    """A recording's sound: its blob, or samples that the caller has. Raises `NotFound`, `StillRecording`; reading it
    raises `AudioRemoved` where the blob was removed."""
    with archive.database.read() as connection:
        key = recordings.key_of(connection, audio_id)
        recordings.refuse_unfinished(connection, audio_id)
        removed = None if recordings.has_audio(connection, audio_id) else audio_id
    waveform = None if samples is None else pipeline.as_waveform(samples)
    return pipeline.Source(archive.blobs, key, waveform, removed=removed)


def _seconds_of(archive: Archive, audio_id: int) -> float:
    """A recording's seconds of sound. Raises `NotFound`."""
    with archive.database.read() as connection:
        return recordings.duration_of(connection, audio_id)


def said_in(archive: Archive, audio_id: int) -> Transcript | None:
    """The version that search follows, if there is one."""
    with archive.database.read() as connection:
        return transcripts.active_of(connection, audio_id)


def version_of(archive: Archive, transcript_id: int, role: Role = Role.READER, action: str = "read") -> Transcript:
    """One version, for who has this role on its recording. Raises `NotFound`, `InTrash`, `Forbidden`."""
    with archive.database.read() as connection:
        archive.access.require_version(connection, transcript_id, role, action)
        version = transcripts.get(connection, transcript_id)
        trash.refuse(connection, version.audio_id)
    return version


def said_or_raise(archive: Archive, audio_id: int) -> Transcript:
    """The version that search follows. Raises `NotFound`, `InTrash`."""
    with archive.database.read() as connection:
        trash.refuse(connection, audio_id)
        said = transcripts.active_of(connection, audio_id)
    if said is None:
        raise NotFound(kind="transcript of the recording", id=audio_id)
    return said
