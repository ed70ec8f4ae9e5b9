"""Which files `add` tries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from audio_storage_system.cli.paths import find_audio


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found_in: Path, *arguments: str) -> list[str]:
    found = find_audio(arguments or [str(found_in)], found_in / "archive")
    return [candidate.path.relative_to(found_in).as_posix() for candidate in found.candidates]


def test_a_folder_gives_what_is_below_it_in_order(tmp_path: Path) -> None:
    touch(tmp_path / "b.wav", tmp_path / "a" / "z.MP3", tmp_path / "a" / "c.flac")
    assert names(tmp_path) == ["b.wav", "a/c.flac", "a/z.MP3"]


def test_what_stands_beside_recordings_is_counted_but_not_opened(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "manifest.jsonl", tmp_path / "notes.txt", tmp_path / "a.rttm")
    found = find_audio([str(tmp_path)], tmp_path / "archive")
    assert [candidate.path.name for candidate in found.candidates] == ["a.wav"]
    assert found.ignored == 3


def test_files_of_unknown_suffix_are_tried_without_promise(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "voicemail", tmp_path / "b.xyz")
    found = find_audio([str(tmp_path)], tmp_path / "archive")
    assert {c.path.name: c.certain for c in found.candidates} == {"a.wav": True, "voicemail": False, "b.xyz": False}


def test_a_file_that_is_named_is_tried_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    (candidate,) = find_audio([str(tmp_path / "notes.txt")], tmp_path / "archive").candidates
    assert candidate.certain


def test_the_archive_itself_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "archive" / "audio_files" / "x.wav", tmp_path / ".trash" / "y.wav", tmp_path / "._z.wav")
    assert names(tmp_path) == []


def test_a_pattern_that_no_shell_expanded_is_expanded(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "deep" / "er" / "b.wav", tmp_path / "c.txt", tmp_path / "c.mp3")
    assert names(tmp_path, str(tmp_path / "*.wav")) == ["a.wav"]
    assert names(tmp_path, str(tmp_path / "**" / "*.wav")) == ["a.wav", "deep/er/b.wav"]
    assert names(tmp_path, str(tmp_path / "*.*")) == ["a.wav", "c.mp3"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path / "take [1].wav")
    assert names(tmp_path, str(tmp_path / "take [1].wav")) == ["take [1].wav"]


def test_a_pattern_without_a_match_is_told(tmp_path: Path) -> None:
    found = find_audio([str(tmp_path / "*.wav")], tmp_path / "archive")
    assert not found.candidates
    assert "No file matches" in found.failed[0][1]


def test_a_file_that_is_named_twice_is_tried_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    assert names(tmp_path, str(tmp_path), str(tmp_path / "a.wav"), str(tmp_path / "*.wav")) == ["a.wav"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="this user can read every folder")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    found = find_audio([str(tmp_path)], tmp_path / "archive")
    closed.chmod(0o700)
    assert "cannot be read" in found.failed[0][1]
