"""Files and folders that others can read, keys that lie beside what they open, and addresses that nothing protects."""

from __future__ import annotations

import ipaddress
import os
import shlex
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from platformdirs import user_cache_path
from sqlalchemy import select

from audio_storage_system import served
from audio_storage_system.database.tables import backup_sets
from audio_storage_system.locations import is_url, redacted
from audio_storage_system.security.weakness import Audited, Gravity, Weakness
from audio_storage_system.settings import FILE_NAME, PREFIX, environment, user_config

OTHERS, GROUP = 0o007, 0o070
SECRETS = ("key", "passphrase", "password", "token")
VERIFIED, ENCRYPTED = ("verify-full",), ("require", "verify-ca", "verify-full")
# Where the addresses of other services stand in the environment.
ENDPOINTS = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL"),
    *("OPENAI_BASE_URL", "PINECONE_INDEX_HOST", "HF_ENDPOINT"),
)


def check(audited: Audited) -> Iterator[Weakness]:
    """All of it."""
    yield from _folders(audited)
    yield from _secrets(audited)
    yield from _keys(audited)
    yield from _addresses(audited)
    yield from _servers(audited)
    yield from _temporary()


def _folders(audited: Audited) -> Iterator[Weakness]:
    """What others can enter. What lies in a folder that they cannot enter is safe from them."""
    archive = audited.archive
    cache = Path(archive.settings.blob_cache_dir or user_cache_path("audio-storage") / "blobs").expanduser()
    for name, place in (("archive folder", archive.home), ("audio cache", cache)):
        yield from _open_to_others(name, place, "700")


def _open_to_others(name: str, place: Path, mode: str) -> Iterator[Weakness]:
    found = _mode(place)
    if found is None or os.name == "nt" or not found & (OTHERS | GROUP):
        return
    who = "everybody on this machine" if found & OTHERS else "its group"
    gravity = Gravity.SERIOUS if found & OTHERS else Gravity.MODERATE
    yield Weakness(f"open {name}", gravity, f"{place} is open to {who} ({found:04o})", f"chmod {mode} {_shell(place)}")


def _secrets(audited: Audited) -> Iterator[Weakness]:
    """Settings files that hold a secret, or that others can write."""
    for file in (audited.archive.home / FILE_NAME, user_config()):
        found, folder, values = _mode(file), _mode(file.parent), _values(file)
        if found is None or folder is None:
            continue
        found &= ~(0 if folder & 0o001 else OTHERS) & ~(0 if folder & 0o010 else GROUP)  # who cannot enter, cannot read
        held = [name for name in values if name in SECRETS]
        held += [name for name, value in values.items() if is_url(value) and redacted(str(value)) != str(value)]
        if held:
            gravity = Gravity.SERIOUS if found & (OTHERS | GROUP) else Gravity.MODERATE
            evidence = f"{file} ({found:04o}) holds a secret in {', '.join(held)}"
            yield Weakness("secret in settings", gravity, evidence, _fix_of(held[0], file))
        if found & 0o022:
            yield Weakness(
                "settings others write", Gravity.SERIOUS, f"{file} is {found:04o}", f"chmod 600 {_shell(file)}"
            )


def _fix_of(name: str, file: Path) -> str:
    if name in SECRETS:
        return f"Move it into a key file elsewhere, and name that in {PREFIX}KEY_FILE."
    return f"Put the password into ~/.pgpass or PGPASSWORD, and take it out of {file}."


def _keys(audited: Audited) -> Iterator[Weakness]:
    """Whoever has the data and the key has everything."""
    if environment("KEY"):
        evidence = f"{PREFIX}KEY is set: programs that this one starts, and crash reports, may show it"
        yield Weakness("key in environment", Gravity.NOTE, evidence, f"Use a key file: {PREFIX}KEY_FILE.")
    file = _key_file(audited)
    if _mode(file) is None:
        return
    yield from _open_to_others("key file", file, "600")
    for name, place in _kept(audited):
        if os.path.realpath(file).startswith(os.path.realpath(place) + os.sep):
            evidence, fix = (
                f"{file} lies in {name} {place}",
                "Move it to another disk or machine, and keep a copy apart.",
            )
            yield Weakness("key beside the data", Gravity.SERIOUS, evidence, fix)


