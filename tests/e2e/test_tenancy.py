"""Nobody sees another project's object: two projects, an admin and a system reader of a fake Keystone, over TLS, on every route,
with every selector, in every stream, as bytes.

What A has is marked: the text SECRET is in the names of its objects, and its ids begin with a0a0a0a0.
"""

from __future__ import annotations

import asyncio
import json
import re
import string
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from foreign import resource, sources, thing, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import (
    APIS,
    HOST,
    SECONDS,
    A,
    Asker,
    B,
    Cloud,
    Stream,
    asking,
    cloud,
    in_a_loop,
    instance,
    network,
    port,
    uuid_of,
)

from vedette import plugins
from vedette.api.rights import Rights
from vedette.engine.watch import Ended, Watcher
from vedette.errors import Unauthenticated
from vedette.kit.clock import SystemClock
from vedette.ports import Identity, Scope
from vedette.testing.keystone import Project

sys.path.insert(0, str(Path(__file__).parents[1] / "captures"))
import corpus

SECRET = "secret-of-a"
KINDS = plugins.kinds()
LISTS = [f"/apis/{kind.group}/v1/{{}}{kind.plural}" for kind in KINDS]
"""With the place of a namespace in it."""
OURS = [path for path in LISTS if path.startswith("/apis/vedette.dev/")]
"""Those that are in no namespace."""
FORMS = {
    "json": "application/json",
    "table": "application/json;as=Table;v=v1;g=meta.k8s.io",
    "partial": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
}


CLUSTER = "/clusters/prod"
ROUTES = f"{CLUSTER}/apis/route.openshift.io/v1"


def of_a(number: int) -> str:
    return uuid_of(number, "a0a0a0a0")


def of_b(number: int) -> str:
    return uuid_of(number, "b0b0b0b0")


HIDDEN = ("binding:host_id", "binding:vif", "binding:profile", "provider:", "OS-EXT-SRV-ATTR:", '"host"', '"publisher":')
"""Names of what admins see; they stand in the schema, which everybody may read."""
A_ONLY = [of_a(number) for number in (1, 2, 3, 4, 6, 7, 8)]
SHARED = of_a(5)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path, watch={"max_streams": 1000, "bookmark_seconds": "1s"}, sources=sources(tmp_path)) as place:
        cluster = resource("routes", "Route", "route.openshift.io"), resource("nodes", "Node", namespaced=False)
        await told(place, *cluster)
        yield place


@pytest.fixture
async def asker(place: Cloud) -> AsyncIterator[Asker]:
    async with asking(place) as asker:
        yield asker


async def fill(place: Cloud) -> None:
    """Objects of both projects, shared ones, admins' ones, and one whose project nobody knows."""
    alice = place.users["alice"]
    await place.port(of_a(1), name=f"{SECRET}-port")
    await place.port(of_b(1), project=B, name="port-of-b")
    await place.tell("network.create.end", {"network": network(of_a(2), name=f"{SECRET}-net")})
    await place.tell("network.create.end", {"network": network(SHARED, name="net-of-all", shared=True)})
    await place.tell("network.create.end", {"network": network(of_b(2), B)})
    await place.tell("compute.instance.create.end", instance(of_a(3), A, display_name=f"{SECRET}-vm"))
    await place.tell("compute.instance.create.end", instance(of_b(3), B))
    await place.tell("keypair.create.end", {"tenant_id": A, "user_id": alice, "key_name": f"{SECRET}-key"})
    for id_, name, public in (("101", "flavor-of-all", True), (f"{SECRET}-flavor-id", f"{SECRET}-flavor", False)):
        flavor = {"flavorid": id_, "name": name, "is_public": public, "projects": None if public else [A], "memory_mb": 1}
        await place.tell("flavor.create", {"nova_object.data": flavor})
    for id_, name, visibility in ((uuid_of(6), "image-of-all", "public"), (of_a(6), f"{SECRET}-image", "private")):
        image = {"id": id_, "name": name, "owner": A, "visibility": visibility, "status": "active"}
        await place.tell("image.create", image)
    await place.tell(
        "aggregate.create.end", {"nova_object.data": {"id": 777_777_777, "name": HOST, "hosts": [HOST], "metadata": {}}}
    )
    service = {"uuid": uuid_of(8), "host": HOST, "binary": "nova-compute", "disabled": False}
    await place.tell("service.create", {"nova_object.data": service})
    await place.tell("identity.user.created", {"resource_info": alice})
    for project in (A, B):
        await place.tell("identity.project.created", {"resource_info": project})
    # An update of something never seen, that doesn't say whose it is.
    await place.tell("port.update.end", {"port": {"id": of_a(4), "name": f"{SECRET}-unknown"}})
    await place.tell("port.create.end", {"ports": [port(of_a(7), name=f"{SECRET}-bulk"), port(of_b(7), B, name="bulk-of-b")]})
    await place.port(of_a(8), name=f"{SECRET}-gone")
    await place.port(of_a(8), "delete", name=f"{SECRET}-gone")
    await place.tell("orchestration.unclaimed", {"secret": SECRET, "tenant_id": A})
    # A cluster, of which one namespace is mapped to each project.
    for id_, project in ((f"{SECRET}-space/a", A), ("space-of-b/route-of-b", B), (f"{SECRET}-infra/i", None)):
        await told(place, thing("Route", "route.openshift.io/v1", id_, project=project, spec={"to": id_}))
    await told(place, thing("Node", "v1", "n1", status={"host": HOST}))


