"""Whether search follows a new version: the rule itself, and what it does to an archive."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.cli import main
from audio_storage_system.errors import InvalidInput
from audio_storage_system.pipeline import RULES, rule_of
from audio_storage_system.pipeline.activation import AGREED, Decision, Judged, decide
from audio_storage_system.records import Segment
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Capabilities, TranscribeOptions, Window, WindowResult
from copying import sound

SHARES = st.floats(0, 1)
SCORES = st.none() | st.floats(-3, 0)
VERSIONS = st.builds(
    Judged,
    engine=st.sampled_from(["whisper", "other"]),
    model=st.sampled_from(["base", "small"]),
    stands_in=st.booleans(),
    log_probability=SCORES,
    confidence=st.none() | SHARES,
)
ANY_RULE = st.sampled_from([None, *RULES])


@given(ANY_RULE, st.none() | VERSIONS, VERSIONS, SHARES)
def test_a_decision_has_a_reason_and_asks_only_where_it_changes_nothing(
    rule: Any, present: Judged | None, new: Judged, agreement: float
) -> None:
    decision = decide(rule, present, new, agreement)
    assert decision.reason
    assert not (decision.asks and decision.follow)
    assert not decision.asks or rule == "if-better"


@given(st.none() | VERSIONS, VERSIONS, SHARES)
def test_always_and_never_are_that(present: Judged | None, new: Judged, agreement: float) -> None:
    assert decide("always", present, new, agreement).follow
    assert not decide("never", present, new, agreement).follow


@given(st.sampled_from([None, "if-better"]), VERSIONS, SHARES)
def test_the_first_version_is_followed(rule: Any, new: Judged, agreement: float) -> None:
    assert decide(rule, None, new, agreement).follow


@given(st.sampled_from([None, "if-better"]), VERSIONS, VERSIONS, SHARES)
def test_a_stand_in_never_takes_an_engines_place_and_always_gives_way_to_one(
    rule: Any, one: Judged, other: Judged, agreement: float
) -> None:
    if one.stands_in and not other.stands_in:
        assert not decide(rule, other, one, agreement).follow
        assert decide(rule, one, other, agreement).follow


@given(VERSIONS, VERSIONS, SHARES)
def test_of_one_engine_and_model_no_two_versions_are_each_better_than_the_other(
    one: Judged, other: Judged, agreement: float
) -> None:
    scored = None not in (one.log_probability, other.log_probability)
    if (one.engine, one.model, one.stands_in) == (other.engine, other.model, other.stands_in) and scored:
        there, back = (decide("if-better", *pair, agreement) for pair in ((one, other), (other, one)))
        assert not (there.follow and back.follow)
        assert there.follow == (other.log_probability > one.log_probability)  # type: ignore[operator]
        assert not there.asks


@given(SHARES)
def test_across_engines_agreement_decides(agreement: float) -> None:
    decision = decide("if-better", Judged("whisper", "base"), Judged("whisper", "small"), agreement)
    assert decision.follow == (agreement >= AGREED) and decision.asks != decision.follow


def test_scores_count_by_their_length(tmp_path: Path, scripted_engine: object) -> None:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage:
        storage.add(sound(tmp_path / "0.wav", 0))
        version = storage.transcripts(1)[0]
    long, short = Segment(0, 9, "a", avg_logprob=-0.1), Segment(9, 10, "b", avg_logprob=-1.1)
    assert Judged.of(version, [long, short]).log_probability == pytest.approx(-0.2)
    assert Judged.of(version, []).log_probability is None


@pytest.mark.parametrize(
    ("given_", "meant"), [(True, "always"), (False, "never"), (None, None), *((rule, rule) for rule in RULES)]
)
def test_true_and_false_are_rules_too(given_: Any, meant: str | None) -> None:
    assert rule_of(given_) == meant


def test_there_is_no_other_rule() -> None:
    with pytest.raises(InvalidInput, match="always, if-better, never"):
        rule_of("sometimes")


class Unsure(ScriptedTranscriber):
    """Hears what its argument says, and how sure it is: `-0.5 we met`."""

    engine: ClassVar[str] = "unsure"
    capabilities = Capabilities(batch_size=2, word_times=False, languages=None)

    def __init__(self, argument: str = "") -> None:
        self.model = "one"
        score, _, self.text = argument.partition(" ")
        self.score = float(score or 0)

    def transcribe(self, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        return [WindowResult((Segment(w.start, w.end, self.text, avg_logprob=self.score),), "en") for w in windows]


@pytest.fixture
def storage(tmp_path: Path, scripted_engine: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[AudioStorageSystem]:
    """A recording that the engine `scripted` heard."""
    from audio_storage_system.transcribers import TRANSCRIBERS

    monkeypatch.setitem(TRANSCRIBERS.builtin, "unsure", f"{__name__}:Unsure")  # type: ignore[arg-type]
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage:
        storage.add(sound(tmp_path / "0.wav", 0))
        yield storage


def active(storage: AudioStorageSystem) -> int:
    [found] = [version.id for version in storage.transcripts(1) if version.active]
    return found


def test_a_surer_version_takes_the_place_and_a_less_sure_one_does_not(storage: AudioStorageSystem) -> None:
    first = storage.generate_transcript(1, whisper_model="unsure:-0.5 we met", activate="always")
    surer = storage.generate_transcript(1, whisper_model="unsure:-0.3 we met on", activate="if-better")
    assert surer.decision is not None and surer.decision.follow and "-0.300, before -0.500" in surer.decision.reason
    worse = storage.generate_transcript(1, whisper_model="unsure:-0.7 we", activate="if-better")
    assert worse.decision is not None and not worse.decision.follow
    assert first < surer == active(storage) < worse


def test_engines_that_agree_need_nobody_to_ask(storage: AudioStorageSystem) -> None:
    said = storage.transcripts(1)[0].transcription
    made = storage.generate_transcript(1, whisper_model=f"unsure:-0.5 {said.upper()}!", activate="if-better")
    assert made.decision is not None and made.decision.follow and "100%" in made.decision.reason


def test_engines_that_do_not_agree_leave_it_to_a_person(storage: AudioStorageSystem) -> None:
    made = storage.generate_transcript(1, whisper_model="unsure:-0.5 something else", activate="if-better")
    assert made.decision is not None and made.decision.asks
    assert active(storage) == 1


def test_an_engine_takes_the_place_of_what_stood_in_for_it(storage: AudioStorageSystem) -> None:
    with storage._archive.database.write() as connection:
        from audio_storage_system.catalogue import transcripts

        stand_in = transcripts.start(
            connection, 1, asked="base", engine="scripted", parameters={}, language=None, flags=["fallback"]
        )
        transcripts.finish(connection, stand_in, outcome=storage.transcripts(1)[0].outcome, reason=None)  # type: ignore[arg-type]
        transcripts.activate(connection, stand_in)
    made = storage.generate_transcript(1, whisper_model="unsure:-3 something else", activate="if-better")
    assert made.decision == Decision(True, "scripted had only stood in")


def test_a_wrong_rule_is_refused_before_anything_is_done(storage: AudioStorageSystem) -> None:
    with pytest.raises(InvalidInput):
        storage.generate_transcript(1, activate="maybe")  # type: ignore[arg-type]
    assert len(storage.transcripts(1)) == 1


def test_the_command_leaves_the_old_one_active_and_says_how_to_change_that(
    storage: AudioStorageSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retranscribe", "1", "--model", "unsure:-0.5 something else", "--archive", str(storage.home)]
    assert main([*arguments, "--activate", "if-better"]) == 0
    shown = capsys.readouterr().out
    assert "not active (unsure one and scripted agree on 0% of the words only: see which is right)" in shown
    assert "audio-storage transcripts activate 2" in shown
    assert active(storage) == 1
    assert main([*arguments, "--activate", "if-better", "--json"]) == 0
    [made] = json.loads(capsys.readouterr().out)["transcribed"]
    assert not made["active"] and made["decision"]["asks"] and not made["decision"]["follow"]
    assert main([*arguments, "--activate", "always", "--json"]) == 0
    [made] = json.loads(capsys.readouterr().out)["transcribed"]
    assert made["active"] and made["decision"] == {"follow": True, "reason": "as asked", "asks": False}
    assert main([*arguments, "--activate", "perhaps", "--json"]) == 2


def test_a_dry_run_says_what_would_be_transcribed(
    storage: AudioStorageSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retranscribe", "--where", "engine=scripted", "--dry-run", "--archive", str(storage.home)]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"] and [one["audio_id"] for one in plan["recordings"]] == [1] and plan["seconds"] == 3.0
    assert main(arguments) == 0
    assert "1 recording (00:03 of sound) would be transcribed" in capsys.readouterr().out
    assert len(storage.transcripts(1)) == 1


# On a terminal it asks. The engine is made known inside the program.
PROGRAM = """
import sys
from audio_storage_system.transcribers import TRANSCRIBERS
TRANSCRIBERS.builtin["unsure"] = "test_activation:Unsure"
from audio_storage_system.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("answer", "followed"), [(b"y\n", 2), (b"n\n", 1)])
def test_on_a_terminal_it_shows_the_difference_and_asks(
    storage: AudioStorageSystem, answer: bytes, followed: int
) -> None:
    ours, theirs = pty.openpty()
    arguments = ["retranscribe", "1", "--model", "unsure:-0.5 something else", "--activate", "if-better"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, "--archive", str(storage.home)],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "NO_COLOR": "1"},
    )
    os.close(theirs)
    shown = b""
    while b"Let searches follow" not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, answer)
    assert process.wait() == 0
    assert b"{+something else+}" in shown
    assert active(storage) == followed
