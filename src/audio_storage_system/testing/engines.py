"""What every vector database behind `EngineIndex` must pass: inherit `VectorEngineContract` and `EngineIndexContract`.

`MemoryEngine` is one that needs nothing: for tests of what uses an engine, and as an example of how to write one.
"""

from __future__ import annotations

import threading
import uuid
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert, update

from audio_storage_system.clock import utc_now
from audio_storage_system.database import Database
from audio_storage_system.database.tables import audio_files, change_log, embeddings
from audio_storage_system.errors import NotFound, VectorIndexMismatch, VectorIndexUnavailable
from audio_storage_system.records import Space
from audio_storage_system.testing.vectors import Only, VectorArchive, VectorIndexContract, Vectors, draw, nearest
from audio_storage_system.vectors import (
    Capabilities,
    Collection,
    EngineIndex,
    Found,
    Ids,
    IndexState,
    Points,
    Scope,
    VectorEngine,
    VectorIndex,
    log,
)

STEP_ROWS = 64
DAY = 86_400.0


@dataclass
class Store:
    """What a `MemoryEngine` server holds: collections by name, each with its points by id. `down`: it refuses."""

    collections: dict[str, Collection] = field(default_factory=dict)
    points: dict[str, dict[int, Points]] = field(default_factory=dict)
    down: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)


class MemoryEngine(VectorEngine):
    """Compares everything, in memory. Several may share one `Store`, as clients share a server."""

    capabilities = Capabilities(filters=True, max_batch=50)

    def __init__(self, store: Store, address: str = "memory:") -> None:
        self.store = store
        self.address = address

    def names(self, prefix: str) -> set[str]:
        self._check()
        return {name for name in self.store.collections if name.startswith(prefix)}

    def ensure(self, collection: Collection) -> None:
        self._check()
        with self.store.lock:
            there = self.store.collections.setdefault(collection.name, collection)
            self.store.points.setdefault(collection.name, {})
        if there != collection:
            raise VectorIndexMismatch(place=self.address, found=repr(there), wanted=repr(collection))

    def upsert(self, collection: Collection, points: Points) -> None:
        assert 0 < len(points) <= self.capabilities.max_batch
        with self.store.lock:
            self._of(collection).update(zip(points.ids.tolist(), points.batches(1), strict=True))

    def delete(self, collection: Collection, ids: Ids) -> None:
        with self.store.lock:
            for id_ in ids.tolist():
                self._of(collection).pop(id_, None)

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        with self.store.lock:
            inside = {id_: p.vectors[0] for id_, p in self._of(collection).items() if _inside(p, scope)}
        found = nearest(inside, vector, limit)
        return Found.of([match.embedding_id for match in found], [match.similarity for match in found])

    def count(self, collection: Collection) -> int:
        return len(self._of(collection))

    def ids(self, collection: Collection) -> Iterator[Ids]:
        with self.store.lock:
            yield np.array(list(self._of(collection)), dtype=np.int64)

    def drop(self, name: str) -> None:
        self._check()
        with self.store.lock:
            self.store.collections.pop(name, None)
            self.store.points.pop(name, None)

    def _of(self, collection: Collection) -> dict[int, Points]:
        self._check()
        if collection.name not in self.store.points:
            raise NotFound(kind="collection", id=collection.name)
        return self.store.points[collection.name]

    def _check(self) -> None:
        if self.store.down:
            raise VectorIndexUnavailable(place=self.address, reason=self.store.down)


def _inside(point: Points, scope: Scope) -> bool:
    recorded_at = datetime.fromtimestamp(float(point.recorded_at[0]), UTC)
    return (
        (scope.owner_ids is None or int(point.owner_ids[0]) in scope.owner_ids)
        and (scope.audio_ids is None or int(point.audio_ids[0]) in scope.audio_ids)
        and (scope.since is None or recorded_at >= scope.since)
        and (scope.until is None or recorded_at < scope.until)
    )