# --- every route -----------------------------------------------------------------------------------------------------------


DOCUMENTS = (
    "/version", "/api", "/api/v1", "/apis", "/apis/openstack.vedette.dev", APIS, "/apis/vedette.dev", "/apis/vedette.dev/v1",
    "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", f"/openapi/v3{APIS}", "/openapi/v3/apis/vedette.dev/v1",
)  # fmt: skip


def paths(ids: Sequence[tuple[str, str]], endpoints: Sequence[str] = ("port", "compute", "loadbalancer")) -> list[str]:
    """Every route, for every kind, in both namespaces; `ids` are (plural, name) to get."""
    found = ["/", "/healthz", "/livez", "/readyz", "/metrics", "/metrics/cloud", "/v1/status"]
    for prefix in ("", "/clusters/one", "/clusters/*"):
        for document in DOCUMENTS:
            found += [prefix + document, prefix + document + "/"]
        found += [f"{prefix}/api/v1/namespaces", f"{prefix}/api/v1/namespaces/{A}", f"{prefix}/api/v1/namespaces/{B}"]
        for path in LISTS:
            found += [prefix + path.format(space) for space in ("", *(f"namespaces/{name}/" for name in (A, B, "no-project")))]
        for plural, name in ids:
            found += [f"{prefix}{APIS}/namespaces/{space}/{plural}/{name}" for space in (A, B, "no-project")]
    found += [CLUSTER + document for document in DOCUMENTS]
    for path in ("", "/a", "/route-of-b"):
        found += [f"{ROUTES}/namespaces/{space}/routes{path}" for space in (f"{SECRET}-space", f"{SECRET}-infra", "space-of-b")]
    found += [f"{ROUTES}/routes", f"{ROUTES}/routes/a", "/clusters/*/apis/route.openshift.io/v1/routes"]
    found += [f"{CLUSTER}/api/v1/{path}" for path in ("nodes", "nodes/n1", "namespaces", "namespaces/space-of-b")]
    found += [f"{CLUSTER}/api/v1/namespaces/space-of-b/nodes{name}" for name in ("", "/n1")]
    found += ["/v1/handlers", "/v1/deadletters", "/v1/deadletters/h.1", "/v1/explain/1", "/apis/vedette.dev/v1/handlers/h"]
    found += [f"/v1/events?after=0&follow=false{more}" for more in ("", f"&project={A}", f"&project={B}", "&kind=port")]
    return found


def streams(place: Cloud) -> list[str]:
    """Every stream, from the oldest there is and with what there is; each ends after a second."""
    store = place.service.store
    assert store is not None
    found = []
    for start in ("", f"&resourceVersion={store.oldest}"):
        found += [f"{path.format('')}?watch=1&timeoutSeconds=1&allowWatchBookmarks=1{start}" for path in LISTS]
        found += [f"{path.format(f'namespaces/{A}/')}?watch=1&timeoutSeconds=1{start}" for path in LISTS if path not in OURS]
        found += [f"{ROUTES}/routes?watch=1&timeoutSeconds=1{start}", f"{CLUSTER}/api/v1/nodes?watch=1&timeoutSeconds=1{start}"]
        found.append(f"/api/v1/namespaces?watch=1&timeoutSeconds=1{start}")
        for endpoint in ("port", "compute"):
            for raw in ("", "&format=raw"):
                found.append(f"/{endpoint}?timeoutSeconds=1{raw}{start}")
    return found


ADMINS = (
    "/v1/resync", "/v1/deadletters/redrive", "/v1/deadletters/discard", "/v1/handlers/h/forget", "/v1/handlers/h/replay",
    "/v1/audits/purge", "/v1/audits/a/replay", "/v1/audits/a/trigger",
    "/v1/actionplans/p/approve", "/v1/actionplans/p/start", "/v1/actionplans/p/cancel",
)  # fmt: skip
"""POSTs that nobody else may do."""
POSTS = ("/v1/tickets", *ADMINS)
HOOK = "/v1/hooks/generic/nobody"
"""Hooks judge their callers themselves (test_hooks.py); one that isn't there looks the same to everybody."""


