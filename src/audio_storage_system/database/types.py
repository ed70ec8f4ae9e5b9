"""Column types that mean the same on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, UserDefinedType

from audio_storage_system.errors import InvalidInput

Id = BigInteger().with_variant(Integer, "sqlite")


class _Xid8(UserDefinedType[int]):
    """PostgreSQL's number of a transaction; the driver reads and writes it as text."""

    cache_ok = True

    def get_col_spec(self, **options: Any) -> str:
        return "xid8"

    def bind_processor(self, dialect: Dialect) -> Callable[[int | None], str | None]:
        return lambda value: None if value is None else str(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], int | None]:
        return lambda value: None if value is None else int(value)


TransactionId = Integer().with_variant(_Xid8(), "postgresql")


class this_transaction(FunctionElement[int]):
    """The number of the transaction that writes, where the database has one, else NULL."""

    type = TransactionId
    inherit_cache = True


@compiles(this_transaction, "sqlite")
def _on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "NULL"


@compiles(this_transaction, "postgresql")
def _on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "pg_current_xact_id()"


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. SQLite keeps `YYYY-MM-DD HH:MM:SS.ffffff` in UTC, PostgreSQL timestamptz; naive is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidInput(reason=f"{value} has no time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError as error:
            raise InvalidInput(reason=f"{value} is outside of the years 1 to 9999 in UTC") from error
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text without NUL, which PostgreSQL cannot store and C programs cut at."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is not None and "\0" in value:
            raise InvalidInput(reason="text with a NUL character cannot be stored")
        return value
