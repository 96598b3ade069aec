"""Audits of storage and of machines: a whole service on a whole (fake) cloud, volumes that really move, machines that go off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optimizing import Place, optimizing

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud

FAST, SLOW = "ctl@fake#fake", "ctl@slow#slow"


async def planned(place: Place, name: str, strategy: str, goal: str, **parameters: Any) -> tuple[Any, list[Any]]:
    """(the plan of a ONESHOT audit once it was carried out, its actions)."""
    body = {
        "name": name, "audit_type": "ONESHOT", "goal": goal, "strategy": strategy, "parameters": parameters, "auto_trigger": True,
    }  # fmt: skip
    audit = await place.good("POST", "/v1/audits", body)
    await place.audit_in(name, "SUCCEEDED")
    (plan,) = await place.plans_of(audit["uuid"])
    plan = await place.plan_in(plan["uuid"], "SUCCEEDED", "FAILED", "CANCELLED")
    actions = (await place.good("GET", f"/v1/actions/detail?action_plan_uuid={plan['uuid']}"))["actions"]
    return plan, actions


def pool_of(place: Place, id_: str) -> str:
    return str(place.cloud.block_storage.volumes[id_]["os-vol-host-attr:host"])


@pytest.mark.parametrize("way", ["dst_pool", "dst_type"])
async def test_volumes_leave_a_pool(tmp_path: Path, way: str) -> None:
    async with optimizing(tmp_path) as place:
        volumes = [place.cloud.create("volume", {"name": f"v{n}"}) for n in range(3)]
        kept = place.cloud.create("volume", {"name": "kept"})
        place.cloud.create("snapshot", {"volume_id": kept})
        await place.resynced()
        storage = {"src_pool": FAST, **({"dst_pool": SLOW} if way == "dst_pool" else {"src_type": "fake", "dst_type": "slow"})}
        plan, actions = await planned(
            place, "leave", "zone_migration", "hardware_maintenance", storage_pools=[storage], parallel_per_pool=10
        )
        assert (plan["state"], len(actions)) == ("SUCCEEDED", 3), actions
        assert [pool_of(place, one) for one in volumes] == [SLOW] * 3
        assert pool_of(place, kept) == FAST
        asked = {action for action, _ in place.cloud.block_storage.moves.asked}
        assert asked == {"os-migrate_volume" if way == "dst_pool" else "os-retype"}
        efficacy = {one["name"]: one["value"] for one in plan["efficacy_indicators"]}
        assert efficacy["planned_volume_migrate_count"] == 3


async def test_a_pool_that_is_too_full_gives_volumes_away(tmp_path: Path) -> None:
    """What pools have comes from their own word on the bus too: it is told after the listing."""
    async with optimizing(tmp_path) as place:
        large = place.cloud.create("volume", {"name": "large", "size": 300, "volume_type": None, "volume_type_id": None})
        small = place.cloud.create("volume", {"name": "small", "size": 10, "volume_type": None, "volume_type_id": None})
        await place.resynced()
        plan, actions = await planned(place, "even", "storage_capacity_balance", "workload_balancing")
        assert (plan["state"], actions) == ("SUCCEEDED", [])
        place.cloud.block_storage.pools[FAST] |= {"free_capacity_gb": 50.0, "allocated_capacity_gb": 950}
        place.cloud.block_storage.pool_told(FAST)

        async def known() -> bool:
            shown = await place.object("storagepools", FAST)
            return bool(shown["status"]["free_capacity_gb"] == 50.0)

        await place.until(known)
        plan, actions = await planned(place, "even-again", "storage_capacity_balance", "workload_balancing")
        assert (plan["state"], len(actions)) == ("SUCCEEDED", 1), [one["status_message"] for one in actions]
        assert (pool_of(place, large), pool_of(place, small)) == (SLOW, FAST)


async def test_machines_without_servers_go_off(tmp_path: Path) -> None:
    async with FakeCloud(SystemClock()) as cloud:
        cloud.baremetal.in_catalog = True
        nodes = {
            name: cloud.create("node", {"name": name, "provision_state": "active"}) for name in ("fake-1", "fake-2", "fake-3")
        }
        async with optimizing(tmp_path, cloud=cloud) as place:
            place.server("fake-1")
            await place.resynced()
            plan, actions = await planned(place, "save", "saving_energy", "saving_energy", min_free_hosts_num=1)
            assert (plan["state"], len(actions)) == ("SUCCEEDED", 1), [one["status_message"] for one in actions]
            power = {name: cloud.baremetal.nodes[id_]["power_state"] for name, id_ in nodes.items()}
            assert power["fake-1"] == "power on"
            assert sorted(power.values()) == ["power off", "power on", "power on"]
