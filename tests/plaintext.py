"""Looking for what should be unreadable: words, names and runs of sound, in every file below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

BLOCK, STEP = 1 << 10, 1 << 13  # of each sound so many bytes are looked for, every so many
TELLING = 6  # different bytes in 8: less is silence, a header or a table
LOW = np.uint64((1 << 24) - 1)


class Secrets:
    """What is looked for, each under a name: words in any case, and sound, of which any 16 bytes in a row are found
    wherever they lie: 8 of these begin at a multiple of 8 in the file."""

    def __init__(self, words: Mapping[str, str], sounds: Mapping[str, bytes]) -> None:
        self._words = {name: word.lower().encode() for name, word in words.items()}
        self._names = list(sounds)
        runs = [_runs(data) for data in sounds.values()]
        owners = np.repeat(np.arange(len(runs)), [len(one) for one in runs])
        order = np.argsort(whole := np.concatenate([*runs, np.zeros(1, "<u8")]))
        self._runs, self._owners = whole[order], np.append(owners, -1)[order]
        self._possible = np.zeros(int(LOW) + 1, bool)
        self._possible[whole & LOW] = True

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
        here: Words = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
        here = here[self._possible[here & LOW]]
        at = np.searchsorted(self._runs, here).clip(max=len(self._runs) - 1)
        owners = self._owners[at[self._runs[at] == here]]
        return {self._names[owner] for owner in set(owners.tolist()) if owner >= 0}


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(place, name)).is_file())


def _runs(data: bytes) -> Words:
    """Every 8 bytes in a row, from everywhere in the data, that are like nothing else."""
    blocks = [data[at + shift : at + BLOCK + shift] for at in range(0, len(data), STEP) for shift in range(8)]
    runs = np.concatenate([np.frombuffer(block[: len(block) // 8 * 8], "<u8") for block in blocks])
    sorted_bytes = np.sort(runs.view(np.uint8).reshape(-1, 8), axis=1)
    return runs[(np.diff(sorted_bytes, axis=1) != 0).sum(axis=1) >= TELLING - 1]
