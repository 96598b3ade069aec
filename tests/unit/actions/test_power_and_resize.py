"""actions/change_node_power_state.py and actions/resize.py against an Ironic and a Nova over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from acting import Place, action, place

from vedette.errors import CloudUnavailable, GiveUp
from vedette.ports import JsonObject

POWER, RESIZE = action("change_node_power_state"), action("resize")


def machine(here: Place, **fields: Any) -> str:
    here.fake.baremetal.in_catalog = True
    return here.fake.create("node", fields)


def power(here: Place, id_: str) -> str:
    return str(here.fake.baremetal.nodes[id_]["power_state"])


def to(id_: str, state: str = "off") -> JsonObject:
    return {"resource_id": id_, "state": state}


async def test_off_and_on_again() -> None:
    async with place() as here:
        id_ = machine(here, name="fake-3")
        before = await here.all_of(POWER, to(id_))
        assert power(here, id_) == "power off"
        assert await POWER.look(here.hands, to(id_), before) == "done"
        assert await here.refused(POWER, to(id_)) == f"skip: machine {id_} is power off already"
        assert POWER.undo is not None
        for _ in range(2):
            await POWER.undo(here.hands, to(id_), before)
            assert power(here, id_) == "power on"
        await here.all_of(POWER, to(id_))
        before = await here.all_of(POWER, to(id_, "on"))
        await POWER.undo(here.hands, to(id_, "on"), before)
        assert [target for _, target in here.fake.baremetal.asked] == [
            "power off", "power on", "power off", "power on", "power off",
        ]  # fmt: skip


async def test_asking_twice_is_switching_once() -> None:
    async with place() as here:
        id_ = machine(here)
        here.fake.baremetal.seconds = 0.2
        found: Any = await POWER.check(here.hands, to(id_))
        first = asyncio.create_task(POWER.run(here.hands, to(id_), found.before))
        while not here.fake.baremetal.asked:
            await asyncio.sleep(0.01)
        assert await POWER.look(here.hands, to(id_), found.before) == "running"
        await POWER.run(here.hands, to(id_), found.before)
        await first
        assert len(here.fake.baremetal.asked) == 1
        assert "power on, going to power off" in here.said


async def test_a_machine_below_servers_stays_on() -> None:
    async with place() as here:
        id_ = machine(here, name="fake-3")
        found: Any = await POWER.check(here.hands, to(id_))
        server = here.server("fake-3")
        assert await here.refused(POWER, to(id_)) == f"machine {id_} is not switched off: there are servers on it"
        with pytest.raises(GiveUp, match="there are servers on it"):
            await POWER.run(here.hands, to(id_), found.before)
        assert power(here, id_) == "power on"
        here.fake.delete("server", server)
        instance = machine(here, instance_uuid="0d6b6c8e-7f3e-4b6e-9a7e-0d6b6c8e7f3e")
        assert "there are servers on it" in await here.refused(POWER, to(instance))
        await here.all_of(POWER, to(id_))


async def test_what_can_not_be_switched_is_said() -> None:
    async with place() as here:
        gone = "0d6b6c8e-7f3e-4b6e-9a7e-0d6b6c8e7f3e"
        id_ = machine(here, maintenance=True, maintenance_reason="new fan")
        assert await here.refused(POWER, to(gone)) == f"skip: machine {gone} is gone"
        assert await here.refused(POWER, to(id_)) == f"machine {id_} is in maintenance: new fan"
        fails = machine(here)
        here.fake.baremetal.fails.add(fails)
        found: Any = await POWER.check(here.hands, to(fails))
        with pytest.raises(GiveUp, match=r"Ironic left machine .* at power on: Failed to change power state"):
            await POWER.run(here.hands, to(fails), found.before)
        assert await POWER.look(here.hands, to(fails), found.before) == "undone"
        with pytest.raises(GiveUp):
            await POWER.verify(here.hands, to(fails), found.before)
        here.fake.delete("node", fails)
        assert await POWER.look(here.hands, to(fails), found.before) == "unsure"


# --- resize ----------------------------------------------------------------------------------------------------------------


def sized(id_: str, flavor: str = "m1.small") -> JsonObject:
    return {"resource_id": id_, "flavor": flavor}


def flavor(here: Place, id_: str) -> str:
    return str(here.fake.compute.servers[id_]["flavor"]["original_name"])


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_resize_is_confirmed_and_taken_back(by: str) -> None:
    async with place() as here:
        id_ = here.server()
        assert flavor(here, id_) == "m1.tiny"
        ids = {here.fake.compute.flavors[one]["name"]: one for one in here.fake.compute.flavors}
        parameters = sized(id_, "m1.small" if by == "name" else ids["m1.small"])
        before = await here.all_of(RESIZE, parameters)
        assert (flavor(here, id_), here.at(id_)[1]) == ("m1.small", "ACTIVE")
        assert here.asked("confirmResize", id_) == 1
        assert await RESIZE.look(here.hands, parameters, before) == "done"
        assert await here.refused(RESIZE, parameters) == f"skip: server {id_} has flavor m1.small already"
        assert RESIZE.undo is not None
        for _ in range(2):
            await RESIZE.undo(here.hands, parameters, before)
            assert flavor(here, id_) == "m1.tiny"
        assert here.asked("resize", id_) == 2


async def test_asking_twice_is_resizing_once() -> None:
    async with place() as here:
        id_ = here.server()
        here.fake.compute.moves.seconds = 0.1
        found: Any = await RESIZE.check(here.hands, sized(id_))
        first = asyncio.create_task(RESIZE.run(here.hands, sized(id_), found.before))
        while not here.asked("resize", id_):
            await asyncio.sleep(0.01)
        assert await RESIZE.look(here.hands, sized(id_), found.before) == "running"
        await asyncio.gather(first, RESIZE.run(here.hands, sized(id_), found.before), return_exceptions=True)
        await RESIZE.run(here.hands, sized(id_), found.before)
        assert here.asked("resize", id_) == 1
        assert flavor(here, id_) == "m1.small"


@pytest.mark.parametrize("word", ["m1.small/../../os-services", "..", "a b?c#d", "m1.klein-ä"])
async def test_a_word_is_one_segment_of_a_path(word: str) -> None:
    """It mustn't lead elsewhere: it is a name that nothing has."""
    async with place() as here:
        here.fake.baremetal.in_catalog = True
        assert await here.refused(RESIZE, sized(here.server(), word)) == f"there is no flavor {word}"
        if "/" in word:  # for Ironic too, which decodes before it routes, this is a path that it doesn't have
            with pytest.raises(CloudUnavailable, match="answered 404"):
                await here.refused(POWER, to(word))
        else:
            assert await here.refused(POWER, to(word)) == f"skip: machine {word} is gone"
        assert here.fake.count("compute", "/os-services") == 0


