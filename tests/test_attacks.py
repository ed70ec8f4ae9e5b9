"""The attacks that docs/internals/security.md tells of, tried: what they may not reach stays out of reach."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audio_storage_system
from audio_storage_system import AudioStorageSystem
from audio_storage_system.clock import Deadline
from audio_storage_system.errors import ArchiveDamaged, ArchiveMismatch, AudioStorageSystemError, InvalidInput
from audio_storage_system.keys import ArchiveKeys
from audio_storage_system.settings import load_settings
from audio_storage_system.testing.engines import MemoryEngine, Store
from audio_storage_system.testing.vectors import Everything
from audio_storage_system.vectors import Collection, EngineIndex, Found, Scope
from audio_storage_system.vectors.exact import ExactIndex
from audio_storage_system.vectors.stored import Vectors
from batch import Command
from builders import Talk, fill, text_space, unit
from catalogues import plain_sql

pytestmark = pytest.mark.usefixtures("scripted_engine", "quickly")
PACKAGE = Path(audio_storage_system.__file__).parent
PASSWORD = "opensesame"  # noqa: S105
HOSTILE_NAMES = [
    "../../etc/passwd",
    "..",
    "/etc/passwd",
    "a\0b.wav",
    "a/b.wav",
    "..\\..\\x.wav",
    "C:\\x.wav",
    "-rf.wav",
    "$(touch x).wav",
    "\x1b]0;owned\x07.wav",
    "a" * 250 + ".wav",
    ".hidden",
    "name\nwith lines.wav",
]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Names and paths


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_given_name_becomes_a_path(tmp_path: Path, call: Path, run: Command, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    home = tmp_path / "in" / "archive"
    with AudioStorageSystem(home, transcriber="scripted", sidecars=True) as storage:
        audio_id = storage.add(call)
        plain_sql(home, "UPDATE audio_files SET original_name = ?", name.replace("\0", ""))
        assert storage.get_recording(audio_id).file_path.startswith("audio_files/")
    answer = run("export", "1", "--output", tmp_path / "in" / "exports", "--archive", home)
    written = list(tmp_path.rglob("*.srt"))
    assert all(path.parent == tmp_path / "in" / "exports" for path in written), written
    assert answer.code == 0 or len(name) > 200
    assert {path.name for path in outside.iterdir()} == {"kept"}


KEYS = ["../secret", "/etc/passwd", "a/../../secret", ".staging/x", "a\0b", "a\\b", "", "C:/x"]


def test_no_key_leads_out_of_the_archive(storage: AudioStorageSystem, call: Path) -> None:
    (storage.home.parent / "secret").write_text("a secret")
    audio_id, blobs = storage.add(call), storage._archive.blobs
    for key in KEYS:
        with call.open("rb") as file:
            staged = blobs.stage(file)
        for act in (blobs.open, blobs.delete, partial(blobs.publish, staged), partial(blobs.replace, staged)):
            with pytest.raises(InvalidInput):
                act(key)
        blobs.discard(staged)
        if "\0" not in key:
            plain_sql(storage.home, "UPDATE audio_files SET file_path = ?", key)
            with pytest.raises(InvalidInput):
                storage.open_audio(audio_id)
            assert any("outside the archive" in finding.what for finding in storage.verify().findings), key
    assert (storage.home.parent / "secret").read_text() == "a secret"


def test_links_planted_in_the_archive_are_not_followed(tmp_path: Path, call: Path, note: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted", sidecars=True) as storage:
        audio_id = storage.add(call)
        blob = storage.home / storage.get_recording(audio_id).file_path
        (outside / blob.name).write_bytes(blob.read_bytes())
        before = snapshot(outside)
        for name in ("audio_files", "transcripts", "embeddings"):
            (storage.home / name).rename(tmp_path / f"was-{name}")
            (storage.home / name).symlink_to(outside)
        with pytest.raises(AudioStorageSystemError):
            storage.open_audio(audio_id)
        with pytest.raises(AudioStorageSystemError):
            storage.add(note)
        with pytest.raises(AudioStorageSystemError):
            storage.delete(audio_id)
        assert snapshot(outside) == before


# What is read: markers, settings, transcripts


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"[" * 500_000,
        b'{"format_version": "1"}',
        b'{"format_version": 1}',
        b'{"format_version": 1, "archive_id": 5, "created_at": 5}',
        b'{"format_version": 1e999}',
        b"\xff\xfe",
        b"x" * (2 << 20),
    ],
)
def test_a_forged_marker_is_a_clear_refusal(tmp_path: Path, call: Path, forged: bytes) -> None:
    home = tmp_path / "archive"
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.add(call)
    (home / "metadata.json").write_bytes(forged)
    with pytest.raises((ArchiveDamaged, ArchiveMismatch)):
        AudioStorageSystem(home)


def test_deep_json_is_refused_wherever_it_comes_in(storage: AudioStorageSystem, call: Path, tmp_path: Path) -> None:
    audio_id = storage.add(call)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput):
        storage.set_metadata(audio_id, {"deep": deep})
    for where in (
        {"deep": deep},
        {"duration": deep},
        {"duration": {"gt": deep}},
        {"deep": {"in": [deep]}},
        {"deep": {}},
    ):
        with pytest.raises(InvalidInput):
            storage.search_similar_audio("word", where=where)
        with pytest.raises(InvalidInput):
            storage.list_recordings(where=where)
    for text in ("[" * 200_000, '{"segments": ' + "[" * 200_000):
        (tmp_path / "deep.json").write_text(text)
        with pytest.raises(InvalidInput):
            storage.import_transcript(audio_id, tmp_path / "deep.json")
    plain_sql(storage.home, "UPDATE metadata SET value_type = 'json', value = ?", "[" * 100_000)
    assert storage.get_recording(audio_id).id == audio_id


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet=st.sampled_from("abä'\"*()^:-+NEAR OR AND \x00\x1a\ud800\U0001f600{};%_\\\n"), max_size=60)
)
def test_no_query_or_value_is_a_command(storage: AudioStorageSystem, text: str) -> None:
    if not storage.list_recordings():
        storage.add(PACKAGE / "demo" / "call.flac", metadata={"user": "john"})
    before = plain_sql(storage.home, "SELECT count(*) FROM passages")
    for ask in (
        lambda: storage.search_similar_audio(text, mode="keyword"),
        lambda: storage.search_similar_audio("spoken", where={text: text}, mode="keyword"),
        lambda: storage.set_metadata(1, {"x": text}),
        lambda: storage.get_user_audio(text, 1),
    ):
        try:
            ask()
        except AudioStorageSystemError as error:
            assert error.exit_code != 70
    assert plain_sql(storage.home, "SELECT count(*) FROM passages") == before
    assert storage.verify().clean


def test_a_huge_query_is_cut_and_ends(storage: AudioStorageSystem, call: Path) -> None:
    storage.add(call)
    for text in ("word " * 500_000, '"' * 1_000_000, "(" * 1_000_000, "a" * 5_000_000):
        storage.search_similar_audio(text, mode="keyword", deadline=20)


# A vector database that lies


class Liar(MemoryEngine):
    """Answers with what it likes."""

    answers: Sequence[Found] = ()

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        return self.answers[limit % len(self.answers)]


def test_a_lying_vector_database_shows_nothing_that_may_not_be_seen(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        archive, rng = storage._archive, np.random.default_rng(1)
        space = text_space(archive, 8)
        texts = [f"passage {number}" for number in range(30)]
        fill(archive, [Talk(texts, vectors=[unit(rng, 8) for _ in texts])], space)
        engine = Liar(Store())
        engine.answers = [
            Found.of([1, 1, 2, 999, -5], [9.0, float("nan"), float("inf"), 1.0, 1.0]),
            Found.of([], []),
            Found.of(list(range(1, 31)), [float("nan")] * 30),
        ]
        index = EngineIndex(archive.database, engine, archive.marker.archive_id, few=1)
        index.follow(space)
        truth = {m.embedding_id: m.similarity for m in _ask(ExactIndex(archive.database), space, 30)}
        for limit in (1, 2, 3, 7, 30):
            found = _ask(index, space, limit)
            assert len({match.embedding_id for match in found}) == len(found) <= limit
            assert all(truth[match.embedding_id] == pytest.approx(match.similarity, abs=1e-5) for match in found)


def _ask(index: Any, space: Any, limit: int) -> Any:
    query = unit(np.random.default_rng(2), 8)
    return index.query(space, query, limit=limit, within=Everything(), deadline=Deadline.after(10))


# Other people on the machine

PROGRAM = """
import os, sys
from pathlib import Path
os.umask(0)
from audio_storage_system import AudioStorageSystem
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS
TRANSCRIBERS.builtin[scripted.SPEC] = scripted.FACTORY
home, call, note = map(Path, sys.argv[1:])
with AudioStorageSystem(home, transcriber="scripted", sidecars=True, compress="flac") as storage:
    storage.add(call, metadata={"user": "john"})
    storage.submit(note)
    storage.search_similar_audio("spoken")
