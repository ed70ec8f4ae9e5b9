"""Administering an archive over HTTP: what each route does, told by what the archive is like afterwards."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from audited import speech_file
from catalogues import plain_sql
from serving import as_bearer, serving

pytestmark = pytest.mark.usefixtures("long_tasks_may_fail_late")

API = "/api/v1"
Store = Callable[..., int]


@pytest.fixture
def storage(home: Path, served: httpx.Client) -> Iterator[AudioStorageSystem]:
    """The archive that is served, opened beside the server."""
    with AudioStorageSystem(home) as opened:
        yield opened


@pytest.fixture
def audio_id(storage: AudioStorageSystem, tmp_path: Path) -> int:
    """A recording that nobody has transcribed."""
    return int(storage.store_audio_file(speech_file(tmp_path / "note.flac"), metadata={"session": "one"}))


def call(client: httpx.Client, method: str, path: str, expected: int = 200, /, **given: Any) -> Any:
    """The content of an answer with this status."""
    answer = client.request(method, f"{API}{path}", **given)
    assert answer.status_code == expected, answer.text
    return answer.json() if answer.content else None


def lines(client: httpx.Client, method: str, path: str, **given: Any) -> list[dict[str, Any]]:
    """The lines of an answer that is made of them."""
    answer = client.request(method, f"{API}{path}", **given)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def result(client: httpx.Client, method: str, path: str, **given: Any) -> dict[str, Any]:
    """What a long task came to."""
    told = lines(client, method, path, **given)
    assert [line["event"] for line in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-1]["event"] == "result", told[-1]
    found: dict[str, Any] = told[-1]["result"]
    return found


def everything(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """All items of a list, two a page."""
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(100):
        answer = call(client, "GET", path, params={**params, "limit": 2} | ({"cursor": cursor} if cursor else {}))
        assert len(answer["items"]) <= 2
        found += answer["items"]
        cursor = answer["next_cursor"]
        if cursor is None:
            return found
    raise AssertionError("the pages never end")


# Who


def test_who_asks_is_told_who_they_are(served: httpx.Client, storage: AudioStorageSystem) -> None:
    owner = call(served, "GET", "/me")
    assert (owner["name"], owner["admin"], owner["restricted"]) == ("owner", True, False)
    storage.users.add("anna")
    storage.users.add("editors", "group")
    storage.users.join("editors", "anna")
    secret = storage.tokens.create("anna", scopes=["read", "write"]).secret
    assert call(served, "GET", "/me", headers=as_bearer(secret)) == {
        "name": "anna",
        "kind": "user",
        "groups": ["editors"],
        "scopes": ["read", "write"],
        "restricted": True,
        "admin": False,
    }


def test_users_and_groups(served: httpx.Client, storage: AudioStorageSystem) -> None:
    made = call(served, "POST", "/users", 201, json={"name": "anna/müller"})
    assert (made["kind"], made["groups"]) == ("user", [])
    assert datetime.fromisoformat(made["created_at"]).utcoffset() == timedelta(0)
    call(served, "POST", "/users", 201, json={"name": "editors", "kind": "group"})
    call(served, "POST", "/users", 409, json={"name": "editors"})
    call(served, "POST", "/memberships", 204, json={"group": "editors", "member": "anna/müller"})
    assert call(served, "GET", "/users/anna%2Fm%C3%BCller")["groups"] == ["editors"]
    assert [one["name"] for one in everything(served, "/users")] == ["owner", "anna/müller", "editors"]
    call(served, "DELETE", "/memberships", 204, params={"group": "editors", "member": "anna/müller"})
    assert storage.users.get("anna/müller").groups == ()
    call(served, "DELETE", "/users/anna%2Fm%C3%BCller", 204)
    assert call(served, "GET", "/users/anna%2Fm%C3%BCller", 404)["code"] == "not_found"
    assert call(served, "DELETE", "/users/owner", 409)["code"] == "conflict"


def test_a_body_that_is_not_as_documented_is_refused(served: httpx.Client) -> None:
    wrong: list[Any] = [{"name": "x", "color": 1}, {"name": "x\0"}, {"name": ""}, {"name": "\ud800"}, [], 1]
    for body in [*wrong, {"name": "x", "kind": "king"}]:
        answer = served.post(f"{API}/users", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [one["name"] for one in everything(served, "/users")] == ["owner"]


def test_grants_hold_at_once_and_end_at_once(served: httpx.Client, storage: AudioStorageSystem, audio_id: int) -> None:
    storage.users.add("anna")
    view = storage.as_user("anna")
    for about in ({"audio_id": audio_id}, {"where": {"session": "one"}}, {"everything": True}):
        assert view.list_recordings() == []
        given = call(served, "POST", "/grants", 201, json={"principal": "anna", "role": "reader", **about})
        assert [one.id for one in view.list_recordings()] == [audio_id]
        assert everything(served, "/grants", principal="anna") == [given]
        assert call(served, "DELETE", f"/grants/{given['grant_id']}") == given
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"principal": "anna", "role": "editor", "audio_id": audio_id, "expires_at": until}
    assert call(served, "POST", "/grants", 201, json=body)["expires_at"] is not None
    call(served, "POST", "/grants", 400, json={"principal": "anna", "role": "owner", "everything": True})
    call(served, "POST", "/grants", 404, json={"principal": "nobody", "role": "reader", "audio_id": audio_id})
    call(served, "POST", "/grants", 422, json={**body, "expires_at": "2030-01-01T00:00:00"})
    call(served, "DELETE", "/grants/999999", 404)


def test_a_token_is_shown_once(served: httpx.Client, storage: AudioStorageSystem) -> None:
    storage.users.add("anna")
    answer = served.post(f"{API}/tokens", json={"principal": "anna", "name": "her phone", "scopes": ["write"]})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    hers = as_bearer(made["secret"])
    assert call(served, "GET", "/me", headers=hers)["name"] == "anna"
    [known] = call(served, "GET", "/tokens", headers=hers)["items"]
    assert known["token_id"] == made["token_id"] and "secret" not in known
    assert made["secret"] not in served.get(f"{API}/tokens", headers=hers).text
    assert call(served, "DELETE", f"/tokens/{made['token_id']}", headers=hers)["revoked_at"]
    call(served, "GET", "/me", 401, headers=hers)


def test_lists_come_in_pages(served: httpx.Client, storage: AudioStorageSystem) -> None:
    for number in range(5):
        storage.users.add(f"user {number}")
        storage.grants.give(f"user {number}", "reader", everything=True)
        storage.retention.add(f"rule {number}", 1000)
        storage.holds.place(f"hold {number}", owner=f"user {number}")
    wanted = [f"user {number}" for number in range(5)]
    assert [one["name"] for one in everything(served, "/users")] == ["owner", *wanted]
    assert [one["principal"] for one in everything(served, "/grants")] == wanted
    assert len(everything(served, "/retention/rules")) == len(everything(served, "/holds")) == 5
    secrets = [storage.tokens.create(name).secret for name in wanted]
    admin = as_bearer(storage.tokens.create("owner", scopes=["admin"]).secret)
    storage.grants.give("owner", "admin", everything=True)
    first = call(served, "GET", "/tokens", params={"limit": 4}, headers=admin)
    rest = call(served, "GET", "/tokens", params={"limit": 4, "cursor": first["next_cursor"]}, headers=admin)
    assert len(first["items"]) == 4 and len(rest["items"]) == len(secrets) + 1 - 4 and rest["next_cursor"] is None


def test_a_cursor_that_was_never_given_is_refused(served: httpx.Client) -> None:
    for path in ("/users", "/grants", "/tokens", "/trash", "/retention/rules", "/holds"):
        for cursor in ("x", "-1", "9" * 30, "0" * 20 + "9" * 30, "1-", "١", "9" * 19 + "-1"):
            assert call(served, "GET", path, 400, params={"cursor": cursor})["code"] == "invalid_input"


# What is kept


def test_the_trash(served: httpx.Client, storage: AudioStorageSystem, audio_id: int, tmp_path: Path) -> None:
    others = []
    for number in range(3):
        file = tmp_path / f"{number}.flac"
        file.write_bytes(speech_file(tmp_path / "again.flac").read_bytes() + b"\0" * number * 100 + b"\0")
        others.append(int(storage.store_audio_file(file)))
    storage.trash.put(*others)
    storage.trash.put(audio_id)
    assert [one["audio_id"] for one in everything(served, "/trash")] == [audio_id, *reversed(others)]
    assert call(served, "POST", "/trash/restore", json={"audio_ids": [audio_id]}) == {"audio_ids": [audio_id]}
    assert storage.get_recording(audio_id)
    call(served, "POST", "/trash/restore", 404, json={"audio_ids": [audio_id]})
    call(served, "POST", "/trash/empty", 422, json={"audio_ids": []})
    call(served, "POST", "/trash/empty", 404, json={"audio_ids": [audio_id]})
    gone = result(served, "POST", "/trash/empty", json={"audio_ids": others[:1]})
    assert [one["audio_id"] for one in gone["deleted"]] == others[:1] and gone["held"] == {}
    assert len(result(served, "POST", "/trash/empty", json={})["deleted"]) == 2
    assert storage.stats()["recordings"] == 1 and everything(served, "/trash") == []


def test_retention(served: httpx.Client, storage: AudioStorageSystem, home: Path, audio_id: int) -> None:
    body = {"name": "old calls", "keep_days": 30, "where": {"session": "one"}}
    rule = call(served, "POST", "/retention/rules", 201, json=body)
    assert rule["selection"] == {"where": {"session": "one"}, "owner": None, "tag": None}
    call(served, "POST", "/retention/rules", 409, json=body)
    assert lines(served, "GET", "/retention/plan") == []
    [kept] = lines(served, "GET", "/retention/plan", params={"everything": True})
    assert (kept["audio_id"], kept["action"], kept["rule"]) == (audio_id, "keep", "old calls")
    age(home, audio_id)
    [due] = lines(served, "GET", "/retention/plan")
    assert (due["audio_id"], due["action"]) == (audio_id, "delete")
    held = call(served, "POST", "/holds", 201, json={"name": "case", "audio_ids": [audio_id], "reason": "a trial"})
    assert held["released_at"] is None
    assert [one["hold"] for one in result(served, "POST", "/retention/run")["held"]] == ["case"]
    assert result(served, "GET", "/retention/report")["counts"] == {"due": 0, "held": 1}
    assert call(served, "DELETE", "/holds/case")["released_at"]
    assert everything(served, "/holds") == [] and len(everything(served, "/holds", released=True)) == 1
    report = result(served, "GET", "/retention/report")
    assert not report["enforced"] and report["overdue"][0]["audio_id"] == audio_id
    assert [one["audio_id"] for one in result(served, "POST", "/retention/run")["removed"]] == [audio_id]
    report = result(served, "GET", "/retention/report")
    assert report["enforced"] and report["rules"][0]["removed"] == 1 and report["last_run"]["ended_at"]
    call(served, "DELETE", "/retention/rules/old%20calls", 204)
    call(served, "DELETE", "/retention/rules/old%20calls", 404)


def test_cleaning_up_by_age(served: httpx.Client, storage: AudioStorageSystem, home: Path, audio_id: int) -> None:
    assert result(served, "POST", "/retention/clean-up", json={"days_old": 30}) == {"removed": []}
    age(home, audio_id)
    [receipt] = result(served, "POST", "/retention/clean-up", json={"days_old": 30})["removed"]
    assert (receipt["audio_id"], receipt["stage"]) == (audio_id, "recording")
    assert storage.stats()["recordings"] == 0


def age(home: Path, audio_id: int) -> None:
    """As if the recording had been stored long ago."""
    plain_sql(home, "UPDATE audio_files SET created_at = '2020-01-01 00:00:00.000000' WHERE id = ?", audio_id)


def test_the_schema_of_metadata(served: httpx.Client, storage: AudioStorageSystem, audio_id: int) -> None:
    call(served, "GET", "/metadata-schema", 404)
    wanted = {"type": "object", "required": ["speaker"]}
    call(served, "PUT", "/metadata-schema", 204, json=wanted)
    assert call(served, "GET", "/metadata-schema") == wanted
    [broken] = everything(served, "/metadata-schema/violations")
    assert broken["audio_id"] == audio_id and broken["violations"][0]["rule"] == "required"
    call(served, "PUT", "/metadata-schema", 400, json={"$ref": "http://elsewhere.example/schema"})
    call(served, "DELETE", "/metadata-schema", 204)
    call(served, "DELETE", "/metadata-schema", 404)
    call(served, "GET", "/metadata-schema", 404, params={"owner": "nobody"})


# The archive itself


def test_where_the_archive_lies_is_for_administrators(served: httpx.Client, storage: AudioStorageSystem) -> None:
    for name in ("anna", "boss"):
        storage.users.add(name)
    storage.grants.give("boss", "admin", everything=True)
    hers, theirs = storage.tokens.create("anna").secret, storage.tokens.create("boss", scopes=["admin"]).secret
    assert call(served, "GET", "/stats", headers=as_bearer(theirs))["home"] == str(storage.home)
    told = call(served, "GET", "/stats", headers=as_bearer(hers))
    assert told["home"] is None and str(storage.home) not in json.dumps(told)


def test_stats_and_models(served: httpx.Client, storage: AudioStorageSystem, audio_id: int) -> None:
    assert call(served, "GET", "/stats") == storage.stats()
    assert "pocketsphinx" in [one["spec"] for one in call(served, "GET", "/models")["models"]]
    assert call(served, "GET", "/models/loaded") == {"models": []}
    assert {"transcriber", "disk"} <= {one["area"] for one in call(served, "GET", "/diagnosis")["checks"]}


def test_indexes_and_embedding_anew(served: httpx.Client, storage: AudioStorageSystem, audio_id: int) -> None:
    told = result(served, "POST", "/reindex")["spaces"]
    assert all(state["indexed"] == state["total"] for state in told.values()) and told
    plan = call(served, "GET", "/reembed/plan", params={"embedder": "wordllama"})
    assert plan["in_use"] and plan["lacking"] == 0
    call(served, "GET", "/reembed/plan", 400, params={"embedder": "no such thing"})


def test_verifying_tells_how_far_it_is(
    served: httpx.Client, home: Path, storage: AudioStorageSystem, audio_id: int
) -> None:
    told = lines(served, "POST", "/verify", json={"deep": True})
    stages = {line["progress"]["stage"] for line in told[:-1]}
    assert len(stages) > 3 and told[-1]["result"]["clean"] and told[-1]["result"]["recordings"] == 1
    file = home / storage.get_recording(audio_id).file_path
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    file.write_bytes(b"x" * file.stat().st_size)
    found = result(served, "POST", "/verify", json={"deep": True})
    assert not found["clean"] and audio_id in found["findings"][0]["ids"]


def test_the_quarantine(served: httpx.Client, storage: AudioStorageSystem) -> None:
    for number in range(3):
        storage._archive.blobs.put(f"quarantine/20251122/copies/stray {number}", b"stray")
    keys = [one["key"] for one in everything(served, "/quarantine")]
    assert keys == sorted(storage.quarantine.list()) and len(keys) == 3
    assert call(served, "POST", "/quarantine/restore", json={"key": keys[0]}) == {"key": "copies/stray 0"}
    call(served, "POST", "/quarantine/restore", 404, json={"key": keys[0]})
    os.utime(storage.home / keys[1], (1.7e9, 1.7e9))
    assert call(served, "POST", "/quarantine/empty", json={"older_than_days": 5_000}) == {"removed": []}
    assert call(served, "POST", "/quarantine/empty", json={"older_than_days": 0.5}) == {"removed": [keys[1]]}
    call(served, "POST", "/quarantine/empty", 422, json={"older_than_days": -1})
    for escape in ("../../etc/passwd", "quarantine/../audio_storage.db", "/etc/passwd"):
        assert served.post(f"{API}/quarantine/restore", json={"key": escape}).status_code in (400, 404)


def test_the_security_check(served: httpx.Client) -> None:
    found = result(served, "POST", "/security/check", json={"stale_days": 30})
    assert "no backup" in [one["name"] for one in found["weaknesses"]]


# Backups


@pytest.fixture
def backed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A server whose archive may be backed up to two places."""
    places = f"disk={tmp_path / 'disk'}, other={tmp_path / 'other'}"
    monkeypatch.setenv("AUDIO_STORAGE_BACKUP_DESTINATIONS", places)
    with serving(lambda: AudioStorageSystem(home)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_backups_go_where_the_settings_say(backed: httpx.Client, home: Path, tmp_path: Path) -> None:
    with AudioStorageSystem(home) as storage:
        storage.store_audio_file(speech_file(tmp_path / "note.flac"))
    assert call(backed, "GET", "/backups/destinations") == {"destinations": ["disk", "other"]}
    first = result(backed, "POST", "/backups/disk/create", json={"keep_days": 30})
    assert first["complete"] and first["blobs"] == 1 and (tmp_path / "disk").is_dir() and first["expires_at"]
    second = result(backed, "POST", "/backups/disk/create", json={})
    assert second["blobs_copied"] == 0
    sets = everything(backed, "/backups/disk/sets")
    assert [one["set_id"] for one in sets] == [first["set_id"], second["set_id"]]
    assert [one["set_id"] for one in everything(backed, "/backups")] == [one["set_id"] for one in sets]
    assert result(backed, "POST", "/backups/disk/verify", json={"set_id": first["set_id"]})["whole"]
    assert result(backed, "POST", "/backups/disk/rehearse", json={})["how"] == "rehearse"
    assert not result(backed, "POST", "/backups/disk/prune", json={"keep_last": 1, "dry_run": True})["objects"]
    call(backed, "GET", "/backups/disk/anchor", 409)
    call(backed, "POST", "/backups/disk/verify", 404, json={"set_id": "20200101T000000000000Z-none"})


def test_nobody_chooses_a_place_for_backups_from_outside(backed: httpx.Client, tmp_path: Path) -> None:
    for place in ("elsewhere", "%2Ftmp%2Felsewhere", "s3:%2F%2Fbucket", "..", "disk%2F..%2Fx"):
        assert backed.post(f"{API}/backups/{place}/create", json={}).status_code in (404, 405, 422)
    assert not (tmp_path / "disk").exists() and not (tmp_path / "other").exists()


# The audit log and the keys


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[tuple[httpx.Client, AudioStorageSystem]]:
    """A server over an encrypted archive that keeps its audit log, and that archive."""
    home = tmp_path / "audited"
    with (
        AudioStorageSystem(home, encryption=True) as storage,
        serving(lambda: AudioStorageSystem(home)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client, storage


def test_the_audit_log(audited: tuple[httpx.Client, AudioStorageSystem], tmp_path: Path) -> None:
    client, storage = audited
    audio_id = int(storage.store_audio_file(speech_file(tmp_path / "note.flac")))
    storage.users.add("anna")
    call(client, "POST", "/users", 201, json={"name": "berta"})
    added = everything(client, "/audit", action="user.")
    assert [(one["action"], one["details"]["name"]) for one in added] == [
        ("user.added", "berta"),
        ("user.added", "anna"),
    ]
    assert "http:127.0.0.1" in added[0]["origin"] and "http:" not in added[1]["origin"]
    [stored] = everything(client, "/audit", audio_id=audio_id, action="recording.stored")
    later = (datetime.fromisoformat(stored["at"]) + timedelta(microseconds=1)).isoformat()
    assert stored["id"] not in [one["id"] for one in everything(client, "/audit", since=later)]
    anchor = call(client, "GET", "/audit/anchor")
    assert result(client, "POST", "/audit/verify", json={"anchors": [anchor]})["ok"]
    call(client, "POST", "/audit/verify", 400, json={"anchors": [{**anchor, "mac": "0" * 64}]})
    exported = lines(client, "GET", "/audit/export")
    numbers = [one["id"] for one in exported]
    assert numbers == sorted(numbers) and stored["id"] in numbers
    table = client.get(f"{API}/audit/export", params={"format": "csv", "action": "user."})
    assert table.headers["content-type"].startswith("text/csv")
    assert [row["action"] for row in csv.DictReader(io.StringIO(table.text))] == ["user.added"] * 2
    assert result(client, "POST", "/audit/verify", json={})["entries"] >= len(exported)


def test_the_log_of_an_archive_that_keeps_none(served: httpx.Client) -> None:
    assert [served.get(f"{API}/audit{path}").status_code for path in ("", "/anchor", "/export")] == [409] * 3
    assert served.get(f"{API}/keys").status_code == 404


def test_keys_are_rotated_and_never_shown(audited: tuple[httpx.Client, AudioStorageSystem], tmp_path: Path) -> None:
    client, storage = audited
    audio_id = int(storage.store_audio_file(speech_file(tmp_path / "note.flac")))
    before = call(client, "GET", "/keys")
    assert before["encrypted"] and len(before["generations"]) == 1
    done = result(client, "POST", "/keys/rotate", json={})
    assert done["rewrapped"] >= 1 and not done["resumed"]
    answer = client.get(f"{API}/keys")
    assert len(answer.json()["generations"]) == 2
    keys = storage._archive.keys
    assert keys is not None
    assert not any(secret.hex() in answer.text for secret in (keys.root, *keys.wrapping.values()))
    with storage.open_audio(audio_id) as file:
        assert file.read(4) == b"fLaC"
