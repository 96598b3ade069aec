"""`model/fold.py`: news becomes state. What holds for all inputs is said for all inputs."""

from __future__ import annotations

import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.change import Change, Object
from vedette.model.entry import Entry
from vedette.model.fold import NO_PROJECT, Held, apply, decode, encode, fold, id_of, is_whole, name_of, place_of, restamp
from vedette.model.notice import Notice
from vedette.model.reading import Key, Part, Reading

for_all = settings(deadline=None, max_examples=150)

ID = "6f1c1b1e-9d0c-4a52-8f64-0d6f5a1f2b3c"
KEY = Key("region-one", "openstack.vedette.dev", "Port", ID)
SECOND = 1_000_000
T0 = 1_795_187_946 * SECOND


def at(seconds: float) -> int:
    return T0 + int(seconds * SECOND)


def reading(verb: str, when: float, **rest: Any) -> Reading:
    return Reading(kind="Port", id=ID, verb=verb, as_of=at(when), **rest)  # type: ignore[arg-type]


def entry(revision: int, *readings: Reading, source: str = "region-one") -> Entry:
    notice = Notice(id=f"n{revision}", source=source, event_type="port.update.end", sent_at=T0, payload=msgspec.Raw(b"{}"))
    return Entry(revision, T0 + revision, notice, readings)


def folded(*readings: Reading) -> Object | None:
    state: Object | None = None
    for revision, one in enumerate(readings, 1):
        state, _ = fold(state, one, KEY, revision)
    return state


class Desk:
    """The smallest store: what is held, and all changes."""

    def __init__(self) -> None:
        self.held: dict[Key, Held] = {}
        self.changes: list[Change] = []
        self.revision = 1_795_187_946_000_000

    def add(self, *readings: Reading) -> list[Change]:
        self.revision += 1
        changes, touched = apply(entry(self.revision, *readings), self.held.get)
        self.held.update(touched)
        self.changes += changes
        return changes

    def reopen(self) -> None:
        """Read everything back from the served bytes, as a store does after a restart."""
        for key, held in self.held.items():
            if held.version is not None:
                s = held.state
                back = decode(held.version, key, as_of=s.as_of, newest=s.version, deleted=s.deleted)
                self.held[key] = Held(back, held.version)

    @property
    def verbs(self) -> list[str]:
        return [change.verb for change in self.changes]


# --- JSON of any shape ------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)), max_leaves=6
)
names = st.one_of(
    texts,
    st.sampled_from(
        ['with "quotes"', "status", "metadata", "resourceVersion", '","status":{"', "}}", "\\", "\u2028", "ключ", "id", ""]
    ),
)
jsons = st.dictionaries(names, values, max_size=5)


def plain(value: Any) -> Any:
    """Through JSON, so that both sides of a comparison are what a reader of the bytes sees."""
    return json.loads(msgspec.json.encode(value))


