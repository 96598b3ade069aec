"""Which volumes leave pools that are too full: small clouds whose answer can be told by hand."""

from __future__ import annotations

from typing import Any

import pytest
from small_clouds import host, server

from vedette.model.advice import Solution
from vedette.model.snapshot import Pool, Server, Snapshot, Volume, VolumeType
from vedette.ports import Done
from vedette.strategies.storage_capacity_balance import STRATEGY, measure, propose
from vedette.testing.strategy_suite import with_defaults


def pool(name: str, used: float, total: float = 1000, **more: Any) -> Pool:
    return Pool(
        name=name, total=total, free=total - used, allocated=used, **{"oversubscription": 20.0, "backend_name": name, **more}
    )


def volume(name: str, size: int, pool: str = "a", **more: Any) -> Volume:
    return Volume(uuid=name, name=name, pool=pool, size=size, **{"status": "available", **more})


A_B_C = [pool("a", 900), pool("b", 300), pool("c", 100)]
TYPES = [
    *(VolumeType(name=f"gold-{name}", extra_specs={"volume_backend_name": name, "tier": "gold"}) for name in "abc"),
    VolumeType(name="plain-c", extra_specs={"volume_backend_name": "c"}),
    VolumeType(name="any", extra_specs={}),
]


def of(volumes: list[Volume], pools: list[Pool] = A_B_C, servers: list[Server] | None = None, **given: Any) -> Solution:
    snapshot = Snapshot(
        revision=1, hosts=(host("h"),), servers=tuple(servers or ()), pools=tuple(pools), volumes=tuple(volumes),
        volume_types=tuple(TYPES),
    )  # fmt: skip
    return propose(snapshot, {}, with_defaults(STRATEGY, given), ())


def moves(solution: Solution) -> list[str]:
    return [
        f"{one.parameters['resource_id']}>{one.parameters.get('destination_node') or one.parameters['destination_type']}"
        for one in solution.actions
    ]


def test_the_smallest_that_is_enough_goes_to_the_emptiest_pool() -> None:
    """900 of 1,000 GiB: more than 100 have to go."""
    solution = of([volume("small", 50), volume("exact", 100), volume("enough", 120), volume("large", 400)])
    assert moves(solution) == ["enough>c"]
    assert solution.actions[0].action_type == "volume_migrate"
    assert solution.actions[0].parameters == {
        "resource_id": "enough",
        "resource_name": "enough",
        "migration_type": "migrate",
        "destination_node": "c",
    }
    assert solution.indicators["instance_migrations_count"] == 1
    assert solution.indicators["instances_count"] == 4
    assert solution.indicators["standard_deviation_before_audit"] > solution.indicators["standard_deviation_after_audit"]


def test_if_none_is_enough_the_largest_go_until_it_is() -> None:
    assert moves(of([volume("s1", 30), volume("s2", 60), volume("s3", 50)])) == ["s2>c", "s3>c"]
    solution = of([volume("s1", 30)])
    assert (moves(solution), solution.notes) == (["s1>c"], ("pool a stays too full: 87 %",))


def test_what_nobody_uses_goes_before_what_is_in_use_and_boot_volumes_last() -> None:
    used = {"status": "in-use", "servers": ("vm",)}
    volumes = [volume("boot", 110, bootable=True, **used), volume("data", 60, **used), volume("idle", 50)]
    assert moves(of(volumes, servers=[server("vm", "h")])) == ["idle>c", "data>c"]
    assert moves(of(volumes[:1], servers=[server("vm", "h")])) == ["boot>c"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"status": "error"}, "it is error"),
        ({"snapshots": 2}, "it has 2 snapshots, and Cinder migrates none that has any"),
        ({"status": "in-use", "servers": ("vm",)}, "server vm (vm), which uses it, is SHUTOFF"),
    ],
)
def test_who_stays(more: dict[str, Any], why: str) -> None:
    solution = of([volume("stays", 120, **more), volume("goes", 130)], servers=[server("vm", "h", status="SHUTOFF")])
    assert (moves(solution), solution.notes) == (["goes>c"], (f"volume stays stays in a: {why}",))


@pytest.mark.parametrize(
    ("type_", "wanted"), [("", "v>c"), ("any", "v>c"), ("gold-c", "v>c"), ("gold-a", "v>gold-c"), ("unknown", "v>c")]
)
def test_a_volume_is_migrated_if_its_type_allows_it_and_gets_another_else(type_: str, wanted: str) -> None:
    """`plain-c` is of that back end too, and asks for something else."""
    solution = of([volume("v", 120, type=type_)])
    assert moves(solution) == [wanted]
    assert solution.actions[0].parameters["migration_type"] == ("retype" if "gold-c" in wanted else "migrate")


def test_where_no_type_fits_it_stays() -> None:
    pools = [pool("a", 900), pool("d", 100)]
    solution = of([volume("v", 120, type="gold-a")], pools)
    assert (moves(solution), solution.notes[0]) == ([], "volume v stays in a: no pool of its kind has room for it")


@pytest.mark.parametrize(
    "target",
    [
        pool("b", 700),
        pool("b", 100, status="disabled"),
        pool("b", 100, state="down"),
        pool("b", 100, zone="west"),
        pool("b", 100, oversubscription=0.2),
        pool("b", 0, total=0),
        pool("b", 10, total=140),
    ],
)
def test_what_is_no_target(target: Pool) -> None:
    """Too full afterwards, off, elsewhere, promised, unknown, or so small that pools would be less even."""
    assert moves(of([volume("v", 120)], [pool("a", 900, zone="east"), target])) == []


def test_the_threshold_itself_is_too_full() -> None:
    for threshold, wanted in ((90.0, ["v>c"]), (90.1, [])):
        assert moves(of([volume("v", 10)], volume_threshold=threshold)) == wanted
    assert moves(of([], [])) == []


def test_the_fullest_pool_goes_first_and_what_was_given_counts() -> None:
    pools = [pool("a", 850), pool("b", 950), pool("c", 600)]
    volumes = [volume("va", 100), volume("vb", 160, "b")]
    assert moves(of(volumes, pools)) == ["vb>c"], "then c has 760 of 1,000: va would make it too full"


def test_it_is_measured_afterwards() -> None:
    snapshot = Snapshot(revision=1, pools=(pool("a", 600), pool("b", 400)), volumes=(volume("v", 10),))
    done = [Done("volume_migrate", {}, "SUCCEEDED"), Done("volume_migrate", {}, "FAILED")]
    assert measure(snapshot, snapshot, {}, with_defaults(STRATEGY, {}), done) == pytest.approx(
        {"instance_migrations_count": 1, "instances_count": 1, "standard_deviation_after_audit": 0.1}
    )
