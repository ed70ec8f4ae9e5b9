"""pgvector as the index of an archive: of one that has its catalogue in the same database, and of one that has not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from audio_storage_system.database import Database
from audio_storage_system.testing.engines import STEP_ROWS, EngineIndexContract, VectorEngineContract
from audio_storage_system.testing.vectors import VectorArchive, VectorIndexMachine
from audio_storage_system.vectors import EngineIndex, VectorEngine, VectorIndex
from audio_storage_system.vectors.pgvector import PgvectorEngine
from postgres_server import Server

brief = settings(max_examples=6, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))


def own_index(database: Database, step_rows: int = STEP_ROWS) -> EngineIndex:
    """As the catalogue's own index, which uses the same connections."""
    archive_id = str(uuid.uuid5(uuid.NAMESPACE_URL, database.place))
    engine = PgvectorEngine(database)
    engine.prepare()
    return EngineIndex(database, engine, archive_id, few=-1, step_rows=step_rows)


class OnServer:
    """Every engine is in the one database of the test."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: Server, postgres_template: str) -> Iterator[None]:
        with postgres_server.fresh_database(postgres_template) as self.url, ExitStack() as self.servers:
            yield

    def open_engine(self, folder: Path) -> VectorEngine:
        engine = PgvectorEngine.at(self.url, folder)
        self.servers.callback(engine.close)
        return engine


class TestPgvectorEngine(OnServer, VectorEngineContract):
    pass


class TestPgvectorBesideSQLite(OnServer, EngineIndexContract):
    pass


class TestPgvectorOfTheCatalogue(OnServer, EngineIndexContract):
    @pytest.fixture
    def archive(self) -> VectorArchive:
        database = Database.connect(self.url)
        self.servers.callback(database.close)
        return VectorArchive.create(database)

    def open_engine_index(self, database: Database) -> EngineIndex:
        return own_index(database)


class CatalogueMachine(VectorIndexMachine):
    """`server` and `template` are set by the test that runs it."""

    server: ClassVar[Server]
    template: ClassVar[str]

    def make_archive(self, folder: Path) -> VectorArchive:
        self.kept = ExitStack()
        url = self.kept.enter_context(self.server.fresh_database(self.template))
        return VectorArchive.create(Database.connect(url))

    def open_index(self, database: Database) -> VectorIndex:
        return own_index(database, step_rows=16)

    def teardown(self) -> None:
        super().teardown()
        self.kept.close()


class BesideMachine(VectorIndexMachine):
    """With its catalogue on SQLite."""

    server: ClassVar[Server]
    template: ClassVar[str]

    def make_archive(self, folder: Path) -> VectorArchive:
        self.kept = ExitStack()
        self.url = self.kept.enter_context(self.server.fresh_database())
        return super().make_archive(folder)

    def open_index(self, database: Database) -> VectorIndex:
        engine = PgvectorEngine.at(self.url, Path(database.place).parent)
        self.kept.callback(engine.close)
        return EngineIndex(database, engine, "archive", few=-1, step_rows=16)

    def teardown(self) -> None:
        super().teardown()
        self.kept.close()


@pytest.mark.parametrize("machine", [CatalogueMachine, BesideMachine])
def test_random_work_by_two_processes(
    machine: type[CatalogueMachine] | type[BesideMachine], postgres_server: Server, postgres_template: str
) -> None:
    machine.server, machine.template = postgres_server, postgres_template
    case = machine.TestCase
    case.settings = brief
    case("runTest").runTest()
