"""Every kind over everything that a real cloud was seen to send."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import corpus
import msgspec
import pytest
from kinds_fold import KINDS, Inventory, readings

from vedette.model.notice import Notice

JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def is_of(value: Any, declared: str) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return declared == "boolean"
    return isinstance(value, JSON_TYPES[declared])


@pytest.mark.parametrize("capture", corpus.CAPTURES)
def test_readings_hold_declared_fields_of_the_declared_type_in_the_declared_place(capture: str) -> None:
    seen = 0
    for notice in corpus.notices(capture):
        for reading in readings(notice):
            seen += 1
            kind = KINDS[reading.kind]
            for place, values in ((False, reading.fields), (True, reading.admin)):
                for name, value in values.items():
                    field = kind.fields.get(name)
                    assert field is not None, (notice.event_type, reading.kind, name)
                    assert field.admin is place, (notice.event_type, reading.kind, name)
                    assert is_of(value, field.type), (notice.event_type, reading.kind, name, value)
            for part in reading.parts:
                assert kind.fields[part.field].type == "array"
    assert seen > 50


@pytest.mark.parametrize("capture", corpus.CAPTURES)
def test_readings_are_plain_json_and_pure(capture: str) -> None:
    for notice in corpus.notices(capture):
        first, second = readings(notice), readings(notice)
        assert first == second
        for reading in first:
            assert json.loads(json.dumps(reading.fields)) == reading.fields
            assert json.loads(json.dumps(reading.admin)) == reading.admin
            assert msgspec.json.decode(msgspec.json.encode(reading), type=type(reading)) == reading
            assert reading.as_of == notice.sent_at


def deleted_in(notices: tuple[Notice, ...]) -> set[tuple[str, str]]:
    """What the notices say was deleted, by a reader of its own: plain json, the id wherever that service puts it."""
    gone = set()
    kinds = {
        "port": "Port",
        "network": "Network",
        "subnet": "Subnet",
        "router": "Router",
        "security_group": "SecurityGroup",
        "floatingip": "FloatingIP",
        "volume": "Volume",
        "snapshot": "Snapshot",
    }
    for notice in notices:
        payload = json.loads(bytes(notice.payload))
        inner = payload.get("nova_object.data", payload)
        head, _, tail = notice.event_type.partition(".")
        if tail == "delete.end" and head in kinds:
            gone.add((kinds[head], payload[f"{head}_id"]))
        match notice.event_type:
            case "compute.instance.delete.end":
                gone.add(("Server", payload["instance_id"]))
            case "instance.delete.end":
                gone.add(("Server", inner["uuid"]))
            case "octavia.loadbalancer.delete.end":
                gone.add(("LoadBalancer", payload["loadbalancer_id"]))
            case "orchestration.stack.delete.end":
                gone.add(("Stack", payload["stack_identity"]))
            case "image.delete":
                gone.add(("Image", payload["id"]))
            case "flavor.delete":
                gone.add(("Flavor", inner["flavorid"]))
            case "server_group.delete":
                gone.add(("ServerGroup", inner["uuid"]))
            case "servergroup.delete":
                gone.add(("ServerGroup", payload["server_group_id"]))
            case "identity.project.deleted":
                gone.add(("Project", payload["target"]["id"]))
            case "identity.user.deleted":
                gone.add(("User", payload["target"]["id"]))
            case "keypair.delete.end":
                gone.add(("Keypair", f"{inner['user_id']}:{inner.get('name', inner.get('key_name'))}"))
            case "aggregate.delete.end":
                gone.add(("Aggregate", str(inner.get("id", inner.get("aggregate_id")))))
    return gone


LEFT = {
    "core-1": {
        ("User", "dce55af2e01b4f69a1d1c62f3cc218fa"): {},
        ("ComputeService", "a8bb1da6-aeaf-4c38-a064-464d29681b05"): {"host": "fake-3", "status": "enabled"},
    },
    "core-2-errors": {},
    "full-1": {("ComputeService", "bbf4b1e3-55e6-4d11-bc09-41b5b57b5b18"): {"host": "fake-3", "status": "enabled"}},
    "octavia-heat-1": {},
}
"""What each run left behind: it cleaned up after itself, but for what it doesn't make or delete."""


@pytest.mark.parametrize("capture", corpus.CAPTURES)
def test_what_a_capture_deletes_is_gone_and_nothing_else_is(capture: str) -> None:
    notices = corpus.notices(capture)
    inventory = Inventory(notices)
    gone = deleted_in(notices)
    assert gone
    assert {at for at, state in inventory.objects.items() if state.deleted} == gone
    live = inventory.live()
    assert set(live) == set(LEFT[capture])
    for at, expected in LEFT[capture].items():
        assert expected.items() <= live[at].fields.items()


