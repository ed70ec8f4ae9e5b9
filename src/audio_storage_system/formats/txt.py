"""Plain text: one line per segment, as whisper writes it, a known speaker before it as `[name]: `. Has no times."""

from __future__ import annotations

from audio_storage_system.formats.base import Document, Format, cues, one_line, with_speaker


def write(document: Document) -> str:
    """The document as lines of text; segments without text are left out."""
    shown = [cue for cue in cues(document) if cue.text]
    return "".join(f"{with_speaker(cue.speaker, one_line(cue.text))}\n" for cue in shown)


FORMAT = Format("txt", ".txt", "text/plain", write)
