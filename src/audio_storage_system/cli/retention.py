"""`retention`: what is kept for how long."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, moment, shortened
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_where

app = typer.Typer(help="How long recordings, or parts of them, are kept. Without a rule: for ever.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the rule is called.")]
REASON_WIDTH = 110


class StageChoice(StrEnum):
    """What a rule deletes."""

    RECORDING = "recording"
    AUDIO = "audio"
    TRANSCRIPT = "transcript"
    EMBEDDINGS = "embeddings"


@app.command("add")
def add(
    name: Name,
    days: Annotated[
        float, typer.Option("--days", min=0, help="How long it is kept from when it was stored; fractions count.")
    ],
    stage: Annotated[
        StageChoice,
        typer.Option(
            help="What is deleted then: all of the recording, its sound, what was said in it, or its vectors."
        ),
    ] = StageChoice.RECORDING,
    where: options.Where = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Only what belongs to this principal.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="LABEL", help="Only what has this tag.")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Add a rule. It deletes nothing before the next run: see what it would do with `retention plan`.

    Of several rules about the same thing, the one whose time is over first decides; a legal hold beats all."""
    out = Output(as_json)
    conditions = parse_where(where)
    with opened(archive) as storage:
        rule = storage.retention.add(name, days, stage=stage.value, where=conditions, owner=owner, tag=tag)
    out.result(
        rule.as_dict(), f'The rule "{rule.name}" keeps the {rule.stage} {rule.keep_days:g} days of: {rule.selection}'
    )


@app.command("list")
def list_rules(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List the rules."""
    out = Output(as_json)
    with opened(archive) as storage:
        rules = storage.retention.rules()
    out.document({"rules": [rule.as_dict() for rule in rules]})
    rows = [(rule.name, rule.stage.value, f"{rule.keep_days:g}", shortened(str(rule.selection), 70)) for rule in rules]
    out.table(("name", "deletes", "after days", "of"), rows, right=("after days",))
    out.line(count(len(rules), "rule") if rules else "No rule: everything is kept for ever.")


@app.command("rm")
def remove(name: Name, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Forget a rule. What it has deleted stays deleted."""
    out = Output(as_json)
    with opened(archive) as storage:
        storage.retention.remove(name)
    out.result({"removed": name}, f'The rule "{name}" is gone.')


@app.command("plan")
def plan(
    everything: Annotated[bool, typer.Option("--all", help="Every recording, also what stays.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what a run would delete and why, and what a legal hold keeps; nothing is deleted."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = list(storage.retention.plan(everything=everything))
    out.document({"plan": [decision.as_dict() for decision in found]})
    rows = [(one.audio_id, one.stage.value, one.action.value, shortened(one.reason, REASON_WIDTH)) for one in found]
    out.table(("id", "what", "becomes", "why"), rows, right=("id",))
    out.line(
        f"{sum(one.action == 'delete' for one in found):,} to delete, {sum(bool(one.hold) for one in found):,} held"
    )


@app.command("run")
def run(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Carry out the rules now. Workers do so every hour. It may be stopped at any moment, and run again."""
    out = Output(as_json)
    shown = 0

    def progress(examined: int, removed: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and removed >= shown + 100:
            shown = removed
            say(f"{examined:,} looked at, {removed:,} removed")

    with opened(archive) as storage:
        done = storage.retention.run(progress=progress)
    out.result(done.as_dict(), f"{len(done.receipts):,} removed, {len(done.held):,} kept by a legal hold")


@app.command("report")
def report(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Show that the rules are enforced: when they were last carried out, what each has deleted, what is overdue and
    why. The exit code is 1 where something is overdue that nothing holds."""
    out = Output(as_json)
    with opened(archive) as storage:
        told = storage.retention.report()
        rules = storage.retention.rules()
    out.document(told)
    last = told["last_run"]
    out.line(
        "Never carried out."
        if last is None
        else f"Last carried out: {moment(datetime.fromisoformat(last['started_at']))}"
        + ("" if last["ended_at"] else " (cut short)")
    )
    removed = {one["name"]: one for one in told["rules"]}
    rows = [(r.name, r.stage.value, f"{r.keep_days:g}", removed[r.name]["removed"]) for r in rules]
    out.table(("rule", "deletes", "after days", "deleted so far"), rows, right=("after days", "deleted so far"))
    for one in told["overdue"]:
        out.line(f"{one['audio_id']:>6}  {one['stage']}  {one['reason']}")
    due, held = told["counts"]["due"], told["counts"]["held"]
    out.line(
        f"{due:,} overdue, {held:,} kept by a legal hold" if due else f"Enforced: nothing is overdue; {held:,} held"
    )
    raise typer.Exit(int(bool(due)))
