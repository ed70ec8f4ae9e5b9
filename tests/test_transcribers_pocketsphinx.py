"""The bundled recogniser on speech that flite makes, and on real speech where there is any."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from audio_storage_system.errors import EngineUnavailable
from audio_storage_system.testing.transcribers import TranscriberContract
from audio_storage_system.transcribers import SAMPLE_RATE, TranscribeOptions, Transcriber, Window, open_transcriber
from audio_storage_system.transcribers.pocketsphinx_worker import recognised

OPTIONS = TranscribeOptions()
SENTENCES = [
    "the meeting will start at nine in the morning",
    "please send me the report before the end of the week",
    "we have to find a better way to pay for the new building",
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[Window]:
    """One window for each of `SENTENCES`, 20 s apart."""
    flite = shutil.which("flite")
    if flite is None:
        pytest.skip("flite is not installed: no speech to recognise")
    folder = tmp_path_factory.mktemp("speech")
    return [Window(20.0 * i, say(flite, text, folder / f"{i}.wav")) for i, text in enumerate(SENTENCES)]


def say(flite: str, text: str, path: Path) -> npt.NDArray[np.float32]:
    subprocess.run([flite, "-voice", "slt", "-t", text, "-o", str(path)], check=True)
    with wave.open(str(path)) as file:
        assert file.getframerate() == SAMPLE_RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)


@pytest.fixture(scope="module")
def shared() -> Iterator[Transcriber]:
    with open_transcriber("pocketsphinx") as transcriber:
        yield transcriber


class TestContract(TranscriberContract):
    @pytest.fixture
    def transcriber(self) -> Iterator[Transcriber]:
        transcriber = open_transcriber("pocketsphinx")
        yield transcriber
        transcriber.close()

    @pytest.fixture
    def windows(self, speech: list[Window]) -> list[Window]:
        return speech[:2]


def test_clear_speech_is_understood(shared: Transcriber, speech: list[Window]) -> None:
    heard = [" ".join(s.text for s in result.segments) for result in shared.transcribe(speech, OPTIONS)]
    assert word_error_rate(" ".join(SENTENCES), " ".join(heard)) <= 0.1


def test_words_are_timed_and_free_of_marks(shared: Transcriber, speech: list[Window]) -> None:
    (result,) = shared.transcribe(speech[1:2], OPTIONS)
    words = [word for segment in result.segments for word in segment.words]
    assert result.language == "en"
    assert all(re.fullmatch(r"[a-z']+", word.text) for word in words)
    assert all(word.probability is not None and word.start < word.end for word in words)
    report = next(word for word in words if word.text == "report")
    assert 20.4 < report.start < report.end < 22.0


def test_a_pause_ends_a_segment(shared: Transcriber, speech: list[Window]) -> None:
    pause = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32) * 1e-4
    samples = np.concatenate([speech[0].samples, pause, speech[1].samples])
    (result,) = shared.transcribe([Window(0.0, samples)], OPTIONS)
    texts = [segment.text for segment in result.segments]
    assert len(texts) == 2
    assert texts[0].split()[-1] == "morning"
    assert texts[1].split()[0] == "please"
    assert all(segment.confidence is not None and segment.confidence > 0.3 for segment in result.segments)


def test_what_was_heard_before_changes_nothing(shared: Transcriber, speech: list[Window]) -> None:
    """The decoder adapts to sound; each window must start afresh all the same."""
    loud = Window(0.0, np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE).astype(np.float32))
    alone = shared.transcribe(speech[:1], OPTIONS)
    shared.transcribe([loud], OPTIONS)
    assert shared.transcribe(speech[:1], OPTIONS) == alone


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be halted")
def test_other_threads_go_on_while_it_listens(shared: Transcriber, speech: list[Window]) -> None:
    """Its library holds Python's lock while it works; in this process nothing may stand still for that, however long
    the one that listens takes."""
    samples = np.concatenate([window.samples for window in speech])
    [recogniser] = shared._idle  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: shared.transcribe([Window(0.0, samples)], OPTIONS))
    os.kill(recogniser._process.pid, signal.SIGSTOP)
    try:
        thread.start()
        for _ in range(100):
            time.sleep(0.01)
            assert thread.is_alive()
    finally:
        os.kill(recogniser._process.pid, signal.SIGCONT)
        thread.join()


def test_a_recogniser_that_dies_fails_one_call_and_is_replaced(speech: list[Window]) -> None:
    with open_transcriber("pocketsphinx") as transcriber:
        process = transcriber._idle[0]._process  # type: ignore[attr-defined]
        os.kill(process.pid, signal.SIGTERM)
        process.wait()
        with pytest.raises((OSError, EOFError)):
            transcriber.transcribe(speech[:1], OPTIONS)
        assert transcriber.transcribe(speech[:1], OPTIONS)[0].segments


def test_it_has_one_model_only() -> None:
    with pytest.raises(EngineUnavailable, match="write pocketsphinx"):
        open_transcriber("pocketsphinx:large").load()


def test_fillers_and_marks_of_pronunciation_are_no_words() -> None:
    assert [word[0] for word in recognised(FakeDecoder(), b"")] == ["read", "a", "book"]


def test_real_speech_is_roughly_understood(shared: Transcriber, test_data: Path) -> None:
    """Its error rate over all of the real speech is near a half; these are of its better half, at most 8 s each."""
    from faster_whisper.audio import decode_audio

    folder = test_data / "speech"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    chosen = [row for row in rows if re.match(r"(cards_00[1-5]|sb_spk1_snt[15]|LJ001-0004)\.", row["path"])]
    heard = [
        " ".join(
            s.text
            for s in shared.transcribe([Window(0.0, decode_audio(str(folder / row["path"])))], OPTIONS)[0].segments
        )
        for row in chosen
    ]
    assert len(chosen) >= 7
    assert word_error_rate(" ".join(row["text"] for row in chosen), " ".join(heard)) < 0.3


class FakeDecoder:
    """A decoder that has heard what the real one writes for pauses, noise and second pronunciations."""

    def reinit_feat(self) -> None: ...

    def start_utt(self) -> None: ...

    def end_utt(self) -> None: ...

    def seg(self) -> list[FakeSegment]:
        return [FakeSegment(word) for word in ["<s>", "read(2)", "<sil>", "a", "[NOISE]", "book", "++UH++", "</s>"]]


class FakeSegment:
    start_frame, end_frame, prob = 0, 9, 1.0

    def __init__(self, word: str) -> None:
        self.word = word


def word_error_rate(said: str, heard: str) -> float:
    """Substituted, missing and extra words for each word said, case and punctuation aside."""
    expected, found = (re.findall(r"[a-z0-9']+", text.lower()) for text in (said, heard))
    return edit_distance(expected, found) / len(expected)


def edit_distance(one: Sequence[str], two: Sequence[str]) -> int:
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(two, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


@pytest.mark.skipif(not hasattr(os, "getpgid"), reason="there are no process groups")
def test_ctrl_c_of_a_terminal_does_not_reach_its_process_at_any_time() -> None:
    """Nor while it is coming up, when it could not ignore it yet."""
    with open_transcriber("pocketsphinx") as transcriber:
        process = transcriber._idle[0]._process  # type: ignore[attr-defined]
        assert os.getpgid(process.pid) != os.getpgid(0)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux tells what a process was given")
def test_its_process_is_not_given_the_key_of_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_KEY", "never-to-be-seen")
    transcriber = open_transcriber("pocketsphinx")
    transcriber.load()
    children = [Path(f"/proc/{recogniser._process.pid}/environ") for recogniser in transcriber._known]  # type: ignore[attr-defined]
    assert children and all(b"PATH=" in child.read_bytes() for child in children)
    assert not any(b"never-to-be-seen" in child.read_bytes() for child in children)
    transcriber.close()
