"""Which embedder serves each kind of embedding, and in which space its vectors live.

An archive gets its text and audio embedders when it is made. A user's own function opens a space of its own and is used
from then on; another model fills a space beside the one in use first, and then takes its place (`archive.reembedding`),
in this process or another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from audio_storage_system.catalogue import embeddings as stored
from audio_storage_system.catalogue import locks
from audio_storage_system.clock import NEVER, Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.embedders import (
    BUNDLED_AUDIO,
    BUNDLED_TEXT,
    AudioEmbedder,
    Matrix,
    TextEmbedder,
    open_audio_embedder,
    open_text_embedder,
    resolve,
)
from audio_storage_system.embedders.combined import combine
from audio_storage_system.embedders.function import (
    FunctionAudioEmbedder,
    FunctionCombinedEmbedder,
    FunctionTextEmbedder,
)
from audio_storage_system.errors import EmbedderMissing, NotFound, Unavailable
from audio_storage_system.records import EmbeddingKind, Space

Samples = npt.NDArray[np.float32]
USER = "user:"
WEIGHTED = "weighted"


class CombinedEmbedder(Protocol):
    """Makes one vector of a passage's words and its sound."""

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed_batch(self, texts: Sequence[str], pieces: Sequence[Samples]) -> Matrix:
        """Shape (len(texts), dimension), unit rows."""


@dataclass(frozen=True)
class WeightedEmbedder:
    """The weighted concatenation of a text and an audio embedder's vectors: its cosine is the weighted sum."""

    text: TextEmbedder
    audio: AudioEmbedder
    weight: float

    @property
    def model(self) -> str:
        return f"{self.weight:g}*{self.text.model}+{1 - self.weight:g}*{self.audio.model}"

    @property
    def dimension(self) -> int:
        return self.text.dimension + self.audio.dimension

    def embed_batch(self, texts: Sequence[str], pieces: Sequence[Samples]) -> Matrix:
        """As promised by `CombinedEmbedder`."""
        return self.join(self.text.embed_batch(texts), self.audio.embed_batch(pieces))

    def join(self, text_vectors: Matrix, audio_vectors: Matrix) -> Matrix:
        """The combined rows of vectors that exist already."""
        return combine(text_vectors, audio_vectors, self.weight)


@dataclass(frozen=True, slots=True)
class Embedders:
    """The embedders in use, each with its space; `None` where the archive's function was not given in this process."""

    text: tuple[Space, TextEmbedder] | None
    audio: tuple[Space, AudioEmbedder] | None
    combined: tuple[Space, CombinedEmbedder] | None


@dataclass(frozen=True, slots=True)
class Founding:
    """The embedders that a new archive is founded with, known to work here, and how to open them again."""

    text: TextEmbedder
    text_spec: str
    audio: AudioEmbedder
    audio_spec: str


@dataclass(frozen=True, slots=True)
class Building:
    """A space that vectors are to be made for, and, where combined vectors are joined of words and sound, the one that
    follows from it. `in_use`: searches use it already, so that it only has gaps to fill.

    words, sound: the spaces of the parts that are joined.
    """

    space: Space
    embedder: Any
    in_use: bool
    combined: tuple[Space, WeightedEmbedder] | None = None
    words: Space | None = None
    sound: Space | None = None

    @property
    def spaces(self) -> tuple[Space, ...]:
        """Everything that is built."""
        return (self.space, self.combined[0]) if self.combined else (self.space,)


OPENERS: dict[EmbeddingKind, tuple[Callable[[str], Any], str]] = {
    EmbeddingKind.TRANSCRIPT: (open_text_embedder, BUNDLED_TEXT),
    EmbeddingKind.AUDIO: (open_audio_embedder, BUNDLED_AUDIO),
}


class _Moved(Exception):
    """Another process has put other spaces in use meanwhile."""


def open_founding_embedders(text_spec: str, audio_spec: str) -> Founding:
    """Open both. Raises `UnknownSpec`, `MissingExtra`, `EngineUnavailable`: before there is anything of an archive."""
    text_spec, audio_spec = resolve(text_spec, BUNDLED_TEXT), resolve(audio_spec, BUNDLED_AUDIO)
    founding = Founding(open_text_embedder(text_spec), text_spec, open_audio_embedder(audio_spec), audio_spec)
    assert founding.text.dimension and founding.audio.dimension  # noqa: S101 - asking loads the models
    return founding


