"""Octavia's kinds: how they are scanned, on what a real cloud said and on one that does whatever may happen.

That each is listed in the form in which it is notified, and what else all kinds have in common: test_kinds_api_network."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from corpus import notice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds_fold import KINDS, Inventory
from recorded_cloud import RecordedCloud, end_of
from test_kinds_api_network import BALANCE, RECORDING, cloud, everything, folded, listed, run, transient
from test_kinds_garbage import VALUES

from vedette.errors import CloudUnavailable, NotFound
from vedette.kinds import _balance_scan
from vedette.model.reading import Reading
from vedette.ports import Answer, Api, Cloud, Items, Params, Scan, Verified

State = dict[tuple[str, str], Any]
"""(kind, id) → object."""


def api(kind: str) -> Api:
    found = KINDS[kind].api
    assert found is not None
    return found


def scan() -> Scan:
    found = api("LoadBalancer").scan
    assert found is not None
    return found


def known(objects: State) -> dict[str, dict[str, dict[str, Any]]]:
    """What a look is shown."""
    found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in scan().sees}
    for (kind, id_), state in objects.items():
        if kind in found and not state.deleted:
            found[kind][id_] = {name: state.fields[name] for name in scan().sees[kind] if name in state.fields}
    return found


_memories: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""What the scan of each cloud remembers, as engine/verify.py keeps it."""


async def look(of: Any, objects: State) -> list[tuple[str, str, str]]:
    """One look as engine/verify.py has it: what is suspected to be gone is asked for. The changes."""
    changes: list[tuple[str, str, str]] = []
    async for readings in scan().look(of, known(objects), _memories.setdefault(of, {})):
        for one in readings:
            changes += folded(objects, await confirmed(of, one) if one.verb == "delete" else [one])
    return changes


async def confirmed(of: Cloud, one: Reading) -> Sequence[Reading]:
    try:
        return await api(one.kind).get(of, one.id)
    except NotFound:
        return [one]


def fields(objects: State, kind: str) -> dict[str, dict[str, Any]]:
    return {id_: state.fields for (of, id_), state in objects.items() if of == kind and not state.deleted}


def paths(of: RecordedCloud) -> list[str]:
    """What was asked, ids left out."""
    return ["/".join(part for part in path.split("/") if "-" not in part) for _, path, _, _ in of.asked]


def go(of: RecordedCloud, moment: str) -> RecordedCloud:
    """The same cloud, later."""
    of.go(end_of(RECORDING, moment))
    of.asked.clear()
    return of


def at_rest(moment: str = "there") -> tuple[RecordedCloud, State]:
    """A cloud, and what is known when it has been looked at."""
    of, objects = cloud(moment), State()
    run(look(of, objects))
    of.asked.clear()
    return of, objects


def equals(objects: State, moment: str) -> bool:
    for kind in BALANCE:
        assert fields(objects, kind) == {one.id: one.fields for one in listed(kind, moment)}, kind
    return True


# --- on what a real cloud said -----------------------------------------------------------------------------------------------


def test_the_five_kinds_share_one_scan_that_is_shown_declared_fields() -> None:
    assert {kind.kind for kind in KINDS.values() if kind.api is not None and kind.api.scan is scan()} == set(BALANCE)
    for kind, names in scan().sees.items():
        assert set(names) <= set(KINDS[kind].fields)


def test_a_look_that_knows_nothing_reads_everything_as_the_listing_has_it() -> None:
    _, objects = at_rest()
    assert equals(objects, "there")


def test_when_nothing_moved_a_look_is_one_request_and_no_news() -> None:
    of, objects = at_rest()
    assert run(look(go(of, "again"), objects)) == []
    assert paths(of) == ["/lbaas/loadbalancers", "/lbaas/loadbalancers/status"], "within a minute of its last change"
    cloud, objects = Octavia(), State()
    for _ in range(7):
        balancer_with_members(cloud)
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    for _ in range(3):
        cloud.asked.clear()
        cloud.now += 5 * SECOND
        assert run(look(cloud, objects)) == []
        assert cloud.asked == ["/lbaas/loadbalancers"]


