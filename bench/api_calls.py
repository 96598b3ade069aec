"""Calls of the cloud's API, and how late those who wait know: 1, 10 and 100 watchers of one Vedette, beside as many that poll.

50 ports are DOWN and go ACTIVE at random moments of ten seconds, and nobody says so; so do 20 load balancers that are new, and
then 20 that get a listener each. Everybody waits for all of them. The watchers have one stream each; the pollers do what Kuryr
does: a GET for each port with its handlers' pauses, a GET for each load balancer with its timer's. The cloud (testing/cloud.py,
35 ms an answer), RabbitMQ, `vedette serve` and the clients are processes of their own. Calls are counted where they come in; late
is counted from when it became true in the cloud. `python bench/api_calls.py [seconds]`
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from peers import BUILD, free_port
from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.cloud_life import EXCHANGES
from vedette.testing.rabbit import Publisher, Rabbit

PORTS = 50
BALANCERS = 20
LATENCY = 0.035
"""Of each answer of the cloud."""
BEGIN = 2.0
"""Seconds in which nothing settles: a driver needs a moment too."""
CLIENTS = (1, 10, 100)
APIS = "/apis/openstack.vedette.dev/v1"
PATIENCE = 120.0


# --- the cloud's process ---------------------------------------------------------------------------------------------------


class Round:
    """One set of objects: made, settled at random moments, deleted."""

    def __init__(self, cloud: FakeCloud, kind: str) -> None:
        self._cloud, self._kind = cloud, kind
        self.known: list[str] = []
        """What is there before anybody waits, and was announced."""
        if kind == "ports":
            self.known = [cloud.port(device_id=cloud.id(), device_owner="compute:kuryr") for _ in range(PORTS)]
        elif kind == "listeners":
            self.known = [cloud.loadbalancer() for _ in range(BALANCERS)]
        self.polled: dict[str, str] = {}
        """What pollers ask for → what is waited for."""

    def begin(self) -> None:
        """What nobody is told: load balancers are being made, or are busy with their first listener."""
        cloud, pending = self._cloud, {"provisioning_status": "PENDING_CREATE", "operating_status": "OFFLINE"}
        if self._kind == "loadbalancers":
            self.known = [cloud.loadbalancer(**pending) for _ in range(BALANCERS)]
        self.polled = {id_: id_ for id_ in self.known}
        if self._kind == "listeners":
            for balancer in self.known:
                self.polled[balancer] = cloud.listener(balancer, **pending)
                cloud.lb_status(balancer, provisioning="PENDING_UPDATE")

    async def settle(self, seconds: float) -> dict[str, int]:
        """What is waited for → when it became true (ns). The same moments each time."""
        moments = random.Random(1)
        waits = {id_: BEGIN + moments.uniform(0, seconds) for id_ in self.polled}
        return dict(await asyncio.gather(*(self._one(id_, wait) for id_, wait in waits.items())))

    async def _one(self, id_: str, wait: float) -> tuple[str, int]:
        await asyncio.sleep(wait)
        if self._kind == "ports":
            self._cloud.port_active(id_)
        else:
            self._cloud.lb_settled(id_)
        return self.polled[id_], time.time_ns()

    def delete(self) -> None:
        for id_ in self.known:
            self._cloud.delete("port" if self._kind == "ports" else "loadbalancer", id_)


def serve(broker: str, pipe: Connection) -> None:
    """Does what it is told through the pipe, and answers."""

    async def run() -> None:
        async with FakeCloud(SystemClock()) as cloud:
            publisher = Publisher(broker)
            for name in EXCHANGES:
                publisher.exchange(name)
            cloud.listeners.append(
                lambda sent: publisher.publish(sent.exchange, [sent.body], routing_key=sent.routing_key) and None
            )
            for service in cloud.services:
                service.slow(LATENCY)
            urls = {service.type: service.url for service in cloud.services}
            pipe.send((cloud.credentials(), urls, cloud.token("demo"), cloud.project_id("demo")))
            round_: Round | None = None
            while (said := await asyncio.to_thread(pipe.recv)) is not None:
                what, *rest = said
                answer: Any = None
                if what == "make":
                    round_ = Round(cloud, rest[0])
                    answer = round_.known
                elif what == "count":
                    answer = cloud.count(rest[0])
                elif round_ is not None and what == "begin":
                    round_.begin()
                    answer = round_.polled
                elif round_ is not None and what == "settle":
                    answer = await round_.settle(*rest)
                elif round_ is not None and what == "delete":
                    round_.delete()
                pipe.send(answer)
            publisher.close()

    asyncio.run(run())


class Cloud:
    """The other end of that pipe."""

    def __init__(self, broker: str) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(broker, theirs))
        self._process.start()
        self.credentials, self.urls, self.token, self.project = self._pipe.recv()

    async def tell(self, *said: Any) -> Any:
        """What it answers; one question at a time."""
        self._pipe.send(said)
        return await asyncio.to_thread(self._pipe.recv)

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


# --- who waits -------------------------------------------------------------------------------------------------------------


class Told(msgspec.Struct):
    class Object(msgspec.Struct):
        class Metadata(msgspec.Struct):
            name: str = ""

        metadata: Metadata
        status: dict[str, Any] = {}

    type: str
    object: Object


_told = msgspec.json.Decoder(Told).decode
Seen = dict[str, int]
"""Id → when somebody knew that it had settled (ns)."""


async def watch(session: aiohttp.ClientSession, url: str, field: str, wanted: int, opened: Callable[[], None]) -> Seen:
    """One stream, until so many are ACTIVE."""
    seen: Seen = {}
    async with session.get(url) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            told = _told(line)
            if told.type == "BOOKMARK":
                opened()
            elif told.type in ("ADDED", "MODIFIED") and told.object.status.get(field) == "ACTIVE":
                seen.setdefault(told.object.metadata.name, time.time_ns())
                if len(seen) == wanted:
                    return seen
    raise RuntimeError("the stream ended")


async def ask(session: aiohttp.ClientSession, url: str, token: str, word: str, field: str) -> str:
    async with session.get(url, headers={"X-Auth-Token": token}) as answer:
        answer.raise_for_status()
        return str((await answer.json())[word][field])


async def poll_port(session: aiohttp.ClientSession, url: str, token: str) -> int:
    """Kuryr's `activate_vif` under its retrying handler: 2, 4, 8 … 60 s, and up to three more. When it knows (ns)."""
    await asyncio.sleep(random.uniform(0, BEGIN))  # not all of them begin in the same moment
    attempt = 0
    while await ask(session, url, token, "port", "status") != "ACTIVE":
        attempt += 1
        await asyncio.sleep(min(2**attempt, 60) + random.randint(0, 3))
    return time.time_ns()


