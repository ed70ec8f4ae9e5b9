"""What each principal gets is what filtering by hand gives: random principals, groups in groups, grants, selections and
edits, on both catalogues and in a vector database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from audio_storage_system import AudioStorageSystem
from audio_storage_system.access import Access, Role
from audio_storage_system.catalogue import jobs
from audio_storage_system.database import tables
from audio_storage_system.errors import Conflict, NotFound
from audio_storage_system.records import Priority, Space
from builders import Talk, fill
from catalogues import Catalogues

PAST = datetime(2020, 1, 1, tzinfo=UTC)
ROLES = ("reader", "editor", "owner")
VALUES = ("x", "y", 1, "1", 2.5, True)
EXAMPLES = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def vector_of(text: str) -> np.ndarray[Any, Any]:
    """A unit vector that follows from a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    vector = np.random.default_rng(seed).standard_normal(8)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass
class Given:
    """A grant as the model has it."""

    principal: str
    role: str
    audio_id: int | None
    where: dict[str, Any] | None
    expired: bool = False


@dataclass
class World:
    """An archive, and beside it what it should be, in plain Python."""

    storage: AudioStorageSystem
    space: Space
    number: int
    principals: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    members: set[tuple[str, str]] = field(default_factory=set)
    grants: dict[int, Given] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    metadata: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[int, int] = field(default_factory=dict)

    def add(self, group: bool) -> None:
        name = f"{'group' if group else 'user'} {self.number}.{len(self.principals)}"
        self.storage.users.add(name, "group" if group else "user")
        self.principals.append(name)
        if group:
            self.groups.append(name)

    def join(self, group: str, member: str) -> None:
        circle = member in self.closure(group)
        try:
            self.storage.users.join(group, member)
            assert not circle
            self.members.add((group, member))
        except Conflict:
            assert circle

    def leave(self, group: str, member: str) -> None:
        self.storage.users.leave(group, member)
        self.members.discard((group, member))

    def store(self, owner: str, values: dict[str, Any]) -> None:
        archive = self.storage.as_user(owner)._archive
        text = f"common word {self.number} {len(self.owners)}"
        talk = Talk([text], values, vectors=[vector_of(text)])
        [audio_id] = fill(self.storage._archive, [talk], self.space)
        self.owners[audio_id], self.metadata[audio_id] = owner, dict(values)
        with archive.database.write() as connection:
            mine = {"owner_id": archive.owner_id}
            table = tables.audio_files
            connection.execute(update(table).where(table.c.id == audio_id).values(mine))
            order: dict[str, Any] = {"step": "embed", "options": {}, "priority": Priority.NORMAL, "share": "1"}
            [job] = jobs.add(connection, "retranscribe", [audio_id], **order)
        self.jobs[job.id] = audio_id

    def give(self, principal: str, role: str, audio_id: int | None, where: dict[str, Any] | None) -> None:
        on: dict[str, Any] = {"audio_id": audio_id, "where": where, "everything": audio_id is None and where is None}
        grant = self.storage.grants.give(principal, role, **on)
        self.grants[grant.id] = Given(principal, role, audio_id, where)

    def expire(self, grant_id: int) -> None:
        with self.storage._archive.database.write() as connection:
            table = tables.grants
            connection.execute(update(table).where(table.c.id == grant_id).values(expires_at=PAST))
        self.grants[grant_id].expired = True

    def revoke(self, grant_id: int) -> None:
        self.storage.grants.revoke(grant_id)
        del self.grants[grant_id]

    def edit(self, audio_id: int, key: str, value: Any) -> None:
        self.storage.set_metadata(audio_id, {key: value})
        self.metadata[audio_id][key] = value

    # What should be

    def closure(self, name: str) -> set[str]:
        found, new = {name}, {name}
        while new:
            new = {group for group, member in self.members if member in new} - found
            found |= new
        return found

    def may(self, name: str, role: str) -> set[int]:
        mine, enough = self.closure(name), [r.value for r in Role(role).sufficient]
        return {
            audio_id
            for audio_id, owner in self.owners.items()
            if owner in mine
            or any(
                grant.principal in mine and grant.role in enough and not grant.expired and self.meets(audio_id, grant)
                for grant in self.grants.values()
            )
        }

    def meets(self, audio_id: int, grant: Given) -> bool:
        if grant.audio_id is not None:
            return grant.audio_id == audio_id
        values = self.metadata[audio_id]
        return all(key in values and equal(values[key], wanted) for key, wanted in (grant.where or {}).items())


def equal(value: Any, wanted: Any) -> bool:
    """As `where` compares: as text, or as numbers."""
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, wanted))
    return text(value) == text(wanted) or (numbers and value == wanted)


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def play(world: World, data: st.DataObject) -> None:
    """Do something random a number of times."""
    for group in (False, True, False, True):
        world.add(group)
    for _ in range(3):
        world.store(data.draw(st.sampled_from(world.principals)), data.draw(METADATA))
    for _ in range(data.draw(st.integers(0, 14))):
        one_of(world, data)


