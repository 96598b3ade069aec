"""What every strategy has to hold, on clouds that hypothesis makes up.

    @given(rng=st.randoms(use_true_random=False))
    def test_mine_keeps_the_rules(rng):
        assert faults(STRATEGY, case(rng, STRATEGY), plugins.actions()) == []

`cloud`, `measured` and `case` make things up from a `random.Random` (hypothesis' own, which shrinks, or one with a seed); `apply`
says what a cloud would look like after a list of actions; `faults` names every rule that a strategy breaks, in sentences. A
strategy that needs a parameter which no default tells is given one from the cloud, by the parameter's name (`_FROM_CLOUD`).
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema
import msgspec

from vedette.errors import BadRequest
from vedette.model import goals
from vedette.model.advice import Done, Metrics, Proposed, Query, Solution, Trigger
from vedette.model.snapshot import Aggregate, Host, Machine, Pool, Server, Snapshot, Volume, VolumeType
from vedette.ports import Action, JsonObject, Strategy

MOST_NOTES = 100
LONGEST_NOTE = 400
"""Characters."""
MADE_UP = frozenset({"dummy", "unclassified"})
"""Goals whose strategies act on what the cloud needn't have: they repeat what they were given, or what they make up."""
TINY = 1e-6


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a strategy."""

    snapshot: Snapshot
    values: dict[Query, dict[str, float]] = {}
    parameters: dict[str, Any] = {}
    triggers: tuple[Trigger, ...] = ()


def case(rng: random.Random, strategy: Strategy) -> Case:
    snapshot = cloud(rng)
    parameters = parameters_for(rng, strategy, snapshot)
    values = measured(rng, snapshot, strategy.metrics(snapshot, parameters))
    return Case(snapshot=snapshot, values=values, parameters=parameters, triggers=_triggers(rng, snapshot))


# --- clouds ----------------------------------------------------------------------------------------------------------------

_FLAVORS = (("tiny", 1, 512, 1), ("small", 1, 1024, 0), ("medium", 2, 2048, 10), ("large", 4, 8192, 40))
_STATUSES = ("ACTIVE",) * 6 + ("SHUTOFF", "SHUTOFF", "PAUSED", "SUSPENDED", "ERROR")


def cloud(rng: random.Random, hosts: int = 6, servers: int = 14) -> Snapshot:
    """Of up to so many hosts and servers. Most hosts have room; some are down, disabled, or hold more than they should."""
    zones = rng.choice((("east",), ("east", "west")))
    there = [_host(rng, i, zones) for i in range(rng.choice((1, *range(2, hosts + 1), *range(2, hosts + 1))))]
    pools = [_pool(rng, i, zones) for i in range(rng.randint(0, 4))]
    machines, there = _machines(rng, there) if rng.randint(0, 2) else ([], there)
    instances = _servers(rng, there, rng.randint(0, servers))
    volumes = _volumes(rng, pools, instances)
    attached: dict[str, list[str]] = {}
    for volume in volumes:
        for one in volume.servers:
            attached.setdefault(one, []).append(volume.uuid)
    return Snapshot(
        revision=1,
        hosts=tuple(there),
        servers=tuple(msgspec.structs.replace(one, volumes=tuple(attached.get(one.uuid, ()))) for one in instances),
        aggregates=(Aggregate(id=1, name="all", hosts=tuple(one.service_host for one in there)),),
        pools=tuple(_filled(rng, pool, volumes) for pool in pools),
        volumes=tuple(volumes),
        volume_types=tuple(VolumeType(name=f"of-{name}", extra_specs={"volume_backend_name": name}) for name in ("fast", "slow")),
        machines=tuple(machines),
    )


def _uuid(group: int, i: int) -> str:
    return f"{i:08x}-0000-4000-8000-{group:012x}"


def _seldom(rng: random.Random, of: int = 8) -> bool:
    return rng.randint(0, of - 1) == of - 1


def _host(rng: random.Random, i: int, zones: Sequence[str]) -> Host:
    name = f"host-{i}"
    disabled = _seldom(rng, 5)
    vcpus, memory, disk = rng.choice(((8, 16384, 400), (16, 8192, 100), (4, 8192, 40), (2, 4096, 400)))
    vcpus_ratio, memory_ratio, disk_ratio = rng.choice(((1.0, 1.0, 1.0), (4.0, 1.5, 1.0), (16.0, 1.0, 2.0), (0.5, 0.9, 1.0)))
    reserved = _seldom(rng, 3)
    return Host(
        uuid=_uuid(1, i),
        hostname=name,
        service_host=f"{name}.example" if _seldom(rng) else name,
        service_id=_uuid(2, i),
        status="disabled" if disabled else "enabled",
        disabled_reason=rng.choice(("", "watcher_disabled", "watcher_maintaining", "broken fan")) if disabled else "",
        state="down" if _seldom(rng, 12) else "up",
        zone=rng.choice(zones),
        vcpus=vcpus,
        memory=memory,
        disk=disk,
        vcpus_reserved=int(reserved),
        memory_reserved=512 * reserved,
        disk_reserved=5 * reserved,
        vcpus_ratio=vcpus_ratio,
        memory_ratio=memory_ratio,
        disk_ratio=disk_ratio,
    )


def _servers(rng: random.Random, hosts: Sequence[Host], count: int) -> list[Server]:
    found: list[Server] = []
    used = {host.hostname: [0, 0, 0] for host in hosts}
    for i in range(count):
        flavor, vcpus, memory, disk = rng.choice(_FLAVORS)
        roomy = [host for host in hosts if _fits(used[host.hostname], (vcpus, memory, disk), host)]
        host = rng.choice(hosts if not roomy or _seldom(rng, 20) else roomy)
        off = _seldom(rng, 15)
        if not off:
            for at, more in enumerate((vcpus, memory, disk)):
                used[host.hostname][at] += more
        found.append(
            Server(
                uuid=_uuid(3, i),
                name=f"server-{i}",
                host="" if off else host.hostname,
                status="SHELVED_OFFLOADED" if off else rng.choice(_STATUSES),
                task_state="migrating" if _seldom(rng, 12) else "",
                vcpus=vcpus,
                memory=memory,
                disk=disk,
                project=rng.choice(("project-a", "project-b")),
                zone=host.zone,
                pinned_zone=host.zone if _seldom(rng, 4) else "",
                metadata=rng.choice(({}, {}, {"watcher-priority": "1"}, {"watcher-priority": 9}, {"watcher-priority": "high"})),
                locked=_seldom(rng, 10),
                created=f"2026-11-{rng.randint(1, 28):02d}T10:00:00Z",
                flavor=flavor,
                excluded=_seldom(rng, 10),
            )
        )
    return found


def _pool(rng: random.Random, i: int, zones: Sequence[str]) -> Pool:
    backend = rng.choice(("fast", "slow"))
    return Pool(
        name=f"store-{i}@{backend}#pool",
        total=rng.choice((100.0, 60.0, 60.0, 1000.0, 0.0)),
        oversubscription=rng.choice((1.0, 1.0, 20.0)),
        backend_name=backend,
        zone=rng.choice(zones),
        status="disabled" if _seldom(rng) else "enabled",
        state="down" if _seldom(rng, 12) else "up",
    )


def _volumes(rng: random.Random, pools: Sequence[Pool], servers: Sequence[Server]) -> list[Volume]:
    found: list[Volume] = []
    for i in range(rng.randint(0, 8) if pools else 0):
        pool = rng.choice(pools)
        server = rng.choice(servers) if servers and rng.randint(0, 1) else None
        boot = server is not None and _seldom(rng, 3)
        found.append(
            Volume(
                uuid=_uuid(4, i),
                name=f"volume-{i}",
                pool=pool.name,
                size=rng.choice((1, 10, 40)),
                status="error" if _seldom(rng) else "available" if server is None else "in-use",
                type=rng.choice(("", f"of-{pool.backend_name}")),
                project=rng.choice(("project-a", "project-b")),
                zone=pool.zone,
                bootable=boot,
                servers=() if server is None else (server.uuid,),
                boot=boot,
                snapshots=int(_seldom(rng)),
                created=f"2026-11-{rng.randint(1, 28):02d}T10:00:00Z",
            )
        )
    return found


def _filled(rng: random.Random, pool: Pool, volumes: Sequence[Volume]) -> Pool:
    held = float(sum(one.size for one in volumes if one.pool == pool.name))
    free = max(0.0, pool.total - held - rng.choice((0, 0, 50)))
    return msgspec.structs.replace(
        pool,
        free=free,
        allocated=held,
        provisioned=held,
        virtual_free=max(0.0, pool.total * pool.oversubscription - held),
    )


def _machines(rng: random.Random, hosts: Sequence[Host]) -> tuple[list[Machine], list[Host]]:
    """Of some of the hosts; a host whose machine is off is down."""
    machines = [Machine(uuid=_uuid(5, 99), name="spare", hostname="spare", power_state="power off")] if _seldom(rng, 3) else []
    there: list[Host] = []
    for i, host in enumerate(hosts):
        power = rng.choice(("", "", "power on", "power on", "power on", "power on", "power off", "error"))
        if power:
            machines.append(
                Machine(
                    uuid=_uuid(5, i),
                    name=f"machine-{i}",
                    hostname=host.hostname,
                    power_state=power,
                    maintenance=_seldom(rng),
                    provision_state="active",
                )
            )
        there.append(msgspec.structs.replace(host, state="down") if power == "power off" else host)
    machines.sort(key=lambda one: one.uuid)
    return machines, there


def _triggers(rng: random.Random, snapshot: Snapshot) -> tuple[Trigger, ...]:
    if rng.randint(0, 2):
        return ()
    names = [one.hostname for one in snapshot.hosts] + [one.uuid for one in snapshot.servers] + ["nobody"]
    return (Trigger(at=1, objects=(rng.choice(names), rng.choice(names))), Trigger(at=2, cause="user"))


# --- measurements ----------------------------------------------------------------------------------------------------------

_RANGES: Mapping[str, tuple[float, ...]] = {
    "host_outlet_temp": (20.0, 30.0, 34.9, 35.0, 36.0, 60.0),
    "host_inlet_temp": (15.0, 22.0, 27.9, 28.0, 31.0),
    "host_airflow": (100.0, 300.0, 400.0, 500.0),
    "host_power": (50.0, 200.0, 350.0, 500.0),
    "instance_cpu_usage": (0.0, 1.0, 5.0, 30.0, 60.0, 100.0),
    "instance_l3_cache_usage": (0.0, 1e6, 2e6, 8e6),
}


def measured(rng: random.Random, snapshot: Snapshot, queries: Sequence[Query]) -> dict[Query, dict[str, float]]:
    """Values with holes. Those of hosts go with those of their servers: cpu and ram of a host are at least their sum."""
    cpu = {one.uuid: rng.choice(_RANGES["instance_cpu_usage"]) for one in snapshot.servers}
    ram = {one.uuid: one.memory * rng.choice((0.1, 0.5, 1.0)) for one in snapshot.servers}
    truth: dict[str, dict[str, float]] = {
        "instance_cpu_usage": cpu,
        "instance_ram_usage": ram,
        "instance_ram_allocated": {one.uuid: float(one.memory) for one in snapshot.servers},
        "instance_root_disk_size": {one.uuid: float(one.disk) for one in snapshot.servers},
        "host_cpu_usage": {
            host.hostname: min(100.0, rng.choice((0.0, 2.0)) + _cpu_of(snapshot, host, cpu)) for host in snapshot.hosts
        },
        "host_ram_usage": {
            host.hostname: rng.choice((0.0, 256.0)) + sum(ram[one.uuid] for one in snapshot.servers_on[host.hostname])
            for host in snapshot.hosts
        },
    }
    found: dict[Query, dict[str, float]] = {}
    for query in queries:
        # Of cache, temperature and the like, each period has its own.
        names = [one.hostname for one in snapshot.hosts] if query.of_hosts else [one.uuid for one in snapshot.servers]
        values = truth.get(query.metric) or {name: rng.choice(_RANGES[query.metric]) for name in names}
        holes = rng.choice((1000, 1000, 1000, 8, 8, 2, 1))
        known = {name: value for name, value in values.items() if not _seldom(rng, holes)}
        if known:  # what nobody has is not there at all, as in the service
            found[query] = known
    return found


def _cpu_of(snapshot: Snapshot, host: Host, cpu: Mapping[str, float]) -> float:
    """Per cent of the host's vCPUs."""
    return sum(cpu[one.uuid] * one.vcpus for one in snapshot.servers_on[host.hostname]) / max(1, host.vcpus)


