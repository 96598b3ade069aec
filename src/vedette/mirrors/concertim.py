"""Keeps a Concertim front end equal to the cloud: racks are Heat's stacks, devices their servers, volumes and networks, templates
the flavors.

In: changes of those kinds, from engine/dispatch.py, and `compare` from engine/mirroring.py. What should be there is worked out in
_wanted.py from the inventory and from what Heat says of each stack; what is there is read from the front end (clients/
concertim.py); only differences are written. Objects are known by the `openstack_*` ids in their metadata, so a crash between two
lines leaves nothing that the next comparison does not find.

What is not ours stays as it is: racks and devices without such ids, templates with another description, places that somebody
chose. Nothing is removed unless it is certain that the cloud has it no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from vedette.clients.concertim import Concertim, Rejected
from vedette.errors import ConfigError, GiveUp, NotFound, TargetUnavailable, TryLater, VedetteError
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.mirrors import _wanted as wanted
from vedette.mirrors._wanted import Detail, Dialect, Member, World
from vedette.model.paths import segment
from vedette.model.reading import OPENSTACK, Key
from vedette.model.sample import UNITS, Sample, SampleName
from vedette.model.scrub import MASK, scrub
from vedette.ports import Cloud, Compared, Context, Event, JsonObject, Mirrored, MirrorNeeds, Pushed

log = logging.getLogger("vedette.mirrors.concertim")

HEAT = "orchestration"
DEEPEST = "10"
"""Levels of nested stacks whose resources are asked for; Heat makes no more than five unless it is told to."""
AT_A_TIME = 8
"""Racks that are made equal side by side."""
LOOK_AGAIN = 2.0
"""Seconds after which a stack that Heat is at work on is asked again for what is in it."""
MOST_LOOKS = 20
"""Stacks that are asked for one unknown server."""
MOST_OUTPUTS, LONGEST_OUTPUT = 100, 1_000
"""Of a stack that are shown, and characters of one."""
DETAIL = "detail/"
"""Begins the names under which `Detail`s are remembered."""
PATHS = {"template": "/api/v1/templates", "rack": "/api/v1/racks", "device": "/api/v1/devices"}
OWNERS: Mapping[str, str] = {"v1": "/api/v1/users", "v2": "/api/v1/teams"}
IDS = {"template": "foreign_id", "rack": "openstack_stack_id", "device": "openstack_instance_id"}

PUSH_TIMEOUT = 2.0
"""Seconds that measurements wait for the first comparison."""
TTL = 3600
"""Seconds for which the front end shows a value."""
METRICS: Mapping[str, Mapping[SampleName, tuple[str, str]]] = {
    "v1": {
        "cpu_load": ("os.instance.cpu_utilization", "%"),
        "ram_usage": ("os.instance.ram_usage", "%"),
        "network_usage": ("os.net.avg_usage", "B/s"),
        "throughput": ("os.disk.avg_throughput", "B/s"),
        "iops": ("os.disk.avg_iops", "Ops/s"),
    },
    "v2": {name: (name, units) for name, units in UNITS.items()},
}
"""Dialect → our name → (its name there, its unit)."""

What = Literal["template", "rack", "device"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a `concertim` mirror."""

    url: str
    """The front end, such as `https://concertim.example.org`."""
    login: str = "admin"
    """An account of it that may see and change everything."""
    password: Secret
    """Its password."""
    ca: FilePath = ""
    """The front end's CA, a PEM file; none: the system's."""
    source: str = ""
    """The source whose cloud is shown; none: the default one."""
    dialect: Literal["auto", "v1", "v2"] = "auto"
    """`v2`: a front end with teams; `v1`: one from before them; `auto`: it is asked."""
    rack_height: int = 42
    """Units of a new rack; one that is full grows."""
    metric_names: Literal["v1", "v2", ""] = ""
    """What measurements are called there: `cpu_load` (v2) or `os.instance.cpu_utilization` (v1); none: as the dialect."""
    writes: bool = True
    """false: it is only read, for measurements that are handed on: another process keeps it equal to the cloud."""
    rate: float = 0.0
    """Requests a second that the front end is to get; 0: no limit."""
    timeout: Seconds = 30.0
    """What the front end may take for one request."""


def build(options: Options, needs: MirrorNeeds) -> ConcertimMirror:
    """Raises ConfigError."""
    if not 1 <= options.rack_height <= wanted.TALLEST_RACK:
        raise ConfigError(f"wants 1 to {wanted.TALLEST_RACK} units", path="rack_height")
    source = needs.source(options.source)
    cloud = needs.cloud(source)
    if cloud is None:
        raise ConfigError(f"source {source!r} has no API, and only Heat knows what is in a stack: set its `api`", path="source")
    front = _front(options, needs.clock)
    return ConcertimMirror(options, needs, source, cloud, front)


