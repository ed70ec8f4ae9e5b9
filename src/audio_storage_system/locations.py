"""Addresses of databases and stores: how they are shown, and what must not stand in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_HIDDEN = r"(?:\w*(?:password|passwd|secret|token|signature|credential|key|key_id)\w*|sig|sas)"
_QUERY = re.compile(rf"(?i)(?<=[?&])({_HIDDEN})=[^&#\s]*")


def is_url(place: object) -> bool:
    """Whether `place` is an address rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(place)) is not None


def redacted(url: str) -> str:
    """`url` as it may be shown: passwords, keys and tokens are `***`; a path stays as it is."""
    if not is_url(url):
        return url
    scheme, _, rest = url.partition("://")
    before, at, place = rest.rpartition("@")  # the last one: a password may hold any character, also @, /, ? and #
    user, colon, _ = before.partition(":")
    shown = f"{scheme}://{user}{':***' if colon else ''}{at}{place.partition('#')[0]}"
    return _QUERY.sub(r"\1=***", shown)


def holds_secret(url: str) -> bool:
    """Whether a user name, a password, a key or a token stands in `url`."""
    return "@" in urlsplit(url).netloc or bool(_QUERY.search(url))


def without_user(url: str) -> str:
    """`url` without secrets and without who asks: the same for everybody who means the same place."""
    scheme, _, rest = redacted(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
