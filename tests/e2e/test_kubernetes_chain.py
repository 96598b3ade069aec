"""A cluster, a Vedette that follows it, and a second Vedette that follows the first by the same protocol: all are equal."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from clustering import bare

from vedette.app import Service
from vedette.config import load_text
from vedette.kit.clock import SystemClock
from vedette.ports import EVERYTHING, Selection
from vedette.testing.kubernetes import FakeKubernetes

PATIENCE = 60.0
TOKEN = "0123456789abcdef0123"
RESOURCES = [{"resource": "routes.route.openshift.io/v1"}, {"resource": "configmaps/v1"}]


@asynccontextmanager
async def vedette(server: str, token: str) -> AsyncIterator[Service]:
    source = {"name": "prod", "type": "kubernetes", "server": server, "token": token, "resources": RESOURCES}
    auth = {"mode": "tokens", "tokens": [{"token": TOKEN, "name": "ops", "projects": ["*"], "roles": ["admin"]}]}
    config = {"listen": "127.0.0.1:0", "data_dir": "", "auth": auth, "sources": [source]}
    service = Service(load_text(json.dumps(config), {}))
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def url(service: Service) -> str:
    return "http://{}:{}".format(*service.addresses[0])


async def listed(service: Service, path: str) -> dict[str, Any]:
    """Over HTTP, as a client of /clusters/prod gets it."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.get(f"{url(service)}/clusters/prod{path}") as answer,
    ):
        if answer.status != 200:
            return {}
        items = (await answer.json())["items"]
    return {f"{one['metadata']['namespace']}/{one['metadata']['name']}": bare(one) for one in items}


async def histories(service: Service, group: str, kind: str) -> dict[str, list[str]]:
    """Object → what its states were, in order: the value that each change of it brought."""
    assert service.store is not None
    found: dict[str, list[str]] = defaultdict(list)
    selection = Selection(scope=EVERYTHING, source="prod", group=group, kind=kind)
    changes, _ = await service.store.changes(service.store.oldest, selection=selection, limit=100_000)
    for change in changes:
        obj = json.loads(change.now.body)
        found[change.key.id].append(f"{change.verb} {obj.get('data', obj.get('spec'))}")
    return found


async def until_equal(cluster: FakeKubernetes, services: list[Service], paths: dict[str, Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            wanted = [{id_: bare(obj) for id_, obj in cluster.objects(one).items()} for one in paths.values()]
            served = [[await listed(service, path) for path in paths] for service in services]
            if all(one == wanted for one in served):
                return
            await asyncio.sleep(0.05)


async def test_two_vedettes_in_a_row_have_the_cluster_s_objects_and_their_order() -> None:
    rng = random.Random(7)
    async with FakeKubernetes(SystemClock()) as cluster:
        routes = cluster.define("route.openshift.io/v1", "routes", "Route", short_names=("rt",))
        maps = cluster.define("v1", "configmaps", "ConfigMap")
        cluster.put(maps, "shop/m0", {"data": {"value": "before"}})
        for number in range(5):
            cluster.put(routes, f"shop/r{number}", {"spec": {"host": f"before-{number}"}})
        async with vedette(cluster.url, cluster.token) as first, vedette(f"{url(first)}/clusters/prod", TOKEN) as second:
            paths = {"/apis/route.openshift.io/v1/routes": routes, "/api/v1/configmaps": maps}
            await until_equal(cluster, [first, second], paths)
            for number in range(200):
                resource, field, word = rng.choice(((routes, "spec", "r"), (maps, "data", "m")))
                where = f"shop/{word}{rng.randrange(5)}"
                if rng.random() < 0.2 and where in cluster.objects(resource):
                    cluster.remove(resource, where)
                else:
                    cluster.put(resource, where, {field: {"value": str(number)}})
                if number % 60 == 59:
                    cluster.cut()
                await asyncio.sleep(0.002)
            await until_equal(cluster, [first, second], paths)
            for group, kind in (("route.openshift.io", "Route"), ("", "ConfigMap")):
                one, two = await histories(first, group, kind), await histories(second, group, kind)
                assert one == two
            # And from nothing: a server that has forgotten every place.
            cluster.put(routes, "shop/last", {"spec": {"host": "last"}})
            await cluster.restart()
            cluster.compact()
            await until_equal(cluster, [first, second], paths)
