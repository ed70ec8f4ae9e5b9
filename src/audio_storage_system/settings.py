"""Settings: the only place that reads the environment and the configuration file.

What is given in code comes first, then the environment (`AUDIO_STORAGE_…`), then `audio-storage.toml` in the archive's
folder, then the same file in the user's configuration folder, then the defaults below.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from audio_storage_system.clock import MOST_DAYS
from audio_storage_system.errors import InvalidInput, InvalidSetting
from audio_storage_system.keys import KeySource
from audio_storage_system.keys.sources import KEYRING, PASSPHRASE, encoded
from audio_storage_system.locations import is_url, redacted

PREFIX = "AUDIO_STORAGE_"
FILE_NAME = "audio-storage.toml"
DEFAULT_HOME = "audio_storage"
# The settings that say where the parts of an archive are.
PLACES = ("database_url", "replica_url", "blobs_url", "cdn_url", "vectors_url")
# What a place for backups can be called.
DESTINATION = re.compile(r"[A-Za-z0-9_-]{1,64}")
BACKENDS = {"sqlite": "sqlite", "postgres": "postgresql", "postgresql": "postgresql"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an archive can be told. Every field is a key of `audio-storage.toml` and, upper case, of the environment.

    transcriber: engine for `add` and `generate_transcript` (`AUDIO_STORAGE_TRANSCRIBER`).
    transcriber_fallback: engine used when the first one's weights are not to be had; empty for none.
    model_idle_seconds: a model that nothing has used for so long is taken out of memory; 0: at once, `inf` or a
        negative number: never.
    transcribe_at_once: how many transcriptions this process runs at the same time; a Whisper model on the processor is
        loaded once for all of them, and they share the cores. `add --jobs` and the like set it.
    language: ISO 639-1 code of what is spoken; empty lets the engine decide.
    text_embedder, audio_embedder: of a new archive; read from here only when it is made, see `reembed` for later.
    combined_weight: share of the words, 0…1, in combined embeddings.
    sidecars: also write transcripts and embeddings as files.
    compress: make a derived 16 kHz copy of each recording, `flac` or `pcm16`; empty for none.
    max_file_bytes: larger files are refused.
    upload_days: an upload in parts to which nothing has happened for so many days is removed; fractions count.
    uploads_at_once: how many of them one principal may have that are not finished.
    uploads_bytes: how large these may be together.
    database_url: the PostgreSQL database of the catalogue; empty for SQLite in the archive's folder.
    replica_url: a copy of that database to search on; what this process has just written is found all the same.
    pool_size, pool_overflow, pool_timeout, pool_recycle, pool_pre_ping: connections kept, connections beyond these,
    seconds to wait for one, seconds until one is replaced, and whether each is asked for life before it is used.
    partition: how the derived search table of PostgreSQL is cut, fixed when it is made: `year`, `month`, `owner:N`.
    vectors_url: the vector database that searches ask, such as `qdrant+http://host:6333`; empty for the catalogue's own
    index. Keys for it are never part of the address.
    accept_plaintext_vectors: let an encrypted archive keep its vectors there, where they are not encrypted.
    blobs_url: where the recordings' bytes are kept, `s3://bucket/prefix`, `gs://…` or `az://…`; empty for the archive's
        folder.
    blob_cache_bytes: how much of what was read from there is kept on this machine, so that it is fetched once; 0 for
        nothing.
    blob_cache_dir: the folder for that, with one folder below it for each place; empty for the user's cache folder.
    remote_per_minute: how many jobs may begin to ask a service over the network in a minute, on all machines together;
        0 for no limit.
    live_resume_seconds: for how long a live session whose connection was lost can be gone on with; then its recording
        is completed as it is.
    live_sessions: how many live sessions each caller may have open at once, in each process of the server; 0 for any
        number.
    webhook_allow_private: webhooks may lead to private networks and this machine, and be `http`.
    webhook_days: for how many days it is known what webhooks were told; what could not be told by then never is.
    search_seconds: how long the server lets a search run, unless the request says less.
    requests_per_minute: how many requests the server answers each holder of a token in a minute, in each of its web
        processes; 0 for any number.
    trusted_proxies: the addresses of proxies before the server, separated by commas, which are believed where a request
        comes from, and have as many connections as they have clients; empty for none.
    cors_origins: the web pages that may use the server from a browser, `https://app.example`, separated by commas;
        empty for none but its own. `*` for all, once there are tokens.
    openai_store: whether the OpenAI-compatible endpoints keep what they transcribe; a request can say otherwise.
    openai_models: further ids of models for these endpoints, and what transcribes for each, separated by commas:
        `whisper-1=large-v3,calls=openai:whisper-1`.
    trash_days: for how many days what was thrown away can be had back; fractions count.
    quarantine_days: for how many days a file that no recording has can be put back, once `verify` has moved it aside.
    mcp_writes: let language models change the archive over HTTP, as far as their tokens go; see the command `mcp` for
        those on this machine.
    key_file: the file with the key of an encrypted archive; empty for the archive's file in the user's configuration
    folder.
    key_source: where that key is instead: `keyring` for the operating system's, `passphrase` for the one in
        `AUDIO_STORAGE_PASSPHRASE`. A key in `AUDIO_STORAGE_KEY` comes before both.
    backup_destinations: where backups may be made over HTTP, each with the name that programs call it by:
        `disk=/mnt/backups, offsite=s3://bucket/prefix`.
    cdn_url: where a content delivery network serves the recordings; `audio_url` gives that address + key.
    """

    transcriber: str = "base"
    transcriber_fallback: str = "pocketsphinx"
    model_idle_seconds: float = 300.0
    transcribe_at_once: int = 1
    language: str = ""
    text_embedder: str = "auto"
    audio_embedder: str = "auto"
    combined_weight: float = 0.5
    sidecars: bool = False
    compress: str = ""
    max_file_bytes: int = 64 * 1024**3
    upload_days: float = 2.0
    uploads_at_once: int = 100
    uploads_bytes: int = 256 * 1024**3
    database_url: str = field(default="", repr=False)  # they may hold a password
    replica_url: str = field(default="", repr=False)
    pool_size: int = 8
    pool_overflow: int = 24
    pool_timeout: float = 30.0
    pool_recycle: float = 1800.0
    pool_pre_ping: bool = True
    partition: str = ""
    vectors_url: str = ""
    accept_plaintext_vectors: bool = False
    blobs_url: str = ""
    blob_cache_bytes: int = 2 * 1024**3
    blob_cache_dir: str = ""
    cdn_url: str = field(default="", repr=False)
    remote_per_minute: int = 0
    live_resume_seconds: float = 60.0
    live_sessions: int = 32
    search_seconds: float = 10.0
    requests_per_minute: int = 6000
    trusted_proxies: str = ""
    cors_origins: str = ""
    openai_store: bool = True
    openai_models: str = ""
    trash_days: float = 30.0
    quarantine_days: float = 30.0
    backup_destinations: str = ""
    webhook_allow_private: bool = False
    webhook_days: float = 30.0
    mcp_writes: bool = False
    key_file: str = ""
    key_source: str = ""


