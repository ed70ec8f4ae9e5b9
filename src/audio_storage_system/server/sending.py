"""Sending: parts of a file in bounded pieces, as fast as the client takes them; and what grows while it is read."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import BinaryIO

from anyio import CancelScope, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PIECE = 256 << 10
# Of an answer that grows while it is read: nothing on the way keeps it, or holds it back until it is whole.
GROWING = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
EVENTS = "text/event-stream"

Part = tuple[bytes, range]


class FileResponse(StreamingResponse):
    """Parts of an open file, each with what goes before it, which is closed however this ends."""

    def __init__(
        self, file: BinaryIO, parts: Sequence[Part], end: bytes, status_code: int, headers: Mapping[str, str]
    ) -> None:
        length = sum(len(head) + len(part) for head, part in parts) + len(end)
        super().__init__(_pieces(file, parts, end), status_code, {**headers, "Content-Length": str(length)})
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._file.close)


def ranges_of(file: BinaryIO, ranges: Sequence[range], size: int, headers: Mapping[str, str]) -> FileResponse:
    """The answer (206) with these of the `size` bytes of a file. headers: with the media type; where there are several
    ranges, it is that of each (`multipart/byteranges`)."""
    if len(ranges) == 1:
        return FileResponse(
            file, [(b"", ranges[0])], b"", 206, {**headers, "Content-Range": content_range(ranges[0], size)}
        )
    boundary = secrets.token_hex(16)
    parts = [(_head(boundary, headers["Content-Type"], part, size), part) for part in ranges]
    multipart = {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    return FileResponse(file, parts, f"\r\n--{boundary}--\r\n".encode(), 206, {**headers, **multipart})


def content_range(part: range, size: int) -> str:
    """Which bytes of how many these are."""
    return f"bytes {part.start}-{part.stop - 1}/{size}"


def _head(boundary: str, media_type: str, part: range, size: int) -> bytes:
    lines = [f"\r\n--{boundary}", f"Content-Type: {media_type}", f"Content-Range: {content_range(part, size)}"]
    return "\r\n".join([*lines, "\r\n"]).encode()


async def _pieces(file: BinaryIO, parts: Sequence[Part], end: bytes) -> AsyncGenerator[bytes, None]:
    for head, part in parts:
        if head:
            yield head
        await to_thread.run_sync(file.seek, part.start)
        left = len(part)
        while left:
            piece = await to_thread.run_sync(file.read, min(PIECE, left))
            if not piece:
                raise EOFError("the file is shorter than it was said to be")
            left -= len(piece)
            yield piece
    if end:
        yield end
