"""`live`: captions of what the microphone hears, while it is stored and can be found."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.record import device_of
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_metadata

if TYPE_CHECKING:
    from audio_storage_system.live import Event

LINE = "\r\x1b[K"  # back to the beginning of the line, and what is in it away


def live(
    duration: Annotated[
        float | None, typer.Option("--duration", "-d", metavar="SECONDS", help="How long (default: until Ctrl-C).")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Number or part of the name; see the command doctor.")
    ] = None,
    metadata: options.MetadataValues = None,
    language: options.Language = None,
    transcriber: Annotated[
        str | None,
        typer.Option("--transcriber", metavar="ENGINE", help="What makes the captions (default: bundled, English)."),
    ] = None,
    whisper_model: options.Model = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what the microphone hears as text while it is spoken; all of it is stored and can be found at once.

    What is being said is one line that changes; what has been said stays, with its time. Ctrl-C ends the session and
    says whether anything is missing. A worker then makes the version of the whole model. With --json each event is a
    line of JSON.
    """
    out = Output(as_json)
    captions = Captions(out)
    with opened(archive, create=True) as storage:
        say("Listening; Ctrl-C ends it and keeps what was said." if duration is None else "Listening.")
        report = storage.record_live(
            duration,
            metadata=parse_metadata(metadata),
            language=language,
            transcriber=transcriber,
            whisper_model=whisper_model,
            device=device_of(device),
            on_event=captions.show,
        )
    if not as_json:
        say(f"{report}.")


class Captions:
    """Text as it comes: what may still change in one line, on a terminal only; what is final below each other."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._changing = not out.as_json and sys.stderr.isatty()

    def show(self, event: Event) -> None:
        """Show one event."""
        data = event.as_dict()
        if self._out.as_json:
            self._out.event(data, "")
        elif data["type"] == "partial":
            self._rewrite(data)
        elif data["type"] == "final" and data["text"]:
            self._clear()
            self._out.event(data, f"{clock(data['start'])}  {data['text']}")
        elif data["type"] == "final":
            self._clear()
        elif data["type"] == "lag" and data["seconds"]:
            self._clear()
            say(f"The text is {data['seconds']:.0f} s behind; the sound is stored all the same.")
        elif data["type"] == "unheard":
            self._clear()
            say(f"There is no more text; the sound is stored all the same. {data['message']}")

    def _rewrite(self, data: dict[str, Any]) -> None:
        if self._changing:
            room = max(20, shutil.get_terminal_size().columns - len(clock(data["start"])) - 4)
            text = data["text"] if len(data["text"]) <= room else "…" + data["text"][1 - room :]
            sys.stderr.write(f"{LINE}{clock(data['start'])}  {text}")
            sys.stderr.flush()

    def _clear(self) -> None:
        if self._changing:
            sys.stderr.write(LINE)
            sys.stderr.flush()
