"""What every vector index must pass: inherit `VectorIndexContract` and `VectorIndexMachine`, and say how to open it."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sqlalchemy import delete, func, insert, select

from audio_storage_system.catalogue.changes import log
from audio_storage_system.clock import Deadline, utc_now
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import migrate
from audio_storage_system.database.tables import audio_files, embedding_spaces, embeddings, index_cursors, principals
from audio_storage_system.errors import ArchiveDamaged, DeadlineExceeded, InvalidVector
from audio_storage_system.records import EmbeddingKind, Space
from audio_storage_system.vectors import Candidates, Ids, IndexState, Match, Scope, VectorIndex

Vectors = npt.NDArray[np.float32]
NEVER = Deadline.after(None)
DIMENSION = 24


class Only:
    """Candidates given as a set of ids; counts how many it was asked about."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.passing = {int(i) for i in ids}
        self.asked = 0

    def ids(self, limit: int) -> Ids | None:
        return np.array(sorted(self.passing), dtype=np.int64) if len(self.passing) <= limit else None

    def admit(self, ids: Sequence[int]) -> set[int]:
        self.asked += len(ids)
        return self.passing.intersection(ids)

    def scope(self) -> Scope:
        return Scope()


class Everything:
    """Candidates that let every id pass and list none."""

    def ids(self, limit: int) -> Ids | None:
        return None

    def admit(self, ids: Sequence[int]) -> set[int]:
        return set(ids)

    def scope(self) -> Scope:
        return Scope()


class VectorArchive:
    """A database with spaces of vectors and nothing else: all are windows of one recording."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def create(cls, place: Path | Database) -> VectorArchive:
        """In a new SQLite file, or in an empty database."""
        archive = cls(place if isinstance(place, Database) else Database.open(place))
        migrate(archive.database)
        recording = {"id": 1, "file_hash": "", "file_path": "a", "owner_id": 1, "original_name": "a"}
        with archive.database.write() as connection:
            connection.execute(insert(principals).values(id=1, name="archive", kind="archive"))
            connection.execute(insert(audio_files).values(recorded_at=utc_now(), status="stored", **recording))
        return archive

    def space(self, dimension: int = DIMENSION, model: str = "test") -> Space:
        """A new space."""
        values = {"kind": "audio", "model": model, "dimension": dimension, "spec": model, "active": False}
        statement = insert(embedding_spaces).values(values).returning(embedding_spaces.c.id)
        with self.database.write() as connection:
            return Space(connection.execute(statement).scalar_one(), EmbeddingKind.AUDIO, model, dimension, False)

    def add(self, space: Space, vectors: Vectors) -> list[int]:
        """Store these rows as unit vectors; their ids."""
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        with self.database.write() as connection:
            newest = connection.execute(select(embeddings.c.id).order_by(embeddings.c.id.desc())).scalar() or 0
            rows = [_row(space, newest + n, unit) for n, unit in enumerate(units)]
            statement = insert(embeddings).returning(embeddings.c.id, sort_by_parameter_order=True)
            ids = list(connection.execute(statement, rows).scalars()) if rows else []
            log(connection, embeddings, ids, "insert")
        return ids

    def delete(self, ids: Iterable[int]) -> None:
        """Remove these embeddings."""
        gone = list(ids)
        with self.database.write() as connection:
            for i in gone:
                connection.execute(delete(embeddings).where(embeddings.c.id == i))
            log(connection, embeddings, gone, "delete")


def _row(space: Space, start: int, unit: Vectors) -> dict[str, object]:
    return {
        "audio_file_id": 1,
        "embedding_type": space.kind.value,
        "space_id": space.id,
        "start_seconds": float(start),
        "end_seconds": start + 1.0,
        "embedding_dimension": space.dimension,
        "model_name": space.model,
        "embedding_data": unit.astype("<f4").tobytes(),
    }


def nearest(vectors: dict[int, Vectors], query: Vectors, limit: int) -> list[Match]:
    """The oracle of the oracle: what filtering first and comparing everything gives."""
    unit = query / np.linalg.norm(query)
    matches = [Match(i, float(unit @ v / np.linalg.norm(v))) for i, v in vectors.items()]
    return sorted(matches, key=lambda match: (-round(match.similarity, 6), match.embedding_id))[:limit]


def draw(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vectors:
    """Random vectors in a few clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((8, dimension))
    rows = centres[rng.integers(8, size=count)] + 0.7 * rng.standard_normal((count, dimension))
    return rows.astype(np.float32)


