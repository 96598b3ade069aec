"""What is sent to a target (the event as a CloudEvent, the object, or a text of the operator's own), and what of its answer is
kept."""

from __future__ import annotations

import re

from vedette.handlers._template import Template, Values, template
from vedette.model import cloudevent
from vedette.ports import Event

_JSON = re.compile(r"[^;]*[/+]json\s*(;|$)", re.IGNORECASE)
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


class Body:
    """What the options `body` and `content_type` say."""

    def __init__(self, body: str, content_type: str) -> None:
        """Raises ConfigError: a template can't be read, or is not JSON where `content_type` says so."""
        self._template: Template | None = None
        self._whole = body == "cloudevent"
        self.content_type = content_type
        if self._whole:
            self.content_type = cloudevent.CONTENT_TYPE
        elif body == "object":
            self.content_type = "application/json"
        else:
            is_json = bool(body) and _JSON.match(content_type) is not None
            self._template = template(body, "json" if is_json else "text", path="body")

    def fill(self, event: Event, values: Values) -> bytes:
        """The bytes for one event. Raises GiveUp."""
        if self._template is not None:
            return self._template.fill(values).encode()
        return cloud_event(event) if self._whole else bytes(event.raw_object)


def excerpt(said: bytes | str, most: int = 200) -> str:
    """The beginning of what a target said, on one line, for the outcome that people read."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    text = _UNSEEN.sub(" ", text[: 4 * most]).strip()
    return text if len(text) <= most else f"{text[:most]}…"
