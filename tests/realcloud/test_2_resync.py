"""Part 2: what was missed is found. Messages are dropped, Vedette is killed, RabbitMQ is stopped, while the cloud goes on;
afterwards the inventory equals the API's listing, each miss is in the log once, with its reason, watchers were told each change
once, and nothing is deleted that is there.

What must be told is worked out here, from the inventory before the pass (the log still knows it) and the API's listing after it.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import api_only
import comparing
import pytest
from bus import Bus
from comparing import Difference, Listed, Name
from figures import Figures
from openstack import exceptions
from tenants import Tenants, connect, until
from vedette_process import PLURALS, Follower, VedetteProcess, serving

from vedette.plugins import kinds
from vedette.ports import Cloud

PART = "2. What was missed"
SINGULARS = {kind.kind: kind.singular for kind in kinds()}
KINDS = {kind.singular: kind.kind for kind in kinds()}
API = {"resync": "0", "verify": False}
"""Only on start, after gaps and on demand, and nothing else that reads the API: what is found was found by that pass."""


# --- a cloud that changes ---------------------------------------------------------------------------------------------------


class Changes:
    """Objects of most kinds, made beforehand; then some are changed, some are deleted, and others are made. Blocking."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._cloud, self._admin = tenants.one.cloud, tenants.admin
        self._mark = uuid.uuid4().hex[:4]
        self._old: dict[str, Any] = {}

    def _name(self, what: str) -> str:
        return self._tenants.named(f"{self._mark}-{what}")

    def prepare(self) -> None:
        """What is changed and deleted by `happen`."""
        n, v, g = self._cloud.network, self._cloud.block_storage, self._cloud.image
        old = self._old
        for what in ("changed", "gone"):
            net = old[f"net {what}"] = n.create_network(name=self._name(f"net-{what}"))
            range_ = {"ip_version": 4, "cidr": "10.70.0.0/24"}
            old[f"sub {what}"] = n.create_subnet(network_id=net.id, name=self._name(f"sub-{what}"), **range_)
            old[f"group {what}"] = n.create_security_group(name=self._name(f"group-{what}"))
            kind = {"disk_format": "raw", "container_format": "bare"}
            old[f"image {what}"] = g.create_image(name=self._name(f"image-{what}"), data=b"x", wait=True, **kind)
            volume = old[f"volume {what}"] = v.create_volume(name=self._name(f"volume-{what}"), size=1)
            until("a volume", lambda volume=volume: v.get_volume(volume.id).status == "available")
            old[f"server {what}"] = self._server(f"server-{what}")
            old[f"stack {what}"] = self._stack(f"stack-{what}")
        in_use = old["net changed"].id
        for what in ("changed", "gone", "bound"):
            old[f"port {what}"] = n.create_port(network_id=in_use, name=self._name(f"port-{what}"))
        self._cloud.compute.create_keypair(name=self._name("key-gone"))

    def happen(self) -> None:
        """The changes; all of them are over when this returns."""
        self.part_one()
        self.part_two()

    def part_one(self) -> None:
        n, old = self._cloud.network, self._old
        n.update_network(old["net changed"], description="changed")
        n.update_subnet(old["sub changed"], dns_nameservers=["192.0.2.53"])
        n.update_port(old["port changed"], description="changed")
        n.set_tags(old["port changed"], ["late"])
        bind = {"device_id": "resync", "device_owner": "compute:nova", "binding_host_id": "fake-1"}
        self._admin.network.update_port(old["port bound"], **bind)
        until("a port to be ACTIVE", lambda: n.get_port(old["port bound"].id).status == "ACTIVE")
        rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
        n.create_security_group_rule(security_group_id=old["group changed"].id, **rule)
        n.delete_port(old["port gone"])
        n.delete_security_group(old["group gone"])
        n.delete_network(old["net gone"])  # and its subnet
        net = n.create_network(name=self._name("net-new"))
        range_ = {"ip_version": 4, "cidr": "10.71.0.0/24"}
        subnet = n.create_subnet(network_id=net.id, name=self._name("sub-new"), **range_)
        n.create_port(network_id=net.id, name=self._name("port-new"))
        n.create_security_group(name=self._name("group-new"))
        router = n.create_router(name=self._name("router-new"))
        n.add_interface_to_router(router, subnet_id=subnet.id)
        self._cloud.image.update_image(old["image changed"], name=self._name("image-renamed"))
        self._cloud.image.delete_image(old["image gone"])
        self._cloud.image.post("/images", json={"name": self._name("image-new")})

    def part_two(self) -> None:
        c, v, old = self._cloud.compute, self._cloud.block_storage, self._old
        c.stop_server(old["server changed"])
        c.delete_server(old["server gone"])
        self._server("server-new")
        until("a server to stop", lambda: c.get_server(old["server changed"].id).status == "SHUTOFF")
        until("a server to go", lambda: self._is_gone(lambda: c.get_server(old["server gone"].id)))
        c.create_keypair(name=self._name("key-new"))
        c.delete_keypair(self._name("key-gone"))
        c.create_server_group(name=self._name("apart"), policy="anti-affinity")
        self._admin.compute.create_flavor(name=self._name("fl"), ram=256, vcpus=1, disk=1)
        self._admin.compute.create_aggregate(name=self._name("agg"))
        v.put(f"/volumes/{old['volume changed'].id}", json={"volume": {"name": self._name("volume-renamed")}})
        v.delete_volume(old["volume gone"])
        until("a volume to go", lambda: self._is_gone(lambda: v.get_volume(old["volume gone"].id)))
        new = v.create_volume(name=self._name("volume-new"), size=1)
        until("a volume", lambda: v.get_volume(new.id).status == "available")
        snapshot = v.create_snapshot(volume_id=new.id, name=self._name("snapshot-new"))
        until("a snapshot", lambda: v.get_snapshot(snapshot.id).status == "available")
        self._admin.identity.create_project(name=self._name("project-new"), domain_id="default")
        self._admin.identity.create_user(name=self._name("user-new"), domain_id="default")
        heat, gone = self._cloud.orchestration, old["stack gone"]
        heat.delete(f"/stacks/{self._name('stack-gone')}/{gone}")
        until("a stack to go", lambda: all(one["id"] != gone for one in heat.get("/stacks").json()["stacks"]))
        self._stack("stack-new")

    def without_a_broker(self) -> None:
        """What can be done then; some services answer only when the broker is back."""
        admin = connect()
        self._admin.identity.create_project(name=self._name("project-dark"), domain_id="default")
        admin.identity.update_user(admin.identity.find_user(self._tenants.two.name).id, description="dark")
        n, old = self._cloud.network, self._old
        n.update_network(old["net changed"], description="dark")
        n.create_network(name=self._name("net-dark"))
        n.delete_port(old["port gone"])
        self._cloud.image.post("/images", json={"name": self._name("image-dark")})

    def _server(self, name: str) -> Any:
        c = self._cloud.compute
        image, flavor = self._admin.image.find_image("cirros").id, self._admin.compute.find_flavor("m1.tiny").id
        made = c.create_server(name=self._name(name), image_id=image, flavor_id=flavor, networks="none")
        until("a server to be ACTIVE", lambda: c.get_server(made.id).status == "ACTIVE")
        return made

    def _stack(self, name: str) -> str:
        heat = self._cloud.orchestration
        random = {"type": "OS::Heat::RandomString", "properties": {"length": 8}}
        template = {"heat_template_version": "2018-08-31", "resources": {"r": random}}
        body = {"stack_name": self._name(name), "template": template, "timeout_mins": 5}
        made = heat.post("/stacks", json=body).json()["stack"]["id"]
        path = f"/stacks/{self._name(name)}/{made}"
        until("a stack", lambda: heat.get(path).json()["stack"]["stack_status"] == "CREATE_COMPLETE")
        return str(made)

    def _is_gone(self, get: Any) -> bool:
        try:
            get()
        except exceptions.NotFoundException:
            return True
        return False


