"""`reembed`: the archive's vectors with another embedder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, count
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.progress import Counting
from audio_storage_system.cli.session import opened

if TYPE_CHECKING:
    from audio_storage_system.archive.reembedding import Plan, Reembedded


def reembed(
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="What embeds from now on (see the command models); default: the one in use, to make what is missing.",
        ),
    ] = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="What to embed anew: transcript or audio.")] = "transcript",
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Then free every space of this kind that searches no longer use.")
    ] = False,
    background: options.Background = False,
    dry_run: options.DryRun = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Embed everything anew with another embedder. Searches use the old vectors until all new ones are there.

    Run again after an interruption, it goes on. Without --drop-old the old vectors stay: going back is quick then.
    """
    out = Output(as_json)
    with opened(archive) as storage:
        if dry_run:
            plan = storage.plan_reembedding(embedder, kind=kind)
            out.document({"dry_run": True, **plan.as_dict()})
            _show_plan(plan, drop_old, out)
            return
        if background:
            job = storage.submit_reembedding(embedder, kind=kind, drop_old=drop_old)
            out.result(job.as_dict(), f"Job {job.id} queued; see: audio-storage jobs show {job.id}")
            return
        with Counting("vectors") as progress:
            done = storage.reembed(embedder, kind=kind, drop_old=drop_old, progress=progress.tell)
    out.document(done.as_dict())
    _show(done, out)


def _show_plan(plan: Plan, drop_old: bool, out: Output) -> None:
    use = f"{plan.model} is in use already" if plan.in_use else f"{plan.model} would take the place of {plan.before}"
    out.line(f"{use}: {count(plan.lacking, 'passage')} ({clock(plan.seconds)} of sound) to embed")
    for model, vectors in plan.frees.items() if drop_old else ():
        out.line(f"{count(vectors, 'vector')} of {model} would be freed")


def _show(done: Reembedded, out: Output) -> None:
    use = f"is used now, instead of {done.before}" if done.switched else "is in use already"
    out.line(f"{done.model} {use}: {count(done.made, 'vector')} made")
    for model, vectors in done.freed.items():
        out.line(f"Freed {count(vectors, 'vector')} of {model}")