async def test_a_flavor_whose_name_needs_quoting() -> None:
    async with place() as here:
        here.fake.create("flavor", {"name": "large / dedicated #1", "ram": 4096}, project="admin")
        id_ = here.server()
        await here.all_of(RESIZE, sized(id_, "large / dedicated #1"))
        assert flavor(here, id_) == "large / dedicated #1"


async def test_what_can_not_be_resized_is_said() -> None:
    async with place() as here:
        gone = "0d6b6c8e-7f3e-4b6e-9a7e-0d6b6c8e7f3e"
        assert await here.refused(RESIZE, sized(gone)) == f"skip: server {gone} is gone"
        id_ = here.server()
        assert await here.refused(RESIZE, sized(id_, "m9.huge")) == "there is no flavor m9.huge"
        here.fake.create("flavor", {"name": "m1.small"}, project="admin")
        assert await here.refused(RESIZE, sized(id_)) == "there are several flavors m1.small"
        here.fake.create("flavor", {"name": "m1.large"}, project="admin")
        paused = here.server(**{"OS-EXT-STS:vm_state": "paused", "OS-EXT-STS:power_state": 3})
        assert await here.refused(RESIZE, sized(paused, "m1.large")) == (
            f"server {paused} is PAUSED: a resize wants ACTIVE or SHUTOFF"
        )
