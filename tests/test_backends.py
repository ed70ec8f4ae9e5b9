"""The whole pipeline, the same on every combination of catalogue, blob store and vector index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.errors import NotFound

# Catalogue, blobs, vectors: names of the fixtures below, `None` for what an archive has by itself.
COMBINATIONS = {
    "sqlite+local": (None, None, None),
    "sqlite+s3": (None, "s3", None),
    "encrypted": ("encrypted", None, None),
    "encrypted+s3": ("encrypted", "s3", None),
    "sqlite+chroma": (None, None, "chroma"),
    "sqlite+lancedb": (None, None, "lancedb"),
    "sqlite+pgvector": (None, None, "pgvector"),
    "postgresql+local+pgvector": ("postgresql", None, None),
    "postgresql+s3+pgvector": ("postgresql", "s3", None),
    "postgresql+qdrant": ("postgresql", None, "qdrant"),
}
# What the scripted engine hears in each of the demo's recordings.
SAID = {
    "call": "scripted:good morning my heating is broken",
    "meeting": "scripted:the building is ready and we move in november",
    "voice_note": "scripted:remember to buy apples and bread",
}


@pytest.fixture(params=COMBINATIONS, ids=str)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, Any]:
    """What `AudioStorageSystem` has to be given."""
    catalogue, blobs, vectors = COMBINATIONS[request.param]
    finders: dict[str, Callable[[], str]] = {
        "postgresql": lambda: str(request.getfixturevalue("postgres_url")),
        "pgvector": lambda: str(request.getfixturevalue("postgres_url")),
        "s3": lambda: str(request.getfixturevalue("s3_url")),
        "chroma": lambda: f"chroma:{tmp_path / 'chroma'}",
        "lancedb": lambda: f"lancedb:{tmp_path / 'lance'}",
        "qdrant": lambda: f"qdrant:{tmp_path / 'qdrant'}",
    }
    for name in (vectors,) if vectors in ("chroma", "lancedb", "qdrant") else ():
        pytest.importorskip({"chroma": "chromadb", "lancedb": "lancedb", "qdrant": "qdrant_client"}[name])
    given = {"database_url": catalogue, "blobs_url": blobs, "vectors_url": vectors}
    if catalogue == "encrypted":
        return {"encryption": f"keyfile:{tmp_path / 'key'}", **({"blobs_url": finders[blobs]()} if blobs else {})}
    return {name: finders[kind]() for name, kind in given.items() if kind}


@pytest.fixture
def opened(
    place: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], AudioStorageSystem]]:
    """Opens the archive, again and again."""
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "home"))
    handles: list[AudioStorageSystem] = []

    def open_it() -> AudioStorageSystem:
        handles.append(AudioStorageSystem(place.get("database_url") or tmp_path / "home", **place))
        return handles[-1]

    yield open_it
    for handle in handles:
        handle.close()


def test_what_is_put_in_is_found_and_what_is_deleted_is_gone(
    opened: Callable[[], AudioStorageSystem], demo: Path, scripted_engine: object
) -> None:
    storage = opened()
    ids = {
        path.stem: int(storage.add(path, whisper_model=SAID[path.stem], metadata={"user": path.stem, "week": 47}))
        for path in sorted(demo.glob("*.flac"))
    }
    again = storage.add(demo / "call.flac", whisper_model=SAID["call"], metadata={"project": "move"})
    assert (int(again), again.duplicate) == (ids["call"], True)
    _check_finding(storage, ids)
    with storage.open_audio(ids["call"]) as file:
        data = file.read()
    assert data == (demo / "call.flac").read_bytes()
    fingerprint = storage._archive.blobs.fingerprint(hashlib.sha256(data).hexdigest())
    assert storage.get_recording(ids["call"]).file_hash == fingerprint
    assert all(state.indexed == state.total == 3 for state in storage.reindex().values())
    storage.close()

    storage = opened()
    _check_finding(storage, ids)
    storage.delete(ids["call"])
    assert "call.flac" not in {hit.original_name for hit in storage.search_similar_audio("my heating is broken")}
    with pytest.raises(NotFound):
        storage.get_recording(ids["call"])
    assert storage.stats()["recordings"] == 2
    assert {state.total for state in storage.reindex().values()} == {2}


def _check_finding(storage: AudioStorageSystem, ids: Mapping[str, int]) -> None:
    for mode in ("hybrid", "semantic", "keyword"):
        found = storage.search_similar_audio("my heating is broken", mode=mode)
        assert found[0].audio_id == ids["call"], mode
        assert -1 <= found[0].similarity <= 1
    for name, id_ in ids.items():
        found = storage.search_similar_audio("what do we do about the building", where={"user": name})
        assert [hit.audio_id for hit in found] == [id_]
    assert storage.search_similar_audio("heating", until="2000-01-01").hits == ()
    assert storage.search_similar_audio("heating", where={"project": "move", "week": {"gte": 47}}).total == 1
    with storage.open_audio(ids["meeting"]) as file:
        alike = storage.search_similar_audio(audio=load_audio(file), by="audio", limit=1)
    assert alike[0].audio_id == ids["meeting"]
    assert "[1] call.flac" in storage.context_pack("my heating is broken").text


def test_versions_are_switched_everywhere_at_once(
    opened: Callable[[], AudioStorageSystem], demo: Path, scripted_engine: object
) -> None:
    storage = opened()
    audio_id = storage.add(demo / "call.flac", whisper_model=SAID["call"])
    first = storage.transcripts(audio_id)[0].id
    storage.generate_transcript(audio_id, whisper_model=SAID["voice_note"])
    storage.generate_embeddings(audio_id)
    for mode in ("keyword", "semantic"):
        assert "apples" in storage.search_similar_audio("apples", mode=mode)[0].transcription
    assert storage.search_similar_audio("heating", mode="keyword").total == 0
    storage.activate_transcript(first)
    for mode in ("keyword", "semantic"):
        assert "heating" in storage.search_similar_audio("heating", mode=mode)[0].transcription
    assert storage.search_similar_audio("apples", mode="keyword").total == 0


def test_a_users_function_opens_its_own_space(
    opened: Callable[[], AudioStorageSystem], demo: Path, scripted_engine: object
) -> None:
    storage = opened()
    storage.add(demo / "call.flac", whisper_model=SAID["call"])
    storage.generate_text_embedding = lambda text: np.array([1.0, len(text), text.count("e")])
    assert storage.search_similar_audio("heating").warnings
    storage.generate_embeddings(1)
    assert storage.search_similar_audio("heating", mode="semantic").total == 1
    assert not storage.search_similar_audio("heating").warnings
