"""The client of a cloud's API against services over HTTP: what it asks, what it makes of answers, what it never shows."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.clients import openstack
from vedette.clients.keystone import Credentials, credentials
from vedette.clients.openstack import ClockDifference, Limits, OpenStackCloud, is_gone, next_query, service_words
from vedette.config import load_text, show
from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    Forbidden,
    NoService,
    NotFound,
    Unauthenticated,
)
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.ports import CloudUse, JsonObject
from vedette.sources.openstack import ApiOptions, Options, cloud_use
from vedette.testing.clock import FakeClock
from vedette.testing.keystone import FakeKeystone, Listed
from vedette.testing.tls import Authority

PASSWORD = "hunter2-very-secret"
LOGIN = "POST /v3/auth/tokens"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse] | web.StreamResponse]


class QuickClock(FakeClock):
    """Whoever sleeps has slept already, and time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.tick(seconds)
        await asyncio.sleep(0)


class Service:
    """One API on 127.0.0.1: `answer` makes every answer, `asked` is what came in."""

    def __init__(self, answer: Handler, clock: FakeClock, tls: Any = None) -> None:
        self.answer = answer
        self._clock = clock
        self.asked: list[web.Request] = []
        self.connections: set[Any] = set()
        self.news = asyncio.Event()
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def root(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [request.path_qs for request in self.asked]

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.connections.add(request.transport)
        self.news.set()
        made = self.answer(request)
        response = await made if isinstance(made, Awaitable) else made
        if not response.prepared:
            response.headers.setdefault("Date", formatdate(self._clock.now_us() / 1e6, usegmt=True))
        return response


class Rig:
    """A Keystone with one account, one service, and a client."""

    def __init__(self, keystone: FakeKeystone, clock: QuickClock) -> None:
        self.keystone = keystone
        self.clock = clock
        self.telemetry = Telemetry()
        self.service = Service(lambda request: web.json_response({}), clock)
        self.type = "network"
        self.path = ""
        """After the service's root, in the catalog."""
        keystone.catalog = lambda project: [Listed(self.type, self.type, self.service.root + self.path)]
        self.clouds: list[OpenStackCloud] = []

    def credentials(self, **more: Any) -> Credentials:
        given = {"auth_url": self.keystone.url, "username": "vedette", "password": PASSWORD, "project_name": "service", **more}
        return credentials(given, environ={}, folders=())

    def cloud(self, made: Credentials | None = None, **more: Any) -> OpenStackCloud:
        cloud = OpenStackCloud(
            made or self.credentials(), name="region-one", clock=self.clock, telemetry=self.telemetry, **{"timeout_s": 20, **more}
        )
        self.clouds.append(cloud)
        return cloud

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"vedette_{name}", {"source": "region-one", **labels}) or 0.0


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    clock = QuickClock()
    async with FakeKeystone(clock) as keystone:
        project = keystone.add_project("service")
        keystone.grant(keystone.add_user("vedette", PASSWORD), "admin", project=project)
        rig = Rig(keystone, clock)
        await rig.service.start()
        yield rig
        for cloud in rig.clouds:
            await cloud.close()
        await rig.service.stop()


def numbered(count: int) -> list[JsonObject]:
    return [{"id": f"id-{number:03}"} for number in range(count)]


async def everything(
    cloud: OpenStackCloud, path: str = "/ports", key: str = "ports", service: str = "network", **more: Any
) -> list[str]:
    return [
        str(item.get("id", item.get("name"))) async for page in cloud.pages(service, path, key, **more) for item in page.items
    ]


# --- one answer


async def test_an_object_comes_as_the_service_said_it(rig: Rig) -> None:
    rig.service.answer = lambda request: web.json_response({"port": {"id": "p", "name": "a port ✓"}})
    answer = await rig.cloud().get("network", "/ports/p", [("fields", "id"), ("fields", "name")])
    assert answer.body == {"port": {"id": "p", "name": "a port ✓"}}
    assert rig.service.paths == ["/v2.0/ports/p?fields=id&fields=name"]
    asked = rig.service.asked[0].headers
    assert asked["X-Auth-Token"] in rig.keystone.tokens
    assert asked["Accept"] == "application/json"
    assert asked["User-Agent"].startswith("vedette/")
    assert "OpenStack-API-Version" not in asked
    assert "Cookie" not in asked


async def test_one_login_and_one_connection_serve_many_requests(rig: Rig) -> None:
    def answer(request: web.Request) -> web.Response:
        response = web.json_response({})
        response.set_cookie("session", "1")
        return response

    rig.service.answer = answer
    cloud = rig.cloud()
    for _ in range(5):
        await cloud.get("network", "/ports")
    assert rig.keystone.logins == 1
    assert len(rig.service.connections) == 1
    assert not any("Cookie" in request.headers for request in rig.service.asked)
    assert rig.metric("cloud_requests_total", service="network", status="200") == 5
    assert rig.metric("cloud_request_seconds_count", service="network") == 5
    assert rig.metric("cloud_retries_total", service="network") == 0


@pytest.mark.parametrize(
    ("type_", "path", "service", "asks", "where"),
    [
        ("network", "", "network", "/ports", "/v2.0/ports"),
        ("network", "/v2.0", "network", "/ports", "/v2.0/ports"),
        ("load-balancer", "", "load-balancer", "/lbaas/pools", "/v2.0/lbaas/pools"),
        ("load-balancer", "/load-balancer", "load-balancer", "/lbaas/pools", "/load-balancer/v2.0/lbaas/pools"),
        ("volumev3", "/v3/abc", "block-storage", "/volumes/detail", "/v3/abc/volumes/detail"),
        ("block-store", "/v3/abc", "block-storage", "/volumes/detail", "/v3/abc/volumes/detail"),
        ("orchestration", "/v1/abc", "orchestration", "/stacks", "/v1/abc/stacks"),
        ("compute", "/v2.1", "compute", "/servers/detail", "/v2.1/servers/detail"),
        ("metric", "", "metric", "/capabilities", "/v1/capabilities"),
        ("metric", "/v1/metric/", "metric", "/capabilities", "/v1/metric/v1/capabilities"),
        ("alarming", "/v2", "alarming", "/alarms", "/v2/alarms"),
    ],
)
async def test_paths_are_under_the_versioned_root(rig: Rig, type_: str, path: str, service: str, asks: str, where: str) -> None:
    rig.type, rig.path = type_, path
    await rig.cloud().get(service, asks)
    assert rig.service.paths[-1] == where


def versions(root: str, *known: tuple[str, str, str, str]) -> JsonObject:
    """A version document as services have them: (id, path, lowest, highest microversion)."""
    return {
        "versions": [
            {"id": id_, "status": "CURRENT", "min_version": low, "version": high, "links": [{"rel": "self", "href": root + path}]}
            for id_, path, low, high in known
        ]
    }


async def test_a_root_is_found_in_the_service_s_own_words_but_not_on_another_host(rig: Rig) -> None:
    """Behind a proxy a service knows neither the host nor the scheme by which it was asked."""
    rig.type, rig.path = "image", "/image"

    def answer(request: web.Request) -> web.Response:
        if request.path.rstrip("/") == "/image":
            return web.json_response(versions("http://10.0.0.5:9292/image", ("v2.15", "/v2/", "", "")), status=300)
        return web.json_response({"images": []})

    rig.service.answer = answer
    await rig.cloud().get("image", "/images")
    assert rig.service.paths[-1] == "/image/v2/images"


async def test_where_no_versions_are_found_nothing_is_asked_at_the_root_of_the_catalog(rig: Rig) -> None:
    """What lies under a wrong root is answered with 404, as if it were gone."""
    rig.type, rig.path = "orchestration", ""
    rig.service.answer = lambda request: web.Response(status=502)
    with pytest.raises(CloudUnavailable, match="orchestration: it doesn't say which versions"):
        await rig.cloud().get("orchestration", "/stacks/x")
    assert not any("stacks" in path for path in rig.service.paths)


