"""A controller that never polls: it keeps a load balancer with its members, as Kuryr does for a service and its pods.

Ports, load balancer, listener, pool, members: each is made through the cloud's API when it isn't there, and waited for on Vedette
until it is ACTIVE. Then it waits for changes, and makes again what somebody has deleted. `--once`: it ends when all is there.

    python controller.py web --members 2 --once        (OS_* variables, VEDETTE_URL, VEDETTE_CACERT)

What is sent to the cloud's API is counted: what finds and makes things, and what had to be asked because Vedette was away.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import ssl
import sys
import time
from functools import partial
from typing import Any, NamedTuple

import openstack
from openstack import exceptions
from waiting import Done, Failed, NotYet, Status, Vedette

PATIENCE_SECONDS = 300.0
"""How long something may take to become ACTIVE."""
FIRST_SECONDS, MOST_SECONDS = 2.0, 300.0
"""Between two attempts, when something went wrong: more each time."""


class Kind(NamedTuple):
    word: str
    plural: str
    service: str
    """A proxy of openstacksdk's."""
    state: str
    """The field that has to be ACTIVE."""


PORT = Kind("port", "ports", "network", "status")
BALANCER = Kind("loadbalancer", "loadbalancers", "load_balancer", "provisioning_status")
LISTENER = Kind("listener", "listeners", "load_balancer", "provisioning_status")
POOL = Kind("pool", "pools", "load_balancer", "provisioning_status")
MEMBER = Kind("member", "members", "load_balancer", "provisioning_status")
KINDS = (PORT, BALANCER, LISTENER, POOL, MEMBER)


def active(kind: Kind) -> Done:
    """Whether it is ACTIVE; what is in ERROR stays so until somebody does something."""

    def done(status: Status | None) -> bool:
        if status is not None and status.get(kind.state) == "ERROR":
            raise Failed(f"{kind.word} {status['id']} is in ERROR")
        return status is not None and status.get(kind.state) == "ACTIVE"

    return done


class Cloud:
    """The cloud's own API, for what Vedette doesn't do: finding out whether something is there already, and making it."""

    def __init__(self) -> None:
        self._connection = openstack.connect()
        self.session = self._connection.session
        self.project = str(self._connection.current_project_id)
        self.requests = 0
        self.waiting = 0
        """Of these: because Vedette was away."""

    async def call(self, kind: Kind, method: str, path: str, **options: Any) -> dict[str, Any]:
        """What it answers. Raises what openstacksdk raises."""
        self.requests += 1
        answer = await asyncio.to_thread(getattr(self._connection, kind.service).request, path, method, **options)
        exceptions.raise_from_response(answer)
        said: dict[str, Any] = answer.json()
        return said

    async def named(self, kind: Kind, path: str, name: str) -> Status | None:
        found = (await self.call(kind, "GET", path, params={"name": name}))[kind.plural]
        return found[0] if found else None

    async def made(self, kind: Kind, path: str, fields: Status) -> Status:
        said: Status = (await self.call(kind, "POST", path, json={kind.word: fields}))[kind.word]
        return said

    async def asked(self, kind: Kind, path: str, id_: str) -> Status | None:
        """As it is now: one GET."""
        self.waiting += 1
        try:
            said: Status = (await self.call(kind, "GET", f"{path}/{id_}"))[kind.word]
        except exceptions.NotFoundException:
            return None
        return said


