"""What is Cinder's, Glance's, Heat's and Keystone's own in reading their APIs. What holds for every kind, on the same recording:
test_kinds_api_compute."""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import notice, notices
from kinds_fold import KINDS, Inventory, readings
from recorded_cloud import RecordedCloud
from recorded_life import (
    RECORDING,
    Lenient,
    Recorded,
    again,
    answer,
    api,
    by_id,
    cloud,
    ended,
    everything,
    folded,
    listed,
    lists,
    named,
    recording,
    run,
    told,
)

from vedette.errors import BadRequest, Forbidden, NotFound
from vedette.model.reading import Reading

NOTHING = "00000000-0000-4000-8000-000000000000"


def waits(kind: str, status: dict[str, Any]) -> bool:
    found = api(kind).transient
    assert found is not None
    assert set(status) <= set(api(kind).transient_fields)
    return found(status)


# --- Cinder ------------------------------------------------------------------------------------------------------------------


def volume_line() -> dict[str, Any]:
    (line,) = lists("Volume")
    return line


def test_volumes_are_there_in_many_states() -> None:
    states = {str(one.fields["status"]) for moment in ("there", "changed") for one in listed("Volume", moment)}
    assert states == {"available", "in-use", "error", "error_extending", "awaiting-transfer"}


def test_an_attached_volume_names_its_server_and_not_the_host() -> None:
    (attached,) = named(listed("Volume"), "-volume a").fields["attachments"]
    server = named(listed("Server"), "-volumes")
    assert attached["server_id"] == server.id
    assert attached.keys() == {"id", "volume_id", "attachment_id", "server_id", "device", "attached_at"}
    assert attached["attached_at"].endswith("Z")
    assert "host_name" in json.dumps(volume_line()["body"])


def test_attachments_stand_in_one_order() -> None:
    item = next(one for one in volume_line()["body"]["volumes"] if one["attachments"])
    (first,) = item["attachments"]
    two = [first | {"attachment_id": "b"}, first | {"attachment_id": "a", "attached_at": None}]
    (shown,) = run(everything("Volume", RecordedCloud([again(volume_line(), volumes=[item | {"attachments": two}])])))
    assert [(one["attachment_id"], one["attached_at"] is None) for one in shown.fields["attachments"]] == [
        ("a", True),
        ("b", False),
    ]
    rows = [{"id": id_, "instance_uuid": "s", "attach_status": "attached"} for id_ in ("b", "a")]
    inventory = Inventory([notice("volume.attach.end", {"volume_id": "v", "volume_attachment": rows})])
    assert [one["attachment_id"] for one in inventory.fields("Volume", "v")["attachments"]] == ["a", "b"]


def test_what_cinder_adds_to_the_metadata_is_left_out() -> None:
    item = next(one for one in volume_line()["body"]["volumes"] if one["name"].endswith("-volume b"))
    (changed,) = [
        one
        for line in recording()
        if line["moment"] == "changed" and line["account"] == "admin" and "volumes" in line["body"] and line["params"]
        for one in line["body"]["volumes"]
        if one["id"] == item["id"] and "id" not in dict(line["params"])
    ]
    assert changed["metadata"] == {"readonly": "True"}
    assert named(listed("Volume", "changed"), "-volume b").fields["metadata"] == {}
    assert named(listed("Volume", "changed"), "-freed").fields["metadata"] == {"k": "w"}
    said = {"volume_id": "v", "metadata": [{"key": "k", "value": "v"}, {"key": "readonly", "value": "True"}]}
    assert Inventory([notice("volume.update.end", said)]).fields("Volume", "v")["metadata"] == {"k": "v"}


def test_a_transfer_is_told_with_the_status_from_before_it() -> None:
    told_of = {
        item.event_type: json.loads(bytes(item.payload))["status"] for item in notices(RECORDING) if "transfer" in item.event_type
    }
    assert told_of["volume.transfer.create.end"] == "available"
    assert told_of["volume.transfer.delete.end"] == "awaiting-transfer"
    assert named(listed("Volume", "changed"), "-from snapshot").fields["status"] == "awaiting-transfer"
    shown = {ending: named(listed("Volume", "changed"), ending) for ending in ("-from snapshot", "-kept", "-given")}
    for one in shown.values():
        assert told("changed").fields("Volume", one.id)["status"] == one.fields["status"]
    given, before = shown["-given"], named(listed("Volume"), "-given")
    assert given.id == before.id
    assert given.project != before.project
    assert told("changed").objects["Volume", given.id].project == given.project