async def test_a_root_without_a_version_is_no_root(rig: Rig) -> None:
    rig.type = "image"
    rig.service.answer = lambda request: web.json_response(versions(rig.service.root, ("v2.15", "/", "", "")), status=300)
    with pytest.raises(CloudUnavailable, match="image: it doesn't say which versions"):
        await rig.cloud().get("image", "/images/x")
    assert not any("images" in path for path in rig.service.paths)


async def test_a_root_that_was_not_found_is_looked_for_again(rig: Rig) -> None:
    rig.type = "image"
    rig.service.answer = lambda request: web.json_response({"error": "starting"}, status=503)
    cloud = rig.cloud()
    with pytest.raises(CloudUnavailable, match="image: it doesn't say which versions"):
        await cloud.get("image", "/images/x")
    assert not any("images" in path for path in rig.service.paths)

    def answer(request: web.Request) -> web.Response:
        if request.path == "/":
            return web.json_response(versions(rig.service.root, ("v2.15", "/v2/", "", "")), status=300)
        return web.json_response({"id": "x"})

    rig.service.answer = answer
    assert (await cloud.get("image", "/images/x")).body == {"id": "x"}


# --- microversions


def nova(rig: Rig, highest: str) -> None:
    rig.type, rig.path = "compute", "/v2.1"

    def answer(request: web.Request) -> web.Response:
        if request.path.rstrip("/") in ("", "/v2.1"):
            links = [{"rel": "self", "href": f"{rig.service.root}/v2.1/"}]
            version = {
                "id": "v2.1",
                "status": "CURRENT",
                "version": highest,
                "min_version": "2.1" if highest else "",
                "links": links,
            }
            return web.json_response({"version": version})
        return web.json_response({"servers": []})

    rig.service.answer = answer


@pytest.mark.parametrize(("highest", "asked"), [("2.93", "2.90"), ("2.72", "2.72"), ("2.9", "2.9"), ("3.5", "2.90")])
async def test_of_two_microversions_the_older_is_spoken(rig: Rig, highest: str, asked: str) -> None:
    nova(rig, highest)
    await rig.cloud().get("compute", "/servers/detail", microversion="2.90")
    assert rig.service.asked[-1].headers["OpenStack-API-Version"] == f"compute {asked}"
    assert rig.service.asked[-1].headers["X-OpenStack-Nova-API-Version"] == asked


async def test_a_service_without_microversions_gets_no_header(rig: Rig) -> None:
    nova(rig, "")
    await rig.cloud().get("compute", "/servers/detail", microversion="2.90")
    assert rig.service.paths[-1] == "/v2.1/servers/detail"
    assert "OpenStack-API-Version" not in rig.service.asked[-1].headers


async def test_no_older_form_is_taken_because_the_versions_could_not_be_asked(rig: Rig) -> None:
    """Nova's oldest form leaves out servers of cells that are down: they would look deleted."""
    nova(rig, "2.93")
    speaking = rig.service.answer

    def answer(request: web.Request) -> Any:
        return speaking(request) if "servers" in request.path else web.Response(status=502)

    rig.service.answer = answer
    cloud = rig.cloud()
    with pytest.raises(CloudUnavailable, match="compute: it doesn't say which versions"):
        await cloud.get("compute", "/servers/detail", microversion="2.90")
    assert not any("servers" in path for path in rig.service.paths)
    rig.service.answer = speaking
    await cloud.get("compute", "/servers/detail", microversion="2.90")
    assert rig.service.asked[-1].headers["OpenStack-API-Version"] == "compute 2.90"


# --- lists


def paged(rows: list[JsonObject], key: str, link: Callable[[web.Request, str], JsonObject], cap: int = 1000) -> Handler:
    """A list by `limit` and `marker`; `link(request, query of the next page)` says how the service links."""

    def answer(request: web.Request) -> web.Response:
        limit = min(int(request.query.get("limit", cap)), cap)
        ids = [row["id"] for row in rows]
        start = ids.index(request.query["marker"]) + 1 if "marker" in request.query else 0
        page = rows[start : start + limit]
        more = link(request, f"limit={limit}&marker={page[-1]['id']}") if start + limit < len(rows) else {}
        return web.json_response({key: page, **more})

    return answer


LINKS: dict[str, Callable[[web.Request, str], JsonObject]] = {
    "nova, neutron, cinder, octavia": lambda request, query: {
        "ports_links": [
            {"rel": "previous", "href": "http://x/?a=b"},
            {"rel": "next", "href": f"http://10.0.0.5/v2.0/ports?{query}"},
        ]
    },
    "glance": lambda request, query: {"next": f"/v2/ports?{query}", "first": "/v2/ports"},
    "keystone": lambda request, query: {
        "links": {"next": f"https://[fe80::1]:99/elsewhere?{query}", "self": "x", "previous": None}
    },
    "a list of links": lambda request, query: {"links": [{"rel": "next", "href": f"?{query}"}]},
    "none, but markers": lambda request, query: {},
}


@pytest.mark.parametrize("how", LINKS)
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25, 30])
async def test_a_list_is_read_to_its_end_however_it_is_linked(rig: Rig, how: str, count: int) -> None:
    rows = numbered(count)
    rig.service.answer = paged(rows, "ports", LINKS[how])
    ids = await everything(rig.cloud(page=10), params=[("status", "ACTIVE"), ("status", "DOWN")])
    assert ids == [row["id"] for row in rows]
    # A link may leave out what isn't about pages.
    assert all(request.query.getall("status") == ["ACTIVE", "DOWN"] for request in rig.service.asked)
    assert all(request.host == f"127.0.0.1:{rig.service.port}" for request in rig.service.asked)
    assert all(request.path == "/v2.0/ports" for request in rig.service.asked)


async def test_a_service_that_gives_less_than_was_asked_for_is_asked_on(rig: Rig) -> None:
    rig.service.answer = paged(numbered(25), "ports", LINKS["glance"], cap=4)
    assert len(await everything(rig.cloud(page=10))) == 25


async def test_stacks_have_no_links_and_are_read_until_a_page_is_empty(rig: Rig) -> None:
    rig.type, rig.path = "orchestration", "/v1/abc"
    rig.service.answer = paged(numbered(25), "stacks", LINKS["none, but markers"], cap=4)
    assert len(await everything(rig.cloud(page=10), "/stacks", "stacks", "orchestration")) == 25


async def test_server_groups_are_paged_by_offset(rig: Rig) -> None:
    nova(rig, "2.93")
    rows = numbered(25)

    def answer(request: web.Request) -> web.Response:
        if not request.query.keys() <= {"limit", "offset", "all_projects"}:
            return web.json_response(
                {"badRequest": {"code": 400, "message": "Additional properties are not allowed"}}, status=400
            )
        start = int(request.query.get("offset", 0))
        return web.json_response({"server_groups": rows[start : start + 4]})

    rig.service.answer = answer
    ids = await everything(rig.cloud(page=10), "/os-server-groups", "server_groups", "compute", params=[("all_projects", "True")])
    assert ids == [row["id"] for row in rows]


async def test_a_list_that_knows_no_pages_is_read_once(rig: Rig) -> None:
    """Keystone's users: `limit` and `marker` mean nothing."""
    rig.service.answer = lambda request: web.json_response({"ports": numbered(25), "links": {"next": None}})
    assert len(await everything(rig.cloud(page=10))) == 25
    assert len(rig.service.asked) == 1


async def test_a_full_page_from_a_list_that_knows_no_pages_ends_it(rig: Rig) -> None:
    rig.service.answer = lambda request: web.json_response({"ports": numbered(10)})
    assert len(await everything(rig.cloud(page=10))) == 10
    assert len(rig.service.asked) == 2


