"""Where the key comes from that opens an archive's own keys: it is never kept with the archive."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from platformdirs import user_config_path

from audio_storage_system.errors import Conflict, InvalidInput, KeyMissing, KeyRefused
from audio_storage_system.keys.wrapping import KEY_BYTES, new_key

# Scrypt's cost, RFC 7914: 128 MiB of memory and about .3 s, once per process.
SCRYPT = {"n": 1 << 17, "r": 8, "p": 1}
LARGEST_COST = 1 << 20
KEYRING = "keyring"
PASSPHRASE = "passphrase"  # noqa: S105 - a kind of slot
SERVICE = "audio-storage"
LARGEST_FILE = 4096
NO_PASSPHRASE = "it wants its passphrase, from AUDIO_STORAGE_PASSPHRASE"  # noqa: S105 - says how to give it


@dataclass(frozen=True, slots=True)
class KeySource:
    """A key as base64 text, a passphrase, a key file, or the keyring of the operating system; else the key file that
    the archive has in the user's own configuration folder."""

    key: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    key_file: str = ""
    kind: str = ""

    @property
    def is_passphrase(self) -> bool:
        return bool(self.passphrase) and not self.key

    def file_of(self, archive_id: str) -> Path:
        """The key file in question."""
        if self.key_file:
            return Path(self.key_file).expanduser().absolute()
        return user_config_path(SERVICE) / "keys" / f"{archive_id}.key"

    def find(self, archive_id: str, place: str) -> bytes:
        """The key: 32 bytes. Raises `KeyMissing`, `KeyRefused`."""
        if self.key:
            return decoded(self.key, place)
        if self.kind == KEYRING:
            return _from_keyring(archive_id, place)
        self._refuse_without_passphrase(place)
        return read_key_file(self.file_of(archive_id), place)

    @property
    def is_file(self) -> bool:
        """Whether the key is in a file."""
        return not (self.key or self.passphrase or self.kind)

    def _refuse_without_passphrase(self, place: str) -> None:
        if self.kind == PASSPHRASE:
            raise KeyMissing(place=place, reason=NO_PASSPHRASE, passphrase=True)

    def make(self, archive_id: str, place: str) -> tuple[bytes, Path | None]:
        """A key for a new archive: the one that is given, else a new one, kept where `find` looks for it; and the file
        that was made. Raises as `find` does."""
        if self.key:
            return decoded(self.key, place), None
        if self.kind == KEYRING:
            if (text := _keyring(place).get_password(SERVICE, archive_id)) is None:
                text = encoded(new_key())
                _keyring(place).set_password(SERVICE, archive_id, text)
            return decoded(text, place), None
        self._refuse_without_passphrase(place)
        file = self.file_of(archive_id)
        if file.exists():
            return read_key_file(file, place), None
        key = new_key()
        write_key_file(file, key)
        return key, file


def encoded(key: bytes) -> str:
    """A key as text."""
    return base64.b64encode(key).decode()


def decoded(text: str, place: str) -> bytes:
    """A key that was written as text: base64 of 32 bytes. Raises `KeyRefused`."""
    try:
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyRefused(place=place, reason="it is not base64") from error
    if len(key) != KEY_BYTES:
        raise KeyRefused(place=place, reason=f"it has {len(key)} bytes and not {KEY_BYTES}")
    return key


def read_key_file(file: Path, place: str) -> bytes:
    """The key in a file that nobody but its owner may read. Raises `KeyMissing`, `KeyRefused`."""
    try:
        with file.open("rb") as opened:
            if os.name == "posix" and (mode := stat.S_IMODE(os.fstat(opened.fileno()).st_mode)) & 0o077:
                reason = f"others may read {file} (its mode is {mode:04o}); protect it with: chmod 600 {file}"
                raise KeyRefused(place=place, reason=reason)
            text = opened.read(LARGEST_FILE)
    except OSError as error:
        reason = f"the key file {file} cannot be read ({error.strerror}); name it in AUDIO_STORAGE_KEY_FILE"
        raise KeyMissing(place=place, reason=reason) from error
    return decoded(text.decode("ascii", "replace"), place)


def write_key_file(file: Path, key: bytes) -> None:
    """Put a key into a new file, readable for its owner only, durable when it returns. Raises `Conflict` where there is
    a file already, `InvalidInput` where none can be made."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict(reason=f"There is a file {error.filename} already; name a new one for the key") from error
    except OSError as error:
        raise InvalidInput(reason=f"No key can be written to {file}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(encoded(key) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


@lru_cache(maxsize=8)
def stretched(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """A key from a passphrase, by scrypt (RFC 7914); each is stretched once per process."""
    return Scrypt(salt=salt, length=KEY_BYTES, n=n, r=r, p=p).derive(passphrase.encode())


def _from_keyring(archive_id: str, place: str) -> bytes:
    text = _keyring(place).get_password(SERVICE, archive_id)
    if text is None:
        raise KeyMissing(place=place, reason="the keyring of this account has none for it")
    return decoded(text, place)


def _keyring(place: str) -> Any:
    try:
        import keyring
    except ImportError as error:
        reason = 'keyrings need a package: pip install "audio-storage-system[keyring]"'
        raise KeyMissing(place=place, reason=reason) from error
    return keyring