def test_at_work_its_tree_is_read_and_what_is_new_below_it() -> None:
    of, objects = at_rest()
    run(look(go(of, "pending"), objects))
    assert {one["provisioning_status"] for one in fields(objects, "LoadBalancer").values()} == {"PENDING_UPDATE"}
    states = sorted(one["provisioning_status"] for one in fields(objects, "Listener").values())
    assert states == ["ACTIVE", "PENDING_CREATE"]
    asked = Counter(paths(of))
    assert asked["/lbaas/loadbalancers/status"] == 1
    assert asked["/lbaas/pools/members"] == 1, "of the pool that has moved"
    of.asked.clear()
    run(look(of, objects))
    assert paths(of) == ["/lbaas/loadbalancers", "/lbaas/loadbalancers/status"], "nothing new below it"


def test_settled_it_is_as_the_listing_has_it_and_what_is_gone_is_gone() -> None:
    of, objects = at_rest()
    run(look(go(of, "pending"), objects))
    changes = run(look(go(of, "settled"), objects))
    assert [kind for kind, _, verb in changes if verb == "DELETED"] == ["Member"]
    assert equals(objects, "settled")
    of.asked.clear()
    assert run(look(of, objects)) == []
    assert paths(of) == ["/lbaas/loadbalancers", "/lbaas/loadbalancers/status"]


def test_what_was_missed_altogether_is_made_up_for() -> None:
    of, objects = at_rest()
    run(look(go(of, "settled"), objects))
    assert equals(objects, "settled")


def test_a_load_balancer_that_is_gone_takes_everything_with_it() -> None:
    of, objects = at_rest("settled")
    changes = run(look(go(of, "gone"), objects))
    assert all(state.deleted for state in objects.values())
    assert Counter(kind for kind, _, _ in changes) == Counter(kind for kind, _ in objects)
    of.asked.clear()
    assert run(look(of, objects)) == []
    assert len(of.asked) == 1


def test_children_of_a_load_balancer_whose_deletion_was_announced_go_too() -> None:
    of, objects = at_rest("settled")
    (balancer,) = fields(objects, "LoadBalancer")
    end = end_of(RECORDING, "settled") + 1
    folded(objects, [Reading(kind="LoadBalancer", id=balancer, verb="delete", as_of=end)])
    run(look(go(of, "gone"), objects))
    assert all(state.deleted for state in objects.values())


class Breaking(RecordedCloud):
    """Answers no question whose path has `broken` in it."""

    broken = ""

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        self._check(path)
        async for page in super().pages(service, path, key, params, microversion=microversion):
            yield page

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        self._check(path)
        return await super().get(service, path, params, microversion=microversion)

    def _check(self, path: str) -> None:
        if self.broken and self.broken in path:
            raise CloudUnavailable(path)


@pytest.mark.parametrize("broken", ["/lbaas/listeners", "/lbaas/pools", "/members", "/healthmonitors/"])
def test_a_look_that_breaks_off_is_made_up_for_by_the_next(broken: str) -> None:
    of = Breaking(RECORDING, at=end_of(RECORDING, "there"))
    objects: State = {}
    run(look(of, objects))
    go(of, "settled")
    of.broken = broken
    with pytest.raises(CloudUnavailable):
        run(look(of, objects))
    of.broken = ""
    run(look(of, objects))
    assert equals(objects, "settled")


def test_what_a_listing_made_known_before_the_look_is_read_all_the_same() -> None:
    """A resync lists balancers and pools in every pass, members seldom."""
    of, objects = at_rest()
    for kind in ("LoadBalancer", "Listener", "Pool"):
        folded(objects, listed(kind, "settled"))
    run(look(go(of, "settled"), objects))
    assert equals(objects, "settled")


def test_what_only_listings_have_made_known_is_read_once_in_the_first_looks() -> None:
    cloud, objects = Octavia(), State()
    for _ in range(12):
        balancer_with_members(cloud)
    cloud.now += 5 * SECOND
    for kind in ("LoadBalancer", "Listener", "Pool", "HealthMonitor"):
        folded(objects, run(everything(kind, cloud)))
    for known_members in (10, 20, 24, 24):
        run(look(cloud, objects))
        assert len(fields(objects, "Member")) == known_members
        cloud.now += 5 * SECOND
    equal(cloud, objects)


