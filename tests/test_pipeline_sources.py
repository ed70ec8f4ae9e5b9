"""A recording's sound for the steps that need it: decoded once when it is short, again and again when it is long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_storage_system.audio import load_audio
from audio_storage_system.blobs.local import LocalBlobStore
from audio_storage_system.errors import NotFound
from audio_storage_system.pipeline import Source, sources
from audio_storage_system.testing.blobs import put
from sounds import encoded, noise


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


@pytest.fixture
def source(store: LocalBlobStore) -> Source:
    return Source(store, put(store, encoded(noise(5.5), "flac", "flac"), "a.flac"))


def test_a_short_recording_is_decoded_once(store: LocalBlobStore, source: Source, tmp_path: Path) -> None:
    whole = load_audio(tmp_path / "a.flac")
    first = np.concatenate(list(source.blocks()))
    store.delete(source.key)
    again = np.concatenate(list(source.blocks()))
    assert np.array_equal(first, whole)
    assert np.array_equal(again, whole)


def test_what_was_not_read_to_its_end_is_decoded_again(source: Source, tmp_path: Path) -> None:
    blocks = source.blocks()
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert np.array_equal(np.concatenate(list(source.blocks())), load_audio(tmp_path / "a.flac"))


def test_a_long_recording_is_not_kept(store: LocalBlobStore, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "KEPT_SECONDS", 5)
    assert sum(map(len, source.blocks())) == 88_000
    store.delete(source.key)
    with pytest.raises(NotFound):
        next(source.blocks())
