"""Which machines are switched: counted spares, golden choices."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.model.advice import Proposed, Solution
from vedette.model.snapshot import Host, Machine, Server, Snapshot
from vedette.strategies.saving_energy import STRATEGY, propose
from vedette.testing.strategy_suite import with_defaults


def machine(name: str, power: str = "power on", **more: Any) -> Machine:
    return Machine(uuid=f"m-{name}", name=name, hostname=name, power_state=power, **more)


def found(
    machines: str | list[Machine], servers: list[Server] | None = None, disabled: str = "", down: str = "", **given: Any
) -> Solution:
    """`machines`: names; capitals are on, small ones off, those with a + hold a server."""
    on: list[Server] = list(servers or [])
    if isinstance(machines, str):
        every = machines.split()
        on += [Server(uuid=f"s-{one}", host=one[0]) for one in every if one.endswith("+")]
        machines = [machine(one[0], "power on" if one[0].isupper() else "power off") for one in every]
    hosts = tuple(
        Host(
            uuid=f"h-{one.hostname}",
            hostname=one.hostname,
            status="disabled" if one.hostname in disabled.split() else "enabled",
            state="down" if one.power_state == "power off" or one.hostname in down.split() else "up",
        )
        for one in machines
        if one.hostname != "elsewhere"
    )
    snapshot = Snapshot(revision=1, hosts=hosts, servers=tuple(on), machines=tuple(machines))
    return propose(snapshot, {}, with_defaults(STRATEGY, given), ())


def switched(solution: Solution) -> str:
    return " ".join(f"{one.parameters['resource_name']}:{one.parameters['state']}" for one in solution.actions)


@pytest.mark.parametrize(
    ("machines", "given", "actions"),
    [
        ("A+ B C D", {}, "B:off C:off"),
        ("A+ B c d", {}, ""),
        ("A+ b c", {}, "b:on"),
        ("A+ b c", {"min_free_hosts_num": 2}, "b:on c:on"),
        ("A+ B c", {"min_free_hosts_num": 0}, "B:off"),
        ("A+ B c", {"min_free_hosts_num": -3, "free_used_percent": -10}, "B:off"),
        # 10 % of 9 is less than one, 30 % of 9 are two.
        ("A+ B+ C+ D+ E+ F+ G+ H+ I+ J K L", {"free_used_percent": 10}, "J:off K:off"),
        ("A+ B+ C+ D+ E+ F+ G+ H+ I+ J K L", {"free_used_percent": 30}, "J:off"),
        ("A+ B+ C+ D+ E+ F+ G+ H+ I+ J k l", {"free_used_percent": 30}, "k:on"),
        ("A B C", {}, "A:off B:off"),
        ("", {}, ""),
    ],
)
def test_spares(machines: str, given: dict[str, Any], actions: str) -> None:
    assert switched(found(machines, **given)) == actions


def test_what_a_switch_says() -> None:
    assert found("A B").actions == (
        Proposed("change_node_power_state", {"resource_id": "m-A", "resource_name": "A", "state": "off"}),
    )


def test_disabled_hosts_go_first_and_come_last() -> None:
    assert switched(found("A B C", disabled="B")) == "B:off A:off"
    assert switched(found("A+ b c", disabled="b")) == "c:on"


def test_a_server_of_any_kind_keeps_its_machine_on() -> None:
    for one in (Server(uuid="s", host="A", status="SHUTOFF"), Server(uuid="s", host="A", excluded=True)):
        assert switched(found("A B", servers=[one], min_free_hosts_num=0)) == "B:off"


def test_machines_that_nobody_should_touch() -> None:
    solution = found(
        [
            machine("kept", maintenance=True),
            machine("odd", "error"),
            machine("mute", ""),
            machine("dead"),
            machine("elsewhere"),
            machine("spare"),
        ],
        down="dead",
        min_free_hosts_num=0,
    )
    assert switched(solution) == "spare:off"
    assert solution.notes == (
        "machine kept (m-kept) is in maintenance: it is left as it is",
        "machine odd (m-odd) says error of its power: it is left as it is",
        "machine mute (m-mute) says nothing of its power: it is left as it is",
        "machine dead (m-dead) is on, but its host is down: it counts as no spare",
    )


def test_too_few_machines_are_told() -> None:
    solution = found("A+ B c", min_free_hosts_num=5)
    assert switched(solution) == "c:on"
    assert solution.notes == ("5 spare hosts are wanted, and 3 of them are not to be had: no more machines are off",)
