"""Objects of Kubernetes sources under `/clusters/{source}`: kubectl, 1.20 and a recent one, finds them as at their origin.

No cluster is needed: what sources/kubernetes.py would append is appended by hand. Left out: how it comes to be appended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from foreign import resource, route, sources, thing, told
from serving import (
    APIS,
    SECONDS,
    A,
    Asker,
    B,
    Cloud,
    Kubectl,
    Running,
    asking,
    cloud,
    kubectls,
    open_service,
    uuid_of,
    words,
)

from vedette.model.reading import OPENSTACK, VEDETTE, Reading

PROD = "/clusters/prod"
ROUTES = f"{PROD}/apis/route.openshift.io/v1"


# --- what there is ----------------------------------------------------------------------------------------------------

RESOURCES = (
    resource("routes", "Route", "route.openshift.io"),
    resource("pods", "Pod", short=("po",)),
    resource("nodes", "Node", namespaced=False, short=("no",)),
)


async def fill(running: Running) -> None:
    await told(running, *RESOURCES)
    await told(running, route("shop/front"), route("shop/back", host="back.example"), route("infra/front", host="infra.example"))
    await told(
        running,
        thing("Pod", "v1", "shop/web-1", spec={"nodeName": "n1"}, status={"phase": "Running"}),
        thing("Pod", "v1", "jobs/once", spec={"nodeName": "n2"}, status={"phase": "Failed"}),
        thing("Node", "v1", "n1", status={"capacity": {"cpu": "4"}}),
    )
    # Another Vedette, of which the ports are followed.
    await told(running, resource("ports", "Port", OPENSTACK), source="other")
    port = thing(
        "Port", f"{OPENSTACK}/v1", f"{A}/{uuid_of(50)}", labels={"vedette.dev/source": "far"}, status={"status": "ACTIVE"}
    )
    await told(running, port, source="other")
    await running.port(uuid_of(1), name="web")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path, watch={"bookmark_seconds": "1s"}, sources=sources(tmp_path)) as running:
        await fill(running)
        yield running


@pytest.fixture
async def asker(running: Running) -> AsyncIterator[Asker]:
    async with asking(running) as asker:
        yield asker


# --- kubectl ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def kubectl(request: pytest.FixtureRequest, running: Running, tmp_path: Path) -> Kubectl:
    found = kubectls()
    if request.param >= len(found):
        pytest.skip("there is only one kubectl")
    return Kubectl(found[request.param], tmp_path / "kubectl", "--server", running.url + PROD)


@pytest.mark.kubectl
async def test_kubectl_gets_what_there_is_as_at_the_origin(kubectl: Kubectl) -> None:
    found = await kubectl.said("get", "routes", "-A")
    assert found[0] == ["NAMESPACE", "NAME", "AGE"]
    assert [line[:2] for line in found[1:]] == [["infra", "front"], ["shop", "back"], ["shop", "front"]]
    code, out, err = await kubectl.run("get", "routes", "-n", "shop", "front", "-o", "yaml")
    assert (code, err) == (0, "")
    assert out.startswith("apiVersion: route.openshift.io/v1\nkind: Route\n")
    for line in ("  host: shop.example\n", "  namespace: shop\n", "  uid: uid-of-front\n", "    app: front\n"):
        assert line in out
    assert [line[0] for line in await kubectl.said("get", "po", "-n", "shop", "--no-headers")] == ["web-1"]
    assert [line[0] for line in await kubectl.said("get", "nodes", "--no-headers")] == ["n1"]
    assert await kubectl.said("get", "no", "n1", "-o", "jsonpath={.status.capacity.cpu}") == [["4"]]
    assert await kubectl.said("get", "route.route.openshift.io/front", "-n", "infra", "-o", "name") == [
        ["route.route.openshift.io/front"]
    ]
    assert [line[0] for line in await kubectl.said("get", "ns", "--no-headers")] == ["infra", "jobs", "shop"]
    words_of = {line[0] for line in await kubectl.said("api-resources", "--no-headers", "-o", "name")}
    assert words_of == {"namespaces", "nodes", "pods", "routes.route.openshift.io"}
    everything = await kubectl.said("get", "all", "-n", "shop", "-o", "name")
    assert {line[0] for line in everything} == {
        "pod/web-1", "route.route.openshift.io/back", "route.route.openshift.io/front", "node/n1",
    }  # fmt: skip
    described = await kubectl.said("describe", "route", "front", "-n", "shop")
    assert ["Host:", "shop.example"] in described


@pytest.mark.kubectl
async def test_kubectl_selects_sorts_and_pages(kubectl: Kubectl) -> None:
    async def names(*arguments: str) -> list[list[str]]:
        return [line[:2] for line in await kubectl.said("get", "routes", "-A", "--no-headers", *arguments)]

    assert await names("--field-selector", "spec.host=back.example") == [["shop", "back"]]
    assert await names("--field-selector", "metadata.namespace=infra") == [["infra", "front"]]
    assert await names("--field-selector", "metadata.name=front") == [["infra", "front"], ["shop", "front"]]
    assert await names("--selector", "app=back") == [["shop", "back"]]
    assert await names("--sort-by", ".spec.host") == [["shop", "back"], ["infra", "front"], ["shop", "front"]]
    for size in ("1", "2"):
        assert len(await names("--chunk-size", size)) == 3
    assert [
        line[1] for line in await kubectl.said("get", "po", "-A", "--no-headers", "--field-selector", "status.phase!=Running")
    ] == ["once"]


@pytest.mark.kubectl
async def test_kubectl_is_told_what_is_not_there(kubectl: Kubectl) -> None:
    code, out, err = await kubectl.run("get", "route", "none", "-n", "shop")
    assert (code, out, err) == (1, "", 'Error from server (NotFound): routes.route.openshift.io "none" not found\n')
    code, _, err = await kubectl.run("get", "pod", "none", "-n", "shop")
    assert (code, err) == (1, 'Error from server (NotFound): pods "none" not found\n')
    code, _, err = await kubectl.run("get", "ns", "none")
    assert (code, err) == (1, 'Error from server (NotFound): namespaces "none" not found\n')
    code, _, err = await kubectl.run("get", "ports", "-A")
    assert (code, err) == (1, 'error: the server doesn\'t have a resource type "ports"\n')
    code, _, err = await kubectl.run("delete", "route", "front", "-n", "shop")
    assert code == 1
    assert "MethodNotAllowed" in err


@pytest.mark.kubectl
async def test_kubectl_watches_in_another_process(kubectl: Kubectl, running: Running) -> None:
    async with kubectl.watching("get", "routes", "-n", "shop", "-w", "--output-watch-events", "--no-headers") as out:
        assert [(await words(out))[:2] for _ in range(2)] == [["ADDED", "back"], ["ADDED", "front"]]
        await running.until_watched()
        await told(running, route("infra/new"))
        await told(running, route("shop/new"))
        await told(running, route("shop/new", "update", host="new.example"))
        await told(running, route("shop/new", "update", host="new.example"))
        await told(running, route("shop/new", "delete"))
        seen = [(await words(out))[:2] for _ in range(3)]
    assert seen == [["ADDED", "new"], ["MODIFIED", "new"], ["DELETED", "new"]]


@pytest.mark.kubectl
async def test_kubectl_still_finds_our_own_kinds_elsewhere(running: Running, tmp_path: Path) -> None:
    for number, path in enumerate(kubectls()):
        for prefix, wanted in (
            ("", [[A, uuid_of(1)]]),
            ("/clusters/one", [[A, uuid_of(1)]]),
            ("/clusters/other", [[A, uuid_of(50)]]),
            ("/clusters/*", [[A, uuid_of(1)], [A, uuid_of(50)]]),
        ):
            kubectl = Kubectl(path, tmp_path / f"{number}", "--server", running.url + prefix)
            assert [line[:2] for line in await kubectl.said("get", "ports", "-A", "--no-headers")] == wanted
        resources = [line[0] for line in await kubectl.said("get", "resources.vedette.dev", "--no-headers")]
        assert resources == ["ports.openstack.vedette.dev~2fv1", "nodes~2fv1", "pods~2fv1", "routes.route.openshift.io~2fv1"]


async def test_vedette_itself_finds_them_as_well(running: Running) -> None:
    vedette = Path(sys.executable).parent / "vedette"

    async def said(*arguments: str) -> list[list[str]]:
        process = await asyncio.create_subprocess_exec(
            str(vedette), *arguments, "--server", running.url, "--source", "prod",
            env={"PATH": "/usr/bin:/bin"}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return [line.split()[:2] for line in out.decode().splitlines()]

    assert (await said("get", "routes"))[1:] == [["infra", "front"], ["shop", "back"], ["shop", "front"]]
    assert (await said("get", "po", "--field-selector", "spec.nodeName=n1"))[1:] == [["shop", "web-1"]]
    assert [line[0] for line in await said("get", "nodes")] == ["NAME", "n1"]


# --- over HTTP --------------------------------------------------------------------------------------------------------------


async def test_paths_that_mean_nothing_are_not_found(asker: Asker) -> None:
    for path in (
        f"{PROD}/apis/route.openshift.io/v2/routes",
        f"{PROD}/apis/none.example/v1/routes",
        f"{PROD}/apis/none.example/v1",
        f"{PROD}/apis/none.example",
        f"{PROD}/api/v2",
        f"{PROD}/api/v1/services",
        f"{PROD}/api/v1/nodes/none",
        f"{PROD}/api/v1/namespaces/shop/nodes",
        f"{PROD}/api/v1/pods/web-1",
        f"{PROD}{APIS}/ports",
        f"{PROD}/apis/vedette.dev/v1/resources",
        "/clusters/one/apis/route.openshift.io/v1/routes",
        "/clusters/one/api/v1/pods",
        "/clusters/none/api/v1/pods",
        "/apis/route.openshift.io/v1/routes",
        f"{ROUTES}/namespaces/shop/routes/shop%2Ffront",
    ):
        assert (await asker.status(path, 404))["reason"] == "NotFound", path


async def test_lists_have_pages_forms_and_namespaces(asker: Asker, running: Running) -> None:
    first = await asker.json(f"{ROUTES}/routes?limit=2")
    assert (first["kind"], first["apiVersion"]) == ("RouteList", "route.openshift.io/v1")
    await told(running, route("shop/late"))
    last = await asker.json(f"{ROUTES}/routes?limit=2&continue={first['metadata']['continue']}")
    assert [item["spec"]["host"] for item in first["items"] + last["items"]] == ["infra.example", "back.example", "shop.example"]
    assert last["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert await asker.names(f"{ROUTES}/namespaces/shop/routes") == ["back", "front", "late"]
    assert await asker.names(f"{ROUTES}/namespaces/sho/routes") == []
    pods = await asker.json(f"{PROD}/api/v1/pods")
    assert (pods["kind"], pods["apiVersion"]) == ("PodList", "v1")
    table = await asker.json(f"{ROUTES}/routes", headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"})
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Age"]
    assert table["rows"][0]["object"]["metadata"]["namespace"] == "infra"
    partial = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
    one = await asker.json(f"{ROUTES}/namespaces/shop/routes/front", headers=partial)
    assert (one["kind"], one["metadata"]["uid"]) == ("PartialObjectMetadata", "uid-of-front")
    selected = f"{ROUTES}/namespaces/shop/routes?fieldSelector="
    assert await asker.names(selected + "metadata.name=front") == ["front"]
    assert await asker.names(selected + "metadata.namespace=infra") == []
    assert await asker.names(f"{PROD}/api/v1/nodes?fieldSelector=metadata.name=n1") == ["n1"]
    assert await asker.names(f"{ROUTES}/routes?labelSelector=vedette.dev/source=prod,app=back") == ["back"]
    assert "not supported" in (await asker.status(selected + "spec..x=1", 400))["message"]


async def test_a_watch_resumes_where_it_was_cut(asker: Asker, running: Running) -> None:
    listed = await asker.json(f"{ROUTES}/routes")
    at = listed["metadata"]["resourceVersion"]
    await told(running, route("shop/front", "update", host="elsewhere.example"))
    await told(running, thing("Pod", "v1", "shop/web-2"))
    selected = f"{ROUTES}/routes?watch=true&allowWatchBookmarks=true&fieldSelector=spec.host%3Dshop.example&resourceVersion="
    async with asker.watch(selected + at) as stream:
        event = await stream.event()
        assert (event["type"], event["object"]["spec"]["host"]) == ("DELETED", "shop.example")
        assert int(event["object"]["metadata"]["resourceVersion"]) == int(at) + 1
        bookmark = await stream.event()
        assert (bookmark["type"], bookmark["object"]["kind"], bookmark["object"]["apiVersion"]) == (
            "BOOKMARK", "Route", "route.openshift.io/v1",
        )  # fmt: skip
        at = bookmark["object"]["metadata"]["resourceVersion"]
    await told(running, route("shop/front", "update", host="shop.example"))
    async with asker.watch(selected + at) as stream:
        assert await stream.change() == ("ADDED", "front")
        await running.until_watched()
        await told(running, route("shop/front", "delete"))
        assert await stream.change() == ("DELETED", "front")
    async with asker.watch(f"{PROD}/api/v1/nodes?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan") as stream:
        assert await stream.change() == ("ADDED", "n1")


async def test_a_place_that_is_gone_is_expired(asker: Asker) -> None:
    for path in (f"{ROUTES}/routes", f"{PROD}/api/v1/namespaces"):
        async with asker.watch(f"{path}?watch=true&resourceVersion=1") as stream:
            event = await stream.event()
            assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
            assert await stream.rest() == b""
    assert (await asker.status(f"{ROUTES}/routes?resourceVersion=1&resourceVersionMatch=Exact", 410))["reason"] == "Expired"


async def test_namespaces_are_those_of_the_objects_until_they_are_followed(asker: Asker, running: Running) -> None:
    path = f"{PROD}/api/v1/namespaces"
    assert await asker.names(path) == ["infra", "jobs", "shop"]
    assert (await asker.json(f"{path}/shop"))["status"] == {"phase": "Active"}
    assert (await asker.status(f"{path}/none", 404))["message"] == 'namespaces "none" not found'
    async with asker.watch(f"{path}?watch=true") as stream:
        assert [await stream.change() for _ in range(3)] == [("ADDED", "infra"), ("ADDED", "jobs"), ("ADDED", "shop")]
    await told(running, resource("namespaces", "Namespace", namespaced=False, short=("ns",)))
    await told(running, thing("Namespace", "v1", "empty", status={"phase": "Terminating"}))
    assert await asker.names(path) == ["empty"]
    assert (await asker.json(f"{path}/empty"))["status"] == {"phase": "Terminating"}
    assert (await asker.status(f"{path}/shop", 404))["message"] == 'namespaces "shop" not found'
    core = (await asker.json(f"{PROD}/api/v1"))["resources"]
    assert sorted(one["name"] for one in core) == ["namespaces", "nodes", "pods"]


async def test_discovery_says_the_same_in_both_forms(asker: Asker) -> None:
    groups = await asker.json(f"{PROD}/apis")
    assert [group["name"] for group in groups["groups"]] == ["route.openshift.io"]
    assert (await asker.json(f"{PROD}/apis/route.openshift.io"))["preferredVersion"]["version"] == "v1"
    (one,) = (await asker.json(f"{ROUTES}/"))["resources"]
    assert one == {
        "name": "routes", "singularName": "route", "namespaced": True, "kind": "Route", "verbs": ["get", "list", "watch"],
        "categories": ["all"],
    }  # fmt: skip
    aggregated = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    (group,) = (await asker.json(f"{PROD}/apis", headers=aggregated))["items"]
    assert group["versions"][0]["resources"][0]["responseKind"] == {
        "group": "route.openshift.io",
        "version": "v1",
        "kind": "Route",
    }
    (core,) = (await asker.json(f"{PROD}/api", headers=aggregated))["items"]
    assert {one["resource"]: one["scope"] for one in core["versions"][0]["resources"]} == {
        "namespaces": "Cluster", "nodes": "Cluster", "pods": "Namespaced",
    }  # fmt: skip
    assert (await asker.json(f"{PROD}/openapi/v3")) == {"paths": {}}
    assert (await asker.json(f"{PROD}/openapi/v2"))["swagger"] == "2.0"
    assert (await asker.json(f"{PROD}/version"))["major"] == "1"
    of_all = [group["name"] for group in (await asker.json("/clusters/*/apis"))["groups"]]
    assert of_all == [OPENSTACK, VEDETTE, "route.openshift.io"] or set(of_all) == {OPENSTACK, VEDETTE, "route.openshift.io"}
    assert VEDETTE in [group["name"] for group in (await asker.json("/apis"))["groups"]]


async def test_another_vedettes_ports_keep_what_they_say_there(asker: Asker) -> None:
    name = uuid_of(50)
    port = await asker.json(f"/clusters/other{APIS}/namespaces/{A}/ports/{name}")
    assert port["metadata"]["labels"] == {"vedette.dev/source": "far"}
    assert port["metadata"]["annotations"]["vedette.dev/source"] == "other"
    assert await asker.names(f"/clusters/other{APIS}/ports?fieldSelector=status.status=ACTIVE") == [name]
    assert await asker.names(f"/clusters/*{APIS}/ports?fieldSelector=status.status=ACTIVE") == [name]
    assert await asker.names(f"{APIS}/ports") == [uuid_of(1)], "the default source alone"


async def test_all_sources_together_show_each_others_resources(asker: Asker, running: Running) -> None:
    await told(running, resource("routes", "Route", "route.openshift.io"), source="other")
    await told(running, route("shop/front", host="far.example"), source="other")
    found = await asker.json("/clusters/*/apis/route.openshift.io/v1/routes?fieldSelector=metadata.name=front")
    told_by = [(item["metadata"]["annotations"]["vedette.dev/source"], item["spec"]["host"]) for item in found["items"]]
    assert told_by == [("other", "far.example"), ("prod", "infra.example"), ("prod", "shop.example")]
    only = "/clusters/*/apis/route.openshift.io/v1/namespaces/shop/routes?labelSelector=vedette.dev/source=other"
    assert await asker.names(only) == ["front"]


async def test_what_vedette_owns_is_of_every_source(asker: Asker, running: Running) -> None:
    found = await asker.json("/apis/vedette.dev/v1/resources")
    assert sorted({item["metadata"]["labels"]["vedette.dev/source"] for item in found["items"]}) == ["other", "prod"]
    own = Reading(kind="Resource", group=VEDETTE, id="mine", verb="update", as_of=1, fields={"plural": "mine"})
    await told(running, own, source="vedette")
    assert await asker.names("/apis/vedette.dev/v1/resources?labelSelector=vedette.dev/source=vedette") == ["mine"]
    assert len(await asker.names("/clusters/one/apis/vedette.dev/v1/resources")) == 0


async def test_odd_objects_and_odd_resources_are_served_or_passed_over(asker: Asker, running: Running) -> None:
    odd = Reading(kind="Resource", group=VEDETTE, id="odd", verb="update", as_of=1, fields={"plural": 5})
    await told(running, odd, thing("Pod", "v1", "shop/odd", labels=7, status="no object", spec=None))
    assert await asker.names(f"{PROD}/api/v1/namespaces/shop/pods?labelSelector=!app") == ["odd"]
    assert await asker.names(f"{PROD}/api/v1/pods?fieldSelector=status=no%20object") == ["odd"]
    await told(running, thing("Port", f"{OPENSTACK}/v1", f"{B}/odd", status=[1]), source="other")
    table = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    assert len((await asker.json(f"/clusters/*{APIS}/ports", headers=table))["rows"]) == 3
    assert await asker.names(f"/clusters/*{APIS}/ports?fieldSelector=status.status%3D") == ["odd"]


# --- who may see it ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Cloud]:
    async with cloud(folder, sources=sources(folder)) as found:
        await told(found, *RESOURCES)
        await told(found, route("shop/front", project=A), route("infra/front"), route("team-b/front", project=B))
        await told(found, thing("Node", "v1", "n1"))
        yield found


async def test_tenants_see_the_namespaces_that_are_mapped_to_their_project(tmp_path: Path) -> None:
    async with place(tmp_path) as found, asking(found) as asker:
        alice, root = {"headers": found.token("alice")}, {"headers": found.token("root")}
        assert len(await asker.names(f"{ROUTES}/routes", **root)) == 3
        listed = await asker.json(f"{ROUTES}/routes", **alice)
        assert [item["metadata"]["namespace"] for item in listed["items"]] == ["shop"]
        assert await asker.names(f"{PROD}/api/v1/namespaces", **alice) == ["shop"]
        assert await asker.names(f"{PROD}/api/v1/nodes", **alice) == []
        assert await asker.names(f"{ROUTES}/namespaces/infra/routes", **alice) == []
        for path in (f"{ROUTES}/namespaces/infra/routes/front", f"{PROD}/api/v1/nodes/n1", f"{PROD}/api/v1/namespaces/infra"):
            await asker.status(path, 404, **alice)
        assert (await asker.json(f"{ROUTES}/namespaces/shop/routes/front", **alice))["spec"]["host"] == "shop.example"
        assert await asker.names("/apis/vedette.dev/v1/resources", **alice) == []
        assert [one["name"] for one in (await asker.json(ROUTES, **alice))["resources"]] == ["routes"]
        await asker.status(f"{ROUTES}/routes", 401)
        at = listed["metadata"]["resourceVersion"]
        async with (
            asker.watch(f"{ROUTES}/routes?watch=true&resourceVersion={at}", **alice) as mine,
            asker.watch(f"{ROUTES}/routes?watch=true&resourceVersion={at}", **root) as every,
        ):
            await found.until_watched(2)
            await told(found, route("infra/front", "update", host="a.example"))
            await told(found, route("team-b/front", "update", host="b.example", project=A))
            await told(found, route("shop/front", "update", host="c.example"))
            assert [await mine.change() for _ in range(2)] == [("ADDED", "front"), ("DELETED", "front")]
            seen = [json.loads(await every.line()) for _ in range(3)]
            # What a namespace is mapped to is no part of an object's name.
            assert [(event["type"], event["object"]["spec"]["host"]) for event in seen] == [
                ("MODIFIED", "a.example"), ("MODIFIED", "b.example"), ("MODIFIED", "c.example"),
            ]  # fmt: skip


async def test_what_another_vedette_owns_is_not_listed_with_ours(running: Running, asker: Asker) -> None:
    await told(running, resource("handlers", "Handler", VEDETTE, namespaced=False), source="other")
    await told(running, thing("Handler", f"{VEDETTE}/v1", "theirs", status={"id": "theirs"}), source="other")
    assert await asker.names(f"/apis/{VEDETTE}/v1/handlers") == []
    assert await asker.names(f"/clusters/other/apis/{VEDETTE}/v1/handlers") == ["theirs"]
    assert f"handlers.{VEDETTE}~2fv1" in await asker.names(f"/apis/{VEDETTE}/v1/resources")