def points(count: int, seed: int = 0, first: int = 1, dimension: int = 24) -> Points:
    """Random points; point i is of owner i % 3 + 1, recording i % 7 + 1, and recorded on day i of 2025."""
    rows = draw(count, seed, dimension)
    ids = np.arange(first, first + count)
    start = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return Points(ids, units, ids % 3 + 1, ids % 7 + 1, (start + ids * DAY).astype(np.float64))


class VectorEngineContract:
    """Inherit, override `open_engine`, and pass."""

    @abstractmethod
    def open_engine(self, folder: Path) -> VectorEngine:
        """A new engine; every one for the same folder must be the same database, as another client would open it."""

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[VectorEngine]:
        engine = self.open_engine(tmp_path)
        yield engine
        engine.close()

    @pytest.fixture
    def collection(self) -> Collection:
        return Collection(f"audio_{uuid.uuid4()}_1_1", "model/of a test:1", 24)

    @pytest.fixture
    def stored(self, engine: VectorEngine, collection: Collection) -> Points:
        """Two hundred points in the collection."""
        engine.ensure(collection)
        every = points(200)
        for batch in every.batches(engine.capabilities.max_batch):
            engine.upsert(collection, batch)
        return every

    def test_a_new_collection_is_empty(self, engine: VectorEngine, collection: Collection) -> None:
        engine.ensure(collection)
        engine.ensure(collection)
        assert engine.count(collection) == 0
        assert len(engine.search(collection, points(1).vectors[0], 10, Scope()).ids) == 0
        assert engine.names(collection.name[:-1]) == {collection.name}
        assert engine.names("audio_other") == set()

    def test_the_nearest_come_first(self, engine: VectorEngine, collection: Collection, stored: Points) -> None:
        for limit in (1, 10, 200, 500):
            query = points(1, seed=3).vectors[0]
            found = engine.search(collection, query, min(limit, engine.capabilities.max_results), Scope())
            cosines, near = stored.vectors @ query, engine.capabilities.precision
            best = np.sort(cosines)[::-1][:limit]
            assert len(set(found.ids.tolist())) == len(best)
            assert cosines[np.searchsorted(stored.ids, found.ids)] == pytest.approx(best, abs=near)
            assert found.similarities == pytest.approx(best, abs=near)

    def test_the_same_again_changes_nothing(self, engine: VectorEngine, collection: Collection, stored: Points) -> None:
        engine.upsert(collection, next(stored.batches(10)))
        assert engine.count(collection) == 200

    def test_what_is_deleted_is_not_found(self, engine: VectorEngine, collection: Collection, stored: Points) -> None:
        engine.delete(collection, stored.ids[:50])
        engine.delete(collection, np.array([1, 999_999]))
        engine.settle(collection, deleted=True)
        assert engine.count(collection) == 150
        found = engine.search(collection, stored.vectors[0], 150, Scope())
        assert sorted(found.ids.tolist()) == stored.ids[50:].tolist()

    def test_every_id_is_listed(self, engine: VectorEngine, collection: Collection, stored: Points) -> None:
        assert sorted(np.concatenate(list(engine.ids(collection))).tolist()) == stored.ids.tolist()
        engine.delete(collection, stored.ids)
        engine.settle(collection, deleted=True)
        assert [id_ for batch in engine.ids(collection) for id_ in batch.tolist()] == []
        with pytest.raises(NotFound):
            list(engine.ids(replace(collection, name=f"{collection.name}9")))

    def test_another_client_sees_it_at_once(
        self, engine: VectorEngine, collection: Collection, stored: Points, tmp_path: Path
    ) -> None:
        other = self.open_engine(tmp_path)
        assert other.count(collection) == 200
        engine.delete(collection, stored.ids[:10])
        assert other.count(collection) == 190
        assert stored.ids[0] not in other.search(collection, stored.vectors[0], 50, Scope()).ids
        other.upsert(collection, next(stored.batches(10)))
        assert engine.search(collection, stored.vectors[0], 1, Scope()).ids.tolist() == [1]
        other.close()

    @pytest.mark.parametrize(
        "scope",
        [
            Scope(owner_ids=(2,)),
            Scope(audio_ids=(3, 5)),
            Scope(since=datetime(2025, 3, 1, tzinfo=UTC)),
            Scope(until=datetime(2025, 3, 1, tzinfo=UTC)),
            Scope((1, 3), (1, 2, 3, 4), datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)),
            Scope(audio_ids=()),
        ],
    )
    def test_a_scope_is_exact(self, engine: VectorEngine, collection: Collection, stored: Points, scope: Scope) -> None:
        if not engine.capabilities.filters:
            pytest.skip("this database does not filter")
        inside = [int(p.ids[0]) for p in stored.batches(1) if _inside(p, scope)]
        found = engine.search(collection, points(1, seed=4).vectors[0], 200, scope)
        assert sorted(found.ids.tolist()) == inside

    def test_a_collection_of_another_model_or_dimension_is_refused(
        self, engine: VectorEngine, collection: Collection, stored: Points
    ) -> None:
        for other in (replace(collection, model="another"), replace(collection, dimension=25)):
            with pytest.raises(VectorIndexMismatch, match="model/of a test:1"):
                engine.ensure(other)
        engine.ensure(collection)
        assert engine.count(collection) == 200

    def test_a_dropped_collection_is_gone(self, engine: VectorEngine, collection: Collection, stored: Points) -> None:
        engine.drop(collection.name)
        engine.drop(collection.name)
        assert engine.names(collection.name) == set()
        with pytest.raises(NotFound):
            engine.count(collection)
        with pytest.raises(NotFound):
            engine.search(collection, stored.vectors[0], 5, Scope())

    def test_the_address_is_the_same_for_all_and_tells_no_secret(self, engine: VectorEngine, tmp_path: Path) -> None:
        other = self.open_engine(tmp_path)
        assert other.address == engine.address
        assert "secret" not in engine.address
        other.close()