def test_a_status_tree_is_one_request_and_says_the_states_of_everything_in_it() -> None:
    async def ask() -> None:
        of = cloud()
        (balancer,) = await everything("LoadBalancer", of)
        of.asked.clear()
        some = api("LoadBalancer").some
        assert some is not None
        tree = await some(of, [balancer.id])
        assert len(of.asked) == 1
        assert all(one.only_known and one.verb == "update" for one in tree)
        shown = {(one.kind, one.id): one.fields for kind in BALANCE for one in await everything(kind, cloud())}
        assert Counter(one.kind for one in tree) == {
            "LoadBalancer": 1, "Listener": 1, "Pool": 1, "Member": 2, "HealthMonitor": 1
        }, "not the pool that no listener uses"  # fmt: skip
        for one in tree:
            assert set(one.fields) == {"name", "provisioning_status", "operating_status"}
            assert one.fields.items() <= shown[one.kind, one.id].items()
        assert await some(of, []) == []
        assert await some(cloud("gone"), [balancer.id]) == []

    run(ask())


def test_members_are_read_of_the_pools_that_have_some() -> None:
    of = cloud()
    members = run(everything("Member", of))
    assert len(members) == 3
    assert Counter(paths(of)) == {"/lbaas/pools": 1, "/lbaas/pools/members": 2}
    pools = {one.id: one for one in listed("Pool")}
    for one in members:
        assert {"id": one.id} in pools[one.fields["pool_id"]].fields["members"]


def test_a_pool_without_a_health_monitor_says_so() -> None:
    assert sorted(one.fields["healthmonitor_id"] is None for one in listed("Pool")) == [False, True]


def test_a_name_that_octavia_announces_as_null_is_empty_as_in_its_api() -> None:
    said = {"loadbalancer_id": "lb", "project_id": "p", "name": None, "description": None}
    inventory = Inventory([notice("octavia.loadbalancer.create.end", said)])
    assert inventory.fields("LoadBalancer", "lb")["description"] == ""
    assert inventory.fields("LoadBalancer", "lb")["name"] == ""


@pytest.mark.parametrize("kind", BALANCE)
def test_what_octavia_is_at_work_on_is_transient(kind: str) -> None:
    for status in ("PENDING_CREATE", "PENDING_UPDATE", "PENDING_DELETE"):
        assert transient(kind)({"provisioning_status": status})
    for status in ("ACTIVE", "ERROR", "DELETED"):
        assert not transient(kind)({"provisioning_status": status})
    # Octavia announces a load balancer without any status.
    assert transient(kind)({}) is (kind == "LoadBalancer")


# --- on a cloud that does whatever may happen --------------------------------------------------------------------------------


