"""Whisper through CTranslate2: `faster-whisper:<size | hub repository | folder>`.

Windows are decoded in true batches, each by itself: nothing is carried from one to the next, and nothing is drawn by
chance. CTranslate2 cannot seed its sampling per call (its generators belong to worker threads), so where Whisper would
try again with a higher temperature, this tries again with settings that forbid what went wrong. Text is decoded without
timestamp tokens, which keeps every word of a window, and words are timed by the model's own alignment.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audio_storage_system.errors import EngineUnavailable, InvalidInput, UnknownSpec
from audio_storage_system.machine import usable_cores
from audio_storage_system.records import Segment, Word
from audio_storage_system.transcribers import WHISPER_SIZES
from audio_storage_system.transcribers.base import (
    SAMPLE_RATE,
    Capabilities,
    TranscribeOptions,
    Transcriber,
    Window,
    WindowResult,
)
from audio_storage_system.transcribers.loops import without_loops
from audio_storage_system.transcribers.timing import ends_sentence, shifted, split_at_pauses, to_segment
from audio_storage_system.transcribers.weights import find_weights

log = logging.getLogger(__name__)

WINDOW_SAMPLES = 30 * SAMPLE_RATE
LOG_PROB_THRESHOLD, COMPRESSION_RATIO_THRESHOLD, NO_SPEECH_THRESHOLD = -1.0, 2.4, 0.6
_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
_COMPUTE_TYPES = {"cuda": ("float16", "bfloat16", "float32"), "cpu": ("int8", "float32")}
_BATCH_SIZE = 8
ENGLISH = "en"

Features = npt.NDArray[np.float32]

# The processes that loaded a model, which are this one and, in a forked one, its parents.
_loaded_in: set[int] = set()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to decode a window. Forbidding repeated token n-grams breaks loops."""

    beam_size: int = 5
    no_repeat_ngram_size: int = 0
    timestamps: bool = False


ATTEMPTS = (Attempt(), Attempt(no_repeat_ngram_size=5), Attempt(no_repeat_ngram_size=3, timestamps=True))


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one attempt made of one window, with Whisper's own scores."""

    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float

    @property
    def silent(self) -> bool:
        return self.no_speech_prob > NO_SPEECH_THRESHOLD and self.avg_logprob < LOG_PROB_THRESHOLD

    @property
    def acceptable(self) -> bool:
        return self.silent or (
            self.avg_logprob >= LOG_PROB_THRESHOLD and self.compression_ratio <= COMPRESSION_RATIO_THRESHOLD
        )


