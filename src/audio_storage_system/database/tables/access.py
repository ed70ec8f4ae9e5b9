"""Who there is, and what they may."""

from sqlalchemy import JSON, Column, Float, Index, String, UniqueConstraint

from audio_storage_system.database.tables.base import identity, now, reference, table
from audio_storage_system.database.types import Id, PlainText, UtcDateTime

principals = table(
    "principals",
    identity(),
    Column("name", PlainText, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    now(),
)

# Who belongs to which group: everything granted to the group is granted to its members.
memberships = table(
    "memberships",
    identity(),
    reference("group_id", "principals"),
    reference("member_id", "principals"),
    now(),
    UniqueConstraint("group_id", "member_id"),
    Index("idx_memberships_member_id", "member_id"),
)

# What a principal may, and with what (`reach`): one recording, those whose metadata meets every condition of the grant
# (a selection), or the whole archive. Said in so many words, so that conditions that are lost never widen a grant.
grants = table(
    "grants",
    identity(),
    reference("principal_id", "principals"),
    Column("role", String(16), nullable=False),
    Column("reach", String(16), nullable=False),
    reference("audio_file_id", "audio_files", nullable=True),
    Column("created_by", Id, nullable=False),
    now(),
    Column("expires_at", UtcDateTime),
    Index("idx_grants_principal_id", "principal_id"),
    Index("idx_grants_audio_id", "audio_file_id"),
)

grant_conditions = table(
    "grant_conditions",
    identity(),
    reference("grant_id", "grants"),
    Column("key", PlainText, nullable=False),
    Column("value", PlainText, nullable=False),
    Column("value_number", Float),
    UniqueConstraint("grant_id", "key"),
)

# `digest` is all that is kept of a token: it is shown once.
api_tokens = table(
    "api_tokens",
    identity(),
    reference("principal_id", "principals"),
    Column("name", PlainText, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_by", Id, nullable=False),
    now(),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Index("idx_api_tokens_principal_id", "principal_id"),
)
