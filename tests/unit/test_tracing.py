"""Handler calls are spans of the notification's own trace, when tracing is configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dispatching import PORTS, Place, Told, rule
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vedette.clients.tracing import OtlpTracer
from vedette.engine.dispatch import Dispatch
from vedette.errors import GiveUp
from vedette.kit.telemetry import Telemetry
from vedette.ports import Context, Event

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def traced() -> Iterator[tuple[OtlpTracer, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracer = OtlpTracer("", "vedette", exporter=exporter)
    yield tracer, exporter
    tracer.close()


async def test_a_call_is_a_child_of_the_notifications_trace_and_hands_its_own_on(traced: Any) -> None:
    tracer, exporter = traced
    place = Place()

    async def does(event: Event, context: Context) -> None:
        if event.object["status"]["n"] == 2:
            raise GiveUp("a secret that the target said")

    told = Told(does)  # type: ignore[arg-type]
    import asyncio

    dispatch = Dispatch(place.store, [rule(told, on=PORTS)], (), place.clock, Telemetry(), tracer=tracer)
    dispatch._names.learn("openstack.vedette.dev", "Port", ("port",))
    task = asyncio.create_task(dispatch.run())
    await dispatch.ready.wait()
    await place.say("a", 1, traceparent=PARENT)
    await place.say("b", 2)
    await place.rest()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    tracer._provider.force_flush()
    good, bad = exporter.get_finished_spans()
    assert good.context is not None
    assert (f"{good.context.trace_id:032x}", f"{good.parent.span_id:016x}") == (PARENT[3:35], PARENT[36:52])
    assert told.events[0].traceparent == f"00-{PARENT[3:35]}-{good.context.span_id:016x}-01"
    assert good.attributes["vedette.handler"] == "h"
    assert good.status.is_ok
    assert bad.parent is None
    assert not bad.status.is_ok
    assert "secret" not in bad.to_json()
