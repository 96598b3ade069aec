"""Storage pools, volume types and machines: what notifications and APIs say of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import Forbidden, NoService, NotFound, NotUnderstood
from vedette.kinds import baremetalnode, storagepool, volumetype
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Kind
from vedette.sources.openstack import decode
from vedette.testing.cloud import Announcement, FakeCloud


def notice(event_type: str, payload: Any) -> Notice:
    return Notice(id="n", source="s", event_type=event_type, sent_at=1, payload=msgspec.Raw(msgspec.json.encode(payload)))


@pytest.fixture
async def fake() -> AsyncIterator[FakeCloud]:
    async with FakeCloud(SystemClock()) as one:
        yield one


@pytest.fixture
async def cloud(fake: FakeCloud) -> AsyncIterator[OpenStackCloud]:
    fake.baremetal.in_catalog = True
    one = OpenStackCloud(
        credentials(fake.credentials("admin")), name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5
    )
    yield one
    await one.close()


async def listed(kind: Kind, cloud: OpenStackCloud) -> dict[str, Reading]:
    assert kind.api is not None
    return {one.id: one async for page in kind.api.list(cloud) for one in page}


# --- storage pools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (1, 1.0),
        (1.5, 1.5),
        ("20.0", 20.0),
        ("unknown", None),
        ("infinite", None),
        ("inf", None),
        (None, None),
        (True, None),
        ([], None),
    ],
)
def test_capacities_are_numbers_or_nothing(said: Any, wanted: float | None) -> None:
    assert storagepool.number(said) == wanted


def test_what_a_back_end_tells_of_a_pool() -> None:
    payload = {
        "name_to_id": "h@b#p", "type": "pool", "total": 100, "free": "unknown", "allocated": 3, "provisioned": 4.5,
        "virtual_free": 95.5, "reported_at": "2026-11-20T15:42:14.000000",
    }  # fmt: skip
    (reading,) = storagepool.read(notice("capacity.pool", payload))
    assert (reading.id, reading.verb, reading.project) == ("h@b#p", "update", "")
    assert reading.fields == {
        "name": "h@b#p", "total_capacity_gb": 100.0, "free_capacity_gb": None, "allocated_capacity_gb": 3.0,
        "provisioned_capacity_gb": 4.5, "virtual_free": 95.5,
    }  # fmt: skip
    assert storagepool.read(notice("capacity.backend", payload)) == ()
    for odd in ({}, {"name_to_id": ""}, {"name_to_id": 7}):
        with pytest.raises(NotUnderstood):
            storagepool.read(notice("capacity.pool", odd))


async def test_pools_are_listed_with_their_services(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.block_storage.pools["ctl@fake#fake"] |= {"total_capacity_gb": "infinite", "storage_protocol": ["iSCSI", "iscsi"]}
    found = await listed(storagepool.KIND, cloud)
    assert set(found) == {"ctl@fake#fake", "ctl@slow#slow"}
    assert found["ctl@slow#slow"].fields == {
        "name": "ctl@slow#slow", "total_capacity_gb": 1000.0, "free_capacity_gb": 900.0, "allocated_capacity_gb": 100.0,
        "provisioned_capacity_gb": 100.0, "max_over_subscription_ratio": 20.0, "reserved_percentage": 0.0,
        "volume_backend_name": "slow", "vendor_name": "Open Source", "driver_version": "1.0.0", "storage_protocol": "fake",
        "availability_zone": "nova", "service_status": "enabled", "service_state": "up",
    }  # fmt: skip
    one = found["ctl@fake#fake"].fields
    assert (one["total_capacity_gb"], one["storage_protocol"]) == (None, "iSCSI")
    assert (await storagepool.get_pool(cloud, "ctl@slow#slow"))[0].fields["name"] == "ctl@slow#slow"
    with pytest.raises(NotFound):
        await storagepool.get_pool(cloud, "elsewhere#x")
    announced: list[Announcement] = []
    fake.listeners.append(announced.append)
    fake.block_storage.pool_told("ctl@slow#slow")
    (reading,) = storagepool.read(decode(announced[0].body, "s"))
    assert reading.id == "ctl@slow#slow"
    shown = found["ctl@slow#slow"].fields
    both = reading.fields.keys() & shown.keys()
    assert len(both) == 5
    assert {name: reading.fields[name] for name in both} == {name: shown[name] for name in both}


def test_odd_pools_are_left_out() -> None:
    for odd in ({}, {"name": "x"}, {"name": "", "capabilities": {}}, {"name": "x", "capabilities": []}):
        assert storagepool.shown(odd, 1, {}) is None
    reading = storagepool.shown({"name": "h@b#p", "capabilities": {"storage_protocol": [], "vendor_name": 3}}, 1, {})
    assert reading is not None
    assert (reading.fields["storage_protocol"], reading.fields["vendor_name"]) == (None, None)
    assert "service_state" not in reading.fields, "not known, which is not the same as none"


# --- volume types ----------------------------------------------------------------------------------------------------------


async def test_types_are_listed_and_asked_for(cloud: OpenStackCloud) -> None:
    found = await listed(volumetype.KIND, cloud)
    assert {one.fields["name"]: one.fields["extra_specs"] for one in found.values()} == {
        "fake": {"volume_backend_name": "fake"},
        "slow": {"volume_backend_name": "slow"},
    }
    for id_, reading in found.items():
        assert (await volumetype.get_type(cloud, id_))[0].fields == reading.fields
    with pytest.raises(NotFound):
        await volumetype.get_type(cloud, "nothing")
    assert volumetype.shown({"name": "x"}, 1) is None
    assert list(volumetype.read(notice("volume_type.create", {}))) == []


# --- machines --------------------------------------------------------------------------------------------------------------


async def test_machines_are_told_and_listed_alike_and_without_their_passwords(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    announced: list[Announcement] = []
    fake.listeners.append(announced.append)
    fake.baremetal.largest_page = 2
    ids = [fake.create("node", {"name": f"m{n}", "traits": ["CUSTOM_B", "CUSTOM_A"]}) for n in range(5)]
    found = await listed(baremetalnode.KIND, cloud)
    assert sorted(found) == sorted(ids)
    for one in announced:
        (told,) = baremetalnode.read(decode(one.body, "s"))
        shown = found[told.id]
        assert (told.verb, told.created) == ("create", (shown.created or 0) // 1_000_000 * 1_000_000)
        assert told.fields == shown.fields
        assert told.fields["traits"] == ["CUSTOM_A", "CUSTOM_B"]
        assert "driver_info" not in told.fields
    (alone,) = await baremetalnode.get_node(cloud, ids[0])
    assert alone.fields == found[ids[0]].fields
    fake.change("node", ids[0], power_state="power off")
    (told,) = baremetalnode.read(decode(announced[-1].body, "s"))
    assert (told.verb, told.fields["power_state"]) == ("update", "power off")
    fake.delete("node", ids[0])
    (told,) = baremetalnode.read(decode(announced[-1].body, "s"))
    assert told.verb == "delete"
    with pytest.raises(NotFound):
        await baremetalnode.get_node(cloud, ids[0])


def test_a_machine_without_an_id_is_not_understood() -> None:
    assert baremetalnode.read(notice("compute.instance.create.end", {})) == ()
    for odd in ({}, {"ironic_object.data": {}}, {"ironic_object.data": {"uuid": 7}}):
        with pytest.raises(NotUnderstood):
            baremetalnode.read(notice("baremetal.node.update.end", odd))


async def test_where_there_is_no_ironic_nothing_is_listed(fake: FakeCloud) -> None:
    one = OpenStackCloud(
        credentials(fake.credentials("admin")), name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5
    )
    try:
        with pytest.raises(NoService):
            await listed(baremetalnode.KIND, one)
    finally:
        await one.close()


@pytest.mark.parametrize("kind", [storagepool.KIND, baremetalnode.KIND], ids=lambda kind: kind.singular)
async def test_others_than_admins_are_refused(fake: FakeCloud, kind: Kind) -> None:
    fake.baremetal.in_catalog = True
    one = OpenStackCloud(
        credentials(fake.credentials("demo")), name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5
    )
    try:
        with pytest.raises(Forbidden):
            await listed(kind, one)
    finally:
        await one.close()
