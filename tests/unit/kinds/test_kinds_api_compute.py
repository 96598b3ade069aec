"""What reading an API gives is in the form in which notifications are read: for each kind of Nova, Cinder, Glance, Heat and
Keystone, on what a real cloud said; and what is Nova's own. (What is the others' own: test_kinds_api_others.)"""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import notice, notices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds_fold import KINDS, Inventory, readings
from recorded_cloud import RecordedCloud
from recorded_life import (
    DOCS,
    MINE,
    NOVA,
    RECORDING,
    Lenient,
    Line,
    Recorded,
    again,
    answer,
    api,
    by_id,
    cloud,
    differences,
    ended,
    everything,
    folded,
    followed,
    listed,
    lists,
    named,
    odd,
    recording,
    run,
    shuffled,
    told,
)
from test_kinds_captures import is_of

from vedette.errors import CloudUnavailable, Forbidden, NotFound, TooBusy
from vedette.kinds import computeservice, keypair, server
from vedette.model.reading import Reading
from vedette.ports import Answer, Items

PAGES = dict.fromkeys(NOVA, "nova.md") | {
    "Volume": "cinder.md",
    "Snapshot": "cinder.md",
    "Image": "glance.md",
    "Stack": "heat.md",
    "User": "keystone.md",
    "Project": "keystone.md",
}
UNANNOUNCED = ("Hypervisor",)
BARE = ("User", "Project")
"""Announced by their ids."""
REFUSED = ("Server", "Aggregate", "ComputeService", "Hypervisor", "User", "Project")
"""Others than admins are refused the list that is asked for."""

API_ONLY: dict[str, dict[str, str]] = {
    "ComputeService": {
        "state": "whether it is heard; that somebody declared it down is all that is announced",
        "zone": "notifications leave it empty",
    },
    "ServerGroup": {"members": "a server that is deleted leaves its group silently"},
    "Volume": {
        "status": "an extension that fails ends silently",
        "bootable": "not in Cinder's notifications",
        "multiattach": "not in Cinder's notifications",
    },
    "Image": dict.fromkeys(("os_hash_algo", "os_hash_value", "os_hidden"), "not in Glance's notifications"),
    "User": dict.fromkeys(("name", "description", "domain_id", "default_project_id", "enabled"), "only ids are announced"),
    "Project": dict.fromkeys(
        ("name", "description", "domain_id", "parent_id", "enabled", "is_domain", "tags"), "only ids are announced"
    ),
}
"""Fields whose present value only the API has; the pages in docs/howto say so too."""
NOTICE_ONLY = {
    "Server": {"fault": "a list leaves it out where no host took the server", "progress": "shown in some states only"},
    "Flavor": {"access_project_ids": "shown of those that aren't public"},
    "Stack": {"description": "empty in Heat's list"},
}
"""Fields of which a listing says nothing, though they are known."""


# --- the listing and the notifications ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["there", "changed"])
@pytest.mark.parametrize("kind", MINE)
def test_what_notifications_speak_of_is_equal_in_the_listing(kind: str, moment: str) -> None:
    known = told(moment).live()
    shown = by_id(listed(kind, moment))
    both = [(state, shown[id_]) for (of, id_), state in known.items() if of == kind and id_ in shown]
    assert [one for one in differences(kind, moment, known) if one.field not in API_ONLY.get(kind, {})] == []
    assert any(state.fields.keys() & one.fields.keys() for state, one in both) or kind in (*UNANNOUNCED, *BARE)


@pytest.mark.parametrize("kind", MINE)
def test_what_was_listed_once_differs_later_only_by_what_is_never_announced(kind: str) -> None:
    """Nothing is said so by a notification and otherwise by the next listing, again and again."""
    known = followed("changed").live()
    found = differences(kind, "changed", known)
    assert kind in UNANNOUNCED or {one.field for one in found} <= API_ONLY.get(kind, {}).keys(), found


