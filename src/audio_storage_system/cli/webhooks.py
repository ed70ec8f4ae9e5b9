"""`webhooks`: other programs that are called when something happens."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, moment
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened

if TYPE_CHECKING:
    from audio_storage_system.webhooks import Delivery, Webhook

app = typer.Typer(help="Webhooks: other programs that are called when something happens to a recording.")

WebhookId = Annotated[int, typer.Argument(metavar="WEBHOOK", help="Its number, as `webhooks list` shows it.")]


class EventChoice(StrEnum):
    """What a webhook can be told of."""

    STORED = "recording.stored"
    TRANSCRIBED = "recording.transcribed"
    FAILED = "recording.failed"
    TRASHED = "recording.trashed"
    RESTORED = "recording.restored"
    DELETED = "recording.deleted"


class StateChoice(StrEnum):
    """Where a delivery is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="What is called: https, and reachable in public.")],
    event: Annotated[list[EventChoice] | None, typer.Option(help="Only this; repeatable. Default: all.")] = None,
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for.")] = "",
    as_user: options.AsUser = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Add a webhook, and show the secret that its calls are signed with, once. Workers call it."""
    out = Output(as_json)
    wanted = [one.value for one in event or EventChoice]
    with opened(archive, as_user=as_user) as storage:
        made = storage.webhooks.add(url, wanted, name=name)
    out.result(made.as_dict(), made.secret)
    if not as_json:
        say(f"Webhook {made.webhook.id} is called with this secret, which is not shown again.")


@app.command("list")
def list_webhooks(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List webhooks, without their secrets."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.webhooks.list()
    out.document({"webhooks": [webhook.as_dict() for webhook in found]})
    rows = [(x.id, x.principal, x.name, x.url, _events(x), x.waiting, _standing(x)) for x in found]
    out.table(("id", "of", "name", "url", "events", "waiting", "state"), rows, right=("id", "waiting"))
    if not found and not as_json:
        say("No webhooks.")


@app.command("show")
def show(webhook_id: WebhookId, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Show one webhook."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.webhooks.get(webhook_id)
    out.document(found.as_dict())
    out.line(f"{found.url} ({found.name or 'no name'}), of {found.principal}, since {moment(found.created_at)}")
    out.line(f"told of {'everything' if found.everything else 'what they may see'}: {_events(found)}")
    out.line(f"{_standing(found)}; {count(found.waiting, 'call')} waiting")


@app.command("remove")
def remove(webhook_id: WebhookId, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Remove a webhook: it is called no more, and nothing that it was told is kept."""
    out = Output(as_json)
    with opened(archive) as storage:
        gone = storage.webhooks.remove(webhook_id)
    out.result({"removed": gone.as_dict()}, f"Webhook {gone.id} is called no more.")


@app.command("enable")
def enable(webhook_id: WebhookId, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Call a webhook again that was disabled, beginning with what was waiting then."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.webhooks.enable(webhook_id)
    out.result(found.as_dict(), f"Webhook {found.id} is called from now on; {count(found.waiting, 'call')} waiting.")


@app.command("disable")
def disable(webhook_id: WebhookId, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Call a webhook no more until it is enabled; what happens meanwhile it is never told."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.webhooks.disable(webhook_id)
    out.result(found.as_dict(), f"Webhook {found.id} is not called.")


@app.command("test")
def test(webhook_id: WebhookId, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Call a webhook now, with the event `webhook.test`. Exit code 1 where it does not answer well."""
    out = Output(as_json)
    with opened(archive) as storage:
        made = storage.webhooks.test(webhook_id)
    out.result(
        made.as_dict(),
        f"It answered {made.status}." if made.reason is None else f"It was not delivered: {made.reason}.",
    )
    if made.reason is not None:
        raise typer.Exit(1)


@app.command("deliveries")
def deliveries(
    webhook_id: WebhookId,
    state: Annotated[StateChoice | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="How many at most.")] = 20,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List what a webhook was told, or is to be told, the latest first."""
    out = Output(as_json)
    with opened(archive) as storage:
        page = storage.webhooks.deliveries(webhook_id, state=state and state.value, limit=limit)
    out.document(page.as_dict())
    columns = ("delivery", "event", "recording", "made", "state", "tries", "answer")
    out.table(columns, [_row(one) for one in page.deliveries], right=("recording", "tries"))


@app.command("retry")
def retry(
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, as `webhooks deliveries` shows it.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a delivery sent again, whatever became of it."""
    out = Output(as_json)
    with opened(archive) as storage:
        again = storage.webhooks.retry(delivery_id)
    out.result(again.as_dict(), f"Delivery {again.delivery_id} is sent again by the next worker.")


def _row(one: Delivery) -> tuple[object, ...]:
    state = f"{one.state}, next {moment(one.due_at)}" if one.due_at else one.state
    return one.delivery_id, one.event, one.audio_id, moment(one.created_at), state, one.attempts, _answer(one)


def _answer(one: Delivery) -> object:
    return one.reason or one.status or ""


def _events(webhook: Webhook) -> str:
    return "all" if len(webhook.events) == len(EventChoice) else ", ".join(webhook.events)


def _standing(webhook: Webhook) -> str:
    if webhook.disabled_at is not None:
        return f"disabled {moment(webhook.disabled_at)}: {webhook.disabled_reason}"
    return f"failing since {moment(webhook.failing_since)}" if webhook.failing_since else "called"
