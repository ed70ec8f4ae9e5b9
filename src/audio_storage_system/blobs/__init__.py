"""Blob stores: the bytes of recordings, unchanged, under keys that are never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from audio_storage_system.blobs.base import BlobStore, StagedBlob, checked_key
from audio_storage_system.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BLOB_STORES", "BlobStore", "StagedBlob", "checked_key", "open_blob_store"]

CLOUD = "audio_storage_system.blobs.cloud:from_url"
BLOB_STORES = Registry(
    "blob store",
    "blobs",
    {"file": "audio_storage_system.blobs.local:from_url", "s3": CLOUD, "gs": CLOUD, "az": CLOUD},
    extras={"s3": "cloud", "gs": "cloud", "az": "cloud"},
)
"""Scheme → a function from the whole URL to a `BlobStore`."""


def open_blob_store(place: str | Path) -> BlobStore:
    """The store at a URL (`file:///srv/archive`, `s3://bucket/prefix`) or in a folder. Nothing is made before
    something is stored.

    Raises `UnknownSpec` for a scheme that no store is registered for, `MissingExtra`.
    """
    url = place if isinstance(place, str) and "://" in place else Path(place).absolute().as_uri()
    factory: Callable[[str], BlobStore] = BLOB_STORES.load(url.partition("://")[0])
    return factory(url)
