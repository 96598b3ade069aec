"""Creates or changes an object in a Kubernetes or OpenShift cluster for each event.

In: an event. Out: one object, made of safe templates, by `create`, `patch` or server-side `apply` (clients/kubernetes.py).

- `create`: the object bears the delivery's idempotency key (`vedette.dev/idempotency-key`). One that is there with the same key
  is ours: the call was made before. Any other one of that name is a dead letter.
- `patch` and `apply`: where the event's own object is changed, that is only done while it is what the event says: its
  resourceVersion at the origin is put back. If it has changed since, nothing is done: that change has an event of its own. No
  mark is left in the object, for each would be another change of it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from vedette.clients.kubernetes import Resource
from vedette.errors import BadRequest, ConfigError, Conflict, GiveUp, NotFound, TryLater
from vedette.handlers._cluster import Cluster, connect, judged
from vedette.handlers._template import Missing, Values, template
from vedette.model.fold import ORIGIN_VERSION
from vedette.ports import Context, Event, HandlerNeeds, JsonObject

IDEMPOTENCY_KEY = "vedette.dev/idempotency-key"

_NAME = re.compile(r"(?!\.{1,2}$)[^/%\x00-\x20\x7f]{1,253}", re.ASCII)
"""What fits into a path as one segment, and stays there. https://kubernetes.io/docs/concepts/overview/working-with-objects/names/"""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one `kubernetes` handler."""

    resource: str
    """What to write, such as `configmaps` or `routes.route.openshift.io/v1`."""
    name: str
    """The object's name, a template such as `port-{key.id}`."""
    namespace: str = ""
    """Its namespace, a template; none: the account's own."""
    mode: Literal["create", "patch", "apply"] = "apply"
    """`create` a new one, `patch` one that is there, or `apply`: make it so, whether it is there or not."""
    body: str = "{{}}"
    """The object, or what of it to change: a template in JSON. `apiVersion`, `kind`, name and namespace are added."""
    patch: Literal["merge", "strategic"] = "merge"
    """How lists are merged by `patch`: replaced as a whole, or `strategic`, by their items' keys, where the API can."""
    field_manager: str = "vedette"
    """Under which name the cluster notes who owns the fields. What this name changes is not handled by this handler again; two
    handlers that are to react to each other need two."""
    force: bool = False
    """Let `apply` take fields that another manager owns."""
    precondition: bool = True
    """Change the event's own object only while it is what the event says."""
    missing: Missing = "fail"
    """When a template names a value that an event doesn't have: `fail` (a dead letter), or `empty` (in JSON `null`)."""
    cluster: Cluster = Cluster()
    """The cluster."""


def build(options: Options, needs: HandlerNeeds) -> KubernetesHandler:
    """The handler for these settings. Raises ConfigError; nothing is sent yet."""
    return KubernetesHandler(options, needs)


