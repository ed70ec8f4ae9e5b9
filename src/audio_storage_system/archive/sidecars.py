"""Files derived from a recording, for people who look into the folder: its transcript, its embeddings, a small copy.

They are written anew whenever what they show changes, and nothing ever reads them back.
"""

from __future__ import annotations

import io
import json
from pathlib import PurePosixPath
from typing import cast

import numpy as np
from sqlalchemy import Connection

from audio_storage_system.archive.opening import Archive
from audio_storage_system.audio import write_copy
from audio_storage_system.audio.encode import Format as CopyFormat
from audio_storage_system.catalogue import embeddings, recordings, transcripts
from audio_storage_system.records import Recording, Stage

COPIES: dict[str, str] = {"flac": ".flac", "pcm16": ".wav"}


def derived_keys(key: str) -> list[str]:
    """Every key that may be derived from a blob's key, whether it exists or not."""
    return [_key(key, "transcript", ".json"), _key(key, "embedding", ".npy"), *(_copy(key, kind) for kind in COPIES)]


def keys_of(stage: Stage, key: str) -> list[str]:
    """The keys of what belongs to a stage of the recording with this blob, whether it exists or not."""
    vectors = _key(key, "embedding", ".npy")
    return {
        Stage.RECORDING: [key, *derived_keys(key)],
        Stage.AUDIO: [key, *(_copy(key, kind) for kind in COPIES)],
        Stage.TRANSCRIPT: [_key(key, "transcript", ".json"), vectors],
        Stage.EMBEDDINGS: [vectors],
    }[stage]


def refresh(archive: Archive, audio_id: int) -> None:
    """Write what the settings ask for: the derived copy when it is missing, the sidecars as things are now."""
    kind = archive.settings.compress
    if not kind and not archive.settings.sidecars:
        return
    with archive.database.read() as connection:
        recording = recordings.get(connection, audio_id)
    kind = kind if recording.status == recordings.STORED else ""
    if kind and not archive.blobs.has(_copy(recording.file_path, kind)):
        _write_copy(archive, recording, kind)
    if archive.settings.sidecars:
        _write_sidecars(archive, recording)
    with archive.database.read() as connection:
        removed = _removed(connection, recording)
    for key in removed:  # while this was being written
        archive.blobs.delete(key)


def _removed(connection: Connection, recording: Recording) -> list[str]:
    """The keys of what was derived from what is there no longer."""
    key = recording.file_path
    if recordings.find_by_path(connection, key) != recording.id:
        return derived_keys(key)
    said = transcripts.active_of(connection, recording.id) is not None
    copies = [] if recordings.has_audio(connection, recording.id) else keys_of(Stage.AUDIO, key)[1:]
    return copies if said else [*copies, *keys_of(Stage.TRANSCRIPT, key)]


def _write_sidecars(archive: Archive, recording: Recording) -> None:
    """The transcript that search follows as JSON, and its passages' vectors as a numpy array, one row each."""
    with archive.database.read() as connection:
        said = transcripts.active_of(connection, recording.id)
        if said is None:
            return
        pieces = transcripts.segments_of(connection, said.id)
        vectors = embeddings.of_transcript(connection, said.id)
    document = {**said.as_dict(), "recording": recording.as_dict(), "segments": [piece.as_dict() for piece in pieces]}
    _put(archive, _key(recording.file_path, "transcript", ".json"), json.dumps(document, indent=2).encode())
    if vectors:
        data = io.BytesIO()
        np.save(data, np.stack(vectors), allow_pickle=False)
        _put(archive, _key(recording.file_path, "embedding", ".npy"), data.getvalue())


def _write_copy(archive: Archive, recording: Recording, kind: str) -> None:
    """A 16 kHz mono copy of the recording, `flac` or `pcm16`. The original stays as it is."""
    with archive.temporary_file() as file:
        with archive.blobs.open(recording.file_path) as source:
            write_copy(source, file, cast(CopyFormat, kind))
        file.seek(0)
        archive.blobs.replace(archive.blobs.stage(file), _copy(recording.file_path, kind))


def _put(archive: Archive, key: str, data: bytes) -> None:
    archive.blobs.put(key, data)


def _key(key: str, kind: str, suffix: str) -> str:
    """`audio_files/2026/11/audio_X.wav` → `transcripts/2026/11/transcript_X.json`.

    Recordings of one second in different formats have the same X, so a format other than WAV becomes part of the name.
    """
    path = PurePosixPath(key)
    stem = path.stem.removeprefix("audio_")
    stem = stem if path.suffix == ".wav" else f"{stem}_{path.suffix[1:]}"
    return str(PurePosixPath(f"{kind}s", *path.parts[1:-1], f"{kind}_{stem}{suffix}"))


def _copy(key: str, kind: str) -> str:
    return _key(key, "copy", COPIES[kind]).replace("copys/", "copies/", 1)
