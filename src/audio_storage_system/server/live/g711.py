"""Telephone sound: G.711 (ITU-T) µ-law and A-law bytes as 16-bit samples, by table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int16]


def _mu_law() -> Table:
    code = ~np.arange(256, dtype=np.uint8)
    size = ((code & 0x0F).astype(np.int32) * 8 + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -size, size).astype("<i2")


def _a_law() -> Table:
    code = np.arange(256, dtype=np.uint8) ^ np.uint8(0x55)
    step, exponent = (code & 0x0F).astype(np.int32) * 16 + 8, (code >> 4 & 7).astype(np.int32)
    size = np.where(exponent > 0, step + 0x100 << np.maximum(exponent - 1, 0), step)
    return np.where(code & 0x80, size, -size).astype("<i2")


TABLES = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}


def expanded(data: bytes, table: Table) -> bytes:
    """Each byte as a little-endian 16-bit sample."""
    return table[np.frombuffer(data, np.uint8)].tobytes()
