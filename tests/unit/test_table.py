"""Rows as kubectl prints them, and objects reduced to their metadata."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.api.table import NONE, age, columns, partial, row, table
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Port",
    plural="ports",
    singular="port",
    doc="A port.",
    events=(),
    read=lambda notice: (),
    fields={"name": Field("string", "Its name.")},
    columns=(
        Column("Port-Name", ("name",)),
        Column("Fixed-IPs", ("fixed_ips", "*", "ip_address")),
        Column("Networks", ("addresses", "*", "*", "addr"), priority=1),
        Column("Up", ("admin_state_up",), "boolean"),
        Column("MTU", ("mtu",), "integer"),
        Column("Host", ("binding:host_id",), priority=1, doc="Shown to admins only."),
        Column("Extra", ("extra",)),
    ),
)
CREATED = 1_763_650_800_000_000
METADATA: dict[str, Any] = {
    "resourceVersion": "1795187946000042",
    "name": "p1",
    "namespace": "proj",
    "creationTimestamp": "2025-11-20T15:00:00Z",
    "labels": {"vedette.dev/source": "r"},
}


def body(**status: Any) -> bytes:
    return msgspec.json.encode(
        {"apiVersion": "openstack.vedette.dev/v1", "kind": "Port", "metadata": METADATA, "status": {"id": "p1", **status}}
    )


def cells(**status: Any) -> list[Any]:
    found: list[Any] = row(KIND, body(**status), "None", now_us=CREATED + 65_000_000)["cells"]
    return found


def test_columns_are_the_name_then_the_kinds_own_then_the_age() -> None:
    found = columns(KIND)
    names = ["Name", "Port-Name", "Fixed-IPs", "Networks", "Up", "MTU", "Host", "Extra", "Age"]
    assert [column["name"] for column in found] == names
    assert (found[0]["type"], found[0]["format"]) == ("string", "name")
    assert [column["name"] for column in found if column["priority"]] == ["Networks", "Host"]
    assert [column["type"] for column in found][4:6] == ["boolean", "integer"]
    assert all(column["description"] for column in found)


def test_cells_follow_their_paths() -> None:
    found = cells(
        name="web",
        fixed_ips=[{"ip_address": "10.0.0.5"}, {"subnet_id": "no address"}, {"ip_address": "fd00::1"}],
        addresses={"blue": [{"addr": "10.1.0.1"}, {"addr": "10.1.0.2"}], "red": [{"addr": "10.2.0.1"}]},
        admin_state_up=False,
        mtu=1450,
        extra={"a": [1, None]},
    )
    assert found == ["p1", "web", "10.0.0.5,fd00::1", "10.1.0.1,10.1.0.2,10.2.0.1", False, 1450, NONE, '{"a":[1,null]}', "65s"]


@pytest.mark.parametrize("nothing", [None, "", [], {}, [None], [{}]])
def test_nothing_to_show_is_none(nothing: Any) -> None:
    found = cells(name=None if isinstance(nothing, list | dict) else nothing, fixed_ips=nothing, addresses=nothing)
    assert found[1:4] == [NONE, NONE, NONE]


def test_a_column_of_admins_shows_nothing_when_the_form_is_a_tenants() -> None:
    assert cells(**{"binding:host_id": "node-1"})[6] == "node-1"
    assert cells()[6] == NONE


def test_a_long_cell_is_cut() -> None:
    assert len(cells(name="x" * 10_000)[1]) == 1024


def test_a_row_carries_what_was_asked_for() -> None:
    sent = body(name="web")
    rows = {
        include: msgspec.json.decode(msgspec.json.encode(row(KIND, sent, include))) for include in ("None", "Metadata", "Object")
    }
    assert rows["None"]["object"] is None
    assert rows["Object"]["object"] == msgspec.json.decode(sent)
    assert rows["Metadata"]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": METADATA,
    }
    assert row(KIND, sent).keys() == {"cells", "object"}


def test_a_table_has_its_columns_unless_they_were_sent_before() -> None:
    first = table(KIND, [row(KIND, body())], {"resourceVersion": "1"})
    assert (first["kind"], first["apiVersion"], first["columnDefinitions"]) == ("Table", "meta.k8s.io/v1", columns(KIND))
    assert len(first["rows"][0]["cells"]) == len(first["columnDefinitions"])
    assert table(KIND, [], {}, definitions=False)["columnDefinitions"] is None


def test_partial_is_the_metadata_as_it_stands() -> None:
    assert msgspec.json.decode(partial(body(name="x"))) == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": METADATA,
    }


MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (9 * MINUTE + 59, "9m59s"),
        (10 * MINUTE + 59, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (7 * HOUR + 5 * MINUTE, "7h5m"),
        (8 * HOUR + 5 * MINUTE, "8h"),
        (47 * HOUR, "47h"),
        (48 * HOUR, "2d"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (8 * DAY + 3 * HOUR, "8d"),
        (729 * DAY, "729d"),
        (730 * DAY, "2y"),
        (740 * DAY, "2y10d"),
        (8 * 365 * DAY + DAY, "8y"),
    ],
)
def test_an_age_as_kubectl_writes_it(seconds: int, text: str) -> None:
    assert age("2025-11-20T15:00:00Z", CREATED + seconds * 1_000_000) == text


def test_an_age_that_can_not_be_told() -> None:
    assert age(None, CREATED) == "<unknown>"
    assert age("", CREATED) == "<unknown>"
    assert age("yesterday", CREATED) == "<invalid>"


@given(
    st.dictionaries(
        st.sampled_from(["name", "fixed_ips", "addresses", "mtu", "extra"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
    )
)
def test_any_content_is_a_row_with_a_cell_for_every_column(status: dict[str, Any]) -> None:
    found = row(KIND, body(**status))
    assert len(found["cells"]) == len(columns(KIND))
    assert all(isinstance(cell, str | int | bool) and cell != "" for cell in found["cells"])
    msgspec.json.encode(found)
