"""`add_note`, `set_metadata`, `transcribe_file`."""

from __future__ import annotations

import time
from pathlib import PurePath

from audio_storage_system.clock import utc_now
from audio_storage_system.errors import DeadlineExceeded, Forbidden
from audio_storage_system.server.mcp import telling
from audio_storage_system.server.mcp.answers import MetadataAnswer, NoteAnswer, TranscribedAnswer
from audio_storage_system.server.mcp.arguments import MAX_CHARS, AddNote, SetMetadata, TranscribeFile
from audio_storage_system.server.mcp.caller import Caller, Progress
from audio_storage_system.server.mcp.reading import chosen, version

NOTES = "notes"
# Clients that are told of progress wait; what is not done by then goes on with the next call.
TRANSCRIBE_SECONDS = 600.0


def add_note(caller: Caller, given: AddNote) -> NoteAnswer:
    """One more note of a recording, under its metadata key `notes`."""
    note = {"at": utc_now().isoformat(timespec="seconds"), "via": "mcp", "text": given.text}
    caller.storage.append_metadata(given.audio_id, NOTES, note)
    notes = caller.storage.get_recording(given.audio_id).metadata.get(NOTES)
    return NoteAnswer(audio_id=given.audio_id, notes=len(notes) if isinstance(notes, list) else 0)


def set_metadata(caller: Caller, given: SetMetadata) -> MetadataAnswer:
    """Metadata of a recording as it is after the change."""
    caller.storage.set_metadata(given.audio_id, given.values, remove=given.remove)
    present = caller.storage.get_recording(given.audio_id).metadata
    metadata, cut = telling.brief_metadata(present, MAX_CHARS)
    return MetadataAnswer(audio_id=given.audio_id, metadata=metadata, metadata_cut=cut)


def transcribe_file(caller: Caller, given: TranscribeFile) -> TranscribedAnswer:
    """A file, stored and transcribed."""
    if caller.folders is None:
        raise Forbidden(principal="This server", action="read files")
    with caller.folders.open(given.path) as file:
        added = caller.storage.add(
            file,
            name=PurePath(given.path).name,
            metadata=given.metadata,
            language=given.language,
            progress=_until(TRANSCRIBE_SECONDS, caller.progress),
        )
    said = chosen(caller, int(added))
    return TranscribedAnswer(
        audio_id=int(added),
        duplicate=added.duplicate,
        version=version(said),
        text=said.transcription[: given.max_chars],
        uri=telling.transcript_uri(int(added)),
        text_cut=len(said.transcription) > given.max_chars,
    )


def _until(seconds: float, progress: Progress) -> Progress:
    """The same, that stops what it is told of after so long."""
    end = time.monotonic() + seconds

    def told(done: float, total: float) -> None:
        progress(done, total)
        if time.monotonic() > end:
            words = f"{done:.0f} of {total:.0f} s of sound are transcribed and kept; call again to go on."
            raise DeadlineExceeded(words, seconds=seconds)

    return told
