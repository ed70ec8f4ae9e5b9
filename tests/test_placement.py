"""Rows written with ids of their own, as a copy does, are found by processes that have searched before."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete, select

from audio_storage_system.archive import open_archive
from audio_storage_system.clock import Deadline
from audio_storage_system.database.tables import passages
from audio_storage_system.search import Filter, Query, run
from audio_storage_system.transfer import rows as transferred
from builders import Talk, fill


def test_a_lower_id_that_comes_later_is_found_with_a_filter(tmp_path: Path) -> None:
    archive = open_archive(tmp_path / "a", create=True)
    first, second = fill(archive, [Talk(["the budget"], {"user": "john"}), Talk(["the budget"], {"user": "john"})])

    def found() -> list[int]:
        query = Query("budget", mode="keyword", filter=Filter({"user": "john"}))
        return sorted(hit.audio_id for hit in run(archive.database, archive.index, query, Deadline.after(None)))

    with archive.database.write() as connection:
        mine = passages.c.audio_file_id == first
        [row] = connection.execute(select(passages).where(mine)).mappings().all()
        connection.execute(delete(passages).where(mine))
    assert found() == [second]
    with archive.database.write() as connection:
        transferred.put(connection, passages, [dict(row)])
    assert found() == [first, second]
    archive.close()


def test_rows_in_order_disturb_nobody(tmp_path: Path) -> None:
    archive = open_archive(tmp_path / "a", create=True)
    fill(archive, [Talk(["the budget"])])
    with archive.database.write() as connection:
        row = dict(connection.execute(select(passages)).mappings().one())
        transferred.put(connection, passages, [{**row, "id": row["id"] + 1, "sequence": 1}])
        assert connection.exec_driver_sql("PRAGMA user_version").scalar() == 0
    archive.close()
