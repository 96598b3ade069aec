"""The recorded notifications as Notices. The envelope is read with plain json here, so that this shares no code with the
product's decode."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from vedette.model.notice import Notice

HERE = Path(__file__).parent
CAPTURES = tuple(sorted(path.name.removesuffix(".jsonl.gz") for path in HERE.glob("[!a]*.jsonl.gz")))
"""Notifications only. (`api-*` also hold what the APIs answered: tests/unit/kinds/recorded_cloud.py.)"""


def messages(capture: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each line as (line, inner oslo message), in the order in which they were received."""
    with gzip.open(HERE / f"{capture}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            recorded = json.loads(line)
            if "service" in recorded:  # an API's answer
                continue
            body = json.loads(recorded["body"])
            yield recorded, json.loads(body["oslo.message"]) if "oslo.message" in body else body


@functools.cache
def notices(capture: str) -> tuple[Notice, ...]:
    """All of a capture."""
    return tuple(
        notice(
            message["event_type"],
            message["payload"],
            id=message["message_id"],
            sent_at=microseconds(message["timestamp"]),
            priority=message["priority"],
            publisher=message["publisher_id"] or "",
        )
        for _, message in messages(capture)
    )


def every() -> Iterator[Notice]:
    """All of all captures."""
    for capture in CAPTURES:
        yield from notices(capture)


def notice(event_type: str, payload: Any, *, sent_at: int = 1_795_187_946_000_000, id: str = "n", **more: str) -> Notice:
    """A hand-written one."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Notice(id=id, source="test", event_type=event_type, sent_at=sent_at, payload=msgspec.Raw(raw), **more)


def microseconds(text: str) -> int:
    when = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return round(when.timestamp() * 1_000_000)
