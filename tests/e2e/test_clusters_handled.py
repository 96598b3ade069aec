"""A cluster's changes, Vedette, and an address that is called for them: exactly what was asked for is called, whichever of the
three begins anew, and nobody is shown what is in a Secret.

Left out: many deliveries under kill -9 (tests/integration/test_dispatch_killed.py).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cli_processes import free_port
from clustering import AUTH, HEADERS, PATIENCE
from rig import Child

from vedette.app import Service
from vedette.config import load_text
from vedette.kit.clock import SystemClock
from vedette.model.fold import ORIGIN_VERSION
from vedette.ports import EVERYTHING, Selection
from vedette.testing.kubernetes import FakeKubernetes
from vedette.testing.rest import FakeRest

KEY = "-----BEGIN RSA PRIVATE KEY-----\nTm9ib2R5IG1heSByZWFkIHRoaXM\n-----END RSA PRIVATE KEY-----"
HIDDEN = ("correct-horse-battery", base64.b64encode(b"correct-horse-battery").decode(), "Tm9ib2R5IG1heSByZWFkIHRoaXM")


class Place:
    """The three, and what was called."""

    def __init__(self, folder: Path, cluster: FakeKubernetes, rest: FakeRest) -> None:
        self.folder, self.cluster, self.rest = folder, cluster, rest
        self.port = free_port()
        self.routes = cluster.define("route.openshift.io/v1", "routes", "Route", short_names=("rt",))
        self.leases = cluster.define("coordination.k8s.io/v1", "leases", "Lease")
        self.secrets = cluster.define("v1", "secrets", "Secret")
        self.maps = cluster.define("v1", "configmaps", "ConfigMap")
        every = [{"resource": one.name} for one in (self.routes, self.leases, self.secrets, self.maps)]
        source = {"name": "prod", "type": "kubernetes", "server": cluster.url, "token": cluster.token, "resources": every}
        call = f"http://127.0.0.1:{rest.port}"
        retry = {"first": "100ms", "most": "500ms"}
        outside = {
            "kinds": "routes.route.openshift.io",
            "verbs": ["ADDED", "DELETED"],
            "when": "object.spec.host.endsWith('.example.org')",
        }

        def handler(name: str, on: Any, url: str) -> dict[str, Any]:
            return {"name": name, "use": "http", "on": on, "options": {"url": call + url}, "retry": retry}

        handlers = [
            handler("outside", outside, "/outside/{event.verb}/{key.id}"),
            handler("leases", {"kinds": ["leases"]}, "/leases/{event.verb}/{key.id}"),
            handler("secrets", {"kinds": ["secret", "configmap"]}, "/secrets/{event.verb}/{key.id}"),
            handler("everything", {"sources": ["prod"]}, "/notices"),
        ]
        settings = {
            "listen": f"127.0.0.1:{self.port}",
            "data_dir": str(folder / "data"),
            "auth": AUTH,
            "sources": [source],
            "handlers": handlers,
            "log": {"level": "debug"},
        }
        self.child = Child(folder, json.dumps(settings), self.port)

    def route(self, name: str, host: str) -> None:
        self.cluster.put(self.routes, f"shop/{name}", {"spec": {"host": host}})

    def beat(self, count: int = 1, holder: str = "one") -> None:
        for _ in range(count):
            spec = {"holderIdentity": holder, "renewTime": str(self.cluster.revision)}
            self.cluster.put(self.leases, "infra/leader", {"spec": spec})

    def calls(self, first: str) -> list[str]:
        """What was called under this part of the path, in order: the rest of the path; a call that was made again counts once."""
        sent = [(one.headers["Idempotency-Key"], one.path) for one in self.rest.sent if one.path.startswith(f"/{first}/")]
        return [path.removeprefix(f"/{first}/") for _, path in dict.fromkeys(sent)]

    async def get(self, path: str) -> tuple[int, bytes]:
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            try:
                async with session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
                    return answer.status, await answer.read()
            except (aiohttp.ClientError, ConnectionError):
                return 0, b""

    async def until_settled(self) -> None:
        """The source has all that the cluster has, and no handler owes anything."""
        said: Any = None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    code, body = await self.get("/v1/status")
                    said = json.loads(body) if code == 200 else body
                    if code == 200 and all(one["ready"] for one in said["sources"]) and await self.equal():
                        said = json.loads((await self.get("/v1/status"))[1])
                        if not any(one["pending"] or one["lag"] for one in said["handlers"]):
                            return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"in vain: {said}") from None

    async def equal(self) -> bool:
        for resource in (self.routes, self.secrets, self.maps):
            _, body = await self.get(f"/clusters/prod{resource.path()}")
            have = {(one["metadata"]["name"], one["metadata"]["uid"]) for one in json.loads(body).get("items", ())}
            there = self.cluster.objects(resource).values()
            if have != {(one["metadata"]["name"], one["metadata"]["uid"]) for one in there}:
                return False
        _, body = await self.get(f"/clusters/prod{self.leases.path()}")
        holders = {one["spec"]["holderIdentity"] for one in json.loads(body).get("items", ())}
        return holders == {one["spec"]["holderIdentity"] for one in self.cluster.objects(self.leases).values()}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with FakeKubernetes(SystemClock()) as cluster, FakeRest() as rest:
        place = Place(tmp_path, cluster, rest)
        try:
            yield place
        finally:
            place.child.stop()


async def test_exactly_what_was_asked_for_is_called_whichever_of_the_three_begins_anew(place: Place) -> None:
    cluster, rest, child = place.cluster, place.rest, place.child
    place.route("a", "a.example.org")
    place.route("b", "b.other.org")
    place.beat()
    child.start()
    await place.until_settled()
    wanted = ["ADDED/shop/a"]
    assert place.calls("outside") == wanted

    place.route("c", "c.example.org")
    place.route("a", "a2.example.org")
    place.route("b", "b.example.org")  # it comes in by a change, which is not asked for
    await place.until_settled()
    cluster.remove(place.routes, "shop/c")
    place.beat(20)
    await place.until_settled()
    wanted += ["ADDED/shop/c", "DELETED/shop/c"]
    assert place.calls("outside") == wanted
    assert place.calls("leases") == ["ADDED/infra/leader"]

    # The cluster begins anew, and its places mean nothing.
    await cluster.restart()
    place.route("d", "d.example.org")
    cluster.remove(place.routes, "shop/a")
    await place.until_settled()
    wanted += ["ADDED/shop/d", "DELETED/shop/a"]
    assert sorted(place.calls("outside")) == sorted(wanted)

    # The target is away, Vedette is killed meanwhile, and then both are back.
    await rest.__aexit__()
    place.route("e", "e.example.org")
    async with asyncio.timeout(PATIENCE):
        while b'"e.example.org"' not in (await place.get(f"/clusters/prod{place.routes.path()}"))[1]:
            await asyncio.sleep(0.02)
    child.kill()
    place.beat(5)
    cluster.remove(place.routes, "shop/d")
    place.route("f", "f.example.org")
    place.route("g", "g.other.org")
    child.start()
    await rest.__aenter__()
    await place.until_settled()
    wanted += ["ADDED/shop/e", "DELETED/shop/d", "ADDED/shop/f"]
    assert sorted(place.calls("outside")) == sorted(wanted)
    assert place.calls("leases") == ["ADDED/infra/leader"]
    place.beat(holder="two")
    await place.until_settled()
    assert place.calls("leases") == ["ADDED/infra/leader", "MODIFIED/infra/leader"]
    assert sorted(place.calls("outside")) == sorted(wanted)


async def test_what_is_in_a_secret_is_nowhere(place: Place) -> None:
    cluster, rest, child = place.cluster, place.rest, place.child
    last = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"stringData": {"password": HIDDEN[0]}})}
    secret = {"metadata": {"annotations": last}, "data": {"password": HIDDEN[1]}, "stringData": {"password": HIDDEN[0]}}
    cluster.put(place.secrets, "shop/db", secret)
    cluster.put(place.maps, "shop/tls", {"data": {"tls.pem": KEY, "note": "a word for everybody"}})
    child.start()
    await place.until_settled()
    cluster.put(place.secrets, "shop/db", {**secret, "type": "Opaque"})
    await place.until_settled()
    cluster.fail_watch({"code": 500, "message": "unwell"}, times=4)
    cluster.cut()
    await place.until_settled()
    cluster.remove(place.secrets, "shop/db")
    await place.until_settled()
    wanted = ["ADDED/shop/db", "ADDED/shop/tls", "DELETED/shop/db", "MODIFIED/shop/db"]
    assert sorted(place.calls("secrets")) == wanted
    seen = {
        "calls": b"".join(one.body for one in rest.sent),
        "events": (await place.get("/v1/events?after=0&follow=false"))[1],
        "list": (await place.get(f"/clusters/prod{place.maps.path()}"))[1],
        "log lines": child.errors().encode(),
    }
    assert child.stop() == 0, child.errors()
    assert "Traceback" not in child.errors()
    seen["store"] = b"".join(file.read_bytes() for file in (place.folder / "data").iterdir() if file.is_file())
    for name in ("calls", "events", "list", "store"):
        assert b"a word for everybody" in seen[name], name
    for name in ("calls", "events", "store"):
        assert b'"password"' in seen[name], name
    for name, content in seen.items():
        for hidden in HIDDEN:
            assert hidden.encode() not in content, (name, hidden)


async def test_a_handler_that_changes_what_it_follows_does_not_follow_itself() -> None:
    async with FakeKubernetes(SystemClock()) as cluster:
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        source = {"name": "prod", "type": "kubernetes", "server": cluster.url, "token": cluster.token}
        note = '{{"metadata": {{"annotations": {{"example.com/seen": "{event.revision}"}}}}}}'
        marker = {
            "name": "marker",
            "use": "kubernetes",
            "on": {"kinds": ["routes"], "verbs": ["ADDED", "MODIFIED"]},
            "options": {
                "cluster": {"server": cluster.url, "token": cluster.token},
                "resource": "routes",
                "namespace": "{object.metadata.namespace}",
                "name": "{object.metadata.name}",
                "mode": "patch",
                "body": note,
            },
        }
        config = {
            "listen": "127.0.0.1:0",
            "data_dir": "",
            "auth": AUTH,
            "sources": [{**source, "resources": [{"resource": "routes"}]}],
            "handlers": [marker],
        }
        service = Service(load_text(json.dumps(config), {}))
        await service.start()
        try:

            async def until_quiet(patches: int) -> None:
                """So many were made, and what they brought about is in the log and settled."""
                async with asyncio.timeout(PATIENCE):
                    while len(cluster.asked("patch")) < patches or await told() < cluster.revision:
                        await asyncio.sleep(0.02)

            async def told() -> int:
                assert service.dispatch is not None
                assert service.store is not None
                if any(one["pending"] or one["lag"] for one in service.dispatch.status()):
                    return 0
                page = await service.store.objects(Selection(EVERYTHING, group="route.openshift.io", kind="Route"))
                marks = [json.loads(version.body)["metadata"]["annotations"] for _, version in page.items]
                return max((int(one[ORIGIN_VERSION]) for one in marks), default=0)

            cluster.put(routes, "shop/web", {"spec": {"host": "a.example.org"}})
            await until_quiet(1)
            # Of somebody else, and so is what it does besides.
            now = cluster.objects(routes)["shop/web"]
            cluster.put(routes, "shop/web", {**now, "spec": {"host": "b.example.org"}})
            await until_quiet(2)
            await asyncio.sleep(0.3)
            assert len(cluster.asked("patch")) == 2
            assert service.store is not None
            ended = [one.outcome for one in await service.store.deliveries(handler="marker")]
            assert ended == ["done", "suppressed", "done", "suppressed"]
        finally:
            await service.stop()