class KubernetesHandler:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        if not options.field_manager.isprintable() or not 1 <= len(options.field_manager) <= 128:
            raise ConfigError("wants 1 to 128 printable characters", path="field_manager")
        self._options = options
        self._name = template(options.name, missing="fail", path="name")
        self._namespace = template(options.namespace, missing="fail", path="namespace")
        self._body = template(options.body, "json", missing=options.missing, path="body")
        self._api = connect(options.cluster, needs.clock)
        self._resource: Resource | None = None
        self.acts_as = frozenset((options.field_manager,))
        """What it changes in a cluster that is followed is known by this."""

    async def handle(self, event: Event, context: Context) -> str | None:
        """Errors as in _cluster.py."""
        values = Values(event)
        name, namespace = self._name.fill(values), self._namespace.fill(values)
        body = _body(self._body.fill(values))
        async with judged(self._api):
            if self._resource is None:
                self._resource = await self._api.resolve(self._options.resource)
            resource = self._resource
            namespace = (namespace or (await self._api.access()).namespace) if resource.namespaced else ""
        for what, text in (("name", name), ("namespace", namespace)):
            if not _NAME.fullmatch(text) and (what == "name" or resource.namespaced):
                raise GiveUp(f"{text[:100]!r} can't be the {what} of one of {resource.name}")
        where = f"{resource.name} {f'{namespace}/' if namespace else ''}{name}"
        metadata = body["metadata"]
        metadata["name"] = name
        if namespace:
            metadata["namespace"] = namespace
        if self._options.mode == "create":
            return await self._create(resource, namespace, name, body, where, event.idempotency_key)
        found = event.object if self._options.precondition and event.verb else {}
        own = found if _is(found, event, resource, namespace, name) else {}
        if version := _text(own, "metadata", "annotations", ORIGIN_VERSION):
            metadata["resourceVersion"] = version
        try:
            async with judged(self._api):
                await self._change(resource, namespace, name, body)
        except Conflict as why:
            return await self._moved_on(resource, namespace, name, own, version, where, why)
        return f"{'patched' if self._options.mode == 'patch' else 'applied'} {where}"

    async def close(self) -> None:
        await self._api.close()

    async def _create(self, resource: Resource, namespace: str, name: str, body: JsonObject, where: str, key: str) -> str:
        body |= {"apiVersion": resource.api_version, "kind": resource.kind}
        notes = body["metadata"].setdefault("annotations", {})
        if not isinstance(notes, dict):
            raise GiveUp("`metadata.annotations` of the body is no mapping")
        notes[IDEMPOTENCY_KEY] = key
        async with judged(self._api):
            try:
                await self._api.request(
                    "POST", resource.path(namespace), {"fieldManager": self._options.field_manager}, msgspec.json.encode(body)
                )
            except Conflict:
                try:
                    there = await self._api.get(resource, namespace, name)
                except NotFound:
                    raise TryLater(f"{where} was there, and is gone now") from None
                if _text(there, "metadata", "annotations", IDEMPOTENCY_KEY) != key:
                    raise GiveUp(f"{where} is there already, and not of this event: remove it, or use `mode: apply`") from None
                return f"{where} was created before"
        return f"created {where}"

    async def _change(self, resource: Resource, namespace: str, name: str, body: JsonObject) -> None:
        if self._options.mode == "apply":
            body |= {"apiVersion": resource.api_version, "kind": resource.kind}
            manager = self._options.field_manager
            await self._api.apply(resource, namespace, name, body, manager=manager, force=self._options.force)
            return
        params, path = {"fieldManager": self._options.field_manager}, resource.path(namespace, name)
        raw = msgspec.json.encode(body)
        if self._options.patch == "strategic":
            try:
                await self._api.request("PATCH", path, params, raw, "application/strategic-merge-patch+json")
                return
            except BadRequest as why:
                # 415: the API doesn't know the keys of this type's lists (custom resources, Routes).
                if "unknown format" not in str(why) and "415" not in str(why):
                    raise
        await self._api.request("PATCH", path, params, raw, "application/merge-patch+json")

    async def _moved_on(
        self, resource: Resource, namespace: str, name: str, own: JsonObject, version: str, where: str, why: Conflict
    ) -> str:
        """After a Conflict: whether it is because the event's object has changed."""
        if not version:
            if self._options.mode == "apply":
                raise GiveUp(f"{why}: leave these fields to their manager, or set `force`") from None
            raise TryLater(f"somebody else is changing {where}") from None
        async with judged(self._api):
            try:
                there = await self._api.get(resource, namespace, name)
            except NotFound:
                return f"{where} is gone: nothing done"
        if _text(there, "metadata", "uid") != _text(own, "metadata", "uid"):
            raise GiveUp(f"{where} is not the event's object, only called like it: set `precondition: false` if that is right")
        if _text(there, "metadata", "resourceVersion") == version:
            raise GiveUp(f"{why}: leave these fields to their manager, or set `force`") from None
        return f"{where} has changed since: nothing done"


def _is(found: JsonObject, event: Event, resource: Resource, namespace: str, name: str) -> bool:
    """Whether this is the event's own object."""
    key = event.key
    return (
        key is not None
        and (key.group, key.kind) == (resource.group, resource.kind)
        and _text(found, "metadata", "name") == name
        and _text(found, "metadata", "namespace") == namespace
    )


def _body(text: str) -> JsonObject:
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as why:
        raise GiveUp(f"the body is no JSON once it is filled in: {why}") from None
    if not isinstance(body, dict) or not isinstance(body.setdefault("metadata", {}), dict):
        raise GiveUp("the body, or its `metadata`, is no JSON object")
    return body


def _text(found: Any, *path: str) -> str:
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""
