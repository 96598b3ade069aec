"""Records tests/captures/api-network.jsonl.gz: a life of each of Neutron's and Octavia's kinds in the real cloud, as the user
demo and as an admin; what was notified of it, and what the APIs answered to `Kind.api` while the objects were there.

`.venv/bin/python tests/realcloud/record_network.py`; about two minutes. Everything that it makes goes away at the end. Only what
it made is kept of the answers and the notifications: the cloud is shared. The moments (`moment` in an answer) are:

- `there`, `again`: one object or more of each kind, settled;
- `pending`: the load balancer's member has just been changed, a listener just been made;
- `settled`: that is over, one member is gone;
- `gone`: everything is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tenants import connect, until

from vedette.clients.keystone import Credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import Forbidden, NotFound
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.plugins import kinds
from vedette.ports import Answer, Cloud, Items, Params, Verified

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "unit" / "kinds"))
from recorded_cloud import CAPTURES, Recorder  # noqa: E402 - a test's double, found from here on

KINDS = {kind.kind: kind for kind in kinds() if kind.api is not None and kind.api.service in ("network", "load-balancer")}
NOTHING = "00000000-0000-0000-0000-000000000000"


class Mine:
    """A cloud in which there is only what was made here, and the network that it leads out to."""

    def __init__(self, cloud: Cloud, ids: set[str], public: frozenset[str] = frozenset()) -> None:
        self._cloud, self._ids, self._public = cloud, ids, public

    def has(self, text: str) -> bool:
        return not self._ids.isdisjoint(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))

    def _keeps(self, item: Any) -> bool:
        return item["id"] in self._public or item.get("object_id") in self._public or self.has(json.dumps(item))

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        return await self._cloud.get(service, path, params, microversion=microversion)

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        async for page in self._cloud.pages(service, path, key, params, microversion=microversion):
            yield Items([item for item in page.items if self._keeps(item)], page.as_of)

    async def account(self) -> Verified:
        return await self._cloud.account()

    async def close(self) -> None:
        await self._cloud.close()


class Life:
    """What is done, with openstacksdk's adapters and plain JSON: the requests that any client would make."""

    def __init__(self) -> None:
        self.admin, self.demo = connect(), connect("demo", "demo")
        self.tag = f"api-{int(time.time()) % 100_000}"
        public = self.admin.network.find_network("public")
        self.ids: set[str] = set()
        self.public = frozenset((public.id, *public.subnet_ids))
        self.made: list[tuple[Any, str]] = []
        self.at: dict[str, str] = {"public": public.id}

    def make(self, name: str, path: str, body: Any, *, by: Any = None, balance: bool = False) -> Any:
        adapter = (by or self.demo).load_balancer if balance else (by or self.demo).network
        key = path.rstrip("/").rpartition("/")[2].replace("-", "_")
        key = {"rbac_policies": "rbac_policy"}.get(key, key.removesuffix("s"))
        many = isinstance(body, list)
        said = adapter.post(path, json={key + "s" if many else key: body})
        assert said.status_code in (201, 202), said.text
        made = said.json()[key + "s" if many else key]
        for one in made if many else [made]:
            self.ids.add(one["id"])
            self.made.append(((by or self.demo).load_balancer if balance else self.admin.network, f"{path}/{one['id']}"))
        if not many:
            self.at[name] = made["id"]
        return made

    def change(self, path: str, body: Any, *, balance: bool = False, by: Any = None) -> Any:
        adapter = (by or self.demo).load_balancer if balance else (by or self.demo).network
        said = adapter.put(path, json=body)
        assert said.status_code in (200, 202), said.text
        return said.json() if said.content else None

    def delete(self, path: str, *, balance: bool = False) -> None:
        adapter = self.demo.load_balancer if balance else self.admin.network
        said = adapter.delete(path)
        assert said.status_code in (204, 404), (path, said.text)

    def network(self) -> None:
        at, name = self.at, self.tag
        self.make("sg", "/security-groups", {"name": f"{name}-sg"})
        for port in (443, 22, 80):
            rule = {"security_group_id": at["sg"], "direction": "ingress", "protocol": "tcp"}
            self.make(f"rule {port}", "/security-group-rules", rule | {"port_range_min": port, "port_range_max": port})
        self.delete(f"/security-group-rules/{at['rule 22']}")
        self.make("sg2", "/security-groups", {"name": f"{name}-sg2"})
        self.change(f"/security-groups/{at['sg2']}", {"security_group": {"description": "changed"}})
        self.make("net", "/networks", {"name": f"{name}-net"})
        for number, more in (
            ("1", {"ip_version": 4, "cidr": "10.77.1.0/24", "dns_nameservers": ["9.9.9.9", "8.8.8.8"]}),
            ("2", {"ip_version": 4, "cidr": "10.77.2.0/24", "allocation_pools": POOLS, "host_routes": ROUTES}),
            ("6", V6 | {"cidr": "fd00:77:6::/64"}),
            ("7", V6 | {"cidr": "fd00:77:7::/64"}),
        ):
            self.make(f"subnet {number}", "/subnets", {"network_id": at["net"], "name": f"{name}-{number}"} | more)
        self.change(f"/subnets/{at['subnet 1']}", {"subnet": {"name": f"{name}-renamed"}})
        self.change(f"/networks/{at['net']}", {"network": {"description": "changed"}})
        self.make("everybody's", "/networks", {"name": f"{name}-shared", "shared": True}, by=self.admin)
        self.make(
            "its subnet", "/subnets", {"network_id": at["everybody's"], "ip_version": 4, "cidr": "10.78.1.0/24"}, by=self.admin
        )
        self.make("the admin's", "/networks", {"name": f"{name}-given"})
        given = {"object_type": "network", "action": "access_as_shared", "object_id": at["the admin's"]}
        self.make("policy", "/rbac-policies", given | {"target_tenant": self.admin.current_project_id}, by=self.admin)

        fixed = [{"subnet_id": at["subnet 2"]}, {"subnet_id": at["subnet 1"]}]
        on_net = {"network_id": at["net"]}
        self.make(
            "port",
            "/ports",
            on_net | {"name": f"{name}-p", "fixed_ips": fixed, "security_groups": [at["sg2"], at["sg"]]} | PAIRS,
        )
        bound = {"device_owner": "compute:nova", "device_id": NOTHING, "binding:host_id": "fake-1"}
        self.make("bound", "/ports", on_net | bound | {"tenant_id": self.demo.current_project_id}, by=self.admin)
        self.make("waiting", "/ports", on_net | {"device_owner": "compute:kuryr", "device_id": "pod-1"})
        self.make("off", "/ports", on_net | {"device_id": "pod-2", "admin_state_up": False})
        self.make("both", "/ports", [on_net | {"name": f"{name}-b{number}"} for number in (1, 2)])
        self.change(f"/ports/{at['port']}", {"port": {"description": "changed"}})

        outside = {"external_gateway_info": {"network_id": at["public"]}}
        self.make("router", "/routers", {"name": f"{name}-r"} | outside)
        for subnet in ("subnet 2", "subnet 1"):
            self.change(f"/routers/{at['router']}/add_router_interface", {"subnet_id": at[subnet]})
        # One port that serves two subnets.
        sixes = [{"subnet_id": at["subnet 7"]}, {"subnet_id": at["subnet 6"]}]
        self.make("sixes", "/ports", on_net | {"fixed_ips": sixes})
        self.change(f"/routers/{at['router']}/add_router_interface", {"port_id": at["sixes"]})
        routes = [{"destination": f"10.{number}.0.0/24", "nexthop": "10.77.1.20"} for number in (200, 100)]
        self.change(f"/routers/{at['router']}", {"router": {"routes": routes}})

        address = {"floating_network_id": at["public"]}
        self.make("fip", "/floatingips", address | {"port_id": at["port"], "fixed_ip_address": self._address()})
        self.make("free fip", "/floatingips", address | {"description": "free"})
        for path in (f"/ports/{at['port']}", f"/networks/{at['net']}", f"/routers/{at['router']}", f"/floatingips/{at['fip']}"):
            self.change(f"{path}/tags", {"tags": ["two", "one", "three"]})
            self.demo.network.put(f"{path}/tags/another")
            self.demo.network.delete(f"{path}/tags/one")
        self.demo.network.put(f"/security-groups/{at['sg']}/tags/red")
        self.demo.network.put(f"/subnets/{at['subnet 1']}/tags/blue")

    def _address(self) -> str:
        return str(self.demo.network.get(f"/ports/{self.at['port']}").json()["port"]["fixed_ips"][0]["ip_address"])

    def balance(self) -> None:
        at, name = self.at, self.tag
        self.make("lb", "/lbaas/loadbalancers", {"name": f"{name}-lb", "vip_subnet_id": at["subnet 1"]}, balance=True)
        vip = self.demo.load_balancer.get(f"/lbaas/loadbalancers/{at['lb']}").json()["loadbalancer"]["vip_port_id"]
        self.settle()
        self.ids |= {vip, *self.admin.network.get(f"/ports/{vip}").json()["port"]["security_groups"]}
        self.below("listener", "/lbaas/listeners", {"loadbalancer_id": at["lb"], "protocol": "HTTP", "protocol_port": 80})
        self.below("pool", "/lbaas/pools", {"listener_id": at["listener"], "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"})
        for number in (1, 2):
            where = {"address": f"10.77.1.2{number}", "protocol_port": 80, "name": f"{name}-m{number}"}
            self.below(f"member {number}", f"/lbaas/pools/{at['pool']}/members", where)
        monitor = {"pool_id": at["pool"], "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2}
        self.below("monitor", "/lbaas/healthmonitors", monitor)
        self.below("unused", "/lbaas/pools", {"loadbalancer_id": at["lb"], "protocol": "TCP", "lb_algorithm": "SOURCE_IP"})
        self.below("member 3", f"/lbaas/pools/{at['unused']}/members", {"address": "10.77.1.23", "protocol_port": 81})
        self.change(f"/lbaas/loadbalancers/{at['lb']}", {"loadbalancer": {"description": "changed"}}, balance=True)
        self.settle()

    def below(self, name: str, path: str, body: Any) -> None:
        self.make(name, path, {"name": f"{self.tag}-{name}"} | body, balance=True)
        self.settle()

    def settle(self) -> None:
        path = f"/lbaas/loadbalancers/{self.at['lb']}"
        until(
            "the load balancer to be ACTIVE",
            lambda: self.demo.load_balancer.get(path).json()["loadbalancer"]["provisioning_status"] == "ACTIVE",
        )

    def clear(self) -> None:
        at = self.at
        if "lb" in at:
            self.settle()
            self.demo.load_balancer.delete(f"/lbaas/loadbalancers/{at['lb']}?cascade=true")
            path = f"/lbaas/loadbalancers/{at['lb']}"
            until("the load balancer to be gone", lambda: self.demo.load_balancer.get(path).status_code == 404)
        if "fip" in at:
            self.change(f"/floatingips/{at['fip']}", {"floatingip": {"port_id": None}})
        if "router" in at:
            self.change(f"/routers/{at['router']}", {"router": {"routes": []}})
            for key in ("subnet 1", "subnet 2"):
                self.change(f"/routers/{at['router']}/remove_router_interface", {"subnet_id": at[key]})
            if "sixes" in at:
                self.change(f"/routers/{at['router']}/remove_router_interface", {"port_id": at["sixes"]})
        for adapter, path in reversed(self.made):
            if "/lbaas/" in path or "security-group-rules" in path:
                continue
            said = adapter.delete(path)
            assert said.status_code in (204, 404), (path, said.text)


POOLS = [{"start": "10.77.2.100", "end": "10.77.2.150"}, {"start": "10.77.2.10", "end": "10.77.2.50"}]
ROUTES = [{"destination": f"10.{number}.0.0/24", "nexthop": f"10.77.2.{number}"} for number in (9, 8)]
V6 = {"ip_version": 6}
PAIRS = {
    "allowed_address_pairs": [{"ip_address": "10.99.0.2"}, {"ip_address": "10.99.0.1"}],
    "extra_dhcp_opts": [{"opt_name": "tftp-server", "opt_value": "1.2.3.4"}, {"opt_name": "bootfile-name", "opt_value": "x"}],
}


def account(user: str) -> OpenStackCloud:
    credentials = Credentials(
        auth_url="http://127.0.0.1:5000/v3",
        username=user,
        password=Secret("ospw"),
        user_domain_name="Default",
        project_name=user,
        project_domain_name="Default",
    )
    return OpenStackCloud(credentials, name=user, clock=SystemClock(), telemetry=Telemetry())


class Recording:
    """The answers so far, as both accounts got them."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.lines: list[dict[str, Any]] = []
        self._clouds = {user: account(user) for user in ("admin", "demo")}

    async def close(self) -> None:
        for cloud in self._clouds.values():
            await cloud.close()

    def _recorder(self, user: str) -> tuple[Recorder, io.StringIO]:
        out = io.StringIO()
        return Recorder(Mine(self._clouds[user], self.life.ids, self.life.public), user, out), out

    def _keep(self, out: io.StringIO, moment: str) -> None:
        self.lines += [json.loads(line) | {"moment": moment} for line in out.getvalue().splitlines()]

    async def everything(self, moment: str) -> None:
        """Each kind's list, twice, and one object, some, the proof and what isn't there."""
        for user in self._clouds:
            cloud, out = self._recorder(user)
            for name in KINDS:
                api = KINDS[name].api
                assert api is not None
                found = [one async for page in api.list(cloud) for one in page]
                for one in found[:2]:
                    await api.get(cloud, one.id)
                if api.some is not None:
                    await api.some(cloud, [*(one.id for one in found[:2]), NOTHING])
                for ask in (api.get(cloud, NOTHING), cloud.get(api.service, api.proof)):
                    with contextlib.suppress(NotFound, Forbidden):  # recorded as that
                        await ask
            self._keep(out, moment)

    async def scan(self, moment: str) -> None:
        """What a look needs that knows nothing of the load balancer, one that knows all, and its tree."""
        cloud, out = self._recorder("admin")
        api = KINDS["LoadBalancer"].api
        assert api is not None
        assert api.scan is not None
        async for _ in api.scan.look(cloud, {}):
            pass
        if "lb" in self.life.at:
            await api.get(cloud, self.life.at["lb"]) if moment != "gone" else None
            assert api.some is not None
            await api.some(cloud, [self.life.at["lb"]])
        self._keep(out, moment)

    async def gone(self) -> None:
        """Each kind's empty list, and a 404 for each object."""
        cloud, out = self._recorder("admin")
        for name in KINDS:
            api = KINDS[name].api
            assert api is not None
            for id_ in sorted({one["id"] for line in self.lines for one in _items(line, name)}):
                with contextlib.suppress(NotFound):
                    await api.get(cloud, id_)
            async for _ in api.list(cloud):
                pass
        self._keep(out, "gone")


def _items(line: dict[str, Any], name: str) -> list[Any]:
    key = "security_groups" if name == "SecurityGroup" else KINDS[name].plural
    listed: list[Any] = line["body"].get(key, [])
    return listed


async def record(life: Life) -> list[dict[str, Any]]:
    recording = Recording(life)
    try:
        await asyncio.to_thread(life.network)
        await asyncio.to_thread(life.balance)
        await asyncio.sleep(4)  # ports and floating IPs go ACTIVE; the last second's changes are over
        await recording.everything("there")
        await recording.scan("there")
        await recording.everything("again")
        at = life.at

        def stir() -> None:
            life.change(f"/lbaas/pools/{at['pool']}/members/{at['member 1']}", {"member": {"weight": 7}}, balance=True)
            life.settle()
            life.make(
                "listener 2",
                "/lbaas/listeners",
                {"loadbalancer_id": at["lb"], "protocol": "TCP", "protocol_port": 81},
                balance=True,
            )

        await asyncio.to_thread(stir)
        await recording.scan("pending")
        await asyncio.to_thread(life.settle)
        await asyncio.to_thread(life.delete, f"/lbaas/pools/{at['pool']}/members/{at['member 2']}", balance=True)
        await asyncio.to_thread(life.settle)
        await asyncio.sleep(3)
        await recording.scan("settled")
        await recording.everything("settled")
        await asyncio.to_thread(life.clear)
        await asyncio.sleep(2)
        await recording.scan("gone")
        await recording.gone()
    finally:
        await recording.close()
    return recording.lines


def main() -> None:
    life = Life()
    with tempfile.TemporaryDirectory() as folder:
        heard = Path(folder) / "heard.jsonl"
        capture = subprocess.Popen(
            ["/usr/bin/python3", str(HERE / "capture.py"), str(heard), "--exchanges", "neutron,octavia"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert capture.stdout is not None
        while not capture.stdout.readline().startswith("capturing"):
            assert capture.poll() is None
        try:
            answers = asyncio.run(record(life))
        except BaseException:
            life.clear()
            raise
        finally:
            time.sleep(2)
            capture.send_signal(signal.SIGTERM)
            capture.wait(30)
        mine = Mine(None, life.ids)  # type: ignore[arg-type]
        lines = [line for line in heard.read_text().splitlines() if mine.has(line)]
    tokens: dict[str, str] = {}
    text = "\n".join([*lines, *(json.dumps(answer) for answer in answers)]) + "\n"
    text = re.sub(r"gAAAAA[\w=-]+", lambda found: tokens.setdefault(found[0], f"recorded-token-{len(tokens)}"), text)
    target = CAPTURES / "api-network.jsonl.gz"
    with open(target, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        packed.write(text.encode())
    print(f"{len(lines)} notifications, {len(answers)} answers, {target.stat().st_size} bytes, {len(tokens)} tokens replaced")


if __name__ == "__main__":
    main()
