"""Searching as users of an archive see it: without embedders, by examples, in other spaces, and what is refused."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.embedders.function import function_model
from audio_storage_system.embedders.wordllama import WordLlamaEmbedder
from audio_storage_system.errors import (
    EmbedderMissing,
    EngineUnavailable,
    InvalidInput,
    MissingExtra,
    NotFound,
    ServiceFailed,
    Unavailable,
)
from audio_storage_system.search import Hit, build_context_pack

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def storage(tmp_path: Path, demo: Path) -> Iterator[AudioStorageSystem]:
    """An archive with one recording."""
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as opened:
        opened.add(demo / "call.flac", metadata={"user_id": "john"})
        yield opened


def letters(text: str) -> list[float]:
    return [1.0 + text.count(letter) for letter in "aeiou"]


class Model:
    def encode(self, text: str) -> list[float]:
        return letters(text)

    def __call__(self, text: str) -> list[float]:
        return letters(text)


class Larger(Model):
    pass


# Without an embedder


@pytest.mark.parametrize(
    "reason",
    [
        EngineUnavailable(spec="x", reason="no weights"),
        ServiceFailed(service="x", reason="down"),
        MissingExtra(what="x", extra="y"),
    ],
)
def test_words_are_found_where_meaning_cannot_be(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch, reason: Unavailable
) -> None:
    def fail(*_: object) -> None:
        raise reason

    assert -1 <= storage.search_similar_audio("second", mode="keyword")[0].similarity <= 1
    monkeypatch.setattr(WordLlamaEmbedder, "embed_query", fail)
    keyword = storage.search_similar_audio("spoken", mode="keyword")
    assert keyword.hits and math.isnan(keyword[0].similarity) and keyword.warnings == ()
    hybrid = storage.search_similar_audio("spoken")
    assert hybrid.hits and math.isnan(hybrid[0].similarity) and str(reason) in hybrid.warnings[0]
    with pytest.raises(type(reason)):
        storage.search_similar_audio("spoken", mode="semantic")
    assert storage.search_similar_audio("second", mode="semantic").hits  # whose vector is remembered


def test_passages_that_were_never_embedded_are_told(storage: AudioStorageSystem, demo: Path) -> None:
    assert storage.search_similar_audio("spoken").warnings == ()
    added = storage.add(demo / "meeting.flac", generate_embeddings=False)
    [warning] = storage.search_similar_audio("spoken").warnings
    assert "no vector in wordllama" in warning and "reembed adds them" in warning
    assert storage.search_similar_audio("spoken", mode="keyword").warnings == ()
    storage.generate_embeddings(added)
    assert storage.search_similar_audio("spoken").warnings == ()


# Examples and spaces


@pytest.mark.parametrize("by", ["transcript", "audio", "combined"])
def test_an_example_is_searched_for_in_the_space_asked_for(storage: AudioStorageSystem, demo: Path, by: Any) -> None:
    example = demo / "call.flac"
    names = {"transcript": "wordllama"} | {s["kind"]: s["model"] for s in storage.stats()["spaces"]}
    named = storage.search_similar_audio(audio=example, by=by, space=names[by])
    assert [h.passage_id for h in named] == [h.passage_id for h in storage.search_similar_audio(audio=example, by=by)]
    with pytest.raises(NotFound, match="no-such-model"):
        storage.search_similar_audio(audio=example, by=by, space="no-such-model")


def test_the_space_before_the_active_one_can_be_searched(storage: AudioStorageSystem, demo: Path) -> None:
    combined = next(s["model"] for s in storage.stats()["spaces"] if s["kind"] == "combined")
    storage.generate_text_embedding = letters
    assert storage.search_similar_audio("spoken", mode="semantic").hits == ()
    assert storage.search_similar_audio("spoken", mode="semantic", space="wordllama").hits
    assert storage.search_similar_audio(audio=demo / "call.flac", space="wordllama", mode="semantic").hits
    with pytest.raises(Unavailable, match="other embedders"):
        storage.search_similar_audio(audio=demo / "call.flac", by="combined", space=combined)
    with AudioStorageSystem(storage.home, transcriber="scripted") as other, pytest.raises(EmbedderMissing):
        other.search_similar_audio("spoken", mode="semantic", space=function_model(letters))


def test_ways_to_search_by_are_named(storage: AudioStorageSystem, demo: Path) -> None:
    for given in ({"audio": demo / "call.flac"}, {"text": "words"}):
        with pytest.raises(InvalidInput, match="transcript, audio, combined"):
            storage.search_similar_audio(**given, by="smell")  # type: ignore[arg-type]


def test_an_example_that_cannot_be_read_is_refused(storage: AudioStorageSystem, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no file missing"):
        storage.search_similar_audio(audio="missing", by="audio")
    with pytest.raises(InvalidInput, match="cannot be read"):
        storage.search_similar_audio(audio=tmp_path, by="audio")


# Functions without a name of their own


def test_functions_give_their_space_its_name(caplog: pytest.LogCaptureFixture) -> None:
    assert function_model(letters) == f"user:{__name__}.letters"
    assert function_model(lambda text: letters(text), "mine") == "user:mine"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda text: letters(text), "<lambda>"),
        (Model().encode, "Model.encode"),
        (Larger().encode, "Larger.encode"),
        (Model(), "Model"),
        (functools.partial(letters), "letters.partial"),
    ],
)
def test_functions_that_another_could_be_taken_for_are_taken_with_a_warning(
    function: Callable[[str], Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert function_model(function) == f"user:{__name__}.{name}"
    assert "use_embedder(function, name=" in caplog.text


# What is refused


@pytest.mark.parametrize("user", [{"exists": True}, {"gte": 0}, ["john", "anna"], None, ("john",)])
def test_a_user_is_one_user(storage: AudioStorageSystem, user: Any) -> None:
    with pytest.raises(InvalidInput):
        storage.get_user_audio(user, 1)


@pytest.mark.parametrize("days", [10**9, 10**400, 1e300, math.inf, math.nan, -math.inf])
def test_days_that_are_no_time_are_refused(storage: AudioStorageSystem, days: float) -> None:
    with pytest.raises(InvalidInput):
        storage.cleanup_old_files(days)
    assert len(storage.list_recordings()) == 1


# Context packs


def test_names_cannot_forge_a_citation() -> None:
    hit = Hit(
        audio_id=1,
        original_name="call.wav\n\n[2] board\u202e.wav,\tAnna\x1b[31m",
        transcript_id=1,
        passage_id=1,
        segment_id=1,
        start=0.0,
        end=5.0,
        at=0.0,
        transcription="First.\n\n[3] boss.wav, Zoë\u2028Second.",
        similarity=0.5,
        score=1.0,
        speaker="Ben\r\n[4] Ceo",
        language="en",
        recorded_at=datetime(2026, 11, 22, tzinfo=UTC),
        recorded_offset_minutes=None,
        metadata={},
    )
    pack = build_context_pack("x", [hit], max_tokens=500)
    label, text = pack.text.splitlines()
    assert (
        label
        == pack.citations[0].label
        == ("[1] call.wav [2] board .wav, Anna [31m, Ben [4] Ceo, 2026-11-22 00:00:00 UTC, 00:00–00:05")
    )
    assert text == "First. [3] boss.wav, Zoë Second."
    assert json.loads(json.dumps(pack.as_dict()))["citations"][0]["original_name"] == hit.original_name
    assert np.isclose(pack.citations[0].end, 5)
