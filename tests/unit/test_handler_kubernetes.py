"""One object for one event, however often the event is handled; and no change of an object that has moved on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater
from vedette.handlers import kubernetes
from vedette.handlers._cluster import Cluster
from vedette.handlers.kubernetes import IDEMPOTENCY_KEY, KubernetesHandler, Options
from vedette.kit.secret import Secret
from vedette.model.fold import ORIGIN_VERSION
from vedette.model.reading import Key
from vedette.ports import Event, JsonObject
from vedette.testing.handling import FakeContext, change, handler_needs, notice_event
from vedette.testing.kubernetes import FakeKubernetes

NOTE = '{{"data": {{"status": {object.status.status}, "text": "port {key.id} is {object.status.status}"}}}}'


class Rig:
    def __init__(self, cluster: FakeKubernetes) -> None:
        self.cluster = cluster
        self.maps = cluster.define("v1", "configmaps", "ConfigMap")
        self.routes = cluster.define("route.openshift.io/v1", "routes", "Route", crd=True)
        self.handlers: list[KubernetesHandler] = []

    def build(self, **options: Any) -> KubernetesHandler:
        settings = {
            "resource": "configmaps",
            "namespace": "ports",
            "name": "port-{object.status.name}",
            "body": NOTE,
            "cluster": Cluster(server=self.cluster.url, token=Secret(self.cluster.token)),
            **options,
        }
        self.handlers.append(kubernetes.build(Options(**settings), handler_needs()))
        return self.handlers[-1]

    async def does(self, event: Event, **options: Any) -> str | None:
        return await self.build(**options).handle(event, FakeContext())

    def map(self, name: str = "ports/port-web") -> JsonObject:
        return self.cluster.objects(self.maps)[name]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeKubernetes() as cluster:
        rig = Rig(cluster)
        yield rig
        for handler in rig.handlers:
            await handler.close()


def port(status: str = "ACTIVE", **more: Any) -> Event:
    return change({"name": "web", "status": status}, id="p1", **more)


def told(found: JsonObject) -> Event:
    """The event of a Route, as a Kubernetes source has it: with our resourceVersion, and the origin's in an annotation."""
    metadata = found["metadata"]
    notes = {**metadata.get("annotations", {}), ORIGIN_VERSION: metadata["resourceVersion"]}
    served = {**found, "metadata": {**metadata, "resourceVersion": "1795187946000042", "annotations": notes}}
    key = Key("prod", "route.openshift.io", "Route", "shop/web")
    return msgspec.structs.replace(change(), key=key, raw_object=msgspec.Raw(msgspec.json.encode(served)))


PATCH_ROUTE: dict[str, Any] = {
    "mode": "patch",
    "resource": "routes.route.openshift.io",
    "namespace": "{object.metadata.namespace}",
    "name": "{object.metadata.name}",
    "body": '{{"metadata": {{"labels": {{"seen": "yes"}}}}}}',
}


async def test_an_object_is_created_once_for_an_event(rig: Rig) -> None:
    assert await rig.does(port(), mode="create") == "created configmaps/v1 ports/port-web"
    assert rig.map()["data"] == {"status": "ACTIVE", "text": "port p1 is ACTIVE"}
    assert rig.map()["metadata"]["annotations"] == {IDEMPOTENCY_KEY: "here/1795187946000042"}
    assert await rig.does(port(attempt=2), mode="create") == "configmaps/v1 ports/port-web was created before"
    with pytest.raises(GiveUp, match="is there already, and not of this event"):
        await rig.does(port(revision=1_795_187_946_000_043), mode="create")


async def test_apply_makes_it_so_whether_it_is_there_or_not(rig: Rig) -> None:
    for status in ("DOWN", "ACTIVE", "ACTIVE"):
        assert await rig.does(port(status)) == "applied configmaps/v1 ports/port-web"
        assert rig.map()["data"]["status"] == status
    applied = rig.cluster.asked("patch")
    assert {one.query["fieldManager"] for one in applied} == {"vedette"}
    assert rig.map()["metadata"]["generation"] == 2  # the third changed nothing: no event for anybody


async def test_a_patch_changes_what_is_there_and_nothing_else(rig: Rig) -> None:
    with pytest.raises(GiveUp, match="not found"):
        await rig.does(port(), mode="patch")
    rig.cluster.put(rig.maps, "ports/port-web", {"data": {"mine": "stays"}})
    assert await rig.does(port(), mode="patch", patch="strategic") == "patched configmaps/v1 ports/port-web"
    assert rig.map()["data"] == {"mine": "stays", "status": "ACTIVE", "text": "port p1 is ACTIVE"}


async def test_a_strategic_patch_of_a_custom_resource_is_merged(rig: Rig) -> None:
    found = rig.cluster.put(rig.routes, "shop/web", {"spec": {"host": "www.example.org"}})
    assert await rig.does(told(found), **PATCH_ROUTE, patch="strategic") == "patched routes.route.openshift.io/v1 shop/web"
    assert [one.content_type for one in rig.cluster.asked("patch")] == [
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
    ]


