"""W31: whatever Vedette knows of comes through the one watch API: the cloud's objects, a cluster's, and Vedette's own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
from optimizing import Place
from serving import SECONDS
from test_mirror import Shown, shown

from vedette.kit.clock import SystemClock
from vedette.model.reading import OPENSTACK, VEDETTE
from vedette.plugins import kinds
from vedette.testing.kubernetes import FakeKubernetes

ALL = {kind.kind: kind for kind in kinds()}


ROUTE = "route.openshift.io"


async def watched(place: Place, path: str, seen: list[Any], at: asyncio.Event) -> None:
    """What a watch that begins with what is there shows, until it is cancelled."""
    url = f"{place.main_url}{path}"
    headers = {"X-Auth-Token": place.cloud.token("admin")}
    query = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    forever = aiohttp.ClientTimeout(total=None, sock_read=SECONDS)
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, params=query, headers=headers, timeout=forever) as answer,
    ):
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            seen.append(json.loads(line))
            at.set()


def shown_kinds(seen: dict[str, list[Any]]) -> set[str]:
    return {kind for kind, events in seen.items() if any(one["type"] == "ADDED" for one in events)}


async def live(here: Shown) -> None:
    """A change of each kind that a cloud, an audit, a plan and a mirror make."""
    here.stack(1)
    await here.equal()
    place = here.place
    await place.good("POST", "/v1/audit_templates", {"name": "t", "goal": "dummy"})
    await place.good("POST", "/v1/audits", {"name": "a", "audit_type": "ONESHOT", "goal": "dummy", "auto_trigger": True})
    await place.audit_in("a", "SUCCEEDED")
    here.front.templates[next(iter(here.front.templates))]["tag"] = "volume"
    for row in here.front.templates.values():
        row["tag"] = row["tag"] or "none of ours"  # what is made next is refused: a dead letter
    here.stack(1)


async def test_every_kind_comes_through_the_one_watch(tmp_path: Path) -> None:
    async with FakeKubernetes(SystemClock()) as cluster:
        routes = cluster.define(f"{ROUTE}/v1", "routes", "Route")
        source = {
            "name": "prod", "type": "kubernetes", "server": cluster.url, "token": cluster.token,
            "resources": [{"resource": f"routes.{ROUTE}/v1"}],
        }  # fmt: skip
        async with shown(tmp_path, sections={"beside": [source]}) as here:
            cluster.put(routes, "default/web", {"spec": {"host": "web.example.com"}})
            await all_of_them(here)


async def all_of_them(here: Shown) -> None:
    seen: dict[str, list[Any]] = {name: [] for name in ALL}
    at = asyncio.Event()
    tasks = [
        asyncio.create_task(watched(here.place, f"/apis/{kind.group}/v1/{kind.plural}", seen[name], at))
        for name, kind in ALL.items()
        if kind.group in (OPENSTACK, VEDETTE)
    ]
    seen["Route"] = []
    tasks.append(asyncio.create_task(watched(here.place, f"/clusters/prod/apis/{ROUTE}/v1/routes", seen["Route"], at)))
    wanted = {
        "Route",
        "Port", "Network", "Server", "Stack", "Flavor", "Image", "Hypervisor", "Project", "Goal", "Strategy", "ScoringEngine",
        "AuditTemplate", "Audit", "ActionPlan", "Action", "MirroredObject", "Handler", "DeadLetter",
    }  # fmt: skip
    here.cloud.port()
    await live(here)
    async with asyncio.timeout(SECONDS):
        while missing := wanted - shown_kinds(seen):
            at.clear()
            failed = [task.exception() for task in tasks if task.done()]
            assert not failed, failed
            try:
                async with asyncio.timeout(5):
                    await at.wait()
            except TimeoutError:
                print("still missing:", missing)
    for name, events in seen.items():
        group = ALL[name].group if name in ALL else ROUTE
        assert {one["object"]["kind"] for one in events} <= {name}
        assert {one["object"]["apiVersion"] for one in events} <= {f"{group}/v1"}
        ends = [number for number, one in enumerate(events) if _ends_the_list(one)]
        assert len(ends) == 1, name
        after = [int(one["object"]["metadata"]["resourceVersion"]) for one in events[ends[0] :]]
        assert after == sorted(after), name
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ends_the_list(event: Any) -> bool:
    return event["object"]["metadata"].get("annotations", {}).get("k8s.io/initial-events-end") == "true"
