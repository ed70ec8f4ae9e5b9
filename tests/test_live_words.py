"""Live sessions with the bundled recogniser: its words while they are spoken, and what is kept of them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.live import Event, Final, Partial
from living import RATE, blocks, pause


def test_words_come_while_they_are_spoken_and_are_found_after_the_pause(tmp_path: Path, demo: Path) -> None:
    spoken = (np.asarray(load_audio(demo / "voice_note.flac"))[: int(7.7 * RATE)] * 32767).astype("<i2")
    told: list[tuple[float, Event]] = []
    with AudioStorageSystem(tmp_path / "archive") as storage:
        session = storage.live(on_event=lambda event: told.append((time.monotonic(), event)))
        time.sleep(1.5)  # the recogniser is ready
        begun = time.monotonic()
        for number, block in enumerate(blocks(np.concatenate([spoken, pause(2.0)]))):
            session.write(block)
            time.sleep(max(0.0, begun + (number + 1) * 0.1 - time.monotonic()))
        hits = storage.search_similar_audio("train to the airport", mode="hybrid")
        assert hits[0].audio_id == session.audio_id and "airport" in hits[0].transcription
        report = session.finish()
    finals = [event for _, event in told if isinstance(event, Final)]
    assert "remember to buy milk" in finals[0].text and "airport" in finals[1].text
    assert all(word.start >= 0 for final in finals for segment in final.segments for word in segment.words)
    first = next(at for at, event in told if isinstance(event, Partial) and "milk" in event.text)
    over = next(at for at, event in told if isinstance(event, Final))
    assert first - begun < over - begun - 1.0  # in the middle of the sentence
    assert (report.missing_seconds, report.seconds) == (0.0, 9.7)
