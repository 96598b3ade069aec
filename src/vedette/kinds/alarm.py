"""Alarms, as Aodh and Alertmanager tell of them by webhook (webhooks/aodh.py, webhooks/alertmanager.py).

An Alertmanager group is one alarm. Its id is the group's key, made short where it is too long for one. What an alarm was last
said to be is what is served: neither says when one is deleted. Both bring no project, so admins see them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._said import decoded, moment
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

AODH, GROUP = "aodh.alarm.", "alertmanager.group."

LONGEST_ID = 200
"""Characters of a group's key that is its id; of a longer one only the beginning is, and a digest of all of it."""

FIELDS = {
    "name": Field("string", "The alarm's name; of a group its alertname, where all its alerts have one."),
    "state": Field("string", "Aodh: ok, alarm, insufficient data. Alertmanager: firing, resolved."),
    "previous": Field("string", "The state before, where it was said (Aodh)."),
    "severity": Field("string", "Aodh: low, moderate, critical. Alertmanager: the label severity that all its alerts have."),
    "reason": Field("string", "Why, in words; of a group the summary or description that all its alerts have."),
    "reason_data": Field("object", "Why, as Aodh's evaluator says it: the measured value, or the event."),
    "labels": Field("object", "The labels that all alerts of the group have (Alertmanager)."),
    "alerts": Field("array", "The group's alerts (Alertmanager): each with fingerprint, status, labels, startsAt and endsAt."),
}

_ALERT = ("fingerprint", "status", "labels", "startsAt", "endsAt")


class _Alarm(msgspec.Struct, gc=False):
    alarm_id: str
    current: str
    alarm_name: str | None = None
    previous: str | None = None
    severity: str | None = None
    reason: str | None = None
    reason_data: dict[str, Any] | None = None
    received_at: str | None = None


class _Group(msgspec.Struct, gc=False):
    groupKey: str
    status: str
    commonLabels: dict[str, Any] | None = None
    commonAnnotations: dict[str, Any] | None = None
    groupLabels: dict[str, Any] | None = None
    alerts: list[dict[str, Any]] | None = None
    received_at: str | None = None


_alarm = msgspec.json.Decoder(_Alarm)
_group = msgspec.json.Decoder(_Group)


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one alarm."""
    if notice.event_type.startswith(AODH):
        return (_of_aodh(notice),)
    if notice.event_type.startswith(GROUP):
        return (_of_group(notice),)
    return ()


def _of_aodh(notice: Notice) -> Reading:
    said: _Alarm = decoded(_alarm.decode, notice.payload, notice.event_type)
    if not said.alarm_id:
        raise NotUnderstood(f"{notice.event_type}: an alarm without an id")
    fields = {
        "name": said.alarm_name,
        "state": said.current,
        "previous": said.previous,
        "severity": said.severity,
        "reason": said.reason,
        "reason_data": said.reason_data,
    }
    return _reading(notice, said.alarm_id, said.received_at, fields)


def _of_group(notice: Notice) -> Reading:
    said: _Group = decoded(_group.decode, notice.payload, notice.event_type)
    if not said.groupKey:
        raise NotUnderstood(f"{notice.event_type}: a group without a key")
    labels, notes = said.commonLabels or {}, said.commonAnnotations or {}
    alerts = [{name: alert.get(name) for name in _ALERT} for alert in said.alerts or ()]
    fields = {
        "name": _text((said.groupLabels or {}).get("alertname")) or _text(labels.get("alertname")),
        "state": said.status,
        "severity": _text(labels.get("severity")),
        "reason": _text(notes.get("summary")) or _text(notes.get("description")),
        "labels": labels,
        # They come in any order.
        "alerts": sorted(alerts, key=lambda alert: (str(alert["fingerprint"]), str(alert["startsAt"]))),
    }
    return _reading(notice, _short(said.groupKey), said.received_at, fields)


def _reading(notice: Notice, id_: str, received_at: str | None, fields: dict[str, Any]) -> Reading:
    """As of when it came in: Aodh says no time, and the times of a group's alerts can be older than its last news."""
    as_of = moment(received_at)
    return Reading(
        kind="Alarm",
        id=id_,
        verb="create",
        as_of=notice.sent_at if as_of is None else as_of,
        project="",
        fields=fields,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _short(key: str) -> str:
    if len(key) <= LONGEST_ID:
        return key
    return f"{key[:LONGEST_ID]}:{hashlib.sha256(key.encode()).hexdigest()[:16]}"


KIND = Kind(
    kind="Alarm",
    plural="alarms",
    singular="alarm",
    doc="An alarm of Aodh, or a group of alerts of Alertmanager, as it was last told by webhook.",
    events=(f"{AODH}*", f"{GROUP}*"),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Alarm-Name", ("name",)),
        Column("State", ("state",)),
        Column("Severity", ("severity",)),
        Column("Reason", ("reason",), priority=1),
    ),
    audience="admin",
)
