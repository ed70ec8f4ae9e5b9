"""The search table of PostgreSQL in parts: rows go where they belong, and searches read no more than they must."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, event, text

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import Archive, open_archive
from audio_storage_system.archive.reports import reindex
from audio_storage_system.cli import main
from audio_storage_system.clock import Deadline
from audio_storage_system.errors import InvalidSetting
from audio_storage_system.records import Space
from audio_storage_system.search import Filter, Query, SearchResults, run
from audio_storage_system.vectors import Scope
from audio_storage_system.vectors.pgvector import PgvectorEngine
from builders import Talk, fill, text_space, unit
from catalogues import Catalogues, plain_sql
from postgres_server import Server

DIMENSION = 8
MOMENTS = [datetime(year, month, 15, tzinfo=UTC) for year in (1999, 2024, 2025, 2026) for month in (1, 6)]
PARTS = "SELECT tableoid::regclass::text, count(*) FROM passage_search GROUP BY 1 ORDER BY 1"


@pytest.fixture(params=["year", "month", "owner:3"])
def archive(
    request: pytest.FixtureRequest, postgres_server: Server, postgres_template: str, tmp_path: Path
) -> Iterator[Archive]:
    with Catalogues(postgres_server, postgres_template).at(tmp_path / "a") as home:
        with closing(open_archive(home, create=True, partition=request.param)) as archive:
            yield archive


@pytest.fixture
def space(archive: Archive) -> Space:
    """Two talks at each moment, the last moments first; everything indexed."""
    space, rng = text_space(archive, DIMENSION), np.random.default_rng(1)
    texts = ["the budget of the year", "a budget for the zebra"]
    talks = [Talk(texts, recorded_at=m, vectors=[unit(rng, DIMENSION) for _ in texts]) for m in reversed(MOMENTS)]
    fill(archive, talks, space)
    archive.index.catch_up(space)
    return space


def find(archive: Archive, space: Space, **options: object) -> SearchResults:
    vector = unit(np.random.default_rng(2), DIMENSION)
    return run(archive.database, archive.index, Query("zebra budget", vector, space, **options), Deadline.after(None))


def test_rows_go_to_the_part_of_their_recording(archive: Archive, space: Space) -> None:
    parts = dict(plain_sql(archive.home, PARTS))
    if archive.settings.partition == "year":
        assert parts == {f"passage_search_{year}": 8 for year in (1999, 2024, 2025, 2026)}
    elif archive.settings.partition == "month":
        assert parts == {f"passage_search_{m:%Y_%m}": 4 for m in MOMENTS}
    else:
        assert sum(parts.values()) == 32 and set(parts) <= {f"passage_search_owner_{n}" for n in range(3)}


def test_what_is_made_anew_lies_as_before(archive: Archive, space: Space) -> None:
    before, found = plain_sql(archive.home, PARTS), find(archive, space, limit=100).as_dict()
    reindex(archive)
    assert plain_sql(archive.home, PARTS) == before
    plain_sql(archive.home, "DROP TABLE passage_search")
    reindex(archive)
    assert plain_sql(archive.home, PARTS) == before
    assert find(archive, space, limit=100).as_dict() == found


@pytest.mark.parametrize(
    "period",
    [
        ("2025-01-01", None),
        (None, "2000-01-01"),
        ("2025-02-01", "2025-12-31"),
        ("2030-01-01", None),
        ("1999-01-15", "1999-01-16"),
    ],
)
def test_a_period_finds_what_filtering_first_finds(
    archive: Archive, space: Space, period: tuple[str | None, str | None]
) -> None:
    since, until = period
    whole = find(archive, space, mode="keyword", limit=100)
    moments = {hit.audio_id: hit.recorded_at.isoformat() for hit in whole}
    inside = {id_ for id_, at in moments.items() if (since or "") <= at < (until or "9")}
    for mode in ("keyword", "semantic", "hybrid"):
        found = find(archive, space, mode=mode, limit=100, filter=Filter(since=since, until=until))
        assert {hit.audio_id for hit in found} == inside and len(found) == 2 * len(inside)
    said = find(archive, space, mode="keyword", limit=100, filter=Filter(since=since, until=until))
    wanted = [(hit.audio_id, hit.score) for hit in whole if hit.audio_id in inside]
    assert [(hit.audio_id, hit.score) for hit in said] == wanted  # words weigh what they weigh in the whole archive
    assert [hit.score for hit in find(archive, space, mode="keyword", limit=100)] == [hit.score for hit in whole]


def parts_read(archive: Archive, act: object) -> set[str]:
    """The parts that PostgreSQL plans to read for whatever `act` asks of the search table."""
    asked: list[tuple[str, object]] = []

    def note(connection: Connection, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        if "FROM passage_search" in statement and statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(archive.database.engine, "before_cursor_execute", note)
    try:
        act()  # type: ignore[operator]
    finally:
        event.remove(archive.database.engine, "before_cursor_execute", note)
    assert asked
    with archive.database.read() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = on"))
        plans = [
            connection.exec_driver_sql(f"EXPLAIN {query}", parameters).scalars().all() for query, parameters in asked
        ]
    return set(re.findall(r"on (passage_search_\w+)", "\n".join(line for plan in plans for line in plan)))


def test_a_period_is_read_from_its_own_parts(archive: Archive, space: Space) -> None:
    if archive.settings.partition.startswith("owner"):
        pytest.skip("cut by owner")
    march = Filter(since="2025-01-01", until="2025-02-01")
    find(archive, space, mode="keyword")  # how many there are of each word is known now, and of the whole
    own = {"year": {"passage_search_2025"}, "month": {"passage_search_2025_01"}}[archive.settings.partition]
    assert parts_read(archive, lambda: find(archive, space, mode="keyword", filter=march)) == own
    assert (
        parts_read(archive, lambda: nearest(archive, space, Scope(since=MOMENTS[4], until=MOMENTS[4].replace(day=20))))
        == own
    )


def test_an_owner_is_read_from_one_part(archive: Archive, space: Space) -> None:
    if not archive.settings.partition.startswith("owner"):
        pytest.skip("cut by time")
    assert len(parts_read(archive, lambda: nearest(archive, space, Scope(owner_ids=(1,))))) == 1
    assert len(parts_read(archive, lambda: nearest(archive, space, Scope()))) == 3


def nearest(archive: Archive, space: Space, scope: Scope) -> list[int]:
    """Asked of the vector database itself."""
    engine, [name] = PgvectorEngine(archive.database), plain_sql(archive.home, "SELECT name FROM vector_collections")
    from audio_storage_system.vectors import Collection

    collection = Collection(str(name[0]), space.model, space.dimension)
    return engine.search(collection, unit(np.random.default_rng(3), DIMENSION), 10, scope).ids.tolist()


def test_how_to_cut_is_said_when_the_archive_is_made(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo: Path
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "here"))
    assert call("init", "--archive", postgres_url, "--partition", "month", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {"partition": "month"}
    with AudioStorageSystem(postgres_url) as storage:
        storage.add(demo / "call.flac", recorded_at=datetime(1987, 3, 1, tzinfo=UTC), whisper_model="pocketsphinx")
        assert storage.search_similar_audio("heating", since="1987-03-01", until="1987-04-01").hits
    assert call("init", "--archive", str(tmp_path / "b"), "--partition", "weekly") == 2
    assert "owner:N" in capsys.readouterr().err
    with pytest.raises(InvalidSetting, match="PostgreSQL"):
        AudioStorageSystem(tmp_path / "c", partition="year")
    assert not (tmp_path / "c").exists()


def call(*arguments: str) -> int:
    try:
        return int(main(list(arguments)) or 0)
    except SystemExit as left:
        return int(left.code or 0)
