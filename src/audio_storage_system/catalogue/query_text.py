"""What a person types into the search box, as terms that any full-text engine can look up. Pure.

    budget meeting     passages with any of the words, the rarer and the more of them the better; any form of a word
    "ask not"          the passage must say exactly this (case and diacritics aside)
    -draft  -"a b"     the passage must not say this
    budg*              any word that begins so

Everything else is words: no character is an error, and nothing of the database's own query language gets through.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, TypeVar

from audio_storage_system.catalogue.analysis import bare, characters, is_unspaced, pairs, split, stem

# Longer texts are searched by their beginning, which bounds the work.
MAX_CHARACTERS = 10_000
MAX_PARTS = 64
# A shorter beginning is in too many words to say anything.
MIN_PREFIX_LENGTH = 2

_T = TypeVar("_T")

_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»「」『』＂", '"'))
_PART = re.compile(r'(?P<no>-?)"(?P<phrase>[^"]*)"|(?P<chunk>[^\s"]+)')


@dataclass(frozen=True, slots=True)
class Word:
    """One loose word by its forms, any of which will do; or, with one form, the beginning of words."""

    forms: tuple[str, ...]
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words just as said, one after the other; with `is_prefix` the last is the beginning of a word."""

    terms: tuple[str, ...]
    is_prefix: bool = False


Expression: TypeAlias = Word | Phrase


@dataclass(frozen=True, slots=True)
class Query:
    """Any of `words`, all of `required`, none of `excluded`."""

    words: tuple[Word, ...] = ()
    required: tuple[Phrase, ...] = ()
    excluded: tuple[Expression, ...] = ()


def parse(text: str, languages: Collection[str | None] = ()) -> Query:
    """`text` as a query; a loose word stands for its stem in each of `languages`."""
    words: list[Word] = []
    required: list[Phrase] = []
    excluded: list[Expression] = []
    for part in _PART.finditer(text[:MAX_CHARACTERS].translate(_QUOTES)):
        chunk = part["chunk"] or ""
        if part["phrase"] is not None:
            (excluded if part["no"] else required).extend(_phrase(split(part["phrase"])))
        elif chunk.startswith("-"):
            excluded.extend(_exclusion(split(chunk), languages))
        else:
            words.extend(_loose(split(chunk), chunk.endswith("*"), languages))
    return Query(_first(words), _first(required), _first(excluded))


def _first(parts: list[_T]) -> tuple[_T, ...]:
    return tuple(islice(dict.fromkeys(parts), MAX_PARTS))


def _loose(words: list[str], is_prefix: bool, languages: Collection[str | None]) -> Iterator[Word]:
    for number, word in enumerate(words, start=1):
        if is_unspaced(word):
            yield from (Word((pair,)) for pair in pairs(word)) if pairs(word) else [Word((word,), is_prefix=True)]
        elif is_prefix and number == len(words) and len(bare(word)) >= MIN_PREFIX_LENGTH:
            yield Word((bare(word),), is_prefix=True)
        else:
            yield _any_form(word, languages)


def _any_form(word: str, languages: Collection[str | None]) -> Word:
    return Word(tuple(sorted({stem(word, language) for language in languages or [None]})))


def _exclusion(words: list[str], languages: Collection[str | None]) -> Sequence[Expression]:
    """Every form of one word, but only the very phrase of several: `-don't` must not exclude all that says `t`."""
    if len(words) == 1 and not is_unspaced(words[0]):
        return [_any_form(words[0], languages)]
    return _phrase(words)


def _phrase(words: list[str]) -> list[Phrase]:
    """At most one expression. A run of unspaced writing goes on to its last character only if a word follows, because
    in the passage it may be longer; so a run of one character is a prefix."""
    terms: list[str] = []
    for number, word in enumerate(words, start=1):
        is_last = number == len(words)
        if not is_unspaced(word):
            terms.append(bare(word))
        else:
            terms += pairs(word) + ([] if is_last and pairs(word) else characters(word)[-1:])
    ends_in_prefix = bool(words) and is_unspaced(words[-1]) and not pairs(words[-1])
    return [Phrase(tuple(terms), ends_in_prefix)] if terms else []
