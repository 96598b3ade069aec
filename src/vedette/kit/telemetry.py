"""Numbers an operator looks at: Prometheus metrics in a registry of our own, so two services in one process don't mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Telemetry:
    """Makes metrics named `vedette_…` and renders them (text format 0.0.4)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def counter(self, name: str, sentence: str, *labels: str) -> Counter:
        return Counter(f"vedette_{name}", sentence, labels, registry=self.registry)

    def gauge(self, name: str, sentence: str, *labels: str) -> Gauge:
        return Gauge(f"vedette_{name}", sentence, labels, registry=self.registry)

    def histogram(self, name: str, sentence: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vedette_{name}", sentence, labels, buckets=buckets, registry=self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)
