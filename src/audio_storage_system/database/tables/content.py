"""What is kept of recordings and what was said in them."""

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
    false,
    true,
)

from audio_storage_system.database.tables.base import identity, now, reference, table
from audio_storage_system.database.types import Id, PlainText, TransactionId, UtcDateTime, this_transaction

archive = table(
    "archive",
    identity(),
    Column("archive_id", String(36), nullable=False),
    Column("format_version", Integer, nullable=False),
    now(),
    # Whether the place of the blobs was told which archive it belongs to: from then on it must know.
    Column("bound", Boolean, nullable=False, server_default=false()),
    CheckConstraint("id = 1", name="one_row"),
)

audio_files = table(
    "audio_files",
    identity(),
    Column("file_hash", PlainText, nullable=False),
    Column("file_path", PlainText, nullable=False),
    Column("file_size", Id),
    Column("duration", Float),
    Column("sample_rate", Integer),
    Column("channels", Integer),
    now(),
    now("updated_at"),
    reference("owner_id", "principals"),
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

transcripts = table(
    "transcripts",
    identity(),
    reference("audio_file_id", "audio_files"),
    Column("whisper_model", PlainText, nullable=False),
    Column("transcription", PlainText, nullable=False, server_default=""),
    Column("confidence", Float),
    Column("language", PlainText),
    Column("processing_time", Float),
    now(),
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

transcription_windows = table(
    "transcription_windows",
    identity(),
    reference("transcript_id", "transcripts"),
    Column("sequence", Integer, nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    now(),
    UniqueConstraint("transcript_id", "sequence"),
)

segments = table(
    "segments",
    identity(),
    reference("transcript_id", "transcripts"),
    reference("window_id", "transcription_windows"),
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

passages = table(
    "passages",
    identity(),
    reference("transcript_id", "transcripts"),
    reference("audio_file_id", "audio_files"),
    reference("owner_id", "principals"),
    Column("sequence", Integer, nullable=False),
    reference("first_segment_id", "segments"),
    reference("last_segment_id", "segments"),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("text", PlainText, nullable=False),
    UniqueConstraint("transcript_id", "sequence"),
    Index("idx_passages_audio_id", "audio_file_id", "transcript_id"),
    Index("idx_passages_first_segment_id", "first_segment_id"),
    Index("idx_passages_last_segment_id", "last_segment_id"),
)

embedding_spaces = table(
    "embedding_spaces",
    identity(),
    Column("kind", String(16), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("spec", PlainText, nullable=False),
    Column("active", Boolean, nullable=False),
    now(),
    UniqueConstraint("kind", "model", "dimension"),
)
Index(
    "uq_embedding_spaces_one_active",
    embedding_spaces.c.kind,
    unique=True,
    sqlite_where=embedding_spaces.c.active == true(),
    postgresql_where=embedding_spaces.c.active == true(),
)

embeddings = table(
    "embeddings",
    identity(),
    reference("audio_file_id", "audio_files"),
    reference("transcript_id", "transcripts", nullable=True),
    Column("embedding_type", String(16), nullable=False),
    reference("space_id", "embedding_spaces"),
    reference("passage_id", "passages", nullable=True),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("embedding_dimension", Integer, nullable=False),
    Column("model_name", PlainText, nullable=False),
    now(),
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

metadata = table(
    "metadata",
    identity(),
    reference("audio_file_id", "audio_files"),
    Column("key", PlainText, nullable=False),
    Column("value", PlainText),
    now(),
    Column("value_type", String(16), nullable=False),
    Column("value_number", Float),
    UniqueConstraint("audio_file_id", "key"),
    Index("idx_metadata_audio_id", "audio_file_id"),
    Index("idx_metadata_key_value", "key", "value"),
    Index("idx_metadata_key_number", "key", "value_number"),
)

annotations = table(
    "annotations",
    identity(),
    reference("audio_file_id", "audio_files"),
    reference("transcript_id", "transcripts", nullable=True),
    reference("segment_id", "segments", nullable=True),
    Column("kind", String(16), nullable=False),
    Column("label", PlainText, nullable=False),
    Column("score", Float),
    Column("model", PlainText),
    now(),
    Index("idx_annotations_audio_id", "audio_file_id"),
    Index("idx_annotations_transcript_id", "transcript_id"),
    Index("idx_annotations_segment_id", "segment_id"),
    Index("idx_annotations_kind_label", "kind", "label"),
)

change_log = table(
    "change_log",
    identity(),
    now("at"),
    Column("table_name", String(32), nullable=False),
    Column("row_id", Id, nullable=False),
    Column("op", String(8), nullable=False),
    # On a server a transaction may commit after others with higher ids: readers go by (xid, id), see vectors/log.py.
    Column("xid", TransactionId, server_default=this_transaction()),
    Index("idx_change_log_order", "xid", "id").ddl_if(dialect="postgresql"),
)

index_cursors = table(
    "index_cursors",
    identity(),
    Column("index_name", PlainText, nullable=False),
    reference("space_id", "embedding_spaces"),
    Column("position", Id, nullable=False),
    Column("xid", TransactionId),
    UniqueConstraint("index_name", "space_id"),
)