async def crawl(place: Cloud, asker: Asker, who: str, ids: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Every answer that this caller can get, headers included, by request."""
    headers = place.token(who)
    answers: dict[str, bytes] = {}
    gate = asyncio.Semaphore(32)
    many = asyncio.Semaphore(400)  # each stream takes its second

    async def ask(path: str, form: str) -> None:
        async with gate:
            code, said, body = await asker.get(path, headers={**headers, "Accept": FORMS[form]})
        assert code < 500, (path, code, body)
        answers[f"{form} {path}"] = b"%d %b %b" % (code, repr(sorted(said.items())).encode(), body)

    async def follow(path: str, form: str) -> None:
        async with many, asker.watch(path, headers={**headers, "Accept": FORMS[form]}) as stream:
            answers[f"{form} {path}"] = await stream.rest()

    async def tickets(sse: bool) -> None:
        code, _, body = await asker.get("/v1/tickets", method="POST", headers=headers)
        assert code == 201
        accept = {"Accept": "text/event-stream"} if sse else {}
        path = f"/v1/events?after=0&follow=false&ticket={json.loads(body)['ticket']}"
        answers[f"ticket {sse}"] = (await asker.get(path, headers=accept))[2]

    async def refused(path: str) -> None:
        code, said, body = await asker.get(path, method="POST", headers=headers)
        assert code == 403, (path, code, body)
        answers[f"POST {path}"] = repr(sorted(said.items())).encode() + body

    async with asyncio.TaskGroup() as group:
        for form in FORMS:
            for path in paths(ids):
                if form == "json" or "/apis/" in path or "/namespaces" in path:
                    group.create_task(ask(path, form))
            for path in streams(place):
                if form == "json" or "/apis/" in path or "/namespaces" in path:
                    group.create_task(follow(path, form))
        group.create_task(tickets(True))
        group.create_task(tickets(False))
        for path in ADMINS:
            group.create_task(refused(path))
        token = place.tokens[who]
        for path in (f"/port/{token}", f"/{token}/port", f"/{token}/compute"):
            group.create_task(follow(f"{path}?timeoutSeconds=1", "json"))
    return answers


async def test_a_tenant_finds_its_own_and_nothing_of_another_on_any_route(place: Cloud, asker: Asker) -> None:
    await fill(place)
    ids = [("ports", of_b(1)), ("ports", of_b(7)), ("servers", of_b(3)), ("networks", SHARED), ("flavors", "101")]
    answers = await crawl(place, asker, "bob", ids)
    leaks = [
        (request, mark)
        for request, answer in answers.items()
        for mark in (SECRET, *A_ONLY, HOST, place.users["alice"], *(() if "/openapi/" in request else HIDDEN))
        if mark.encode() in answer
    ]
    assert leaks == []
    everything = b"".join(answers.values())
    for mine in (
        of_b(1),
        of_b(2),
        of_b(3),
        of_b(7),
        SHARED,
        uuid_of(6),
        "flavor-of-all",
        "net-of-all",
        "image-of-all",
        "route-of-b",
    ):
        assert mine.encode() in everything, mine


async def test_admins_and_system_readers_find_everything(place: Cloud, asker: Asker) -> None:
    await fill(place)
    for who in ("root", "auditor"):
        for plural, names in (
            ("ports", {of_a(1), of_b(1), of_a(4), of_a(7), of_b(7)}),
            ("networks", {of_a(2), SHARED, of_b(2)}),
            ("servers", {of_a(3), of_b(3)}),
            ("flavors", {"101", f"{SECRET}-flavor-id"}),
            ("images", {uuid_of(6), of_a(6)}),
            ("aggregates", {"777777777"}),
            ("computeservices", {uuid_of(8)}),
            ("users", {place.users["alice"]}),
            ("projects", {A, B}),
            ("keypairs", {f"{place.users['alice']}:{SECRET}-key"}),
        ):
            assert set(await asker.names(f"{APIS}/{plural}", headers=place.token(who))) == names, (who, plural)
        assert set(await asker.names("/api/v1/namespaces", headers=place.token(who))) == {A, B, "no-project"}
        unknown = await asker.names(f"{APIS}/namespaces/no-project/ports", headers=place.token(who))
        assert unknown == [of_a(4)]
        shown = await asker.json(f"{APIS}/namespaces/{A}/ports/{of_a(1)}", headers=place.token(who))
        assert shown["status"]["binding:host_id"] == HOST
        _, _, events = await asker.get("/v1/events?after=0&follow=false", headers=place.token(who))
        assert b"orchestration.unclaimed" in events
        await asker.json("/v1/status", headers=place.token(who))
        # (This source has no API.) A reader sees everything and changes nothing.
        await asker.status("/v1/resync", 404 if who == "root" else 403, method="POST", headers=place.token(who))


async def test_what_each_tenant_sees_of_each_kind(place: Cloud, asker: Asker) -> None:
    await fill(place)
    seen = {
        who: {path.rpartition("}")[2]: set(await asker.names(path.format(""), headers=place.token(who))) for path in LISTS}
        for who in ("alice", "bob")
    }
    assert {plural: names for plural, names in seen["alice"].items() if names} == {
        "ports": {of_a(1), of_a(7)},
        "networks": {of_a(2), SHARED},
        "servers": {of_a(3)},
        "keypairs": {f"{place.users['alice']}:{SECRET}-key"},
        "flavors": {"101"},
        "images": {uuid_of(6), of_a(6)},
        "projects": {A},
    }
    assert {plural: names for plural, names in seen["bob"].items() if names} == {
        "ports": {of_b(1), of_b(7)},
        "networks": {of_b(2), SHARED},
        "servers": {of_b(3)},
        "flavors": {"101"},
        "images": {uuid_of(6)},
        "projects": {B},
    }
    assert await asker.names("/api/v1/namespaces", headers=place.token("alice")) == [A]
    assert await asker.names(f"{APIS}/namespaces/{A}/networks", headers=place.token("bob")) == [SHARED]


async def test_the_crawl_asks_every_route_that_there_is(place: Cloud) -> None:
    """A new route has to be looked at by a tenant here."""
    app = place.service._servers[0]._runner.app
    asked = [path.partition("?")[0] for path in [*paths([("ports", "x")]), *streams(place), *POSTS, HOOK, "/t/port", "/port/t"]]
    missed = []
    for route in app.router.resources():
        # A parameter is one segment, whatever else its pattern says.
        pattern = re.compile("/".join("[^/]+" if "{" in part else re.escape(part) for part in segments(route.canonical)))
        if not any(pattern.fullmatch(path) for path in asked):
            missed.append(route.canonical)
    assert missed == []


def segments(canonical: str) -> list[str]:
    return re.sub(r"\{[^{}]*\}", "{}", canonical).split("/")


async def test_without_a_token_there_is_nothing_but_health(place: Cloud, asker: Asker) -> None:
    await fill(place)
    for path in [*paths([("ports", of_a(1))]), *streams(place), "/no/such/path", "/wrong-token/port", "/port/wrong-token"]:
        code, headers, body = await asker.get(path, headers={"X-Forwarded-For": "192.0.2.1"})
        if path in ("/", "/healthz", "/livez", "/readyz"):
            assert code == 200
        else:
            assert (code, headers["WWW-Authenticate"]) == (401, 'Bearer realm="vedette"'), path
            assert json.loads(body)["reason"] == "Unauthorized"
        assert SECRET.encode() not in body
    await asker.status("/v1/events?ticket=nonsense", 401)
    for path in POSTS:
        await asker.status(path, 401, method="POST")
    for who in ({}, place.token("alice"), place.token("root")):
        await asker.status(HOOK, 404, method="POST", headers=who)


async def test_metrics_and_status_are_for_admins_and_metrics_for_this_machine(place: Cloud, asker: Asker) -> None:
    await fill(place)
    outside = {"X-Forwarded-For": "192.0.2.1"}
    assert (await asker.get("/metrics"))[0] == 200
    await asker.status("/metrics", 403, headers={**outside, **place.token("bob")})
    await asker.status("/v1/status", 403, headers=place.token("bob"))
    code, _, body = await asker.get("/metrics", headers={**outside, **place.token("root")})
    assert code == 200
    for mark in (SECRET, A, of_a(1), HOST, *place.tokens.values()):
        assert mark.encode() not in body


# --- what can't be asked out of it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_selectors_see_what_the_caller_sees(place: Cloud, asker: Asker, who: str) -> None:
    await fill(place)
    headers = place.token(who)
    for plural, field in (
        ("ports", "binding:host_id"),
        ("networks", "provider:physical_network"),
        ("servers", "OS-EXT-SRV-ATTR:host"),
        ("servers", "OS-EXT-SRV-ATTR:hypervisor_hostname"),
    ):
        every = await asker.names(f"{APIS}/{plural}", headers=headers)
        assert every
        for value in (HOST, f"{HOST}.node"):
            assert await asker.names(f"{APIS}/{plural}?fieldSelector=status.{field}={value}", headers=headers) == []
        # To a tenant the field is not there, so every value differs from it.
        assert await asker.names(f"{APIS}/{plural}?fieldSelector=status.{field}!={HOST}", headers=headers) == every
        assert await asker.names(f"{APIS}/{plural}?fieldSelector=status.{field}=", headers=headers) == every
        found = await asker.names(f"{APIS}/{plural}?fieldSelector=status.{field}!=", headers=place.token("root"))
        assert found
    for selector in (f"metadata.name={of_a(1)}", f"metadata.namespace={A}", f"object.id={of_a(1)}", f"status.name={SECRET}-port"):
        found = await asker.names(f"{APIS}/ports?fieldSelector={selector}", headers=headers)
        assert (found != []) is (who == "alice"), selector


async def test_a_watch_with_a_selector_on_an_admins_field_tells_a_tenant_nothing(place: Cloud, asker: Asker) -> None:
    headers = place.token("alice")
    path = f"{APIS}/ports?watch=1&resourceVersion={place.head}&fieldSelector=status.binding:host_id={HOST}"
    async with asker.watch(path, headers=headers) as tenant, asker.watch(path, headers=place.token("root")) as admin:
        await place.until_watched(2)
        await place.port(of_a(1))
        await place.port(of_a(1), "update", **{"binding:host_id": ""})
        assert [await admin.change(), await admin.change()] == [("ADDED", of_a(1)), ("DELETED", of_a(1))]
        await place.service.stop()
        assert await tenant.rest() == b""


async def test_a_change_of_a_field_that_only_admins_see_has_no_more_in_it_for_a_tenant(place: Cloud, asker: Asker) -> None:
    await place.port(of_a(1))
    path = f"{APIS}/ports?watch=1&resourceVersion={place.head}"
    async with asker.watch(path, headers=place.token("alice")) as stream:
        await place.until_watched()
        await place.port(of_a(1), "update", **{"binding:host_id": f"{HOST}-2", "name": "n"})
        assert await stream.change() == ("MODIFIED", of_a(1))
        assert HOST.encode() not in stream.raw


C = "c5c50000c5c54000c5c50000c5c50000"
"""A project that shares nothing."""

ids = st.sampled_from([*A_ONLY, C, "777777777", f"{SECRET}-flavor-id", uuid_of(8), f"{SECRET}-key"])


TERMS = (
    "metadata.name", "metadata.namespace", "object.id", "status.id", "status.network_id", "status.project_id", "status.name",
    "status.fixed_ips.ip_address", "status.binding:host_id",
)  # fmt: skip
QUERIES = (
    "", "?fieldSelector={term}={id}", "?fieldSelector={term}!={id}", "?labelSelector=x={id}", "?limit=1", "?resourceVersion=0",
    "?limit=1&fieldSelector={term}!={id}", "?watch=1&timeoutSeconds=-1&fieldSelector={term}={id}",
)  # fmt: skip
OTHERS = (
    "/api/v1/namespaces/{id}", "/api/v1/namespaces?fieldSelector=metadata.name={id}",
    "/v1/events?after=0&follow=false&id={id}", "/v1/events?after=0&follow=false&project={id}", "/v1/events?ticket={id}",
    "/port?project={id}&timeoutSeconds=-1", "/port/{id}?timeoutSeconds=-1", "/clusters/{id}/apis",
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str]:
    """A path with `{id}` in it, an id of A's, and one of the same form that nobody has."""
    one = draw(ids)
    other = "".join(
        {"a": "d", "0": "9"}.get(letter, letter) if letter in string.hexdigits and len(one) > 8 else letter for letter in one
    )
    other = other if other != one else one + "9"
    base, _, plural = draw(st.sampled_from([*LISTS, "/apis/route.openshift.io/v1/{}routes"])).partition("/{}")
    prefix = draw(st.sampled_from(["", "/clusters/one", "/clusters/*", CLUSTER])) + base
    space = draw(st.sampled_from([A, B, "no-project", "{id}"]))
    term = draw(st.sampled_from(TERMS))
    query = draw(st.sampled_from(QUERIES))
    path = draw(
        st.sampled_from([f"/{plural}{query}", f"/namespaces/{space}/{plural}{query}", f"/namespaces/{space}/{plural}/{{id}}"])
    )
    path = draw(st.sampled_from([prefix + path.replace("{term}", term), *OTHERS]))
    return path, one, other


async def test_nothing_can_be_found_out_by_asking(place: Cloud, asker: Asker) -> None:
    """An id of A's and one that nobody has get the same answer: code, headers and body."""
    await fill(place)
    await place.port(of_a(9), project=C, name=SECRET)

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(request=requests(), form=st.sampled_from(list(FORMS)))
    async def asked(request: tuple[str, str, str], form: str) -> None:
        path, one, other = request
        headers = {**place.token("bob"), "Accept": FORMS[form]}
        first = await asker.get(path.replace("{id}", one), headers=headers)
        second = await asker.get(path.replace("{id}", other), headers=headers)
        assert first[0] < 500
        assert without(first, one) == without(second, other)
        assert SECRET.encode() not in first[2].replace(one.encode(), b"")

    await asyncio.to_thread(in_a_loop, asked, asyncio.get_running_loop())


def without(answer: tuple[int, dict[str, str], bytes], id_: str) -> tuple[int, dict[str, str], bytes]:
    code, headers, body = answer
    headers = {name: value for name, value in headers.items() if name not in ("Date", "Content-Length")}
    body = re.sub(rb'"(age|Age)":"[^"]*"|"\d+s"', b"", body.replace(id_.encode(), b"{id}"))
    return code, headers, body


async def test_a_continue_token_of_somebody_else_opens_nothing(place: Cloud, asker: Asker) -> None:
    await fill(place)
    page = await asker.json(f"{APIS}/ports?limit=1", headers=place.token("root"))
    token = page["metadata"]["continue"]
    assert await asker.names(f"{APIS}/ports?limit=10&continue={token}", headers=place.token("bob")) == [of_b(1), of_b(7)]


# --- streams ---------------------------------------------------------------------------------------------------------------


class Watching:
    """One kind as several callers watch it, from now."""

    def __init__(self, place: Cloud, asker: Asker) -> None:
        self._place, self._asker = place, asker
        self._stack = AsyncExitStack()
        self.streams: dict[str, Stream] = {}

    async def __aenter__(self) -> Watching:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def open(self, plural: str, *callers: str, path: str = "") -> None:
        for who in callers:
            url = path or f"{APIS}/{plural}?watch=1&resourceVersion={self._place.head}"
            headers = self._place.token(who)
            self.streams[who] = await self._stack.enter_async_context(self._asker.watch(url, headers=headers))
        await self._place.until_watched(len(self.streams))

    async def next(self, who: str) -> tuple[str, str]:
        return await self.streams[who].change()


async def test_a_stream_has_its_own_projects_changes_and_no_more(place: Cloud, asker: Asker) -> None:
    async with Watching(place, asker) as watching:
        await watching.open("ports", "alice", "bob", "root", "auditor")
        for number in range(20):
            await place.port(of_a(number), name=f"{SECRET}-{number}")
            await place.port(of_b(number), project=B)
        for who, wanted in (("alice", [of_a]), ("bob", [of_b]), ("root", [of_a, of_b]), ("auditor", [of_a, of_b])):
            seen = [await watching.next(who) for _ in range(20 * len(wanted))]
            assert seen == [("ADDED", id_(number)) for number in range(20) for id_ in wanted]
        await place.port(of_b(99), project=B)
        assert await watching.next("bob") == ("ADDED", of_b(99))
        assert SECRET.encode() not in watching.streams["bob"].raw
        assert HOST.encode() not in watching.streams["bob"].raw + watching.streams["alice"].raw
        assert HOST.encode() in watching.streams["root"].raw


async def test_an_object_that_goes_to_another_project_is_deleted_here_and_added_there(place: Cloud, asker: Asker) -> None:
    await place.port(of_a(1), name=f"{SECRET}-before")
    async with Watching(place, asker) as watching:
        await watching.open("ports", "alice", "bob", "root")
        await place.port(of_a(1), "update", project=B, name="mine-now")
        assert await watching.next("alice") == ("DELETED", of_a(1))
        assert await watching.next("bob") == ("ADDED", of_a(1))
        # Another namespace is another name.
        assert [await watching.next("root"), await watching.next("root")] == [("DELETED", of_a(1)), ("ADDED", of_a(1))]
        assert b"mine-now" not in watching.streams["alice"].raw
        assert B.encode() not in watching.streams["alice"].raw
        assert SECRET.encode() not in watching.streams["bob"].raw
        assert A.encode() not in watching.streams["bob"].raw


async def test_raw_notices_go_to_whom_all_of_their_objects_belong(place: Cloud, asker: Asker) -> None:
    await place.port(of_a(1), name=f"{SECRET}-before")
    async with Watching(place, asker) as watching:
        await watching.open("", "alice", "bob", "root", path="/v1/events")
        await place.port(of_a(1), "update", project=B, name="moved")
        await place.tell("port.create.end", {"ports": [port(of_a(2)), port(of_b(2), B)]})
        await place.tell("network.create.end", {"network": network(SHARED, shared=True)})
        await place.port(of_a(3), name="last-of-a")
        await place.port(of_b(3), project=B, name="last-of-b")

        async def until(who: str, name: str) -> list[str]:
            names: list[str] = []
            while name not in names:
                event = await watching.streams[who].event()
                if event["type"] != "vedette.bookmark":
                    data = event["data"]
                    names.append(data["port"]["name"] if "port" in data else next(iter(data)))
            return names

        assert await until("alice", "last-of-a") == ["network", "last-of-a"]
        assert await until("bob", "last-of-b") == ["moved", "last-of-b"]
        assert await until("root", "last-of-b") == ["moved", "ports", "network", "last-of-a", "last-of-b"]
        assert HOST.encode() not in watching.streams["alice"].raw + watching.streams["bob"].raw
        # From the log as well as live.
        for who, there, not_there in (("alice", b"last-of-a", b"moved"), ("bob", b"moved", of_a(2).encode())):
            _, _, body = await asker.get("/v1/events?after=0&follow=false", headers=place.token(who))
            assert there in body
            assert not_there not in body


async def test_what_is_shared_no_more_is_deleted_for_the_others(place: Cloud, asker: Asker) -> None:
    async with Watching(place, asker) as watching:
        await watching.open("networks", "alice", "bob")
        await place.tell("network.create.end", {"network": network(SHARED, name="one")})
        await place.tell("network.update.end", {"network": network(SHARED, name="one", shared=True)})
        await place.tell("network.update.end", {"network": network(SHARED, name=SECRET)})
        await place.tell("network.update.end", {"network": network(SHARED, name=SECRET, **{"router:external": True})})
        await place.tell("network.delete.end", {"network_id": SHARED})
        assert [(await watching.next("alice"))[0] for _ in range(5)] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
        assert await watching.next("bob") == ("ADDED", SHARED)
        assert await watching.next("bob") == ("DELETED", SHARED)
        assert SECRET.encode() not in watching.streams["bob"].raw
        assert await watching.next("bob") == ("ADDED", SHARED)
        assert await watching.next("bob") == ("DELETED", SHARED)


async def test_a_project_that_becomes_known_shows_the_object_to_its_members(place: Cloud, asker: Asker) -> None:
    await place.tell("port.update.end", {"port": {"id": of_a(1), "name": "whose"}})
    async with Watching(place, asker) as watching:
        await watching.open("ports", "alice", "bob")
        await place.port(of_a(1), "update")
        assert await watching.next("alice") == ("ADDED", of_a(1))
        await place.port(of_b(1), project=B)
        assert await watching.next("bob") == ("ADDED", of_b(1))


async def test_a_tenant_watches_its_keypairs_and_no_other_user_does(place: Cloud, asker: Asker) -> None:
    async with Watching(place, asker) as watching:
        await watching.open("keypairs", "alice", "bob")
        for who in ("alice", "bob"):
            await place.tell("keypair.create.end", {"tenant_id": A, "user_id": place.users[who], "key_name": "key"})
        for who in ("alice", "bob"):
            assert await watching.next(who) == ("ADDED", f"{place.users[who]}:key")


# --- a real cloud's notifications ------------------------------------------------------------------------------------------

HOSTS = re.compile(rb"fake-[123]\b|ctl@|nosuch|\bcompute\.ctl|nova-compute:")
"""Hosts of the recorded cloud."""


@pytest.mark.parametrize("capture", corpus.CAPTURES)
async def test_no_byte_for_a_tenant_names_a_host_or_another_project(place: Cloud, asker: Asker, capture: str) -> None:
    assert place.service.ingest is not None
    projects: dict[str, int] = {}
    for notice in corpus.notices(capture):
        await place.service.ingest.offer([msgspec.structs.replace(notice, source="one")])
        for found in re.findall(rb'"(?:tenant_id|project_id)": ?"([0-9a-f]{32})"', bytes(notice.payload)):
            projects[found.decode()] = projects.get(found.decode(), 0) + 1
    most = sorted(projects, key=lambda project: projects[project])[-2:]
    for project in most:
        place.keystone.projects[project] = Project(project, f"recorded-{project[:4]}", "default")
        place.keystone.grant(place.users["bob"], "member", project=project)
        place.tokens["bob"] = place.keystone.issue(place.users["bob"], project=project)
        answers = await crawl(place, asker, "bob", [])
        everything = b"".join(answers.values())
        assert project.encode() in everything
        assert len(everything) > 50_000
        leaks = {(request.partition("?")[0], found) for request, answer in answers.items() for found in HOSTS.findall(answer)}
        assert leaks == set()
        # Objects of others are not there; that a public one has an owner is no secret.
        for request, answer in answers.items():
            for other in set(projects) - {project}:
                for line in re.findall(rb'"namespace":"%b"' % other.encode(), answer):
                    assert b'"Network"' in answer or b'"Image"' in answer or b'"Subnet"' in answer or b"Partial" in answer, (
                        request,
                        line,
                    )


# --- rights that change ----------------------------------------------------------------------------------------------------


async def ends(stream: Stream) -> None:
    rest = await stream.rest()
    event = json.loads(rest.splitlines()[-1])
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 401, "Unauthorized")


