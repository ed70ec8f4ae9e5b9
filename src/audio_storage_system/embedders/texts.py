"""Text as every model takes it: valid Unicode, not endless, not empty."""

from __future__ import annotations

MAX_CHARACTERS = 100_000
BLANK = "."


def readable(text: str, *, limit: int = MAX_CHARACTERS) -> str:
    """The first `limit` characters of `text`, with lone surrogates, which no tokenizer takes, replaced by `?`."""
    return text[:limit].encode("utf-8", errors="replace").decode("utf-8")


def never_blank(text: str, *, limit: int = MAX_CHARACTERS) -> str:
    """`readable`, and a full stop for nothing but white space, which services refuse along with the whole batch."""
    return readable(text, limit=limit) if not text.isspace() and text else BLANK
