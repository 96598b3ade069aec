"""What a handler is given in a test: an event, a context, and what `build` needs. For whoever writes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from vedette.kit.telemetry import Telemetry
from vedette.model.change import Verb
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import Cloud, Event, HandlerNeeds, JsonObject, Worker, WorkerCode
from vedette.testing.clock import START_US, FakeClock

PORT = "0f6a1a5e-7a3c-4d0e-9a63-0d0f2a6f5f11"
"""The id of the object in `change`, unless another is asked for."""


class FakeContext:
    """Remembers in a dict."""

    def __init__(self, *, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self.memory: dict[str, Any] = {}

    async def recall(self, name: str) -> Any:
        return self.memory.get(name)

    def remember(self, name: str, value: Any) -> None:
        if value is None:
            self.memory.pop(name, None)
        else:
            self.memory[name] = value


class FakeInventory:
    """Knows what a test puts into `there` and `gone`."""

    def __init__(self) -> None:
        self.there: dict[Key, JsonObject] = {}
        self.gone: dict[Key, JsonObject] = {}

    async def get(self, key: Key) -> JsonObject | None:
        return self.there.get(key)

    async def last(self, key: Key) -> JsonObject | None:
        return self.there.get(key) or self.gone.get(key)

    async def all(self, source: str, kind: str) -> Mapping[str, JsonObject]:
        return {key.id: found for key, found in self.there.items() if (key.source, key.kind) == (source, kind)}


def handler_needs(
    name: str = "here", *, clock: FakeClock | None = None, inventory: FakeInventory | None = None, cloud: Cloud | None = None
) -> HandlerNeeds:
    """Needs with a fake clock; every source has the same `cloud`; there are no worker processes."""

    def worker(code: WorkerCode) -> Worker:
        raise NotImplementedError(f"no worker for {code.name} in this test")

    return HandlerNeeds(
        name=name,
        clock=clock or FakeClock(),
        telemetry=Telemetry(),
        inventory=inventory or FakeInventory(),
        cloud=lambda source: cloud,
        worker=worker,
    )


def change(
    status: JsonObject | None = None,
    old: JsonObject | None = None,
    *,
    verb: Verb = "MODIFIED",
    kind: str = "Port",
    id: str = PORT,
    event_type: str = "port.update.end",
    revision: int = 1_795_187_946_000_042,
    **more: Any,
) -> Event:
    """A change of an object with this `status` (and, unless it is new, another before); `more` are other fields of Event."""
    handler = more.pop("handler", "here")
    before = msgspec.Raw(b"{}") if old is None else _object(kind, id, old, revision - 1)
    return Event(
        handler=handler,
        idempotency_key=more.pop("idempotency_key", f"{handler}/{revision}"),
        revision=revision,
        attempt=more.pop("attempt", 1),
        verb=verb,
        key=Key("region-one", OPENSTACK, kind, id),
        notice=more.pop("notice", None) or said(event_type, {kind.lower(): {"id": id, **(status or {})}}),
        appended_at=START_US,
        raw_object=_object(kind, id, status or {}, revision),
        raw_old=before,
        **more,
    )


def notice_event(payload: Any, *, event_type: str = "compute.instance.update", key: Key | None = None, **more: Any) -> Event:
    """A notice, as a handler gets it that follows the notifications themselves."""
    handler, revision = more.pop("handler", "here"), more.pop("revision", 1_795_187_946_000_042)
    return Event(
        handler=handler,
        idempotency_key=f"{handler}/{revision}",
        revision=revision,
        attempt=1,
        verb="",
        key=key,
        notice=said(event_type, payload),
        appended_at=START_US,
        **more,
    )


def said(event_type: str, payload: Any) -> Notice:
    """What a service announced."""
    return Notice(
        id="6d1c7a3e-58a4-4d7c-8c8f-6f9d2b1f3a55",
        source="region-one",
        event_type=event_type,
        sent_at=START_US - 1_000_000,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        priority="INFO",
        publisher="network.controller-1",
        request_id="req-4f0c",
        actor_user="u-17",
        actor_project="p-1",
    )


def _object(kind: str, id: str, status: JsonObject, revision: int) -> msgspec.Raw:
    whole = {
        "apiVersion": f"{OPENSTACK}/v1",
        "kind": kind,
        "metadata": {"name": id, "namespace": "p-1", "uid": id, "resourceVersion": str(revision)},
        "status": {"id": id, **status},
    }
    return msgspec.Raw(msgspec.json.encode(whole))
