"""Files that were encrypted with Fernet, as the guide shows: `Fernet(key).encrypt(audio_bytes)`."""

from __future__ import annotations

import io
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from audio_storage_system.errors import InvalidInput, KeyRefused, TooLarge
from audio_storage_system.pipeline.storing import opened_file

# Fernet has to have all of it in memory, encrypted and not.
MOST_BYTES = 1 << 30
SUFFIXES = (".enc", ".encrypted", ".fernet")


def decrypted(path: Path, key: str | bytes, max_bytes: int) -> io.BytesIO:
    """The content of a Fernet file, in memory only. Raises `InvalidInput` for what is no Fernet key, `KeyRefused` for
    another key than the file's or a file that was changed, `TooLarge` beyond `max_bytes` or a gibibyte."""
    try:
        fernet = Fernet(key.strip())
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(reason="A Fernet key is 32 bytes in URL-safe base64") from None
    most = min(max_bytes, MOST_BYTES)
    with opened_file(path, 2 * most) as file:
        token = file.read(2 * most)
    try:
        content = fernet.decrypt(token.strip())
    except InvalidToken:
        message = f"{path.name} is not a Fernet file of this key, or it was changed. Nothing was stored."
        raise KeyRefused(message) from None
    if len(content) > most:
        raise TooLarge(what=path.name, limit=f"{most:,} bytes")
    return io.BytesIO(content)


def inner_name(path: Path) -> str:
    """What the file was called before: `talk.wav.enc` → `talk.wav`."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name
