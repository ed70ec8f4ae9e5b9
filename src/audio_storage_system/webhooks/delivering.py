"""Delivering: what is due is claimed, sent, and settled. At least once, and of each recording in order.

A worker has one `Deliverer`. A claim is a lease: who dies while sending loses it, and another sends the same delivery,
under the same id, again. Calls are made by threads of their own, of each webhook only a few at once, so that a slow
receiver keeps neither jobs nor others waiting.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row

from audio_storage_system import outbox
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import recordings
from audio_storage_system.clock import utc_now
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.keys.wrapping import unwrap
from audio_storage_system.outbox import Event
from audio_storage_system.records import jsonable
from audio_storage_system.webhooks import rows, signing
from audio_storage_system.webhooks.plan import GONE, TRIES, is_hopeless, wait_after
from audio_storage_system.webhooks.rows import DeliveryState
from audio_storage_system.webhooks.sending import Answer, post

logger = logging.getLogger(__name__)

PURPOSE = "webhooks"
# Calls at once in one process, and of one webhook.
AT_ONCE, OF_EACH = 8, 2
LOOK_SECONDS = 0.5
# Between two looks while the database cannot be used.
PATIENCE_SECONDS = 5.0


class Deliverer:
    """Delivers what is due, in this process, between `start` and `stop`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._in_hand: Counter[int] = Counter()  # calls of each webhook
        self._threads = ThreadPoolExecutor(AT_ONCE, "webhook")
        self._looking = threading.Thread(target=self._run, daemon=True, name="webhooks")

    def start(self) -> None:
        """Begin."""
        self._looking.start()

    def stop(self) -> None:
        """Claim no more, and wait for the calls in hand, which take some seconds at most."""
        self._stopping.set()
        self._woken.set()
        self._looking.join()
        self._threads.shutdown()

    def is_idle(self) -> bool:
        """Whether nothing is being sent, and nothing is due. Raises what the database says."""
        with self._lock:  # so that nothing is claimed or settled between the two looks
            return not self._in_hand.total() and due(self._archive, []) is None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                more = self._take_one()
            except Exception as error:  # whatever it is, webhooks are to be called again when it has passed
                logger.warning("Webhooks cannot be called now: %s", told(error))
                self._stopping.wait(PATIENCE_SECONDS)
                continue
            if not more:
                self._woken.wait(LOOK_SECONDS)

    def _take_one(self) -> bool:
        """Hand one delivery to a thread; false where there is none to hand out now."""
        with self._lock:
            if self._in_hand.total() >= AT_ONCE:
                return False
            busy = [webhook_id for webhook_id, calls in self._in_hand.items() if calls >= OF_EACH]
        found = due(self._archive, busy)
        if found is None:
            return False
        with self._lock:
            self._in_hand[found.webhook_id] += 1
        with ExitStack() as held:
            held.callback(self._let_go, found.webhook_id)
            if claimed(self._archive, found):
                self._threads.submit(self._send, found)
                held.pop_all()
        return True

    def _send(self, found: Row[Any]) -> None:
        try:
            settle(self._archive, found, call(self._archive, found))
        except Exception as error:  # its lease ends, and it is sent again
            logger.warning("A call of webhook %d could not be noted: %s", found.webhook_id, told(error))
        finally:
            self._let_go(found.webhook_id)

    def _let_go(self, webhook_id: int) -> None:
        with self._lock:
            self._in_hand[webhook_id] -= 1
        self._woken.set()


def told(error: Exception) -> str:
    """What is said of an error: no text of others, which may hold anything."""
    return error.message if isinstance(error, AudioStorageSystemError) else type(error).__name__


def due(archive: Archive, busy: list[int]) -> Row[Any] | None:
    """What is to be sent next."""
    with archive.database.read() as connection:
        return rows.next_due(connection, busy)


def claimed(archive: Archive, found: Row[Any]) -> bool:
    """Whether a delivery is ours to send. One that is not to be sent any more ends here."""
    with archive.database.write() as connection:
        if not _may_still(connection, found):
            rows.end(connection, found.id, found.attempts, DeliveryState.WITHDRAWN)
            return False
        if found.attempts >= TRIES:  # who tried it last has died
            rows.end(connection, found.id, found.attempts, DeliveryState.FAILED, found.status, found.reason)
            return False
        return rows.claim(connection, found.id, found.attempts)


def _may_still(connection: Connection, found: Row[Any]) -> bool:
    """Of a recording that is gone, all that is left to tell is that it is: to who saw it then."""
    if found.audio_id is None or not recordings.exists(connection, found.audio_id):
        return True
    return outbox.may_see(connection, found.audio_id, found.principal_id, found.restricted)


def call(archive: Archive, found: Row[Any]) -> Answer:
    """Send it once."""
    secret = secret_of(archive, found)
    if secret is None:
        return Answer(None, "its secret does not open with the archive's key")
    body = signing.body_of(payload_of(archive, found))
    at = int(utc_now().timestamp())
    headers = signing.headers_of(secret, found.delivery_id, found.event, at, body)
    return post(found.url, headers, body, allow_private=archive.settings.webhook_allow_private)


def payload_of(archive: Archive, found: Row[Any]) -> dict[str, Any]:
    """What is told: the same in each attempt."""
    there = found.audio_id is not None and found.event != Event.DELETED
    return {
        "event": found.event,
        "delivery_id": found.delivery_id,
        "at": jsonable(found.created_at),
        "archive_id": archive.marker.archive_id,
        "audio_id": found.audio_id,
        "link": f"/api/v1/recordings/{found.audio_id}" if there else None,
        "facts": dict(found.facts),
    }


def secret_of(archive: Archive, found: Row[Any]) -> str | None:
    """What calls of a webhook are signed with; `None` where that cannot be opened."""
    if not found.sealed:
        return bytes(found.secret).decode()
    opened = None
    if archive.keys is not None:
        opened = unwrap(archive.keys.derive(PURPOSE), bytes(found.secret), sealed_for(archive, found.url))
    return None if opened is None else opened.decode()


def sealed_for(archive: Archive, url: str) -> str:
    """What a sealed secret is bound to: for another address it does not open."""
    return f"{archive.marker.archive_id}/webhook/{url}"


def settle(archive: Archive, found: Row[Any], answer: Answer, *, last: bool = False) -> None:
    """Note what came of a call; `last`: it is not tried again. Nothing is noted where others have taken it over."""
    tries = found.attempts + 1
    wait = None if last else wait_after(tries)
    with archive.database.write() as connection:
        if answer.ok:
            kept = rows.end(connection, found.id, tries, DeliveryState.DELIVERED, answer.status)
        elif wait is None:
            kept = rows.end(connection, found.id, tries, DeliveryState.FAILED, answer.status, answer.reason)
        else:
            kept = rows.put_off(connection, found.id, tries, wait, answer.status, answer.reason or "")
        if kept and found.event != Event.TEST:
            _note_answer(archive, connection, found, answer)


def _note_answer(archive: Archive, connection: Connection, found: Row[Any], answer: Answer) -> None:
    since = rows.note_answer(connection, found.webhook_id, ok=answer.ok)
    if since is None or not is_hopeless(since, utc_now(), answer.status):
        return
    reason = "its receiver says that it is gone" if answer.status == GONE else f"failing since {since:%Y-%m-%d %H:%M}"
    if rows.disable(connection, found.webhook_id, reason):
        host = urlsplit(found.url).hostname
        archive.audit.note(connection, "webhook.disabled", None, webhook_id=found.webhook_id, host=host)
        logger.warning("Webhook %d is called no more: %s", found.webhook_id, reason)
