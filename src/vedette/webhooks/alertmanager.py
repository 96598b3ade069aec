"""Alertmanager's webhook receiver: a notification of a group of alerts, kept as one notice.

In: version 4 of https://prometheus.io/docs/alerting/latest/configuration/#webhook_config. Out: `alertmanager.group.firing` or
`.resolved` with the body as it was sent and `received_at`. kinds/alarm.py reads it.

Alertmanager sends a group again when it changes, and every `repeat_interval` when it doesn't. The id is the group's state: its
key, and of each alert its fingerprint, status, start and end. A repeated notification is therefore a duplicate, unless
`repeats: keep` says that each counts. Annotations that change (a measured value) are no other state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from vedette.errors import NotUnderstood
from vedette.kit.clock import parse_us
from vedette.model.notice import Notice
from vedette.ports import Request, Webhook
from vedette.webhooks._body import digest, header, json_object, notice, text, traceparent, with_received

STATES = ("firing", "resolved")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one Alertmanager's hook."""

    repeats: Literal["drop", "keep"] = "drop"
    """A group that is sent again in the same state is a duplicate (`drop`), or an event whenever it is sent (`keep`; then a retry
    is one too, when it comes in another second)."""


def build(options: Options) -> Webhook:
    """The format with these settings."""
    return Alertmanager(options)


class Alertmanager:
    """See the module."""

    def __init__(self, options: Options) -> None:
        self._keep = options.repeats == "keep"

    def parse(self, request: Request) -> Sequence[Notice]:
        """One notice. Raises NotUnderstood."""
        said = json_object(request.body)
        if said.get("version") != "4":
            raise NotUnderstood('version is not "4": this is not a notification of an Alertmanager that is known')
        state = text(said, "status")
        if state not in STATES:
            raise NotUnderstood("status is neither firing nor resolved")
        alerts, newest = _alerts(said)
        return (
            notice(
                request,
                id=digest(text(said, "groupKey"), _receiver(said), state, *alerts),
                type=f"alertmanager.group.{state}",
                payload=with_received(request.body, request),
                # Part of what makes a duplicate: when the group came into this state is the same each time it is sent.
                sent_at=request.received_at if self._keep else newest,
                publisher="alertmanager",
                traceparent=traceparent(header(request, "traceparent")),
            ),
        )


def _receiver(said: dict[str, Any]) -> str:
    receiver = said.get("receiver")
    return receiver if isinstance(receiver, str) else ""


def _alerts(said: dict[str, Any]) -> tuple[list[str], int]:
    """What is said of each alert's state, in an order that doesn't depend on how they are sent; and when the newest of it
    came to be (0: none says)."""
    alerts = said.get("alerts")
    if not isinstance(alerts, list):
        raise NotUnderstood("alerts is not a list")
    found: list[str] = []
    newest = 0
    for number, alert in enumerate(alerts):
        if not isinstance(alert, dict):
            raise NotUnderstood(f"alerts[{number}] is not an object")
        # Older versions send no fingerprint; labels are what it is made of.
        name = alert.get("fingerprint") or msgspec.json.encode(alert.get("labels"), order="sorted").decode()
        # Until an alert has ended, its end is a guess that moves.
        ends = alert.get("endsAt") if alert.get("status") == "resolved" else None
        found.append(repr((name, alert.get("status"), alert.get("startsAt"), ends)))
        for moment in (alert.get("startsAt"), ends):
            newest = max(newest, (parse_us(moment) or 0) if isinstance(moment, str) else 0)
    return sorted(found), newest
