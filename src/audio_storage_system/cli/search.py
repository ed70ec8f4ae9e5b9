"""`search`: what was said, or what sounds alike."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput
from audio_storage_system.notation import parse_where

if TYPE_CHECKING:
    from audio_storage_system import Hit, SearchResults

EXCERPT_CHARACTERS = 240


class Mode(StrEnum):
    """How a text is searched for."""

    HYBRID = "hybrid"
    SEMANTIC = "semantic"
    KEYWORD = "keyword"


class By(StrEnum):
    """In what respect hits are like an example."""

    TRANSCRIPT = "transcript"
    AUDIO = "audio"
    COMBINED = "combined"


def search(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to look for, in any words.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many hits.")] = 10,
    offset: Annotated[int, typer.Option(help="How many of the best hits to leave out.")] = 0,
    mode: Annotated[
        Mode, typer.Option(help="By meaning (semantic), by its words (keyword), or both (hybrid).")
    ] = Mode.HYBRID,
    where: options.Where = None,
    since: options.Since = None,
    until: options.Until = None,
    language: options.SpokenLanguage = None,
    speaker: options.Speaker = None,
    context: Annotated[int, typer.Option(metavar="N", help="Show N segments before and after each hit.")] = 0,
    like: Annotated[
        str | None, typer.Option(metavar="FILE", help="Look for what is like this recording, instead of a text.")
    ] = None,
    by: Annotated[
        By, typer.Option(help="With --like: what it sounds like (audio), what it says (transcript), or both.")
    ] = By.AUDIO,
    pack: Annotated[
        bool, typer.Option("--pack", help="Give the best passages as one text with citations, for a language model.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="With --pack: how long that text may be.")] = 2000,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Give up (exit code 8) when it takes longer.")
    ] = None,
    as_user: options.AsUser = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Find the seconds where something was said, by meaning and by words.

    Each hit shows its recording, its time and how similar it is (-1 to 1).
    """
    if (text is None) == (like is None):
        raise InvalidInput(reason="Give either a text to search for or --like FILE")
    if pack and text is None:
        raise InvalidInput(reason="--pack answers a text, not --like")
    out = Output(as_json)
    limits: dict[str, Any] = {
        "where": parse_where(where),
        "since": since,
        "until": until,
        "language": language,
        "speaker": speaker,
        "deadline": deadline,
    }
    with opened(archive, as_user=as_user) as storage:
        if pack and text is not None:
            found = storage.context_pack(text, max_tokens, **limits)
            out.result(found.as_dict(), found.text or "Nothing found.")
            return
        example: dict[str, Any] = {"audio": like, "by": by.value} if like else {"mode": mode.value}
        results = storage.search_similar_audio(text, limit, context=context, offset=offset, **example, **limits)
    out.document(results.as_dict())
    if results.index is not None and not out.as_json:
        say(f"Indexed {results.index.indexed} of {results.index.total}; the rest was compared one by one.")
    show_hits(results, out, first=offset + 1)


def show_hits(results: SearchResults, out: Output, first: int = 1) -> None:
    """The hits for people, numbered from `first`."""
    words = _words(results.query)
    for number, hit in enumerate(results, first):
        _show_hit(number, hit, words, out)
    if not results.hits and not out.as_json:
        say("Nothing found.")


def _show_hit(number: int, hit: Hit, words: re.Pattern[str] | None, out: Output) -> None:
    similarity = "    –" if math.isnan(hit.similarity) else f"{hit.similarity:5.2f}"
    speaker = f"  {hit.speaker}" if hit.speaker else ""
    flags = f"  [{', '.join(hit.flags)}]" if hit.flags else ""
    out.styled(
        (f"{number:>3}  ", "bold"),
        (hit.original_name, "cyan"),
        (f"  {clock(hit.start)}–{clock(hit.end)}", "green"),
        (f"  at {clock(hit.at)}  {similarity}{speaker}{flags}", "dim"),
    )
    for piece in hit.before:
        out.styled((f"     {piece.text.strip()}", "dim"))
    out.styled(("     ", ""), *_marked(excerpt(hit), words))
    for piece in hit.after:
        out.styled((f"     {piece.text.strip()}", "dim"))


def excerpt(hit: Hit) -> str:
    """The hit's text around the second to jump to, as far as its share of the time tells where that is."""
    text = hit.transcription or "(no speech)"
    if len(text) <= EXCERPT_CHARACTERS:
        return text
    place = round(len(text) * (hit.at - hit.start) / max(hit.end - hit.start, 0.01))
    first = min(max(0, place - EXCERPT_CHARACTERS // 4), len(text) - EXCERPT_CHARACTERS)
    last = first + EXCERPT_CHARACTERS
    cut = text[first:last]
    head, tail = ("… " if first > 0 else ""), (" …" if last < len(text) else "")
    cut = cut.split(" ", 1)[-1] if head else cut
    return head + (cut.rsplit(" ", 1)[0] if tail else cut) + tail


def _words(query: str) -> re.Pattern[str] | None:
    """The words of the query, as what to mark: longer ones also with another ending, short ones only by themselves."""
    words = sorted(set(re.findall(r"\w+", query.lower()[:1000])), key=len, reverse=True)
    words = [word for word in words if len(word) > 3] or words
    stems = [re.escape(word[:-1] if len(word) > 4 else word) + (r"\w*" if len(word) > 4 else r"\b") for word in words]
    return re.compile(rf"\b(?:{'|'.join(stems)})", re.IGNORECASE) if stems else None


def _marked(text: str, words: re.Pattern[str] | None) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    place = 0
    for match in words.finditer(text) if words else ():
        parts += [(text[place : match.start()], ""), (match[0], "bold yellow")]
        place = match.end()
    return [*parts, (text[place:], "")]
