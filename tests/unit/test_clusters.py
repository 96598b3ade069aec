"""`api/clusters.py`: what a Kubernetes source has, from its Resource objects; on both stores."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from vedette.api.clusters import is_kubernetes, namespaces, resources, with_namespaces
from vedette.api.discovery import Resource
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE, Reading
from vedette.ports import EVERYTHING, Scope, SourceStatus, Store
from vedette.store.memory import MemoryStore
from vedette.store.sqlite import SqliteStore
from vedette.testing.clock import FakeClock

NUMBERS = itertools.count(1)
ROUTE = Resource(group="route.openshift.io", version="v1", plural="routes", singular="route", kind="Route", namespaced=True)
POD = Resource(group="", version="v1", plural="pods", singular="pod", kind="Pod", namespaced=True, short_names=("po",))
NODE = Resource(group="", version="v1", plural="nodes", singular="node", kind="Node", namespaced=False)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    clock = FakeClock()
    store = MemoryStore(clock) if request.param == "memory" else await SqliteStore.open(tmp_path, clock)
    yield store
    await store.close()


async def said(store: Store, source: str, *readings: Reading) -> None:
    notice = Notice(
        id=str(next(NUMBERS)), source=source, event_type="vedette.resource", sent_at=0, payload=msgspec.Raw(b"{}")
    )  # fmt: skip
    await store.append([NewEntry(notice, readings)])


def of(one: Resource, **more: Any) -> Reading:
    fields = {
        "plural": one.plural, "singular": one.singular, "kind": one.kind, "group": one.group, "version": one.version,
        "namespaced": one.namespaced, "shortNames": one.short_names, "categories": one.categories, **more,
    }  # fmt: skip
    id_ = f"{one.plural}.{one.group}/{one.version}" if one.group else f"{one.plural}/{one.version}"
    return Reading(kind="Resource", group=VEDETTE, id=id_, verb="update", as_of=next(NUMBERS), fields=fields)


def whole(one: Resource, id_: str, project: str | None = None) -> Reading:
    fields: dict[str, Any] = {"spec": {}}
    return Reading(
        kind=one.kind, group=one.group, id=id_, verb="create", as_of=next(NUMBERS), fields=fields, whole=True, project=project
    )


async def test_resources_are_those_of_the_source_each_once_and_odd_ones_are_passed_over(store: Store) -> None:
    await said(store, "prod", of(POD), of(ROUTE), of(ROUTE, singular=""))
    await said(store, "test", of(NODE), of(ROUTE))
    await said(store, "prod", Reading(kind="Resource", group=VEDETTE, id="odd", verb="update", as_of=1, fields={"plural": []}))
    # Another Vedette's own.
    await said(store, "prod", Reading(kind="Resource", group=VEDETTE, id="no-project/x", verb="create", as_of=1, whole=True))
    assert await resources(store, "prod") == (POD, ROUTE)
    assert await resources(store, "") == (POD, ROUTE, NODE)
    assert await resources(store, "none") == ()
    assert [one.plural for one in with_namespaces((POD,))] == ["namespaces", "pods"]
    followed = msgspec.structs.replace(NODE, plural="namespaces", kind="Namespace")
    assert with_namespaces((followed,)) == (followed,)


async def test_a_source_is_a_kubernetes_one_by_its_type_or_by_what_it_told(store: Store) -> None:
    await said(store, "told", of(POD))
    typed = SourceStatus("typed", "kubernetes", False, "")
    needs: Any = SimpleNamespace(store=store, sources=lambda: [typed, SourceStatus("one", "openstack", True, "")])
    assert [await is_kubernetes(needs, name) for name in ("told", "typed", "one", "none")] == [True, True, False, False]


async def test_namespaces_are_found_whatever_their_names_and_seen_by_who_sees_an_object_there(store: Store) -> None:
    names = ["a", "a-b", "a.b", "a0", "a0-c", "b", "ab", "z~"]
    for name in names:
        for number in range(3):
            await said(store, "prod", whole(ROUTE, f"{name}/r{number}", "p1" if name in ("a0", "b") else None))
    await said(store, "prod", whole(POD, "only-pods/x"), whole(NODE, "n1"), whole(POD, "without"))
    await said(store, "test", whole(ROUTE, "elsewhere/x"))
    there = (POD, ROUTE, NODE)
    assert await namespaces(store, "prod", EVERYTHING, store.head, there) == sorted([*names, "only-pods"])
    assert await namespaces(store, "prod", Scope(projects=frozenset({"p1"})), store.head, there) == ["a0", "b"]
    assert await namespaces(store, "prod", Scope(projects=frozenset({"p2"})), store.head, there) == []
    assert await namespaces(store, "prod", EVERYTHING, store.head, ()) == []