class Controller:
    """Keeps one load balancer."""

    def __init__(self, cloud: Cloud, vedette: Vedette, name: str, members: int, network: str) -> None:
        self._cloud, self._vedette = cloud, vedette
        self._name, self._members, self._network = name, members, network
        self._network_id = ""
        self._known: dict[tuple[Kind, str], str] = {}
        """Kind and name → the id of what was found or made."""
        self._new = False
        self._began = time.monotonic()

    async def run(self, *, once: bool) -> None:
        pause = FIRST_SECONDS
        while True:
            news = self._vedette.news
            try:
                await self._keep()
            except (NotYet, Failed, exceptions.SDKException) as why:
                if once and isinstance(why, Failed):
                    raise
                self._say(f"{why}; again in {pause:.0f} s")
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(2 * pause, MOST_SECONDS)
                continue
            if once:
                return
            pause = FIRST_SECONDS
            await self._vedette.changed(news)

    async def _keep(self) -> None:
        """All of it is there and ACTIVE. What is so already costs no request."""
        if not self._network_id:
            networks = await self._cloud.call(PORT, "GET", "/networks", params={"name": self._network})
            self._network_id = networks["networks"][0]["id"]
        names = [f"{self._name}-{number}" for number in range(self._members)]
        pod = {"network_id": self._network_id, "device_owner": "compute:kuryr"}
        ports = await asyncio.gather(*(self._ensure(PORT, "/ports", name, pod | {"device_id": name}) for name in names))
        balancer = await self._ensure(BALANCER, "/lbaas/loadbalancers", self._name, {"vip_network_id": self._network_id})
        # Octavia takes nothing else while a load balancer is busy with one thing. What is waited for is that thing: the load
        # balancer's own ACTIVE might still be the one from before.
        fields = {"protocol": "HTTP", "protocol_port": 80, "loadbalancer_id": balancer["id"]}
        listener = await self._ensure(LISTENER, "/lbaas/listeners", self._name, fields)
        fields = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "listener_id": listener["id"]}
        pool = await self._ensure(POOL, "/lbaas/pools", self._name, fields)
        for port, name in zip(ports, names, strict=True):
            fields = {"address": port["fixed_ips"][0]["ip_address"], "protocol_port": 8080}
            await self._ensure(MEMBER, f"/lbaas/pools/{pool['id']}/members", name, fields)
        if self._new:
            self._new = False
            self._say(f"{self._name} is served at {balancer['vip_address']}:80")
            self._say(f"{self._cloud.requests} requests to the cloud's API, {self._cloud.waiting} of them to wait")

    async def _ensure(self, kind: Kind, path: str, name: str, fields: Status) -> Status:
        """What has this name, ACTIVE: ours from before as long as Vedette has it, else the cloud's, else a new one."""
        id_ = self._known.get((kind, name), "")
        if not id_ or self._vedette.get(kind.plural, id_) is None:
            item = await self._cloud.named(kind, path, name)
            if item is None:
                item = await self._cloud.made(kind, path, {"name": name, **fields})
                self._say(f"{kind.word} {name} is made: {item['id']} is {item[kind.state]}")
            id_ = self._known[kind, name] = str(item["id"])
            self._new = True
        ask = partial(self._cloud.asked, kind, path, id_)
        status = await self._vedette.until(kind.plural, id_, active(kind), PATIENCE_SECONDS, ask)
        assert status is not None
        if self._new:
            self._say(f"{kind.word} {name} is ACTIVE")
        return status

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {what}", flush=True)


async def main(name: str, members: int, network: str, *, once: bool) -> None:
    cloud = await asyncio.to_thread(Cloud)
    cafile = os.environ.get("VEDETTE_CACERT")
    tls = ssl.create_default_context(cafile=cafile) if cafile else None
    url = os.environ.get("VEDETTE_URL", "http://127.0.0.1:8470")
    async with Vedette(url, cloud.project, cloud.session, [kind.plural for kind in KINDS], tls) as vedette:
        await Controller(cloud, vedette, name, members, network).run(once=once)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the load balancer, and of what belongs to it")
    parser.add_argument("--members", type=int, default=2, help="how many ports it balances between (2)")
    parser.add_argument("--network", default="private", help="where they are (private)")
    parser.add_argument("--once", action="store_true", help="end when all of it is there")
    options = parser.parse_args()
    logging.basicConfig(level="WARNING", format="        (%(message)s)")
    try:
        asyncio.run(main(options.name, options.members, options.network, once=options.once))
    except KeyboardInterrupt:
        pass
    except Failed as failed:
        sys.exit(str(failed))
