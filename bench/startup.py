"""How long a fresh process takes to be of use, against Python itself in the same run.

    python bench/startup.py --folder FOLDER [--runs 15]

Wall time of whole processes, interpreter included, taking turns; medians. The archive that is searched holds one minute
of speech; its search loads the text embedder (wordllama), as every first search of meaning does.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from audio_storage_system import AudioStorageSystem
from measuring import Took, hear_what_is_scripted, in_turns, machine, spoken, verdict, write_wav

OPEN = "from audio_storage_system import AudioStorageSystem; s = AudioStorageSystem({place!r}, create=False)"
KEYWORD = OPEN + "; assert s.search_similar_audio('spoken', mode='keyword')"
HYBRID = OPEN + "; assert s.search_similar_audio('what is spoken')"


def make_archive(folder: Path) -> Path:
    engine = hear_what_is_scripted()
    path = folder / "spoken.wav"
    write_wav(path, (spoken(number, folder) for number in range(2)))
    with AudioStorageSystem(folder / "archive") as storage:
        storage.add(path, whisper_model=engine)
        return storage.home


def processes(archive: Path) -> dict[str, list[str]]:
    """What each contender runs."""

    def python(code: str) -> list[str]:
        return [sys.executable, "-c", code.format(place=str(archive))]

    program = Path(sys.executable).with_name("audio-storage")
    return {
        "python -c pass": python("pass"),
        "python -c 'import numpy'": python("import numpy"),
        "import audio_storage_system": python("import audio_storage_system"),
        "audio-storage --help": [str(program), "--help"],
        "open an archive": python(OPEN),
        "open it, search by keyword": python(KEYWORD),
        "open it, search by meaning": python(HYBRID),
    }


def medians(commands: dict[str, list[str]], runs: int) -> dict[str, Took]:
    def runner(command: list[str]) -> Callable[[int], object]:
        return lambda turn: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    contenders = {name: runner(command) for name, command in commands.items()}
    in_turns(contenders, 1)  # fills the page cache and writes bytecode
    took = in_turns(contenders, runs)
    return {name: Took(*map(statistics.median, zip(*turns, strict=True))) for name, turns in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    folder = options.folder / "startup"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    took = medians(processes(make_archive(folder)), options.runs)
    bare = took["python -c pass"]
    print(f"{machine(folder)}\nmedians of {options.runs} runs")
    for name, (wall, cpu, _others) in took.items():
        print(f"  {name:28} {wall:6.3f} s, {cpu:6.3f} s of CPU, {wall / bare.wall:5.1f} x python -c pass")
    verdict("import audio_storage_system", took["import audio_storage_system"].wall, 0.2, unit="s")
    verdict("audio-storage --help", took["audio-storage --help"].wall, 0.4, unit="s")
    verdict("first search of a fresh process, small archive", took["open it, search by meaning"].wall, 1.0, unit="s")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