# --- what must be told, and what was ----------------------------------------------------------------------------------------


class Miss(NamedTuple):
    """One entry of a pass."""

    kind: str
    id: str
    reason: str


def _expected(found: list[Difference]) -> dict[Name, str]:
    """Object → the reason that its one entry must have."""
    reasons: dict[Name, str] = {}
    of: dict[Name, set[str]] = {}
    for one in found:
        if one.how != "said alone":
            of.setdefault((one.kind, one.id), set()).add(one.how)
    for name, how in of.items():
        if "not announced" in how:
            reasons[name] = "missed-create"
        elif "gone" in how:
            reasons[name] = "missed-delete"
        else:
            reasons[name] = "completed" if how == {"never said"} else "missed-update"
    return reasons


async def _told(vedette: VedetteProcess, after: int) -> list[Miss]:
    found = []
    for event in await vedette.events(after, type="*.resync"):
        singular = event["type"].removeprefix("openstack.").partition(".")[0]
        assert event["origin"] == "resync"
        found.append(Miss(KINDS[singular], event["subject"].partition("/")[2], event["data"]["reason"]))
    return found


def _is_mine(name: Name, tenants: Tenants, *states: Mapping[Name, Any]) -> bool:
    """Whether the object is of this test: of its projects, or named by it."""
    for state in states:
        found = state.get(name)
        if found is None:
            continue
        status = found.status if isinstance(found, Listed) else found["status"]
        space = found.namespace if isinstance(found, Listed) else found["metadata"]["namespace"]
        names = str(status.get("name") or status.get("stack_name") or "")
        if space in (tenants.one.project, tenants.two.project) or names.startswith(tenants.tag):
            return True
        if name[0] == "Keypair" and status["user_id"] in (tenants.one.user, tenants.two.user):
            return True
    return False


