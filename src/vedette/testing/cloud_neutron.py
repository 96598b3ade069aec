"""The fake cloud's Neutron: networks, subnets, ports, routers, floating IPs, security groups, agents.

As seen on a real one ("Zed"): lists are in the order of ids and have no size limit of their own; a filter on an attribute that
isn't known is a 400, a marker that is gone a 404; a tenant asking for agents gets an empty list. `shared` of a network means:
with the one who asks (RBAC policies say with whom). A port that goes ACTIVE is announced to nobody.
https://docs.openstack.org/api-ref/network/v2/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Service, Who, joined, matches

_encode = msgspec.json.Encoder().encode


class _Kind(msgspec.Struct, frozen=True):
    singular: str
    plural: str
    path: str
    error: str
    hidden: frozenset[str] = frozenset()
    """What only admins see."""
    shared: Callable[[Row], bool] = lambda _: False
    silent: bool = False
    """Nothing is ever announced of it."""


def _network_shared(row: Row) -> bool:
    return bool(row.get("shared") or row.get("router:external"))


_BINDING = ("binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details", "resource_request")
_PROVIDER = ("provider:network_type", "provider:physical_network", "provider:segmentation_id")

KINDS = {
    kind.singular: kind
    for kind in (
        _Kind("port", "ports", "ports", "PortNotFound", frozenset(_BINDING)),
        _Kind("network", "networks", "networks", "NetworkNotFound", frozenset(_PROVIDER), _network_shared),
        _Kind("subnet", "subnets", "subnets", "SubnetNotFound"),
        _Kind("router", "routers", "routers", "RouterNotFound", frozenset({"distributed", "ha"})),
        _Kind("floatingip", "floatingips", "floatingips", "FloatingIPNotFound"),
        _Kind("security_group", "security_groups", "security-groups", "SecurityGroupNotFound"),
        _Kind("rbac_policy", "rbac_policies", "rbac-policies", "RbacPolicyNotFound"),
        _Kind("agent", "agents", "agents", "AgentNotFound", silent=True),
    )
}
_NO_FILTER = ("limit", "marker", "page_reverse", "fields", "sort_key", "sort_dir")


class Neutron(Service):
    type = "network"
    name = "neutron"
    root = "/v2.0"

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.largest_page = 1 << 40
        self.ports = self._rows("port")
        self.networks = self._rows("network")
        # Everybody sees the subnets of a shared network, not those of an external one.
        self.subnets = Rows(shared=lambda row: bool(self.networks.get(row["network_id"], {}).get("shared")))
        self.routers = self._rows("router")
        self.floatingips = self._rows("floatingip")
        self.security_groups = self._rows("security_group")
        self.rbac_policies = self._rows("rbac_policy")
        """A network that is shared or external has its policies by itself."""
        self.agents = self._rows("agent")
        self.rows = {
            "port": self.ports,
            "network": self.networks,
            "subnet": self.subnets,
            "router": self.routers,
            "floatingip": self.floatingips,
            "security_group": self.security_groups,
            "rbac_policy": self.rbac_policies,
            "agent": self.agents,
        }
        self._addresses: dict[str, int] = {}
        names = ("network", "subnet", "subnetpool", "port", "router", "floatingip", "security_group", "security_group_rule")
        self.quotas: Row = dict.fromkeys((*names, "trunk"), -1) | {"rbac_policy": 10}
        """What every project may have; -1: as much as it likes."""

    def _rows(self, kind: str) -> Rows:
        return Rows(shared=KINDS[kind].shared)

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str, admin: bool = False, announce: bool = True) -> str:
        """Its id. `admin`: an admin asks, so what is announced has the fields that only admins see."""
        if announce:
            self._say(kind, "create.start", {kind: dict(fields)}, project, admin=admin)
        row = self._complete(kind, dict(fields), project)
        self.rows[kind].put(row)
        self._tie(kind, row)
        if announce:
            self._say(kind, "create.end", {kind: self.shown(kind, row, admin=admin)}, project, admin=admin)
        return str(row["id"])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, admin: bool = False, announce: bool = True) -> None:
        """The revision goes up, and `updated_at` is now. Raises KeyError."""
        row = self.rows[kind].copy(id_)
        project = str(row.get("project_id") or "")
        if announce:
            self._say(kind, "update.start", {kind: dict(fields), "id": id_}, project, admin=admin)
        row |= fields
        if "revision_number" in row and "revision_number" not in fields:
            row["revision_number"] += 1
        if "updated_at" in row:
            row["updated_at"] = self.house.second()
        self.rows[kind].put(row)
        self._tie(kind, row)
        if announce:
            self._say(kind, "update.end", {kind: self.shown(kind, row, admin=admin)}, project, admin=admin)

    def delete(self, kind: str, id_: str, *, admin: bool = False, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.rows[kind].copy(id_)
        project = str(row.get("project_id") or "")
        if announce:
            self._say(kind, "delete.start", {f"{kind}_id": id_}, project, admin=admin)
        self.rows[kind].remove(id_)
        if kind == "subnet":
            self._subnet_of(row, added=False)
        elif kind in ("network", "rbac_policy"):
            for policy in [one for one in self.rbac_policies if self.rbac_policies[one]["object_id"] == id_]:
                self.rbac_policies.remove(policy)
            self._grant()
        if announce:
            # A delete shows the whole object, whoever asked.
            self._say(kind, "delete.end", {kind: row, f"{kind}_id": id_}, project, admin=admin)

    def shown(self, kind: str, row: Row, *, admin: bool) -> Row:
        """A row as admins or as tenants see it."""
        return row if admin else {name: value for name, value in row.items() if name not in KINDS[kind].hidden}

    def seen(self, kind: str, row: Row, who: Who) -> Row:
        """The same to one asker: a network is `shared` when it is shared with that one."""
        row = self.shown(kind, row, admin=who.admin)
        if kind == "network" and who.project in self.networks.granted.get(row["id"], ()):
            row["shared"] = True
        return row

    def many_ports(self, number: int, *, network: str, project: str, **fields: Any) -> list[str]:
        """So many ports at once, silently: a few microseconds each."""
        given: Row = {"network_id": network, "fixed_ips": []}
        pattern = self._complete("port", given | fields, project)
        ip = {"subnet_id": "@4", "ip_address": "@5"}
        pattern.update(id="@1", name="@2", mac_address="@3", fixed_ips=[ip])
        template = _encode(pattern)
        pieces, marks = re.split(rb"@\d", template), [*re.findall(rb"@\d", template), b""]
        subnet = next(iter(self.networks[network]["subnets"]), "")
        made = []
        for at in range(number):
            id_ = self.house.id()
            mac = f"fa:16:{at >> 24 & 255:02x}:{at >> 16 & 255:02x}:{at >> 8 & 255:02x}:{at & 255:02x}"
            values = (id_, f"port-{at}", mac, subnet, f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}")
            # In the order in which they stand in a port.
            by_name = dict(zip((b"@1", b"@2", b"@3", b"@4", b"@5"), values, strict=True))
            raw = b"".join(piece + by_name[mark].encode() if mark else piece for piece, mark in zip(pieces, marks, strict=True))
            self.ports.put_raw(id_, raw, project)
            made.append(id_)
        return made

    def _say(self, kind: str, what: str, payload: Row, project: str, *, admin: bool) -> None:
        if KINDS[kind].silent:
            return
        user = self.house.someone(project, admin=admin)
        self.house.announce(
            "neutron", f"{kind}.{what}", payload, publisher="network.ctl", project=project, user=user, admin=admin
        )

    def _tie(self, kind: str, row: Row) -> None:
        """What follows from a row that is new or has changed."""
        if kind == "subnet":
            self._subnet_of(row, added=True)
        elif kind == "network":
            self._given_to_all(row, "access_as_shared", bool(row["shared"]))
            self._given_to_all(row, "access_as_external", bool(row["router:external"]))
        elif kind == "rbac_policy":
            self._grant()

    def _given_to_all(self, network: Row, action: str, given: bool) -> None:
        policy = {"object_id": network["id"], "action": action, "target_tenant": "*"}
        there = [id_ for id_ in self.rbac_policies if policy.items() <= self.rbac_policies[id_].items()]
        if given and not there:
            self.create("rbac_policy", policy, project=network["project_id"], announce=False)
        for id_ in () if given else there:
            self.rbac_policies.remove(id_)

    def _grant(self) -> None:
        self.networks.granted.clear()
        for policy in (self.rbac_policies[id_] for id_ in self.rbac_policies):
            if policy["target_tenant"] != "*":
                self.networks.granted.setdefault(policy["object_id"], set()).add(policy["target_tenant"])

    def _subnet_of(self, subnet: Row, *, added: bool) -> None:
        network = self.networks.copy(subnet["network_id"]) if subnet["network_id"] in self.networks else None
        if network is None or (added and subnet["id"] in network["subnets"]):
            return
        network["subnets"] = [id_ for id_ in network["subnets"] if id_ != subnet["id"]] + ([subnet["id"]] if added else [])
        network["revision_number"] += 1
        network["updated_at"] = self.house.second()
        self.networks.put(network)

    def _complete(self, kind: str, fields: Row, project: str) -> Row:
        now = self.house.second()
        row: Row = {"id": self.house.id(), **_DEFAULTS[kind](self, fields, project)}
        if kind in ("agent", "rbac_policy"):
            return row | fields
        row |= {"tags": [], "created_at": now, "updated_at": now, "revision_number": 0 if kind in ("subnet", "floatingip") else 1}
        row |= fields
        project = row.get("project_id") or row.get("tenant_id") or project
        return row | {"project_id": project, "tenant_id": project}

    def address(self, subnet: str) -> str:
        """The next address of a subnet."""
        cidr = str(self.subnets[subnet]["cidr"]) if subnet in self.subnets else "10.0.0.0/16"
        base = cidr.partition("/")[0].split(".")
        number = self._addresses[subnet] = self._addresses.get(subnet, 9) + 1
        return f"{base[0]}.{base[1]}.{(int(base[2]) + (number >> 8)) & 255}.{number & 255}"

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path.rstrip("/") == "":
            link = {"rel": "self", "href": f"{self.url}/v2.0/"}
            return Reply({"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})
        if path == "/v2.0/":
            return Reply({"resources": [_resource(kind, self.url) for kind in ("network", "subnet", "subnetpool", "port")]})
        return None

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        paths = "|".join(kind.path for kind in KINDS.values())
        return (
            ("GET", rf"/({paths})", self._list),
            ("POST", rf"/({paths})", self._post),
            ("GET", rf"/({paths})/([^/]+)", self._show),
            ("PUT", rf"/({paths})/([^/]+)", self._put),
            ("DELETE", rf"/({paths})/([^/]+)", self._delete),
            ("GET", r"/quotas", self._quotas),
            ("GET", r"/quotas/([^/]+?)(?:\.json)?", self._quota),
            ("GET", r"/quotas/([^/]+)/details(?:\.json)?", self._quota),
            ("GET", r"/extensions", lambda ask: Reply({"extensions": []})),
        )

    def error(self, why: Refused) -> Reply:
        return Reply({"NeutronError": {"type": why.kind or "BadRequest", "message": str(why), "detail": ""}}, why.status)

    def _quotas(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "rule:get_quota is disallowed by policy", "PolicyNotAuthorized")
        return Reply({"quotas": []})

    def _quota(self, ask: Ask) -> Reply:
        """Another project's is shown to admins only, of whatever project."""
        if not ask.who.admin and ask.named[0] != ask.who.project:
            raise Refused(403, "rule:get_quota is disallowed by policy", "PolicyNotAuthorized")
        if not ask.path.endswith(("/details", "/details.json")):
            return Reply({"quota": self.quotas})
        used = {
            kind: sum(1 for id_ in rows if rows[id_].get("project_id") == ask.named[0])
            for kind, rows in self.rows.items()
            if kind in self.quotas
        }
        rows = {name: {"limit": limit, "used": used.get(name, 0), "reserved": 0} for name, limit in self.quotas.items()}
        return Reply({"quota": rows})

    def _kind(self, path: str) -> _Kind:
        return next(kind for kind in KINDS.values() if kind.path == path)

    def _list(self, ask: Ask) -> Reply:
        kind = self._kind(ask.named[0])
        if kind.singular == "agent" and not ask.who.admin:
            return Reply({"agents": []})
        rows = self.rows[kind.singular]
        keep = self._filter(kind, ask)
        ids = ask.all("id") or None
        reverse = ask.one("page_reverse").lower() == "true"
        limit = self.limit(ask)
        marker = ask.one("marker")
        gone = Refused(404, f"{kind.error.removesuffix('NotFound')} {marker} could not be found.", kind.error)
        if reverse:
            found, first, last = self._backwards(ask, kind, keep, limit)
        else:
            alike = kind.singular != "network"
            found, first, last, _ = self.page(
                ask,
                rows,
                lambda row: self.seen(kind.singular, row, ask.who),
                plain=ask.who.admin and alike,
                same=alike,
                keep=keep,
                ids=ids,
                no_marker=gone,
                limit=limit,
            )
        if not ask.one("limit") or ask.one("limit") == "0":
            return Reply(joined(kind.plural, found))
        at, rest = f"{self.url}{ask.at}", ask.but("marker", "page_reverse")
        links = []
        # A full page has a next one; nobody looks whether there is anything in it.
        if len(found) >= limit:
            links.append({"rel": "next", "href": f"{at}?{urlencode([*rest, ('marker', last)])}"})
        back = [("marker", first)] if first else []
        links.append({"rel": "previous", "href": f"{at}?{urlencode([*rest, *back, ('page_reverse', 'True')])}"})
        return Reply(joined(kind.plural, found, **{f"{kind.plural}_links": links}))

    def _backwards(self, ask: Ask, kind: _Kind, keep: Callable[[Row], bool] | None, limit: int) -> tuple[list[bytes], str, str]:
        """The page before the marker, or the last one; in the order of every list."""
        rows, marker = self.rows[kind.singular], ask.one("marker")
        order = rows.ordered()
        end = rows.place(marker) if marker in rows else len(order)
        ids: list[str] = []
        for at in range(end - 1, -1, -1):
            if len(ids) < limit and rows.seen(order[at], ask.who) and (keep is None or keep(rows.copy(order[at]))):
                ids.append(order[at])
        ids.reverse()
        found = [_encode(self._fields(ask, self.seen(kind.singular, rows.copy(id_), ask.who))) for id_ in ids]
        return found, next(iter(ids), ""), ids[-1] if ids else ""

    def _filter(self, kind: _Kind, ask: Ask) -> Callable[[Row], bool] | None:
        wanted: dict[str, list[str]] = {}
        unknown = []
        if kind.singular == "rbac_policy" and (ask.one("sort_key") or ask.one("sort_dir")):
            raise Refused(400, "Sorting is not supported for this resource.", "BadRequest")
        known = _known(self, kind.singular)
        for name, value in ask.query:
            if name in _NO_FILTER:
                continue
            if name not in known:
                unknown.append(name)
            wanted.setdefault(name, []).append(value)
        if unknown:
            raise Refused(400, f"{unknown} is invalid attribute for filtering", "HTTPBadRequest")
        wanted.pop("id", None)
        if not wanted:
            return None
        return lambda row: all(_has(row, name, values) for name, values in wanted.items())

    def _fields(self, ask: Ask, row: Row) -> Row:
        fields = ask.all("fields")
        return {name: row[name] for name in fields if name in row} if fields else row

    def _found(self, kind: _Kind, id_: str, who: Who) -> Row:
        if kind.singular == "agent" and not who.admin and id_ in self.agents:
            raise Refused(404, "The resource could not be found.", "HTTPNotFound")
        rows = self.rows[kind.singular]
        if not rows.seen(id_, who):
            what = kind.singular.replace("_", " ").capitalize()
            raise Refused(404, f"{what} {id_} could not be found.", kind.error)
        return rows.copy(id_)

    def _show(self, ask: Ask) -> Reply:
        kind = self._kind(ask.named[0])
        row = self._found(kind, ask.named[1], ask.who)
        return Reply({kind.singular: self._fields(ask, self.seen(kind.singular, row, ask.who))})

    def _post(self, ask: Ask) -> Reply:
        kind = self._kind(ask.named[0])
        said = ask.body.get(kind.singular, ask.body.get(kind.plural))
        many = isinstance(said, list)
        given = said if many else [said]
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise Refused(400, f"Unable to find '{kind.singular}' in request body", "HTTPBadRequest")
        made = []
        for one in given:
            if not ask.who.admin and set(one) & kind.hidden:
                raise Refused(403, f"(rule:create_{kind.singular}) is disallowed by policy", "PolicyNotAuthorized")
            if kind.singular in ("port", "subnet") and one.get("network_id") not in self.networks:
                raise Refused(404, f"Network {one.get('network_id')} could not be found.", "NetworkNotFound")
            made.append(self.create(kind.singular, one, project=ask.who.project, admin=ask.who.admin))
        shown = [self.shown(kind.singular, self.rows[kind.singular].copy(id_), admin=ask.who.admin) for id_ in made]
        return Reply({kind.plural: shown} if many else {kind.singular: shown[0]}, 201)

    def _put(self, ask: Ask) -> Reply:
        kind = self._kind(ask.named[0])
        said = ask.body.get(kind.singular)
        if not isinstance(said, dict):
            raise Refused(400, f"Unable to find '{kind.singular}' in request body", "HTTPBadRequest")
        row = self._found(kind, ask.named[1], ask.who)
        if not ask.who.admin and (row.get("project_id") != ask.who.project or set(said) & kind.hidden):
            raise Refused(403, f"(rule:update_{kind.singular}) is disallowed by policy", "PolicyNotAuthorized")
        self.change(kind.singular, row["id"], said, admin=ask.who.admin)
        return Reply({kind.singular: self.shown(kind.singular, self.rows[kind.singular].copy(row["id"]), admin=ask.who.admin)})

    def _delete(self, ask: Ask) -> Reply:
        kind = self._kind(ask.named[0])
        row = self._found(kind, ask.named[1], ask.who)
        if not ask.who.admin and row.get("project_id") != ask.who.project:
            raise Refused(403, f"(rule:delete_{kind.singular}) is disallowed by policy", "PolicyNotAuthorized")
        if kind.singular == "network" and any(
            self.ports[id_]["network_id"] == row["id"] and self.ports[id_]["device_owner"] != "network:dhcp" for id_ in self.ports
        ):
            text = (
                f"Unable to complete operation on network {row['id']}. There are one or more ports still in use on the network."
            )
            raise Refused(409, text, "NetworkInUse")
        if kind.singular == "network":
            # Its DHCP ports and its subnets go with it, and are not announced.
            for what, rows in (("port", self.ports), ("subnet", self.subnets)):
                for id_ in [id_ for id_ in rows if rows[id_]["network_id"] == row["id"]]:
                    self.delete(what, id_, announce=False)
        self.delete(kind.singular, row["id"], admin=ask.who.admin)
        return Reply(status=204)


