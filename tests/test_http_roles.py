"""Every operation of the API by everybody: without a token 401, without the right 403 (or 404 for what one may not
even see), and never 500. One that is new is tried with the examples of its description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from audited import speech_file
from serving import as_bearer, serving
from test_http_api import DOCUMENT, OPEN, OPERATIONS

WHO = ("nobody", "reader", "editor", "owner", "admin")
EVERYBODY = frozenset(WHO)
ADMIN = frozenset({"admin"})
OWNERS = frozenset({"owner", "admin"})


@dataclass
class Ask:
    """What to ask, and who may. `otherwise`: how the others are answered; `answer`: how those who may."""

    may: frozenset[str] = ADMIN
    json: Any = None
    query: dict[str, Any] = field(default_factory=dict)
    path: dict[str, Any] = field(default_factory=dict)
    answer: tuple[int, ...] = (200, 201, 204)
    otherwise: tuple[int, ...] = (403,)


def free(**given: Any) -> Ask:
    return Ask(EVERYBODY, **given)


HERE = {"destination": "disk"}
ASKS = {
    "live": free(),
    "ready": free(),
    "whoami": free(),
    "get_stats": free(),
    "list_grants": free(),
    "list_tokens": free(),
    "list_trash": free(),
    "list_models": free(),
    "get_metadata_schema": free(answer=(404,)),
    "set_metadata_schema": free(json={}),
    "remove_metadata_schema": free(answer=(204, 404)),
    "check_metadata": free(),
    "create_token": free(json={"scopes": ["read"]}),
    "revoke_token": Ask(path={"token_id": "TOKEN"}, otherwise=(404,)),
    "restore_from_trash": Ask(OWNERS, json={"audio_ids": ["TRASHED"]}, otherwise=(403, 404)),
    "empty_trash": Ask(OWNERS, json={"audio_ids": ["TRASHED"]}, otherwise=(403, 404)),
    "give_grant": Ask(
        OWNERS, json={"principal": "a reader", "role": "reader", "audio_id": "AUDIO"}, otherwise=(403, 404)
    ),
    "revoke_grant": Ask(OWNERS, path={"grant_id": "GRANT"}, otherwise=(404,)),
    "reindex": Ask(),
    "plan_reembedding": Ask(),
    "list_users": Ask(),
    "add_user": Ask(json={"name": "FRESH"}),
    "get_user": Ask(path={"name": "a reader"}),
    "remove_user": Ask(path={"name": "USER"}),
    "join_group": Ask(json={"group": "group", "member": "a reader"}),
    "leave_group": Ask(query={"group": "group", "member": "a reader"}),
    "list_retention_rules": Ask(),
    "add_retention_rule": Ask(json={"name": "FRESH", "keep_days": 30_000}),
    "remove_retention_rule": Ask(path={"name": "RULE"}),
    "plan_retention": Ask(),
    "run_retention": Ask(),
    "report_retention": Ask(),
    "clean_up": Ask(json={"days_old": 30_000}),
    "list_holds": Ask(),
    "place_hold": Ask(json={"name": "FRESH", "where": {"nobody": "has it"}}),
    "release_hold": Ask(path={"name": "HOLD"}),
    "list_audit": Ask(),
    "get_audit_anchor": Ask(),
    "verify_audit": Ask(json={}),
    "export_audit": Ask(),
    "get_keys": Ask(),
    "rotate_keys": Ask(json={}),
    "list_backups": Ask(),
    "list_backup_destinations": Ask(),
    "list_backup_sets": Ask(path=HERE),
    "get_backup_anchor": Ask(path=HERE),
    "create_backup": Ask(path=HERE, json={}),
    "verify_backup": Ask(path=HERE, json={}),
    "rehearse_backup": Ask(path=HERE, json={}),
    "prune_backups": Ask(path=HERE, json={"keep_last": 3}),
    "verify": Ask(json={}),
    "check_security": Ask(json={}),
    "list_quarantine": Ask(),
    "empty_quarantine": Ask(json={}),
    "restore_from_quarantine": Ask(json={"key": "STRAY"}),
    "list_loaded_models": Ask(),
    "diagnose": Ask(),
}


class Place:
    """A served archive, with somebody in every role, each with a token for everything that they may."""

    def __init__(self, storage: AudioStorageSystem, client: httpx.Client, file: Path) -> None:
        self.storage, self.client, self._file, self._number = storage, client, file, 0
        for who in WHO:
            storage.users.add(f"a {who}")
        storage.users.add("group", "group")
        storage.grants.give("a admin", "admin", everything=True)
        self.tokens = {who: storage.tokens.create(f"a {who}", scopes=["admin"]).secret for who in WHO}
        self.audio_id = self._recording()
        storage.backups.create(storage.backups.destinations["disk"])

    def _recording(self) -> int:
        self._number += 1
        self._file.write_bytes(speech_file(self._file.with_suffix(".flac")).read_bytes() + b"\0" * self._number)
        audio_id = int(self.storage.store_audio_file(self._file))
        for who in ("reader", "editor", "owner"):
            self.storage.grants.give(f"a {who}", who, audio_id=audio_id)
        return audio_id

    def _trashed(self) -> int:
        audio_id = self._recording()
        self.storage.trash.put(audio_id)
        return audio_id

    def _fresh(self) -> str:
        self._number += 1
        return f"name {self._number}"

    def _stray(self) -> str:
        key = f"quarantine/20261122/copies/{self._fresh()}"
        self.storage._archive.blobs.put(key, b"stray")
        return key

    def filled(self, value: Any) -> Any:
        """The same, with what a word stands for in its place."""
        makers = {
            "AUDIO": lambda: self.audio_id,
            "TRASHED": self._trashed,
            "FRESH": self._fresh,
            "STRAY": self._stray,
            "TOKEN": lambda: self.storage.tokens.create("group").token.id,
            "GRANT": lambda: self.storage.grants.give("group", "reader", audio_id=self.audio_id).id,
            "USER": lambda: self.storage.users.add(self._fresh()).name,
            "RULE": lambda: self.storage.retention.add(self._fresh(), 30_000).name,
            "HOLD": lambda: self.storage.holds.place(self._fresh(), where={"nobody": "has it"}).name,
        }
        if isinstance(value, dict):
            return {key: self.filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.filled(one) for one in value]
        return makers[value]() if isinstance(value, str) and value in makers else value

    def asked(self, name: str, ask: Ask, secret: str | None) -> httpx.Response:
        """The answer to an operation."""
        method, path, _ = OPERATIONS[name]
        for key, value in self.filled(ask.path).items():
            path = path.replace(f"{{{key}}}", httpx.URL("/").copy_with(path=f"/{value}").path[1:])
        headers = as_bearer(secret) if secret else {}
        body = {} if ask.json is None else {"json": self.filled(ask.json)}
        request = self.client.build_request(method, path, params=self.filled(ask.query), headers=headers, **body)
        answer = self.client.send(request, stream=True)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):  # which goes on and on
            answer.read()
        answer.close()
        return answer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("roles")
    given: dict[str, Any] = {
        "encryption": bytes(range(32)),
        "requests_per_minute": 0,
        "backup_destinations": f"disk={folder / 'backups'}",
    }
    home = folder / "archive"
    with (
        AudioStorageSystem(home, **given) as storage,
        serving(lambda: AudioStorageSystem(home, **given)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield Place(storage, client, folder / "recording.wav")


def example_of(name: str) -> Ask:
    """What the description gives as an example, for an operation without an entry here."""
    _, _, operation = OPERATIONS[name]
    path = {one["name"]: 1 for one in operation.get("parameters", ()) if one["in"] == "path"}
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    body = None if schema is None else sample(schema)
    return Ask(frozenset(), json=body, path=path, otherwise=tuple(range(200, 500)))


def sample(schema: dict[str, Any]) -> Any:
    """A value that a schema may allow."""
    if "$ref" in schema:
        return sample(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "examples" in schema:
        return schema["examples"][0]
    properties = schema.get("properties", {})
    return {key: sample(properties[key]) for key in schema.get("required", ()) if key in properties} or None


@pytest.mark.parametrize("name", OPERATIONS)
def test_nobody_gets_in_without_a_token(place: Place, name: str) -> None:
    answer = place.asked(name, ASKS.get(name) or example_of(name), None)
    assert (answer.status_code == 401) == (name not in OPEN)
    if name not in OPEN:
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_by_a_role(place: Place, name: str, who: str) -> None:
    ask = ASKS.get(name) or example_of(name)
    answer = place.asked(name, ask, place.tokens[who])
    expected = ask.answer if who in ask.may else ask.otherwise
    assert answer.status_code in expected, answer
    if answer.headers.get("content-type") == "application/x-ndjson":
        assert '"event": "error"' not in answer.text


def test_a_token_that_only_reads_changes_nothing(place: Place) -> None:
    secret = place.storage.tokens.create("a admin", scopes=["read"]).secret
    changing = [name for name, (method, path, _) in OPERATIONS.items() if method != "GET" and name in ASKS]
    for name in changing:
        assert place.asked(name, ASKS[name], secret).status_code in (403, 404), name
