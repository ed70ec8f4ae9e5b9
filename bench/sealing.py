"""What sealing costs: storing and reading against the same without it, a second out of a large file, and AES itself.

    python bench/sealing.py [--mib 64] [--large-mib 1024] [--rounds 5]

Both kinds take turns, so that whatever else the machine does meets both. Targets: storing and reading sealed at least
0.8 times as fast as plain; one second (32 kB) out of 1 GB in at most 20 ms.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audio_storage_system.blobs import BlobStore
from audio_storage_system.blobs.local import LocalBlobStore
from audio_storage_system.blobs.sealed import SealedBlobStore
from audio_storage_system.blobs.stream_seal import SEGMENT
from audio_storage_system.catalogue.data_keys import StoredDataKeys
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import migrate
from audio_storage_system.keys import ArchiveKeys
from measuring import MIB, machine

SECOND = 32_000
RANGES = 200


def stores(folder: Path) -> dict[str, BlobStore]:
    """A plain store and a sealed one, whose keys are in a catalogue."""
    database = Database.open(folder / "catalogue.db")
    migrate(database)
    keys = ArchiveKeys("bench", os.urandom(32), True, {"one": os.urandom(32)}, "one")
    data_keys = StoredDataKeys(database, lambda: keys, lambda: keys)
    sealed = SealedBlobStore(LocalBlobStore(folder / "sealed"), keys, data_keys)
    return {"plain": LocalBlobStore(folder / "plain"), "sealed": sealed}


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_all(store: BlobStore, key: str) -> None:
    """Read a blob to its end, as a decoder does."""
    with store.open(key) as file:
        while file.read(1 << 16):
            pass


def add(store: BlobStore, source: Path, key: str) -> None:
    """Store a file."""
    with source.open("rb") as file:
        store.publish(store.stage(file), key)


def add_and_read(folder: Path, size: int, rounds: int) -> None:
    """Print the speed of both, and their ratio."""
    source = folder / "source.wav"
    source.write_bytes(os.urandom(size))
    both = stores(folder)
    took: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for name, store in both.items():
            key = f"audio_files/{number}.wav"
            took.setdefault(("add", name), []).append(seconds(lambda s=store, k=key: add(s, source, k)))
            took.setdefault(("read", name), []).append(seconds(lambda s=store, k=key: read_all(s, k)))
            store.delete(key)
    for what in ("add", "read"):
        plain, sealed = (statistics.median(took[what, name]) for name in ("plain", "sealed"))
        speeds = f"plain {size / plain / MIB:7.0f} MiB/s, sealed {size / sealed / MIB:7.0f} MiB/s"
        print(f"{what:>5}: {speeds}, sealed/plain {plain / sealed:.2f}")
    print(f"  aes: {aes_speed() / MIB:7.0f} MiB/s, AES-256-GCM of {SEGMENT // MIB} MiB at a time, one thread")


def aes_speed() -> float:
    """Bytes per second that the cipher alone encrypts."""
    cipher, block, nonce = AESGCM(os.urandom(32)), os.urandom(SEGMENT), os.urandom(12)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        cipher.encrypt(nonce, block, None)
        count += 1
    return count * SEGMENT / (time.perf_counter() - began)


def ranges(folder: Path, size: int) -> None:
    """Print how long a second takes out of a large file, opening included."""
    for name, store in stores(folder).items():
        store.publish(store.stage(io.BufferedReader(_Noise(size))), "audio_files/large.wav")
        took = sorted(seconds(lambda s=store: _second(s, size)) for _ in range(RANGES))
        middle, p95 = took[len(took) // 2] * 1000, took[int(len(took) * 0.95)] * 1000
        print(f"range: {name:>6}, 1 s of {size / MIB:.0f} MiB: median {middle:.2f} ms, p95 {p95:.2f} ms")


def _second(store: BlobStore, size: int) -> None:
    with store.open("audio_files/large.wav") as file:
        file.seek(random.randrange(size - SECOND))
        assert len(file.read(SECOND)) == SECOND


class _Noise(io.RawIOBase):
    """So many random bytes, the same block again and again."""

    def __init__(self, size: int) -> None:
        self._left, self._block = size, os.urandom(MIB)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        count = min(len(buffer), self._left, MIB)
        memoryview(buffer)[:count] = self._block[:count]
        self._left -= count
        return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=64, help="size of the file stored and read")
    parser.add_argument("--large-mib", type=int, default=1024, help="size of the file that a second is read from")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        add_and_read(Path(name), asked.mib * MIB, asked.rounds)
    with tempfile.TemporaryDirectory() as name:
        ranges(Path(name), asked.large_mib * MIB)
        print(machine(Path(name)))


if __name__ == "__main__":
    main()