async def look(options: Options, clock: Clock) -> tuple[str, list[tuple[str, str]]]:
    """For `vedette doctor`: what is there, and (what is missing, what to do). Raises what asking raises."""
    front = _front(options, clock)
    try:
        dialect = options.dialect
        if dialect == "auto":
            dialect = await probe(front)
        owners = await front.rows(OWNERS[dialect])
        templates = await front.rows(PATHS["template"])
    finally:
        await front.close()
    word = OWNERS[dialect].rpartition("/")[2]
    known = sum(bool(one.get("project_id")) for one in owners)
    said = f"{options.url}: a front end of {dialect}, {known} of {len(owners)} {word} with a project, {len(templates)} templates"
    missing: list[tuple[str, str]] = []
    if not known:
        missing.append((f"none of its {word} has a project: there will be no racks", f"give its {word} their projects there"))
    tags = {str(one.get("tag")) for one in templates}
    missing += [
        (f"it has no template with the tag {tag!r}: {tag}s can't be shown", "make one there, of any size")
        for tag in (("volume", "network") if dialect == "v2" else ())
        if tag not in tags
    ]
    return said, missing


async def probe(front: Concertim) -> Dialect:
    """Whether it has teams."""
    try:
        await front.rows(OWNERS["v2"])
    except NotFound:
        return "v1"
    return "v2"


def _front(options: Options, clock: Clock) -> Concertim:
    return Concertim(
        options.url, options.login, options.password, clock, ca=options.ca, rate=options.rate, timeout=options.timeout
    )


class There:
    """What the front end shows: rows by their ids there (as text), and which of them stands for what of the cloud's."""

    def __init__(self) -> None:
        self.rows: dict[What, dict[str, JsonObject]] = {"template": {}, "rack": {}, "device": {}}
        self.of: dict[What, dict[str, str]] = {"template": {}, "rack": {}, "device": {}}
        """The cloud's id → the id there."""
        self.in_rack: dict[str, set[str]] = {}
        self.owners: dict[str, Any] = {}
        """Project → the id of its team (v1: its user), as it is."""

    def put(self, what: What, row: JsonObject) -> None:
        id_ = str(row["id"])
        self._forget(what, id_)
        self.rows[what][id_] = row
        ours = stands_for(what, row)
        # Two of one: the first stays the one that counts, whichever order they are shown in.
        if ours and (ours not in self.of[what] or id_ < self.of[what][ours]):
            self.of[what][ours] = id_
        if what == "device":
            self.in_rack.setdefault(_rack_of(row), set()).add(id_)

    def drop(self, what: What, id_: str) -> None:
        """With a rack goes what is in it."""
        self._forget(what, id_)
        for one in list(self.in_rack.pop(id_, ())) if what == "rack" else ():
            self._forget("device", one)

    def _forget(self, what: What, id_: str) -> None:
        row = self.rows[what].pop(id_, None)
        if row is None:
            return
        ours = stands_for(what, row)
        if self.of[what].get(ours) == id_:
            del self.of[what][ours]
        if what == "device":
            self.in_rack.get(_rack_of(row), set()).discard(id_)

    def find(self, what: What, ours: str) -> JsonObject | None:
        id_ = self.of[what].get(ours)
        return None if id_ is None else self.rows[what][id_]


def stands_for(what: What, row: JsonObject) -> str:
    """The cloud's id of what a row shows; "": it isn't ours."""
    if what == "template":
        return str(row.get("foreign_id") or "")
    metadata = row.get("metadata")
    return str(metadata.get(IDS[what]) or "") if isinstance(metadata, dict) else ""


def _rack_of(row: JsonObject) -> str:
    location = row.get("location")
    return str(location.get("rack_id")) if isinstance(location, dict) else ""