async def test_streams_end_when_a_look_at_keystone_says_so(tmp_path: Path) -> None:
    async with cloud(tmp_path, recheck_seconds=0.2) as place, asking(place) as asker, Watching(place, asker) as watching:
        await watching.open("ports", "alice", "bob")
        place.keystone.ungrant(place.users["alice"], "member", project=A)
        await ends(watching.streams["alice"])
        await asker.status(f"{APIS}/ports", 401, headers=place.token("alice"))
        await place.port(of_b(1), project=B)
        assert await watching.next("bob") == ("ADDED", of_b(1))
        # More rights are other rights: the stream ends, and the next one has them.
        place.keystone.grant(place.users["bob"], "admin", project=B)
        await ends(watching.streams["bob"])
        await place.port(of_a(1))
        async with asyncio.timeout(SECONDS):
            while of_a(1) not in await asker.names(f"{APIS}/ports", headers=place.token("bob")):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        ("identity.role_assignment.deleted", {"user": "{alice}", "project": A, "role": "member"}),
        ("identity.user.disabled", {"resource_info": "{alice}"}),
        ("identity.project.disabled", {"resource_info": A}),
        ("identity.role.deleted", {"resource_info": "member"}),
    ],
)
async def test_an_identity_notice_ends_streams_at_once(
    place: Cloud, asker: Asker, event_type: str, payload: dict[str, str]
) -> None:
    alice = place.users["alice"]
    async with Watching(place, asker) as watching:
        await watching.open("ports", "alice", "bob")
        place.keystone.ungrant(alice, "member", project=A)
        said = {name: value.replace("{alice}", alice) for name, value in payload.items()}
        await place.tell(event_type, said)
        await ends(watching.streams["alice"])  # the look that comes by itself is a minute away
        await asker.status(f"{APIS}/ports", 401, headers=place.token("alice"))
        await place.port(of_b(1), project=B)
        assert await watching.next("bob") == ("ADDED", of_b(1))


