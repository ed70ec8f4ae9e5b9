"""What is done in each step of a job: the same functions that the synchronous calls use, over ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from audio_storage_system.archive import Archive, processing, reembedding
from audio_storage_system.catalogue import transcripts
from audio_storage_system.catalogue.jobs import ADD, EMBED, REEMBED, RETRANSCRIBE, TRANSCRIBE, TRANSLATE
from audio_storage_system.catalogue.transcripts import LIVE
from audio_storage_system.database.tables import transcripts as transcript_table
from audio_storage_system.embedders import is_remote as embeds_remotely
from audio_storage_system.pipeline import Task
from audio_storage_system.records import EmbeddingKind, Job, Transcript
from audio_storage_system.transcribers import is_remote as transcribes_remotely

# Called while a step is at work, whenever something of it was kept; it raises to end the step there.
Tick = Callable[..., None]  # kept: bool = True, whether something of it was kept since the last time
Step = Callable[[Archive, Job, Tick], None]

# Kinds that are done once for each recording.
ONCE = (ADD,)
# The option of a job for one more version: the last transcript there was when it was given.
AFTER = "after"
# The steps that each kind of job goes through.
STEPS: Mapping[str, tuple[str, ...]] = {
    ADD: (TRANSCRIBE, EMBED),
    RETRANSCRIBE: (TRANSCRIBE, EMBED),
    TRANSLATE: (TRANSCRIBE,),
    REEMBED: (REEMBED,),
}


def first_of(kind: str) -> str:
    """The step that a job of this kind begins with."""
    return STEPS[kind][0]


def after(job: Job) -> str | None:
    """The step that comes after the present one; `None` after the last."""
    steps = STEPS[job.kind]
    following = steps[steps.index(job.step) + 1 :]
    wanted = [step for step in following if step != EMBED or job.options.get("embed", True)]
    return wanted[0] if wanted else None


def queue_of(archive: Archive, job: Job) -> str:
    """Where the job's present step waits: what asks a service over the network has a queue of its own."""
    if job.step == TRANSCRIBE:
        spec = job.options.get("whisper_model") or archive.settings.transcriber
        return "remote" if transcribes_remotely(spec) else TRANSCRIBE
    spec = job.options.get("embedder") or archive.spaces.spec(EmbeddingKind.TRANSCRIPT)
    return "remote" if embeds_remotely(spec) else EMBED


def perform(archive: Archive, job: Job, tick: Tick) -> None:
    """Do the job's present step: all of it, or what a run before has left."""
    _STEPS[job.step](archive, job, tick)


def _transcribe(archive: Archive, job: Job, tick: Tick) -> None:
    audio_id = _audio_id(job)
    said = processing.said_in(archive, audio_id)
    followed = said is not None and said.active and LIVE not in said.flags  # what was made live is heard anew
    given: dict[str, Any] = {name: value for name, value in job.options.items() if name in _OF_TASK}
    if job.kind != ADD:  # a stand-in's version is none where there is one
        given["allow_fallback"] = not followed
    if job.kind == TRANSLATE:
        given |= {"translate": True, "activate": "never"}
    begun: list[float] = []  # at how many seconds this run began: progress is told of what is only read, too

    def progress(seconds: float, total: float) -> None:
        if not begun:
            begun.append(seconds)
        tick(kept=seconds > begun[0])

    task = processing.task_of(archive, progress=progress, job_id=job.id, **given)
    if not (followed if job.kind == ADD else _is_made(archive, job, task)):
        processing.transcribe(archive, audio_id, task)


_OF_TASK = ("whisper_model", "language", "prompt", "activate")


def _is_made(archive: Archive, job: Job, task: Task) -> bool:
    """Whether a run before made the new version: there is one like it since the job was given."""
    made_since = (
        transcript_table.c.audio_file_id == job.audio_id,
        transcript_table.c.id > int(job.options[AFTER]),
        transcript_table.c.whisper_model == task.asked,
    )
    with archive.database.read() as connection:
        made = transcripts.select_where(connection, *made_since)
    return any(version.outcome and version.outcome.succeeded and _is_as_asked(version, task) for version in made)


def _is_as_asked(version: Transcript, task: Task) -> bool:
    asked = {"language": task.language, "prompt": task.prompt}
    if task.translate is not (version.parameters.get("task") == "translate"):
        return False
    return all(version.parameters.get(name, value) == value for name, value in asked.items())


def _embed(archive: Archive, job: Job, tick: Tick) -> None:
    """Every version that came to its end gets what it lacks: also one that search does not follow."""
    audio_id = _audio_id(job)
    source = processing.source_of(archive, audio_id)
    with archive.database.read() as connection:
        versions = transcripts.select_where(connection, transcript_table.c.audio_file_id == audio_id)
    for version in versions:
        if version.outcome is not None and version.outcome.succeeded:
            processing.embed(archive, audio_id, version.id, source, tick)


def _reembed(archive: Archive, job: Job, tick: Tick) -> None:
    """The whole archive: what there is already of the new space is not made again."""
    embedder, kind = job.options.get("embedder"), str(job.options["kind"])
    drop_old = bool(job.options["drop_old"])
    reembedding.run(archive, embedder, kind, lambda stage, done, total: tick(), drop_old=drop_old)


def _audio_id(job: Job) -> int:
    assert job.audio_id is not None  # noqa: S101 - every kind of job with this step has one
    return job.audio_id


_STEPS: Mapping[str, Step] = {TRANSCRIBE: _transcribe, EMBED: _embed, REEMBED: _reembed}
