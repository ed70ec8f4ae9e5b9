"""Whether the catalogue's database is whole, says the same as the marker, and keeps its own rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Index, select, text

from audio_storage_system import deletion, marker
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import jobs, locks, metadata, recordings
from audio_storage_system.catalogue.changes import log
from audio_storage_system.database import tables
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance_to
from audio_storage_system.database.tables import metadata_of_schema
from audio_storage_system.errors import ArchiveDamaged, InvalidMetadata, StorageFailed
from audio_storage_system.integrity import rules
from audio_storage_system.integrity.findings import MOST_IDS, Finding, Severity
from audio_storage_system.integrity.looking import Check, Look
from audio_storage_system.integrity.rules import RESTORE, ROWS_AT_ONCE, Rule

IDS_AT_ONCE = 500

_AMCHECK = text("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'")
_INDEXES = text(
    "SELECT i.indexrelid, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON"
    " a.oid = c.relam JOIN pg_class t ON t.oid = i.indrelid WHERE a.amname = 'btree' AND i.indisvalid"
    " AND t.relnamespace = to_regnamespace(current_schema()) AND t.relpersistence = 'p' ORDER BY c.relname"
)
_CHECK_INDEX = text("SELECT bt_index_check(CAST(CAST(:index AS bigint) AS oid), :deep)")
_UNENFORCED = text(
    "SELECT conrelid::regclass || '.' || conname FROM pg_constraint WHERE NOT convalidated"
    " AND connamespace = to_regnamespace(current_schema()) UNION ALL"
    " SELECT indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE NOT indisvalid"
    " AND indisunique AND c.relnamespace = to_regnamespace(current_schema()) UNION ALL"
    " SELECT tgrelid::regclass || '.' || tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
    " WHERE tgenabled = 'D' AND c.relnamespace = to_regnamespace(current_schema())"
)

_COLUMNS = {
    "sqlite": text(
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'"
    ),
    "postgresql": text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    ),
}
_INDEX_NAMES = {
    "sqlite": text("SELECT name FROM sqlite_master WHERE type = 'index'"),
    "postgresql": text("SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"),
}


def _rules(chosen: tuple[Rule, ...], look: Look) -> Iterator[Finding]:
    with look.archive.database.read() as connection:
        yield from rules.broken(connection, chosen)


def _marker(look: Look) -> Iterator[Finding]:
    """The marker among the blobs and the catalogue's own row name the same archive."""
    archive = look.archive
    with archive.database.read() as connection:
        own = marker.of_catalogue(connection)
    try:
        found = marker.read(archive.blobs)
    except ArchiveDamaged as error:
        yield _about_marker(str(error.details["reason"]))
        return
    if found is None:
        yield _about_marker("it is not there")
    elif own is None or found.archive_id != own.archive_id:
        what = f"the files belong to archive {found.archive_id}, the catalogue to {own.archive_id if own else 'none'}"
        yield Finding("marker", Severity.ERROR, what, "Give the archive the place of its own files, or restore it.")
    elif not own.bound and (archive.settings.blobs_url or archive.settings.database_url):
        yield _about_marker("the catalogue has not noted that its files are marked")


def _about_marker(what: str) -> Finding:
    remedy = f"{marker.FILE_NAME} is written anew from the catalogue."
    return Finding("marker", Severity.WARNING, f"{marker.FILE_NAME}: {what}", remedy, repairable=True)


def _mark(archive: Archive, findings: Sequence[Finding]) -> None:
    archive.mark()
    marker.bind(archive.database)


def _database(look: Look) -> Iterator[Finding]:
    """The database's own view of itself."""
    with look.archive.database.read() as connection:
        if connection.dialect.name == "sqlite":
            said = connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_IDS})").scalars().all()
            wrong = [str(line) for line in said if line != "ok"]
        else:
            wrong = [f"{name} is not enforced" for name in connection.execute(_UNENFORCED).scalars()]
    wrong += [] if look.archive.database.dialect.name == "sqlite" else list(_damaged_indexes(look))
    for line in wrong[:MOST_IDS]:
        yield Finding("database", Severity.ERROR, line, f"{RESTORE} A damaged index alone: REINDEX.")


def _damaged_indexes(look: Look) -> Iterator[str]:
    """The B-tree indexes of PostgreSQL that `amcheck` finds damaged; it raises for each."""
    database = look.archive.database
    with database.read() as connection:
        there = connection.execute(_AMCHECK).scalar_one()
        indexes = connection.execute(_INDEXES).all() if there else []
    if not there:
        look.skipped["database"] = "pages of indexes: the extension amcheck is not installed"
    for oid, name in indexes:
        try:
            with database.read() as connection:
                connection.execute(_CHECK_INDEX, {"index": oid, "deep": look.deep})
        except ArchiveDamaged as error:
            yield f"index {name}: {error.details['reason']}"
        except StorageFailed as error:
            look.skipped["database"] = f"pages of indexes: {error}"
            return


def _schema(look: Look) -> Iterator[Finding]:
    """Every table, column and index is there."""
    with look.archive.database.read() as connection:
        there = {tuple(row) for row in connection.execute(_COLUMNS[connection.dialect.name])}
        indexes = _missing_indexes(connection)
    every = [(table.name, column.name) for table in metadata_of_schema.sorted_tables for column in table.columns]
    lost = [f"{table}.{column}" for table, column in every if (table, column) not in there]
    what = "tables or columns are missing"
    if finding := Finding.of(lost, check="schema", severity=Severity.ERROR, what=what, remedy=RESTORE):
        yield finding
    what, remedy = "indexes are missing: the archive is slow, or takes doubles", "They are made anew."
    given: dict[str, Any] = {"severity": Severity.WARNING, "what": what, "remedy": remedy, "repairable": True}
    if finding := Finding.of([str(index.name) for index in indexes], check="schema", **given):
        yield finding