def _known(neutron: Neutron, kind: str) -> frozenset[str]:
    """The attributes that can be filtered on."""
    row = neutron._complete(kind, {}, "")
    return frozenset(row) | {"tenant_id", "project_id", "tags-any", "not-tags", "not-tags-any", "changed_since"}


def _has(row: Row, name: str, wanted: Sequence[str]) -> bool:
    value = row.get(name)
    if name == "fixed_ips":
        pairs = [text.partition("=") for text in wanted]
        return any(str(ip.get(key)) == text for ip in value or () for key, _, text in pairs)
    if name in ("tags", "tags-any", "not-tags", "not-tags-any"):
        tags, asked = set(row.get("tags") or ()), {tag for text in wanted for tag in text.split(",")}
        found = bool(tags & asked) if name.endswith("-any") else tags >= asked
        return found != name.startswith("not-")
    if name == "changed_since":
        return str(row.get("updated_at")) >= wanted[0]
    if isinstance(value, list):
        return any(text in value for text in wanted)
    return matches(row, name, wanted)


def _resource(kind: str, url: str) -> Row:
    return {"name": kind, "collection": f"{kind}s", "links": [{"rel": "self", "href": f"{url}/v2.0/{kind}s"}]}


# --- what a new one has ----------------------------------------------------------------------------------------------------