def measured_after(before: Snapshot, after: Snapshot, values: Metrics) -> dict[Query, dict[str, float]]:
    """The same measurements when servers are where they are `after`: what they use has gone along with them."""
    moved = [(one, before.server[one.uuid].host) for one in after.servers if before.server[one.uuid].host != one.host]
    found = {query: dict(known) for query, known in values.items()}
    for query, known in found.items():
        if query.metric not in ("host_cpu_usage", "host_ram_usage"):
            continue
        used = next((one for at, one in values.items() if at.metric == query.metric.replace("host", "instance", 1)), {})
        for server, source in moved:
            load = used.get(server.uuid, 0.0) * (server.vcpus if query.metric == "host_cpu_usage" else 1)
            for name, sign in ((source, -1), (server.host, +1)):
                if name in known:
                    known[name] += sign * load / (before.host[name].vcpus if query.metric == "host_cpu_usage" else 1)
    return found


# --- parameters ------------------------------------------------------------------------------------------------------------


def with_defaults(strategy: Strategy, parameters: JsonObject | None = None) -> dict[str, Any]:
    """What the service gives a strategy for what an operator gave."""
    usual = {name: one["default"] for name, one in strategy.schema.get("properties", {}).items() if "default" in one}
    return copy.deepcopy({**usual, **(parameters or {})})