@dataclass(frozen=True, slots=True)
class Encryption:
    """How an archive is opened or made. content: a new one is encrypted. audit: it gets keys for its audit log, also if
    it is there already. source: the key, or where it is, before what the environment says.
    accept_plaintext_catalogue: what other databases hold may stay readable."""

    content: bool = False
    audit: bool = False
    source: KeySource | None = None
    accept_plaintext_catalogue: bool = False

    @classmethod
    def of(cls, given: bool | str | bytes | KeySource | None, *, audit: bool, accept: bool) -> Encryption:
        """From what a caller gives: `True`, a key of 32 bytes, `keyfile:/path`, `keyring`, or `passphrase` for the one
        in the environment. Raises `InvalidSetting`."""
        source = given if isinstance(given, KeySource) else None
        if isinstance(given, bytes):
            source = KeySource(key=encoded(given))
        elif isinstance(given, str):
            source = _named_source(given)
        return cls(bool(given), audit, source, accept)


def archive_home(place: str | os.PathLike[str] | None = None) -> Path:
    """The archive's folder: as given, else `$AUDIO_STORAGE_HOME`, else `./audio_storage`; always absolute."""
    return Path(place or os.environ.get(f"{PREFIX}HOME") or DEFAULT_HOME).expanduser().absolute()


