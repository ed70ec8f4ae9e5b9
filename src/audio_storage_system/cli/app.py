"""The program: its commands, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from audio_storage_system import __version__
from audio_storage_system.cli import (
    add,
    archive,
    audit,
    backup,
    copy,
    demo,
    doctor,
    export,
    grants,
    hold,
    import_transcripts,
    jobs,
    keys,
    listing,
    live,
    mcp,
    metadata,
    quarantine,
    record,
    reembed,
    remove,
    retention,
    retranscribe,
    search,
    serve,
    session,
    tokens,
    transcripts,
    trash,
    users,
    verify,
    watch,
    webhooks,
    worker,
)
from audio_storage_system.cli.output import Output, forget_stdout, hear_warnings, prepare_streams
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.settings import debugging

INTERRUPTED, PIPE_CLOSED, UNEXPECTED = 130, 141, 70


class Interrupted(Exception):
    """Ctrl-C in a command."""


class Program(TyperGroup):
    """Typer's group, which would turn Ctrl-C into an exit without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error


app = typer.Typer(
    name="audio-storage",
    cls=Program,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An archive for audio: store it, and find what was said, by whom and when.",
    epilog="Each command but mcp takes --json (one JSON document on stdout, or one per line where it goes on; "
    "everything else on stderr) and, copy and restore excepted, --archive.",
)
app.command("init")(archive.init)
app.command("add")(add.add)
app.command("watch")(watch.watch)
app.command("record")(record.record)
app.command("live")(live.live)
app.command("search")(search.search)
app.command("list")(listing.list_recordings)
app.command("show")(listing.show)
app.command("export")(export.export)
app.add_typer(transcripts.app, name="transcripts")
transcripts.app.command("import")(import_transcripts.import_transcripts)
app.command("retranscribe")(retranscribe.retranscribe)
app.command("reembed")(reembed.reembed)
app.add_typer(metadata.app, name="metadata")
app.command("rm")(remove.remove)
app.add_typer(trash.app, name="trash")
app.add_typer(retention.app, name="retention")
app.add_typer(hold.app, name="hold")
app.command("stats")(archive.stats)
app.command("reindex")(archive.reindex)
app.command("verify")(verify.verify)
app.add_typer(quarantine.app, name="quarantine")
app.command("copy")(copy.copy)
app.add_typer(backup.app, name="backup")
app.command("restore")(backup.restore)
app.command("worker")(worker.worker)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.add_typer(jobs.app, name="jobs")
app.add_typer(users.app, name="users")
app.add_typer(grants.app, name="grants")
app.add_typer(tokens.app, name="tokens")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="keys")
app.command("doctor")(doctor.doctor)
app.command("models")(doctor.models)
app.command("demo")(demo.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an unexpected error came from (also AUDIO_STORAGE_DEBUG=1).")
    ] = False,
) -> None:
    """Options of the program itself; `main` reads `--debug`, wherever it stands."""
    session.COMMAND = ctx.invoked_subcommand or ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 part of it failed, 2 wrong usage, 130 stopped with Ctrl-C, 143 by
    SIGTERM, 70 a defect of this program, else the code of the error's class."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    prepare_streams()
    hear_warnings()
    out = Output(as_json="--json" in options)
    debug = "--debug" in options or debugging()
    return _run([word for word in given if word != "--debug" or word not in options], out, debug)


def _run(arguments: list[str], out: Output, debug: bool) -> int:
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except AudioStorageSystemError as error:
        if debug:
            _trace()
        out.error(error.as_dict())
        return error.exit_code
    except (Interrupted, KeyboardInterrupt, typer.Abort):
        out.error({"code": "interrupted", "message": "Stopped.", "retryable": True})
        return INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return PIPE_CLOSED
    except Exception as error:
        return _unexpected(error, out, debug)
    return code


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        return command.main(arguments or ["--help"], prog_name="audio-storage", standalone_mode=False) or 0
    except SystemExit as error:  # Typer leaves this way when whoever read our output is gone, and after completion
        return error.code if isinstance(error.code, int) else 0


def _unexpected(error: Exception, out: Output, debug: bool) -> int:
    if callable(getattr(error, "format_message", None)):  # Typer's errors of usage; their class has moved over time
        return _misused(error, out)
    if debug:
        _trace()
    hint = "" if debug else " Run it again with --debug to see where."
    message = f"This should not have happened: {type(error).__name__}: {error}.{hint}"
    out.error({"code": "unexpected", "message": message, "retryable": False})
    return UNEXPECTED


def _misused(error: Exception, out: Output) -> int:
    context = getattr(error, "ctx", None)
    message = str(getattr(error, "format_message")())  # noqa: B009 - only Typer's errors have it
    hint = f" See: {context.command_path} --help" if context is not None else ""
    out.error({"code": "usage", "message": message + hint, "retryable": False})
    return 2


def _trace() -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)
