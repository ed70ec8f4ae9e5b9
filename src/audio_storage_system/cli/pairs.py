"""Which transcript belongs to which recording: by their names, in one folder."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from audio_storage_system.cli.paths import AUDIO_SUFFIXES

# The one that tells most first: of several for one recording and language, a folder gives only that.
TRANSCRIPT_SUFFIXES = (".json", ".vtt", ".srt", ".tsv")
_LANGUAGE = re.compile(r"(.+)\.([a-z]{2,3})(?:[-_][A-Za-z0-9]{2,8})*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pair:
    """A transcript and its recording: a file, or the id of one stored before. `language` as the file's name says."""

    transcript: Path
    audio: Path | int
    language: str | None = None


def _rank(pair: Pair) -> int:
    return TRANSCRIPT_SUFFIXES.index(pair.transcript.suffix.lower())


@dataclass
class Pairs:
    """The pairs found, and the files that have no partner. `failed`: (path, code, message) of what was named."""

    pairs: list[Pair] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    without_audio: list[Path] = field(default_factory=list)
    without_transcript: list[Path] = field(default_factory=list)
    passed_over: list[tuple[Path, Path]] = field(default_factory=list)  # and what is taken instead

    def by_audio(self) -> list[list[Pair]]:
        """The pairs of one recording together, the one that tells most first: search will follow that."""
        groups: dict[Path | int, list[Pair]] = {}
        for pair in sorted(self.pairs, key=_rank):
            groups.setdefault(pair.audio, []).append(pair)
        return list(groups.values())


def find_pairs(arguments: Iterable[str], archive: Path, audio: Path | int | None = None) -> Pairs:
    """Pair the transcripts that are meant by files, folders (with all that is below) and patterns.

    `meeting.srt`, `meeting.en.srt` and `meeting.mp3.srt` belong to `meeting.mp3` beside them. A recording that is named
    stands for the transcripts beside it. With `audio` every transcript belongs to that one.
    """
    found = Pairs()
    listing = functools.cache(_Folder.of)
    named: dict[Path, bool] = {}  # in order; whether the user named it
    for argument in arguments:
        for path, by_name in _meant(argument, archive, found):
            if path.suffix.lower() in TRANSCRIPT_SUFFIXES:
                named[path] = named.get(path, False) or by_name
            elif path.suffix.lower() in AUDIO_SUFFIXES:
                named |= dict.fromkeys(listing(path.parent).transcripts_of(path), False)
                found.without_transcript += [] if listing(path.parent).transcripts_of(path) else [path]
            elif by_name:
                known = ", ".join(TRANSCRIPT_SUFFIXES)
                found.failed.append((argument, "invalid_input", f"{argument} is no transcript; there are: {known}"))
    for path, by_name in named.items():
        _pair(path, by_name, audio, listing, found)
    _take_the_best(found, named)
    return found


def _meant(argument: str, archive: Path, found: Pairs) -> Iterator[tuple[Path, bool]]:
    if os.path.isdir(argument):
        yield from ((path, False) for path in _below(argument, archive))
    elif os.path.lexists(argument):
        yield Path(argument), True
    elif matches := sorted(glob(argument, recursive=True)) if has_magic(argument) else []:
        yield from ((Path(match), False) for match in matches if not os.path.isdir(match))
    else:
        message = f"No file matches {argument}" if has_magic(argument) else f"There is no file {argument}"
        found.failed.append((argument, "not_found", message))


def _below(folder: str, archive: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(place, f).resolve() != archive)
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


@dataclass(frozen=True)
class _Folder:
    """The recordings and transcripts that lie side by side: their names by stem."""

    place: Path
    audio: dict[str, list[str]]
    names: frozenset[str]

    @classmethod
    def of(cls, place: Path) -> _Folder:
        audio: dict[str, list[str]] = {}
        names = sorted(os.listdir(place))
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                audio.setdefault(stem, []).append(name)
        return cls(place, audio, frozenset(names))

    def audio_of(self, transcript: Path) -> tuple[list[Path], str | None]:
        """The recordings that a transcript may belong to, and its language where the name tells it."""
        for stem, language in _readings(transcript.stem):
            if os.path.splitext(stem)[1].lower() in AUDIO_SUFFIXES and stem in self.names:
                return [self.place / stem], language
            if stem in self.audio:
                return [self.place / name for name in self.audio[stem]], language
        return [], None

    def transcripts_of(self, audio: Path) -> list[Path]:
        """The transcripts that lie beside a recording and are called after it."""
        here = (self.place / n for n in sorted(self.names) if os.path.splitext(n)[1].lower() in TRANSCRIPT_SUFFIXES)
        return [path for path in here if path.name.startswith(audio.stem) and audio in self.audio_of(path)[0]]


def _readings(stem: str) -> Iterator[tuple[str, str | None]]:
    """What the recording may be called: all of the stem, or without the language at its end."""
    yield stem, None
    if match := _LANGUAGE.fullmatch(stem):
        yield match[1], match[2]


def _pair(
    path: Path, by_name: bool, audio: Path | int | None, listing: Callable[[Path], _Folder], found: Pairs
) -> None:
    partners, language = listing(path.parent).audio_of(path)
    if audio is not None:
        found.pairs.append(Pair(path, audio, language))
    elif len(partners) == 1:
        found.pairs.append(Pair(path, partners[0], language))
    elif partners:
        names = ", ".join(partner.name for partner in partners)
        message = f"{path} may belong to any of {names}; say which with --audio"
        found.failed.append((str(path), "ambiguous", message))
    elif by_name:
        message = f"There is no recording beside {path} that is called like it; name it with --audio or --audio-id"
        found.failed.append((str(path), "no_audio", message))
    else:
        found.without_audio.append(path)


def _take_the_best(found: Pairs, named: dict[Path, bool]) -> None:
    """Of what folders gave for one recording and language keep what tells most: programs write all formats at once."""
    best: dict[tuple[Path | int, str | None], Path] = {}
    for pair in sorted(found.pairs, key=_rank):
        best.setdefault((pair.audio, pair.language), pair.transcript)
    kept = []
    for pair in found.pairs:
        instead = best[pair.audio, pair.language]
        if named[pair.transcript] or instead == pair.transcript:
            kept.append(pair)
        else:
            found.passed_over.append((pair.transcript, instead))
    found.pairs = kept
