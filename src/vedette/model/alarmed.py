"""What a webhook was called with, as a trigger: the alarm, and the hosts and servers that it speaks of. Pure.

Aodh sends an alarm (`reason_data` has the event or the measured resource), Alertmanager a group of alerts with labels; anything
else is taken as it is, also what is no JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.model.advice import Trigger
from vedette.model.scrub import scrub, scrub_text

LARGEST = 64 * 1024
"""Bytes of a body."""
MOST_OBJECTS = 100
MOST_VALUES = 10_000
"""Values of a body that are looked at."""
DEEPEST = 50

_NAMES = re.compile(
    r"(^|[_.\-:])(resource_id|instance_id|instance_uuid|server_id|instance|server|host|hostname|hypervisor|hypervisor_hostname|node"
    r"|node_name|compute|fqdn|volume_id)$",
    re.IGNORECASE,
)
"""Names of fields and labels whose value is an id or the name of a host."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_NOT_OBJECTS = frozenset(
    {"alarm_id", "user_id", "project_id", "tenant_id", "message_id", "request_id", "traceparent", "groupKey"}
)


def trigger_of(body: bytes, now: int) -> Trigger:
    """The trigger; secrets in the body are masked."""
    if not body.strip():
        return Trigger(at=now)
    try:
        alarm: Any = msgspec.json.decode(scrub(body))
    except (NotUnderstood, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        alarm, _ = scrub_text(body, LARGEST)
    return Trigger(at=now, alarm=alarm, objects=objects_in(alarm))


def objects_in(alarm: Any) -> tuple[str, ...]:
    """Ids and names, in the order in which they come, at most MOST_OBJECTS."""
    found: dict[str, None] = {}
    for name, value in _values(alarm):
        if name in _NOT_OBJECTS or not value or len(value) > 255:
            continue
        if _NAMES.search(name):
            # `node1:9100`, as exporters call themselves, is the host node1.
            host, colon, port = value.rpartition(":")
            found[host if colon and port.isdecimal() and host else value] = None
        elif _UUID.fullmatch(value) and not name.endswith(("alarm_id", "user_id", "project_id")):
            found[value] = None
        if len(found) >= MOST_OBJECTS:
            break
    return tuple(found)


def _values(alarm: Any) -> Iterable[tuple[str, str]]:
    """(name, text) of every text in it; traits of an event, `[name, type, value]`, are such a pair too."""
    stack: list[tuple[str, Any, int]] = [("", alarm, 0)]
    for _ in range(MOST_VALUES):
        if not stack:
            return
        name, value, depth = stack.pop()
        if isinstance(value, str):
            yield name, value
        elif depth >= DEEPEST:
            continue
        elif isinstance(value, dict):
            stack += [(str(key), one, depth + 1) for key, one in reversed(value.items())]
        elif isinstance(value, list):
            if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
                stack.append((value[0], value[2], depth + 1))
            else:
                stack += [(name, one, depth + 1) for one in reversed(value)]
