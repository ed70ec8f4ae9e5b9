"""Which files are meant by the paths that `add` is given."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

AUDIO_SUFFIXES = frozenset(
    ".3g2 .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .caf .dts .eac3 .flac .flv .gsm .m4a .m4b .m4v .mka "
    ".mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .oga .ogg .ogv .opus .ra .rm .snd .spx .sph .tta .vob .voc .w64 .wav "
    ".wave .webm .wma .wmv .wv".split()
)
# Never opened: what stands beside recordings, and what people keep in the same folders.
OTHER_SUFFIXES = frozenset(
    ".bmp .bz2 .c .cfg .conf .css .csv .ctm .db .doc .docx .eaf .gif .gz .h .heic .html .ini .ipynb .jpeg .jpg .js "
    ".json .jsonl .log .lrc .md .npy .npz .odt .parquet .pdf .pkl .png .ppt .pptx .py .rst .rtf .rttm .sh .sqlite .srt "
    ".stm .svg .tar .textgrid .tif .tiff .toml .tsv .txt .uem .vtt .webp .xls .xlsx .xml .yaml .yml .zip".split()
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to try. `certain`: it was named, or its suffix says that it is audio, so a failure is worth telling; what
    else lies in a folder is taken when it turns out to be audio. `folder` is the folder it was found through."""

    path: Path
    certain: bool
    folder: str | None = None


@dataclass
class Found:
    """The files to try, in order and each once; what could not even be listed; how many others were passed over."""

    candidates: list[Candidate] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: int = 0


def find_audio(arguments: Iterable[str], archive: Path) -> Found:
    """Files, folders (with what is below them, sorted) and patterns, also ones that no shell has expanded.

    Hidden files and the archive's own folder are passed over.
    """
    found, seen = Found(), set[str]()
    real = functools.cache(os.path.realpath)
    for argument in arguments:
        for candidate in _of_argument(argument, archive.resolve(), found):
            place = _place(candidate.path, real)
            if place not in seen:
                seen.add(place)
                found.candidates.append(candidate)
    return found


def _place(path: Path, real: Callable[[str], str]) -> str:
    """Where a file really is. `real` resolves a folder, each once: that takes as long as everything else together."""
    if path.is_symlink():
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    return os.path.join(real(folder), name)


def _of_argument(argument: str, archive: Path, found: Found) -> Iterator[Candidate]:
    if os.path.lexists(argument):
        yield from _of_path(argument, archive, found, named=True)
        return
    matches = sorted(glob(argument, recursive=True)) if has_magic(argument) else []
    for match in matches:
        yield from _of_path(match, archive, found, named=False)
    if not matches:
        message = f"No file matches {argument}" if has_magic(argument) else f"There is no file {argument}"
        found.failed.append((argument, message))


def _of_path(path: str, archive: Path, found: Found, *, named: bool) -> Iterator[Candidate]:
    if os.path.isdir(path):
        found.folders.append(path)
        yield from _of_folder(path, archive, found)
    elif named or Path(path).suffix.lower() not in OTHER_SUFFIXES:
        yield Candidate(Path(path), named or _sounds(path))
    else:
        found.ignored += 1


def _of_folder(folder: str, archive: Path, found: Found) -> Iterator[Candidate]:
    def note(error: OSError) -> None:
        found.failed.append((str(error.filename), f"The folder {error.filename} cannot be read: {error.strerror}"))

    for place, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(place, f).resolve() != archive)
        for name in sorted(files):
            if name.startswith(".") or Path(name).suffix.lower() in OTHER_SUFFIXES:
                found.ignored += 1
            else:
                yield Candidate(Path(place, name), _sounds(name), folder)


def _sounds(name: str) -> bool:
    return Path(name).suffix.lower() in AUDIO_SUFFIXES
