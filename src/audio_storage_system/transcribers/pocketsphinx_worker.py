"""A process that recognises English with PocketSphinx: sound in on stdin, words out on stdout.

In: the number of bytes (32 bits, little-endian), then 16-bit mono samples at 16 kHz. Out: a line of JSON, each word as
[text, start seconds, end seconds, probability]; the first line is `[]` once the model is loaded. Ends with its stdin.
"""

from __future__ import annotations

import json
import re
import signal
import struct
import sys
from typing import Any

FRAMES_PER_SECOND = 100
_FILLER = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
_VARIANT = re.compile(r"\(\d+\)$")


def recognised(decoder: Any, samples: bytes) -> list[tuple[str, float, float, float]]:
    """The words in one piece of sound, without fillers and marks of pronunciation.

    The whole piece is given at once: cepstral means are then its own. The noise that its front end has learned from
    earlier pieces is forgotten first, so that a piece gives the same words in any company.
    """
    decoder.reinit_feat()
    decoder.start_utt()
    if samples:
        decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
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


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes our stdin
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")
    answer([])
    while header := sys.stdin.buffer.read(4):
        (size,) = struct.unpack("<I", header)
        answer(recognised(decoder, sys.stdin.buffer.read(size)))


def answer(words: list[Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
