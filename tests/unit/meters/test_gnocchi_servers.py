"""meters/_gnocchi_servers.py against a Gnocchi over HTTP: golden numbers, sums over parts, and no data is no value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import CloudUnavailable
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.meters import gnocchi
from vedette.model.sample import Samples
from vedette.ports import MeterNeeds
from vedette.testing.cloud import FakeCloud

AT = 1_795_187_940_000_000
MINUTE = 60_000_000
PROJECT = "1" * 32
RATE = "concertim-rate"


class Place:
    def __init__(self, fake: FakeCloud, cloud: OpenStackCloud) -> None:
        self.fake, self.metric = fake, fake.metric
        fake.metric.in_catalog = True
        needs = MeterNeeds(name="m", clock=SystemClock(), telemetry=Telemetry(), cloud=lambda name: cloud)
        self.meter = gnocchi.build(gnocchi.Options(), needs)

    def server(self, project: str = PROJECT, **more: Any) -> str:
        return self.metric.resource("instance", "", project_id=project, **more)

    def part(self, type_: str, server: str, project: str = PROJECT) -> str:
        return self.metric.resource(type_, "", project_id=project, instance_id=server)

    def rate(self, resource: str, metric: str, value: float, *, ago: int = 1) -> None:
        self.metric.measured(resource, metric, [(AT - ago * MINUTE, value)], policy=RATE, how="rate:mean")

    def mean(self, resource: str, metric: str, value: float, *, ago: int = 1) -> None:
        self.metric.measured(resource, metric, [(AT - ago * MINUTE, value)], policy=RATE)

    async def samples(self, *projects: str, per_vcpu: bool = False) -> Samples:
        return await self.meter.samples(projects or (PROJECT,), AT, 60, per_vcpu=per_vcpu)

    async def values(self, **more: Any) -> dict[str, float]:
        return {one.name: one.value for one in (await self.samples(**more)).samples}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with FakeCloud(SystemClock()) as fake:
        cloud = OpenStackCloud(
            credentials(fake.credentials("admin")), name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5
        )
        yield Place(fake, cloud)
        await cloud.close()


async def test_the_five_measurements(place: Place) -> None:
    server = place.server()
    place.rate(server, "cpu", 30e9)  # half of 60 s of one processor
    place.mean(server, "memory.usage", 512)
    place.mean(server, "memory", 2048)
    nic, disk = place.part("instance_network_interface", server), place.part("instance_disk", server)
    place.rate(nic, "network.incoming.bytes", 6000)
    place.rate(nic, "network.outgoing.bytes", 600)
    place.rate(disk, "disk.device.read.bytes", 1200)
    place.rate(disk, "disk.device.write.bytes", 60)
    place.rate(disk, "disk.device.read.requests", 120)
    place.rate(disk, "disk.device.write.requests", 30)
    assert await place.values() == {
        "cpu_load": 50.0,
        "ram_usage": 25.0,
        "network_usage": 110.0,
        "throughput": 21.0,
        "iops": 2.5,
    }


async def test_several_interfaces_and_disks_are_summed(place: Place) -> None:
    server = place.server()
    for bytes_ in (600, 1200):
        place.rate(place.part("instance_network_interface", server), "network.incoming.bytes", bytes_)
        place.rate(place.part("instance_disk", server), "disk.device.read.requests", bytes_)
    values = await place.values()
    assert (values["network_usage"], values["iops"]) == (30.0, 30.0)


async def test_processors_may_be_counted(place: Place) -> None:
    server = place.server()
    place.rate(server, "cpu", 240e9)
    assert (await place.values())["cpu_load"] == 400.0
    assert "cpu_load" not in await place.values(per_vcpu=True)  # nobody says how many it has
    place.mean(server, "vcpus", 4, ago=100)
    assert (await place.values(per_vcpu=True))["cpu_load"] == 100.0


async def test_no_data_is_no_value_and_is_counted(place: Place) -> None:
    place.server()
    found = await place.samples()
    assert (found.samples, found.servers, found.missing) == ((), 1, 2)
    server = place.server()
    place.rate(server, "cpu", 60e9, ago=30)  # long ago
    place.part("instance_disk", server)
    found = await place.samples()
    assert (found.samples, found.servers, found.missing) == ((), 2, 6)
    # Nothing used is another thing.
    place.rate(server, "cpu", 0.0)
    assert await place.values() == {"cpu_load": 0.0}


async def test_the_last_measure_counts_and_a_counter_that_began_anew_is_nothing(place: Place) -> None:
    server = place.server()
    points = [(AT - 2 * MINUTE, 60e9), (AT - MINUTE, -5e9)]
    place.metric.measured(server, "cpu", points, policy=RATE, how="rate:mean")
    assert await place.values() == {"cpu_load": 0.0}


async def test_only_these_projects_and_only_what_is_there(place: Place) -> None:
    for project, ended in (("2" * 32, None), (PROJECT, "2026-11-20T00:00:00Z")):
        place.rate(place.server(project, ended_at=ended), "cpu", 60e9)
    assert (await place.samples()).servers == 0
    found = await place.samples(PROJECT, "2" * 32)
    assert [(one.project, one.value) for one in found.samples] == [("2" * 32, 100.0)]


async def test_one_without_the_aggregation_spoils_no_other(place: Place) -> None:
    for _ in range(5):
        place.rate(place.server(), "cpu", 60e9)
    place.metric.measured(place.server(), "cpu", [(AT - MINUTE, 1.0)], policy="ceilometer-high")
    found = await place.samples()
    assert len(found.samples) == 5
    assert found.servers == 6
    assert "rate:mean of 1 metrics: " in found.trouble
    assert "unknown aggregation" in found.trouble


async def test_many_servers_are_few_questions(place: Place) -> None:
    for _ in range(300):
        server = place.server()
        place.rate(server, "cpu", 60e9)
        place.rate(place.part("instance_disk", server), "disk.device.read.bytes", 60)
    found = await place.samples()
    assert len(found.samples) == 600
    assert place.fake.count("metric", "/search/resource/instance") == 1
    assert place.fake.count("metric", "/aggregates") == 3
    assert {one.value for one in found.samples} == {100.0, 1.0}


async def test_more_than_a_page(place: Place) -> None:
    for _ in range(1001):
        place.server()
    assert (await place.samples()).servers == 1001


async def test_a_gnocchi_that_does_not_answer_is_no_answer(place: Place) -> None:
    place.server()
    place.metric.fail(503, "/aggregates", times=99)
    place.rate(place.server(), "cpu", 60e9)
    with pytest.raises(CloudUnavailable):
        await place.samples()
