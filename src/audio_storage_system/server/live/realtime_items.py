"""Pieces of speech as the items of OpenAI's realtime API, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from audio_storage_system.server.live.outbox import Message

TRANSCRIPTION = "conversation.item.input_audio_transcription"


def event(kind: str, **fields: Any) -> Message:
    """An event of the server."""
    return {"type": kind, "event_id": f"event_{uuid4().hex}", **fields}


@dataclass(slots=True)
class Item:
    """A piece of speech. Of what is understood so far, as much is told as two texts in a row agree on: what was told is
    never taken back."""

    id: str
    told: str = ""
    latest: str = ""

    def delta(self, text: str) -> Iterator[Message]:
        """What can be told now that the text so far is this."""
        agreed = _common(self.latest, text)
        self.latest = text
        yield from self._tell(agreed)

    def rest(self, text: str) -> Iterator[Message]:
        """What is left to be told of the whole text, where it agrees with what was told."""
        yield from self._tell(text)

    def _tell(self, text: str) -> Iterator[Message]:
        if text.startswith(self.told) and len(text) > len(self.told):
            more, self.told = text[len(self.told) :], text
            yield event(f"{TRANSCRIPTION}.delta", item_id=self.id, content_index=0, delta=more)


def committed(item: Item, previous: str | None, *, beta: bool) -> Iterator[Message]:
    """That a piece of speech is over and an item now."""
    yield event("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
    content = [{"type": "input_audio", "transcript": None}]
    made = {"id": item.id, "object": "realtime.item", "type": "message", "role": "user"}
    about = {"item": {**made, "status": "completed", "content": content}, "previous_item_id": previous}
    if beta:
        yield event("conversation.item.created", **about)
    else:
        yield event("conversation.item.added", **about)
        yield event("conversation.item.done", **about)


def completed(item: Item, text: str, seconds: float, **further: Any) -> Iterator[Message]:
    """What was said in it. further: about the recording, which other servers do not tell."""
    yield from item.rest(text)
    usage = {"type": "duration", "seconds": seconds}
    yield event(f"{TRANSCRIPTION}.completed", item_id=item.id, content_index=0, transcript=text, usage=usage, **further)


def failed(item: Item, reason: str) -> Message:
    """That nobody will say what was said in it."""
    error = {"type": "transcription_error", "code": "unheard", "message": reason, "param": None}
    return event(f"{TRANSCRIPTION}.failed", item_id=item.id, content_index=0, error=error)


def _common(one: str, other: str) -> str:
    """The words with which both begin, but not a last one that may go on."""
    words: list[str] = []
    for left, right in zip(one.split(" "), other.split(" "), strict=False):
        if left != right:
            break
        words.append(left)
    return " ".join(words)
