"""The rows of webhooks and of their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, or_, select, update

from audio_storage_system.clock import utc_now
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import principals, webhook_deliveries, webhooks
from audio_storage_system.errors import NotFound
from audio_storage_system.outbox import Event
from audio_storage_system.records import jsonable
from audio_storage_system.webhooks.plan import LEASE

_DELIVERY = tuple(
    webhook_deliveries.c[name]
    for name in "id delivery_id webhook_id event audio_id attempts created_at due_at status reason ended_at".split()
)
_WAITING = webhook_deliveries.c.outcome.is_(None)
_OF_WEBHOOK = (webhooks.c.principal_id, webhooks.c.restricted, webhooks.c.url, webhooks.c.secret, webhooks.c.sealed)
_SENDING = select(webhook_deliveries, *_OF_WEBHOOK).join(webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)


class DeliveryState(StrEnum):
    """Where a delivery is. withdrawn: whose webhook it is may not see the recording any more."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is called, and when. principal: whose it is, who is told of the recordings that he may see;
    everything: of all, as it was made by who is not restricted. failing_since: no call has been answered well since
    then. disabled_at, disabled_reason: it is not called. waiting: so many deliveries are to be made."""

    id: int
    principal: str
    everything: bool
    name: str
    url: str
    events: tuple[Event, ...]
    created_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    waiting: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `webhook_id`."""
        data: dict[str, Any] = jsonable({"webhook_id": self.id, **asdict(self)})
        del data["id"]
        return data


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A webhook that was just made. `secret` is what its calls are signed with: it is not shown again."""

    webhook: Webhook
    secret: str = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the secret."""
        return {**self.webhook.as_dict(), "secret": self.secret}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. delivery_id: the same in each attempt. due_at: when it is sent next, if it waits.
    status: of the last answer; reason: why the last attempt failed."""

    id: int
    delivery_id: str
    webhook_id: int
    event: Event
    audio_id: int | None
    attempts: int
    created_at: datetime
    due_at: datetime | None
    status: int | None
    reason: str | None
    ended_at: datetime | None
    state: DeliveryState

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; without the number that only orders them."""
        data: dict[str, Any] = jsonable(asdict(self))
        del data["id"]
        return data


# Webhooks


def select_webhooks(connection: Connection, *conditions: ColumnElement[bool]) -> list[Webhook]:
    """Webhooks that meet the conditions, the oldest first."""
    mine = and_(webhook_deliveries.c.webhook_id == webhooks.c.id, _WAITING)
    waiting = select(func.count()).select_from(webhook_deliveries).where(mine).scalar_subquery()
    query = select(webhooks, principals.c.name.label("principal"), waiting.label("waiting"))
    query = query.join(principals, principals.c.id == webhooks.c.principal_id)
    return [_webhook(row) for row in connection.execute(query.where(*conditions).order_by(webhooks.c.id))]


def get_webhook(connection: Connection, webhook_id: int, *conditions: ColumnElement[bool]) -> Webhook:
    """One webhook that meets the conditions. Raises `NotFound`."""
    found = select_webhooks(connection, webhooks.c.id == webhook_id, *conditions)
    if not found:
        raise NotFound(kind="webhook", id=webhook_id)
    return found[0]


def enable(connection: Connection, webhook_id: int) -> None:
    """Call it again from now on."""
    fresh = {"failing_since": None, "disabled_at": None, "disabled_reason": None}
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**fresh))


def disable(connection: Connection, webhook_id: int, reason: str) -> bool:
    """Call it no more: what waits stays, and what happens from now on is not for it. False where it was so already."""
    on = (webhooks.c.id == webhook_id, webhooks.c.disabled_at.is_(None))
    off = {"disabled_at": utc_now(), "disabled_reason": reason}
    return connection.execute(update(webhooks).where(*on).values(**off)).rowcount == 1


def remove(connection: Connection, webhook_id: int) -> None:
    """Remove a webhook. Its deliveries are nobody's, and go with those of long ago."""
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


def note_answer(connection: Connection, webhook_id: int, *, ok: bool) -> datetime | None:
    """Note whether a call was answered well; since when none was."""
    now = utc_now()
    since = None if ok else func.coalesce(webhooks.c.failing_since, now)
    changes = (webhooks.c.failing_since.is_not(None),) if ok else ()
    mine = update(webhooks).where(webhooks.c.id == webhook_id, *changes).values(failing_since=since)
    found: datetime | None = connection.execute(mine.returning(webhooks.c.failing_since)).scalar()
    return found


# Deliveries


