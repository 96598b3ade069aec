"""Who leaves, where to, in which order, how many at a time: golden plans; and what became of them."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from vedette.model.advice import Done, Proposed, Solution
from vedette.model.snapshot import Host, Pool, Server, Snapshot, Volume, VolumeType
from vedette.strategies.zone_migration import STRATEGY, measure, propose
from vedette.testing.strategy_suite import with_defaults


def server(name: str, host: str = "h1", **more: Any) -> Server:
    return Server(**{"uuid": name, "name": name, "host": host, "vcpus": 1, "memory": 512, "disk": 1, "project": "p", **more})


def volume(name: str, pool: str = "a", **more: Any) -> Volume:
    return Volume(**{"uuid": name, "name": name, "pool": pool, "size": 10, "status": "available", "project": "p", **more})


HOSTS = tuple(
    Host(**{"uuid": f"id-{name}", "hostname": name, "vcpus": 4, "memory": 4096, "disk": 40, "zone": "east", **more})
    for name, more in {
        "h1": {},
        "h2": {},
        "h3": {"zone": "west"},
        "tiny": {"vcpus": 1},
        "off": {"status": "disabled"},
        "dead": {"state": "down"},
    }.items()
)
POOLS = (
    Pool(name="a", total=100, free=50),
    Pool(name="b", total=100, free=15, virtual_free=500),
    Pool(name="c", total=100, free=5, virtual_free=500, oversubscription=20),
    Pool(name="d"),
    Pool(name="down", total=100, free=100, state="down"),
)
TYPES = (VolumeType(name="gold"), VolumeType(name="lead"))


def cloud(*things: Server | Volume) -> Snapshot:
    return Snapshot(
        revision=1,
        hosts=HOSTS,
        servers=tuple(one for one in things if isinstance(one, Server)),
        pools=POOLS,
        volumes=tuple(one for one in things if isinstance(one, Volume)),
        volume_types=TYPES,
    )


def solved(*things: Server | Volume, **given: Any) -> Solution:
    asked = with_defaults(STRATEGY, given)
    jsonschema.Draft7Validator(STRATEGY.schema).validate(asked)
    return propose(cloud(*things), {}, asked, ())


def shown(solution: Solution) -> str:
    return ", ".join(short(one) for one in solution.actions)


def short(one: Proposed) -> str:
    given = one.parameters
    where = given.get("destination_node") or given.get("destination_type") or "?"
    return f"{given['migration_type']} {given['resource_name']}>{where}"


def plan(*things: Server | Volume, **given: Any) -> str:
    return shown(solved(*things, **given))


FROM_H1 = [{"src_node": "h1"}]
TO_H2 = [{"src_node": "h1", "dst_node": "h2"}]


def test_servers_leave_live_or_cold() -> None:
    servers = (server("s1"), server("s2", status="PAUSED"), server("s3", status="SHUTOFF"), server("s4", "h2"))
    assert plan(*servers, compute_nodes=FROM_H1, parallel_per_node=9) == "live s1>?, live s2>?, cold s3>?"
    assert plan(*servers, compute_nodes=TO_H2, parallel_per_node=9) == "live s1>h2, live s2>h2, cold s3>h2"
    assert solved(server("s1"), compute_nodes=TO_H2).actions == (
        Proposed(
            "migrate",
            {
                "resource_id": "s1",
                "migration_type": "live",
                "source_node": "h1",
                "destination_node": "h2",
                "resource_name": "s1",
            },
        ),
    )


def test_limits_of_one_plan() -> None:
    servers = [server(f"{host}-{i}", host) for host in ("h1", "h2", "h3") for i in range(3)]
    nodes = [{"src_node": host} for host in ("h1", "h2", "h3")]
    assert plan(*servers, compute_nodes=nodes) == ", ".join(f"live {h}-{i}>?" for h in ("h1", "h2", "h3") for i in (0, 1))
    first = solved(*servers, compute_nodes=nodes, parallel_total=3)
    assert shown(first) == "live h1-0>?, live h1-1>?, live h2-0>?"
    assert first.notes == ("6 more have to wait for another run: the limits of one plan are reached",)
    assert plan(*servers, compute_nodes=nodes, parallel_per_node=1) == "live h1-0>?, live h2-0>?, live h3-0>?"
    assert plan(*servers, compute_nodes=nodes, parallel_total=0) == ""


def test_limits_of_pools_count_apart_and_in_all() -> None:
    things = [volume(f"v{i}") for i in range(3)] + [volume("w", "b")] + [server("s")]
    pools = [{"src_pool": "a", "dst_pool": "d"}, {"src_pool": "b", "dst_pool": "d"}]
    assert plan(*things, storage_pools=pools, compute_nodes=FROM_H1) == "migrate v0>d, migrate v1>d, migrate w>d, live s>?"
    assert (
        plan(*things, storage_pools=pools, compute_nodes=FROM_H1, parallel_total=3) == "migrate v0>d, migrate v1>d, migrate w>d"
    )


@pytest.mark.parametrize(
    ("priority", "order"),
    [
        ({}, "s1 s3 s2 s4"),
        ({"project": ["q"]}, "s3 s4 s1 s2"),
        ({"project": ["x", "p", "q"]}, "s1 s2 s3 s4"),
        ({"compute_node": ["h2"]}, "s2 s4 s1 s3"),
        ({"compute": "vcpu_num"}, "s2 s1 s3 s4"),
        ({"compute": "mem_size"}, "s3 s1 s2 s4"),
        ({"compute": "disk_size"}, "s4 s1 s3 s2"),
        ({"compute": "created_at"}, "s3 s2 s4 s1"),
        # The order of the keys says nothing: projects weigh most, then hosts, then sizes.
        ({"compute": "created_at", "project": ["q"]}, "s3 s4 s2 s1"),
        ({"project": ["q"], "compute": "created_at"}, "s3 s4 s2 s1"),
        ({"compute_node": ["h2"], "project": ["q"]}, "s4 s3 s2 s1"),
    ],
)
def test_who_goes_first_among_servers(priority: dict[str, Any], order: str) -> None:
    servers = (
        server("s1", created=""),
        server("s2", "h2", vcpus=2, created="2026-03-01T00:00:00Z"),
        server("s3", memory=2048, project="q", created="2026-02-01T00:00:00Z"),
        server("s4", "h2", disk=9, project="q", created="2026-05-01T00:00:00Z"),
    )
    found = solved(*servers, compute_nodes=[{"src_node": "h1"}, {"src_node": "h2"}], priority=priority, parallel_per_node=9)
    assert " ".join(one.parameters["resource_id"] for one in found.actions) == order


@pytest.mark.parametrize(
    ("priority", "order"),
    [
        ({}, "v1 v2 v3"),
        ({"storage": "size"}, "v2 v1 v3"),
        ({"storage": "created_at"}, "v3 v2 v1"),
        ({"project": ["q"]}, "v2 v1 v3"),
        ({"storage_pool": ["b"], "storage": "size"}, "v3 v2 v1"),
        ({"compute": "vcpu_num", "compute_node": ["h1"]}, "v1 v2 v3"),
    ],
)
def test_who_goes_first_among_volumes(priority: dict[str, Any], order: str) -> None:
    volumes = (
        volume("v1", created="2026-03-01T00:00:00Z"),
        volume("v2", size=20, project="q", created="2026-02-01T00:00:00Z"),
        volume("v3", "b", created="2026-01-01T00:00:00Z"),
    )
    pools = [{"src_pool": "a", "dst_pool": "d"}, {"src_pool": "b", "dst_pool": "d"}]
    found = solved(*volumes, storage_pools=pools, priority=priority)
    assert " ".join(one.parameters["resource_id"] for one in found.actions) == order


@pytest.mark.parametrize(
    ("one", "nodes", "note"),
    [
        (server("s", locked=True), FROM_H1, "server s (s) is locked: it stays on h1"),
        (server("s", excluded=True), FROM_H1, "server s (s) is left out by the audit's scope: it stays on h1"),
        (server("s", task_state="migrating"), FROM_H1, "server s (s) is busy (migrating): it stays on h1"),
        (server("s", status="ERROR"), FROM_H1, "server s (s) is ERROR, and Nova migrates none in that state: it stays on h1"),
        (server("s", vcpus=5), TO_H2, "server s (s) stays on h1: host h2 has too little vCPUs"),
        (server("s", memory=5000), TO_H2, "server s (s) stays on h1: host h2 has too little memory"),
        (server("s", disk=50), TO_H2, "server s (s) stays on h1: host h2 has too little disk"),
        (
            server("s", pinned_zone="east"),
            [{"src_node": "h1", "dst_node": "h3"}],
            "server s (s) stays on h1: host h3 is in zone west, and it has to stay in east",
        ),
        (server("s"), [{"src_node": "h1", "dst_node": "off"}], "server s (s) stays on h1: host off is disabled and up"),
        (server("s"), [{"src_node": "h1", "dst_node": "dead"}], "server s (s) stays on h1: host dead is enabled and down"),
        (server("s"), [{"src_node": "h1", "dst_node": "h9"}], "server s (s) stays on h1: the audit's scope has no host h9"),
        (server("s"), [{"src_node": "h1", "dst_node": "h1"}], "server s (s) stays on h1: it would go to where it is"),
        (server("s", "dead"), [{"src_node": "dead"}], "host dead is down: its servers can't be migrated"),
        (server("s"), [{"src_node": "h9"}], "the audit's scope has no host h9: none leaves it"),
    ],
)
def test_a_server_that_stays_and_why(one: Server, nodes: list[Any], note: str) -> None:
    found = solved(one, compute_nodes=nodes)
    assert found.actions == ()
    assert found.notes == (note,)


def test_a_destination_fills_up_while_servers_go_there() -> None:
    servers = [server(f"s{i}", vcpus=3) for i in range(2)] + [server("s2")]
    found = solved(*servers, compute_nodes=TO_H2, parallel_per_node=9)
    assert shown(found) == "live s0>h2, live s2>h2"
    assert found.notes == ("server s1 (s1) stays on h1: host h2 has too little vCPUs",)


def test_where_volumes_go() -> None:
    volumes = (volume("v1", type="gold"), volume("v2", type="lead", status="in-use"), volume("v3"))
    by_type = [
        {"src_pool": "a", "dst_pool": "d"},
        {"src_pool": "a", "src_type": "gold", "dst_type": "lead"},
    ]
    given: dict[str, Any] = {"parallel_per_pool": 9}
    assert plan(*volumes, storage_pools=by_type, **given) == "retype v1>lead, migrate v2>d, migrate v3>d"
    assert plan(*volumes, storage_pools=by_type[1:], **given) == "retype v1>lead"
    everything = solved(*volumes, storage_pools=[{"src_pool": "a", "dst_type": "lead"}], **given)
    assert shown(everything) == "retype v1>lead, retype v3>lead"
    assert everything.notes == ("volume v2 stays in a: it is of type lead already, and no dst_pool is given",)
    assert solved(volume("v1"), storage_pools=by_type).actions == (
        Proposed(
            "volume_migrate", {"resource_id": "v1", "migration_type": "migrate", "destination_node": "d", "resource_name": "v1"}
        ),
    )


@pytest.mark.parametrize(
    ("one", "pools", "note"),
    [
        (volume("v", status="error"), {"dst_pool": "d"}, "it is error"),
        (volume("v", snapshots=2), {"dst_pool": "d"}, "it has 2 snapshots, and Cinder migrates none that has any"),
        (volume("v", size=16), {"dst_pool": "b"}, "pool b has too little room"),
        (volume("v"), {"dst_pool": "down"}, "pool down is enabled and down"),
        (volume("v"), {"dst_pool": "z"}, "the audit's scope has no pool z"),
        (volume("v"), {"dst_pool": "a"}, "it would go to where it is"),
        (volume("v"), {"dst_type": "tin"}, "there is no volume type tin"),
        (volume("v", status="in-use", servers=("l",)), {"dst_pool": "d"}, "server l (l), which uses it, is locked"),
        (volume("v", status="in-use", servers=("o",)), {"dst_pool": "d"}, "server o (o), which uses it, is SHUTOFF"),
    ],
)
def test_a_volume_that_stays_and_why(one: Volume, pools: dict[str, str], note: str) -> None:
    found = solved(one, server("l", locked=True), server("o", status="SHUTOFF"), storage_pools=[{"src_pool": "a", **pools}])
    assert found.actions == ()
    assert found.notes == (f"volume v stays in a: {note}",)


def test_a_pool_fills_up_and_a_thin_one_promises_more_than_it_has() -> None:
    volumes = [volume(f"v{i}") for i in range(2)]
    assert plan(*volumes, storage_pools=[{"src_pool": "a", "dst_pool": "b"}]) == "migrate v0>b"
    assert plan(*volumes, storage_pools=[{"src_pool": "a", "dst_pool": "c"}]) == "migrate v0>c, migrate v1>c"


def test_a_server_goes_right_after_the_last_of_its_volumes() -> None:
    things = (
        server("s1"),
        server("s2"),
        server("s3", "h2"),
        volume("v1", status="in-use", servers=("s2",)),
        volume("v2", status="in-use", servers=("s3",)),
        volume("v3", "c", status="in-use", servers=("s2",)),
        volume("v4", "b", status="in-use", servers=("s1",), snapshots=1),
    )
    given: dict[str, Any] = {
        "compute_nodes": FROM_H1,
        "storage_pools": [{"src_pool": pool, "dst_pool": "d"} for pool in ("a", "c", "b")],
    }
    volumes = "migrate v1>d, migrate v2>d, migrate v3>d"
    apart = solved(*things, **given)
    assert shown(apart) == f"{volumes}, live s1>?, live s2>?"
    assert [one.after for one in apart.actions] == [(), (), (), (), (0, 2)], "a server waits for its volumes all the same"
    along = solved(*things, with_attached_volume=True, **given)
    assert shown(along) == f"{volumes}, live s2>?, live s1>?"
    assert [one.after for one in along.actions] == [(), (), (), (0, 2), ()]


def test_a_server_whose_turn_does_not_come_waits_once() -> None:
    things = (server("s1"), volume("v1", status="in-use", servers=("s1",)), volume("v2"))
    pools = [{"src_pool": "a", "dst_pool": "d"}]
    found = solved(*things, compute_nodes=FROM_H1, storage_pools=pools, with_attached_volume=True, parallel_total=1)
    assert shown(found) == "migrate v1>d"
    assert found.notes == ("2 more have to wait for another run: the limits of one plan are reached",)


def test_what_is_foretold_and_what_it_came_to() -> None:
    things = (
        server("s1"),
        server("s2", status="SHUTOFF"),
        volume("v1"),
        volume("v2", status="in-use", servers=("s1",)),
    )
    asked: dict[str, Any] = {"compute_nodes": FROM_H1, "storage_pools": [{"src_pool": "a", "dst_pool": "d"}]}
    found = solved(*things, **asked)
    one_each = {
        f"{kind}{name}_count": 1
        for name in ("live_migrate_instance", "cold_migrate_instance", "volume_migrate", "volume_update")
        for kind in ("", "planned_")
    }
    assert found.indicators == one_each

    became = {"s1": "SUCCEEDED", "s2": "FAILED", "v1": "SKIPPED", "v2": "SUCCEEDED"}
    done = [Done(one.action_type, one.parameters, became[one.parameters["resource_id"]]) for one in found.actions]
    done.append(Done("nop", {}, "SUCCEEDED"))
    snapshot = cloud(*things)
    assert measure(snapshot, snapshot, {}, asked, done) == {
        **one_each,
        "cold_migrate_instance_count": 0,
        "volume_migrate_count": 0,
    }
    assert set(measure(snapshot, snapshot, {}, asked, []).values()) == {0}


@pytest.mark.parametrize(
    "given",
    [
        {"storage_pools": [{"src_pool": "a"}]},
        {"storage_pools": [{"src_pool": "a", "dst_pool": "b", "dst_type": "gold"}]},
        {"compute_nodes": [{"dst_node": "h2"}]},
        {"parallel_total": -1},
        {"priority": {"compute": ["vcpu_num"]}},
        {"hosts": []},
    ],
)
def test_parameters_that_watcher_refuses_are_refused(given: dict[str, Any]) -> None:
    assert not jsonschema.Draft7Validator(STRATEGY.schema).is_valid(given)
