"""The documents say what there is, in both forms, the same at every address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from vedette import plugins
from vedette.api import discovery
from vedette.api.routes.discovery import routes
from vedette.errors import NotAcceptable
from vedette.ports import Field, Kind
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

KIND = Kind(
    kind="LoadBalancer",
    plural="loadbalancers",
    singular="loadbalancer",
    short_names=("lb",),
    doc="A load balancer.",
    events=(),
    read=lambda notice: (),
    fields={"vip_address": Field("string", "Its address.")},
    columns=(),
)
OTHER = Kind(
    kind="Audit", plural="audits", singular="audit", group="vedette.dev", doc="An audit.", events=(), read=lambda notice: (),
    fields={}, columns=(),
)  # fmt: skip
KINDS = (KIND, OTHER)
THERE = tuple(discovery.of_kind(kind) for kind in KINDS)
ALL = tuple(discovery.of_kind(kind) for kind in plugins.kinds())
NAMESPACES = discovery.of_kind(discovery.NAMESPACE)
AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def test_a_group_lists_its_kinds_only() -> None:
    found = discovery.resources(THERE, "openstack.vedette.dev")
    assert found["groupVersion"] == "openstack.vedette.dev/v1"
    assert found["resources"] == [
        {
            "name": "loadbalancers",
            "singularName": "loadbalancer",
            "namespaced": True,
            "kind": "LoadBalancer",
            "verbs": ["get", "list", "watch"],
            "shortNames": ["lb"],
            "categories": ["openstack"],
        }
    ]
    assert [group["name"] for group in discovery.group_list(THERE)["groups"]] == ["openstack.vedette.dev", "vedette.dev"]
    assert discovery.group(THERE, "vedette.dev")["preferredVersion"]["groupVersion"] == "vedette.dev/v1"


def test_versions_are_in_kubernetes_order_and_the_first_is_preferred() -> None:
    there = [
        discovery.Resource(group="g", version=version, plural=f"p{number}", singular="p", kind="P", namespaced=False)
        for number, version in enumerate(["v1beta1", "v1", "odd", "v2alpha1", "v11", "v1beta10", "v2", "v2alpha1"])
    ]
    assert discovery.versions(there, "g") == ["v11", "v2", "v1", "v1beta10", "v1beta1", "v2alpha1", "odd"]
    found = discovery.group(there, "g")
    assert found["preferredVersion"] == {"groupVersion": "g/v11", "version": "v11"}
    assert [one["name"] for one in discovery.resources(there, "g", "v2alpha1")["resources"]] == ["p3", "p7"]
    (group,) = discovery.aggregated(there, "v2")["items"]
    assert [one["version"] for one in group["versions"]] == discovery.versions(there, "g")
    assert group["versions"][0]["resources"][0]["scope"] == "Cluster"


def test_the_core_group_has_namespaces_without_a_namespace() -> None:
    (resource,) = discovery.resources([NAMESPACES], "")["resources"]
    assert (resource["name"], resource["namespaced"], resource["kind"]) == ("namespaces", False, "Namespace")


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_both_forms_say_the_same(version: str) -> None:
    found = discovery.aggregated(ALL, version)
    assert found["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    for group in found["items"]:
        plain = discovery.resources(ALL, group["metadata"]["name"])["resources"]
        (served,) = group["versions"]
        assert [
            {
                "name": resource["resource"],
                "singularName": resource["singularResource"],
                "namespaced": resource["scope"] == "Namespaced",
                "kind": resource["responseKind"]["kind"],
                **{key: resource[key] for key in ("verbs", "shortNames", "categories") if key in resource},
            }
            for resource in served["resources"]
        ] == plain
    (core,) = discovery.aggregated([NAMESPACES, *THERE], version, core=True)["items"]
    assert core["versions"][0]["resources"][0]["scope"] == "Cluster"


def test_no_two_kinds_answer_to_one_word() -> None:
    words = [
        (kind.group, word) for kind in plugins.kinds() for word in {kind.plural, kind.singular, *kind.short_names}
    ]  # fmt: skip
    assert len(words) == len(set(words))


def test_the_version_reads_as_semver_with_every_key_there() -> None:
    found = discovery.version()
    assert found["gitVersion"].startswith(f"v{found['major']}.{found['minor']}.0+vedette-")
    assert all(isinstance(value, str) for value in found.values())
    assert {"gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"} <= found.keys()


@pytest.fixture
async def client() -> Any:
    @web.middleware
    async def errors(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except NotAcceptable as why:
            return web.Response(status=406, text=str(why))
        return response

    app = web.Application(middlewares=[errors])
    store = MemoryStore(FakeClock())
    app.add_routes(routes(SimpleNamespace(kinds=KINDS, store=store, sources=list)))  # type: ignore[arg-type]
    async with TestClient(TestServer(app)) as client:
        yield client


PATHS = [
    "/version", "/api", "/api/v1",
    "/apis", "/apis/openstack.vedette.dev", "/apis/openstack.vedette.dev/v1", "/apis/vedette.dev/v1",
    "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1",
    "/openapi/v3/apis/openstack.vedette.dev/v1", "/openapi/v3/apis/vedette.dev/v1",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_every_document_is_there_with_a_slash_and_below_a_cluster(client: TestClient[Any, Any], path: str) -> None:
    bodies = []
    for address in (path, path + "/", "/clusters/region-one" + path, "/clusters/*" + path + "/"):
        response = await client.get(address)
        assert (response.status, response.content_type) == (200, "application/json"), address
        bodies.append(await response.json())
    assert bodies[0]
    assert all(body == bodies[0] for body in bodies)


@pytest.mark.parametrize("path", ["/api", "/apis"])
async def test_the_aggregated_form_is_for_who_asks_first_for_it(client: TestClient[Any, Any], path: str) -> None:
    response = await client.get(path, headers={"Accept": AGGREGATED})
    assert response.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert (await response.json())["kind"] == "APIGroupDiscoveryList"
    older = await client.get(path, headers={"Accept": AGGREGATED.partition(",")[2]})
    assert (await older.json())["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    plain = await client.get(path, headers={"Accept": "application/json," + AGGREGATED})
    assert (await plain.json())["kind"] in ("APIVersions", "APIGroupList")
    unknown = await client.get(path, headers={"Accept": AGGREGATED.replace("v=v2", "v=v9")})
    assert (await unknown.json())["kind"] in ("APIVersions", "APIGroupList")


async def test_who_takes_protobuf_alone_is_refused(client: TestClient[Any, Any]) -> None:
    protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    assert (await client.get("/openapi/v2", headers={"Accept": protobuf})).status == 406
    assert (await client.get("/openapi/v2", headers={"Accept": protobuf + ",*/*"})).status == 200


async def test_a_document_may_be_kept_when_its_hash_was_asked_for(client: TestClient[Any, Any]) -> None:
    paths = (await (await client.get("/openapi/v3")).json())["paths"]
    assert paths.keys() == {"api/v1", "apis/openstack.vedette.dev/v1", "apis/vedette.dev/v1"}
    for item in paths.values():
        address = item["serverRelativeURL"]
        assert "immutable" in (await client.get(address)).headers["Cache-Control"]
        assert "Cache-Control" not in (await client.get(address.partition("?")[0])).headers
        assert "Cache-Control" not in (await client.get(address + "0")).headers
