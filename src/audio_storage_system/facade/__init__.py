"""The two larger parts of the facade: what can be read of an archive, and how it embeds."""

from audio_storage_system.facade.embedding import Embedding
from audio_storage_system.facade.reading import Place, Reading

__all__ = ["Embedding", "Place", "Reading"]