def locate(place: str | os.PathLike[str] | None, storage_backend: str | None = None) -> tuple[Path, dict[str, Any]]:
    """The folder of the archive at `place` (a folder, a database's address, its `audio-storage.toml`, or `None` for the
    one that the environment names), and the settings that follow from how it was named.

    A folder that is named keeps its catalogue itself, whatever the environment says. Raises `InvalidSetting`.
    """
    if storage_backend not in (None, *BACKENDS):
        known = ", ".join(sorted(BACKENDS))
        raise InvalidSetting(name="storage_backend", reason=f'"{storage_backend}" is not known; there are: {known}')
    backend = BACKENDS[storage_backend] if storage_backend else None
    if place is not None and is_url(place):
        if backend == "sqlite":
            raise InvalidSetting(name="storage_backend", reason=f"{redacted(str(place))} is no folder")
        return archive_home(), {"database_url": str(place)}
    home = archive_home(place)
    if place is not None and home.name == FILE_NAME:
        home = home.parent
    if home.is_file():
        raise InvalidInput(reason=f"{home} is a file, not the folder of an archive; settings are in a file {FILE_NAME}")
    if backend == "sqlite":
        return home, {"database_url": ""}
    url = _database_url(home, from_environment=place is None or backend == "postgresql")
    if backend == "postgresql" and not url:
        reason = "set AUDIO_STORAGE_DATABASE_URL to the database's address: postgresql://user@host/database"
        raise InvalidSetting(name="storage_backend", reason=reason)
    return home, {"database_url": url}


def shown(place: str | os.PathLike[str] | None) -> str:
    """How to name the archive at `place` to people: its database without secrets, else its folder."""
    home, named = locate(place)
    return redacted(named["database_url"]) or str(home)


