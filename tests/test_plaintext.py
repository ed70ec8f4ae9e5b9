"""What looks for plaintext on a disk: it would be of no use if it did not find it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaintext import BLOCK, STEP, Secrets

SOUND = os.urandom(3 * STEP)


@settings(deadline=None)
@given(before=st.integers(0, 100), start=st.integers(0, BLOCK - 16), block=st.integers(0, 2))
def test_16_bytes_of_sound_are_found_wherever_they_lie(before: int, start: int, block: int) -> None:
    secrets = Secrets({}, {"other": os.urandom(STEP), "sound": SOUND})
    run = SOUND[block * STEP + start :][:16]
    assert secrets._sounds_in(os.urandom(before) + run + os.urandom(50)) == {"sound"}
    assert secrets._sounds_in(os.urandom(1 << 16)) == set()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_words_are_found_in_files_and_in_names(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "Quagga.wav").write_bytes(b"x" + "a Zebra".encode(encoding))
    found = Secrets({"one": "zebra", "two": "quagga", "three": "okapi"}, {}).found_in(tmp_path)
    assert set(found) == {"one", "two"}
