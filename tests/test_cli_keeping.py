"""`rm`, `trash`, `retention` and `hold` on the command line; what is left in vector databases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.catalogue import embeddings
from audio_storage_system.cli import main
from audio_storage_system.records import Space
from audio_storage_system.vectors import Scope, standing
from batch import Command

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def stored(run: Command, demo: Path) -> Command:
    """Two recordings."""
    run("add", demo / "voice_note.flac", "-m", "kind=note")
    run("add", demo / "call.flac", "-m", "kind=call")
    return run


def test_throwing_away_and_having_back(stored: Command, demo: Path) -> None:
    thrown = stored("rm", 1)
    assert thrown.code == 0 and "in the trash until" in thrown.out and "trash restore 1" in thrown.out
    assert [one["audio_id"] for one in stored("list", "--json").data["recordings"]] == [2]
    shown = stored("show", 1)
    assert shown.code == 4 and "trash restore 1" in shown.err
    assert "trash restore 1" in stored("add", demo / "voice_note.flac").err
    assert [one["audio_id"] for one in stored("trash", "list", "--json").data["trash"]] == [1]
    assert "voice_note.flac" in stored("trash", "list").out
    assert stored("trash", "restore", 1, "--json").data == {"restored": [1]}
    assert stored("trash", "restore", 1).code == 4
    stored("rm", 1, 2)
    assert stored("trash", "empty").code == 2, "nobody can be asked"
    emptied = stored("trash", "empty", 1, "--yes", "--json").data
    assert [one["audio_id"] for one in emptied["deleted"]] == [1] and emptied["deleted"][0]["scrubbed"]
    assert "Deleted 1 recording for good" in stored("trash", "empty", "--yes").out
    assert stored("stats", "--json").data["recordings"] == 0


def test_rules_and_holds(stored: Command) -> None:
    assert "kept for ever" in stored("retention", "list").out
    assert stored("retention", "add", "calls", "--days", "0", "--where", "kind=call").code == 0
    assert stored("hold", "place", "case-7", 1, 2, "--reason", "a court").code == 0
    planned = stored("retention", "plan", "--json").data["plan"]
    assert [(one["audio_id"], one["action"], one["hold"]) for one in planned] == [(2, "keep", "case-7")]
    assert "case-7" in stored("hold", "list").out
    for command in (("rm", 2), ("rm", 2, "--for-good", "--yes")):
        refused = stored(*command)
        assert refused.code == 5 and 'legal hold "case-7"' in refused.err
    assert "1 kept by a legal hold" in stored("retention", "run").out
    assert stored("retention", "report").code == 0
    stored("hold", "release", "case-7")
    assert stored("hold", "list", "--released", "--json").data["holds"][0]["released_at"]
    overdue = stored("retention", "report", "--json")
    assert overdue.code == 1 and overdue.data["counts"] == {"due": 1, "held": 0}
    assert "1 to delete" in stored("retention", "plan").out
    assert len(stored("retention", "plan", "--all", "--json").data["plan"]) == 2
    assert [one["audio_id"] for one in stored("retention", "run", "--json").data["removed"]] == [2]
    assert "Enforced" in stored("retention", "report").out
    assert stored("retention", "rm", "calls").code == 0 and stored("retention", "rm", "calls").code == 4


@pytest.mark.parametrize("kind", ["chroma", "lancedb", "qdrant", "pgvector"])
def test_vector_databases_forget_what_is_deleted(
    kind: str, tmp_path: Path, demo: Path, request: pytest.FixtureRequest
) -> None:
    if kind != "pgvector":
        pytest.importorskip({"chroma": "chromadb", "lancedb": "lancedb", "qdrant": "qdrant_client"}[kind])
    url = str(request.getfixturevalue("postgres_url")) if kind == "pgvector" else f"{kind}:{tmp_path / kind}"
    with AudioStorageSystem(tmp_path / "home", vectors=url, transcriber="scripted") as storage:
        storage.add(demo / "voice_note.flac")
        gone = storage.add(demo / "call.flac")
        storage.reindex()
        before = held(storage)
        receipt = storage.delete(gone)
        assert set(receipt.indexes.values()) == {"removed"}, receipt.indexes
        after = held(storage)
        assert len(before) > len(after) > 0
        with storage._archive.database.read() as connection:
            assert standing.existing(connection, sorted(before)) == after


def held(storage: AudioStorageSystem) -> set[int]:
    """The embeddings that the vector database itself has."""
    index, found = cast(Any, storage._archive.index), set[int]()
    for space in _spaces(storage):
        with storage._archive.database.read() as connection:
            here = standing.searched(standing.find(connection, space, index.engine.address))
        if here is not None:
            vector = np.ones(space.dimension, np.float32) / np.sqrt(space.dimension)
            collection = index._filler.collection(space, here.number)
            found |= set(index.engine.search(collection, vector, 50, Scope()).ids.tolist())
    return found


def _spaces(storage: AudioStorageSystem) -> list[Space]:
    with storage._archive.database.read() as connection:
        return embeddings.spaces(connection)


def test_selections_and_times_are_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AudioStorageSystem(tmp_path / "a") as storage:
        hold = storage.holds.place("case", where={"client": {"in": ["acme", "wayne"]}})
        storage.retention.run()
    assert str(hold.selection) == "client = acme or wayne"
    assert main(["retention", "report", "--archive", str(tmp_path / "a")]) == 0
    assert re.search(r"Last carried out: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n", capsys.readouterr().out)
