"""What keeps memory small, however long a recording is and however little is said in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import Conflict
from audio_storage_system.passages import LONGEST_SECONDS, Grouper, group
from audio_storage_system.pipeline.sources import MODEL_RATE, Samples, cut
from audio_storage_system.records import Segment, Span
from audio_storage_system.testing import scripted
from sounds import silence, wav


def counting(seconds: int) -> Samples:
    return np.arange(seconds * MODEL_RATE, dtype=np.float32)


def blocks(samples: Samples) -> Iterator[Samples]:
    yield from np.split(samples, range(MODEL_RATE, len(samples), MODEL_RATE))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=8).map(
        lambda pairs: sorted([Span(float(a), float(a + b)) for a, b in pairs], key=lambda span: span.start)
    )
)
def test_spans_are_cut_exactly_also_where_they_overlap(spans: list[Span]) -> None:
    whole = counting(60)
    found = dict(cut(blocks(whole), spans))
    for number, span in enumerate(spans):
        wanted = whole[round(span.start * MODEL_RATE) : round(span.end * MODEL_RATE)]
        assert (number in found) == (len(wanted) > 0)
        if number in found:
            np.testing.assert_array_equal(found[number], wanted)


def test_short_pieces_do_not_keep_a_long_one_that_they_lie_in() -> None:
    spans = [Span(0.0, 50.0), *(Span(float(second), second + 1.0) for second in range(1, 49))]
    pieces = [piece for _, piece in cut(blocks(counting(50)), spans)]
    assert len(pieces) == 49
    assert all(piece.base is None for piece in pieces), "a view keeps everything that it is a part of"


def said_every(step: float, count: int) -> list[Segment]:
    return [Segment(step * n, step * n + 1, f"number {n} alone", id=n + 1) for n in range(count)]


def test_a_passage_of_little_speech_ends_before_it_gets_too_long() -> None:
    passages = group(said_every(60.0, 100))
    assert len(passages) == 20
    assert max(passage.end - passage.start for passage in passages) <= LONGEST_SECONDS
    assert [p.first_segment_id for p in passages[1:]] == [p.last_segment_id + 1 for p in passages[:-1]]


def test_segments_further_apart_than_a_passage_may_last_stand_alone() -> None:
    passages = group(said_every(LONGEST_SECONDS, 5))
    assert [passage.text for passage in passages] == [f"number {n} alone" for n in range(5)]


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_going_on_later_gives_the_same_passages_where_little_is_said(stop: int) -> None:
    segments = said_every(70.0, 30)
    first = Grouper()
    closed = first.push(segments[:stop])
    done = closed[-1].last_segment_id if closed else 0
    again = Grouper(sequence=len(closed))
    rest = again.push(segments[done:]) + again.finish()
    assert closed + rest == group(segments)


def test_a_long_silence_can_be_stopped(tmp_path: Path, scripted_engine: type[scripted.ScriptedTranscriber]) -> None:
    (tmp_path / "silence.wav").write_bytes(wav(silence(600)))
    calls: list[tuple[float, float]] = []

    def stop(done: float, total: float) -> None:
        calls.append((done, total))
        raise KeyboardInterrupt

    with AudioStorageSystem(tmp_path / "a", transcriber="scripted") as storage:
        with pytest.raises(KeyboardInterrupt):
            storage.add(tmp_path / "silence.wav", progress=stop)
        assert calls == [(0.0, 600.0)]
        assert [version.outcome for version in storage.transcripts(1)] == [None]


def test_what_progress_raises_is_no_failure_whatever_it_is(
    tmp_path: Path, demo: Path, scripted_engine: type[scripted.ScriptedTranscriber]
) -> None:
    def stop(done: float, total: float) -> None:
        raise Conflict(reason="mine")

    with AudioStorageSystem(tmp_path / "a", transcriber="scripted") as storage:
        with pytest.raises(Conflict, match="mine"):
            storage.add(demo / "call.flac", progress=stop)
        assert [version.outcome for version in storage.transcripts(1)] == [None]
        assert storage.add(demo / "call.flac").outcome == "ok"
