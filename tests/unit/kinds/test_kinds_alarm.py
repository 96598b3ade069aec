"""Alarms: what webhooks bring, as objects."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kinds_fold import KINDS, Inventory

from vedette.errors import NotUnderstood
from vedette.kit.clock import rfc3339
from vedette.model.notice import Notice
from vedette.testing.clock import START_US
from vedette.webhooks import alertmanager, aodh

sys.path.insert(0, str(Path(__file__).parents[1]))
from webhook_requests import ALARM, GROUP, only, request

SECOND = 1_000_000
ID = str(ALARM["alarm_id"])
GROUP_ID = GROUP["groupKey"]
AODH, ALERTMANAGER = aodh.build(aodh.Options()), alertmanager.build(alertmanager.Options())


def alarm(at: int = 0, **fields: Any) -> Notice:
    return only(AODH, request({**ALARM, **fields}, received_at=START_US + at * SECOND, x_openstack_request_id=f"req-{at}"))


def group(at: int = 0, **fields: Any) -> Notice:
    return only(ALERTMANAGER, request({**GROUP, **fields}, received_at=START_US + at * SECOND))


def test_an_alarm_is_an_object_that_moves_from_state_to_state() -> None:
    inventory = Inventory([alarm(), alarm(1, previous="alarm", current="insufficient data", reason="no samples")])
    assert [verb for *_, verb in inventory.changes] == ["ADDED", "MODIFIED"]
    assert inventory.fields("Alarm", ID) == {
        "name": "cpu_high",
        "state": "insufficient data",
        "previous": "alarm",
        "severity": "critical",
        "reason": "no samples",
        "reason_data": ALARM["reason_data"],
    }
    state = inventory.objects["Alarm", ID]
    assert (state.project, state.shared) == ("", False), "admins only"
    assert rfc3339(state.created) == rfc3339(START_US), "since when it is known: Aodh doesn't say"


def test_an_alarm_that_came_in_earlier_and_late_changes_nothing() -> None:
    inventory = Inventory([alarm(5, current="ok"), alarm(4)])
    assert inventory.fields("Alarm", ID)["state"] == "ok"


def test_a_trigger_is_no_alarm() -> None:
    assert Inventory([only(AODH, request())]).objects == {}


def test_a_group_is_one_alarm() -> None:
    inventory = Inventory([group(), group(1, status="resolved")])
    fields = inventory.fields("Alarm", GROUP_ID)
    assert (fields["name"], fields["state"], fields["severity"]) == ("DiskFull", "resolved", "critical")
    assert fields["reason"] == "A disk is full"
    assert [one["fingerprint"] for one in fields["alerts"]] == ["00000000000000aa", "c24b2c1a3f0d5e61"]
    assert [verb for *_, verb in inventory.changes] == ["ADDED", "MODIFIED"]


def test_alerts_in_another_order_are_no_change() -> None:
    turned = group(1, alerts=list(reversed(GROUP["alerts"])))
    assert [verb for *_, verb in Inventory([group(), turned]).changes] == ["ADDED"]


def test_a_group_whose_alerts_have_little_in_common_says_little() -> None:
    bare = group(commonLabels={}, commonAnnotations=None, groupLabels={})
    fields = Inventory([bare]).fields("Alarm", GROUP_ID)
    assert (fields["name"], fields["severity"], fields["reason"]) == (None, None, None)


def test_long_group_keys_are_told_apart() -> None:
    keys = [f"{'x' * 300}{end}" for end in "ab"]
    ids = [id_ for _, id_ in Inventory([group(groupKey=key) for key in keys]).objects]
    assert len(set(ids)) == 2
    assert all(len(id_) <= 253 for id_ in ids)


def test_what_is_served_was_declared() -> None:
    inventory = Inventory([alarm(), group()])
    for state in inventory.objects.values():
        assert state.fields.keys() <= KINDS["Alarm"].fields.keys()
        assert state.admin == {}


@pytest.mark.parametrize("payload", [b"[]", b"{}", b'{"alarm_id":"","current":"ok"}', b'{"groupKey":"","status":"firing"}', b"x"])
@pytest.mark.parametrize("event_type", ["aodh.alarm.ok", "alertmanager.group.firing"])
def test_payloads_of_another_shape_are_not_understood(event_type: str, payload: bytes) -> None:
    notice = Notice(id="x", source="y", event_type=event_type, sent_at=0, payload=msgspec.Raw(payload))
    with pytest.raises(NotUnderstood, match=event_type):
        list(KINDS["Alarm"].read(notice))
    assert list(KINDS["Alarm"].read(msgspec.structs.replace(notice, event_type="aodh.trigger"))) == []
