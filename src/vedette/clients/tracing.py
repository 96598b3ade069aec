"""OpenTelemetry spans of handler calls, sent by OTLP over HTTP. engine/dispatch.py uses it through `ports.Tracer`, if configured.

A span is a child of the notification's own trace (`traceparent`, W3C Trace Context), and the call gets the span's, so that what a
target does with it hangs below. Spans are sent in batches by a thread of the library; what can't be sent is dropped and logged by
it, and nothing waits for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vedette.errors import CannotStart

WAITING = 2_048
"""Spans that wait to be sent; beyond it new ones are dropped."""


class OtlpTracer:
    """See ports.Tracer. Raises CannotStart when the library isn't installed."""

    def __init__(self, endpoint: str, service_name: str, *, exporter: Any = None) -> None:
        """`exporter`: instead of the one that sends to `endpoint`, for tests."""
        try:
            # Late: only who has `tracing:` needs it.
            trace = importlib.import_module("opentelemetry.trace")
            sdk = importlib.import_module("opentelemetry.sdk.trace")
            export = importlib.import_module("opentelemetry.sdk.trace.export")
            resources = importlib.import_module("opentelemetry.sdk.resources")
            w3c = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
            if exporter is None:
                otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
                exporter = otlp.OTLPSpanExporter(endpoint=endpoint, timeout=10)
        except ImportError as why:
            raise CannotStart(f"tracing needs OpenTelemetry ({why.name} is missing): pip install 'vedette[tracing]'") from why
        self._trace = trace
        self._propagator = w3c.TraceContextTextMapPropagator()
        self._provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": service_name}))
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter, max_queue_size=WAITING))
        self._tracer = self._provider.get_tracer("vedette")

    @contextmanager
    def call(self, name: str, traceparent: str, attributes: Mapping[str, str | int]) -> Iterator[str]:
        parent = self._propagator.extract({"traceparent": traceparent}) if traceparent else None
        # An error's text may hold what a target said: its type is enough here, the outcome has the rest.
        how = {"kind": self._trace.SpanKind.CONSUMER, "record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span(name, context=parent, attributes=dict(attributes), **how) as span:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            try:
                yield carrier.get("traceparent", traceparent)
            except BaseException as why:
                span.set_status(self._trace.StatusCode.ERROR, type(why).__name__)
                raise
            span.set_status(self._trace.StatusCode.OK)

    def close(self) -> None:
        """Send what waits; blocks for some seconds at the most."""
        self._provider.shutdown()
