"""Where a device is in a rack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Location:
    """`start_u` counts from the bottom, 1 is the lowest unit; a device of two units has the `end_u` above."""

    start_u: int
    end_u: int
    facing: str = "f"
    """`f` front, `b` back."""
