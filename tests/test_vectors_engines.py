"""`EngineIndex` over an engine in memory: what holds whatever the vector database is."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings

from audio_storage_system.database import Database
from audio_storage_system.testing.engines import (
    EngineIndexContract,
    MemoryEngine,
    Store,
    VectorEngineContract,
)
from audio_storage_system.testing.vectors import VectorIndexMachine
from audio_storage_system.vectors import EngineIndex, VectorEngine, VectorIndex

STORES: dict[Path, Store] = {}


def open_memory_engine(folder: Path) -> MemoryEngine:
    return MemoryEngine(STORES.setdefault(folder, Store()))


class TestMemoryEngine(VectorEngineContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_memory_engine(folder)


class TestMemoryIndex(EngineIndexContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_memory_engine(folder)


class MemoryMachine(VectorIndexMachine):
    def open_index(self, database: Database) -> VectorIndex:
        return EngineIndex(database, open_memory_engine(Path(database.place)), "archive", few=-1, step_rows=16)


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