class Says:
    """An authenticator that says what it is told to say."""

    def __init__(self) -> None:
        self.on_forget: list[Any] = []
        self.word: Identity | Exception = Unauthenticated("nobody")
        self.asked = asyncio.Event()

    async def identify(self, token: str) -> Identity:
        self.asked.set()
        if isinstance(self.word, Exception):
            raise self.word
        return self.word

    recheck = identify

    def forget(self, *, user: str = "", project: str = "") -> None:
        """Nothing is remembered."""


def watcher() -> Watcher:
    return Watcher(cast(Any, None), cast(Any, None), cast(Any, None), chunked=True, bookmarks=False, owner="k")


async def test_a_stream_that_was_judged_by_another_verdict_than_its_neighbours_ends() -> None:
    says = Says()
    old = says.word = Identity(name="alice", scope=Scope(projects=frozenset((A,))), key="k")
    new = Identity(name="alice", scope=Scope(projects=frozenset((B,))), key="k")
    rights, first, second = Rights(says, SystemClock()), watcher(), watcher()
    async with rights.hold(old, "t", first):
        await says.asked.wait()
        says.word = new
        async with rights.hold(new, "t", second):
            assert second.ended is Ended.REVOKED
            async with asyncio.timeout(SECONDS):
                while first.ended is None:  # whether it may stay is asked at once, not within the minute
                    await asyncio.sleep(0)
        assert first.ended is Ended.REVOKED


