"""What tests of the Concertim mirror stand on: an inventory and a Heat that do as they are told, and the fake front end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from vedette.errors import CloudUnavailable, NotFound
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.mirrors.concertim import ConcertimMirror, Options, build
from vedette.model.change import Verb
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import Answer, Cloud, JsonObject, Mirrored, MirrorNeeds
from vedette.testing.concertim import PASSWORD, Dialect, FakeConcertim
from vedette.testing.handling import FakeContext, FakeInventory, change

CLOUD = "region-one"
PROJECT = "11111111111111111111111111111111"


class Heat:
    """Of a `Cloud`, what the mirror asks: a stack and its resources."""

    def __init__(self) -> None:
        self.stacks: dict[str, JsonObject] = {}
        self.resources: dict[str, list[JsonObject]] = {}
        self.asked: list[str] = []
        self.away = False
        self.broken: set[str] = set()
        """Stacks that it answers with an error."""

    async def get(self, service: str, path: str, params: Sequence[tuple[str, str]] = (), microversion: str = "") -> Answer:
        assert service == "orchestration"
        if self.away:
            raise CloudUnavailable("Heat does not answer", delay=1)
        self.asked.append(path)
        _, _, name, id_, *more = path.split("/")
        if id_ in self.broken:
            raise CloudUnavailable(f"Heat answered 500 to {path}", delay=1)
        stack = self.stacks.get(id_)
        if stack is None or stack["stack_name"] != name:
            raise NotFound(f"no stack {name}/{id_}")
        body = {"resources": self.resources.get(id_, [])} if more else {"stack": stack}
        return Answer(body=body, as_of=0)


class Place:
    """One front end, one mirror, one project whose objects are made by the methods below. `restart` is a new process."""

    def __init__(self, front: FakeConcertim) -> None:
        self.front = front
        self.inventory = FakeInventory()
        self.heat = Heat()
        self.clock = SystemClock()
        self.confirmed: set[str] = set()
        """Ids that are certainly gone."""
        self.memory: dict[str, bytes] = {}
        self.kept: dict[str, Mirrored] = {}
        self.options: dict[str, Any] = {}
        self.owner = front.add_user("ada", project_id=PROJECT) if front.dialect == "v1" else front.add_team("team-a", PROJECT)
        self.mirror: ConcertimMirror
        self._number = 0
        self.restart()

    def restart(self) -> None:
        async def absent(key: Key) -> bool:
            return key.id in self.confirmed

        async def keep(there: Sequence[Mirrored], gone: Sequence[Mirrored]) -> None:
            for one in there:
                self.kept[f"{one.type}:{one.object_id}"] = one
            for one in gone:
                self.kept.pop(f"{one.type}:{one.object_id}", None)

        async def keep_only(there: Sequence[Mirrored]) -> None:
            self.kept.clear()
            await keep(there, ())

        async def recall() -> Mapping[str, bytes]:
            return dict(self.memory)

        async def remember(values: Mapping[str, bytes | None]) -> None:
            for name, value in values.items():
                if value is None:
                    self.memory.pop(name, None)
                else:
                    self.memory[name] = value

        cloud: Cloud = self.heat  # type: ignore[assignment]
        needs = MirrorNeeds(
            name="racks",
            clock=self.clock,
            telemetry=Telemetry(),
            inventory=self.inventory,
            source=lambda name: name or CLOUD,
            cloud=lambda name: cloud,
            absent=absent,
            keep=keep,
            keep_only=keep_only,
            recall=recall,
            remember=remember,
        )
        self.mirror = build(Options(url=self.front.url, password=Secret(PASSWORD), **self.options), needs)

    # --- the cloud

    def id(self) -> str:
        self._number += 1
        return f"{self._number:08x}-0000-4000-8000-000000000000"

    def put(self, kind: str, status: JsonObject) -> str:
        self.inventory.there[Key(CLOUD, OPENSTACK, kind, status["id"])] = {"kind": kind, "status": status}
        return str(status["id"])

    def status(self, kind: str, id_: str) -> JsonObject:
        found: JsonObject = self.inventory.there[Key(CLOUD, OPENSTACK, kind, id_)]["status"]
        return found

    def drop(self, kind: str, id_: str, *, confirmed: bool = True) -> None:
        del self.inventory.there[Key(CLOUD, OPENSTACK, kind, id_)]
        if confirmed:
            self.confirmed.add(id_)

    def flavor(self, **more: Any) -> str:
        id_ = self.id()
        return self.put("Flavor", {"id": id_, "name": f"m{id_[:8]}", "vcpus": 2, "ram": 2048, "disk": 10, **more})

    def stack(self, members: Iterable[tuple[str, str]] = (), *, parent: str | None = None, **more: Any) -> str:
        id_ = self.id()
        status = {
            "id": id_,
            "stack_name": f"stack-{id_[:8]}",
            "stack_status": "CREATE_COMPLETE",
            "stack_status_reason": "Stack CREATE completed successfully",
            "project": PROJECT,
            "stack_owner": "ada",
            "creation_time": f"2026-11-20T15:00:{self._number % 60:02d}Z",
            "updated_time": None,
            **more,
        }
        self.heat.stacks[id_] = {"stack_name": status["stack_name"], "parent": parent, "outputs": []}
        for type_, member in members:
            self.member(id_, type_, member)
        return self.put("Stack", status)

    def member(self, stack: str, type_: str, id_: str) -> None:
        every = self.heat.resources.setdefault(stack, [])
        every.append(
            {"resource_type": type_, "physical_resource_id": id_, "creation_time": f"2026-11-20T15:00:{len(every):02d}Z"}
        )

    def server(self, flavor: str, **more: Any) -> str:
        id_ = self.id()
        size = self.status("Flavor", flavor)
        return self.put(
            "Server",
            {
                "id": id_,
                "name": f"server-{id_[:8]}",
                "tenant_id": PROJECT,
                "OS-EXT-STS:vm_state": "active",
                "OS-EXT-STS:task_state": None,
                "key_name": "key",
                "flavor": {
                    "id": flavor,
                    "original_name": size["name"],
                    "vcpus": size["vcpus"],
                    "ram": size["ram"],
                    "disk": size["disk"],
                },
                "addresses": {"net": [{"addr": "10.0.0.5", "OS-EXT-IPS:type": "fixed", "version": 4}]},
                **more,
            },
        )

    def in_stack(self, many: int = 1, flavor: str = "", **more: Any) -> tuple[str, list[str]]:
        """A stack with servers."""
        flavor = flavor or self.flavor()
        servers = [self.server(flavor) for _ in range(many)]
        return self.stack([("OS::Nova::Server", one) for one in servers], **more), servers

    # --- the mirror

    async def said(self, kind: str, id_: str, status: JsonObject | None = None, *, verb: Verb = "MODIFIED") -> str | None:
        """The mirror is told that an object changed; with `status`, so it does."""
        before = self.inventory.there.get(Key(CLOUD, OPENSTACK, kind, id_), {}).get("status", {})
        if status is not None:
            self.put(kind, {**before, "id": id_, **status})
        event = change(status or before, before, kind=kind, id=id_, verb=verb)
        return await self.mirror.handle(event, FakeContext())

    def device(self, ours: str) -> JsonObject:
        (found,) = self.front.by("device", ours)
        return found

    def rack(self, stack: str) -> JsonObject:
        (found,) = self.front.by("rack", stack)
        return found

    def writes(self) -> list[tuple[str, str]]:
        """Since it was asked last."""
        found = [(method, path) for method, path, _ in self.front.writes]
        self.front.writes.clear()
        return found


@asynccontextmanager
async def place(dialect: Dialect = "v2") -> AsyncIterator[Place]:
    async with FakeConcertim(dialect) as front:
        here = Place(front)
        try:
            yield here
        finally:
            await here.mirror.close()
