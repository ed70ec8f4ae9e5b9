"""What was read once and holds until the database changes: small facts that every search asks for again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from audio_storage_system.database import postgresql, sqlite

MOST_FACTS = 64
VERSIONS = {"sqlite": sqlite.version, "postgresql": postgresql.version}

T = TypeVar("T")


@dataclass(slots=True)
class _Facts:
    """What one connection knows, and the version of the database it knows it of."""

    version: Hashable = None
    known: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)


def remembered(connection: Connection, key: Hashable, find: Callable[[], T]) -> T:
    """What `find` reads on this connection, read again only after anyone has changed anything in the database.

    Kept with the connection, since only the same connection can tell whether something changed. `key` names what is
    read, so it must hold everything that `find` depends on. Inside a write transaction nothing is remembered: it may
    be rolled back.
    """
    if connection.get_execution_options().get("writes"):
        return find()
    facts: _Facts = connection.info.setdefault(__name__, _Facts())
    version = VERSIONS[connection.dialect.name](connection)
    if facts.version != version:
        facts.version = version
        facts.known.clear()
    if key not in facts.known:
        facts.known[key] = find()
        if len(facts.known) > MOST_FACTS:
            facts.known.popitem(last=False)
    facts.known.move_to_end(key)
    found: T = facts.known[key]
    return found
