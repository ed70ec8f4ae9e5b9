"""The cache of query vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive.query_vectors import QueryVectors
from audio_storage_system.embedders.function import FunctionTextEmbedder


def embedder(name: str) -> FunctionTextEmbedder:
    return FunctionTextEmbedder(lambda text: np.ones(3), name)


def test_a_query_is_embedded_once_until_others_push_it_out() -> None:
    cache, made, one = QueryVectors(most=2), [], embedder("a")

    def ask(text: str, owner: int = 1, by: FunctionTextEmbedder = one) -> None:
        cache.get(owner, by, text, lambda: made.append((owner, by.model, text)) or one.embed(text))

    for text in ["x", "y", "x", "z", "x", "y"]:
        ask(text)
    assert [text for _, _, text in made] == ["x", "y", "z", "y"]
    ask("y", owner=2)
    ask("y", by=embedder("b"))
    assert made[-2:] == [(2, "user:a", "y"), (1, "user:b", "y")]


def test_another_function_is_asked_anew(tmp_path: Path, demo: Path, scripted_engine: object) -> None:
    asked: list[str] = []

    def first(text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        asked.append(text)
        return np.array([1.0, len(text)])

    with AudioStorageSystem(tmp_path / "a") as storage:
        storage.add(demo / "call.flac", whisper_model="scripted")
        storage.use_embedder(first, name="f")
        for _ in range(3):
            storage.search_similar_audio("spoken")
        assert asked.count("spoken") == 1
        storage.use_embedder(lambda text: np.array([3.0, len(text)]), name="f")
        assert storage.generate_text_embedding("spoken")[0] != pytest.approx(first("spoken")[0])
        assert storage.search_similar_audio("spoken").total == 1
