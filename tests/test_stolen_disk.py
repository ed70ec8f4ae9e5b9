"""Whoever gets hold of an encrypted archive's disk reads nothing: not a word, not a name, not 16 bytes of sound.

The archive is used for everything there is, and its processes are killed in the middle. The same search finds all of it
on the disk of an archive that is not encrypted.
"""

from __future__ import annotations

import itertools
import multiprocessing.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import working
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.embedders import TEXT_EMBEDDERS
from audio_storage_system.errors import InvalidSetting
from audio_storage_system.testing import scripted
from plaintext import Secrets
from sounds import encoded, noise, wav

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")

KILLED = -9
SPOKEN = {"added": "hemoglobin", "again": "perihelion", "queued": "thalassemia", "fetched": "ionosphere"}
METADATA = {"key": "clientele", "value": "quixotic", "later": "sassafras", "captured": "mellifluous"}
NAMES = {"file": "zebrafish", "compressed": "ocelot", "deleted": "axolotl", "job": "pangolin"}
ASKED = "marzipan"

# A process that captures until it is killed, what it hears being given; as `record` does after the device.
CAPTURE = """
import os, sys, time
from pathlib import Path
from audio_storage_system import AudioStorageSystem
from audio_storage_system.audio.spool import SpoolWriter
from audio_storage_system.catalogue.metadata import encode

with AudioStorageSystem(sys.argv[1]) as storage:
    archive = storage._archive
    typed = {"by": list(encode("by", "mellifluous")[:2])}
    writer = SpoolWriter(archive.spool / ("f" * 32), 16_000, 1, typed, archive.key_for("spool"))
    for block in iter(lambda: sys.stdin.buffer.read(3200), b""):
        writer.write(block)
    print("written", flush=True)
    time.sleep(60)
"""


def samples(seconds: float, seed: int) -> bytes:
    """Noise as 16-bit samples, of which no 16 bytes occur twice."""
    return wav(noise(seconds, level=0.2, seed=seed))[44:]


@dataclass
class Disk:
    """All that a thief gets: the archive, its caches, and the folder of temporary files."""

    folder: Path
    encrypted: bool
    secrets: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def sought(self) -> Secrets:
        return Secrets({**SPOKEN, **METADATA, **NAMES, "asked": ASKED}, self.secrets)

    @property
    def home(self) -> Path:
        return self.folder / "archive"

    def open(self, **settings: Any) -> AudioStorageSystem:
        given = {"transcriber": "scripted", "sidecars": True, "compress": "pcm16", **settings}
        if self.encrypted:
            given["encryption"] = True
        return AudioStorageSystem(self.home, **given)

    def check(self, *sounds: str) -> None:
        """Nothing is found here; or everything that was put here so far, where it is not encrypted."""
        found = self.sought.found_in(self.folder)
        if self.encrypted:
            assert found == {}
        else:
            assert set(sounds) <= set(found)


