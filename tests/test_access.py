"""Views, grants, tokens: what each sees and does, and that nothing of the rest can be told."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, update

from audio_storage_system import AudioStorageSystem
from audio_storage_system.clock import Deadline, utc_now
from audio_storage_system.database import tables
from audio_storage_system.errors import (
    AudioStorageSystemError,
    Conflict,
    Forbidden,
    InvalidFilter,
    InvalidInput,
    NotFound,
    Unauthorized,
)
from audio_storage_system.permissions import tokens as tokens_module
from audio_storage_system.search import Filter, Query
from audio_storage_system.search import run as search
from batch import Command
from builders import Talk, fill, say, text_space, unit
from catalogues import plain_sql

TALKS = [
    Talk(["the budget of the merger", "rain tomorrow"], {"project": "alpha"}),
    Talk(["merger merger merger", "the budget again", "fin"], {"project": "beta"}),
    Talk(["merger in March"], {"project": "beta"}),
]


def give_to(storage: AudioStorageSystem, audio_id: int, name: str) -> None:
    """Make somebody the owner, as storing for them would have."""
    table = tables.audio_files
    owner = storage.users.get(name).id
    with storage._archive.database.write() as connection:
        connection.execute(update(table).where(table.c.id == audio_id).values(owner_id=owner))


@pytest.fixture
def john(storage: AudioStorageSystem) -> AudioStorageSystem:
    """The view of one who owns the first of three recordings."""
    fill(storage._archive, TALKS)
    storage.users.add("john")
    give_to(storage, 1, "john")
    return storage.as_user("john")


def ids(view: AudioStorageSystem) -> list[int]:
    return sorted(recording.id for recording in view.list_recordings())


# Views


def test_a_view_is_cheap_and_closing_it_closes_nothing(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    assert type(john) is AudioStorageSystem
    with john as view:
        assert ids(view) == [1]
    john.jobs.close()
    assert ids(john) == [1] and ids(storage) == [1, 2, 3] and storage.jobs.find() == []
    with pytest.raises(NotFound, match="No principal with id nobody"):
        storage.as_user("nobody")


def test_what_is_stored_through_a_view_is_its_principals(
    storage: AudioStorageSystem, john: AudioStorageSystem, call: Path
) -> None:
    audio_id = john.store_audio_file(call, metadata={"user_id": "mary"})
    assert john.get_recording(audio_id).owner_id == storage.users.get("john").id
    assert all(one.name != "mary" for one in storage.users.list()), "through a view it is just metadata"
    assert john.get_user_audio("john", audio_id).id == audio_id
    with pytest.raises(NotFound):
        john.get_user_audio("mary", audio_id)


def test_user_id_sets_the_owner_once(storage: AudioStorageSystem, call: Path) -> None:
    audio_id = storage.store_audio_file(call, metadata={"user_id": 47})
    assert [one.name for one in storage.users.list()] == ["owner", "47"]
    assert storage.get_user_audio(47, audio_id).id == storage.get_user_audio("47", audio_id).id == audio_id
    assert storage.get_user_audio(47.0, audio_id).id == audio_id
    storage.users.add("mary")
    storage.set_metadata(audio_id, {"user_id": "mary"})
    assert ids(storage.as_user("47")) == [audio_id] and ids(storage.as_user("mary")) == []
    with pytest.raises(NotFound):
        storage.get_user_audio("mary", audio_id)
    assert storage.store_audio_file(call, metadata={"user_id": 47}).duplicate


def test_the_same_bytes_are_a_duplicate_of_ones_own_only(
    storage: AudioStorageSystem, john: AudioStorageSystem, call: Path
) -> None:
    theirs = storage.store_audio_file(call)
    assert john.examine(call).audio_id is None
    mine = john.store_audio_file(call)
    assert not mine.duplicate and mine != theirs
    assert john.store_audio_file(call) == mine and john.examine(call).audio_id == mine
    assert john.known_hashes() == {john.get_recording(1).file_hash, john.get_recording(mine).file_hash}


def test_an_archive_without_views_asks_nothing_more(storage: AudioStorageSystem) -> None:
    """Nothing of the rule is asked on an unrestricted handle."""
    fill(storage._archive, TALKS)
    asked: list[str] = []
    engine = storage._archive.database.engine
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    storage.search_similar_audio("merger", mode="keyword")
    storage.list_recordings(), storage.stats(), storage.get_recording(1), storage.jobs.find()
    storage.set_metadata(1, {"a": 1})
    assert asked and not [sql for sql in asked if "grants" in sql or "memberships" in sql or "principals" in sql]


# Grants


def test_a_grant_holds_at_once_and_is_gone_at_once(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    def found() -> set[int]:
        return {hit.audio_id for hit in john.search_similar_audio("merger", mode="keyword")}

    assert found() == {1}
    one = storage.grants.give("john", "reader", audio_id=2)
    assert found() == {1, 2}
    some = storage.grants.give("john", "reader", where={"metadata.project": "beta"})
    storage.grants.revoke(one.id)
    assert found() == {1, 2, 3}
    storage.set_metadata(2, {"project": "gamma"})
    assert found() == {1, 3}
    storage.grants.revoke(some.id)
    assert found() == {1}


def test_a_grant_expires_by_itself(
    storage: AudioStorageSystem, john: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing is written then, and searches remember what passes."""
    expires_at = utc_now() + timedelta(hours=1)
    storage.grants.give("john", "reader", audio_id=2, expires_at=expires_at)
    for _ in range(2):
        assert {hit.audio_id for hit in john.search_similar_audio("merger", mode="keyword")} == {1, 2}
    monkeypatch.setattr("audio_storage_system.access.utc_now", lambda: expires_at)
    assert {hit.audio_id for hit in john.search_similar_audio("merger", mode="keyword")} == {1}
    assert ids(john) == [1] and john.stats()["recordings"] == 1
    with pytest.raises(InvalidInput, match="passed already"):
        storage.grants.give("john", "reader", audio_id=2, expires_at=datetime(2020, 1, 1, tzinfo=UTC))


