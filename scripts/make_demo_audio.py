"""Make the three recordings that `audio-storage demo` adds, with the free voices of flite and the help of sox.

    python scripts/make_demo_audio.py [FOLDER]

Both programs must be installed. The sentences are ones that the bundled recogniser understands nearly word for word.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "audio_storage_system" / "demo"
PAUSE_SECONDS = 0.7


@dataclass(frozen=True)
class Line:
    """What one voice says. `pitch` is its mean fundamental frequency in Hz, `None` for the voice's own."""

    voice: str
    text: str
    pitch: int | None = None


@dataclass(frozen=True)
class Scene:
    """A recording: its lines in order, and its sampling rate in Hz."""

    name: str
    rate: int
    lines: tuple[Line, ...]
    effects: tuple[str, ...] = ()


SCENES = (
    Scene(
        "meeting",
        16_000,
        (
            Line("slt", "Let us start with the budget for next year."),
            Line("rms", "We can spend two million dollars, and most of the money goes to new computers."),
            Line("slt", "What about the people we want to hire?"),
            Line("rms", "We need three more engineers before the end of the summer."),
            Line("slt", "And when do we move to the new building?"),
            Line("rms", "The building will be ready in October, so we move in November."),
        ),
    ),
    Scene(
        "call",
        8_000,
        (
            Line("rms", "Good morning, how can I help you?", pitch=125),
            Line("rms", "The heating in my house stopped working last night, and it is very cold."),
            Line("rms", "I am sorry to hear that. We can send someone to repair it tomorrow.", pitch=125),
            Line("rms", "Thank you very much. Please tell him to call before he comes."),
        ),
        ("highpass", "200"),
    ),
    Scene(
        "voice_note",
        16_000,
        (
            Line("slt", "Remember to buy milk, bread and apples on the way home."),
            Line("slt", "The train to the airport leaves at seven in the morning."),
            Line("slt", "And call the doctor about the results of the blood test."),
        ),
    ),
)


def main() -> None:
    """Write every scene into the folder given, or into the package."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        path = make(scene, folder)
        print(f"{path}: {path.stat().st_size:,} bytes")


def make(scene: Scene, folder: Path) -> Path:
    """Speak the scene into a FLAC file."""
    path = folder / f"{scene.name}.flac"
    with tempfile.TemporaryDirectory() as place:
        spoken = [speak(line, Path(place) / f"{number}.wav", scene) for number, line in enumerate(scene.lines)]
        joined = [*map(str, spoken), "-b", "16", "-C", "8", str(path)]
        subprocess.run(["sox", "--no-dither", *joined, "norm", "-3"], check=True)
    return path


def speak(line: Line, path: Path, scene: Scene) -> Path:
    """One line at the scene's rate, with a pause behind it."""
    raw = path.with_suffix(".flite.wav")
    pitch = [] if line.pitch is None else ["--setf", f"int_f0_target_mean={line.pitch}"]
    subprocess.run(["flite", "-voice", line.voice, *pitch, "-t", line.text, "-o", str(raw)], check=True)
    effects = ["rate", str(scene.rate), *scene.effects, "pad", "0", str(PAUSE_SECONDS)]
    subprocess.run(["sox", "--no-dither", str(raw), str(path), *effects], check=True)
    return path


if __name__ == "__main__":
    main()