@pytest.fixture(params=["encrypted", "plain"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(tmp_path / "disk", request.param == "encrypted")
    multiprocessing.util.get_temp_dir()  # for its sockets, whose paths have to be short: not in the folder below
    places = {"TMPDIR": "tmp", "XDG_CACHE_HOME": "caches", "AUDIO_STORAGE_BLOB_CACHE_DIR": "caches/blobs"}
    for name, place in places.items():
        (made.folder / place).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(made.folder / place))
    monkeypatch.setattr(tempfile, "tempdir", str(made.folder / "tmp"))
    _keep_temporary_files(monkeypatch, made.folder / "tmp")
    monkeypatch.setenv("AUDIO_STORAGE_KEY_FILE", str(tmp_path / "elsewhere" / "key"))
    monkeypatch.setitem(cast(dict[str, str], TEXT_EMBEDDERS.builtin), "scripted", scripted.TEXT_FACTORY)
    return made


def _keep_temporary_files(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What has no name, or is removed at once, stays on the disk too: a thief finds it in what is free."""
    numbers = itertools.count()

    def kept(*_: object, **given: Any) -> Any:
        return (folder / f"kept{next(numbers)}").open("w+b", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", kept)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", kept)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: _Kept(folder / f"kept{next(numbers)}"))


class _Kept:
    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.name = str(path)

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        """It stays."""


def files(folder: Path) -> Mapping[str, Path]:
    """Files to be stored; they lie on another disk."""
    folder.mkdir()
    paths = {}
    for seed, (name, word) in enumerate(NAMES.items(), 1):
        paths[name] = working.talk(folder / f"{word}.wav", seed, windows=3)
    spoken, paths["compressed"] = load_audio(paths["compressed"]), folder / f"{NAMES['compressed']}.flac"
    paths["compressed"].write_bytes(encoded(spoken, "flac", "flac"))
    return paths


def test_a_stolen_disk_tells_nothing(disk: Disk, tmp_path: Path, scripted_engine: object) -> None:
    given = files(tmp_path / "given")
    disk.secrets |= {f"sound of {name}": path.read_bytes()[100:] for name, path in given.items()}
    decoded = np.rint(load_audio(given["compressed"]) * 32767).astype("<i2").tobytes()
    disk.secrets |= {"decoded": decoded, "captured sound": samples(4.2, seed=5)}
    _use(disk, given)
    _watch(disk, tmp_path / "given")
    _capture(disk)
    _work(disk, given["job"])
    disk.check(*disk.secrets, *SPOKEN.keys() - {"fetched"}, *METADATA, *NAMES)


def _use(disk: Disk, given: Mapping[str, Path]) -> None:
    with disk.open() as storage:
        values = {METADATA["key"]: METADATA["value"]}
        first = storage.add(given["file"], metadata=values, whisper_model=f"scripted:{SPOKEN['added']}")
        storage.add(given["compressed"], metadata=values, whisper_model=f"scripted:{SPOKEN['added']}")
        gone = storage.add(given["deleted"], whisper_model="scripted:x")
        for mode in ("hybrid", "semantic", "keyword"):
            assert storage.search_similar_audio(SPOKEN["added"], mode=mode).hits
        storage.search_similar_audio(ASKED)
        storage.search_similar_audio(audio=load_audio(given["file"]), by="audio")
        storage.context_pack(SPOKEN["added"])
        storage.set_metadata(first, {"note": METADATA["later"]})
        storage.generate_transcript(first, whisper_model=f"scripted:{SPOKEN['again']}")
        with storage.open_audio(first) as file:
            assert file.read() == given["file"].read_bytes()
        storage.delete(gone)
        storage.reindex()
        disk.check("sound of file", "decoded", "added", "again", "later", "file")


def _watch(disk: Disk, folder: Path) -> None:
    """The program, over a folder of which all but one file is known already."""
    program = [sys.executable, "-W", "ignore", "-m", "audio_storage_system.cli"]
    command = [*program, "watch", str(folder), "--once", "--settle=0", "--no-transcribe", "--archive", str(disk.home)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    disk.check(*NAMES)
    if not disk.encrypted:
        assert list((disk.folder / "caches").rglob("*.jsonl"))


def _capture(disk: Disk) -> None:
    """One that ends in the middle of a piece, and its recovery."""
    child = subprocess.Popen(
        [sys.executable, "-c", CAPTURE, str(disk.home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    assert child.stdin and child.stdout
    with child.stdin, child.stdout:
        child.stdin.write(disk.secrets["captured sound"])
        child.stdin.close()
        assert child.stdout.readline() == b"written\n"
        child.kill()
        child.wait()
    disk.check("captured sound", "captured")
    with disk.open() as storage:
        [found] = storage.recovered
        assert found.seconds == pytest.approx(4.2)
        with storage.open_audio(found.audio_id) as file:
            assert file.read().endswith(disk.secrets["captured sound"])
        disk.check("captured sound", "captured")


def _work(disk: Disk, path: Path) -> None:
    """A job whose worker is killed in mid-transcription, then another embedder for everything."""
    with disk.open() as storage:
        job = storage.submit(path, whisper_model=f"scripted:{SPOKEN['queued']}", priority="high")
    plan = working.Plan(str(disk.home), dict(os.environ), die_at=("committed", 1))
    assert working.ended(working.start(plan)) == KILLED
    disk.check("sound of job", "queued", "job")
    with disk.open() as storage:
        assert [version.outcome for version in storage.transcripts(job.audio_id)] == [None]
        storage.reembed("scripted:two")


def test_nor_does_the_cache_of_a_bucket(disk: Disk, tmp_path: Path, scripted_engine: object, s3_url: str) -> None:
    given = files(tmp_path / "given")["file"]
    disk.secrets["sound of file"] = given.read_bytes()[100:]
    with disk.open(blobs_url=s3_url, blob_cache_bytes=1 << 30) as storage:
        audio_id = storage.add(given, whisper_model=f"scripted:{SPOKEN['fetched']}")
        storage.generate_transcript(audio_id, whisper_model=f"scripted:{SPOKEN['fetched']}")
        with storage.open_audio(audio_id) as file:
            assert file.read() == given.read_bytes()
    assert list((disk.folder / "caches" / "blobs").rglob("*")), "nothing was cached"
    disk.check("sound of file", "fetched", "file")


def test_vectors_go_nowhere_else_unless_that_is_accepted(disk: Disk, scripted_engine: object) -> None:
    if not disk.encrypted:
        pytest.skip("an archive that is not encrypted keeps its vectors where it likes")
    disk.open().close()
    with pytest.raises(InvalidSetting, match="accept_plaintext_vectors"):
        disk.open(vectors_url="chroma:vectors")
    assert not (disk.home / "vectors").exists()
    pytest.importorskip("chromadb")
    disk.open(vectors_url="chroma:vectors", accept_plaintext_vectors=True).close()
