"""`http`: requests to a server of the test's own, and what its answers mean."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater, VedetteError
from vedette.handlers.http import LONGEST_WAIT, HttpHandler, Options, build, retry_after
from vedette.kit.secret import Secret
from vedette.ports import Event
from vedette.testing.clock import START_US, FakeClock
from vedette.testing.handling import PORT, FakeContext, change, handler_needs, notice_event
from vedette.testing.rabbit import free_ports
from vedette.testing.tls import Authority

EVENT = change({"name": "web/1", "status": "ACTIVE"}, {"status": "DOWN"}, request_id="req-9", traceparent="00-aa-bb-01")
Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Got(msgspec.Struct, frozen=True):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Target:
    """A server that writes down what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answer: Answers = self.fine
        self.connections: set[Any] = set()
        self.url = ""

    async def fine(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Got(request.method, request.raw_path, headers, await request.read()))
        return await self.answer(request)

    def says(self, status: int, text: str | bytes = "", **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = text if isinstance(text, bytes) else text.encode()
            return web.Response(status=status, body=body, headers={name.replace("_", "-"): one for name, one in headers.items()})

        self.answer = answer


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    made = Target()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", made.take)
    async with TestServer(app) as server:
        made.url = f"http://127.0.0.1:{server.port}"
        yield made


def handler(url: str, *, clock: FakeClock | None = None, **more: Any) -> HttpHandler:
    return build(Options(url=url, **more), handler_needs(clock=clock))


async def call(url: str, event: Event = EVENT, **more: Any) -> str:
    made = handler(url, **more)
    try:
        return await made.handle(event, FakeContext())
    finally:
        await made.close()


async def test_the_event_arrives_as_a_cloudevent_with_what_makes_it_known(target: Target) -> None:
    assert await call(f"{target.url}/in") == f"204 from {target.url}"
    [got] = target.got
    assert (got.method, got.path) == ("POST", "/in")
    assert got.headers["content-type"] == "application/cloudevents+json; charset=UTF-8"
    assert got.headers["idempotency-key"] == "here/1795187946000042"
    assert got.headers["x-openstack-request-id"] == "req-9"
    assert got.headers["traceparent"] == "00-aa-bb-01"
    assert got.headers["user-agent"].startswith("vedette/")
    event = json.loads(got.body)
    assert (event["type"], event["data"]["object"]["status"]["name"]) == ("vedette.object.modified", "web/1")


async def test_the_object_alone_or_a_body_of_ones_own(target: Target) -> None:
    await call(target.url, body="object")
    await call(target.url, body='{{"text": "{key.kind} {object.status.name}", "ips": {object.status.ips}}}')
    await call(target.url, body="{object.status.name}\n", content_type="text/plain; charset=utf-8")
    await call(target.url, body="")
    assert json.loads(target.got[0].body) == EVENT.object
    assert json.loads(target.got[1].body) == {"text": "Port web/1", "ips": None}
    assert (target.got[2].body, target.got[2].headers["content-type"]) == (b"web/1\n", "text/plain; charset=utf-8")
    assert target.got[3].body == b""


async def test_a_name_stays_in_its_segment_of_the_path(target: Target) -> None:
    url = target.url + "/ports/{object.status.name}/x?id={key.id}&name={object.status.name}"
    await call(url, method="PUT", event=change({"name": "a b?&#%2f/é"}))
    assert target.got[0].path == f"/ports/a%20b%3F%26%23%252f%2F%C3%A9/x?id={PORT}&name=a%20b%3F%26%23%252f%2F%C3%A9"
    with pytest.raises(GiveUp, match="segment"):
        await call(url, event=change({"name": "../admin"}))
    with pytest.raises(GiveUp, match="has no value"):
        await call(url, event=change({"name": ""}), method="DELETE")
    assert len(target.got) == 1
    await call(target.url + "/a/{object.status.no}/b", missing="empty", method="GET")
    assert (target.got[1].method, target.got[1].path, target.got[1].body) == ("GET", "/a//b", b"")
    assert "content-type" not in target.got[1].headers


async def test_headers_are_templates_in_which_no_value_begins_another_header(target: Target) -> None:
    event = change({"name": "a\r\nX-Evil: 1\0"})
    await call(target.url, event, headers={"X-Name": "{object.status.name}"}, secret_headers={"X-Api-Key": Secret("k3y")})
    assert target.got[0].headers["x-name"] == "a X-Evil: 1"
    assert target.got[0].headers["x-api-key"] == "k3y"
    assert "x-evil" not in target.got[0].headers


async def test_it_says_who_it_is(target: Target) -> None:
    await call(target.url, username="user", password=Secret("pässword"))
    await call(target.url, token=Secret("t0ken"))
    basic = base64.b64encode("user:pässword".encode()).decode()
    assert [one.headers["authorization"] for one in target.got] == [f"Basic {basic}", "Bearer t0ken"]


async def test_a_signature_covers_timestamp_and_body(target: Target) -> None:
    await call(target.url, hmac_secret=Secret("a secret of some length"))
    [got] = target.got
    assert got.headers["x-vedette-timestamp"] == str(START_US // 1_000_000)
    signed = hmac.new(b"a secret of some length", got.headers["x-vedette-timestamp"].encode() + b"." + got.body, hashlib.sha256)
    assert got.headers["x-vedette-signature"] == f"sha256={signed.hexdigest()}"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((one, None) for one in (200, 201, 202, 204, 207)),
        *((one, TryLater) for one in (408, 425, 429, 500, 502, 503, 504, 599)),
        *((one, GiveUp) for one in (304, 400, 401, 403, 404, 405, 409, 410, 413, 422, 451)),
    ],
)
async def test_the_status_decides(target: Target, status: int, error: type[Exception] | None) -> None:
    target.says(status, "" if status in (204, 304) else "because\n\n of <this>")
    if error is None:
        assert await call(target.url) == f"{status} from {target.url}"
        return
    with pytest.raises(VedetteError) as raised:
        await call(target.url)
    assert type(raised.value) is error
    assert str(raised.value) == f"{status} from {target.url}" + ("" if status == 304 else ": because of <this>")


