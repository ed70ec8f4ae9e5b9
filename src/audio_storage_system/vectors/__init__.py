"""Vector indexes: derived, rebuildable, one contract; by URL: `qdrant+http://host:6333`, `chroma:PATH` …

An index other than SQLite's own is a vector database behind `EngineIndex`. A member of this family is a function or
class that makes a `VectorEngine` from the URL and the archive's folder, against which relative paths are meant.
"""

from pathlib import Path

from audio_storage_system.database import Database
from audio_storage_system.registry import Registry
from audio_storage_system.vectors.base import Candidates, Capabilities, Ids, IndexState, Match, Scope, VectorIndex
from audio_storage_system.vectors.engine_index import EngineIndex
from audio_storage_system.vectors.engines import Collection, Found, Points, VectorEngine
from audio_storage_system.vectors.pgvector import PgvectorEngine
from audio_storage_system.vectors.sqlite import SQLiteIndex

_HERE = "audio_storage_system.vectors"

VECTOR_INDEXES = Registry(
    kind="vector database",
    family="vectors",
    builtin={
        "chroma": f"{_HERE}.chroma:ChromaEngine",
        "chroma+http": f"{_HERE}.chroma:ChromaEngine",
        "chroma+https": f"{_HERE}.chroma:ChromaEngine",
        "lancedb": f"{_HERE}.lancedb:LanceDBEngine",
        "postgres": f"{_HERE}.pgvector:PgvectorEngine.at",
        "postgresql": f"{_HERE}.pgvector:PgvectorEngine.at",
        "pinecone": f"{_HERE}.pinecone:PineconeEngine",
        "qdrant": f"{_HERE}.qdrant:QdrantEngine",
        "qdrant+http": f"{_HERE}.qdrant:QdrantEngine",
        "qdrant+https": f"{_HERE}.qdrant:QdrantEngine",
    },
    extras={
        "chroma": "chroma",
        "chroma+http": "chroma",
        "chroma+https": "chroma",
        "lancedb": "lancedb",
        "pinecone": "pinecone",
        "qdrant": "qdrant",
        "qdrant+http": "qdrant",
        "qdrant+https": "qdrant",
    },
)


def check_address(url: str, home: Path) -> None:
    """Raise what `open_vector_index` would raise for this address; nothing is made."""
    if url:
        VECTOR_INDEXES.load(url)(url, home).close()


def open_vector_index(url: str, database: Database, archive_id: str, home: Path) -> VectorIndex:
    """The vector index at `url`; the catalogue's own where it is empty. Nothing is asked of a server yet.

    Raises `UnknownSpec`, `MissingExtra`, and `InvalidSetting` for an address that cannot be used.
    """
    if not url and database.dialect.name == "sqlite":
        return SQLiteIndex(database)
    if not url:
        own = PgvectorEngine(database)
        own.prepare()
        return EngineIndex(database, own, archive_id)
    engine: VectorEngine = VECTOR_INDEXES.load(url)(url, home)
    return EngineIndex(database, engine, archive_id)


__all__ = [
    "VECTOR_INDEXES",
    "Candidates",
    "Capabilities",
    "Collection",
    "EngineIndex",
    "Found",
    "Ids",
    "IndexState",
    "Match",
    "Points",
    "Scope",
    "VectorEngine",
    "VectorIndex",
    "open_vector_index",
]
