"""From timed words to segments: where a recogniser gives no sentences, punctuation and pauses make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from audio_storage_system.records import Segment, Word

PAUSE_SECONDS = 0.6
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "…", "।", "؟")
_CLOSING = "\"'”’»)]」』"
_ABBREVIATIONS = frozenset("mr. mrs. ms. dr. prof. st. vs. etc. e.g. i.e. u.s. a.m. p.m.".split())


def ends_sentence(word: str) -> bool:
    """Whether a sentence ends with `word`, as far as its punctuation tells."""
    bare = word.strip().rstrip(_CLOSING)
    return bare.endswith(SENTENCE_ENDS) and bare.lower() not in _ABBREVIATIONS


def split_at_pauses(words: Sequence[Word], pause_seconds: float = PAUSE_SECONDS) -> Iterator[list[Word]]:
    """The words of each sentence: a piece ends where a sentence does or where nothing is said for `pause_seconds`."""
    piece: list[Word] = []
    for word in words:
        if piece and (ends_sentence(piece[-1].text) or word.start - piece[-1].end > pause_seconds):
            yield piece
            piece = []
        piece.append(word)
    if piece:
        yield piece


def to_segment(words: Sequence[Word]) -> Segment:
    """One segment out of words whose texts carry their own spaces, as Whisper gives them."""
    text = "".join(word.text for word in words).strip()
    stripped = tuple(replace(word, text=word.text.strip()) for word in words)
    return Segment(words[0].start, words[-1].end, text, stripped)


def shifted(word: Word, seconds: float, limit: float) -> Word:
    """`word` moved by `seconds`, to the millisecond, cut to end no later than `limit`."""
    start = min(max(word.start, 0.0) + seconds, limit)
    end = min(max(word.end + seconds, start), limit)
    return replace(word, start=round(start, 3), end=round(end, 3))