@pytest.mark.parametrize("capture", corpus.CAPTURES)
def test_nothing_is_added_twice_and_every_deleted_object_had_content(capture: str) -> None:
    inventory = Inventory(corpus.notices(capture))
    added = Counter((kind, id_) for _, kind, id_, verb in inventory.changes if verb == "ADDED")
    assert set(added.values()) == {1}
    removed = Counter((kind, id_) for _, kind, id_, verb in inventory.changes if verb == "DELETED")
    assert set(removed.values()) == {1}
    for at in removed:
        if at[0] not in ("Project", "User"):  # Keystone tells ids only
            assert inventory.objects[at].fields, at


def test_every_object_of_a_project_is_that_projects() -> None:
    for capture in corpus.CAPTURES:
        for (kind, _), state in Inventory(corpus.notices(capture)).objects.items():
            fields = state.fields
            said = next(
                (
                    fields[name]
                    for name in ("project_id", "tenant_id", "os-vol-tenant-attr:tenant_id", "owner", "project")
                    if fields.get(name)
                ),
                None,
            )
            if said is not None:
                assert state.project == said, kind


def test_the_second_format_of_a_fact_changes_only_what_the_first_does_not_know() -> None:
    only_versioned = {
        "OS-EXT-STS:power_state",
        "OS-DCF:diskConfig",
        "OS-EXT-SRV-ATTR:instance_name",
        "key_name",
        "locked",
        "locked_reason",
        "description",
        "tags",
        "trusted_image_certificates",
        "os-extended-volumes:volumes_attached",
        # `compute.instance.update` carries no addresses, and there is no unversioned interface_attach or _detach.
        "addresses",
    }
    told = changed = unavoidable = 0
    for capture in corpus.CAPTURES:
        inventory = Inventory()
        for notice in corpus.notices(capture):
            if not notice.event_type.startswith(("instance.", "compute.instance.", "compute_task.")):
                continue
            before = {at: state for at, state in inventory.objects.items() if at[0] == "Server"}
            changes = len(inventory.changes)
            inventory.tell(notice)
            if not (notice.event_type.startswith("instance.") or notice.event_type.startswith("compute_task.")):
                continue
            if notice.event_type == "compute_task.build_instances":
                continue
            told += len(readings(notice))
            for _, kind, id_, _verb in inventory.changes[changes:]:
                changed += 1
                old, new = before[kind, id_], inventory.objects[kind, id_]
                differ = {
                    name
                    for was, now in ((old.fields, new.fields), (old.admin, new.admin))
                    for name in was | now
                    if was.get(name, ...) != now.get(name, ...)
                }
                assert differ <= only_versioned, (notice.event_type, differ)
                unavoidable += 1
    assert told > 500
    assert changed == unavoidable
    print(f"{told} versioned readings, {changed} of them changed something that only they know")


def test_the_two_formats_agree_on_every_field_that_both_have() -> None:
    """Pair by pair: the unversioned event and the versioned one that follows it."""
    pairs = 0
    for capture in corpus.CAPTURES:
        waiting: dict[tuple[str, str], Any] = {}
        for notice in corpus.notices(capture):
            event = notice.event_type
            for reading in readings(notice):
                if reading.kind != "Server":
                    continue
                if event == "compute.instance.update":
                    waiting[reading.id, event] = (notice, reading)
                elif event == "instance.update" and (reading.id, "compute.instance.update") in waiting:
                    earlier, first = waiting.pop((reading.id, "compute.instance.update"))
                    if reading.as_of - earlier.sent_at > 300_000:
                        continue
                    pairs += 1
                    for name in first.fields.keys() & reading.fields.keys():
                        assert first.fields[name] == reading.fields[name], name
                    for name in first.admin.keys() & reading.admin.keys():
                        assert first.admin[name] == reading.admin[name], name
    assert pairs > 300


def test_no_secret_of_a_capture_is_in_a_reading() -> None:
    planted = 0
    for notice in corpus.every():
        planted += b"recorded-token-" in bytes(notice.payload) or b"connector" in bytes(notice.payload)
        for reading in readings(notice):
            text = msgspec.json.encode(reading)
            for word in (b"recorded-token-", b"connection_info", b"connector", b"auth_token", b"PRIVATE KEY", b"service_catalog"):
                assert word not in text, (notice.event_type, word)
    assert planted > 0, "the captures hold such things: else this test shows nothing"
