"""The first schema."""

import sqlalchemy as sa
from alembic import op

from audio_storage_system.database.types import Id, PlainText, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "archive",
        sa.Column("id", Id, nullable=False),
        sa.Column("archive_id", sa.String(length=36), nullable=False),
        sa.Column("format_version", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_archive_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "change_log",
        sa.Column("id", Id, nullable=False),
        sa.Column(
            "at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("table_name", sa.String(length=32), nullable=False),
        sa.Column("row_id", Id, nullable=False),
        sa.Column("op", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_log")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "embedding_spaces",
        sa.Column("id", Id, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model", PlainText, nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("spec", PlainText, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding_spaces")),
        sa.UniqueConstraint("kind", "model", "dimension", name=op.f("uq_embedding_spaces_kind_model_dimension")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_embedding_spaces_one_active",
        "embedding_spaces",
        ["kind"],
        unique=True,
        sqlite_where=sa.text("active = 1"),
        postgresql_where=sa.text("active = true"),
    )
    op.create_table(
        "principals",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principals")),
        sa.UniqueConstraint("name", name=op.f("uq_principals_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tombstones",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_id", Id, nullable=False),
        sa.Column("file_hash", PlainText, nullable=False),
        sa.Column("file_path", PlainText, nullable=False),
        sa.Column("deleted_at", UtcDateTime, nullable=False),
        sa.Column("completed", sa.Boolean(), nullable=False),
        sa.Column("receipt", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tombstones")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_tombstones_audio_id", "tombstones", ["audio_id"], unique=False)
    op.create_table(
        "audio_files",
        sa.Column("id", Id, nullable=False),
        sa.Column("file_hash", PlainText, nullable=False),
        sa.Column("file_path", PlainText, nullable=False),
        sa.Column("file_size", Id, nullable=True),
        sa.Column("duration", sa.Float(), nullable=True),
        sa.Column("sample_rate", sa.Integer(), nullable=True),
        sa.Column("channels", sa.Integer(), nullable=True),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("owner_id", Id, nullable=False),
        sa.Column("original_name", PlainText, nullable=False),
        sa.Column("media_type", PlainText, nullable=True),
        sa.Column("codec", PlainText, nullable=True),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Column("recorded_offset_minutes", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["principals.id"], name=op.f("fk_audio_files_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audio_files")),
        sa.UniqueConstraint("owner_id", "file_hash", name=op.f("uq_audio_files_owner_id_file_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_audio_files_created_at", "audio_files", ["created_at"], unique=False)
    op.create_index("idx_audio_files_file_path", "audio_files", ["file_path"], unique=False)
    op.create_index("idx_audio_files_hash", "audio_files", ["file_hash"], unique=False)
    op.create_index("idx_audio_files_recorded_at", "audio_files", ["recorded_at"], unique=False)
    op.create_table(
        "index_cursors",
        sa.Column("id", Id, nullable=False),
        sa.Column("index_name", PlainText, nullable=False),
        sa.Column("space_id", Id, nullable=False),
        sa.Column("position", Id, nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["embedding_spaces.id"], name=op.f("fk_index_cursors_space_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_cursors")),
        sa.UniqueConstraint("index_name", "space_id", name=op.f("uq_index_cursors_index_name_space_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "metadata",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("key", PlainText, nullable=False),
        sa.Column("value", PlainText, nullable=True),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("value_type", sa.String(length=16), nullable=False),
        sa.Column("value_number", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name=op.f("fk_metadata_audio_file_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metadata")),
        sa.UniqueConstraint("audio_file_id", "key", name=op.f("uq_metadata_audio_file_id_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_metadata_audio_id", "metadata", ["audio_file_id"], unique=False)
    op.create_index("idx_metadata_key_number", "metadata", ["key", "value_number"], unique=False)
    op.create_index("idx_metadata_key_value", "metadata", ["key", "value"], unique=False)
    op.create_table(
        "transcripts",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("whisper_model", PlainText, nullable=False),
        sa.Column("transcription", PlainText, server_default="", nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("language", PlainText, nullable=True),
        sa.Column("processing_time", sa.Float(), nullable=True),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("engine", PlainText, nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.Column("reason", PlainText, nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name=op.f("fk_transcripts_audio_file_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transcripts")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_transcripts_audio_id", "transcripts", ["audio_file_id"], unique=False)
    op.create_index("idx_transcripts_engine", "transcripts", ["engine"], unique=False)
    op.create_index("idx_transcripts_language", "transcripts", ["language"], unique=False)
    op.create_index(
        "idx_transcripts_inactive",
        "transcripts",
        ["id"],
        unique=False,
        sqlite_where=sa.text("active = 0"),
        postgresql_where=sa.text("active = false"),
    )
    op.create_index(
        "uq_transcripts_one_active",
        "transcripts",
        ["audio_file_id"],
        unique=True,
        sqlite_where=sa.text("active = 1"),
        postgresql_where=sa.text("active = true"),
    )
    op.create_table(
        "transcription_windows",
        sa.Column("id", Id, nullable=False),
        sa.Column("transcript_id", Id, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.Column("end_seconds", sa.Float(), nullable=False),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["transcript_id"], ["transcripts.id"], name=op.f("fk_transcription_windows_transcript_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transcription_windows")),
        sa.UniqueConstraint("transcript_id", "sequence", name=op.f("uq_transcription_windows_transcript_id_sequence")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "segments",
        sa.Column("id", Id, nullable=False),
        sa.Column("transcript_id", Id, nullable=False),
        sa.Column("window_id", Id, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.Column("end_seconds", sa.Float(), nullable=False),
        sa.Column("text", PlainText, nullable=False),
        sa.Column("speaker", PlainText, nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("avg_logprob", sa.Float(), nullable=True),
        sa.Column("no_speech_prob", sa.Float(), nullable=True),
        sa.Column("compression_ratio", sa.Float(), nullable=True),
        sa.Column("words", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["transcript_id"], ["transcripts.id"], name=op.f("fk_segments_transcript_id")),
        sa.ForeignKeyConstraint(["window_id"], ["transcription_windows.id"], name=op.f("fk_segments_window_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
        sa.UniqueConstraint("transcript_id", "sequence", name=op.f("uq_segments_transcript_id_sequence")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_segments_speaker", "segments", ["speaker"], unique=False)
    op.create_index("idx_segments_window_id", "segments", ["window_id"], unique=False)
    op.create_table(
        "annotations",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("transcript_id", Id, nullable=True),
        sa.Column("segment_id", Id, nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("label", PlainText, nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("model", PlainText, nullable=True),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name=op.f("fk_annotations_audio_file_id")),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_annotations_segment_id")),
        sa.ForeignKeyConstraint(["transcript_id"], ["transcripts.id"], name=op.f("fk_annotations_transcript_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_annotations_audio_id", "annotations", ["audio_file_id"], unique=False)
    op.create_index("idx_annotations_kind_label", "annotations", ["kind", "label"], unique=False)
    op.create_index("idx_annotations_segment_id", "annotations", ["segment_id"], unique=False)
    op.create_index("idx_annotations_transcript_id", "annotations", ["transcript_id"], unique=False)
    op.create_table(
        "passages",
        sa.Column("id", Id, nullable=False),
        sa.Column("transcript_id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("owner_id", Id, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("first_segment_id", Id, nullable=False),
        sa.Column("last_segment_id", Id, nullable=False),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.Column("end_seconds", sa.Float(), nullable=False),
        sa.Column("text", PlainText, nullable=False),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name=op.f("fk_passages_audio_file_id")),
        sa.ForeignKeyConstraint(["first_segment_id"], ["segments.id"], name=op.f("fk_passages_first_segment_id")),
        sa.ForeignKeyConstraint(["last_segment_id"], ["segments.id"], name=op.f("fk_passages_last_segment_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["principals.id"], name=op.f("fk_passages_owner_id")),
        sa.ForeignKeyConstraint(["transcript_id"], ["transcripts.id"], name=op.f("fk_passages_transcript_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passages")),
        sa.UniqueConstraint("transcript_id", "sequence", name=op.f("uq_passages_transcript_id_sequence")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_passages_audio_id", "passages", ["audio_file_id", "transcript_id"], unique=False)
    op.create_index("idx_passages_first_segment_id", "passages", ["first_segment_id"], unique=False)
    op.create_index("idx_passages_last_segment_id", "passages", ["last_segment_id"], unique=False)
    op.create_table(
        "embeddings",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("transcript_id", Id, nullable=True),
        sa.Column("embedding_type", sa.String(length=16), nullable=False),
        sa.Column("space_id", Id, nullable=False),
        sa.Column("passage_id", Id, nullable=True),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.Column("end_seconds", sa.Float(), nullable=False),
        sa.Column("embedding_dimension", sa.Integer(), nullable=False),
        sa.Column("model_name", PlainText, nullable=False),
        sa.Column(
            "created_at",
            UtcDateTime,
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("embedding_data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name=op.f("fk_embeddings_audio_file_id")),
        sa.ForeignKeyConstraint(["passage_id"], ["passages.id"], name=op.f("fk_embeddings_passage_id")),
        sa.ForeignKeyConstraint(["space_id"], ["embedding_spaces.id"], name=op.f("fk_embeddings_space_id")),
        sa.ForeignKeyConstraint(["transcript_id"], ["transcripts.id"], name=op.f("fk_embeddings_transcript_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embeddings")),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_embeddings_audio_id", "embeddings", ["audio_file_id"], unique=False)
    op.create_index("idx_embeddings_space", "embeddings", ["space_id", "audio_file_id", "transcript_id"], unique=False)
    op.create_index("idx_embeddings_transcript_id", "embeddings", ["transcript_id"], unique=False)
    op.create_index(
        "uq_embeddings_passage",
        "embeddings",
        ["passage_id", "space_id"],
        unique=True,
        sqlite_where=sa.text("passage_id IS NOT NULL"),
        postgresql_where=sa.text("passage_id IS NOT NULL"),
    )
    op.create_index(
        "uq_embeddings_window",
        "embeddings",
        ["audio_file_id", "space_id", "start_seconds"],
        unique=True,
        sqlite_where=sa.text("passage_id IS NULL"),
        postgresql_where=sa.text("passage_id IS NULL"),
    )
