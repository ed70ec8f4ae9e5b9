"""Temporary files that nobody else can read."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system.audio import load_audio, write_copy
from audio_storage_system.scratch import BLOCK, SealedFile
from sounds import noise, wav

PLACES = st.integers(0, 3 * BLOCK) | st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
STEPS = st.lists(st.tuples(st.booleans(), PLACES, PLACES), max_size=12)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, seed=st.binary(min_size=1, max_size=8))
def test_it_reads_and_writes_as_any_file_does(steps: list[tuple[bool, int, int]], seed: bytes) -> None:
    model = io.BytesIO()
    with SealedFile() as file:
        for writes, start, size in steps:
            assert file.seek(start) == model.seek(start)
            if writes:
                data = (seed * (size // len(seed) + 1))[:size]
                assert file.write(data) == model.write(data)
            else:
                assert _read(file, size) == model.read(size)
            assert file.seek(0, os.SEEK_END) == model.seek(0, os.SEEK_END)
        file.seek(0)
        assert file.readall() == model.getvalue()


def _read(file: SealedFile, size: int) -> bytes:
    data = b""
    while size > len(data) and (block := file.read(size - len(data))):
        data += block
    return data


@pytest.mark.parametrize("format", ["flac", "pcm16"])
def test_a_copy_is_made_in_it_and_the_disk_gets_nothing_of_it(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named"
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: named.open("w+b", buffering=0))
    original = wav(noise(20.0))
    write_copy(io.BytesIO(original), tmp_path / "copy", format)  # type: ignore[arg-type]
    with SealedFile() as file:
        write_copy(io.BytesIO(original), file, format)  # type: ignore[arg-type]
        file.seek(0)
        data = file.readall()
    assert data == (tmp_path / "copy").read_bytes()
    assert len(load_audio(io.BytesIO(data))) == 20 * 16_000
    stored = named.read_bytes()
    assert len(stored) > 2 * BLOCK
    assert not any(data[at : at + 16] in stored for at in range(0, len(data), 999))
