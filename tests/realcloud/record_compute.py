"""Records tests/captures/api-compute.jsonl.gz: a life of each of Nova's, Cinder's, Glance's, Heat's and Keystone's kinds in the
real cloud, as a tenant and as an admin; what was notified of it, and what the APIs answered to `Kind.api` meanwhile.

`.venv/bin/python tests/realcloud/record_compute.py`; about four minutes. Everything that it makes goes away at the end. Only
what it made is kept of the answers and the notifications: the cloud is shared. The moments (`moment` in an answer) are:

- `there`, `again`: objects of each kind in as many states as there are, settled;
- `changed`: most of them were changed, some are gone;
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

from tenants import PASSWORD, Tenants, until

from vedette.clients.keystone import Credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import VedetteError
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.plugins import kinds
from vedette.ports import Answer, Cloud, Items, Params, Verified

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "unit" / "kinds"))
from recorded_cloud import CAPTURES, Recorder  # noqa: E402 - a test's double, found from here on

SERVICES = ("compute", "block-storage", "image", "orchestration", "identity")
KINDS = {kind.kind: kind for kind in kinds() if kind.api is not None and kind.api.service in SERVICES}
NOTHING = "00000000-0000-4000-8000-000000000000"
ALWAYS = ("hypervisors", "services", "domains")
"""Lists that are kept as they are."""
THERE = ("m1.tiny", "m1.small", "m1.medium", "cirros", "admin", "demo", "svc", "service", "heat_domain_admin")
"""Names of what is in every such cloud."""
QUIET = 8.0
"""Seconds after which nothing of what was done is under way."""
KEY = (
    "ssh-rsa "
    + "AAAAB3NzaC1yc2EAAAADAQABAAABAQCWmFYkQILCFnT83CIPjzDCL4GWKd64zb4NvH3tICgYOMCoy18f6DOq2+NRtbox+W2It4kJool8hYvD4XB4"
    + (
        "pwFMjd/SQuda9AegiqTjXxdHh1n3t4b8MaUBjBKHL7Ahaqbjs1ZgzuwG1LxLNO7QscSmjOtogJTrysa6A3knGC9aONZgEfd7paEkVbbvYVmNeQOjmRRNY7P82A"
        "oY9/4LdCiHcG2KM6kjZZvzk7Iu5XTdI0DSLsFqY//mAx8KlAn6PR57vQFEOxdD40yhq4Q+8CgBlcn3GqkleP+ZXmrJHyewZ7IGUZ/I1CBN++2NRXrxFjuS1Gdm"
        "FX2FpcUuunXbxV2F recorded"
    )
)
IMAGE_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
BYTES = {"Content-Type": "application/octet-stream"}
RANDOM = {"type": "OS::Heat::RandomString", "properties": {"length": 8}}


class Mine:
    """A cloud in which there is only what was made here, and what is always there."""

    def __init__(self, cloud: Cloud, marks: set[str]) -> None:
        self._cloud, self._marks = cloud, marks

    def has(self, text: str) -> bool:
        return any(mark in text for mark in self._marks)

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        return await self._cloud.get(service, path, params, microversion=microversion)

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        async for page in self._cloud.pages(service, path, key, params, microversion=microversion):
            kept = [
                item
                for item in page.items
                if key in ALWAYS or path == "/os-keypairs" or item.get("name") in THERE or self.has(json.dumps(item))
            ]
            yield Items(kept, page.as_of)

    async def account(self) -> Verified:
        return await self._cloud.account()

    async def close(self) -> None:
        await self._cloud.close()


class Life:
    """What is done, with openstacksdk's adapters and plain JSON: the requests that any client would make."""

    def __init__(self) -> None:
        self.tenants = Tenants()
        self.admin, self.one = self.tenants.admin, self.tenants.one.cloud
        self.marks = {self.tenants.tag, self.tenants.one.project, self.tenants.two.project}
        self.at: dict[str, str] = {}
        self.hosts = {
            one["host"]: one["id"]
            for one in self._json(self.admin.compute, "/os-services?binary=nova-compute", "2.53")["services"]
        }

    # --- requests ---

    def named(self, name: str) -> str:
        return self.tenants.named(name)

    def _json(self, adapter: Any, path: str, microversion: str | None = None) -> Any:
        return adapter.get(path, microversion=microversion).json()

    def ask(self, adapter: Any, method: str, path: str, body: Any = None, microversion: str | None = None) -> Any:
        """The answer's JSON. Raises AssertionError when it is refused."""
        said = getattr(adapter, method)(path, json=body, microversion=microversion)
        assert said.status_code < 400, (method, path, said.status_code, said.text[:300])
        return said.json() if said.text[:1] == "{" else {}

    def make(self, name: str, adapter: Any, path: str, key: str, body: Any, microversion: str | None = None, **more: Any) -> str:
        """Make an object; its id, which is also kept by the name."""
        said = self.ask(adapter, "post", path, {key: {"name": self.named(name), **body}, **more}, microversion)
        self.at[name] = str((said.get(key) or said)["id"])
        return self.at[name]

    def act(self, name: str, body: Any, microversion: str | None = None, *, by: Any = None) -> None:
        self.ask((by or self.one).compute, "post", f"/servers/{self.at[name]}/action", body, microversion)

    def server_is(self, name: str, status: str) -> None:
        def look() -> bool:
            server = self._json(self.one.compute, f"/servers/{self.at[name]}")["server"]
            assert server["status"] in (status, *("BUILD",) * (status == "ERROR")) or server["status"] != "ERROR", server["fault"]
            return server["status"] == status and server["OS-EXT-STS:task_state"] is None

        until(f"{name} to be {status}", look)

    def volume_is(self, name: str, *wanted: str, of: str = "volume") -> None:
        path = f"/{of}s/{self.at[name]}"
        until(f"{name} to be {wanted}", lambda: self._json(self.admin.block_storage, path)[of]["status"] in wanted)

    def stack_is(self, name: str, *wanted: str) -> None:
        def look() -> bool:
            (stack,) = self._json(self.one.orchestration, f"/stacks?id={self.at[name]}")["stacks"]
            return stack["stack_status"] in wanted

        until(f"{name} to be {wanted}", look)

    # --- there ---

    def begin(self) -> None:
        self.identity()
        self.flavors()
        self.hosts_and_keys()
        self.images()
        self.network()
        self.volumes()
        self.servers()
        self.stacks()
        # While it is recorded, one host is switched off and one declared dead.
        self.service("fake-3", {"status": "disabled", "disabled_reason": self.named("reason")})
        self.service("fake-2", {"forced_down": True})

    def service(self, host: str, body: Any) -> None:
        self.ask(self.admin.compute, "put", f"/os-services/{self.hosts[host]}", body, "2.53")

    def identity(self) -> None:
        identity = self.admin.identity
        self.make("project", identity, "/projects", "project", {"domain_id": "default"})
        self.ask(identity, "patch", f"/projects/{self.at['project']}", {"project": {"enabled": False}})
        for tag in ("zeta", "alpha"):
            self.ask(identity, "put", f"/projects/{self.at['project']}/tags/{tag}")
        self.make("user", identity, "/users", "user", {"domain_id": "default", "password": PASSWORD, "description": "nobody"})
        self.ask(identity, "patch", f"/users/{self.at['user']}", {"user": {"enabled": False}})

    def flavors(self) -> None:
        compute = self.admin.compute
        size = {"ram": 128, "vcpus": 1, "disk": 1}
        for name, more in (
            ("small", {"description": "small"}),
            ("deleted", {"swap": 64}),
            ("made anew", {}),
            ("big", {"ram": 256}),
            ("huge", {"ram": 10**7}),
            ("private", {"os-flavor-access:is_public": False}),
        ):
            self.make(name, compute, "/flavors", "flavor", {**size, **more}, "2.55")
        specs = f"/flavors/{self.at['small']}/os-extra_specs"
        self.ask(compute, "post", specs, {"extra_specs": {"hw:x": "1", "hw:gone": "x"}})
        self.ask(compute, "delete", f"{specs}/hw:gone")
        for tenant in (self.tenants.two.project, self.tenants.one.project):
            self.ask(compute, "post", f"/flavors/{self.at['private']}/action", {"addTenantAccess": {"tenant": tenant}})

    def hosts_and_keys(self) -> None:
        compute = self.admin.compute
        for by, name, more in (
            (self.one, "key 1", {"public_key": KEY}),
            (self.one, "made", {}),
            (self.admin, "admins", {"public_key": KEY}),
        ):
            self.ask(by.compute, "post", "/os-keypairs", {"keypair": {"name": self.named(name), "type": "ssh", **more}}, "2.2")
        self.make("aggregate", compute, "/os-aggregates", "aggregate", {}, "2.41")
        for host in ("fake-3", "fake-1"):
            self.aggregate("aggregate", {"add_host": {"host": host}})
        self.aggregate("aggregate", {"set_metadata": {"metadata": {"ssd": "true"}}})
        self.make("zone", compute, "/os-aggregates", "aggregate", {"availability_zone": self.named("az")}, "2.41")

    def aggregate(self, name: str, body: Any) -> None:
        self.ask(self.admin.compute, "post", f"/os-aggregates/{self.at[name]}/action", body)

    def images(self) -> None:
        one = self.one.image
        form = {"disk_format": "raw", "container_format": "bare"}
        for name, by, data, more in (
            ("image", one, b"x" * 4096, {"tags": ["zeta", "alpha"], "hw_disk_bus": "scsi", "owner_specified.x": ""}),
            ("queued", one, b"", {"disk_format": "qcow2"}),
            ("hidden", self.admin.image, b"abc", {"visibility": "public", "os_hidden": True}),
            ("community", one, b"", {"visibility": "community", "protected": True, "min_disk": 2}),
            ("private image", one, b"abcd", {"visibility": "private"}),
        ):
            said = by.post("/images", json={"name": self.named(name), **form, **more})
            assert said.status_code == 201, said.text
            self.at[name] = said.json()["id"]
            if data:
                by.put(f"/images/{self.at[name]}/file", data=data, headers=BYTES).raise_for_status()
        self.ask(self.admin.image, "post", f"/images/{self.at['private image']}/actions/deactivate")
        said = one.post("/images", json={"name": self.named("imported"), **form})
        self.at["imported"] = said.json()["id"]
        one.put(f"/images/{self.at['imported']}/stage", data=b"abcde", headers=BYTES).raise_for_status()
        self.ask(one, "post", f"/images/{self.at['imported']}/import", {"method": {"name": "glance-direct"}})
        self.at["cirros"] = self.admin.image.find_image("cirros").id

    def network(self) -> None:
        network = self.one.network
        for name, cidr in (("net", "10.66.0.0/24"), ("net 2", "10.67.0.0/24")):
            self.at[name] = network.create_network(name=self.named(name)).id
            self.at[f"sub of {name}"] = network.create_subnet(network_id=self.at[name], ip_version=4, cidr=cidr).id
        network.create_subnet(network_id=self.at["net"], ip_version=6, cidr="fd66::/64")
        public = self.admin.network.find_network("public").id
        router = network.create_router(name=self.named("router"), external_gateway_info={"network_id": public})
        network.add_interface_to_router(router, subnet_id=self.at["sub of net"])
        self.at["public"] = public

    def volumes(self) -> None:
        volumes = self.one.block_storage
        for name, more in (
            ("volume a", {}),
            ("volume b", {}),
            ("free", {"metadata": {"k": "v"}, "description": "d"}),
            ("too small", {}),
            ("boot disk", {}),
            ("broken", {}),
            ("given", {}),
            ("kept", {}),
        ):
            self.make(name, volumes, "/volumes", "volume", {"size": 1, **more})
        for name in ("volume a", "volume b", "free", "too small", "boot disk", "broken", "given", "kept"):
            self.volume_is(name, "available")
        self.make("snapshot", volumes, "/snapshots", "snapshot", {"volume_id": self.at["free"], "metadata": {"s": "t"}})
        self.volume_is("snapshot", "available", of="snapshot")
        self.make("from snapshot", volumes, "/volumes", "volume", {"size": 1, "snapshot_id": self.at["snapshot"]})
        self.volume("boot disk", {"os-set_bootable": {"bootable": True}})
        self.volume("too small", {"os-extend": {"new_size": 2}})
        self.volume("broken", {"os-reset_status": {"status": "error"}}, by=self.admin)

    def volume(self, name: str, body: Any, *, by: Any = None) -> None:
        self.ask((by or self.one).block_storage, "post", f"/volumes/{self.at[name]}/action", body)

    def server(self, name: str, *nets: str, flavor: str = "small", image: str = "cirros", hints: Any = None, **more: Any) -> None:
        body: dict[str, Any] = {"flavorRef": self.at[flavor], **more}
        body["networks"] = [{"uuid": self.at[net]} for net in nets] if nets else "none"
        if image:
            body["imageRef"] = self.at[image]
        beside = {"os:scheduler_hints": hints} if hints else {}
        self.make(name, self.one.compute, "/servers", "server", body, "2.90", **beside)

    def servers(self) -> None:
        group = {"policy": "anti-affinity", "rules": {"max_server_per_host": 5}}
        self.make("group", self.one.compute, "/os-server-groups", "server_group", group, "2.64")
        self.make("empty group", self.one.compute, "/os-server-groups", "server_group", {"policy": "soft-affinity"}, "2.64")
        together = {"group": self.at["group"]}
        disk = {"uuid": self.at["boot disk"], "source_type": "volume", "destination_type": "volume", "boot_index": 0}
        self.server(
            "active", "net 2", "net", hints=together, key_name=self.named("key 1"), metadata={"team": "blue"},
            tags=["zeta", "alpha"], description="text", accessIPv4="192.0.2.7",
        )  # fmt: skip
        self.server("member 1", hints=together)
        self.server("member 2", hints=together)
        self.server("stopped", "net", flavor="deleted")
        self.server("paused", "net", flavor="made anew")
        self.server("shelved", "net")
        self.server("error", flavor="huge")
        self.server("volumes", "net")
        self.server("rescued")
        self.server("resized", "net")
        self.server("suspended")
        self.server("reset")
        self.server("booted", image="", block_device_mapping_v2=[disk])
        names = ("active", "member 1", "member 2", "stopped", "paused", "shelved", "volumes", "rescued", "resized", "suspended")
        for name in (*names, "reset", "booted"):
            self.server_is(name, "ACTIVE")
        self.server_is("error", "ERROR")
        self.act("stopped", {"os-stop": None})
        self.act("paused", {"pause": None})
        self.act("shelved", {"shelve": None})
        self.act("rescued", {"rescue": {"adminPass": "x"}})
        self.act("resized", {"resize": {"flavorRef": self.at["big"]}})
        self.act("suspended", {"suspend": None})
        self.act("reset", {"os-resetState": {"state": "error"}}, by=self.admin)
        self.act("active", {"lock": {"locked_reason": "recorded"}}, "2.73")
        # Attached in the order of their ids turned round.
        for name in sorted(("volume a", "volume b"), key=lambda one: self.at[one], reverse=True):
            body = {"volumeAttachment": {"volumeId": self.at[name]}}
            self.ask(self.one.compute, "post", f"/servers/{self.at['volumes']}/os-volume_attachments", body)
            self.volume_is(name, "in-use")
        for name, status in (
            ("stopped", "SHUTOFF"),
            ("paused", "PAUSED"),
            ("shelved", "SHELVED_OFFLOADED"),
            ("rescued", "RESCUE"),
            ("resized", "VERIFY_RESIZE"),
            ("suspended", "SUSPENDED"),
            ("reset", "ERROR"),
        ):
            self.server_is(name, status)
        network = self.one.network
        (port,) = network.ports(device_id=self.at["active"], network_id=self.at["net"])
        four = next(one["ip_address"] for one in port.fixed_ips if "." in one["ip_address"])
        network.create_ip(floating_network_id=self.at["public"], port_id=port.id, fixed_ip_address=four)
        compute = self.admin.compute
        self.ask(compute, "delete", f"/flavors/{self.at['deleted']}")
        self.ask(compute, "delete", f"/flavors/{self.at['made anew']}")
        self.make("made anew", compute, "/flavors", "flavor", {"ram": 192, "vcpus": 1, "disk": 1})

    def stacks(self) -> None:
        bad = {"network": self.at["net"], "fixed_ips": [{"ip_address": "192.0.2.1"}]}
        for name, resources, more in (
            ("plain", {"random": RANDOM}, {"tags": "zeta,alpha"}),
            ("nested", {"many": {"type": "OS::Heat::ResourceGroup", "properties": {"count": 2, "resource_def": RANDOM}}}, {}),
            ("failed", {"random": RANDOM, "bad": {"type": "OS::Neutron::Port", "properties": bad}}, {"disable_rollback": True}),
            ("updated", {"random": RANDOM}, {}),
            ("deleted stack", {"random": RANDOM}, {}),
        ):
            template = {"heat_template_version": "2018-08-31", "description": f"of {name}", "resources": resources}
            body = {"stack_name": self.named(name).replace(" ", "-"), "template": template, "timeout_mins": 5, **more}
            self.at[name] = self.ask(self.one.orchestration, "post", "/stacks", body)["stack"]["id"]
        for name in ("plain", "nested", "failed", "updated", "deleted stack"):
            self.stack_is(name, "CREATE_FAILED" if name == "failed" else "CREATE_COMPLETE")
        other = {"heat_template_version": "2018-08-31", "resources": {"random": {**RANDOM, "properties": {"length": 9}}}}
        self.ask(self.one.orchestration, "put", f"/stacks/{self.named('updated')}/{self.at['updated']}", {"template": other})
        self.stack_is("updated", "UPDATE_COMPLETE")

    # --- changed ---

    def change(self) -> None:
        self.service("fake-2", {"forced_down": False})
        self.service("fake-3", {"status": "enabled"})
        self.change_servers()
        compute, identity = self.admin.compute, self.admin.identity
        self.ask(compute, "put", f"/flavors/{self.at['small']}", {"flavor": {"description": "changed"}}, "2.55")
        self.ask(compute, "post", f"/flavors/{self.at['small']}/os-extra_specs", {"extra_specs": {"hw:y": "2"}})
        two = {"removeTenantAccess": {"tenant": self.tenants.two.project}}
        self.ask(compute, "post", f"/flavors/{self.at['private']}/action", two)
        self.aggregate("aggregate", {"remove_host": {"host": "fake-3"}})
        self.aggregate("aggregate", {"set_metadata": {"metadata": {"ssd": None, "hdd": "1"}}})
        self.ask(compute, "put", f"/os-aggregates/{self.at['zone']}", {"aggregate": {"name": self.named("zone 2")}})
        self.aggregate("zone", {"set_metadata": {"metadata": {"availability_zone": self.named("az2")}}})
        self.ask(self.one.compute, "delete", f"/os-keypairs/{self.named('made')}")
        self.change_volumes()
        changes = (
            {"op": "replace", "path": "/min_ram", "value": 64},
            {"op": "add", "path": "/foo", "value": "bar"},
            {"op": "replace", "path": "/tags", "value": ["c", "b", "a"]},
        )
        said = self.one.image.patch(f"/images/{self.at['image']}", data=json.dumps(changes), headers=IMAGE_PATCH)
        assert said.status_code == 200, said.text
        self.ask(self.admin.image, "post", f"/images/{self.at['private image']}/actions/reactivate")
        self.ask(identity, "patch", f"/users/{self.at['user']}", {"user": {"enabled": True, "description": "somebody"}})
        self.ask(identity, "patch", f"/projects/{self.at['project']}", {"project": {"enabled": True, "description": "again"}})
        heat = self.one.orchestration
        self.ask(heat, "delete", f"/stacks/{self.named('deleted-stack')}/{self.at['deleted stack']}")
        self.ask(heat, "post", f"/stacks/{self.named('nested')}/{self.at['nested']}/actions", {"check": None})
        self.ask(heat, "post", f"/stacks/{self.named('plain')}/{self.at['plain']}/actions", {"suspend": None})

    def change_servers(self) -> None:
        compute = self.one.compute
        active = f"/servers/{self.at['active']}"
        self.act("active", {"unlock": None})
        renamed = {"name": self.named("renamed"), "accessIPv4": "192.0.2.8", "description": None}
        self.ask(compute, "put", active, {"server": renamed}, "2.19")
        self.ask(compute, "delete", f"{active}/tags/zeta", None, "2.26")
        self.ask(compute, "put", f"{active}/tags/beta", None, "2.26")
        self.ask(compute, "post", f"{active}/metadata", {"metadata": {"team": "red", "env": "x"}})
        for name, body, by in (
            ("stopped", {"os-start": None}, self.one),
            ("paused", {"unpause": None}, self.one),
            ("shelved", {"unshelve": None}, self.one),
            ("rescued", {"unrescue": None}, self.one),
            ("suspended", {"resume": None}, self.one),
            ("resized", {"confirmResize": None}, self.one),
            ("reset", {"os-resetState": {"state": "active"}}, self.admin),
        ):
            self.act(name, body, by=by)
        for name in ("stopped", "paused", "shelved", "rescued", "suspended", "resized", "reset"):
            self.server_is(name, "ACTIVE")
        self.then("booted", {"os-migrateLive": {"host": None, "block_migration": "auto"}}, "2.30", by=self.admin)
        self.then("reset", {"rebuild": {"imageRef": self.at["cirros"], "name": self.named("rebuilt")}})
        self.act("rescued", {"resize": {"flavorRef": self.at["big"]}})
        self.server_is("rescued", "VERIFY_RESIZE")
        self.then("rescued", {"revertResize": None})
        self.then("paused", {"createImage": {"name": self.named("of a server")}})
        self.then("suspended", {"reboot": {"type": "HARD"}})
        self.ask(compute, "delete", f"/servers/{self.at['volumes']}/os-volume_attachments/{self.at['volume b']}")
        self.volume_is("volume b", "available")
        port = self.one.network.create_port(network_id=self.at["net 2"])
        self.ask(compute, "post", f"/servers/{self.at['resized']}/os-interface", {"interfaceAttachment": {"port_id": port.id}})
        self.ask(compute, "delete", f"/servers/{self.at['member 1']}")
        until("a member to be gone", lambda: compute.get(f"/servers/{self.at['member 1']}").status_code == 404)
        self.server("member 3", hints={"group": self.at["group"]})
        self.server_is("member 3", "ACTIVE")

    def then(self, name: str, body: Any, microversion: str | None = None, *, by: Any = None) -> None:
        self.act(name, body, microversion, by=by)
        time.sleep(1.0)  # until it has a task
        self.server_is(name, "ACTIVE")

    def change_volumes(self) -> None:
        volumes, two = self.one.block_storage, self.tenants.two.cloud.block_storage
        self.ask(volumes, "put", f"/volumes/{self.at['free']}", {"volume": {"name": self.named("freed"), "metadata": {"k": "w"}}})
        self.ask(volumes, "put", f"/snapshots/{self.at['snapshot']}", {"snapshot": {"name": self.named("snapped")}})
        self.volume("volume b", {"os-update_readonly_flag": {"readonly": True}})
        offers = {}
        for name in ("given", "kept", "from snapshot"):
            body = {"transfer": {"volume_id": self.at[name], "name": name}}
            offers[name] = self.ask(volumes, "post", "/os-volume-transfer", body)["transfer"]
        accepted = {"accept": {"auth_key": offers["given"]["auth_key"]}}
        self.ask(two, "post", f"/os-volume-transfer/{offers['given']['id']}/accept", accepted)
        self.ask(volumes, "delete", f"/os-volume-transfer/{offers['kept']['id']}")
        self.at["offer"] = offers["from snapshot"]["id"]

    # --- gone ---

    def clear(self) -> None:
        for host, body in (("fake-2", {"forced_down": False}), ("fake-3", {"status": "enabled"})):
            self.service(host, body)
        if "offer" in self.at:
            self.one.block_storage.delete(f"/os-volume-transfer/{self.at['offer']}")
        if "community" in self.at:  # no list without its visibility shows it to admins
            self.admin.image.update_image(self.at["community"], is_protected=False)
            self.admin.image.delete(f"/images/{self.at['community']}")
        self.admin.compute.delete(f"/os-keypairs/{self.named('admins')}")
        left = self.tenants.clear()
        assert not left, left


