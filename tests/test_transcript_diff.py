"""Two versions of a transcript beside each other, word by word."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.cli import main
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.pipeline import compare
from audio_storage_system.pipeline.differences import aligned, words_of
from audio_storage_system.records import Segment, Word
from builders import Talk, fill, say

WORDS = st.lists(st.sampled_from(["we", "met", "on", "Monday", "it's", "a", "b"]), max_size=60)


def spoken(words: list[str], *, seconds: float = 0.5, start: float = 0.0) -> list[Segment]:
    """Segments of ten words, each as long as the other."""
    tens = [words[i : i + 10] for i in range(0, len(words), 10)]
    ends = [start + seconds * (10 * i + len(ten)) for i, ten in enumerate(tens)]
    return [Segment(end - seconds * len(ten), end, " ".join(ten)) for ten, end in zip(tens, ends, strict=True)]


def difference(before: str, after: str) -> Any:
    return compare(spoken(before.split()), spoken(after.split()))


def test_every_kind_of_change_has_its_place() -> None:
    found = difference("we spend twenty on the new house", "so we spend twelve on the house")
    assert [(c.kind, c.before, c.after) for c in found.changes] == [
        ("added", "", "so"),
        ("changed", "twenty", "twelve"),
        ("removed", "new", ""),
    ]
    assert (found.changes[1].start, found.changes[1].end) == (1.0, 2.0)
    assert (found.changes[1].lead, found.changes[1].trail) == ("so we spend", "on the house")
    assert (found.words_before, found.words_after, found.same) == (7, 7, 5)
    assert (found.added, found.removed, found.changed) == (1, 1, 1)
    assert found.agreement == pytest.approx(10 / 14)


@pytest.mark.parametrize(
    ("before", "after"),
    [("It's well-known, isn't it?", "its WELL known isnt it"), ("Zoë’s café", "zoe's cafe"), ("", "… — !"), ("", "")],
)
def test_case_punctuation_and_accents_do_not_count(before: str, after: str) -> None:
    found = difference(before, after)
    assert found.agreement == 1 and found.changes == ()


def test_writing_without_spaces_is_compared_by_characters() -> None:
    found = difference("会議は三時に始まります", "会議は四時に始まります")
    assert [(c.before, c.after) for c in found.changes] == [("三", "四")]


def test_times_are_those_of_the_words() -> None:
    words = (Word(3.0, 3.4, " red"), Word(7.0, 7.5, " house."))
    found = compare([Segment(3, 8, "red house.", words)], [Segment(3, 8, "red mouse", ())])
    [change] = found.changes
    assert (change.before, change.after, change.start, change.end) == ("house.", "mouse", 5.5, 8.0)


@given(WORDS, WORDS)
def test_what_is_said_to_be_the_same_is_the_same_and_in_order(before: list[str], after: list[str]) -> None:
    a, b = words_of(spoken(before)), words_of(spoken(after))
    pairs = aligned(a, b)
    assert all(a[i].key == b[j].key for i, j in pairs)
    assert all(i0 < i1 and j0 < j1 for (i0, j0), (i1, j1) in pairwise(pairs))


@given(WORDS, WORDS)
def test_the_counts_are_those_of_the_changes(before: list[str], after: list[str]) -> None:
    found = compare(spoken(before), spoken(after))
    assert found.same + found.changed + found.removed == found.words_before == len(before)
    assert found.same + found.changed + found.added == found.words_after == len(after)
    assert 0 <= found.agreement <= 1
    assert found.agreement == 1 if before == after else not (found.agreement == 1 and before != after)


def test_ten_hours_take_seconds() -> None:
    chance = random.Random(5)
    names = [f"word{number}" for number in range(20_000)]
    weights = [1 / (number + 2) for number in range(len(names))]
    before = chance.choices(names, weights, k=90_000)
    wrong = [number for number in range(len(before)) if chance.random() < 0.1]
    after = list(before)
    for number in wrong:
        after[number] = "wrong"
    began = time.process_time()
    found = compare(spoken(before, seconds=0.4), spoken(after, seconds=0.4, start=0.3))
    assert time.process_time() - began < 20  # 2 s on an idle core
    assert found.same >= len(before) - len(wrong)  # a word that is wrong may be one that follows


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two recordings; of the first two versions (1 and 3), of the second one (2)."""
    home = tmp_path / "archive"
    with AudioStorageSystem(home) as storage:
        fill(storage._archive, [Talk(["We met on Monday.", "Nobody came."]), Talk(["Something else"])])
        with storage._archive.database.write() as connection:
            say(connection, 1, Talk(["we met on Sunday", "Nobody came."]))
    return home


def test_versions_of_different_recordings_are_refused(home: Path) -> None:
    with AudioStorageSystem(home) as storage:
        with pytest.raises(InvalidInput, match="1 of recording 1 and 2 of recording 2"):
            storage.diff_transcripts(1, 2)
        with pytest.raises(NotFound):
            storage.diff_transcripts(1, 99)
        assert storage.diff_transcripts(1, 1).agreement == 1


def test_the_command_shows_what_differs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcripts", "diff", "1", "3", "--archive", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "we met on [-Monday.-] {+Sunday+} Nobody came." in shown
    assert "6.75–9.00" in shown
    assert "83.3% agreement (6 and 6 words): 1 changed, 0 removed, 0 added" in shown


def test_the_command_gives_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcripts", "diff", "1", "3", "--json", "--archive", str(home)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["before"], data["after"], data["changed"]) == (1, 3, 1)
    assert data["changes"][0] | {"lead": "", "trail": ""} == {
        "kind": "changed",
        "start": 6.75,
        "end": 9.0,
        "before": "Monday.",
        "after": "Sunday",
        "lead": "",
        "trail": "",
    }
    assert main(["transcripts", "diff", "1", "2", "--json", "--archive", str(home)]) == 2
