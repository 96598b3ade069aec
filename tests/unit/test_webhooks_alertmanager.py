"""Alertmanager's groups: kept as one, and told once for each state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from webhook_requests import GROUP, identity, only, payload, request

from vedette.errors import NotUnderstood
from vedette.kit.clock import parse_us, rfc3339_us
from vedette.testing.clock import START_US
from vedette.webhooks.alertmanager import Options, build

DROP, KEEP = build(Options()), build(Options(repeats="keep"))
LATER = START_US + 4 * 3_600_000_000


def changed(**alert: Any) -> dict[str, Any]:
    """The group with its first alert changed."""
    group = copy.deepcopy(GROUP)
    group["alerts"][0].update(alert)
    return group


def test_a_group_is_one_notice_with_all_its_alerts() -> None:
    notice = only(DROP, request(GROUP))
    assert notice.event_type == "alertmanager.group.firing"
    assert payload(notice) == {**GROUP, "received_at": rfc3339_us(START_US)}
    assert notice.sent_at == parse_us("2026-11-20T15:10:00Z"), "when the newest of it came to be"
    assert only(DROP, request({**GROUP, "status": "resolved"})).event_type == "alertmanager.group.resolved"


def test_a_repeated_notification_of_the_same_state_is_a_duplicate() -> None:
    again = {**GROUP, "alerts": list(reversed(GROUP["alerts"])), "commonAnnotations": {"summary": "81 %"}}
    assert identity(only(DROP, request(GROUP))) == identity(only(DROP, request(again, received_at=LATER)))


def test_repeats_that_are_kept_are_events_of_their_own() -> None:
    assert identity(only(KEEP, request(GROUP))) != identity(only(KEEP, request(GROUP, received_at=LATER)))
    assert identity(only(KEEP, request(GROUP))) == identity(only(KEEP, request(GROUP, received_at=START_US + 1)))


@pytest.mark.parametrize(
    "group",
    [
        {**GROUP, "groupKey": '{}:{alertname="Other"}'},
        {**GROUP, "receiver": "other"},
        {**GROUP, "status": "resolved"},
        {**GROUP, "alerts": GROUP["alerts"][:1]},
        changed(status="resolved"),
        changed(status="resolved", endsAt="2026-11-20T16:00:00Z"),
        changed(startsAt="2026-11-20T15:05:00Z"),
        changed(fingerprint="0000000000000001"),
    ],
    ids=["group", "receiver", "status", "fewer", "resolved", "ended", "started-again", "another"],
)
def test_every_other_state_is_another_event(group: Any) -> None:
    assert only(DROP, request(GROUP)).id != only(DROP, request(group)).id


def test_the_guessed_end_of_an_alert_that_fires_is_no_state() -> None:
    assert only(DROP, request(changed(endsAt="2026-11-20T15:20:00Z"))).id == only(DROP, request(GROUP)).id


def test_without_fingerprints_the_labels_name_an_alert() -> None:
    bare = changed(fingerprint=None)
    other = changed(fingerprint=None, labels={"alertname": "DiskFull", "instance": "node-9"})
    assert only(DROP, request(bare)).id != only(DROP, request(other)).id


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        ({**GROUP, "version": "3"}, 'version is not "4"'),
        ({**GROUP, "version": 4}, 'version is not "4"'),
        ({**GROUP, "status": "odd"}, "neither firing nor resolved"),
        ({**GROUP, "groupKey": None}, "groupKey is missing"),
        ({**GROUP, "alerts": {}}, "alerts is not a list"),
        ({**GROUP, "alerts": [1]}, r"alerts\[0\] is not an object"),
    ],
)
def test_what_is_no_group_is_refused_with_the_reason(body: Any, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        DROP.parse(request(body))
