"""What a process keeps of a full-text table: long posting lists, numbers of passages, lengths. All of it is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from audio_storage_system.catalogue.bm25 import Ids, Postings

# On SQLite shorter lists are read as fast as they are looked up; 8 to 12 bytes for each posting of the others.
LONG, POSTINGS_KEPT = 500, 5_000_000
COUNTS_KEPT, COUNTS_LIVE_SECONDS = 10_000, 600.0
LENGTHS_KEPT = 200_000

_clock = count()

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Kept:
    postings: Postings
    used: int = 0

    @property
    def room(self) -> int:
        """How much of `POSTINGS_KEPT` it takes: a short list takes more than its postings."""
        return max(len(self.postings.ids), LONG)


@dataclass(slots=True, eq=False)
class PostingCache:
    """Shared by the threads of a process without a lock: what is kept is replaced as a whole, and what one of two
    threads adds at the same moment may be lost, which costs reading it again."""

    _lists: tuple[Hashable, dict[Hashable, _Kept]] = (None, {})
    _counts: dict[Hashable, tuple[int, float]] = field(default_factory=dict)
    _lengths: dict[int, int] = field(default_factory=dict)

    def postings(
        self, version: Hashable, keys: Sequence[K], read: Callable[[list[K]], list[Postings]], shortest: int = LONG
    ) -> list[Postings]:
        """The lists `keys` as of this version of the table, those unknown read together; lists shorter than `shortest`
        are not kept, and those used least lately are forgotten first."""
        kept = self._of_version(version)
        found: dict[Hashable, _Kept] = {key: kept[key] for key in keys if key in kept}
        if missing := [key for key in dict.fromkeys(keys) if key not in found]:
            new: dict[Hashable, _Kept] = {
                key: _Kept(postings) for key, postings in zip(missing, read(missing), strict=True)
            }
            fitting = {key: one for key, one in new.items() if shortest <= len(one.postings.ids) <= POSTINGS_KEPT}
            if fitting:
                self._lists = (version, _fitting({**self._of_version(version), **fitting}))
            found.update(new)
        for entry in found.values():
            entry.used = next(_clock)
        return [found[key].postings for key in keys]

    def _of_version(self, version: Hashable) -> dict[Hashable, _Kept]:
        known, kept = self._lists
        return kept if known == version else {}

    def clear(self) -> None:
        """Forget everything."""
        self._lists, self._counts, self._lengths = (None, {}), {}, {}

    def count(self, key: Hashable, read: Callable[[], int]) -> int:
        """A number of passages, remembered for some minutes; zero is not remembered."""
        known, expires = self._counts.get(key, (0, 0.0))
        if expires < time.monotonic():
            known = read()
            if len(self._counts) >= COUNTS_KEPT:
                self._counts = {}
            if known:
                self._counts[key] = known, time.monotonic() + COUNTS_LIVE_SECONDS
        return known

    def lengths(self, passage_ids: Ids, read: Callable[[list[int]], dict[int, int]]) -> dict[int, int]:
        """The lengths of these passages, which never change; those that do not exist are left out."""
        known, wanted = self._lengths, passage_ids.tolist()
        if missing := [id_ for id_ in wanted if id_ not in known]:
            found = read(missing)
            if len(known) + len(found) > LENGTHS_KEPT:
                self._lengths = {id_: known[id_] for id_ in wanted if id_ in known}
            self._lengths.update(found)
            known = {**{id_: known[id_] for id_ in wanted if id_ in known}, **found}
        return known


def _fitting(kept: dict[Hashable, _Kept]) -> dict[Hashable, _Kept]:
    """The entries used most lately that fit together."""
    total = sum(entry.room for entry in kept.values())
    if total <= POSTINGS_KEPT:
        return kept
    fitting, room = {}, POSTINGS_KEPT
    for key, entry in sorted(kept.items(), key=lambda item: -item[1].used):
        room -= entry.room
        if room < 0:
            break
        fitting[key] = entry
    return fitting


_caches: WeakKeyDictionary[Engine, PostingCache] = WeakKeyDictionary()


def cache_of(engine: Engine) -> PostingCache:
    """The cache for one database."""
    return _caches.setdefault(engine, PostingCache())