async def test_rights_that_changed_between_the_gate_and_the_stream_are_noticed() -> None:
    says = Says()
    alone = watcher()
    async with Rights(says, SystemClock()).hold(Identity(name="a", scope=Scope(admin=True), key="k"), "t", alone):
        async with asyncio.timeout(SECONDS):
            while alone.ended is None:
                await asyncio.sleep(0)
    assert alone.ended is Ended.REVOKED


async def test_an_error_of_ours_while_rights_are_looked_at_ends_the_streams(caplog: pytest.LogCaptureFixture) -> None:
    says = Says()
    says.word = ZeroDivisionError("of ours")
    alone = watcher()
    async with Rights(says, SystemClock()).hold(Identity(name="a", scope=Scope(), key="k"), "t", alone):
        async with asyncio.timeout(SECONDS):
            while alone.ended is None:
                await asyncio.sleep(0)
    assert alone.ended is Ended.REVOKED
    assert "the rights of open streams can't be looked at" in caplog.text


async def test_a_ticket_is_good_once_and_never_outlives_its_token(place: Cloud, asker: Asker) -> None:
    async def ticket() -> str:
        code, _, body = await asker.get("/v1/tickets", method="POST", headers=place.token("alice"))
        assert code == 201
        issued: str = json.loads(body)["ticket"]
        return issued

    one = await ticket()
    assert (await asker.get(f"/v1/events?follow=false&ticket={one}"))[0] == 200
    await asker.status(f"/v1/events?follow=false&ticket={one}", 401)
    another = await ticket()
    await asker.status(f"{APIS}/ports?ticket={another}", 401)
    place.keystone.revoke(place.tokens["alice"])
    await place.tell("identity.user.disabled", {"resource_info": place.users["alice"]})
    await asker.status(f"/v1/events?follow=false&ticket={another}", 401)


