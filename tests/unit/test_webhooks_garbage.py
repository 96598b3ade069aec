"""Whatever is sent, a format gives notices that a store can keep, or says why not, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_requests import ALARM, EVENT, GROUP, request

from vedette import plugins
from vedette.engine.ingest import Ingest
from vedette.errors import NotUnderstood
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import NOT_UNDERSTOOD
from vedette.ports import Webhook
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock
from vedette.webhooks import alertmanager, aodh, cloudevents, generic

FORMATS: dict[str, Webhook] = {
    "aodh": aodh.build(aodh.Options()),
    "alertmanager": alertmanager.build(alertmanager.Options()),
    "alertmanager-keep": alertmanager.build(alertmanager.Options(repeats="keep")),
    "cloudevents": cloudevents.build(cloudevents.Options()),
    "cloudevents-whole": cloudevents.build(cloudevents.Options(payload="event")),
    "generic": generic.build(generic.Options()),
    "generic-mapped": generic.build(
        generic.Options(id="/id", type="/type", time="/time", publisher="/source", batch=True, repeats="keep")
    ),
}
SAMPLES: list[Any] = [ALARM, GROUP, EVENT, [EVENT, EVENT]]
CONTENT_TYPES = [
    "",
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json; charset=utf-8",
    "text/plain; charset=latin-1",
    "application/octet-stream",
    ";;=",
]
HEADERS = [
    *("ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-", "ce-datacontenttype"),
    *("x-openstack-request-id", "idempotency-key", "traceparent"),
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", "1.0", "4", "firing", "2026-11-20T15:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", 1 << 70]
    ),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes, JSON, and bodies of real callers with something in them changed or cut off."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=60))
    if kind == 1:
        return json.dumps(draw(VALUES)).encode()
    value = json.loads(json.dumps(draw(st.sampled_from(SAMPLES))))
    for _ in range(draw(st.integers(0, 3))):
        spot = value
        while isinstance(spot, (dict, list)) and spot:
            at = draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
            if not isinstance(spot[at], (dict, list)) or draw(st.booleans()):
                spot[at] = draw(VALUES)
                break
            spot = spot[at]
    raw = json.dumps(value).encode()
    return raw[: draw(st.integers(0, len(raw)))] if kind == 3 else raw


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=bodies(),
    content_type=st.sampled_from(CONTENT_TYPES),
    headers=st.dictionaries(
        st.sampled_from(HEADERS),
        st.one_of(
            st.text(st.characters(min_codepoint=32, max_codepoint=0x10FFFF, exclude_categories=()), max_size=12),
            st.sampled_from(["1.0", "x", "%ff", '"\\', "\udcff"]),
        ),
        max_size=6,
    ),
)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_gives_notices_that_can_be_kept_or_says_why_not(
    name: str, body: bytes, content_type: str, headers: dict[str, str]
) -> None:
    sent = msgspec.structs.replace(request(body), headers={"content-type": content_type, **headers})
    try:
        notices = FORMATS[name].parse(sent)
    except NotUnderstood:
        return
    assert FORMATS[name].parse(sent) == notices, "the same request again is the same"
    for notice in notices:
        assert notice.source == sent.name
        assert 0 < len(notice.id) <= 255
        assert 0 < len(notice.event_type) <= 255
        assert not notice.event_type.startswith("vedette.")
        assert 0 <= notice.sent_at < 1 << 62
        json.loads(bytes(notice.payload))
        for text in (notice.id, notice.event_type, notice.publisher, notice.request_id, notice.traceparent):
            text.encode()


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b'{"a":' * 100_000, b"\x00", b"nul", b"\xef\xbb\xbf{}", b'{"a": 1e999}', b'"\\ud800"']
)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_odd_bytes_are_refused(name: str, raw: bytes) -> None:
    for content_type in CONTENT_TYPES[:4]:
        with pytest.raises(NotUnderstood):
            FORMATS[name].parse(request(raw, content_type=content_type))


def test_every_format_is_tried_here() -> None:
    assert {name.partition("-")[0] for name in FORMATS} == set(plugins.names("webhooks"))


@settings(max_examples=100, deadline=None)
@given(body=bodies(), name=st.sampled_from(sorted(FORMATS)))
async def test_what_is_understood_is_taken_by_the_engine(body: bytes, name: str) -> None:
    store = MemoryStore(FakeClock())
    ingest = Ingest(store, plugins.kinds(), Telemetry())
    try:
        notices = FORMATS[name].parse(request(body, content_type="application/cloudevents+json"))
    except NotUnderstood:
        return
    await ingest.offer(notices)
    await ingest.offer(notices)
    found, _ = await store.entries(store.oldest)
    assert len(found) == len({(notice.id, notice.sent_at // 1_000_000) for notice in notices})
    assert not any(one.entry.notice.event_type == NOT_UNDERSTOOD for one in found)
    await store.close()
