"""A spool that another writer goes on with: what was written stays, what follows fits on, and nothing is sealed twice
for one place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system.audio.spool import Spool, SpoolWriter, take_spool

KEY = bytes(range(32))
RATE = 1_000


def sound(frames: int, start: int = 0) -> bytes:
    return np.arange(start, start + frames, dtype="<i2").tobytes()


def written(spool: Spool) -> bytes:
    file, _ = spool.open()
    with file:
        data = file.read()
    return data[data.index(b"data") + 8 :]


def die(writer: SpoolWriter) -> None:
    """As its process: what it has open is closed by the system."""
    if writer._piece:
        os.close(writer._piece.descriptor)
    os.close(writer._journal)
    if writer._lock:
        writer._lock.release()


def resumed(folder: Path, key: bytes | None) -> SpoolWriter:
    spool = take_spool(folder, key)
    assert spool is not None
    return SpoolWriter.resume(spool)


@pytest.mark.parametrize("key", [None, KEY])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=st.lists(st.lists(st.integers(1, 900), max_size=4), min_size=1, max_size=4), torn=st.integers(0, 5))
def test_any_number_of_lives_make_one_recording(
    tmp_path_factory: pytest.TempPathFactory, key: bytes | None, lives: list[list[int]], torn: int
) -> None:
    folder = tmp_path_factory.mktemp("spool") / "one"
    writer, said = SpoolWriter(folder, RATE, 1, {"a": ["b", "text"]}, key), b""
    for number, life in enumerate(lives):
        for frames in life:
            piece = sound(frames, len(said) // 2)
            writer.write(piece)
            said += piece
        die(writer)
        tear(folder, torn, 1_000 * (number + 1))
        writer = resumed(folder, key)
        assert writer.frames == writer.synced == len(said) // 2
    spool = writer.close()
    _, report = spool.open()
    assert written(spool) == said
    assert report.complete and report.gaps == ()
    assert b"".join(spool.sound_from(len(said) // 4)) == said[len(said) // 4 * 2 :]
    numbers = re.findall(rb'"number": (\d+), "sealed"', (folder / "pieces.jsonl").read_bytes())
    assert len(set(numbers)) == len(numbers)
    spool.discard()


def tear(folder: Path, torn: int, number: int) -> None:
    """The last write of a writer that died was cut short."""
    if torn:
        with (folder / "pieces.jsonl").open("ab") as journal:
            journal.write(f'{{"number": {number}, "sealed": "AAAA"'.encode()[: torn * 6 + 4])
        if pieces := sorted(folder.glob("*.pcm")):
            with pieces[-1].open("ab") as file:
                file.write(b"\1" if torn % 2 else b"")


def test_a_gap_before_the_death_is_still_one(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "one", RATE, 1)
    writer.write(sound(100))
    writer.skip(50)
    writer.write(sound(100))
    die(writer)
    writer = resumed(tmp_path / "one", None)
    writer.write(sound(100))
    spool = writer.close()
    _, report = spool.open()
    assert (report.frames, report.missing) == (300, 50)
    spool.discard()


def test_who_reads_while_somebody_writes_gets_all_of_it(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "one", RATE, 2, key=KEY)
    reader, read = Spool(tmp_path / "one", key=KEY), b""
    for number in range(9):
        writer.write(sound(2 * 130, number))
        read += b"".join(reader.sound_from(len(read) // 4))
        assert len(read) == (number + 1) * 130 * 4
    spool = writer.close()
    assert written(spool) == read
    spool.discard()


def test_a_spool_that_somebody_writes_cannot_be_taken(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "one", RATE, 1)
    assert take_spool(tmp_path / "one") is None
    assert take_spool(tmp_path / "two") is None
    writer.close().discard()
