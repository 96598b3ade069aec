"""What an audit's scope may be, and what it leaves of a cloud."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.engine.scope import check, narrowed, normal
from vedette.errors import Invalid
from vedette.model.snapshot import Aggregate, Host, Machine, Pool, Server, Snapshot, Volume, VolumeType

# --- what may be said ------------------------------------------------------------------------------------------------------

RULES: list[Any] = [
    {"host_aggregates": [{"id": 1}, {"id": 2}, {"name": "gpu"}]},
    {"availability_zones": [{"name": "nova"}]},
    {
        "exclude": [
            {"instances": [{"uuid": "s1"}]},
            {"compute_nodes": [{"name": "one"}]},
            {"instance_metadata": [{"keep": True, "tier": "gold"}]},
            {"projects": [{"uuid": "p1"}]},
        ]
    },
]
STORAGE: list[Any] = [
    {"availability_zones": [{"name": "nova"}]},
    {"volume_types": [{"name": "fast"}]},
    {"exclude": [{"storage_pools": [{"name": "a@b#c"}]}, {"volumes": [{"uuid": "v"}]}, {"projects": [{"uuid": "p"}]}]},
]

GOOD: list[tuple[Any, Any]] = [
    ([], []),
    ([{}], []),
    ([{"compute": RULES}], [{"compute": RULES}]),
    (RULES, [{"compute": RULES}]),
    ([{"storage": STORAGE}], [{"storage": STORAGE}]),
    ([{"compute": RULES}, {"storage": STORAGE}], [{"compute": RULES}, {"storage": STORAGE}]),
    ([{"storage": STORAGE, "compute": RULES}], [{"storage": STORAGE, "compute": RULES}]),
    ([{"host_aggregates": [{"id": "*"}]}], [{"compute": [{"host_aggregates": [{"id": "*"}]}]}]),
    (
        [{"exclude": [{"host_aggregates": [{"name": "old"}]}]}],
        [{"compute": [{"exclude": [{"host_aggregates": [{"name": "old"}]}]}]}],
    ),
]


@pytest.mark.parametrize(("scope", "kept"), GOOD)
def test_a_scope_is_kept_in_one_form(scope: Any, kept: Any) -> None:
    assert normal(scope) == kept
    assert normal(kept) == kept


BAD: list[tuple[Any, str]] = [
    (None, "is a list of rules, or of compute and storage, not null"),
    ({"compute": []}, "not an object"),
    ("*", "not '*'"),
    ([5], "[0] is an object with compute or storage, not 5"),
    ([{"computer": []}], "[0] knows no 'computer': there are host_aggregates, availability_zones, exclude"),
    ([{"compute": []}, {"disk": []}], "[1] knows no 'disk': there are compute, storage"),
    ([{"compute": {}}], "[0].compute is a list, not an empty object"),
    ([{"compute": [{"zones": []}]}], "[0].compute[0] knows no 'zones'"),
    ([{"host_aggregates": [{"id": "3"}]}], "[0].host_aggregates[0].id is a whole number or \"*\", not '3'"),
    ([{"host_aggregates": [{"id": True}]}], "not true"),
    ([{"host_aggregates": [{"id": 1, "name": "x"}]}], "[0].host_aggregates[0] has id and name: give one of id, name"),
    ([{"host_aggregates": [{}]}], "[0].host_aggregates[0] has nothing"),
    ([{"host_aggregates": [{"id": "*"}, {"id": 4}]}], '"*", which is all of them'),
    ([{"availability_zones": [{"name": "*"}, {"name": "a"}]}], '"*", which is all of them'),
    ([{"availability_zones": [{"name": 1}]}], "[0].availability_zones[0].name is a text, not 1"),
    ([{"exclude": [{"instances": ["s1"]}]}], "[0].exclude[0].instances[0] is an object with uuid, not 's1'"),
    ([{"exclude": [{"instance_metadata": [{}]}]}], "a server's metadata must all have, not an empty object"),
    ([{"exclude": {"instances": []}}], "[0].exclude is a list, not an object"),
    ([{"storage": [{"host_aggregates": []}]}], "[0].storage[0] knows no 'host_aggregates'"),
    ([{"storage": [{"volume_types": [{"id": "x"}]}]}], "[0].storage[0].volume_types[0] knows no 'id'"),
    ([{"host_aggregates": []}, {"exclude": [{"host_aggregates": [{"id": 1}]}]}], "can't be included and excluded together"),
    (
        [{"storage": []}, {"compute": [{"host_aggregates": [], "exclude": [{"host_aggregates": []}]}]}],
        "can't be included and excluded together",
    ),
]


@pytest.mark.parametrize(("scope", "text"), BAD)
def test_a_scope_that_is_wrong_is_refused_with_its_place(scope: Any, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(scope)
    assert refused.value.field == "scope"
    assert text in str(refused.value)


# --- what it leaves --------------------------------------------------------------------------------------------------------

CLOUD = Snapshot(
    revision=7,
    hosts=(
        Host(uuid="h1", hostname="one.example", service_host="one", zone="east"),
        Host(uuid="h2", hostname="two.example", service_host="two", zone="east"),
        Host(uuid="h3", hostname="three.example", service_host="three", zone="west"),
    ),
    servers=(
        Server(uuid="s1", host="one.example", project="p1", metadata={"keep": "True", "tier": "gold"}),
        Server(uuid="s2", host="two.example", project="p2", metadata={"keep": "true", "tier": "tin"}),
        Server(uuid="s3", host="three.example", project="p2"),
        Server(uuid="s4", host="", project="p1"),
    ),
    aggregates=(
        Aggregate(id=1, name="gpu", hosts=("one",)),
        Aggregate(id=2, name="old", hosts=("two", "gone")),
        Aggregate(id=3, name="*none", hosts=()),
    ),
    machines=(Machine(uuid="m1", hostname="one.example"), Machine(uuid="m9", hostname="spare")),
    pools=(
        Pool(name="a@fast#1", backend_name="fast", zone="east"),
        Pool(name="b@slow#1", zone="west"),
        Pool(name="c@big#1", backend_name="big"),
    ),
    volumes=(
        Volume(uuid="v1", pool="a@fast#1", project="p1", zone="east"),
        Volume(uuid="v2", pool="b@slow#1", project="p2", zone="west"),
        Volume(uuid="v3", pool="c@big#1", project="p2", zone="south"),
        Volume(uuid="v4", pool="", project="p1"),
    ),
    volume_types=(
        VolumeType(name="gold", extra_specs={"volume_backend_name": "fast"}),
        VolumeType(name="lead", extra_specs={"volume_backend_name": "slow"}),
        VolumeType(name="any"),
    ),
)


def shown(snapshot: Snapshot) -> tuple[str, str, str]:
    """Hosts, servers (excluded ones with a !) and machines."""
    hosts = " ".join(one.uuid for one in snapshot.hosts)
    servers = " ".join(one.uuid + "!" * one.excluded for one in snapshot.servers)
    return hosts, servers, " ".join(one.uuid for one in snapshot.machines)


COMPUTE: list[tuple[list[Any], tuple[str, str, str]]] = [
    ([], ("h1 h2 h3", "s1 s2 s3 s4", "m1 m9")),
    ([{"host_aggregates": [{"id": 1}]}], ("h1", "s1", "m1 m9")),
    ([{"host_aggregates": [{"name": "old"}]}], ("h2", "s2", "m9")),
    ([{"host_aggregates": [{"id": "*"}]}], ("h1 h2", "s1 s2", "m1 m9")),
    ([{"host_aggregates": [{"name": "*"}]}], ("h1 h2", "s1 s2", "m1 m9")),
    ([{"host_aggregates": [{"id": 9}]}], ("", "", "m9")),
    ([{"host_aggregates": []}], ("", "", "m9")),
    ([{"availability_zones": [{"name": "east"}]}], ("h1 h2", "s1 s2", "m1 m9")),
    ([{"availability_zones": [{"name": "*"}]}], ("h1 h2 h3", "s1 s2 s3", "m1 m9")),
    ([{"availability_zones": [{"name": "west"}]}, {"host_aggregates": [{"id": 1}]}], ("h1 h3", "s1 s3", "m1 m9")),
    ([{"exclude": [{"instances": [{"uuid": "s2"}, {"uuid": "nobody"}]}]}], ("h1 h2 h3", "s1 s2! s3 s4", "m1 m9")),
    ([{"exclude": [{"compute_nodes": [{"name": "one.example"}]}]}], ("h2 h3", "s2 s3 s4", "m9")),
    ([{"exclude": [{"compute_nodes": [{"name": "two"}, {"name": "nowhere"}]}]}], ("h1 h3", "s1 s3 s4", "m1 m9")),
    ([{"exclude": [{"host_aggregates": [{"id": 1}, {"name": "old"}]}]}], ("h3", "s3 s4", "m9")),
    ([{"exclude": [{"projects": [{"uuid": "p2"}]}]}], ("h1 h2 h3", "s1 s2! s3! s4", "m1 m9")),
    # All pairs of an entry have to match, any of the entries.
    ([{"exclude": [{"instance_metadata": [{"keep": True, "tier": "Gold"}]}]}], ("h1 h2 h3", "s1! s2 s3 s4", "m1 m9")),
    ([{"exclude": [{"instance_metadata": [{"keep": True}]}]}], ("h1 h2 h3", "s1! s2! s3 s4", "m1 m9")),
    ([{"exclude": [{"instance_metadata": [{"tier": "gold"}, {"tier": "tin"}]}]}], ("h1 h2 h3", "s1! s2! s3 s4", "m1 m9")),
    ([{"exclude": [{"instance_metadata": [{"keep": True, "more": "x"}]}]}], ("h1 h2 h3", "s1 s2 s3 s4", "m1 m9")),
    (
        [{"availability_zones": [{"name": "east"}]}, {"exclude": [{"compute_nodes": [{"name": "one"}]}]}],
        ("h2", "s2", "m9"),
    ),
]


@pytest.mark.parametrize(("rules", "left"), COMPUTE)
def test_what_a_scope_leaves_of_hosts_and_servers(rules: list[Any], left: tuple[str, str, str]) -> None:
    assert shown(narrowed(CLOUD, normal(rules))) == left
    assert shown(narrowed(CLOUD, rules)) == left, "a bare list of rules is the same"


def test_compute_rules_leave_storage_alone_and_the_other_way_round() -> None:
    none = [{"host_aggregates": [{"id": 9}]}]
    assert narrowed(CLOUD, none).volumes == CLOUD.volumes
    assert narrowed(CLOUD, [{"storage": [{"volume_types": [{"name": "no such"}]}]}]).servers == CLOUD.servers


OF_STORAGE: list[tuple[list[Any], str, str]] = [
    ([{"availability_zones": [{"name": "east"}]}], "a@fast#1", "v1"),
    # The zone of the last pool isn't known: it is where its volumes are.
    ([{"availability_zones": [{"name": "south"}]}], "c@big#1", "v3"),
    ([{"availability_zones": [{"name": "*"}]}], "a@fast#1 b@slow#1 c@big#1", "v1 v2 v3"),
    ([{"volume_types": [{"name": "gold"}]}], "a@fast#1", "v1"),
    ([{"volume_types": [{"name": "lead"}]}], "b@slow#1", "v2"),
    ([{"volume_types": [{"name": "any"}]}], "", ""),
    ([{"volume_types": [{"name": "*"}]}], "a@fast#1 b@slow#1 c@big#1", "v1 v2 v3"),
    ([{"volume_types": [{"name": "gold"}]}, {"availability_zones": [{"name": "west"}]}], "a@fast#1 b@slow#1", "v1 v2"),
    ([{"exclude": [{"storage_pools": [{"name": "a@fast#1"}]}]}], "b@slow#1 c@big#1", "v2 v3 v4"),
    ([{"exclude": [{"volumes": [{"uuid": "v2"}]}]}], "a@fast#1 b@slow#1 c@big#1", "v1 v3 v4"),
    ([{"exclude": [{"projects": [{"uuid": "p2"}]}]}], "a@fast#1 b@slow#1 c@big#1", "v1 v4"),
]


@pytest.mark.parametrize(("rules", "pools", "volumes"), OF_STORAGE)
def test_what_a_scope_leaves_of_pools_and_volumes(rules: list[Any], pools: str, volumes: str) -> None:
    left = narrowed(CLOUD, [{"storage": rules}])
    assert " ".join(one.name for one in left.pools) == pools
    assert " ".join(one.uuid for one in left.volumes) == volumes


def test_the_snapshot_that_was_given_is_as_it_was() -> None:
    before = msgspec.json.encode(CLOUD)
    narrowed(CLOUD, [*RULES, {"exclude": [{"projects": [{"uuid": "p2"}]}]}])
    assert msgspec.json.encode(CLOUD) == before


# --- whatever is sent ------------------------------------------------------------------------------------------------------

WORDS = ["compute", "storage", "host_aggregates", "availability_zones", "exclude", "instances", "compute_nodes", "projects"]
WORDS += ["instance_metadata", "volume_types", "storage_pools", "volumes", "id", "name", "uuid", "keep", "*"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["*", "one", "p1", "east", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)
named = {
    key: st.lists(st.fixed_dictionaries({key: st.sampled_from(["p1", "s1", "east", "one", "gold"])}), max_size=2)
    for key in ("name", "uuid")
}
nearly = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "availability_zones": named["name"],
            "host_aggregates": st.lists(st.fixed_dictionaries({"id": st.integers(0, 3)}), max_size=2) | anything,
            "exclude": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "instances": named["uuid"],
                        "projects": named["uuid"],
                        "instance_metadata": st.lists(st.dictionaries(st.sampled_from(["keep", "tier"]), anything), max_size=2),
                        "compute_nodes": named["name"] | anything,
                    },
                ),
                max_size=2,
            ),
        },
    ),
    max_size=3,
)


def asked(scope: Any) -> tuple[list[dict[str, Any]], Invalid | None]:
    try:
        return normal(scope), None
    except Invalid as refused:
        return [], refused


@settings(max_examples=200, deadline=None)
@given(anything | nearly)
def test_every_scope_is_refused_with_a_sentence_or_can_be_applied(scope: Any) -> None:
    kept, refused = asked(scope)
    if refused is not None:
        assert refused.field == "scope"
        assert len(str(refused)) < 500
        return
    check(kept)
    left = narrowed(CLOUD, kept)
    assert {one.uuid for one in left.servers} <= {one.uuid for one in CLOUD.servers}
    here = {one.hostname for one in left.hosts}
    assert here <= set(CLOUD.host)
    assert all(one.host in here or not one.host for one in left.servers), "no server without its host"
    assert narrowed(left, kept) == left, "a second time changes nothing"