async def poll_balancer(session: aiohttp.ClientSession, url: str, token: str, interval: float = 1.0) -> int:
    """Kuryr's wait before the next listener, pool or member: 1.6, 2.6, 4.1 … 15 s, give or take. When it knows (ns)."""
    await asyncio.sleep(random.uniform(0, BEGIN))
    while await ask(session, url, token, "loadbalancer", "provisioning_status") != "ACTIVE":
        interval = min(interval * 2 * random.gauss(0.8, 0.05), 15.0)
        await asyncio.sleep(interval)
    return time.time_ns()


async def poll_new_balancer(session: aiohttp.ClientSession, url: str, token: str) -> int:
    """The same with its slower timer: 4.8, 7.7, 12.3, 15 s."""
    return await poll_balancer(session, url, token, 3.0)


POLL = {"ports": poll_port, "loadbalancers": poll_new_balancer, "listeners": poll_balancer}


# --- a run -----------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    calls: int
    late: list[float]
    """Seconds, of every waiter and object, sorted."""


class Trial(NamedTuple):
    """What is waited for, in which cloud, on which Vedette."""

    cloud: Cloud
    vedette: str
    session: aiohttp.ClientSession
    kind: str
    """`ports`, `loadbalancers` or `listeners`"""
    seconds: float

    @property
    def service(self) -> str:
        return "network" if self.kind == "ports" else "load-balancer"

    async def watched(self, number: int) -> Found:
        before = await self._begin()
        field, wanted = ("status", PORTS) if self.kind == "ports" else ("provisioning_status", BALANCERS)
        query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
        url = f"{self._list(self.kind)}&{query}"
        opened = [asyncio.Event() for _ in range(number)]
        waiting = [asyncio.create_task(watch(self.session, url, field, wanted, one.set)) for one in opened]
        async with asyncio.timeout(PATIENCE):
            for one in opened:
                await one.wait()
        await self.cloud.tell("begin")
        return await self._end(before, waiting)

    async def polled(self, number: int) -> Found:
        before = await self._begin()
        polled = await self.cloud.tell("begin")
        return await self._end(before, [asyncio.create_task(self._poll(polled)) for _ in range(number)])

    async def _poll(self, polled: Mapping[str, str]) -> Seen:
        """As one controller does: one poller for each object, none of them waits for another."""
        at = f"{self.cloud.urls['network']}/v2.0/ports"
        if self.kind != "ports":
            at = f"{self.cloud.urls['load-balancer']}/v2/lbaas/loadbalancers"
        poll = POLL[self.kind]
        found = await asyncio.gather(*(poll(self.session, f"{at}/{id_}", self.cloud.token) for id_ in polled))
        return dict(zip(polled.values(), found, strict=True))

    async def _begin(self) -> int:
        """Calls so far: Vedette knows what there is, and asks the cloud nothing."""
        ids = await self.cloud.tell("make", self.kind)
        await self._known("ports" if self.kind == "ports" else "loadbalancers", set(ids))
        calls, before = await self._count(), -1
        while calls != before:
            await asyncio.sleep(1.0)
            calls, before = await self._count(), calls
        return calls

    async def _count(self) -> int:
        return int(await self.cloud.tell("count", self.service))

    async def _end(self, before: int, waiting: Sequence[asyncio.Task[Seen]]) -> Found:
        settled = await self.cloud.tell("settle", self.seconds)
        async with asyncio.timeout(PATIENCE):
            seen = await asyncio.gather(*waiting)
        calls = await self._count() - before
        await self.cloud.tell("delete")
        # Nobody announces that a listener is gone.
        async with self.session.post(f"{self.vedette}/v1/resync", json={"confirm": True}) as answer:
            answer.raise_for_status()
            await answer.read()
        await self._known(self.kind, set())
        return Found(calls, sorted((one[id_] - at) / 1e9 for one in seen for id_, at in settled.items()))

    def _list(self, plural: str) -> str:
        chosen = "status.device_owner=compute:kuryr" if plural == "ports" else ""
        return f"{self.vedette}{APIS}/namespaces/{self.cloud.project}/{plural}?fieldSelector={chosen}"

    async def _known(self, plural: str, ids: set[str]) -> None:
        """Return when these are what Vedette has."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.session.get(self._list(plural)) as answer:
                    if {one["metadata"]["name"] for one in (await answer.json())["items"]} == ids:
                        return
                await asyncio.sleep(0.1)


async def until_listed(session: aiohttp.ClientSession, vedette: str) -> None:
    """Return when Vedette is there and has compared everything once."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with session.get(f"{vedette}/v1/status") as answer:
                    said = await answer.json()
                if answer.status == 200 and all(one["state"] == "done" for one in said["clouds"][0]["resync"]["kinds"]):
                    return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.2)


