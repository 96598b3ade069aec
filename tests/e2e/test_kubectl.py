"""kubectl, 1.20 and a recent one, against the whole service: everything a person types, and a watch in another process.

kubectls come from VEDETTE_KUBECTL and PATH. Left out: discovery and schemas by themselves (tests/unit/test_discovery_clients.py).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serving import (
    GROUP,
    HOST,
    SECONDS,
    A,
    B,
    Cloud,
    Kubectl,
    Running,
    asking,
    cloud,
    instance,
    kubectls,
    network,
    open_service,
    uuid_of,
    words,
)

from vedette import plugins

pytestmark = pytest.mark.kubectl


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path, watch={"bookmark_seconds": "1s"}) as running:
        await running.port(uuid_of(1), name="web", status="ACTIVE")
        await running.port(uuid_of(2), project=B, name="db")
        await running.tell("network.create.end", {"network": network(uuid_of(3))})
        await running.tell("compute.instance.create.end", instance(uuid_of(4)))
        await running.tell("octavia.loadbalancer.create.end", {"loadbalancer_id": uuid_of(5), "project_id": A, "name": "lb"})
        address = {"id": uuid_of(6), "project_id": A, "floating_ip_address": "192.0.2.6", "status": "ACTIVE"}
        await running.tell("floatingip.create.end", {"floatingip": address})
        group = {"id": uuid_of(7), "project_id": A, "name": "default", "security_group_rules": []}
        await running.tell("security_group.create.end", {"security_group": group})
        yield running


@pytest.fixture(params=[0, 1], ids=["first", "second"])
async def kubectl(request: pytest.FixtureRequest, running: Running, tmp_path: Path) -> Kubectl:
    found = kubectls()
    if request.param >= len(found):
        pytest.skip("there is only one kubectl")
    return Kubectl(found[request.param], tmp_path / "kubectl", "--server", running.url)


HEADER = ["NAME", "PORT-NAME", "MAC", "FIXED-IPS", "STATUS", "AGE"]


async def test_get_in_every_way(kubectl: Kubectl) -> None:
    found = await kubectl.said("get", "ports", "-A")
    assert found[0] == ["NAMESPACE", *HEADER]
    assert [line[:6] for line in found[1:]] == [
        [A, uuid_of(1), "web", "fa:16:3e:00:00:01", "10.0.0.5", "ACTIVE"],
        [B, uuid_of(2), "db", "fa:16:3e:00:00:01", "10.0.0.5", "DOWN"],
    ]
    wide = await kubectl.said("get", "ports", "-n", A, "-o", "wide")
    assert wide[0][5:] == ["AGE", "DEVICE", "OWNER", "NETWORK", "HOST"] or wide[0][5:] == [
        "DEVICE",
        "OWNER",
        "NETWORK",
        "HOST",
        "AGE",
    ]
    assert HOST in wide[1]
    assert await kubectl.said("get", "port", uuid_of(1), "-n", A, "-o", "jsonpath={.status.name} {.metadata.namespace}") == [
        ["web", A]
    ]
    assert await kubectl.said("get", "ports", "-A", "-o", "name") == [
        [f"port.{GROUP}/{uuid_of(1)}"],
        [f"port.{GROUP}/{uuid_of(2)}"],
    ]
    code, out, err = await kubectl.run("get", "port", uuid_of(1), "-n", A, "-o", "yaml")
    assert (code, err) == (0, "")
    assert f"apiVersion: {GROUP}/v1\n" in out
    assert f"  binding:host_id: {HOST}\n" in out
    code, out, err = await kubectl.run("get", "ports", "-A", "-o", "json")
    assert (code, len(json.loads(out)["items"])) == (0, 2)
    assert await kubectl.said("get", "ports", "-A", "-o", "custom-columns=N:.status.name", "--no-headers") == [["web"], ["db"]]


async def test_select_sort_and_pages(kubectl: Kubectl) -> None:
    async def names(*arguments: str) -> list[str]:
        return [line[1] for line in await kubectl.said("get", "ports", "-A", "--no-headers", *arguments)]

    assert await names("--field-selector", "status.status=ACTIVE") == [uuid_of(1)]
    assert await names("--field-selector", "status.status!=ACTIVE") == [uuid_of(2)]
    assert await names("--field-selector", f"metadata.name={uuid_of(2)}") == [uuid_of(2)]
    assert await names("--selector", "vedette.dev/source=one") == [uuid_of(1), uuid_of(2)]
    assert await names("--sort-by", ".status.name") == [uuid_of(2), uuid_of(1)]
    for size in ("1", "2", "0"):
        assert await names("--chunk-size", size) == [uuid_of(1), uuid_of(2)]
    code, out, err = await kubectl.run("get", "ports", "-A", "-l", "vedette.dev/source!=one")
    assert (code, out, err) == (0, "", "No resources found\n")


async def test_kinds_by_short_names_several_at_once_and_the_category(kubectl: Kubectl) -> None:
    found = await kubectl.said("get", "lb,fip,sg,net", "-n", A, "--no-headers")
    assert [line[0].partition(".")[0] for line in found if line] == ["loadbalancer", "floatingip", "securitygroup", "network"]
    everything = await kubectl.said("get", "openstack", "-n", A, "-o", "name")
    assert {line[0].partition(".")[0] for line in everything} == {
        "port", "server", "network", "loadbalancer", "floatingip", "securitygroup",
    }  # fmt: skip
    resources = await kubectl.said("api-resources", "--no-headers", "-o", "name")
    assert [f"ports.{GROUP}"] in resources
    assert ["namespaces"] in resources
    assert len(resources) == len(plugins.kinds()) + 1
    assert [line[0] for line in await kubectl.said("get", "ns", "--no-headers")] == [A, B, "no-project"]
    assert (await kubectl.said("get", "ns", A, "--no-headers"))[0][:2] == [A, "Active"]


async def test_describe(kubectl: Kubectl) -> None:
    described = await kubectl.said("describe", "port", uuid_of(1), "-n", A)
    assert ["Name:", uuid_of(1)] in described
    assert ["Namespace:", A] in described
    assert ["Status:", "ACTIVE"] in described
    assert ["Name:", uuid_of(2)] in await kubectl.said("describe", "ports", "-n", B)


async def test_what_is_not_there_and_what_can_not_be_done(kubectl: Kubectl) -> None:
    missing = uuid_of(99)
    code, out, err = await kubectl.run("get", "port", missing, "-n", A)
    assert (code, out, err) == (1, "", f'Error from server (NotFound): ports.{GROUP} "{missing}" not found\n')
    assert await kubectl.said("get", "port", missing, "-n", A, "--ignore-not-found") == []
    code, _, err = await kubectl.run("get", "ns", "nobody")
    assert (code, err) == (1, 'Error from server (NotFound): namespaces "nobody" not found\n')
    code, _, err = await kubectl.run("delete", "port", uuid_of(1), "-n", A)
    assert code == 1
    assert "MethodNotAllowed" in err
    code, _, err = await kubectl.run("get", "ports", "-A", "--field-selector", "spec.x=1")
    assert code == 1
    assert "field label not supported" in err
    code, out, err = await kubectl.run("get", "ports")
    assert (code, out, err) == (0, "", "No resources found in default namespace.\n")


async def test_a_watch_in_another_process_sees_every_change(kubectl: Kubectl, running: Running) -> None:
    async with kubectl.watching("get", "ports", "-A", "-w", "--output-watch-events") as out:
        assert await words(out) == ["EVENT", "NAMESPACE", *HEADER]
        assert [(await words(out))[:3] for _ in range(2)] == [["ADDED", A, uuid_of(1)], ["ADDED", B, uuid_of(2)]]
        await running.until_watched()
        await running.port(uuid_of(9), name="new")
        await running.port(uuid_of(9), "update", name="newer")
        await running.port(uuid_of(9), "delete", name="newer")
        seen = [(await words(out))[:4] for _ in range(3)]
    assert seen == [["ADDED", A, uuid_of(9), "new"], ["MODIFIED", A, uuid_of(9), "newer"], ["DELETED", A, uuid_of(9), "newer"]]


async def test_a_watch_of_one_object_and_of_a_selection_and_of_namespaces(kubectl: Kubectl, running: Running) -> None:
    async with (
        kubectl.watching("get", "port", uuid_of(1), "-n", A, "-w", "--no-headers") as one,
        kubectl.watching("get", "ports", "-A", "--watch-only", "--field-selector", "status.status=DOWN", "-o", "name") as down,
        kubectl.watching("get", "ns", A, "-w", "--no-headers") as namespace,
    ):
        assert (await words(one))[0] == uuid_of(1)
        assert (await words(namespace))[:2] == [A, "Active"]
        await running.until_watched(3)
        await running.port(uuid_of(2), "update", project=B, name="other")
        await running.port(uuid_of(1), "update", status="DOWN", name="web")
        assert (await words(one))[4] == "DOWN"
        assert [await words(down), await words(down)] == [[f"port.{GROUP}/{uuid_of(2)}"], [f"port.{GROUP}/{uuid_of(1)}"]]
        await running.tell("identity.project.created", {"resource_info": B})
        await running.tell("identity.project.created", {"resource_info": A})
        assert (await words(namespace))[:2] == [A, "Active"]


async def test_a_watch_ends_with_the_service(kubectl: Kubectl, running: Running) -> None:
    process = await kubectl.start("get", "ports", "-A", "-w", "-o", "name")
    await running.until_watched()
    await running.service.stop()
    async with asyncio.timeout(SECONDS):
        out, _ = await process.communicate()
    assert uuid_of(1) in out.decode()


async def test_a_recent_kubectl_waits_and_explains(kubectl: Kubectl, running: Running) -> None:
    if await kubectl.minor() < 29:
        pytest.skip("wait --for=jsonpath came with 1.23, explain by OpenAPI v3 with 1.29")
    process = await kubectl.start(
        "wait", f"port/{uuid_of(2)}", "-n", B, "--for=jsonpath={.status.status}=ACTIVE", "--timeout=60s"
    )
    await running.until_watched()
    await running.port(uuid_of(2), "update", project=B, name="db", status="ACTIVE")
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (0, f"port.{GROUP}/{uuid_of(2)} condition met\n"), err
    process = await kubectl.start("wait", f"port/{uuid_of(2)}", "-n", B, "--for=delete", "--timeout=60s")
    await running.until_watched()
    await running.port(uuid_of(2), "delete", project=B)
    async with asyncio.timeout(SECONDS):
        await process.communicate()
    assert process.returncode == 0
    code, out_text, err_text = await kubectl.run("explain", "port.status.fixed_ips")
    assert (code, err_text) == (0, "")
    assert "Its addresses" in out_text
    assert "Nova server" in (await kubectl.run("explain", "servers"))[1]


async def test_one_source_and_all_of_them(running: Running, tmp_path: Path) -> None:
    for number, path in enumerate(kubectls()):
        for source in ("one", "*"):
            kubectl = Kubectl(path, tmp_path / f"{number}", "--server", f"{running.url}/clusters/{source}")
            assert [line[1] for line in await kubectl.said("get", "ports", "-A", "--no-headers")] == [uuid_of(1), uuid_of(2)]
        kubectl = Kubectl(path, tmp_path / f"{number}", "--server", f"{running.url}/clusters/none")
        code, _, err = await kubectl.run("get", "ports", "-A")
        assert code == 1
        assert "no source is called 'none'" in err


# --- with Keystone ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path) as place:
        yield place


def signed_in(place: Cloud, who: str, project: str, home: Path) -> dict[str, str]:
    """The environment in which `vedette` finds who we are."""
    return {
        "HOME": str(home),
        "OS_AUTH_URL": place.keystone.url,
        "OS_USERNAME": who,
        "OS_PASSWORD": f"{who}-password",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_ID": project,
    }


async def test_a_kubeconfig_gets_a_tenant_in_and_its_namespace_is_the_project(place: Cloud, tmp_path: Path) -> None:
    await place.port(uuid_of(1), name="mine")
    await place.port(uuid_of(2), project=B, name="other")
    vedette = Path(sys.executable).parent / "vedette"
    environ = signed_in(place, "alice", A, tmp_path)
    file = tmp_path / "kubeconfig"
    made = await asyncio.create_subprocess_exec(
        str(vedette), "kubeconfig", "--server", place.url, "--ca", str(place.authority.ca), "--write", str(file),
        env={"PATH": "/usr/bin:/bin", **environ}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(SECONDS):
        _, err = await made.communicate()
    assert made.returncode == 0, err.decode()
    assert "alice-password" not in file.read_text()
    for number, path in enumerate(kubectls()):
        kubectl = Kubectl(path, tmp_path / str(number), "--kubeconfig", str(file), **environ)
        assert [line[:2] for line in await kubectl.said("get", "ports", "--no-headers")] == [[uuid_of(1), "mine"]]
        assert [line[:2] for line in await kubectl.said("get", "ports", "-A", "--no-headers")] == [[A, uuid_of(1)]]
        assert [line[0] for line in await kubectl.said("get", "ns", "--no-headers")] == [A]
        code, _, err_text = await kubectl.run("get", "port", uuid_of(2), "-n", B)
        assert code == 1
        # Recent ones look whether the namespace is there, too.
        assert err_text in (
            f'Error from server (NotFound): ports.{GROUP} "{uuid_of(2)}" not found\n',
            f'Error from server (NotFound): namespaces "{B}" not found\n',
        )
        code, _, err_text = await kubectl.run("get", "--raw", "/v1/status")
        assert code == 1
        assert err_text == "Error from server (Forbidden): this needs an admin role\n"
        wide = await kubectl.run("get", "ports", "-o", "wide")
        assert HOST not in wide[1]
        async with kubectl.watching("get", "ports", "-w", "--no-headers") as out:
            assert (await words(out))[1] == "mine"
            await place.until_watched()
            await place.port(uuid_of(2), "update", project=B, name=f"other-{number}")
            await place.port(uuid_of(10 + number), name=f"new-{number}")
            assert (await words(out))[:2] == [uuid_of(10 + number), f"new-{number}"]
        await place.until_unwatched()
        await place.port(uuid_of(10 + number), "delete")


async def test_a_token_that_is_not_valid_is_unauthorized(place: Cloud, tmp_path: Path) -> None:
    for number, path in enumerate(kubectls()):
        kubectl = Kubectl(
            path, tmp_path / str(number), "--server", place.url, "--certificate-authority", str(place.authority.ca),
            "--token", "wrong",
        )  # fmt: skip
        code, _, err = await kubectl.run("get", "ports")
        assert code == 1
        assert "You must be logged in to the server" in err or "Unauthorized" in err
        kubectl = Kubectl(
            path, tmp_path / f"admin-{number}", "--server", place.url, "--certificate-authority", str(place.authority.ca),
            "--token", place.tokens["root"],
        )  # fmt: skip
        assert (await kubectl.run("get", "ports", "-A"))[0] == 0
    async with asking(place) as asker:
        await asker.status("/apis", 401)
