"""A process that recognises English with PocketSphinx: sound in on stdin, words out on stdout.

In: what is asked (one byte), the number of bytes that follow (32 bits, little-endian), then these: 16-bit mono samples
at 16 kHz. Out: a line of JSON for each; the first line is `[]` once the model is loaded. Asked can be

    w   the words in these samples, each as [text, start seconds, end seconds, probability]
    f   that what was learned of earlier sound be forgotten: null
    b   that a piece of speech begin, which comes bit by bit: null
    m   that more of it be heard: what is understood so far, as text
    e   that it be over: its words, as above

It ends with its stdin.
"""

from __future__ import annotations

import json
import re
import signal
import struct
import sys
from typing import Any

REQUEST = struct.Struct("<cI")
WHOLE, FORGET, BEGIN, MORE, END = b"w", b"f", b"b", b"m", b"e"
FRAMES_PER_SECOND = 100
_FILLER = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
_VARIANT = re.compile(r"\(\d+\)$")


def recognised(decoder: Any, samples: bytes) -> list[tuple[str, float, float, float]]:
    """The words in one piece of sound.

    The whole piece is given at once: cepstral means are then its own. The noise that its front end has learned from
    earlier pieces is forgotten first, so that a piece gives the same words in any company.
    """
    decoder.reinit_feat()
    decoder.start_utt()
    if samples:
        decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    return words_of(decoder)


def words_of(decoder: Any) -> list[tuple[str, float, float, float]]:
    """The words of the piece that has ended, without fillers and marks of pronunciation."""
    return [
        (
            _VARIANT.sub("", segment.word),
            segment.start_frame / FRAMES_PER_SECOND,
            (segment.end_frame + 1) / FRAMES_PER_SECOND,
            min(1.0, segment.prob),
        )
        for segment in decoder.seg() or ()
        if not _FILLER.fullmatch(segment.word)
    ]


class Hearing:
    """Answers what is asked of one decoder."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._begun = False

    def answer(self, what: bytes, samples: bytes) -> Any:
        """The answer, JSON-able."""
        return {WHOLE: self._whole, FORGET: self._forget, BEGIN: self._begin, MORE: self._more, END: self._end}[what](
            samples
        )

    def _whole(self, samples: bytes) -> Any:
        self._leave()
        return recognised(self._decoder, samples)

    def _forget(self, samples: bytes) -> None:
        self._leave()
        self._decoder.reinit_feat()

    def _begin(self, samples: bytes) -> None:
        self._leave()
        self._decoder.start_utt()
        self._begun = True

    def _more(self, samples: bytes) -> str:
        if samples:
            self._decoder.process_raw(samples)
        understood = self._decoder.hyp()
        return understood.hypstr if understood else ""

    def _end(self, samples: bytes) -> Any:
        self._leave()
        return words_of(self._decoder)

    def _leave(self) -> None:
        if self._begun:
            self._begun = False
            self._decoder.end_utt()


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes our stdin
    from pocketsphinx import Decoder

    hearing = Hearing(Decoder(loglevel="FATAL"))
    answer([])
    while header := sys.stdin.buffer.read(REQUEST.size):
        what, size = REQUEST.unpack(header)
        answer(hearing.answer(what, sys.stdin.buffer.read(size)))


def answer(words: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
