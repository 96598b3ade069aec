"""CloudEvents of notices and changes: the bytes that watchers and targets get."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from vedette.api.routes.events import cloud_event as served
from vedette.handlers._target import cloud_event, excerpt
from vedette.model.entry import Entry
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.ports import EVERYTHING, Appended, Scope
from vedette.testing.clock import START_US
from vedette.testing.handling import PORT, change, notice_event, said

GOLDEN = (
    b'{"specversion":"1.0","id":"6d1c7a3e-58a4-4d7c-8c8f-6f9d2b1f3a55","source":"/sources/region-one",'
    b'"type":"openstack.port.update.end","time":"2026-11-20T15:19:05.000000Z","datacontenttype":"application/json",'
    b'"revision":"1795187946000042","origin":"notification","subject":"port/p1","priority":"info",'
    b'"publisher":"network.controller-1","requestid":"req-4f0c","data":{"port":{"id":"p1","binding:host_id":"h1"}}}'
)
PAYLOAD: dict[str, Any] = {"port": {"id": "p1", "binding:host_id": "h1"}}
KEY = Key("region-one", OPENSTACK, "Port", "p1")


def appended() -> Appended:
    reading = Reading(kind="Port", id="p1", verb="update", as_of=1)
    return Appended(Entry(1_795_187_946_000_042, START_US, said("port.update.end", PAYLOAD), (reading,)), ())


def test_a_notice_is_the_same_event_for_an_admin_and_for_a_target() -> None:
    assert served(appended(), EVERYTHING) == GOLDEN
    assert cloud_event(notice_event(PAYLOAD, event_type="port.update.end", key=KEY)) == GOLDEN


def test_a_tenant_sees_it_without_the_host_and_the_publisher() -> None:
    event = json.loads(served(appended(), Scope(projects=frozenset({"p"}))))
    assert event["data"] == {"port": {"id": "p1"}}
    assert "publisher" not in event


def test_our_own_word_keeps_its_type_and_an_event_of_no_object_has_no_subject() -> None:
    event = json.loads(cloud_event(notice_event({}, event_type="vedette.gap")))
    assert event["type"] == "vedette.gap"
    assert "subject" not in event


def test_a_change_is_named_by_revision_and_object_and_holds_both_states() -> None:
    made = change({"status": "ACTIVE"}, {"status": "DOWN"})
    event = json.loads(cloud_event(made))
    assert event.pop("data") == {"object": made.object, "old": made.old}
    assert event == {
        "specversion": "1.0",
        "id": f"1795187946000042/port/{PORT}",
        "source": "/sources/region-one",
        "type": "vedette.object.modified",
        "time": "2026-11-20T15:19:05.000000Z",
        "datacontenttype": "application/json",
        "revision": "1795187946000042",
        "origin": "notification",
        "subject": f"port/{PORT}",
        "eventtype": "port.update.end",
        "requestid": "req-4f0c",
    }
    assert json.loads(cloud_event(change({}, verb="ADDED")))["data"]["old"] == {}


def test_the_notices_trace_goes_along() -> None:
    notice = msgspec.structs.replace(said("port.update.end", {}), traceparent="00-ab-cd-01")
    assert json.loads(cloud_event(change({}, notice=notice)))["traceparent"] == "00-ab-cd-01"


def test_an_excerpt_is_one_short_line_of_what_can_be_read() -> None:
    assert excerpt(b"  no\r\n such\x00thing \xff ") == "no such thing \ufffd"
    assert excerpt("é" * 500) == "é" * 200 + "…"
