"""meters/prometheus.py against a server that answers like Prometheus: one question for all, matched by label."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from vedette.errors import BadRequest, ConfigError, TryLater
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.meters import prometheus
from vedette.model.advice import Query, Resource
from vedette.ports import MeterNeeds
from vedette.testing.clock import FakeClock

AT = 1_795_187_946_000_000
HOSTS = [Resource("compute-1.example.org", "u1"), Resource("compute-2", "u2"), Resource("compute-3", "u3")]
SERVERS = [Resource("s1", "s1", 2, 2048, 20), Resource("s2", "s2", 4, 4096, 40), Resource("s3", "s3", 0, 512, 1)]


class QuickClock(FakeClock):
    """Whoever sleeps has slept already."""

    async def sleep(self, seconds: float) -> None:
        self.tick(seconds)
        await asyncio.sleep(0)


class Place:
    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[], web.Response] = lambda: vector({})

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append({name: str(value) for name, value in (await request.post()).items()})
        self.headers.append(dict(request.headers))
        return self.answer()


def vector(values: dict[str, Any], label: str = "fqdn") -> web.Response:
    rows = [{"metric": {label: name}, "value": [1795187946.0, str(value)]} for name, value in values.items()]
    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": rows}})


@asynccontextmanager
async def placed(**options: Any) -> AsyncIterator[tuple[prometheus.PrometheusMeter, Place]]:
    place = Place()
    app = web.Application()
    app.router.add_post("/api/v1/query", place.handle)
    async with TestServer(app) as server:
        needs = MeterNeeds(name="m", clock=QuickClock(), telemetry=Telemetry(), cloud=lambda name: None)
        meter = prometheus.build(prometheus.Options(url=str(server.make_url("")), **options), needs)
        try:
            yield meter, place
        finally:
            await meter.close()


@pytest.mark.parametrize(
    ("query", "expression"),
    [
        (
            Query("host_cpu_usage", "mean", 300),
            "100 - (avg by (fqdn) (rate(node_cpu_seconds_total{mode='idle'}[300s])) * 100)",
        ),
        (
            Query("host_ram_usage", "max", 60),
            "(node_memory_MemTotal_bytes - max_over_time(node_memory_MemAvailable_bytes[60s])) / 1048576",
        ),
        (Query("instance_cpu_usage", "mean", 600), "avg by (resource) (rate(ceilometer_cpu[600s])) / 1e9 * 100"),
        (Query("instance_ram_usage", "min", 300), "min_over_time(ceilometer_memory_usage[300s])"),
    ],
)
async def test_what_is_asked(query: Query, expression: str) -> None:
    """One question, whatever the number of hosts and servers; at the moment of the audit."""
    async with placed() as (meter, place):
        await meter.read(query, HOSTS if query.of_hosts else SERVERS, AT)
        assert place.asked == [{"query": expression, "time": "1795187946.000"}]


async def test_hosts_are_matched_by_their_full_or_their_short_name_and_no_data_is_missing() -> None:
    async with placed() as (meter, place):
        place.answer = lambda: vector({"compute-1": 12.5, "compute-2.example.org": 0, "compute-3": "NaN", "other": 5})
        found = await meter.read(Query("host_cpu_usage"), HOSTS, AT)
        assert found == {"compute-1.example.org": 12.5, "compute-2": 0.0}


async def test_a_servers_processors_count() -> None:
    async with placed() as (meter, place):
        place.answer = lambda: vector({"s1": 150.0, "s2": 900.0, "s3": -3.0}, "resource")
        assert await meter.read(Query("instance_cpu_usage"), SERVERS, AT) == {"s1": 75.0, "s2": 100.0, "s3": 0.0}


async def test_what_the_inventory_knows_is_not_asked() -> None:
    async with placed() as (meter, place):
        assert await meter.read(Query("instance_ram_allocated"), SERVERS, AT) == {"s1": 2048, "s2": 4096, "s3": 512}
        assert await meter.read(Query("instance_root_disk_size"), SERVERS, AT) == {"s1": 20, "s2": 40, "s3": 1}
        assert place.asked == []


async def test_labels_can_be_others() -> None:
    async with placed(fqdn_label="instance", host_cpu="cpu") as (meter, place):
        place.answer = lambda: vector({"compute-2": 1}, "instance")
        assert await meter.read(Query("host_cpu_usage"), HOSTS, AT) == {"compute-2": 1.0}
        assert "by (instance)" in place.asked[0]["query"]


async def test_a_server_that_is_unwell_is_asked_again_and_is_never_no_data() -> None:
    async with placed() as (meter, place):
        place.answer = lambda: web.Response(status=503)
        with pytest.raises(TryLater, match="Prometheus answered 503"):
            await meter.read(Query("host_cpu_usage"), HOSTS, AT)
        assert len(place.asked) == 3
        answers = [web.Response(status=500), vector({"compute-2": 1})]
        place.answer = lambda: answers.pop(0)
        assert await meter.read(Query("host_cpu_usage"), HOSTS, AT) == {"compute-2": 1.0}
        place.answer = lambda: web.Response(text="<html>")
        with pytest.raises(TryLater, match="no JSON"):
            await meter.read(Query("host_cpu_usage"), HOSTS, AT)
        assert (await meter.state()).startswith("not available")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: web.json_response({"status": "error", "error": "parse error"}, status=400), "parse error"),
        (lambda: web.Response(status=401), "answered 401"),
    ],
)
async def test_what_it_refuses_is_not_asked_again(answer: Callable[[], web.Response], said: str) -> None:
    async with placed() as (meter, place):
        place.answer = answer
        with pytest.raises(BadRequest, match=said):
            await meter.read(Query("host_cpu_usage"), HOSTS, AT)
        assert len(place.asked) == 1


async def test_who_we_are() -> None:
    async with placed(username="u", password=Secret("p")) as (meter, place):
        await meter.read(Query("host_cpu_usage"), HOSTS, AT)
        assert place.headers[0]["Authorization"] == "Basic dTpw"
        assert await meter.state() == "available"
    async with placed(token=Secret("t")) as (meter, place):
        await meter.read(Query("host_cpu_usage"), HOSTS, AT)
        assert place.headers[0]["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "prometheus:9090"}, "url: wants an address"),
        ({"url": "http://prometheus:9090", "token": Secret("t")}, "url: secrets would travel in plain http"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], said: str) -> None:
    needs = MeterNeeds(name="m", clock=FakeClock(), telemetry=Telemetry(), cloud=lambda name: None)
    with pytest.raises(ConfigError, match=said):
        prometheus.build(prometheus.Options(**options), needs)
