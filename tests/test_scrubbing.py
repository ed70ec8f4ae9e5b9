"""Secure deletion: nothing of what was deleted can be read in any file of the archive."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.jobs import upkeep
from catalogues import plain_sql

pytestmark = pytest.mark.usefixtures("scripted_engine")

WORD, VALUE, NAME = "xylophagous", "quahogmetadata", "zyzzyvafile"


def srt(folder: Path, *texts: str) -> Path:
    """A transcript file, one line of speech per text."""
    file = folder / "said.srt"
    lines = [f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{text}\n" for n, text in enumerate(texts, 1)]
    file.write_text("\n".join(lines))
    return file


def put_in(storage: AudioStorageSystem, demo: Path, folder: Path) -> tuple[int, int]:
    """Two recordings, the second with what must vanish."""
    kept = storage.add(demo / "voice_note.flac")
    secret = folder / f"{NAME}.flac"
    secret.write_bytes((demo / "call.flac").read_bytes())
    said = srt(folder, f"the {WORD} beetle eats wood", "nothing else was said here")
    told = {"about": VALUE, "count": 3}
    return kept, storage.import_transcript(secret, said, metadata=told).audio_id


def traces(home: Path) -> dict[str, list[str]]:
    """Which files of the archive hold which of the words."""
    words = (WORD, VALUE, NAME)
    found = {
        str(path.relative_to(home)): [word for word in words if word.encode() in path.read_bytes()]
        for path in home.rglob("*")
        if path.is_file()
    }
    return {name: words for name, words in found.items() if words}


@pytest.mark.parametrize("extras", [{}, {"sidecars": True, "compress": "flac"}], ids=["plain", "sidecars"])
def test_after_a_deletion_no_file_holds_a_word_of_it(tmp_path: Path, demo: Path, extras: dict[str, object]) -> None:
    home = tmp_path / "archive"
    with AudioStorageSystem(home, transcriber="scripted", **extras) as storage:
        kept, gone = put_in(storage, demo, tmp_path)
        assert [hit.audio_id for hit in storage.search_similar_audio(WORD, mode="keyword")] == [gone]
        assert "audio_storage.db" in traces(home) or "audio_storage.db-wal" in traces(home)
        storage.set_metadata(gone, {"about": "harmless"})  # the old value is deleted, too
        receipt = storage.delete(gone)
        assert receipt.scrubbed and receipt.indexes in ({}, {"sqlite": "removed"})
        assert receipt.rows["full_text"] == 1 and receipt.rows["segments"] == 2
        assert len(receipt.keys) == (4 if extras else 1), receipt.keys
        assert traces(home) == {}, "while it is still open"
        assert not storage.search_similar_audio(WORD, mode="keyword").hits
        assert {hit.audio_id for hit in storage.search_similar_audio("spoken", limit=50)} == {kept}
    assert traces(home) == {}
    stored = plain_sql(home, "SELECT receipt FROM tombstones")[0][0]
    assert NAME not in str(stored) and receipt.original_name == f"{NAME}.flac"


def test_a_reader_in_the_way_is_told_of_and_upkeep_finishes(tmp_path: Path, demo: Path) -> None:
    home = tmp_path / "archive"
    with AudioStorageSystem(home, transcriber="scripted") as storage, AudioStorageSystem(home) as other:
        _, gone = put_in(storage, demo, tmp_path)
        assert other.search_similar_audio(WORD, mode="keyword").total == 1
        with closing(sqlite3.connect(home / "audio_storage.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM passages").fetchone()
            assert not storage.delete(gone).scrubbed
            assert traces(home), "the reader still sees what was there"
        upkeep.tidy(other._archive, other.jobs)
        assert traces(home) == {}
        assert other.search_similar_audio(WORD, mode="keyword").total == 0
        assert plain_sql(home, "SELECT scrubbed FROM removals") == [(1,)]


def test_several_processes_write_while_words_are_removed(tmp_path: Path, demo: Path) -> None:
    home, stop = tmp_path / "archive", threading.Event()
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        _, gone = put_in(storage, demo, tmp_path)

        def search() -> None:
            with AudioStorageSystem(home, transcriber="scripted") as other:
                while not stop.is_set():
                    other.search_similar_audio("wood", mode="keyword")

        searching = threading.Thread(target=search)
        searching.start()
        try:
            storage.delete(gone)
        finally:
            stop.set()
            searching.join()
        upkeep.tidy(storage._archive, storage.jobs)
        assert traces(home) == {}


def test_on_a_server_the_rows_are_gone_and_their_room_is_given_free(
    storage: AudioStorageSystem, home: Path, demo: Path, tmp_path: Path
) -> None:
    _, gone = put_in(storage, demo, tmp_path)
    storage.trash.put(gone)
    (receipt,) = storage.trash.empty(gone).receipts
    assert receipt.scrubbed
    for table in ("transcripts", "passages", "embeddings", "metadata", "trash", "annotations"):
        assert plain_sql(home, f"SELECT count(*) FROM {table} WHERE audio_file_id = ?", gone) == [(0,)]  # noqa: S608
    assert plain_sql(home, "SELECT count(*) FROM segments WHERE text LIKE ?", f"%{WORD}%") == [(0,)]
    assert plain_sql(home, "SELECT count(*) FROM removals WHERE scrubbed AND completed") == [(1,)]