def locate_apart(place: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """As `locate`, where two archives are open at once: a folder or `audio-storage.toml` says alone where its parts
    are; the environment says so only for an archive that is named by its address."""
    home, named = locate(place)
    if is_url(place):
        return home, named
    own, known = _read_file(home / FILE_NAME), {field.name for field in fields(Settings)}
    return home, {**{name: own.get(name, "") for name in PLACES if name in known}, **named}


def _database_url(home: Path, *, from_environment: bool) -> str:
    named = os.environ.get(f"{PREFIX}DATABASE_URL", "") if from_environment else ""
    return named or str(_read_file(home / FILE_NAME).get("database_url", ""))


def debugging() -> bool:
    """Whether `$AUDIO_STORAGE_DEBUG` asks for the origin of unexpected errors."""
    return os.environ.get(f"{PREFIX}DEBUG", "0") not in ("", "0")


def key_source(settings: Settings, given: KeySource | None = None) -> KeySource:
    """Where the key of an archive comes from: as given, else the environment, else the settings."""
    if given is not None:
        return given
    if key := os.environ.get(f"{PREFIX}KEY", ""):
        return KeySource(key=key)
    if settings.key_file:
        return KeySource(key_file=settings.key_file)
    if settings.key_source == KEYRING:
        return KeySource(kind=KEYRING)
    return KeySource(passphrase=os.environ.get(f"{PREFIX}PASSPHRASE", ""), kind=settings.key_source)


def _named_source(name: str) -> KeySource:
    kind, _, path = name.partition(":")
    if kind == "keyfile" and path:
        return KeySource(key_file=path)
    if name == KEYRING:
        return KeySource(kind=KEYRING)
    if name == PASSPHRASE and (passphrase := os.environ.get(f"{PREFIX}PASSPHRASE", "")):
        return KeySource(passphrase=passphrase, kind=PASSPHRASE)
    reason = "it is True, a key of 32 bytes, keyfile:/path, keyring, or passphrase with AUDIO_STORAGE_PASSPHRASE set"
    raise InvalidSetting(name="encryption", reason=reason)


def load_settings(home: Path, **given: Any) -> Settings:
    """The settings in force for the archive in `home`. Raises `InvalidSetting`."""
    settings = Settings()
    for values in (_read_file(user_config()), _read_file(home / FILE_NAME), _read_environment(), given):
        settings = replace(settings, **_checked(values))
    if settings.compress not in ("", "flac", "pcm16"):
        raise InvalidSetting(name="compress", reason='it is "flac", "pcm16" or empty')
    if not 0 <= settings.combined_weight <= 1:
        raise InvalidSetting(name="combined_weight", reason=f"it is a share, 0…1, not {settings.combined_weight:g}")
    if settings.model_idle_seconds != settings.model_idle_seconds:
        raise InvalidSetting(name="model_idle_seconds", reason="it is a number of seconds, not nan")
    for name, least in (("trash_days", 0), ("quarantine_days", 1), ("webhook_days", 1)):
        if not least <= (days := getattr(settings, name)) <= MOST_DAYS:
            raise InvalidSetting(name=name, reason=f"it is {least}…{MOST_DAYS:,} days, not {days:g}")
    if not 0 <= settings.live_resume_seconds <= 86_400:
        raise InvalidSetting(name="live_resume_seconds", reason="it is from 0 to 86,400 seconds")
    if settings.live_sessions < 0:
        raise InvalidSetting(name="live_sessions", reason="it is not negative")
    if not 0 < settings.upload_days <= 365:
        raise InvalidSetting(name="upload_days", reason=f"it is up to 365 days, not {settings.upload_days:g}")
    if settings.key_source not in ("", KEYRING, PASSPHRASE):
        raise InvalidSetting(name="key_source", reason='it is "keyring", "passphrase" or empty')
    destinations(settings)
    if not 0 < settings.search_seconds <= 3600:
        raise InvalidSetting(name="search_seconds", reason=f"it is 0…3600 seconds, not {settings.search_seconds:g}")
    if settings.requests_per_minute < 0:
        raise InvalidSetting(name="requests_per_minute", reason="it is not negative; 0 is for any number")
    if settings.transcribe_at_once < 1:
        raise InvalidSetting(name="transcribe_at_once", reason="it is at least 1")
    return settings


def destinations(settings: Settings) -> dict[str, str]:
    """The places for backups by their names, as `backup_destinations` says. Raises `InvalidSetting`."""
    pairs = [one.strip() for one in settings.backup_destinations.split(",") if one.strip()]
    found = {name.strip(): place.strip() for name, _, place in (pair.partition("=") for pair in pairs)}
    if len(found) != len(pairs) or not all(DESTINATION.fullmatch(name) and place for name, place in found.items()):
        reason = "it is name=place, name=place …, where a name is of letters, digits, - and _, and stands there once"
        raise InvalidSetting(name="backup_destinations", reason=reason)
    return found


def environment(name: str) -> str:
    """What the environment says of `AUDIO_STORAGE_<name>`; empty where it says nothing."""
    return os.environ.get(f"{PREFIX}{name}", "")


def user_config() -> Path:
    """The settings file in the user's own configuration folder, which may not exist."""
    from platformdirs import user_config_path  # only wanted here

    return user_config_path("audio-storage") / FILE_NAME


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(name=str(path), reason=str(error)) from error


def _read_environment() -> Mapping[str, str]:
    names = {f"{PREFIX}{field.name.upper()}": field.name for field in fields(Settings)}
    return {names[key]: value for key, value in os.environ.items() if key in names}


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name: type(field.default) for field in fields(Settings)}
    for name in values:
        if name not in known:
            raise InvalidSetting(name=name, reason=f"there is no such setting; there are: {', '.join(known)}")
    return {name: _convert(name, value, known[name]) for name, value in values.items()}


def _convert(name: str, value: Any, kind: type) -> Any:
    if kind is str and value is None:
        return ""
    if kind is bool and isinstance(value, str):
        return _boolean(name, value)
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise InvalidSetting(name=name, reason=f"{value!r} is not a value of type {kind.__name__}") from error


def _boolean(name: str, value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.strip().lower() not in words:
        raise InvalidSetting(name=name, reason=f"{value!r} is neither true nor false")
    return words[value.strip().lower()]
