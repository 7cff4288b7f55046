"""Chance by counter: the same seed and question give the same answer, whatever was asked before."""

from __future__ import annotations

import hashlib

PPM = 1_000_000
_WORD = 2**64


def draw(seed: int, *what: object) -> int:
    """A 64-bit word for a question."""
    text = "\x1f".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def happens(seed: int, ppm: int, *what: object) -> bool:
    """True in `ppm` of a million cases."""
    return draw(seed, *what) * PPM < ppm * _WORD


def below(limit: int, seed: int, *what: object) -> int:
    """A number from 0 to limit - 1; for limits far below 2^64 as good as even."""
    return draw(seed, *what) * limit // _WORD
