"""Real clients read the documents: every kubectl there is, kr8s and kubernetes_asyncio.

kubectls are taken from VEDETTE_KUBECTL (paths, separated as in PATH) and from PATH. Without any these tests are skipped; in CI
(the variable CI is set) they fail.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kr8s.asyncio
import kubernetes_asyncio.client as kubernetes
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from vedette.api.accept import accepted, truthy
from vedette.api.discovery import NAMESPACE
from vedette.api.routes.discovery import routes
from vedette.api.status import of_code, status
from vedette.api.table import row, table
from vedette.errors import NotFound, VedetteError
from vedette.model.selector import parse
from vedette.ports import Column, Field, Kind
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

KIND = Kind(
    kind="Port",
    plural="ports",
    singular="port",
    short_names=("prt",),
    doc="A virtual network card.",
    events=(),
    read=lambda notice: (),
    fields={
        "name": Field("string", "Its name."),
        "status": Field("string", "ACTIVE or DOWN."),
        "fixed_ips": Field("array", "Its addresses: subnet_id and ip_address of each."),
        "binding:host_id": Field("string", "The host it is bound to.", admin=True),
    },
    columns=(
        Column("Port-Name", ("name",)),
        Column("Fixed-IPs", ("fixed_ips", "*", "ip_address")),
        Column("Status", ("status",)),
        Column("Host", ("binding:host_id",), priority=1),
    ),
)
GROUP = KIND.group
REVISION = "1795187946000042"


def port(id_: str, project: str, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Port",
        "metadata": {
            "resourceVersion": REVISION, "name": id_, "namespace": project, "uid": id_,
            "creationTimestamp": "2020-01-01T00:00:00Z", "labels": {"vedette.dev/source": "region-one"},
        },
        "status": {"id": id_, **fields},
    }  # fmt: skip


PORTS = (
    port("p1", "blue", name="web", status="DOWN", fixed_ips=[{"ip_address": "10.0.0.5"}, {"ip_address": "fd00::1"}]),
    port("p2", "red", name="", status="ACTIVE", **{"binding:host_id": "node-1"}),
)


def service() -> web.Application:
    """The routes under test, and a list of two ports so that there is something to get."""

    @web.middleware
    async def errors(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException as why:
            code, headers, body = of_code(why.status, why.reason)
            return web.Response(status=code, headers=headers, body=body, content_type="application/json")
        except VedetteError as why:
            code, headers, body = status(why)
            return web.Response(status=code, headers=headers, body=body, content_type="application/json")
        return response

    def selected(request: web.Request) -> list[bytes]:
        selector = parse(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        namespace = request.match_info.get("namespace")
        return [
            msgspec.json.encode(item)
            for item in PORTS
            if namespace in (None, item["metadata"]["namespace"])
            and selector.matches(
                item["metadata"]["name"], item["metadata"]["namespace"], item["metadata"]["labels"], item["status"]
            )
        ]

    async def many(request: web.Request) -> web.StreamResponse:
        form = accepted(request.headers.get("Accept", "")).form
        include = request.query.get("includeObject", "Metadata")
        place = {"resourceVersion": REVISION}
        bodies = selected(request)
        if truthy(request.query.get("watch", "")):
            response = web.StreamResponse()
            response.content_type = "application/json"
            await response.prepare(request)
            for body in bodies:
                item = table(KIND, [row(KIND, body, include)], place) if form == "table" else msgspec.Raw(body)
                await response.write(msgspec.json.encode({"type": "MODIFIED", "object": item}) + b"\n")
            return response
        if form == "table":
            answer: dict[str, Any] = table(KIND, [row(KIND, body, include) for body in bodies], place)
        else:
            items = [msgspec.Raw(body) for body in bodies]
            answer = {"kind": "PortList", "apiVersion": f"{GROUP}/v1", "metadata": place, "items": items}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def one(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        for body in selected(request):
            if msgspec.json.decode(body)["metadata"]["name"] == name:
                if accepted(request.headers.get("Accept", "")).form == "table":
                    body = msgspec.json.encode(table(KIND, [row(KIND, body)], {"resourceVersion": REVISION}))
                return web.Response(body=body, content_type="application/json")
        code, headers, body = status(NotFound(""), group=GROUP, kind="ports", name=name)
        return web.Response(status=code, headers=headers, body=body, content_type="application/json")

    async def namespace(request: web.Request) -> web.Response:
        item = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": request.match_info["name"]},
            "status": {"phase": "Active"},
        }
        body = msgspec.json.encode(item)
        if accepted(request.headers.get("Accept", "")).form == "table":
            body = msgspec.json.encode(table(NAMESPACE, [row(NAMESPACE, body)], {}))
        return web.Response(body=body, content_type="application/json")

    app = web.Application(middlewares=[errors])
    needs = SimpleNamespace(kinds=(KIND,), store=MemoryStore(FakeClock()), sources=list)
    app.add_routes(routes(needs))  # type: ignore[arg-type]
    for prefix in ("", "/clusters/{source}"):
        base = f"{prefix}/apis/{GROUP}/v1"
        app.add_routes(
            [
                web.get(f"{base}/ports", many),
                web.get(f"{base}/namespaces/{{namespace}}/ports", many),
                web.get(f"{base}/namespaces/{{namespace}}/ports/{{name}}", one),
                web.get(f"{prefix}/api/v1/namespaces/{{name}}", namespace),
            ]
        )
    return app


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async with TestServer(service()) as server:
        yield server


# --- kubectl ---------------------------------------------------------------------------------------------------------------


def kubectls() -> list[str]:
    named = [path for path in os.environ.get("VEDETTE_KUBECTL", "").split(os.pathsep) if path]
    return [*named, *(found for found in [shutil.which("kubectl")] if found)]


class Kubectl:
    """One kubectl, with nothing of this machine's: its own home, configuration and cache."""

    def __init__(self, path: str, server: str, home: Path) -> None:
        self._command = (path, "--server", server, "--cache-dir", str(home / "cache"))
        self._environment = {"HOME": str(home), "KUBECONFIG": str(home / "config"), "PATH": os.environ.get("PATH", "")}
        (home / "config").touch()

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def said(self, *arguments: str) -> list[list[str]]:
        """The words of each line of a call that succeeds without a warning."""
        code, out, err = await self.run(*arguments)
        assert (code, err) == (0, "")
        return [line.split() for line in out.splitlines()]

    async def minor(self) -> int:
        code, out, _ = await self.run("version", "--client", "-o", "json")
        assert code == 0
        return int(msgspec.json.decode(out)["clientVersion"]["gitVersion"].split(".")[1])