@pytest.mark.parametrize("moment", ["there", "changed"])
@pytest.mark.parametrize("kind", MINE)
def test_who_may_see_it_and_when_it_was_made_are_equal_too(kind: str, moment: str) -> None:
    shown = by_id(listed(kind, moment))
    for (of, id_), known in told(moment).live().items():
        if of == kind:
            one = shown[id_]
            assert (one.project, bool(one.shared), one.owner or "") == (known.project, known.shared, known.owner)
            assert one.created is None or one.created // 1_000_000 * 1_000_000 == known.created


@pytest.mark.parametrize("moment", ["there", "changed", "gone"])
@pytest.mark.parametrize("kind", MINE)
def test_what_is_known_is_listed_and_what_is_known_to_be_gone_is_not(kind: str, moment: str) -> None:
    shown = by_id(listed(kind, moment))
    for (of, id_), known in told(moment).objects.items():
        if of == kind:
            assert (id_ in shown) is not known.deleted, id_


@pytest.mark.parametrize("kind", MINE)
def test_what_notifications_speak_of_is_not_missing_in_the_listing(kind: str) -> None:
    shown = by_id(listed(kind, "changed"))
    for (of, id_), known in told("changed").live().items():
        if of == kind:
            missing = (known.fields | known.admin).keys() - (shown[id_].fields | shown[id_].admin).keys()
            assert missing <= NOTICE_ONLY.get(kind, {}).keys(), (id_, missing)


@pytest.mark.parametrize("kind", MINE)
def test_each_exception_was_seen_and_is_on_the_service_s_page(kind: str) -> None:
    page = (DOCS / PAGES[kind]).read_text()
    said = [one for item in notices(RECORDING) for one in readings(item) if one.kind == kind]
    spoken = {name for one in said for name in (*one.fields, *one.admin)}
    shown = {name for one in listed(kind) for name in (*one.fields, *one.admin)}
    if kind in UNANNOUNCED:
        assert not said
        assert shown == KINDS[kind].fields.keys()
        assert f"| {kind} | all |" in page
        return
    differ = {one.field for moment in ("there", "changed") for one in differences(kind, moment, followed(moment).live())}
    assert (shown - spoken) | differ == API_ONLY.get(kind, {}).keys()
    for name in (*API_ONLY.get(kind, {}), *(name for name in NOTICE_ONLY.get(kind, {}) if kind == "Stack")):
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("kind", MINE)
def test_a_second_listing_changes_nothing(kind: str) -> None:
    objects: dict[tuple[str, str], Any] = dict(told("there").objects)
    folded(objects, listed(kind, "there"))
    assert folded(objects, listed(kind, "again")) == []


@pytest.mark.parametrize("kind", MINE)
def test_the_listing_makes_what_is_not_known(kind: str) -> None:
    shown = listed(kind)
    objects: dict[tuple[str, str], Any] = {}
    assert folded(objects, shown) == [(kind, one.id, "ADDED") for one in shown]
    assert shown
    for one in shown:
        state = objects[kind, one.id]
        assert (state.fields, state.admin) == (one.fields, one.admin)


@pytest.mark.parametrize("kind", MINE)
def test_a_reading_is_declared_fields_of_the_declared_type_in_their_place(kind: str) -> None:
    declared = KINDS[kind].fields
    for one in listed(kind):
        assert (one.kind, one.verb, one.only_known, one.parts, one.version) == (kind, "create", False, (), None)
        assert one.as_of > 1_795_500_000_000_000
        for admin, values in ((False, one.fields), (True, one.admin)):
            for name, value in values.items():
                assert declared[name].admin is admin, name
                assert is_of(value, declared[name].type), (name, value)
        assert json.loads(json.dumps([one.fields, one.admin])) == [one.fields, one.admin]


# --- one, some, pages, proofs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["there", "changed"])
@pytest.mark.parametrize("kind", MINE)
def test_one_object_is_what_the_list_says(kind: str, moment: str) -> None:
    async def ask() -> None:
        of = cloud(moment)
        for one in await everything(kind, of):
            (alone,) = await api(kind).get(of, one.id)
            if kind in BARE:
                assert (alone.verb, alone.only_known, alone.fields) == ("update", True, {}), "Keystone answers from a cache"
                continue
            less = {"flavor"} if kind == "Server" else set()
            more = {"fault"} if kind == "Server" else set()
            assert {name: value for name, value in one.fields.items() if name not in less} == {
                name: value for name, value in alone.fields.items() if name not in more or name in one.fields
            }
            assert (alone.admin, alone.project, alone.shared, alone.owner) == (one.admin, one.project, one.shared, one.owner)
            assert (alone.verb, alone.created) == ("create", one.created)

    run(ask())


