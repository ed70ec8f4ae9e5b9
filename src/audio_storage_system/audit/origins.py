"""From where something was done: what brought the request, on which machine, in which process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PYTHON = "python"

_of_process = PYTHON
_of_request: ContextVar[str | None] = ContextVar("origin", default=None)


@contextmanager
def process_is(skin: str) -> Iterator[None]:
    """Whatever this process does in this block, in any thread, comes from here, such as `cli:add`, unless a request
    says otherwise."""
    global _of_process
    before, _of_process = _of_process, skin
    try:
        yield
    finally:
        _of_process = before


@contextmanager
def came_from(skin: str) -> Iterator[None]:
    """What is done in this block came from here, such as `http:10.0.0.7`."""
    token = _of_request.set(skin)
    try:
        yield
    finally:
        _of_request.reset(token)


def process() -> str:
    """This process: machine and number."""
    return f"{socket.gethostname()} {os.getpid()}"


def origin() -> str:
    """Where what is done now comes from: `cli:add@machine 4711`."""
    return f"{_of_request.get() or _of_process}@{process()}"
