"""What differs between databases, as one interface: everything else is written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from audio_storage_system.clock import Deadline
from audio_storage_system.errors import AudioStorageSystemError


@dataclass(frozen=True, slots=True)
class Pool:
    """How connections to a server are kept: at most `size` idle and `overflow` more in use; `timeout` seconds waiting
    for a free one; each is replaced after `recycle` seconds, and with `pre_ping` asked for life before it is used."""

    size: int = 8
    overflow: int = 24
    timeout: float = 30.0
    recycle: float = 1800.0
    pre_ping: bool = True


class Shared(str):
    """A name for `Database.write` that any number may have at once which give it as shared; who gives it plainly has it
    alone."""

    __slots__ = ()


class Dialect(ABC):
    """One kind of database. `name` is SQLAlchemy's, `patience_seconds` how long to wait for a connection in use."""

    name: str
    patience_seconds: float

    @abstractmethod
    def create(self) -> Engine:
        """An engine for the address this was made with. Connects to nothing yet."""

    @abstractmethod
    def reading(self, connection: Connection, deadline: Deadline) -> AbstractContextManager[None]:
        """Everything inside sees one state of the database, changes nothing, and is stopped at the deadline."""

    @abstractmethod
    def limit(self, connection: Connection, deadline: Deadline) -> None:
        """From now on each statement of this connection's read is stopped at this deadline."""

    @abstractmethod
    def attempting(self, connection: Connection, deadline: Deadline, before: Deadline) -> AbstractContextManager[None]:
        """A part of a read, stopped at `deadline`, after which it goes on until `before`, errors or not."""

    @abstractmethod
    def writing(self, connection: Connection, names: Sequence[str]) -> AbstractContextManager[None]:
        """One transaction. Of those that give the same name one runs at a time, save for `Shared` ones."""

    @abstractmethod
    def clean(self, engine: Engine) -> bool:
        """Let go of what deleted rows have left in the database's files; whether that is done. Not in a transaction."""

    @abstractmethod
    def translate(self, error: DBAPIError, place: str, deadline: Deadline) -> AudioStorageSystemError:
        """The error of our own tree for what the database said."""