@pytest.mark.parametrize("kind", ["Volume", "Image", "Stack"])
def test_some_objects_are_what_the_list_says_in_one_request(kind: str) -> None:
    shown = by_id(listed(kind, "changed"))
    ids = sorted(shown.keys() | by_id(listed(kind, "there")).keys())
    some = api(kind).some
    assert some is not None
    of = cloud("changed")
    found = by_id(run(some(of, [*ids, "00000000-0000-4000-8000-000000000000"])))
    assert len(of.asked) == 1
    hidden = {id_ for id_, one in shown.items() if one.fields.get("os_hidden")}
    assert found.keys() == shown.keys() - hidden
    for id_, one in found.items():
        assert (one.fields, one.admin, one.project) == (shown[id_].fields, shown[id_].admin, shown[id_].project)


def test_the_others_are_asked_for_one_by_one() -> None:
    assert {kind for kind in MINE if api(kind).some is not None} == {"Volume", "Image", "Stack"}


@pytest.mark.parametrize("kind", MINE)
def test_pages_of_any_size_are_the_same_list(kind: str) -> None:
    whole = listed(kind, page=1000)
    assert listed(kind, page=1) == whole
    assert listed(kind, page=3) == whole


@pytest.mark.parametrize("kind", MINE)
def test_the_service_itself_says_whose_lists_hold_everything(kind: str) -> None:
    proof = api(kind).proof
    if kind in REFUSED:
        with pytest.raises(Forbidden):
            listed(kind, account="demo")
    else:
        assert proof
        assert len(listed(kind, account="demo")) <= len(listed(kind))
    if proof:
        run(cloud().get(api(kind).service, proof))
        with pytest.raises(Forbidden):
            run(cloud(account="demo").get(api(kind).service, proof))


@pytest.mark.parametrize("kind", MINE)
def test_what_is_gone_is_not_found(kind: str) -> None:
    of = cloud("gone")
    left = {one.id for one in run(everything(kind, of))}
    gone = {one.id for one in listed(kind, "there")} - left
    assert gone or kind in ("ComputeService", "Hypervisor")
    found = 0
    for id_ in gone or {"00000000-0000-4000-8000-000000000000"}:
        try:
            cached = run(api(kind).get(of, id_))
        except NotFound:
            found += 1
        else:
            assert kind in BARE
            objects: dict[tuple[str, str], Any] = dict(told("gone").objects)
            assert objects[kind, id_].deleted
            assert folded(objects, cached) == [], "Keystone shows what is gone from a cache: it stays gone"
    assert found


@pytest.mark.parametrize("kind", MINE)
@pytest.mark.parametrize("id_", ["", ".", "..", "../os-services", "a/b?c=d#e", "%2e%2e", "ä", "u:..", "u:a/b", ":", "u:"])
def test_an_id_leads_nowhere_else(kind: str, id_: str) -> None:
    class Nowhere(RecordedCloud):
        async def get(self, service: str, path: str, params: Any = (), *, microversion: str = "") -> Any:
            assert ".." not in path.split("/")
            assert path.isascii()
            assert path.count("/") <= 3
            assert "?" not in path
            assert "#" not in path
            raise NotFound(path)

    with pytest.raises(NotFound):
        run(api(kind).get(Nowhere(recording(), at=ended("there")), id_))


@pytest.mark.parametrize("kind", MINE)
def test_the_order_in_which_the_api_gives_what_has_none_is_no_difference(kind: str) -> None:
    turned = [shuffled(line, {"links"} | _labels()) for line in recording()]
    assert turned != recording()
    assert by_id(run(everything(kind, Recorded(turned, at=ended("there"))))) == by_id(listed(kind))