async def _missed(vedette: VedetteProcess) -> Counter[tuple[str, str]]:
    """(kind, reason) → how many, as the metrics have it."""
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in (await vedette.metrics("resync_missed_total")).items():
        known = dict(labels)
        found[KINDS[known["kind"]], known["reason"]] += int(value)
    return found


async def _equals(vedette: VedetteProcess, cloud: Cloud, tenants: Tenants) -> dict[Name, Listed]:
    """Fails unless what is served of this test's objects is what the API lists; the listing."""
    there = await comparing.listed(cloud)
    served = await vedette.inventory()
    found = [
        one
        for one in comparing.differences(served, there)
        if _is_mine((one.kind, one.id), tenants, there, served)
        # Only what the listing doesn't have may differ, and only with a reason.
        and not (one.how == "said alone" and not api_only.unexplained([one], api_only.Seen()))
    ]
    assert not found, comparing.shown(found)
    return there


async def _told_once(vedette: VedetteProcess, cloud: Cloud, tenants: Tenants, follower: Follower, after: int) -> Counter[str]:
    """Each miss of this test's objects between a revision and now has one entry, with its reason, and one event at the watcher;
    how many of each reason."""
    there = await _equals(vedette, cloud, tenants)
    before = await vedette.inventory(revision=after)
    told = await _told(vedette, after)
    wanted = _expected(comparing.differences(before, there))
    mine = {name: reason for name, reason in wanted.items() if _is_mine(name, tenants, before, there)}
    got = [one for one in told if _is_mine((one.kind, one.id), tenants, before, there)]
    twice = [name for name, count in Counter((one.kind, one.id) for one in got).items() if count > 1]
    assert not twice, f"told more than once: {twice}"
    said = {(one.kind, one.id): one.reason for one in got}
    assert said == mine, {
        "not told": {name: reason for name, reason in mine.items() if name not in said},
        "told for nothing": {name: reason for name, reason in said.items() if name not in mine},
        "otherwise": {name: (said[name], mine[name]) for name in said.keys() & mine.keys() if said[name] != mine[name]},
    }
    verbs = {"missed-create": "ADDED", "missed-update": "MODIFIED", "completed": "MODIFIED", "missed-delete": "DELETED"}
    head = await vedette.head()
    await follower.until("the watcher to be told all", lambda: follower.at >= head)
    events = Counter((one.kind, one.id, one.verb) for one in follower.events if int(one.metadata["resourceVersion"]) > after)
    for name, reason in mine.items():
        assert events[*name, verbs[reason]] == 1, (name, reason, [one for one in events if one[:2] == name])
    _nothing_wrongly_deleted(follower, there)
    return Counter(mine.values())


def _nothing_wrongly_deleted(follower: Follower, there: Mapping[Name, Listed]) -> None:
    wrong = [one for one in follower.events if one.verb == "DELETED" and (one.kind, one.id) in there]
    assert not wrong, wrong


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "nothing"


# --- the tests --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def cloud_api() -> AsyncIterator[Cloud]:
    async with comparing.as_admin() as found:
        yield found


async def test_a_first_pass_makes_the_inventory_equal(
    tenants: Tenants, tmp_path: Path, cloud_api: Cloud, figures: Figures
) -> None:
    """A Vedette that was never there before knows all of the cloud after its first pass."""
    await asyncio.to_thread(Changes(tenants).prepare)
    async with serving(tmp_path, tenants.tag, api=API) as vedette:
        began = time.monotonic()
        done = await vedette.resynced(0)
        there = await _equals(vedette, cloud_api, tenants)
        absent = {one["kind"] for one in done["kinds"] if one["state"] == "absent"}
        assert absent == {"baremetalnode"}, "this cloud has everything but Ironic"
        assert all(one["state"] == "done" and one["seesAll"] for one in done["kinds"] if one["kind"] not in absent), done
        figures.add(
            PART, "the first pass",
            f"{sum(one['listed'] for one in done['kinds'])} objects of {len(done['kinds']) - len(absent)} kinds, within "
            f"{time.monotonic() - began:.1f} s of being ready",
        )  # fmt: skip
        head = await vedette.head()
        again = await vedette.resync()
        found = [one for one in await _told(vedette, head) if _is_mine((one.kind, one.id), tenants, there)]
        assert not found, "nothing has changed, so nothing is told"
        slowest = max(again.values(), key=lambda one: float(one["seconds"]))
        figures.add(PART, "a pass that finds nothing", f"its slowest kind, {slowest['kind']}: {slowest['seconds']:.2f} s")