def account(user: str) -> OpenStackCloud:
    credentials = Credentials(
        auth_url="http://127.0.0.1:5000/v3",
        username=user,
        password=Secret(PASSWORD),
        user_domain_name="Default",
        project_name=user,
        project_domain_name="Default",
        region_name="RegionOne",
    )
    return OpenStackCloud(credentials, name=user, clock=SystemClock(), telemetry=Telemetry())


class Recording:
    """The answers so far, as both accounts got them."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.lines: list[dict[str, Any]] = []
        self._seen: dict[str, set[str]] = {name: set() for name in KINDS}
        self._left: set[str] = set()
        self._clouds = {"admin": account("admin"), "demo": account(life.tenants.one.name)}

    async def close(self) -> None:
        for cloud in self._clouds.values():
            await cloud.close()

    async def everything(self, moment: str) -> None:
        """Each kind's list; to the admin also each object of ours, some, what isn't there; the proofs."""
        for user, cloud in self._clouds.items():
            if moment != "there" and user != "admin":
                continue
            out = io.StringIO()
            recorder = Recorder(Mine(cloud, self._life.marks), user, out)
            for name, kind in KINDS.items():
                assert kind.api is not None
                found: list[Any] = []
                with contextlib.suppress(VedetteError):  # recorded as that
                    found = [one async for page in kind.api.list(recorder) for one in page]
                with contextlib.suppress(VedetteError):
                    await recorder.get(kind.api.service, kind.api.proof) if kind.api.proof else None
                print(f"{moment}: {len(found)} {kind.plural} as {user}")
                if moment == "gone":
                    self._left.update(one.id for one in found)
                if user == "admin" and moment != "again":
                    await self._one_by_one(recorder, name, [one.id for one in found])
            self.lines += [json.loads(line) | {"moment": moment} for line in out.getvalue().splitlines()]

    def went(self) -> set[str]:
        """Ids of what was there, and isn't any more."""
        return {id_ for ids in self._seen.values() for id_ in ids if len(id_) >= 32} - self._left

    async def _one_by_one(self, recorder: Recorder, name: str, ids: list[str]) -> None:
        api = KINDS[name].api
        assert api is not None
        seen = self._seen[name]
        seen.update(ids)
        nothing = {"Aggregate": "999999", "Keypair": f"{self._life.tenants.one.user}:nothing"}.get(name, NOTHING)
        for id_ in [*sorted(seen), nothing]:
            with contextlib.suppress(VedetteError):
                await api.get(recorder, id_)
        if api.some is not None:
            await api.some(recorder, [*sorted(seen)[:50], NOTHING])


