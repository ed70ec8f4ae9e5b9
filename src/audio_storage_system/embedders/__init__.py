"""Text and audio embedders by spec string: `wordllama`, `fastembed:<model>`, `openai:<model>`, `acoustic` …"""

from audio_storage_system.embedders.base import AudioEmbedder, Matrix, TextEmbedder, Vector, unit_rows, unit_vector
from audio_storage_system.registry import Registry, split_spec

_HERE = "audio_storage_system.embedders"
BUNDLED_TEXT = "wordllama"
BUNDLED_AUDIO = "acoustic"

TEXT_EMBEDDERS = Registry(
    kind="text embedder",
    family="text_embedders",
    builtin={
        "wordllama": f"{_HERE}.wordllama:WordLlamaEmbedder",
        "fastembed": f"{_HERE}.fastembed:FastEmbedEmbedder",
        "sentence-transformers": f"{_HERE}.sentence_transformers:SentenceTransformersEmbedder",
        "openai": f"{_HERE}.openai:OpenAIEmbedder",
    },
    extras={"sentence-transformers": "sentence-transformers"},
)
AUDIO_EMBEDDERS = Registry(
    kind="audio embedder", family="audio_embedders", builtin={"acoustic": f"{_HERE}.acoustic:AcousticEmbedder"}
)


def resolve(spec: str, bundled: str) -> str:
    """The full spec: `auto`, and nothing, mean the bundled embedder."""
    return bundled if spec in ("", "auto") else spec


def open_text_embedder(spec: str) -> TextEmbedder:
    """The text embedder for `spec`; `auto` is the bundled one. Loads nothing heavy until it is used."""
    spec = resolve(spec, BUNDLED_TEXT)
    embedder: TextEmbedder = TEXT_EMBEDDERS.load(spec)(split_spec(spec)[1])
    return embedder


def open_audio_embedder(spec: str) -> AudioEmbedder:
    """The audio embedder for `spec`; `auto` is the bundled one."""
    spec = resolve(spec, BUNDLED_AUDIO)
    embedder: AudioEmbedder = AUDIO_EMBEDDERS.load(spec)(split_spec(spec)[1])
    return embedder


def is_remote(spec: str) -> bool:
    """Whether a service over the network embeds text for `spec`; a function of the user's is none."""
    scheme = split_spec(spec)[0]
    return scheme in TEXT_EMBEDDERS.schemes() and bool(getattr(TEXT_EMBEDDERS.load(spec), "remote", False))


__all__ = [
    "AUDIO_EMBEDDERS",
    "BUNDLED_AUDIO",
    "BUNDLED_TEXT",
    "TEXT_EMBEDDERS",
    "AudioEmbedder",
    "Matrix",
    "TextEmbedder",
    "Vector",
    "is_remote",
    "open_audio_embedder",
    "open_text_embedder",
    "resolve",
    "unit_rows",
    "unit_vector",
]
