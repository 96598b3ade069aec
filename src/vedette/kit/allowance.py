"""How often something may happen: a bucket of tokens, refilled evenly. Who finds it empty does without, and is counted."""

from __future__ import annotations


class Allowance:
    """`rate` a second, and up to `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left = burst
        self._at = float("-inf")
        self.refused = 0
        """How many were refused since `forgive` was called last."""

    def take(self, now: float) -> bool:
        """Whether one more may happen at `now` (monotonic seconds)."""
        if not self.would(now):
            self.refused += 1
            return False
        self._left -= 1
        return True

    def would(self, now: float) -> bool:
        """The same, and nothing is taken."""
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
        return self._left >= 1

    def forgive(self) -> int:
        """How many were refused; from here on it counts anew."""
        refused, self.refused = self.refused, 0
        return refused