async def test_other_statuses_may_be_the_expected_ones(target: Target) -> None:
    target.says(409)
    assert await call(target.url, expected=(201, 409)) == f"409 from {target.url}"
    target.says(200)
    with pytest.raises(GiveUp, match="200 from"):
        await call(target.url, expected=(201, 409))


async def test_retry_after_is_kept_to(target: Target) -> None:
    for text, delay in [("17", 17.0), ("Fri, 20 Nov 2026 15:20:06 GMT", 60.0), ("soon", 0.0)]:
        target.says(503, Retry_After=text)
        with pytest.raises(TryLater) as raised:
            await call(target.url)
        assert raised.value.delay == delay


def test_a_retry_after_is_bounded_and_may_be_anything() -> None:
    clock = FakeClock()
    assert retry_after("9" * 50, clock) == LONGEST_WAIT
    assert retry_after("Fri, 20 Nov 2099 15:20:06 GMT", clock) == LONGEST_WAIT
    assert retry_after("Fri, 20 Nov 1999 15:20:06 GMT", clock) == 0
    assert retry_after("", clock) is None


@given(st.text())
def test_no_retry_after_is_an_error(text: str) -> None:
    delay = retry_after(text, FakeClock())
    assert delay is None or 0 <= delay <= LONGEST_WAIT


async def test_a_redirect_is_not_followed_and_says_where_it_points(target: Target) -> None:
    target.says(301, Location="https://other.example.org/new?token=x")
    with pytest.raises(GiveUp, match=r"301 from .*points to https://other\.example\.org/new: redirects"):
        await call(target.url, token=Secret("t0ken"))
    assert len(target.got) == 1


async def test_a_huge_answer_is_cut_and_a_packed_one_stays_packed(target: Target) -> None:
    target.says(400, b"x" * 8_000_000)
    with pytest.raises(GiveUp) as raised:
        await call(target.url)
    assert len(str(raised.value)) < 300
    target.says(400, b"\x1f\x8b\x08 not really", Content_Encoding="gzip")
    with pytest.raises(GiveUp, match="not really"):
        await call(target.url)


async def test_an_answer_whose_body_never_ends_counts_by_its_status(target: Target) -> None:
    stop = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        await response.write(b"well")
        await stop.wait()
        return response

    target.answer = drip
    assert await call(target.url, timeout=0.3) == f"200 from {target.url}"
    stop.set()


async def test_nobody_there_is_no_attempt(target: Target) -> None:
    [port] = free_ports(1)
    with pytest.raises(TargetUnavailable, match=rf"http://127\.0\.0\.1:{port}: no connection"):
        await call(f"http://127.0.0.1:{port}/hidden-path")
    stop = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await stop.wait()
        return web.Response()

    target.answer = silent
    with pytest.raises(TargetUnavailable, match=r"no answer within 0\.2 s"):
        await call(target.url, timeout=0.2)
    stop.set()