def test_an_older_cinder_names_the_type_and_its_id_is_looked_up_once() -> None:
    line = volume_line()
    whole = line["body"]["volumes"]
    old = [{name: value for name, value in item.items() if name != "volume_type_id"} for item in whole]
    bare = {**old[0], "id": "bare", "volume_type": None}
    unknown = {**old[0], "id": "unknown", "volume_type": "deleted meanwhile"}
    types = answer(
        "block-storage",
        "/types",
        {"volume_types": [{"name": whole[0]["volume_type"], "id": whole[0]["volume_type_id"]}, {"name": "other", "id": 7}]},
        params=(("is_public", "None"),),
        microversion="3.63",
    )
    of = Recorded([again(line, volumes=[*old, bare, unknown]), types])
    shown = by_id(run(everything("Volume", of)))
    assert {id_: shown[id_].fields for id_ in by_id(listed("Volume"))} == {one.id: one.fields for one in listed("Volume")}
    assert shown["bare"].fields["volume_type_id"] is None
    assert "volume_type_id" not in shown["unknown"].fields
    assert [path for _, path, _, _ in of.asked] == ["/volumes/detail", "/types"]
    alone = answer("block-storage", "/volumes/v", {"volume": old[0]}, microversion="3.63")
    (one,) = run(api("Volume").get(Recorded([alone, types]), "v"))
    assert one.fields == shown[one.id].fields


def test_whom_cinder_takes_no_filter_from_gets_no_answer() -> None:
    class Refuses(RecordedCloud):
        async def pages(self, service: str, path: str, key: str, params: Any = (), *, microversion: str = "") -> Any:
            self.asked.append((service, path, tuple(params), microversion))
            raise BadRequest("Invalid filters id are found in query options.")
            yield

    some = api("Volume").some
    assert some is not None
    of = Refuses([])
    assert run(some(of, ["a-1", "b"])) == ()
    assert dict(of.asked[0][2]) == {"all_tenants": "1", "id": "['a-1', 'b']"}
    assert run(some(of, [])) == ()
    assert run(some(of, ["x', 'y", "a,b"])) == ()
    assert len(of.asked) == 1, "an id that is none leads nowhere"


@pytest.mark.parametrize("kind", ["Volume", "Snapshot"])
@pytest.mark.parametrize(
    ("moves", "status"),
    [
        *(
            (True, one)
            for one in ("creating", "deleting", "attaching", "extending", "backing-up", "restoring-backup", "reserved")
        ),
        *((False, one) for one in ("available", "in-use", "error", "error_deleting", "error_extending", "awaiting-transfer")),
        (False, None),
    ],
)
def test_what_cinder_is_at_work_on_will_move(kind: str, moves: bool, status: str | None) -> None:
    assert waits(kind, {"status": status}) is moves
    assert not waits(kind, {})


# --- Glance ------------------------------------------------------------------------------------------------------------------


def test_hidden_images_and_other_projects_are_listed() -> None:
    of = cloud()
    found = run(everything("Image", of))
    assert [dict(params) for _, _, params, _ in of.asked] == [
        {"visibility": "all"},
        {"visibility": "all", "os_hidden": "true"},
    ]
    assert [one.fields["name"][-7:] for one in found if one.fields["os_hidden"]] == ["-hidden"]
    mine = run(cloud(account="demo").account()).project_id
    assert {one.fields["visibility"] for one in found if one.project != mine} >= {"public", "community", "private", "shared"}
    seen = {one.fields["visibility"]: one.shared for one in found}
    assert seen == {"public": True, "community": True, "private": False, "shared": False}
    assert len({one.id for one in found}) == len(found)


def test_what_stands_beside_the_fields_is_a_property() -> None:
    shown = named(listed("Image"), "-image")
    assert shown.fields["properties"] == {"hw_disk_bus": "scsi", "owner_specified.x": ""}
    assert shown.fields["tags"] == ["alpha", "zeta"]
    assert named(listed("Image", "changed"), "-image").fields["properties"]["foo"] == "bar"
    assert named(listed("Image", "changed"), "-image").fields["tags"] == ["a", "b", "c"]


def test_glance_s_own_properties_are_none() -> None:
    said = [
        json.loads(bytes(item.payload)).get("properties", {})
        for item in notices(RECORDING)
        if item.event_type.startswith("image.")
    ]
    assert any(name.startswith("os_glance_") for properties in said for name in properties)
    assert named(listed("Image"), "-imported").fields["properties"] == {}
    assert told().fields("Image", named(listed("Image"), "-imported").id)["properties"] == {}


def test_some_images_are_asked_for_by_plain_ids_only() -> None:
    some = api("Image").some
    assert some is not None
    assert run(some(RecordedCloud([]), ["a,b", "x:y", ""])) == ()


