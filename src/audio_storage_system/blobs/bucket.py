"""A bucket (S3, GCS) or container (Azure), and a prefix in it, as few verbs with errors of our own tree.

Everything that knows obstore is here and in `cloud_urls.py`. obstore retries what failed on the way; what still fails
becomes `StorageUnavailable`, `StorageRefused`, `BucketNotFound`, `NotFound` or `StorageFailed`. Its own messages are
not passed on: they hold whole URLs, and an Azure URL may hold a signature.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from audio_storage_system.blobs.base import BLOCK
from audio_storage_system.blobs.holding import Sending, SendingFailed
from audio_storage_system.errors import (
    BucketNotFound,
    NotFound,
    StorageFailed,
    StorageRefused,
    StorageUnavailable,
    Unavailable,
)

Store = S3Store | GCSStore | AzureStore

PART = 8 << 20
"""Bytes of one part of a large upload. S3 and GCS allow 10,000 parts."""
PARTS = 9_000
CONCURRENCY = 8
TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".aac": "audio/aac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".webm": "audio/webm",
    ".json": "application/json",
}
NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|ContainerBeingDeleted|bucket does not exist|InvalidBucketName")
HINTS = {
    "s3": "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, or the machine's role), AWS_REGION and, "
    "for a server that is not Amazon's, AWS_ENDPOINT_URL, and that they may read, write and list",
    "gs": "Check GOOGLE_APPLICATION_CREDENTIALS (or the machine's service account), and that it may read, write and "
    "list",
    "az": "Check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or the machine's managed identity), and "
    "that it may read, write and list",
}
_user: list[int] = []  # the process whose threads obstore works with


@dataclass(frozen=True, slots=True)
class Meta:
    """What a bucket tells of an object; `key` is below the prefix. `notes` are those of ours that were stored with it;
    a list has none."""

    key: str
    size: int
    modified: datetime
    version: str
    notes: Mapping[str, str] = field(default_factory=dict)


class Bucket:
    """`connect(timeout)` opens an obstore store that gives up a request after that many seconds.

    Safe to use from several threads. A process that was forked from one that used a bucket cannot use any: obstore's
    threads do not exist in it, and a call would wait for ever; it raises `Unavailable` instead.
    """

    def __init__(self, scheme: str, name: str, place: str, connect: Callable[[float], Store]) -> None:
        self.scheme, self.name, self.place = scheme, name, place
        self._connect = connect
        self._stores: dict[float, Store] = {}
        self._seen = False

    def put(self, key: str, data: bytes, *, new: bool = False, claim: str = "") -> bool:
        """Store `data` in one request, with `claim` as a note; with `new` only if there is no such key. Whether it was
        stored.

        An object that bears the mark of this very call is its own, stored by a try whose answer was lost.
        """
        mark = uuid4().hex
        attributes = {"Content-Type": media_type(key), "upload": mark} | ({"claim": claim} if claim else {})
        with self._errors(key):
            try:
                obstore.put(
                    self._transfer() if data else self._quick(),
                    key,
                    data,
                    mode="create" if new else "overwrite",
                    attributes=attributes,
                    use_multipart=False,
                )
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return self._bears(key, mark)
        return True

    def _bears(self, key: str, mark: str) -> bool:
        try:
            found = obstore.get(self._quick(), key, options={"head": True})
        except FileNotFoundError:
            return False
        return _notes(found.attributes).get("upload") == mark

    def upload(self, key: str, sending: Sending, *, part: int = PART) -> None:
        """Store a stream in parts, over what `key` holds; it changes only once all of them are there. Up to
        `CONCURRENCY + 1` parts are in memory. Where the last answer was lost, the object's mark tells that it is there.
        """
        mark = uuid4().hex
        with self._errors(key):
            try:
                obstore.put(
                    self._transfer(),
                    key,
                    iter(sending),
                    attributes={"Content-Type": media_type(key), "upload": mark},
                    use_multipart=True,
                    chunk_size=part,
                    max_concurrency=CONCURRENCY,
                )
            except SendingFailed:
                raise sending.error or SendingFailed from None
            except (FileNotFoundError, exceptions.BaseError):
                if not (sending.complete and self._bears(key, mark)):
                    raise

    def head(self, key: str) -> Meta:
        """What is known of `key`. Raises `NotFound`."""
        with self._errors(key):
            found = obstore.get(self._quick(), key, options={"head": True})
            return replace(_meta(found.meta), notes=_notes(found.attributes))

    def read(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, which must lie inside the object. Raises `NotFound`."""
        with self._errors(key):
            return bytes(obstore.get_range(self._transfer(), key, start=start, end=end))

    def stream(self, key: str) -> Iterator[bytes]:
        """All bytes of `key`, in blocks of about a megabyte. A transfer that breaks off goes on where it stood, as long
        as something comes each time and the object stays the same. Raises `NotFound`."""
        at = 0
        options: dict[str, Any] = {}
        while True:
            began = at
            with self._errors(key):
                found = obstore.get(self._transfer(), key, options=cast(Any, options))
            try:
                for block in found.stream(min_chunk_size=BLOCK):
                    at += len(block)
                    yield bytes(block)
            except exceptions.BaseError as error:
                if at == began:
                    raise self._translated(error) from None
            if at >= found.meta["size"]:
                return
            options = {"range": {"offset": at}, "if_match": found.meta["e_tag"]}

    def remove(self, key: str) -> None:
        """Remove `key`, if it is there."""
        with self._errors(key):
            try:
                obstore.delete(self._quick(), key)
            except FileNotFoundError:
                self._check_bucket()

    def list(self, folder: str = "") -> Iterator[Meta]:
        """Every object below `folder`, in the order of the bytes of their names, a thousand at a time."""
        with self._errors(folder):
            pages = obstore.list(self._quick(), folder or None, chunk_size=1000)
        while True:
            with self._errors(folder):
                page = next(pages, None)
            if page is None:
                return
            self._seen = True
            yield from map(_meta, page)

    def sign(self, key: str, expires: timedelta) -> str:
        """A URL to read `key` with, until then."""
        with self._errors(key):
            return obstore.sign(self._quick(), "GET", key, expires)

    def _quick(self) -> Store:
        return self._store(10)

    def _transfer(self) -> Store:
        return self._store(60)

    def _store(self, timeout: float) -> Store:
        if not _user:
            _user.append(os.getpid())
        elif _user[0] != os.getpid():
            raise Unavailable(
                reason=f"{self.place} was used before this process was forked, and cannot be used in the fork; "
                'start processes with the method "spawn"'
            )
        if timeout not in self._stores:
            self._stores[timeout] = self._connect(timeout)
        return self._stores[timeout]

    def _check_bucket(self) -> None:
        """Raise `BucketNotFound` if it is the bucket that is missing: asked for one object, a server does not tell."""
        if not self._seen:
            next(iter(obstore.list(self._quick(), ".none", chunk_size=1)), None)
            self._seen = True

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self._not_found(error, key) from None
        except exceptions.BaseError as error:
            raise self._translated(error) from None

    def _not_found(self, error: Exception, key: str) -> Exception:
        try:
            if NO_BUCKET.search(str(error)):
                return BucketNotFound(bucket=self.name, place=self.place)
            self._check_bucket()
        except exceptions.BaseError as further:
            return self._translated(further)
        return NotFound(kind="blob", id=key)

    def _translated(self, error: Exception) -> StorageFailed:
        text = str(error)
        told = _told(text)
        if NO_BUCKET.search(text):
            return BucketNotFound(bucket=self.name, place=self.place)
        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError) or _is_refusal(text):
            return StorageRefused(place=self.place, reason=f"{told}. {HINTS[self.scheme]}.")
        if re.search("status code: 4", text):
            return StorageFailed(reason=f"{self.place}: {told}")
        return StorageUnavailable(place=self.place, reason=told)


