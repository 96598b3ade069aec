"""A real Kubernetes source in a whole service, against an API server that fails in every way while its objects change: what
`/clusters/{source}` serves in the end is what the server has, and a watcher was told of it in the server's order.

Left out: single faults, one by one (tests/unit/test_kubernetes_source.py); two Vedettes in a row (test_vedette_of_vedette.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_processes import free_port
from clustering import AUTH, OPS, HurriedClock, Life, following, hold, until_equal
from rig import Child

from vedette.app import Service
from vedette.config import load_text
from vedette.kit.clock import SystemClock
from vedette.testing.kubernetes import FakeKubernetes

ROUTES = "/apis/route.openshift.io/v1/routes"
MAPS = "/api/v1/configmaps"
PROD = "/clusters/prod"
SEED = int(os.environ.get("VEDETTE_SEED") or random.SystemRandom().randrange(2**32))
"""Another one each time; the report of a failure says which, and VEDETTE_SEED takes it."""


def source(cluster: FakeKubernetes, **more: Any) -> dict[str, Any]:
    return {
        "name": "prod",
        "type": "kubernetes",
        "server": cluster.url,
        "token": cluster.token,
        "resources": [{"resource": "routes.route.openshift.io/v1"}, {"resource": "configmaps/v1"}],
        "timeout": "1s",
        **more,
    }


def configuration(folder: Path | str, one: dict[str, Any], *, port: int = 0, **more: Any) -> str:
    return json.dumps({"listen": f"127.0.0.1:{port}", "data_dir": str(folder), "auth": AUTH, "sources": [one], **more})


def lived(cluster: FakeKubernetes, rng: random.Random, prefix: str = PROD) -> tuple[Life, dict[str, Callable[[], Any]]]:
    """A life of routes and maps, and what each path has to list."""
    routes = cluster.define("route.openshift.io/v1", "routes", "Route", short_names=("rt",))
    maps = cluster.define("v1", "configmaps", "ConfigMap")
    life = Life(cluster, {ROUTES: routes, MAPS: maps}, rng)
    return life, {f"{prefix}{path}": (lambda path=path: life.now(path)) for path in life.resources}


class Faults:
    """What goes wrong with a server, one thing at a time."""

    def __init__(self, cluster: FakeKubernetes, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.happened: dict[str, int] = {}

    async def one(self) -> None:
        cluster = self.cluster
        name = self.rng.choice(
            (
                "cut",
                "end",
                "stall",
                "compact",
                "restart",
                "stop",
                "429",
                "500",
                "reset",
                "silent",
                "410",
                "not the list",
                "pages",
                "revoke",
            )
        )
        self.happened[name] = self.happened.get(name, 0) + 1
        verb = self.rng.choice(("watch", "list", "*"))
        if name == "cut":
            cluster.cut()
        elif name == "end":
            cluster.end()
        elif name == "stall":
            cluster.stall()
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            cluster.resume()
        elif name == "compact":
            cluster.cut()
            cluster.compact()
        elif name == "restart":
            await cluster.restart(abruptly=self.rng.random() < 0.7)
        elif name == "stop":
            await cluster.stop()
            await asyncio.sleep(self.rng.uniform(0.0, 0.3))
            await cluster.start()
        elif name == "429":
            cluster.fail(429, verb=verb, times=self.rng.randrange(1, 4), retry_after=1, reason="TooManyRequests")
            cluster.cut()
        elif name == "500":
            cluster.fail(500, verb=verb, times=self.rng.randrange(1, 4), plain=self.rng.random() < 0.5, message="etcd is unwell")
            cluster.cut()
        elif name == "reset":
            cluster.fail(0, verb=verb, times=self.rng.randrange(1, 3))
            cluster.cut()
        elif name == "silent":
            cluster.fail(-1, verb=verb)
            cluster.cut()
        elif name == "410":
            cluster.fail_watch(
                {"reason": "Expired", "code": 410, "message": "too old resource version"}, times=self.rng.randrange(1, 3)
            )
            cluster.end()
        elif name == "not the list":
            cluster.streaming = self.rng.choice(("yes", "ignored", "refused", "etcd-3.4"))
            cluster.compact()
            cluster.end()
        elif name == "pages":
            cluster.page_limit = self.rng.choice((0, 1, 3))
            cluster.compact()
            cluster.cut()
        elif name == "revoke":
            cluster.revoke("routes", *self.rng.choice(((), ("watch",), ("list",))))
            cluster.cut()
            await asyncio.sleep(self.rng.uniform(0.0, 0.3))
            cluster.grant("routes")


@pytest.mark.parametrize("number", range(2))
async def test_a_server_that_fails_in_every_way_is_followed_in_its_own_order(number: int) -> None:
    seed = SEED + number
    print(f"VEDETTE_SEED={seed}")
    rng, clock = random.Random(seed), HurriedClock(60)
    async with FakeKubernetes(clock) as cluster:
        life, wanted = lived(cluster, rng)
        cluster.bookmark_s = 20.0
        life.change(10)
        one = source(cluster, inactivity="45s", watch="2m", relist="10m", page=4)
        service = Service(load_text(configuration("", one), {}), clock=clock)
        await service.start()
        try:

            def url() -> str:
                return "http://{}:{}".format(*service.addresses[0])

            faults = Faults(cluster, rng)
            async with following(url, list(wanted)) as followers:
                await until_equal(url, wanted, followers)
                for _ in range(30):
                    life.change(rng.randrange(1, 6))
                    await faults.one()
                    await asyncio.sleep(rng.choice((0.0, 0.005, 0.05, 0.2, 0.5)))
                cluster.faults.clear()
                life.change(5)
                await until_equal(url, wanted, followers)
                merged = [hold(one.told, life.states[path]) for one, path in zip(followers, life.resources, strict=True)]
                print(faults.happened, "told:", [len(one.told) for one in followers], "merged:", merged)

                # Left in peace, it tells every single state.
                before = [len(one.told) for one in followers]
                since = cluster.revision
                for _ in range(40):
                    life.change()
                    await asyncio.sleep(0.002)
                await until_equal(url, wanted, followers)
                for one_, path, begin in zip(followers, life.resources, before, strict=True):
                    versions = sorted(
                        int(state.version)
                        for states in life.states[path].values()
                        for state in states
                        if int(state.version) > since
                    )
                    assert [int(told.version) for told in one_.told[begin:]] == versions
                    hold(one_.told, life.states[path])
        finally:
            await service.stop()


async def test_nothing_is_missed_when_vedette_is_killed_deletions_least_of_all(tmp_path: Path) -> None:
    print(f"VEDETTE_SEED={SEED}")
    rng, port = random.Random(SEED), free_port()
    async with FakeKubernetes(SystemClock()) as cluster:
        life, wanted = lived(cluster, rng)
        life.change(20)
        child = Child(tmp_path, configuration(tmp_path / "data", source(cluster), port=port), port)

        def url() -> str:
            return f"http://127.0.0.1:{port}"

        async with following(url, list(wanted)) as followers:
            child.start()
            try:
                await until_equal(url, wanted, followers)
                for _ in range(3):
                    for _ in range(rng.randrange(30)):
                        life.change()
                        await asyncio.sleep(0.002)
                    child.kill()
                    # While nobody looks: changes, and some that were there are gone, one of each in any case.
                    life.change(rng.randrange(10))
                    for path in life.resources:
                        there = sorted(life.now(path))
                        for name in rng.sample(there, min(len(there), rng.randrange(1, 3))):
                            life.remove(path, name)
                    if rng.random() < 0.5:
                        await cluster.restart()
                    child.start()
                    await until_equal(url, wanted, followers)
                for one, path in zip(followers, life.resources, strict=True):
                    hold(one.told, life.states[path])
            finally:
                code = child.stop()
        assert code == 0, child.errors()
        assert "Traceback" not in child.errors()


async def test_two_in_a_row_are_killed_in_turn_and_the_last_one_tells_it_all(tmp_path: Path) -> None:
    print(f"VEDETTE_SEED={SEED}")
    rng, first, second = random.Random(SEED), free_port(), free_port()
    async with FakeKubernetes(SystemClock()) as cluster:
        life, wanted = lived(cluster, rng, "/clusters/far")
        life.change(20)
        near = source(cluster)
        far = {**near, "name": "far", "server": f"http://127.0.0.1:{first}{PROD}", "token": OPS}
        children = []
        for name, one, port in (("first", near, first), ("second", far, second)):
            (tmp_path / name).mkdir()
            children.append(Child(tmp_path / name, configuration(tmp_path / name / "data", one, port=port), port))

        def url() -> str:
            return f"http://127.0.0.1:{second}"

        async with following(url, list(wanted)) as followers:
            for child in children:
                child.start()
            try:
                await until_equal(url, wanted, followers)
                for killed in ([0], [1], [0, 1]):
                    for _ in range(rng.randrange(20)):
                        life.change()
                        await asyncio.sleep(0.002)
                    for number in killed:
                        children[number].kill()
                    life.change(rng.randrange(5, 10))
                    for number in killed:
                        children[number].start()
                    await until_equal(url, wanted, followers)
                for one, path in zip(followers, life.resources, strict=True):
                    # Its versions are the first one's; no two states of an object are alike.
                    states = life.states[path]
                    told = [
                        each._replace(version=next((state.version for state in states[each.name] if state.obj == each.obj), ""))
                        for each in one.told
                    ]
                    hold(told, states)
            finally:
                codes = [child.stop() for child in children]
        assert codes == [0, 0], [child.errors() for child in children]
