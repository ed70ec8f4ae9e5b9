"""From a URL to a bucket: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.

Options stand behind a question mark (`?endpoint=http://minio:9000&region=eu-west-1`). Credentials never do: they come
from the environment, from the profiles of the AWS command line, or from the machine's own role, as obstore finds them.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from audio_storage_system.blobs.bucket import Bucket, Store
from audio_storage_system.errors import InvalidInput, InvalidSetting
from audio_storage_system.locations import holds_secret, redacted

Connect = Callable[[Any], Store]
"""From obstore's client options to a store."""

CONNECT_SECONDS = 4
RETRIES: Any = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
OPTIONS = {"s3": {"endpoint", "region", "profile"}, "gs": {"endpoint"}, "az": {"endpoint", "account"}}
ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}


def open_bucket(url: str) -> Bucket:
    """The bucket and prefix of a URL; nothing is asked of the server. Raises `InvalidInput`, `InvalidSetting`."""
    if holds_secret(url):
        raise InvalidInput(
            reason=f"{redacted(url)} holds a user or a key: put credentials into the environment, never into an address"
        )
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not parts.netloc:
        raise InvalidInput(reason=f"{url} names no bucket: {parts.scheme}://bucket/prefix")
    if wrong := set(options) - OPTIONS[parts.scheme]:
        known = ", ".join(sorted(OPTIONS[parts.scheme]))
        raise InvalidInput(reason=f"{parts.scheme}:// has no option {', '.join(sorted(wrong))}; there are: {known}")
    prefix = "/".join(part for part in unquote(parts.path).split("/") if part)
    place = f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    connect = CONNECTORS[parts.scheme](parts.netloc, prefix or None, options)
    client = _plain_http(parts.scheme, options)
    return Bucket(parts.scheme, parts.netloc, place, _careful(connect, client, place))


def _s3(name: str, prefix: str | None, options: dict[str, str]) -> Connect:
    config: Any = {key: options[key] for key in ("endpoint", "region") if key in options}
    config |= _profile(options.get("profile"))
    return lambda client: S3Store(name, prefix=prefix, config=config, client_options=client, retry_config=RETRIES)


def _gs(name: str, prefix: str | None, options: dict[str, str]) -> Connect:
    config: Any = {"base_url": options["endpoint"]} if "endpoint" in options else {}
    return lambda client: GCSStore(name, prefix=prefix, config=config, client_options=client, retry_config=RETRIES)


def _az(name: str, prefix: str | None, options: dict[str, str]) -> Connect:
    config: Any = {"endpoint": options["endpoint"]} if "endpoint" in options else {}
    config |= {"account_name": options["account"]} if "account" in options else {}
    return lambda client: AzureStore(name, prefix=prefix, config=config, client_options=client, retry_config=RETRIES)


CONNECTORS = {"s3": _s3, "gs": _gs, "az": _az}


def _careful(connect: Connect, client: dict[str, Any], place: str) -> Callable[[float], Store]:
    """Bounds every request in time, and says plainly what of the surroundings obstore could not use."""

    def connected(timeout: float) -> Store:
        given = {
            **client,
            "timeout": timedelta(seconds=timeout),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        }
        try:
            return connect(given)
        except Exception as error:  # obstore has no class of its own for this; its text may quote a credential
            reason = f"obstore cannot use the credentials or options found ({type(error).__name__})"
            raise InvalidSetting(name=place, reason=reason) from None

    return connected


def _plain_http(scheme: str, options: dict[str, str]) -> dict[str, Any]:
    """Unencrypted HTTP is used only where someone wrote `http://` for the endpoint."""
    named = [options.get("endpoint"), *(os.environ.get(name) for name in ENDPOINTS[scheme])]
    endpoint = next((address for address in named if address), "")
    return {"allow_http": True} if endpoint.startswith("http://") else {}


def _profile(name: str | None) -> dict[str, Any]:
    """Keys and region of a profile of the AWS command line, which obstore does not read: when one is named, or when the
    environment has no keys and there is a profile `default`."""
    wanted = name or os.environ.get("AWS_PROFILE")
    if not wanted and (os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")):
        return {}
    found = _read_profile(wanted or "default")
    if wanted and not found:
        raise InvalidSetting(name="AWS_PROFILE", reason=f'the AWS files have no keys for a profile "{wanted}"')
    return found


def _read_profile(name: str) -> dict[str, Any]:
    folder = Path("~/.aws").expanduser()
    files = {
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or str(folder / "credentials"): name,
        os.environ.get("AWS_CONFIG_FILE") or str(folder / "config"): name if name == "default" else f"profile {name}",
    }
    found: dict[str, str] = {}
    for path, section in files.items():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            raise InvalidSetting(name=path, reason="it cannot be read as a file of profiles") from None
        if parser.has_section(section):
            found = {**dict(parser.items(section)), **found}
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    names |= {"aws_session_token": "session_token"}
    keys = {ours: found[theirs] for theirs, ours in names.items() if theirs in found}
    region = {"region": found["region"]} if "region" in found and not os.environ.get("AWS_REGION") else {}
    return {**keys, **region} if "access_key_id" in keys and "secret_access_key" in keys else {}