def parameters_for(rng: random.Random, strategy: Strategy, snapshot: Snapshot) -> dict[str, Any]:
    """Valid ones, mostly the defaults."""
    given: dict[str, Any] = {}
    needed = strategy.schema.get("required", ())
    for name, schema in strategy.schema.get("properties", {}).items():
        if name in _FROM_CLOUD:
            if name in needed or rng.randint(0, 4):
                given[name] = _FROM_CLOUD[name](rng, snapshot)
        elif not rng.randint(0, 3):
            options = _options(schema)
            if options:
                given[name] = rng.choice(options)
    parameters = with_defaults(strategy, given)
    jsonschema.Draft7Validator(strategy.schema).validate(parameters)
    return parameters


def _options(schema: JsonObject) -> list[Any]:
    """Values at the edges of what a schema allows."""
    if "enum" in schema:
        return list(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return [False, True]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        options = [low, low + 1, low + 10, low + 100]
        if "maximum" in schema:
            options.append(schema["maximum"])
        return [one for one in options if one <= schema.get("maximum", one)]
    return []


def _some_host(rng: random.Random, snapshot: Snapshot) -> str:
    return rng.choice([one.hostname for one in snapshot.hosts] * 8 + ["nowhere"])


def _some_source(rng: random.Random, snapshot: Snapshot) -> str:
    """Mostly one with servers."""
    full = [name for name, servers in snapshot.servers_on.items() if len(servers) > 1]
    return rng.choice(full) if full and rng.randint(0, 3) else _some_host(rng, snapshot)


def _some_pool(rng: random.Random, snapshot: Snapshot) -> str:
    return rng.choice([one.name for one in snapshot.pools] * 8 + ["no@such#pool"])


def _compute_nodes(rng: random.Random, snapshot: Snapshot) -> list[dict[str, str]]:
    found = []
    for _ in range(rng.randint(1, 3)):
        one = {"src_node": _some_source(rng, snapshot)}
        if rng.randint(0, 3):
            one["dst_node"] = _some_host(rng, snapshot)
        found.append(one)
    return found


def _storage_pools(rng: random.Random, snapshot: Snapshot) -> list[dict[str, str]]:
    found = []
    for _ in range(rng.randint(1, 3)):
        one = {"src_pool": _some_pool(rng, snapshot)}
        if rng.randint(0, 2):
            one["dst_pool"] = _some_pool(rng, snapshot)
        else:
            one["dst_type"] = rng.choice(("of-fast", "of-slow", "of-none"))
        if not rng.randint(0, 2):
            one["src_type"] = rng.choice(("of-fast", "of-slow"))
        found.append(one)
    return found


def _priority(rng: random.Random, snapshot: Snapshot) -> dict[str, Any]:
    every = {
        "project": ["project-b", "nobody"],
        "compute_node": [_some_host(rng, snapshot)],
        "storage_pool": [_some_pool(rng, snapshot)],
        "compute": rng.choice(("vcpu_num", "mem_size", "disk_size", "created_at")),
        "storage": rng.choice(("size", "created_at")),
    }
    return {name: value for name, value in every.items() if rng.randint(0, 1)}


def _actions(rng: random.Random, snapshot: Snapshot) -> list[dict[str, Any]]:
    every: list[dict[str, Any]] = [
        {"action_type": "nop", "input_parameters": {"message": "hello"}},
        {"action_type": "sleep", "input_parameters": {"duration": 0.5}},
        {"action_type": "stop", "resource_id": _uuid(3, 1), "input_parameters": {}},
    ]
    return [one for one in every if rng.randint(0, 1)]


_FROM_CLOUD: Mapping[str, Callable[[random.Random, Snapshot], Any]] = {
    "maintenance_node": _some_source,
    "backup_node": _some_host,
    "compute_nodes": _compute_nodes,
    "storage_pools": _storage_pools,
    "priority": _priority,
    "actions": _actions,
}

# --- what would come of it -------------------------------------------------------------------------------------------------


def apply(snapshot: Snapshot, actions: Sequence[Proposed]) -> Snapshot:
    """The cloud after these actions, one after another. One that could not be done changes nothing. Where Nova may choose, it
    takes the first usable host with room; where Cinder may, the first pool of the type's backend."""
    simulated = Simulated(snapshot)
    for one in actions:
        simulated.do(one)
    return simulated.snapshot()


_BECOMES = {
    "stop": "SHUTOFF",
    "start": "ACTIVE",
    "pause": "PAUSED",
    "suspend": "SUSPENDED",
    "resume": "ACTIVE",
    "unpause": "ACTIVE",
    "shelve": "SHELVED",
    "unshelve": "ACTIVE",
}


class Simulated:
    """A cloud that actions are done to."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._first = snapshot
        self.hosts = dict(snapshot.host)
        self.servers = dict(snapshot.server)
        self.pools = dict(snapshot.pool)
        self.volumes = {one.uuid: one for one in snapshot.volumes}
        self.machines = {one.uuid: one for one in snapshot.machines}
        self.used = {name: [0, 0, 0] for name in self.hosts}
        """Host → vCPUs, MiB, GiB of the servers on it."""
        self._flavors = {one.flavor: (one.vcpus, one.memory, one.disk) for one in snapshot.servers}
        for one in snapshot.servers:
            self._load(one, +1)

    def snapshot(self) -> Snapshot:
        return msgspec.structs.replace(
            self._first,
            hosts=tuple(self.hosts.values()),
            servers=tuple(self.servers.values()),
            pools=tuple(self.pools.values()),
            volumes=tuple(self.volumes.values()),
            machines=tuple(self.machines.values()),
        )

    def on(self, host: str) -> int:
        """How many servers."""
        return sum(1 for one in self.servers.values() if one.host == host)

    def fits(self, server: Server, host: Host) -> bool:
        return _fits(self.used[host.hostname], (server.vcpus, server.memory, server.disk), host)

    def named(self, parameters: JsonObject) -> list[Host]:
        """The hosts that a `change_nova_service_state` switches: all of one nova-compute."""
        asked = {parameters.get("resource_id"), parameters.get("resource_name")} - {None}
        services = {
            one.service_host
            for one in self.hosts.values()
            if not asked.isdisjoint((one.uuid, one.service_id, one.hostname, one.service_host))
        }
        return [one for one in self.hosts.values() if one.service_host in services]

    def do(self, action: Proposed) -> None:
        parameters = action.parameters
        match action.action_type:
            case "migrate":
                self._migrate(parameters)
            case "resize":
                self._resize(parameters)
            case "change_nova_service_state":
                for host in self.named(parameters):
                    state = "enabled" if parameters.get("state") in ("enabled", "up") else "disabled"
                    reason = str(parameters.get("disabled_reason", "")) if state == "disabled" else ""
                    self.hosts[host.hostname] = msgspec.structs.replace(host, status=state, disabled_reason=reason)
            case "change_node_power_state":
                self._power(parameters)
            case "volume_migrate":
                self._volume(parameters)
            case other if other in _BECOMES:
                server = self.servers.get(parameters.get("resource_id", ""))
                if server is not None:
                    self.servers[server.uuid] = msgspec.structs.replace(server, status=_BECOMES[other])

    def _load(self, server: Server, sign: int) -> None:
        used = self.used.get(server.host)
        if used is not None:
            for at, much in enumerate((server.vcpus, server.memory, server.disk)):
                used[at] += sign * much

    def _put(self, server: Server) -> None:
        self._load(self.servers[server.uuid], -1)
        self.servers[server.uuid] = server
        self._load(server, +1)

    def _migrate(self, parameters: JsonObject) -> None:
        server = self.servers.get(parameters.get("resource_id", ""))
        if server is None or not server.host or server.host != parameters.get("source_node"):
            return
        target = parameters.get("destination_node") or next(
            (
                name
                for name, host in self.hosts.items()
                if name != server.host and host.usable and server.pinned_zone in ("", host.zone) and self.fits(server, host)
            ),
            "",
        )
        host = self.hosts.get(target)
        if host is not None and host.usable:
            self._put(msgspec.structs.replace(server, host=target, zone=host.zone))

    def _resize(self, parameters: JsonObject) -> None:
        server = self.servers.get(parameters.get("resource_id", ""))
        if server is not None:
            flavor = parameters.get("flavor", "")
            vcpus, memory, disk = self._flavors.get(flavor, (server.vcpus, server.memory, server.disk))
            self._put(msgspec.structs.replace(server, flavor=flavor, vcpus=vcpus, memory=memory, disk=disk))

    def _power(self, parameters: JsonObject) -> None:
        machine = self.machines.get(parameters.get("resource_id", ""))
        if machine is None:
            return
        on = parameters.get("state") == "on"
        self.machines[machine.uuid] = msgspec.structs.replace(machine, power_state="power on" if on else "power off")
        if machine.hostname in self.hosts:
            host = self.hosts[machine.hostname]
            self.hosts[machine.hostname] = msgspec.structs.replace(host, state="up" if on else "down")

    def _volume(self, parameters: JsonObject) -> None:
        volume = self.volumes.get(parameters.get("resource_id", ""))
        if volume is None:
            return
        target, type_ = parameters.get("destination_node", ""), volume.type
        if parameters.get("destination_type"):
            type_ = parameters["destination_type"]
            target = target or self._pool_for(volume, type_)
        if target and target != volume.pool and target in self.pools:
            for name, sign in ((volume.pool, -1), (target, +1)):
                pool = self.pools.get(name)
                if pool is not None:
                    more = sign * volume.size
                    self.pools[name] = msgspec.structs.replace(
                        pool,
                        free=pool.free - more,
                        allocated=pool.allocated + more,
                        provisioned=pool.provisioned + more,
                        virtual_free=pool.virtual_free - more,
                    )
            volume = msgspec.structs.replace(volume, pool=target)
        self.volumes[volume.uuid] = msgspec.structs.replace(volume, type=type_)

    def _pool_for(self, volume: Volume, type_: str) -> str:
        """Cinder leaves it where it is if that pool is of the type."""
        backend = next(
            (one.extra_specs.get("volume_backend_name") for one in self._first.volume_types if one.name == type_), None
        )
        of_type = [one for one in self.pools.values() if backend is not None and one.backend_name == backend]
        if any(one.name == volume.pool for one in of_type):
            return volume.pool
        return next((one.name for one in of_type if not _overfull(one, volume.size)), "")


def _capacity(host: Host) -> tuple[float, float, float]:
    return host.vcpus_capacity, host.memory_capacity, host.disk_capacity


def _fits(used: Sequence[float], more: Sequence[float], host: Host) -> bool:
    return all(have + one <= most + TINY for have, one, most in zip(used, more, _capacity(host), strict=True))


def _overfull(pool: Pool, more: float) -> bool:
    """Neither what is free nor what may be promised holds it. A total of 0 is unknown."""
    return pool.total > 0 and pool.free - more < -TINY and pool.virtual_free - more < -TINY


# --- the rules -------------------------------------------------------------------------------------------------------------


def answer(strategy: Strategy, one: Case) -> Solution | BadRequest:
    """What it proposes, or why it can't answer."""
    try:
        return strategy.propose(one.snapshot, one.values, one.parameters, one.triggers)
    except BadRequest as why:
        return why


def faults(strategy: Strategy, one: Case, actions: Mapping[str, Action]) -> list[str]:
    """Every rule that the strategy breaks here, as a sentence; none when it keeps them all."""
    before = msgspec.json.encode(one.snapshot), copy.deepcopy((one.values, one.parameters))
    found = answer(strategy, one)
    broken = []
    if (msgspec.json.encode(one.snapshot), (one.values, one.parameters)) != before:
        broken.append("it changes what it was given")
    again = answer(strategy, _shuffled(one))
    if isinstance(found, BadRequest) or isinstance(again, BadRequest):
        return broken + ([] if str(found) == str(again) else [f"the same question has two answers: {found} and {again}"])
    if found != again:
        broken.append(f"the same question has two answers: {found} and {again}")
    broken += notes_faults(found)
    broken += schema_faults(found, actions)
    broken += indicator_faults(strategy.goal, found)
    if strategy.goal not in MADE_UP:
        broken += move_faults(one.snapshot, found.actions)
        broken += goal_faults(strategy, one, found)
    return broken


def _shuffled(one: Case) -> Case:
    """The same question, every dictionary in another order."""

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(inside) for key, inside in reversed(value.items())}
        return [turned(inside) for inside in value] if isinstance(value, list) else value

    servers = tuple(msgspec.structs.replace(server, metadata=turned(server.metadata)) for server in one.snapshot.servers)
    return Case(
        snapshot=msgspec.structs.replace(one.snapshot, servers=servers),
        values=turned(one.values),
        parameters=turned(one.parameters),
        triggers=one.triggers,
    )


