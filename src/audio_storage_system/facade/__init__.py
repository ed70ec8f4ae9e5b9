"""The larger parts of the facade: what can be read of an archive, what is said about recordings, how it
embeds, and what is recorded live."""

from audio_storage_system.facade.describing import Describing
from audio_storage_system.facade.embedding import Embedding
from audio_storage_system.facade.living import Living
from audio_storage_system.facade.reading import Place, Reading
from audio_storage_system.facade.upkeep import Upkeep

__all__ = ["Describing", "Embedding", "Living", "Place", "Reading", "Upkeep"]
