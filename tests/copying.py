"""Archives to copy, and how to see that two are equal."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import Engine, event, select

import audio_storage_system
import builders
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.archive.copies import open_original
from audio_storage_system.catalogue import transcripts
from audio_storage_system.database import tables
from audio_storage_system.settings import locate_apart
from audio_storage_system.testing.scripted import FACTORY, SPEC
from audio_storage_system.transcribers import TRANSCRIBERS
from audio_storage_system.transfer.pair import COPIED, MIRRORED

WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "BEGIN IMMEDIATE", "REPLACE")
Place = str | Path


@cache
def speech() -> np.ndarray[Any, Any]:
    """Three seconds of it, at 16 kHz."""
    path = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
    return (20_000 * np.asarray(load_audio(path))[:48_000]).astype("<i2")


def sound(path: Path, seed: int) -> Path:
    """A WAV file of speech in a noise that no other seed makes."""
    noise = np.random.default_rng(seed).integers(-20, 20, len(speech()), dtype="<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((speech() + noise).astype("<i2").tobytes())
    return path


@contextmanager
def scripted() -> Iterator[None]:
    """The engine `scripted` is known while the block runs, also where no fixture can say so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, str], TRANSCRIBERS.builtin), SPEC, FACTORY)
        yield


def fill(home: Place, folder: Path, count: int, **settings: Any) -> None:
    """An archive of `count` recordings with words, vectors and metadata."""
    with AudioStorageSystem(home, transcriber="scripted", **settings) as storage:
        for seed in range(count):
            storage.add(sound(folder / f"{seed}.wav", seed), metadata={"seed": seed, "even": seed % 2 == 0})


def content(place: Place) -> dict[str, Any]:
    """All that an archive holds: every row of every table that is copied, who is buried, and each file's hash."""
    home, named = locate_apart(place)
    with closing(open_original(home, **named)) as archive:
        with archive.database.read() as connection:
            found: dict[str, Any] = {
                table.name: [tuple(row) for row in connection.execute(select(table).order_by(table.c.id))]
                for table in (*COPIED, *MIRRORED)
            }
            found["identity"] = connection.execute(select(tables.archive)).one()
            grave = tables.tombstones.c
            found["buried"] = sorted(
                tuple(row) for row in connection.execute(select(grave.audio_id, grave.file_hash, grave.completed))
            )
        found["audio"] = {key: archive.blobs.describe(key).sha256 for key in archive.blobs.keys("audio_files")}
        assert archive.blobs.has("metadata.json") and not archive.blobs.has("filling.json")
    return found


def answers(place: Place, **settings: Any) -> dict[str, Any]:
    """What an archive says: its numbers, its exports, and what searches find."""
    with AudioStorageSystem(place, create=False, **settings) as storage:
        numbers = storage.stats()
        del numbers["home"]
        listed = storage.list_recordings()
        return {
            "stats": numbers,
            "recordings": [recording.as_dict() for recording in listed],
            "transcripts": [said.as_dict() for found in listed for said in storage.transcripts(found.id)],
            "exports": [
                storage.export(found.id, format, said.id)
                for found in listed
                for said in storage.transcripts(found.id)
                for format in ("srt", "json")
            ],
            "words": _hits(storage.search_similar_audio("is spoken", mode="keyword", limit=50)),
            "meaning": _hits(storage.search_similar_audio("a second of talk", limit=50)),
            "filtered": _hits(storage.search_similar_audio("spoken", where={"even": True}, limit=50)),
        }


def _hits(found: Any) -> list[Any]:
    """Scores differ in the last digits between databases; a passage without a vector is equal to itself."""
    shown = [hit.as_dict() for hit in found]
    return [(hit["audio_id"], hit["transcription"], hit["similarity"] and round(hit["similarity"], 5)) for hit in shown]


@contextmanager
def written() -> Iterator[list[str]]:
    """Every statement that writes to any database while the block runs."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(WRITES):
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time; SQLite's own working files left out."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def fill_much(home: Place, folder: Path, recordings: int, passages: int, model: str = "test") -> list[Any]:
    """An archive with words and vectors that no model made: much of it in little time. The vectors of the first."""
    rng = np.random.default_rng(5)
    with AudioStorageSystem(home) as storage:
        space, first = builders.text_space(storage._archive, 8, model), []
        for seed in range(recordings):
            audio_id = storage.store_audio_file(sound(folder / f"{seed}.wav", seed), metadata={"seed": seed})
            texts = [f"recording {seed} says {word}" for word in rng.permutation(passages)]
            vectors = [builders.unit(rng, 8) for _ in texts]
            first = first or vectors
            talk = builders.Talk(texts, vectors=vectors)
            with storage._archive.database.write() as connection:
                transcripts.activate(connection, builders.say(connection, int(audio_id), talk, space))
        return first
