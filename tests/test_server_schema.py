"""Every answer of the server is as its OpenAPI document says, whatever it is asked: schemathesis makes the requests."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error, positive_data_acceptance
from schemathesis.specs.openapi.checks import response_schema_conformance

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import create_app, gate
from serving import as_bearer, serving
from test_uploads import WAV, sound

load_all_checks()


@schemathesis.serializer("application/offset+octet-stream")
def raw(context: object, value: object) -> bytes:
    """The bytes of an upload, whatever they are."""
    return value if isinstance(value, bytes) else str(value).encode()


DOCUMENT = create_app(AudioStorageSystem).openapi()
# What goes on for as long as there is news is tried in test_server_jobs.py.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path_regex=r"/events$")
OPERATIONS = {found.ok().label: found.ok() for found in schema.get_all_operations()}
# Operations that answer no request made here with success, and why.
UNANSWERED = {
    "POST /api/v1/grants": "a grant is on one of three fields, which the document does not say",
    "POST /api/v1/recordings/{audio_id}/transcripts": "transcripts are known by the names of their files",
    "PATCH /api/v1/uploads/{upload_id}": "one offset is right",
    "POST /api/v1/webhook-deliveries/{delivery_id}/retry": "nothing was told yet",
    "POST /v1/audio/transcriptions": "not all fields go with each other, which the document does not say",
    "POST /v1/audio/translations": "what is bundled does not translate",
}
# Answers whose `prefixItems`, which OpenAPI 3.1 has, schemathesis takes for an error in the document.
UNREAD = ("GET /api/v1/audit/anchor", "GET /api/v1/backups/{destination}/anchor")
# What there is, by the name that an address or a body has for it, or by operation and name.
There = dict[str, Iterator[Any]]
MANY = 12


def settings_at(home: Path) -> dict[str, Any]:
    """Of the archive, whoever opens it: its key is not where each test has its own."""
    return {
        "transcriber": "pocketsphinx",
        "requests_per_minute": 0,
        "webhook_allow_private": True,
        "key_file": str(home.parent / "archive.key"),
        "backup_destinations": f"disk={home.parent / 'backups'}",
    }


def filled(home: Path, demo: Path) -> tuple[str, There]:
    """An archive with some of everything, in which a request that uses something up finds more of it: a token that may
    do everything, and what there is."""
    with AudioStorageSystem(home, encryption=True, **settings_at(home)) as storage:
        storage.add(demo / "voice_note.flac", metadata={"user_id": "anna", "n": 1})
        storage.retranscribe([1])
        storage.users.add("root")
        storage.users.add("editors", "group")
        for number in range(MANY):
            storage.users.add(f"user {number}")
            storage.holds.place(f"hold {number}", audio_ids=[1])
            storage.retention.add(f"rule {number}", 36_000)
        grants = [storage.grants.give("anna", "reader", audio_id=1).id for _ in range(MANY)]
        storage.grants.give("root", "admin", everything=True)  # not the first, which many requests name
        tokens = [storage.tokens.create("root").token.id for _ in range(MANY)]
        stored = [storage.submit(BytesIO(sound(0.1, seed=seed)), name="a.wav") for seed in range(2 * MANY)]
        audio_ids = [job.audio_id or 0 for job in stored]
        storage.trash.put(*audio_ids[MANY:])
        storage.holds.place("kept", audio_ids=[1, *audio_ids[MANY:]])  # whatever is asked to be deleted
        storage._archive.blobs.put("quarantine/20261122/copies/stray", b"stray")
        storage.backups.create(storage.backups.destinations["disk"])
        root = storage.as_user("root")
        webhooks = [root.webhooks.add("http://127.0.0.1:9/", name=str(number)).webhook.id for number in range(MANY)]
        root.set_metadata_schema({})
        uploads = [root.uploads.create(len(WAV), "a.wav").id for _ in range(MANY)]
        whole = root.uploads.create(len(WAV), "a.wav").id
        root.uploads.append(whole, 0, [WAV])
        secret = storage.tokens.create("root", scopes=["admin"]).secret
    return secret, {
        "audio_id": repeat(1),
        "audio_ids": repeat([1]),
        "transcript_id": repeat(1),
        "other_id": repeat(1),
        "job_id": repeat(stored[0].id),
        "group": repeat("editors"),
        "member": repeat("anna"),
        "principal": repeat("anna"),
        "owner": repeat("anna"),
        "destination": repeat("disk"),
        "webhook_id": repeat(webhooks[-1]),
        "upload_id": cycle(uploads),
        "grant_id": cycle(grants),
        "token_id": cycle(tokens),
        "url": repeat("http://127.0.0.1:9/"),
        "key": repeat("quarantine/20261122/copies/stray"),
        "file": repeat(WAV),
        "whisper_model": repeat("pocketsphinx"),
        "since": repeat("2020-01-01T00:00:00Z"),
        "until": repeat("2040-01-01T00:00:00Z"),
        **{f"keep_{name}": repeat(1) for name in ("last", "daily", "weekly", "monthly")},
        "POST /api/v1/search/audio where": repeat("{}"),
        "GET /v1/models/{model} model": repeat("pocketsphinx"),
        "POST /v1/embeddings model": repeat("text-embedding-3-small"),
        "POST /v1/embeddings input": repeat(["good morning"]),
        "POST /v1/embeddings dimensions": repeat(256),
        "DELETE /api/v1/recordings/{audio_id} audio_id": cycle(audio_ids),
        "POST /api/v1/trash/restore audio_ids": cycle([one] for one in audio_ids[MANY:]),
        "DELETE /api/v1/webhooks/{webhook_id} webhook_id": cycle(webhooks[1:-1]),
        "POST /api/v1/uploads/{upload_id}/finish upload_id": repeat(whole),
        "GET /api/v1/users/{name} name": repeat("root"),
        "DELETE /api/v1/users/{name} name": cycle(f"user {number}" for number in range(MANY)),
        "DELETE /api/v1/holds/{name} name": cycle(f"hold {number}" for number in range(MANY)),
        "DELETE /api/v1/retention/rules/{name} name": cycle(f"rule {number}" for number in range(MANY)),
    }


def about_what_is_there(case: Case, there: There) -> None:
    """Name in a request what there is, where it names something."""
    label = case.operation.label
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name in part:
                if (found := there.get(f"{label} {name}", there.get(name))) is not None:
                    part[name] = next(found)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Iterator[tuple[str, str, There]]:
    """The address of a server over an archive with some of everything, a token that may do everything, and what there
    is."""
    home = tmp_path_factory.mktemp("schema") / "archive"
    secret, there = filled(home, demo)
    patch = pytest.MonkeyPatch()
    patch.setattr(gate, "FAILURES_PER_MINUTE", 0)  # it tries wrong tokens at each address
    with serving(lambda: AudioStorageSystem(home, **settings_at(home))) as url:
        yield url, secret, there
        still = httpx.get(f"{url}/api/v1/me", headers=as_bearer(secret))
        assert still.json()["admin"], "what was asked took its own rights away"
    patch.undo()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_documented(name: str, mode: GenerationMode, admin: tuple[str, str, There]) -> None:
    url, secret, there = admin
    answered: list[str] = []

    @given(case=OPERATIONS[name].as_strategy(mode))
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def ask(case: Case, known: bool) -> None:
        if known:
            if any(one.startswith("2") for one in answered):
                return
            about_what_is_there(case, there)
        # What a document of OpenAPI allows can still contradict what is stored: that is answered with 4xx. A search
        # that may take no time is answered with 504.
        unread = [response_schema_conformance] if name in UNREAD else []
        excluded = [positive_data_acceptance, not_a_server_error, *unread]
        answer = case.call_and_validate(url, headers=as_bearer(secret), excluded_checks=excluded)
        assert answer.status_code < 500 or answer.json()["code"] == "deadline_exceeded"
        answered.append(f"{answer.status_code} {answer.content[:300]!r}")

    try:
        ask(known=False)
    except Unsatisfiable:  # nothing can be wrong with a request that takes nothing
        assert mode is GenerationMode.NEGATIVE and not list(OPERATIONS[name].iter_parameters())
    if mode is GenerationMode.POSITIVE and name not in UNANSWERED:
        ask(known=True)
        assert any(one.startswith("2") for one in answered), f"no valid request was answered well: {answered}"