# --- all of them -----------------------------------------------------------------------------------------------------------


async def measure(cloud: Cloud, vedette: str, seconds: float) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await until_listed(session, vedette)
        print("| waiting for | clients | calls, watching | calls, polling | ratio | late, watching | late, polling |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for kind, title in (
            ("ports", f"{PORTS} ports"),
            ("loadbalancers", f"{BALANCERS} new load balancers"),
            ("listeners", f"a listener of each of {BALANCERS}"),
        ):
            trial = Trial(cloud, vedette, session, kind, seconds)
            for number in CLIENTS:
                ours, theirs = await trial.watched(number), await trial.polled(number)
                print(
                    f"| {title} | {number} | {ours.calls:,} | {theirs.calls:,} | {theirs.calls / ours.calls:,.1f} "
                    f"| {middle(ours)} | {middle(theirs)} |",
                    flush=True,
                )


def middle(found: Found) -> str:
    return f"p50 {statistics.median(found.late):.1f} s, p99 {found.late[len(found.late) * 99 // 100]:.1f} s"


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        folder = Path(name).absolute()
        rabbit = Rabbit(folder / "rabbit")
        rabbit.start()
        try:
            cloud = Cloud(rabbit.url)
            try:
                port = free_port()
                source = {
                    "name": "one", "type": "openstack", "amqp": rabbit.url, "exchanges": list(EXCHANGES),
                    "api": {**cloud.credentials, "resync": 0},
                }  # fmt: skip
                settings = {"listen": f"127.0.0.1:{port}", "data_dir": str(folder / "data"), "sources": [source]}
                config = folder / "vedette.yaml"
                config.write_text(json.dumps(settings))  # JSON is YAML
                with subprocess.Popen([sys.executable, "-m", "vedette.cli", "serve", "--config", str(config)]) as process:
                    try:
                        asyncio.run(measure(cloud, f"http://127.0.0.1:{port}", seconds))
                    finally:
                        process.terminate()
            finally:
                cloud.close()
        finally:
            rabbit.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
