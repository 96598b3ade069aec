"""CloudEvents 1.0 in JSON (structured): a notice or a change of an object comes in, the bytes of one event go out.

Made for callers by api/routes/events.py and for targets by the handlers, so that both get the same. `revision`, `origin`,
`priority`, … are extension attributes (lower case, as the spec wants); an attribute without a value is left out.
(github.com/cloudevents/spec, v1.0.2)
"""

from __future__ import annotations

from typing import Any

import msgspec

from vedette.kit.clock import rfc3339_us
from vedette.model.change import Verb
from vedette.model.notice import Notice
from vedette.model.reading import Key

CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"
"""Of one event in structured mode (JSON format §3)."""


def subject(kind: str, id: str) -> str:
    """`port/6f1…`: what an event is about."""
    return f"{kind.lower()}/{id}"


def of_notice(
    notice: Notice,
    *,
    revision: int,
    appended_at: int,
    subject: str | None,
    data: msgspec.Raw | None = None,
    publisher: bool = True,
) -> bytes:
    """What a service said. `subject`: the first object that it speaks of; `data` in the place of the payload, and no `publisher`,
    where the reader may not see all of it."""
    own = notice.event_type.startswith("vedette.")
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": notice.id,
        "source": f"/sources/{notice.source}",
        "type": notice.event_type if own else f"openstack.{notice.event_type}",
        "time": rfc3339_us(notice.sent_at or appended_at),
        "datacontenttype": "application/json",
        "revision": str(revision),
        "origin": notice.origin,
    }
    more = {
        "subject": subject,
        "priority": notice.priority.lower(),
        "publisher": notice.publisher if publisher else "",
        "requestid": notice.request_id,
        "traceparent": notice.traceparent,
    }
    event.update((name, value) for name, value in more.items() if value)
    event["data"] = notice.payload if data is None else data
    return msgspec.json.encode(event)


def of_change(
    notice: Notice,
    *,
    revision: int,
    appended_at: int,
    key: Key,
    verb: Verb,
    now: msgspec.Raw,
    before: msgspec.Raw,
) -> bytes:
    """What became of an object; `eventtype` is the notice that told it. `now` and `before` are its JSON as admins are served it,
    `{}` where there is none."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{revision}/{subject(key.kind, key.id)}",
        "source": f"/sources/{key.source}",
        "type": f"vedette.object.{verb.lower()}",
        "time": rfc3339_us(notice.sent_at or appended_at),
        "datacontenttype": "application/json",
        "revision": str(revision),
        "origin": notice.origin,
        "subject": subject(key.kind, key.id),
        "eventtype": notice.event_type,
    }
    more = {"requestid": notice.request_id, "traceparent": notice.traceparent}
    event.update((name, value) for name, value in more.items() if value)
    event["data"] = {"object": now, "old": before}
    return msgspec.json.encode(event)
