"""Addresses of databases and stores: how they are shown, and what must not stand in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_HIDDEN = r"(?:\w*(?:password|passwd|secret|token|signature|credential|key|key_id)\w*|sig|sas)"
_USER = re.compile(r"(?<=://)([^/?#@]*?)(:[^/?#]*)?@")
_QUERY = re.compile(rf"(?i)(?<=[?&])({_HIDDEN})=[^&#\s]*")


def redacted(url: str) -> str:
    """`url` as it may be shown: passwords, keys and tokens are `***`."""
    shown = _USER.sub(lambda found: f"{found[1]}{':***' if found[2] else ''}@", url)
    return _QUERY.sub(r"\1=***", shown)


def holds_secret(url: str) -> bool:
    """Whether a user name, a password, a key or a token stands in `url`."""
    return "@" in urlsplit(url).netloc or bool(_QUERY.search(url))
