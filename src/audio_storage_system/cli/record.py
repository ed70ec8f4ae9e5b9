"""`record`: from the microphone into the archive."""

from __future__ import annotations

import math
import sys
import time
from typing import Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_metadata

METER_WIDTH = 30
QUIETEST_DB = -60.0


def record(
    duration: Annotated[
        float | None, typer.Option("--duration", "-d", metavar="SECONDS", help="How long (default: until Ctrl-C).")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Number or part of the name; see the command doctor.")
    ] = None,
    metadata: options.MetadataValues = None,
    whisper_model: options.Model = None,
    language: options.Language = None,
    no_embeddings: options.NoEmbeddings = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Record from the microphone, then store, transcribe and embed it.

    Ctrl-C ends the recording and keeps what was said. Sound is on the disk within a second: after a crash the next
    command recovers it.
    """
    out = Output(as_json)
    with opened(archive, create=True) as storage:
        say("Recording; Ctrl-C ends it and keeps what was said." if duration is None else "Recording.")
        meter = Meter()
        added = storage.record_and_store_audio(
            duration,
            whisper_model,
            generate_embeddings=not no_embeddings,
            metadata=parse_metadata(metadata),
            language=language,
            device=device_of(device),
            on_level=meter.show,
        )
        meter.clear()
        recording = storage.get_recording(added)
        said = next((t for t in storage.transcripts(added) if t.id == added.transcript_id), None)
    known: dict[str, Any] = {"original_name": recording.original_name, "duration": recording.duration}
    text = said.transcription if said else ""
    out.document({**added.as_dict(), **known, "transcription": text})
    out.line(f"{int(added):>6}  {recording.original_name}  {clock(recording.duration)}")
    out.line(f"        {text or '(no speech)'}")


class Meter:
    """A level meter in one line of the terminal; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._shown = sys.stderr.isatty()

    def show(self, level: float) -> None:
        """Draw the loudest sample since the last call, 0…1, on a scale of decibels."""
        if self._shown:
            sys.stderr.write(f"{clock(time.monotonic() - self._since)} |{bar(level)}|\r")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the meter away."""
        if self._shown:
            sys.stderr.write(" " * (METER_WIDTH + 10) + "\r")


def bar(level: float) -> str:
    """`level` as a bar from -60 dB to full scale."""
    decibels = 20 * math.log10(max(level, 1e-6))
    filled = round(METER_WIDTH * min(max(1 - decibels / QUIETEST_DB, 0.0), 1.0))
    return "█" * filled + " " * (METER_WIDTH - filled)


def device_of(text: str | None) -> int | str | None:
    """A device by its number, or by a part of its name."""
    return int(text) if text and text.isdigit() else text
