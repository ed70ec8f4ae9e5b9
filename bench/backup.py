"""Backing up an archive, against copying its files with the tools of the system.

    python bench/backup.py --folder FOLDER [--recordings 10000] [--passages 200000] [--file-kib 64] [--postgres URL]

- system: `cp -r` of the archive's folder, or, for a catalogue on a server, of its audio: the floor, which is neither
  consistent nor compared with anything
- full: the first set; unchanged: the next one, of the same archive; one more: after one recording was added and one
  described otherwise
- verify: all of it read back and hashed; restore: into an empty folder, read back and counted

The files are in the page cache for all of them.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.backup import BackupReport
from audio_storage_system.catalogue import embeddings, recordings
from audio_storage_system.clock import utc_now
from audio_storage_system.records import AudioInfo, EmbeddingKind, Space
from measuring import machine
from transfer import DIMENSION, make_file, say

AT_ONCE = 100


def make_archive(place: Path, count: int, passages: int, size: int) -> None:
    rng = np.random.default_rng(1)
    with AudioStorageSystem(place) as storage:
        with storage._archive.database.write() as connection:
            space = embeddings.open_space(
                connection, EmbeddingKind.TRANSCRIPT, model="random", dimension=DIMENSION, spec="user:x", activate=True
            )
        for first in range(0, count, AT_ONCE):
            some = range(first, min(first + AT_ONCE, count))
            enter(storage, some, space, rng, passages // count, size)


def enter(
    storage: AudioStorageSystem, some: range, space: Space, rng: np.random.Generator, passages: int, size: int
) -> None:
    """Recordings of random bytes, many in one transaction."""
    blobs, info = storage._archive.blobs, AudioInfo(60.0, 16_000, 1, "pcm_s16le", "audio/wav")
    staged = [blobs.stage(io.BytesIO(os.urandom(size))) for _ in some]
    keys = [
        blobs.publish(one, f"audio_files/2026/11/{number:08}.wav") for one, number in zip(staged, some, strict=True)
    ]
    with storage._archive.database.write() as connection:
        for number, one, key in zip(some, staged, keys, strict=True):
            audio_id = recordings.add(
                connection,
                owner_id=1,
                file_hash=one.sha256,
                file_path=key,
                file_size=one.size,
                original_name=f"{number}.wav",
                info=info,
                recorded_at=utc_now(),
                offset_minutes=None,
                values={"project": "bench", "number": number},
            )
            say(connection, audio_id, space, rng, passages)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def tell(name: str, took: float, report: BackupReport) -> None:
    assert report.complete, report.problems
    what = f"{report.blobs_copied:,} of {report.blobs:,} files, {report.packs_written:,} packs new"
    print(f"{name:<12} {took:7.2f} s  {sum(report.rows.values()):,} rows, {what}, {report.packs_reused:,} there")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--file-kib", type=int, default=64)
    parser.add_argument("--postgres")
    given = parser.parse_args()
    home = given.folder / "archive"
    place = home
    if given.postgres:
        home.mkdir(parents=True)
        place = home / "audio-storage.toml"
        place.write_text(f'database_url = "{given.postgres}"')
    make_archive(place, given.recordings, given.passages, given.file_kib << 10)
    took, _ = seconds(lambda: subprocess.run(["cp", "-r", str(home), str(given.folder / "system")], check=True))
    print(f"{'system':<12} {took:7.2f} s")
    dest = given.folder / "backup"
    with AudioStorageSystem(place) as storage:
        tell("full", *seconds(lambda: storage.backups.create(dest)))
        for _ in range(3):
            tell("unchanged", *seconds(lambda: storage.backups.create(dest)))
        storage.store_audio_file(make_file(given.folder / "new.wav"))
        storage.set_metadata(1, {"project": "changed"})
        tell("one more", *seconds(lambda: storage.backups.create(dest)))
        took, report = seconds(lambda: storage.backups.verify(dest))
        assert report.whole
        print(f"{'verify':<12} {took:7.2f} s")
    took, restored = seconds(lambda: restore_backup(str(dest), str(given.folder / "restored")))
    assert restored.complete
    print(f"{'restore':<12} {took:7.2f} s")
    print(machine(given.folder))


if __name__ == "__main__":
    main()
