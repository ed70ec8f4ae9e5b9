"""Work in the background."""

from sqlalchemy import JSON, Column, Index, Integer, String

from audio_storage_system.database.tables.base import identity, now, reference, table
from audio_storage_system.database.types import Id, PlainText

jobs = table(
    "jobs",
    identity(),
    Column("kind", String(16), nullable=False),
    reference("audio_file_id", "audio_files", nullable=True),
    Column("options", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    # Whose job it is, and in which round it is served: everybody's first waiting job before anybody's second.
    Column("share", PlainText, nullable=False),
    Column("turn", Id, nullable=False),
    # Where it is: the step, which run of the job this is, and how often in a row the step failed or its worker died.
    Column("step", String(16), nullable=False),
    Column("run", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("outcome", String(16)),
    Column("code", String(64)),
    Column("reason", PlainText),
    now(),
    now("updated_at"),
    Index("idx_jobs_audio_id", "audio_file_id"),
)
Index(
    "idx_jobs_waiting",
    jobs.c.priority,
    jobs.c.share,
    jobs.c.turn,
    sqlite_where=jobs.c.outcome.is_(None),
    postgresql_where=jobs.c.outcome.is_(None),
)
Index(
    "idx_jobs_turn",
    jobs.c.priority,
    jobs.c.turn,
    sqlite_where=jobs.c.outcome.is_(None),
    postgresql_where=jobs.c.outcome.is_(None),
)

workers = table(
    "workers",
    identity(),
    Column("name", PlainText, nullable=False),
    Column("host", PlainText, nullable=False),
    # Processes of one place can tell whether another one lives; empty where that cannot be told.
    Column("place", PlainText, nullable=False),
    Column("process", Integer, nullable=False),
    Column("version", String(32), nullable=False),
    Column("queues", JSON, nullable=False),
    now("started_at"),
    now("heartbeat_at"),
    # Counted up with each heartbeat: others watch it by their own clocks.
    Column("beats", Id, nullable=False),
)
