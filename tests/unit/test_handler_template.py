"""Texts that an event fills: what is taken at the start, and what no value of an event can do to them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.errors import ConfigError, GiveUp
from vedette.handlers._template import LARGEST_TEXT, MOST_PLACES, Form, Values, template
from vedette.ports import Event
from vedette.testing.handling import PORT, change, notice_event

EVENT = change(
    {"name": 'a "b" & c/d', "status": "ACTIVE", "ips": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "OS-EXT-SRV-ATTR:host": "h1"},
    {"name": "before", "status": "DOWN"},
)


def filled(text: str, form: Form = "text", event: Event = EVENT, **more: Any) -> str:
    return template(text, form, **more).fill(Values(event))


@pytest.mark.parametrize(
    ("text", "gives"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{object.status.status}", "ACTIVE"),
        ("{old.status.status} → {object.status.status}", "DOWN → ACTIVE"),
        ("{{{object.kind}}}", "{Port}"),
        ("{object.status.ips.1.ip}{object.status.ips[0].ip}", "10.0.0.210.0.0.1"),
        ("{object.status.OS-EXT-SRV-ATTR:host}", "h1"),
        ('{object["status"]["OS-EXT-SRV-ATTR:host"]}', "h1"),
        ("{object['status'].ips[7].ip}{object.status.ips.x}{object.status.status.x}{object.__class__.__init__}", ""),
        ("{event.type} {event.verb} {event.source} {event.user} {event.project}", "port.update.end MODIFIED region-one u-17 p-1"),
        ("{event.payload.port.id}", PORT),
        ("{event.revision} {idempotency_key} {handler}", "1795187946000042 here/1795187946000042 here"),
        ("{event.time}", "2026-11-20T15:19:05.000000Z"),
        ("{key}", f"region-one/openstack.vedette.dev/Port/{PORT}"),
        ("{key.kind}/{key.id}", f"Port/{PORT}"),
        ("{object.status.ips}", '[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]'),
        ("{object.status.name|json}", '"a \\"b\\" & c/d"'),
        ("{object.status.name|urlquote}", "a%20%22b%22%20%26%20c%2Fd"),
        ("{object.status.ips[0]|json|urlquote}", "%7B%22ip%22%3A%2210.0.0.1%22%7D"),
    ],
)
def test_a_place_holds_the_value_at_the_end_of_its_path(text: str, gives: str) -> None:
    assert filled(text) == gives


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a {", "character 4: a name must follow"),
        ("a {}", "character 4: a name must follow"),
        ("a }", "character 3: a single }"),
        ("{object.status", "character 15: the } is missing"),
        ("{object.}", "character 9: a name must follow the dot"),
        ("{object[}", "character 8: wants a name in quotes"),
        ('{object["a\\"]}', "wants a name in quotes"),
        ("{object.status!r}", "wants a } here"),
        ("{object.status:>10}", "wants a } here"),
        ("{object|eval}", "filters json, urlquote"),
        ("{object|json|json}", "each once"),
        ("{objekt.status}", "there is no objekt; there are: event"),
        ("{event}", "of event there are"),
        ("{event.verbs}", "of event there are"),
        ("{key.name}", "of key there are"),
        ("{handler.name}", "nothing inside"),
        ("first\nsecond {x", "line 2, character 10: the } is missing"),
        ("{object" + ".a" * 30 + "}", "at most 20 steps"),
        ("{handler}" * (MOST_PLACES + 1), "more than 200 places"),
        ("x" * 70_000, "more than 65536 characters"),
    ],
)
def test_what_is_wrong_is_said_at_the_start_and_where(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^options\.body: ") as raised:
        template(text, path="options.body")
    assert says in str(raised.value)


def test_what_is_missing_is_empty_or_a_dead_letter_as_the_settings_say() -> None:
    assert filled("[{object.status.nothing}]") == "[]"
    with pytest.raises(GiveUp, match=r"\{object\.status\.nothing\} has no value"):
        filled("[{object.status.nothing}]", missing="fail")
    nameless = change({"name": ""})
    with pytest.raises(GiveUp, match="has no value"):
        filled("/things/{object.status.name}", "url", nameless, missing="fail")


def test_a_notice_has_no_verb_and_perhaps_no_key() -> None:
    event = notice_event({"instance_id": "i-1"})
    assert filled("{event.verb}|{key}|{key.id}|{object.status}|{event.payload.instance_id}", event=event) == "||||i-1"


def test_a_json_body_takes_values_as_json_and_pieces_of_strings() -> None:
    body = '{{"name": {object.status.name}, "text": "it is {object.status.name}!", "ips": {object.status.ips}, "no": {old.no}}}'
    assert json.loads(filled(body, "json")) == {
        "name": 'a "b" & c/d',
        "text": 'it is a "b" & c/d!',
        "ips": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
        "no": None,
    }
    assert json.loads(filled('["{object.status.ips[0]}", {object.status.name|json}, "{object.status.name|urlquote}"]', "json"))[
        0
    ] == ('{"ip":"10.0.0.1"}')


@pytest.mark.parametrize(
    "text", ['{"a": {handler}}', "{{{handler}}}", "[1{handler}]", '"\\{handler}"', "", "[{handler|urlquote}]"]
)
def test_a_json_body_that_would_not_be_json_is_an_error_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError):
        template(text, "json")


def test_a_text_that_grows_too_large_is_a_dead_letter() -> None:
    big = change({"name": "x" * (LARGEST_TEXT // 100)})
    with pytest.raises(GiveUp, match="more than"):
        filled("{object.status.name}" * 101, event=big)


@pytest.mark.parametrize("name", [".", "..", "a/../b", "..\\..\\x"])
def test_a_name_of_dots_leads_out_of_no_path(name: str) -> None:
    with pytest.raises(GiveUp, match="segment"):
        filled("https://h/things/{object.status.name}/x", "url", change({"name": name}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_no_value_breaks_out_of_a_json_body(value: Any) -> None:
    body = template('{{"v": {object.status.name}, "s": "<{object.status.name}>", "j": {object.status.name|json}}}', "json")
    said = json.loads(body.fill(Values(change({"name": value}))))
    assert said["v"] == said["j"] == value
    assert said.keys() == {"v", "s", "j"}
    assert said["s"][0] + said["s"][-1] == "<>"
    if isinstance(value, str):
        assert said["s"] == f"<{value}>"


@given(JSON)
def test_no_value_leaves_its_place_in_an_address(value: Any) -> None:
    address = template("https://host.example/a/{object.status.name}/b?q={object.status.name}&r=1", "url")
    try:
        url = address.fill(Values(change({"name": value})))
    except GiveUp:
        assert any(step in (".", "..") for step in str(value).replace("\\", "/").split("/")) or "." in str(value)
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "host.example", "")
    assert [parts.path.count("/"), parts.path.split("/")[1], parts.path.split("/")[3]] == [3, "a", "b"]
    assert parse_qsl(parts.query, keep_blank_values=True)[1:] == [("r", "1")]
    if isinstance(value, str):
        assert unquote(parts.path.split("/")[2]) == value


@given(JSON)
def test_no_value_begins_another_line_in_a_header(value: Any) -> None:
    text = template("{object.status.name}|{object}", "line").fill(Values(change({"name": value})))
    assert len(text.splitlines()) == 1
    assert not any(ord(char) < 32 or ord(char) == 127 for char in text)


@given(st.text(alphabet="{}abcjson|.[]\"'\\0 \nobjectevnthadlry_", max_size=40), st.sampled_from(["text", "line", "url", "json"]))
def test_garbage_is_refused_or_filled(text: str, form: Form) -> None:
    try:
        made = template(text, form)
    except ConfigError:
        return
    try:
        gives = made.fill(Values(EVENT))
    except GiveUp:
        return
    if form == "json":
        json.loads(gives)


@given(st.text())
def test_braces_that_are_doubled_are_plain_text(text: str) -> None:
    assert template(text.replace("{", "{{").replace("}", "}}")).fill(Values(EVENT)) == text