METADATA = st.dictionaries(st.sampled_from(["p", "q"]), st.sampled_from(VALUES), max_size=2)


def one_of(world: World, data: st.DataObject) -> None:
    def some(choices: Any) -> Any:
        return data.draw(st.sampled_from(sorted(choices)))

    def give_on_one() -> None:
        world.give(some(world.principals), some(ROLES), some(world.owners), None)

    def give_on_some() -> None:
        where = data.draw(st.dictionaries(st.sampled_from(["p", "q"]), st.sampled_from(VALUES), min_size=1))
        world.give(some(world.principals), some(ROLES), None, where)

    act = data.draw(st.integers(0, 9))
    if act == 0:
        world.add(data.draw(st.booleans()))
    elif act in (1, 2):
        world.join(some(world.groups), some(world.principals))
    elif act == 3 and world.members:
        world.leave(*some(world.members))
    elif act == 4:
        world.store(some(world.principals), data.draw(METADATA))
    elif act == 5:
        give_on_one()
    elif act == 6:
        give_on_some()
    elif act == 7 and world.grants:
        (world.revoke if data.draw(st.booleans()) else world.expire)(some(world.grants))
    elif act == 8:
        world.edit(some(world.owners), some(["p", "q"]), data.draw(st.sampled_from(VALUES)))
    elif act == 9 and data.draw(st.booleans()):
        world.give(some(world.principals), some(["reader", "editor", "admin"]), None, None)


def check(world: World) -> None:
    everyone = set(world.owners)
    for name in world.principals:
        view, seen = world.storage.as_user(name), world.may(name, "reader") & everyone
        mine = everyone  # of this world: the archive holds those of earlier ones, too
        assert {one.id for one in view.list_recordings()} & mine == seen, name
        for mode in ("keyword", "semantic"):
            hits = view.search_similar_audio("common word", limit=1000, mode=mode)  # type: ignore[arg-type]
            assert {hit.audio_id for hit in hits} & mine == seen, (name, mode)
        assert {job.audio_id for job in view.jobs.find(limit=None)} & mine == seen
        assert view.jobs.counts()["unfinished"] == len(view.jobs.find(limit=None))
        numbers, listed = view.stats(), len(view.list_recordings())
        assert [numbers[one] for one in ("recordings", "transcripts", "segments", "passages")] == [listed] * 4
        assert next(s for s in numbers["spaces"] if s["model"] == world.space.model)["embeddings"] == listed
        assert {audio_id for audio_id in everyone if exports(view, audio_id)} == seen
        roles(world, name, view._archive.access)


def exports(view: AudioStorageSystem, audio_id: int) -> bool:
    try:
        return "common" in view.export(audio_id, "txt")
    except NotFound:
        return False


def roles(world: World, name: str, access: Access) -> None:
    """Both forms of the rule say the same, for each role."""
    files = tables.audio_files
    with world.storage._archive.database.read() as connection:
        for role in ROLES:
            listed = set(
                connection.execute(select(files.c.id).where(files.c.id.in_(access.recordings(Role(role))))).scalars()
            )
            probed = set(connection.execute(select(files.c.id).where(access.holds(Role(role)))).scalars())
            assert listed == probed
            assert listed & set(world.owners) == world.may(name, role), (name, role)


@dataclass
class Opened:
    storage: AudioStorageSystem
    space: Space
    worlds: int = 0

    def world(self) -> World:
        self.worlds += 1
        return World(self.storage, self.space, self.worlds)


@pytest.fixture(scope="module", params=["", "qdrant:vectors"])
def opened(
    request: pytest.FixtureRequest, catalogues: Catalogues, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    if request.param and catalogues.name == "postgresql":
        pytest.skip("a vector database asks the catalogue the same on either")
    if request.param:
        pytest.importorskip("qdrant_client")
    home: Path = tmp_path_factory.mktemp("access") / "archive"
    with catalogues.at(home), closing(AudioStorageSystem(home, vectors=request.param or None)) as storage:
        storage.use_embedder(vector_of, name="test")
        space, _ = storage._archive.spaces.text()
        yield Opened(storage, space)


@EXAMPLES
@given(data=st.data())
def test_everybody_gets_what_filtering_by_hand_gives(opened: Opened, data: st.DataObject) -> None:
    world = opened.world()
    play(world, data)
    if data.draw(st.booleans()):
        opened.storage._archive.follow()
    check(world)


def test_the_rule_is_asked_of_the_few_grants(opened: Opened) -> None:
    """No recording is looked at that the principal has nothing to do with."""
    archive = opened.storage._archive
    if archive.database.dialect.__class__.__name__ != "SQLite":
        pytest.skip("plans are read on SQLite")
    query = select(tables.audio_files.c.id).where(tables.audio_files.c.id.in_(Access(2, "x", True).recordings()))
    with archive.database.read() as connection:
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
    scans = [line for line in plan if line.startswith("SCAN")]
    assert not [line for line in scans if "audio_files" in line and "wide" not in plan[plan.index(line) - 1]], plan
    assert not [line for line in scans if "metadata" in line], plan