def _labels() -> set[str]:
    """Names of networks: the addresses of a server stand in the order of its ports."""
    return {label for one in listed("Server") for label in one.fields["addresses"]}


# --- odd answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MINE)
def test_an_odd_item_costs_no_other_item(kind: str) -> None:
    lines = lists(kind)
    declared = KINDS[kind].fields
    wholes = listed(kind)

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: st.DataObject) -> None:
        said = []
        for line in lines:
            body = {
                key: [*data.draw(odd(items[:4])), *items]
                if isinstance(items, list) and items and isinstance(items[0], dict)
                else items
                for key, items in line["body"].items()
            }
            said.append(again(line, **body))
        found = run(everything(kind, Lenient(said, page=3)))
        for one in found:
            assert one.id
            json.dumps([one.fields, one.admin])
            for admin, values in ((False, one.fields), (True, one.admin)):
                for name, value in values.items():
                    assert declared[name].admin is admin
                    assert is_of(value, declared[name].type), (name, value)
        for whole in wholes:
            assert any((one.id, one.fields, one.admin) == (whole.id, whole.fields, whole.admin) for one in found)

    check()


@pytest.mark.parametrize("kind", MINE)
@pytest.mark.parametrize("body", [{}, {"x": None}, {"x": []}, {"x": {"id": ""}}, {"x": {"id": 5.5}}])
def test_an_answer_without_the_object_is_no_proof_that_it_is_gone(kind: str, body: dict[str, Any]) -> None:
    class Says(RecordedCloud):
        async def get(self, service: str, path: str, params: Any = (), *, microversion: str = "") -> Answer:
            word = path.split("/")[1].removeprefix("os-").replace("-", "_").removesuffix("s")
            return Answer(body={word: body["x"], f"{word}s": [body["x"]]} if body else {}, as_of=1)

        async def pages(self, service: str, path: str, key: str, params: Any = (), *, microversion: str = "") -> Any:
            yield Items(items=[body.get("x") or {}], as_of=1)

    of = Says([])
    id_ = "u:x" if kind == "Keypair" else "x"
    if kind in ("ComputeService", "Stack"):  # out of a list
        with pytest.raises((CloudUnavailable, Forbidden)):
            run(api(kind).get(of, id_))
    else:
        assert list(run(api(kind).get(of, id_))) == []


# --- servers -----------------------------------------------------------------------------------------------------------------


def raw(key: str, ending: str, moment: str = "there") -> dict[str, Any]:
    """An item as Nova gave it, by the end of its name."""
    (found,) = [
        item
        for line in recording()
        if line["moment"] == moment and line["account"] == "admin" and isinstance(line["body"].get(key), list)
        and dict(line["params"]).get("all_tenants")
        for item in line["body"][key]
        if item["name"].endswith(ending)
    ]  # fmt: skip
    return dict(found)


def test_servers_are_there_in_many_states() -> None:
    states = {str(one.fields["status"]) for one in listed("Server")}
    assert states == {"ACTIVE", "SHUTOFF", "PAUSED", "SHELVED_OFFLOADED", "ERROR", "RESCUE", "VERIFY_RESIZE", "SUSPENDED"}


def test_a_server_has_its_fixed_addresses_only() -> None:
    said = [ip for items in raw("servers", "-active")["addresses"].values() for ip in items]
    assert {ip["OS-EXT-IPS:type"] for ip in said} == {"fixed", "floating"}
    shown = [ip for items in named(listed("Server"), "-active").fields["addresses"].values() for ip in items]
    assert {ip["OS-EXT-IPS:type"] for ip in shown} == {"fixed"}
    assert len(shown) == len(said) - 1
    assert {ip["version"] for ip in shown} == {4, 6}


def test_a_server_that_boots_from_a_volume_has_no_image() -> None:
    assert raw("servers", "-booted")["image"] == ""
    booted = named(listed("Server"), "-booted")
    assert booted.fields["image"] is None
    assert len(booted.fields[server.ATTACHED]) == 1
    assert named(listed("Server"), "-active").fields["image"].keys() == {"id"}