async def test_a_list_that_refuses_a_limit_is_asked_without_and_remembered(rig: Rig) -> None:
    def answer(request: web.Request) -> web.Response:
        if "limit" in request.query:
            return web.json_response({"badRequest": {"code": 400, "message": "'limit' was unexpected"}}, status=400)
        return web.json_response({"services": numbered(3)})

    rig.service.answer = answer
    cloud = rig.cloud()
    assert len(await everything(cloud, "/agents", "services", params=[("a", "b")])) == 3
    assert len(await everything(cloud, "/agents", "services", params=[("a", "b")])) == 3
    assert rig.service.paths == ["/v2.0/agents?a=b&limit=500", "/v2.0/agents?a=b", "/v2.0/agents?a=b"]


async def test_a_list_that_refuses_something_else_says_so(rig: Rig) -> None:
    rig.service.answer = lambda request: web.json_response({"NeutronError": {"message": "no such filter"}}, status=400)
    with pytest.raises(BadRequest, match="no such filter"):
        await everything(rig.cloud(), params=[("a", "b")])


async def test_the_caller_s_limit_counts_and_zero_is_none(rig: Rig) -> None:
    rig.service.answer = paged(numbered(5), "ports", LINKS["none, but markers"])
    cloud = rig.cloud()
    assert len(await everything(cloud, params=[("limit", "2")])) == 5
    assert rig.service.paths == ["/v2.0/ports?limit=2", "/v2.0/ports?limit=2&marker=id-001", "/v2.0/ports?limit=2&marker=id-003"]
    rig.service.asked.clear()
    assert len(await everything(cloud, params=[("limit", "0"), ("a", "b")])) == 5
    assert rig.service.paths == ["/v2.0/ports?a=b"]


async def test_things_without_ids_are_paged_by_links_alone(rig: Rig) -> None:
    nova(rig, "2.93")
    names = [{"keypair": {"name": f"key-{number}"}} for number in range(4)]

    def answer(request: web.Request) -> web.Response:
        if request.query.get("marker") == "key-1":
            return web.json_response({"keypairs": names[2:]})
        return web.json_response(
            {"keypairs": names[:2], "keypairs_links": [{"rel": "next", "href": "http://x/os-keypairs?limit=2&marker=key-1"}]}
        )

    rig.service.answer = answer
    pages = [page.items async for page in rig.cloud(page=2).pages("compute", "/os-keypairs", "keypairs")]
    assert [item for page in pages for item in page] == names


async def test_a_list_in_a_circle_is_an_error_and_not_an_end(rig: Rig) -> None:
    """What is read for ever is never complete; what is cut off isn't either, and nothing may be deleted for it."""
    turn = 0

    def answer(request: web.Request) -> web.Response:
        nonlocal turn
        turn += 1
        link = {"rel": "next", "href": f"http://x/?marker={'ab'[turn % 2]}"}
        return web.json_response({"ports": [{"id": f"id-{turn}"}], "ports_links": [link]})

    rig.service.answer = answer
    with pytest.raises(CloudUnavailable, match="goes in circles"):
        await everything(rig.cloud())
    assert len(rig.service.asked) == 3


async def test_a_list_that_was_cut_short_is_not_complete(rig: Rig) -> None:
    """Keystone says so where its list_limit cuts."""
    rig.service.answer = lambda _request: web.json_response({"ports": [{"id": "a"}], "truncated": True})
    pages = rig.cloud().pages("network", "/ports", "ports")
    assert [page.items async for page in taken(pages, 1)] == [[{"id": "a"}]]
    with pytest.raises(CloudUnavailable, match="list_limit"):
        await everything(rig.cloud())


async def taken(pages: Any, number: int) -> Any:
    """The first pages."""
    async with aclosing(pages):
        for _ in range(number):
            yield await anext(pages)


async def test_a_list_without_end_ends(rig: Rig) -> None:
    turn = 0

    def answer(request: web.Request) -> web.Response:
        nonlocal turn
        turn += 1
        return web.json_response({"ports": [{"id": f"id-{turn}"}], "next": f"/?marker={turn}"})

    rig.service.answer = answer
    with pytest.raises(CloudUnavailable, match="more than 20 pages"):
        await everything(rig.cloud(limits=Limits(pages=20)))
    assert turn == 20


@pytest.mark.parametrize("body", [{}, {"ports": None}, {"ports": {"id": "x"}}, {"ports": ["x"]}, {"ports": [{"id": "x"}, None]}])
async def test_a_list_that_is_none_is_an_error(rig: Rig, body: JsonObject) -> None:
    rig.service.answer = lambda request: web.json_response(body)
    with pytest.raises(CloudUnavailable, match=r"without a list of ports.*really its address"):
        await everything(rig.cloud())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"badRequest": {"code": 400, "message": "Marker id-009 could not be found."}}),
        (404, {"itemNotFound": {"code": 404, "message": "Volume id-009 could not be found."}}),
    ],
)
async def test_a_list_whose_place_was_deleted_meanwhile_is_not_complete_and_not_gone(
    rig: Rig, status: int, body: JsonObject
) -> None:
    pages = paged(numbered(25), "ports", LINKS["glance"])

    def answer(request: web.Request) -> Any:
        return web.json_response(body, status=status) if request.query.get("marker") == "id-009" else pages(request)

    rig.service.answer = answer
    list_ = rig.cloud(page=10).pages("network", "/ports", "ports")
    assert len((await anext(list_)).items) == 10
    with pytest.raises(CloudUnavailable, match=r"the list of ports changed while it was read: .*id-009 could not be found"):
        await anext(list_)


async def test_a_list_under_something_that_is_gone_is_gone(rig: Rig) -> None:
    body = {"faultcode": "Client", "faultstring": "Pool x not found.", "debuginfo": None}
    rig.service.answer = lambda request: web.json_response(body, status=404)
    with pytest.raises(NotFound):
        await everything(rig.cloud(), "/lbaas/pools/x/members", "members")
    assert len(rig.service.asked) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["next", "links", "ports_links", "rel", "href", "message", "error", "x"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["next", "links", "ports_links", "x"]), json_values, max_size=4), st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_answer_breaks_the_readers(body: JsonObject, garbage: bytes) -> None:
    following = next_query(body, "ports", [("a", "b")])
    assert following is None or ("a", "b") in following or any(name == "a" for name, _ in following)
    for text in (garbage, msgspec.json.encode(body)):
        words = service_words(text)
        assert not set(words) & set("\n\r\x00\x1b")
        is_gone(text)


