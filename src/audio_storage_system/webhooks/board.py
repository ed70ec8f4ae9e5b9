"""The board of webhooks: whose they are, what they are told, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select

from audio_storage_system import outbox
from audio_storage_system.access import Role
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import locks
from audio_storage_system.catalogue.principals import MAX_NAME_CHARACTERS
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import webhook_deliveries, webhooks
from audio_storage_system.errors import Conflict, InvalidInput, NotFound
from audio_storage_system.keys.wrapping import wrap
from audio_storage_system.outbox import Event
from audio_storage_system.webhooks import delivering, rows
from audio_storage_system.webhooks.addresses import Target, parse
from audio_storage_system.webhooks.rows import Delivery, DeliveryState, NewWebhook, Webhook
from audio_storage_system.webhooks.signing import new_secret

# Each change of a recording asks who of them may see it.
MOST_WEBHOOKS = 100
MAX_LIMIT = 1_000
BY_HAND = "by hand"
# All that a webhook can ask for; a test it is told in any case.
EVENTS = tuple(event for event in Event if event is not Event.TEST)

Conditions = list[ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries, the latest first; `cursor` brings the next page, `None` where there is none."""

    deliveries: tuple[Delivery, ...]
    cursor: int | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"deliveries": [one.as_dict() for one in self.deliveries], "cursor": self.cursor}


