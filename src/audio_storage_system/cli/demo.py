"""`demo`: three recordings, transcribed and searched, to see what this is."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audio_storage_system
from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.search import show_hits
from audio_storage_system.cli.session import opened

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem

DEFAULT_PLACE = "audio_storage_demo"
RECORDINGS = {"meeting.flac": "meeting", "call.flac": "call", "voice_note.flac": "note"}
SAMPLE_SECONDS = 4
SEARCHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("By meaning: a broken heater", {"text": "a broken heater", "mode": "semantic"}),
    ("By meaning and words: spending money on laptops", {"text": "spending money on laptops"}),
    ("By its word: doctor", {"text": "doctor", "mode": "keyword"}),
    ("Only in meetings: hiring staff", {"text": "hiring staff", "where": {"kind": "meeting"}}),
)


def demo(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Build a small archive from three recordings that come with the program, and search it. Needs no network.

    The archive is made in ./audio_storage_demo, or where --archive says.
    """
    out = Output(as_json)
    place = archive or DEFAULT_PLACE
    with opened(place, create=True) as storage, ExitStack() as stack:
        paths = [stack.enter_context(as_file(_folder() / name)) for name in RECORDINGS]
        out.line(f"Adding three recordings to {storage.home}")
        added = _fill(storage, paths, out)
        answers = [_answer(storage, title, query, out) for title, query in SEARCHES]
        answers.append(_sounds_alike(storage, paths[-1], out))
        pack = storage.context_pack("When do we move to the new building?", max_tokens=120)
        _show_heading("As context for a language model: when do we move to the new building?", out)
        out.line(pack.text)
    out.line(f'\nGo on by yourself: audio-storage search "train to the airport" --archive {place}')
    out.document({"added": added, "searches": answers, "context_pack": pack.as_dict(), "archive": str(storage.home)})


def _folder() -> Any:
    return files(audio_storage_system) / "demo"


def _fill(storage: AudioStorageSystem, paths: list[Path], out: Output) -> list[dict[str, Any]]:
    added = []
    for path, kind in zip(paths, RECORDINGS.values(), strict=True):
        audio_id = storage.add(path, metadata={"kind": kind}, whisper_model="pocketsphinx")
        recording = storage.get_recording(audio_id)
        known = " (stored before)" if audio_id.duplicate else ""
        out.line(f"  {recording.original_name}  {clock(recording.duration)}{known}")
        added.append({**audio_id.as_dict(), "original_name": recording.original_name})
    return added


def _answer(storage: AudioStorageSystem, title: str, query: dict[str, Any], out: Output) -> dict[str, Any]:
    results = storage.search_similar_audio(**query, limit=1)
    _show_heading(title, out)
    show_hits(results, out)
    return {"title": title, **results.as_dict()}


def _sounds_alike(storage: AudioStorageSystem, path: Path, out: Output) -> dict[str, Any]:
    """Who else has the voice of the voice note?"""
    title = "By its sound: who else has the voice of voice_note.flac?"
    whole = audio_storage_system.load_audio(path)
    sample = audio_storage_system.Waveform(whole[: SAMPLE_SECONDS * whole.sample_rate], whole.sample_rate)
    others = {"kind": {"in": ["meeting", "call"]}}
    results = storage.search_similar_audio(audio=sample, by="audio", where=others, limit=2)
    _show_heading(title, out)
    show_hits(results, out)
    return {"title": title, **results.as_dict()}


def _show_heading(text: str, out: Output) -> None:
    out.line()
    out.styled((text, "bold"))
