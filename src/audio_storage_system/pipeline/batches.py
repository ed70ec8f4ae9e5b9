"""Taking a stream in batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items each, the last one shorter."""
    while batch := list(islice(items, size)):
        yield batch
