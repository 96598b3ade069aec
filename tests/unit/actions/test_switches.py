"""Actions that change a server's state, and the one that switches a host, against a Nova over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from acting import action, place

from vedette.errors import GiveUp

SWITCHES = [
    ("stop", "active", "SHUTOFF", "ACTIVE", "os-stop"),
    ("start", "stopped", "ACTIVE", "SHUTOFF", "os-start"),
    ("pause", "active", "PAUSED", "ACTIVE", "pause"),
    ("unpause", "paused", "ACTIVE", "PAUSED", "unpause"),
    ("suspend", "active", "SUSPENDED", "ACTIVE", "suspend"),
    ("resume", "suspended", "ACTIVE", "SUSPENDED", "resume"),
    ("shelve", "active", "SHELVED", "ACTIVE", "shelve"),
    ("unshelve", "shelved", "ACTIVE", "SHELVED", "unshelve"),
]


@pytest.mark.parametrize(("name", "vm_state", "after", "back", "asked"), SWITCHES)
async def test_there_once_and_back(name: str, vm_state: str, after: str, back: str, asked: str) -> None:
    kind = action(name)
    async with place() as here:
        id_ = here.server(**{"OS-EXT-STS:vm_state": vm_state})
        assert here.at(id_)[1] == back
        parameters = {"resource_id": id_}
        found: Any = await kind.check(here.hands, parameters)
        assert await kind.look(here.hands, parameters, found.before) == "undone"
        before = await here.all_of(kind, parameters)
        assert here.at(id_)[1] == after
        assert await kind.look(here.hands, parameters, before) == "done"
        await kind.run(here.hands, parameters, before)
        assert here.asked(asked, id_) == 1
        assert (await here.refused(kind, parameters)).startswith(f"skip: server {id_} is {after}")
        assert kind.undo is not None
        await kind.undo(here.hands, parameters, before)
        assert here.at(id_)[1] == back


async def test_while_it_is_under_way_it_is_not_asked_again() -> None:
    kind = action("stop")
    async with place() as here:
        id_ = here.server()
        here.fake.compute.moves.seconds = 0.2
        found: Any = await kind.check(here.hands, {"resource_id": id_})
        first = asyncio.create_task(kind.run(here.hands, {"resource_id": id_}, found.before))
        while not here.fake.compute.servers[id_]["OS-EXT-STS:task_state"]:
            await asyncio.sleep(0.01)
        assert await kind.look(here.hands, {"resource_id": id_}, found.before) == "running"
        await kind.run(here.hands, {"resource_id": id_}, found.before)
        await first
        assert here.asked("os-stop", id_) == 1


async def test_what_can_not_be_done_is_told() -> None:
    kind = action("suspend")
    async with place() as here:
        stopped = here.server(**{"OS-EXT-STS:vm_state": "stopped"})
        assert "is SHUTOFF: suspend wants ACTIVE" in await here.refused(kind, {"resource_id": stopped})
        busy = here.server(**{"OS-EXT-STS:task_state": "rebooting"})
        assert "is busy: rebooting" in await here.refused(kind, {"resource_id": busy})
        fails = here.server()
        here.fake.compute.moves.fails.add(fails)
        found: Any = await kind.check(here.hands, {"resource_id": fails})
        await kind.run(here.hands, {"resource_id": fails}, found.before)
        with pytest.raises(GiveUp, match="is ACTIVE after suspend"):
            await kind.verify(here.hands, {"resource_id": fails}, found.before)


@pytest.mark.parametrize("by", ["name", "uuid", "service"])
async def test_a_host_is_disabled_with_a_reason_and_enabled_as_it_was(by: str) -> None:
    kind = action("change_nova_service_state")
    async with place() as here:
        nova = here.fake.compute
        hypervisor = next(id_ for id_ in nova.hypervisors if nova.hypervisors[id_]["hypervisor_hostname"] == "fake-2")
        service = next(
            id_
            for id_ in nova.services
            if (nova.services[id_]["host"], nova.services[id_]["binary"]) == ("fake-2", "nova-compute")
        )
        named = {"name": {"resource_id": "x", "resource_name": "fake-2"}, "uuid": {"resource_id": hypervisor}}
        parameters = {**named.get(by, {"resource_id": service}), "state": "disabled", "disabled_reason": "watcher_disabled"}
        before = await here.all_of(kind, parameters)
        row = nova.services[service]
        assert (row["status"], row["disabled_reason"]) == ("disabled", "watcher_disabled")
        assert (await here.refused(kind, parameters)).startswith("skip: nova-compute on fake-2 is disabled already")
        other = {**parameters, "disabled_reason": "watcher_maintaining"}
        undone = await here.all_of(kind, other)
        assert nova.services[service]["disabled_reason"] == "watcher_maintaining"
        assert kind.undo is not None
        await kind.undo(here.hands, other, undone)
        assert nova.services[service]["disabled_reason"] == "watcher_disabled"
        back: dict[str, Any] = {**parameters, "state": "enabled", "disabled_reason": None}
        there = await here.all_of(kind, back)
        assert there["disabled_reason"] == "watcher_disabled"
        await kind.undo(here.hands, back, there)
        assert nova.services[service]["disabled_reason"] == "watcher_disabled"
        await kind.undo(here.hands, parameters, before)
        assert nova.services[service]["status"] == "enabled"
        assert await kind.look(here.hands, parameters, before) == "undone"


async def test_a_host_that_is_not_there() -> None:
    async with place() as here:
        parameters = {"resource_id": "nowhere", "state": "disabled"}
        assert "no nova-compute on nowhere" in await here.refused(action("change_nova_service_state"), parameters)