def _port(neutron: Neutron, fields: Row, project: str) -> Row:
    network = fields.get("network_id", "")
    subnets = neutron.networks[network]["subnets"] if network in neutron.networks else []
    ips = []
    if subnets and "fixed_ips" not in fields:
        ips = [{"subnet_id": subnets[0], "ip_address": neutron.address(subnets[0])}]
    mac = ":".join(f"{neutron.house.number(256):02x}" for _ in range(3))
    return {
        "name": "",
        "network_id": network,
        "tenant_id": project,
        "mac_address": f"fa:16:3e:{mac}",
        "admin_state_up": True,
        "status": "DOWN",
        "device_id": "",
        "device_owner": "",
        "fixed_ips": ips,
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "security_groups": [],
        "description": "",
        "binding:vnic_type": "normal",
        "binding:profile": {},
        "binding:host_id": "",
        "binding:vif_type": "unbound",
        "binding:vif_details": {},
        "port_security_enabled": True,
        "qos_policy_id": None,
        "qos_network_policy_id": None,
        "resource_request": None,
    }


def _network(neutron: Neutron, fields: Row, project: str) -> Row:
    row: Row = {
        "name": "",
        "tenant_id": project,
        "admin_state_up": True,
        "mtu": 1450,
        "status": "ACTIVE",
        "subnets": [],
        "shared": False,
        "availability_zone_hints": [],
        "availability_zones": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "router:external": False,
        "description": "",
        "port_security_enabled": True,
        "qos_policy_id": None,
        "provider:network_type": "vxlan",
        "provider:physical_network": None,
        "provider:segmentation_id": neutron.house.number(4000) + 1,
    }
    return row | {"is_default": False} if fields.get("router:external") else row


