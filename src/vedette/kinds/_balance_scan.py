"""How Octavia is looked at again and again: one cheap list of all load balancers, and more only of what has moved.

In: what is known of the five kinds. Out: readings, for engine/verify.py. Whatever changes below a load balancer moves the load
balancer too: Octavia sets it to PENDING_UPDATE first, and that sets its `updated_at`; a pool is moved by its members and its
health monitor in the same way. So what has the same statuses and the same `updated_at` as when it was read with everything below
it needs no second look.

But what Octavia's health manager finds goes up only as far as it makes a difference there: a new member goes ONLINE in a pool
that is so already, or ERROR in one that is DEGRADED before and after. So the status tree is read, too, of a few of those load
balancers where that may happen: that were changed within the last minute, are DEGRADED or in ERROR, or have something below them
that is not ONLINE.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any
from zlib import crc32

from vedette.errors import NotFound
from vedette.kinds._balance import SERVICE, references, transient
from vedette.kinds._octavia import HEALTHMONITOR, LISTENER, LOADBALANCER, POOL, members_of
from vedette.kinds._said import moment
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Cloud, JsonObject, Scan

Known = Mapping[str, Mapping[str, JsonObject]]
"""Kind → id → fields."""
Named = tuple[str, str]
"""Kind and id."""
Mark = tuple[Any, ...]
"""What tells whether a balancer or pool has moved: its statuses, and its `updated_at`."""

STATES = ("provisioning_status", "operating_status")
MARKS = (*STATES, "updated_at")
CHEAP = tuple(("fields", name) for name in ("id", *MARKS))
YOUNG_US = 2_000_000
"""Octavia's times have whole seconds, and a database may round them up."""
NOT_WELL = ("DEGRADED", "ERROR")
RECENT_US = 60_000_000
"""An amphora tells how things are every 10 s, and a monitor may need several answers."""
MOST = 100
"""Load balancers that are read in one look because they moved. The others have still moved at the next one."""
MOST_TREES = 10
"""Load balancers that have not moved, whose tree is read in one look: others each time."""
MOST_UNREAD = 5
"""Load balancers that have not moved, but were never read by this scan, that are read in one look. What is known of them is
from listings, and those of members are few and far between."""

BELOW = {
    "LoadBalancer": {"listeners": "Listener", "pools": "Pool"},
    "Listener": {"pools": "Pool"},
    "Pool": {"members": "Member", "health_monitor": "HealthMonitor"},
}
"""What a status tree has below each kind."""


class _Read:
    """One balancer, as it was when it was read with everything below it."""

    __slots__ = ("mark", "pools")

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.pools: dict[str, Mark] = {}


async def look(cloud: Cloud, known: Known, memory: dict[str, _Read]) -> AsyncIterator[Sequence[Reading]]:
    """One look. What breaks off is made up for by the next one: something counts as read when all that it led to was taken.

    `memory`: what was read, by balancer. What is *known* is no measure of that: a listing makes known that a balancer has moved,
    before anybody has looked at its members.
    """
    there: dict[str, tuple[JsonObject, int]] = {}
    as_of = 0
    async for page in cloud.pages(SERVICE, "/lbaas/loadbalancers", "loadbalancers", CHEAP):
        as_of = as_of or page.as_of
        there |= {item["id"]: (item, page.as_of) for item in page.items if isinstance(item.get("id"), str)}
    for id_ in memory.keys() - there.keys():
        del memory[id_]
    below = _Below(known)
    moved, unread, restless = _sorted_out(there, memory, known.get("LoadBalancer", {}), below)
    for id_ in moved[:MOST]:
        item, at = there[id_]
        mark = None if young(item, at) else mark_of(item)
        if transient(item) and id_ in known.get("LoadBalancer", {}):
            tree = await statuses(cloud, id_)
            yield tree
            read = memory.setdefault(id_, _Read())
            for pool in below.pools_of(one for one in tree if below.differs(one)):
                read.pools.pop(pool, None)
            if all(below.knows(one) for one in tree):
                read.mark = mark  # the rest is read when it has settled, and that moves it
                continue
        async for readings in _whole(cloud, id_, memory.setdefault(id_, _Read()), mark, below):
            yield readings
    for id_ in _by_lot(unread, as_of)[:MOST_UNREAD]:
        async for readings in _whole(cloud, id_, memory.setdefault(id_, _Read()), mark_of(there[id_][0]), below):
            yield readings
    for id_ in _by_lot(restless, as_of)[:MOST_TREES]:
        differ = [one for one in await statuses(cloud, id_) if below.differs(one)]
        if differ:
            # Their `updated_at` has moved too, and the tree has none.
            async for readings in _whole(cloud, id_, memory[id_], memory[id_].mark, below, below.pools_of(differ)):
                yield readings
    gone = below.orphans(there)
    if gone:
        yield _suspected(gone, as_of)


