"""Looking for what should be unreadable: words, names and runs of sound, in every file below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

RUN = 16  # bytes
STEP = 64  # bytes between two runs that are looked for


class Secrets:
    """What is looked for, each under a name: words in any case, and 16-byte runs of some bytes."""

    def __init__(self, words: Mapping[str, str], sounds: Mapping[str, bytes]) -> None:
        self._words = {name: word.lower().encode() for name, word in words.items()}
        self._runs = {run: name for name, data in sounds.items() for run in _runs(data)}
        self._beginnings = np.frombuffer(b"".join(run[:8] for run in self._runs), "<u8")

    def found_in(self, folder: Path) -> dict[str, set[str]]:
        """The files below a folder in which, or in whose paths, each of it is found."""
        found: dict[str, set[str]] = {}
        for path in _files(folder):
            data = path.read_bytes()
            for name in self._words_in(data, str(path)) | self._sounds_in(data):
                found.setdefault(name, set()).add(str(path))
        return found

    def _words_in(self, data: bytes, path: str) -> set[str]:
        places = (data.lower(), data[::2].lower(), data[1::2].lower(), path.lower().encode())  # UTF-8, UTF-16
        return {name for name, word in self._words.items() if any(word in place for place in places)}

    def _sounds_in(self, data: bytes) -> set[str]:
        """Those of which any run is anywhere in the data, wherever it begins."""
        found: set[str | None] = set()
        for shift in range(8):
            here = np.frombuffer(data[shift : shift + (len(data) - shift) // 8 * 8], "<u8")
            for at in np.flatnonzero(np.isin(here, self._beginnings)).tolist():
                start = shift + 8 * at
                found.add(self._runs.get(data[start : start + RUN]))
        return {name for name in found if name}


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(place, name)).is_file())


def _runs(data: bytes) -> list[bytes]:
    """Runs from everywhere in the data, but none such as silence and headers consist of."""
    runs = [data[at : at + RUN] for at in range(0, len(data) - RUN, STEP)]
    return [run for run in runs if len(set(run)) > RUN // 2]
