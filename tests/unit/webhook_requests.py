"""Requests for tests of webhooks, as callers send them."""

from __future__ import annotations

import json
from typing import Any

from vedette.model.notice import Notice
from vedette.ports import Request, Webhook
from vedette.testing.clock import START_US

REQUEST_ID = "req-8c1b1f0e-2f5e-4f6e-9a49-7a0f3c2d1e00"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ALARM = {
    "alarm_name": "cpu_high",
    "alarm_id": "0ca2845e-c142-4d4b-a346-e495553628ce",
    "severity": "critical",
    "previous": "ok",
    "current": "alarm",
    "reason": "Transition to alarm due to 3 samples outside threshold, most recent: 81.4",
    "reason_data": {"type": "threshold", "disposition": "outside", "count": 3, "most_recent": 81.40, "metric": "cpu"},
}
"""The body of aodh/notifier/rest.py for a threshold alarm."""

GROUP: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}:{alertname="DiskFull"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "vedette",
    "groupLabels": {"alertname": "DiskFull"},
    "commonLabels": {"alertname": "DiskFull", "severity": "critical"},
    "commonAnnotations": {"summary": "A disk is full"},
    "externalURL": "http://alertmanager:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "DiskFull", "instance": "node-1", "severity": "critical"},
            "annotations": {"summary": "A disk is full"},
            "startsAt": "2026-11-20T15:00:00.123456789Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
            "fingerprint": "c24b2c1a3f0d5e61",
        },
        {
            "status": "resolved",
            "labels": {"alertname": "DiskFull", "instance": "node-2", "severity": "critical"},
            "annotations": {"summary": "A disk is full"},
            "startsAt": "2026-11-20T14:00:00Z",
            "endsAt": "2026-11-20T15:10:00Z",
            "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
            "fingerprint": "00000000000000aa",
        },
    ],
}
"""A notification in version 4 of Alertmanager's webhook format."""

EVENT = {
    "specversion": "1.0",
    "type": "com.example.backup.done",
    "source": "/backups/nightly",
    "id": "A234-1234-1234",
    "time": "2026-11-20T15:18:30.420516Z",
    "subject": "volume-7",
    "traceparent": TRACE,
    "datacontenttype": "application/json",
    "data": {"volume": "7", "ratio": 1.50},
}
"""A CloudEvent in JSON format."""


def request(body: Any = b"", *, name: str = "hook-one", received_at: int = START_US, **headers: str) -> Request:
    """A POST; what isn't bytes is sent as JSON. Header names with `_` for `-`."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return Request(name=name, headers=named, query={}, body=raw, received_at=received_at)


def only(webhook: Webhook, sent: Request) -> Notice:
    (notice,) = webhook.parse(sent)
    assert notice.source == sent.name
    return notice


def payload(notice: Notice) -> Any:
    return json.loads(bytes(notice.payload))


def identity(notice: Notice) -> tuple[str, int]:
    """What makes a duplicate in the store: the id, in one second of the notice's own time."""
    return notice.id, notice.sent_at // 1_000_000
