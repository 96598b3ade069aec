"""Keeps DNS equal to routes, instances and floating IPs: A and AAAA records, and PTR on request, by dynamic updates.

In: changes of objects. Out: updates of a DNS server (clients/dns.py), each of which happens as a whole or not at all, and only if
what is replaced is still what it was.

Whose a record is:

- A name is its first object's, which alone may change its values. Another object that says the same values shares it and keeps
  it when the first one goes; one that says other values goes to the dead letters (redrive it when the name is free).
- A record that this handler did not write is not touched, unless `take_over` says so: such an event is a dead letter too. One
  that has the right values already is taken for ours: that is how a call looks that ended before it could be noted.
- What an object no longer says is removed if it still has the values that were written, else left alone.
- A dead letter has changed nothing: its object keeps its earlier records until it is redriven, or changes, or goes.

What was written is remembered: `object <source/group/Kind/id>` has its records, _claims.py keeps who holds a name. Without a
memory (a new handler, a call that failed half-way) the state before the change says what to look for.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from vedette.clients.dns import Key as TsigKey
from vedette.clients.dns import Nameserver, RRset, Write, canonical, host_name, read_key_file, within
from vedette.errors import ConfigError, Conflict, GiveUp, TryLater
from vedette.handlers import _claims as claims
from vedette.handlers._claims import MAX_HOLDERS, Claims, Holders
from vedette.handlers._template import NOTHING, Place, Template, Values, template
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import Context, Event, HandlerNeeds, Inventory, JsonObject

log = logging.getLogger("vedette.handlers.dns")

MAX_VALUES = 20
"""Addresses of one name; more go to the dead letters."""
ROUNDS = 3
"""How often it is looked again when somebody else changed a name in between; then the call is made again later."""
NOT_YET_SECONDS = 5.0
"""Until what is behind a floating IP is looked for again."""

Records = dict[str, tuple[str, ...]]
"""Type → values: what one name has."""
Names = dict[str, Records]
"""Name → what it has."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one `dns` handler."""

    server: str = ""
    """The primary DNS server, an address or a name; none: the one that the SOA record of `zone` (or `reverse_zone`) names."""
    port: int = 53
    """Its TCP port."""
    zone: str = ""
    """The zone to write in, such as `cloud.example.org`: names outside of it are left alone. None: the server is asked."""
    reverse_zone: str = ""
    """The zone of the PTR records: addresses outside of it have none. None: the server is asked."""
    key_file: FilePath = ""
    """A TSIG key as BIND's `tsig-keygen` writes it: `key "name" { algorithm hmac-sha256; secret "…"; };`."""
    key_name: str = ""
    """The key's name: instead of a file, or which one in it."""
    key_secret: Secret = Secret()
    """The key's secret in base64, instead of a file."""
    key_algorithm: Literal["hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    """The key's algorithm, instead of a file."""
    name: str = ""
    """The record's name, such as `{object.status.name}.cloud.example.org`; of a FloatingIP there is also what is behind it:
    `{object.port.status.…}` and `{object.server.status.…}`. An object that lacks a value of it has no record. None: a Route's
    `spec.host`, a Server's name in `zone`, a FloatingIP's `dns_name` in its `dns_domain` or `zone`."""
    address: tuple[str, ...] = ()
    """The addresses, such as the router's for Routes. None: a Server's fixed addresses, a FloatingIP's own."""
    networks: tuple[str, ...] = ()
    """Names of the networks whose addresses of a Server count; none: all."""
    ttl: Seconds = 180.0
    """How long others may keep the answer."""
    ptr: bool = False
    """Write PTR records too; not for Routes, which share an address."""
    wildcards: bool = False
    """Take names whose first part is `*`. Whoever may name an object could then have every free name of the zone."""
    take_over: bool = False
    """Replace records that somebody else wrote."""
    resolv_conf: FilePath = ""
    """A file like /etc/resolv.conf with the resolvers that find the server; none: the system's."""
    timeout: Seconds = 10.0
    """What one question or update may take."""


def build(options: Options, needs: HandlerNeeds) -> DnsHandler:
    """The handler for these settings. Raises ConfigError; nothing is sent yet."""
    if not 0 <= options.ttl <= 2**31 - 1:
        raise ConfigError("is not between 0 and 2147483647 seconds", path="ttl")
    if not options.server and not (options.zone and (options.reverse_zone or not options.ptr)):
        # A name or an address of an object's own would say which server we speak to.
        wanted = "`zone` and, for PTR records, `reverse_zone`" if options.ptr else "`zone`"
        raise ConfigError(f"is missing: name it, or {wanted}, whose SOA record then names it", path="server")
    nameserver = Nameserver(
        options.server,
        port=options.port,
        key=_key(options),
        zone=options.zone,
        reverse_zone=options.reverse_zone,
        resolv_conf=options.resolv_conf,
        timeout_s=options.timeout,
    )
    return DnsHandler(options, nameserver, needs.inventory)


def _key(options: Options) -> TsigKey | None:
    if options.key_file:
        if options.key_secret:
            raise ConfigError("is there beside `key_file`: keep one of them", path="key_secret")
        return read_key_file(options.key_file, options.key_name)
    if bool(options.key_name) != bool(options.key_secret):
        raise ConfigError("a key has a name and a secret", path="key_secret" if options.key_name else "key_name")
    return TsigKey(options.key_name, options.key_secret, options.key_algorithm) if options.key_name else None


class DnsHandler:
    """See the module."""

    def __init__(self, options: Options, nameserver: Nameserver, inventory: Inventory) -> None:
        self._options = options
        self._nameserver = nameserver
        self._says = _Says(options, inventory)
        self._claims = Claims()

    async def handle(self, event: Event, context: Context) -> str | None:
        """Make DNS say what the object says. Errors as in clients/dns.py; Conflict never leaves."""
        subject = claims.subject(event)
        wanted = {} if event.verb == "DELETED" else await self._says.of(event)
        # A call that failed half-way has remembered nothing, so both may be what DNS has.
        before = (_names(await context.recall(f"object {subject}") or {}), await self._said_before(event))
        names = sorted({*wanted, *before[0], *before[1]})
        async with self._claims.alone(names):
            for _ in range(ROUNDS):
                change = _Change()
                for name in names:
                    ours = [one[name] for one in before if name in one]
                    await self._plan(change, name, subject, wanted.get(name), ours, context)
                try:
                    await self._write(change)
                except Conflict as why:
                    log.info("looking again", extra=kv(handler=event.handler, why=str(why)))
                    continue
                break
            else:
                raise TryLater(f"{', '.join(names)}: somebody else is changing these records", delay=NOT_YET_SECONDS)
            for name, holders in change.holders.items():
                self._claims.keep(name, holders, context)
        context.remember(f"object {subject}", wanted or None)
        return "; ".join(change.said) or "nothing to change"

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _said_before(self, event: Event) -> Names:
        """What the state before asked for."""
        state = event.raw_object if event.verb == "DELETED" else event.raw_old
        try:
            return await self._says.of(msgspec.structs.replace(event, raw_object=state)) if state != b"{}" else {}
        except (GiveUp, TryLater):
            return {}  # Then nothing was written for it.

    async def _plan(
        self, change: _Change, name: str, subject: str, wanted: Records | None, ours: list[Records], context: Context
    ) -> None:
        """What has to be written at one name, and who holds it then. Raises GiveUp: it is somebody else's."""
        holders = [(holder, _records(said)) for holder, said in await self._claims.holders(name, context)]
        others = [one for one in holders if one[0] != subject]
        if holders and holders[0][0] != subject:
            holder, target = holders[0]
            if wanted is not None and wanted != target:
                raise GiveUp(f"{name} is held by {holder}, with {_shown(target)}: two objects can't have one name")
            if wanted is None and len(others) == len(holders):
                return  # It was never this object's.
            ours = [target]
            holders = [*others, (subject, wanted)] if wanted is not None else others
        else:
            ours += [said for _, said in holders[:1]]
            holders = [(subject, wanted), *others] if wanted is not None else others
            target = holders[0][1] if holders else {}
        if len(holders) > MAX_HOLDERS:
            raise GiveUp(f"{name} is shared by {MAX_HOLDERS} objects already")
        for type_ in sorted({*target, *(type_ for one in ours for type_ in one)}):
            await self._compare(change, name, type_, {one.get(type_, ()) for one in ours}, target.get(type_, ()))
        change.holders[name] = holders

    async def _compare(self, change: _Change, name: str, type_: str, ours: set[tuple[str, ...]], target: tuple[str, ...]) -> None:
        if not target and self._foreign_zone(name, type_):
            return
        zone = await self._nameserver.zone(name)
        there = await self._nameserver.lookup(name, type_)
        if there.values == target and (not target or there.ttl == int(self._options.ttl)):
            return
        if there.values in ({target, ()} | ours) or (target and self._options.take_over):
            change.add(zone, there, target, int(self._options.ttl))
            return
        has = f"{name} has {_shown({type_: there.values})}"
        if target:
            raise GiveUp(f"{has}, which this handler did not write: remove it, or set `take_over`")
        change.said.append(f"{has} now, which is not ours: left alone")

    def _foreign_zone(self, name: str, type_: str) -> bool:
        """Written when the option `zone` was another; not ours to look at any more."""
        zone = self._options.reverse_zone if type_ == "PTR" else self._options.zone
        return bool(zone) and not within(name, zone)

    async def _write(self, change: _Change) -> None:
        for zone, writes in change.writes.items():
            await self._nameserver.write(zone, writes)


class _Change:
    """What one event changes, collected before anything is written."""

    def __init__(self) -> None:
        self.writes: dict[str, list[Write]] = {}
        self.holders: dict[str, Holders] = {}
        self.said: list[str] = []

    def add(self, zone: str, there: RRset, target: tuple[str, ...], ttl: int) -> None:
        write = Write(name=there.name, type=there.type, values=target, ttl=ttl, expect=there.values)
        self.writes.setdefault(zone, []).append(write)
        self.said.append(f"{there.name} {there.type} {' '.join(target)}" if target else f"{there.name} {there.type} removed")


# --- what an object says ---------------------------------------------------------------------------------------------------


class _Says:
    """Reads from an object which records it should have."""

    def __init__(self, options: Options, inventory: Inventory) -> None:
        self._options = options
        self._inventory = inventory
        self._name = template(options.name, missing="empty", path="name") if options.name else None
        self._addresses = [template(one, missing="empty", path="address") for one in options.address]
        paths = {place.path[:2] for text in (self._name, *self._addresses) if text for place in _places(text)}
        self._behind = bool(paths & {("object", "port"), ("object", "server")})

    async def of(self, event: Event) -> Names:
        """The records of an object; none: it has no name, no address, or a name outside `zone`."""
        key = event.key
        assert key is not None
        if self._behind and key.kind == "FloatingIP":
            event = await self._with_what_is_behind(event, key.source)
        values, found = Values(event), event.object
        name = self._name_of(key, found, values)
        if not name or (self._options.zone and not within(name, self._options.zone)):
            return {}
        addresses = self._addresses_of(key, found, values)
        if len(addresses) > MAX_VALUES:
            raise GiveUp(f"{name} would have {len(addresses)} addresses; {MAX_VALUES} are taken")
        records: Records = {}
        for address in addresses:
            type_ = "A" if address.version == 4 else "AAAA"
            records[type_] = tuple(sorted({*records.get(type_, ()), canonical(type_, str(address))}))
        names: Names = {name: records} if records else {}
        if self._options.ptr:
            reverse = [address.reverse_pointer for address in addresses]
            zone = self._options.reverse_zone
            names |= {one: {"PTR": (canonical("PTR", f"{name}."),)} for one in reverse if not zone or within(one, zone)}
        return names

    def _name_of(self, key: Key, found: JsonObject, values: Values) -> str:
        if self._name is not None:
            return self._clean(_filled(self._name, values))
        if key.kind == "Route":
            return self._clean(_text(_at(found, "spec", "host")))
        if key.kind == "FloatingIP":
            own, domain = _text(_at(found, "status", "dns_name")), _text(_at(found, "status", "dns_domain"))
            return self._clean(f"{own.rstrip('.')}.{domain or self._zone(key)}") if own else ""
        if key.kind == "Server":
            own = _text(_at(found, "status", "name"))
            return self._clean(f"{own}.{self._zone(key)}") if own else ""
        raise GiveUp(f"which name a {key.kind} has is not known: set the option `name`")

    def _clean(self, text: str) -> str:
        """A name for DNS out of what people call things: `My Server` is `my-server`. "": nothing is left of a part of it."""
        first, *labels = text.strip().rstrip(".").split(".")
        star = ["*"] if first == "*" and self._options.wildcards else []
        labels = star + [
            re.sub(r"[^\w-]+", "-", label.strip().lower()).strip("-") for label in (labels if star else [first, *labels])
        ]
        return host_name(".".join(labels)) if all(labels) else ""

    def _zone(self, key: Key) -> str:
        if not self._options.zone:
            raise GiveUp(f"in which zone a {key.kind} is named is not known: set the option `zone` or `name`")
        return self._options.zone

    def _addresses_of(
        self, key: Key, found: JsonObject, values: Values
    ) -> Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        if self._addresses:
            return [_address(one) for text in self._addresses for one in re.split(r"[,\s]+", _filled(text, values)) if one]
        if key.kind == "FloatingIP":
            own = _text(_at(found, "status", "floating_ip_address"))
            return [_address(own)] if own else []
        if key.kind == "Server":
            return [_address(one) for one in _server_addresses(found, self._options.networks)]
        raise GiveUp(f"which address a {key.kind} has is not known: set the option `address`")

    async def _with_what_is_behind(self, event: Event, source: str) -> Event:
        """The event with `object.port` and `object.server`, where there are any. TryLater: they are not known yet."""
        found = event.object
        port_id = _text(_at(found, "status", "port_id"))
        if not port_id:
            return event
        port = await self._look(Key(source, OPENSTACK, "Port", port_id), event)
        more = {"port": port}
        if port is not None and _text(_at(port, "status", "device_owner")).startswith("compute:"):
            server = _text(_at(port, "status", "device_id"))
            more["server"] = await self._look(Key(source, OPENSTACK, "Server", server), event)
        return msgspec.structs.replace(event, raw_object=msgspec.Raw(msgspec.json.encode({**found, **more})))

    async def _look(self, key: Key, event: Event) -> JsonObject | None:
        found = await (self._inventory.last(key) if event.verb == "DELETED" else self._inventory.get(key))
        if found is None and event.verb != "DELETED":
            raise TryLater(f"the {key.kind} {key.id} behind this floating IP is not known yet", delay=NOT_YET_SECONDS)
        return found


def _server_addresses(found: JsonObject, networks: tuple[str, ...]) -> list[str]:
    by_network = _at(found, "status", "addresses")
    if not isinstance(by_network, dict):
        return []
    return [
        _text(one["addr"])
        for network, items in by_network.items()
        if (not networks or network in networks) and isinstance(items, list)
        for one in items
        if isinstance(one, dict) and one.get("addr")
    ]


def _filled(text: Template, values: Values) -> str:
    """ "" when a value is missing."""
    if any(values.find(place.path) in (NOTHING, "") for place in _places(text)):
        return ""
    return text.fill(values)


def _places(text: Template) -> list[Place]:
    return [part for part in text.parts if isinstance(part, Place)]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise GiveUp(f"{text[:100]!r} is no IP address") from None


def _at(found: Any, *path: str) -> Any:
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _names(value: Mapping[str, Mapping[str, Sequence[str]]]) -> Names:
    return {name: _records(records) for name, records in value.items()}


def _records(value: Mapping[str, Sequence[str]]) -> Records:
    return {type_: tuple(values) for type_, values in value.items()}


def _shown(records: Records) -> str:
    return ", ".join(f"{type_} {' '.join(values)}" for type_, values in records.items())
