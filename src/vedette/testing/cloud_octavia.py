"""The fake cloud's Octavia: load balancers, listeners, pools, members, health monitors, amphorae.

As seen on a real one ("Zed"): lists are in the order of creation; a repeated filter (`id=a&id=b`) is a 500, one that isn't known
a 400, as is a marker that is gone; `fields` works; a member's change moves nothing but the member. It announces a load balancer
when it went ACTIVE and when it is gone, without any status, an update with the old values, and nothing else, ever.
https://docs.openstack.org/api-ref/load-balancer/v2/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from vedette.testing.cloud_neutron import Neutron
from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Service, Who, joined, matches

_encode = msgspec.json.Encoder().encode

PATHS = {
    "loadbalancers": "loadbalancer",
    "listeners": "listener",
    "pools": "pool",
    "healthmonitors": "healthmonitor",
}
_NAMES = {
    "loadbalancer": "Load Balancer",
    "listener": "Listener",
    "pool": "Pool",
    "member": "Member",
    "healthmonitor": "Health Monitor",
    "amphora": "Amphora",
}
_NO_FILTER = ("limit", "marker", "page_reverse", "fields", "sort")
PENDING = {"PENDING_CREATE": "create", "PENDING_UPDATE": "update", "PENDING_DELETE": "delete"}


class Octavia(Service):
    type = "load-balancer"
    name = "octavia"
    root = "/v2"

    def __init__(self, house: House, neutron: Neutron) -> None:
        super().__init__(house)
        self._neutron = neutron
        self.loadbalancers = _rows()
        self.listeners = _rows()
        self.pools = _rows()
        self.members = _rows()
        """Each with the `pool_id` that its address has."""
        self.healthmonitors = _rows()
        self.amphorae = _rows()
        self.rows = {
            "loadbalancer": self.loadbalancers,
            "listener": self.listeners,
            "pool": self.pools,
            "member": self.members,
            "healthmonitor": self.healthmonitors,
            "amphora": self.amphorae,
        }
        self._before: dict[str, Row] = {}
        """What a load balancer was before the update under way: that is what gets announced."""

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str, announce: bool = True) -> str:
        """Its id. A load balancer that is ACTIVE is announced; children never are. Children name their parents: a listener
        `loadbalancer_id`, a pool `listener_id` or `loadbalancer_id`, a member `pool_id`, a health monitor `pool_id`."""
        parents = {"member": (), "amphora": (), "healthmonitor": ("pool_id",)}.get(kind, ("loadbalancer_id", "listener_id"))
        given = {name: value for name, value in fields.items() if name not in parents}
        row = _DEFAULTS[kind](self, dict(fields), project) | given
        self.rows[kind].put(row)
        self._tie(kind, row, dict(fields))
        if kind == "loadbalancer" and announce and row["provisioning_status"] == "ACTIVE":
            self._say("create", row)
        return str(row["id"])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, announce: bool = True) -> None:
        """Raises KeyError."""
        old = self.rows[kind].copy(id_)
        self.rows[kind].put(old | dict(fields) | {"updated_at": self.house.naive()})
        if kind == "loadbalancer" and announce:
            self._say("update", old)

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """With everything under it. Raises KeyError."""
        row = self.rows[kind].copy(id_)
        if kind == "loadbalancer":
            for listener in row["listeners"]:
                self.delete("listener", listener["id"])
            for pool in row["pools"]:
                self.delete("pool", pool["id"])
            if row["vip_port_id"] in self._neutron.ports:
                self._neutron.delete("port", row["vip_port_id"], admin=True, announce=announce)
            for amphora in [id_ for id_ in self.amphorae if self.amphorae[id_]["loadbalancer_id"] == row["id"]]:
                self.amphorae.remove(amphora)
        if kind == "pool":
            for member in row["members"]:
                self.members.remove(member["id"])
            if row["healthmonitor_id"]:
                self.healthmonitors.remove(row["healthmonitor_id"])
        self.rows[kind].remove(id_)
        self._untie(kind, row)
        if kind == "loadbalancer" and announce:
            self._say("delete", row)

    def status(self, kind: str, id_: str, *, provisioning: str = "", operating: str = "") -> None:
        """A status moves, and nobody is told; nothing above it moves either."""
        fields = {"provisioning_status": provisioning, "operating_status": operating}
        self.change(kind, id_, {name: value for name, value in fields.items() if value}, announce=False)

    def settle(self, id_: str) -> None:
        """What is PENDING under this load balancer, itself included, is done; what is announced then is announced."""
        row = self.loadbalancers.copy(id_)
        did = PENDING.get(row["provisioning_status"], "")
        for kind, child in self.tree(id_):
            state = self.rows[kind][child]["provisioning_status"]
            if state == "PENDING_DELETE":
                self.delete(kind, child)
            elif state in PENDING:
                watched = kind != "member" or self.pools[self.members[child]["pool_id"]]["healthmonitor_id"]
                self.status(kind, child, provisioning="ACTIVE", operating="ONLINE" if watched else "NO_MONITOR")
        if did == "delete":
            self.delete("loadbalancer", id_)
        elif did:
            self.status("loadbalancer", id_, provisioning="ACTIVE", operating="ONLINE")
            # An update is announced with what was before it.
            before = self._before.pop(id_, None)
            self._say(did, before if did == "update" and before is not None else self.loadbalancers.copy(id_))

    def tree(self, id_: str) -> list[tuple[str, str]]:
        """Kind and id of everything under a load balancer."""
        row = self.loadbalancers[id_]
        found = [("listener", one["id"]) for one in row["listeners"]]
        for pool in row["pools"]:
            found.append(("pool", pool["id"]))
            found += [("member", one["id"]) for one in self.pools[pool["id"]]["members"]]
            if self.pools[pool["id"]]["healthmonitor_id"]:
                found.append(("healthmonitor", self.pools[pool["id"]]["healthmonitor_id"]))
        return found

    def parent(self, kind: str, row: Mapping[str, Any]) -> str:
        """The load balancer that something is under; "" for none."""
        if kind == "loadbalancer":
            return str(row["id"])
        if kind in ("member", "healthmonitor"):
            pool = row["pool_id"] if kind == "member" else next((one["id"] for one in row["pools"]), "")
            row = self.pools.get(pool, {})
        return next((one["id"] for one in row.get("loadbalancers", ())), "")

    def _tie(self, kind: str, row: Row, fields: Row) -> None:
        """Put it where its parents have it."""
        me = {"id": row["id"]}
        if kind in ("listener", "pool"):
            for parent in row["loadbalancers"]:
                self._in(self.loadbalancers, parent["id"], f"{kind}s", me)
        if kind == "listener" and row["default_pool_id"] in self.pools:
            self._in(self.pools, row["default_pool_id"], "listeners", me)
        if kind == "pool" and fields.get("listener_id") in self.listeners:
            listener = self.listeners.copy(fields["listener_id"])
            self.listeners.put(listener | {"default_pool_id": row["id"]})
        if kind == "member":
            self._in(self.pools, row["pool_id"], "members", me)
        if kind == "healthmonitor":
            for pool in row["pools"]:
                self.pools.put(self.pools.copy(pool["id"]) | {"healthmonitor_id": row["id"]})

    def _untie(self, kind: str, row: Row) -> None:
        me = {"id": row["id"]}
        if kind in ("listener", "pool"):
            for parent in row["loadbalancers"]:
                self._out(self.loadbalancers, parent["id"], f"{kind}s", me)
        if kind == "listener" and row["default_pool_id"]:
            self._out(self.pools, row["default_pool_id"], "listeners", me)
        if kind == "pool":
            for listener in row["listeners"]:
                if listener["id"] in self.listeners:
                    self.listeners.put(self.listeners.copy(listener["id"]) | {"default_pool_id": None})
        if kind == "member":
            self._out(self.pools, row["pool_id"], "members", me)
        if kind == "healthmonitor":
            for pool in row["pools"]:
                if pool["id"] in self.pools:
                    self.pools.put(self.pools.copy(pool["id"]) | {"healthmonitor_id": None})

    def _out(self, rows: Rows, id_: str, name: str, what: Row) -> None:
        if id_ in rows:
            row = rows.copy(id_)
            rows.put(row | {name: [one for one in row[name] if one != what]})

    def _in(self, rows: Rows, id_: str, name: str, what: Row) -> None:
        row = rows.copy(id_)
        if what not in row[name]:
            rows.put(row | {name: [*row[name], what]})

    def _say(self, verb: str, row: Row) -> None:
        names = ("admin_state_up", "name", "project_id", "vip_address", "vip_network_id", "vip_port_id", "vip_subnet_id")
        payload = {name: row[name] for name in names} | {
            "description": row["description"] or None,
            "loadbalancer_id": row["id"],
            "vip_qos_policy_id": row["vip_qos_policy_id"],
            "availability_zone": row["availability_zone"],
        }
        self.house.announce("octavia", f"octavia.loadbalancer.{verb}.end", payload, publisher=None, project=row["project_id"])

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path.rstrip("/") != "":
            return None
        versions = [
            {
                "id": f"v2.{minor}",
                "status": "CURRENT" if minor == 26 else "SUPPORTED",
                "updated": "2022-08-29T00:00:00Z",
                "links": [{"href": f"{self.url}/v2", "rel": "self"}],
            }
            for minor in range(27)
        ]
        return Reply({"versions": versions})

    def under(self, path: str, who: Who | None) -> str | None:
        # It answers under both roots.
        if path.startswith("/v2.0/"):
            return path[5:]
        return super().under(path, who)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        paths = "|".join(PATHS)
        return (
            ("GET", rf"/lbaas/({paths})", self._list),
            ("POST", rf"/lbaas/({paths})", self._post),
            ("GET", rf"/lbaas/({paths})/([^/]+)", self._show),
            ("PUT", rf"/lbaas/({paths})/([^/]+)", self._put),
            ("DELETE", rf"/lbaas/({paths})/([^/]+)", self._delete),
            ("GET", r"/lbaas/loadbalancers/([^/]+)/statuse?s?", self._statuses),
            ("GET", r"/lbaas/pools/([^/]+)/members", self._members),
            ("POST", r"/lbaas/pools/([^/]+)/members", self._post_member),
            ("GET", r"/lbaas/pools/([^/]+)/members/([^/]+)", self._member),
            ("PUT", r"/lbaas/pools/([^/]+)/members/([^/]+)", self._put_member),
            ("DELETE", r"/lbaas/pools/([^/]+)/members/([^/]+)", self._delete_member),
            ("GET", r"/octavia/amphorae", self._amphorae),
            ("GET", r"/octavia/amphorae/([^/]+)", self._amphora),
        )

    def error(self, why: Refused) -> Reply:
        if why.kind == "html":
            text = f"<html>\n <head>\n  <title>404 Bad Request</title>\n </head>\n <body>\n{why}\n </body>\n</html>"
            return Reply(text.encode(), why.status, content_type="text/html; charset=UTF-8")
        faulty = "Server" if why.status >= 500 else "Client"
        return Reply({"faultcode": faulty, "faultstring": str(why), "debuginfo": None}, why.status)

    def _allowed(self, who: Who) -> None:
        """Its default policy wants a role of its own."""
        if not who.admin and not any(role.startswith("load-balancer_") for role in who.roles):
            raise Refused(403, "Policy does not allow this request to be performed.")

    def _list(self, ask: Ask) -> Reply:
        self._allowed(ask.who)
        path = ask.named[0]
        return self._listed(ask, path, PATHS[path], f"/lbaas/{path}", None)

    def _listed(self, ask: Ask, plural: str, kind: str, path: str, more: Callable[[Row], bool] | None) -> Reply:
        if not ask.who.admin and ask.one("project_id", ask.who.project) != ask.who.project:
            raise Refused(403, "Policy does not allow this request to be performed.")
        keep = self._filter(ask, kind, more)
        marker = ask.one("marker")
        limit = self.limit(ask)
        found, first, last, full = self.page(
            ask,
            self.rows[kind],
            lambda row: self._shown(kind, row),
            plain=kind != "member",
            keep=keep,
            no_marker=Refused(400, f"Supplied pagination marker '{marker}' is not valid."),
            limit=limit,
        )
        # Links have the size and the marker, and nothing else of the query: neither filters nor fields.
        at = f"{self.url}/v2{path}?limit={limit}&marker="
        links = []
        if marker and first:
            links.append({"href": f"{at}{first}&page_reverse=True", "rel": "previous"})
        if full:
            links.append({"href": f"{at}{last}", "rel": "next"})
        return Reply(joined(plural, found, **{f"{plural}_links": links}))

    def _filter(self, ask: Ask, kind: str, more: Callable[[Row], bool] | None) -> Callable[[Row], bool] | None:
        wanted: dict[str, str] = {}
        for name, value in ask.query:
            if name in _NO_FILTER:
                continue
            if name not in _FILTERS[kind]:
                raise Refused(400, "One or more arguments are either duplicate or invalid")
            if name in wanted:
                raise Refused(500, '(pymysql.err.OperationalError) (4078, "Illegal parameter data types varchar and row")')
            wanted[name] = value
        if not wanted and more is None:
            return None
        return lambda row: (more is None or more(row)) and all(self._has(kind, row, *one) for one in wanted.items())

    def _has(self, kind: str, row: Row, name: str, value: str) -> bool:
        if name in ("loadbalancer_id", "load_balancer_id"):
            return value == (row["loadbalancer_id"] if kind == "amphora" else self.parent(kind, row))
        if name == "pool_id" and kind == "healthmonitor":
            return {"id": value} in row["pools"]
        if name == "project_id" and kind == "amphora":
            owner = self.loadbalancers.get(row["loadbalancer_id"] or "")
            return owner is not None and owner["project_id"] == value
        return matches(row, name, [value])

    def _shown(self, kind: str, row: Row) -> Row:
        return {name: value for name, value in row.items() if not (kind == "member" and name == "pool_id")}

    def _found(self, kind: str, id_: str, who: Who) -> Row:
        self._allowed(who)
        if id_ not in self.rows[kind]:
            raise Refused(404, f"{_NAMES[kind]} {id_} not found.")
        if not self.rows[kind].seen(id_, who):
            raise Refused(403, "Policy does not allow this request to be performed.")
        return self.rows[kind].copy(id_)

    def _only(self, ask: Ask, row: Row) -> Row:
        fields = ask.all("fields")
        return {name: row[name] for name in fields if name in row} if fields else row

    def _show(self, ask: Ask) -> Reply:
        kind = PATHS[ask.named[0]]
        return Reply({kind: self._only(ask, self._shown(kind, self._found(kind, ask.named[1], ask.who)))})

    def _statuses(self, ask: Ask) -> Reply:
        row = self._found("loadbalancer", ask.named[0], ask.who)
        listeners = []
        for listener in (self.listeners[one["id"]] for one in row["listeners"]):
            under = [
                self.pools[one["id"]] for one in row["pools"] if {"id": listener["id"]} in self.pools[one["id"]]["listeners"]
            ]
            listeners.append(_states(listener) | {"pools": [self._pool_states(pool) for pool in under]})
        return Reply({"statuses": {"loadbalancer": _states(row) | {"listeners": listeners}}})

    def _pool_states(self, pool: Mapping[str, Any]) -> Row:
        said = _states(pool)
        if pool["healthmonitor_id"]:
            monitor = self.healthmonitors[pool["healthmonitor_id"]]
            said["health_monitor"] = _states(monitor) | {"type": monitor["type"]}
        members = [self.members[one["id"]] for one in pool["members"]]
        said["members"] = [_states(one) | {"address": one["address"], "protocol_port": one["protocol_port"]} for one in members]
        return said

    def _members(self, ask: Ask) -> Reply:
        self._allowed(ask.who)
        pool = ask.named[0]
        if not self.pools.seen(pool, ask.who):
            # A quirk of the real one: HTML.
            raise Refused(404, f"Pool {pool} not found.", "html")
        return self._listed(ask, "members", "member", f"/lbaas/pools/{pool}/members", lambda row: row["pool_id"] == pool)

    def _member(self, ask: Ask) -> Reply:
        row = self._found("member", ask.named[1], ask.who)
        if row["pool_id"] != ask.named[0]:
            raise Refused(404, f"Member {row['id']} not found.")
        return Reply({"member": self._only(ask, self._shown("member", row))})

    def _amphorae(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy does not allow this request to be performed.")
        return self._listed(ask, "amphorae", "amphora", "/octavia/amphorae", None)

    def _amphora(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy does not allow this request to be performed.")
        return Reply({"amphora": self._found("amphora", ask.named[0], ask.who)})

    # --- what it does when it is told to: it is PENDING until somebody calls `settle`

    def _post(self, ask: Ask) -> Reply:
        kind = PATHS[ask.named[0]]
        self._allowed(ask.who)
        return self._pending(kind, ask.body.get(kind), ask)

    def _post_member(self, ask: Ask) -> Reply:
        self._found("pool", ask.named[0], ask.who)
        said = ask.body.get("member")
        return self._pending("member", said | {"pool_id": ask.named[0]} if isinstance(said, dict) else None, ask)

    def _pending(self, kind: str, said: Any, ask: Ask) -> Reply:
        if not isinstance(said, dict):
            raise Refused(400, f"Invalid input for field/attribute {kind}.")
        pending = {"provisioning_status": "PENDING_CREATE", "operating_status": "NO_MONITOR" if kind == "member" else "OFFLINE"}
        try:
            id_ = self.create(kind, said | pending, project=ask.who.project, announce=False)
        except KeyError as missing:
            raise Refused(404, f"{missing.args[0]} not found.") from None
        row = self.rows[kind].copy(id_)
        if kind != "loadbalancer":
            self._busy(kind, row)
        return Reply({kind: self._shown(kind, row)}, 201)

    def _busy(self, kind: str, row: Row) -> None:
        """The load balancer of a child that changes is PENDING_UPDATE."""
        parent = self.parent(kind, row)
        if parent:
            if self.loadbalancers[parent]["provisioning_status"] != "ACTIVE":
                raise Refused(409, f"Load Balancer {parent} is immutable and cannot be updated.")
            self.status("loadbalancer", parent, provisioning="PENDING_UPDATE")

    def _put(self, ask: Ask) -> Reply:
        return self._changed(PATHS[ask.named[0]], ask.named[1], ask)

    def _put_member(self, ask: Ask) -> Reply:
        return self._changed("member", ask.named[1], ask)

    def _changed(self, kind: str, id_: str, ask: Ask) -> Reply:
        row = self._found(kind, id_, ask.who)
        said = ask.body.get(kind)
        if not isinstance(said, dict):
            raise Refused(400, f"Invalid input for field/attribute {kind}.")
        self._busy(kind, row)
        if kind == "loadbalancer":
            self._before[id_] = row
        self.change(kind, id_, said | {"provisioning_status": "PENDING_UPDATE"}, announce=False)
        return Reply({kind: self._shown(kind, self.rows[kind].copy(id_))})

    def _delete(self, ask: Ask) -> Reply:
        return self._going(PATHS[ask.named[0]], ask.named[1], ask)

    def _delete_member(self, ask: Ask) -> Reply:
        return self._going("member", ask.named[1], ask)

    def _going(self, kind: str, id_: str, ask: Ask) -> Reply:
        row = self._found(kind, id_, ask.who)
        if kind != "loadbalancer":
            self._busy(kind, row)
        self.status(kind, id_, provisioning="PENDING_DELETE")
        return Reply(status=204)


def _rows() -> Rows:
    return Rows(place=lambda row: row["created_at"])


def _states(row: Mapping[str, Any]) -> Row:
    return {name: row[name] for name in ("id", "name", "operating_status", "provisioning_status")}


# --- what a new one has ----------------------------------------------------------------------------------------------------


def _common(octavia: Octavia, project: str, operating: str = "ONLINE") -> Row:
    return {
        "id": octavia.house.id(),
        "name": "",
        "description": "",
        "provisioning_status": "ACTIVE",
        "operating_status": operating,
        "admin_state_up": True,
        "project_id": project,
        "tenant_id": project,
        "created_at": octavia.house.naive(),
        "updated_at": None,
        "tags": [],
    }


def _loadbalancer(octavia: Octavia, fields: Row, project: str) -> Row:
    row = _common(octavia, project) | {
        "vip_address": "",
        "vip_port_id": "",
        "vip_subnet_id": None,
        "vip_network_id": "",
        "additional_vips": [],
        "listeners": [],
        "pools": [],
        "provider": "amphora",
        "flavor_id": None,
        "vip_qos_policy_id": None,
        "availability_zone": None,
    }
    neutron = octavia._neutron
    subnet = fields.get("vip_subnet_id")
    network = neutron.subnets[subnet]["network_id"] if subnet else fields.get("vip_network_id")
    if network in neutron.networks and "vip_port_id" not in fields:
        said = {
            "network_id": network,
            "name": f"octavia-lb-{row['id']}",
            "device_owner": "Octavia",
            "device_id": f"lb-{row['id']}",
        }
        port = neutron.create("port", said, project=project, admin=True)
        ips = neutron.ports[port]["fixed_ips"]
        row |= {"vip_port_id": port, "vip_network_id": network, "vip_address": ips[0]["ip_address"] if ips else ""}
        row["vip_subnet_id"] = ips[0]["subnet_id"] if ips else None
    return row


def _listener(octavia: Octavia, fields: Row, project: str) -> Row:
    parent = fields.get("loadbalancer_id")
    return _common(octavia, octavia.loadbalancers[parent]["project_id"] if parent else project) | {
        "protocol": "HTTP",
        "protocol_port": 80,
        "connection_limit": -1,
        "default_tls_container_ref": None,
        "sni_container_refs": [],
        "default_pool_id": None,
        "l7policies": [],
        "insert_headers": {},
        "loadbalancers": [{"id": parent}] if parent else [],
        "timeout_client_data": 50000,
        "timeout_member_connect": 5000,
        "timeout_member_data": 50000,
        "timeout_tcp_inspect": 0,
        "client_ca_tls_container_ref": None,
        "client_authentication": "NONE",
        "client_crl_container_ref": None,
        "allowed_cidrs": None,
        "tls_ciphers": None,
        "tls_versions": None,
        "alpn_protocols": None,
    }


def _pool(octavia: Octavia, fields: Row, project: str) -> Row:
    listener, parent = fields.get("listener_id"), fields.get("loadbalancer_id")
    balancers = octavia.listeners[listener]["loadbalancers"] if listener else [{"id": parent}] if parent else []
    if balancers:
        project = octavia.loadbalancers[balancers[0]["id"]]["project_id"]
    return _common(octavia, project) | {
        "protocol": "HTTP",
        "lb_algorithm": "ROUND_ROBIN",
        "session_persistence": None,
        "loadbalancers": balancers,
        "listeners": [{"id": listener}] if listener else [],
        "healthmonitor_id": None,
        "members": [],
        "tls_container_ref": None,
        "ca_tls_container_ref": None,
        "crl_container_ref": None,
        "tls_enabled": False,
        "tls_ciphers": None,
        "tls_versions": None,
        "alpn_protocols": None,
    }


def _member(octavia: Octavia, fields: Row, project: str) -> Row:
    row = _common(octavia, octavia.pools[fields["pool_id"]]["project_id"], "NO_MONITOR") | {
        "address": f"192.0.2.{octavia.house.number(250) + 1}",
        "protocol_port": 80,
        "weight": 1,
        "backup": False,
        "subnet_id": None,
        "monitor_address": None,
        "monitor_port": None,
    }
    del row["description"]
    return row


def _healthmonitor(octavia: Octavia, fields: Row, project: str) -> Row:
    pool = fields["pool_id"]
    row = _common(octavia, octavia.pools[pool]["project_id"]) | {
        "type": "HTTP",
        "delay": 5,
        "timeout": 3,
        "max_retries": 3,
        "max_retries_down": 3,
        "http_method": "GET",
        "url_path": "/",
        "expected_codes": "200",
        "pools": [{"id": pool}],
        "http_version": None,
        "domain_name": None,
    }
    del row["description"]
    return row


def _amphora(octavia: Octavia, fields: Row, project: str) -> Row:
    return {
        "id": octavia.house.id(),
        "loadbalancer_id": None,
        "compute_id": octavia.house.id(),
        "lb_network_ip": f"172.31.0.{octavia.house.number(250) + 1}",
        "vrrp_ip": None,
        "ha_ip": None,
        "vrrp_port_id": None,
        "ha_port_id": None,
        "cert_expiration": None,
        "cert_busy": False,
        "role": "STANDALONE",
        "status": "ALLOCATED",
        "vrrp_interface": None,
        "vrrp_id": 1,
        "vrrp_priority": None,
        "cached_zone": "nova",
        "created_at": octavia.house.naive(),
        "updated_at": None,
        "image_id": None,
        "compute_flavor": None,
    }


_DEFAULTS: dict[str, Callable[[Octavia, Row, str], Row]] = {
    "loadbalancer": _loadbalancer,
    "listener": _listener,
    "pool": _pool,
    "member": _member,
    "healthmonitor": _healthmonitor,
    "amphora": _amphora,
}
_STATES = frozenset({"id", "name", "project_id", "admin_state_up", "created_at", "updated_at"}) | {
    "provisioning_status",
    "operating_status",
}
_PARENT = frozenset({"loadbalancer_id", "load_balancer_id"})
"""It takes both."""
_VIP = frozenset({"vip_address", "vip_network_id", "vip_port_id", "vip_subnet_id"})
_FILTERS: dict[str, frozenset[str]] = {
    "loadbalancer": _STATES | _VIP | {"description", "provider", "flavor_id", "availability_zone"},
    "listener": _STATES | _PARENT | {"protocol", "protocol_port", "default_pool_id", "connection_limit"},
    "pool": _STATES | _PARENT | {"protocol", "lb_algorithm"},
    "member": _STATES | {"pool_id", "address", "protocol_port", "weight", "subnet_id", "backup"},
    "healthmonitor": _STATES | {"pool_id", "type", "delay", "timeout", "max_retries", "http_method", "url_path"},
    "amphora": _PARENT | {"id", "project_id", "compute_id", "status", "role", "lb_network_ip", "image_id"},
}
