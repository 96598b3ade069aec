"""Any JSON: what the settings point at, and what makes a duplicate."""

from __future__ import annotations

from typing import Any

import pytest
from webhook_requests import identity, only, payload, request

from vedette.errors import NotUnderstood
from vedette.kit.clock import parse_us
from vedette.testing.clock import START_US
from vedette.webhooks.generic import Options, build, pointed

LATER = START_US + 90_000_000
SAID = {"alert": {"id": 17, "kind": "disk", "at": "2026-11-20T15:00:00Z"}, "hosts": ["a", "b"], "a/b": {"~": "odd"}}
MAPPED = Options(id="/alert/id", type="/alert/kind", time="/alert/at", publisher="/hosts/1")


def test_without_settings_the_body_is_the_event() -> None:
    notice = only(build(Options()), request(SAID))
    assert notice.event_type == "hook.hook-one"
    assert payload(notice) == SAID
    assert notice.sent_at == 0
    assert payload(only(build(Options()), request(b" [1, 2] "))) == [1, 2]


def test_settings_point_into_the_event() -> None:
    notice = only(build(MAPPED), request(SAID, idempotency_key="not-asked"))
    assert (notice.id, notice.event_type, notice.publisher) == ("17", "disk", "b")
    assert notice.sent_at == parse_us("2026-11-20T15:00:00Z")


def test_a_setting_without_a_slash_is_the_value_itself() -> None:
    notice = only(build(Options(type="backup.done", publisher="nas")), request(SAID))
    assert (notice.event_type, notice.publisher) == ("backup.done", "nas")


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/alert/id", 17),
        ("/hosts/0", "a"),
        ("/hosts/2", None),
        ("/hosts/-1", None),
        ("/hosts/²", None),
        ("/hosts/99999999999999999999", None),
        ("/a~1b/~0", "odd"),
        ("/alert/id/deeper", None),
        ("/none", None),
        ("/", None),
    ],
)
def test_a_pointer_finds_what_is_there(pointer: str, value: Any) -> None:
    assert pointed(SAID, pointer) == value


@pytest.mark.parametrize(
    ("at", "us"),
    [
        (1_795_187_946, 1_795_187_946_000_000),
        (1_795_187_946.5, 1_795_187_946_500_000),
        ("2026-11-20T15:19:06Z", 1_795_187_946_000_000),
        ("soon", 0),
        (-1, 0),
        (1e300, 0),
        (True, 0),
        (None, 0),
        ("0001-01-01T00:00:00Z", 0),
    ],
)
def test_times_are_texts_or_seconds(at: Any, us: int) -> None:
    assert only(build(Options(time="/at")), request({"at": at})).sent_at == us


def test_the_same_body_is_a_duplicate_and_another_key_another_event() -> None:
    webhook = build(Options())
    assert identity(only(webhook, request(SAID))) == identity(only(webhook, request(SAID, received_at=LATER)))
    assert only(webhook, request(SAID)).id != only(webhook, request({**SAID, "n": 1})).id
    keyed = [only(webhook, request(SAID, idempotency_key=key)) for key in ("k1", "k1", "k2")]
    assert [notice.id for notice in keyed] == ["k1", "k1", "k2"]
    assert only(webhook, request({"n": 2}, idempotency_key="k1")).id == "k1"
    assert len(only(webhook, request(SAID, idempotency_key="k" * 5000)).id) <= 255


def test_repeats_that_are_kept_are_events_of_their_own() -> None:
    webhook = build(Options(repeats="keep"))
    assert identity(only(webhook, request(SAID))) != identity(only(webhook, request(SAID, received_at=LATER)))
    one, other = (only(webhook, request(SAID, idempotency_key="k", received_at=at)) for at in (START_US, LATER))
    assert identity(one) == identity(other), "an id of its own counts more"


def test_a_batch_is_an_event_for_each_item() -> None:
    webhook = build(Options(batch=True, type="/kind"))
    notices = webhook.parse(request(b'[{"kind": "a", "n": 1.50}, {"kind": "b"}]'))
    assert [notice.event_type for notice in notices] == ["a", "b"]
    assert bytes(notices[0].payload) == b'{"kind": "a", "n": 1.50}'
    keyed = webhook.parse(request([{"kind": "a"}, {"kind": "a"}], idempotency_key="k"))
    assert [notice.id for notice in keyed] == ["k/0", "k/1"]
    assert webhook.parse(request([])) == ()
    assert only(webhook, request({"kind": "alone"})).event_type == "alone"


def test_secrets_are_not_kept() -> None:
    assert payload(only(build(Options()), request({"token": "hunter2", "a": 1}))) == {"token": "***", "a": 1}


@pytest.mark.parametrize(
    ("options", "body", "why"),
    [
        (Options(), b"", "not JSON"),
        (Options(), b"key=value", "not JSON"),
        (MAPPED, {}, "there is no id at /alert/id"),
        (Options(type="/kind"), {"kind": ""}, "there is no type at /kind"),
        (Options(type="/kind"), {"kind": True}, "there is no type at /kind"),
        (Options(type="/kind"), {"kind": {}}, "there is no type at /kind"),
        (Options(type="/kind"), {"kind": "vedette.not-understood"}, "Vedette's own word"),
        (Options(type="/kind", batch=True), [{"kind": "a"}, {}], "event 1: there is no type"),
        (Options(batch=True), [1] * 1001, "1001 events"),
    ],
)
def test_what_does_not_fit_the_settings_is_refused_with_the_reason(options: Options, body: Any, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        build(options).parse(request(body))


@pytest.mark.parametrize(
    "options",
    [{"id": "constant"}, {"time": "now"}, {"type": "vedette.gap"}, {"type": "x" * 300}, {"publisher": "/" + "x" * 1000}],
)
def test_settings_that_can_not_work_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        Options(**options)