async def test_messages_that_are_dropped(tenants: Tenants, tmp_path: Path, cloud_api: Cloud, figures: Figures) -> None:
    """The queue is bound to nothing for a while, and nobody notices: no gap is recorded. `vedette resync` finds it all."""
    changes = Changes(tenants)
    await asyncio.to_thread(changes.prepare)
    async with serving(tmp_path, f"{tenants.tag}.dropped", api=API, check="1h") as vedette:
        await vedette.resynced(0)
        async with vedette.follow(PLURALS) as follower:
            await vedette.quiet()
            await vedette.resync()
            with Bus().deaf(vedette.queue):
                await vedette.quiet(2)  # what was on its way
                before, missed = await vedette.head(), await _missed(vedette)
                await asyncio.to_thread(changes.happen)
                await asyncio.sleep(5)  # what settles late is lost, too
            assert await vedette.head() == before, "something was heard"
            began = time.monotonic()
            await vedette.resync()
            took = time.monotonic() - began
            counts = await _told_once(vedette, cloud_api, tenants, follower, before)
            assert {"missed-create", "missed-update", "missed-delete"} <= counts.keys()
            entries = Counter((one.kind, one.reason) for one in await _told(vedette, before))
            assert await _missed(vedette) - missed == entries, "the metrics are not the log's sum"
            figures.add(PART, "messages dropped", f"{_shown(counts)}; found in {took:.1f} s")
            again = await vedette.head()
            await vedette.resync()
            assert not [one for one in await _told(vedette, again) if _is_mine((one.kind, one.id), tenants, _known(follower))]


def _known(follower: Follower) -> dict[Name, Any]:
    """What a watcher knows, in the form of what is served."""
    return {
        (one.kind, one.id): {"status": one.status, "metadata": one.metadata} for one in follower.events if one.verb != "DELETED"
    }


async def test_a_service_that_is_killed_and_its_queue_lost(
    tenants: Tenants, tmp_path: Path, cloud_api: Cloud, figures: Figures
) -> None:
    """kill -9 in the middle of the changes; the queue is gone before it starts again. The start's own pass finds what was lost,
    and a watcher that comes back from its place is told each change once."""
    changes = Changes(tenants)
    await asyncio.to_thread(changes.prepare)
    async with serving(tmp_path, f"{tenants.tag}.killed", api=API) as vedette:
        await vedette.resynced(0)
        async with vedette.follow(PLURALS) as follower:
            await vedette.quiet()
            await vedette.resync()
            await asyncio.to_thread(changes.part_one)
            vedette.kill()
            await asyncio.to_thread(changes.part_two)
            await asyncio.to_thread(Bus().delete_queue, vedette.queue)
            started = time.time_ns() // 1000
            began = time.monotonic()
            vedette.start()
            await vedette.ready()
            await vedette.resynced(started)
            took = time.monotonic() - began
            gaps = await vedette.events(0, type="vedette.gap")
            # What was known when it died: up to the gap that it found as it came back.
            before = int(gaps[-1]["revision"]) - 1
            assert gaps[-1]["data"]["cause"] == "queue-created", gaps[-1]
            counts = await _told_once(vedette, cloud_api, tenants, follower, before)
            assert {"missed-create", "missed-update", "missed-delete"} <= counts.keys()
            assert follower.cuts >= len(PLURALS)
            figures.add(PART, "killed, and its queue lost", f"{_shown(counts)}; known {took:.1f} s after it was started again")


