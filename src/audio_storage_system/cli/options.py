"""Options that many commands share, as types."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class PriorityChoice(StrEnum):
    """Which jobs are done first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class OnDuplicate(StrEnum):
    """What to do with a file whose bytes are stored already."""

    KEEP = "keep"
    UPDATE = "update"
    ERROR = "error"


AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]
ArchivePlace = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="PLACE",
        help="The archive: its folder, its database (postgresql://…) or its audio-storage.toml (default: "
        "$AUDIO_STORAGE_DATABASE_URL, else $AUDIO_STORAGE_HOME, else ./audio_storage).",
    ),
]
AsUser = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Only what this user, group or service may see.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--whisper-model",
        "--model",
        metavar="SPEC",
        help="What transcribes: a Whisper size (base, small, large-v3 …), faster-whisper:FOLDER, openai:MODEL or "
        "pocketsphinx; see the command models.",
    ),
]
Language = Annotated[
    str | None, typer.Option("--language", metavar="CODE", help="ISO 639-1 code of what is spoken (en, de, zh …).")
]
NoEmbeddings = Annotated[bool, typer.Option("--no-embeddings", help="Make no embeddings.")]
MetadataValues = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        "-m",
        metavar="KEY=VALUE",
        help="Metadata, repeatable. Numbers, true, false and ISO dates are kept as such; "
        'everything else, and what stands in double quotes ("1"), is text.',
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only recordings that meet this, repeatable: key=value, key>5 (also >=, <, <=), 'key in a,b', "
        "key (it is there), '!key' (it is not). Besides metadata, key is audio_id, original_name, media_type, "
        "duration, created_at, recorded_at, engine, whisper_model, outcome or confidence.",
    ),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only what was recorded then or later (ISO 8601, UTC).")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only what was recorded before then (ISO 8601, UTC).")
]
SpokenLanguage = Annotated[
    str | None, typer.Option("--language", metavar="CODE", help="Only transcripts in this language (ISO 639-1).")
]
Speaker = Annotated[str | None, typer.Option("--speaker", metavar="NAME", help="Only passages where this one speaks.")]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=0, metavar="N", help="Files worked on at the same time; 0: one per core.")
]
RecordedAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When it was recorded (ISO 8601), for files that do not say so themselves."),
]
WhenDuplicate = Annotated[
    OnDuplicate,
    typer.Option(help="For what is stored already: keep its metadata (adding new keys), update it, or fail."),
]
Background = Annotated[
    bool,
    typer.Option(
        "--background", "-b", help="Leave the work to workers (see the commands worker and jobs); files are stored now."
    ),
]
PriorityName = Annotated[
    PriorityChoice | None,
    typer.Option("--priority", help="With --background: what workers do first (default: normal)."),
]
NoTranscribe = Annotated[bool, typer.Option("--no-transcribe", help="Store the audio and nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