def test_what_is_no_grant_is_refused(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    give = storage.grants.give
    for on in ({}, {"audio_id": 1, "everything": True}, {"audio_id": 1, "where": {"a": 1}}):
        with pytest.raises(InvalidInput, match="one of"):
            give("john", "reader", **on)  # type: ignore[arg-type]
    for where in ({}, {"duration": 1}, {"a": None}, {"a": [1]}, {"a": {"gte": 1}}):
        with pytest.raises(InvalidFilter):
            give("john", "reader", where=where)  # type: ignore[arg-type]
    for role, on in (("admin", {"audio_id": 1}), ("owner", {"everything": True}), ("king", {"audio_id": 1})):
        with pytest.raises(InvalidInput, match="no role"):
            give("john", role, **on)  # type: ignore[arg-type]
    for name, audio_id in (("nobody", 1), ("john", 99)):
        with pytest.raises(NotFound):
            give(name, "reader", audio_id=audio_id)
    assert storage.grants.list() == []


def test_an_owner_gives_and_takes_on_recordings_only(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    storage.users.add("mary")
    grant = john.grants.give("mary", "editor", audio_id=1)
    mary = storage.as_user("mary")
    assert ids(mary) == [1] and [one.id for one in mary.grants.list()] == [grant.id]
    for forbidden in (
        lambda: john.grants.give("john", "reader", everything=True),
        lambda: john.grants.give("john", "reader", where={"project": "beta"}),
        lambda: mary.grants.give("mary", "owner", audio_id=1),
        lambda: mary.grants.revoke(grant.id),
        lambda: mary.delete(1),
    ):
        with pytest.raises(Forbidden):
            forbidden()
    wide = storage.grants.give("mary", "admin", everything=True)
    assert ids(mary) == [1, 2, 3] and mary.users.list() and mary.as_user("john").stats()["recordings"] == 1
    storage.grants.revoke(wide.id)
    john.grants.revoke(grant.id)
    assert ids(mary) == []
    with pytest.raises(Forbidden):
        mary.users.list()


# Groups


def test_circles_of_groups_are_refused_and_end(
    storage: AudioStorageSystem, john: AudioStorageSystem, home: Path
) -> None:
    for name in ("a", "b", "c"):
        storage.users.add(name, "group")
    storage.users.join("a", "b"), storage.users.join("b", "c"), storage.users.join("c", "john")
    for group, member in (("c", "a"), ("a", "a"), ("b", "a")):
        with pytest.raises(Conflict, match="member of itself"):
            storage.users.join(group, member)
    storage.grants.give("a", "reader", audio_id=2)
    assert ids(john) == [1, 2]
    c, a = storage.users.get("c").id, storage.users.get("a").id
    plain_sql(home, "INSERT INTO memberships (group_id, member_id) VALUES (?, ?)", c, a)
    assert ids(john) == [1, 2], "one that was made behind our back does not go on for ever"
    storage.users.leave("c", "john")
    assert ids(john) == [1]
    with pytest.raises(InvalidInput, match="has no members"):
        storage.users.join("john", "a")


def test_users_are_removed_with_what_they_were_given(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    storage.users.add("mary")
    storage.users.add("team", "group")
    storage.users.join("team", "mary")
    storage.grants.give("mary", "reader", where={"project": "beta"})
    secret, mary = storage.tokens.create("mary").secret, storage.as_user("mary")
    assert ids(mary) == [2, 3]
    storage.users.remove("mary")
    assert ids(mary) == [] and storage.grants.list() == []
    assert [bool(token.revoked_at) for token in storage.tokens.list()] == [True], "revoked, and still known"
    with pytest.raises(Unauthorized):
        storage.tokens.authenticate(secret)
    for name in ("john", "owner"):
        with pytest.raises(Conflict):
            storage.users.remove(name)
    for name in ("", " x", "x" * 256, "a\0b", 7):
        with pytest.raises(InvalidInput):
            storage.users.add(name)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="already"):
        storage.users.add("john")


# Nothing of the rest can be told


def test_a_view_scores_as_an_archive_of_its_own(
    storage: AudioStorageSystem, john: AudioStorageSystem, tmp_path: Path
) -> None:
    """How often others say a word is not in any score: the answers are those of an archive with nothing else in it."""
    storage.grants.give("john", "reader", audio_id=3)
    with closing(AudioStorageSystem(tmp_path / "alone")) as alone:
        fill(alone._archive, [TALKS[0], TALKS[2]])
        for question in ("merger", "budget merger", '"the budget"', "mer*", "rain fin march"):
            for mode in ("keyword", "hybrid"):
                here, there = (one.search_similar_audio(question, mode=mode) for one in (john, alone))  # type: ignore[arg-type]
                assert [(h.transcription, pytest.approx(h.score)) for h in here] == [
                    (h.transcription, h.score) for h in there
                ]
                assert (here.total, here.warnings, here.index) == (there.total, there.warnings, None)


def test_warnings_count_what_is_seen(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("audio_storage_system"), "disabled", True)
        assert "6 passage(s)" in storage.search_similar_audio("merger").warnings[0]
        assert "2 passage(s)" in john.search_similar_audio("merger").warnings[0]
        assert "6 passage(s)" in storage.search_similar_audio("merger").warnings[0]


def test_stems_of_languages_that_are_hidden_find_nothing(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    before = [hit.score for hit in john.search_similar_audio("budgets", mode="keyword")]
    fill(storage._archive, [Talk(["die Budgets der Fusion"], language="de")])
    assert [hit.score for hit in john.search_similar_audio("budgets", mode="keyword")] == before


def test_hidden_and_missing_are_told_in_the_same_words(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    with storage._archive.database.write() as connection:
        hidden = say(connection, 2, Talk(["another version"]))
    calls: list[Any] = [
        lambda n: john.export(1, "srt", n),
        lambda n: john.diff_transcripts(1, n),
        lambda n: john.generate_embeddings(1, n),
        lambda n: john.activate_transcript(n),
        lambda n: john.segments(n),
    ]
    for call in calls:
        assert told(call, hidden).replace(str(hidden), "N") == told(call, 777).replace("777", "N")


def told(call: Any, number: int) -> str:
    with pytest.raises(AudioStorageSystemError) as raised:
        call(number)
    return f"{type(raised.value).__name__} {raised.value}"


def test_a_selection_by_meaning_equals_filtering_first(storage: AudioStorageSystem) -> None:
    """The nearest of what is seen are found, however many that is not seen are nearer."""
    rng = np.random.default_rng(5)
    archive, space = storage._archive, text_space(storage._archive, 16)
    wanted = unit(rng, 16)
    near = [Talk(["hidden"], vectors=[wanted]) for _ in range(40)]
    far = [Talk(["seen"], {"for": "john"}, vectors=[unit(rng, 16)]) for _ in range(3)]
    fill(archive, [*near, *far], space)
    archive.follow()
    storage.users.add("john")
    storage.grants.give("john", "reader", where={"for": "john"})
    view = storage.as_user("john")._archive
    query = Query(vector=wanted, space=space, mode="semantic", filter=Filter(access=view.access))
    hits = search(view.database, view.index, query, Deadline.after(None))
    assert [hit.audio_id for hit in hits] == sorted([41, 42, 43], key=lambda n: -float(far[n - 41].vectors[0] @ wanted))


# Tokens


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[datetime]]:
    now = [utc_now()]
    monkeypatch.setattr(tokens_module, "utc_now", lambda: now[0])
    yield now


def test_a_token_is_shown_once_and_opens_a_view(
    storage: AudioStorageSystem, john: AudioStorageSystem, home: Path, clock: list[datetime]
) -> None:
    made = storage.tokens.create("john", name="laptop", scopes=["write"])
    assert made.secret.startswith("ast_") and len(made.secret) >= 47 and made.secret not in repr(made)
    stored = str(plain_sql(home, "SELECT * FROM api_tokens"))
    assert made.secret not in stored and made.secret[4:] not in stored
    view = storage.tokens.authenticate(made.secret)
    assert ids(view) == [1] and view.tokens.list() == storage.tokens.list("john")
    used = clock[0]
    for seconds, noted in ((30, used), (61, used + timedelta(seconds=61))):
        clock[0] = used + timedelta(seconds=seconds)
        storage.tokens.authenticate(made.secret)
        assert storage.tokens.list()[0].last_used_at == noted, "noted at most once a minute"


def test_tokens_that_are_not_accepted(
    storage: AudioStorageSystem, john: AudioStorageSystem, clock: list[datetime]
) -> None:
    made = storage.tokens.create("john", expires_at=utc_now() + timedelta(hours=1))
    gone = storage.tokens.create("john")
    storage.tokens.revoke(gone.token.id)
    words = {
        told(lambda _, t=token: storage.tokens.authenticate(t), 0)
        for token in ("", "x", "ast_" + "a" * 43, "x" * 10**6, "\ud800", None, gone.secret)
    }  # type: ignore[misc]
    assert words == {"Unauthorized The token is not accepted: it is unknown or was revoked."}
    clock[0] += timedelta(hours=2)
    with pytest.raises(Unauthorized, match="expired"):
        storage.tokens.authenticate(made.secret)


def test_digests_are_compared_in_constant_time(
    storage: AudioStorageSystem, john: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By construction: a known token and one that is not go through the same comparison of as many characters."""
    compared: list[tuple[int, int]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(tokens_module, "hmac", type("Compared", (), {"compare_digest": staticmethod(compare)}))
    storage.tokens.authenticate(storage.tokens.create("john").secret)
    with pytest.raises(Unauthorized):
        storage.tokens.authenticate("ast_unknown")
    assert compared == [(64, 64)] * 2


def test_scopes_bound_what_a_token_is_good_for(
    storage: AudioStorageSystem, john: AudioStorageSystem, call: Path
) -> None:
    storage.users.add("boss")
    storage.grants.give("boss", "admin", everything=True)
    views = {
        s: storage.tokens.authenticate(storage.tokens.create("boss", scopes=[s]).secret)
        for s in ("read", "write", "admin")
    }
    assert all(ids(view) == [1, 2, 3] for view in views.values())
    for name in ("write", "admin"):
        views[name].set_metadata(1, {"a": name})
    views["admin"].users.add("x")
    for scope, act in (
        ("read", lambda v: v.set_metadata(1, {"a": 1})),
        ("read", lambda v: v.store_audio_file(call)),
        ("read", lambda v: v.tokens.create(scopes=["write"])),
        ("write", lambda v: v.users.list()),
        ("write", lambda v: v.tokens.create(scopes=["admin"])),
        ("write", lambda v: v.as_user("john")),
    ):
        with pytest.raises(Forbidden):
            act(views[scope])
    assert ids(views["admin"].as_user("john")) == [1]
    for scopes in ([], ["all"], "reed"):
        with pytest.raises(InvalidInput):
            storage.tokens.create("john", scopes=scopes)


def test_everybody_minds_his_own_tokens(storage: AudioStorageSystem, john: AudioStorageSystem) -> None:
    other, mine = storage.tokens.create("owner"), john.tokens.create()
    assert [token.id for token in john.tokens.list()] == [mine.token.id]
    with pytest.raises(Forbidden):
        john.tokens.create("owner")
    assert told(john.tokens.revoke, other.token.id).replace(str(other.token.id), "N") == told(
        john.tokens.revoke, 99
    ).replace("99", "N")
    john.tokens.revoke(mine.token.id)
    assert john.tokens.list()[0].revoked_at is not None


# The commands


def test_the_commands_do_the_same(run: Command, note: Path, scripted_engine: object) -> None:
    run("add", note, "-m", "user_id=john", "-m", "project=x", "--no-transcribe")
    assert run("users", "add", "team", "--kind", "group", "--json").data["kind"] == "group"
    assert run("users", "add", "mary").code == 0 and run("users", "join", "team", "mary").code == 0
    assert [one["name"] for one in run("users", "list", "--json").data["users"]] == ["owner", "john", "team", "mary"]
    assert run("list", "--as", "mary", "--json").data["recordings"] == []
    assert run("show", "1", "--as", "mary").code == 4
    given = run("grants", "give", "team", "reader", "--where", "project=x", "--expires", "2999-01-01", "--json").data
    assert [one["audio_id"] for one in run("list", "--as", "mary", "--json").data["recordings"]] == [1]
    assert run("stats", "--as", "mary", "--json").data["recordings"] == 1
    assert "what has project=x" in run("grants", "list").out
    assert run("grants", "revoke", given["grant_id"]).code == 0
    assert run("list", "--as", "mary", "--json").data["recordings"] == []
    made = run("tokens", "create", "mary", "--scope", "write", "--name", "ci")
    assert made.out.startswith("ast_") and "not shown again" in made.err
    listed = run("tokens", "list", "--json").data["tokens"]
    assert [(one["principal"], one["name"], one["scopes"]) for one in listed] == [("mary", "ci", ["write"])]
    assert run("tokens", "revoke", listed[0]["token_id"]).code == 0
    assert run("users", "leave", "team", "mary").code == 0 and run("users", "remove", "mary").code == 0
    assert run("users", "remove", "john").code == 5
