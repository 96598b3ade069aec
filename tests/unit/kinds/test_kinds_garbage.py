"""Whatever arrives, `read` gives readings or raises NotUnderstood, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import corpus
import msgspec
import pytest
from corpus import notice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds_fold import KINDS, Inventory, readings

from vedette.errors import NotUnderstood
from vedette.model.notice import Notice
from vedette.model.reading import Reading

SAMPLES: list[Notice] = list({item.event_type: item for item in corpus.every() if readings(item)}.values())
"""One recorded notice of each event type that is read."""

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["", "***", [], {}]),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3))


VALUES = st.recursive(LEAVES, _containers, max_leaves=6)


def try_to_read(item: Notice) -> list[Reading]:
    try:
        return readings(item)
    except NotUnderstood:
        return []


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(value, dict):
        for name, item in value.items():
            found += paths(item, (*at, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += paths(item, (*at, index))
    return found


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(value[at[0]], at[1:], new)
    return copy


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_mutated_payload_is_read_or_refused(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES))
    payload = json.loads(bytes(sample.payload))
    for _ in range(data.draw(st.integers(1, 3))):
        payload = replaced(payload, data.draw(st.sampled_from(paths(payload))), data.draw(VALUES))
    for reading in try_to_read(notice(sample.event_type, payload)):
        assert reading.id
        json.dumps([reading.fields, reading.admin])
        kind = KINDS[reading.kind]
        assert reading.fields.keys() <= {name for name, field in kind.fields.items() if not field.admin}
        assert reading.admin.keys() <= {name for name, field in kind.fields.items() if field.admin}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.binary(max_size=200))
def test_bytes_that_are_no_json_are_refused(sample: Notice, raw: bytes) -> None:
    for reading in try_to_read(notice(sample.event_type, raw)):
        assert reading.id


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda item: item.event_type)
@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"null", b'"text"', b"7", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe"],
    ids=["empty", "nothing", "list", "null", "text", "number", "deep-list", "deep-object", "no-utf-8"],
)
def test_the_wrong_shape_is_not_understood(sample: Notice, raw: bytes) -> None:
    claimed = [kind for kind in KINDS.values() if raw != b"{}" and list(kind.read(sample))]
    for kind in claimed:
        with pytest.raises(NotUnderstood) as refused:
            list(kind.read(notice(sample.event_type, raw)))
        assert str(refused.value).startswith(sample.event_type)
    assert try_to_read(notice(sample.event_type, raw)) == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda item: item.event_type)
def test_a_field_that_no_kind_knows_changes_nothing(sample: Notice) -> None:
    payload = json.loads(bytes(sample.payload))
    assert readings(notice(sample.event_type, payload | {"new_in_2030": {"x": [1]}})) == readings(
        notice(sample.event_type, payload)
    )


def test_one_field_of_an_odd_type_does_not_hide_the_others() -> None:
    port = {"id": "p", "name": "n", "binding:profile": "***", "revision_number": "seven", "status": "ACTIVE", "fixed_ips": None}
    inventory = Inventory([notice("port.update.end", {"port": port})])
    assert inventory.fields("Port", "p") == {"name": "n", "status": "ACTIVE", "fixed_ips": None}
    bulk = Inventory([notice("port.create.end", {"ports": [port, {**port, "id": "q"}]})])
    assert set(bulk.live()) == {("Port", "p"), ("Port", "q")}
    image = Inventory([notice("image.create", {"id": "i", "name": "n", "size": "large"})])
    assert image.fields("Image", "i") == {"name": "n"}
    balancer = Inventory([notice("octavia.loadbalancer.create.end", {"loadbalancer_id": "lb", "name": "n", "vip_address": 7})])
    assert balancer.fields("LoadBalancer", "lb") == {"name": "n"}


def test_no_timestamp_at_all() -> None:
    (reading,) = readings(notice("port.create.end", {"port": {"id": "p"}}, sent_at=0))
    assert (reading.as_of, reading.created, reading.version) == (0, None, None)
    assert msgspec.json.decode(msgspec.json.encode(reading), type=Reading) == reading
