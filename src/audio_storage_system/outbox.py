"""What webhooks are told: written in the transaction of the change, so that a crash neither loses nor invents it.

A delivery is written for each webhook that wants the event and whose principal may see the recording at that moment.
Where there is no webhook, that is one look at an empty table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, delete, insert, select

from audio_storage_system.access import Access
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import webhook_deliveries, webhooks

_LISTENING = (
    select(webhooks.c.id, webhooks.c.principal_id, webhooks.c.restricted, webhooks.c.events)
    .where(webhooks.c.disabled_at.is_(None))
    .order_by(webhooks.c.id)
)
_ENTER = insert(webhook_deliveries).returning(webhook_deliveries.c.id, sort_by_parameter_order=True)


class Event(StrEnum):
    """What a webhook can be told of.

    stored: its bytes are safe. transcribed: a version of what is said was made, or imported; also one of silence.
    failed: a version could not be made, or a job was given up. trashed: it was thrown away; restored: it was had back.
    deleted: it is gone for good, by hand or by a rule. test: somebody tries the webhook.
    """

    STORED = "recording.stored"
    TRANSCRIBED = "recording.transcribed"
    FAILED = "recording.failed"
    TRASHED = "recording.trashed"
    RESTORED = "recording.restored"
    DELETED = "recording.deleted"
    TEST = "webhook.test"


def tell(connection: Connection, event: Event, audio_id: int, **facts: Any) -> None:
    """Have whom it concerns told of this, once the transaction is committed. `facts` are numbers and names of things:
    no text of the recording, no value of its metadata, no name of a file."""
    enter(connection, listening(connection, event, audio_id), event, audio_id, facts)


def listening(connection: Connection, event: Event, audio_id: int) -> list[int]:
    """The webhooks that want this event and whose principals may see the recording now."""
    rows = [row for row in connection.execute(_LISTENING) if event in row.events]
    seen = {who: may_see(connection, audio_id, *who) for who in {(row.principal_id, row.restricted) for row in rows}}
    return [row.id for row in rows if seen[row.principal_id, row.restricted]]


def may_see(connection: Connection, audio_id: int, principal_id: int, restricted: bool) -> bool:
    """Whether whose webhook it is may see the recording."""
    return Access(principal_id, restricted=restricted).may(connection, audio_id)


def enter(
    connection: Connection, webhook_ids: Sequence[int], event: Event, audio_id: int | None, facts: Mapping[str, Any]
) -> list[int]:
    """Enter a delivery for each of these webhooks, due now; their rows."""
    now = utc_now()
    row = {"event": event.value, "audio_id": audio_id, "facts": dict(facts), "created_at": now, "due_at": now}
    rows = [{**row, "webhook_id": id_, "delivery_id": uuid4().hex, "attempts": 0} for id_ in webhook_ids]
    if not rows:
        return []
    return list(connection.execute(_ENTER, rows).scalars())


def forget(connection: Connection, audio_id: int) -> None:
    """Remove what webhooks were or are to be told of a recording, which goes itself."""
    connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.audio_id == audio_id))