async def test_a_service_that_is_killed_and_keeps_its_queue(
    tenants: Tenants, tmp_path: Path, cloud_api: Cloud, figures: Figures
) -> None:
    """kill -9; what happens meanwhile waits in the queue. What notifications tell is no miss."""
    changes = Changes(tenants)
    await asyncio.to_thread(changes.prepare)
    async with serving(tmp_path, f"{tenants.tag}.kept", api=API) as vedette:
        await vedette.resynced(0)
        async with vedette.follow(PLURALS) as follower:
            await vedette.quiet()
            await vedette.resync()
            before = await vedette.head()
            vedette.kill()
            await asyncio.to_thread(changes.happen)
            started = time.time_ns() // 1000
            vedette.start()
            await vedette.ready()
            await vedette.resynced(started)
            there = await _equals(vedette, cloud_api, tenants)
            head = await vedette.head()
            await follower.until("the watcher to be told all", lambda: follower.at >= head)
            _nothing_wrongly_deleted(follower, there)
            told = await _told(vedette, before)
            mine = [one for one in told if _is_mine((one.kind, one.id), tenants, there, _known(follower))]
            counts = Counter(one.reason for one in mine)
            assert not [one for one in mine if one.reason == "missed-delete"]
            notices = len(await vedette.events(before)) - len(told)
            figures.add(PART, "killed, its queue kept", f"{notices} notifications waited; {_shown(counts)}")


async def test_rabbitmq_is_away_for_a_while(tenants: Tenants, tmp_path: Path, cloud_api: Cloud, figures: Figures) -> None:
    """The broker is stopped and started; Vedette notices the gap, and compares by itself."""
    if os.environ.get("RC_SHARED"):
        pytest.skip("somebody else uses this cloud")
    changes = Changes(tenants)
    await asyncio.to_thread(changes.prepare)
    async with serving(tmp_path, f"{tenants.tag}.away", api=API) as vedette:
        await vedette.resynced(0)
        async with vedette.follow(PLURALS) as follower:
            await vedette.quiet()
            await vedette.resync()
            before = await vedette.head()
            began = time.monotonic()
            bus = Bus()
            doing: asyncio.Future[None] | None = None
            try:
                await asyncio.to_thread(bus.stop)
                doing = asyncio.ensure_future(asyncio.to_thread(changes.without_a_broker))
                await asyncio.wait([doing], timeout=20)
            finally:
                await asyncio.to_thread(bus.start)
            away = time.monotonic() - began
            started = time.time_ns() // 1000
            await doing
            await vedette.ready()
            await vedette.resynced(started)
            gaps = [one["data"]["cause"] for one in await vedette.events(before, type="vedette.gap")]
            assert gaps, "it noticed nothing"
            # The services come back one by one, and some say then what they could not say.
            await vedette.quiet(10)
            await vedette.resync()
            there = await _equals(vedette, cloud_api, tenants)
            _nothing_wrongly_deleted(follower, there)
            told = [
                one
                for one in await _told(vedette, before)
                if _is_mine((one.kind, one.id), tenants, there, _known(follower)) and one.reason != "completed"
            ]
            kinds_told = Counter((one.kind, one.id, one.reason) for one in told if one.reason != "missed-update")
            assert all(count == 1 for count in kinds_told.values()), kinds_told
            counts = Counter(one.reason for one in told)
            assert counts["missed-create"], "nothing was lost"
            figures.add(
                PART, f"RabbitMQ away for {away:.0f} s",
                f"gaps: {', '.join(f'{count} {cause}' for cause, count in sorted(Counter(gaps).items()))}; {_shown(counts)}",
            )  # fmt: skip


async def test_an_account_that_does_not_see_every_project_deletes_nothing(
    tenants: Tenants, tmp_path: Path, figures: Figures
) -> None:
    """The source's account is a tenant's: what is missing from its listing may be another project's, and stays."""
    admin = tenants.admin.network
    mine = await asyncio.to_thread(lambda: tenants.one.cloud.network.create_network(name=tenants.named("unseen")))
    account = {"username": tenants.one.name, "project_name": tenants.one.name}
    async with serving(tmp_path, f"{tenants.tag}.low", api={**API, **account}, check="1h") as vedette:
        refused = [one["kind"] for one in (await vedette.resynced(0, whole=False))["kinds"] if one["state"] == "refused"]
        theirs = await asyncio.to_thread(lambda: tenants.two.cloud.network.create_network(name=tenants.named("unseen-two")))
        async with vedette.follow(("Network",)) as follower:
            await follower.until("a network", lambda: {("Network", mine.id), ("Network", theirs.id)} <= follower.there.keys())
            with Bus().deaf(vedette.queue):
                await asyncio.to_thread(lambda: [admin.delete_network(one.id) for one in (mine, theirs)])
            found = (await vedette.resync("network", ok=False))["network"]
            assert {("Network", mine.id), ("Network", theirs.id)} <= follower.there.keys()
            assert not found["seesAll"]
            assert not found["missed"]["deleted"]
            assert "not in the listing, and stay" in found["detail"], found
            figures.add(PART, "an account of one project", f"{len(refused)} kinds refused; of networks: {found['detail']}")