# --- what an error means


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (403, {"NeutronError": {"type": "PolicyNotAuthorized", "message": "disallowed by policy"}}, Forbidden, "disallowed by"),
        (404, {"NeutronError": {"type": "PortNotFound", "message": "Port x could not be found."}}, NotFound, "Port x could"),
        (404, {"itemNotFound": {"code": 404, "message": "Instance x could not be found."}}, NotFound, "Instance x could"),
        (404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}}, NotFound, "The resource"),
        (404, {"message": "No image with ID x<br /><br />\n\n", "code": "404 Not Found"}, NotFound, "No image with ID x$"),
        (404, {"faultcode": "Client", "faultstring": "Pool x not found.", "debuginfo": None}, NotFound, "Pool x not found"),
        (404, {"code": 404, "title": "Not Found", "error": {"message": "The Stack (x) is no more"}}, NotFound, "The Stack"),
        (404, {"error": {"code": 404, "message": "Could not find user: x.", "title": "Not Found"}}, NotFound, "Could not find"),
        (404, {"errors": [{"status": 404, "title": "Not Found", "detail": "No provider x"}]}, NotFound, "No provider x"),
        (400, {"badRequest": {"code": 400, "message": "Invalid input"}}, BadRequest, "Invalid input"),
        (409, {"conflictingRequest": {"message": "busy"}}, BadRequest, "answered 409 to /ports/x: busy"),
        (418, [], BadRequest, "answered 418"),
    ],
)
async def test_errors_are_named_for_what_comes_next_and_say_what_the_service_said(
    rig: Rig, status: int, body: Any, error: type[Exception], words: str
) -> None:
    rig.service.answer = lambda request: web.json_response(body, status=status)
    with pytest.raises(error, match=words):
        await rig.cloud().get("network", "/ports/x")
    assert len(rig.service.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"NeutronError": {"type": "HTTPNotFound", "message": "The resource could not be found.", "detail": ""}}',
        b'{"message": "The resource could not be found.<br /><br />\\n\\n\\n", "code": "404 Not Found", "title": "Not Found"}',
        b'{"code": 404, "title": "Not Found", "description": ""}',
        b"<!doctype html><html lang=en><title>404 Not Found</title><h1>Not Found</h1><p>The requested URL was not found.</p>",
        b"<html><body><h1>503 Service Unavailable</h1></body></html>",
        b"404 page not found",
        b"{}",
        b"[]",
        b"",
    ],
)
async def test_a_404_that_is_not_about_the_object_deletes_nothing(rig: Rig, body: bytes) -> None:
    """A path that isn't there, a proxy's own page, what Neutron's policy hides."""
    rig.service.answer = lambda request: web.Response(body=body, status=404)
    with pytest.raises(CloudUnavailable, match=r"answered 404 to /ports/x.*really an address of its") as why:
        await rig.cloud().get("network", "/ports/x")
    assert why.value.delay == 30


async def test_an_error_page_is_shown_short_plain_and_on_one_line(rig: Rig) -> None:
    page = b"<html><head><style>b {}</style></head><b>Bad</b>\x1b[31m\nthing " + b"x" * 5000
    rig.service.answer = lambda request: web.Response(body=page, status=400, content_type="text/html")
    with pytest.raises(BadRequest) as why:
        await rig.cloud().get("network", "/ports")
    text = str(why.value)
    assert "Bad [31m thing xxx" in text
    assert len(text) < 400
    assert not set(text) & {"\x1b", "<"}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"v2"', b"7", b"<html>hello</html>", b'{"a":', b"\xff\xfe{}", b'{"a":1}x', b"[" * 100_000]
)
async def test_what_is_no_json_object_is_an_error(rig: Rig, body: bytes) -> None:
    rig.service.answer = lambda request: web.Response(body=body)
    with pytest.raises(CloudUnavailable, match=r"network's answer is no JSON object: is http://.*/v2.0/ports really its address"):
        await rig.cloud().get("network", "/ports")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_not_followed_and_carry_no_token_away(rig: Rig, status: int) -> None:
    elsewhere = Service(lambda request: web.json_response({"stolen": True}), rig.clock)
    await elsewhere.start()
    headers = {"Location": f"{elsewhere.root}/v2.0/ports"}
    rig.service.answer = lambda request: web.Response(status=status, headers=headers)
    with pytest.raises(CloudUnavailable, match=rf"answered {status} to /ports.*really an address of its"):
        await rig.cloud().get("network", "/ports")
    assert elsewhere.asked == []
    await elsewhere.stop()


# --- trying again


async def test_retry_after_is_honoured(rig: Rig) -> None:
    answers = [
        web.Response(status=429, headers={"Retry-After": "7"}),
        web.Response(status=503, headers={"Retry-After": formatdate(rig.clock.now_us() / 1e6 + 7 + 12, usegmt=True)}),
        web.json_response({"ports": []}),
    ]
    rig.service.answer = lambda request: answers.pop(0)
    assert (await rig.cloud().get("network", "/ports")).body == {"ports": []}
    assert rig.clock.slept[0] == 7
    assert 11 <= rig.clock.slept[1] <= 12
    assert rig.metric("cloud_requests_total", service="network", status="429") == 1
    assert rig.metric("cloud_retries_total", service="network") == 2


@pytest.mark.parametrize("after", ["3600", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "-5", "1e9", ""])
async def test_no_service_makes_us_wait_longer_than_half_a_minute(rig: Rig, after: str) -> None:
    answers = [web.Response(status=429, headers={"Retry-After": after}), web.json_response({})]
    rig.service.answer = lambda request: answers.pop(0)
    await rig.cloud().get("network", "/ports")
    assert 0 < rig.clock.slept[0] <= 30


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_a_service_that_is_unwell_is_asked_again(rig: Rig, status: int) -> None:
    answers = [web.Response(status=status), web.Response(status=status), web.json_response({"ports": []})]
    rig.service.answer = lambda request: answers.pop(0)
    assert (await rig.cloud().get("network", "/ports")).body == {"ports": []}
    assert len(rig.clock.slept) == 2


async def test_after_four_tries_it_is_given_up_with_the_reason(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.service.answer = lambda request: web.json_response(
        {"computeFault": {"code": 500, "message": "the database is away"}}, status=500, headers={"Retry-After": "20"}
    )
    with pytest.raises(CloudUnavailable, match="network: it answered 500 to /ports: the database is away") as why:
        await rig.cloud().get("network", "/ports")
    assert len(rig.service.asked) == 4
    assert why.value.delay == 20
    gave_up = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in gave_up] == ["gave up: it answered 500 to /ports: the database is away"]