@pytest.fixture(params=["", "/clusters/region-one"], ids=["root", "cluster"])
async def kubectl_of(request: pytest.FixtureRequest, server: TestServer, tmp_path: Path) -> list[Kubectl]:
    found = kubectls()
    if not found:
        if os.environ.get("CI"):
            pytest.fail("there is no kubectl")
        pytest.skip("there is no kubectl")
    homes = [tmp_path / str(number) for number in range(len(found))]
    for home in homes:
        home.mkdir()
    return [Kubectl(path, str(server.make_url(request.param)), home) for path, home in zip(found, homes, strict=True)]


HEADER = ["NAME", "PORT-NAME", "FIXED-IPS", "STATUS", "AGE"]


@pytest.mark.kubectl
async def test_kubectl_lists_the_resources(kubectl_of: list[Kubectl]) -> None:
    for kubectl in kubectl_of:
        assert await kubectl.said("api-resources", "--no-headers") == [
            ["namespaces", "ns", "v1", "false", "Namespace"],
            ["ports", "prt", f"{GROUP}/v1", "true", "Port"],
        ]
        assert sorted(await kubectl.said("api-versions")) == [[f"{GROUP}/v1"], ["v1"]]


@pytest.mark.kubectl
async def test_kubectl_gets_by_every_name_of_the_kind(kubectl_of: list[Kubectl]) -> None:
    for kubectl in kubectl_of:
        for word in ("port", "ports", "prt", "Port", f"ports.{GROUP}", f"ports.v1.{GROUP}", "openstack"):
            found = await kubectl.said("get", word, "-n", "blue")
            assert [line[:4] for line in found] == [HEADER[:4], [found[1][0], "web", "10.0.0.5,fd00::1", "DOWN"]]
            assert found[1][0] in ("p1", f"port.{GROUP}/p1")


@pytest.mark.kubectl
async def test_kubectl_prints_the_table_in_every_way(kubectl_of: list[Kubectl]) -> None:
    for kubectl in kubectl_of:
        everywhere = await kubectl.said("get", "ports", "-A")
        assert everywhere[0] == ["NAMESPACE", *HEADER]
        assert [line[:5] for line in everywhere[1:]] == [
            ["blue", "p1", "web", "10.0.0.5,fd00::1", "DOWN"],
            ["red", "p2", "<none>", "<none>", "ACTIVE"],
        ]
        assert all(line[5].rstrip("dy0123456789") == "" for line in everywhere[1:])
        assert (await kubectl.said("get", "ports", "-A", "-o", "wide"))[0][5] == "HOST"
        ordered = await kubectl.said("get", "ports", "-A", "--sort-by", ".status.status", "--no-headers")
        assert [line[1] for line in ordered] == ["p2", "p1"]
        watched = await kubectl.said("get", "ports", "-A", "-w")
        assert [line[1] for line in watched] == ["NAME", "p1", "p2", "p1", "p2"]
        only = await kubectl.said("get", "ports", "-A", "--watch-only", "--output-watch-events")
        assert [line[:3] for line in only] == [
            ["EVENT", "NAMESPACE", "NAME"],
            ["MODIFIED", "blue", "p1"],
            ["MODIFIED", "red", "p2"],
        ]
        labelled = await kubectl.said("get", "ports", "-A", "-L", "vedette.dev/source", "--no-headers")
        assert [line[-1] for line in labelled] == ["region-one", "region-one"]


