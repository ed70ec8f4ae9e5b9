"""Sending parts of a file, in bounded pieces, to clients that may be slow or gone."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import BinaryIO

from anyio import CancelScope, move_on_after, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

PIECE = 256 << 10
STALLED_SECONDS = 120.0


class PiecesResponse(StreamingResponse):
    """An answer in pieces. Whoever does not take one within two minutes is let go of; a player that goes on later asks
    for the rest."""

    body_iterator: AsyncGenerator[bytes, None]

    async def stream_response(self, send: Send) -> None:
        """As starlette calls it."""
        head: Message = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        async with aclosing(self.body_iterator) as pieces:
            if not await _sent(send, head):
                return
            async for piece in pieces:
                if not await _sent(send, {"type": "http.response.body", "body": piece, "more_body": True}):
                    return
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(send: Send, message: Message) -> bool:
    with move_on_after(STALLED_SECONDS) as limit:
        await send(message)
    return not limit.cancelled_caught


def response(
    opened: Callable[[], BinaryIO], ranges: Sequence[range], size: int, headers: Mapping[str, str], *, partial: bool
) -> PiecesResponse:
    """Ranges of the file of `size` bytes that this opens, which is closed whatever happens. headers: with the media
    type; where there are several ranges, it is that of each (`multipart/byteranges`)."""
    if len(ranges) == 1:
        [one] = ranges
        further = {"Content-Length": str(len(one))}
        if partial:
            further["Content-Range"] = content_range(one, size)
        pieces = _pieces(opened, [(b"", one)], b"")
        return PiecesResponse(pieces, 206 if partial else 200, {**headers, **further})
    boundary = secrets.token_hex(16)
    heads = [_head(boundary, headers["Content-Type"], part, size) for part in ranges]
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(map(len, heads)) + sum(map(len, ranges)) + len(end)
    further = {"Content-Length": str(length), "Content-Type": f"multipart/byteranges; boundary={boundary}"}
    pieces = _pieces(opened, list(zip(heads, ranges, strict=True)), end)
    return PiecesResponse(pieces, 206, {**headers, **further})


def content_range(part: range, size: int) -> str:
    """Which bytes of how many these are."""
    return f"bytes {part.start}-{part.stop - 1}/{size}"


def _head(boundary: str, media_type: str, part: range, size: int) -> bytes:
    lines = [f"\r\n--{boundary}", f"Content-Type: {media_type}", f"Content-Range: {content_range(part, size)}"]
    return "\r\n".join([*lines, "\r\n"]).encode()


async def _pieces(
    opened: Callable[[], BinaryIO], parts: Sequence[tuple[bytes, range]], end: bytes
) -> AsyncGenerator[bytes, None]:
    file = await to_thread.run_sync(opened)
    try:
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
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(file.close)
