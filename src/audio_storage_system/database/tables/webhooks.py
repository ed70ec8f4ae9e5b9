"""Whom to call when something happens to a recording, and what they are still to be told."""

from sqlalchemy import JSON, Boolean, Column, Index, Integer, LargeBinary, String

from audio_storage_system.database.tables.base import identity, now, reference, table
from audio_storage_system.database.types import Id, PlainText, UtcDateTime

# `restricted`: of recordings that its principal may see; else of all, as who made it may. `secret` is what calls are
# signed with, `sealed` where the archive has keys. `failing_since`: no call has been answered well since then.
webhooks = table(
    "webhooks",
    identity(),
    reference("principal_id", "principals"),
    Column("restricted", Boolean, nullable=False),
    Column("name", PlainText, nullable=False),
    Column("url", PlainText, nullable=False),
    Column("events", JSON, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("sealed", Boolean, nullable=False),
    now(),
    Column("failing_since", UtcDateTime),
    Column("disabled_at", UtcDateTime),
    Column("disabled_reason", PlainText),
    Index("idx_webhooks_principal_id", "principal_id"),
)

# The outbox: written in the transaction of the change. It refers to nothing by foreign key: no change waits for a
# webhook's removal or fails with it. `due_at`: when it is sent next; while somebody is sending it, when others may take
# it for lost. `attempts` counts beginnings, and tells who holds it. `outcome` is NULL until it has ended.
webhook_deliveries = table(
    "webhook_deliveries",
    identity(),
    Column("webhook_id", Id, nullable=False),
    Column("delivery_id", String(32), nullable=False, unique=True),
    Column("event", String(48), nullable=False),
    Column("audio_id", Id),
    Column("facts", JSON, nullable=False),
    now(),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("outcome", String(16)),
    Column("status", Integer),
    Column("reason", PlainText),
    Column("ended_at", UtcDateTime),
    Index("idx_webhook_deliveries_webhook_id", "webhook_id", "id"),
    Index("idx_webhook_deliveries_audio_id", "audio_id"),
)
_waiting = webhook_deliveries.c.outcome.is_(None)
Index("idx_webhook_deliveries_due", webhook_deliveries.c.due_at, sqlite_where=_waiting, postgresql_where=_waiting)
