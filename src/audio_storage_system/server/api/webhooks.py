"""Webhooks: who is called when something happens to a recording."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, number_in, part
from audio_storage_system.server.fields import Cursor, Id, Limit, Text
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.waiting import in_turn

router = APIRouter(tags=["webhooks"], responses=problems.documented())
# What receivers have to offer: for the document only, nothing answers here.
calls = APIRouter(tags=["webhooks"])
Event = Literal[
    "recording.stored",
    "recording.transcribed",
    "recording.failed",
    "recording.trashed",
    "recording.restored",
    "recording.deleted",
]
EVENTS: list[Event] = [
    "recording.stored",
    "recording.transcribed",
    "recording.failed",
    "recording.trashed",
    "recording.restored",
    "recording.deleted",
]
State = Literal["waiting", "delivered", "failed", "withdrawn"]
DeliveryId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", examples=["3d9367697e0d40e1bf775ff6debcd766"])]


class Webhook(Answer):
    """Who is called, and when."""

    webhook_id: int
    principal: str = Field(description="Whose it is: it is told of what he may see.", examples=["anna"])
    everything: bool = Field(description="Whether it is told of every recording.")
    name: str = Field(examples=["the newsroom's index"])
    url: str = Field(examples=["https://hooks.example.org/audio"])
    events: list[Event]
    created_at: datetime
    failing_since: datetime | None = Field(description="No call was answered well since then.")
    disabled_at: datetime | None = Field(description="It is not called since then.")
    disabled_reason: str | None
    waiting: int = Field(description="How many calls are to be made.")


class CreatedWebhook(Webhook):
    """A webhook that was just made."""

    secret: str = Field(description="What its calls are signed with. It is not shown again.", examples=["whsec_…"])


class NewWebhook(Asked):
    """A webhook to make."""

    url: Annotated[Text, Field(min_length=1, max_length=2_000, examples=["https://hooks.example.org/audio"])]
    events: list[Event] = Field(default=EVENTS, min_length=1, max_length=len(EVENTS))
    name: Annotated[Text, Field(max_length=255, examples=["the newsroom's index"])] = ""


class Delivery(Answer):
    """One event for one webhook."""

    delivery_id: str = Field(examples=["3d9367697e0d40e1bf775ff6debcd766"])
    webhook_id: int
    event: Event | Literal["webhook.test"]
    audio_id: int | None
    state: State
    attempts: int
    created_at: datetime
    due_at: datetime | None = Field(description="When it is sent next, if it waits.")
    status: int | None = Field(description="HTTP status of the last answer.")
    reason: str | None = Field(description="Why the last attempt failed.", examples=["answered 500"])
    ended_at: datetime | None


class Call(Answer):
    """What a webhook is told: ids, numbers and names of things, never content."""

    event: Event | Literal["webhook.test"]
    delivery_id: str = Field(description="The same in each attempt: remember those that you have seen.")
    at: datetime = Field(description="When it happened.")
    archive_id: str
    audio_id: int | None = Field(examples=[7])
    link: str | None = Field(description="Where more is known of it.", examples=["/api/v1/recordings/7"])
    facts: dict[str, Any] = Field(examples=[{"transcript_id": 12, "engine": "base", "outcome": "ok", "job_id": None}])


@calls.post("event", summary="What a webhook is told", status_code=204, operation_id="webhook_call")
def called(
    call: Call,
    signature: Annotated[
        str, Header(alias="Webhook-Signature", description="`v1,` and the HMAC of id, time and body.")
    ],
    at: Annotated[int, Header(alias="Webhook-Timestamp", description="When it is sent, in seconds since 1970.")],
    delivery_id: Annotated[str, Header(alias="Webhook-Id")],
) -> None:
    """Signed as Standard Webhooks 1.0 has it; `X-Audio-Storage-Signature` (`sha256=`, over the body alone) is there as
    well. Any status of 200 to 299 within ten seconds means that you have it; else it is sent again, eight times in most
    of a day. It may come twice."""


@router.get("/webhooks", summary="The webhooks that there are")
def list_webhooks(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[Webhook]:
    """The oldest first: for administrators everybody's, for others their own."""
    shown, following = part(storage.webhooks.list(), limit, number_in(cursor), lambda one: one.id)
    return Page(items=[Webhook.of(one) for one in shown], next_cursor=following)


@router.post("/webhooks", status_code=201, summary="Add a webhook", responses=problems.documented(409))
def create_webhook(storage: Caller, wanted: NewWebhook, response: Response) -> CreatedWebhook:
    """It is called (HTTP POST, signed) when one of these events happens to a recording that you may see. The address is
    https and leads to no private network, unless the server allows that. The answer shows the secret, once."""
    response.headers["Cache-Control"] = "no-store"
    return CreatedWebhook.of(storage.webhooks.add(wanted.url, wanted.events, name=wanted.name))


@router.get("/webhooks/{webhook_id}", summary="One webhook", responses=problems.documented(404))
def get_webhook(storage: Caller, webhook_id: Id) -> Webhook:
    """Without its secret."""
    return Webhook.of(storage.webhooks.get(webhook_id))


@router.delete("/webhooks/{webhook_id}", summary="Remove a webhook", responses=problems.documented(404))
def remove_webhook(storage: Caller, webhook_id: Id) -> Webhook:
    """It is called no more, and what it was told is forgotten. The answer tells what it was."""
    return Webhook.of(storage.webhooks.remove(webhook_id))


@router.post("/webhooks/{webhook_id}/enable", summary="Enable a webhook", responses=problems.documented(404))
def enable_webhook(storage: Caller, webhook_id: Id) -> Webhook:
    """It is called again, beginning with what was waiting when it was disabled."""
    return Webhook.of(storage.webhooks.enable(webhook_id))


@router.post("/webhooks/{webhook_id}/disable", summary="Disable a webhook", responses=problems.documented(404))
def disable_webhook(storage: Caller, webhook_id: Id) -> Webhook:
    """It is not called until it is enabled; what happens meanwhile it is never told."""
    return Webhook.of(storage.webhooks.disable(webhook_id))


@router.post("/webhooks/{webhook_id}/test", summary="Call a webhook now", responses=problems.documented(404))
async def test_webhook(request: Request, storage: Caller, webhook_id: Id) -> Delivery:
    """With the event `webhook.test`, once. The answer tells what came of it; it takes 10 s at most."""
    return Delivery.of(await in_turn(request, lambda: storage.webhooks.test(webhook_id)))


@router.get("/webhooks/{webhook_id}/deliveries", summary="What it was told", responses=problems.documented(404))
def list_deliveries(
    storage: Caller,
    webhook_id: Id,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Delivery]:
    """Or is to be told, the latest first."""
    found = storage.webhooks.deliveries(webhook_id, state=state, limit=limit, cursor=number_in(cursor) or None)
    following = None if found.cursor is None else str(found.cursor)
    return Page(items=[Delivery.of(one) for one in found.deliveries], next_cursor=following)


@router.post("/webhook-deliveries/{delivery_id}/retry", summary="Send it again", responses=problems.documented(404))
def retry_delivery(storage: Caller, delivery_id: DeliveryId) -> Delivery:
    """Now, and as often as a new one, whatever became of it; under the same id."""
    return Delivery.of(storage.webhooks.retry(delivery_id))
