"""Broken, empty and odd files: a clear error or audio, never a crash, no speech lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system.audio import load_audio, probe, speech_windows, stream
from audio_storage_system.errors import NotAudio

REASONS = {
    "empty_0bytes.wav": "the file is empty",
    "text_renamed_to_mp3.mp3": "it is a text file",
    "header_only_44bytes.wav": "it holds no sound",
    "missing_wav_header.wav": "no known audio format",
}


def edge_files() -> list[tuple[str, str]]:
    """Name and expectation; not every line of this manifest is valid JSON."""
    manifest = Path(os.environ.get("AUDIO_STORAGE_TEST_DATA", "missing"), "edge", "manifest.jsonl")
    if not manifest.exists():
        return []
    text = manifest.read_text(encoding="utf-8")
    return re.findall(r'"path": "([^"]+)".*?"expect": "([^"]+)"', text)


FILES: list[Any] = edge_files() or [pytest.param("", "", marks=pytest.mark.skip("AUDIO_STORAGE_TEST_DATA is not set"))]


@pytest.mark.parametrize(("name", "expect"), FILES)
def test_every_odd_file_does_what_is_expected_of_it(test_data: Path, name: str, expect: str) -> None:
    path = test_data / "edge" / name
    if re.search("not decodable|not audio|0 samples|without header", expect):
        with pytest.raises(NotAudio, match=REASONS.get(name, "damaged")) as caught:
            probe(path)
        assert name in str(caught.value)
        with pytest.raises(NotAudio, match=REASONS.get(name, "damaged")):
            load_audio(path)
    elif "must not crash" in expect:
        with pytest.raises(NotAudio):
            probe(path)
    else:
        assert load_audio(path).duration == pytest.approx(probe(path).duration, abs=0.01)


def test_a_damaged_last_frame_costs_only_itself_and_a_warning(test_data: Path) -> None:
    path = test_data / "edge" / "flac_damaged_tail.flac"
    assert load_audio(path).duration > 8.9
    assert "damaged" in probe(path).warnings[0]
    with stream(path) as blocks:
        assert list(blocks)
        assert "damaged" in blocks.warnings[0]


@pytest.mark.parametrize("name", ["pyannote_empty_1s.wav", "leopard_no_speech_8s.wav"])
def test_noise_without_speech_has_no_windows(test_data: Path, name: str) -> None:
    windows = speech_windows(stream(test_data / "edge" / name))
    assert list(windows) == []
    assert windows.speech == []
    assert windows.duration == pytest.approx(probe(test_data / "edge" / name).duration)


def test_each_of_eight_voices_on_eight_channels_is_heard(test_data: Path) -> None:
    windows = speech_windows(stream(test_data / "edge" / "8_channel_id.m4a"))
    assert list(windows)
    said = [span for span in windows.speech if span.duration > 0.3]
    assert sum(span.duration for span in said) > 5.0
    assert said[0].start < 1.0
    assert said[-1].end > 7.0


PROGRAM = """
import json, sys
from audio_storage_system.audio import probe, speech_windows, stream
from audio_storage_system.errors import NotAudio
for path in sys.argv[1:]:
    for attempt in (probe, lambda path: list(speech_windows(stream(path)))):
        try:
            attempt(path)
        except NotAudio as error:
            print(json.dumps(error.as_dict()))
        else:
            print(json.dumps({"code": "audio"}))
"""


def test_no_odd_file_ends_the_process(test_data: Path) -> None:
    paths = [str(test_data / "edge" / name) for name, _ in edge_files()]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["code"] for line in done.stdout.splitlines()]
    assert len(answers) == 2 * len(paths)
    assert set(answers) == {"audio", "not_audio"}
    assert done.stderr == ""
