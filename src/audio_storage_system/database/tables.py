"""The schema: the tables that hold the truth. Migrations must arrive at exactly this.

Derived tables (full text, vector codes) are made by the code that uses them and can be dropped at any time.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
    func,
    true,
)

from audio_storage_system.database.types import Id, PlainText, TransactionId, UtcDateTime, this_transaction

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata_of_schema = MetaData(naming_convention=NAMES)


def _table(name: str, *parts: Column[Any] | Index | UniqueConstraint | CheckConstraint) -> Table:
    """A table whose integer ids are never used twice."""
    return Table(name, metadata_of_schema, *parts, sqlite_autoincrement=True)


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True)


def _reference(name: str, target: str, nullable: bool = False) -> Column[int]:
    return Column(name, Id, ForeignKey(f"{target}.id"), nullable=nullable)


def _now(name: str = "created_at") -> Column[Any]:
    return Column(name, UtcDateTime, nullable=False, server_default=func.current_timestamp())


archive = _table(
    "archive",
    _id(),
    Column("archive_id", String(36), nullable=False),
    Column("format_version", Integer, nullable=False),
    _now(),
    # Whether the place of the blobs was told which archive it belongs to: from then on it must know.
    Column("bound", Boolean, nullable=False, server_default=false()),
    CheckConstraint("id = 1", name="one_row"),
)

principals = _table(
    "principals",
    _id(),
    Column("name", PlainText, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    _now(),
)

audio_files = _table(
    "audio_files",
    _id(),
    Column("file_hash", PlainText, nullable=False),
    Column("file_path", PlainText, nullable=False),
    Column("file_size", Id),
    Column("duration", Float),
    Column("sample_rate", Integer),
    Column("channels", Integer),
    _now(),
    _now("updated_at"),
    _reference("owner_id", "principals"),
    Column("original_name", PlainText, nullable=False),
    Column("media_type", PlainText),
    Column("codec", PlainText),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("recorded_offset_minutes", Integer),
    Column("status", String(16), nullable=False),
    UniqueConstraint("owner_id", "file_hash"),
    Index("idx_audio_files_hash", "file_hash"),
    Index("idx_audio_files_created_at", "created_at"),
    Index("idx_audio_files_recorded_at", "recorded_at"),
    Index("idx_audio_files_file_path", "file_path"),
)

transcripts = _table(
    "transcripts",
    _id(),
    _reference("audio_file_id", "audio_files"),
    Column("whisper_model", PlainText, nullable=False),
    Column("transcription", PlainText, nullable=False, server_default=""),
    Column("confidence", Float),
    Column("language", PlainText),
    Column("processing_time", Float),
    _now(),
    Column("engine", PlainText, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("outcome", String(32)),
    Column("reason", PlainText),
    Column("active", Boolean, nullable=False),
    Index("idx_transcripts_audio_id", "audio_file_id"),
    Index("idx_transcripts_engine", "engine"),
    Index("idx_transcripts_language", "language"),
)
Index(
    "uq_transcripts_one_active",
    transcripts.c.audio_file_id,
    unique=True,
    sqlite_where=transcripts.c.active == true(),
    postgresql_where=transcripts.c.active == true(),
)

Index(
    "idx_transcripts_inactive",
    transcripts.c.id,
    sqlite_where=transcripts.c.active == false(),
    postgresql_where=transcripts.c.active == false(),
)

transcription_windows = _table(
    "transcription_windows",
    _id(),
    _reference("transcript_id", "transcripts"),
    Column("sequence", Integer, nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    _now(),
    UniqueConstraint("transcript_id", "sequence"),
)

segments = _table(
    "segments",
    _id(),
    _reference("transcript_id", "transcripts"),
    _reference("window_id", "transcription_windows"),
    Column("sequence", Integer, nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("text", PlainText, nullable=False),
    Column("speaker", PlainText),
    Column("confidence", Float),
    Column("avg_logprob", Float),
    Column("no_speech_prob", Float),
    Column("compression_ratio", Float),
    Column("words", JSON, nullable=False),
    UniqueConstraint("transcript_id", "sequence"),
    Index("idx_segments_window_id", "window_id"),
    Index("idx_segments_speaker", "speaker"),
)

passages = _table(
    "passages",
    _id(),
    _reference("transcript_id", "transcripts"),
    _reference("audio_file_id", "audio_files"),
    _reference("owner_id", "principals"),
    Column("sequence", Integer, nullable=False),
    _reference("first_segment_id", "segments"),
    _reference("last_segment_id", "segments"),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("text", PlainText, nullable=False),
    UniqueConstraint("transcript_id", "sequence"),
    Index("idx_passages_audio_id", "audio_file_id", "transcript_id"),
    Index("idx_passages_first_segment_id", "first_segment_id"),
    Index("idx_passages_last_segment_id", "last_segment_id"),
)

embedding_spaces = _table(
    "embedding_spaces",
    _id(),
    Column("kind", String(16), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("spec", PlainText, nullable=False),
    Column("active", Boolean, nullable=False),
    _now(),
    UniqueConstraint("kind", "model", "dimension"),
)
Index(
    "uq_embedding_spaces_one_active",
    embedding_spaces.c.kind,
    unique=True,
    sqlite_where=embedding_spaces.c.active == true(),
    postgresql_where=embedding_spaces.c.active == true(),
)

embeddings = _table(
    "embeddings",
    _id(),
    _reference("audio_file_id", "audio_files"),
    _reference("transcript_id", "transcripts", nullable=True),
    Column("embedding_type", String(16), nullable=False),
    _reference("space_id", "embedding_spaces"),
    _reference("passage_id", "passages", nullable=True),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("embedding_dimension", Integer, nullable=False),
    Column("model_name", PlainText, nullable=False),
    _now(),
    Column("embedding_data", LargeBinary, nullable=False),
    Index("idx_embeddings_audio_id", "audio_file_id"),
    Index("idx_embeddings_space", "space_id", "audio_file_id", "transcript_id"),
    Index("idx_embeddings_transcript_id", "transcript_id"),
)
Index(
    "uq_embeddings_passage",
    embeddings.c.passage_id,
    embeddings.c.space_id,
    unique=True,
    sqlite_where=embeddings.c.passage_id.is_not(None),
    postgresql_where=embeddings.c.passage_id.is_not(None),
)
Index(
    "uq_embeddings_window",
    embeddings.c.audio_file_id,
    embeddings.c.space_id,
    embeddings.c.start_seconds,
    unique=True,
    sqlite_where=embeddings.c.passage_id.is_(None),
    postgresql_where=embeddings.c.passage_id.is_(None),
)

metadata = _table(
    "metadata",
    _id(),
    _reference("audio_file_id", "audio_files"),
    Column("key", PlainText, nullable=False),
    Column("value", PlainText),
    _now(),
    Column("value_type", String(16), nullable=False),
    Column("value_number", Float),
    UniqueConstraint("audio_file_id", "key"),
    Index("idx_metadata_audio_id", "audio_file_id"),
    Index("idx_metadata_key_value", "key", "value"),
    Index("idx_metadata_key_number", "key", "value_number"),
)

annotations = _table(
    "annotations",
    _id(),
    _reference("audio_file_id", "audio_files"),
    _reference("transcript_id", "transcripts", nullable=True),
    _reference("segment_id", "segments", nullable=True),
    Column("kind", String(16), nullable=False),
    Column("label", PlainText, nullable=False),
    Column("score", Float),
    Column("model", PlainText),
    _now(),
    Index("idx_annotations_audio_id", "audio_file_id"),
    Index("idx_annotations_transcript_id", "transcript_id"),
    Index("idx_annotations_segment_id", "segment_id"),
    Index("idx_annotations_kind_label", "kind", "label"),
)

jobs = _table(
    "jobs",
    _id(),
    Column("kind", String(16), nullable=False),
    _reference("audio_file_id", "audio_files", nullable=True),
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
    _now(),
    _now("updated_at"),
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

workers = _table(
    "workers",
    _id(),
    Column("name", PlainText, nullable=False),
    Column("host", PlainText, nullable=False),
    # Processes of one place can tell whether another one lives; empty where that cannot be told.
    Column("place", PlainText, nullable=False),
    Column("process", Integer, nullable=False),
    Column("version", String(32), nullable=False),
    Column("queues", JSON, nullable=False),
    _now("started_at"),
    _now("heartbeat_at"),
    # Counted up with each heartbeat: others watch it by their own clocks.
    Column("beats", Id, nullable=False),
)

tombstones = _table(
    "tombstones",
    _id(),
    Column("audio_id", Id, nullable=False),
    Column("file_hash", PlainText, nullable=False),
    Column("file_path", PlainText, nullable=False),
    Column("deleted_at", UtcDateTime, nullable=False),
    Column("completed", Boolean, nullable=False),
    Column("receipt", JSON, nullable=False),
    Index("idx_tombstones_audio_id", "audio_id"),
)

change_log = _table(
    "change_log",
    _id(),
    _now("at"),
    Column("table_name", String(32), nullable=False),
    Column("row_id", Id, nullable=False),
    Column("op", String(8), nullable=False),
    # On a server a transaction may commit after others with higher ids: readers go by (xid, id), see vectors/log.py.
    Column("xid", TransactionId, server_default=this_transaction()),
    Index("idx_change_log_order", "xid", "id").ddl_if(dialect="postgresql"),
)

index_cursors = _table(
    "index_cursors",
    _id(),
    Column("index_name", PlainText, nullable=False),
    _reference("space_id", "embedding_spaces"),
    Column("position", Id, nullable=False),
    Column("xid", TransactionId),
    UniqueConstraint("index_name", "space_id"),
)
