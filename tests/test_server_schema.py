"""Every answer of the server is as its OpenAPI document says, whatever it is asked: schemathesis makes the requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import load_all_checks, positive_data_acceptance

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import create_app, gate
from serving import as_bearer, serving

load_all_checks()


@schemathesis.serializer("application/offset+octet-stream")
def raw(context: object, value: object) -> bytes:
    """The bytes of an upload, whatever they are."""
    return value if isinstance(value, bytes) else str(value).encode()


DOCUMENT = create_app(AudioStorageSystem).openapi()
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Iterator[tuple[str, str]]:
    """The address of a server over an archive with a recording, and a token that may do everything."""
    home = tmp_path_factory.mktemp("schema") / "archive"
    patch = pytest.MonkeyPatch()
    patch.setattr(gate, "FAILURES_PER_MINUTE", 0)  # it tries wrong tokens at each address
    with AudioStorageSystem(home, transcriber="pocketsphinx", requests_per_minute=0) as storage:
        storage.add(demo / "voice_note.flac", metadata={"user_id": "anna", "n": 1})
        storage.users.add("root")
        for _ in range(40):  # so that revoking one does not meet those that are in use
            storage.tokens.create("root")
            storage.grants.give("anna", "reader", audio_id=1)
        storage.grants.give("root", "admin", everything=True)
        storage.holds.place("kept", audio_ids=[1])  # whatever is asked to be deleted
        secret = storage.tokens.create("root", scopes=["admin"]).secret
    with serving(lambda: AudioStorageSystem(home, transcriber="pocketsphinx", requests_per_minute=0)) as url:
        yield url, secret
        still = httpx.get(f"{url}/api/v1/me", headers=as_bearer(secret))
        assert still.json()["admin"], "what was asked took its own rights away"
    patch.undo()


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_answers_are_as_documented(case: Case, admin: tuple[str, str]) -> None:
    url, secret = admin
    # What a document of OpenAPI allows can still contradict what is stored: that is answered with 4xx.
    case.call_and_validate(url, headers=as_bearer(secret), excluded_checks=[positive_data_acceptance])
