"""Addresses as people may see them: without their secrets."""

from __future__ import annotations

import re

HIDDEN = "***"
# Parameters of an address that may hold a secret.
_SECRET = re.compile(r"(?i)\b((?:ssl)?password|passwd|pwd|secret|token|key|signature|sig)=[^&\s]*")


def is_url(place: object) -> bool:
    """Whether `place` is an address rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(place)) is not None


def redacted(url: str) -> str:
    """`url` with passwords and keys replaced by `***`; a path stays as it is."""
    if not is_url(url):
        return url
    scheme, _, rest = url.partition("://")
    before, at, place = rest.rpartition("@")  # the last one: a password may hold any character, also @, /, ? and #
    user, colon, _ = before.partition(":")
    place, mark, query = place.partition("#")[0].partition("?")
    query = _SECRET.sub(lambda found: f"{found[1]}={HIDDEN}", query)
    return f"{scheme}://{user}{colon}{HIDDEN if colon else ''}{at}{place}{mark if query else ''}{query}"