def same_json(one: Any, other: Any) -> bool:
    """Equal as JSON text is: `1`, `1.0` and `true` are three things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# --- one object, one reading after the other --------------------------------------------------------------------------------


def test_the_first_update_makes_the_object() -> None:
    desk = Desk()
    (change,) = desk.add(reading("update", 1, project="p1", fields={"status": "DOWN"}, admin={"host": "h1"}))
    assert (change.verb, change.before) == ("ADDED", None)
    assert json.loads(change.now.admin_form()) == {
        "apiVersion": "openstack.vedette.dev/v1",
        "kind": "Port",
        "metadata": {
            "resourceVersion": str(desk.revision),
            "name": ID,
            "namespace": "p1",
            "uid": ID,
            "creationTimestamp": "2026-11-20T15:19:07Z",
            "labels": {"vedette.dev/source": "region-one"},
            "annotations": {
                "vedette.dev/origin": "notification",
                "vedette.dev/event-type": "port.update.end",
                "vedette.dev/observed-at": json.loads(change.now.body)["metadata"]["annotations"]["vedette.dev/observed-at"],
            },
        },
        "status": {"id": ID, "status": "DOWN", "host": "h1"},
    }
    assert json.loads(change.now.tenant_form())["status"] == {"id": ID, "status": "DOWN"}


def test_an_update_says_what_it_says_and_keeps_the_rest() -> None:
    desk = Desk()
    desk.add(reading("create", 1, project="p1", shared=True, owner="u1", fields={"a": 1, "b": 2}, admin={"h": 1}))
    (change,) = desk.add(reading("update", 2, fields={"b": 3}))
    state = desk.held[KEY].state
    assert (change.verb, state.fields, state.admin) == ("MODIFIED", {"a": 1, "b": 3}, {"h": 1})
    assert (state.project, state.shared, state.owner) == ("p1", True, "u1")
    assert change.before is not None
    assert change.before.revision == desk.revision - 1


def test_late_news_never_wins() -> None:
    desk = Desk()
    desk.add(reading("update", 5, fields={"status": "ACTIVE"}))
    before = desk.held[KEY]
    assert desk.add(reading("update", 4, fields={"status": "BUILD"})) == []
    assert desk.add(reading("delete", 4)) == []
    assert desk.held[KEY] == before


def test_equal_news_is_folded() -> None:
    state = folded(reading("update", 5, fields={"a": 1}), reading("update", 5, fields={"b": 2}))
    assert state is not None
    assert state.fields == {"a": 1, "b": 2}


def test_a_reading_that_moves_no_served_field_is_no_change_and_keeps_the_bytes() -> None:
    desk = Desk()
    desk.add(reading("create", 1, project="p1", fields={"a": {"x": 1, "y": [1, 2]}}, admin={"h": 1}))
    bytes_before = desk.held[KEY].version
    assert desk.add(reading("update", 9, project="p1", fields={"a": {"y": [1, 2], "x": 1}}, admin={"h": 1})) == []
    assert desk.held[KEY].version is bytes_before
    assert desk.held[KEY].state.as_of == at(9), "later news from before 9 must not win"
    assert desk.add(reading("update", 5, fields={"a": 0})) == []


def test_two_formats_of_one_fact_are_one_change() -> None:
    desk = Desk()
    desk.add(reading("update", 1, fields={"status": "ACTIVE", "name": "vm"}))
    desk.add(reading("update", 1.2, fields={"name": "vm", "status": "ACTIVE"}))  # nova's versioned twin
    assert desk.verbs == ["ADDED"]


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": [0]}, {"a": [0.0]})])
def test_values_that_python_calls_equal_but_json_does_not_are_changes(one: Any, other: Any) -> None:
    desk = Desk()
    desk.add(reading("update", 1, fields={"a": one}))
    (change,) = desk.add(reading("update", 2, fields={"a": other}))
    assert same_json(json.loads(change.now.body)["status"]["a"], other)
    # And what is held is what is served: after a restart the same reading is still no news.
    desk.reopen()
    assert desk.add(reading("update", 3, fields={"a": other})) == []


def test_an_object_that_moves_to_another_project_is_one_change_with_both_sides() -> None:
    desk = Desk()
    desk.add(reading("create", 1, project="p1", fields={"a": 1}))
    (change,) = desk.add(reading("update", 2, project="p2"))
    assert change.before is not None
    assert (change.verb, change.before.project, change.now.project) == ("MODIFIED", "p1", "p2")
    assert json.loads(change.now.body)["metadata"]["namespace"] == "p2"


def test_without_a_project_the_namespace_says_so() -> None:
    desk = Desk()
    (change,) = desk.add(reading("create", 1))
    assert json.loads(change.now.body)["metadata"]["namespace"] == NO_PROJECT
    assert change.now.project == ""


def test_a_reading_that_says_when_it_was_created_corrects_the_guess() -> None:
    desk = Desk()
    desk.add(reading("update", 100, fields={"a": 1}))
    (change,) = desk.add(reading("update", 101, fields={"a": 1}, created=at(1.5)))
    assert json.loads(change.now.body)["metadata"]["creationTimestamp"] == "2026-11-20T15:19:07Z"
    assert desk.add(reading("update", 102, created=at(1.9))) == [], "whole seconds are served"
    assert desk.add(reading("update", 103, fields={"a": 1})) == []


@pytest.mark.parametrize("created", [-62_135_596_800 * SECOND, -1, 0, 253_402_300_799 * SECOND, 2**62])
def test_absurd_creation_times_can_be_served_and_read_back(created: int) -> None:
    desk = Desk()
    (change,) = desk.add(reading("create", 1, created=created))
    stamp = json.loads(change.now.body)["metadata"]["creationTimestamp"]
    assert len(stamp) == 20
    desk.reopen()
    assert desk.add(reading("update", 2, created=created)) == []


# --- tombstones -------------------------------------------------------------------------------------------------------------


def test_a_delete_leaves_the_last_content() -> None:
    desk = Desk()
    desk.add(reading("create", 1, project="p1", fields={"a": 1}, admin={"h": 1}))
    (change,) = desk.add(reading("delete", 2, fields={"status": "DELETED"}))
    body = json.loads(change.now.body)
    assert change.verb == "DELETED"
    assert body["status"] == {"id": ID, "a": 1, "status": "DELETED", "h": 1}
    assert body["metadata"]["resourceVersion"] == str(desk.revision)
    assert change.now.project == "p1"


def test_an_update_never_revives() -> None:
    desk = Desk()
    desk.add(reading("create", 1))
    desk.add(reading("delete", 2))
    assert desk.add(reading("update", 3, fields={"a": 1})) == []
    assert desk.held[KEY].state.deleted


@pytest.mark.parametrize(("when", "verbs"), [(1.5, []), (2, []), (2.000001, ["ADDED"])])
def test_only_a_newer_create_revives(when: float, verbs: list[str]) -> None:
    desk = Desk()
    desk.add(reading("create", 1, fields={"a": 1, "old": True}))
    desk.add(reading("delete", 2))
    changes = desk.add(reading("create", when, fields={"a": 2}))
    assert [change.verb for change in changes] == verbs
    if verbs:
        assert desk.held[KEY].state.fields == {"a": 2}, "what was deleted is not mixed in"
        assert changes[0].before is None


def test_a_create_from_between_two_deletes_comes_too_late() -> None:
    desk = Desk()
    for when, verb in [(1, "create"), (2, "delete"), (4, "delete"), (3, "create")]:
        desk.add(reading(verb, when))
    assert desk.verbs == ["ADDED", "DELETED"]
    assert [change.verb for change in desk.add(reading("create", 5))] == ["ADDED"]


def test_a_delete_of_something_never_seen_tells_nobody_and_holds_off_what_is_late() -> None:
    desk = Desk()
    assert desk.add(reading("delete", 5)) == []
    assert desk.add(reading("create", 4)) == []
    assert desk.add(reading("update", 6)) == []
    assert [change.verb for change in desk.add(reading("create", 7))] == ["ADDED"]


def test_a_second_delete_is_no_change() -> None:
    desk = Desk()
    desk.add(reading("create", 1))
    desk.add(reading("delete", 2))
    assert desk.add(reading("delete", 3)) == []


def test_only_known_makes_and_revives_nothing() -> None:
    desk = Desk()
    assert desk.add(reading("update", 1, only_known=True)) == []
    assert KEY not in desk.held
    desk.add(reading("create", 2))
    (change,) = desk.add(reading("update", 3, only_known=True, fields={"a": 1}))
    assert change.verb == "MODIFIED"
    desk.add(reading("delete", 4))
    assert desk.add(reading("create", 5, only_known=True)) == []


# --- two clocks -------------------------------------------------------------------------------------------------------------


def test_the_version_decides_before_the_clock() -> None:
    newer = reading("update", 1, version=7, fields={"a": "v7"})
    older = reading("update", 9, version=6, fields={"a": "v6"})
    for order in ([newer, older], [older, newer]):
        state = folded(*order)
        assert state is not None
        assert (state.fields["a"], state.version) == ("v7", 7)


def test_without_a_version_on_one_side_the_clock_decides() -> None:
    state = folded(reading("update", 5, version=7, fields={"a": 1}), reading("update", 4, fields={"a": 2}))
    assert state is not None
    assert (state.fields["a"], state.version) == (1, 7)
    state = folded(reading("update", 5, version=7, fields={"a": 1}), reading("update", 6, fields={"a": 2}))
    assert state is not None
    assert (state.fields["a"], state.version) == (2, 7)


def test_a_tombstone_with_a_version_is_revived_by_a_higher_one_only() -> None:
    gone = [reading("create", 1, version=3), reading("delete", 2, version=4)]
    for version, when, lives in [(3, 9, False), (4, 9, True), (4, 2, False), (5, 1, True)]:
        state = folded(*gone, reading("create", when, version=version))
        assert state is not None
        assert state.deleted is not lives, (version, when)


# --- parts ------------------------------------------------------------------------------------------------------------------


def rule(id_: str, port: int) -> Part:
    return Part("rules", "id", id_, {"id": id_, "port": port})


def test_parts_put_replace_and_take_out_items() -> None:
    desk = Desk()
    desk.add(reading("create", 1, parts=(rule("r1", 22), rule("r2", 80))))
    assert [change.verb for change in desk.add(reading("update", 2, parts=(rule("r1", 23),)))] == ["MODIFIED"]
    assert desk.held[KEY].state.fields["rules"] == [{"id": "r1", "port": 23}, {"id": "r2", "port": 80}]
    assert desk.add(reading("update", 3, parts=(rule("r1", 23),))) == []
    desk.add(reading("update", 4, parts=(Part("rules", "id", "r1"),)))
    assert desk.held[KEY].state.fields["rules"] == [{"id": "r2", "port": 80}]
    assert desk.add(reading("update", 5, parts=(Part("rules", "id", "r1"),))) == []
    desk.add(reading("update", 6, parts=(Part("tags", "", "blue", "blue"),)))
    assert desk.held[KEY].state.fields["tags"] == ["blue"]
    assert desk.add(reading("update", 7, parts=(Part("tags", "", "blue", "blue"),))) == []


@pytest.mark.parametrize("odd", [None, "x", 5, {"id": "r1"}])
def test_a_part_of_a_field_that_is_no_list_begins_one(odd: Any) -> None:
    for first in (
        reading("create", 1, fields={"rules": odd}, parts=(rule("r1", 22),)),
        reading("create", 1, fields={"rules": odd}),
    ):
        state = folded(first, reading("update", 2, parts=(rule("r1", 22),)))
        assert state is not None
        assert state.fields["rules"] == [{"id": "r1", "port": 22}]


def test_a_create_with_its_list_and_a_part_of_it_has_the_item_once() -> None:
    state = folded(reading("create", 1, fields={"rules": [{"id": "r1", "port": 22}]}, parts=(rule("r1", 23),)))
    assert state is not None
    assert state.fields["rules"] == [{"id": "r1", "port": 23}]


def test_parts_that_cancel_each_other_out_are_no_change() -> None:
    desk = Desk()
    desk.add(reading("create", 1, fields={"rules": [{"id": "r1", "port": 22}]}))
    assert desk.add(reading("update", 2, parts=(rule("r2", 1), Part("rules", "id", "r2")))) == []


# --- names said twice -------------------------------------------------------------------------------------------------------


def test_the_status_id_is_the_keys_and_a_field_of_that_name_is_no_news() -> None:
    desk = Desk()
    (change,) = desk.add(reading("create", 1, fields={"id": "another", "a": 1}, admin={"id": "third"}))
    assert change.now.body.count(b'"id":') == 1
    assert json.loads(change.now.body)["status"] == {"id": ID, "a": 1}
    assert desk.add(reading("update", 2, fields={"id": ID, "a": 1})) == []
    desk.reopen()
    assert desk.add(reading("update", 3, fields={"id": ID, "a": 1})) == []


def test_a_name_said_for_admins_is_not_shown_to_tenants_as_well() -> None:
    desk = Desk()
    desk.add(reading("create", 1, fields={"host": "h1", "a": 1}))
    (change,) = desk.add(reading("update", 2, admin={"host": "h1"}))
    assert json.loads(change.now.tenant_form())["status"] == {"id": ID, "a": 1}
    assert change.now.body.count(b'"host"') == 1
    assert desk.add(reading("update", 3, fields={"host": "h2"})) == [], "once admins', always admins'"


# --- one entry, several readings --------------------------------------------------------------------------------------------


def test_several_readings_of_one_object_in_one_entry_are_one_change() -> None:
    desk = Desk()
    (change,) = desk.add(
        reading("create", 1, fields={"a": 1}), reading("update", 1, fields={"b": 2}), reading("update", 1, fields={"a": 3})
    )
    assert (change.verb, change.before) == ("ADDED", None)
    assert json.loads(change.now.body)["status"] == {"id": ID, "a": 3, "b": 2}
    (change,) = desk.add(reading("update", 2, fields={"a": 4}), reading("delete", 3))
    assert change.verb == "DELETED"
    assert change.before is not None


def test_made_and_deleted_in_one_entry_is_no_change_but_is_remembered() -> None:
    desk = Desk()
    assert desk.add(reading("create", 1), reading("delete", 2)) == []
    assert desk.add(reading("create", 1.5)) == []
    desk.add(reading("create", 3))
    desk.add(reading("delete", 4))
    tombstone = desk.held[KEY]
    assert desk.add(reading("create", 5), reading("delete", 6)) == []
    assert desk.held[KEY].version is tombstone.version
    assert desk.held[KEY].state.revision == tombstone.state.revision, "what is held is what can be read back"
    assert desk.add(reading("create", 5.5)) == []


def test_deleted_and_made_again_in_one_entry_is_a_modification() -> None:
    desk = Desk()
    desk.add(reading("create", 1, fields={"a": 1}))
    (change,) = desk.add(reading("delete", 2), reading("create", 3, fields={"b": 2}))
    assert change.verb == "MODIFIED"
    assert json.loads(change.now.body)["status"] == {"id": ID, "b": 2}


def test_changes_come_in_the_order_of_the_readings_and_touch_what_they_name() -> None:
    one, other = reading("create", 1), Reading(kind="Server", id="s1", verb="create", as_of=at(1))
    changes, touched = apply(entry(5, other, one), lambda _: None)
    assert [change.key.kind for change in changes] == ["Server", "Port"]
    assert [key.source for key in touched] == ["region-one"] * 2
    assert {change.revision for change in changes} == {5}


@pytest.mark.parametrize("odd", [{"as_of": 2**63}, {"version": 2**63}, {"version": -(2**63) - 1}])
def test_numbers_that_no_store_can_keep_are_refused(odd: dict[str, int]) -> None:
    bad = msgspec.structs.replace(reading("create", 1), **odd)
    with pytest.raises(ValueError, match="64 bits"):
        apply(entry(5, bad), lambda _: None)


# --- for all inputs ---------------------------------------------------------------------------------------------------------


@for_all
@given(jsons, jsons, st.sampled_from(["", "p1", 'q"uote']), st.booleans(), st.sampled_from(["", "u1"]))
def test_what_is_encoded_can_be_read_back(fields: Any, admin: Any, project: str, shared: bool, owner: str) -> None:
    desk = Desk()
    one = reading("create", 1.25, project=project, shared=shared, owner=owner, fields=fields, admin=admin, created=at(0.5))
    (change,) = desk.add(one)
    state = desk.held[KEY].state
    back = decode(change.now, KEY, as_of=state.as_of, newest=state.version, deleted=False)
    assert back == state
    assert encode(back, entry(desk.revision).notice, T0 + desk.revision) == change.now, "the same bytes from what was read back"


@for_all
@given(jsons, jsons)
def test_tenants_get_valid_json_without_any_admin_field(fields: Any, admin: Any) -> None:
    (change,) = Desk().add(reading("create", 1, fields=fields, admin=admin))
    full, tenant = json.loads(change.now.admin_form()), json.loads(change.now.tenant_form())
    shown = {name: value for name, value in fields.items() if name != "id" and name not in admin}
    assert same_json(tenant["status"], plain({"id": ID, **shown}))
    assert same_json(full["status"], plain({"id": ID, **shown, **{n: v for n, v in admin.items() if n != "id"}}))
    assert {name: value for name, value in full.items() if name != "status"} == {
        name: value for name, value in tenant.items() if name != "status"
    }


@for_all
@given(jsons, jsons, st.integers(1, 2**53))
def test_a_restamped_state_differs_in_its_revision_only(fields: Any, admin: Any, revision: int) -> None:
    (change,) = Desk().add(reading("create", 1, fields=fields, admin=admin))
    again = restamp(change.now, revision)
    for form in ("admin_form", "tenant_form"):
        one, other = json.loads(getattr(change.now, form)()), json.loads(getattr(again, form)())
        assert other["metadata"].pop("resourceVersion") == str(revision)
        del one["metadata"]["resourceVersion"]
        assert one == other
    assert again.revision == revision
    assert restamp(again, change.revision) == change.now


@for_all
@given(st.permutations(range(5)), st.lists(jsons, min_size=5, max_size=5), st.booleans())
def test_full_readings_in_any_order_end_as_the_newest(order: list[int], said: list[Any], versions: bool) -> None:
    fields = ("a", "b", "c")
    full = [
        reading(
            "update",
            when,
            version=100 + when if versions else None,
            created=at(0),
            project=f"p{when}",
            shared=bool(when % 2),
            owner=f"u{when}",
            fields={name: said[when].get(name, when) for name in fields},
            admin={"host": when},
        )
        for when in range(5)
    ]
    state, alone = folded(*(full[index] for index in order)), folded(full[4])
    assert state is not None
    assert alone is not None
    assert msgspec.structs.replace(state, revision=0) == msgspec.structs.replace(alone, revision=0)


@for_all
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["create", "update", "delete"]),
            st.integers(0, 6),
            st.one_of(st.none(), st.integers(0, 4)),
            st.dictionaries(st.sampled_from(["a", "b", "id"]), st.sampled_from([0, 1, 1.0, True, [1], [1.0], {"x": 0, "y": 1}])),
            st.booleans(),
        ),
        max_size=10,
    ),
    st.data(),
)
def test_two_that_fold_the_same_log_hold_the_same_bytes_wherever_one_restarts(news: Any, data: st.DataObject) -> None:
    desk, twin = Desk(), Desk()
    for verb, when, version, fields, only_known in news:
        one = reading(verb, when, version=version, fields=fields, only_known=only_known)
        if data.draw(st.booleans()):
            twin.reopen()
        before = desk.held.get(KEY)
        changes = desk.add(one)
        assert twin.add(one) == changes
        now = desk.held.get(KEY)
        # Guarantee 4, and that versions and as-of of what is known never go back.
        if before is not None and now is not None:
            assert now.state.as_of >= before.state.as_of or now.state.version != before.state.version
            both = one.version is not None and before.state.version is not None
            late = (one.version, before.state.version) if both else (one.as_of, before.state.as_of)
            if late[0] < late[1]:  # type: ignore[operator]
                assert now == before
        for change in changes:
            assert change.verb != "MODIFIED" or not same_json(
                json.loads(change.before.body)["status"],
                json.loads(change.now.body)["status"],  # type: ignore[union-attr]
            )
    assert [(k, h.version) for k, h in desk.held.items()] == [(k, h.version) for k, h in twin.held.items()]
    # ADDED, MODIFIED*, DELETED, ADDED …: a watcher never sees anything else.
    alive = False
    for verb_ in desk.verbs:
        assert (verb_ == "ADDED") is not alive
        alive = verb_ != "DELETED"


# --- whole objects of another API server ------------------------------------------------------------------------------------

ROUTE = Key("prod", "route.openshift.io", "Route", "shop/front")


def route(version: int = 7, *, annotations: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    metadata = {
        "name": "front",
        "namespace": "shop",
        "uid": "11111111-2222-4333-8444-555555555555",
        "creationTimestamp": "2026-11-20T15:00:00Z",
        "labels": {"app": "shop"},
        "annotations": {"vedette.dev/origin-resource-version": str(version), **(annotations or {})},
    }
    spec = {"host": "shop.example", "template": {"metadata": {"resourceVersion": "1795187946000001"}}}
    return {"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": metadata, "spec": spec, **rest}


def whole(verb: str, when: float, fields: dict[str, Any] | None = None, **rest: Any) -> Reading:
    return Reading(
        kind="Route",
        group="route.openshift.io",
        id="shop/front",
        verb=verb,
        as_of=at(when),
        fields=fields or {},
        whole=True,
        **rest,
    )  # type: ignore[arg-type]


class Cluster(Desk):
    """What is held of one source of whole objects."""

    def add(self, *readings: Reading) -> list[Change]:
        self.revision += 1
        changes, touched = apply(entry(self.revision, *readings, source="prod"), self.held.get)
        self.held.update(touched)
        self.changes += changes
        return changes

    @property
    def state(self) -> Object:
        return self.held[ROUTE].state


def served_at_origin(body: bytes) -> Any:
    """Without what is ours in it."""
    found = json.loads(body)
    del found["metadata"]["resourceVersion"]
    for name in ("source", "origin", "event-type", "observed-at"):
        del found["metadata"]["annotations"][f"vedette.dev/{name}"]
    return found


def test_a_whole_object_is_served_as_at_its_origin_under_our_revision() -> None:
    desk = Cluster()
    (change,) = desk.add(whole("create", 1, route(status={"ingress": []}), version=7, project="p1"))
    assert (change.verb, change.key, change.now.project) == ("ADDED", ROUTE, "p1")
    assert change.now.admin_form() == change.now.tenant_form() == change.now.body
    assert served_at_origin(change.now.body) == route(status={"ingress": []})
    metadata = json.loads(change.now.body)["metadata"]
    assert metadata["resourceVersion"] == str(desk.revision)
    assert metadata["annotations"]["vedette.dev/source"] == "prod"
    assert metadata["labels"] == {"app": "shop"}
    assert (desk.state.uid, desk.state.created, desk.state.version) == (metadata["uid"], 1_795_186_800 * SECOND, 7)
    assert place_of(ROUTE, change.now) == ("front", "shop")


def test_the_two_forms_are_told_apart_by_their_first_key() -> None:
    (foreign,) = Cluster().add(whole("create", 1, route()))
    (ours,) = Desk().add(reading("create", 1))
    assert (is_whole(foreign.now), is_whole(ours.now)) == (True, False)
    assert foreign.now.body.startswith(b'{"kind":"Route","apiVersion":"route.openshift.io/v1",')
    assert ours.now.body.startswith(b'{"apiVersion":"openstack.vedette.dev/v1","kind":"Port",')
    assert place_of(KEY, ours.now) == (ID, NO_PROJECT)


def test_a_whole_reading_takes_the_place_of_all_that_was_known() -> None:
    desk = Cluster()
    desk.add(whole("create", 1, route(status={"a": 1}), version=7))
    (change,) = desk.add(whole("update", 2, route(8), version=8, only_known=True, parts=(rule("r1", 22),), admin={"h": 1}))
    assert change.verb == "MODIFIED"
    assert served_at_origin(change.now.body) == route(8)


def test_another_version_at_the_origin_alone_is_no_change_but_counts() -> None:
    desk = Cluster()
    desk.add(whole("create", 1, route(7), version=7))
    before = desk.held[ROUTE].version
    assert desk.add(whole("update", 2, route(9), version=9)) == []
    assert desk.held[ROUTE].version is before
    assert (desk.state.version, desk.state.as_of) == (9, at(2))
    assert desk.add(whole("update", 3, route(8, spec={}), version=8)) == [], "older than what was seen"
    desk.reopen()
    assert desk.add(whole("update", 4, route(10), version=10)) == []
    assert [change.verb for change in desk.add(whole("update", 5, route(11, spec={}), version=11))] == ["MODIFIED"]


@pytest.mark.parametrize("last", [None, route(9, spec={"host": "last.example"})])
def test_what_is_deleted_whole_carries_the_last_content(last: dict[str, Any] | None) -> None:
    desk = Cluster()
    desk.add(whole("create", 1, route(), version=7, project="p1"))
    (change,) = desk.add(whole("delete", 2, last))
    assert (change.verb, change.now.project) == ("DELETED", "p1")
    assert served_at_origin(change.now.body) == (last or route())
    assert desk.add(whole("update", 3, route(12), version=12)) == []
    assert [change.verb for change in desk.add(whole("create", 4, route(13), version=13))] == ["ADDED"]


def test_a_deletion_alone_is_news_in_part_of_a_whole_object() -> None:
    desk = Cluster()
    said = {"kind": "Route", "group": "route.openshift.io", "id": "shop/front"}
    desk.add(whole("create", 1, route()))
    assert desk.add(Reading(verb="update", as_of=at(2), fields={"spec": 1}, **said)) == []  # type: ignore[arg-type]
    (change,) = desk.add(Reading(verb="delete", as_of=at(3), **said))  # type: ignore[arg-type]
    assert (change.verb, served_at_origin(change.now.body)) == ("DELETED", route())


def test_a_namespace_that_is_mapped_no_longer_is_nobodys() -> None:
    desk = Cluster()
    desk.add(whole("create", 1, route(), project="p1"))
    (change,) = desk.add(whole("update", 2, route()))
    assert change.before is not None
    assert (change.verb, change.before.project, change.now.project) == ("MODIFIED", "p1", "")


def test_what_another_vedette_says_of_where_it_has_it_from_is_no_change() -> None:
    desk = Cluster()
    theirs = {
        "vedette.dev/origin": "notification",
        "vedette.dev/observed-at": "2026-11-20T15:00:00Z",
        "vedette.dev/source": "one",
    }
    (change,) = desk.add(whole("create", 1, route(annotations=theirs)))
    assert json.loads(change.now.body)["metadata"]["annotations"]["vedette.dev/source"] == "prod"
    later = {**theirs, "vedette.dev/origin": "resync", "vedette.dev/observed-at": "2026-11-21T15:00:00Z"}
    assert desk.add(whole("update", 2, route(8, annotations=later), version=8)) == []
    desk.reopen()
    assert desk.add(whole("update", 3, route(9, annotations=later), version=9)) == []


@pytest.mark.parametrize("metadata", [None, 5, {"name": 5, "uid": 7, "annotations": [], "creationTimestamp": 9, "namespace": []}])
def test_metadata_that_is_none_is_put_right(metadata: Any) -> None:
    desk = Cluster()
    (change,) = desk.add(whole("create", 1, {"apiVersion": 3, "metadata": metadata}))
    served = json.loads(change.now.body)
    assert (served["apiVersion"], served["kind"]) == ("route.openshift.io/v1", "Route")
    assert (served["metadata"]["name"], served["metadata"]["namespace"]) == ("front", "shop")
    assert served["metadata"]["uid"] == desk.state.uid
    assert desk.add(whole("update", 2, {"metadata": metadata})) == []


odd_metadata = st.dictionaries(
    st.one_of(
        names, st.sampled_from(["name", "uid", "labels", "creationTimestamp", "resourceVersion", "metadata", "generation"])
    ),
    st.one_of(values, st.just("2026-11-20T15:00:00Z"), st.just({"resourceVersion": "1795187946000001"})),
    max_size=4,
)
annotated = st.dictionaries(st.one_of(names, st.just("vedette.dev/origin")), texts, max_size=3)
wholes = st.builds(
    lambda fields, metadata, annotations: {**fields, "metadata": {**metadata, "annotations": annotations}},
    st.dictionaries(st.one_of(names, st.sampled_from(["spec", "kind", "apiVersion"])), values, max_size=4),
    odd_metadata,
    annotated,
)


@for_all
@given(wholes, st.sampled_from(["", "p1"]))
def test_whole_objects_can_be_read_back_from_what_is_served(fields: Any, project: str) -> None:
    desk = Cluster()
    (change,) = desk.add(whole("create", 1.25, fields, project=project, version=3))
    state = desk.state
    back = decode(change.now, ROUTE, as_of=state.as_of, newest=state.version, deleted=False)
    assert back == state
    assert list(back.fields) == list(state.fields)
    assert encode(back, entry(desk.revision).notice, T0 + desk.revision) == change.now
    assert change.now.tenant_form() == change.now.body
    assert json.loads(change.now.body)["metadata"]["resourceVersion"] == str(desk.revision)
    rest = {name: value for name, value in fields.items() if name not in ("kind", "apiVersion", "metadata")}
    assert same_json({name: json.loads(change.now.body)[name] for name in rest}, plain(rest))


@for_all
@given(wholes, st.integers(1, 2**53))
def test_a_restamped_whole_object_differs_in_its_revision_only(fields: Any, revision: int) -> None:
    (change,) = Cluster().add(whole("create", 1, fields))
    again = restamp(change.now, revision)
    one, other = json.loads(change.now.body), json.loads(again.body)
    assert other["metadata"].pop("resourceVersion") == str(revision)
    del one["metadata"]["resourceVersion"]
    assert one == other
    assert again.tenant_form() == again.body
    assert restamp(again, change.revision) == change.now


@for_all
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["create", "update", "delete"]), st.integers(0, 9), st.one_of(st.just({}), wholes), st.booleans()
        ),
        max_size=8,
    ),
    st.data(),
)
def test_two_that_fold_the_same_whole_objects_hold_the_same_bytes(news: Any, data: st.DataObject) -> None:
    desk, twin = Cluster(), Cluster()
    for verb, version, fields, said_whole in news:
        one = msgspec.structs.replace(whole(verb, version, fields, version=version), whole=said_whole)
        if data.draw(st.booleans()):
            twin.reopen()
        assert twin.add(one) == desk.add(one)
    assert [(k, h.version) for k, h in desk.held.items()] == [(k, h.version) for k, h in twin.held.items()]


# --- names ------------------------------------------------------------------------------------------------------------------

ALLOWED = set(string.ascii_letters + string.digits + "._:@-~")


@for_all
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_names_are_one_to_one_and_have_only_allowed_characters(one: str, other: str) -> None:
    assert id_of(name_of(one)) == one
    assert set(name_of(one)) <= ALLOWED
    assert name_of(one) not in (".", "..")
    assert (name_of(one) == name_of(other)) == (one == other)


@pytest.mark.parametrize("id_", [".", "..", "...", "~", "~41", "a/b", "u1:my key", "ü", "%41", "", "A", "~2e"])
def test_odd_ids_survive(id_: str) -> None:
    assert id_of(name_of(id_)) == id_


@pytest.mark.parametrize("name", ["~41", "~", "~4", "~ZZ", "~2E", "~ff", "a/b"])
def test_a_name_that_no_id_has_is_no_other_objects_name(name: str) -> None:
    assert id_of(name) == name


@pytest.mark.parametrize(
    ("id_", "uid"),
    [
        (ID, ID),
        (ID.replace("-", ""), ID),
        ("6f1c1b1e-9d0c4a528f640d6f5a1f2b3c", ID),
    ],
)
def test_an_id_that_is_a_uuid_is_the_uid(id_: str, uid: str) -> None:
    changes, _ = apply(entry(5, Reading(kind="Port", id=id_, verb="create", as_of=T0)), lambda _: None)
    assert json.loads(changes[0].now.body)["metadata"]["uid"] == uid


def test_other_ids_get_a_uid_that_differs_by_life() -> None:
    def uid(revision: int) -> str:
        changes, _ = apply(entry(revision, Reading(kind="KeyPair", id="u1:k", verb="create", as_of=T0)), lambda _: None)
        return str(json.loads(changes[0].now.body)["metadata"]["uid"])

    assert uid(5) == uid(5)
    assert uid(5) != uid(6)
