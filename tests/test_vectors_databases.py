"""The vector databases that run here: each passes the contracts of an engine and of an index, and the machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from audio_storage_system.database import Database
from audio_storage_system.testing.engines import EngineIndexContract, VectorEngineContract, points
from audio_storage_system.testing.vectors import VectorIndexMachine
from audio_storage_system.vectors import VECTOR_INDEXES, Collection, EngineIndex, Points, VectorEngine, VectorIndex
from postgres_server import reserved_port
from servers import pinecone_server


def open_folder(scheme: str, folder: Path) -> VectorEngine:
    pytest.importorskip({"chroma": "chromadb", "qdrant": "qdrant_client"}.get(scheme, scheme))
    engine: VectorEngine = VECTOR_INDEXES.load(scheme)(f"{scheme}:vectors", folder)
    return engine


class TestQdrantFolder(VectorEngineContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_folder("qdrant", folder)


class TestQdrantFolderIndex(EngineIndexContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_folder("qdrant", folder)


class TestLanceDB(VectorEngineContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_folder("lancedb", folder)


class TestLanceDBIndex(EngineIndexContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_folder("lancedb", folder)


class TestChromaFolder(VectorEngineContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_folder("chroma", folder)


class TestChromaFolderIndex(EngineIndexContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_folder("chroma", folder)


@pytest.fixture(scope="module")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real server, as `chroma run` starts it."""
    pytest.importorskip("chromadb")
    with reserved_port() as port:
        process = start_chroma(tmp_path_factory.mktemp("chroma"), port)
        try:
            assert answers(process, port)
            yield f"chroma+http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def start_chroma(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(folder), "--port", str(port)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it comes to be that this process serves there, before it ends."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        try:
            if "heartbeat" in httpx.get(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=5).text:
                return process.poll() is None
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    return False


class OnChromaServer:
    @pytest.fixture(autouse=True)
    def server(self, chroma_server: str) -> None:
        self.url = chroma_server

    def open_engine(self, folder: Path) -> VectorEngine:
        engine: VectorEngine = VECTOR_INDEXES.load(self.url)(self.url, folder)
        return engine


class TestChromaServer(OnChromaServer, VectorEngineContract):
    pass


class TestChromaServerIndex(OnChromaServer, EngineIndexContract):
    pass


class OnPinecone:
    @pytest.fixture(autouse=True)
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        pytest.importorskip("pinecone")
        with pinecone_server.running(24) as server:
            monkeypatch.setenv("PINECONE_API_KEY", pinecone_server.KEY)
            monkeypatch.setenv("PINECONE_INDEX_HOST", server.url)
            yield

    def open_engine(self, folder: Path) -> VectorEngine:
        engine: VectorEngine = VECTOR_INDEXES.load("pinecone")("pinecone:index", folder)
        return engine


class TestPinecone(OnPinecone, VectorEngineContract):
    pass


class TestPineconeIndex(OnPinecone, EngineIndexContract):
    pass


class OnQdrantServer:
    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        pytest.importorskip("qdrant_client")
        from servers import qdrant_server  # needs the client

        with qdrant_server.running() as server:
            self.url = server.url
            self.running = server
            yield

    def open_engine(self, folder: Path) -> VectorEngine:
        engine: VectorEngine = VECTOR_INDEXES.load(self.url)(self.url, folder)
        return engine


class TestQdrantServer(OnQdrantServer, VectorEngineContract):
    def test_what_scopes_speak_of_has_an_index(
        self, engine: VectorEngine, collection: Collection, stored: Points
    ) -> None:
        assert self.running.indexed == {collection.name: {"owner_id", "audio_id", "recorded_at"}}


class TestQdrantServerIndex(OnQdrantServer, EngineIndexContract):
    pass


@pytest.mark.parametrize("scheme", ["lancedb", "qdrant"])
def test_a_deleted_vector_is_in_no_file(scheme: str, tmp_path: Path) -> None:
    engine = open_folder(scheme, tmp_path)
    collection = Collection("audio_archive_1_1", "model", 24)
    every = points(50)
    engine.ensure(collection)
    engine.upsert(collection, every)
    gone = every.vectors[0].tobytes()
    if scheme == "lancedb":
        assert any(gone in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    engine.delete(collection, every.ids[:1])
    engine.settle(collection, deleted=True)
    assert engine.count(collection) == 49
    assert not any(gone in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    engine.close()


FEW_EXAMPLES = settings(max_examples=3, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))


class ChromaMachine(VectorIndexMachine):
    scheme = "chroma"

    def open_index(self, database: Database) -> VectorIndex:
        folder = Path(database.place).parent
        return EngineIndex(database, open_folder(self.scheme, folder), "archive", few=-1, step_rows=16)


class LanceDBMachine(ChromaMachine):
    scheme = "lancedb"


TestChromaMachine = ChromaMachine.TestCase
TestChromaMachine.settings = FEW_EXAMPLES
TestLanceDBMachine = LanceDBMachine.TestCase
TestLanceDBMachine.settings = FEW_EXAMPLES
