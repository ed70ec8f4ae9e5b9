"""Looking for what should be unreadable: words, names and runs of sound, in every file below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RUN = 16  # bytes
STEP = 64  # bytes between two runs that are looked for


@dataclass(frozen=True)
class Secrets:
    """What is looked for, each under a name: words in any case, and the runs of some bytes."""

    words: Mapping[str, str]
    runs: Mapping[str, npt.NDArray[np.uint64]]

    @classmethod
    def of(cls, words: Mapping[str, str], sounds: Mapping[str, bytes]) -> Secrets:
        return cls(words, {name: _runs(data) for name, data in sounds.items()})

    def found_in(self, folders: Iterable[Path]) -> dict[str, set[str]]:
        """The files below these folders in which, or in whose names, each of it is found."""
        found: dict[str, set[str]] = {}
        for path in _files(folders):
            for name in self._in(path):
                found.setdefault(name, set()).add(str(path))
        return found

    def _in(self, path: Path) -> Iterator[str]:
        data = path.read_bytes()
        text, wide = data.lower(), data[::2].lower() + data[1::2].lower()
        for name, word in self.words.items():
            if any(word.lower().encode() in place for place in (text, wide, str(path).lower().encode())):
                yield name
        for name, runs in self.runs.items():
            if _has_run(data, runs):
                yield name


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for place, _, names in os.walk(folder):
            yield from (Path(place, name) for name in names)


def _runs(data: bytes) -> npt.NDArray[np.uint64]:
    """The first and second half of every run, but of such as silence and headers consist of."""
    pieces = [data[at : at + RUN] for at in range(0, len(data) - RUN, STEP)]
    telling = [piece for piece in pieces if len(set(piece)) > RUN // 2]
    return np.frombuffer(b"".join(telling), "<u8").reshape(-1, 2)


def _has_run(data: bytes, runs: npt.NDArray[np.uint64]) -> bool:
    """Whether any of these runs is anywhere in the data, wherever it begins."""
    for shift in range(8):
        usable = (len(data) - shift) // 8 * 8
        halves = np.frombuffer(data[shift : shift + usable], "<u8")
        for at in np.flatnonzero(np.isin(halves[:-1], runs[:, 0])).tolist():
            if np.any((runs[:, 0] == halves[at]) & (runs[:, 1] == halves[at + 1])):
                return True
    return False
