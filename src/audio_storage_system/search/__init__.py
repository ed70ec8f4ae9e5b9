"""Search: full text and vectors, fused, filtered, and packed for a language model."""

from audio_storage_system.catalogue.filters import Filter
from audio_storage_system.search.context import Citation, ContextPack, build_context_pack
from audio_storage_system.search.query import Query, run
from audio_storage_system.search.results import Hit, SearchResults

__all__ = ["Citation", "ContextPack", "Filter", "Hit", "Query", "SearchResults", "build_context_pack", "run"]