def _key_file(audited: Audited) -> Path:
    """Where the key is: as the settings say, else where `init --encrypt` makes one."""
    given = environment("KEY_FILE") or str(_values(audited.archive.home / FILE_NAME).get("key_file", ""))
    own = user_config().parent / "keys" / f"{audited.archive.marker.archive_id}.key"
    return Path(given).expanduser().absolute() if given else own


def _kept(audited: Audited) -> Iterator[tuple[str, Path]]:
    """The folders of the archive and of its backups."""
    yield "the archive's folder", audited.archive.home
    if not is_url(audited.archive.settings.blobs_url):
        yield "the folder of its audio", Path(audited.archive.settings.blobs_url or audited.archive.home)
    with audited.archive.database.read() as connection:
        places = connection.execute(select(backup_sets.c.destination).distinct()).scalars().all()
    yield from (("the backups in", Path(place).expanduser()) for place in places if not is_url(place))


def _addresses(audited: Audited) -> Iterator[Weakness]:
    settings = audited.archive.settings
    if settings.database_url:
        yield from _database_address(settings.database_url)
    given = {"vectors_url": settings.vectors_url, "cdn_url": settings.cdn_url}
    given |= {name: os.environ.get(name, "") for name in ENDPOINTS}
    for name, url in given.items():
        scheme, parts = urlsplit(url).scheme, urlsplit(url)
        if scheme.rpartition("+")[2] == "http" and not _is_here(parts.hostname):
            evidence = f"{name} is {redacted(url)}: everybody on the way can read it"
            yield Weakness("no TLS", Gravity.SERIOUS, evidence, f"Use https for {name}.")


def _database_address(url: str) -> Iterator[Weakness]:
    parts = urlsplit(url)
    host = parts.hostname or os.environ.get("PGHOST", "")
    mode = parse_qs(parts.query).get("sslmode", [os.environ.get("PGSSLMODE", "prefer")])[-1]
    if _is_here(host) or host.startswith("/"):
        return
    evidence, fix = f"sslmode is {mode} for {redacted(url)}", "Add ?sslmode=verify-full to the database's address."
    if mode not in ENCRYPTED:
        yield Weakness("no TLS to the database", Gravity.SERIOUS, f"{evidence}: it need not be encrypted", fix)
    elif mode not in VERIFIED:
        yield Weakness("unverified database", Gravity.MODERATE, f"{evidence}: another server could pose as it", fix)


def _servers(audited: Audited) -> Iterator[Weakness]:
    """Servers of the archive that other machines reach: they speak plain HTTP."""
    for one in served.running(audited.archive.home):
        if not _is_here(one.host):
            evidence = (
                f"it is served at {one.host}, port {one.port}, without TLS (process {one.process} on {one.machine}): "
                "everybody on the way can read tokens and recordings"
            )
            fix = "Put a proxy with TLS before it on this machine, and have it listen there only: --host 127.0.0.1"
            yield Weakness("served without TLS", Gravity.SERIOUS, evidence, fix)


def _temporary() -> Iterator[Weakness]:
    folder = Path(tempfile.gettempdir())
    found = folder.stat().st_mode
    if os.name != "nt" and found & 0o002 and not found & stat.S_ISVTX:
        evidence = f"everybody can replace others' files in {folder} ({stat.S_IMODE(found):04o})"
        yield Weakness("open temporary folder", Gravity.SERIOUS, evidence, f"chmod +t {_shell(folder)}, or set TMPDIR")


def _is_here(host: str | None) -> bool:
    """Whether this is the machine itself."""
    try:
        return ipaddress.ip_address(host or "127.0.0.1").is_loopback
    except ValueError:
        return host == "localhost"


def _mode(place: Path) -> int | None:
    try:
        return stat.S_IMODE(place.stat().st_mode)
    except OSError:
        return None


def _values(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _shell(place: Path) -> str:
    return shlex.quote(str(place))
