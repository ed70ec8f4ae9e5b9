"""SQLCipher: SQLite whose file has nothing readable in it. Every page, of the write-ahead log too, is encrypted
(AES-256-CBC) and authenticated (HMAC-SHA256), full text and vectors with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

# A page that is not in a connection's own cache has to be decrypted, 10 µs, where a plain one is copied from the
# system's cache: with 16 MiB, hybrid searches in 100,000 passages take half as long again as with this.
CACHE_KIB = 65_536
_SETTINGS = (
    "PRAGMA cipher_compatibility = 4",  # the format of SQLCipher 4, whatever a later version makes by itself
    "PRAGMA cipher_hmac_algorithm = HMAC_SHA256",  # most processors compute it; SHA-512 takes half as long again
    "PRAGMA cipher_log_level = NONE",  # the errors that it returns say as much as what it prints
)


def options(path: Path, key: bytes | None, timeout: float) -> dict[str, Any]:
    """What `create_engine` is to be given for the database in this file: that of SQLite without a key, of SQLCipher
    with one. The key is in no address, and nothing that is printed or logged.

    key: 32 bytes. timeout: seconds to wait for a lock.
    """
    if key is None:
        return {"connect_args": {"check_same_thread": False, "timeout": timeout}}
    import sqlcipher3.dbapi2  # only where there is something to decrypt

    return {"module": sqlcipher3.dbapi2, "creator": _opener(sqlcipher3.dbapi2, path, key, timeout)}


def _opener(driver: Any, path: Path, key: bytes, timeout: float) -> Callable[[], Any]:
    raw = f"x'{key.hex()}'"  # in this form it is used as it is; a passphrase would be stretched for each connection

    def connect() -> Any:
        connection = driver.connect(str(path), timeout=timeout, check_same_thread=False)
        connection.set_key(raw)
        for setting in _SETTINGS:
            connection.execute(setting)
        return connection

    return connect