async def test_who_asks_again_and_again_says_it_once_a_minute(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    cloud = rig.cloud()

    async def warnings(status: int) -> int:
        caplog.clear()
        rig.service.answer = lambda request: web.json_response({}, status=status)
        if status == 200:
            await cloud.get("network", "/ports")
        else:
            with pytest.raises(CloudUnavailable):
                await cloud.get("network", f"/ports/{rig.clock.now_us()}")
        return sum(record.levelno == logging.WARNING for record in caplog.records)

    assert [await warnings(status) for status in (503, 503, 503)] == [1, 0, 0]
    assert await warnings(500) == 1  # that is news
    rig.clock.tick(openstack.QUIET_SECONDS)
    assert await warnings(500) == 1
    assert [await warnings(status) for status in (200, 500)] == [0, 1]


async def test_a_service_that_is_down_is_named_and_found_when_it_is_back(rig: Rig) -> None:
    cloud = rig.cloud()
    await rig.service.stop()
    with pytest.raises(CloudUnavailable, match=r"network: http://127.0.0.1:\d+ can't be asked: Connection refused"):
        await cloud.get("network", "/ports")
    assert len(rig.clock.slept) == 3
    await rig.service.start()
    assert (await cloud.get("network", "/ports")).body == {}
    await rig.service.stop()
    await rig.service.start()  # connections that were kept are dead now
    assert (await cloud.get("network", "/ports")).body == {}


async def test_a_keystone_that_is_down_is_named(rig: Rig) -> None:
    await rig.keystone.stop()
    with pytest.raises(CloudUnavailable, match=r"can't be asked: Connection refused"):
        await rig.cloud().get("network", "/ports")


@pytest.mark.parametrize(
    ("fault", "words"),
    [(503, "answered 503 to our login"), (404, "answered 404 to our login: is it a Keystone"), (302, "none of Identity v3")],
)
async def test_a_keystone_that_is_unwell_is_named(rig: Rig, fault: int, words: str) -> None:
    rig.keystone.fault = fault
    rig.keystone.location = f"{rig.service.root}/v3/auth/tokens"
    with pytest.raises(CloudUnavailable, match=words):
        await rig.cloud().get("network", "/ports")
    assert rig.service.asked == []


@pytest.mark.parametrize(
    "garbage", [b"", b"{}", b"[]", b'"v3"', b"<html>", b'{"token": 7}', b'{"token": {"catalog": [7]}}', b'{"token": {}}']
)
async def test_a_keystone_that_is_none_is_an_error(rig: Rig, garbage: bytes) -> None:
    rig.keystone.garbage = garbage
    with pytest.raises((CloudUnavailable, NoService)):
        await rig.cloud().get("network", "/ports")


async def test_an_answer_that_breaks_off_is_no_answer(rig: Rig) -> None:
    whole = b'{"ports": []}'

    async def answer(request: web.Request) -> web.StreamResponse:
        if len(rig.service.asked) > 1:
            return web.Response(body=whole)
        response = web.StreamResponse(headers={"Content-Length": str(len(whole) + 100)})
        await response.prepare(request)
        await response.write(whole)
        assert request.transport is not None
        request.transport.close()
        return response

    rig.service.answer = answer
    assert (await rig.cloud().get("network", "/ports")).body == {"ports": []}
    assert len(rig.service.asked) == 2


async def test_an_answer_that_is_too_large_is_not_read(rig: Rig) -> None:
    cloud = rig.cloud(limits=Limits(answer_bytes=100_000))
    rig.service.answer = lambda request: web.Response(body=b'{"a": "' + b"x" * 200_000 + b'"}')
    with pytest.raises(CloudUnavailable, match="an answer of more than 100000 bytes"):
        await cloud.get("network", "/ports")
    rig.service.answer = lambda request: web.Response(body=b'{"a": "' + b"x" * 90_000 + b'"}')
    assert len((await cloud.get("network", "/ports")).body["a"]) == 90_000


async def test_nothing_is_unpacked(rig: Rig) -> None:
    """A few kilobytes of it could fill the memory."""
    rig.service.answer = lambda request: web.Response(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    with pytest.raises(CloudUnavailable, match="it compresses what it was asked not to"):
        await rig.cloud().get("network", "/ports")
    assert rig.service.asked[0].headers["Accept-Encoding"] == "identity"


async def test_who_says_nothing_is_given_up(rig: Rig) -> None:
    held = Held(rig)
    with pytest.raises(CloudUnavailable, match=r"no answer in \d"):
        await rig.cloud(timeout_s=0.1).get("network", "/ports")
    assert rig.metric("cloud_requests_total", service="network", status="none") == 4
    held.go.set()


async def test_who_says_a_little_at_a_time_is_given_up_too(rig: Rig) -> None:
    """Each piece comes in time; the whole never."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    rig.service.answer = answer
    cloud = rig.cloud(timeout_s=0.1, threads=1)
    with pytest.raises(CloudUnavailable, match="no answer in"):
        await cloud.get("network", "/ports")
    rig.service.answer = lambda request: web.json_response({"the thread": "is free"})
    assert (await cloud.get("network", "/ports")).body == {"the thread": "is free"}


# --- threads


class Held:
    """A service that answers nobody until it is let go."""

    def __init__(self, rig: Rig) -> None:
        self.go = asyncio.Event()
        rig.service.answer = self.answer

    async def answer(self, request: web.Request) -> web.Response:
        await self.go.wait()
        return web.json_response({})


async def came_in(service: Service, count: int) -> None:
    while len(service.asked) < count:
        service.news.clear()
        await service.news.wait()


async def test_a_cancelled_request_returns_at_once_and_its_thread_is_used_again(rig: Rig) -> None:
    held = Held(rig)
    cloud = rig.cloud(threads=1)
    task = asyncio.create_task(cloud.get("network", "/ports"))
    await came_in(rig.service, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.go.set()
    assert (await cloud.get("network", "/networks")).body == {}


async def test_a_request_whose_turn_never_came_is_not_sent_when_nobody_waits(rig: Rig) -> None:
    held = Held(rig)
    cloud = rig.cloud(threads=1)
    first = asyncio.create_task(cloud.get("network", "/ports"))
    await came_in(rig.service, 1)
    second = asyncio.create_task(cloud.get("network", "/routers"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    held.go.set()
    await first
    await cloud.get("network", "/networks")
    assert rig.service.paths == ["/v2.0/ports", "/v2.0/networks"]


async def test_one_request_that_hangs_does_not_hold_up_the_others(rig: Rig) -> None:
    held = Held(rig)
    cloud = rig.cloud(threads=2)
    hanging = asyncio.create_task(cloud.get("network", "/ports"))
    await came_in(rig.service, 1)
    rig.service.answer = lambda request: web.json_response({"quick": True})
    assert (await cloud.get("network", "/networks")).body == {"quick": True}
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    # Nobody waits for the first thread any more, but it still hangs.
    assert (await cloud.get("network", "/networks")).body == {"quick": True}
    held.go.set()


async def test_so_many_at_a_time_so_many_wait_and_more_are_turned_away(rig: Rig) -> None:
    held = Held(rig)
    cloud = rig.cloud(threads=2, limits=Limits(waiting=3))
    tasks = [asyncio.create_task(cloud.get("network", "/ports")) for _ in range(5)]
    await came_in(rig.service, 2)
    with pytest.raises(CloudUnavailable, match="3 requests to the cloud are waiting"):
        await cloud.get("network", "/ports")
    assert len(rig.service.asked) == 2
    assert sum(thread.name.startswith("region-one: openstack") for thread in threading.enumerate()) == 2
    held.go.set()
    await asyncio.gather(*tasks)
    assert (await cloud.get("network", "/ports")).body == {}


async def test_after_the_end_nothing_is_asked(rig: Rig) -> None:
    cloud = rig.cloud()
    await cloud.get("network", "/ports")
    await cloud.close()
    with pytest.raises(CloudUnavailable, match="stopping"):
        await cloud.get("network", "/ports")
    await cloud.close()


async def test_a_request_that_hangs_does_not_keep_the_process(rig: Rig, tmp_path: Path) -> None:
    held = Held(rig)
    script = tmp_path / "asks.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio
        from vedette.clients.keystone import credentials
        from vedette.clients.openstack import OpenStackCloud
        from vedette.kit.clock import SystemClock
        from vedette.kit.telemetry import Telemetry

        async def main():
            made = credentials({{"auth_url": {rig.keystone.url!r}, "username": "vedette", "password": {PASSWORD!r},
                                "project_name": "service"}})
            cloud = OpenStackCloud(made, name="x", clock=SystemClock(), telemetry=Telemetry(), timeout_s=600)
            asked = asyncio.create_task(cloud.get("network", "/ports"))
            await asyncio.to_thread(input)
            asked.cancel()

        asyncio.run(main())
        """)
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(script), stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await came_in(rig.service, 1)
    _, said = await process.communicate(b"end\n")
    assert (process.returncode, said) == (0, b"")
    held.go.set()


def test_who_has_no_api_pays_nothing_for_it() -> None:
    """The libraries are imported by the first request, in its thread."""
    script = """
        import sys
        import vedette.app, vedette.plugins
        from vedette.clients.keystone import Credentials
        from vedette.clients.openstack import OpenStackCloud
        from vedette.kit.clock import SystemClock
        from vedette.kit.telemetry import Telemetry
        vedette.plugins.load("sources", "openstack")
        OpenStackCloud(Credentials(auth_url="http://127.0.0.1:1/v3"), name="x", clock=SystemClock(), telemetry=Telemetry())
        heavy = {"openstack", "keystoneauth1", "requests", "urllib3"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


# --- who we are


async def test_the_account_is_who_keystone_says(rig: Rig) -> None:
    rig.keystone.seconds = 1000
    account = await rig.cloud().account()
    user = next(iter(rig.keystone.users.values()))
    project = next(iter(rig.keystone.projects.values()))
    assert (account.user_id, account.user_name) == (user.id, "vedette")
    assert (account.project_id, account.project_name, account.domain_id, account.system) == (project.id, "service", "", False)
    assert account.roles == ("admin",)
    assert account.expires_at == rig.clock.now_us() + 1_000_000_000
    assert 0 < account.seconds_left <= 1000


async def test_the_account_of_the_whole_system(rig: Rig) -> None:
    user = next(iter(rig.keystone.users))
    rig.keystone.grant(user, "reader", system=True)
    account = await rig.cloud(rig.credentials(project_name="", system_scope="all")).account()
    assert (account.system, account.roles, account.project_id) == (True, ("reader",), "")


async def test_many_at_once_log_in_once(rig: Rig) -> None:
    cloud = rig.cloud(threads=8)
    await asyncio.gather(*(cloud.get("network", "/ports") for _ in range(16)))
    assert rig.keystone.logins == 1


async def test_every_way_to_log_in_works(rig: Rig) -> None:
    (user,), (project,) = rig.keystone.users, rig.keystone.projects
    made = rig.keystone.add_credential(user, project)
    here: dict[str, Any] = {"auth_url": rig.keystone.url}
    ways: list[dict[str, Any]] = [
        {"user_id": user, "password": PASSWORD, "project_id": project},
        {
            "username": "vedette",
            "password": PASSWORD,
            "user_domain_name": "Default",
            "project_name": "service",
            "project_domain_name": "Default",
        },
        {"username": "vedette", "password": PASSWORD, "tenant_name": "service", "auth_url": rig.keystone.root + "/v2.0/"},
        {"application_credential_id": made.id, "application_credential_secret": made.secret},
        {"application_credential_name": made.name, "application_credential_secret": made.secret, "username": "vedette"},
        {"token": rig.keystone.issue(user, project=project), "project_id": project},
    ]
    for way in ways:
        cloud = rig.cloud(credentials({**here, **way}, environ={}, folders=()))
        assert (await cloud.get("network", "/ports")).body == {}
        assert (await cloud.account()).user_id == user


async def test_a_token_that_is_no_longer_known_is_renewed_once_for_all(rig: Rig) -> None:
    def answer(request: web.Request) -> web.Response:
        if rig.keystone.holder(request.headers["X-Auth-Token"]) is None:
            return web.json_response({"error": {"code": 401, "message": "no"}}, status=401)
        return web.json_response({})

    rig.service.answer = answer
    cloud = rig.cloud(threads=8)
    await cloud.get("network", "/ports")
    rig.keystone.revoke_all()
    await asyncio.gather(*(cloud.get("network", "/ports") for _ in range(8)))
    assert rig.keystone.logins == 2
    assert rig.clock.slept == []


async def test_a_token_is_renewed_before_it_ends_by_keystone_s_clock(rig: Rig) -> None:
    """The token's times are in 2026; the machine's own date plays no part."""
    rig.keystone.seconds = 100
    cloud = rig.cloud()
    for passes, logins in ((0, 1), (70, 1), (10, 2), (10, 2)):
        rig.clock.tick(passes)
        await cloud.get("network", "/ports")
        assert rig.keystone.logins == logins


async def test_a_service_that_refuses_every_token_is_left_alone_for_a_while(rig: Rig) -> None:
    rig.service.answer = lambda request: web.json_response({"error": {"code": 401, "message": "no"}}, status=401)
    cloud = rig.cloud()
    for _ in range(3):
        with pytest.raises(Unauthenticated, match="network refused a token that Keystone had just made"):
            await cloud.get("network", "/ports")
    assert (len(rig.service.asked), rig.keystone.logins) == (2, 2)
    rig.clock.tick(openstack.REFUSED_THERE_SECONDS)
    rig.service.answer = lambda request: web.json_response({})
    await cloud.get("network", "/ports")


async def test_refused_credentials_are_not_tried_again_and_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Keystone locks accounts that fail too often."""
    cloud = rig.cloud(rig.credentials(password="wrong-and-secret"))
    for _ in range(5):
        with pytest.raises(Unauthenticated, match="refused our credentials"):
            await cloud.get("network", "/ports")
        with pytest.raises(Unauthenticated, match="refused our credentials"):
            await cloud.account()
    assert rig.keystone.logins == 1
    rig.clock.tick(openstack.REFUSED_SECONDS)
    next(iter(rig.keystone.users.values())).password = "wrong-and-secret"
    await cloud.get("network", "/ports")
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1


# --- the catalog


async def test_a_service_that_the_catalog_does_not_have_is_named_with_what_there_is(rig: Rig) -> None:
    cloud = rig.cloud()
    with pytest.raises(NoService, match="no load-balancer with the interface public; it has identity, network"):
        await cloud.get("load-balancer", "/lbaas/pools")
    rig.type = "load-balancer"  # Octavia was added; the next token knows
    rig.clock.tick(7200)
    assert (await cloud.get("load-balancer", "/lbaas/pools")).body == {}


@pytest.mark.parametrize("type_", ["network", "orchestration"])
async def test_a_service_that_moved_is_followed_with_the_next_token(rig: Rig, type_: str) -> None:
    rig.type, rig.path = type_, "/old/v2.0" if type_ == "network" else "/old/v1/abc"
    cloud = rig.cloud()
    await cloud.get(type_, "/x")
    rig.path = rig.path.replace("old", "new")
    await cloud.get(type_, "/x")
    rig.clock.tick(7200)
    await cloud.get(type_, "/x")
    asked = [path for path in rig.service.paths if path.endswith("/x")]  # and not for its versions
    assert [path.split("/")[1] for path in asked] == ["old", "old", "new"]


async def test_a_service_that_is_taken_out_of_the_catalog_is_missed_with_the_next_token(rig: Rig) -> None:
    cloud = rig.cloud()
    await cloud.get("network", "/ports")
    rig.type = "image"
    rig.clock.tick(7200)
    with pytest.raises(NoService):
        await cloud.get("network", "/ports")


async def test_another_region_is_not_ours(rig: Rig) -> None:
    with pytest.raises(
        NoService, match=r"no network with the interface public in region Two; it has admin in RegionOne, internal"
    ):
        await rig.cloud(rig.credentials(region_name="Two")).get("network", "/ports")
    assert (
        await rig.cloud(rig.credentials(region_name="RegionOne", interface="internalURL")).get("network", "/ports")
    ).body == {}


def catalog(rig: Rig, endpoints: list[dict[str, str]]) -> None:
    """Every token's catalog has a network service with these endpoints."""

    async def around(request: web.Request, answer: Callable[[], web.Response]) -> web.StreamResponse:
        response = answer()
        if request.method == "POST":
            body = msgspec.json.decode(response.body or b"")
            body["token"]["catalog"] = [{"id": "n", "type": "network", "name": "neutron", "endpoints": endpoints}]
            response.body = msgspec.json.encode(body)
        return response

    rig.keystone.around = around


async def test_with_several_regions_one_has_to_be_named(rig: Rig) -> None:
    """The first one's objects would else be taken for the other's."""
    one = {"id": "1", "interface": "public", "region": "One", "region_id": "One", "url": f"{rig.service.root}/one"}
    two = {**one, "id": "2", "region": "Two", "region_id": "Two", "url": f"{rig.service.root}/two"}
    catalog(rig, [one, two])
    with pytest.raises(NoService, match=r"network in One, Two: say in which one \(region_name\)"):
        await rig.cloud().get("network", "/ports")
    await rig.cloud(rig.credentials(region_name="Two")).get("network", "/ports")
    assert rig.service.paths == ["/two/v2.0/ports"]
    catalog(rig, [one, {**two, "url": one["url"]}])  # one Keystone for all regions looks like this
    await rig.cloud().get("network", "/ports")


async def test_interfaces_are_not_mixed_up(rig: Rig) -> None:
    public = {"id": "1", "interface": "public", "region": "One", "region_id": "One", "url": f"{rig.service.root}/public"}
    catalog(rig, [public, {**public, "id": "2", "interface": "internal", "url": f"{rig.service.root}/internal"}])
    await rig.cloud().get("network", "/ports")
    await rig.cloud(rig.credentials(interface="internal")).get("network", "/ports")
    assert rig.service.paths == ["/public/v2.0/ports", "/internal/v2.0/ports"]
    with pytest.raises(NoService, match="interface admin; it has internal in One, public in One"):
        await rig.cloud(rig.credentials(interface="admin")).get("network", "/ports")


async def test_a_token_without_a_scope_has_no_catalog(rig: Rig) -> None:
    with pytest.raises(NoService, match="nothing at all: has the account a scope"):
        await rig.cloud(rig.credentials(project_name="")).get("network", "/ports")


async def test_a_service_that_nobody_has_heard_of(rig: Rig) -> None:
    rig.type = "teapot"
    with pytest.raises(NoService, match="teapot is not a service that openstacksdk knows"):
        await rig.cloud().get("teapot", "/pots")


# --- its clock


async def dated(rig: Rig, cloud: OpenStackCloud, ahead: float | None) -> int:
    """How far `as_of` is from our clock, for a service whose clock is `ahead` seconds."""

    def answer(request: web.Request) -> web.Response:
        headers = {} if ahead is None else {"Date": formatdate(rig.clock.now_us() / 1e6 + ahead, usegmt=True)}
        response = web.json_response({}, headers=headers)
        if ahead is None:
            response.headers["Date"] = "yesterday"
        return response

    rig.service.answer = answer
    return (await cloud.get("network", "/ports")).as_of - rig.clock.now_us()


async def test_as_of_is_our_own_clock_where_both_may_be_the_same(rig: Rig) -> None:
    cloud = rig.cloud()
    assert await dated(rig, cloud, None) == 0
    for _ in range(5):
        rig.clock.tick(0.3)
        assert await dated(rig, cloud, 0) == 0


async def test_as_of_follows_a_service_s_clock_and_errs_towards_earlier(rig: Rig) -> None:
    cloud = rig.cloud()
    rig.clock.tick(0.7)  # .7 past the second: the Date of a clock that is 10 s ahead says at least 9.3 s
    assert await dated(rig, cloud, 10) == 9_300_000
    rig.clock.tick(0.25)
    assert await dated(rig, cloud, 10) == 9_299_750  # …and 9.05 s say less than what is known, but for the drift
    rig.clock.tick(0.06)
    assert await dated(rig, cloud, 10) == 9_990_000
    assert await dated(rig, cloud, -3600) < -3600_000_000 + 1_000_000  # its clock was set: begin anew
    assert -3601_000_000 <= await dated(rig, cloud, -3600) <= -3600_000_000


async def test_as_of_is_when_the_answered_try_was_sent(rig: Rig) -> None:
    began = rig.clock.now_us()
    answers = [web.Response(status=503), web.json_response({"ports": []})]
    rig.service.answer = lambda request: answers.pop(0)
    answer = await rig.cloud().get("network", "/ports")
    assert answer.as_of - began == round(rig.clock.slept[0] * 1e6)


async def test_as_of_is_when_it_was_asked_and_not_when_it_was_answered(rig: Rig) -> None:
    began = rig.clock.now_us()

    def answer(request: web.Request) -> web.Response:
        rig.clock.tick(5)
        return web.json_response({"ports": []})

    rig.service.answer = answer
    assert (await rig.cloud().get("network", "/ports")).as_of == began
    (page,) = [page async for page in rig.cloud().pages("network", "/ports", "ports")]
    assert page.as_of == began + 5_000_000


async def test_a_token_that_had_to_be_fetched_first_makes_an_answer_no_older(rig: Rig) -> None:
    began = rig.clock.now_us()

    async def around(request: web.Request, answer: Callable[[], web.Response]) -> web.StreamResponse:
        rig.clock.tick(3)
        return answer()

    rig.keystone.around = around
    assert (await rig.cloud().get("network", "/ports")).as_of == began + 3_000_000


seconds = 1_000_000


@given(
    st.integers(-40 * 365 * 86_400 * seconds, 40 * 365 * 86_400 * seconds),
    st.lists(st.tuples(st.integers(0, 3 * seconds), st.integers(0, seconds), st.integers(0, seconds)), min_size=1, max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_the_difference_of_two_clocks_is_within_what_was_seen(truth: int, answers: list[tuple[int, int, int]]) -> None:
    """For answers that take `there` and `back` microseconds: the truth is between the bounds; the estimate is never
    later than it by more than their width, not at all where the clocks do differ, and never earlier by more than a second and
    one journey."""
    difference = ClockDifference()
    ours = 1_795_187_946_000_000
    for passes, there, back in answers:
        ours += passes
        theirs = ours + there + truth
        difference.saw(ours, ours + there + back, theirs // seconds * seconds)
        ours += there + back
        assert difference.low <= truth <= difference.high
        width = difference.high - difference.low
        assert difference.estimate - truth <= width
        if not difference.low <= 0 <= difference.high:
            assert difference.estimate <= truth
        assert truth - difference.estimate <= width <= seconds + there + back


@given(st.lists(st.tuples(st.integers(0, 3600 * seconds), st.floats(-1, 1)), min_size=1, max_size=60))
@settings(max_examples=300, deadline=None)
def test_clocks_that_are_being_corrected_stay_within_what_was_seen(answers: list[tuple[int, float]]) -> None:
    """Days of answers, while the difference moves by up to 1000 ppm of the time that passes."""
    difference = ClockDifference()
    ours, truth = 1_795_187_946_000_000, 0
    for passes, slewed in answers:
        ours += passes
        truth += round(slewed * (passes // openstack.DRIFT))
        difference.saw(ours, ours, (ours + truth) // seconds * seconds)
        assert difference.low <= truth <= difference.high


@given(st.lists(st.tuples(*[st.integers(0, 1 << 52)] * 3), min_size=1, max_size=80))
@settings(max_examples=200, deadline=None)
def test_bounds_that_contradict_each_other_begin_anew(answers: list[tuple[int, int, int]]) -> None:
    difference = ClockDifference()
    for sent, took, date in answers:
        difference.saw(sent, sent + took, date)
        assert difference.low <= difference.high
        assert date - sent - took <= difference.low  # the newest always counts


# --- TLS


async def test_a_certificate_is_verified_against_the_named_authority_only(rig: Rig, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    service = Service(lambda request: web.json_response({"over": "tls"}), rig.clock, tls=authority.server().server_context())
    await service.start()
    rig.keystone.catalog = lambda project: [Listed("network", "neutron", service.root)]
    trusting = rig.cloud(rig.credentials(cacert=str(authority.ca)))
    assert (await trusting.get("network", "/ports")).body == {"over": "tls"}
    for cacert in (str(other.ca), ""):
        with pytest.raises(CloudUnavailable, match=r"can't be asked: unable to get local issuer certificate"):
            await rig.cloud(rig.credentials(cacert=cacert)).get("network", "/ports")
    await service.stop()


async def test_a_certificate_for_another_name_is_refused(rig: Rig, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    service = Service(
        lambda request: web.json_response({}), rig.clock, tls=authority.server(hosts=["elsewhere.example"]).server_context()
    )
    await service.start()
    rig.keystone.catalog = lambda project: [Listed("network", "neutron", service.root)]
    with pytest.raises(CloudUnavailable, match=r"can't be asked: IP address mismatch"):
        await rig.cloud(rig.credentials(cacert=str(authority.ca))).get("network", "/ports")
    assert service.asked == []
    await service.stop()


async def test_what_the_environment_says_of_proxies_and_authorities_is_not_heard(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else")
    assert (await rig.cloud().get("network", "/ports")).body == {}
    assert "Authorization" not in rig.service.asked[0].headers


def test_certificate_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    made = {"auth_url": "https://keystone:5000/v3", "username": "a", "password": "b"}
    nothing = tmp_path / "nothing.pem"
    for name in ("cacert", "cert"):
        with pytest.raises(ConfigError, match=f"{name}.* can't be used: No such file"):
            OpenStackCloud(
                credentials({**made, name: str(nothing)}, environ={}, folders=()),
                name="x",
                clock=SystemClock(),
                telemetry=Telemetry(),
            )


def test_certificates_are_not_left_unverified() -> None:
    with pytest.raises(ConfigError, match="always verified"):
        credentials({"auth_url": "https://k/v3", "username": "a", "password": "b", "verify": False}, environ={}, folders=())


# --- secrets


async def test_no_error_log_or_text_holds_a_secret(
    rig: Rig, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []

    def telltale(status: int) -> Handler:
        def answer(request: web.Request) -> web.Response:
            told = f"your token {request.headers['X-Auth-Token']} and {PASSWORD}"
            return web.json_response({"error": {"message": told}}, status=status, headers={"X-Subject-Token": told})

        return answer

    cloud = rig.cloud()
    for status in (200, 300, 400, 401, 403, 404, 429, 500, 503):
        rig.service.answer = telltale(status)
        try:
            await cloud.get("network", "/ports")
        except Exception as why:  # noqa: BLE001
            errors.append(why)
        rig.clock.tick(100)
    rig.service.answer = lambda request: web.Response(body=b"{" + request.headers["X-Auth-Token"].encode())
    try:
        await cloud.get("network", "/ports")
    except CloudUnavailable as why:
        errors.append(why)
    await rig.service.stop()
    try:
        await cloud.get("network", "/ports")
    except CloudUnavailable as why:
        errors.append(why)
    rig.keystone.fault = 401
    rig.clock.tick(4000)
    try:
        await cloud.get("network", "/ports")
    except Unauthenticated as why:
        errors.append(why)
    assert len(errors) == 11
    texts = [caplog.text, repr(cloud), repr(rig.credentials()), *capfd.readouterr()]
    for error in errors:
        texts += ["".join(traceback.format_exception(error)), repr(error)]
        # No library's error is behind ours: they hold requests, with their headers and bodies.
        behind: BaseException | None = error
        while behind is not None:
            assert type(behind).__module__.startswith(("vedette", "builtins", "asyncio")), type(behind)
            behind = behind.__cause__ or behind.__context__
    secrets = [PASSWORD, *rig.keystone.tokens]
    assert len(secrets) > 1
    for text in texts:
        assert not [secret for secret in secrets if secret in text]
    assert "***" in "".join(texts)


# --- settings


API: dict[str, Any] = {
    "auth_url": "http://127.0.0.1:5000/v3",
    "username": "vedette",
    "password": Secret(PASSWORD),
    "project_name": "service",
}


def use(**api: Any) -> CloudUse:
    made = cloud_use(
        Options(name="region-one", amqp=("amqp://127.0.0.1/",), api=ApiOptions(**{**API, **api})),
        clock=SystemClock(),
        telemetry=Telemetry(),
    )
    assert made is not None
    return made


def test_without_api_there_is_no_cloud() -> None:
    assert cloud_use(Options(name="x", amqp=("amqp://127.0.0.1/",)), clock=SystemClock(), telemetry=Telemetry()) is None


def test_the_settings_say_how_much_may_be_asked() -> None:
    made = use(resync=0, verify=False, requests_per_second=2.5, scan_s=7)
    assert (made.resync_seconds, made.verify, made.requests_per_second, made.scan_seconds) == (0, False, 2.5, 7)
    made = use()
    assert (made.resync_seconds, made.verify, made.requests_per_second, made.scan_seconds) == (600, True, 10, 5)


@pytest.mark.parametrize(
    ("api", "words"),
    [
        ({"auth_url": "keystone:5000"}, "auth_url: wants an address"),
        ({"tenant_name": "other"}, "tenant_name: is an older name of project_name"),
        ({"tenant_id": "a", "project_id": "b"}, "tenant_id: is an older name of project_id"),
        ({"system_scope": "none"}, "system_scope: wants `all`"),
        ({"timeout_s": 0}, "timeout: wants 1 second to 10 minutes"),
        ({"timeout_s": 601}, "timeout: wants 1 second to 10 minutes"),
        ({"threads": 0}, "threads: wants a number from 1 to 64"),
        ({"page": 0}, "page: wants a number from 1 to 10000"),
        ({"resync": 9}, "resync: wants 10 seconds or more, or 0"),
        ({"requests_per_second": 0}, "requests_per_second: wants a number from 0.1 to 1000"),
        ({"scan_s": 0.1}, "scan: wants half a second to 1 hour"),
    ],
)
def test_settings_out_of_range_are_named(api: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        use(**api)


def test_an_account_that_is_none_is_named_with_its_source() -> None:
    with pytest.raises(
        ConfigError, match=r"the API of source 'region-one' can't be used: application_credential_id: missing"
    ) as why:
        use(password=Secret(), application_credential_secret=Secret(PASSWORD))
    assert PASSWORD not in str(why.value)


FILE = """
data_dir: ""
sources:
  - name: region-one
    type: openstack
    amqp: amqp://127.0.0.1/
    api: {auth_url: "https://keystone:5000/v3", username: vedette, password: "${PASSWORD}", project_name: service,
          resync: 1h, scan: 500ms, interface: internal, region_name: RegionOne, timeout: 10s}
"""


def test_the_file_takes_it_and_shows_it_masked() -> None:
    config = load_text(FILE, {"PASSWORD": PASSWORD})
    api = config.sources[0].options.api
    assert (api.resync, api.scan_s, api.interface, api.timeout_s, api.password.reveal()) == (3600, 0.5, "internal", 10, PASSWORD)
    shown = show(config)
    assert PASSWORD not in shown
    assert "password: '***'" in shown
    assert "resync: 1h" in shown


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("scan: 500ms", "scan: wants"), ("interface: internal", "interface"), ("resync: 1h", "resync")],
)
def test_what_is_wrong_in_the_file_has_its_line(wrong: str, words: str) -> None:
    text = FILE.replace(wrong, wrong.partition(":")[0] + ": 1ms" if "interface" not in wrong else "interface: inside")
    with pytest.raises(ConfigError, match=words) as why:
        load_text(text, {"PASSWORD": PASSWORD})
    assert why.value.line in (7, 8)


CLOUDS = """
clouds:
  inside:
    region_name: RegionTwo
    interface: internalURL
    auth: {auth_url: "http://127.0.0.1:5000", username: vedette, password: secret-of-the-file, project_name: service}
"""


def test_region_and_interface_come_from_where_the_account_does(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text(CLOUDS)
    found = credentials({"cloud": "inside"}, environ={}, folders=(tmp_path,))
    assert (found.region_name, found.interface) == ("RegionTwo", "internal")
    found = credentials({"cloud": "inside", "region_name": "One", "interface": "public"}, environ={}, folders=(tmp_path,))
    assert (found.region_name, found.interface) == ("One", "public")
    environ = {
        "OS_AUTH_URL": "http://k",
        "OS_USERNAME": "a",
        "OS_PASSWORD": "b",
        "OS_REGION_NAME": "R",
        "OS_ENDPOINT_TYPE": "adminURL",
    }
    found = credentials({}, environ=environ, folders=())
    assert (found.region_name, found.interface) == ("R", "admin")


def test_an_interface_that_is_none_is_named(tmp_path: Path) -> None:
    made = credentials({**API, "password": "x", "interface": "private"}, environ={}, folders=())
    with pytest.raises(ConfigError, match="interface: wants public, internal or admin"):
        OpenStackCloud(made, name="x", clock=SystemClock(), telemetry=Telemetry())


@pytest.mark.parametrize(
    ("url", "warns"), [("http://keystone:5000", True), ("http://127.0.0.1:5000", False), ("https://keystone", False)]
)
def test_plain_http_to_another_machine_is_warned_of(url: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    made = credentials({**API, "password": "x", "auth_url": url}, environ={}, folders=())
    OpenStackCloud(made, name="x", clock=SystemClock(), telemetry=Telemetry())
    assert ("plain http" in caplog.text) == warns
    gc.collect()
