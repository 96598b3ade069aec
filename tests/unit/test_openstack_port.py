"""The doctor's port: made on a network of its own, heard of, and gone again whatever happens; nothing else is ever touched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from vedette.clients import openstack_port
from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.clients.openstack_port import Made, PortTrial
from vedette.errors import CloudUnavailable, Forbidden, NoService, Unauthenticated
from vedette.kit.clock import SystemClock
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.testing.clock import FakeClock
from vedette.testing.cloud import FakeCloud

NAME = "vedette-doctor-0badcafe"


class QuickClock(FakeClock):
    """Whoever sleeps has slept already."""

    async def sleep(self, seconds: float) -> None:
        self.tick(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def fake() -> AsyncIterator[FakeCloud]:
    async with FakeCloud(SystemClock()) as cloud:
        yield cloud


@asynccontextmanager
async def client(fake: FakeCloud, user: str = "admin") -> AsyncIterator[OpenStackCloud]:
    made = credentials(fake.credentials(user))
    cloud = OpenStackCloud(made, name="one", clock=QuickClock(), telemetry=Telemetry(), timeout_s=5)
    try:
        yield cloud
    finally:
        await cloud.close()


@pytest.fixture
def before(fake: FakeCloud) -> Iterator[set[str]]:
    """What is there, and has to be there at the end, and nothing else."""
    there = {*fake.network.networks, *fake.network.ports}
    yield there
    assert {*fake.network.networks, *fake.network.ports} == there


def trial(cloud: OpenStackCloud) -> PortTrial:
    return PortTrial(cloud, NAME, sleep=QuickClock().sleep)


async def test_a_port_on_a_network_of_its_own_is_announced_and_both_go_again(fake: FakeCloud, before: set[str]) -> None:
    async with client(fake) as cloud:
        one = trial(cloud)
        made = await one.make()
        assert made == Made(id=made.id, network=made.network, own_network=True)
        assert fake.network.ports[made.id]["name"] == fake.network.networks[made.network]["name"] == NAME
        told = next(said for said in fake.announced if said.event_type == "port.create.end")
        # What the doctor listens for.
        assert NAME.encode() in told.body
        assert b"port.create.end" in told.body
        assert await one.remove() == []


async def test_where_no_network_can_be_made_one_of_the_projects_is_used_and_none_of_its_addresses(
    fake: FakeCloud, before: set[str]
) -> None:
    fake.network.fail(409, "/networks", method="POST")
    async with client(fake, "demo") as cloud:
        one = trial(cloud)
        made = await one.make()
        assert (made.network, made.own_network) == (fake.private, False)
        assert fake.network.ports[made.id]["fixed_ips"] == []
        assert await one.remove() == []


async def test_where_there_is_no_network_at_all_it_says_why(fake: FakeCloud, before: set[str]) -> None:
    fake.network.fail(403, "/networks", method="POST")
    async with client(fake) as cloud:
        one = trial(cloud)
        with pytest.raises(Forbidden, match="and there is no other network that it may use"):
            await one.make()
        assert await one.remove() == []


@pytest.mark.parametrize("path", ["/networks", "/ports"])
async def test_what_is_made_while_nobody_waits_any_more_is_found_and_deleted(
    fake: FakeCloud, before: set[str], path: str
) -> None:
    async with client(fake) as cloud:
        one = trial(cloud)
        held = fake.network.hold(path, times=1)
        making = asyncio.create_task(one.make())
        await fake.asked("network", path, method="POST")
        await cancel(making)
        removing = asyncio.create_task(one.remove())
        held.set()
        assert await removing == []
        assert any(said.event_type == f"{path[1:-1]}.create.end" for said in fake.announced), "it was made"


async def test_a_port_whose_answer_was_lost_is_deleted_as_often_as_it_was_made(fake: FakeCloud, before: set[str]) -> None:
    fake.network.cut("/ports", times=2)
    async with client(fake) as cloud:
        one = trial(cloud)
        await one.make()
        assert sum(row["name"] == NAME for row in fake.network.ports.values()) == 3
        assert await one.remove() == []


async def test_what_can_not_be_deleted_is_told_with_the_command_that_does(fake: FakeCloud) -> None:
    async with client(fake) as cloud:
        one = trial(cloud)
        made = await one.make()
        fake.network.fail(409, f"/networks/{made.network}", method="DELETE", times=openstack_port.DELETE_TRIES)
        assert await one.remove() == [f"openstack network delete {made.network}"]
        assert made.id not in fake.network.ports
        fake.network.fail(503, "/networks", method="GET")
        assert await one.remove() == [f"openstack network delete {NAME}"]


async def test_a_network_that_needs_a_moment_goes_at_the_second_try(fake: FakeCloud, before: set[str]) -> None:
    async with client(fake) as cloud:
        one = trial(cloud)
        made = await one.make()
        fake.network.fail(409, f"/networks/{made.network}", method="DELETE", times=1)
        assert await one.remove() == []


async def test_a_service_that_knows_no_filter_loses_nothing(fake: FakeCloud, before: set[str]) -> None:
    other = fake.port(name="somebody's", announce=False)
    before.add(other)
    async with client(fake) as cloud:
        one = trial(cloud)
        made = await one.make()
        rows = [dict(fake.network.ports[id_]) for id_ in (other, made.id)]
        fake.network.garble(json.dumps({"ports": rows}).encode(), "/ports")
        assert await one.remove() == []


async def test_where_nothing_could_be_asked_nothing_has_to_be_removed(fake: FakeCloud) -> None:
    fake.network.in_catalog = False
    async with client(fake) as cloud:
        one = trial(cloud)
        with pytest.raises(NoService):
            await one.make()
        assert await one.remove() == []
    fake.network.in_catalog = True
    fake.keystone.fail(401, "/auth/tokens")
    async with client(fake) as cloud:
        one = trial(cloud)
        with pytest.raises(Unauthenticated):
            await one.make()
        assert await one.remove() == []


async def test_an_answer_without_an_id_is_the_clouds_fault(fake: FakeCloud, before: set[str]) -> None:
    fake.network.garble(b'{"network": {}}', "/networks", times=1)
    fake.network.garble(b"[]", "/ports", times=1)
    async with client(fake, "demo") as cloud:
        one = trial(cloud)
        with pytest.raises(CloudUnavailable, match="made a port and did not say which"):
            await one.make()
        assert await one.remove() == []


# --- where services are, and what time it is there -------------------------------------------------------------------------


async def test_where_each_service_is_asked_and_its_microversions(fake: FakeCloud) -> None:
    async with client(fake) as cloud:
        for service in fake.services:
            if service.type == "placement" or not service.in_catalog:
                continue
            found = await cloud.endpoint(service.type)
            assert found.url.startswith(service.url)
            assert (found.microversions is not None) == (service.type in ("compute", "block-storage")), service.type
        assert cloud.credentials.username == "admin"
        fake.network.in_catalog = False
    async with client(fake) as cloud:
        with pytest.raises(NoService):
            await cloud.endpoint("network")


async def test_how_far_a_services_clock_is_ahead(fake: FakeCloud) -> None:
    async with client(fake) as cloud:
        assert cloud.clock_differences() == {}
        await cloud.get("network", "/networks")
        # QuickClock stands still some time before the fake cloud's, which is this machine's.
        (difference,) = cloud.clock_differences().values()
        assert abs(difference) > 60
    made = credentials(fake.credentials())
    ours = OpenStackCloud(made, name="one", clock=SystemClock(), telemetry=Telemetry())
    await ours.get("network", "/networks")
    assert ours.clock_differences() == {"network": 0.0}
    await ours.close()