class Within(Only):
    """Candidates with a scope, as of a filter that many embeddings pass: too many to list."""

    def __init__(self, ids: set[int], scope: Scope) -> None:
        super().__init__(ids)
        self.limits = scope

    def ids(self, limit: int) -> Ids | None:
        return None

    def scope(self) -> Scope:
        return self.limits


class EngineIndexContract(VectorIndexContract):
    """What an index must do with its database besides: lag, outages, wipes, filters. Override `open_engine`."""

    opened: list[EngineIndex]

    @abstractmethod
    def open_engine(self, folder: Path) -> VectorEngine:
        """As in `VectorEngineContract`."""

    @pytest.fixture(autouse=True)
    def _closing(self) -> Iterator[None]:
        self.opened = []
        yield
        for index in self.opened:
            index.close()
        assert [index.failures for index in self.opened if index.failures] == [], "the catalogue answered by itself"

    def open_index(self, database: Database) -> VectorIndex:
        """Steps are small, and nothing is listed, so that the database is really asked."""
        return self.open_engine_index(database)

    def open_engine_index(self, database: Database) -> EngineIndex:
        """As `open_index`."""
        folder = Path(database.place).parent
        archive_id = str(uuid.uuid5(uuid.NAMESPACE_URL, database.place))
        index = EngineIndex(database, self.open_engine(folder), archive_id, few=-1, step_rows=STEP_ROWS)
        self.opened.append(index)
        return index

    @pytest.fixture
    def engines(self, archive: VectorArchive) -> EngineIndex:
        return self.open_engine_index(archive.database)

    def names(self, engines: EngineIndex) -> set[str]:
        """The collections of this archive."""
        return engines.engine.names(f"audio_{uuid.uuid5(uuid.NAMESPACE_URL, engines.database.place)}_")

    def test_what_is_not_indexed_yet_is_found_and_said(
        self, engines: EngineIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        assert engines.state(space) == engines.lag(space) == IndexState(0, 300)
        engines.catch_up(space)
        assert engines.lag(space) is None
        more = draw(40, seed=11)
        vectors.update(zip(archive.add(space, more), more, strict=True))
        assert engines.lag(space) == engines.state(space) == IndexState(300, 340)
        query = more[0]
        self.agree(self.ask(engines, space, query), nearest(vectors, query, 10))

    def test_a_forgotten_space_leaves_no_collection(
        self, engines: EngineIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        engines.catch_up(space)
        assert self.names(engines)
        engines.forget(space)
        assert self.names(engines) == set()

    def test_a_wiped_database_is_noticed_and_filled_again(
        self, engines: EngineIndex, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        query = draw(1, seed=12)[0]
        for heal in (engines.catch_up, engines.rebuild):
            engines.catch_up(space)
            for name in self.names(engines):
                engines.engine.drop(name)
            self.agree(self.ask(engines, space, query), nearest(vectors, query, 10))
            assert heal(space) == IndexState(300, 300)
            (name,) = self.names(engines)
            assert engines.engine.count(Collection(name, space.model, space.dimension)) == 300
            self.agree(self.ask(engines, space, query), nearest(vectors, query, 10))

    def test_vectors_that_were_lost_or_left_behind_are_noticed(
        self, engines: EngineIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        if not engines.capabilities.counts:
            pytest.skip("this database does not know at once how many vectors it holds")
        engines.catch_up(space)
        (name,) = self.names(engines)
        engines.engine.delete(Collection(name, space.model, space.dimension), np.array(list(vectors)[:5]))
        engines.catch_up(space)
        (name,) = self.names(engines)
        assert engines.engine.count(Collection(name, space.model, space.dimension)) == 300

    def test_an_index_that_missed_changes_is_made_anew(
        self, engines: EngineIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        engines.catch_up(space)
        gone = list(vectors)[:7]
        archive.delete(gone)
        with archive.database.write() as connection:
            connection.execute(change_log.delete())
        assert engines.catch_up(space) == IndexState(293, 293)
        found = self.ask(engines, space, vectors[gone[0]], limit=300)
        assert {match.embedding_id for match in found} == set(vectors) - set(gone)

    def test_a_scope_reaches_the_database_and_a_rare_one_never_starves(
        self,
        engines: EngineIndex,
        archive: VectorArchive,
        space: Space,
        vectors: dict[int, Vectors],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with archive.database.write() as connection:
            values = {"file_hash": "2", "file_path": "b", "owner_id": 1, "original_name": "b", "status": "stored"}
            connection.execute(insert(audio_files).values(id=2, recorded_at=utc_now(), **values))
            query = draw(1, seed=13)[0]
            far = {match.embedding_id for match in nearest(vectors, query, 300)[-3:]}
            moved = update(embeddings).where(embeddings.c.id.in_(far)).values(audio_file_id=2)
            connection.execute(moved)
        engines.catch_up(space)
        asked: list[Scope] = []
        search = engines.engine.search

        def observed(collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
            asked.append(scope)
            return search(collection, vector, limit, scope)

        monkeypatch.setattr(engines.engine, "search", observed)
        scope = Scope(audio_ids=(2,))
        found = self.ask(engines, space, query, within=Within(far, scope))
        self.agree(found, nearest({id_: vectors[id_] for id_ in far}, query, 10))
        assert asked == [scope if engines.capabilities.filters else Scope()]

    def test_after_a_prune_everything_is_still_there(
        self, engines: EngineIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        engines.catch_up(space)
        more = draw(30, seed=14)
        vectors.update(zip(archive.add(space, more), more, strict=True))
        with archive.database.write() as connection:
            assert log.prune(connection) >= 299  # on a server the newest one read stays, as a mark
            assert log.prune(connection) == 0
        before = self.names(engines)
        assert engines.catch_up(space) == IndexState(330, 330)
        assert self.names(engines) == before
