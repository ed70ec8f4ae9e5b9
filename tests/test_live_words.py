"""Live sessions with the bundled recogniser: its words while they are spoken, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.live import Final, Partial
from living import RATE, finals, pause, speak

WAIT = 60.0


def test_words_come_while_they_are_spoken_and_are_found_after_the_pause(tmp_path: Path, demo: Path) -> None:
    spoken = (np.asarray(load_audio(demo / "voice_note.flac"))[: int(7.7 * RATE)] * 32767).astype("<i2")
    middle = int(2.5 * RATE)
    with AudioStorageSystem(tmp_path / "archive") as storage:
        session = storage.live()
        speak(session, spoken[:middle])
        texts = (event for event in session.events(WAIT) if isinstance(event, Partial | Final))
        first = next(event for event in texts if "milk" in event.text)
        assert isinstance(first, Partial), "the rest of the sentence is not spoken yet"
        speak(session, np.concatenate([spoken[middle:], pause(2.0)]))
        said = finals(session, 2, WAIT)
        hits = storage.search_similar_audio("train to the airport", mode="hybrid")
        assert hits[0].audio_id == session.audio_id and "airport" in hits[0].transcription
        report = session.finish()
    assert "remember to buy milk" in said[0].text and "airport" in said[1].text
    assert all(word.start >= 0 for final in said for segment in final.segments for word in segment.words)
    assert first.end < said[0].end - 1.0  # in the middle of the sentence
    assert (report.missing_seconds, report.seconds) == (0.0, 9.7)