def select_deliveries(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[Delivery]:
    """Deliveries that meet the conditions, the latest first."""
    query = select(*_DELIVERY, webhook_deliveries.c.outcome).where(*conditions)
    rows = connection.execute(query.order_by(webhook_deliveries.c.id.desc()).limit(limit))
    return [_delivery(row) for row in rows]


def in_state(state: DeliveryState) -> ColumnElement[bool]:
    """The condition that a delivery is in this state."""
    return _WAITING if state is DeliveryState.WAITING else webhook_deliveries.c.outcome == state.value


def next_due(connection: Connection, busy: Sequence[int]) -> Row[Any] | None:
    """The delivery that is due first, of webhooks that are called and are not `busy`; of each recording and webhook the
    oldest that waits, so that what happened to it is told in order. With all that sending it takes."""
    before = webhook_deliveries.alias("before")
    earlier = exists().where(
        before.c.webhook_id == webhook_deliveries.c.webhook_id,
        before.c.audio_id == webhook_deliveries.c.audio_id,
        before.c.outcome.is_(None),
        before.c.id < webhook_deliveries.c.id,
    )
    query = (
        _SENDING.where(_WAITING, webhook_deliveries.c.due_at <= utc_now(), webhooks.c.disabled_at.is_(None), ~earlier)
        .where(webhook_deliveries.c.webhook_id.not_in(busy))
        .order_by(webhook_deliveries.c.due_at, webhook_deliveries.c.id)
        .limit(1)
    )
    return connection.execute(query).first()


def with_webhook(connection: Connection, row_id: int) -> Row[Any]:
    """A delivery with all that sending it takes."""
    return connection.execute(_SENDING.where(webhook_deliveries.c.id == row_id)).one()


def claim(connection: Connection, row_id: int, attempts: int) -> bool:
    """Begin to send a delivery that was tried so often before; false where somebody else does, or it has ended. Who
    claims it has it until the lease is over."""
    return _change(connection, row_id, attempts, attempts=attempts + 1, due_at=utc_now() + LEASE)


def put_off(connection: Connection, row_id: int, attempts: int, wait: timedelta, status: int | None, why: str) -> bool:
    """Try it again later; false where others have taken it over."""
    return _change(connection, row_id, attempts, due_at=utc_now() + wait, status=status, reason=why)


def end(
    connection: Connection,
    row_id: int,
    attempts: int,
    state: DeliveryState,
    status: int | None = None,
    reason: str | None = None,
) -> bool:
    """It has come to this end; false where others have taken it over."""
    values = {"outcome": state.value, "status": status, "reason": reason, "ended_at": utc_now()}
    return _change(connection, row_id, attempts, **values)


def send_again(connection: Connection, row_id: int) -> None:
    """Have a delivery sent now, as if it had never been tried, whatever became of it."""
    fresh = {"outcome": None, "attempts": 0, "due_at": utc_now(), "status": None, "reason": None, "ended_at": None}
    connection.execute(update(webhook_deliveries).where(webhook_deliveries.c.id == row_id).values(**fresh))


def forget_deliveries(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to so many deliveries from before this moment, or whose webhook is gone; how many. Those that somebody
    else is removing are left to him."""
    gone = ~exists().where(webhooks.c.id == webhook_deliveries.c.webhook_id)
    old = select(webhook_deliveries.c.id).where(or_(webhook_deliveries.c.created_at < before, gone)).limit(limit)
    ids = list(connection.execute(old.with_for_update(skip_locked=True)).scalars())
    connection.execute(delete(webhook_deliveries).where(within(webhook_deliveries.c.id, ids)))
    return len(ids)


def _change(connection: Connection, row_id: int, attempts_before: int, **values: Any) -> bool:
    mine = (webhook_deliveries.c.id == row_id, webhook_deliveries.c.attempts == attempts_before, _WAITING)
    return connection.execute(update(webhook_deliveries).where(*mine).values(**values)).rowcount == 1


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        id=row.id,
        principal=row.principal,
        everything=not row.restricted,
        name=row.name,
        url=row.url,
        events=tuple(event for event in Event if event in row.events),
        created_at=row.created_at,
        failing_since=row.failing_since,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        waiting=row.waiting,
    )


def _delivery(row: Any) -> Delivery:
    values = dict(row._mapping)
    state = DeliveryState(values.pop("outcome") or DeliveryState.WAITING)
    due_at = values.pop("due_at") if state is DeliveryState.WAITING else values.pop("due_at") and None
    return Delivery(**{**values, "event": Event(values["event"])}, due_at=due_at, state=state)