def notes_faults(solution: Solution) -> list[str]:
    broken = []
    if len(solution.notes) > MOST_NOTES:
        broken.append(f"{len(solution.notes)} notes are more than {MOST_NOTES}: sum them up")
    broken += [f"a note of {len(note)} characters: {note[:80]}…" for note in solution.notes if len(note) > LONGEST_NOTE]
    return broken


def schema_faults(solution: Solution, actions: Mapping[str, Action]) -> list[str]:
    broken = []
    for i, one in enumerate(solution.actions):
        if one.action_type in actions:
            validator = jsonschema.Draft7Validator(actions[one.action_type].schema)
            wrong = jsonschema.exceptions.best_match(validator.iter_errors(one.parameters))
            if wrong is not None:
                broken.append(f"action {i}, {one.action_type} {one.parameters}: {wrong.message}")
        if any(not 0 <= earlier < i for earlier in one.after):
            broken.append(f"action {i} waits for {one.after}: only earlier ones can be waited for")
    return broken


def indicator_faults(goal: str, solution: Solution) -> list[str]:
    """They are the goal's, and numbers that can be shown; with actions, all of them are there."""
    known = {one.name: one for one in goals.BY_NAME[goal].indicators}
    broken = [f"{name} is no indicator of {goal}" for name in solution.indicators if name not in known]
    if solution.actions:
        broken += [f"the indicator {name} is missing" for name in known if name not in solution.indicators]
    for name, value in solution.indicators.items():
        if not math.isfinite(value):
            broken.append(f"the indicator {name} is {value}")
        elif name in known and not jsonschema.Draft7Validator(known[name].schema).is_valid(value):
            broken.append(f"the indicator {name} is {value}: it has to be {known[name].schema}")
    return broken


