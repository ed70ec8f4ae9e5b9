"""How fast the bundled embedders are, against the package of the weights and what no embedder can do without.

    python bench/embedders.py [--turns 7]

Text: 4,000 passages of 10 to 145 words; the rival is wordllama's own averaging, the limit its tokenizer alone. Sound:
ten minutes of noise; the limit is the spectrum alone, numpy's FFT of the same frames, half a minute at a time. CPU
seconds, taking turns; medians.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from audio_storage_system.embedders import open_text_embedder
from audio_storage_system.embedders.acoustic import CHUNK_FRAMES, FFT_SIZE, FRAME, HOP, SAMPLE_RATE, AcousticEmbedder
from measuring import Took, in_turns, machine, medians, verdict

SENTENCE, SECONDS = "we talked about the remote control and its buttons ", 600
PASSAGES = [f"{number} " + SENTENCE * (1 + number % 16) for number in range(4000)]
SOUND = np.random.default_rng(1).standard_normal(SECONDS * SAMPLE_RATE).astype(np.float32)
OURS_TEXT, RIVAL, TOKENS = "text, ours", "text, wordllama's own", "text, its tokenizer alone"
OURS_SOUND, SPECTRUM = "sound, ours", "sound, its spectrum alone"


def spectrum() -> None:
    frames = np.lib.stride_tricks.sliding_window_view(SOUND, FRAME)[::HOP]
    for begin in range(0, len(frames), CHUNK_FRAMES):
        np.abs(np.fft.rfft(frames[begin : begin + CHUNK_FRAMES], FFT_SIZE)) ** 2


def measured(turns: int) -> dict[str, Took]:
    import wordllama

    rival = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    ours, sound = open_text_embedder("wordllama"), AcousticEmbedder()
    contenders = {
        OURS_TEXT: lambda turn: ours.embed_batch(PASSAGES),
        RIVAL: lambda turn: rival.embed(PASSAGES, norm=True),
        TOKENS: lambda turn: [rival.tokenizer.encode(text, add_special_tokens=False) for text in PASSAGES],
        OURS_SOUND: lambda turn: sound.embed(SOUND),
        SPECTRUM: lambda turn: spectrum(),
    }
    in_turns(contenders, 1)  # loads the weights
    return medians(in_turns(contenders, turns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    took = measured(parser.parse_args().turns)
    print(machine(Path()))
    for name, (wall, cpu, _others) in took.items():
        print(f"  {name:28} {wall:6.3f} s, {cpu:6.3f} s of CPU")
    print(f"text: {took[RIVAL].cpu / took[OURS_TEXT].cpu:.2f} x wordllama's own speed")
    print(f"text: {took[TOKENS].cpu / took[OURS_TEXT].cpu:.2f} of the tokenizer's")
    print(f"sound: {took[SPECTRUM].cpu / took[OURS_SOUND].cpu:.2f} of the spectrum's")
    verdict("text", len(PASSAGES) / took[OURS_TEXT].cpu, 2000, at_least=True, unit="passages/s")
    verdict("sound", SECONDS / took[OURS_SOUND].cpu, 200, at_least=True, unit="x real time")


if __name__ == "__main__":
    main()
