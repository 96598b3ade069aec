"""Every strategy keeps the rules of vedette.testing.strategy_suite, and the rules notice who breaks them."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette import plugins
from vedette.model.advice import Metrics, Proposed, Query, Solution
from vedette.model.goals import BY_NAME
from vedette.model.snapshot import Host, Machine, Pool, Server, Snapshot, Volume, VolumeType
from vedette.ports import JsonObject, Strategy
from vedette.testing.strategy_suite import Case, answer, apply, case, faults, measured_after

STRATEGIES = plugins.strategies()
ACTIONS = plugins.actions()


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_it_keeps_the_rules(name: str, rng: random.Random) -> None:
    one = case(rng, STRATEGIES[name])
    assert faults(STRATEGIES[name], one, ACTIONS) == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_keeps_the_rules_on_clouds_that_are_always_the_same(name: str) -> None:
    for seed in range(300):
        one = case(random.Random(seed), STRATEGIES[name])
        assert faults(STRATEGIES[name], one, ACTIONS) == [], f"seed {seed}"


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_is_named_like_its_file_and_has_a_goal(name: str) -> None:
    strategy = STRATEGIES[name]
    assert strategy.name == name
    assert strategy.goal in BY_NAME
    assert strategy.doc.endswith(".")


def answers() -> str:
    """A digest of what all of them propose on clouds that are always the same."""
    digest = hashlib.sha256()
    for strategy in STRATEGIES.values():
        for seed in range(15):
            digest.update(msgspec.json.encode(str(answer(strategy, case(random.Random(seed), strategy)))))
    return digest.hexdigest()


def test_another_process_gives_the_same_answers() -> None:
    here = answers()
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, __file__], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == here


# --- the rules themselves --------------------------------------------------------------------------------------------------

A, B, C = (f"{i:08x}-0000-4000-8000-000000000003" for i in range(3))
V1 = "00000001-0000-4000-8000-000000000004"
SMALL = Snapshot(
    revision=1,
    hosts=(
        Host(uuid="h1", hostname="one", service_host="one", vcpus=8, memory=8192, disk=100, zone="east"),
        Host(uuid="h2", hostname="two", service_host="two", vcpus=2, memory=8192, disk=100, zone="east"),
        Host(uuid="h3", hostname="three", service_host="three", vcpus=8, memory=8192, disk=100, zone="west", status="disabled"),
        Host(uuid="h4", hostname="four", service_host="four", vcpus=8, memory=8192, disk=100, zone="west", state="down"),
    ),
    servers=(
        Server(uuid=A, host="one", vcpus=2, memory=1024, pinned_zone="east", flavor="m"),
        Server(uuid=B, host="one", vcpus=4, memory=1024, flavor="l"),
        Server(uuid=C, host="two", vcpus=1, memory=1024, locked=True, flavor="s"),
    ),
    pools=(
        Pool(name="p1", total=10, free=5, virtual_free=5),
        Pool(name="p2", total=10, free=5, virtual_free=5, backend_name="q"),
    ),
    volumes=(Volume(uuid=V1, pool="p1", size=5, status="in-use"), Volume(uuid="v2", pool="p1", size=9, status="available")),
    volume_types=(VolumeType(name="t", extra_specs={"volume_backend_name": "q"}),),
    machines=(Machine(uuid="m2", hostname="two", power_state="power on"), Machine(uuid="m4", hostname="four", maintenance=True)),
)


def moved(server: str, source: str, target: str | None = None, how: str = "live") -> Proposed:
    parameters = {"resource_id": server, "source_node": source, "migration_type": how}
    return Proposed("migrate", parameters if target is None else {**parameters, "destination_node": target})


def switched(host: str, state: str) -> Proposed:
    return Proposed("change_nova_service_state", {"resource_id": host, "state": state})


def volume(id_: str, **where: str) -> Proposed:
    return Proposed("volume_migrate", {"resource_id": id_, "migration_type": "migrate", **where})


def power(id_: str, state: str) -> Proposed:
    return Proposed("change_node_power_state", {"resource_id": id_, "state": state})


BREACHES: list[tuple[str, list[Proposed], str]] = [
    ("noisy_neighbor", [moved("nobody", "one", "two")], "no such server"),
    ("noisy_neighbor", [moved(C, "two", "one")], "the server is locked"),
    ("noisy_neighbor", [moved(A, "two", "one")], "the server is on 'one'"),
    ("noisy_neighbor", [moved(A, "one", "five")], "no such destination"),
    ("noisy_neighbor", [moved(A, "one", "one")], "it is there already"),
    ("noisy_neighbor", [moved(B, "one", "two")], "would hold 5 vcpus of 2.0"),
    ("noisy_neighbor", [moved(B, "one", "three")], "the destination is disabled and up"),
    ("noisy_neighbor", [moved(B, "one", "four")], "the destination is enabled and down"),
    ("noisy_neighbor", [switched("h3", "enabled"), moved(A, "one", "three")], "pinned to the zone east"),
    ("noisy_neighbor", [Proposed("stop", {"resource_id": A}), moved(A, "one", "two")], "SHUTOFF can't be migrated that way"),
    ("noisy_neighbor", [Proposed("resize", {"resource_id": C, "flavor": "m"})], "the server is locked"),
    ("noisy_neighbor", [switched("nothing", "enabled")], "no such host"),
    ("noisy_neighbor", [Proposed("nop", {"message": "x"}, after=(0,))], "only earlier ones"),
    ("noisy_neighbor", [volume("v9", destination_node="p2")], "no such volume"),
    ("noisy_neighbor", [volume("v2", destination_node="p2")], "the pool has 5 GiB free"),
    ("noisy_neighbor", [volume(V1, destination_node="p9")], "no such pool"),
    ("noisy_neighbor", [volume(V1, destination_type="z")], "no such volume type"),
    ("noisy_neighbor", [power("m2", "off")], "there are servers on it"),
    ("noisy_neighbor", [power("m4", "on")], "somebody is at work on it"),
    ("server_consolidation", [switched("h3", "enabled"), moved(B, "one", "three")], "on 2 hosts and are on 3"),
    ("server_consolidation", [], "it releases 9 hosts, and 2 are empty"),
    ("server_consolidation", [], "is no indicator of server_consolidation"),
    ("server_consolidation", [], "it counts 7 migrations of 0"),
    ("workload_balancing", [], "the deviation was 1.0 and is 2.0"),
    ("workload_balancing", [], "standard_deviation_before_audit is nan"),
    ("workload_balancing", [moved(B, "one", "three")], "the indicator instances_count is missing"),
]
CROOKED: dict[str, dict[str, float]] = {
    "it releases 9 hosts, and 2 are empty": {"released_compute_nodes_count": 9},
    "is no indicator of server_consolidation": {"happiness": 1},
    "it counts 7 migrations of 0": {"instance_migrations_count": 7},
    "the deviation was 1.0 and is 2.0": {"standard_deviation_before_audit": 1.0, "standard_deviation_after_audit": 2.0},
    "standard_deviation_before_audit is nan": {"standard_deviation_before_audit": float("nan")},
}


def fixed(goal: str, solution: Solution) -> Strategy:
    return Strategy(
        name="fixed", display_name="Fixed", goal=goal, doc="", propose=lambda snapshot, metrics, parameters, triggers: solution
    )


@pytest.mark.parametrize(("goal", "actions", "text"), BREACHES)
def test_a_rule_that_is_broken_is_named(goal: str, actions: list[Proposed], text: str) -> None:
    crooked = fixed(goal, Solution(actions=tuple(actions), indicators=CROOKED.get(text, {})))
    assert any(text in fault for fault in faults(crooked, Case(snapshot=SMALL), ACTIONS))


def test_a_plan_that_is_right_has_no_faults() -> None:
    plan = [switched("h3", "enabled"), moved(B, "one", "three"), moved(A, "one"), volume(V1, destination_node="p2")]
    assert faults(fixed("noisy_neighbor", Solution(actions=tuple(plan))), Case(snapshot=SMALL), ACTIONS) == []


def test_who_changes_what_he_was_given_or_answers_twice_is_named() -> None:
    def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Any) -> Solution:
        first = next(iter(parameters))
        parameters["seen"] = True
        return Solution(notes=(first, *["x"] * 100, "y" * 500))

    vain = Strategy(name="vain", display_name="", goal="dummy", doc="", propose=propose)
    found = " ".join(faults(vain, Case(snapshot=SMALL, parameters={"a": 1, "b": 2}), {}))
    for text in ("it changes what it was given", "two answers", "102 notes", "a note of 500 characters"):
        assert text in found


def test_deviation_as_it_would_turn_out_is_looked_at() -> None:
    def measure(before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Any) -> dict[str, float]:
        assert [one.state for one in done] == ["SUCCEEDED"]
        return {"standard_deviation_before_audit": 0.0, "standard_deviation_after_audit": after.server[A].host == "two"}

    strategy = msgspec.structs.replace(fixed("workload_balancing", Solution(actions=(moved(A, "one", "two"),))), measure=measure)
    assert any("as it would turn out" in one for one in faults(strategy, Case(snapshot=SMALL), ACTIONS))


# --- the simulation --------------------------------------------------------------------------------------------------------


def test_what_a_plan_leaves_behind() -> None:
    after = apply(
        SMALL,
        [
            switched("h3", "enabled"),
            moved(B, "one"),  # Nova takes the first with room: not two, which is too small
            moved(A, "two", "three"),  # it isn't there: nothing happens
            Proposed("stop", {"resource_id": A}),
            Proposed("resize", {"resource_id": A, "flavor": "s"}),
            switched("h1", "disabled"),
            volume(V1, destination_type="t"),
            power("m2", "off"),
        ],
    )
    assert {one.uuid: one.host for one in after.servers} == {A: "one", B: "three", C: "two"}
    assert (after.server[A].status, after.server[A].vcpus) == ("SHUTOFF", 1)
    assert {one.hostname: one.status for one in after.hosts if not one.usable} == {
        "one": "disabled",
        "two": "enabled",
        "four": "enabled",
    }
    assert [(one.pool, one.type) for one in after.volumes] == [("p2", "t"), ("p1", "")]
    assert [(one.free, one.allocated) for one in after.pools] == [(10, -5), (0, 5)]
    assert after.machines[0].power_state == "power off"
    assert SMALL.server[B].host == "one"


def test_loads_go_along_with_servers() -> None:
    cpu, hosts, ram, used = (
        Query("instance_cpu_usage"),
        Query("host_cpu_usage"),
        Query("host_ram_usage"),
        Query("instance_ram_usage"),
    )
    values: Metrics = {cpu: {A: 50.0}, hosts: {"one": 20.0, "two": 10.0}, used: {A: 60.0}, ram: {"one": 100.0}}
    later = measured_after(SMALL, apply(SMALL, [moved(A, "one", "two")]), values)
    # A uses one vCPU: an eighth of `one`, half of `two`. Of the memory of `two` nothing is known, before and after.
    assert later == {cpu: {A: 50.0}, hosts: {"one": 7.5, "two": 60.0}, used: {A: 60.0}, ram: {"one": 40.0}}


if __name__ == "__main__":
    print(answers())
