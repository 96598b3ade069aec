"""Any JSON over HTTP, where its sender can't be told how to say it: settings say what is where.

In: a JSON text. Out: a notice with it as payload, or one for each item of a list (`batch`). A setting that begins with `/` is a
JSON Pointer (RFC 6901) into the event, such as `/alert/id`; any other is the value itself. Nothing in it is ever executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from vedette.errors import NotUnderstood
from vedette.kit.clock import parse_us
from vedette.model.notice import Notice
from vedette.ports import Request, Webhook
from vedette.webhooks._body import digest, event_type, header, json_value, notice, raw_items, short_id, traceparent

MAX_POINTER = 1000
"""Characters of a JSON Pointer."""
LAST_SECOND = 253_402_300_800
"""The year 10000, which no timestamp can say."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one generic hook: each a JSON Pointer (`/alert/id`) or the value itself."""

    id: str = ""
    """What is the same when the same event is sent again. None: the header `Idempotency-Key`, else a digest of the event."""
    type: str = ""
    """The event's type, such as `/kind` or `backup.done`. None: `hook.<name>`."""
    time: str = ""
    """When it happened: a text such as `2026-11-20T15:00:00Z`, or seconds since 1970. None, or not in the event: unknown."""
    publisher: str = ""
    """Who it is from, or of what it speaks: kept as the event's publisher."""
    batch: bool = False
    """A body that is a list is one event for each item (at most 1000), not one event."""
    repeats: Literal["drop", "keep"] = "drop"
    """The same event sent again, where it has no id of its own, is a duplicate (`drop`), or another event (`keep`; but for one
    sent twice in one second)."""

    def __post_init__(self) -> None:
        for name in ("id", "type", "time", "publisher"):
            pointer = getattr(self, name)
            if len(pointer) > MAX_POINTER:
                raise ValueError(f"{name}: has more than {MAX_POINTER} characters")
        if self.id and not self.id.startswith("/"):
            raise ValueError("id: wants a JSON Pointer such as /alert/id: with one id for all, only the first would count")
        if self.time and not self.time.startswith("/"):
            raise ValueError("time: wants a JSON Pointer such as /alert/time")
        if not self.type.startswith("/"):
            try:
                event_type(self.type)
            except NotUnderstood as why:
                raise ValueError(f"type: {why}") from None


def build(options: Options) -> Webhook:
    """The format with these settings."""
    return Generic(options)


class Generic:
    """See the module."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def parse(self, request: Request) -> Sequence[Notice]:
        """The notices. Raises NotUnderstood."""
        value = json_value(request.body)
        key = header(request, "idempotency-key")
        if self._options.batch and isinstance(value, list):
            raws = raw_items(request.body)
            return tuple(
                self._notice(request, one, bytes(raw), f"{key}/{number}" if key else "", f"event {number}: ")
                for number, (one, raw) in enumerate(zip(value, raws, strict=True))
            )
        return (self._notice(request, value, request.body.strip(), key, ""),)

    def _notice(self, request: Request, event: Any, raw: bytes, key: str, where: str) -> Notice:
        options = self._options
        id_ = _said(event, options.id, "id", where) if options.id else key
        time = _time(event, options.time)
        if not id_ and not time and options.repeats == "keep":
            time = request.received_at
        return notice(
            request,
            id=short_id(id_) if id_ else digest(raw),
            type=event_type(_said(event, options.type, "type", where) if options.type else f"hook.{request.name}"),
            payload=raw,
            sent_at=time,
            publisher=short_id(_said(event, options.publisher, "publisher", where)) if options.publisher else "",
            traceparent=traceparent(header(request, "traceparent")),
        )


def pointed(event: Any, pointer: str) -> Any:
    """What stands at a JSON Pointer; None when there is nothing."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(event, dict):
            event = event.get(name)
        elif isinstance(event, list):
            fits = name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(event)
            event = event[int(name)] if fits else None
        else:
            return None
    return event


def _said(event: Any, setting: str, name: str, where: str) -> str:
    """A text or a number that has to be there."""
    if not setting.startswith("/"):
        return setting
    value = pointed(event, setting)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise NotUnderstood(f"{where}there is no {name} at {setting}: wanted is a text or a number")
    return str(value)


def _time(event: Any, setting: str) -> int:
    """UTC microseconds; 0 when the event doesn't say, or nothing that is a time."""
    value = pointed(event, setting) if setting else None
    if isinstance(value, str):
        return max(parse_us(value) or 0, 0)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LAST_SECOND:
        return int(value * 1_000_000)
    return 0
