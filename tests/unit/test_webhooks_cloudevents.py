"""CloudEvents 1.0.2 over HTTP: the three content modes, with the examples of the specification."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from webhook_requests import EVENT, TRACE, only, payload, request

from vedette.errors import NotUnderstood, UnsupportedFormat
from vedette.kit.clock import parse_us
from vedette.webhooks.cloudevents import Options, build

DATA, WHOLE = build(Options()), build(Options(payload="event"))
STRUCTURED = "application/cloudevents+json; charset=utf-8"
BATCH = "application/cloudevents-batch+json"
BINARY = {
    "ce_specversion": "1.0",
    "ce_type": "com.example.someevent",
    "ce_time": "2018-04-05T03:56:24Z",
    "ce_id": "1234-1234-1234",
    "ce_source": "/mycontext/subcontext",
}


def test_a_structured_event_keeps_its_type_time_trace_and_data() -> None:
    notice = only(DATA, request(EVENT, content_type=STRUCTURED))
    assert notice.event_type == "com.example.backup.done"
    assert notice.id == "/backups/nightly A234-1234-1234"
    assert notice.sent_at == parse_us("2026-11-20T15:18:30.420516Z")
    assert (notice.publisher, notice.traceparent) == ("/backups/nightly", TRACE)
    assert payload(notice) == EVENT["data"]


def test_the_whole_event_is_kept_where_it_is_asked_for() -> None:
    assert payload(only(WHOLE, request(EVENT, content_type=STRUCTURED))) == EVENT
    whole = payload(only(WHOLE, request(b"[1]", content_type="application/json", **BINARY, ce_subject="a")))
    assert whole == {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "time": "2018-04-05T03:56:24Z",
        "id": "1234-1234-1234",
        "source": "/mycontext/subcontext",
        "subject": "a",
        "datacontenttype": "application/json",
        "data": [1],
    }


def test_a_binary_event_is_in_the_headers() -> None:
    notice = only(DATA, request({"a": 1.50}, content_type="application/json; charset=utf-8", **BINARY, ce_traceparent=TRACE))
    assert (notice.event_type, notice.id) == ("com.example.someevent", "/mycontext/subcontext 1234-1234-1234")
    assert notice.sent_at == parse_us("2018-04-05T03:56:24Z")
    assert notice.traceparent == TRACE
    assert payload(notice) == {"a": 1.5}


def test_the_mode_makes_no_other_event() -> None:
    binary = {f"ce_{name}": value for name, value in EVENT.items() if isinstance(value, str) and name != "datacontenttype"}
    structured = only(DATA, request(EVENT, content_type=STRUCTURED))
    assert only(DATA, request(EVENT["data"], content_type="application/json", **binary)) == structured
    assert DATA.parse(request([EVENT], content_type=BATCH)) == (structured,)


def test_a_batch_is_one_notice_for_each_event_and_may_be_empty() -> None:
    notices = DATA.parse(request([EVENT, {**EVENT, "id": "2"}], content_type=BATCH))
    assert [notice.id for notice in notices] == ["/backups/nightly A234-1234-1234", "/backups/nightly 2"]
    assert DATA.parse(request([], content_type=BATCH)) == ()


def test_numbers_keep_the_form_in_which_they_were_sent() -> None:
    raw = json.dumps(EVENT).replace("1.5", "1.500").encode()
    assert b"1.500" in bytes(only(DATA, request(raw, content_type=STRUCTURED)).payload)


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"a \\"quoted\\" one"', 'a "quoted" one'),
        ("%2525", "%25"),
        ("plain", "plain"),
        ("%zz", "%zz"),
    ],
)
def test_headers_are_decoded_once(value: str, means: str) -> None:
    assert payload(only(WHOLE, request(**BINARY, ce_subject=value)))["subject"] == means


def test_an_overlong_encoding_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="the header ce-subject is not UTF-8"):
        DATA.parse(request(**BINARY, ce_subject="%C0%A0"))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"data": None}, None),
        ({"data": "I'm just a string"}, "I'm just a string"),
        ({"datacontenttype": "application/xml", "data": '<much wow="xml"/>'}, '<much wow="xml"/>'),
        ({"data_base64": base64.b64encode(b'{"a": 1}').decode()}, {"a": 1}),
        (
            {"datacontenttype": "image/png", "data_base64": "iVBORw=="},
            {"datacontenttype": "image/png", "data_base64": "iVBORw=="},
        ),
        ({"datacontenttype": "text/plain", "data_base64": base64.b64encode(b"hello").decode()}, "hello"),
        (
            {"datacontenttype": "text/plain", "data_base64": base64.b64encode(b"\xff\xfe").decode()},
            {"datacontenttype": "text/plain", "data_base64": "//4="},
        ),
        ({}, {}),
    ],
)
def test_data_is_kept_as_json_as_text_or_as_base64(said: dict[str, Any], kept: Any) -> None:
    event = {name: value for name, value in EVENT.items() if name not in ("data", "datacontenttype")}
    assert payload(only(DATA, request({**event, **said}, content_type=STRUCTURED))) == kept


def test_a_binary_event_without_a_body_has_an_empty_payload() -> None:
    assert payload(only(DATA, request(**BINARY))) == {}


def test_attributes_that_are_null_are_not_there() -> None:
    notice = only(WHOLE, request({**EVENT, "time": None, "subject": None}, content_type=STRUCTURED))
    assert notice.sent_at == 0
    assert not {"time", "subject"} & payload(notice).keys()


def test_sources_and_ids_are_told_apart_wherever_the_space_is() -> None:
    one = only(DATA, request({**EVENT, "source": "a b", "id": "c"}, content_type=STRUCTURED))
    other = only(DATA, request({**EVENT, "source": "a", "id": "b c"}, content_type=STRUCTURED))
    assert one.id != other.id
    assert len(only(DATA, request({**EVENT, "id": "x" * 5000}, content_type=STRUCTURED)).id) <= 255


def test_secrets_are_not_kept_in_any_form() -> None:
    for said in (
        {"data": {"password": "hunter2"}},
        {"data": "password=hunter2"},
        {"data_base64": base64.b64encode(b'{"password": "hunter2"}').decode()},
        {"datacontenttype": "image/png", "data_base64": base64.b64encode(b"password=hunter2").decode()},
    ):
        event = {name: value for name, value in EVENT.items() if name != "data"}
        kept = bytes(only(WHOLE, request({**event, **said}, content_type=STRUCTURED)).payload)
        assert b"hunter2" not in kept, said
        assert base64.b64encode(b"password=hunter2") not in kept, said


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents+avro", "application/cloudevents", "application/cloudevents-batch"]
)
def test_a_format_that_is_not_read_is_said_so(content_type: str) -> None:
    with pytest.raises(UnsupportedFormat, match="only JSON"):
        DATA.parse(request(EVENT, content_type=content_type))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"specversion": "0.3"}, 'specversion is not "1.0"'),
        ({"specversion": None}, 'specversion is not "1.0"'),
        ({"id": ""}, "id is not a text, or it is empty"),
        ({"id": 7}, "id is not a text"),
        ({"source": None}, "source is missing"),
        ({"type": None}, "type is missing"),
        ({"type": "vedette.gap"}, "Vedette's own word"),
        ({"type": "x" * 256}, "more than 255"),
        ({"time": "yesterday"}, "time is not a time"),
        ({"time": 7}, "time is not a time"),
        ({"datacontenttype": 7}, "datacontenttype is not a text"),
        ({"data_base64": "e30="}, "can't both be there"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(said: dict[str, Any], why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        DATA.parse(request({**EVENT, **said}, content_type=STRUCTURED))
    with pytest.raises(NotUnderstood, match=f"event 1: .*{why}|{why}"):
        DATA.parse(request([EVENT, {**EVENT, **said}], content_type=BATCH))


def test_a_batch_has_a_limit() -> None:
    with pytest.raises(NotUnderstood, match="1001 events"):
        DATA.parse(request([EVENT] * 1001, content_type=BATCH))
    with pytest.raises(NotUnderstood, match="not a JSON list"):
        DATA.parse(request(EVENT, content_type=BATCH))
    with pytest.raises(NotUnderstood, match="event 0: the event is not a JSON object"):
        DATA.parse(request([1], content_type=BATCH))


def test_base64_that_is_none_is_refused() -> None:
    event = {name: value for name, value in EVENT.items() if name != "data"}
    for odd in ("%%%", "abc", "é===", 7):
        with pytest.raises(NotUnderstood, match="data_base64 is not"):
            DATA.parse(request({**event, "data_base64": odd}, content_type=STRUCTURED))


def test_a_request_without_attributes_is_told_what_is_missing() -> None:
    with pytest.raises(NotUnderstood, match="no header ce-specversion"):
        DATA.parse(request(EVENT, content_type="application/json"))


def test_only_configured_origins_are_invited() -> None:
    named: Any = build(Options(origins=("eventemitter.example.com",)))
    anyone: Any = build(Options(origins=("*",)))
    nobody: Any = build(Options())
    assert named.invites("EventEmitter.example.com")
    assert not named.invites("example.com")
    assert anyone.invites("x")
    assert not nobody.invites("x")
