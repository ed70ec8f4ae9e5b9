"""What all tables have in common: their naming, their ids, references and times."""

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, MetaData, Table, UniqueConstraint, func

from audio_storage_system.database.types import Id, UtcDateTime

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata_of_schema = MetaData(naming_convention=NAMES)


def table(name: str, *parts: Column[Any] | Index | UniqueConstraint | CheckConstraint) -> Table:
    """A table whose integer ids are never used twice."""
    return Table(name, metadata_of_schema, *parts, sqlite_autoincrement=True)


def identity() -> Column[int]:
    """Its primary key."""
    return Column("id", Id, primary_key=True)


def reference(name: str, target: str, nullable: bool = False) -> Column[int]:
    """A column that holds the id of a row of `target`."""
    return Column(name, Id, ForeignKey(f"{target}.id"), nullable=nullable)


def now(name: str = "created_at") -> Column[Any]:
    """A moment that is filled in when a row is added."""
    return Column(name, UtcDateTime, nullable=False, server_default=func.current_timestamp())
