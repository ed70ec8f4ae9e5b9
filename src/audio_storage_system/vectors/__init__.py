"""Vector indexes: derived, rebuildable, one contract."""

from audio_storage_system.vectors.base import Candidates, Capabilities, Ids, IndexState, Match, VectorIndex

__all__ = ["Candidates", "Capabilities", "Ids", "IndexState", "Match", "VectorIndex"]
