"""Aodh's alarm actions: what is read, and what makes a duplicate."""

from __future__ import annotations

from typing import Any

import pytest
from webhook_requests import ALARM, REQUEST_ID, TRACE, identity, only, payload, request

from vedette.errors import NotUnderstood
from vedette.kit.clock import rfc3339_us
from vedette.testing.clock import START_US
from vedette.webhooks.aodh import Aodh, Options, build, state_word

AODH = Aodh()
LATER = START_US + 90_000_000


def test_an_alarm_is_a_notice_with_its_state_in_the_type() -> None:
    notice = only(build(Options()), request(ALARM, x_openstack_request_id=REQUEST_ID, traceparent=TRACE))
    assert notice.event_type == "aodh.alarm.alarm"
    assert notice.request_id == REQUEST_ID
    assert notice.traceparent == TRACE
    assert payload(notice) == {**ALARM, "received_at": rfc3339_us(START_US)}
    assert b'"most_recent": 81.4' in bytes(notice.payload), "the body stays as it was sent"


@pytest.mark.parametrize(
    ("state", "word"),
    [("ok", "ok"), ("alarm", "alarm"), ("insufficient data", "insufficient-data"), ("INSUFFICIENT  DATA", "insufficient-data")],
)
def test_states_have_one_spelling_in_the_type(state: str, word: str) -> None:
    assert only(AODH, request({**ALARM, "current": state})).event_type == f"aodh.alarm.{word}"
    assert payload(only(AODH, request({**ALARM, "current": state})))["current"] == state


def test_a_state_without_letters_is_unknown() -> None:
    assert state_word("***") == "unknown"


def test_a_retry_of_aodh_is_the_same_notice_whenever_it_comes() -> None:
    first = only(AODH, request(ALARM, x_openstack_request_id=REQUEST_ID))
    again = only(AODH, request(ALARM, x_openstack_request_id=REQUEST_ID, received_at=LATER))
    assert identity(first) == identity(again)


def test_a_repeated_action_is_another_notice() -> None:
    first = only(AODH, request(ALARM, x_openstack_request_id=REQUEST_ID))
    repeated = only(AODH, request(ALARM, x_openstack_request_id="req-another"))
    other = only(AODH, request({**ALARM, "reason": "another"}, x_openstack_request_id=REQUEST_ID))
    assert len({first.id, repeated.id, other.id}) == 3


def test_without_a_request_id_the_same_alarm_later_is_told_again() -> None:
    first, at_once = only(AODH, request(ALARM)), only(AODH, request(ALARM, received_at=START_US + 100))
    later = only(AODH, request(ALARM, received_at=LATER))
    assert identity(first) == identity(at_once)
    assert identity(first) != identity(later)


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}"])
def test_an_empty_body_is_a_trigger(body: bytes) -> None:
    notice = only(AODH, request(body, x_openstack_request_id=REQUEST_ID))
    assert notice.event_type == "aodh.trigger"
    assert payload(notice) == {"received_at": rfc3339_us(START_US)}
    assert identity(only(AODH, request(body))) != identity(only(AODH, request(body, received_at=LATER)))


def test_a_caller_does_not_say_when_it_was_received() -> None:
    assert payload(only(AODH, request({**ALARM, "received_at": "1999-01-01"})))["received_at"] == rfc3339_us(START_US)


def test_secrets_in_an_alarm_are_not_kept() -> None:
    said = {**ALARM, "reason_data": {"event": {"traits": [], "admin_password": "hunter2"}}}
    assert b"hunter2" not in bytes(only(AODH, request(said)).payload)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"not json", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        ({"current": "ok"}, "alarm_id is missing"),
        ({"alarm_id": "", "current": "ok"}, "alarm_id is not a text, or it is empty"),
        ({"alarm_id": "x"}, "current is missing"),
        ({"alarm_id": "x", "current": ["ok"]}, "current is not a text"),
        ({"alarm_id": "x", "current": "y" * 300}, "more than 255"),
    ],
)
def test_what_is_no_alarm_is_refused_with_the_reason(body: Any, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        AODH.parse(request(body))


def test_a_header_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="x-openstack-request-id is not UTF-8"):
        AODH.parse(request(ALARM, x_openstack_request_id="req-\udcff"))
