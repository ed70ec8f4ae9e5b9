"""How a piece of sound sounds, as one vector: statistics of its log-mel spectrogram. Numpy only, nothing to download.

The vector describes any sound, not only speech: its tone colour (cepstral coefficients: mean, spread and extremes over
time), how fast that colour changes, how its energy is distributed, and how strongly it is modulated at which rates.
Sources of the parts:

- mel scale 2595 log10(1 + f / 700) and triangular filters: O'Shaughnessy 1987, as in the HTK Book (Young et al.);
- cepstral coefficients of the log-mel spectrum: Davis & Mermelstein, IEEE Trans. ASSP 28(4), 1980;
- deltas by linear regression over ±2 frames: Furui, IEEE Trans. ASSP 34(1), 1986, in the HTK Book's form;
- statistics over all frames as a description of the whole: Tzanetakis & Cook, IEEE Trans. SAP 10(5), 2002;
- modulation spectra of band envelopes: Houtgast & Steeneken, J. Acoust. Soc. Am. 77(3), 1985.

Every value is measured relative to the piece's own loudness, so its level does not matter; nothing depends on length
but the precision of the statistics. Each dimension is standardised by constants (`acoustic_constants.py`) and squashed
by tanh, so that no single one dominates and cosines spread over -1…1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from audio_storage_system.embedders.acoustic_constants import CENTRES, SPREADS
from audio_storage_system.embedders.base import AudioEmbedder, Matrix, Samples, unit_rows
from audio_storage_system.errors import UnknownSpec

Floats = npt.NDArray[np.float32]

SAMPLE_RATE: Final = 16_000
FRAME: Final = 400  # 25 ms
HOP: Final = 160  # 10 ms
FFT_SIZE: Final = 512
MEL_BANDS: Final = 40
CEPSTRA: Final = 20
LOWEST_HZ: Final = 50.0
FLOOR_DB: Final = 60.0  # what lies further below the loudest frames counts as silence
ACTIVE_DB: Final = 25.0  # only frames this close to the loudest describe the tone colour
LEVEL_PERCENTILES: Final = (5, 10, 25, 50, 75, 90, 95)
MODULATION_SEGMENT: Final = 256  # 2.56 s
MODULATION_EDGES_HZ: Final = (0.5, 1, 2, 3, 4.5, 7, 11, 17, 26, 50)
ENVELOPES: Final = 5
CHUNK_FRAMES: Final = 3000  # the spectrum of half a minute at a time, so that memory stays small

# The weight of each part in the squared norm, chosen by how well the whole finds what sounds alike
PART_WEIGHTS: Final = {
    "colour": 4.0,
    "colour_spread": 1.0,
    "colour_change": 1.0,
    "colour_low": 1.0,
    "colour_high": 1.0,
    "level": 1.0,
    "modulation": 2.25,
}


class AcousticEmbedder(AudioEmbedder):
    """What sounds alike: 160 dimensions, about 500 times as fast as real time on one core, any length."""

    model = "acoustic-1"  # another number whenever a vector would come out differently
    sample_rate = SAMPLE_RATE

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise UnknownSpec(kind="audio embedder", spec=f"acoustic:{argument}", known="acoustic")

    @property
    def dimension(self) -> int:
        return len(CENTRES)

    def embed_batch(self, pieces: Sequence[Samples]) -> Matrix:
        """One unit row per piece. Digital silence has a vector too; samples that are not finite count as silence."""
        if not pieces:
            return np.empty((0, self.dimension), np.float32)
        return unit_rows([standardise(describe(piece)) for piece in pieces], model=self.model, dimension=self.dimension)


def describe(samples: Samples) -> dict[str, Floats]:
    """The parts of the description by name, in physical units (dB and their statistics), not yet standardised."""
    mel = _mel_power(_condition(samples))
    level = mel.mean(axis=1)
    # the loudest moments set the scale: not one click alone, nor the silence around a short sound
    loudest = max(float(np.percentile(level, 99)), float(level.max()) / 1000, float(np.finfo(np.float32).tiny))
    decibels = _decibels(mel / loudest)
    level_decibels = _decibels(level / loudest)
    cepstra = decibels @ _cosines().T
    active = level_decibels >= level_decibels.max() - ACTIVE_DB
    colour = cepstra[active]
    return {
        "colour": colour.mean(axis=0)[1:],  # the 0th is loudness
        "colour_spread": colour.std(axis=0),
        "colour_change": _delta(cepstra)[active].std(axis=0),
        "colour_low": np.percentile(colour, 10, axis=0).astype(np.float32),
        "colour_high": np.percentile(colour, 90, axis=0).astype(np.float32),
        "level": np.percentile(level_decibels, LEVEL_PERCENTILES).astype(np.float32),
        "modulation": _modulation(decibels, level_decibels),
    }


def standardise(parts: dict[str, Floats]) -> Floats:
    """One row: each value centred, scaled, squashed, and its part weighted independently of how many values it has."""
    row = np.concatenate([parts[name] for name in PART_WEIGHTS])
    weights = np.concatenate([np.full(len(parts[n]), np.sqrt(w / len(parts[n]))) for n, w in PART_WEIGHTS.items()])
    standard: Floats = np.tanh((row - CENTRES) / SPREADS / 2) * weights
    return standard


def _condition(samples: Samples) -> Floats:
    """Finite, at a fixed peak, without offset, at least one frame long."""
    finite = np.nan_to_num(np.asarray(samples, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    scaled = finite / (np.abs(finite).max() or np.float32(1))
    scaled -= scaled.mean(dtype=np.float64)
    return np.pad(scaled, (0, max(0, FRAME - len(scaled))))


def _mel_power(samples: Floats) -> Floats:
    """Power in each mel band, one row per 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    window = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    filters = _mel_filters().T
    rows = []
    for first in range(0, len(frames), CHUNK_FRAMES):
        spectrum = np.fft.rfft(frames[first : first + CHUNK_FRAMES] * window, FFT_SIZE)
        rows.append((spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ filters)
    return np.concatenate(rows)


def _mel_filters() -> Floats:
    """Triangles of equal width on the mel scale, each of unit sum, one row per band."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    lowest = 2595 * np.log10(1 + LOWEST_HZ / 700)
    edges = 700 * (10 ** (np.linspace(lowest, highest, MEL_BANDS + 2) / 2595) - 1)
    below, centre, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequency = np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE
    triangles = np.minimum((frequency - below) / (centre - below), (above - frequency) / (above - centre)).clip(0)
    filters: Floats = (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)
    return filters


def _cosines() -> Floats:
    """The orthonormal DCT-II from mel bands to cepstral coefficients."""
    band = (2 * np.arange(MEL_BANDS) + 1) / (2 * MEL_BANDS)
    matrix: npt.NDArray[np.float64] = np.cos(np.pi * np.arange(CEPSTRA)[:, None] * band) * np.sqrt(2 / MEL_BANDS)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


def _decibels(power: Floats) -> Floats:
    decibels: Floats = (10 * np.log10(np.maximum(power, 10 ** (-FLOOR_DB / 10)))).astype(np.float32)
    return decibels


def _delta(rows: Floats) -> Floats:
    """The slope of each column over ±2 rows, by linear regression."""
    padded = np.pad(rows, ((2, 2), (0, 0)), mode="edge")
    slope = (2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]) / 10
    return np.asarray(slope, np.float32)


def _modulation(decibels: Floats, level: Floats) -> Floats:
    """How strongly five frequency regions and the whole fluctuate at nine rates, relative to the region's mean."""
    regions = decibels.reshape(len(decibels), ENVELOPES, -1).mean(axis=2)
    envelopes = np.column_stack([regions, level])
    power = np.mean([_fluctuation(piece) for piece in _segments(envelopes)], axis=0)
    rate = np.arange(len(power)) * SAMPLE_RATE / HOP / MODULATION_SEGMENT
    sums = [power[(rate >= low) & (rate < high)].sum(axis=0) for low, high in pairwise(MODULATION_EDGES_HZ)]
    bands = np.log10(np.array(sums) + 0.1)
    relative: Floats = (bands - bands.mean(axis=0)).T.ravel().astype(np.float32)
    return relative


def _segments(rows: Floats) -> list[Floats]:
    """Half-overlapping pieces of 2.56 s; one shorter piece where there is no more."""
    step = MODULATION_SEGMENT // 2
    return [rows[first : first + MODULATION_SEGMENT] for first in range(0, max(1, len(rows) - step), step)]


def _fluctuation(envelopes: Floats) -> Floats:
    """The power spectrum of each envelope, per frame of its length."""
    window = np.hanning(len(envelopes) + 2)[1:-1, None]
    spectrum = np.fft.rfft((envelopes - envelopes.mean(axis=0)) * window, MODULATION_SEGMENT, axis=0)
    power: Floats = (np.abs(spectrum) ** 2 / len(envelopes)).astype(np.float32)
    return power