def move_faults(snapshot: Snapshot, actions: Sequence[Proposed]) -> list[str]:
    """What is wrong with an action at the moment when it is its turn."""
    now = Simulated(snapshot)
    broken = []
    for i, one in enumerate(actions):
        wrong: list[str] = []
        match one.action_type:
            case "migrate":
                wrong = _migrate_faults(now, one.parameters)
            case "volume_migrate":
                wrong = _volume_faults(now, one.parameters)
            case "change_nova_service_state":
                if not now.named(one.parameters):
                    wrong = ["there is no such host"]
            case "change_node_power_state":
                wrong = _power_faults(now, one.parameters)
            case "resize" | "stop" | "pause" | "suspend" | "shelve":
                wrong = _server_faults(now, one.parameters)
        broken += [f"action {i}, {one.action_type} {one.parameters}: {text}" for text in wrong]
        now.do(one)
    return broken


def _server_faults(now: Simulated, parameters: JsonObject) -> list[str]:
    server = now.servers.get(parameters.get("resource_id", ""))
    if server is None:
        return ["there is no such server"]
    reasons = {"excluded": server.excluded, "locked": server.locked, f"busy ({server.task_state})": bool(server.task_state)}
    return [f"the server is {what}" for what, so in reasons.items() if so]


def _migrate_faults(now: Simulated, parameters: JsonObject) -> list[str]:
    broken = _server_faults(now, parameters)
    server = now.servers.get(parameters.get("resource_id", ""))
    if server is None:
        return broken
    source = now.hosts.get(server.host)
    if server.host != parameters.get("source_node"):
        broken.append(f"the server is on {server.host!r}")
    elif source is None or source.state != "up":
        broken.append("nothing leaves a host that isn't up")
    possible = ("ACTIVE", "PAUSED") if parameters.get("migration_type") == "live" else ("ACTIVE", "SHUTOFF")
    if server.status not in possible:
        broken.append(f"a server that is {server.status} can't be migrated that way")
    if parameters.get("destination_node") is None:
        return broken
    target = now.hosts.get(parameters["destination_node"])
    if target is None:
        return [*broken, "there is no such destination"]
    if target.hostname == server.host:
        broken.append("it is there already")
    if not target.usable:
        broken.append(f"the destination is {target.status} and {target.state}")
    if server.pinned_zone not in ("", target.zone):
        broken.append(f"the server is pinned to the zone {server.pinned_zone}")
    used = now.used[target.hostname]
    for what, have, more, most in zip(
        ("vcpus", "memory", "disk"), used, (server.vcpus, server.memory, server.disk), _capacity(target), strict=True
    ):
        if more and have + more > most + TINY:
            broken.append(f"the destination would hold {have + more} {what} of {most}")
    return broken