def _sorted_out(
    there: Mapping[str, tuple[JsonObject, int]], memory: Mapping[str, _Read], known: Mapping[str, JsonObject], below: _Below
) -> tuple[list[str], list[str], list[str]]:
    """The balancers that have moved; that this scan has never read; below which something may have moved all the same."""
    moved, unread, restless = [], [], []
    for id_, (item, at) in there.items():
        before = memory[id_].mark if id_ in memory else mark_of(known.get(id_, {}))
        if id_ not in known or young(item, at) or before != mark_of(item):
            moved.append(id_)
        elif id_ not in memory:
            unread.append(id_)
        elif (
            young(item, at, RECENT_US)
            or item.get("operating_status") in NOT_WELL
            or (item.get("operating_status") == "ONLINE" and below.is_waiting(id_))
        ):
            restless.append(id_)
    return moved, unread, restless


def mark_of(item: Mapping[str, Any]) -> Mark:
    return tuple(item.get(name) for name in MARKS)


def young(item: Mapping[str, Any], as_of: int, than: int = YOUNG_US) -> bool:
    """Whether its last change was so short ago: by default, whether that second may not have been over at `as_of`, so that
    another change may get the same time."""
    text = item.get("updated_at")
    when = moment(text) if isinstance(text, str) else None
    return when is not None and as_of - when < than


def _by_lot(ids: Iterable[str], as_of: int) -> list[str]:
    """In an order that is another one each time, and the same for the same moment."""
    return sorted(ids, key=lambda id_: crc32(f"{as_of} {id_}".encode(errors="replace")))


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


async def _whole(
    cloud: Cloud, id_: str, read: _Read, mark: Mark | None, below: _Below, also: Collection[str] = ()
) -> AsyncIterator[Sequence[Reading]]:
    """A balancer and its children, every field. Members and health monitors only of pools that have moved, and of `also`.
    `mark`: what it has when all that is taken; None: nothing, so it is read again."""
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
            below.pools.add(one.id)
            of_pool = mark_of(one.fields)
            if one.id not in also and read.pools.get(one.id) == of_pool:
                yield [one]
                continue
            children = list(await members_of(cloud, one.id)) if references(one.fields, "members") else []
            monitor = one.fields.get("healthmonitor_id")
            if isinstance(monitor, str):
                with suppress(NotFound):
                    children += await HEALTHMONITOR.get(cloud, monitor)
            present = {(child.kind, child.id) for child in children}
            gone = [child for child in below.of_pools.get(one.id, ()) if child not in present]
            yield [one, *children, *_suspected(gone, one.as_of)]
            if not young(one.fields, one.as_of):
                read.pools[one.id] = of_pool
    listeners: list[Reading] = []
    async for page in LISTENER.pages(cloud, (("load_balancer_id", id_),)):
        listeners += [one for one in page if id_ in references(one.fields, "loadbalancers")]
    here |= {(one.kind, one.id) for one in listeners}
    read.pools = {pool: of_pool for pool, of_pool in read.pools.items() if ("Pool", pool) in here}
    gone = [child for child in below.of_balancers.get(id_, ()) if child not in here]
    as_of = balancer[0].as_of if balancer else 0
    yield [*balancer, *listeners, *_suspected(below.with_children(gone), as_of)]
    read.mark = mark


def _suspected(gone: Iterable[Named], as_of: int) -> list[Reading]:
    return [Reading(kind=kind, id=id_, verb="delete", as_of=as_of) for kind, id_ in gone]


class _Below:
    """Who is known to belong to whom."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.pools: set[str] = set()
        """Pools that were seen since."""

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

    def is_waiting(self, balancer: str) -> bool:
        """Whether something that is switched on below a balancer is not ONLINE."""
        for kind, id_ in self.with_children(self.of_balancers.get(balancer, ())):
            fields = self._known[kind][id_]
            if fields.get("operating_status") in ("OFFLINE", *NOT_WELL) and fields.get("admin_state_up") is not False:
                return True
        return False

    def with_children(self, gone: Sequence[Named]) -> list[Named]:
        """These, and what belongs to the pools among them."""
        pools = [id_ for kind, id_ in gone if kind == "Pool"]
        return [*gone, *(child for pool in pools for child in self.of_pools.get(pool, ()))]

    def orphans(self, there: Collection[str]) -> list[Named]:
        """Balancers that are known and not there, and everything that belongs to such or to a pool that nobody knows."""
        found: list[Named] = [("LoadBalancer", id_) for id_ in self._known.get("LoadBalancer", {}) if id_ not in there]
        for balancer, children in self.of_balancers.items():
            if balancer not in there:
                found += self.with_children(children)
        for pool, children in self.of_pools.items():
            if pool not in self.pools and pool not in self._known.get("Pool", {}):
                found += children
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
        "LoadBalancer": MARKS,
        "Listener": (*STATES, "admin_state_up", "loadbalancers"),
        "Pool": (*STATES, "admin_state_up", "loadbalancers"),
        "Member": (*STATES, "admin_state_up", "pool_id"),
        "HealthMonitor": (*STATES, "admin_state_up", "pools"),
    },
    look=look,
)