class ConcertimMirror:
    """See the module."""

    kinds = frozenset(("Flavor", "Stack", "Server", "ServerGroup", "Volume", "Network", "Port", "FloatingIP"))

    def __init__(self, options: Options, needs: MirrorNeeds, source: str, cloud: Cloud, front: Concertim) -> None:
        self._options, self._needs, self._source, self._cloud, self._front = options, needs, source, cloud, front
        self.dialect: Dialect = "v2" if options.dialect == "v2" else "v1"
        self._known_dialect = options.dialect != "auto"
        self.world = World()
        self.there = There()
        self._ready = asyncio.Event()
        self._why = "it was not compared yet"
        self._comparing = asyncio.Lock()
        self._locks: dict[str, asyncio.Lock] = {}
        self._stack_of: dict[Member, str] = {}
        self._server_of: dict[str, str] = {}
        """Port → its server."""
        self._port_of: dict[str, str] = {}
        """Floating IP → its port."""
        self._asked_at: dict[str, float] = {}
        """Stack → when Heat was asked for it (monotonic)."""
        self._names: dict[Any, dict[str, str]] | None = None
        self._unsure: set[tuple[What, str]] = set()
        """What was asked for to be made, and nobody knows whether it was."""
        self._settled: dict[tuple[What, str], bytes] = {}
        """What was sent and what is shown all the same: a front end that shows it otherwise is not asked again and again."""
        self._done = Compared()
        """Of the comparison that is under way or was the last; what events lead to meanwhile counts there too."""
        self._changed: set[Key] | None = None
        """While the inventory is read: what changed meanwhile."""
        self._written: dict[tuple[What, str], JsonObject | None] | None = None
        """While the front end is read: what we wrote meanwhile; None: removed."""
        self._writes = needs.telemetry.counter(
            "mirror_writes_total", "Writes to a mirrored system", "mirror", "type", "what"
        ).labels

    # --- the two ways in ---------------------------------------------------------------------------------------------------

    async def handle(self, event: Event, context: Context) -> str | None:
        """See ports.Mirror."""
        if not self._options.writes:
            return None
        await self._loaded(context.timeout)
        key = event.key
        if key is None or key.kind not in self.kinds:
            return None
        if self._changed is not None:
            self._changed.add(key)
        await self._take(key)
        match key.kind:
            case "Flavor":
                return await self._sync_template(key.id)
            case "Stack":
                return await self._touched_stack(key.id)
            case "ServerGroup":
                stacks = [id_ for id_, one in self.world.details.items() if key.id in one.groups]
                self._index(*stacks)
                return _words([await self._sync_rack(id_) for id_ in stacks])
            case "Port":
                return await self._touched_servers(_said(event, "device_id"))
            case "FloatingIP":
                return await self._touched_servers(self._server_of.get(port, "") for port in _said(event, "port_id"))
            case "Server" | "Volume" | "Network":
                type_ = next(type_ for type_, kind in wanted.KINDS.items() if kind == key.kind)
                return await self._touched_member(Member(type_, key.id))
        return None

    async def compare(self) -> Compared:
        """See ports.Mirror."""
        async with self._comparing:
            try:
                done = await self._compare()
            except VedetteError as why:
                self._why = str(why)
                raise
            return done

    async def push(self, samples: Sequence[Sample]) -> Pushed:
        """See ports.TakesSamples: to the front end's metric daemon, which knows a device some 30 s after it was made."""
        await self._loaded(PUSH_TIMEOUT)
        done = Pushed()
        names = METRICS[self._options.metric_names or self.dialect]

        async def one(sample: Sample) -> None:
            device = self.there.of["device"].get(sample.server)
            if device is None:
                done.unknown += 1
                return
            name, units = names[sample.name]
            body = {"type": "double", "name": name, "value": round(sample.value, 2), "units": units, "slope": "both", "ttl": TTL}
            try:
                await self._front.ask("PUT", f"/mrd/{segment(device)}/metrics", body)
            except NotFound:
                done.unknown += 1
            except TargetUnavailable:
                raise
            except (TryLater, GiveUp) as why:
                done.failed += 1
                done.trouble = done.trouble or str(why)
            else:
                done.sent += 1

        async with _several(AT_A_TIME) as start:
            for sample in samples:
                await start(one, sample)
        return done

    async def close(self) -> None:
        await self._front.close()

    async def _loaded(self, timeout: float) -> None:
        """Events that come before the first comparison is over are covered by it, and wait for it."""
        if not self._ready.is_set():
            try:
                async with asyncio.timeout(timeout / 2):
                    await self._ready.wait()
            except TimeoutError:
                raise TargetUnavailable(f"the first comparison is not over: {self._why}", delay=1) from None

    # --- a comparison ------------------------------------------------------------------------------------------------------

    async def _compare(self) -> Compared:
        done = self._done = Compared()
        if not self._known_dialect:
            self.dialect = await probe(self._front)
            self._known_dialect = True
        self._written = {}
        try:
            await self._load_there()
        finally:
            self._written = None
        if not self._options.writes:
            self._ready.set()
            done.objects = sum(map(len, self.there.of.values()))
            return done
        again: list[VedetteError] = []
        self._changed = set()
        try:
            await self._load_world(again)
        finally:
            self._changed = None
        # What is known is known from here on, also when some of what follows fails.
        self._ready.set()

        async def one(work: Callable[[str], Awaitable[str | None]], id_: str) -> None:
            try:
                await work(id_)
            except TargetUnavailable:
                raise
            except TryLater as why:
                again.append(why)
            except GiveUp as why:
                done.failed += 1
                log.warning("the front end does not take it: %s", why, extra=kv(mirror=self._needs.name))

        for id_ in sorted(self.world.flavors):
            await one(self._sync_template, id_)
        self._names = {}
        try:
            async with _several(AT_A_TIME) as start:
                for id_ in {*self.world.stacks, *self.there.of["rack"]}:
                    await start(one, self._sync_rack, id_)
        finally:
            self._names = None
        for id_ in [one for one in self.there.of["template"] if one not in self.world.flavors]:
            await one(self._sync_template, id_)
        done.objects = sum(map(len, self.there.of.values()))
        ours = ((what, one) for what, every in self.there.of.items() for one in every if self._is_ours(what, one))
        await self._needs.keep_only([self._mirrored(what, one) for what, one in ours])
        if again:
            raise again[0]
        return done

    async def _load_there(self) -> None:
        there = There()
        for owner in await self._front.rows(OWNERS[self.dialect]):
            project = owner.get("project_id")
            if project and owner.get("login") != self._options.login:
                there.owners.setdefault(str(project), owner["id"])
        for what, path in PATHS.items():
            for row in await self._front.rows(path):
                if row.get("id") not in (None, ""):
                    there.put(what, row)  # type: ignore[arg-type]
        # What we wrote while the lists were read is newer than they are, or as new.
        for (what_, id_), row_ in (self._written or {}).items():
            if row_ is None:
                there.drop(what_, id_)
            else:
                there.put(what_, row_)
        self.there = there

    async def _load_world(self, failed: list[VedetteError]) -> None:
        """`failed`: why Heat told nothing of some stacks; these stay as they are shown."""
        world = World()
        every = self._needs.inventory.all
        for kind, place in (
            ("Flavor", world.flavors),
            ("Stack", world.stacks),
            ("Server", world.servers),
            ("Volume", world.volumes),
            ("Network", world.networks),
            ("ServerGroup", world.groups),
        ):
            place.update({id_: found["status"] for id_, found in (await every(self._source, kind)).items()})
        self._server_of, self._port_of = {}, {}
        ports = {id_: found["status"] for id_, found in (await every(self._source, "Port")).items()}
        for id_, port in ports.items():
            self._put_port(world, id_, port)
        for id_, found in (await every(self._source, "FloatingIP")).items():
            self._put_floating(world, id_, found["status"])
        for id_, found in (await every(self._source, "User")).items():
            world.users.setdefault(str(found["status"].get("name")), []).append(id_)
        remembered = self.world.details or {
            name.removeprefix(DETAIL): msgspec.json.decode(value, type=Detail)
            for name, value in (await self._needs.recall()).items()
            if name.startswith(DETAIL)
        }
        world.details = {id_: one for id_, one in remembered.items() if id_ in world.stacks}
        self.world = world
        for key in list(self._changed or ()):
            await self._take(key)
        self._stack_of = {}
        await self._look_at([id_ for id_ in world.stacks if self._is_stale(id_)], failed)
        self._index(*world.details)
        gone = remembered.keys() - world.stacks.keys()
        if gone:
            await self._needs.remember({DETAIL + id_: None for id_ in gone})
        self._forget_gone()

    def _forget_gone(self) -> None:
        """What is remembered of stacks and objects that neither the cloud nor the front end has any more."""
        stacks = self.world.stacks.keys() | self.there.of["rack"].keys() | {"templates"}
        for id_ in [one for one, lock in self._locks.items() if one not in stacks and not lock.locked()]:
            del self._locks[id_]
        self._asked_at = {id_: at for id_, at in self._asked_at.items() if id_ in stacks}
        self._settled = {key: mark for key, mark in self._settled.items() if key[1] in self.there.of[key[0]]}

    # --- what changed ------------------------------------------------------------------------------------------------------

    async def _take(self, key: Key) -> None:
        """The object as the inventory has it now."""
        found = await self._needs.inventory.get(key)
        status = None if found is None else found["status"]
        world = self.world
        match key.kind:
            case "Port":
                self._put_port(world, key.id, status)
            case "FloatingIP":
                self._put_floating(world, key.id, status)
            case _:
                place: dict[str, JsonObject] = {
                    "Flavor": world.flavors,
                    "Stack": world.stacks,
                    "Server": world.servers,
                    "Volume": world.volumes,
                    "Network": world.networks,
                    "ServerGroup": world.groups,
                }[key.kind]
                if status is None:
                    place.pop(key.id, None)
                else:
                    place[key.id] = status

    def _put_port(self, world: World, id_: str, port: JsonObject | None) -> None:
        before = self._server_of.pop(id_, "")
        if before:
            world.ports.get(before, {}).pop(id_, None)
        server = str((port or {}).get("device_id") or "")
        if port is not None and server and not str(port.get("device_owner") or "").startswith("network:"):
            world.ports.setdefault(server, {})[id_] = port
            self._server_of[id_] = server

    def _put_floating(self, world: World, id_: str, ip: JsonObject | None) -> None:
        before = self._port_of.pop(id_, "")
        if before:
            world.floating.get(before, {}).pop(id_, None)
        port = str((ip or {}).get("port_id") or "")
        if ip is not None and port:
            world.floating.setdefault(port, {})[id_] = ip
            self._port_of[id_] = port

    async def _touched_stack(self, id_: str) -> str | None:
        if id_ in self.world.stacks and self._is_stale(id_):
            await self._look_at([id_])
        detail = self.world.details.get(id_)
        if detail is not None and detail.parent:
            # What is in a nested stack is in its root's rack.
            root = self._root(id_)
            if not root:
                return None
            await self._look_at([root])
            return await self._sync_rack(root)
        return await self._sync_rack(id_)

    def _root(self, id_: str) -> str:
        for _ in range(int(DEEPEST)):
            detail = self.world.details.get(id_)
            if detail is None:
                return ""
            if not detail.parent:
                return id_
            id_ = detail.parent
        return ""

    async def _touched_servers(self, servers: Iterable[str]) -> str | None:
        members = [Member("Instance", one) for one in dict.fromkeys(servers) if one]
        return _words([await self._touched_member(one) for one in members if one in self._stack_of])

    async def _touched_member(self, member: Member) -> str | None:
        stack = self._stack_of.get(member)
        there = self.world.object(member)
        if stack is None and there is not None:
            stack = await self._find(member, there)
        if stack is None:
            # It may be shown all the same: of a stack that is gone, or that has it no more.
            row = self.there.find("device", member.id)
            rack = None if row is None else self.there.rows["rack"].get(_rack_of(row))
            stack = None if rack is None else stands_for("rack", rack)
        return None if not stack else await self._sync_rack(stack, only=member)

    async def _find(self, member: Member, status: JsonObject) -> str | None:
        """The stack that has it: one of its project on which Heat is or was at work since it was asked last."""
        project = str(status.get("tenant_id") or status.get("project_id") or status.get("os-vol-tenant-attr:tenant_id") or "")
        now = self._needs.clock.monotonic()
        some = [
            id_
            for id_, stack in self.world.stacks.items()
            if str(stack.get("project") or "") == project
            and (
                self._is_stale(id_)
                or (str(stack.get("stack_status")).endswith("_IN_PROGRESS") and now - self._asked_at.get(id_, 0.0) >= LOOK_AGAIN)
            )
        ]
        await self._look_at(some[:MOST_LOOKS])
        return self._stack_of.get(member)

    # --- what Heat says ----------------------------------------------------------------------------------------------------

    def _is_stale(self, id_: str) -> bool:
        detail, stack = self.world.details.get(id_), self.world.stacks.get(id_)
        return detail is None or stack is None or (detail.status, detail.updated) != _moment(stack)

    async def _look_at(self, stacks: Sequence[str], failed: list[VedetteError] | None = None) -> None:
        """Ask Heat for these. What it does not tell of one is raised, or put into `failed`, so that one does not keep the others
        from being shown."""
        told: dict[str, bytes | None] = {}

        async def one(id_: str) -> None:
            stack = self.world.stacks.get(id_)
            if stack is None:
                return
            self._asked_at[id_] = self._needs.clock.monotonic()
            try:
                detail = await self._detail(id_, stack)
            except NotFound:
                return  # gone meanwhile: that is news of its own
            except VedetteError as why:
                if failed is None:
                    raise
                failed.append(why)
                return
            if detail != self.world.details.get(id_):
                self.world.details[id_] = detail
                told[DETAIL + id_] = msgspec.json.encode(detail)
            self._index(id_)

        async with _several(AT_A_TIME) as start:
            for id_ in stacks:
                await start(one, id_)
        if told:
            await self._needs.remember(told)

    async def _detail(self, id_: str, stack: JsonObject) -> Detail:
        status, updated = _moment(stack)
        path = f"/stacks/{segment(str(stack.get('stack_name') or ''))}/{segment(id_)}"
        shown = (await self._cloud.get(HEAT, path)).body.get("stack")
        shown = shown if isinstance(shown, dict) else {}
        if shown.get("parent"):
            return Detail(status, updated, parent=str(shown["parent"]))
        answer = await self._cloud.get(HEAT, f"{path}/resources", (("nested_depth", DEEPEST),))
        rows = [row for row in answer.body.get("resources") or () if isinstance(row, dict) and row.get("physical_resource_id")]
        rows.sort(key=lambda row: (str(row.get("creation_time")), str(row["physical_resource_id"])))
        members = [
            Member(type_, str(row["physical_resource_id"]))
            for row in rows
            if (type_ := wanted.TYPES.get(str(row.get("resource_type")))) is not None
        ]
        groups = [str(row["physical_resource_id"]) for row in rows if row.get("resource_type") == wanted.SERVER_GROUP]
        return Detail(
            status,
            updated,
            members=tuple(dict.fromkeys(members)),
            groups=tuple(dict.fromkeys(groups)),
            outputs=_outputs(shown.get("outputs")),
        )

    def _index(self, *stacks: str) -> None:
        for id_ in stacks:
            for member in wanted.members(self.world, id_, "v2"):
                self._stack_of[member] = id_

    # --- making equal ------------------------------------------------------------------------------------------------------

    async def _sync_template(self, flavor: str, given: JsonObject | None = None) -> str | None:
        """`given`: a flavor that the inventory has no more, as a server remembers it."""
        async with self._lock("templates"):
            shown = self.there.find("template", flavor)
            status = self.world.flavors.get(flavor) or given
            if status is None:
                return await self._without_flavor(flavor, shown)
            body = wanted.template(status, self.dialect)
            if shown is None:
                await self._create("template", flavor, PATHS["template"], {"template": body})
                return f"created template {body['name']}"
            if shown.get("description") != wanted.FROM_FLAVOR:
                return None  # somebody's own
            del body["height"]  # devices stand in racks by it: it can't be changed
            return await self._change("template", flavor, shown, body)

    async def _without_flavor(self, flavor: str, shown: JsonObject | None) -> str | None:
        if shown is None or shown.get("description") != wanted.FROM_FLAVOR or shown.get("tag"):
            return None
        id_ = str(shown["id"])
        if any(_template_of(row) == id_ for row in self.there.rows["device"].values()):
            return None  # servers outlive their flavor
        if not await self._absent("Flavor", flavor):
            return None
        try:
            return await self._remove("template", flavor, f"{PATHS['template']}/{id_}")
        except Rejected as why:
            log.info("a template is still in use: %s", why, extra=kv(mirror=self._needs.name, flavor=flavor))
            return None

    async def _sync_rack(self, stack: str, only: Member | None = None) -> str | None:
        """A stack's rack and what is in it; `only` one of its devices."""
        async with self._lock(stack):
            shown = self.there.find("rack", stack)
            if not wanted.is_rack(self.world, stack):
                return await self._without_stack(stack, shown)
            owner = self.there.owners.get(str(self.world.stacks[stack].get("project") or ""))
            if owner is None:
                return None  # nobody at the front end whose it would be
            said: list[str | None] = []
            if shown is None or only is None:
                body = wanted.rack(self.world, stack, self._rack_name(stack, owner))
                if shown is None:
                    shown = await self._create("rack", stack, PATHS["rack"], {"rack": self._new_rack(stack, owner, body)})
                    said.append(f"created rack {body['name']}")
                    only = None
                else:
                    said.append(await self._change("rack", stack, shown, body))
            said += await self._sync_devices(stack, shown, only)
            return _words(said)

    def _new_rack(self, stack: str, owner: Any, body: JsonObject) -> JsonObject:
        new = {"status": "IN_PROGRESS", **body, "u_height": self._options.rack_height}
        if self.dialect == "v1":
            return {"user_id": owner, **new}
        # Wanted and unique there. Where orders are no matter of billing, a stack is its own order.
        return {"team_id": owner, "order_id": stack, **new}

    async def _without_stack(self, stack: str, shown: JsonObject | None) -> str | None:
        if shown is None:
            return None
        detail = self.world.details.get(stack)
        if stack in self.world.stacks and (detail is None or not detail.parent):
            return None  # Heat could not be asked
        if stack not in self.world.stacks and not await self._absent("Stack", stack):
            return None
        return await self._remove("rack", stack, f"{PATHS['rack']}/{shown['id']}?recurse=true")

    async def _sync_devices(self, stack: str, rack: JsonObject, only: Member | None) -> list[str | None]:
        members = wanted.members(self.world, stack, self.dialect)
        names = self._device_names(members, rack)
        said: list[str | None] = []
        trouble: GiveUp | None = None
        for member in members if only is None else [only] if only in members else []:
            if self.world.object(member) is None:
                # Heat may be ahead of Nova's news; usually it is not there yet.
                await self._take(self._key(wanted.KINDS[member.type], member.id))
                if self.world.object(member) is None:
                    continue
            try:
                said.append(await self._sync_device(stack, member, names[member.id]))
            except GiveUp as why:  # one that is refused keeps no other from its place
                trouble = trouble or why
        wanted_ids = {member.id for member in members}
        for id_ in list(self.there.in_rack.get(str(rack["id"]), ())):
            row = self.there.rows["device"].get(id_, {})
            ours = stands_for("device", row)
            if ours and (only is None or ours == only.id):
                object_ = Member(_type_of(row), ours)
                if ours not in wanted_ids or self.world.object(object_) is None:
                    said.append(await self._without_object(stack, object_, row, left=ours not in wanted_ids))
        if trouble is not None:
            raise trouble
        return said

    async def _sync_device(self, stack: str, member: Member, name: str) -> str | None:
        body = wanted.device(self.world, member, stack, name, self.dialect)
        shown = self.there.find("device", member.id)
        if shown is not None:
            return await self._change("device", member.id, shown, body)
        template = await self._template_for(member)
        rack = self.there.find("rack", stack)
        assert rack is not None
        size = max(1, int(template.get("height") or 1))
        start = await self._place(stack, rack, size)
        new = {"status": "IN_PROGRESS", **body, "location": {"facing": wanted.FACING, "rack_id": rack["id"], "start_u": start}}
        if self.dialect == "v2":
            new["type"] = member.type
        made = await self._create(
            "device", member.id, "/api/v1/nodes", {"template_id": template["id"], "device": new}, rack=str(rack["id"])
        )
        return f"created device {made.get('name')}"

    async def _place(self, stack: str, rack: JsonObject, size: int) -> int:
        """The lowest unit of a free place; a rack that has none grows."""
        height = int(rack.get("u_height") or self._options.rack_height)
        occupied = [_units(self.there.rows["device"][id_]) for id_ in self.there.in_rack.get(str(rack["id"]), ())]
        start = wanted.slot(height, occupied, size)
        if start is not None:
            return start
        if height + size > wanted.TALLEST_RACK:
            raise GiveUp(f"rack {rack.get('name')} is full: it has {height} units, and none has more than {wanted.TALLEST_RACK}")
        await self._write("rack", stack, rack, {"u_height": height + size})
        return height + 1

    async def _template_for(self, member: Member) -> JsonObject:
        if member.type != "Instance":
            tag = member.type.lower()
            for row in self.there.rows["template"].values():
                if row.get("tag") == tag:
                    return row
            raise GiveUp(f"the front end has no template with the tag {tag!r}: make one there")
        server = self.world.servers[member.id]
        flavor = wanted.flavor_of(server)
        if not flavor:
            raise TryLater(f"the flavor of server {member.id} is not known yet", delay=5)
        if self.there.find("template", flavor) is None:
            if flavor not in self.world.flavors:
                await self._take(self._key("Flavor", flavor))
            said = server["flavor"]
            await self._sync_template(flavor, {**said, "id": flavor, "name": said.get("original_name") or flavor})
        found = self.there.find("template", flavor)
        assert found is not None
        return found

    async def _without_object(self, stack: str, member: Member, row: JsonObject, *, left: bool) -> str | None:
        """A device that stands for nothing of this stack any more."""
        detail = self.world.details.get(stack)
        settled = detail is not None and detail.status.endswith("_COMPLETE") and not self._is_stale(stack)
        if not (left and settled) and not await self._absent(wanted.KINDS[member.type], member.id):
            return None
        return await self._remove("device", member.id, f"{PATHS['device']}/{row['id']}")

    # --- names -------------------------------------------------------------------------------------------------------------

    def _names_of(self, owner: Any) -> dict[str, str]:
        """What the racks of an owner are called: unique, by age, and beside those that somebody made by hand."""
        projects = {project for project, one in self.there.owners.items() if one == owner}
        mine = sorted(
            (str(one.get("creation_time")), id_, wanted.rack_name(one.get("stack_name")))
            for id_, one in self.world.stacks.items()
            if one.get("project") in projects and wanted.is_rack(self.world, id_)
        )
        taken = {
            str(row.get("name"))
            for row in self.there.rows["rack"].values()
            if not stands_for("rack", row) and _owner_of(row) in (owner, None)
        }
        return wanted.unique(((id_, name) for _, id_, name in mine), taken)

    def _rack_name(self, stack: str, owner: Any) -> str:
        """During a comparison the names of an owner's racks are worked out once."""
        if self._names is None:
            return self._names_of(owner)[stack]
        known = self._names.get(owner)
        if known is None or stack not in known:
            known = self._names[owner] = self._names_of(owner)
        return known[stack]

    def _device_names(self, members: Collection[Member], rack: JsonObject) -> dict[str, str]:
        ids = {member.id for member in members}
        rows = (self.there.rows["device"].get(id_, {}) for id_ in self.there.in_rack.get(str(rack["id"]), ()))
        taken = {str(row.get("name")) for row in rows if stands_for("device", row) not in ids}
        objects = [(member.id, self.world.object(member) or {}) for member in members]
        return wanted.unique(((id_, wanted.device_name(one.get("name"))) for id_, one in objects), taken)

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def _create(self, what: What, ours: str, path: str, body: JsonObject, rack: str = "") -> JsonObject:
        if (what, ours) in self._unsure:
            found = await self._search(what, ours, rack)
            self._unsure.discard((what, ours))
            if found is not None:
                self._shown(what, found)
                return found
        self._unsure.add((what, ours))
        try:
            made = await self._front.create(path, body)
        except (GiveUp, NotFound):
            self._unsure.discard((what, ours))  # it was refused
            raise
        self._unsure.discard((what, ours))
        # An answer without what we sent in it would be taken for somebody else's.
        if not stands_for(what, made):
            inner = body.get(what) or {}
            made = {**made, **{name: inner[name] for name in ("metadata", "foreign_id", "location") if name in inner}}
        self._shown(what, made)
        await self._told(what, ours, "created")
        return made

    async def _search(self, what: What, ours: str, rack: str) -> JsonObject | None:
        """Whether it was made, when nobody heard the answer."""
        if what == "device":
            shown = await self._front.get(f"{PATHS['rack']}/{rack}")
            rows = shown.get("devices") if isinstance(shown, dict) else None
            rows = rows if isinstance(rows, list) else await self._front.rows(PATHS[what])
        else:
            rows = await self._front.rows(PATHS[what])
        found = [row for row in rows if isinstance(row, dict) and stands_for(what, row) == ours]
        if found and what == "device" and "location" not in found[0]:
            one = await self._front.get(f"{PATHS[what]}/{found[0]['id']}")
            return one if isinstance(one, dict) else None
        return found[0] if found else None

    async def _change(self, what: What, ours: str, shown: JsonObject, body: JsonObject) -> str | None:
        """Send what differs, if anything does."""
        differs = {name: value for name, value in body.items() if not _shows(shown, name, value)}
        if not differs:
            self._settled.pop((what, ours), None)
            return None
        mark = _mark(differs, shown)
        if self._settled.get((what, ours)) == mark:
            return None
        if "metadata" in differs:
            old = shown.get("metadata")
            differs["metadata"] = {**(old if isinstance(old, dict) else {}), **differs["metadata"]}
        await self._write(what, ours, shown, differs)
        after = self.there.find(what, ours) or {}
        still = {name: value for name, value in body.items() if not _shows(after, name, value)}
        if still:
            self._settled[what, ours] = _mark(still, after)
        return f"changed {what} {after.get('name')}: {', '.join(sorted(differs))}"

    async def _write(self, what: What, ours: str, shown: JsonObject, fields: JsonObject) -> None:
        try:
            answer = await self._front.change(f"{PATHS[what]}/{shown['id']}", {what: fields})
        except NotFound:
            # Somebody removed it there: it is made anew at the next look.
            self.there.drop(what, str(shown["id"]))
            raise TryLater(f"{what} {shown['id']} is gone from the front end", delay=1) from None
        # What an answer leaves out is as we knew it.
        self._shown(what, {**shown, **(answer or fields), "id": shown["id"]})
        await self._told(what, ours, "changed")

    async def _remove(self, what: What, ours: str, path: str) -> str:
        row = self.there.find(what, ours)
        assert row is not None
        before = self._mirrored(what, ours)
        inside = [stands_for("device", self.there.rows["device"][id_]) for id_ in self.there.in_rack.get(str(row["id"]), ())]
        gone = [self._mirrored("device", one) for one in inside if what == "rack" and one in self.there.of["device"]]
        await self._front.remove(path)
        self.there.drop(what, str(row["id"]))
        if self._written is not None:
            self._written[what, str(row["id"])] = None
        self._writes(self._needs.name, what, "removed").inc()
        self._done.removed += 1
        await self._needs.keep((), [before, *gone])
        log.info("removed from the front end", extra=kv(mirror=self._needs.name, type=what, id=ours, name=str(row.get("name"))))
        return f"removed {what} {row.get('name')}"

    def _shown(self, what: What, row: JsonObject) -> None:
        self.there.put(what, row)
        if self._written is not None:
            self._written[what, str(row["id"])] = row

    async def _told(self, what: What, ours: str, how: Literal["created", "changed"]) -> None:
        self._writes(self._needs.name, what, how).inc()
        setattr(self._done, how, getattr(self._done, how) + 1)
        log.debug("%s at the front end", how, extra=kv(mirror=self._needs.name, type=what, id=ours))
        await self._needs.keep([self._mirrored(what, ours)], ())

    def _mirrored(self, what: What, ours: str) -> Mirrored:
        row = self.there.find(what, ours) or {}
        kind = {"template": "Flavor", "rack": "Stack"}.get(what) or wanted.KINDS[_type_of(row)]
        return Mirrored(
            mirror=self._needs.name,
            type=what,
            target_id=str(row.get("id")),
            kind=kind,
            object_id=ours,
            name=str(row.get("name") or ""),
            state=str(row.get("status") or ""),
        )

    def _is_ours(self, what: What, ours: str) -> bool:
        return what != "template" or (self.there.find(what, ours) or {}).get("description") == wanted.FROM_FLAVOR

    async def _absent(self, kind: str, id_: str) -> bool:
        if await self._needs.absent(self._key(kind, id_)):
            return True
        self._done.kept += 1
        return False

    def _key(self, kind: str, id_: str) -> Key:
        return Key(self._source, OPENSTACK, kind, id_)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


