"""actions/migrate.py against a Nova over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from acting import REQUEST, action, place

from vedette.errors import GiveUp
from vedette.ports import JsonObject

MIGRATE = action("migrate")


def live(id_: str, target: str | None = "fake-2", **more: Any) -> JsonObject:
    return {
        "resource_id": id_,
        "migration_type": "live",
        "source_node": "fake-1",
        "destination_node": target,
        "resource_name": "s",
        **more,
    }


@pytest.mark.parametrize("target", ["fake-2", None])
async def test_a_live_migration_and_back(target: str | None) -> None:
    async with place() as here:
        id_ = here.server()
        before = await here.all_of(MIGRATE, live(id_, target))
        host, status = here.at(id_)
        assert (host != "fake-1", status) == (True, "ACTIVE")
        assert host == (target or host)
        assert await MIGRATE.look(here.hands, live(id_, target), before) == "done"
        assert MIGRATE.undo is not None
        await MIGRATE.undo(here.hands, live(id_, target), before)
        assert here.at(id_) == ("fake-1", "ACTIVE")
        assert here.asked("os-migrateLive", id_) == 2
        await MIGRATE.undo(here.hands, live(id_, target), before)
        assert here.asked("os-migrateLive", id_) == 2


async def test_a_cold_migration_is_confirmed() -> None:
    async with place() as here:
        id_ = here.server(**{"OS-EXT-STS:vm_state": "stopped", "OS-EXT-STS:power_state": 4})
        await here.all_of(MIGRATE, live(id_, migration_type="cold"))
        assert here.at(id_) == ("fake-2", "SHUTOFF")
        assert here.asked("confirmResize", id_) == 1


async def test_asking_twice_is_moving_once() -> None:
    """After a crash `run` is called again: also while the first is still under way."""
    async with place() as here:
        id_ = here.server()
        here.fake.compute.moves.seconds = 0.2
        found: Any = await MIGRATE.check(here.hands, live(id_))
        first = asyncio.create_task(MIGRATE.run(here.hands, live(id_), found.before))
        while here.fake.compute.servers[id_]["status"] != "MIGRATING":
            await asyncio.sleep(0.01)
        assert await MIGRATE.look(here.hands, live(id_), found.before) == "running"
        await MIGRATE.run(here.hands, live(id_), found.before)
        await first
        await MIGRATE.run(here.hands, live(id_), found.before)
        assert here.asked("os-migrateLive", id_) == 1
        assert any("migrating" in said for said in here.said)


async def test_one_that_fails_is_told_with_novas_word_and_stands_as_undone() -> None:
    async with place() as here:
        id_ = here.server()
        here.fake.compute.moves.fails.add(id_)
        here.fake.compute.moves.seconds = 0.1
        found: Any = await MIGRATE.check(here.hands, live(id_))
        with pytest.raises(GiveUp, match=r"still on fake-1 \(migration .* is error\)"):
            await MIGRATE.run(here.hands, live(id_), found.before)
        assert await MIGRATE.look(here.hands, live(id_), found.before) == "undone"
        assert here.at(id_) == ("fake-1", "ACTIVE")


async def test_one_that_never_ends_can_be_aborted() -> None:
    async with place() as here:
        id_ = here.server()
        here.fake.compute.moves.hangs.add(id_)
        found: Any = await MIGRATE.check(here.hands, live(id_))
        running = asyncio.create_task(MIGRATE.run(here.hands, live(id_), found.before))
        while here.fake.compute.servers[id_]["status"] != "MIGRATING":
            await asyncio.sleep(0.01)
        assert MIGRATE.abort is not None
        assert await MIGRATE.abort(here.hands, live(id_), found.before) is True
        with pytest.raises(GiveUp, match="still on fake-1"):
            await running
        assert here.at(id_) == ("fake-1", "ACTIVE")
        assert await MIGRATE.abort(here.hands, live(id_), found.before) is False
        assert await MIGRATE.abort(here.hands, live(id_, migration_type="cold"), found.before) is False


async def test_what_is_checked_before() -> None:
    async with place() as here:
        id_ = here.server()
        gone = "00000000-0000-4000-8000-000000000000"
        assert await here.refused(MIGRATE, live(gone)) == f"skip: server {gone} is gone"
        assert "is on fake-1, not on fake-3" in await here.refused(MIGRATE, live(id_) | {"source_node": "fake-3"})
        assert "no compute host nowhere" in await here.refused(MIGRATE, live(id_, "nowhere"))
        paused = here.server(**{"OS-EXT-STS:vm_state": "stopped"})
        assert "a live migration wants ACTIVE or PAUSED" in await here.refused(MIGRATE, live(paused))
        here.fake.compute.change("server", id_, {"locked": True})
        assert "is locked" in await here.refused(MIGRATE, live(id_))
        here.fake.compute.change("server", id_, {"locked": False, "OS-EXT-STS:task_state": "rebooting"})
        assert "is busy: rebooting" in await here.refused(MIGRATE, live(id_))
        here.fake.compute.change("server", id_, {"OS-EXT-STS:task_state": None})
        for service in list(here.fake.compute.services):
            if here.fake.compute.services[service]["host"] == "fake-2":
                here.fake.compute.change("service", service, {"status": "disabled"})
        assert "fake-2 is disabled" in await here.refused(MIGRATE, live(id_))
        assert here.fake.compute.moves.asked.total() == 0


async def test_a_server_that_went_or_is_in_error_is_no_success() -> None:
    async with place() as here:
        id_ = here.server()
        found: Any = await MIGRATE.check(here.hands, live(id_))
        here.fake.compute.change("server", id_, {"OS-EXT-STS:vm_state": "error"})
        assert await MIGRATE.look(here.hands, live(id_), found.before) == "unsure"
        here.fake.compute.delete("server", id_)
        assert await MIGRATE.look(here.hands, live(id_), found.before) == "unsure"
        with pytest.raises(GiveUp, match="is gone"):
            await MIGRATE.run(here.hands, live(id_), found.before)


def test_where_it_puts_a_load() -> None:
    assert MIGRATE.places(live("x")) == ("host:fake-1", "host:fake-2", "pair:fake-1>fake-2")
    assert MIGRATE.places(live("x", None)) == ("host:fake-1",)


async def test_the_request_goes_along_as_a_global_one() -> None:
    async with place() as here:
        id_ = here.server()
        await here.all_of(MIGRATE, live(id_))
        assert REQUEST in here.fake.compute.moves.request_ids
