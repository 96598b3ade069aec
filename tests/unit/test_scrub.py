"""Secrets are taken out of every payload, at every depth, and nothing else is touched."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.errors import NotUnderstood
from vedette.model import scrub as module
from vedette.model.scrub import MASK, MAX_DEPTH, WORDS, is_secret, scrub, scrub_text, suspicious

CAPTURES = Path(__file__).parents[1] / "captures"
SECRET = "s3cr3t-value-7f3a"


@cache
def payloads() -> list[bytes]:
    """The payload of every captured notification, as the service wrote it."""
    found = []
    for path in sorted(CAPTURES.glob("[!a]*.jsonl.gz")):
        with gzip.open(path) as file:
            for line in file:
                message = json.loads(json.loads(json.loads(line)["body"])["oslo.message"])
                found.append(json.dumps(message["payload"]).encode())
    assert len(found) > 2000
    return found


@cache
def plain() -> list[Any]:
    """Payloads without a secret, parsed."""
    return [json.loads(payload) for payload in payloads() if not suspicious(payload)]


def places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every object in a value, as the path to it."""
    found = [at] if isinstance(value, dict) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*at, key))
    return found


def planted(value: Any, place: tuple[str | int, ...], key: str, secret: Any) -> Any:
    """The value with one more key at a place; nothing else is changed."""
    if not place:
        return {**value, key: secret}
    head, rest = place[0], place[1:]
    if isinstance(value, list):
        return [planted(item, rest, key, secret) if index == head else item for index, item in enumerate(value)]
    return {name: planted(item, rest, key, secret) if name == head else item for name, item in value.items()}


def spellings(word: str) -> st.SearchStrategy[str]:
    """A secret word as services write it: any case, any separator, with something before and after."""
    parts = {
        "adminpass": ("admin", "pass"),
        "privatekey": ("private", "key"),
        "connectioninfo": ("connection", "info"),
        "userdata": ("user", "data"),
        "servicecatalog": ("service", "catalog"),
        "apikey": ("api", "key"),
        "providerauth": ("provider", "auth"),
    }.get(word, (word,))
    joined = st.sampled_from(["_", "-", ""]).map(lambda mark: mark.join(parts))
    case = st.sampled_from([str.lower, str.upper, str.title, str.swapcase])
    return st.builds(
        lambda before, word, case, after: f"{before}{case(word)}{after}",
        st.sampled_from(["", "_context_", "x-", "os_", "3."]),
        joined,
        case,
        st.sampled_from(["", "s", "_2", "-id"]),
    )


secret_keys = st.sampled_from(WORDS).flatmap(spellings)
secret_values = st.one_of(
    st.just(SECRET),
    st.just([SECRET]),
    st.just({"a": {"b": [SECRET, 1]}}),
    st.just(json.dumps({"x": SECRET})),
)


@given(st.data(), secret_keys, secret_values)
@settings(max_examples=400, deadline=None)
def test_a_secret_under_any_key_at_any_depth_of_any_payload_is_not_in_the_output_and_all_else_is(
    data: st.DataObject, key: str, secret: Any
) -> None:
    payload = data.draw(st.sampled_from(plain()))
    place = data.draw(st.sampled_from(places(payload)))
    out = scrub(json.dumps(planted(payload, place, key, secret)).encode())
    assert SECRET.encode() not in out
    assert json.loads(out) == planted(payload, place, key, MASK)


@given(st.data(), secret_keys)
@settings(max_examples=100, deadline=None)
def test_a_secret_in_json_inside_a_string_is_not_in_the_output(data: st.DataObject, key: str) -> None:
    payload = data.draw(st.sampled_from(plain()))
    place = data.draw(st.sampled_from(places(payload)))
    twice = json.dumps({"deeper": json.dumps({key: SECRET, "kept": 1})})
    out = scrub(json.dumps(planted(payload, place, "extra", twice)).encode())
    assert SECRET.encode() not in out
    inner = json.dumps({key: MASK, "kept": 1}, separators=(",", ":"))
    assert json.loads(out) == planted(payload, place, "extra", json.dumps({"deeper": inner}, separators=(",", ":")))


@given(st.binary(max_size=300), st.sampled_from(WORDS).flatmap(spellings), st.binary(max_size=300))
def test_the_first_look_never_overlooks_a_secret_word(before: bytes, key: str, after: bytes) -> None:
    assert suspicious(before + key.encode() + after)


def test_every_word_leaves_a_stem_that_the_first_look_searches_for() -> None:
    for stem in module._STEMS:
        few = stem.translate(module._FEW, module._NOT_FEW)
        assert any(one in few for one in module._FEW_STEMS), stem
    for word in WORDS:
        assert any(stem in word.encode() for stem in module._STEMS), word


def test_a_payload_without_a_secret_is_the_very_same_bytes() -> None:
    same = [payload for payload in payloads() if scrub(payload) is payload]
    assert len(same) > 0.95 * len(payloads())