def test_volumes_are_attached_in_the_order_of_their_ids() -> None:
    attached = named(listed("Server"), "-volumes").fields[server.ATTACHED]
    assert len(attached) == 2
    assert attached == sorted(attached, key=lambda one: str(one["id"]))
    assert raw("servers", "-volumes")[server.ATTACHED] != attached


def test_a_flavor_that_was_deleted_or_made_anew_is_found_by_asking_for_one_server() -> None:
    of = cloud()
    shown = run(everything("Server", of))
    assert all(one.fields["flavor"]["id"] for one in shown)
    flavors = by_id(listed("Flavor"))
    assert named(shown, "-stopped").fields["flavor"]["id"] not in flavors
    anew = named(shown, "-paused").fields["flavor"]
    assert anew["original_name"].endswith("-made anew")
    assert anew["id"] != named(flavors.values(), "-made anew").id
    asked = [path for _, path, _, microversion in of.asked if microversion == "2.46"]
    assert sorted(asked) == sorted(f"/servers/{named(shown, ending).id}" for ending in ("-stopped", "-paused"))
    assert [path for _, path, _, _ in of.asked].count("/flavors/detail") == 1


def test_one_question_is_enough_for_all_servers_of_a_flavor_and_there_is_a_most() -> None:
    (line,) = [line for line in lists("Server") if line["path"] == "/servers/detail"]
    item = line["body"]["servers"][0]

    def many(flavor_of: Any) -> list[Line]:
        return [
            again(
                line, servers=[item | {"id": f"s{at}", "flavor": item["flavor"] | {"ram": flavor_of(at)}} for at in range(300)]
            ),
            *(
                answer("compute", f"/servers/s{at}", {"server": {"flavor": {"id": f"f{at}"}}}, microversion="2.46")
                for at in range(300)
            ),
            answer("compute", "/flavors/detail", {"flavors": []}, params=(("is_public", "None"),), microversion="2.75"),
        ]

    alike = Recorded(many(lambda _at: 1), page=50)
    shown = run(everything("Server", alike))
    assert {one.fields["flavor"]["id"] for one in shown} == {"f0"}
    assert len(alike.asked) == 3
    each = Recorded(many(lambda at: at), page=50)
    found = run(everything("Server", each))
    assert len(found) == 300
    assert sum("flavor" in one.fields for one in found) == server.MOST_FLAVORS
    assert len(each.asked) == 2 + server.MOST_FLAVORS


def test_a_flavor_s_id_alone_takes_the_place_of_nothing() -> None:
    (line,) = [line for line in lists("Server") if line["path"] == "/servers/detail"]
    old = [item | {"flavor": {"id": "f", "links": []}} for item in line["body"]["servers"]]
    of = Recorded([again(line, servers=old)])
    shown = run(everything("Server", of))
    assert len(shown) == len(old)
    assert not any("flavor" in one.fields for one in shown)
    assert len(of.asked) == 1


def test_a_server_in_a_cell_that_is_down_is_there_and_nothing_is_said_of_it() -> None:
    (line,) = [line for line in lists("Server") if line["path"] == "/servers/detail"]
    whole = line["body"]["servers"]
    down = [{name: item[name] for name in ("id", "tenant_id", "created", "links")} | {"status": "UNKNOWN"} for item in whole]
    of = Recorded([again(line, servers=down), *(one for one in lists("Server") if one is not line)])
    shown = run(everything("Server", of))
    assert [one.id for one in shown] == [item["id"] for item in whole]
    assert {(one.verb, one.only_known, len(one.fields), one.project) for one in shown} == {("update", True, 0, None)}
    objects: dict[tuple[str, str], Any] = dict(told("there").objects)
    assert folded(objects, shown) == []
    assert folded({}, shown) == []
    # Asked for alone it has an image, a flavor and a user who is UNKNOWN.
    more = down[0] | {"flavor": whole[0]["flavor"], "image": whole[0]["image"], "user_id": "UNKNOWN"}
    (alone,) = run(
        api("Server").get(RecordedCloud([answer("compute", "/servers/s", {"server": more}, microversion="2.96")]), "s")
    )
    assert (alone.verb, alone.only_known, alone.fields) == ("update", True, {})