class FasterWhisperTranscriber(Transcriber):
    """A Whisper model in memory: int8 on a CPU, float16 on a GPU that CTranslate2 can use.

    `cpu_threads` is how many cores one call may use; 0 leaves it to `OMP_NUM_THREADS` and CTranslate2 (four at most),
    or, where several calls come at once, gives each its share. The weights are in memory once all the same.
    """

    engine = "faster-whisper"

    def __init__(self, argument: str, *, cpu_threads: int = 0) -> None:
        self.model = argument or "base"
        if "/" not in self.model and self.model not in WHISPER_SIZES and not Path(self.model).is_dir():
            raise UnknownSpec(kind="Whisper model", spec=self.model, known=", ".join(sorted(WHISPER_SIZES)))
        self.capabilities = _capabilities(multilingual=not self.model.endswith(".en"))
        self._cpu_threads = cpu_threads
        self._loading = threading.Lock()
        self._whisper: Any = None
        self._facts: dict[str, Any] = {}

    def load(self) -> None:
        with self._loading:
            if self._whisper is None:
                folder = find_weights(self.model, self.spec)
                self._whisper = _open_model(folder, self.spec, self._cpu_threads, self.at_once)
                self.capabilities = _capabilities(self._whisper.model.is_multilingual)
                self._facts = _facts(self._whisper, folder)

    def close(self) -> None:
        with self._loading:
            self._whisper = None

    def transcribe(self, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        self.load()
        try:
            return self._transcribe(self._whisper, windows, options)
        except RuntimeError as error:
            if "out of memory" in str(error).lower():
                raise MemoryError(str(error)) from error
            raise

    def detect_language(self, window: Window) -> str | None:
        self.load()
        if not self.capabilities.detects_language:
            return None
        encoded = self._whisper.encode(_features(self._whisper, [window]))
        return _languages(self._whisper, encoded)[0]

    def parameters(self, options: TranscribeOptions) -> Mapping[str, Any]:
        return {
            **super().parameters(options),
            "log_prob_threshold": LOG_PROB_THRESHOLD,
            "compression_ratio_threshold": COMPRESSION_RATIO_THRESHOLD,
            "no_speech_threshold": NO_SPEECH_THRESHOLD,
            "beam_size": ATTEMPTS[0].beam_size,
            **self._facts,
        }

    def _transcribe(self, whisper: Any, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        if not windows:
            return []
        features = _features(whisper, windows)
        encoded = whisper.encode(features)
        languages = self._languages(whisper, encoded, len(windows), options)
        results: dict[int, WindowResult] = {}
        for language in dict.fromkeys(languages):
            chosen = [i for i, found in enumerate(languages) if found == language]
            same = len(chosen) == len(windows)
            decoder = _Decoder(whisper, features[chosen], encoded if same else None, language, options)
            results.update(zip(chosen, decoder.results([windows[i] for i in chosen]), strict=True))
        return [results[i] for i in range(len(windows))]

    def _languages(self, whisper: Any, encoded: Any, count: int, options: TranscribeOptions) -> list[str]:
        """The language of each window: what was asked for, or else what it sounds like."""
        if not whisper.model.is_multilingual:
            return ["en"] * count
        return [options.language] * count if options.language else _languages(whisper, encoded)


class _Decoder:
    """Decodes windows of one language, together."""

    def __init__(
        self, whisper: Any, features: Features, encoded: Any, language: str, options: TranscribeOptions
    ) -> None:
        self.whisper = whisper
        self.features = features
        self.encoded = whisper.encode(features) if encoded is None else encoded
        self.language = ENGLISH if options.translate else language
        self.tokenizer = _tokenizer(whisper, language, "translate" if options.translate else "transcribe")
        prompt = (options.prompt or "").strip()
        self.prompt = self.tokenizer.encode(" " + prompt) if prompt else []

    def results(self, windows: Sequence[Window]) -> list[WindowResult]:
        decoded = self._decode_all()
        texts = [[] if found.silent else self._said(found.tokens) for found in decoded]
        frames = [max(2, math.ceil(len(window.samples) / 160)) for window in windows]
        aligned = self.whisper.find_alignment(self.tokenizer, texts, self.encoded, frames)
        return [
            self._result(window, found, words)
            for window, found, words in zip(windows, decoded, map(_timed_words, aligned), strict=True)
        ]

    def _decode_all(self) -> list[Decoded]:
        """The first acceptable attempt at each window, or else its best one."""
        best = self._attempt(ATTEMPTS[0], self.encoded)
        tried = [[found] for found in best]
        for attempt in ATTEMPTS[1:]:
            failing = [i for i, found in enumerate(best) if not found.acceptable]
            if not failing:
                break
            for i, found in zip(failing, self._attempt(attempt, self._encode(failing)), strict=True):
                tried[i].append(found)
                best[i] = _best(tried[i])
        return best

    def _encode(self, chosen: Sequence[int]) -> Any:
        return self.encoded if len(chosen) == len(self.features) else self.whisper.encode(self.features[chosen])

    def _attempt(self, attempt: Attempt, encoded: Any) -> list[Decoded]:
        prompt = self.whisper.get_prompt(self.tokenizer, self.prompt, without_timestamps=not attempt.timestamps)
        generated = self.whisper.model.generate(
            encoded,
            [prompt] * encoded.shape[0],
            beam_size=attempt.beam_size,
            no_repeat_ngram_size=attempt.no_repeat_ngram_size,
            max_length=self.whisper.max_length,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=[-1],
        )
        return [self._decoded(result) for result in generated]

    def _decoded(self, result: Any) -> Decoded:
        from faster_whisper.transcribe import get_compression_ratio

        everything = result.sequences_ids[0]
        tokens = [token for token in everything if token < self.tokenizer.eot]
        # CTranslate2 divides the sum by the length without the end token, Whisper counts it
        avg_logprob = result.scores[0] * len(everything) / (len(everything) + 1)
        ratio = get_compression_ratio(self.tokenizer.decode(tokens).strip()) if tokens else 0.0
        return Decoded(tokens, avg_logprob, result.no_speech_prob, ratio)

    def _said(self, tokens: list[int]) -> list[int]:
        """The tokens without loops; removed before alignment, or what was really said would share its time."""
        words, groups = self.tokenizer.split_to_word_tokens([*tokens, self.tokenizer.eot])
        pairs = list(zip(words, groups, strict=True))[:-1]
        return [token for _, group in without_loops(pairs, lambda pair: str(pair[0])) for token in group]

    def _result(self, window: Window, found: Decoded, words: Sequence[Word]) -> WindowResult:
        moved = [shifted(word, window.start, window.end) for word in words]
        segments = [_segment(found, piece) for piece in split_at_pauses(moved)]
        spoken = tuple(segment for segment in segments if segment.text)
        return WindowResult(spoken, self.language if spoken else None)


def _best(tried: Sequence[Decoded]) -> Decoded:
    """As Whisper chooses when nothing was acceptable: the likeliest of those that do not loop."""
    if tried[-1].acceptable:
        return tried[-1]
    straight = [found for found in tried if found.compression_ratio <= COMPRESSION_RATIO_THRESHOLD]
    return max(straight or tried, key=lambda found: found.avg_logprob)


def _segment(found: Decoded, words: Sequence[Word]) -> Segment:
    return replace(
        to_segment(words),
        confidence=round(min(1.0, math.exp(found.avg_logprob)), 4),
        avg_logprob=round(found.avg_logprob, 4),
        no_speech_prob=round(found.no_speech_prob, 4),
        compression_ratio=round(found.compression_ratio, 4),
    )


def _timed_words(alignment: list[dict[str, Any]]) -> list[Word]:
    """Words from one window's alignment, punctuation joined to the word it belongs to, pauses not counted as speech."""
    from faster_whisper.transcribe import merge_punctuations

    merge_punctuations(alignment, _PREPENDED, _APPENDED)
    words = [
        Word(float(item["start"]), float(item["end"]), item["word"], round(float(item["probability"]), 4))
        for item in alignment
        if item["word"].strip()
    ]
    return list(_without_stretching(words))


def _without_stretching(words: Sequence[Word]) -> Iterable[Word]:
    """Alignment gives the silence around a sentence to its first or last word: such a word is cut to at most twice the
    usual length, as Whisper's own code does."""
    durations = [word.end - word.start for word in words if word.end > word.start]
    limit = 2 * min(0.7, float(np.median(durations))) if durations else 0.0
    for i, word in enumerate(words):
        first = i == 0 or ends_sentence(words[i - 1].text)
        last = i == len(words) - 1 or ends_sentence(word.text)
        if word.end - word.start <= limit or not (first or last):
            yield word
        elif first and not last:
            yield Word(word.end - limit, word.end, word.text, word.probability)
        else:
            yield Word(word.start, word.start + limit, word.text, word.probability)


def _features(whisper: Any, windows: Sequence[Window]) -> Features:
    """Log-mel features of 30 s each, padded with silence as in Whisper's training."""
    if any(len(window.samples) > WINDOW_SAMPLES for window in windows):
        raise InvalidInput(reason="A window may be 30 s long at most.")
    extract = whisper.feature_extractor
    frames = extract.nb_max_frames
    padded = [np.pad(window.samples, (0, WINDOW_SAMPLES - len(window.samples))) for window in windows]
    return np.stack([extract(samples, padding=0)[:, :frames] for samples in padded]).astype(np.float32)


def _languages(whisper: Any, encoded: Any) -> list[str]:
    return [found[0][0].strip("<|>") for found in whisper.model.detect_language(encoded)]


def _tokenizer(whisper: Any, language: str, task: str) -> Any:
    from faster_whisper.tokenizer import Tokenizer

    if whisper.model.is_multilingual and whisper.hf_tokenizer.token_to_id(f"<|{language}|>") is None:
        raise InvalidInput(reason=f'This Whisper model knows no language "{language}".')
    return Tokenizer(whisper.hf_tokenizer, whisper.model.is_multilingual, task=task, language=language)


def _capabilities(multilingual: bool) -> Capabilities:
    return Capabilities(
        batch_size=_BATCH_SIZE,
        detects_language=multilingual,
        languages=None if multilingual else frozenset({ENGLISH}),
        translates=multilingual,
    )


def _open_model(folder: Path, spec: str, cpu_threads: int, at_once: int) -> Any:
    """The model on the first device that can run it; what is wrong with a GPU shows only when it is used."""
    _loaded_in.add(os.getpid())
    if len(_loaded_in) > 1:  # the threads of its OpenMP stayed in the parent; here it would wait for them for ever
        reason = "this process was forked from one that had used it; start processes afresh (spawn), or fork earlier"
        raise EngineUnavailable(spec=spec, reason=reason)
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        try:
            whisper = _open_on("cuda", folder, cpu_threads, 1)
            whisper.encode(np.zeros((1, whisper.model.n_mels, whisper.feature_extractor.nb_max_frames), np.float32))
            return whisper
        except RuntimeError as error:
            log.warning("the GPU cannot be used, the CPU is: %s", error)
    try:
        whisper = _open_on("cpu", folder, cpu_threads, at_once)
    except RuntimeError as error:
        raise EngineUnavailable(spec=spec, reason=f"{folder} cannot be loaded: {error}") from error
    if whisper.feature_extractor.mel_filters.shape[0] != whisper.model.n_mels:
        reason = f"{folder} needs a preprocessor_config.json with feature_size {whisper.model.n_mels}"
        raise EngineUnavailable(spec=spec, reason=reason)
    return whisper


def _open_on(device: str, folder: Path, cpu_threads: int, at_once: int) -> Any:
    import ctranslate2
    from faster_whisper import WhisperModel

    supported = ctranslate2.get_supported_compute_types(device)
    compute_type = next((name for name in _COMPUTE_TYPES[device] if name in supported), "default")
    threads = cpu_threads or (max(1, usable_cores() // at_once) if at_once > 1 else 0)
    return WhisperModel(str(folder), device=device, compute_type=compute_type, cpu_threads=threads, num_workers=at_once)


def _facts(whisper: Any, folder: Path) -> dict[str, Any]:
    """What shaped the result besides the options, for the transcript's provenance."""
    import ctranslate2
    import faster_whisper

    return {
        "device": whisper.model.device,
        "compute_type": whisper.model.compute_type,
        "revision": folder.name if folder.parent.name == "snapshots" else None,
        "faster_whisper": faster_whisper.__version__,
        "ctranslate2": ctranslate2.__version__,
    }
