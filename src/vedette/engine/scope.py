"""An audit's scope: which part of the cloud its strategy is shown.

`check` is for who writes one (the API), `normal` gives the form that is kept, and `narrowed` applies it to a snapshot, in the
process where strategies run. The shape is Watcher's: a list of `{"compute": rules}` and `{"storage": rules}`; a bare list of
rules means compute. What is included adds up; what is excluded is taken off after that. Nothing found is nothing shown, never
everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.errors import Invalid
from vedette.model.snapshot import Pool, Server, Snapshot

ALL = "*"
_MODELS = ("compute", "storage")


def check(scope: Any) -> None:
    """Raises Invalid with the place that is wrong, as a path into the list, and what belongs there."""
    if not isinstance(scope, list):
        raise Invalid("scope", f"is a list of rules, or of compute and storage, not {_kind(scope)}")
    wrapped = _is_bare(scope)
    for i, entry in enumerate([{"compute": scope}] if wrapped else scope):
        path = "" if wrapped else f"[{i}]"
        for model, rules in _object(entry, path, _MODELS).items():
            here = path if wrapped else f"{path}.{model}"
            for at, rule in _items(rules, here):
                _keys(rule, at, _COMPUTE if model == "compute" else _STORAGE)
    # Together they can't be told apart: is a host in both of them in or out?
    compute = _rules(scope, "compute")
    if any("host_aggregates" in rule for rule in compute) and any("host_aggregates" in one for one in _excludes(compute)):
        raise Invalid("scope", "host_aggregates can't be included and excluded together; leave one of them out")


def normal(scope: Any) -> list[dict[str, Any]]:
    """The form that is kept: each entry named compute or storage. Raises Invalid."""
    check(scope)
    return [{"compute": scope}] if _is_bare(scope) else [entry for entry in scope if entry]


def narrowed(snapshot: Snapshot, scope: Sequence[Mapping[str, Any]]) -> Snapshot:
    """What a checked scope leaves of it. Servers that are left out stay, as `excluded`, since they fill their host; hosts, pools
    and volumes that are left out are gone, and with them what is on them."""
    compute, storage = _rules(scope, "compute"), _rules(scope, "storage")
    if compute:
        snapshot = _of_compute(snapshot, compute)
    if storage:
        snapshot = _of_storage(snapshot, storage)
    return snapshot


# --- applying --------------------------------------------------------------------------------------------------------------


def _of_compute(snapshot: Snapshot, rules: Sequence[Mapping[str, Any]]) -> Snapshot:
    out = _excludes(rules)
    included: set[str] | None = None
    """Service hosts; None: all."""
    for rule in rules:
        if "host_aggregates" in rule:
            included = (included or set()) | _hosts_of(snapshot, rule["host_aggregates"])
        if "availability_zones" in rule:
            zones = set(_values([rule], "availability_zones", "name"))
            of_zones = {one.service_host for one in snapshot.hosts if ALL in zones or one.zone in zones}
            included = (included or set()) | of_zones
    names = set(_values(out, "compute_nodes", "name"))
    without: set[str] = set()
    for one in out:
        if "host_aggregates" in one:
            without |= _hosts_of(snapshot, one["host_aggregates"])
    kept = tuple(
        host
        for host in snapshot.hosts
        if (included is None or host.service_host in included)
        and host.service_host not in without
        and names.isdisjoint((host.hostname, host.service_host))
    )
    here = {host.hostname for host in kept}
    gone = {host.hostname for host in snapshot.hosts} - here
    servers = (one for one in snapshot.servers if one.host in here or (included is None and one.host not in gone))
    return msgspec.structs.replace(
        snapshot,
        hosts=kept,
        servers=_marked(servers, out),
        machines=tuple(one for one in snapshot.machines if one.hostname not in gone),
    )


def _hosts_of(snapshot: Snapshot, aggregates: Sequence[Mapping[str, Any]]) -> set[str]:
    """Service hosts of the aggregates of these ids and names."""
    ids = {one["id"] for one in aggregates if "id" in one}
    names = {one["name"] for one in aggregates if "name" in one}
    everything = ALL in ids or ALL in names
    return {host for one in snapshot.aggregates if everything or one.id in ids or one.name in names for host in one.hosts}


def _marked(servers: Iterable[Server], out: Sequence[Mapping[str, Any]]) -> tuple[Server, ...]:
    """The same, those that are left out `excluded`."""
    ids = set(_values(out, "instances", "uuid"))
    projects = set(_values(out, "projects", "uuid"))
    metadata = [
        {str(name): _text(value) for name, value in entry.items()}
        for one in out
        for entry in one.get("instance_metadata", ())
        if entry
    ]
    return tuple(
        msgspec.structs.replace(one, excluded=True)
        if one.uuid in ids or one.project in projects or any(_has(one.metadata, pairs) for pairs in metadata)
        else one
        for one in servers
    )


def _has(metadata: Mapping[str, Any], pairs: Mapping[str, str]) -> bool:
    """All of the pairs are there; upper and lower case are one, as in Watcher."""
    return all(name in metadata and _text(metadata[name]) == value for name, value in pairs.items())


def _text(value: Any) -> str:
    return str(value).lower()


def _of_storage(snapshot: Snapshot, rules: Sequence[Mapping[str, Any]]) -> Snapshot:
    out = _excludes(rules)
    included: set[str] | None = None
    """Names of pools; None: all."""
    if any("availability_zones" in rule or "volume_types" in rule for rule in rules):
        included = _in_zones(snapshot, rules) | _of_types(snapshot, rules)
    without = set(_values(out, "storage_pools", "name"))
    ids, projects = set(_values(out, "volumes", "uuid")), set(_values(out, "projects", "uuid"))

    def holds(pool: str) -> bool:
        return (included is None or pool in included) and pool not in without

    return msgspec.structs.replace(
        snapshot,
        pools=tuple(one for one in snapshot.pools if holds(one.name)),
        volumes=tuple(one for one in snapshot.volumes if holds(one.pool) and one.uuid not in ids and one.project not in projects),
    )


def _in_zones(snapshot: Snapshot, rules: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of pools. A pool whose zone isn't known is where its volumes are."""
    zones = set(_values(rules, "availability_zones", "name"))
    found = {pool.name for pool in snapshot.pools if ALL in zones or pool.zone in zones}
    unknown = {pool.name for pool in snapshot.pools if not pool.zone}
    return found | {one.pool for one in snapshot.volumes if one.pool in unknown and one.zone in zones}