def _subnet(neutron: Neutron, fields: Row, project: str) -> Row:
    cidr = fields.get("cidr") or f"10.{neutron.house.number(250) + 1}.0.0/16"
    base = cidr.rpartition(".")[0]
    return {
        "name": "",
        "tenant_id": project,
        "network_id": fields.get("network_id", ""),
        "ip_version": 4,
        "subnetpool_id": None,
        "enable_dhcp": True,
        "ipv6_ra_mode": None,
        "ipv6_address_mode": None,
        "gateway_ip": f"{base}.1",
        "cidr": cidr,
        "allocation_pools": [{"start": f"{base}.2", "end": f"{base}.254"}],
        "host_routes": [],
        "dns_nameservers": [],
        "description": "",
        "service_types": [],
    }


def _router(neutron: Neutron, fields: Row, project: str) -> Row:
    return {
        "name": "",
        "tenant_id": project,
        "admin_state_up": True,
        "status": "ACTIVE",
        "external_gateway_info": None,
        "description": "",
        "availability_zones": [],
        "distributed": False,
        "ha": False,
        "availability_zone_hints": [],
        "routes": [],
        "flavor_id": None,
    }


def _floatingip(neutron: Neutron, fields: Row, project: str) -> Row:
    number = neutron._addresses["floating"] = neutron._addresses.get("floating", 9) + 1
    port = fields.get("port_id")
    row = neutron.ports.get(port) if port else None
    details = ("name", "network_id", "mac_address", "admin_state_up", "status", "device_id", "device_owner")
    return {
        "tenant_id": project,
        "floating_ip_address": f"203.0.{113 + (number >> 8)}.{number & 255}",
        "floating_network_id": fields.get("floating_network_id", ""),
        "router_id": None,
        "port_id": None,
        "fixed_ip_address": row["fixed_ips"][0]["ip_address"] if row and row["fixed_ips"] else None,
        "status": "DOWN",
        "description": "",
        "qos_policy_id": None,
        "port_details": {name: row[name] for name in details} if row else None,
    }