# --- small things ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _several(many: int) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """`await start(work, *args)` begins `work(*args)` when fewer than so many are under way; at the end all are over. The first
    error ends the others and is raised as it is."""
    turn = asyncio.Semaphore(many)
    tasks: set[asyncio.Task[Any]] = set()
    failed: list[BaseException] = []

    def over(task: asyncio.Task[Any]) -> None:
        tasks.discard(task)
        turn.release()
        if not task.cancelled() and (why := task.exception()) is not None:
            failed.append(why)

    async def start(work: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        await turn.acquire()
        if failed:
            turn.release()
            raise failed[0]
        task = asyncio.create_task(work(*args))
        tasks.add(task)
        task.add_done_callback(over)

    try:
        yield start
        while tasks and not failed:
            await asyncio.wait(set(tasks), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(set(tasks))
    await asyncio.sleep(0)
    if failed:
        raise failed[0]


def _moment(stack: JsonObject) -> tuple[str, str]:
    return str(stack.get("stack_status") or ""), str(stack.get("updated_time") or "")


def _outputs(said: Any) -> tuple[tuple[str, str], ...]:
    """Without those that look like secrets, by their names or by what they hold: a stack may well give out a private key."""
    found: list[tuple[str, str]] = []
    for one in said[:MOST_OUTPUTS] if isinstance(said, list) else ():
        if not isinstance(one, dict) or not one.get("output_key") or one.get("output_value") is None:
            continue
        key, value = str(one["output_key"]), one["output_value"]
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        kept = msgspec.json.decode(scrub(msgspec.json.encode({key: value})))
        if kept == {key: value} and "PRIVATE KEY" not in text and MASK not in text:
            found.append((key, text[:LONGEST_OUTPUT]))
    return tuple(found)


def _shows(shown: JsonObject, name: str, value: Any) -> bool:
    if name == "metadata":
        there = shown.get("metadata")
        return isinstance(there, dict) and all(there.get(key) == one for key, one in value.items())
    if name == "details":
        # Shown beside the device's own fields.
        inner = shown.get("details")
        inner = inner if isinstance(inner, dict) else {}
        return all(key == "type" or shown.get(key, inner.get(key)) == one for key, one in value.items())
    return bool(shown.get(name) == value)


def _mark(differs: JsonObject, shown: JsonObject) -> bytes:
    """What was wanted, and what is shown instead."""
    names = set(differs) | (set(differs["details"]) if isinstance(differs.get("details"), dict) else set())
    return msgspec.json.encode([differs, {name: shown.get(name) for name in names}], order="sorted")


def _units(row: JsonObject) -> tuple[int, int]:
    """(lowest unit, size) of a device."""
    location = row["location"]
    start = int(location.get("start_u") or 1)
    template = row.get("template")
    size = int(location.get("end_u") or start) - start + 1
    if size <= 1 and isinstance(template, dict):
        size = max(size, int(template.get("height") or 1))
    return start, size


def _template_of(row: JsonObject) -> str:
    template = row.get("template")
    return str(template.get("id")) if isinstance(template, dict) else str(row.get("template_id"))


def _owner_of(row: JsonObject) -> Any:
    owner = row.get("owner")
    return owner.get("id") if isinstance(owner, dict) else None


def _type_of(row: JsonObject) -> wanted.Type:
    """v1 has servers alone."""
    type_ = str(row.get("type") or "")
    return "Volume" if "Volume" in type_ else "Network" if "Network" in type_ else "Instance"


def _said(event: Event, name: str) -> list[str]:
    """A field's values before and after the event."""
    found = []
    for object_ in (event.object, event.old):
        status = object_.get("status")
        if isinstance(status, dict) and status.get(name):
            found.append(str(status[name]))
    return found


def _words(said: Iterable[str | None]) -> str | None:
    return "; ".join(one for one in said if one)[:500] or None
