"""meters/gnocchi.py against a Gnocchi over HTTP: many resources in a question, and no data is never a number."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import BadRequest, CloudUnavailable, ConfigError
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.meters import _gnocchi_reading, gnocchi
from vedette.model.advice import Query, Resource
from vedette.ports import MeterNeeds
from vedette.testing.cloud import FakeCloud

AT = 1_795_187_946_000_000
SECOND = 1_000_000


class Place:
    def __init__(self, fake: FakeCloud, cloud: OpenStackCloud) -> None:
        self.fake, self.cloud = fake, cloud
        fake.metric.in_catalog = True

    def meter(self, **options: Any) -> gnocchi.GnocchiMeter:
        needs = MeterNeeds(name="m", clock=SystemClock(), telemetry=Telemetry(), cloud=lambda name: self.cloud)
        return gnocchi.build(gnocchi.Options(**options), needs)

    def server(self, metric: str, *values: float, policy: str = "ceilometer-low", how: str = "mean", vcpus: int = 1) -> Resource:
        """With one measure for each of the last spans of 300 seconds, the newest last."""
        id_ = self.fake.metric.resource("instance", "")
        self.tell(id_, metric, *values, policy=policy, how=how)
        return Resource(id_, id_, vcpus, 2048, 20)

    def host(self, name: str, metric: str, *values: float, called: str = "{}_{}") -> Resource:
        id_ = self.fake.metric.resource("host", called.format(name, name))
        self.tell(id_, metric, *values)
        return Resource(name, f"u-{name}")

    def tell(self, id_: str, metric: str, *values: float, policy: str = "ceilometer-low", how: str = "mean") -> None:
        points = [(AT - (len(values) - n) * 300 * SECOND, value) for n, value in enumerate(values)]
        self.fake.metric.measured(id_, metric, points, policy=policy, how=how)

    def asked(self, path: str) -> int:
        return self.fake.count("metric", path)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with FakeCloud(SystemClock()) as fake:
        cloud = OpenStackCloud(
            credentials(fake.credentials("admin")), name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5
        )
        yield Place(fake, cloud)
        await cloud.close()


async def test_processor_time_becomes_per_cent_of_a_servers_own_processors(place: Place) -> None:
    """150 s of 300 on one processor, 300 s of 2 × 300; a counter that began anew is 0; and nobody uses more than all."""
    half = place.server("cpu", 150e9, policy="ceilometer-low-rate", how="rate:mean")
    also_half = place.server("cpu", 300e9, policy="ceilometer-low-rate", how="rate:mean", vcpus=2)
    anew = place.server("cpu", -5e9, policy="ceilometer-low-rate", how="rate:mean")
    more = place.server("cpu", 330e9, policy="ceilometer-low-rate", how="rate:mean")
    never = Resource("nobody", "nobody", 1)
    found = await place.meter().read(Query("instance_cpu_usage"), [half, also_half, anew, more, never], AT)
    assert found == {half.id: 50.0, also_half.id: 50.0, anew.id: 0.0, more.id: 100.0}


@pytest.mark.parametrize(("aggregate", "wanted"), [("mean", 200.0), ("min", 200.0), ("max", 200.0), ("count", 600.0)])
async def test_the_points_of_a_period_become_one_value(place: Place, aggregate: Any, wanted: float) -> None:
    """Only those within it: the first of four is too old for 900 seconds."""
    one = place.server("memory.resident", 999.0, 200.0, 200.0, 200.0, policy="ceilometer-high", how=aggregate)
    for key in list(place.fake.metric.measures):
        place.fake.metric.measures[key[0], key[1], 60.0] = place.fake.metric.measures[key]
    found = await place.meter().read(Query("instance_ram_usage", aggregate, 900, 60), [one], AT)
    assert found == {one.id: wanted}


@pytest.mark.parametrize(
    ("metric", "name", "told", "wanted"),
    [
        ("host_cpu_usage", "compute.node.cpu.percent", 42.0, 42.0),
        ("host_ram_usage", "hardware.memory.used", 2_097_152.0, 2048.0),
        ("host_outlet_temp", "hardware.ipmi.node.outlet_temperature", 31.0, 31.0),
        ("host_inlet_temp", "hardware.ipmi.node.temperature", 21.0, 21.0),
        ("host_airflow", "hardware.ipmi.node.airflow", 40.0, 400.0),
        ("host_power", "hardware.ipmi.node.power", 250.0, 250.0),
    ],
)
async def test_hosts_by_their_names_there_in_our_units(place: Place, metric: Any, name: str, told: float, wanted: float) -> None:
    twice = place.host("h1", name, told)
    plain = place.host("h2", name, told, called="{}")
    both = place.host("h3", name, told)
    place.host("h3", name, 7.0, called="{}")
    found = await place.meter().read(Query(metric), [twice, plain, both, Resource("h4", "u4")], AT)
    assert found == {"h1": wanted, "h2": wanted, "h3": wanted}


async def test_what_the_inventory_knows_is_not_asked_for(place: Place) -> None:
    servers = [Resource("s", "s", 2, 2048, 20)]
    assert await place.meter().read(Query("instance_ram_allocated"), servers, AT) == {"s": 2048.0}
    assert await place.meter().read(Query("instance_root_disk_size"), servers, AT) == {"s": 20.0}
    assert place.asked("/search/resource/instance") == 0


async def test_many_servers_are_a_few_questions(place: Place) -> None:
    servers = [place.server("memory.resident", float(n)) for n in range(450)]
    found = await place.meter().read(Query("instance_ram_usage"), servers, AT)
    assert found == {one.id: float(n) for n, one in enumerate(servers)}
    assert (place.asked("/search/resource/instance"), place.asked("/aggregates")) == (3, 3)
    other = await place.meter(names={"instance_ram_usage": "memory.usage"}).read(Query("instance_ram_usage"), servers, AT)
    assert (other, place.asked("/aggregates")) == ({}, 3)


async def test_one_that_lacks_what_is_asked_for_costs_the_others_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    servers = [place.server("cpu", 30e9, policy="ceilometer-low-rate", how="rate:mean") for _ in range(20)]
    bad = place.server("cpu", 30e9, policy="ceilometer-low")
    coarse = place.server("cpu", 30e9, policy="ceilometer-high")
    empty = place.server("cpu", policy="ceilometer-low-rate", how="rate:mean")
    odd = place.server("cpu", float("nan"), policy="ceilometer-low-rate", how="rate:mean")
    with caplog.at_level(logging.WARNING, "vedette.meters.gnocchi"):
        found = await place.meter().read(Query("instance_cpu_usage"), [*servers[:9], bad, coarse, *servers[9:], empty, odd], AT)
    assert found == pytest.approx({one.id: 10.0 for one in servers})
    (told,) = caplog.records
    assert "no data" in told.message
    assert "Metrics with unknown aggregation" in str(told.__dict__)


async def test_points_that_others_have_cost_no_question(place: Place) -> None:
    """Without a word on it Gnocchi refuses metrics whose points are not at the same times."""
    whole = [place.server("memory.resident", 100.0, 200.0) for _ in range(20)]
    late = [place.server("memory.resident", 100.0) for _ in range(20)]
    never = place.server("memory.resident")
    found = await place.meter().read(Query("instance_ram_usage", period=600), [*whole, *late, never], AT)
    assert found == {one.id: 150.0 for one in whole} | {one.id: 100.0 for one in late}
    assert place.asked("/aggregates") == 1


async def test_if_all_lack_it_the_search_for_who_does_ends(place: Place) -> None:
    servers = [place.server("cpu", 1.0) for _ in range(200)]
    assert await place.meter().read(Query("instance_cpu_usage"), servers, AT) == {}
    assert place.asked("/aggregates") <= _gnocchi_reading.MOST_SPLITS + 140
    assert await place.meter().read(Query("instance_ram_usage", granularity=60), [place.server("memory.resident", 1.0)], AT) == {}


@pytest.mark.parametrize("path", ["/search/resource/instance", "/aggregates"])
async def test_who_is_unwell_is_never_no_data(place: Place, path: str) -> None:
    one = place.server("cpu", 1.0)
    place.fake.metric.fail(503, path)
    with pytest.raises(CloudUnavailable, match="503"):
        await place.meter().read(Query("instance_cpu_usage"), [one], AT)
    place.fake.metric.heal()
    place.fake.metric.garble(path)
    with pytest.raises(CloudUnavailable):
        await place.meter().read(Query("instance_cpu_usage"), [one], AT)


async def test_without_gnocchi_the_run_says_so(place: Place) -> None:
    place.fake.metric.in_catalog = False
    with pytest.raises(BadRequest, match="the catalog has no metric"):
        await place.meter().read(Query("instance_cpu_usage"), [Resource("s", "s")], AT)
    assert "not available: the catalog has no metric" in await place.meter().state()


async def test_its_state(place: Place) -> None:
    assert await place.meter().state() == "available"


def test_what_is_configured_wrongly_is_said() -> None:
    needs = MeterNeeds(name="m", clock=SystemClock(), telemetry=Telemetry(), cloud=lambda name: None)
    for options, said in (
        (gnocchi.Options(), "has no API"),
        (gnocchi.Options(names={"cpu": "x"}), "there is no measurement 'cpu'"),
        (gnocchi.Options(hosts=()), "at least one form"),
    ):
        with pytest.raises(ConfigError, match=said):
            gnocchi.build(options, needs)
