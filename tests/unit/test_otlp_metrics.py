"""Measurements sent by OTLP: over HTTP, to what a collector is (as far as a request goes)."""

from __future__ import annotations

import gzip

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from vedette.clients.otlp_metrics import UNITS, OtlpSamples
from vedette.errors import TargetUnavailable
from vedette.kit.clock import SystemClock
from vedette.model import sample
from vedette.model.sample import Sample
from vedette.ports import Pushed
from vedette.testing.rest import FakeRest

SAMPLES = (Sample("a", "p", "cpu_load", 12.5), Sample("b", "p", "cpu_load", 0.0), Sample("a", "p", "iops", 3.0))


async def test_a_round_is_one_request_with_a_point_for_each_value() -> None:
    async with FakeRest() as collector:
        sink = OtlpSamples(f"http://127.0.0.1:{collector.port}/v1/metrics", "vedette", SystemClock())
        assert await sink.push(()) == Pushed()
        assert await sink.push(SAMPLES) == Pushed(sent=3)
        (sent,) = await collector.until(1)
        await sink.close()
    assert (sent.method, sent.path) == ("POST", "/v1/metrics")
    body = gzip.decompress(sent.body) if sent.headers.get("Content-Encoding") == "gzip" else sent.body
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    assert ("service.name", "vedette") in [(one.key, one.value.string_value) for one in resource.resource.attributes]
    (scope,) = resource.scope_metrics
    found = {
        (metric.name, metric.unit, *(one.value.string_value for one in point.attributes), point.as_double)
        for metric in scope.metrics
        for point in metric.gauge.data_points
    }
    assert found == {
        ("openstack.server.cpu_load", "%", "a", "p", 12.5),
        ("openstack.server.cpu_load", "%", "b", "p", 0.0),
        ("openstack.server.iops", "{operation}/s", "a", "p", 3.0),
    }
    assert UNITS.keys() == sample.UNITS.keys()


async def test_a_collector_that_refuses_has_this_round_no_more() -> None:
    async with FakeRest() as collector:
        collector.answers.append(400)
        sink = OtlpSamples(f"http://127.0.0.1:{collector.port}/v1/metrics", "vedette", SystemClock())
        with pytest.raises(TargetUnavailable, match="did not take"):
            await sink.push(SAMPLES)
        assert await sink.push(SAMPLES) == Pushed(sent=3)
        await sink.close()
