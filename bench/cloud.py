"""Object storage: ours against obstore alone, in turns, over real HTTP on this machine.

    python bench/cloud.py --folder /somewhere/with/space

Needs the test extra (moto). `$AWS_ENDPOINT_URL` names another S3 server to measure, with a bucket `recordings`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import obstore

from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.blobs.cache import CachedBlobStore
from audio_storage_system.blobs.cloud_urls import open_bucket
from measuring import MIB, Took, in_turns, machine, verdict

SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
import servers
with servers.s3_server() as address:
    print(address, flush=True)
    sys.stdin.read()
"""
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def s3() -> Iterator[None]:
    """An S3 server in a process of its own, unless the environment names one."""
    if os.environ.get("AWS_ENDPOINT_URL"):
        yield
        return
    tests = str(Path(__file__).resolve().parent.parent / "tests")
    command = [sys.executable, "-c", SERVER, tests]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        os.environ |= {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.stdout.readline().strip()}
        yield
        server.communicate()


def upload(store: BlobStore, path: Path) -> str:
    """As the pipeline does: hash (to know whether it is stored already), then send without overwriting."""
    with path.open("rb") as file:
        return store.publish(store.stage(file), f"audio_files/{uuid4().hex}.wav")


def download(store: BlobStore, key: str) -> None:
    """From beginning to end, in blocks."""
    with store.open(key) as file:
        while file.read(MIB):
            pass


def bare_download(bucket: Any, key: str) -> None:
    """The same with obstore alone."""
    for _ in obstore.get(bucket, key).stream(min_chunk_size=MIB):
        pass


def contenders(url: str, path: Path, cache: Path) -> dict[str, Callable[[int], Any]]:
    """What takes turns."""
    store, bucket = open_blob_store(url), open_bucket(url)._transfer()
    key = upload(store, path)
    cached = CachedBlobStore(store, cache, 4 * path.stat().st_size)
    return {
        "upload, obstore": lambda turn: obstore.put(bucket, f"bare/{turn}.wav", path),
        "upload, ours": lambda turn: upload(store, path),
        "download, obstore": lambda turn: bare_download(bucket, key),
        "download in ranges, ours": lambda turn: download(store, key),
        "download and hash, ours": lambda turn: store.describe(key),
        "download through an empty cache": lambda turn: download(emptied(cached, cache), key),
        "read again from the cache": lambda turn: download(cached, key),
    }


def emptied(cached: BlobStore, folder: Path) -> BlobStore:
    """As on the first day."""
    shutil.rmtree(folder, ignore_errors=True)
    return cached


def report(took: dict[str, list[Took]]) -> None:
    """Medians, and ours against obstore's."""
    walls = {name: median(turn.wall for turn in turns) for name, turns in took.items()}
    for name, turns in took.items():
        cpu = median(turn.cpu for turn in turns)
        print(f"{name}: median {walls[name]:.2f} s, CPU {cpu:.2f} s; {', '.join(f'{t.wall:.2f}' for t in turns)}")
    verdict("upload, speed of ours / obstore", walls["upload, obstore"] / walls["upload, ours"], 0.8, at_least=True)
    for name in list(walls)[3:]:
        print(f"{name}, speed against obstore's download: {walls['download, obstore'] / walls[name]:.3f} x")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    path = options.folder / "bench-cloud.wav"
    path.write_bytes(os.urandom(options.megabytes * MIB))
    cache = options.folder / "bench-cache"
    with s3():
        report(in_turns(contenders(f"s3://recordings/{uuid4().hex}", path, cache), options.turns))
    path.unlink()
    shutil.rmtree(cache)
    print(machine(options.folder))


if __name__ == "__main__":
    main()
