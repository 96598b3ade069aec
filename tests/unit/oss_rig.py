"""What the tests of the OSS framework's handler stand on: a store that folds what is told, and a process that isn't one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import msgspec

from vedette import plugins
from vedette.engine.ingest import Ingest
from vedette.errors import NotFound
from vedette.handlers.oss import Options, OssHandler, build, event_types
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.ports import Answer, Event, JsonObject, Worker, WorkerCode
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock
from vedette.testing.handling import FakeContext, handler_needs

SOURCE = "region-one"
SERVER = "0a292237-a473-486e-b8d7-28fab650e8b2"
OTHER = "1b292237-a473-486e-b8d7-28fab650e8b2"
PORT = "fe19ac40-9443-4431-9d4c-08460ed0b3d6"
OTHER_PORT = "ae19ac40-9443-4431-9d4c-08460ed0b3d6"
FIP = "88a45817-3565-475f-ace0-35206eb12160"
IMAGE = "f4ce6554-3178-40ba-953f-78e9ffbb165e"

METADATA = {
    "owner": "some_owner",
    "additional_users": "",
    "application_name": "Fake name",
    "environment_ci": "Environment info",
    "description": "Description of VM",
}


def instance(id_: str = SERVER, **fields: Any) -> JsonObject:
    """Nova's unversioned payload."""
    return {
        "tenant_id": "e1f65416a4774cd380649215b9f46e17",
        "user_id": "3c1b689f46ba4bb284483f15fb8544cb",
        "instance_id": id_,
        "display_name": "fake",
        "hostname": "fake",
        "instance_type": "m1.big",
        "instance_flavor_id": "3",
        "memory_mb": 8192,
        "vcpus": 2,
        "root_gb": 60,
        "ephemeral_gb": 20,
        "disk_gb": 80,
        "host": "compute-1",
        "created_at": "2015-03-19 16:44:01+00:00",
        "launched_at": "2015-03-19T16:44:11.000000",
        "deleted_at": "",
        "image_ref_url": f"http://glance:9292/images/{IMAGE}",
        "state": "active",
        "state_description": "",
        "fixed_ips": [
            {"address": "fd00::5", "type": "fixed", "version": 6, "floating_ips": [], "label": "six"},
            {"address": "172.18.66.54", "type": "fixed", "version": 4, "floating_ips": [], "label": "net"},
        ],
        "image_meta": {"os_distro": "Ubuntu", "min_ram": "0"},
        "metadata": METADATA,
        **fields,
    }


def deleted(id_: str = SERVER) -> JsonObject:
    """The same when it is gone: no addresses, no image's properties, no metadata."""
    lost = {"fixed_ips", "image_meta", "metadata"}
    return {name: value for name, value in instance(id_, state="deleted").items() if name not in lost}


def versioned(id_: str = SERVER, **fields: Any) -> JsonObject:
    """The same instance in Nova's versioned format."""
    ips = [("fd00::5", 6), ("172.18.66.54", 4)]
    size = {"flavorid": "3", "name": "m1.big", "memory_mb": 8192, "vcpus": 2, "root_gb": 60, "ephemeral_gb": 20}
    return {
        "nova_object.name": "InstanceCreatePayload",
        "nova_object.data": {
            "uuid": id_,
            "tenant_id": "e1f65416a4774cd380649215b9f46e17",
            "display_name": "fake",
            "host_name": "fake",
            "flavor": {"nova_object.data": size},
            "image_uuid": IMAGE,
            "created_at": "2015-03-19T16:44:01Z",
            "launched_at": "2015-03-19T16:44:11Z",
            "state": "active",
            "task_state": None,
            "ip_addresses": [{"nova_object.data": {"label": "net", "address": one, "version": six}} for one, six in ips],
            "metadata": METADATA,
            **fields,
        },
    }


def port(id_: str = PORT, device: str = SERVER, owner: str = "compute:nova") -> JsonObject:
    return {"port": {"id": id_, "device_id": device, "device_owner": owner, "status": "ACTIVE", "fixed_ips": []}}


def floatingip(port_id: str | None = PORT, fixed: str | None = "172.18.66.54", **fields: Any) -> JsonObject:
    return {
        "floatingip": {
            "id": FIP,
            "floating_ip_address": "203.0.113.227",
            "fixed_ip_address": fixed if port_id else None,
            "port_id": port_id,
            "router_id": "ea9057ad-8190-4bbd-a17e-1da040df296b" if port_id else None,
            "description": "",
            **fields,
        }
    }