async def record(life: Life) -> Recording:
    recording = Recording(life)
    try:
        await asyncio.to_thread(life.begin)
        await asyncio.sleep(QUIET)
        await recording.everything("there")
        await recording.everything("again")
        await asyncio.to_thread(life.change)
        await asyncio.sleep(QUIET)
        await recording.everything("changed")
        await asyncio.to_thread(life.clear)
        await asyncio.sleep(QUIET)
        await recording.everything("gone")
    finally:
        await recording.close()
    return recording


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        heard = Path(folder) / "heard.jsonl"
        capture = subprocess.Popen(
            ["/usr/bin/python3", str(HERE / "capture.py"), str(heard), "--exchanges", "nova,openstack,glance,keystone,heat"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert capture.stdout is not None
        while not capture.stdout.readline().startswith("capturing"):
            assert capture.poll() is None
        try:
            life = Life()
            try:
                recording = asyncio.run(record(life))
            except BaseException:
                life.clear()
                raise
        finally:
            time.sleep(2)
            capture.send_signal(signal.SIGTERM)
            capture.wait(30)
        mine = Mine(None, life.marks | recording.went() | {"service.update"})  # type: ignore[arg-type]
        lines = [line for line in heard.read_text().splitlines() if mine.has(line)]
    tokens: dict[str, str] = {}
    text = "\n".join([*lines, *(json.dumps(answer) for answer in recording.lines)]) + "\n"
    text = re.sub(r"gAAAAA[\w=-]+", lambda found: tokens.setdefault(found[0], f"recorded-token-{len(tokens)}"), text)
    target = CAPTURES / "api-compute.jsonl.gz"
    with open(target, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        packed.write(text.encode())
    print(f"{len(lines)} notifications, {len(recording.lines)} answers, {target.stat().st_size} bytes")
    print(f"{len(tokens)} tokens replaced")


if __name__ == "__main__":
    main()
