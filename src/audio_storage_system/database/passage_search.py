"""The derived search table of PostgreSQL: one row for the text of each passage, one for each embedding.

    passage_search(space_id, owner_id, recorded_at, passage_id, embedding_id, audio_id, text_vector, vector)

Rows of text have `space_id` 0 and a `text_vector`; rows of an embedding have the number of its space's collection, its
id, and a `vector` (a column that the vector index adds). The table has no foreign keys, is unknown to the migrations,
and can be dropped and rebuilt. It may be partitioned by time or by owner, which plain tables with single-column keys
could not be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, func, select, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.schema import CreateTable, DropTable

from audio_storage_system.database.types import UtcDateTime
from audio_storage_system.errors import InvalidSetting

MOST_OWNER_PARTITIONS = 1_000

passage_search = Table(
    "passage_search",
    MetaData(),
    Column("space_id", BigInteger, nullable=False),
    Column("owner_id", BigInteger, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("passage_id", BigInteger),
    Column("embedding_id", BigInteger),
    Column("audio_id", BigInteger, nullable=False),
    Column("text_vector", TSVECTOR),
)

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('passage_search', 0))")
_EXISTS = text("SELECT to_regclass('passage_search')")
_INDEXES = (
    "CREATE INDEX idx_passage_search_text ON passage_search USING gin (text_vector) WHERE space_id = 0",
    "CREATE INDEX idx_passage_search_passage ON passage_search (passage_id)",
    "CREATE INDEX idx_passage_search_embedding ON passage_search (embedding_id) WHERE space_id > 0",
)
_PARTITIONING = text("SELECT coalesce(obj_description(to_regclass('passage_search'), 'pg_class'), '')")
_RANGES = {"year": "RANGE (recorded_at)", "month": "RANGE (recorded_at)"}


def check(partition: str) -> None:
    """Raise `InvalidSetting` unless `partition` is empty, `year`, `month` or `owner:N`."""
    owners = re.fullmatch(r"owner:(\d{1,4})", partition)
    if partition and partition not in _RANGES and not (owners and 1 < int(owners[1]) <= MOST_OWNER_PARTITIONS):
        reason = f'it is "year", "month" or "owner:N" with N from 2 to {MOST_OWNER_PARTITIONS}'
        raise InvalidSetting(name="partition", reason=reason)


def create(connection: Connection, partition: str = "") -> None:
    """Make the table where there is none, cut by `year`, `month`, `owner:N`, or not at all."""
    check(partition)
    if connection.execute(_EXISTS).scalar() is not None:
        return
    connection.execute(_LOCK)
    if connection.execute(_EXISTS).scalar() is not None:  # made by another process while this one waited
        return
    table, parts = str(CreateTable(passage_search).compile(connection)), int(partition.partition(":")[2] or 0)
    by = _RANGES.get(partition, "HASH (owner_id)")
    connection.exec_driver_sql(f"{table} PARTITION BY {by}" if partition else table)
    for statement in _INDEXES:
        connection.exec_driver_sql(statement)
    for number in range(parts):
        of = f"FOR VALUES WITH (MODULUS {parts}, REMAINDER {number})"
        connection.exec_driver_sql(f"CREATE TABLE passage_search_owner_{number} PARTITION OF passage_search {of}")
    connection.exec_driver_sql(f"COMMENT ON TABLE passage_search IS '{partition}'")


def drop(connection: Connection) -> None:
    """Remove the table with everything in it, where there is one."""
    connection.execute(DropTable(passage_search, if_exists=True))


def partitioning(connection: Connection) -> str:
    """How the table is cut; empty where it is not."""
    return str(connection.execute(_PARTITIONING).scalar_one())


def by_time(connection: Connection) -> bool:
    """Whether the table is cut by when something was recorded."""
    return partitioning(connection) in _RANGES


def make_room(connection: Connection, moments: Iterable[datetime]) -> None:
    """See to it that rows recorded at these moments have a partition to go to. Inside a write transaction."""
    by = partitioning(connection)
    if by not in _RANGES:
        return
    for name, since, until in sorted({_part(by, moment) for moment in moments}):
        if connection.execute(select(func.to_regclass(name))).scalar() is None:
            connection.execute(_LOCK)
            _add_part(connection, name, f"FROM ('{since}') TO ('{until}')")


def _add_part(connection: Connection, name: str, bounds: str) -> None:
    """Make a partition unless another process has. Attaching one stops nobody who reads or writes; making it in place
    (`PARTITION OF`) would lock them out. Name and bounds are of our own making: figures only."""
    if connection.execute(select(func.to_regclass(name))).scalar() is None:
        connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE passage_search)")
        connection.exec_driver_sql(f"ALTER TABLE passage_search ATTACH PARTITION {name} FOR VALUES {bounds}")


def _part(by: str, moment: datetime) -> tuple[str, str, str]:
    """The partition for a moment: name, first instant, first instant of the next."""
    moment = moment.astimezone(UTC)
    if by == "year":
        return f"passage_search_{moment:%Y}", f"{moment.year:04}-01-01+00", f"{moment.year + 1:04}-01-01+00"
    year, month = (moment.year, moment.month + 1) if moment.month < 12 else (moment.year + 1, 1)
    return f"passage_search_{moment:%Y_%m}", f"{moment:%Y-%m}-01+00", f"{year:04}-{month:02}-01+00"