class Webhooks:
    """Webhooks of everybody for admins, of themselves for others: for them no other exists. Workers call them."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def add(self, url: str, events: Iterable[Event | str] = EVENTS, *, name: str = "") -> NewWebhook:
        """Have this address called (HTTP POST) when one of these events happens to a recording that who asks may see.
        name: what it is for. The secret that calls are signed with is shown this once.

        Raises `InvalidInput` for an address that may not be called, `Conflict` where there are too many, `Forbidden`.
        """
        self._archive.access.require_scope(Role.EDITOR, "add webhooks")
        target, wanted, name = self._target(url), _events(events), _checked_name(name)
        secret = new_secret()
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            if connection.execute(select(func.count()).select_from(webhooks)).scalar_one() >= MOST_WEBHOOKS:
                raise Conflict(reason=f"There are {MOST_WEBHOOKS} webhooks already, which is the most")
            row = self._row(url, secret) | {"events": wanted, "name": name, "created_at": utc_now()}
            webhook_id = connection.execute(insert(webhooks).returning(webhooks.c.id), row).scalar_one()
            self._archive.audit.note(connection, "webhook.added", webhook_id=webhook_id, host=target.host)
            return NewWebhook(rows.get_webhook(connection, webhook_id), secret)

    def _row(self, url: str, secret: str) -> dict[str, Any]:
        access, keys, kept = self._archive.access, self._archive.keys, secret.encode()
        if keys is not None:
            kept = wrap(keys.derive(delivering.PURPOSE), kept, delivering.sealed_for(self._archive, url))
        whose = {"principal_id": access.principal_id, "restricted": access.restricted}
        return {**whose, "url": url, "secret": kept, "sealed": keys is not None}

    def list(self) -> list[Webhook]:
        """The webhooks, the oldest first."""
        mine = self._mine()
        with self._archive.database.read() as connection:
            return rows.select_webhooks(connection, *mine)

    def get(self, webhook_id: int) -> Webhook:
        """One of them. Raises `NotFound`."""
        mine = self._mine()
        with self._archive.database.read() as connection:
            return rows.get_webhook(connection, webhook_id, *mine)

    def remove(self, webhook_id: int) -> Webhook:
        """Remove one: it is called no more, and what it was told is forgotten. Raises `NotFound`, `Forbidden`."""
        with self._changing("removed", "remove webhooks", webhook_id) as (connection, found):
            rows.remove(connection, webhook_id)
        return found

    def enable(self, webhook_id: int) -> Webhook:
        """Call one again that was disabled, beginning with what was waiting then. Raises `NotFound`, `Forbidden`."""
        with self._changing("enabled", "enable webhooks", webhook_id) as (connection, _):
            rows.enable(connection, webhook_id)
            return rows.get_webhook(connection, webhook_id)

    def disable(self, webhook_id: int) -> Webhook:
        """Call one no more until it is enabled again; what happens meanwhile it is never told. Raises `NotFound`,
        `Forbidden`."""
        with self._changing("disabled", "disable webhooks", webhook_id) as (connection, _):
            rows.disable(connection, webhook_id, BY_HAND)
            return rows.get_webhook(connection, webhook_id)

    def test(self, webhook_id: int) -> Delivery:
        """Call one at once with the event `webhook.test`, also one that is disabled; what came of it. It takes 10 s at
        most, and is not tried again. Raises `NotFound`, `Forbidden`."""
        self._archive.access.require_scope(Role.EDITOR, "test webhooks")
        mine = self._mine()
        with self._archive.database.write() as connection:
            rows.get_webhook(connection, webhook_id, *mine)
            [row_id] = outbox.enter(connection, [webhook_id], Event.TEST, None, {})
            found = rows.with_webhook(connection, row_id)
            rows.claim(connection, row_id, found.attempts)
        delivering.settle(self._archive, found, delivering.call(self._archive, found), last=True)
        with self._archive.database.read() as connection:
            return rows.select_deliveries(connection, webhook_deliveries.c.id == row_id)[0]

    def deliveries(
        self,
        webhook_id: int,
        *,
        state: DeliveryState | str | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> DeliveryPage:
        """What a webhook was or is to be told in the last `webhook_days` days, the latest first; state: only what is
        `waiting`, `delivered`, `failed` or `withdrawn`. cursor: of the page before. Raises `NotFound`, `InvalidInput`.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInput(reason=f"limit is from 1 to {MAX_LIMIT:,}")
        conditions = [webhook_deliveries.c.webhook_id == webhook_id]
        if state is not None:
            conditions.append(rows.in_state(_state(state)))
        if cursor is not None:
            conditions.append(webhook_deliveries.c.id < cursor)
        mine = self._mine()
        with self._archive.database.read() as connection:
            rows.get_webhook(connection, webhook_id, *mine)
            found = rows.select_deliveries(connection, *conditions, limit=limit + 1)
        return DeliveryPage(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)

    def retry(self, delivery_id: str) -> Delivery:
        """Have a delivery sent again, now and as often as a new one, whatever became of it; under the same id. Raises
        `NotFound`, `Forbidden`."""
        self._archive.access.require_scope(Role.EDITOR, "retry deliveries")
        mine = self._mine()
        with self._archive.database.write() as connection:
            found = rows.select_deliveries(connection, webhook_deliveries.c.delivery_id == str(delivery_id))
            if not found or not rows.select_webhooks(connection, webhooks.c.id == found[0].webhook_id, *mine):
                raise NotFound(kind="delivery", id=delivery_id)
            rows.send_again(connection, found[0].id)
            return rows.select_deliveries(connection, webhook_deliveries.c.id == found[0].id)[0]

    def _target(self, url: str) -> Target:
        return parse(url, allow_private=self._archive.settings.webhook_allow_private)

    @contextmanager
    def _changing(self, done: str, action: str, webhook_id: int) -> Iterator[tuple[Connection, Webhook]]:
        """A transaction that changes a webhook of who asks."""
        self._archive.access.require_scope(Role.EDITOR, action)
        mine = self._mine()
        with self._archive.database.write() as connection:
            found = rows.get_webhook(connection, webhook_id, *mine)
            yield connection, found
            self._archive.audit.note(connection, f"webhook.{done}", webhook_id=webhook_id)

    def _mine(self) -> Conditions:
        access = self._archive.access
        return [] if access.is_admin else [webhooks.c.principal_id == access.principal_id, webhooks.c.restricted]


def _events(events: Iterable[Event | str]) -> list[str]:
    wanted = [events] if isinstance(events, str) else list(events)
    known = [event.value for event in EVENTS]
    if not wanted or any(event not in known for event in wanted):
        raise InvalidInput(reason=f"The events of a webhook are one or more of: {', '.join(known)}")
    return [event for event in known if event in wanted]


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARACTERS or "\0" in name:
        raise InvalidInput(reason=f"The name of a webhook is text of at most {MAX_NAME_CHARACTERS} characters")
    return name


def _state(state: DeliveryState | str) -> DeliveryState:
    try:
        return DeliveryState(state)
    except ValueError:
        known = ", ".join(DeliveryState)
        raise InvalidInput(reason=f'There is no state "{state}" of a delivery; there are: {known}') from None