def test_a_deleted_server_is_not_alive() -> None:
    (line,) = [line for line in lists("Server") if line["path"] == "/servers/detail"]
    item = line["body"]["servers"][0] | {"status": "DELETED"}
    of = RecordedCloud([again(line, servers=[item]), answer("compute", "/servers/s", {"server": item}, microversion="2.96")])
    assert run(everything("Server", of)) == []
    with pytest.raises(NotFound):
        run(api("Server").get(of, "s"))


def one_server(**more: Any) -> Reading:
    item = raw("servers", "-active") | more
    of = RecordedCloud([answer("compute", "/servers/s", {"server": item}, microversion="2.96")])
    (found,) = run(api("Server").get(of, "s"))
    return found


def test_what_nova_hides_while_it_builds_or_deletes_is_not_taken_away() -> None:
    assert "addresses" not in one_server(addresses={}, **{"OS-EXT-STS:vm_state": "building", "status": "BUILD"}).fields
    assert "addresses" not in one_server(addresses={}, **{"OS-EXT-STS:task_state": "deleting"}).fields
    assert one_server(addresses={}).fields["addresses"] == {}


def test_a_fault_is_its_message_and_ends_with_the_error() -> None:
    fault = {"code": 500, "created": "2026-11-24T10:00:00Z", "message": "No valid host.\nTraceback", "details": "…"}
    assert one_server(status="ERROR", fault=fault).fields["fault"] == {"message": "No valid host."}
    assert "fault" not in one_server(status="ERROR").fields
    assert one_server(status="ACTIVE").fields["fault"] is None


@pytest.mark.parametrize(
    ("waits", "status"),
    [
        (True, {"status": "ACTIVE", "OS-EXT-STS:task_state": "powering-off"}),
        (True, {"status": "BUILD", "OS-EXT-STS:task_state": "spawning"}),
        (True, {"status": "BUILD", "OS-EXT-STS:task_state": None}),
        (True, {"status": "RESIZE", "OS-EXT-STS:task_state": "resize_prep"}),
        (False, {"status": "ACTIVE", "OS-EXT-STS:task_state": None}),
        (False, {"status": "VERIFY_RESIZE", "OS-EXT-STS:task_state": None}),
        (False, {"status": "ERROR", "OS-EXT-STS:task_state": None}),
        (False, {"status": "SHELVED_OFFLOADED", "OS-EXT-STS:task_state": ""}),
        (False, {}),
    ],
)
def test_a_server_waits_while_it_has_a_task(waits: bool, status: dict[str, Any]) -> None:
    found = api("Server").transient
    assert found is not None
    assert found(status) is waits
    assert set(status) <= set(api("Server").transient_fields)


# --- compute services and hypervisors ----------------------------------------------------------------------------------------


def service(**more: Any) -> dict[str, Any]:
    (line,) = lists("ComputeService")
    return {**line["body"]["services"][0], "forced_down": False, **more}


def services(*items: dict[str, Any]) -> RecordedCloud:
    return RecordedCloud([again(lists("ComputeService")[0], services=list(items))])


async def look(kind: str, of: RecordedCloud, known: Any) -> list[Reading]:
    scan = api(kind).scan
    assert scan is not None
    assert scan.sees == {kind: ()}
    return [one async for part in scan.look(of, {kind: known}, {}) for one in part]


def test_when_a_living_service_was_heard_is_no_news() -> None:
    up = service(state="up", updated_at="2026-11-24T10:00:00.000000")
    (first,) = run(everything("ComputeService", services(up)))
    (second,) = run(everything("ComputeService", services(up | {"updated_at": "2026-11-24T10:00:10.000000"})))
    assert first.fields == second.fields
    assert first.fields["updated_at"] is None
    (down,) = run(everything("ComputeService", services(up | {"state": "down"})))
    assert (down.fields["state"], down.fields["updated_at"]) == ("down", "2026-11-24T10:00:00Z")
    (forced,) = run(everything("ComputeService", services(up | {"state": "down", "forced_down": True})))
    assert (forced.fields["state"], forced.fields["updated_at"]) == ("down", None), "it may well be heard"