def _volume_faults(now: Simulated, parameters: JsonObject) -> list[str]:
    volume = now.volumes.get(parameters.get("resource_id", ""))
    if volume is None:
        return ["there is no such volume"]
    broken = []
    if volume.status not in ("available", "in-use"):
        broken.append(f"the volume is {volume.status}")
    if volume.snapshots:
        broken.append("the volume has snapshots")
    if "destination_node" in parameters:
        pool = now.pools.get(parameters["destination_node"])
        if pool is None:
            return [*broken, "there is no such pool"]
        if pool.name == volume.pool:
            broken.append("it is there already")
        elif _overfull(pool, volume.size):
            broken.append(f"the pool has {pool.free} GiB free")
    if "destination_type" in parameters:
        known = {one.name for one in now.snapshot().volume_types}
        if parameters["destination_type"] not in known:
            broken.append("there is no such volume type")
    return broken


def _power_faults(now: Simulated, parameters: JsonObject) -> list[str]:
    machine = now.machines.get(parameters.get("resource_id", ""))
    if machine is None:
        return ["there is no such machine"]
    broken = ["somebody is at work on it"] if machine.maintenance else []
    if parameters.get("state") == "off" and now.on(machine.hostname):
        broken.append("there are servers on it")
    return broken


def goal_faults(strategy: Strategy, one: Case, solution: Solution) -> list[str]:
    """Does it bring about what it promises?"""
    broken = []
    after = apply(one.snapshot, solution.actions)
    indicators = solution.indicators
    moves = sum(1 for action in solution.actions if action.action_type in ("migrate", "volume_migrate"))
    if indicators.get("instance_migrations_count", moves) != moves:
        broken.append(f"it counts {indicators['instance_migrations_count']} migrations of {moves}")
    used_before, used_after = _used(one.snapshot), _used(after)
    if strategy.goal == "server_consolidation":
        if len(used_after) > len(used_before):
            broken.append(f"servers were on {len(used_before)} hosts and are on {len(used_after)}")
        released = indicators.get("released_compute_nodes_count", 0)
        if released > len(one.snapshot.hosts) - len(used_after):
            broken.append(f"it releases {released} hosts, and {len(one.snapshot.hosts) - len(used_after)} are empty")
    if strategy.goal == "workload_balancing":
        broken += _deviation_faults(indicators, "its answer")
        if strategy.measure is not None and not isinstance(solution, BadRequest):
            done = [Done(action.action_type, action.parameters, "SUCCEEDED") for action in solution.actions]
            later = measured_after(one.snapshot, after, one.values)
            broken += _deviation_faults(
                strategy.measure(one.snapshot, after, later, one.parameters, done), "as it would turn out"
            )
    return broken


def _used(snapshot: Snapshot) -> set[str]:
    return {name for name, servers in snapshot.servers_on.items() if servers}


def _deviation_faults(indicators: Mapping[str, float], where: str) -> list[str]:
    before = indicators.get("standard_deviation_before_audit")
    after = indicators.get("standard_deviation_after_audit")
    if before is not None and after is not None and after > before + TINY:
        return [f"the deviation was {before} and is {after} ({where})"]
    return []
