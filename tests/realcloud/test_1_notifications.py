"""Part 1: what notifications alone tell. A rich life of every kind, Vedette without an API beside it; at the end its inventory is
the API's listing, but for what has its reason in api_only.py. And again when everything has been deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import api_only
import comparing
from comparing import Difference, Name
from figures import Figures
from lifecycle import Lifecycle
from tenants import Tenants
from vedette_process import VedetteProcess, serving

from vedette.ports import Cloud

PART = "1. Notifications alone"
LOOKS = 6
"""Times that what differs without a reason is looked at again: news may be on its way, and others may use the cloud."""


async def test_the_inventory_is_what_the_api_lists(tenants: Tenants, tmp_path: Path, figures: Figures) -> None:
    async with comparing.as_admin() as cloud, serving(tmp_path, tenants.tag, api=None) as vedette:
        assert (await vedette.json("/v1/status"))["clouds"][0]["api"] is False
        before = await comparing.listed(cloud)
        life = Lifecycle(tenants)
        began = time.monotonic()
        await asyncio.to_thread(life.run)
        figures.add(PART, "actions on the cloud", f"{len(life.steps)} in {time.monotonic() - began:.0f} s")

        counts = await _agrees(vedette, cloud, before, figures)
        unused = [reason.why for reason, count in counts.items() if not count and not reason.seldom]
        assert not unused, f"no difference has these reasons any more: {unused}"
        status = (await vedette.json("/v1/status"))["store"]
        types = Counter(one["type"] for one in await vedette.events())
        figures.add(PART, "notifications kept", f"{status['entries']} of {len(types)} types")
        figures.add(PART, "Vedette", f"{vedette.memory()} MiB at the most, {vedette.cpu():.1f} s of processor time")

        left = await asyncio.to_thread(tenants.clear)
        assert not left, "\n".join(left)
        await _agrees(vedette, cloud, before, figures, "when all is deleted")
        mine = [item for item in (await vedette.inventory()).values() if _is_of(item, tenants)]
        assert {item["kind"] for item in mine} <= {"Port"}, mine  # those with a reason: `_agrees` has looked


async def _agrees(
    vedette: VedetteProcess, cloud: Cloud, before: dict[Name, Any], figures: Figures, when: str = "at the end"
) -> dict[api_only.Reason, int]:
    """Fails with what differs and has no reason; else how often each reason was needed."""
    await vedette.quiet()
    for look in range(LOOKS):
        seen = await _seen(vedette)
        there = await comparing.listed(cloud)
        served = await vedette.inventory()
        found = comparing.differences(served, there, before)
        strange = api_only.unexplained(found, seen)
        if not strange:
            break
        if look < LOOKS - 1:
            await asyncio.sleep(5)
    assert not strange, f"{when}, {len(strange)} differences have no reason:\n{comparing.shown(strange)}"
    kinds = Counter(kind for kind, _ in served)
    fields = sum(len(item["status"]) for name, item in served.items() if name in there)
    figures.add(PART, f"compared {when}", f"{len(served)} objects of {len(kinds)} kinds, {fields} fields")
    counts = api_only.used(found, seen)
    figures.add(PART, f"API-only {when}", f"{_fields(found)} fields, {_objects(found)} objects")
    return counts


async def _seen(vedette: VedetteProcess) -> api_only.Seen:
    told = await vedette.events(type="router.interface.*")
    ports = {(one["data"]["router_interface"] or {}).get("port_id") for one in told}
    return api_only.Seen(frozenset(port for port in ports if port))


def _fields(found: list[Difference]) -> int:
    return sum(1 for one in found if one.field)


def _objects(found: list[Difference]) -> int:
    return sum(1 for one in found if not one.field)


def _is_of(item: dict[str, Any], tenants: Tenants) -> bool:
    projects = (tenants.one.project, tenants.two.project)
    return item["metadata"]["namespace"] in projects or str(item["status"].get("name", "")).startswith(tenants.tag)
