"""Addresses as people may see them: without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

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
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon}{HIDDEN if colon else ''}{at}{host}"
    query = _SECRET.sub(lambda found: f"{found[1]}={HIDDEN}", parts.query)
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"


def without_user(url: str) -> str:
    """`url` without secrets and without who asks: the same for everybody who means the same place."""
    scheme, _, rest = redacted(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
