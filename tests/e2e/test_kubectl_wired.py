"""kubectl, 1.20 and a recent one, against a service that follows a cluster and has a handler whose target refuses something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serving import SECONDS, Asker, Kubectl, Running, asking, kubectls, open_service, words

from vedette.clients.kubernetes import Resource
from vedette.kit.clock import SystemClock
from vedette.testing.kubernetes import FakeKubernetes
from vedette.testing.rest import FakeRest

pytestmark = pytest.mark.kubectl

PROD = "/clusters/prod"


class Place:
    def __init__(self, running: Running, ask: Asker, cluster: FakeKubernetes, rest: FakeRest, routes: Resource) -> None:
        self.running, self.ask, self.cluster, self.rest, self.routes = running, ask, cluster, rest, routes

    def put(self, name: str, host: str) -> None:
        self.cluster.put(self.routes, name, {"spec": {"host": host}})

    async def until_there(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                code, _, body = await self.ask.get(f"{PROD}{self.routes.path()}")
                if code == 200 and body.count(b'"kind":"Route"') == count:
                    return
                await asyncio.sleep(0.02)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with FakeKubernetes(SystemClock()) as cluster, FakeRest() as rest:
        routes = cluster.define("route.openshift.io/v1", "routes", "Route", short_names=("rt",))
        source = {"name": "prod", "type": "kubernetes", "server": cluster.url, "token": cluster.token}
        handler = {
            "name": "dns",
            "use": "http",
            "on": {"kinds": ["routes.route.openshift.io"]},
            "options": {"url": f"http://127.0.0.1:{rest.port}/{{key.id}}"},
        }
        more = {"sources": [{**source, "resources": [{"resource": "routes"}]}], "handlers": [handler]}
        async with open_service(tmp_path, watch={"bookmark_seconds": "1s"}, **more) as running, asking(running) as ask:
            yield Place(running, ask, cluster, rest, routes)


@pytest.mark.parametrize("number", [0, 1], ids=["first", "second"])
async def test_kubectl_sees_the_cluster_the_handlers_and_a_dead_letter(place: Place, tmp_path: Path, number: int) -> None:
    found = kubectls()
    if number >= len(found):
        pytest.skip("there is only one kubectl")
    ours = Kubectl(found[number], tmp_path / "ours", "--server", place.running.url)
    theirs = Kubectl(found[number], tmp_path / "theirs", "--server", place.running.url + PROD)
    place.put("shop/front", "front.example.org")
    place.put("infra/front", "infra.example.org")
    await place.until_there(2)

    listed = await theirs.said("get", "routes", "-A")
    assert [line[:2] for line in listed] == [["NAMESPACE", "NAME"], ["infra", "front"], ["shop", "front"]]
    assert await theirs.said("get", "rt", "front", "-n", "shop", "-o", "jsonpath={.spec.host}") == [["front.example.org"]]
    handlers = await ours.said("get", "handlers")
    assert handlers[0][:3] == ["NAME", "USE", "STATE"]
    assert handlers[1][:4] == ["dns", "http", "ready", "0"]

    async with (
        theirs.watching("get", "routes", "-A", "-w", "--no-headers") as watched,
        ours.watching("get", "deadletters", "-w", "--no-headers") as letters,
    ):
        assert [(await words(watched))[:2] for _ in range(2)] == [["infra", "front"], ["shop", "front"]]
        place.rest.answers.append(400)
        await place.running.until_watched(2)
        place.put("shop/back", "not a host")
        assert (await words(watched))[:2] == ["shop", "back"]
        letter = await words(letters)
        assert letter[1:4] == ["dns", "kubernetes.routes.added", "1"]
        listed = await ours.said("get", "dl", "--no-headers")
        assert [line[:2] for line in listed] == [letter[:2]]
        async with asyncio.timeout(SECONDS):
            while (await ours.said("get", "handlers", "dns", "--no-headers"))[0][3] != "1":  # told once a second
                await asyncio.sleep(0.1)
        code, _, body = await place.ask.get("/v1/deadletters/redrive", method="POST", data=f'{{"ids": ["{letter[0]}"]}}')
        assert code == 200, body
        assert (await words(letters))[0] == letter[0], "it is told that it went"
        assert await ours.said("get", "dl", "--ignore-not-found", "--no-headers") in ([], [["No", "resources", "found"]])
        place.cluster.remove(place.routes, "shop/back")
        assert (await words(watched))[:2] == ["shop", "back"]
    assert [one.path for one in place.rest.sent][-3:] == ["/shop/back"] * 3
