"""The commands about webhooks, as a user types them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batch import Command
from receiving import Receiver

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def test_from_adding_one_to_removing_it(run: Command, receiver: Receiver, call: Path) -> None:
    run("init")
    added = run("webhooks", "add", receiver.url, "--name", "notes")
    secret = added.out.strip()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret) and "not shown again" in added.err
    assert run("webhooks", "test", 1).out == "It answered 204.\n"
    run("add", call)
    run("worker", "--until-done")
    assert [event for event, _ in receiver.events()] == ["webhook.test", "recording.stored", "recording.transcribed"]
    assert all(one.is_signed(secret) for one in receiver.calls)
    listed = run("webhooks", "list").out
    assert receiver.url in listed and "notes" in listed and secret not in listed
    shown = run("webhooks", "deliveries", 1, "--state", "delivered", "--json").data
    assert [one["event"] for one in shown["deliveries"]] == [
        "recording.transcribed",
        "recording.stored",
        "webhook.test",
    ]
    receiver.answer = lambda call, handler: 500
    failed = run("webhooks", "test", 1)
    assert (failed.code, failed.out) == (1, "It was not delivered: answered 500.\n")
    assert "answered 500" in run("webhooks", "deliveries", 1).out
    again = run("webhooks", "retry", shown["deliveries"][0]["delivery_id"], "--json").data
    assert again["state"] == "waiting" and again["due_at"]
    run("worker", "--until-done")
    assert "failing since" in run("webhooks", "show", 1).out
    assert run("webhooks", "disable", 1).out == "Webhook 1 is not called.\n"
    assert "by hand" in run("webhooks", "list").out
    assert run("webhooks", "enable", 1).out == "Webhook 1 is called from now on; 1 call waiting.\n"
    assert run("webhooks", "remove", 1, "--json").data["removed"]["webhook_id"] == 1
    assert run("webhooks", "show", 1).code == 4
    assert "No webhooks." in run("webhooks", "list").err


def test_private_addresses_are_refused_unless_allowed(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    for url in ("https://127.0.0.1/x", "http://example.org/", "https://a:b@example.org/"):
        refused = run("webhooks", "add", url)
        assert refused.code == 2 and "address of the webhook" in refused.err
    monkeypatch.setenv("AUDIO_STORAGE_WEBHOOK_ALLOW_PRIVATE", "yes")
    assert run("webhooks", "add", "https://127.0.0.1/x", "--event", "recording.failed", "--json").data["events"] == [
        "recording.failed"
    ]