def _of_types(snapshot: Snapshot, rules: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of pools whose backend one of the types asks for."""
    names = set(_values(rules, "volume_types", "name"))
    wanted = {one.extra_specs.get("volume_backend_name") for one in snapshot.volume_types if one.name in names} - {None, ""}
    return {pool.name for pool in snapshot.pools if ALL in names or _backend(pool) in wanted}


def _backend(pool: Pool) -> str:
    """Of `host@backend#pool`, when the pool doesn't tell its backend's name."""
    return pool.backend_name or pool.name.partition("@")[2].partition("#")[0]


def _rules(scope: Sequence[Mapping[str, Any]], model: str) -> list[Mapping[str, Any]]:
    if _is_bare(scope):
        return list(scope) if model == "compute" else []
    return [rule for entry in scope for rule in entry.get(model, ())]


def _excludes(rules: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for rule in rules for one in rule.get("exclude", ())]


def _values(rules: Sequence[Mapping[str, Any]], name: str, key: str) -> list[Any]:
    """`key` of every item that any of the rules lists under `name`."""
    return [item[key] for rule in rules for item in rule.get(name, ())]


def _is_bare(scope: Sequence[Any]) -> bool:
    """A list of rules that doesn't say compute or storage."""
    first = scope[0] if scope else None
    return isinstance(first, dict) and bool(first) and not any(model in first for model in _MODELS)


# --- checking --------------------------------------------------------------------------------------------------------------


_Check = Callable[[Any, str], None]


def _named(key: str) -> _Check:
    """A list of `{key: text}`."""

    def named(value: Any, path: str) -> None:
        for at, item in _items(value, path):
            _one(item, at, {key: "a text"})

    return named


def _named_or_all(value: Any, path: str) -> None:
    """A list of `{"name": text}`, or `{"name": "*"}` alone."""
    _named("name")(value, path)
    _alone([item["name"] for item in value], path)


def _aggregates(value: Any, path: str) -> None:
    for at, item in _items(value, path):
        _one(item, at, {"id": 'a whole number or "*"', "name": "a text"})
    for key in ("id", "name"):
        _alone([item[key] for item in value if key in item], path)


def _metadata(value: Any, path: str) -> None:
    for at, item in _items(value, path):
        if not isinstance(item, dict) or not item:
            raise Invalid(
                "scope", f"{at} is an object of keys and values that a server's metadata must all have, not {_kind(item)}"
            )


def _exclude(rules: Mapping[str, _Check]) -> _Check:
    def exclude(value: Any, path: str) -> None:
        for at, item in _items(value, path):
            _keys(item, at, rules)

    return exclude


_COMPUTE: Mapping[str, _Check] = {
    "host_aggregates": _aggregates,
    "availability_zones": _named_or_all,
    "exclude": _exclude(
        {
            "instances": _named("uuid"),
            "compute_nodes": _named("name"),
            "host_aggregates": _aggregates,
            "instance_metadata": _metadata,
            "projects": _named("uuid"),
        }
    ),
}
_STORAGE: Mapping[str, _Check] = {
    "availability_zones": _named_or_all,
    "volume_types": _named_or_all,
    "exclude": _exclude({"storage_pools": _named("name"), "volumes": _named("uuid"), "projects": _named("uuid")}),
}


def _keys(value: Any, path: str, checks: Mapping[str, _Check]) -> None:
    for name, inside in _object(value, path, checks).items():
        checks[name](inside, f"{path}.{name}")


def _object(value: Any, path: str, names: Iterable[str]) -> dict[str, Any]:
    known = list(names)
    if not isinstance(value, dict):
        raise Invalid("scope", f"{path} is an object with {' or '.join(known)}, not {_kind(value)}")
    for name in value:
        if name not in known:
            raise Invalid("scope", f"{path} knows no {str(name)[:80]!r}: there are {', '.join(known)}")
    return value


def _items(value: Any, path: str) -> list[tuple[str, Any]]:
    """Every item with its place."""
    if not isinstance(value, list):
        raise Invalid("scope", f"{path} is a list, not {_kind(value)}")
    return [(f"{path}[{i}]", item) for i, item in enumerate(value)]


def _one(value: Any, path: str, kinds: Mapping[str, str]) -> None:
    """An object with exactly one of these keys."""
    if len(_object(value, path, kinds)) != 1:
        raise Invalid("scope", f"{path} has {' and '.join(value) or 'nothing'}: give one of {', '.join(kinds)}")
    for name, inside in value.items():
        number = isinstance(inside, int) and not isinstance(inside, bool)
        good = (number or inside == ALL) if name == "id" else isinstance(inside, str)
        if not good:
            raise Invalid("scope", f"{path}.{name} is {kinds[name]}, not {_kind(inside)}")


def _alone(values: Sequence[Any], path: str) -> None:
    if ALL in values and len(values) > 1:
        raise Invalid("scope", f'{path} has "*", which is all of them: leave the others out')


def _kind(value: Any) -> str:
    """What it is, in a few words."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return {"None": "null", "True": "true", "False": "false"}.get(text, text if len(text) <= 60 else text[:60] + "…")
    if not value:
        return "an empty list" if isinstance(value, list) else "an empty object"
    return "a list" if isinstance(value, list) else "an object"
