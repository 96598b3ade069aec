"""A call of a handler is a span of the caller's own trace, sent to a collector by OTLP over HTTP, and what it calls is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from serving import SECONDS, asking, open_service

TOKEN = "a-token-of-the-hooks-own"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_hook_a_handler_and_its_target_are_one_trace(tmp_path: Path) -> None:
    received: list[ExportTraceServiceRequest] = []
    told: asyncio.Queue[str] = asyncio.Queue()

    async def collect(request: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def target(request: web.Request) -> web.Response:
        told.put_nowait(request.headers["traceparent"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    app.router.add_post("/target", target)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    hooks = [{"name": "x", "format": "cloudevents", "token": TOKEN}]
    handlers = [{"name": "h", "use": "http", "on": {"sources": ["x"]}, "options": {"url": f"http://{host}:{port}/target"}}]
    tracing = {"endpoint": f"http://{host}:{port}/v1/traces"}
    event = b'{"specversion":"1.0","id":"1","source":"/s","type":"org.example.t","traceparent":"%b","data":{}}' % PARENT.encode()
    async with open_service(tmp_path, hooks=hooks, handlers=handlers, tracing=tracing) as running, asking(running) as ask:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cloudevents+json"}
        code, _, said = await ask.get("/v1/hooks/cloudevents/x", method="POST", data=event, headers=headers)
        assert code == 204, said
        async with asyncio.timeout(SECONDS):
            handed_on = await told.get()
    # The service has sent what waited when it stopped.
    await runner.cleanup()
    (spans,) = received
    (resource,) = spans.resource_spans
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("handle h", PARENT[3:35], PARENT[36:52])
    assert handed_on == f"00-{PARENT[3:35]}-{span.span_id.hex()}-01"
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "vedette"