@pytest.mark.kubectl
async def test_kubectl_selects(kubectl_of: list[Kubectl]) -> None:
    for kubectl in kubectl_of:
        for selector, names in (("status.fixed_ips.ip_address=fd00::1", [["p1"]]), ("status.status!=DOWN", [["p2"]])):
            found = await kubectl.said(
                "get", "ports", "-A", "--field-selector", selector, "-o", "jsonpath={.items[*].metadata.name}"
            )
            assert found == names
        assert await kubectl.said("get", "ports", "-n", "red", "-l", "vedette.dev/source in (region-one)", "-o", "name") == [
            [f"port.{GROUP}/p2"]
        ]
        code, _, err = await kubectl.run("get", "ports", "-A", "--field-selector", "spec.x=1")
        assert code == 1
        assert "field label not supported" in err


@pytest.mark.kubectl
async def test_kubectl_tells_of_an_object_that_is_not_there(kubectl_of: list[Kubectl]) -> None:
    for kubectl in kubectl_of:
        code, out, err = await kubectl.run("get", "port", "p9", "-n", "blue")
        assert (code, out, err) == (1, "", f'Error from server (NotFound): ports.{GROUP} "p9" not found\n')
        code, _, err = await kubectl.run("delete", "port", "p1", "-n", "blue")
        assert code == 1
        assert "MethodNotAllowed" in err


@pytest.mark.kubectl
async def test_kubectl_describes_and_tells_the_version(kubectl_of: list[Kubectl]) -> None:
    for kubectl in kubectl_of:
        described = await kubectl.said("describe", "port", "p1", "-n", "blue")
        assert ["Name:", "p1"] in described
        code, out, _ = await kubectl.run("version", "-o", "json")
        assert code == 0
        assert "+vedette-" in msgspec.json.decode(out)["serverVersion"]["gitVersion"]


@pytest.mark.kubectl
async def test_a_recent_kubectl_explains(kubectl_of: list[Kubectl]) -> None:
    recent = [kubectl for kubectl in kubectl_of if await kubectl.minor() >= 29]
    if not recent:
        pytest.skip("every kubectl here is older than 1.29: explain reads Swagger in protobuf")
    for kubectl in recent:
        code, out, err = await kubectl.run("explain", "port.status.fixed_ips")
        assert (code, err) == (0, "")
        assert "Its addresses: subnet_id and ip_address of each." in out
        _, out, _ = await kubectl.run("explain", "port", "--recursive")
        assert "A virtual network card." in out
        assert "binding:host_id" in out
        _, out, _ = await kubectl.run("explain", "port.status.binding:host_id")
        assert "Shown to admins only." in out
        _, out, _ = await kubectl.run("explain", "ns")
        assert "A project that the caller may look into" in out


# --- Python clients --------------------------------------------------------------------------------------------------------


async def test_kr8s_finds_the_kind_and_gets(server: TestServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    api = await kr8s.asyncio.api(url=str(server.make_url("")).rstrip("/"))
    assert "+vedette-" in (await api.version())["gitVersion"]
    assert {resource["name"] for resource in await api.api_resources()} == {"namespaces", "ports"}
    found = [item async for item in api.get(f"ports.{GROUP}", namespace=kr8s.ALL)]
    assert [(item.name, item.namespace) for item in found] == [("p1", "blue"), ("p2", "red")]


async def test_kubernetes_asyncio_reads_every_document(server: TestServer) -> None:
    configuration = kubernetes.Configuration(host=str(server.make_url("")).rstrip("/"))
    async with kubernetes.ApiClient(configuration) as client:
        version = await kubernetes.VersionApi(client).get_code()
        assert (version.major, int(version.minor) >= 28) == ("1", True)
        assert (await kubernetes.CoreApi(client).get_api_versions()).versions == ["v1"]
        core = await kubernetes.CoreV1Api(client).get_api_resources()
        assert [resource.name for resource in core.resources] == ["namespaces"]
        (group,) = (await kubernetes.ApisApi(client).get_api_versions()).groups
        assert group.preferred_version.group_version == f"{GROUP}/v1"
        objects = kubernetes.CustomObjectsApi(client)
        (resource,) = (await objects.get_api_resources(GROUP, "v1")).resources
        assert (resource.name, resource.short_names, resource.categories) == ("ports", ["prt"], ["openstack"])
        found = await objects.list_namespaced_custom_object(GROUP, "v1", "blue", "ports")
        assert [item["metadata"]["name"] for item in found["items"]] == ["p1"]
