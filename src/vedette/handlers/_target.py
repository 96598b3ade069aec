"""What is sent to a target when its settings name no body of their own: the event as a CloudEvent."""

from __future__ import annotations

import re

from vedette.model import cloudevent
from vedette.ports import Event

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


def cloud_event(event: Event) -> bytes:
    """One CloudEvent in JSON. Of a notice the same that `/v1/events` gives admins."""
    key = event.key
    if key is not None and event.verb:
        return cloudevent.of_change(
            event.notice,
            revision=event.revision,
            appended_at=event.appended_at,
            key=key,
            verb=event.verb,
            now=event.raw_object,
            before=event.raw_old,
        )
    return cloudevent.of_notice(
        event.notice,
        revision=event.revision,
        appended_at=event.appended_at,
        subject=None if key is None else cloudevent.subject(key.kind, key.id),
    )


def excerpt(said: bytes | str, most: int = 200) -> str:
    """The beginning of what a target said, on one line, for the outcome that people read."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    text = _UNSEEN.sub(" ", text[: 4 * most]).strip()
    return text if len(text) <= most else f"{text[:most]}…"