@pytest.mark.parametrize(
    ("moves", "status"),
    [(True, "saving"), (True, "importing"), (True, "uploading"), (False, "queued"), (False, "active"), (False, "killed")],
)
def test_an_image_waits_for_its_content(moves: bool, status: str) -> None:
    assert waits("Image", {"status": status}) is moves
    assert not waits("Image", {})


# --- Heat --------------------------------------------------------------------------------------------------------------------


def stack_line() -> dict[str, Any]:
    (line,) = lists("Stack")
    return line


def stacks(*items: dict[str, Any], sees: tuple[dict[str, Any], ...] = (), **params: str) -> RecordedCloud:
    """A Heat that shows these when it is asked for one of the id `s`; `sees`: the first of its list, deleted ones too."""
    every = (("show_nested", "true"), ("show_hidden", "true"), ("show_deleted", "true"))
    return RecordedCloud(
        [
            answer("orchestration", "/stacks", {"stacks": list(items)}, params=(*every, ("id", "s"))),
            answer("orchestration", "/stacks", {"stacks": list(sees)}, params=(*every, ("limit", "1"))),
        ]
    )


def test_stacks_are_there_in_many_states_and_nested_ones_too() -> None:
    found = listed("Stack", "changed")
    assert {one.fields["stack_status"] for one in found} == {
        "SUSPEND_COMPLETE", "CHECK_COMPLETE", "CREATE_FAILED", "UPDATE_COMPLETE",
    }  # fmt: skip
    assert any("-nested-many-" in one.fields["stack_name"] for one in found)
    assert named(listed("Stack"), "-plain").fields["tags"] == ["alpha", "zeta"]
    assert {json.dumps(one.fields["tags"]) for one in found} == {"[]", '["alpha", "zeta"]'}, "null and [] are one"


def test_heat_s_list_has_no_descriptions() -> None:
    assert {item["description"] for item in stack_line()["body"]["stacks"]} == {""}
    assert all("description" not in one.fields for one in listed("Stack"))
    plain = named(listed("Stack"), "-plain")
    assert told().fields("Stack", plain.id)["description"] == "of plain"


def test_when_a_stack_was_suspended_is_not_when_it_was_updated() -> None:
    plain = named(listed("Stack", "changed"), "-plain")
    assert plain.fields["stack_status"] == "SUSPEND_COMPLETE"
    said = [
        json.loads(bytes(item.payload))["updated_at"]
        for item in notices(RECORDING)
        if item.event_type == "orchestration.stack.suspend.end"
    ]
    assert said
    assert all(said)
    assert plain.fields["updated_time"] is None
    assert told("changed").fields("Stack", plain.id)["updated_time"] is None
    updated = named(listed("Stack", "changed"), "-updated")
    assert updated.fields["updated_time"] == told("changed").fields("Stack", updated.id)["updated_time"] is not None


def test_a_tenant_s_stacks_are_their_project_s() -> None:
    own = listed("Stack", account="demo")
    assert {
        item.get("project") for line in recording() if line["account"] == "demo" for item in line["body"].get("stacks", [])
    } == {None}
    assert {one.id: one.project for one in own} == {one.id: one.project for one in listed("Stack")}
    assert {one.id: one.fields for one in own} == {one.id: one.fields for one in listed("Stack")}


def test_a_stack_that_is_shown_as_deleted_is_gone() -> None:
    gone = [
        line["body"]["stacks"][0]
        for line in recording()
        if line["moment"] == "gone"
        and "show_deleted" in dict(line["params"])
        and "id" in dict(line["params"])
        and line["body"]["stacks"]
    ]
    assert {one["stack_status"] for one in gone} == {"DELETE_COMPLETE"}
    for item in gone:
        with pytest.raises(NotFound):
            run(api("Stack").get(stacks(item | {"id": "s"}), "s"))
    (there,) = run(api("Stack").get(stacks(gone[0] | {"id": "s", "deletion_time": None, "stack_status": "DELETE_FAILED"}), "s"))
    assert there.fields["stack_status"] == "DELETE_FAILED"
    assert run(everything("Stack", RecordedCloud([again(stack_line(), stacks=gone)]))) == []


def test_a_stack_that_is_not_shown_is_gone_to_whom_every_stack_is_shown() -> None:
    item = stack_line()["body"]["stacks"][0]
    with pytest.raises(NotFound):
        run(api("Stack").get(stacks(sees=(item,)), "s"))
    with pytest.raises(Forbidden):
        run(api("Stack").get(stacks(sees=({name: value for name, value in item.items() if name != "project"},)), "s"))
    with pytest.raises(Forbidden):
        run(api("Stack").get(stacks(), "s"))
    with pytest.raises(NotFound):
        run(api("Stack").get(cloud("gone"), NOTHING))


