"""What `decode` makes of a message's bytes, and what becomes of those it can't read."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.errors import NotUnderstood
from vedette.model.notice import NOT_UNDERSTOOD
from vedette.sources.openstack import MAX_BODY, SHOWN, content_id, decode, set_aside

CAPTURES = Path(__file__).parents[1] / "captures"

MESSAGE: dict[str, Any] = {
    "message_id": "49175ccf-2dd0-4530-b020-66d91013bc02",
    "publisher_id": "network.ctl",
    "event_type": "port.create.end",
    "priority": "INFO",
    "payload": {"port": {"id": "p1", "name": "naïve"}},
    "timestamp": "2026-11-20 15:18:30.420516",
    "_unique_id": "82b7",
    "_context_request_id": "req-1",
    "_context_global_request_id": None,
    "_context_user_id": "u1",
    "_context_project_id": "caller",
    "_context_auth_token": "never",
    "_context_roles": ["member"],
}


def bare(**fields: Any) -> bytes:
    return json.dumps({**MESSAGE, **fields}).encode()


def wrapped(**fields: Any) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": bare(**fields).decode()}).encode()


@pytest.mark.parametrize("envelope", [bare, wrapped])
def test_both_envelopes_give_the_same_notice(envelope: Any) -> None:
    notice = decode(envelope(), "region-one")
    assert notice.id == MESSAGE["message_id"]
    assert notice.source == "region-one"
    assert notice.event_type == "port.create.end"
    assert notice.sent_at == 1795187910420516
    assert json.loads(bytes(notice.payload)) == MESSAGE["payload"]
    assert notice.priority == "INFO"
    assert notice.publisher == "network.ctl"
    assert notice.request_id == "req-1"
    assert notice.global_request_id == ""
    assert notice.actor_user == "u1"
    assert notice.actor_project == "caller"
    assert notice.origin == "notification"
    assert b"never" not in repr(notice).encode() + bytes(notice.payload)


def test_every_captured_message_is_read_and_its_fields_are_those_of_a_plain_reader() -> None:
    count = 0
    for path in sorted(CAPTURES.glob("[!a]*.jsonl.gz")):
        with gzip.open(path) as file:
            for line in file:
                body = json.loads(line)["body"]
                message = json.loads(json.loads(body)["oslo.message"])
                notice = decode(body.encode(), "s")
                count += 1
                assert notice.id == message["message_id"]
                assert notice.event_type == message["event_type"]
                assert notice.priority == message["priority"]
                assert notice.publisher == (message["publisher_id"] or "")
                assert notice.request_id == (message.get("_context_request_id") or "")
                assert notice.actor_user == (message.get("_context_user_id") or message.get("_context_user") or "")
                assert notice.actor_project == (message.get("_context_project_id") or message.get("_context_tenant") or "")
                assert notice.sent_at > 1795187000000000
                shown = json.loads(bytes(notice.payload))
                assert shown.keys() == message["payload"].keys()
    assert count == 2252


def test_the_id_falls_back_to_unique_id_and_then_to_the_content() -> None:
    assert decode(bare(message_id=None), "s").id == "82b7"
    body = bare(message_id=None, _unique_id=None)
    assert decode(body, "s").id == content_id(body)
    assert decode(bare(message_id="x" * 300), "s").id.startswith("sha256:")


def test_a_field_of_an_odd_type_that_only_describes_is_left_out() -> None:
    notice = decode(wrapped(_context_user_id={"id": 1}, priority=3, timestamp=17, publisher_id=["a"]), "s")
    assert (notice.actor_user, notice.priority, notice.publisher, notice.sent_at) == ("", "", "", 0)
    assert notice.id == MESSAGE["message_id"]
    assert json.loads(bytes(notice.payload)) == MESSAGE["payload"]


def test_a_timestamp_that_is_none_gives_zero() -> None:
    assert decode(bare(timestamp="soon"), "s").sent_at == 0
    assert decode(bare(timestamp=None), "s").sent_at == 0


def test_the_older_names_of_the_actor_are_read() -> None:
    body = bare(_context_user_id=None, _context_project_id=None, _context_user="old", _context_tenant="t")
    assert (decode(body, "s").actor_user, decode(body, "s").actor_project) == ("old", "t")


def test_null_payloads_are_kept() -> None:
    assert bytes(decode(bare(payload=None), "s").payload) == b"null"


@pytest.mark.parametrize(
    ("encoding", "squeeze"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("utf-8", bytes),
        ("UTF8", bytes),
        ("", bytes),
    ],
)
def test_content_encodings(encoding: str, squeeze: Any) -> None:
    assert decode(squeeze(wrapped()), "s", content_encoding=encoding).event_type == "port.create.end"


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (b"", "", "not JSON"),
        (b"\xff\xfe\x00", "", "not JSON"),
        (b"[]", "", "not a notification"),
        (b'"text"', "", "not a notification"),
        (b"{}", "", "no event_type"),
        (bare(event_type=""), "", "no event_type"),
        (bare(event_type=None), "", "event_type is of the wrong type"),
        (bare(event_type=7), "", "event_type is of the wrong type"),
        (bare(message_id=7), "", "message_id is of the wrong type"),
        (bare(event_type="x" * 256), "", "256 characters"),
        (b'{"event_type": "x"}', "", "no payload"),
        (b'{"event_type": "x", "payload": {"a": NaN}}', "", "not JSON"),
        (b'{"event_type": "\xff", "payload": {}}', "", "not UTF-8"),
        (b'{"oslo.message": 3}', "", "oslo.message is of the wrong type"),
        (b'{"oslo.message": "{"}', "", "not JSON"),
        (wrapped()[:-30], "", "not JSON"),
        (b"[" * 100_000, "", "not"),
        (b'{"event_type": "x", "payload": ' + b"[" * 400 + b"]" * 400 + b"}", "", "nested deeper"),
        (b'{"event_type": "x", "payload": ' + b"[" * 9000 + b"]" * 9000 + b"}", "", "nested too deep"),
        (b"xyz", "gzip", "not gzip"),
        (gzip.compress(wrapped())[:-12], "gzip", "cut off"),
        (b'{"event_type": 5, "payload": ' + b"[" * 9000 + b"]" * 9000 + b"}", "", "nested too deep"),
        (b'{"event_type": 5, "payload": 1', "", "not JSON"),
        (b"x", "br", "unknown content-encoding 'br'"),
        (b" " * (MAX_BODY + 1), "", "more than"),
        (gzip.compress(b" " * (MAX_BODY + 1)), "gzip", "when inflated"),
        (zlib.compress(b" " * (MAX_BODY + 1)), "deflate", "when inflated"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value,
)
def test_garbage_is_refused_with_its_reason_and_can_be_set_aside(body: bytes, encoding: str, reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason) as caught:
        decode(body, "s", content_encoding=encoding)
    notice = set_aside(body, "s", str(caught.value), exchange="nova", routing_key="notifications.info", content_encoding=encoding)
    assert notice.event_type == NOT_UNDERSTOOD
    assert notice.id == content_id(body)
    kept = json.loads(bytes(notice.payload))
    assert kept["reason"] == str(caught.value)
    assert kept["bytes"] == len(body)
    assert (kept["exchange"], kept["routing_key"]) == ("nova", "notifications.info")
    assert len(kept["body"].encode()) <= 3 * SHOWN


def test_a_body_of_16_mib_is_read() -> None:
    fill = "x" * (MAX_BODY - len(bare(payload="")))
    body = bare(payload=fill)
    assert len(body) == MAX_BODY
    assert len(bytes(decode(body, "s").payload)) == len(fill) + 2


def test_plain_bytes_by_any_name_are_shown() -> None:
    for name in ("", "utf-8", "UTF-8", "binary"):
        assert json.loads(bytes(set_aside(b"{}", "s", "odd", content_encoding=name).payload))["body"] == "{}"


def test_what_is_set_aside_holds_no_secret() -> None:
    body = b'{"event_type": 5, "payload": {"password": "hunter2"}, "adminPass": "hunter2"}'
    assert b"hunter2" not in bytes(set_aside(body, "s", "wrong").payload)
    squeezed = gzip.compress(body)
    assert json.loads(bytes(set_aside(squeezed, "s", "wrong", content_encoding="gzip").payload))["body"] == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=15,
)
bodies = st.one_of(
    st.binary(max_size=400),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(dict.fromkeys(MESSAGE, json_values)).map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps({"oslo.version": "2.0", "oslo.message": value}).encode()),
    json_values.map(lambda value: json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(value)}).encode()),
    st.integers(0, 500).map(lambda cut: wrapped()[:cut]),
)


@given(bodies, st.sampled_from(["", "gzip", "deflate", "utf-8", "what"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_notice_or_not_understood_and_never_another_error(body: bytes, encoding: str) -> None:
    try:
        notice = decode(body, "s", content_encoding=encoding)
    except NotUnderstood as why:
        notice = set_aside(body, "s", str(why), content_encoding=encoding)
    assert notice.event_type
    assert notice.id
    json.loads(bytes(notice.payload))
