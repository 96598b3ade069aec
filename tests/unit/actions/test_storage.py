"""actions/volume_migrate.py against a Cinder over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
import pytest
from acting import Place, action, place

from vedette.errors import GiveUp
from vedette.ports import JsonObject

MOVE = action("volume_migrate")
HERE, THERE = "ctl@fake#fake", "ctl@slow#slow"


def volume(here: Place, **fields: Any) -> str:
    return here.fake.create("volume", fields)


def moved(id_: str, **more: Any) -> JsonObject:
    return {"resource_id": id_, "migration_type": "migrate", "destination_node": THERE, **more}


def retyped(id_: str, name: str = "slow") -> JsonObject:
    return {"resource_id": id_, "migration_type": "retype", "destination_type": name}


def at(here: Place, id_: str) -> tuple[str, str, str]:
    row = here.fake.block_storage.volumes[id_]
    return row["os-vol-host-attr:host"], row["volume_type"], row["status"]


@pytest.mark.parametrize("how", ["migrate", "swap"])
async def test_a_migration_and_back(how: str) -> None:
    async with place() as here:
        id_ = volume(here)
        before = await here.all_of(MOVE, moved(id_, migration_type=how))
        assert at(here, id_) == (THERE, "fake", "available")
        assert await MOVE.look(here.hands, moved(id_), before) == "done"
        assert MOVE.undo is not None
        for _ in range(2):
            await MOVE.undo(here.hands, moved(id_), before)
            assert at(here, id_) == (HERE, "fake", "available")
        assert here.fake.block_storage.moves.asked == [("os-migrate_volume", id_)] * 2


async def test_a_retype_and_back() -> None:
    async with place() as here:
        id_ = volume(here)
        before = await here.all_of(MOVE, retyped(id_))
        assert at(here, id_) == (THERE, "slow", "available")
        assert MOVE.undo is not None
        await MOVE.undo(here.hands, retyped(id_), before)
        assert at(here, id_) == (HERE, "fake", "available")
        untyped = volume(here, volume_type=None, volume_type_id=None)
        before = await here.all_of(MOVE, retyped(untyped))
        with pytest.raises(GiveUp, match="had no type"):
            await MOVE.undo(here.hands, retyped(untyped), before)


async def test_asking_twice_is_moving_once() -> None:
    async with place() as here:
        id_ = volume(here)
        here.fake.block_storage.moves.seconds = 0.2
        found: Any = await MOVE.check(here.hands, moved(id_))
        first = asyncio.create_task(MOVE.run(here.hands, moved(id_), found.before))
        while not here.fake.block_storage.moves.asked:
            await asyncio.sleep(0.01)
        assert await MOVE.look(here.hands, moved(id_), found.before) == "running"
        assert await here.refused(MOVE, moved(id_)) == f"volume {id_} is busy: starting"
        await MOVE.run(here.hands, moved(id_), found.before)
        await first
        await MOVE.run(here.hands, moved(id_), found.before)
        assert here.fake.block_storage.moves.asked == [("os-migrate_volume", id_)]
        assert "starting" in here.said


@pytest.mark.parametrize("how", [moved, retyped])
async def test_one_that_fails_stands_as_undone(how: Any) -> None:
    async with place() as here:
        id_ = volume(here)
        here.fake.block_storage.moves.fails.add(id_)
        here.fake.block_storage.moves.seconds = 0.05
        found: Any = await MOVE.check(here.hands, how(id_))
        with pytest.raises(GiveUp, match=f"Cinder did not change volume {id_}: it is still"):
            await MOVE.run(here.hands, how(id_), found.before)
        assert await MOVE.look(here.hands, how(id_), found.before) == "undone"
        with pytest.raises(GiveUp):
            await MOVE.verify(here.hands, how(id_), found.before)


async def test_what_can_not_be_done_is_said_before() -> None:
    async with place() as here:
        id_ = volume(here)
        gone = "0d6b6c8e-7f3e-4b6e-9a7e-0d6b6c8e7f3e"
        assert await here.refused(MOVE, moved(gone)) == f"skip: volume {gone} is gone"
        assert await here.refused(MOVE, moved(id_, destination_node=HERE)) == f"skip: volume {id_} is in {HERE} already"
        assert await here.refused(MOVE, retyped(id_, "fake")) == f"skip: volume {id_} is of type fake already"
        assert await here.refused(MOVE, moved(id_, destination_node="x@y#z")) == "there is no storage pool x@y#z"
        assert await here.refused(MOVE, retyped(id_, "gold")) == "there is no volume type gold"
        broken = volume(here, status="error")
        assert "is error: it has to be available or in-use" in await here.refused(MOVE, moved(broken))
        busy = volume(here, status="detaching")
        assert await here.refused(MOVE, moved(busy)) == f"volume {busy} is busy: detaching"
        kept = volume(here)
        here.fake.create("snapshot", {"volume_id": kept})
        assert await here.refused(MOVE, moved(kept)) == f"volume {kept} has snapshots: Cinder does not migrate it"
        assert isinstance((await MOVE.check(here.hands, retyped(kept))).before, dict)  # type: ignore[union-attr]
        off = here.server(**{"OS-EXT-STS:vm_state": "stopped", "OS-EXT-STS:power_state": 4})
        used = volume(here, status="in-use", attachments=[{"server_id": off, "attachment_id": "a", "device": "/dev/vdb"}])
        assert "is SHUTOFF: it has to be ACTIVE or PAUSED" in await here.refused(MOVE, moved(used))


async def test_a_volume_that_went_is_unsure() -> None:
    async with place() as here:
        id_ = volume(here)
        found: Any = await MOVE.check(here.hands, moved(id_))
        here.fake.delete("volume", id_)
        assert await MOVE.look(here.hands, moved(id_), found.before) == "unsure"
        with pytest.raises(GiveUp, match="is gone"):
            await MOVE.run(here.hands, moved(id_), found.before)


@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({}, True),
        ({"migration_type": "swap"}, True),
        ({"migration_type": "retype"}, False),
        ({"migration_type": "retype", "destination_type": "slow"}, True),
        ({"destination_node": None}, False),
        ({"destination_node": ""}, False),
        ({"migration_type": "copy"}, False),
        ({"resource_id": "x"}, False),
    ],
)
def test_its_parameters(more: JsonObject, good: bool) -> None:
    """Bug 22 of Watcher: keywords with typos check nothing."""
    valid = jsonschema.Draft7Validator(MOVE.schema).is_valid({**moved("0d6b6c8e-7f3e-4b6e-9a7e-0d6b6c8e7f3e"), **more})
    assert valid is good


def test_where_it_puts_a_load() -> None:
    assert MOVE.places(moved("x")) == (f"pool:{THERE}",)
    assert MOVE.places(retyped("x")) == ()
    assert MOVE.resource == "volume"