def test_another_stack_than_the_one_asked_for_is_not_it() -> None:
    item = stack_line()["body"]["stacks"][0]
    with pytest.raises(NotFound):
        run(api("Stack").get(stacks(item, sees=(item,)), "s"))
    some = api("Stack").some
    assert some is not None
    params = (("show_nested", "true"), ("show_hidden", "true"), ("id", "s"))
    assert run(some(RecordedCloud([answer("orchestration", "/stacks", {"stacks": [item]}, params=params)]), ["s"])) == []


@pytest.mark.parametrize(
    ("moves", "status"),
    [
        (True, "CREATE_IN_PROGRESS"),
        (True, "DELETE_IN_PROGRESS"),
        (False, "CREATE_COMPLETE"),
        (False, "UPDATE_FAILED"),
        (False, None),
    ],
)
def test_a_stack_waits_while_heat_works(moves: bool, status: str | None) -> None:
    assert waits("Stack", {"stack_status": status}) is moves
    assert not waits("Stack", {})


# --- Keystone ----------------------------------------------------------------------------------------------------------------


def people(**domains: list[str]) -> list[dict[str, Any]]:
    """What a Keystone says whose domains have drivers of their own, to somebody of the domain `own`."""
    users = {domain: [{"id": name, "name": name, "domain_id": domain} for name in names] for domain, names in domains.items()}
    return [
        answer("identity", "/users", {"users": users["own"]}),
        answer("identity", "/domains", {"domains": [{"id": domain} for domain in (*domains, 5, "")]}),
        *(answer("identity", "/users", {"users": users[domain]}, params=(("domain_id", domain),)) for domain in domains),
    ]


def test_the_users_of_every_domain_are_listed_once() -> None:
    of = RecordedCloud(people(own=["a", "b"], ldap=["c", "d", "e"], empty=[]))
    assert [one.id for one in run(everything("User", of))] == ["a", "b", "c", "d", "e"]
    assert [dict(params) for _, path, params, _ in of.asked if path == "/users"] == [
        {},
        {"domain_id": "ldap"},
        {"domain_id": "empty"},
    ]


def test_an_admin_of_one_domain_lists_that_one_s() -> None:
    users, domains, *_ = people(own=["a"], ldap=["c"])
    for status in (403, 404):
        of = RecordedCloud([users, domains | {"status": status}])
        assert [one.id for one in run(everything("User", of))] == ["a"]


def test_what_keystone_leaves_out_is_null() -> None:
    raw = {item["name"]: item for line in lists("User") for item in line["body"].get("users", [])}
    assert any("default_project_id" not in item for item in raw.values())
    for one in listed("User"):
        assert one.fields.keys() == KINDS["User"].fields.keys()
    changed = by_id(listed("User"))
    objects: dict[tuple[str, str], Any] = {}
    folded(objects, list(changed.values()))
    (someone,) = [one for one in changed.values() if str(one.fields["name"]).endswith("-one")]
    assert someone.fields["default_project_id"]
    (line, *rest) = lists("User")
    without = [{name: value for name, value in item.items() if name != "default_project_id"} for item in line["body"]["users"]]
    folded(objects, run(everything("User", Lenient([again(line, users=without), *rest]))))
    assert objects["User", someone.id].fields["default_project_id"] is None


def test_a_project_is_its_members() -> None:
    for one in listed("Project"):
        assert one.project == one.id
    assert named(listed("Project"), "-project").fields["tags"] == ["alpha", "zeta"]
    assert {one.project for one in listed("User")} == {""}


def test_what_keystone_remembers_undoes_nothing() -> None:
    """It answers by id from a cache: what was listed is newer, whatever the answer's time is."""
    objects: dict[tuple[str, str], Any] = {}
    folded(objects, listed("User", "changed"))
    somebody = named(listed("User", "changed"), "-user")
    assert somebody.fields["enabled"] is True
    (said,) = [
        line["body"]["user"]
        for line in recording()
        if line["path"] == f"/users/{somebody.id}" and line["moment"] == "changed" and line["as_of"] <= ended("changed")
    ]
    late = run(api("User").get(RecordedCloud([answer("identity", "/users/x", {"user": said | {"enabled": False}})]), "x"))
    assert folded(objects, [Reading(kind="User", id=one.id, verb="update", as_of=2**60, only_known=True) for one in late]) == []
    assert folded({}, late) == []
    assert readings(notice("identity.user.updated", {"resource_info": "u"}))[0].fields == {}
