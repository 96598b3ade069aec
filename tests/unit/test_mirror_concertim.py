"""mirrors/concertim.py against the fake front end: what it shows, what an event touches, and what goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mirroring import Place, place

from vedette.errors import CloudUnavailable, GiveUp, TargetUnavailable, TryLater
from vedette.model.sample import Sample, SampleName
from vedette.testing.concertim import Dialect
from vedette.testing.handling import FakeContext, change

BOTH: tuple[Dialect, ...] = ("v1", "v2")


@pytest.mark.parametrize("dialect", BOTH)
async def test_a_stack_is_a_rack_and_its_servers_are_devices(dialect: Dialect) -> None:
    async with place(dialect) as here:
        flavor = here.flavor(name="m1.small", vcpus=2, ram=2048, disk=20)
        server = here.server(flavor, name="web_1.example")
        stack = here.stack([("OS::Nova::Server", server)], stack_name="my_stack.one")
        here.heat.stacks[stack]["outputs"] = [
            {"output_key": "url", "output_value": "http://10.0.0.5"},
            {"output_key": "private_key", "output_value": "-----BEGIN RSA PRIVATE KEY-----"},
            {"output_key": "admin_password", "output_value": "xyzzy"},
        ]
        done = await here.mirror.compare()
        assert (done.created, done.changed, done.removed, done.failed) == (3, 0, 0, 0)
        rack, device = here.rack(stack), here.device(server)
        assert (rack["name"], rack["status"], rack["u_height"]) == ("my-stack-one", "ACTIVE", 42)
        assert rack["owner_id"] == here.owner
        assert rack["creation_output"] == "url=http://10.0.0.5"
        assert rack["metadata"] == {
            "openstack_stack_id": stack,
            "openstack_stack_owner": "ada",
            "openstack_stack_owner_id": "",
            "stack_status_reason": "Stack CREATE completed successfully",
            "openstack_stack_output": [{"output_key": "url", "output_value": "http://10.0.0.5"}],
        }
        assert (device["name"], device["status"], device["rack_id"]) == ("web-1-example", "ACTIVE", rack["id"])
        assert device["details"]["private_ips"] == "net:10.0.0.5"
        assert device["details"]["ssh_key"] == "key"
        assert device["start_u"] == 41
        template = here.front.templates[str(device["template_id"])]
        assert (template["name"], template["height"], template["foreign_id"]) == ("m1.small", 2, flavor)
        assert (template["ram"], template["disk"], template["vcpus"]) == (2048, 20, 2)
        here.writes()
        # Nothing has changed, so nothing is written; nor by a process that knows nothing yet.
        for _ in range(2):
            done = await here.mirror.compare()
            assert (done.created, done.changed, done.removed) == (0, 0, 0)
            await here.mirror.close()
            here.restart()
        assert here.writes() == []
        assert {one.type for one in here.kept.values()} == {"rack", "device", "template"}


async def test_volumes_and_networks_are_devices_too() -> None:
    async with place() as here:
        volume = here.put("Volume", {"id": here.id(), "name": "data", "status": "in-use", "size": 5, "bootable": "false"})
        network = here.put("Network", {"id": here.id(), "name": "lan", "status": "ACTIVE", "mtu": 1450, "shared": False})
        here.stack([("OS::Cinder::Volume", volume), ("OS::Neutron::Net", network)])
        done = await here.mirror.compare()
        assert done.failed == 0
        assert (here.device(volume)["kind"], here.device(volume)["status"]) == ("Volume", "ACTIVE")
        assert here.device(volume)["details"]["size"] == 5
        assert here.device(network)["details"]["mtu"] == 1450
        assert await here.said("Volume", volume, {"status": "available"}) == "changed device data: status"
        assert here.device(volume)["status"] == "AVAILABLE"


@pytest.mark.parametrize("dialect", BOTH)
async def test_an_event_changes_what_it_touches(dialect: Dialect) -> None:
    async with place(dialect) as here:
        stack, servers = await compared(here, 3)
        said = await here.said("Server", servers[1], {"OS-EXT-STS:vm_state": "stopped"})
        assert said is not None
        assert said.startswith("changed device")
        assert here.writes() == [("PATCH", f"/api/v1/devices/{here.device(servers[1])['id']}")]
        assert here.device(servers[1])["status"] == "STOPPED"
        # The same again, and an old one that comes late: by what the inventory says now, there is nothing to do.
        assert await here.said("Server", servers[1]) is None
        assert here.writes() == []
        await here.said("Stack", stack, {"stack_status": "SUSPEND_COMPLETE"})
        assert here.rack(stack)["status"] == "STOPPED"
        assert [path.split("/")[3] for _, path in here.writes()] == ["racks"]


async def test_addresses_come_by_ports_and_floating_ips() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        network = here.put("Network", {"id": here.id(), "name": "lan", "status": "ACTIVE"})
        await here.said("Network", network)
        port = here.id()
        await here.said("Port", port, {"device_id": server, "network_id": network, "mac_address": "fa:16:3e:00:00:01"})
        assert here.device(server)["metadata"]["net_interfaces"][0]["mac_addr"] == "fa:16:3e:00:00:01"
        ip = here.id()
        await here.said("FloatingIP", ip, {"port_id": port, "floating_ip_address": "203.0.113.7"})
        assert here.device(server)["details"]["public_ips"] == "lan:203.0.113.7"
        await here.said("FloatingIP", ip, {"port_id": None})
        assert here.device(server)["details"]["public_ips"] == ""


async def compared(here: Place, servers: int = 1, **more: Any) -> tuple[str, list[str]]:
    """A stack with servers that is shown already."""
    found = here.in_stack(servers, **more)
    await here.mirror.compare()
    here.writes()
    return found


async def test_states_nobody_has_heard_of_leave_what_was_shown() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        assert await here.said("Server", server, {"OS-EXT-STS:vm_state": "melting"}) is None
        assert await here.said("Server", server, {"OS-EXT-STS:task_state": "dreaming"}) is None
        assert here.device(server)["status"] == "ACTIVE"


async def test_an_unknown_server_is_looked_for_in_its_own_project() -> None:
    async with place() as here:
        stack, (server,) = await compared(here, 1, stack_status="CREATE_IN_PROGRESS")
        other, _ = await compared(here, 0, project="2" * 32)
        here.heat.asked.clear()
        flavor = here.status("Server", server)["flavor"]["id"]
        new = here.server(flavor)
        here.member(stack, "OS::Nova::Server", new)
        here.mirror._asked_at.clear()  # two seconds later
        assert await here.said("Server", new) == f"created device server-{new[:8]}"
        assert here.heat.asked
        assert not any(other in path for path in here.heat.asked)
        # One that no stack has is nobody's device.
        alone = here.server(flavor)
        assert await here.said("Server", alone) is None


async def test_what_is_gone_is_removed() -> None:
    async with place() as here:
        stack, servers = await compared(here, 2)
        here.drop("Server", servers[0])
        await here.said("Server", servers[0], verb="DELETED")
        assert here.front.by("device", servers[0]) == []
        here.drop("Stack", stack)
        await here.said("Stack", stack, verb="DELETED")
        assert here.front.by("rack", stack) == []
        assert here.front.devices == {}
        assert {one.type for one in here.kept.values()} == {"template"}


async def test_without_confirmation_nothing_is_removed() -> None:
    async with place() as here:
        stack, servers = await compared(here, 2)
        for kind, id_ in (
            ("Server", servers[0]),
            ("Stack", stack),
            ("Flavor", here.status("Server", servers[1])["flavor"]["id"]),
        ):
            here.drop(kind, id_, confirmed=False)
        done = await here.mirror.compare()
        assert done.removed == 0
        assert done.kept >= 1
        assert here.rack(stack)
        assert here.device(servers[0])
        assert here.writes() == []


async def test_heat_that_does_not_answer_removes_nothing() -> None:
    async with place() as here:
        stack, servers = await compared(here, 2)
        here.put(
            "Stack", {**here.status("Stack", stack), "stack_status": "UPDATE_COMPLETE", "updated_time": "2026-11-21T00:00:00Z"}
        )
        here.heat.away = True
        with pytest.raises(CloudUnavailable):
            await here.mirror.compare()
        assert len(here.front.devices) == len(servers)
        here.heat.away = False
        await here.mirror.compare()
        assert here.writes() == []


async def test_one_stack_that_heat_can_not_tell_of_keeps_no_other_from_being_shown() -> None:
    async with place() as here:
        broken, _ = here.in_stack(1)
        fine, (server,) = here.in_stack(1)
        here.heat.broken = {broken}
        with pytest.raises(CloudUnavailable):
            await here.mirror.compare()
        assert here.rack(fine)
        assert here.front.by("rack", broken) == []
        # And news is taken up meanwhile.
        await here.said("Server", server, {"OS-EXT-STS:vm_state": "stopped"})
        assert here.device(server)["status"] == "STOPPED"
        here.heat.broken = set()
        await here.mirror.compare()
        assert here.rack(broken)


async def test_a_server_that_left_its_stack_leaves_the_rack() -> None:
    async with place() as here:
        stack, servers = await compared(here, 2)
        here.heat.resources[stack].pop(0)
        await here.said("Stack", stack, {"stack_status": "UPDATE_COMPLETE", "updated_time": "2026-11-21T00:00:00Z"})
        assert here.front.by("device", servers[0]) == []
        assert here.device(servers[1])


async def test_what_was_made_by_hand_stays() -> None:
    async with place() as here:
        flavor = here.flavor()
        own = here.front.add_template(name="mine", foreign_id="no-flavor")
        taken = here.front.add_template(name="by hand", foreign_id=flavor)
        rack = here.front.add_rack(here.owner, "stack-by-hand")
        device = here.front.add_device(rack, own, "by-hand", 3)
        stack, (server,) = await compared(here, 1, flavor=flavor, stack_name="stack_by_hand")
        before = here.front._show_device(here.front.devices[str(device)])
        assert here.rack(stack)["name"] == f"stack-by-hand-{stack[:8]}"
        # A template that somebody made for the flavor is used as it is.
        assert here.device(server)["template_id"] == taken
        assert here.front.templates[str(taken)]["name"] == "by hand"
        here.drop("Flavor", flavor)
        await here.mirror.compare()
        assert here.front._show_device(here.front.devices[str(device)]) == before
        assert {str(own), str(taken)} <= here.front.templates.keys()
        assert here.writes() == []


async def test_a_place_that_somebody_chose_stays() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        here.device(server)["start_u"] = 7
        await here.mirror.compare()
        assert here.device(server)["start_u"] == 7
        assert here.writes() == []


async def test_what_somebody_changed_there_is_set_right() -> None:
    async with place() as here:
        stack, (server,) = await compared(here, 1)
        here.device(server)["status"] = "FAILED"
        here.rack(stack)["name"] = "renamed"
        here.rack(stack)["metadata"]["note"] = "theirs"
        done = await here.mirror.compare()
        assert done.changed == 2
        assert here.device(server)["status"] == "ACTIVE"
        assert here.rack(stack)["name"].startswith("stack-")
        assert here.rack(stack)["metadata"]["note"] == "theirs"


async def test_a_full_rack_grows() -> None:
    async with place() as here:
        here.options["rack_height"] = 3
        await here.mirror.close()
        here.restart()
        flavor = here.flavor(vcpus=2)  # two units
        stack, servers = await compared(here, 4, flavor=flavor)
        assert here.rack(stack)["u_height"] >= 8
        taken: set[int] = set()
        for server in servers:
            units = {here.device(server)["start_u"], here.device(server)["start_u"] + 1}
            assert not units & taken
            taken |= units


async def test_a_rack_that_can_not_grow_says_so_and_the_others_are_placed() -> None:
    async with place() as here:
        here.options["rack_height"] = 72
        await here.mirror.close()
        here.restart()
        flavor = here.flavor(vcpus=8)  # four units: 18 fit
        stack, _ = here.in_stack(20, flavor)
        done = await here.mirror.compare()
        assert done.failed == 1
        assert len(here.front.by("rack", stack)) == 1
        assert len(here.front.devices) == 18


async def test_names_are_unique_and_the_older_one_has_the_plain_one() -> None:
    async with place() as here:
        first, _ = here.in_stack(0, stack_name="same_name")
        second, _ = here.in_stack(0, stack_name="same.name")
        await here.mirror.compare()
        assert here.rack(first)["name"] == "same-name"
        assert here.rack(second)["name"] == f"same-name-{second[:8]}"
        # The older one goes: the other has the plain name from then on.
        here.drop("Stack", first)
        await here.said("Stack", first, verb="DELETED")
        await here.mirror.compare()
        assert here.rack(second)["name"] == "same-name"


async def test_other_projects_have_no_racks_here() -> None:
    async with place() as here:
        theirs, _ = here.in_stack(1, project="2" * 32)
        done = await here.mirror.compare()
        assert here.front.by("rack", theirs) == []
        assert done.failed == 0


async def test_what_is_nested_belongs_to_its_root() -> None:
    async with place() as here:
        stack, (server,) = here.in_stack(1)
        nested = here.stack(parent=stack)
        await here.mirror.compare()
        assert here.front.by("rack", nested) == []
        flavor = here.status("Server", server)["flavor"]["id"]
        new = here.server(flavor)
        here.member(stack, "OS::Nova::Server", new)
        await here.said("Stack", nested, {"stack_status": "UPDATE_COMPLETE"})
        assert here.device(new)["rack_id"] == here.rack(stack)["id"]


async def test_members_of_a_server_group_are_devices() -> None:
    async with place() as here:
        server = here.server(here.flavor())
        group = here.put("ServerGroup", {"id": here.id(), "name": "g", "members": []})
        stack = here.stack([("OS::Nova::ServerGroup", group)])
        await here.mirror.compare()
        assert here.front.devices == {}
        await here.said("ServerGroup", group, {"members": [server]})
        assert here.device(server)["rack_id"] == here.rack(stack)["id"]


async def test_flavors_change_and_go() -> None:
    async with place() as here:
        flavor = here.flavor(disk=0)
        stack, (server,) = await compared(here, 1, flavor=flavor)
        (template,) = [row for row in here.front.templates.values() if row["foreign_id"] == flavor]
        assert template["disk"] == 1  # the front end takes no 0
        await here.said("Flavor", flavor, {"ram": 4096, "name": "renamed"})
        assert (template["ram"], template["name"]) == (4096, "renamed")
        here.drop("Flavor", flavor)
        await here.said("Flavor", flavor, verb="DELETED")
        assert str(template["id"]) in here.front.templates  # its server is still there
        here.drop("Server", server)
        await here.said("Server", server, verb="DELETED")
        await here.mirror.compare()
        assert str(template["id"]) not in here.front.templates
        # A server whose flavor is gone says itself how large it is.
        other = here.server(here.flavor(name="short-lived"))
        gone = here.status("Server", other)["flavor"]["id"]
        here.drop("Flavor", gone)
        here.member(stack, "OS::Nova::Server", other)
        await here.said("Stack", stack, {"stack_status": "UPDATE_COMPLETE"})
        assert here.front.templates[str(here.device(other)["template_id"])]["name"] == "short-lived"


# --- trouble ---------------------------------------------------------------------------------------------------------------


async def test_what_is_refused_says_the_field_and_keeps_nobody_from_his_place() -> None:
    async with place() as here:
        _, servers = await compared(here, 2)
        for row in here.front.templates.values():
            row["tag"] = "x"  # no template fits a server any more
        flavor = here.status("Server", servers[0])["flavor"]["id"]
        stack, (new,) = here.in_stack(1, flavor)
        with pytest.raises(GiveUp, match=r"POST /api/v1/nodes with 422: template cannot be used for a device of type Instance"):
            await here.said("Stack", stack)
        assert here.rack(stack)
        assert here.front.by("device", new) == []


@pytest.mark.parametrize("fault", [500, 503, "drop", "cut"])
async def test_nothing_is_there_twice_whatever_was_lost(fault: Any) -> None:
    async with place() as here:
        await here.mirror.compare()
        for position in range(4):  # a template, a rack, two devices: each is the one that goes wrong
            stack, servers = here.in_stack(2)
            here.front.trouble.next.extend([0.0] * position + [fault])
            failed = 0
            for _ in range(5):
                try:
                    await here.said("Stack", stack)
                except (TryLater, TargetUnavailable):
                    failed += 1
            assert failed == 1
            assert here.front.trouble.had[str(fault)] == position + 1
            assert here.rack(stack)
            assert [len(here.front.by("device", one)) for one in servers] == [1, 1]
            foreign = [row["foreign_id"] for row in here.front.templates.values()]
            assert foreign.count(here.status("Server", servers[0])["flavor"]["id"]) == 1


async def test_a_token_that_ended_is_replaced_once() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        here.front.revoke_tokens()
        await here.said("Server", server, {"OS-EXT-STS:vm_state": "stopped"})
        assert here.device(server)["status"] == "STOPPED"
        assert here.front.logins == 2


async def test_an_account_that_is_refused_is_said_and_not_tried_all_the_time() -> None:
    async with place() as here:
        here.front.password = "another"
        for _ in range(3):
            with pytest.raises(TargetUnavailable, match="refuses the login of 'admin'"):
                await here.mirror.compare()
        assert here.front.logins == 0
        with pytest.raises(TargetUnavailable, match=r"the first comparison is not over: .*refuses the login"):
            await here.mirror.handle(change({}, kind="Server", id="x"), FakeContext(timeout=0.1))


async def test_a_front_end_that_is_away_is_caught_up_with() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        await here.front.stop()
        with pytest.raises(TargetUnavailable):
            await here.said("Server", server, {"OS-EXT-STS:vm_state": "stopped"})
        await here.front.start()
        await here.said("Server", server)
        assert here.device(server)["status"] == "STOPPED"


async def test_what_changes_during_a_comparison_is_not_set_back() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        load = here.mirror._load_there

        async def slowly() -> None:
            await load()
            # The lists were read; now somebody is faster.
            await here.said("Server", server, {"OS-EXT-STS:vm_state": "stopped"})

        here.mirror._load_there = slowly  # type: ignore[method-assign]
        done = await here.mirror.compare()
        assert here.device(server)["status"] == "STOPPED"
        assert done.changed == 1
        assert len(here.writes()) == 1


async def test_a_value_that_is_shown_otherwise_is_sent_once() -> None:
    async with place() as here:
        _, (server,) = await compared(here, 1)
        here.device(server)["description"] = "as it likes"
        here.front.deaf_to = frozenset(("description",))
        for _ in range(3):
            await here.mirror.compare()
        assert len(here.writes()) == 1
        # What was wanted changes: sent again.
        await here.said("Server", server, {"description": "new words"})
        assert len(here.writes()) == 1


async def test_many_events_at_once_are_one_device_each() -> None:
    async with place() as here:
        stack, _ = await compared(here, 0)
        flavor = here.flavor()
        servers = [here.server(flavor) for _ in range(20)]
        for server in servers:
            here.member(stack, "OS::Nova::Server", server)
        here.mirror._asked_at.clear()
        here.put("Stack", {**here.status("Stack", stack), "stack_status": "UPDATE_COMPLETE"})
        await asyncio.gather(here.said("Stack", stack), *(here.said("Server", one) for one in servers))
        assert [len(here.front.by("device", one)) for one in servers] == [1] * 20
        names = [row["name"] for row in here.front.devices.values()]
        assert len(set(names)) == 20


# --- measurements ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", BOTH)
async def test_measurements_are_put_exactly(dialect: Dialect) -> None:
    async with place(dialect) as here:
        _, (server,) = await compared(here, 1)
        names: tuple[SampleName, ...] = ("cpu_load", "ram_usage", "network_usage", "throughput", "iops")
        done = await here.mirror.push([Sample(server, "p", name, 12.34567) for name in names])
        assert (done.sent, done.unknown, done.failed) == (5, 0, 0)
        bodies = {body["name"]: body for _, _, body in here.front.writes}
        first = {"v1": "os.instance.cpu_utilization", "v2": "cpu_load"}[dialect]
        assert bodies[first] == {"type": "double", "name": first, "value": 12.35, "units": "%", "slope": "both", "ttl": 3600}
        assert {(name, body["units"]) for name, body in bodies.items()} == {
            "v1": {
                ("os.instance.cpu_utilization", "%"),
                ("os.instance.ram_usage", "%"),
                ("os.net.avg_usage", "B/s"),
                ("os.disk.avg_throughput", "B/s"),
                ("os.disk.avg_iops", "Ops/s"),
            },
            "v2": {("cpu_load", "%"), ("ram_usage", "%"), ("network_usage", "B/s"), ("throughput", "B/s"), ("iops", "OPS/s")},
        }[dialect]


async def test_a_device_that_the_daemon_does_not_know_yet_is_no_trouble() -> None:
    async with place() as here:
        here.front.auto_refresh = False
        _, (server,) = await compared(here, 1)
        some = [Sample(server, "p", "cpu_load", 1.0), Sample("no such server", "p", "cpu_load", 1.0)]
        done = await here.mirror.push(some)
        assert (done.sent, done.unknown, done.failed) == (0, 2, 0)
        here.front.refresh()
        done = await here.mirror.push(some)
        assert (done.sent, done.unknown, done.failed) == (1, 1, 0)


async def test_measurements_that_are_refused_are_counted_and_the_others_go() -> None:
    async with place() as here:
        _, servers = await compared(here, 3)
        here.front.trouble.next.extend([500])
        done = await here.mirror.push([Sample(one, "p", "cpu_load", 1.0) for one in servers])
        assert (done.sent, done.failed) == (2, 1)
        assert "500" in done.trouble
        await here.front.stop()
        with pytest.raises(TargetUnavailable):
            await here.mirror.push([Sample(one, "p", "cpu_load", 1.0) for one in servers])
        await here.front.start()
