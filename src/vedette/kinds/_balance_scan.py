"""How Octavia is looked at again and again: one cheap list of all load balancers, and more only of what has moved.

In: what is known of the five kinds. Out: readings, for engine/verify.py. Whatever changes below a load balancer moves the load
balancer too: Octavia sets it to PENDING_UPDATE first, and that sets its `updated_at`; a pool is moved by its members and its
health monitor in the same way. So what has the same statuses and the same `updated_at` as before needs no second look. One thing
moves without moving what is above it: a member that goes ONLINE or ERROR in a pool that is DEGRADED before and after.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from zlib import crc32

from vedette.errors import NotFound
from vedette.kinds._balance import SERVICE, references, transient, without_young, young
from vedette.kinds._neutron import segment
from vedette.kinds._octavia import HEALTHMONITOR, LISTENER, LOADBALANCER, POOL, members_of
from vedette.model.reading import Reading
from vedette.ports import Cloud, JsonObject, Scan

Known = Mapping[str, Mapping[str, JsonObject]]
"""Kind → id → fields."""
Named = tuple[str, str]
"""Kind and id."""

STATES = ("provisioning_status", "operating_status")
CHEAP = tuple(("fields", name) for name in ("id", *STATES, "updated_at"))
WORN = ("DEGRADED", "ERROR")
"""Operating statuses in which members move without moving their load balancer."""
MOST = 100
"""Load balancers that are read in one look. The others have still moved at the next one."""
MOST_WORN = 10
"""Load balancers that have not moved, but are DEGRADED or in ERROR, whose tree is read in one look: some others each time."""

BELOW = {
    "LoadBalancer": {"listeners": "Listener", "pools": "Pool"},
    "Listener": {"pools": "Pool"},
    "Pool": {"members": "Member", "health_monitor": "HealthMonitor"},
}
"""What a status tree has below each kind."""


async def look(cloud: Cloud, known: Known) -> AsyncIterator[Sequence[Reading]]:
    """One look. A balancer's new `updated_at` comes after its children, as a pool's does: what breaks off in between is made up
    for by the next look."""
    there: dict[str, tuple[JsonObject, int]] = {}
    as_of = 0
    async for page in cloud.pages(SERVICE, "/lbaas/loadbalancers", "loadbalancers", CHEAP):
        as_of = as_of or page.as_of
        there |= {item["id"]: (item, page.as_of) for item in page.items if isinstance(item.get("id"), str)}
    balancers, below = known.get("LoadBalancer", {}), _Below(known)
    moved = [id_ for id_, (item, at) in there.items() if has_moved(item, balancers.get(id_), at)]
    for id_ in moved[:MOST]:
        item, at = there[id_]
        if id_ in balancers and transient(item):
            tree = await statuses(cloud, id_)
            yield [_of_cheap_list(id_, item, at), *tree]
            if all(below.knows(one) for one in tree):
                continue  # the rest is read when it has settled
        async for readings in _whole(cloud, id_, known, below):
            yield readings
    worn = [id_ for id_ in there.keys() - set(moved) if there[id_][0].get("operating_status") in WORN]
    # By lot, and the same lot for the same moment.
    for id_ in sorted(worn, key=lambda id_: crc32(f"{as_of} {id_}".encode()))[:MOST_WORN]:
        differ = [one for one in await statuses(cloud, id_) if below.differs(one)]
        if differ:
            # Their `updated_at` has moved too, and the tree has none.
            async for readings in _whole(cloud, id_, known, below, below.pools_of(differ)):
                yield readings
    gone = below.orphans(there)
    if gone:
        yield _suspected(gone, as_of)


def has_moved(item: Mapping[str, Any], known: Mapping[str, Any] | None, as_of: int) -> bool:
    """Whether something changed at a balancer or pool, or below it, since it was read. `item`: what the API says now."""
    if known is None or "updated_at" not in item or young(item["updated_at"], as_of):
        return True
    return any(item.get(name) != known.get(name) for name in (*STATES, "updated_at"))


async def statuses(cloud: Cloud, balancer: str) -> list[Reading]:
    """A balancer's status tree: the statuses of it and of everything below it, in one request. Pools that no listener uses are
    not in it. Of a balancer that is gone, nothing."""
    try:
        answer = await cloud.get(SERVICE, f"/lbaas/loadbalancers/{segment(balancer)}/status")
    except NotFound:
        return []
    found: dict[Named, Reading] = {}
    root = answer.body.get("statuses")
    for kind, item in _branches("LoadBalancer", root.get("loadbalancer") if isinstance(root, dict) else None):
        id_ = item.get("id")
        if isinstance(id_, str) and id_:
            fields = {name: item[name] for name in ("name", *STATES) if isinstance(item.get(name), str)}
            found[kind, id_] = Reading(kind=kind, id=id_, verb="update", as_of=answer.as_of, fields=fields, only_known=True)
    return list(found.values())


def _branches(kind: str, item: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(item, dict):
        return
    yield kind, item
    for name, kind_below in BELOW.get(kind, {}).items():
        value = item.get(name)
        for one in value if isinstance(value, list) else [value]:
            yield from _branches(kind_below, one)


def _of_cheap_list(id_: str, item: JsonObject, as_of: int) -> Reading:
    """Of one that is at work: that it is. When it has finished it has another status, so its time may be told already."""
    fields = {name: item[name] for name in STATES if isinstance(item.get(name), str)}
    if isinstance(item.get("updated_at"), str):
        fields["updated_at"] = item["updated_at"]
        without_young(fields, as_of)
    return Reading(kind="LoadBalancer", id=id_, verb="update", as_of=as_of, fields=fields, only_known=True)


async def _whole(
    cloud: Cloud, id_: str, known: Known, below: _Below, also: Collection[str] = ()
) -> AsyncIterator[Sequence[Reading]]:
    """A balancer and its children, every field. Members and health monitors only of pools that have moved, and of `also`."""
    try:
        balancer = await LOADBALANCER.get(cloud, id_)
    except NotFound:
        return
    here: set[Named] = set()
    async for page in POOL.pages(cloud, (("loadbalancer_id", id_),)):
        for one in page:
            if id_ not in references(one.fields, "loadbalancers"):
                continue
            here.add((one.kind, one.id))
            before = known.get("Pool", {}).get(one.id)
            if one.id not in also and _same_children(one, before) and not has_moved(one.fields, before, one.as_of):
                continue
            children = list(await members_of(cloud, one.id)) if references(one.fields, "members") else []
            monitor = one.fields.get("healthmonitor_id")
            if isinstance(monitor, str):
                try:
                    children += await HEALTHMONITOR.get(cloud, monitor)
                except NotFound:
                    monitor = None
            present = {(child.kind, child.id) for child in children}
            gone = [child for child in below.of_pools.get(one.id, ()) if child not in present]
            yield [*children, *_suspected(gone, one.as_of), one]
    listeners: list[Reading] = []
    async for page in LISTENER.pages(cloud, (("load_balancer_id", id_),)):
        listeners += [one for one in page if id_ in references(one.fields, "loadbalancers")]
    here |= {(one.kind, one.id) for one in listeners}
    gone = [child for child in below.of_balancers.get(id_, ()) if child not in here]
    as_of = balancer[0].as_of if balancer else 0
    yield [*listeners, *_suspected(below.with_children(gone), as_of)]
    yield balancer


def _same_children(pool: Reading, before: JsonObject | None) -> bool:
    return (
        before is not None
        and sorted(references(before, "members")) == sorted(references(pool.fields, "members"))
        and before.get("healthmonitor_id") == pool.fields.get("healthmonitor_id")
    )


def _suspected(gone: Iterable[Named], as_of: int) -> list[Reading]:
    return [Reading(kind=kind, id=id_, verb="delete", as_of=as_of) for kind, id_ in gone]


class _Below:
    """Who is known to belong to whom."""

    def __init__(self, known: Known) -> None:
        self._known = known

    @cached_property
    def of_balancers(self) -> dict[str, list[Named]]:
        found: dict[str, list[Named]] = {}
        for kind in ("Listener", "Pool"):
            for id_, fields in self._known.get(kind, {}).items():
                for balancer in references(fields, "loadbalancers"):
                    found.setdefault(balancer, []).append((kind, id_))
        return found

    @cached_property
    def of_pools(self) -> dict[str, list[Named]]:
        found: dict[str, list[Named]] = {}
        for id_, fields in self._known.get("Member", {}).items():
            if isinstance(fields.get("pool_id"), str):
                found.setdefault(fields["pool_id"], []).append(("Member", id_))
        for id_, fields in self._known.get("HealthMonitor", {}).items():
            for pool in references(fields, "pools"):
                found.setdefault(pool, []).append(("HealthMonitor", id_))
        return found

    def with_children(self, gone: Sequence[Named]) -> list[Named]:
        """These, and what belongs to the pools among them."""
        pools = [id_ for kind, id_ in gone if kind == "Pool"]
        return [*gone, *(child for pool in pools for child in self.of_pools.get(pool, ()))]

    def orphans(self, there: Collection[str]) -> list[Named]:
        """Balancers that are known and not there, and everything that belongs to such."""
        found: list[Named] = [("LoadBalancer", id_) for id_ in self._known.get("LoadBalancer", {}) if id_ not in there]
        for balancer, children in self.of_balancers.items():
            if balancer not in there:
                found += self.with_children(children)
        return found

    def knows(self, one: Reading) -> bool:
        return one.id in self._known.get(one.kind, {})

    def differs(self, one: Reading) -> bool:
        """Whether a status in a tree is not the one that is known."""
        before = self._known.get(one.kind, {}).get(one.id)
        return before is None or any(one.fields[name] != before.get(name) for name in STATES if name in one.fields)

    def pools_of(self, readings: Iterable[Reading]) -> set[str]:
        """The pools among them, and those of the members and health monitors among them, as far as they are known."""
        ids = {(one.kind, one.id) for one in readings}
        return {id_ for kind, id_ in ids if kind == "Pool"} | {
            pool for pool, children in self.of_pools.items() if not ids.isdisjoint(children)
        }


SCAN = Scan(
    name="octavia",
    service=SERVICE,
    sees={
        "LoadBalancer": (*STATES, "updated_at"),
        "Listener": (*STATES, "loadbalancers"),
        "Pool": (*STATES, "updated_at", "loadbalancers", "members", "healthmonitor_id"),
        "Member": (*STATES, "pool_id"),
        "HealthMonitor": (*STATES, "pools"),
    },
    look=look,
)
