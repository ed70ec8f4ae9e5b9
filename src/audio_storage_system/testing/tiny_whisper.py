"""A real Whisper model of 2 MB in CTranslate2's format, built in code: no download, no torch, deterministic.

    folder = build_tiny_whisper(tmp_path / "model", "hello again world", language="en")
    open_transcriber(f"faster-whisper:{folder}")            # decodes to that sentence, whatever it hears

Scripted: the residual stream of the decoder is the embedding of the last token and nothing else, so the output
projection is a table that says which token follows which. Not scripted (`text=None`): random weights that listen, so
that different sounds give different gibberish; for checks of batching and padding.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WIDTH, HEADS, INNER, MELS, TEXT_POSITIONS, AUDIO_POSITIONS = 64, 2, 128, 80, 448, 1500
SPACE = "\u0120"  # how byte-level BPE writes a space
DECOYS = "!#$%&"
FloatArray = npt.NDArray[np.float32]


def build_tiny_whisper(
    folder: Path,
    text: str | None = None,
    *,
    multilingual: bool = False,
    language: str = "en",
    certainty: float = 0.3,
    no_speech: bool = False,
    loop: bool = False,
    seed: int = 0,
) -> Path:
    """Write the model into `folder` and return it.

    `text`, all words different, is what every window decodes to; with `loop` over and over until the length limit.
    `language` is what is detected where `multilingual`. A `certainty` of 0.05 gives an average log probability below
    -1, and `no_speech` a no-speech probability near 1.
    """
    from ctranslate2.specs import WhisperSpec
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    languages = list(_LANGUAGE_CODES)
    words = [SPACE + word for word in (text or "the and of to").split()]
    tokenizer = _tokenizer(languages, words, multilingual)
    size = tokenizer.get_vocab_size()
    spec = WhisperSpec(1, HEADS, 1, HEADS)
    weights = _Weights(np.random.default_rng(seed), scripted=text is not None)
    weights.fill(spec, size)
    if text is None:
        spec.decoder.projection.weight[tokenizer.token_to_id("<|endoftext|>")] *= 4  # or it would seldom end
    else:
        follow = _follow(words, f"<|{language}|>" if multilingual else "<|0.00|>", loop)
        _script(spec.decoder, tokenizer.token_to_id, follow, certainty, no_speech, seed)
    _configure(spec, tokenizer, languages)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    features = {"chunk_length": 30, "feature_size": MELS, "hop_length": 160, "n_fft": 400, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(features))
    return folder


def _tokenizer(languages: Sequence[str], words: Sequence[str], multilingual: bool) -> Any:
    """Byte-level BPE in which each of `words` is one token. The order of ids is that of Whisper, and load-bearing:
    text < end < start < languages < tasks < no timestamps < timestamps."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                merges.append((word[: end - 1], word[end - 1]))
                vocabulary[word[:end]] = len(vocabulary)
    if multilingual:
        vocabulary[""] = len(vocabulary)  # by which CTranslate2 tells a multilingual model
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev"]
    special = [f"<|{name}|>" for name in [*names, "nospeech", "notimestamps"]]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    stamps = [f"<|{i * 0.02:.2f}|>" for i in range(AUDIO_POSITIONS + 1)]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in stamps])
    return tokenizer