class ToyProcess:
    """A plugin's process: keeps the calls, or raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[JsonObject] = []
        self.failures: list[Exception] = []
        self.closed = False

    async def call(self, message: bytes, timeout: float) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append(json.loads(message))
        return b"null"

    async def close(self) -> None:
        self.closed = True


class ToyCloud:
    """An API: answers by (service, path); what it has no answer for is not found."""

    def __init__(self, answers: dict[tuple[str, str], JsonObject | Exception]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    async def get(self, service: str, path: str, params: Any = (), *, microversion: str = "") -> Answer:
        self.asked.append((service, path))
        found = self.answers.get((service, path), NotFound("no"))
        if isinstance(found, Exception):
            raise found
        return Answer(found, 0)


class Kept:
    """The inventory, from a store."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def get(self, key: Key) -> JsonObject | None:
        held = (await self._store.held([key]))[0]
        return None if held is None or held.deleted else await self.last(key)

    async def last(self, key: Key) -> JsonObject | None:
        held = (await self._store.held([key]))[0]
        return None if held is None else {"kind": key.kind, "status": {"id": key.id, **held.fields, **held.admin}}


class Rig:
    """Tells the handler what a dispatcher would, and what it remembers stays only when it returned."""

    def __init__(self, options: Options | None = None, *, cloud: Any = None) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.ingest = Ingest(self.store, plugins.kinds(), Telemetry())
        self.process = ToyProcess()
        self.options = options or Options(plugin="rest_plugin.RESTNotify")
        self.needs = msgspec.structs.replace(
            handler_needs(name="plugin", clock=self.clock, inventory=Kept(self.store), cloud=cloud),  # type: ignore[arg-type]
            worker=self._worker,
        )
        self.codes: list[WorkerCode] = []
        self.handler: OssHandler = build(self.options, self.needs)
        self.memory: dict[str, Any] = {}
        self.number = 0

    def _worker(self, code: WorkerCode) -> Worker:
        self.codes.append(code)
        return self.process

    def restart(self) -> None:
        """What is remembered is all that stays."""
        self.handler = build(self.options, self.needs)

    @property
    def calls(self) -> list[tuple[bool, JsonObject]]:
        return [(call["created"], call["node_detail"]) for call in self.process.calls]

    @contextmanager
    def nobody_is_called(self) -> Iterator[None]:
        before = len(self.process.calls)
        yield
        assert self.process.calls[before:] == []

    async def tell(self, event_type: str, payload: Any, *, request: str = "", to: bool = True, **more: Any) -> str | None:
        """What the handler said. `to`: whether the handler hears of it, too, if it is called for events of this type."""
        return await self.offer(self.notice(event_type, payload, request=request), to=to, **more)

    def notice(self, event_type: str, payload: Any, *, request: str = "", origin: str = "notification") -> Notice:
        """Sent a second after the one before."""
        self.clock.step(1)
        self.number += 1
        return Notice(
            id=f"n{self.number}",
            source=SOURCE,
            event_type=event_type,
            sent_at=self.clock.now_us(),
            payload=msgspec.Raw(payload if isinstance(payload, bytes) else msgspec.json.encode(payload)),
            request_id=request,
            origin=origin,
        )

    async def offer(self, notice: Notice, *, to: bool = True, **more: Any) -> str | None:
        await self.ingest.offer([notice])
        types = event_types(self.options.events_creation, self.options.events_deletion)
        if not to or not any(fnmatchcase(notice.event_type, one) for one in types):
            return None
        return await self.handle(notice, **more)

    async def handle(self, notice: Notice, **more: Any) -> str | None:
        context = FakeContext()
        context.memory = dict(self.memory)
        event = Event(
            handler="plugin",
            idempotency_key=f"plugin/{self.store.head}",
            revision=self.store.head,
            attempt=1,
            verb=more.pop("verb", ""),
            key=more.pop("key", None),
            notice=notice,
            appended_at=self.clock.now_us(),
            **more,
        )
        said = await self.handler.handle(event, context)
        self.memory = context.memory
        return said

    async def found(
        self, server: str, word: str, origin: str = "resync", more: Mapping[str, Any] = MappingProxyType({}), **fields: Any
    ) -> str | None:
        """What a resync says of a server."""
        shown = {
            "id": server,
            "name": "fake",
            "status": "ACTIVE",
            "created": "2026-11-20T15:19:10Z",
            "OS-SRV-USG:launched_at": "2026-11-20T15:19:17Z",
            "flavor": {"id": "3", "vcpus": 2, "ram": 8192, "disk": 60, "ephemeral": 20},
            "image": None,
            "addresses": {"net": [{"addr": "172.18.66.54", "version": 4}]},
            "metadata": METADATA,
            **fields,
        }
        payload = {"server": shown, "reason": f"missed-{word}", "changed": []}
        notice = self.notice(f"server.{word}.{origin}", payload, origin=origin)
        known = {name: value for name, value in shown.items() if name != "id"}
        reading = Reading(kind="Server", id=server, verb=word, as_of=notice.sent_at, fields=known)  # type: ignore[arg-type]
        await self.ingest.record([NewEntry(notice, (reading,))], {})
        return await self.handle(notice, **more)

    def ignored(self, reason: str) -> float:
        labels = {"handler": "plugin", "reason": reason}
        return self.needs.telemetry.registry.get_sample_value("vedette_handler_oss_ignored_total", labels) or 0.0


def key(kind: str, id_: str) -> Key:
    return Key(SOURCE, OPENSTACK, kind, id_)