def test_captured_tokens_connection_info_and_catalogs_are_gone() -> None:
    hits = 0
    for payload in payloads():
        out = scrub(payload)
        assert b"recorded-token" not in out
        if out is not payload:
            hits += 1
            assert b'"***"' in out
    assert hits > 50


@pytest.mark.parametrize("key", ["adminPass", "OS_PASSWORD", "root-pass", "pass", "x-auth-token", "userData", "chap_secret"])
def test_is_secret(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key", ["bypass", "compass_id", "connectivity", "encryption_key_id", "key_name", "public_key", "user_id"]
)
def test_is_no_secret(key: str) -> None:
    assert is_secret(key) is (key == "bypass")  # Ends in `pass`: masked, wrongly but safely.


def test_null_stays_null_under_a_secret_key() -> None:
    assert scrub(b'{"auth_token":null,"password":""}') == b'{"auth_token":null,"password":"***"}'


def test_an_escaped_key_is_seen() -> None:
    assert scrub(b'{"p\\u0061ssword": "hunter2", "a": 1}') == b'{"password":"***","a":1}'


def test_tokens_and_keys_in_ordinary_strings_are_masked() -> None:
    token = "gAAAAABnP" + "x" * 80 + "=="
    out = json.loads(scrub(json.dumps({"note": f"failed with {token} at once", "list": [token]}).encode()))
    assert out == {"note": "failed with *** at once", "list": ["***"]}
    pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
    assert json.loads(scrub(json.dumps({"data": f"a {pem} b"}).encode())) == {"data": "a *** b"}


def test_assignments_in_tracebacks_are_masked() -> None:
    text = "Traceback: call(auth_token='abc def', user=\"me\", {'adminPass': u'xyz', 'n': 1}) password=hunter2, next"
    out = json.loads(scrub(json.dumps({"traceback": text}).encode()))["traceback"]
    assert "abc" not in out
    assert "xyz" not in out
    assert "hunter2" not in out
    assert 'user="me"' in out
    assert "'n': 1" in out


def test_numbers_keep_their_text() -> None:
    odd = b'{"token":1,"a":1.50,"b":1e400,"c":12345678901234567890123,"d":-0.0}'
    assert scrub(odd) == odd.replace(b'"token":1', b'"token":"***"')


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 900, 50_000])
@pytest.mark.parametrize("inner", ["1", '{"password":"x"}'])
def test_deep_nesting_is_not_understood(levels: int, inner: str) -> None:
    with pytest.raises(NotUnderstood, match="nested deeper"):
        scrub(("[" * levels + inner + "]" * levels).encode())


def test_deep_nesting_inside_strings_is_bounded_too() -> None:
    value = SECRET
    for _ in range(8):
        value = json.dumps({"password_holder": 1, "next": value})
    assert SECRET.encode() not in scrub(json.dumps({"deep": {"token": value}}).encode())
    nested = "[" * 5000 + '{"password":"' + SECRET + '"}' + "]" * 5000
    assert SECRET.encode() not in scrub(json.dumps({"text": nested}).encode())


def test_many_brackets_side_by_side_are_fine() -> None:
    payload = json.dumps({"list": [[] for _ in range(5000)], "text": "[" * 5000}).encode()
    assert scrub(payload) is payload


def test_garbage_is_cut_at_the_first_hit_and_says_how_much_is_withheld() -> None:
    body = b'{"event_type": "x", "payload": {"admin_pass": "hunter2", "more'
    text, withheld = scrub_text(body, 1000)
    assert text == '{"event_type": "x", "payload": {"admin_'
    assert withheld == len(body) - len(text)


def test_readable_json_that_is_no_notification_is_shown_scrubbed() -> None:
    text, withheld = scrub_text(b'{"hello": 1, "password": "hunter2"}', 1000)
    assert json.loads(text) == {"hello": 1, "password": "***"}
    assert withheld == 0


def test_a_wrapped_message_that_is_cut_off_is_cut_at_its_first_hit() -> None:
    body = json.dumps({"oslo.version": "2.0", "oslo.message": '{"event_type": "x", "token": "hunter2'}).encode()
    text, _ = scrub_text(body, 1000)
    assert "hunter2" not in text
    assert "event_type" in text
    assert "withheld" in text


@given(st.binary(max_size=200), secret_keys, st.sampled_from([b'": "', b"=", b"\x00", b": "]), st.binary(max_size=100))
def test_no_garbage_shows_what_follows_a_secret_word(before: bytes, key: str, between: bytes, after: bytes) -> None:
    text, withheld = scrub_text(before + key.encode() + between + SECRET.encode() + after, 10_000)
    assert SECRET not in text
    assert withheld or MASK in text


def test_text_in_another_encoding_is_withheld_whole() -> None:
    body = '{"password": "hunter2"}'.encode("utf-16")
    assert scrub_text(body, 1000) == ("", len(body))


def test_shown_text_is_bounded() -> None:
    assert scrub_text(b"x" * 5000, 100) == ("x" * 100, 0)
