"""Every answer of the server is as its OpenAPI document says, whatever it is asked: schemathesis makes the requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error, positive_data_acceptance

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import create_app, gate
from serving import as_bearer, serving

load_all_checks()


@schemathesis.serializer("application/offset+octet-stream")
def raw(context: object, value: object) -> bytes:
    """The bytes of an upload, whatever they are."""
    return value if isinstance(value, bytes) else str(value).encode()


DOCUMENT = create_app(AudioStorageSystem).openapi()
# What goes on for as long as there is news is tried in test_server_jobs.py.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path_regex=r"/events$")
OPERATIONS = {found.ok().label: found.ok() for found in schema.get_all_operations()}


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


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_documented(name: str, mode: GenerationMode, admin: tuple[str, str]) -> None:
    url, secret = admin

    @given(case=OPERATIONS[name].as_strategy(mode))
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def ask(case: Case) -> None:
        # What a document of OpenAPI allows can still contradict what is stored: that is answered with 4xx. A search
        # that may take no time is answered with 504.
        excluded = [positive_data_acceptance, not_a_server_error]
        answer = case.call_and_validate(url, headers=as_bearer(secret), excluded_checks=excluded)
        assert answer.status_code < 500 or answer.json()["code"] == "deadline_exceeded"

    try:
        ask()
    except Unsatisfiable:  # nothing can be wrong with a request that takes nothing
        assert mode is GenerationMode.NEGATIVE and not list(OPERATIONS[name].iter_parameters())