async def test_the_events_own_object_is_patched_only_while_it_is_what_the_event_says(rig: Rig) -> None:
    found = rig.cluster.put(rig.routes, "shop/web", {"spec": {"host": "www.example.org"}})
    rig.cluster.put(rig.routes, "shop/web", {"spec": {"host": "new.example.org"}})
    where = "routes.route.openshift.io/v1 shop/web"
    assert await rig.does(told(found), **PATCH_ROUTE) == f"{where} has changed since: nothing done"
    now = rig.cluster.objects(rig.routes)["shop/web"]
    assert "labels" not in now["metadata"]
    assert await rig.does(told(now), **PATCH_ROUTE) == f"patched {where}"
    # a call whose answer was lost comes again: what it did is there
    assert await rig.does(told(now), **PATCH_ROUTE) == f"{where} has changed since: nothing done"
    assert await rig.does(told(now), **PATCH_ROUTE, precondition=False) == f"patched {where}"
    rig.cluster.remove(rig.routes, "shop/web")
    rig.cluster.put(rig.routes, "shop/web", {"spec": {}})
    with pytest.raises(GiveUp, match="only called like it"):
        await rig.does(told(now), **PATCH_ROUTE)


async def test_what_the_cluster_says_decides_what_becomes_of_the_event(rig: Rig) -> None:
    rig.cluster.fail(500, verb="patch", message="odd")
    with pytest.raises(TryLater, match="odd") as later:
        await rig.does(port())
    assert not isinstance(later.value, TargetUnavailable)  # it is this request that is odd: the API answers others
    rig.cluster.fail(422, verb="patch", message="data: Invalid value")
    with pytest.raises(GiveUp, match="Invalid value"):
        await rig.does(port())
    rig.cluster.fail(409, verb="patch", message="Apply failed with 1 conflict")
    with pytest.raises(GiveUp, match="or set `force`"):
        await rig.does(port())
    rig.cluster.revoke("configmaps", "create", "patch")
    with pytest.raises(GiveUp, match="give the account a Role with this verb"):
        await rig.does(port(), mode="create")
    with pytest.raises(GiveUp, match="serves no nonsense"):
        await rig.does(port(), resource="nonsense")
    rig.cluster.fail(503, times=100)
    with pytest.raises(TargetUnavailable):
        await rig.does(port())
    rig.cluster.faults.clear()
    with pytest.raises(TargetUnavailable, match="does not let us in"):
        await rig.does(port(), cluster=Cluster(server=rig.cluster.url, token=Secret("another")))
    await rig.cluster.stop()
    with pytest.raises(TargetUnavailable):
        await rig.does(port())


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a%2fb", "a b", "x" * 254, "../../../api/v1/secrets/x"])
async def test_a_name_leads_nowhere_else(rig: Rig, name: str) -> None:
    for options in ({"name": "{object.status.name}"}, {"name": "x", "namespace": "{object.status.name}"}):
        with pytest.raises(GiveUp, match="can't be the name"):
            await rig.does(change({"name": name, "status": "ACTIVE"}), **options)
    assert not rig.cluster.asked("patch")


async def test_an_event_that_lacks_what_the_object_is_made_of_is_a_dead_letter(rig: Rig) -> None:
    with pytest.raises(GiveUp, match="has no value in this event"):
        await rig.does(notice_event({}))
    for body in ("[]", '{{"metadata": 1}}'):
        with pytest.raises(GiveUp, match="no JSON object"):
            await rig.does(port(), body=body)
    with pytest.raises(GiveUp, match="is no mapping"):
        await rig.does(port(), mode="create", body='{{"metadata": {{"annotations": 1}}}}')


@given(st.text(max_size=50))
def test_any_text_of_an_object_stays_a_text_of_the_body(text: str) -> None:
    with contextlib.suppress(UnicodeError, GiveUp):
        made = kubernetes.build(Options(resource="configmaps", name="x", body=NOTE), handler_needs())
        values = kubernetes.Values(change({"name": "web", "status": text}, id="p1"))
        body = kubernetes._body(made._body.fill(values))
        assert body["data"]["status"] == text
        assert set(body) == {"data", "metadata"}


def test_settings_that_can_not_work_are_refused_at_the_start() -> None:
    for wrong in (
        {"body": "no JSON"},
        {"name": "{nothing}"},
        {"field_manager": ""},
        {"cluster": Cluster(server="ftp://x")},
        {"cluster": Cluster(server="https://x", kubeconfig="y")},
        {"cluster": Cluster(token=Secret("t"))},
    ):
        with pytest.raises(ConfigError):
            kubernetes.build(Options(**{"resource": "configmaps", "name": "x", **wrong}), handler_needs())  # type: ignore[arg-type]