class Octavia:
    """Balancers, listeners, pools, members and monitors, which move as Octavia's do."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000
        self.rows: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in BALANCE}
        self.asked: list[str] = []
        self._ids = (f"id{number:04d}" for number in count())

    # what happens

    def add(self, kind: str, **more: Any) -> str:
        id_ = next(self._ids)
        row = {"id": id_, "name": "", "provisioning_status": "PENDING_CREATE", "operating_status": "OFFLINE"}
        self.rows[kind][id_] = row | {"created_at": self.time(), "updated_at": None, "project_id": "p"} | more
        return id_

    def time(self) -> str:
        return datetime.fromtimestamp(self.now // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")

    def state(self, kind: str, id_: str, **more: Any) -> None:
        self.rows[kind][id_] |= {**more, "updated_at": self.time()}

    def of(self, kind: str, field: str, id_: str) -> list[str]:
        return [one for one, row in self.rows[kind].items() if id_ in (row.get(field), *refs(row.get(field)))]

    def touch(self, balancer: str, *below: tuple[str, str]) -> None:
        """The API has taken a change of these."""
        for kind, id_ in (("LoadBalancer", balancer), *below):
            if self.rows[kind][id_]["provisioning_status"] != "PENDING_CREATE":
                self.state(kind, id_, provisioning_status="PENDING_UPDATE")

    def settle(self) -> None:
        """The worker has finished: children first."""
        for kind in reversed(BALANCE):
            for id_, row in list(self.rows[kind].items()):
                if row["provisioning_status"] == "PENDING_DELETE":
                    del self.rows[kind][id_]
                elif row["provisioning_status"] != "ACTIVE":
                    self.state(kind, id_, provisioning_status="ACTIVE")

    # what is asked

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        self.asked.append(path)
        parts = path.removeprefix("/lbaas/").split("/")
        if parts[-1] == "status":
            return Answer({"statuses": {"loadbalancer": self._tree(self._row("LoadBalancer", parts[1]))}}, self.now)
        kind = {f"{one.lower()}s": one for one in BALANCE}[parts[-2]]
        return Answer({kind.lower(): self.shown(kind, self._row(kind, parts[-1]))}, self.now)

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        self.asked.append(path)
        rows: Iterable[dict[str, Any]] = self.rows[{f"{one.lower()}s": one for one in BALANCE}[key]].values()
        parts = path.split("/")
        if key == "members":
            self._row("Pool", parts[3])
            rows = [row for row in rows if row["pool"] == parts[3]]
        for name, value in params:
            if name in ("loadbalancer_id", "load_balancer_id"):
                rows = [row for row in rows if value in refs(row["loadbalancers"])]
        wanted = [value for name, value in params if name == "fields"]
        kind = {f"{one.lower()}s": one for one in BALANCE}[key]
        shown = [self.shown(kind, row) for row in rows]
        yield Items([{name: row[name] for name in wanted} if wanted else row for row in shown], self.now)

    async def account(self) -> Verified:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def _row(self, kind: str, id_: str) -> dict[str, Any]:
        if id_ not in self.rows[kind]:
            raise NotFound(id_)
        return self.rows[kind][id_]

    def shown(self, kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if kind == "LoadBalancer":
            for name, below in (("listeners", "Listener"), ("pools", "Pool")):
                more[name] = [{"id": one} for one in self.of(below, "loadbalancers", row["id"])]
        if kind == "Pool":
            more["members"] = [{"id": one} for one in self.of("Member", "pool", row["id"])]
            monitors = self.of("HealthMonitor", "pools", row["id"])
            if monitors:
                more["healthmonitor_id"] = monitors[0]
        return {**row, **more}

    def _tree(self, balancer: Mapping[str, Any]) -> dict[str, Any]:
        pools = [self._branch(self.rows["Pool"][one]) for one in self.of("Pool", "loadbalancers", balancer["id"])]
        for pool in pools:
            pool["members"] = [self._branch(self.rows["Member"][one]) for one in self.of("Member", "pool", pool["id"])]
            for one in self.of("HealthMonitor", "pools", pool["id"]):
                pool["health_monitor"] = self._branch(self.rows["HealthMonitor"][one])
        listeners = [self._branch(self.rows["Listener"][one]) for one in self.of("Listener", "loadbalancers", balancer["id"])]
        for listener in listeners:
            listener["pools"] = pools  # each with the same, as where policies lead to them
        return self._branch(balancer) | {"listeners": listeners}

    def _branch(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: row[name] for name in ("id", "name", "provisioning_status", "operating_status")}


def refs(value: Any) -> list[str]:
    return [one["id"] for one in value] if isinstance(value, list) else []


def balancer_with_members(cloud: Octavia, members: int = 2, **more: Any) -> tuple[str, str]:
    """Settled; the ids of the balancer and its pool."""
    balancer = cloud.add("LoadBalancer", **more)
    below = [{"id": balancer}]
    listener = cloud.add("Listener", loadbalancers=below)
    pool = cloud.add("Pool", loadbalancers=below, listeners=[{"id": listener}])
    for _ in range(members):
        cloud.add("Member", pool=pool, weight=1)
    cloud.settle()
    return balancer, pool


def equal(cloud: Octavia, objects: State) -> None:
    for kind in BALANCE:
        wanted = {one.id: one.fields for one in run(everything(kind, cloud))}  # type: ignore[arg-type]
        assert fields(objects, kind) == wanted, kind


SECOND = 1_000_000
ACTIONS = st.sampled_from(
    [
        "member",
        "add member",
        "drop member",
        "monitor",
        "drop monitor",
        "listener",
        "add pool",
        "drop pool",
        "balancer",
        "drop balancer",
    ]
    + ["settle"] * 4
    + ["sick", "well"]
    + ["look"] * 5
    + ["list"] * 2
)
STEPS = st.lists(
    st.tuples(ACTIONS, st.integers(0, 5), st.sampled_from([0, 0, 50_000, 400_000, 1_100_000, 5_000_000])), max_size=40
)


def act(cloud: Octavia, action: str, which: int) -> None:
    """One thing that happens, if it can. Octavia takes a change only of a balancer that is ACTIVE."""
    balancers = [one for one, row in cloud.rows["LoadBalancer"].items() if row["provisioning_status"] == "ACTIVE"]
    if action == "settle":
        cloud.settle()
        return
    if action == "balancer" or not balancers:
        if len(cloud.rows["LoadBalancer"]) < 3:
            balancer = cloud.add("LoadBalancer")
            if which % 2:
                cloud.add("Listener", loadbalancers=[{"id": balancer}])
        return
    balancer = balancers[which % len(balancers)]
    pools = cloud.of("Pool", "loadbalancers", balancer)
    pool = pools[which % len(pools)] if pools else ""
    members = cloud.of("Member", "pool", pool) if pool else []
    monitors = cloud.of("HealthMonitor", "pools", pool) if pool else []
    match action:
        case "drop balancer":
            for kind in ("Listener", "Pool"):
                for one in cloud.of(kind, "loadbalancers", balancer):
                    cloud.state(kind, one, provisioning_status="PENDING_DELETE")
                    for child in ("Member", "HealthMonitor"):
                        for below in cloud.of(child, "pool" if child == "Member" else "pools", one):
                            cloud.state(child, below, provisioning_status="PENDING_DELETE")
            cloud.state("LoadBalancer", balancer, provisioning_status="PENDING_DELETE")
        case "listener":
            cloud.touch(balancer)
            cloud.add("Listener", loadbalancers=[{"id": balancer}])
        case "add pool":
            cloud.touch(balancer)
            cloud.add("Pool", loadbalancers=[{"id": balancer}], listeners=[])
        case "drop pool" if pool:
            cloud.touch(balancer)
            for kind, id_ in (
                ("Pool", pool),
                *(("Member", one) for one in members),
                *(("HealthMonitor", one) for one in monitors),
            ):
                cloud.state(kind, id_, provisioning_status="PENDING_DELETE")
        case "add member" if pool:
            cloud.touch(balancer, ("Pool", pool))
            cloud.add("Member", pool=pool, weight=1)
        case "member" if members:
            cloud.touch(balancer, ("Pool", pool), ("Member", members[which % len(members)]))
            cloud.rows["Member"][members[which % len(members)]]["weight"] += 1
        case "drop member" if members:
            cloud.touch(balancer, ("Pool", pool))
            cloud.state("Member", members[which % len(members)], provisioning_status="PENDING_DELETE")
        case "monitor" if pool and not monitors:
            cloud.touch(balancer, ("Pool", pool))
            cloud.add("HealthMonitor", pools=[{"id": pool}])
        case "drop monitor" if monitors:
            cloud.touch(balancer, ("Pool", pool))
            cloud.state("HealthMonitor", monitors[0], provisioning_status="PENDING_DELETE")
        case "sick" | "well" if members:
            # What the health manager finds goes up only as far as it changes something.
            status = "ERROR" if action == "sick" else "ONLINE"
            member = members[which % len(members)]
            if cloud.rows["Member"][member]["operating_status"] != status:
                cloud.state("Member", member, operating_status=status)
            health(cloud, balancer, pool)


def health(cloud: Octavia, balancer: str, pool: str) -> None:
    for kind, id_, below in (
        ("Pool", pool, [cloud.rows["Member"][one] for one in cloud.of("Member", "pool", pool)]),
        ("LoadBalancer", balancer, [cloud.rows["Pool"][one] for one in cloud.of("Pool", "loadbalancers", balancer)]),
    ):
        bad = any(row["operating_status"] in ("ERROR", "DEGRADED") for row in below)
        status = "DEGRADED" if bad else "ONLINE"
        if cloud.rows[kind][id_]["operating_status"] != status:
            cloud.state(kind, id_, operating_status=status)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_whatever_happens_two_looks_after_it_everything_is_known(steps: list[tuple[str, int, int]]) -> None:
    cloud, objects = Octavia(), State()
    balancer_with_members(cloud)
    for action, which, pause in steps:
        cloud.now += 1 + pause
        if action == "look":
            run(look(cloud, objects))
        elif action == "list":
            folded(objects, run(everything(BALANCE[which % 5], cloud)))
        else:
            act(cloud, action, which)
    cloud.now += SECOND
    cloud.settle()
    for _ in range(2):
        cloud.now += 5 * SECOND
        run(look(cloud, objects))
    equal(cloud, objects)
    cloud.asked.clear()
    assert run(look(cloud, objects)) == []
    assert len(cloud.asked) <= 1 + len(cloud.rows["LoadBalancer"])


def test_two_changes_within_one_second_are_two() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    (first, *_) = cloud.of("Member", "pool", pool)
    for weight in (5, 6):  # with the same updated_at everywhere
        cloud.state("Member", first, weight=weight)
        cloud.state("Pool", pool)
        cloud.state("LoadBalancer", balancer)
        if weight == 5:
            run(look(cloud, objects))
        cloud.now += 100_000
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    equal(cloud, objects)


def test_what_a_listing_told_within_the_second_is_no_measure() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    for kind in BALANCE:
        folded(objects, run(everything(kind, cloud)))
    run(look(cloud, objects))
    (first, *_) = cloud.of("Member", "pool", pool)
    cloud.state("Member", first, weight=9)
    cloud.state("Pool", pool)
    cloud.state("LoadBalancer", balancer)
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    equal(cloud, objects)


def test_a_degraded_balancer_s_members_are_looked_at_though_it_does_not_move() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud, members=4)
    sick, other, *_ = cloud.of("Member", "pool", pool)
    cloud.state("Member", sick, operating_status="ERROR")
    health(cloud, balancer, pool)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    cloud.state("Member", other, operating_status="ERROR")
    health(cloud, balancer, pool)
    cloud.now += 5 * SECOND
    changes = run(look(cloud, objects))
    assert changes == [("Member", other, "MODIFIED")]
    equal(cloud, objects)


def test_a_new_member_goes_online_in_a_pool_that_is_so_already() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    first, other = cloud.of("Member", "pool", pool)
    for member in (first, other):
        cloud.now += 90 * SECOND
        run(look(cloud, objects))
        cloud.state("Member", member, operating_status="ONLINE")
        cloud.rows["Listener"][cloud.of("Listener", "loadbalancers", balancer)[0]]["operating_status"] = "ONLINE"
        health(cloud, balancer, pool)
        cloud.now += 90 * SECOND
        assert ("Member", member, "MODIFIED") in run(look(cloud, objects))
        equal(cloud, objects)
    cloud.asked.clear()
    cloud.now += 90 * SECOND
    assert run(look(cloud, objects)) == []
    assert len(cloud.asked) == 1, "all is well"


def test_what_is_switched_off_is_waited_for_by_nobody() -> None:
    cloud, objects = Octavia(), State()
    balancer_with_members(cloud, members=1, operating_status="ONLINE")
    for kind in ("Listener", "Pool", "Member"):
        for row in cloud.rows[kind].values():
            row["admin_state_up"] = False
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    cloud.asked.clear()
    assert run(look(cloud, objects)) == []
    assert len(cloud.asked) == 1


def test_a_member_drains_silently_after_its_weight_was_set() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud, operating_status="ONLINE")
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    (member, _) = cloud.of("Member", "pool", pool)
    cloud.touch(balancer, ("Pool", pool), ("Member", member))
    cloud.settle()
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    cloud.now += 5 * SECOND
    cloud.state("Member", member, operating_status="DRAINING")
    cloud.now += 5 * SECOND
    assert run(look(cloud, objects)) == [("Member", member, "MODIFIED")]
    equal(cloud, objects)


def test_of_many_degraded_balancers_a_few_are_looked_at_each_time_and_all_in_the_end() -> None:
    cloud, objects = Octavia(), State()
    for _ in range(30):
        balancer_with_members(cloud, operating_status="DEGRADED")
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    trees: Counter[str] = Counter()
    for _ in range(60):
        cloud.asked.clear()
        cloud.now += 5 * SECOND
        assert run(look(cloud, objects)) == []
        assert len(cloud.asked) == 1 + _balance_scan.MOST_TREES
        trees.update(cloud.asked[1:])
    assert len(trees) == 30


def test_a_look_reads_so_many_balancers_and_the_next_one_the_others() -> None:
    cloud, objects = Octavia(), State()
    for _ in range(_balance_scan.MOST + 20):
        balancer_with_members(cloud, members=0)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    assert len(fields(objects, "LoadBalancer")) == _balance_scan.MOST
    run(look(cloud, objects))
    equal(cloud, objects)


def test_what_one_change_costs() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    for _ in range(8):
        cloud.add("Pool", loadbalancers=[{"id": balancer}], listeners=[])
    cloud.settle()
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    cloud.touch(balancer, ("Pool", pool))
    cloud.settle()
    cloud.now += 5 * SECOND
    cloud.asked.clear()
    run(look(cloud, objects))
    # The list; the balancer, its pools, the members of the pool that moved, its listeners.
    assert len(cloud.asked) == 5


def test_at_work_its_tree_says_how_far_it_is_in_one_request() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    (member, _) = cloud.of("Member", "pool", pool)
    cloud.touch(balancer, ("Pool", pool), ("Member", member))
    cloud.now += 5 * SECOND
    cloud.asked.clear()
    changed = {(kind, id_) for kind, id_, _ in run(look(cloud, objects))}
    assert changed == {("LoadBalancer", balancer), ("Pool", pool), ("Member", member)}
    assert fields(objects, "Member")[member]["provisioning_status"] == "PENDING_UPDATE"
    assert len(cloud.asked) == 2
    cloud.asked.clear()
    assert run(look(cloud, objects)) == []
    assert len(cloud.asked) == 2, "it was changed within the last minute"


def test_what_a_tree_said_while_something_else_was_changed_is_read_whole_afterwards() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud, operating_status="DEGRADED")
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    (member, _) = cloud.of("Member", "pool", pool)
    cloud.state("Member", member, operating_status="ERROR")
    cloud.touch(balancer)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    cloud.settle()
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    equal(cloud, objects)


def test_a_pool_that_is_gone_takes_its_members_and_its_monitor_with_it_at_once() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    cloud.add("HealthMonitor", pools=[{"id": pool}])
    cloud.settle()
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    for kind in ("Pool", "Member", "HealthMonitor"):
        cloud.rows[kind].clear()
    cloud.state("LoadBalancer", balancer)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    assert [fields(objects, kind) for kind in ("Pool", "Member", "HealthMonitor")] == [{}, {}, {}]


def test_members_of_a_pool_that_nobody_knows_any_more_go_too() -> None:
    cloud, objects = Octavia(), State()
    balancer, pool = balancer_with_members(cloud)
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    folded(objects, [Reading(kind="Pool", id=pool, verb="delete", as_of=cloud.now + 1)])
    cloud.rows["Pool"].clear()
    cloud.rows["Member"].clear()
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    assert fields(objects, "Member") == {}
    assert set(fields(objects, "LoadBalancer")) == {balancer}


def test_nothing_is_remembered_of_what_is_gone() -> None:
    cloud, objects = Octavia(), State()
    kept, pool = balancer_with_members(cloud)
    balancer_with_members(cloud)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    assert len(_memories[cloud]) == 2
    assert list(_memories[cloud][kept].pools) == [pool]
    for kind in BALANCE:
        for id_ in [id_ for id_ in cloud.rows[kind] if id_ != kept]:
            del cloud.rows[kind][id_]
    cloud.state("LoadBalancer", kept)
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    assert list(_memories[cloud]) == [kept]
    assert _memories[cloud][kept].pools == {}


def test_an_octavia_that_ignores_filters_costs_nothing_more() -> None:
    class Unfiltered(Octavia):
        async def pages(
            self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
        ) -> AsyncIterator[Items]:
            wanted = [one for one in params if one[0] == "fields"]
            async for page in super().pages(service, path, key, wanted, microversion=microversion):
                yield page

    cloud, objects = Unfiltered(), State()
    balancer, pool = balancer_with_members(cloud)
    balancer_with_members(cloud)
    cloud.now += 90 * SECOND
    run(look(cloud, objects))
    assert len(cloud.asked) == 1 + 2 * 4
    equal(cloud, objects)
    cloud.touch(balancer, ("Pool", pool))
    cloud.settle()
    cloud.now += 5 * SECOND
    cloud.asked.clear()
    run(look(cloud, objects))
    assert len(cloud.asked) == 5


@pytest.mark.parametrize("gone", ["loadbalancer", "pool", "healthmonitor"])
def test_what_goes_while_it_is_looked_at_is_no_error(gone: str) -> None:
    class Vanishing(Octavia):
        async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
            if f"/{gone}s/" in path:
                raise NotFound(path)
            return await super().get(service, path, params, microversion=microversion)

        async def pages(
            self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
        ) -> AsyncIterator[Items]:
            if gone == "pool" and path.endswith("/members"):
                raise NotFound(path)
            async for page in super().pages(service, path, key, params, microversion=microversion):
                yield page

    cloud, objects = Vanishing(), State()
    _, pool = balancer_with_members(cloud)
    cloud.add("HealthMonitor", pools=[{"id": pool}])
    cloud.settle()
    cloud.now += 5 * SECOND
    run(look(cloud, objects))
    assert len(fields(objects, "LoadBalancer")) == (0 if gone == "loadbalancer" else 1)
    assert len(fields(objects, "Member")) == (2 if gone == "healthmonitor" else 0)


# --- odd answers -------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_odd_answers_end_no_look(data: st.DataObject) -> None:
    class Odd(Octavia):
        def _odd(self, item: dict[str, Any]) -> dict[str, Any]:
            names = st.sampled_from(sorted(item) or ["id"])
            return item | data.draw(st.dictionaries(names, VALUES, max_size=2))

        async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
            try:
                body = (await super().get(service, path, params, microversion=microversion)).body
            except (KeyError, IndexError):  # an odd id
                raise NotFound(path) from None
            key, value = next(iter(body.items()))
            return Answer({key: data.draw(st.one_of(st.just(self._odd(value)), VALUES))}, self.now)

        async def pages(
            self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
        ) -> AsyncIterator[Items]:
            async for page in super().pages(service, path, key, params, microversion=microversion):
                yield Items([self._odd(item) for item in page.items], page.as_of)

    cloud, objects = Octavia(), State()
    balancer_with_members(cloud, operating_status="DEGRADED")
    _, pool = balancer_with_members(cloud)
    cloud.add("HealthMonitor", pools=[{"id": pool}])
    cloud.settle()
    cloud.now += 5 * SECOND
    if data.draw(st.booleans()):
        run(look(cloud, objects))
    odd = Odd()
    odd.rows, odd.now = cloud.rows, cloud.now + 5 * SECOND

    async def once() -> None:
        async for readings in scan().look(odd, known(objects), {}):
            for one in readings:
                assert one.id
                assert one.kind in BALANCE

    run(once())


def test_the_looks_of_two_sources_do_not_know_of_each_other() -> None:
    async def both() -> None:
        one, other = cloud(), cloud("settled")
        first: State = {}
        second: State = {}
        await asyncio.gather(look(one, first), look(other, second))
        assert len(fields(first, "Member")) == 3
        assert len(fields(second, "Member")) == 2

    run(both())
