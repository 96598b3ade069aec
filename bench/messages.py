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
LARGE = 6_144
"""Bytes of a body in the set `6K`: the same messages, grown to this by a payload field like Nova's image_meta."""


def recorded(size: str) -> list[str]:
    """Every message that was recorded, so every kind: as it was (2.4 kB on the average), or grown."""
    found = []
    for path in sorted(CAPTURES.glob("[!a]*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            found += [json.loads(line)["body"] for line in lines]
    return [_grown(body) for body in found] if size == "6K" else found


def _grown(body: str) -> str:
    outer = json.loads(body)
    inner = json.loads(outer["oslo.message"])
    if isinstance(inner["payload"], dict):
        missing = LARGE - len(body)
        more = {f"hw_property_{number}": f"value-{number:04d}-of-an-image" for number in range(max(0, missing // 54))}
        inner["payload"]["image_properties"] = more
        outer["oslo.message"] = json.dumps(inner)
    return json.dumps(outer)


def bodies(size: str, count: int) -> Iterator[bytes]:
    """`count` bodies; after each pass over the recording every UUID (message ids too) is another one."""
    once = recorded(size)
    for number, body in zip(range(count), itertools.cycle(once), strict=False):
        turn = number // len(once)
        if turn:
            body = _UUID.sub(lambda m, turn=turn: f"{m[1]}{(int(m[2], 16) + turn) & 0xFFFF:04x}{m[3]}", body)
        yield body.encode()
