"""Copying an archive, against copying its files and its database with the tools of the system.

    python bench/transfer.py --folder FOLDER [--files 300] [--passages 100000] [--postgres URL]

- system: `cp` of every file, `sync` (an fsync) of each copy, `sha256sum` of each, and SQLite's own backup of the
  catalogue: nothing is compared row by row, ids and indexes come along as pages
- ours: `copy_archive` into an empty folder (and onto a server, where one is named): every file hashed, synced and read
  back, every row written by itself with its full text
- again: the same call with nothing to do; one more: after one recording was added

The files are in the page cache for all of them.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from audio_storage_system import AudioStorageSystem, CopyReport, copy_archive
from audio_storage_system.catalogue import embeddings, passages, transcripts
from audio_storage_system.catalogue.embeddings import NewEmbedding
from audio_storage_system.records import EmbeddingKind, Outcome, Passage, Segment, Space, Span
from measuring import MIB, WORDS, machine

DIMENSION = 384


def make_file(path: Path) -> Path:
    """A WAV file of 1 MiB of random samples."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(os.urandom(MIB - 44))
    return path


def make_archive(home: Path, files: int, per_file: int) -> None:
    rng = np.random.default_rng(1)
    with AudioStorageSystem(home) as storage:
        with storage._archive.database.write() as connection:
            space = embeddings.open_space(
                connection, EmbeddingKind.TRANSCRIPT, model="random", dimension=DIMENSION, spec="user:x", activate=True
            )
        for _ in range(files):
            audio_id = storage.store_audio_file(make_file(home / "new.wav"), metadata={"project": "bench"})
            with storage._archive.database.write() as connection:
                say(connection, int(audio_id), space, rng, per_file)
        (home / "new.wav").unlink()


def say(connection: Any, audio_id: int, space: Space, rng: np.random.Generator, count: int) -> None:
    """A version with `count` segments, each a passage with its vector."""
    said = transcripts.start(connection, audio_id, asked="base", engine="none", parameters={}, language="en")
    pieces = [Segment(n / 10, n / 10 + 0.1, f"{n} {WORDS[n % len(WORDS)]}", confidence=0.9) for n in range(count)]
    kept = transcripts.commit_window(connection, said, 0, Span(0, count / 10), pieces, 0)
    units = [Passage(n, p.id or 0, p.id or 0, p.start, p.end, p.text) for n, p in enumerate(kept)]
    ids = passages.add(connection, units, transcript_id=said, audio_id=audio_id, owner_id=1, language="en")
    vectors = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [NewEmbedding(Span(u.start, u.end), id_, v) for u, id_, v in zip(units, ids, vectors, strict=True)]
    embeddings.add(connection, space, rows, audio_id=audio_id, transcript_id=said)
    transcripts.finish(connection, said, outcome=Outcome.OK, reason=None)
    transcripts.activate(connection, said)


def with_the_system(home: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(["cp", "-r", str(home / "audio_files"), str(target)], check=True)
    copies = [str(path) for path in (target / "audio_files").rglob("*.wav")]
    subprocess.run(["sync", *copies], check=True)
    subprocess.run(["sha256sum", *copies], check=True, stdout=subprocess.DEVNULL)
    source, copy = sqlite3.connect(home / "audio_storage.db"), sqlite3.connect(target / "audio_storage.db")
    source.backup(copy)
    copy.close()
    source.close()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def tell(name: str, took: float, report: CopyReport) -> None:
    assert report.complete, report.problems
    rates = f"{report.bytes_copied / MIB / took:.0f} MiB/s, {report.rows_copied / took:,.0f} rows/s"
    print(f"{name:<22} {took:7.2f} s  {report.blobs_copied} files, {report.rows_copied:,} rows: {rates}")


def run(home: Path, target: str | Path, name: str) -> None:
    tell(name, *seconds(lambda: copy_archive(home, target)))
    tell(f"{name}, again", *seconds(lambda: copy_archive(home, target)))
    with AudioStorageSystem(home) as storage:
        storage.store_audio_file(make_file(home / "new.wav"))
    tell(f"{name}, one more", *seconds(lambda: copy_archive(home, target)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--postgres")
    given = parser.parse_args()
    home = given.folder / "original"
    make_archive(home, given.files, given.passages // given.files)
    took, _ = seconds(lambda: with_the_system(home, given.folder / "system"))
    print(f"{'system':<22} {took:7.2f} s")
    run(home, given.folder / "copy", "to a folder")
    if given.postgres:
        server = given.folder / "server"
        server.mkdir()
        (server / "audio-storage.toml").write_text(f'database_url = "{given.postgres}"')
        run(home, server / "audio-storage.toml", "to PostgreSQL")
    print(machine(given.folder))


if __name__ == "__main__":
    main()
