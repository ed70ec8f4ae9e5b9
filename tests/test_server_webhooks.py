"""Webhooks over HTTP: made, tried, watched and removed by who asks, as the server's own OpenAPI document says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from audio_storage_system import AudioStorageSystem
from receiving import Receiver
from serving import as_bearer

pytestmark = pytest.mark.usefixtures("scripted_engine")


def test_one_is_made_called_and_removed(receiver: Receiver, served: httpx.Client, home: Path, call: Path) -> None:
    made = served.post("/api/v1/webhooks", json={"url": receiver.url, "name": "index"})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    secret, number = made.json()["secret"], made.json()["webhook_id"]
    tested = served.post(f"/api/v1/webhooks/{number}/test").json()
    assert (tested["state"], tested["status"], receiver.calls[0].is_signed(secret)) == ("delivered", 204, True)
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.submit(call)
        storage.worker(concurrency=1).run_until_idle(threading.Event())
    first = served.get(f"/api/v1/webhooks/{number}/deliveries", params={"limit": 2}).json()
    rest = served.get(f"/api/v1/webhooks/{number}/deliveries", params={"cursor": first["next_cursor"]}).json()
    listed = [one["event"] for one in first["items"] + rest["items"]]
    assert listed == ["recording.transcribed", "recording.stored", "webhook.test"] and rest["next_cursor"] is None
    again = served.post(f"/api/v1/webhook-deliveries/{first['items'][0]['delivery_id']}/retry").json()
    assert again["state"] == "waiting"
    assert served.get("/api/v1/webhooks").json()["items"] == [served.get(f"/api/v1/webhooks/{number}").json()]
    assert secret not in served.get("/api/v1/webhooks").text
    assert served.post(f"/api/v1/webhooks/{number}/disable").json()["disabled_reason"] == "by hand"
    assert served.post(f"/api/v1/webhooks/{number}/enable").json()["disabled_at"] is None
    assert served.delete(f"/api/v1/webhooks/{number}").json()["name"] == "index"
    assert served.get(f"/api/v1/webhooks/{number}").status_code == 404


def test_what_is_told_is_as_the_openapi_document_says(receiver: Receiver, served: httpx.Client) -> None:
    served.post("/api/v1/webhooks", json={"url": receiver.url})
    served.post("/api/v1/webhooks/1/test")
    [one] = receiver.calls
    document = served.get("/openapi.json").json()
    told = document["webhooks"]["event"]["post"]
    content = told["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator({**content, "components": document["components"]}).validate(one.said)
    assert {given["name"].lower() for given in told["parameters"]} <= one.headers.keys()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"url": "https://127.0.0.1/"}, 400),
        ({"url": "http://example.org/"}, 400),
        ({"url": "https://example.org/", "events": []}, 422),
        ({"url": "https://example.org/", "events": ["webhook.test"]}, 422),
        ({"url": "https://example.org/", "secret": "mine"}, 422),
        ({"url": "https://example.org/\x00"}, 422),
        ({}, 422),
    ],
)
def test_what_cannot_be_is_a_problem(served: httpx.Client, given: dict[str, Any], status: int) -> None:
    answer = served.post("/api/v1/webhooks", json=given)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_those_of_others_are_not_there(receiver: Receiver, served: httpx.Client, home: Path) -> None:
    with AudioStorageSystem(home) as storage:
        secrets = {}
        for name in ("anna", "ben"):
            storage.users.add(name)
            secrets[name] = as_bearer(storage.tokens.create(name, scopes=["write"]).secret)
        reading = as_bearer(storage.tokens.create("anna", scopes=["read"]).secret)
    made = served.post("/api/v1/webhooks", json={"url": receiver.url}, headers=secrets["anna"]).json()
    assert made["everything"] is False and made["principal"] == "anna"
    place = f"/api/v1/webhooks/{made['webhook_id']}"
    assert served.get(place, headers=secrets["ben"]).status_code == 404
    assert served.post(f"{place}/test", headers=secrets["ben"]).status_code == 404
    assert served.get("/api/v1/webhooks", headers=secrets["ben"]).json()["items"] == []
    assert served.get(place, headers=reading).status_code == 200
    assert served.post(f"{place}/test", headers=reading).status_code == 403
    assert served.post("/api/v1/webhooks", json={"url": receiver.url}, headers=reading).status_code == 403
    assert served.get(place).status_code == 401
