"""The vector databases that run here: each passes the contracts of an engine and of an index, and the machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from audio_storage_system.testing.engines import EngineIndexContract, VectorEngineContract
from audio_storage_system.vectors import VECTOR_INDEXES, VectorEngine
from servers import pinecone_server

FEW_EXAMPLES = settings(max_examples=3, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("chroma")
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(folder), "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"chroma+http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


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