def test_a_service_that_is_declared_down_is_down_at_once() -> None:
    shown = {(one.fields["host"], one.fields["binary"]): one for one in listed("ComputeService")}
    assert shown["fake-2", "nova-compute"].fields["state"] == "down"
    known = told("there").fields("ComputeService", shown["fake-2", "nova-compute"].id)
    assert (known["forced_down"], known["state"]) == (True, "down")
    assert shown["fake-3", "nova-compute"].fields["status"] == "disabled"


def test_an_api_process_is_no_service() -> None:
    said = {"uuid": "c", "host": "h", "binary": "nova-osapi_compute", "disabled": False, "forced_down": False}
    assert readings(notice("service.create", {"nova_object.data": said})) == []


@pytest.mark.parametrize("kind", ["ComputeService", "Hypervisor"])
def test_a_look_shows_all_and_suspects_what_is_missing(kind: str) -> None:
    of = cloud()
    whole = run(everything(kind, of))
    assert run(look(kind, of, {one.id: {} for one in whole})) == whole
    found = run(look(kind, of, {"b": {}, whole[0].id: {}, "a": {}}))
    assert found[:-2] == whole
    assert [(one.kind, one.id, one.verb, one.as_of) for one in found[-2:]] == [
        (kind, id_, "delete", whole[0].as_of) for id_ in ("a", "b")
    ]
    empty = again(lists(kind)[0], **{key: [] for key in lists(kind)[0]["body"]})
    assert [one.verb for one in run(look(kind, RecordedCloud([empty]), {"a": {}}))] == ["delete"]


def test_services_of_a_cell_that_is_down_are_not_gone() -> None:
    of = services(service(), {"binary": "nova-compute", "host": "h", "status": "UNKNOWN"})
    found = run(look("ComputeService", of, {"missing": {}}))
    assert [one.verb for one in found] == ["create"]
    with pytest.raises(CloudUnavailable):
        run(api("ComputeService").get(of, "missing"))
    assert run(api("ComputeService").get(of, service()["id"])) == tuple(found)
    with pytest.raises(NotFound):
        run(api("ComputeService").get(services(service()), "missing"))
    assert len(run(everything("ComputeService", of))) == 1


def test_what_moves_all_the_time_is_no_field_of_a_hypervisor() -> None:
    (line,) = lists("Hypervisor")
    assert {"running_vms", "free_ram_mb", "vcpus_used"} <= line["body"]["hypervisors"][0].keys()
    assert not {"uptime", "running_vms"} & KINDS["Hypervisor"].fields.keys()
    assert computeservice.MICROVERSION == "2.69"
    states = {one.fields["hypervisor_hostname"]: (one.fields["state"], one.fields["status"]) for one in listed("Hypervisor")}
    assert states == {"fake-1": ("up", "enabled"), "fake-2": ("down", "enabled"), "fake-3": ("up", "disabled")}
    assert {frozenset(one.fields["service"]) for one in listed("Hypervisor")} == {frozenset(("id", "host", "disabled_reason"))}


# --- the others of Nova ------------------------------------------------------------------------------------------------------


def test_a_private_flavor_names_its_projects_and_a_public_one_is_everybody_s() -> None:
    private = named(listed("Flavor"), "-private")
    assert (private.shared, private.project) == (False, "")
    assert len(private.admin["access_project_ids"]) == 2
    assert private.admin["access_project_ids"] == sorted(private.admin["access_project_ids"])
    assert len(named(listed("Flavor", "changed"), "-private").admin["access_project_ids"]) == 1
    assert {one.shared for one in listed("Flavor") if one is not private and one.id != private.id} == {True}
    assert {tuple(one.admin) for one in listed("Flavor", account="demo")} <= {(), ("access_project_ids",)}


def test_a_swap_of_nothing_is_0_in_every_release() -> None:
    (line,) = [line for line in lists("Flavor") if line["path"] == "/flavors/detail"]
    item = line["body"]["flavors"][0] | {"swap": "", "rxtx_factor": ""}
    (one,) = run(everything("Flavor", RecordedCloud([again(line, flavors=[item])])))
    assert one.fields["swap"] == 0
    assert "rxtx_factor" not in one.fields