class VectorIndexContract:
    """Inherit, override `open_index`, and pass."""

    @abstractmethod
    def open_index(self, database: Database) -> VectorIndex:
        """A new index over this database, as another process would open it."""

    @pytest.fixture
    def archive(self, tmp_path: Path) -> VectorArchive:
        return VectorArchive.create(tmp_path / "archive.db")

    @pytest.fixture
    def space(self, archive: VectorArchive) -> Space:
        return archive.space()

    @pytest.fixture
    def index(self, archive: VectorArchive) -> VectorIndex:
        return self.open_index(archive.database)

    @pytest.fixture
    def vectors(self, archive: VectorArchive, space: Space) -> dict[int, Vectors]:
        """Three hundred vectors in the archive, by id."""
        rows = draw(300)
        return dict(zip(archive.add(space, rows), rows, strict=True))

    @staticmethod
    def ask(
        index: VectorIndex, space: Space, query: Vectors, limit: int = 10, within: Candidates | None = None
    ) -> list[Match]:
        return index.query(space, query, limit=limit, within=within or Everything(), deadline=NEVER)

    @staticmethod
    def agree(found: list[Match], wanted: list[Match]) -> None:
        assert [match.embedding_id for match in found] == [match.embedding_id for match in wanted]
        assert [m.similarity for m in found] == pytest.approx([m.similarity for m in wanted], abs=1e-5)

    def test_the_nearest_come_first_with_their_true_cosines(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        for caught_up in (False, True):
            if caught_up:
                index.catch_up(space)
            for query in draw(5, seed=1):
                self.agree(self.ask(index, space, query), nearest(vectors, query, 10))

    def test_equally_near_ones_come_by_id(self, index: VectorIndex, archive: VectorArchive, space: Space) -> None:
        same = np.repeat(draw(1), 50, axis=0)
        ids = archive.add(space, same)
        assert [match.embedding_id for match in self.ask(index, space, same[0], limit=20)] == ids[:20]
        index.catch_up(space)
        assert [match.embedding_id for match in self.ask(index, space, same[0], limit=20)] == ids[:20]

    def test_a_limit_beyond_the_space_returns_all_of_it(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        index.catch_up(space)
        assert {match.embedding_id for match in self.ask(index, space, draw(1)[0], limit=1000)} == set(vectors)

    def test_an_empty_space_has_no_neighbours(self, index: VectorIndex, space: Space) -> None:
        assert self.ask(index, space, draw(1)[0]) == []
        assert index.catch_up(space) == index.rebuild(space) == IndexState(0, 0)
        assert self.ask(index, space, draw(1)[0]) == []

    def test_spaces_are_never_mixed(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        other = archive.space(model="other")
        others = set(archive.add(other, draw(40, seed=2)))
        for asked, ids in ((space, set(vectors)), (other, others)):
            index.catch_up(asked)
            found = self.ask(index, asked, draw(1)[0], limit=1000, within=Only({*vectors, *others}))
            assert {match.embedding_id for match in found} == ids

    def test_the_length_of_the_query_does_not_matter(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        query = draw(1, seed=3)[0]
        self.agree(self.ask(index, space, query * 1000), nearest(vectors, query, 10))

    @pytest.mark.parametrize(
        "wrong", [np.ones(DIMENSION + 1), np.zeros(DIMENSION), np.full(DIMENSION, np.nan), np.ones((1, DIMENSION))]
    )
    def test_a_vector_that_does_not_fit_the_space_is_refused(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors], wrong: Vectors
    ) -> None:
        with pytest.raises(InvalidVector):
            self.ask(index, space, wrong.astype(np.float32))

    def test_a_damaged_vector_is_named(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        damaged = next(iter(vectors))
        with archive.database.write() as connection:
            connection.execute(embeddings.update().where(embeddings.c.id == damaged).values(embedding_data=b"123"))
        with pytest.raises(ArchiveDamaged, match=f"embedding {damaged} has 3 bytes"):
            self.ask(index, space, vectors[damaged], limit=300)

    def test_what_is_added_and_deleted_shows_at_the_next_query(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        query = draw(1, seed=4)[0]
        for round_ in range(4):
            best = self.ask(index, space, query, limit=30)
            for match in best:
                del vectors[match.embedding_id]
            archive.delete(match.embedding_id for match in best)
            more = draw(20, seed=50 + round_)
            vectors.update(zip(archive.add(space, more), more, strict=True))
            self.agree(self.ask(index, space, query, limit=300), nearest(vectors, query, 300))
            if round_ % 2:
                index.catch_up(space)

    def test_what_one_index_sees_another_sees_too(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        other = self.open_index(archive.database)
        query = draw(1, seed=5)[0]
        self.agree(self.ask(other, space, query), nearest(vectors, query, 10))
        for round_ in range(3):
            more = draw(150, seed=60 + round_)
            vectors.update(zip(archive.add(space, more), more, strict=True))
            gone = list(vectors)[:: 4 + round_]
            archive.delete(gone)
            vectors = {i: v for i, v in vectors.items() if i not in set(gone)}
            index.catch_up(space)
            self.agree(self.ask(other, space, query), nearest(vectors, query, 10))

    def test_threads_share_an_index(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        far = -draw(60, seed=70).mean(axis=0)[None].repeat(60, axis=0)  # what is added meanwhile is near to no query
        queries = draw(32, seed=71)
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(self.ask, index, space, query) for query in queries]
            for start in range(0, 60, 20):
                archive.add(space, far[start : start + 20])
                index.catch_up(space)
        for query, answer in zip(queries, answers, strict=True):
            self.agree(answer.result(), nearest(vectors, query, 10))

    @pytest.mark.parametrize("passing", [0, 1, 3, 30, 150])
    def test_a_filter_acts_as_if_applied_first(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors], passing: int
    ) -> None:
        index.catch_up(space)
        rng = np.random.default_rng(passing)
        for query in draw(3, seed=6):
            chosen = {int(i) for i in rng.choice(list(vectors), size=passing, replace=False)}
            wanted = nearest({i: vectors[i] for i in chosen}, query, 10)
            self.agree(self.ask(index, space, query, within=Only(chosen)), wanted)

    @pytest.mark.parametrize("passing", [1, 30, 150])
    def test_a_filter_against_the_query_finds_the_far_ones(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors], passing: int
    ) -> None:
        index.catch_up(space)
        query = draw(1, seed=7)[0]
        farthest = {match.embedding_id for match in nearest(vectors, query, len(vectors))[-passing:]}
        wanted = nearest({i: vectors[i] for i in farthest}, query, 10)
        self.agree(self.ask(index, space, query, within=Only(farthest)), wanted)

    def test_a_deadline_that_has_passed_stops_the_search(
        self, index: VectorIndex, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        with pytest.raises(DeadlineExceeded):
            index.query(space, draw(1)[0], limit=10, within=Everything(), deadline=Deadline.after(0))

    def test_following_and_rebuilding_arrive_at_the_whole_space(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        assert index.state(space).total == len(vectors)
        assert index.catch_up(space) == IndexState(len(vectors), len(vectors))
        archive.delete(list(vectors)[:100])
        assert index.catch_up(space) == index.state(space) == IndexState(200, 200)
        assert index.rebuild(space) == IndexState(200, 200)
        query = draw(1, seed=8)[0]
        kept = {i: v for i, v in vectors.items() if i in list(vectors)[100:]}
        self.agree(self.ask(index, space, query), nearest(kept, query, 10))

    def test_an_emptied_space_is_rebuilt_and_filled_again(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        index.catch_up(space)
        archive.delete(list(vectors))
        query = draw(1, seed=11)[0]
        assert index.rebuild(space) == index.catch_up(space) == IndexState(0, 0)
        assert self.ask(index, space, query) == []
        more = draw(20, seed=12)
        others = dict(zip(archive.add(space, more), more, strict=True))
        assert index.rebuild(space) == IndexState(20, 20)
        self.agree(self.ask(index, space, query), nearest(others, query, 10))

    def test_a_forgotten_space_is_searched_as_before_and_can_be_followed_again(
        self, index: VectorIndex, archive: VectorArchive, space: Space, vectors: dict[int, Vectors]
    ) -> None:
        other, more = archive.space(model="other"), draw(20, seed=21)
        others = dict(zip(archive.add(other, more), more, strict=True))
        query = draw(1, seed=9)[0]
        for each in (space, other):
            index.catch_up(each)
        cursors = select(func.count()).select_from(index_cursors).where(index_cursors.c.space_id == space.id)
        for _ in range(2):
            index.forget(space)
            with archive.database.read() as connection:
                assert connection.execute(cursors).scalar() == 0
            self.agree(self.ask(index, space, query), nearest(vectors, query, 10))
        self.agree(self.ask(index, other, query), nearest(others, query, 10))
        assert index.catch_up(space) == IndexState(len(vectors), len(vectors))
        self.agree(self.ask(index, space, query), nearest(vectors, query, 10))


class VectorIndexMachine(RuleBasedStateMachine):
    """Random work by two processes on one archive; every answer must equal the oracle's."""

    @abstractmethod
    def open_index(self, database: Database) -> VectorIndex:
        """As in the contract; compared must be everything that passes, for the answers to be exact."""

    def make_archive(self, folder: Path) -> VectorArchive:
        """A new archive; on another database than SQLite where this is overridden."""
        return VectorArchive.create(folder / "archive.db")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.seed = 0

    @initialize()
    def start(self) -> None:
        self.archive = self.make_archive(Path(self.folder.name))
        self.spaces = [self.archive.space(4, "one"), self.archive.space(4, "two")]
        self.stored: list[dict[int, Vectors]] = [{}, {}]
        self.indexes = [self.open_index(self.archive.database) for _ in range(2)]

    @rule(space=st.integers(0, 1), vectors=st.lists(st.lists(st.integers(1, 3), min_size=4, max_size=4), max_size=40))
    def add(self, space: int, vectors: list[list[int]]) -> None:
        rows = np.array(vectors, dtype=np.float32).reshape(-1, 4)
        self.stored[space].update(zip(self.archive.add(self.spaces[space], rows), rows, strict=True))

    @rule(space=st.integers(0, 1), every=st.integers(1, 5))
    def delete(self, space: int, every: int) -> None:
        gone = list(self.stored[space])[::every]
        self.archive.delete(gone)
        for i in gone:
            del self.stored[space][i]

    @rule(space=st.integers(0, 1), index=st.integers(0, 1))
    def catch_up(self, space: int, index: int) -> None:
        total = len(self.stored[space])
        assert self.indexes[index].catch_up(self.spaces[space]) == IndexState(total, total)

    @rule(space=st.integers(0, 1), index=st.integers(0, 1))
    def rebuild(self, space: int, index: int) -> None:
        total = len(self.stored[space])
        assert self.indexes[index].rebuild(self.spaces[space]) == IndexState(total, total)

    @rule(index=st.integers(0, 1))
    def restart(self, index: int) -> None:
        self.indexes[index] = self.open_index(self.archive.database)

    @rule(
        space=st.integers(0, 1),
        index=st.integers(0, 1),
        query=st.lists(st.integers(1, 3), min_size=4, max_size=4),
        limit=st.integers(1, 30),
        every=st.integers(1, 20),
    )
    def query(self, space: int, index: int, query: list[int], limit: int, every: int) -> None:
        vector = np.array(query, dtype=np.float32)
        passing = {i: v for i, v in self.stored[space].items() if i % every == 0}
        within = Only(passing)
        found = self.indexes[index].query(self.spaces[space], vector, limit=limit, within=within, deadline=NEVER)
        wanted = nearest(passing, vector, limit)  # many are equally near but for rounding: any of these will do
        assert [match.similarity for match in found] == pytest.approx([m.similarity for m in wanted], abs=1e-5)
        for match in found:
            assert nearest({0: passing[match.embedding_id]}, vector, 1)[0].similarity == pytest.approx(
                match.similarity, abs=1e-5
            )

    def teardown(self) -> None:
        self.archive.database.close()
        self.folder.cleanup()
