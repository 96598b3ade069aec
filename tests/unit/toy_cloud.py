"""A cloud of one kind, for tests of what resync and verify decide: no HTTP, on the test's clock, every answer at hand.

What a real API answers is testing/cloud.py's; how it is asked is clients/openstack.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.engine.ingest import Ingest
from vedette.errors import NotFound
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.ports import (
    EVERYTHING,
    Answer,
    Api,
    Appended,
    Cloud,
    CloudUse,
    Items,
    JsonObject,
    Kind,
    Params,
    Scan,
    Selection,
    Verified,
)
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

PAGE = 3


class ToyCloud:
    """`things`: id → fields. `fail[path]`: raised instead of an answer. `before[n]`: called before the n-th request."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.things: dict[str, JsonObject] = {}
        self.roles: tuple[str, ...] = ("admin",)
        self.domain = ""
        self.fail: dict[str, Exception] = {}
        self.before: dict[int, Callable[[], Any]] = {}
        self.requests: list[str] = []
        self.page = PAGE
        self.closed = False

    def put(self, id_: str, **fields: Any) -> None:
        self.things[id_] = {"id": id_, "project_id": "p1", "status": "ACTIVE", **self.things.get(id_, {}), **fields}

    @property
    def asked(self) -> Counter[str]:
        return Counter(self.requests)

    async def _asked(self, path: str) -> int:
        self.requests.append(path)
        as_of = self._clock.now_us()
        hook = self.before.get(len(self.requests))
        if hook is not None and (waited := hook()) is not None:
            await waited
        if path in self.fail:
            raise self.fail[path]
        return as_of

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        as_of = await self._asked(path if not params else f"{path}?{'&'.join(value for _, value in params)}")
        if path == "/proof":
            return Answer({}, as_of)
        if params:
            return Answer({"things": [dict(self.things[id_]) for _, id_ in params if id_ in self.things]}, as_of)
        id_ = path.rpartition("/")[2]
        if id_ not in self.things:
            raise NotFound(path)
        return Answer(dict(self.things[id_]), as_of)

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        marker = ""
        while True:
            as_of = await self._asked(f"{path} after {marker}" if marker else path)
            ids = sorted(id_ for id_ in self.things if id_ > marker)[: self.page]
            if not ids and marker:
                return
            yield Items([dict(self.things[id_]) for id_ in ids], as_of)
            if len(ids) < self.page:
                return
            marker = ids[-1]

    async def account(self) -> Verified:
        return Verified(
            user_id="u", user_name="vedette", domain_id=self.domain, roles=self.roles, expires_at=0, seconds_left=3600
        )

    async def close(self) -> None:
        self.closed = True


def reading(item: Mapping[str, Any], as_of: int, **more: Any) -> Reading:
    fields = {name: value for name, value in item.items() if name not in ("id", "host")}
    admin = {"host": item["host"]} if "host" in item else {}
    return Reading(
        kind="Thing",
        id=item["id"],
        project=item["project_id"],
        as_of=as_of,
        fields=fields,
        admin=admin,
        **{"verb": "create", **more},
    )


async def _list(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    async for page in cloud.pages("toys", "/things", "things"):
        yield [reading(item, page.as_of) for item in page.items]


async def _get(cloud: Cloud, id_: str) -> Sequence[Reading]:
    answer = await cloud.get("toys", f"/things/{id_}")
    return [reading(answer.body, answer.as_of)]


async def _some(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    answer = await cloud.get("toys", "/things", [("id", id_) for id_ in ids])
    return [reading(item, answer.as_of) for item in answer.body["things"]]


async def _look(
    cloud: Cloud, known: Mapping[str, Mapping[str, JsonObject]], memory: dict[str, Any]
) -> AsyncIterator[Sequence[Reading]]:
    memory["looks"] = memory.get("looks", 0) + 1
    LOOKS.append(memory["looks"])
    seen = set()
    async for page in cloud.pages("toys", "/things", "things"):
        seen.update(item["id"] for item in page.items)
        yield [reading(item, page.as_of) for item in page.items]
    gone = sorted(known["Thing"].keys() - seen)
    yield [Reading(kind="Thing", id=id_, verb="delete", as_of=0) for id_ in gone]


LOOKS: list[int] = []
"""How many looks each look remembered."""
SCAN = Scan(name="toys", service="toys", sees={"Thing": ("status",)}, look=_look)


def _read(notice: Notice) -> Iterable[Reading]:
    item = msgspec.json.decode(notice.payload)
    verb = notice.event_type.split(".")[1]
    return [reading(item, notice.sent_at, verb=verb)]


def kind(**api: Any) -> Kind:
    """The kind Thing; `api`: what its Api has beside the usual (`some=None`, `transient=None`, `scan=SCAN`)."""
    usual = {
        "service": "toys",
        "list": _list,
        "get": _get,
        "some": _some,
        "proof": "/proof",
        "transient": lambda status: status.get("status") != "ACTIVE",
        "transient_fields": ("status",),
    }
    return Kind(
        kind="Thing",
        plural="things",
        singular="thing",
        doc="",
        events=("thing.*",),
        read=_read,
        fields={},
        columns=(),
        api=Api(**{**usual, **api}),
    )


class Toys:
    """A store in memory, what fills it, a cloud, and words for tests."""

    def __init__(self, **api: Any) -> None:
        self.clock = FakeClock()
        self.telemetry = Telemetry()
        self.kind = kind(**api)
        self.store = MemoryStore(self.clock)
        self.ingest = Ingest(self.store, [self.kind], self.telemetry)
        self.cloud = ToyCloud(self.clock)
        self.entries: list[Appended] = []
        self.store.follow(self.entries.extend)
        self._ids = 0

    def use(self, **more: Any) -> CloudUse:
        usual = {"resync_seconds": 600.0, "verify": True, "requests_per_second": 10.0, "scan_seconds": 5.0}
        return CloudUse(cloud=self.cloud, **{**usual, **more})

    async def announce(self, verb: str, id_: str, *, sent_at: int = 0, **fields: Any) -> None:
        """A notification comes in (from `sent_at`: it may be late)."""
        self._ids += 1
        item = {"id": id_, "project_id": "p1", "status": "ACTIVE", **fields}
        notice = Notice(
            id=f"n{self._ids}",
            source="one",
            event_type=f"thing.{verb}",
            sent_at=sent_at or self.clock.now_us(),
            payload=msgspec.Raw(msgspec.json.encode(item)),
        )
        await self.ingest.offer([notice])

    async def inventory(self) -> dict[str, JsonObject]:
        page = await self.store.objects(Selection(scope=EVERYTHING, group=OPENSTACK, kind="Thing"), limit=1_000_000)
        found = {}
        for key, version in page.items:
            status = msgspec.json.decode(version.body)["status"]
            found[key.id] = status
        return found

    def told(self, origin: str = "resync") -> list[tuple[str, str]]:
        """What this origin told: (event type, id), in order."""
        return [
            (one.entry.notice.event_type, one.entry.readings[0].id) for one in self.entries if one.entry.notice.origin == origin
        ]

    def number(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"vedette_{name}", labels) or 0.0

    def key(self, id_: str) -> Key:
        return Key("one", OPENSTACK, "Thing", id_)