async def test_the_stream_of_a_ticket_is_looked_at_like_any_other(tmp_path: Path) -> None:
    async with cloud(tmp_path, recheck_seconds=0.2) as place, asking(place) as asker:
        _, _, body = await asker.get("/v1/tickets", method="POST", headers=place.token("alice"))
        async with asker.watch(f"/v1/events?ticket={json.loads(body)['ticket']}") as stream:
            await place.until_watched()
            place.keystone.revoke(place.tokens["alice"])
            await ends(stream)


async def test_with_keystone_down_known_tokens_go_on_and_others_are_told_to_come_back(tmp_path: Path) -> None:
    async with cloud(tmp_path, recheck_seconds=0.2) as place, asking(place) as asker, Watching(place, asker) as watching:
        await watching.open("ports", "alice")
        await place.keystone.stop()
        asked = place.keystone.validations
        async with asyncio.timeout(SECONDS):
            for _ in range(5):  # several looks pass
                code, headers, body = await asker.get(f"{APIS}/ports", headers=place.token("bob"))
                assert (code, int(headers["Retry-After"]) >= 1) == (503, True)
                assert json.loads(body)["reason"] == "ServiceUnavailable"
                assert place.keystone.url.encode() not in body
                assert (await asker.get(f"{APIS}/ports", headers=place.token("alice")))[0] == 200
                await asyncio.sleep(0.1)
        await place.port(of_a(1))
        assert await watching.next("alice") == ("ADDED", of_a(1))
        assert place.keystone.validations == asked
        await place.keystone.start()
        async with asyncio.timeout(SECONDS):
            while (await asker.get(f"{APIS}/ports", headers=place.token("bob")))[0] != 200:
                await asyncio.sleep(0.05)


