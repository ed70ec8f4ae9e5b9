"""Text as search terms: the same for a passage that is indexed and for a query that looks for it.

Pure functions. A term holds only letters, digits and marks, never white space, quotes, operators, NULs or lone
surrogates: between double quotes it is safe in any full-text engine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from itertools import pairwise, repeat

MAX_WORD_LENGTH = 200

# Snowball's algorithm for an ISO 639-1 language.
STEMMERS = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nb": "norwegian",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}

# Writing that does not put spaces between words, and Hangul, whose particles cling to the words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
    "\u3005-\u3007\u3031-\u3035\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7a3"  # Hangul
)
# Marks that people leave out: Latin, Greek and Cyrillic diacritics, Hebrew points, Arabic vowel signs and tatweel. The
# marks of other scripts are vowels or tones, without which a word is another word.
_OPTIONAL_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff]+"
)
_STROKES = str.maketrans("øłđħıŧ", "oldhit")  # strokes are no marks: Unicode does not decompose these letters
# What no ASCII character parts: nearly always a word already, found ten times as fast as by the tables of Unicode.
_CHUNK = re.compile("[0-9A-Za-z\x80-\U0010ffff]+")
# Soft hyphen, joiners and byte order mark go; and the Russian stemmer wants е for ё.
_TIDY = {**dict.fromkeys(map(ord, "\u00ad\u200c\u200d\u2060\ufeff")), ord("ё"): "е"}


def terms(text: str, language: str | None) -> tuple[list[str], list[str]]:
    """The `words` and the `stems` of `text`, which is split once for both."""
    forms = list(map(_forms, split(text), repeat(language)))
    return [term for said, _ in forms for term in said], [stemmed for _, stemmed in forms if stemmed]


def words(text: str) -> list[str]:
    """The words of `text` in order, case and diacritics folded.

    A run of unspaced writing gives its pairs of neighbouring characters and then its last character: so a pair finds
    itself in a run of any length, and every character begins a term.
    """
    return terms(text, None)[0]


def stems(text: str, language: str | None) -> list[str]:
    """The stems of those words of `text` whose stem is another word; none for a language without a stemmer."""
    return terms(text, language)[1]


def count_words(text: str) -> float:
    """How long `text` is, in words; two characters of unspaced writing count as one word."""
    return sum(len(characters(word)) / 2 if is_unspaced(word) else 1 for word in split(text))


def split(text: str) -> list[str]:
    """The words of `text` in order with case and width folded but diacritics kept, as stemmers need them; a run of
    unspaced writing is one word. Each has something that `bare` leaves."""
    folded = _fold(text)
    chunks: list[str] = _CHUNK.findall(folded)
    if folded.isascii():
        return [chunk[:MAX_WORD_LENGTH] for chunk in chunks]
    return [word for chunk in chunks for word in ([chunk[:MAX_WORD_LENGTH]] if chunk.isascii() else _split(chunk))]


def _split(chunk: str) -> Iterator[str]:
    patterns = _patterns()
    for word in patterns.word.findall(chunk):
        for part in [word] if word.isascii() else patterns.part.findall(word):
            if is_unspaced(part):
                yield part
            elif bare(part[:MAX_WORD_LENGTH]):
                yield part[:MAX_WORD_LENGTH]


def is_unspaced(word: str) -> bool:
    """Whether a word from `split` is a run of unspaced writing."""
    return not word.isascii() and _patterns().unspaced.match(word) is not None


def characters(run: str) -> list[str]:
    """The characters of a run of unspaced writing as a reader sees them: letters with their marks."""
    return _patterns().character.findall(run)


def pairs(run: str) -> list[str]:
    """The neighbouring characters of a run of unspaced writing, two by two; none for a single character."""
    return [first + second for first, second in pairwise(characters(run))]


@lru_cache(maxsize=1024)
def stemmer_of(language: str | None) -> str | None:
    """The name of the stemming algorithm for a language code such as `de` or `pt-BR`; `None` where there is none."""
    return STEMMERS.get(re.split("[-_]", language or "")[0].lower())


@lru_cache(maxsize=65_536)
def stem(word: str, language: str | None) -> str:
    """The stem of a word from `split`, without diacritics; the bare word where the language has no stemmer."""
    algorithm = stemmer_of(language)
    if algorithm is None or is_unspaced(word):
        return bare(word)
    return bare(_stemmer(algorithm)(word)) or bare(word)


@lru_cache(maxsize=65_536)
def bare(word: str) -> str:
    """`word` without the diacritics that people leave out."""
    if word.isascii():
        return word
    decomposed = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", _OPTIONAL_MARKS.sub("", decomposed)).translate(_STROKES)


@lru_cache(maxsize=65_536)
def _forms(word: str, language: str | None) -> tuple[list[str], str | None]:
    """The terms of a word from `split`, and its stem where that is another word. Words repeat: most are known."""
    if is_unspaced(word):
        return [*pairs(word), *characters(word)[-1:]], None
    stemmed = stem(word, language)
    return [bare(word)], stemmed if stemmed != bare(word) else None


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_TIDY)


@cache
def _stemmer(algorithm: str) -> Callable[[str], str]:
    from py_rust_stemmers import SnowballStemmer

    stem_word: Callable[[str], str] = SnowballStemmer(algorithm).stem_word
    return stem_word


class _Patterns:
    """Regular expressions over Python's own Unicode tables: its `\\w` lacks the marks inside words."""

    def __init__(self) -> None:
        marks = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c).startswith("M"))
        self.word = re.compile(f"[^\\W_]+(?:[{marks}]+[^\\W_]*)*")
        self.part = re.compile(f"(?:[{_UNSPACED}][{marks}]*)+|[^{_UNSPACED}]+")
        self.unspaced = re.compile(f"[{_UNSPACED}]")
        self.character = re.compile(f".[{marks}]{{0,8}}")


@cache
def _patterns() -> _Patterns:
    return _Patterns()
