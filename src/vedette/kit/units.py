"""Durations, sizes and files as people write them: `7d`, `1h30m`, `256KiB`. For the fields of settings structs.

A settings field says what it counts by its type: `Seconds`, `Bytes`, `FilePath`. They are plain numbers and texts to the code
that reads them; config.py sees the unit and takes `60s` or `20GiB` for it.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

import msgspec

UNIT = "unit"
"""The key in `msgspec.Meta.extra` under which config.py looks."""

Seconds = Annotated[float, msgspec.Meta(ge=0, extra={UNIT: "seconds"})]
"""A length of time. `7d`, `60s`, `1h30m`, or a plain number of seconds."""
Bytes = Annotated[int, msgspec.Meta(ge=0, extra={UNIT: "bytes"})]
"""A size. `20GiB`, `256KiB`, or a plain number of bytes."""
FilePath = Annotated[str, msgspec.Meta(extra={UNIT: "path"})]
"""A file or folder; a relative one is looked for beside the configuration file."""

_SECONDS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _BYTES |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}i": 1024**_power, f"{_letter}iB": 1024**_power}
_BYTES |= {"k": 1000, "kB": 1000}

_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
_DURATION = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in _SECONDS), re.ASCII)
_PLAIN = re.compile(_NUMBER, re.ASCII)
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)", re.ASCII)

LONGEST = 100 * 365 * 86_400
"""Seconds: a hundred years. What is longer is a slip of the keyboard, and would not fit where it is added to a clock."""
LARGEST = 1 << 62


def parse_duration(text: str | float) -> float:
    """Seconds. A text is units in falling order, each at most once (`1h30m`), or a plain number. Raises ValueError."""
    seconds = _read_duration(text) if isinstance(text, str) else float(text)
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST:
        raise ValueError("is not between 0 and a hundred years")
    return seconds


def _read_duration(text: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError("is not a duration such as 7d, 60s or 1h30m")
    return math.fsum(float(number) * unit for number, unit in zip(match.groups(), _SECONDS.values(), strict=True) if number)


def parse_size(text: str | float) -> int:
    """Bytes. `KiB` is 1024 and `kB` 1000, and so on up to `PiB`. Raises ValueError."""
    if isinstance(text, str):
        match = _SIZE.fullmatch(text)
        if match is None or match[2] not in _BYTES:
            raise ValueError("is not a size such as 256KiB, 20GiB or 1000000")
        text = float(match[1]) * _BYTES[match[2]] if "." in match[1] else int(match[1]) * _BYTES[match[2]]
    if not math.isfinite(text) or not 0 <= text <= LARGEST or text != int(text):
        raise ValueError("is not a whole number of bytes, or too large")
    return int(text)


def show_duration(seconds: float) -> str | float:
    """How a person would write it: `7d`, `1h30m`; parts of a second as a plain number. `parse_duration` takes it back."""
    if seconds != int(seconds):
        return seconds
    rest, text = int(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_SECONDS[unit]))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def show_size(size: int) -> str | int:
    """`20GiB`, `256KiB`, or a plain number of bytes where that is not even. `parse_size` takes it back."""
    for power, letter in reversed(tuple(enumerate("KMGTP", start=1))):
        # (No longer number is read back.)
        if size and size % 1024**power == 0 and size // 1024**power < 10**15:
            return f"{size // 1024**power}{letter}iB"
    return size