class Spaces:
    """The embedders of one open archive. Models are loaded when they are first needed."""

    def __init__(self, database: Database, weight: float) -> None:
        self._database = database
        self._weight = weight
        self._lock = threading.RLock()
        self._functions: dict[EmbeddingKind, Any] = {}
        self._opened: dict[EmbeddingKind, tuple[Space, Any]] = {}
        self._active: dict[EmbeddingKind, Space] = {}  # as last read
        self._others: dict[int, Any] = {}  # embedders of spaces that are not in use

    def found(self, founding: Founding) -> None:
        """Fix the spaces of a new archive, all at once; one that another process has founded meanwhile stays."""
        text, audio = founding.text, founding.audio
        combined = WeightedEmbedder(text, audio, self._weight)
        with self._database.write(locks.SPACES) as connection:
            if stored.spaces(connection):
                return
            _open_space(connection, EmbeddingKind.TRANSCRIPT, text, founding.text_spec)
            _open_space(connection, EmbeddingKind.AUDIO, audio, founding.audio_spec)
            _open_space(connection, EmbeddingKind.COMBINED, combined, WEIGHTED)

    def use_text(self, function: Callable[[str], npt.ArrayLike], name: str | None = None) -> None:
        """Embed text with this function from now on."""
        self._use(EmbeddingKind.TRANSCRIPT, FunctionTextEmbedder(function, name))

    def use_audio(self, function: Callable[[Any], npt.ArrayLike], name: str | None = None) -> None:
        """Embed sound with this function from now on."""
        self._use(EmbeddingKind.AUDIO, FunctionAudioEmbedder(function, name))

    def use_combined(self, function: Callable[[str, Any], npt.ArrayLike], name: str | None = None) -> None:
        """Embed text and sound together with this function from now on."""
        self._use(EmbeddingKind.COMBINED, FunctionCombinedEmbedder(function, name))

    def text(self, model: str | None = None, deadline: Deadline = NEVER) -> tuple[Space, TextEmbedder]:
        """The text embedder in use, or the one of another model that this archive has a space of, with its space.

        The catalogue is asked until `deadline`. Raises `DeadlineExceeded`, `EmbedderMissing`, `EngineUnavailable`,
        `NotFound` for a model that the archive has no space of.
        """
        found: tuple[Space, TextEmbedder] = self._find(EmbeddingKind.TRANSCRIPT, open_text_embedder, model, deadline)
        return found

    def audio(self, model: str | None = None, deadline: Deadline = NEVER) -> tuple[Space, AudioEmbedder]:
        """The audio embedder in use, or that of another model, and its space. Raises as `text` does."""
        found: tuple[Space, AudioEmbedder] = self._find(EmbeddingKind.AUDIO, open_audio_embedder, model, deadline)
        return found

    def combined(self, model: str | None = None, deadline: Deadline = NEVER) -> tuple[Space, CombinedEmbedder]:
        """The combined embedder in use, or that of another model, and its space. Raises as `text` does, and
        `Unavailable` for one whose parts are not in use."""
        found: tuple[Space, CombinedEmbedder]
        found = self._find(EmbeddingKind.COMBINED, lambda _: self._weighted(), model, deadline)
        return found

    def known(self) -> list[Space]:
        """Every space of the archive."""
        with self._database.read() as connection:
            return stored.spaces(connection)

    def spec(self, kind: EmbeddingKind) -> str:
        """How the embedder in use is opened."""
        with self._database.read() as connection:
            return stored.active_space(connection, kind).spec

    def available(self) -> Embedders:
        """Every embedder in use; those whose function is missing are left out."""
        return Embedders(_or_none(self.text), _or_none(self.audio), _or_none(self.combined))

    def named(self, kind: EmbeddingKind, spec: str | None) -> tuple[Any, str]:
        """The embedder that `spec` names, or the one in use for `None`, and its full spec; its model may not be loaded
        yet. Raises `UnknownSpec`, `MissingExtra`, `EmbedderMissing`."""
        opener, bundled = OPENERS[kind]
        if spec is None:
            found = self._get(kind, opener)
            return found[1], found[0].spec
        full = resolve(spec, bundled)
        return opener(full), full

    def build(self, kind: EmbeddingKind, spec: str | None) -> Building:
        """The space of the embedder that `spec` names (`None`: the one in use), made when it is new, and that of the
        combined vectors that follow from it. What is in use stays so until `use`.

        Raises `UnknownSpec`, `MissingExtra`, `EngineUnavailable`, `EmbedderMissing`.
        """
        embedder, full = self.named(kind, spec)
        assert embedder.dimension  # noqa: S101 - asking may load a model, which must not happen while writing
        with self._lock:
            other = _or_none(self.audio if kind is EmbeddingKind.TRANSCRIPT else self.text)
            both = self._active.get(EmbeddingKind.COMBINED)
            joins = both is not None and both.spec == WEIGHTED and EmbeddingKind.COMBINED not in self._functions
        with self._database.write(locks.SPACES) as connection:
            space = _open_space(connection, kind, embedder, full, activate=False)
            if not (joins and other):
                return Building(space, embedder, space.active)
            mine, its = (space, embedder), other
            text, audio = (mine, its) if kind is EmbeddingKind.TRANSCRIPT else (its, mine)
            weighted = WeightedEmbedder(text[1], audio[1], self._weight)
            joined = _open_space(connection, EmbeddingKind.COMBINED, weighted, WEIGHTED, activate=space.active)
        return Building(space, embedder, space.active, (joined, weighted), text[0], audio[0])

    def settle(self, kind: EmbeddingKind) -> None:
        """Use for this kind what is active in the catalogue, whatever function was assigned before."""
        with self._lock:
            self._functions.pop(kind, None)
            self._opened.pop(kind, None)

    def _find(
        self, kind: EmbeddingKind, opener: Callable[[str], Any], model: str | None, deadline: Deadline
    ) -> tuple[Space, Any]:
        given = self._functions.get(kind)
        if model is None or (given and given.model == model):
            return self._get(kind, opener, deadline)
        with self._database.read(deadline) as connection:
            spaces = [s for s in stored.spaces(connection) if s.kind is kind and s.model == model]
        if not spaces:
            raise NotFound(kind=f"{kind} embedding space", id=model)
        if not given and any(space.active for space in spaces):
            found = self._get(kind, opener, deadline)
            if found[0].model == model:  # else its parts were replaced
                return found
        if spaces[0].spec.startswith(USER):
            raise EmbedderMissing(space=model)
        if spaces[0].spec == WEIGHTED:
            raise Unavailable(reason=f"{model} was made with other embedders than those in use")
        return spaces[0], self._other(spaces[0], opener)

    def _other(self, space: Space, opener: Callable[[str], Any]) -> Any:
        """The embedder of a space that is not in use, loaded once."""
        with self._lock:
            if space.id not in self._others:
                self._others[space.id] = opener(space.spec)
            return self._others[space.id]

    def _use(self, kind: EmbeddingKind, embedder: Any) -> None:
        with self._lock:
            self._functions[kind] = embedder
            self._opened.pop(kind, None)
            self._opened.pop(EmbeddingKind.COMBINED, None)  # it may be made of the one replaced

    def _get(self, kind: EmbeddingKind, opener: Callable[[str], Any], deadline: Deadline = NEVER) -> tuple[Space, Any]:
        while True:
            with self._database.read(deadline) as connection:
                known = remembered(connection, ("spaces",), lambda: stored.spaces(connection))
            with self._lock:
                self._look(known)
                try:
                    return self._known(kind, opener)
                except _Moved:
                    continue

    def _look(self, known: list[Space]) -> None:
        """Forget the embedders of spaces that are no longer in use; a function's stays until its space is freed."""
        active, ids = {space.kind: space for space in known if space.active}, {space.id for space in known}
        changed = {kind for kind in EmbeddingKind if active.get(kind) != self._active.get(kind)}
        for kind, (space, _) in list(self._opened.items()):
            moved = kind in changed or (bool(changed) and kind is EmbeddingKind.COMBINED)
            if space.id not in ids or (moved and kind not in self._functions):
                del self._opened[kind]
        self._active = active

    def _known(self, kind: EmbeddingKind, opener: Callable[[str], Any]) -> tuple[Space, Any]:
        if kind not in self._opened:
            self._opened[kind] = self._open(kind, opener)
        return self._opened[kind]

    def _open(self, kind: EmbeddingKind, opener: Callable[[str], Any]) -> tuple[Space, Any]:
        if (function := self._functions.get(kind)) is not None:
            return self._put_in_use(kind, function, function.model), function
        if kind not in self._active:
            raise NotFound(kind="active embedding space", id=kind.value)
        space = self._active[kind]
        if space.spec.startswith(USER):
            raise EmbedderMissing(space=space.model)
        embedder = opener(space.spec)
        if embedder.model != space.model:  # a combination of other parts than before
            space = self._put_in_use(kind, embedder, space.spec, unless_moved=True)
        return space, embedder

    def _weighted(self) -> WeightedEmbedder:
        words = self._known(EmbeddingKind.TRANSCRIPT, open_text_embedder)
        sound = self._known(EmbeddingKind.AUDIO, open_audio_embedder)
        return WeightedEmbedder(words[1], sound[1], self._weight)

    def _put_in_use(self, kind: EmbeddingKind, embedder: Any, spec: str, *, unless_moved: bool = False) -> Space:
        assert embedder.dimension  # noqa: S101 - asking may load a model, which must not happen while writing
        with self._database.write(locks.SPACES) as connection:
            if unless_moved and _active(connection) != self._active:  # it was made of parts that are not in use now
                raise _Moved
            space = _open_space(connection, kind, embedder, spec)
        self._active[kind] = space
        return space


def _active(connection: Connection) -> dict[EmbeddingKind, Space]:
    return {space.kind: space for space in stored.spaces(connection) if space.active}


def _open_space(
    connection: Connection, kind: EmbeddingKind, embedder: Any, spec: str, *, activate: bool = True
) -> Space:
    return stored.open_space(
        connection, kind, model=embedder.model, dimension=embedder.dimension, spec=spec, activate=activate
    )


def _or_none(opener: Callable[[], Any]) -> Any:
    try:
        return opener()
    except EmbedderMissing:
        return None
