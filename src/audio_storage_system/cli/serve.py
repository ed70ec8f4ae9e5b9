"""`serve`: the archive over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import named_origin


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; others reach 0.0.0.0 and need tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 for any that is free.")] = 8765,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Web processes.")] = 1,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Leave the jobs to workers started elsewhere.")
    ] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Serve the archive over HTTP, until Ctrl-C or SIGTERM: its own API, OpenAI's endpoints, and a process that does
    the jobs.

    Only this machine reaches it, and needs no token as long as none was made. The API is described at /docs.
    """
    from audio_storage_system.server import Options, serve

    out = Output(as_json)

    def ready(url: str) -> None:
        out.event({"url": url}, url)
        say(f"Serving (the API is described at {url}/docs). Ctrl-C ends.")

    with named_origin():
        serve(archive, Options(host, port, workers, not no_worker), ready)