# --- browsers --------------------------------------------------------------------------------------------------------------

PAGE = {"Origin": "https://portal.example.org"}


async def test_pages_of_other_origins_get_nothing_unless_configured(place: Cloud, asker: Asker) -> None:
    for method, path in (("GET", f"{APIS}/ports"), ("OPTIONS", f"{APIS}/ports"), ("GET", "/v1/events?follow=false")):
        _, headers, _ = await asker.get(path, method=method, headers={**PAGE, **place.token("alice")})
        assert not [name for name in headers if name.startswith("Access-Control")]


async def test_a_configured_origin_may_read_lists_streams_and_errors(tmp_path: Path) -> None:
    async with cloud(tmp_path, cors=[PAGE["Origin"]]) as place, asking(place) as asker:
        alice = place.token("alice")
        for method, path, more in (
            ("GET", f"{APIS}/ports", alice), ("GET", f"{APIS}/ports?watch=1&timeoutSeconds=-1", alice),
            ("GET", "/v1/events?follow=false", alice), ("GET", f"{APIS}/ports", {}), ("OPTIONS", f"{APIS}/ports", {}),
            ("POST", "/v1/tickets", alice),
        ):  # fmt: skip
            _, headers, _ = await asker.get(path, method=method, headers={**PAGE, **more})
            assert headers["Access-Control-Allow-Origin"] == PAGE["Origin"], (method, path)
            assert "Access-Control-Allow-Credentials" not in headers
            _, headers, _ = await asker.get(path, method=method, headers={"Origin": "https://evil.example.org", **more})
            assert "Access-Control-Allow-Origin" not in headers
