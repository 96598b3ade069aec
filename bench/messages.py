"""Bodies to publish: notifications recorded from a real cloud, each pass with fresh ids, by size."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

CAPTURES = Path(__file__).parent.parent / "tests" / "captures"
_UUID = re.compile(r"([0-9a-f]{4})([0-9a-f]{4})(-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
SIZES = {"2K": (0, 3_400), "6K": (4_400, 16_384)}
"""Bytes of a body. Every kind that was captured is in the first; of the large ones only Nova's are in the second."""


def recorded(size: str) -> list[str]:
    least, most = SIZES[size]
    found = []
    for path in sorted(CAPTURES.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            found += [body for body in (json.loads(line)["body"] for line in lines) if least <= len(body) < most]
    return found


def bodies(size: str, count: int) -> Iterator[bytes]:
    """`count` bodies; after each pass over the recording every UUID (message ids too) is another one."""
    once = recorded(size)
    for number, body in zip(range(count), itertools.cycle(once), strict=False):
        turn = number // len(once)
        if turn:
            body = _UUID.sub(lambda m, turn=turn: f"{m[1]}{(int(m[2], 16) + turn) & 0xFFFF:04x}{m[3]}", body)
        yield body.encode()