def test_who_may_use_a_private_flavor_is_left_open_where_it_is_not_said() -> None:
    lines = [line for line in lists("Flavor") if line["path"] == "/flavors/detail"]
    found = run(everything("Flavor", Lenient(lines)))
    assert named(found, "-private").admin == {}
    assert len(found) == len(listed("Flavor"))


def test_a_keypair_is_its_user_s_and_each_user_is_asked_for() -> None:
    of = cloud()
    found = run(everything("Keypair", of))
    users = {one.id for one in listed("User")}
    assert len([path for _, path, _, _ in of.asked if path == "/os-keypairs"]) == len(users)
    assert {one.owner for one in found} < users
    assert len({one.owner for one in found}) == 2
    assert {one.id for one in found} == {f"{one.fields['user_id']}:{one.fields['name']}" for one in found}
    assert api("Keypair").seldom


def test_whom_the_other_users_are_hidden_from_lists_only_the_own_keypairs() -> None:
    own = listed("Keypair", account="demo")
    assert {one.owner for one in own} == {run(cloud(account="demo").account()).user_id}
    assert len(own) == 2


def test_keypairs_of_more_users_than_that_are_not_listed() -> None:
    users = [{"id": f"u{at}", "domain_id": "default"} for at in range(keypair.MOST_USERS + 1)]

    class Many(RecordedCloud):
        async def pages(self, service: str, path: str, key: str, params: Any = (), *, microversion: str = "") -> Any:
            if path == "/os-keypairs":
                self.asked.append((service, path, tuple(params), microversion))
                return
            async for page in super().pages(service, path, key, params, microversion=microversion):
                yield page

    of = Many([answer("identity", "/users", {"users": users})], page=5000)
    with pytest.raises(TooBusy):
        run(everything("Keypair", of))
    assert len(of.asked) == 1 + keypair.MOST_USERS


def test_a_keypair_s_name_may_hold_a_space() -> None:
    spaced = [one for one in listed("Keypair") if " " in one.id]
    assert spaced
    of = cloud()
    (alone,) = run(api("Keypair").get(of, spaced[0].id))
    assert alone.fields == spaced[0].fields
    assert "%20" in of.asked[0][1]


def test_a_server_group_s_rule_is_a_number_and_its_new_member_the_last_one() -> None:
    assert named(listed("ServerGroup"), "-group").fields["rules"] == {"max_server_per_host": 5}
    inventory = Inventory([notice("servergroup.create", {"server_group_id": "g", "name": "n"}, sent_at=1)])
    for at, members in enumerate((["b"], ["b", "a"], ["b", "a", "c"]), 2):
        inventory.tell(notice("server_group.add_member", {"nova_object.data": {"uuid": "g", "members": members}}, sent_at=at))
    assert inventory.fields("ServerGroup", "g")["members"] == ["a", "b", "c"]
    gone = named(listed("ServerGroup", "changed"), "-group").fields["members"]
    said = told("changed").fields("ServerGroup", named(listed("ServerGroup"), "-group").id)["members"]
    assert set(gone) < set(said), "a deleted server leaves its group silently"


def test_an_older_nova_has_a_list_of_policies() -> None:
    (line,) = lists("ServerGroup")
    (old, *_) = line["body"]["server_groups"]
    item = {name: value for name, value in old.items() if name not in ("policy", "rules")} | {
        "policies": ["affinity"],
        "metadata": {},
    }
    (one,) = run(everything("ServerGroup", RecordedCloud([again(line, server_groups=[item])])))
    assert one.fields["policy"] == "affinity"
    assert "rules" not in one.fields


def test_an_aggregate_is_named_by_its_number() -> None:
    found = listed("Aggregate")
    assert all(one.id.isdecimal() for one in found)
    assert named(found, "-aggregate").fields["hosts"] == ["fake-1", "fake-3"]
    assert named(found, "-zone").fields["availability_zone"] == named(found, "-zone").fields["metadata"]["availability_zone"]
