"""Pieces of speech as the items of OpenAI's realtime API, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from uuid import uuid4

from audio_storage_system.server.live.outbox import Message
from audio_storage_system.server.problems import Problem

# Words that the bundled recogniser takes back, it takes back sooner, most of the time.
STEADY_SECONDS = 1.0
TRANSCRIPTION = "conversation.item.input_audio_transcription"


def event(kind: str, **fields: Any) -> Message:
    """An event of the server."""
    return {"type": kind, "event_id": f"event_{uuid4().hex}", **fields}


@dataclass(slots=True)
class Item:
    """A piece of speech. What was told of it is never taken back, as these clients know no such thing: so of what is
    understood so far, words are told once they have stayed the same for a while."""

    id: str
    _words: list[tuple[str, float]] = field(default_factory=list)  # and since when they are those
    _told: list[str] = field(default_factory=list)

    def delta(self, text: str, until: float) -> Iterator[Message]:
        """What can be told now that the text is this, up to this second."""
        before, self._words = self._words, []
        for number, word in enumerate(text.split()):
            same = len(before) > number and before[number][0] == word
            self._words.append((word, before[number][1] if same else until))
        steady = takewhile(lambda one: until - one[1] >= STEADY_SECONDS, self._words)
        yield from self._tell([word for word, _ in steady])

    def rest(self, text: str) -> Iterator[Message]:
        """What is left to be told of the whole text, where it agrees with what was told."""
        yield from self._tell(text.split())

    def _tell(self, words: list[str]) -> Iterator[Message]:
        count = len(self._told)
        if words[:count] == self._told and len(words) > count:
            self._told = words
            more = " " * bool(count) + " ".join(words[count:])
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


def failed(item: Item, problem: Problem) -> Message:
    """That nobody will say what was said in it, with the code of the error tree."""
    error = {"type": "transcription_error", "code": problem.code, "message": problem.detail, "param": None}
    return event(f"{TRANSCRIPTION}.failed", item_id=item.id, content_index=0, error=error)