def _security_group(neutron: Neutron, fields: Row, project: str) -> Row:
    return {
        "name": "",
        "stateful": True,
        "tenant_id": project,
        "description": "",
        "shared": False,
        "security_group_rules": [],
    }


def _rbac_policy(neutron: Neutron, fields: Row, project: str) -> Row:
    return {
        "project_id": project,
        "action": "access_as_shared",
        "object_id": "",
        "target_tenant": "*",
        "object_type": "network",
        "tenant_id": project,
    }


def _agent(neutron: Neutron, fields: Row, project: str) -> Row:
    stamp = neutron.house.second()[:-1].replace("T", " ")
    return {
        "agent_type": "Open vSwitch agent",
        "binary": "neutron-openvswitch-agent",
        "topic": "N/A",
        "host": "fake-1",
        "admin_state_up": True,
        "created_at": stamp,
        "started_at": stamp,
        "heartbeat_timestamp": stamp,
        "description": None,
        "resources_synced": None,
        "availability_zone": None,
        "alive": True,
        "configurations": {"bridge_mappings": {"public": "br-ex"}, "tunnel_types": ["vxlan"]},
    }


_DEFAULTS: dict[str, Callable[[Neutron, Row, str], Row]] = {
    "port": _port,
    "network": _network,
    "subnet": _subnet,
    "router": _router,
    "floatingip": _floatingip,
    "security_group": _security_group,
    "rbac_policy": _rbac_policy,
    "agent": _agent,
}
