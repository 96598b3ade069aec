"""Numbers an operator looks at: Prometheus metrics in a registry of our own, so two services in one process don't mix."""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


class Telemetry:
    """Makes metrics named `vedette_…` and renders them (text format 0.0.4). Asked for a name again (two sources of one type),
    it gives the one that is there."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, MetricWrapperBase] = {}

    def counter(self, name: str, sentence: str, *labels: str) -> Counter:
        return self._known(name, Counter) or self._keep(
            name, Counter(f"vedette_{name}", sentence, labels, registry=self.registry)
        )

    def gauge(self, name: str, sentence: str, *labels: str) -> Gauge:
        return self._known(name, Gauge) or self._keep(name, Gauge(f"vedette_{name}", sentence, labels, registry=self.registry))

    def histogram(self, name: str, sentence: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return self._known(name, Histogram) or self._keep(
            name, Histogram(f"vedette_{name}", sentence, labels, buckets=buckets, registry=self.registry)
        )

    def _known(self, name: str, kind: type[_Metric]) -> _Metric | None:
        made = self._made.get(name)
        if made is not None and not isinstance(made, kind):
            raise TypeError(f"vedette_{name} is a {type(made).__name__}, not a {kind.__name__}")
        return made

    def _keep(self, name: str, made: _Metric) -> _Metric:
        self._made[name] = made
        return made

    def render(self) -> bytes:
        return generate_latest(self.registry)
