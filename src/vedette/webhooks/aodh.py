"""Aodh's alarm actions (`https://…` and `trust+https://…`), one notice each.

In: `{"alarm_id", "alarm_name", "severity", "previous", "current", "reason", "reason_data"}` (aodh/notifier/rest.py), or no body
at all, which is a trigger and no more: Watcher's webhook took both. Out: `aodh.alarm.<state>` with that body and `received_at`,
since Aodh says no time; `aodh.trigger` for the empty one. kinds/alarm.py reads it.

Aodh retries (`rest_notifier_max_retries`) by sending the same bytes under the same `x-openstack-request-id`, and takes a new one
for everything else, repeated actions too. So header and body together are the id. A caller that sends no such header is not
Aodh: its same body within one second is one event, and later another one, since a lost alarm is worse than one told twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from vedette.model.notice import Notice
from vedette.ports import Request, Webhook
from vedette.webhooks._body import REQUEST_ID, digest, event_type, header, json_object, notice, text, traceparent, with_received

_ODD = re.compile(r"[^a-z0-9]+")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """There is nothing else to set."""


def build(_options: Options) -> Webhook:
    """The format; it has no settings."""
    return Aodh()


class Aodh:
    """See the module."""

    def parse(self, request: Request) -> Sequence[Notice]:
        """One notice. Raises NotUnderstood."""
        request_id = header(request, REQUEST_ID)
        body = request.body.strip() or b"{}"
        said = json_object(body)
        if said:
            text(said, "alarm_id")
            type_ = event_type(f"aodh.alarm.{state_word(text(said, 'current'))}")
        else:
            type_ = "aodh.trigger"
        return (
            notice(
                request,
                id=digest(request_id, body),
                type=type_,
                payload=with_received(body, request),
                # Part of what makes a duplicate: with the header, the same at any time is one event.
                sent_at=0 if request_id else request.received_at,
                publisher="aodh",
                traceparent=traceparent(header(request, "traceparent")),
            ),
        )


def state_word(state: str) -> str:
    """A state as a part of an event type: `ok`, `alarm`, `insufficient-data`."""
    return _ODD.sub("-", state.lower()).strip("-") or "unknown"