async def raw(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> tuple[asyncio.Server, str]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_answer_that_is_no_http_is_tried_later_and_a_lost_connection_is_nobody_there() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")

    async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    for serve, error in ((nonsense, TryLater), (gone, TargetUnavailable)):
        server, url = await raw(serve)
        async with server:
            with pytest.raises(VedetteError) as raised:
                await call(url)
        assert type(raised.value) is error


async def test_one_connection_serves_many_events_and_one_that_ended_is_replaced(target: Target) -> None:
    made = handler(target.url)
    for _ in range(3):
        await made.handle(EVENT, FakeContext())
    assert len(target.connections) == 1
    for transport in target.connections:
        transport.abort()
    await made.handle(EVENT, FakeContext())
    assert len(target.connections) == 2
    await made.close()
    await made.close()


async def test_certificates_are_verified(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    made = Target()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.take)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=authority.server().server_context())
    try:
        url = f"https://localhost:{server.port}/"
        assert await call(url, ca=str(authority.ca), token=Secret("t")) == f"204 from {url[:-1]}"
        for ca in ("", str(other.ca)):
            with pytest.raises(TargetUnavailable, match="certificate"):
                await call(url, ca=ca)
    finally:
        await server.close()
    assert len(made.got) == 1


async def test_a_notice_goes_out_too(target: Target) -> None:
    await call(target.url, notice_event({"instance_id": "i-1"}))
    event = json.loads(target.got[0].body)
    assert (event["type"], event["data"]) == ("openstack.compute.instance.update", {"instance_id": "i-1"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "ftp://host/"}, "wants an address"),
        ({"url": "https://{object.status.host}/"}, "wants an address"),
        ({"url": "https://host{key.id}/"}, "wants an address"),
        ({"url": "https://user:password@host/"}, "wants an address"),
        ({"url": "https://host:99999/"}, "host or the port"),
        ({"url": "https:///path"}, "wants an address"),
        ({"url": "https://a..b/path"}, "wants an address"),
        ({"url": f"https://{'a' * 64}/path"}, "wants an address"),
        ({"url": "https://host:0/path"}, "host or the port"),
        ({"url": "https://[1:2]/path"}, "host or the port"),
        ({"url": "https://host/a#b"}, "has a #"),
        ({"url": "https://host/a b"}, "a space"),
        ({"url": "https://host/{x}"}, "url: character 15: there is no x"),
        ({"url": "http://host/", "token": Secret("x")}, "plain http"),
        ({"url": "http://host/", "secret_headers": {"X-Key": Secret("x")}}, "plain http"),
        ({"token": Secret("x"), "username": "x", "password": Secret("x")}, "not both"),
        ({"username": "x"}, "go together"),
        ({"token": Secret("a\r\nb")}, "no header can"),
        ({"headers": {"A B": ""}}, "no header's name"),
        ({"headers": {"authorization": "x"}}, "set otherwise"),
        ({"headers": {"X": "a\nb"}}, "one line"),
        ({"body": '{"a": 1}'}, "body: character 2"),
        ({"body": "{{ nothing }}"}, "is not JSON"),
        ({"expected": (99,)}, "statuses from 200"),
        ({"timeout": 0.0}, "more than 0"),
        ({"ca": "/nowhere/ca.pem"}, "can't be read"),
        ({"key": "/nowhere/key.pem"}, "no certificate"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(Options(**{"url": "https://host/", **options}), handler_needs())


def test_what_may_be_sent_in_the_open() -> None:
    for options in (
        {"url": "http://127.0.0.1:8080/", "token": Secret("x")},
        {"url": "http://host/", "token": Secret("x"), "allow_insecure": True},
        {"url": "http://host/", "hmac_secret": Secret("x")},
        {"url": "https://host"},
        {"url": "https://[::1]:80/x?y={key.id}"},
    ):
        build(Options(**options), handler_needs())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: " + b"a" * 20_000 + b"\r\n\r\n",
        b"this is no HTTP at all\r\n\r\n",
        b"HTTP/1.1 2",
        b"",
    ],
)
async def test_no_error_tells_what_follows_the_host(said: bytes) -> None:
    """An address can be a secret as a whole (a chat's incoming webhook), and errors are kept, served and logged."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TryLater) as why:
            await call(f"{origin}/services/T0/hidden?token=hidden", body="")
    assert "hidden" not in str(why.value)
    assert why.value.__cause__ is None
