"""Keystone's notifications, CADF (`notification_format=cadf`, the default) or basic. The kinds project and user are next.

Both carry only ids: `target.id` and `resource_info` in CADF, `resource_info` in basic. So one says that something is there, or
gone, or switched off, and not even its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._said import Verb, decoded
from vedette.model.notice import Notice
from vedette.model.reading import Reading


class _Target(msgspec.Struct, gc=False):
    id: str | None = None


class _Event(msgspec.Struct, gc=False):
    outcome: str | None = None
    target: _Target | None = None
    resource_info: Any = None


_event = msgspec.json.Decoder(_Event)
_VERBS: dict[str, Verb] = {
    "created": "create",
    "updated": "update",
    "disabled": "update",
    "enabled": "update",
    "deleted": "delete",
}


def identity_reader(kind: str, resource: str, *, own_project: bool = False) -> Callable[[Notice], Iterable[Reading]]:
    """A `Kind.read` for `identity.<resource>.*`. `own_project`: the object is the project it belongs to."""
    prefix = f"identity.{resource}."

    def read(notice: Notice) -> Iterable[Reading]:
        action = notice.event_type.removeprefix(prefix)
        verb = _VERBS.get(action)
        if verb is None:
            return ()
        said: _Event = decoded(_event.decode, notice.payload, notice.event_type)
        if said.outcome not in (None, "success"):
            return ()
        info = said.resource_info
        id_ = info if isinstance(info, str) and info else said.target.id if said.target is not None else None
        if not id_:
            raise NotUnderstood(f"{notice.event_type}: a {resource} without an id")
        return (
            Reading(
                kind=kind,
                id=id_,
                verb=verb,
                as_of=notice.sent_at,
                project=id_ if own_project else "",
                fields={"enabled": action == "enabled"} if action in ("enabled", "disabled") else {},
            ),
        )

    return read