class _Weights:
    """Fills a specification with random weights; a scripted decoder adds nothing to its residual stream."""

    def __init__(self, rng: np.random.Generator, scripted: bool) -> None:
        self.rng = rng
        self.scripted = scripted

    def fill(self, spec: Any, vocabulary_size: int) -> None:
        encoder, decoder = spec.encoder, spec.decoder
        encoder.conv1.weight, encoder.conv1.bias = self.random(WIDTH, MELS, 3, scale=0.2), self.random(WIDTH)
        encoder.conv2.weight, encoder.conv2.bias = self.random(WIDTH, WIDTH, 3, scale=0.2), self.random(WIDTH)
        encoder.position_encodings.encodings = self.random(AUDIO_POSITIONS, WIDTH)
        decoder.embeddings.weight = self.random(vocabulary_size, WIDTH)
        positions = self.random(TEXT_POSITIONS, WIDTH, scale=0.2)
        decoder.position_encodings.encodings = np.zeros_like(positions) if self.scripted else positions
        for layer in encoder.layer:
            self.attention(layer.self_attention, (3 * WIDTH, WIDTH))
            self.feed_forward(layer.ffn)
        for layer in decoder.layer:
            self.attention(layer.self_attention, (3 * WIDTH, WIDTH), silent=self.scripted)
            self.attention(layer.attention, (WIDTH, 2 * WIDTH, WIDTH), silent=self.scripted)
            self.feed_forward(layer.ffn, silent=self.scripted)
        self.norm(encoder.layer_norm)
        self.norm(decoder.layer_norm)
        decoder.projection.weight = self.random(vocabulary_size, WIDTH, scale=0.3)

    def random(self, *shape: int, scale: float = 0.05) -> FloatArray:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def norm(self, layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def linear(self, layer: Any, rows: int, columns: int, silent: bool = False) -> None:
        layer.weight, layer.bias = self.random(rows, columns, scale=0.2), self.random(rows)
        if silent:
            layer.weight[:], layer.bias[:] = 0, 0

    def attention(self, layer: Any, rows: tuple[int, ...], silent: bool = False) -> None:
        self.norm(layer.layer_norm)
        for i, count in enumerate(rows):
            self.linear(layer.linear[i], count, WIDTH, silent=silent and i == len(rows) - 1)

    def feed_forward(self, layer: Any, silent: bool = False) -> None:
        self.norm(layer.layer_norm)
        self.linear(layer.linear_0, INNER, WIDTH)
        self.linear(layer.linear_1, WIDTH, INNER, silent=silent)


def _follow(words: Sequence[str], start_token: str, loop: bool) -> list[tuple[str, str]]:
    """Which token follows which, with or without timestamps."""
    end = f"<|{min(0.5 * len(words), 29.0):.2f}|>"
    chain = [("<|startoftranscript|>", start_token), ("<|transcribe|>", "<|0.00|>"), ("<|0.00|>", words[0])]
    chain += [("<|notimestamps|>", words[0]), *itertools.pairwise(words)]
    if loop:
        return [*chain, (words[-1], words[0])]
    return [*chain, (words[-1], end), (words[-1], "<|endoftext|>"), (end, "<|endoftext|>")]


def _script(
    decoder: Any, number: Any, follow: Sequence[tuple[str, str]], certainty: float, no_speech: bool, seed: int
) -> None:
    """Arrange the decoder's output so that tokens follow each other as in `follow`."""
    scripted = list(dict.fromkeys([*itertools.chain.from_iterable(follow), *DECOYS]))
    rows = _orthogonal(len(scripted), np.random.default_rng(seed))
    embeddings, table = decoder.embeddings.weight, np.zeros_like(decoder.embeddings.weight)
    embeddings[[number(token) for token in scripted]] = rows

    def add(previous: str, following: str, weight: float) -> None:
        table[number(following)] += weight * np.sqrt(WIDTH, dtype=np.float32) * embeddings[number(previous)]

    for previous, following in follow:
        # where no timestamp may follow the last word, the end is the runner-up
        runner_up = following == "<|endoftext|>" and not previous.startswith("<")
        add(previous, following, certainty * (0.75 if runner_up else 1))
        # beam search stops once enough beams have ended, however bad: these keep the others busy and never end
        for decoy in DECOYS:
            add(previous, decoy, certainty * 0.4)
    if no_speech:
        add("<|startoftranscript|>", "<|nospeech|>", max(0.3, 2 * certainty))
    decoder.projection.weight = table


def _orthogonal(count: int, rng: np.random.Generator) -> FloatArray:
    """Unit rows of mean 0, each at right angles to all others, so that no token is mistaken for another."""
    if count >= WIDTH:
        raise ValueError("the text is too long for a model this small")
    columns = np.column_stack([np.ones(WIDTH), rng.standard_normal((WIDTH, count))])
    basis, _ = np.linalg.qr(columns)
    return np.ascontiguousarray(basis[:, 1:].T, dtype=np.float32)


def _configure(spec: Any, tokenizer: Any, languages: Sequence[str]) -> None:
    number = tokenizer.token_to_id
    never = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
    spec.config.lang_ids = [number(f"<|{language}|>") for language in languages]
    spec.config.suppress_ids = [number(f"<|{name}|>") for name in never]
    spec.config.suppress_ids_begin = [number(SPACE), number("<|endoftext|>")]
    spec.config.alignment_heads = [[0, head] for head in range(HEADS)]
    spec.register_vocabulary([tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())])
    spec.validate()
    spec.optimize()
