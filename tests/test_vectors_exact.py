"""The exact index, which is the oracle of the others."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from audio_storage_system.database import Database
from audio_storage_system.testing.vectors import VectorIndexContract, VectorIndexMachine
from audio_storage_system.vectors import VectorIndex
from audio_storage_system.vectors.exact import ExactIndex


class TestExactIndex(VectorIndexContract):
    def open_index(self, database: Database) -> VectorIndex:
        return ExactIndex(database)


class ExactMachine(VectorIndexMachine):
    def open_index(self, database: Database) -> VectorIndex:
        return ExactIndex(database)


TestExactMachine = ExactMachine.TestCase
TestExactMachine.settings = settings(
    max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
