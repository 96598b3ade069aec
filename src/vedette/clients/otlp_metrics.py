"""Measurements of servers, sent by OTLP over HTTP: a gauge for each measurement, a point for each server.

In: samples of one round, from engine/polling.py, for which this is one more `ports.TakesSamples`. Points are made by hand, with
the SDK's own shapes: its meters would go on sending a server's last value when there is none any more. One request a round; a
collector that is away does not get that round's points later.
(opentelemetry.io/docs/specs/otlp; units: ucum.org)
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from vedette import __version__
from vedette.errors import CannotStart, TargetUnavailable
from vedette.kit.clock import Clock
from vedette.model.sample import Sample
from vedette.ports import Pushed

TIMEOUT_SECONDS = 10
UNITS: Mapping[str, tuple[str, str]] = {
    "cpu_load": ("%", "What a server uses of one processor"),
    "ram_usage": ("%", "What a server uses of its memory"),
    "network_usage": ("By/s", "What goes in and out of all of a server's interfaces"),
    "throughput": ("By/s", "What a server reads and writes on all its disks"),
    "iops": ("{operation}/s", "How often it does"),
}


class OtlpSamples:
    """See ports.TakesSamples. Raises CannotStart when the library isn't installed."""

    def __init__(self, endpoint: str, service_name: str, clock: Clock, *, exporter: Any = None) -> None:
        """`exporter`: instead of the one that sends to `endpoint`, for tests."""
        try:
            # Late: only who has `polling.otlp` needs it.
            self._shapes = importlib.import_module("opentelemetry.sdk.metrics.export")
            resources = importlib.import_module("opentelemetry.sdk.resources")
            scopes = importlib.import_module("opentelemetry.sdk.util.instrumentation")
            if exporter is None:
                otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
                exporter = otlp.OTLPMetricExporter(endpoint=endpoint, timeout=TIMEOUT_SECONDS)
        except ImportError as why:
            raise CannotStart(
                f"polling.otlp needs OpenTelemetry ({why.name} is missing): pip install 'vedette[tracing]'"
            ) from why
        self._clock = clock
        self._endpoint = endpoint
        self._exporter = exporter
        self._resource = resources.Resource.create({"service.name": service_name})
        self._scope = scopes.InstrumentationScope("vedette.polling", __version__)

    async def push(self, samples: Sequence[Sample]) -> Pushed:
        """Raises TargetUnavailable."""
        if not samples:
            return Pushed()
        data = self._data(samples, self._clock.now_us() * 1000)
        result = await asyncio.to_thread(self._exporter.export, data, TIMEOUT_SECONDS * 1000)
        if result is not self._shapes.MetricExportResult.SUCCESS:
            raise TargetUnavailable(f"{self._endpoint} did not take the measurements of this round")
        return Pushed(sent=len(samples))

    async def close(self) -> None:
        await asyncio.to_thread(self._exporter.shutdown)

    def _data(self, samples: Sequence[Sample], now: int) -> Any:
        """`now`: UTC nanoseconds."""
        shapes = self._shapes
        points: dict[str, list[Any]] = {}
        for one in samples:
            attributes = {"openstack.server.id": one.server, "openstack.project.id": one.project}
            points.setdefault(one.name, []).append(shapes.NumberDataPoint(attributes, now, now, one.value))
        metrics = [
            shapes.Metric(f"openstack.server.{name}", UNITS[name][1], UNITS[name][0], shapes.Gauge(each))
            for name, each in points.items()
        ]
        scope = shapes.ScopeMetrics(self._scope, metrics, "")
        return shapes.MetricsData([shapes.ResourceMetrics(self._resource, [scope], "")])
