"""Bringing a database to the schema of this version, with Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from audio_storage_system.database.engine import Database
from audio_storage_system.database.tables import metadata_of_schema
from audio_storage_system.errors import ArchiveMismatch, NewerFormat

VERSIONS = ["0001", "0002", "0003", "0004", "0005", "0006"]
HEAD = VERSIONS[-1]


def revision_of(connection: Connection) -> str | None:
    """The revision a database is at; `None` for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def is_empty(connection: Connection, place: str) -> bool:
    """Whether there is nothing of an archive in this database.

    Raises `ArchiveMismatch` when it holds the tables of another program under the names that an archive needs.
    """
    present = set(inspect(connection).get_table_names())
    ours = present & set(metadata_of_schema.tables)
    if revision_of(connection) is None:
        if ours:
            raise ArchiveMismatch(place=place, reason=f"it has a table {min(ours)} of another program")
        return True
    if "archive" not in ours:
        raise ArchiveMismatch(place=place, reason="its migrations are those of another program; give it a database")
    return False


def migrate(database: Database) -> bool:
    """Bring `database` to `HEAD` in one transaction; whether there was anything to do.

    Raises `NewerFormat` for a database made by a later version.
    """
    with database.read() as connection:
        revision = revision_of(connection)
    if revision == HEAD:
        return False
    if revision is not None and revision not in VERSIONS:
        raise NewerFormat(place=database.place, found=revision, known=HEAD)
    with database.write("migration") as connection:  # several processes may come here at once: one is let in, the rest
        if revision_of(connection) != HEAD:  # find nothing left to do
            _upgrade(connection)
    return True


def _upgrade(connection: Connection) -> None:
    from alembic import command  # slow to import, and an archive is migrated once
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
