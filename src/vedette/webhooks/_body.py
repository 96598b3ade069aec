"""What the formats have in common: reading a request's body and headers, and making a notice of what was read.

Everything here raises NotUnderstood with a text for the caller, and nothing else: whoever may call a hook may send it anything.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kit.clock import rfc3339_us
from vedette.model.notice import Notice
from vedette.model.scrub import scrub
from vedette.ports import Request

MAX_NAME = 255
"""Characters of an event type or an id."""
MAX_BATCH = 1000
"""Events in one request: what is offered together at the most."""
OURS = "vedette."
"""How the types begin that only Vedette itself gives."""

REQUEST_ID = "x-openstack-request-id"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def json_value(raw: bytes | msgspec.Raw, what: str = "the body") -> Any:
    """A JSON text, decoded: all of it, so that no byte of what is kept was never looked at."""
    try:
        return msgspec.json.decode(raw)
    except UnicodeDecodeError as why:
        raise NotUnderstood(f"{what} is not UTF-8: {why.reason}") from None
    except msgspec.DecodeError as why:
        raise NotUnderstood(f"{what} is not JSON: {why}") from None
    except RecursionError:
        raise NotUnderstood(f"{what} is nested too deep") from None


def json_object(raw: bytes | msgspec.Raw, what: str = "the body") -> dict[str, Any]:
    """The same of what has to be an object."""
    value = json_value(raw, what)
    if not isinstance(value, dict):
        raise NotUnderstood(f"{what} is not a JSON object")
    return value


def raw_items(raw: bytes) -> list[msgspec.Raw]:
    """The items of a list, each as its bytes. The list was decoded by `json_value` before."""
    items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    if len(items) > MAX_BATCH:
        raise NotUnderstood(f"there are {len(items)} events in it, more than {MAX_BATCH}: send them in several requests")
    return items


def text(value: dict[str, Any], name: str, what: str = "") -> str:
    """A text of an object that has to be there, and not be empty."""
    found = value.get(name)
    if not isinstance(found, str) or not found:
        raise NotUnderstood(f"{what}{name} is missing" if found is None else f"{what}{name} is not a text, or it is empty")
    return found


def header(request: Request, name: str) -> str:
    """A header's value; "" when it isn't there."""
    value = request.headers.get(name, "")
    if not _can_be_stored(value):
        raise NotUnderstood(f"the header {name} is not UTF-8")
    return value


def traceparent(value: Any) -> str:
    """W3C trace context where it is well-formed, else "": a broken one only loses the trace."""
    return value if isinstance(value, str) and _TRACEPARENT.match(value) and len(value) <= MAX_NAME else ""


def digest(*parts: str | bytes) -> str:
    """An id for what brings none: `sha256:` and 32 hex digits over all parts, whose borders count."""
    found = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        found.update(b"%d:" % len(raw))
        found.update(raw)
    return f"sha256:{found.hexdigest()[:32]}"


def short_id(text: str) -> str:
    """The text itself as an id, or its digest where it is too long for one."""
    return text if len(text) <= MAX_NAME else digest(text)


def event_type(text: str) -> str:
    """A type that a caller gives."""
    if len(text) > MAX_NAME:
        raise NotUnderstood(f"the event's type has {len(text)} characters, more than {MAX_NAME}")
    if text.startswith(OURS):
        raise NotUnderstood(f"a type that begins with {OURS} is Vedette's own word")
    return text


def with_received(body: bytes, request: Request) -> bytes:
    """A JSON object with the time at which it came in: for formats that say no time. A key of that name of the caller's own
    counts for nothing, since the last one counts."""
    inside = body.strip()[1:-1].strip()
    stamp = b'"received_at":"%b"' % rfc3339_us(request.received_at).encode()
    return b"{" + inside + (b"," if inside else b"") + stamp + b"}"


def notice(request: Request, *, id: str, type: str, payload: bytes, **more: Any) -> Notice:
    """A notice of this hook, its payload scrubbed; with the caller's request id, by which a handler knows what its own calls have
    brought about."""
    asked = header(request, REQUEST_ID)
    return Notice(
        id=id,
        source=request.name,
        event_type=type,
        payload=msgspec.Raw(scrub(payload)),
        request_id=asked if len(asked) <= MAX_NAME else "",
        **more,
    )


def _can_be_stored(value: str) -> bool:
    """HTTP headers are bytes; what isn't UTF-8 in them comes as lone surrogates, which no store can keep."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
