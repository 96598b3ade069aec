"""A notice: one message that a source delivered, unwrapped and scrubbed. Made by a source's `decode`, read by `kinds/`."""

from __future__ import annotations

import msgspec


class Notice(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One piece of news as it was said. Immutable; its payload stays the JSON bytes that the service sent (scrubbed)."""

    id: str
    """Idempotency key within the source: oslo's message_id. The same id, sent in the same second, twice is one entry."""
    source: str
    """Name of the source in the configuration."""
    event_type: str
    """As sent, e.g. `port.update.end`."""
    sent_at: int
    """The notice's own timestamp, UTC microseconds; 0 when it has none."""
    payload: msgspec.Raw
    """The payload's JSON, secrets replaced by `"***"`."""
    priority: str = ""
    publisher: str = ""
    request_id: str = ""
    global_request_id: str = ""
    actor_user: str = ""
    """Who made the call (`_context_user_id`)."""
    actor_project: str = ""
    """The caller's project. Never the object's: they differ in one notice of eight."""
    origin: str = "notification"
    """notification | resync | verify | vedette"""
    traceparent: str = ""
    """W3C trace context, where the message had one."""


NOT_UNDERSTOOD = "vedette.not-understood"
"""Event type of a message that could not be read; its payload is `{"reason": …, "body": …, "bytes": …}`."""

GAP = "vedette.gap"
"""Event type of a time in which a source may have missed news: `{"cause": …, "from": …, "to": …}` (RFC 3339)."""