def media_type(key: str) -> str:
    """The media type of a file by its suffix; this much is enough for a browser to play it."""
    return TYPES.get(os.path.splitext(key)[1].lower(), "application/octet-stream")


def _meta(found: Any) -> Meta:
    version = f"{found['size']} {found['e_tag'] or ''} {found['version'] or ''}"
    return Meta(found["path"], found["size"], found["last_modified"], version)


def _notes(attributes: Mapping[Any, Any]) -> dict[str, str]:
    """Servers differ in the case of these names."""
    return {str(name).lower(): str(value) for name, value in attributes.items()}


def _is_refusal(text: str) -> bool:
    """Keys that no one knows, keys that are missing, and keys that cannot be read."""
    return bool(
        re.search(r"status code: 40[13]|InvalidAccessKeyId|(?i:credential|token|metadata/identity|oauth)", text)
    )


def _told(text: str) -> str:
    """What a message of obstore's says, without any address in it."""
    if status := re.search(r"status code: (\d{3} [A-Za-z ]+)", text):
        code = re.search(r"<Code>(\w+)</Code>|\"(?:error|reason)\": ?\"(\w+)\"", text)
        return status[1].strip() + (f" ({code[1] or code[2]})" if code else "")
    for words, meaning in (
        ("Connection refused", "nothing answers at that address (connection refused)"),
        ("dns error", "its name cannot be looked up"),
        ("imed out", "no answer in time"),
        ("TimedOut", "no answer in time"),
        ("certificate", "its certificate is not trusted"),
        ("onnection", "the connection broke"),
    ):
        if words in text:
            return meaning
    return "the request failed"
