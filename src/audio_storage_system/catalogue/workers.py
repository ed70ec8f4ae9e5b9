"""Workers: the processes that do background jobs, and the sign of life that each gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import workers
from audio_storage_system.records import jsonable


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One process. `place` names the machine as far as its processes can see each other; `beats` counts its signs of
    life."""

    id: int
    name: str
    host: str
    place: str
    process: int
    version: str
    queues: Sequence[str]
    started_at: datetime
    heartbeat_at: datetime
    beats: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        shown = {key: value for key, value in asdict(self).items() if key not in ("place", "beats")}
        return {key: jsonable(value) for key, value in shown.items()}


def enter(
    connection: Connection, *, name: str, host: str, place: str, process: int, version: str, queues: Sequence[str]
) -> int:
    """A new worker; its id, which no other ever had."""
    now = utc_now()
    row = {"name": name, "host": host, "place": place, "process": process, "version": version, "queues": list(queues)}
    moments = {"started_at": now, "heartbeat_at": now, "beats": 0}
    return int(connection.execute(insert(workers).returning(workers.c.id), {**row, **moments}).scalar_one())


def beat(connection: Connection, worker_id: int) -> bool:
    """Give a sign of life; false when others took this worker for dead and took its jobs over."""
    statement = update(workers).where(workers.c.id == worker_id)
    return connection.execute(statement.values(beats=workers.c.beats + 1, heartbeat_at=utc_now())).rowcount == 1


def present(connection: Connection) -> list[WorkerRow]:
    """Every worker that has not left or been found dead."""
    return [WorkerRow(**row) for row in connection.execute(select(workers).order_by(workers.c.id)).mappings()]


def leave(connection: Connection, worker_id: int) -> None:
    """Strike a worker off."""
    connection.execute(delete(workers).where(workers.c.id == worker_id))
