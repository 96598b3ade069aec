"""How long to wait before trying again: exponential, with full jitter, bounded."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(first: float = 0.5, most: float = 30.0, *, rng: random.Random | None = None) -> Iterator[float]:
    """Seconds to wait before each next try, for ever: a random part of first, 2·first, 4·first … up to `most`.

    Never under a quarter of the step, so a broken peer isn't hammered (full jitter may return ~0).
    """
    rng = rng or random.Random()
    step = first
    while True:
        yield rng.uniform(step / 4, step)
        step = min(step * 2, most)