def _missing_indexes(connection: Connection) -> list[Index]:
    known = {*connection.execute(_INDEX_NAMES[connection.dialect.name]).scalars()}
    every = [index for table in metadata_of_schema.sorted_tables for index in table.indexes]
    return [index for index in every if index.name not in known and _belongs(connection, index)]


def _belongs(connection: Connection, index: Index) -> bool:
    """Whether this kind of database has the index at all."""
    only = getattr(index, "_ddl_if", None)
    return only is None or only.dialect in (None, connection.dialect.name)


def _make_indexes(archive: Archive, findings: Sequence[Finding]) -> None:
    with archive.database.write() as connection:
        for index in _missing_indexes(connection):
            index.create(connection)


def _ids(look: Look) -> Iterator[Finding]:
    with look.archive.database.read() as connection:
        yield from rules.reused_ids(connection)


def _types(look: Look) -> Iterator[Finding]:
    with look.archive.database.read() as connection:
        yield from rules.mistyped(connection)


def _advance(archive: Archive, findings: Sequence[Finding]) -> None:
    with archive.database.write() as connection:
        for table in metadata_of_schema.sorted_tables:
            if table.name in findings[0].ids or len(findings) > 1:
                highest = connection.execute(select(table.c.id).order_by(table.c.id.desc()).limit(1)).scalar()
                advance_to(connection, table, highest or 0)


def _finish_deletions(archive: Archive, findings: Sequence[Finding]) -> None:
    deletion.complete_deletions(archive.database, archive.blobs)


def _keys(look: Look) -> Iterator[Finding]:
    if look.archive.keys is not None and look.archive.keys.encrypted:
        yield from _rules(rules.KEYS, look)


def _values(look: Look) -> Iterator[Finding]:
    """Every metadata entry can be read, and would be stored again as it is."""
    with look.archive.database.read() as connection:
        wrong = Finding.of(
            _unreadable(connection),
            check="values",
            severity=Severity.ERROR,
            what="their values cannot be read as what they are said to be",
            remedy="The number is made anew where the value can be read; else set the key again.",
            kind="metadata value",
            repairable=True,
        )
    if wrong:
        yield wrong


def _unreadable(connection: Connection) -> Iterator[int]:
    table = tables.metadata
    rows = connection.execute(select(table).execution_options(yield_per=ROWS_AT_ONCE)).mappings()
    for row in rows:
        encoded = _encoded(row["key"], row["value"], row["value_type"])
        if encoded is None or encoded != metadata.Encoded(row["value"], row["value_type"], row["value_number"]):
            yield row["id"]


def _encoded(key: str, value: str | None, value_type: str) -> metadata.Encoded | None:
    """How what is stored would be stored today; `None` where it cannot be read."""
    with suppress(ValueError, RecursionError, InvalidMetadata):
        encoded = metadata.encode(key, metadata.decode(value, value_type))
        return encoded if encoded.value_type == value_type else None
    return None


def _number_anew(archive: Archive, findings: Sequence[Finding]) -> None:
    """Numbers follow from values: one that does not is written again, and nothing else."""
    table = tables.metadata
    with archive.database.write() as connection:
        wrong = [*_unreadable(connection)]
        for row in connection.execute(select(table).where(within(table.c.id, wrong))).mappings().all():
            encoded = _encoded(row["key"], row["value"], row["value_type"])
            if encoded is not None and encoded.value == row["value"]:
                changed = table.update().where(table.c.id == row["id"]).values(value_number=encoded.value_number)
                connection.execute(changed)


def leave_to_workers(archive: Archive, audio_ids: Sequence[int]) -> None:
    """Let workers make what these recordings lack."""
    for audio_id in audio_ids:
        with archive.database.write(locks.of_recording(audio_id)) as connection:
            if recordings.exists(connection, audio_id):
                jobs.leave_to_workers(connection, audio_id, archive.owner_id)


def remove_vectors(archive: Archive, embedding_ids: Sequence[int]) -> None:
    """Remove embeddings that are none, and have their recordings embedded again."""
    table, of = tables.embeddings, set[int]()
    for start in range(0, len(embedding_ids), IDS_AT_ONCE):
        part = embedding_ids[start : start + IDS_AT_ONCE]
        with archive.database.write() as connection:
            gone = table.delete().where(within(table.c.id, part)).returning(table.c.id, table.c.audio_file_id)
            rows = connection.execute(gone).all()
            log(connection, table, [row.id for row in rows], "delete")
        of |= {row.audio_file_id for row in rows}
    leave_to_workers(archive, sorted(of))


CHECKS = (
    Check("marker", _marker, _mark),
    Check("database", _database),
    Check("schema", _schema, _make_indexes),
    Check("types", _types),
    Check("references", partial(_rules, rules.REFERENCES)),
    Check("uniqueness", partial(_rules, rules.UNIQUENESS)),
    Check("ids", _ids, _advance),
    *(
        Check(name, partial(_rules, tuple(of_name)))
        for name, of_name in groupby(rules.TRANSCRIPTS, key=lambda rule: rule.check)
    ),
    Check("embeddings", partial(_rules, rules.EMBEDDINGS[:2])),
    Check("spaces", partial(_rules, rules.SPACES)),
    Check("metadata", partial(_rules, rules.METADATA), _number_anew),
    Check("values", _values, _number_anew, deep=True),
    Check("deletions", partial(_rules, rules.DELETED)),
    Check("unfinished deletions", partial(_rules, rules.UNFINISHED_DELETIONS), _finish_deletions, settles=True),
    Check("keys", _keys),
)
