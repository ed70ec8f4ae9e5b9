"""Where a vector database is: the URL taken apart, and refused where it holds what it must not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from audio_storage_system.errors import InvalidSetting
from audio_storage_system.registry import split_spec

SETTING = "vectors_url"


class Server(NamedTuple):
    """A server's address."""

    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """As a client wants it."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


def server(url: str, port: int) -> Server | None:
    """The server that `scheme+http://host[:port]` names; `None` for an address of a folder.

    Raises `InvalidSetting`, never quoting a secret.
    """
    scheme, _ = split_spec(url)
    if "+" not in scheme:
        return None
    try:
        parts = urlsplit(url)
        found = Server(parts.hostname or "", parts.port or port, scheme.endswith("+https"))
    except ValueError as error:
        raise InvalidSetting(name=SETTING, reason=f"after {scheme}: comes //host:port") from error
    if parts.username or parts.password or parts.query:
        raise InvalidSetting(name=SETTING, reason="an address holds no user, key or password; give them by environment")
    if not found.host or parts.path.strip("/"):
        raise InvalidSetting(name=SETTING, reason=f"after {scheme}: comes //host:port and nothing else")
    return found


def folder(url: str, home: Path) -> Path:
    """The folder that `scheme:path` names; a relative one lies in the archive's. Raises `InvalidSetting`."""
    scheme, path = split_spec(url)
    if not path or path.startswith("//"):
        raise InvalidSetting(name=SETTING, reason=f"after {scheme}: comes a folder, such as {scheme}:vectors")
    return (home / Path(path).expanduser()).absolute()