"""


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_what_the_program_makes_is_closed_to_others_whatever_the_umask(tmp_path: Path, call: Path, note: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    folders = {
        name: str(user / name.lower()) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")
    }
    Path(folders["TMPDIR"]).mkdir()
    home = tmp_path / "deep" / "archive"
    program = [sys.executable, "-c", PROGRAM, str(home), str(call), str(note)]
    done = subprocess.run(program, env={**os.environ, **folders}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    readable = [path for path in _files(tmp_path) if home not in path.parents and path.stat().st_mode & 0o077]
    assert [path for path in readable if b"spoken" in path.read_bytes() or b"john" in path.read_bytes()] == []


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


# Secrets


def test_no_secret_is_in_the_text_of_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://john:{PASSWORD}@127.0.0.1:1/x"
    shown = [
        repr(
            load_settings(tmp_path, database_url=url, replica_url=url, cdn_url=f"https://c.example/?token={PASSWORD}")
        ),
        repr(ArchiveKeys("a", PASSWORD.encode())),
        str(ArchiveKeys("a", PASSWORD.encode())),
    ]
    with AudioStorageSystem(tmp_path / "archive") as storage:
        given = replace(storage._archive.settings, database_url=url)
        shown.append(repr(replace(storage._archive, settings=given, keys=ArchiveKeys("a", PASSWORD.encode()))))
        shown += [repr(storage), str(vars(storage))]
    with pytest.raises(AudioStorageSystemError) as error:
        AudioStorageSystem(url)
    shown += [str(error.value), repr(error.value), str(error.value.details), json.dumps(error.value.as_dict())]
    assert [text for text in shown if PASSWORD in text] == []


@pytest.mark.parametrize("command", [["stats"], ["doctor", "--security"], ["verify"], ["add", "x.wav"], ["doctor"]])
def test_no_command_prints_a_password(run: Command, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_DEBUG", "1")
    url = f"postgresql://john:{PASSWORD}@127.0.0.1:1/x?connect_timeout=2"
    for more in ([], ["--json"], ["--debug"]):
        answer = run(*command, "--archive", url, *more)
        assert answer.code != 0
        assert PASSWORD not in answer.out + answer.err


SECRET_NAMES = ("mac", "digest", "token", "signature", "secret")


def compared_secrets(source: str) -> Iterator[int]:
    """Lines that compare something called a secret with `==`, which takes the longer the more of it is right."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            for side in (node.left, *node.comparators):
                name = side.id if isinstance(side, ast.Name) else side.attr if isinstance(side, ast.Attribute) else ""
                if ast.unparse(side).endswith(f".c.{name}"):  # a column: the database looks up, with an index
                    continue
                if name in SECRET_NAMES and not any(isinstance(other, ast.Constant) for other in node.comparators):
                    yield node.lineno


def test_no_secret_is_compared_character_by_character() -> None:
    assert list(compared_secrets("if row.mac == mac: pass")) == [1, 1]
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        for line in compared_secrets(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_the_attack_model_names_tests_that_exist() -> None:
    tests, page = Path(__file__).parent, Path(__file__).parents[1] / "docs" / "internals" / "security.md"
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text(encoding="utf-8"))
    assert len(named) > 15
    assert [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in ((tests / file).read_text(encoding="utf-8") if (tests / file).exists() else "")
    ] == []
