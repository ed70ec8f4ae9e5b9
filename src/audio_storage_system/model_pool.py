"""Models are lent: loaded when somebody first asks, shared by all who ask, freed when nobody has asked for a while."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from audio_storage_system.errors import EngineUnavailable
from audio_storage_system.machine import resident_bytes

logger = logging.getLogger(__name__)

Model = TypeVar("Model")

# Finding out that weights are not to be had can take seconds: not for every file of a folder.
ASK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, and how many are using it.

    `idle_seconds`: since when nobody is; `None` while somebody does. `memory_bytes`: about what it takes, its own
    processes included; `None` where the system does not tell.
    """

    kind: str
    spec: str
    users: int
    idle_seconds: float | None
    memory_bytes: int | None


@dataclass(eq=False)
class _Place(Generic[Model]):
    """Where the model of one spec is, or will be. `lock` is held while it is loaded and while it is freed."""

    spec: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    model: Model | None = None
    grown: int | None = None
    users: int = 0
    idle_since: float = 0.0
    refused: tuple[float, EngineUnavailable] | None = None


class ModelPool(Generic[Model]):
    """Models of one kind by spec. Safe to use from several threads; a process forked off begins with none.

    `load` makes one ready and may raise `EngineUnavailable`, which is then the answer for a minute; `free` ends one.
    One that nobody has used for `idle_seconds` is freed: 0 is at once, a negative or infinite number never. Loading or
    freeing one keeps nobody from another.
    """

    def __init__(
        self,
        kind: str,
        load: Callable[[str], Model],
        free: Callable[[Model], None] = lambda model: None,
        *,
        idle_seconds: float = 300.0,
        elsewhere: Callable[[Model], int] = lambda model: 0,
    ) -> None:
        self._kind, self._load, self._free, self._elsewhere = kind, load, free, elsewhere
        self._idle_seconds = math.inf if idle_seconds < 0 else idle_seconds
        self._begin()
        _begin_anew_after_fork(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._places: dict[str, _Place[Model]] = {}
        self._watcher: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def borrow(self, spec: str) -> Iterator[Model]:
        """The model for `spec`, loaded, for as long as the block runs. Raises what `load` raises."""
        place = self._enter(spec)
        try:
            yield self._ready(place)
        finally:
            self._leave(place)

    def loaded(self) -> list[LoadedModel]:
        """The models in memory now, by spec."""
        with self._changed:
            present = [(place, place.model, place.users) for place in self._places.values()]
        now = time.monotonic()
        return sorted(
            (
                LoadedModel(
                    self._kind,
                    place.spec,
                    users,
                    None if users else now - place.idle_since,
                    None if place.grown is None else place.grown + self._elsewhere(model),
                )
                for place, model, users in present
                if model is not None
            ),
            key=lambda model: model.spec,
        )

    def close(self) -> None:
        """Free every model: those in use when they are given back. What is borrowed later is freed right after."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            places, watcher = list(self._places.values()), self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join()
        for place in places:
            self._unload(place)

    def _enter(self, spec: str) -> _Place[Model]:
        with self._changed:
            place = self._places.setdefault(spec, _Place(spec))
            place.users += 1
            return place

    def _leave(self, place: _Place[Model]) -> None:
        with self._changed:
            if self._places.get(place.spec) is not place:
                return  # it was borrowed before a fork, and belongs to the parent
            place.users -= 1
            place.idle_since = time.monotonic()
            at_once = self._is_due(place)
            if not at_once and self._due() is not None and self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="idle models", daemon=True)
                self._watcher.start()
        if at_once:
            self._unload(place)

    def _ready(self, place: _Place[Model]) -> Model:
        with place.lock:
            if place.model is None:
                self._fill(place)
            model = place.model
        assert model is not None  # noqa: S101 - `_fill` raises otherwise, and nobody frees what has users
        return model

    def _fill(self, place: _Place[Model]) -> None:
        if place.refused and time.monotonic() < place.refused[0]:
            raise place.refused[1]
        before = resident_bytes()
        try:
            place.model = self._load(place.spec)
        except EngineUnavailable as refusal:
            place.refused = (time.monotonic() + ASK_AGAIN_SECONDS, refusal)
            raise
        after = resident_bytes()
        place.grown = max(0, after - before) if after is not None and before is not None else None

    def _due(self) -> float | None:
        """When the next model has been idle for long enough; `None` when none will be."""
        if self._idle_seconds == math.inf:
            return None
        idle = [place.idle_since for place in self._places.values() if place.model is not None and not place.users]
        return min(idle) + self._idle_seconds if idle else None

    def _is_due(self, place: _Place[Model]) -> bool:
        waited = time.monotonic() - place.idle_since
        return not place.users and (self._closed or waited >= self._idle_seconds)

    def _unload(self, place: _Place[Model]) -> None:
        """Free this model, unless somebody has asked for it meanwhile: whoever does now waits, and loads it anew."""
        if place.users:
            return  # it may be loading, which can take minutes
        with place.lock:
            with self._changed:
                if place.model is None or not self._is_due(place):
                    return
                model, place.model = place.model, None
            try:
                self._free(model)
            except Exception:  # whose code this is nobody knows, and the models beside it are to be freed too
                logger.warning("the %s %s could not be freed", self._kind, place.spec, exc_info=True)

    def _watch(self) -> None:
        """Free what has been idle for long enough, until nothing is idle. Its thread exists only while something is."""
        while True:
            with self._changed:
                due = self._due()
                if due is None or self._closed:
                    self._watcher = None
                    return
                self._changed.wait(min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX))
                places = [] if self._closed else [place for place in self._places.values() if self._is_due(place)]
            for place in places:
                self._unload(place)

    def _begin_anew(self) -> None:
        """In a child process: its parent's models are not for it, nor are locks that another thread may have held."""
        for place in self._places.values():
            _keep_for_ever(place.model)
        closed = self._closed
        self._begin()
        self._closed = closed


def _keep_for_ever(model: object) -> None:
    """A model's threads and processes stayed with the parent, and its end might wait for them for ever: so in the child
    it never ends, not even when the child does."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(model))


def _begin_anew_after_fork(pool: ModelPool[Any]) -> None:
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(pool)

    def begin_anew() -> None:
        if (inherited := reference()) is not None:
            inherited._begin_anew()

    os.register_at_fork(after_in_child=begin_anew)
