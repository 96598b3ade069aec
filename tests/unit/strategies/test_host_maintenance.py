"""How a host is emptied: golden plans on one small cloud."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vedette.errors import BadRequest
from vedette.model.advice import Proposed, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.strategies.host_maintenance import STRATEGY, propose
from vedette.testing.strategy_suite import apply, with_defaults


def host(name: str, **more: Any) -> Host:
    return Host(**{"uuid": f"id-{name}", "hostname": name, "service_host": name, "vcpus": 8, "memory": 8192, "disk": 100, **more})


def server(name: str, on: str = "one", **more: Any) -> Server:
    return Server(**{"uuid": f"id-{name}", "name": name, "host": on, "vcpus": 2, "memory": 1024, "disk": 10, **more})


HOSTS = (
    host("one", zone="east"),
    host("two", zone="east"),
    host("small", vcpus=4, zone="east"),
    host("off", status="disabled", zone="east"),
    host("dead", state="down"),
    host("west", zone="west"),
)
RUNNING = (server("a"), server("b", status="PAUSED"), server("c", status="SHUTOFF"), server("x", "two"))


def plan(servers: tuple[Server, ...], hosts: tuple[Host, ...] = HOSTS, **given: Any) -> tuple[list[str], list[str]]:
    """Actions in short, and notes."""
    asked = with_defaults(STRATEGY, {"maintenance_node": "one", **given})
    found = propose(Snapshot(revision=1, hosts=hosts, servers=servers), {}, asked, ())
    return [short(one) for one in found.actions], list(found.notes)


def short(one: Proposed) -> str:
    given = one.parameters
    match one.action_type:
        case "migrate":
            assert given["resource_name"] == given["resource_id"].removeprefix("id-")
            assert given["source_node"] == "one"
            return f"{given['migration_type']} {given['resource_name']} {given.get('destination_node', '?')}"
        case "change_nova_service_state":
            assert given["resource_id"] == f"id-{given['resource_name']}"
            return f"{given['state']} {given['resource_name']} {given.get('disabled_reason', '')}".strip()
    return f"{one.action_type} {given['resource_id']}"


DISABLE = "disabled one watcher_maintaining"


@pytest.mark.parametrize(
    ("given", "actions"),
    [
        ({}, [DISABLE, "live a ?", "live b ?", "cold c ?"]),
        ({"backup_node": "two"}, [DISABLE, "live a two", "live b two", "cold c two"]),
        ({"backup_node": "off"}, ["enabled off", DISABLE, "live a off", "live b off", "cold c off"]),
        ({"backup_node": "small"}, [DISABLE, "live a ?", "live b ?", "cold c ?"]),
        ({"backup_node": "dead"}, [DISABLE, "live a ?", "live b ?", "cold c ?"]),
        ({"disable_live_migration": True}, [DISABLE, "cold a ?", "cold c ?"]),
        ({"disable_cold_migration": True}, [DISABLE, "live a ?", "live b ?"]),
        ({"disable_live_migration": True, "disable_cold_migration": True, "backup_node": "off"}, [DISABLE, "stop id-a"]),
    ],
)
def test_how_servers_leave(given: dict[str, Any], actions: list[str]) -> None:
    assert plan(RUNNING, **given)[0] == actions


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"backup_node": "small"}, "backup host small has too little vCPUs for all 3 servers"),
        ({"backup_node": "dead"}, "backup host dead is down"),
        ({"disable_live_migration": True}, "server b (id-b) is PAUSED and could only be migrated live"),
        ({"disable_cold_migration": True}, "server c (id-c) is SHUTOFF and could only be migrated cold"),
    ],
)
def test_what_is_not_as_asked_is_told(given: dict[str, Any], note: str) -> None:
    notes = plan(RUNNING, **given)[1]
    assert any(note in one for one in notes)


def test_who_cannot_leave_is_told_and_the_others_leave() -> None:
    servers = (
        server("a"),
        server("b", locked=True),
        server("c", excluded=True),
        server("d", task_state="rebuilding"),
        server("e", status="ERROR"),
    )
    actions, notes = plan(servers)
    assert actions == [DISABLE, "live a ?"]
    assert notes == [
        "host one won't be empty: 4 of 5 servers stay on it",
        "server b (id-b) is locked: it stays",
        "server c (id-c) is left out by the audit's scope: it stays",
        "server d (id-d) is busy (rebuilding): it stays",
        "server e (id-e) is ERROR, and Nova migrates none in that state: it stays",
    ]


def test_who_stays_takes_no_room_on_the_backup() -> None:
    servers = (server("a"), server("b"), server("c", locked=True))
    assert plan(servers, backup_node="small")[0] == [DISABLE, "live a small", "live b small"]


def test_what_is_on_the_backup_already_counts_also_when_it_is_left_out() -> None:
    servers = (server("a"), server("b"), server("x", "small", excluded=True))
    assert plan(servers, backup_node="small")[0] == [DISABLE, "live a ?", "live b ?"]


def test_a_pinned_server_does_not_leave_its_zone() -> None:
    actions, notes = plan((server("a", pinned_zone="east"),), backup_node="west")
    assert actions == [DISABLE, "live a ?"]
    assert "backup host west is in zone west, and server a (id-a) has to stay in east" in notes[0]


def test_nobody_leaves_a_host_that_is_down() -> None:
    actions, notes = plan((server("a"),), hosts=(host("one", state="down"), host("two")))
    assert actions == [DISABLE]
    assert notes[1] == "server a (id-a) can't be moved while the host is down: it stays"


@pytest.mark.parametrize(
    ("status", "reason", "servers", "actions"),
    [
        ("enabled", "", (), [DISABLE]),
        ("disabled", "watcher_maintaining", (), []),
        ("disabled", "watcher_maintaining", (server("a"),), ["live a ?"]),
        ("disabled", "watcher_disabled", (), [DISABLE]),
        # What is left of an earlier maintenance: the host is in use.
        ("enabled", "watcher_maintaining", (), [DISABLE]),
    ],
)
def test_a_host_is_disabled_once(status: str, reason: str, servers: tuple[Server, ...], actions: list[str]) -> None:
    hosts = (host("one", status=status, disabled_reason=reason), host("two"))
    assert plan(servers, hosts=hosts)[0] == actions


def test_a_second_time_there_is_nothing_to_do() -> None:
    before = Snapshot(revision=1, hosts=HOSTS, servers=RUNNING)
    asked = with_defaults(STRATEGY, {"maintenance_node": "one", "backup_node": "two"})
    after = apply(before, propose(before, {}, asked, ()).actions)
    assert after.servers_on["one"] == []
    assert propose(after, {}, asked, ()).actions == ()


def test_the_host_that_a_trigger_speaks_of() -> None:
    snapshot = Snapshot(revision=1, hosts=HOSTS, servers=(server("a"),))
    asked = with_defaults(STRATEGY, {"maintenance_node": "$trigger"})
    for named in ("one", "id-one"):
        triggers = (Trigger(at=1, objects=("id-a",)), Trigger(at=2, objects=("nobody", named, "two")))
        assert [short(one) for one in propose(snapshot, {}, asked, triggers).actions] == [DISABLE, "live a ?"]
    with pytest.raises(BadRequest, match="none of the triggers names a host"):
        propose(snapshot, {}, asked, (Trigger(at=1, objects=("nobody",)),))
    with pytest.raises(BadRequest, match="nothing triggered this run"):
        propose(snapshot, {}, asked, ())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"maintenance_node": "ghost"}, "maintenance_node: the audit's scope has no host 'ghost'"),
        ({"backup_node": "ghost"}, "backup_node: the audit's scope has no host 'ghost'"),
        ({"backup_node": "one"}, "the host that is maintained"),
    ],
)
def test_hosts_that_do_not_fit_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        plan(RUNNING, **given)


def test_a_host_may_be_named_by_its_nova_compute() -> None:
    hosts = (host("one", service_host="one.example"), host("two"))
    asked = with_defaults(STRATEGY, {"maintenance_node": "one.example"})
    assert [short(one) for one in propose(Snapshot(revision=1, hosts=hosts), {}, asked, ()).actions] == [DISABLE]


def test_notes_end() -> None:
    many = tuple(msgspec.structs.replace(server("a", locked=True), uuid=str(i)) for i in range(300))
    notes = plan(many)[1]
    assert len(notes) == 100
    assert notes[-1] == "and 202 more like these"
