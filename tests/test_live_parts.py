"""The parts of a live session: where speech begins and ends, and sound for a listener who is late."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system import load_audio
from audio_storage_system.audio.activity import speech_spans
from audio_storage_system.audio.spool import SpoolWriter
from audio_storage_system.live import tail as tails
from audio_storage_system.live.events import Events, Final, Lag, Partial
from audio_storage_system.live.speech import LONGEST, Began, Paused, SpeechSegmenter, Spoken
from audio_storage_system.live.tail import Tail
from living import RATE, pause, sentences, speech

Pieces = list[tuple[float, float, Any]]


def pieces(sound: np.ndarray[Any, Any], cuts: list[int] = [], start: float = 0.0) -> Pieces:  # noqa: B006
    """The pieces of speech, with their sound, of a stream that comes in these blocks."""
    segmenter, found, begun, held = SpeechSegmenter(start), Pieces(), 0.0, list[Any]()
    for block in np.split(sound, sorted(cuts)):
        for change in segmenter.feed(block.astype(np.float32) / 32768):
            match change:
                case Began(begun):
                    held = []
                case Spoken(samples):
                    held.append(samples)
                case Paused(end):
                    found.append((begun, end, np.concatenate(held)))
    for change in segmenter.finish():
        match change:
            case Began(begun):
                held = []
            case Spoken(samples):
                held.append(samples)
            case Paused(end):
                found.append((begun, end, np.concatenate(held)))
    return found


def test_each_sentence_is_a_piece_and_its_sound_is_all_there() -> None:
    sound = sentences(3)
    found = pieces(sound)
    assert [round(begun) for begun, _, _ in found] == [0, 3, 6]
    for begun, end, samples in found:
        first, last = round(begun * RATE), round(end * RATE)
        assert np.array_equal(samples, sound[first:last].astype(np.float32) / 32768)
        assert 2.0 < end - begun < 3.0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6 * RATE), max_size=30))
def test_the_same_sound_is_cut_in_the_same_way_however_it_comes(cuts: list[int]) -> None:
    sound = sentences(2)
    assert [piece[:2] for piece in pieces(sound, cuts)] == [piece[:2] for piece in pieces(sound)]


def test_times_count_from_where_the_stream_begins() -> None:
    [(begun, end, _)] = pieces(np.concatenate([pause(1.0), speech(2.0)]), start=100.0)
    assert 100.4 < begun < 101.2 and 102.9 < end <= 103.1


def test_no_speech_is_lost_between_pieces(demo: Path) -> None:
    for name in ("call.flac", "voice_note.flac"):
        sound = np.asarray(load_audio(demo / name))
        found = pieces((sound * 32767).astype("<i2"))
        for span in speech_spans([sound]):
            inside = sum(max(0.0, min(span.end, end) - max(span.start, begun)) for begun, end, _ in found)
            assert inside >= span.duration - 0.2


def test_speech_without_a_pause_is_cut_all_the_same() -> None:
    endless = np.concatenate([speech(2.0)[: int(1.6 * RATE)]] * 30)
    found = pieces(endless)
    assert len(found) >= 2
    assert all(end - begun <= LONGEST * 512 / RATE + 0.1 for begun, end, _ in found)
    assert all(abs(a[1] - b[0]) < 0.7 for a, b in pairwise(found))


def test_a_quiet_room_and_a_click_are_no_speech() -> None:
    click = pause(3.0).copy()
    click[RATE : RATE + 200] = 20_000
    assert pieces(click) == []


@pytest.mark.parametrize("key", [None, bytes(32)])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(st.integers(1, 700), st.integers(0, 3)), min_size=1, max_size=30))
def test_a_late_listener_hears_everything_once(
    tmp_path_factory: pytest.TempPathFactory, key: bytes | None, moves: list[tuple[int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tails, "MOST_SECONDS", 1)
        writer = SpoolWriter(tmp_path_factory.mktemp("spool") / "one", 1_000, 1, key=key)
        tail, said, heard = Tail(writer.folder, key), b"", b""
        for frames, takes in moves:
            pcm = np.arange(len(said), len(said) + frames).astype("<i2").tobytes()
            writer.write(pcm)
            tail.put(pcm)
            said += pcm
            heard += b"".join(tail.take(0) for _ in range(takes))
        tail.close()
        while not tail.drained:
            heard += tail.take(0)
        assert heard == said
        assert (tail.take(0), tail.behind_seconds) == (b"", 0.0)
        assert sum(len(pcm) for _, pcm in tail._recent) <= 2_000 + 1_400
        writer.close().discard()


def partial(item: int, text: str) -> Partial:
    return Partial(item, 0.0, 1.0, text)


def test_who_does_not_read_gets_the_latest_partial_and_every_final() -> None:
    events = Events()
    final = Final(1, 0.0, 1.0, "a b", (), 7, True)
    for event in (partial(1, "a"), partial(1, "a b"), final, Lag(4.0), partial(2, "c"), partial(2, "d")):
        events.put(event)
    assert list(events.read(timeout=0)) == [partial(1, "a b"), final, Lag(4.0), partial(2, "d")]


def test_who_never_reads_costs_no_more_than_so_many_events() -> None:
    events = Events()
    for number in range(5_000):
        events.put(Lag(float(number)))
    kept = list(events.read(timeout=0))
    assert len(kept) == 1_000 and kept[-1] == Lag(4_999.0)
