"""The fake cloud's Nova, and what is used of Placement.

As seen on a real one ("Zed", 2.93): servers are listed newest first, 1,000 at the most; a full page has a next one; only admins
may say `all_tenants`; a server in a cell that is down is shown as far as it is known, from 2.69 on and only in a list without
paging or filters, and left out otherwise. The fields depend on the microversion.
https://docs.openstack.org/api-ref/compute/
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from vedette.testing.cloud_moves import Moves
from vedette.testing.cloud_neutron import Neutron
from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Service, Who, joined, matches

_encode = msgspec.json.Encoder().encode

HOST = "OS-EXT-SRV-ATTR:host"
NODE = "OS-EXT-SRV-ATTR:hypervisor_hostname"
VM_STATE = "OS-EXT-STS:vm_state"
TASK_STATE = "OS-EXT-STS:task_state"
POWER_STATE = "OS-EXT-STS:power_state"
ATTACHED = "os-extended-volumes:volumes_attached"

_ADMIN = frozenset(
    {
        HOST,
        NODE,
        "OS-EXT-SRV-ATTR:instance_name",
        "OS-EXT-SRV-ATTR:reservation_id",
        "OS-EXT-SRV-ATTR:launch_index",
        "OS-EXT-SRV-ATTR:kernel_id",
        "OS-EXT-SRV-ATTR:ramdisk_id",
        "OS-EXT-SRV-ATTR:root_device_name",
        "OS-EXT-SRV-ATTR:user_data",
        "host_status",
    }
)
_SINCE = {
    "OS-EXT-SRV-ATTR:reservation_id": (2, 3),
    "OS-EXT-SRV-ATTR:launch_index": (2, 3),
    "OS-EXT-SRV-ATTR:hostname": (2, 3),
    "OS-EXT-SRV-ATTR:kernel_id": (2, 3),
    "OS-EXT-SRV-ATTR:ramdisk_id": (2, 3),
    "OS-EXT-SRV-ATTR:root_device_name": (2, 3),
    "OS-EXT-SRV-ATTR:user_data": (2, 3),
    "locked": (2, 9),
    "host_status": (2, 16),
    "description": (2, 19),
    "tags": (2, 26),
    "trusted_image_certificates": (2, 63),
    "locked_reason": (2, 73),
}
"""Fields of a server, and the microversion that brought them."""
_POWER = {1: "running", 3: "paused", 4: "shutdown", 6: "crashed", 7: "suspended", 0: "pending"}
_BY_TASK = {
    "active": {
        "rebooting": "REBOOT",
        "reboot_started": "REBOOT",
        "reboot_pending": "REBOOT",
        "updating_password": "PASSWORD",
        "rebuilding": "REBUILD",
        "rebuild_spawning": "REBUILD",
        "migrating": "MIGRATING",
        "resize_prep": "RESIZE",
        "resize_migrating": "RESIZE",
        "resize_migrated": "RESIZE",
        "resize_finish": "RESIZE",
    },
    "resized": {"resize_reverting": "REVERT_RESIZE"},
}
_BY_STATE = {
    "building": "BUILD",
    "active": "ACTIVE",
    "stopped": "SHUTOFF",
    "resized": "VERIFY_RESIZE",
    "paused": "PAUSED",
    "suspended": "SUSPENDED",
    "rescued": "RESCUE",
    "error": "ERROR",
    "deleted": "DELETED",
    "soft-delete": "SOFT_DELETED",
    "shelved": "SHELVED",
    "shelved_offloaded": "SHELVED_OFFLOADED",
}
_USAGE = {
    **{"vcpus": 8, "vcpus_used": 0, "memory_mb": 16384, "memory_mb_used": 512, "free_ram_mb": 15872, "running_vms": 0},
    **{"local_gb": 100, "local_gb_used": 0, "free_disk_gb": 100, "disk_available_least": 0, "current_workload": 0},
}
"""What a hypervisor showed before 2.88."""
_FILTERS = frozenset(
    {
        "all_tenants",
        "status",
        "name",
        "host",
        "node",
        "flavor",
        "image",
        "project_id",
        "tenant_id",
        "user_id",
        "changes-since",
        "uuid",
        "id",
    }
    | {"vm_state", "task_state", "power_state", "deleted", "availability_zone"}
)
_PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir"})


def shown_status(vm_state: str, task_state: str | None) -> str:
    """What the API makes of the two."""
    return _BY_TASK.get(vm_state, {}).get(task_state or "", _BY_STATE.get(vm_state, "UNKNOWN"))


class Nova(Service):
    type = "compute"
    name = "nova"
    root = "/v2.1"
    oldest = (2, 1)

    def __init__(self, house: House, neutron: Neutron) -> None:
        self.moves = Moves(self)
        """What it does when it is asked to."""
        super().__init__(house)
        self._neutron = neutron
        self.newest = (2, 93)
        self.formats = ("unversioned", "versioned")
        """What it announces servers in."""
        self.servers = Rows(project=lambda row: row["tenant_id"], place=lambda row: row["created"], newest_first=True)
        """In full, as admins see them with the newest microversion; `_flavor` is the id of the flavor."""
        self.gone: dict[str, Row] = {}
        """Servers that were deleted: `changes-since` shows them."""
        self.default_image = ""
        """What servers are made from when nothing is said."""
        self.detached: Callable[[str, str], bool] = lambda volume, server: False
        """`detached(volume, server)`: Cinder's part of taking a volume from a server; False: it knows nothing of it."""
        self.attachments: Callable[[str], list[Row]] = lambda server: []
        """A server's volumes, as Cinder knows them."""
        self.quotas: Row = {
            "instances": 10,
            "cores": 20,
            "ram": 51200,
            "key_pairs": 100,
            "metadata_items": 128,
            "server_groups": 10,
            "server_group_members": 10,
        }
        """What every project may use; -1: as much as it likes."""
        self.unreachable: set[str] = set()
        """Servers whose cell is down."""
        self.flavors = Rows(shared=lambda row: bool(row["os-flavor-access:is_public"]), place=lambda row: row["id"])
        self.flavor_access: dict[str, set[str]] = {}
        """Flavor → projects that may use it, beside its public ones."""
        self.aggregates = Rows(place=lambda row: int(row["id"]))
        self.services = Rows()
        self.hypervisors = Rows()
        self.server_groups = Rows()
        """Each with `project_id` and `user_id`, shown from 2.13 on."""
        self.keypairs = Rows(key="_key", place=lambda row: row["name"])
        """By `<user id>:<name>`; each with `_user`."""
        self.rows = {
            "server": self.servers,
            "flavor": self.flavors,
            "aggregate": self.aggregates,
            "service": self.services,
            "hypervisor": self.hypervisors,
            "server_group": self.server_groups,
            "keypair": self.keypairs,
        }

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str, announce: bool = True) -> str:
        """Its id. A server is ACTIVE, unless `OS-EXT-STS:vm_state` says otherwise."""
        given = {name: value for name, value in fields.items() if not (kind == "server" and name == "ports")}
        row = _DEFAULTS[kind](self, dict(fields), project) | given
        if kind == "server":
            row["status"] = shown_status(row[VM_STATE], row[TASK_STATE])
            row["host_status"] = "UP" if row[HOST] else ""
        key = "_key" if kind == "keypair" else "id"
        self.rows[kind].put(row)
        if announce:
            self._say_created(kind, row)
        return str(row[key])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.rows[kind].copy(id_)
        was = dict(row)
        row |= fields
        if kind == "server":
            row["status"] = shown_status(row[VM_STATE], row[TASK_STATE])
            row["updated"] = self.house.second()
        elif "updated_at" in row:
            row["updated_at"] = self.house.micro()
        self.rows[kind].put(row)
        if announce and kind == "server":
            more = {"old_state": was[VM_STATE], "old_task_state": was[TASK_STATE], "new_task_state": row[TASK_STATE]}
            self._say_server("update", row, more)
        elif announce:
            self._say_other(kind, row, "update")

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.rows[kind].remove(id_)
        if kind == "server":
            self.unreachable.discard(id_)
            now = self.house.second()
            row |= {VM_STATE: "deleted", TASK_STATE: None, POWER_STATE: 0, "status": "DELETED", "updated": now}
            row["OS-SRV-USG:terminated_at"] = self.house.micro()
            self.gone[id_] = row
            for one in self.attachments(id_):
                self.detached(one["volume_id"], id_)
        if announce and kind == "server":
            self._say_server("delete.end", row, {})
        elif announce:
            self._say_other(kind, row, "delete")

    def state(self, id_: str, vm_state: str = "", task_state: str | None = None, *, announce: bool = True, **fields: Any) -> None:
        """A server moves on: the new vm_state ("": as it is) and task."""
        new = {VM_STATE: vm_state} if vm_state else {}
        self.change("server", id_, new | {TASK_STATE: task_state} | fields, announce=announce)

    def built(self, id_: str, host: str = "fake-1", *, announce: bool = True) -> None:
        """A server that was building is ACTIVE on this host."""
        now = self.house.micro()
        fields: Row = {VM_STATE: "active", TASK_STATE: None, POWER_STATE: 1, HOST: host, NODE: host, "host_status": "UP"}
        self.change(
            "server", id_, fields | {"OS-SRV-USG:launched_at": now, "OS-EXT-AZ:availability_zone": "nova"}, announce=announce
        )
        if announce:
            self._say_server("create.end", self.servers.copy(id_), {})

    def say(self, id_: str, action: str) -> None:
        """An announcement of a server as it is now."""
        self._say_server(action, self.servers.copy(id_), {})

    def _say_created(self, kind: str, row: Row) -> None:
        if kind != "server":
            self._say_other(kind, row, "create")
            return
        if row[VM_STATE] == "building":
            self._say_server("update", row, {"old_state": "building", "old_task_state": None, "new_task_state": row[TASK_STATE]})
        else:
            self._say_server("create.end", row, {})

    def _say_server(self, action: str, row: Row, more: Row) -> None:
        project, user = row["tenant_id"], row["user_id"]
        host = row[HOST] or "ctl"
        if "unversioned" in self.formats:
            payload = self._unversioned(row) | more
            event = f"compute.instance.{action}"
            self.house.announce("nova", event, payload, publisher=f"compute.{host}", project=project, user=user)
        if "versioned" in self.formats:
            payload = self._versioned(row, action, more)
            event, publisher = f"instance.{action}", f"nova-compute:{host}"
            self.house.announce(
                "nova", event, payload, publisher=publisher, project=project, user=user, topic="versioned_notifications"
            )

    def _unversioned(self, row: Row) -> Row:
        flavor = row["flavor"]
        ips = [
            {
                "address": ip["addr"],
                "type": ip["OS-EXT-IPS:type"],
                "version": ip["version"],
                "meta": {},
                "floating_ips": [],
                "label": label,
                "vif_mac": ip["OS-EXT-IPS-MAC:mac_addr"],
            }
            for label, listed in row["addresses"].items()
            for ip in listed
        ]
        image = row["image"]["id"] if row["image"] else ""
        deleted = row[VM_STATE] == "deleted"
        return {
            "tenant_id": row["tenant_id"],
            "user_id": row["user_id"],
            "instance_id": row["id"],
            "display_name": row["name"],
            "reservation_id": row["OS-EXT-SRV-ATTR:reservation_id"],
            "hostname": row["OS-EXT-SRV-ATTR:hostname"],
            "instance_type": flavor["original_name"],
            "instance_type_id": 1,
            "instance_flavor_id": row["_flavor"],
            "architecture": None,
            "memory_mb": flavor["ram"],
            "disk_gb": flavor["disk"],
            "vcpus": flavor["vcpus"],
            "root_gb": flavor["disk"],
            "ephemeral_gb": flavor["ephemeral"],
            "host": row[HOST],
            "node": row[NODE],
            "availability_zone": row["OS-EXT-AZ:availability_zone"],
            "cell_name": "",
            "created_at": row["created"].replace("T", " ").replace("Z", "+00:00"),
            "terminated_at": row["OS-SRV-USG:terminated_at"] or "",
            "deleted_at": row["OS-SRV-USG:terminated_at"] or "",
            "launched_at": row["OS-SRV-USG:launched_at"] or "",
            "image_ref_url": f"http://127.0.0.1:9292/images/{image}",
            "os_type": None,
            "kernel_id": "",
            "ramdisk_id": "",
            "state": row[VM_STATE],
            "state_description": row[TASK_STATE] or "",
            "progress": row["progress"] or "",
            "access_ip_v4": row["accessIPv4"] or None,
            "access_ip_v6": row["accessIPv6"] or None,
            "image_meta": {"base_image_ref": image},
            "metadata": row["metadata"],
        } | ({} if deleted else {"fixed_ips": ips})

    def _versioned(self, row: Row, action: str, more: Row) -> Row:
        flavor = row["flavor"]
        ips = [
            _object(
                "IpPayload",
                {
                    "label": label,
                    "mac": ip["OS-EXT-IPS-MAC:mac_addr"],
                    "meta": {},
                    "port_uuid": None,
                    "version": ip["version"],
                    "address": ip["addr"],
                    "device_name": None,
                },
            )
            for label, listed in row["addresses"].items()
            for ip in listed
        ]
        deleted = row[VM_STATE] == "deleted"
        launched = row["OS-SRV-USG:launched_at"]
        ended = row["OS-SRV-USG:terminated_at"]
        data: Row = {
            "uuid": row["id"],
            "user_id": row["user_id"],
            "tenant_id": row["tenant_id"],
            "reservation_id": row["OS-EXT-SRV-ATTR:reservation_id"],
            "display_name": row["name"],
            "display_description": row["description"],
            "host_name": row["OS-EXT-SRV-ATTR:hostname"],
            "host": row[HOST],
            "node": row[NODE],
            "os_type": None,
            "architecture": None,
            "availability_zone": row["OS-EXT-AZ:availability_zone"],
            "flavor": _object(
                "FlavorPayload",
                {
                    "flavorid": row["_flavor"],
                    "memory_mb": flavor["ram"],
                    "vcpus": flavor["vcpus"],
                    "root_gb": flavor["disk"],
                    "ephemeral_gb": flavor["ephemeral"],
                    "name": flavor["original_name"],
                    "swap": 0,
                    "rxtx_factor": 1.0,
                    "vcpu_weight": 0,
                    "disabled": False,
                    "is_public": True,
                    "extra_specs": {},
                    "projects": None,
                    "description": None,
                },
            ),
            "image_uuid": row["image"]["id"] if row["image"] else "",
            "key_name": row["key_name"],
            "kernel_id": "",
            "ramdisk_id": "",
            "created_at": row["created"],
            "launched_at": launched[:19] + "Z" if launched else None,
            "terminated_at": ended[:19] + "Z" if ended else None,
            "deleted_at": ended[:19] + "Z" if ended else None,
            "updated_at": row["updated"],
            "state": row[VM_STATE],
            "power_state": _POWER.get(row[POWER_STATE], "pending"),
            "task_state": row[TASK_STATE],
            "progress": row["progress"],
            "ip_addresses": [] if deleted else ips,
            "block_devices": [],
            "metadata": row["metadata"],
            "locked": row["locked"],
            "auto_disk_config": "MANUAL",
            "action_initiator_user": row["user_id"],
            "action_initiator_project": row["tenant_id"],
            "locked_reason": row["locked_reason"],
            "request_id": f"req-{self.house.id()}",
        }
        if action == "update":
            states = {
                "old_state": more.get("old_state"),
                "state": row[VM_STATE],
                "old_task_state": more.get("old_task_state"),
                "new_task_state": more.get("new_task_state"),
            }
            data["state_update"] = _object("InstanceStateUpdatePayload", states)
            data |= {"old_display_name": None, "tags": row["tags"], "block_devices": None}
            return _object("InstanceUpdatePayload", data)
        if action == "create.end":
            data |= {
                "fault": None,
                "keypairs": [],
                "tags": row["tags"],
                "trusted_image_certificates": None,
                "instance_name": row["OS-EXT-SRV-ATTR:instance_name"],
            }
            return _object("InstanceCreatePayload", data)
        return _object("InstanceActionPayload", data | {"fault": None})

    def _say_other(self, kind: str, row: Row, verb: str) -> None:
        """What Nova announces of the rest, in versioned form."""
        found = _OTHERS.get(kind)
        if found is None:
            return
        event, name, data = found(row, verb)
        if event:
            self.house.announce(
                "nova", event, _object(name, data), publisher="nova-api:ctl", topic="versioned_notifications", admin=True
            )

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path == "/":
            versions = [
                {
                    "id": "v2.0",
                    "status": "SUPPORTED",
                    "version": "",
                    "min_version": "",
                    "updated": "2011-01-21T11:33:21Z",
                    "links": [{"rel": "self", "href": f"{self.url}/v2/"}],
                },
                self._version(),
            ]
            return Reply({"versions": versions})
        if path.rstrip("/") == "/v2.1":
            return Reply({"version": self._version()})
        return None

    def _version(self) -> Row:
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": _dotted(self.newest),
            "min_version": "2.1",
            "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{self.url}/v2.1/"}],
        }

    def endpoint(self, project: str) -> str:
        return f"{self.url}/v2.1"

    def microversion(self, headers: Mapping[str, str]) -> tuple[int, int]:
        kind, _, said = headers.get("OpenStack-API-Version", "").partition(" ")
        said = said.strip() if kind == "compute" else headers.get("X-OpenStack-Nova-API-Version", "")
        return asked_version(said, self.oldest, self.newest)

    def headers(self, microversion: tuple[int, int]) -> Mapping[str, str]:
        text = _dotted(microversion)
        return {
            "OpenStack-API-Version": f"compute {text}",
            "X-OpenStack-Nova-API-Version": text,
            "Vary": "OpenStack-API-Version",
        }

    def error(self, why: Refused) -> Reply:
        names = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest"}
        return Reply({names.get(why.status, "computeFault"): {"code": why.status, "message": str(why)}}, why.status)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"/servers(/detail)?", self._list),
            ("POST", r"/servers", self._boot),
            ("GET", r"/servers/([^/]+)", self._show),
            ("DELETE", r"/servers/([^/]+)", self._end),
            ("GET", r"/servers/([^/]+)/os-volume_attachments", self._attached),
            ("GET", r"/servers/([^/]+)/os-volume_attachments/([^/]+)", self._attached),
            ("DELETE", r"/servers/([^/]+)/os-volume_attachments/([^/]+)", self._detach),
            ("GET", r"/flavors(?:/detail)?", self._list_flavors),
            ("GET", r"/flavors/([^/]+)", self._flavor),
            ("GET", r"/flavors/([^/]+)/os-flavor-access", self._access),
            ("GET", r"/flavors/([^/]+)/os-extra_specs", self._extra_specs),
            ("GET", r"/os-aggregates", self._list_aggregates),
            ("GET", r"/os-aggregates/([^/]+)", self._aggregate),
            ("GET", r"/os-services", self._list_services),
            ("GET", r"/os-hypervisors(?:/detail)?", self._list_hypervisors),
            ("GET", r"/os-hypervisors/statistics", self._statistics),
            ("GET", r"/os-hypervisors/([^/]+)", self._hypervisor),
            ("GET", r"/os-server-groups", self._list_groups),
            ("GET", r"/os-server-groups/([^/]+)", self._group),
            ("GET", r"/os-keypairs", self._list_keypairs),
            ("POST", r"/os-keypairs", self._make_keypair),
            ("GET", r"/os-keypairs/([^/]+)", self._keypair),
            ("DELETE", r"/os-keypairs/([^/]+)", self._delete_keypair),
            ("GET", r"/limits", self._limits),
            ("GET", r"/os-quota-sets/([^/]+)", self._quotas),
            ("GET", r"/os-quota-sets/([^/]+)/detail", self._quota_details),
            *self.moves.routes(),
        )

    def _admins(self, ask: Ask, rule: str) -> None:
        if not ask.who.admin:
            raise Refused(403, f"Policy doesn't allow os_compute_api:{rule} to be performed.")

    # servers

    def _list(self, ask: Ask) -> Reply:
        every = any(ask.one(name) in ("1", "true", "True") for name in ("all_tenants",))
        detail = bool(ask.named[0])
        if every:
            self._admins(ask, f"servers:{'detail' if detail else 'index'}:get_all_tenants")
        filters = {name: value for name, value in ask.query if name in _FILTERS}
        if filters.get("status", "").lower() == "deleted" and not ask.who.admin:
            raise Refused(403, "Only administrators may list deleted instances")
        visible = self._visible(ask.who, every)
        # Nova leaves a cell that is down out as soon as it would have to sort or search.
        partly = ask.microversion >= (2, 69) and not any(name in _PAGING for name, _ in ask.query)
        partly = partly and {name for name, _ in ask.query} <= {"all_tenants"}
        marker = ask.one("marker")
        rows, since = self.servers, filters.get("changes-since", "")
        if since:
            rows = Rows(project=lambda row: row["tenant_id"], place=lambda row: row["created"], newest_first=True)
            for row in [*(self.servers.copy(id_) for id_ in self.servers), *self.gone.values()]:
                if row["updated"] >= since[:19]:
                    rows.put(row)
        found, _, last, full = self.page(
            ask,
            rows,
            lambda row: self.shown(row, ask, detail=detail),
            plain=False,
            keep=self._filter(filters),
            no_marker=Refused(400, f"marker [{marker}] not found"),
            limit=self.limit(ask),
            visible=lambda id_: visible(rows, id_) and (partly or id_ not in self.unreachable),
        )
        more: Row = {}
        if full:
            query = urlencode([*ask.but("marker"), ("marker", last)])
            more["servers_links"] = [{"rel": "next", "href": f"{self.url}{ask.at}?{query}"}]
        return Reply(joined("servers", found, **more))

    def _visible(self, who: Who, every: bool) -> Callable[[Rows, str], bool]:
        # Without all_tenants, an admin too sees the own project only.
        mine = who if every else Who(who.user, who.project, frozenset())
        return lambda rows, id_: rows.seen(id_, mine)

    def _filter(self, filters: Mapping[str, str]) -> Callable[[Row], bool] | None:
        names = {
            "status": "status",
            "host": HOST,
            "node": "OS-EXT-SRV-ATTR:hypervisor_hostname",
            "project_id": "tenant_id",
            "tenant_id": "tenant_id",
            "user_id": "user_id",
            "vm_state": VM_STATE,
            "task_state": TASK_STATE,
            "uuid": "id",
            "availability_zone": "OS-EXT-AZ:availability_zone",
        }
        wanted = {names[name]: [value] for name, value in filters.items() if name in names}
        if "name" in filters:
            part = filters["name"]
            return lambda row: part in row["name"] and all(matches(row, name, value) for name, value in wanted.items())
        return (lambda row: all(matches(row, name, value) for name, value in wanted.items())) if wanted else None

    def shown(self, row: Row, ask: Ask, *, detail: bool = True) -> Row:
        """A server as it is shown to this asker."""
        links = self._links("servers", row["id"])
        if row["id"] in self.unreachable:
            said = {"id": row["id"], "status": "UNKNOWN", "tenant_id": row["tenant_id"], "created": row["created"]}
            return said | {"links": links}
        if not detail:
            return {"id": row["id"], "name": row["name"], "links": links}
        public = {
            name: value
            for name, value in row.items()
            if not name.startswith("_") and (ask.who.admin or name not in _ADMIN) and ask.microversion >= _SINCE.get(name, (2, 1))
        }
        if "OS-EXT-SRV-ATTR:hostname" in public and not ask.who.admin and ask.microversion < (2, 90):
            del public["OS-EXT-SRV-ATTR:hostname"]
        if ask.microversion < (2, 47):
            public["flavor"] = {"id": row["_flavor"], "links": self._links("flavors", row["_flavor"])[1:]}
        if public["image"]:
            public["image"] = {"id": row["image"]["id"], "links": self._links("images", row["image"]["id"])[1:]}
        else:
            public["image"] = ""
        if public["status"] not in ("ERROR", "DELETED"):
            public.pop("fault", None)
        return public | {"links": links}

    def _links(self, path: str, id_: str) -> list[Row]:
        return [
            {"rel": "self", "href": f"{self.url}/v2.1/{path}/{id_}"},
            {"rel": "bookmark", "href": f"{self.url}/{path}/{id_}"},
        ]

    def found(self, id_: str, who: Who) -> Row:
        if not self.servers.seen(id_, who):
            raise Refused(404, f"Instance {id_} could not be found.")
        return self.servers.copy(id_)

    def _show(self, ask: Ask) -> Reply:
        row = self.found(ask.named[0], ask.who)
        if row["id"] in self.unreachable:
            if ask.microversion < (2, 69):
                raise Refused(500, "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/.")
            more = {"flavor": row["flavor"], "image": row["image"], "user_id": row["user_id"], POWER_STATE: 0}
            return Reply({"server": self.shown(row, ask) | more | {"OS-EXT-AZ:availability_zone": "UNKNOWN"}})
        return Reply({"server": self.shown(row, ask)})

    def _boot(self, ask: Ask) -> Reply:
        said = ask.body.get("server")
        if not isinstance(said, dict) or not isinstance(said.get("name"), str):
            raise Refused(400, "Invalid input for field/attribute server.")
        if said.get("flavorRef") not in self.flavors:
            raise Refused(400, f"Flavor {said.get('flavorRef')} could not be found.")
        fields: Row = {"name": said["name"], "metadata": said.get("metadata", {}), "_flavor": said["flavorRef"]}
        fields |= {VM_STATE: "building", TASK_STATE: "scheduling", "user_id": ask.who.user}
        if said.get("imageRef"):
            fields["image"] = {"id": said["imageRef"]}
        id_ = self.create("server", fields, project=ask.who.project)
        return Reply({"server": {"id": id_, "links": self._links("servers", id_), "OS-DCF:diskConfig": "MANUAL"}}, 202)

    def _end(self, ask: Ask) -> Reply:
        row = self.found(ask.named[0], ask.who)
        if row["locked"] and not ask.who.admin:
            raise Refused(409, f"Instance {row['id']} is locked")
        self.delete("server", row["id"])
        return Reply(status=204)

    def _attached(self, ask: Ask) -> Reply:
        row = self.found(ask.named[0], ask.who)
        found = [self._attachment(one, ask.microversion) for one in self.attachments(row["id"])]
        if len(ask.named) == 1:
            return Reply({"volumeAttachments": found})
        for one in found:
            if one["volumeId"] == ask.named[1]:
                return Reply({"volumeAttachment": one})
        raise Refused(404, f"Instance {row['id']} is not attached to volume {ask.named[1]}")

    def _attachment(self, one: Row, microversion: tuple[int, int]) -> Row:
        said: Row = {"volumeId": one["volume_id"], "serverId": one["server_id"], "device": one["device"]}
        if microversion >= (2, 70):
            said["tag"] = None
        if microversion >= (2, 79):
            said["delete_on_termination"] = False
        if microversion >= (2, 89):
            return said | {"attachment_id": one["attachment_id"], "bdm_uuid": one["attachment_id"]}
        return said | {"id": one["volume_id"]}

    def _detach(self, ask: Ask) -> Reply:
        row = self.found(ask.named[0], ask.who)
        if row[VM_STATE] not in ("active", "paused", "stopped", "resized", "suspended"):
            raise Refused(409, f"Cannot 'detach_volume' instance {row['id']} while it is in vm_state {row[VM_STATE]}")
        if not self.detached(ask.named[1], row["id"]):
            raise Refused(404, f"volume_id not found: {ask.named[1]}")
        return Reply(status=202)

    # the rest

    def _list_flavors(self, ask: Ask) -> Reply:
        wanted = ask.one("is_public").lower()
        if wanted == "none" and ask.who.admin:
            ids = self.flavors.ordered()
        elif wanted in ("none", "true", "1", ""):
            ids = [id_ for id_ in self.flavors.ordered() if self.flavors[id_]["os-flavor-access:is_public"]]
            ids += sorted(id_ for id_, projects in self.flavor_access.items() if ask.who.project in projects)
        else:
            ids = [id_ for id_ in self.flavors.ordered() if not self.flavors[id_]["os-flavor-access:is_public"]]
            ids = ids if ask.who.admin else [id_ for id_ in ids if ask.who.project in self.flavor_access.get(id_, ())]
        return self._plain_list(ask, "flavors", ids, lambda id_: self._flavor_row(id_, ask))

    def _plain_list(self, ask: Ask, key: str, ids: list[str], show: Callable[[str], Row]) -> Reply:
        """Of few rows: pages by id."""
        limit, marker = self.limit(ask), ask.one("marker")
        if marker:
            if marker not in ids:
                raise Refused(400, f"marker [{marker}] not found")
            ids = ids[ids.index(marker) + 1 :]
        page = ids[:limit]
        said: Row = {key: [show(id_) for id_ in page]}
        if ask.one("limit") and len(page) == limit:
            query = urlencode([*ask.but("marker"), ("marker", page[-1])])
            said[f"{key}_links"] = [{"rel": "next", "href": f"{self.url}{ask.at}?{query}"}]
        return Reply(said)

    def _flavor_row(self, id_: str, ask: Ask) -> Row:
        row = {name: value for name, value in self.flavors[id_].items() if not name.startswith("_")}
        if ask.microversion < (2, 55):
            row.pop("description")
        if ask.microversion < (2, 61):
            row.pop("extra_specs")
        if ask.microversion < (2, 75):
            row["swap"] = row["swap"] or ""
        return row | {"links": self._links("flavors", id_)}

    def _flavor_there(self, id_: str, who: Who) -> None:
        allowed = id_ in self.flavors and (self.flavors.seen(id_, who) or who.project in self.flavor_access.get(id_, ()))
        if not allowed:
            raise Refused(404, f"Flavor {id_} could not be found.")

    def _flavor(self, ask: Ask) -> Reply:
        self._flavor_there(ask.named[0], ask.who)
        return Reply({"flavor": self._flavor_row(ask.named[0], ask)})

    def _extra_specs(self, ask: Ask) -> Reply:
        self._flavor_there(ask.named[0], ask.who)
        return Reply({"extra_specs": self.flavors[ask.named[0]]["extra_specs"]})

    def _access(self, ask: Ask) -> Reply:
        id_ = ask.named[0]
        self._flavor_there(id_, ask.who)
        self._admins(ask, "os-flavor-access")
        if self.flavors[id_]["os-flavor-access:is_public"]:
            raise Refused(404, "Access list not available for public flavors.")
        projects = sorted(self.flavor_access.get(id_, ()))
        return Reply({"flavor_access": [{"flavor_id": id_, "tenant_id": project} for project in projects]})

    def _list_aggregates(self, ask: Ask) -> Reply:
        self._admins(ask, "os-aggregates:index")
        return Reply({"aggregates": [self._aggregate_row(id_, ask) for id_ in self.aggregates.ordered()]})

    def _aggregate_row(self, id_: str, ask: Ask) -> Row:
        row = self.aggregates.copy(id_) | {"id": int(id_)}
        if ask.microversion < (2, 41):
            row.pop("uuid")
        return row

    def _aggregate(self, ask: Ask) -> Reply:
        self._admins(ask, "os-aggregates:show")
        if ask.named[0] not in self.aggregates:
            raise Refused(404, f"Aggregate {ask.named[0]} could not be found.")
        return Reply({"aggregate": self._aggregate_row(ask.named[0], ask)})

    def _list_services(self, ask: Ask) -> Reply:
        self._admins(ask, "os-services:list")
        rows = [self.services.copy(id_) for id_ in self.services]
        for name in ("binary", "host"):
            if ask.one(name):
                rows = [row for row in rows if row[name] == ask.one(name)]
        if ask.microversion < (2, 53):
            rows = [row | {"id": number} for number, row in enumerate(rows, 1)]
        if ask.microversion < (2, 11):
            for row in rows:
                row.pop("forced_down")
        return Reply({"services": rows})

    def _list_hypervisors(self, ask: Ask) -> Reply:
        self._admins(ask, "os-hypervisors:list-detail")
        return self._plain_list(ask, "hypervisors", self.hypervisors.ordered(), lambda id_: self._hypervisor_row(id_, ask))

    def _hypervisor_row(self, id_: str, ask: Ask) -> Row:
        row = self.hypervisors.copy(id_)
        if ask.microversion < (2, 88):
            del row["uptime"]
            row |= _USAGE | {"cpu_info": {} if ask.microversion >= (2, 28) else "{}"}
        if ask.microversion < (2, 53):
            row["id"] = self.hypervisors.place(id_) + 1
        return row

    def _hypervisor(self, ask: Ask) -> Reply:
        self._admins(ask, "os-hypervisors:show")
        if ask.named[0] not in self.hypervisors:
            raise Refused(404, f"Compute host {ask.named[0]} could not be found.")
        return Reply({"hypervisor": self._hypervisor_row(ask.named[0], ask)})

    def _group_row(self, id_: str, ask: Ask) -> Row:
        row = self.server_groups.copy(id_)
        if ask.microversion < (2, 13):
            row = {name: value for name, value in row.items() if name not in ("project_id", "user_id")}
        if ask.microversion >= (2, 64):
            row = {name: value for name, value in row.items() if name not in ("policies", "metadata")}
        else:
            row = {name: value for name, value in row.items() if name not in ("policy", "rules")}
        return row

    def _list_groups(self, ask: Ask) -> Reply:
        # Of somebody who isn't an admin, `all_projects` is ignored.
        every = ask.who.admin and any(name == "all_projects" for name, _ in ask.query)
        mine = ask.who if every else Who(ask.who.user, ask.who.project, frozenset())
        ids = [id_ for id_ in self.server_groups.ordered() if self.server_groups.seen(id_, mine)]
        start = int(ask.one("offset", "0"))
        return Reply({"server_groups": [self._group_row(id_, ask) for id_ in ids[start : start + self.limit(ask)]]})

    def _group(self, ask: Ask) -> Reply:
        if not self.server_groups.seen(ask.named[0], ask.who):
            raise Refused(404, f"Instance group {ask.named[0]} could not be found.")
        return Reply({"server_group": self._group_row(ask.named[0], ask)})

    def _owner(self, ask: Ask, rule: str) -> str:
        user = ask.one("user_id") or ask.who.user
        if user != ask.who.user:
            self._admins(ask, f"os-keypairs:{rule}")
        return user

    def _list_keypairs(self, ask: Ask) -> Reply:
        user = self._owner(ask, "index")
        ids = [id_ for id_ in self.keypairs.ordered() if self.keypairs[id_]["_user"] == user]
        names = {str(self.keypairs[id_]["name"]): id_ for id_ in ids}
        return self._plain_list(
            ask, "keypairs", list(names), lambda name: {"keypair": self._keypair_row(names[name], ask, short=True)}
        )

    def _keypair_row(self, id_: str, ask: Ask, *, short: bool) -> Row:
        row = self.keypairs[id_]
        names = (
            ("name", "public_key", "fingerprint", "type") if ask.microversion >= (2, 2) else ("name", "public_key", "fingerprint")
        )
        said = {name: row[name] for name in names}
        if short:
            return said
        more = {name: row[name] for name in ("created_at", "deleted", "deleted_at", "updated_at")}
        return said | more | {"user_id": row["_user"], "id": self.keypairs.place(id_) + 1}

    def _keypair(self, ask: Ask) -> Reply:
        user = self._owner(ask, "show")
        id_ = f"{user}:{ask.named[0]}"
        if id_ not in self.keypairs:
            raise Refused(404, f"Keypair {ask.named[0]} not found for user {user}")
        return Reply({"keypair": self._keypair_row(id_, ask, short=False)})

    def _make_keypair(self, ask: Ask) -> Reply:
        said = ask.body.get("keypair") if isinstance(ask.body, dict) else None
        name = said.get("name") if isinstance(said, dict) else None
        newer = ask.microversion >= (2, 92)
        safe = r"[\w .@-]{1,255}" if newer else r"[\w -]{1,255}"
        if (
            not isinstance(said, dict)
            or not isinstance(name, str)
            or not re.fullmatch(safe, name, re.ASCII)
            or name != name.strip()
        ):
            raise Refused(400, "Keypair data is invalid: Keypair name contains unsafe characters")
        if ask.microversion < (2, 2) and "type" in said:
            raise Refused(400, "Invalid input for field/attribute keypair. Additional properties are not allowed ('type')")
        if f"{ask.who.user}:{name}" in self.keypairs:
            raise Refused(409, f"Key pair '{name}' already exists.")
        if said.get("type", "ssh") not in ("ssh", "x509"):
            raise Refused(400, f"Invalid input for field/attribute type. Value: {said['type']}.")
        public = said.get("public_key")
        if newer and public is None:
            # (From here on it makes no keys any more.)
            raise Refused(400, "Invalid input for field/attribute keypair. 'public_key' is a required property")
        has = sum(1 for id_ in self.keypairs if self.keypairs[id_]["_user"] == ask.who.user)
        if 0 <= self.quotas["key_pairs"] <= has:
            raise Refused(403, "Quota exceeded, too many key pairs.")
        fields: Row = {"_user": ask.who.user, "name": name, "type": said.get("type", "ssh")}
        if public is not None:
            if not isinstance(public, str) or not re.fullmatch(r"(ssh-\S+|ecdsa-\S+) [A-Za-z0-9+/=]+( .*)?", public.strip()):
                raise Refused(400, "Keypair data is invalid: failed to generate fingerprint")
            fields["public_key"] = public
        else:
            number = base64.b64encode(b"\0\0\0\7ssh-rsa\0\0\0\3\1\0\1\0\0\1\1\0" + secrets.token_bytes(256)).decode()
            fields["public_key"] = f"ssh-rsa {number} Generated-by-Nova"
        id_ = self.create("keypair", fields, project=ask.who.project)
        names = ("name", "public_key", "fingerprint", *(("type",) if ask.microversion >= (2, 2) else ()))
        row = {key: self.keypairs[id_][key] for key in names} | {"user_id": ask.who.user}
        if public is None:
            # A real one is PEM too; this one opens nothing.
            lines = [base64.b64encode(secrets.token_bytes(48)).decode() for _ in range(25)]
            row["private_key"] = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----", ""])
        return Reply({"keypair": row}, 201 if ask.microversion >= (2, 2) else 200)

    def _delete_keypair(self, ask: Ask) -> Reply:
        user = self._owner(ask, "delete")
        id_ = f"{user}:{ask.named[0]}"
        if id_ not in self.keypairs:
            raise Refused(404, f"Keypair {ask.named[0]} not found for user {user}")
        self.delete("keypair", id_)
        return Reply(status=204 if ask.microversion >= (2, 2) else 202)

    # what a project may use

    def _used(self, project: str) -> tuple[int, int, int]:
        """Servers, vCPUs, MiB."""
        rows = [self.servers[id_] for id_ in self.servers if self.servers[id_]["tenant_id"] == project]
        return len(rows), sum(row["flavor"]["vcpus"] for row in rows), sum(row["flavor"]["ram"] for row in rows)

    def _limits(self, ask: Ask) -> Reply:
        project = ask.one("tenant_id") or ask.who.project
        if project != ask.who.project:
            self._admins(ask, "limits:other_project")
        servers, vcpus, ram = self._used(project)
        quotas = self.quotas
        absolute = {
            "maxTotalInstances": quotas["instances"],
            "maxTotalCores": quotas["cores"],
            "maxTotalRAMSize": quotas["ram"],
            "maxTotalKeypairs": quotas["key_pairs"],
            "maxServerMeta": quotas["metadata_items"],
            "maxServerGroups": quotas["server_groups"],
            "maxServerGroupMembers": quotas["server_group_members"],
            "totalInstancesUsed": servers,
            "totalCoresUsed": vcpus,
            "totalRAMUsed": ram,
            "totalServerGroupsUsed": self._groups(project),
        }
        return Reply({"limits": {"rate": [], "absolute": absolute}})

    def _groups(self, project: str) -> int:
        return sum(1 for id_ in self.server_groups if self.server_groups[id_]["project_id"] == project)

    def _quota_of(self, ask: Ask) -> str:
        """The project whose quotas are asked for. Raises Refused."""
        if not ask.who.admin and ask.named[0] != ask.who.project:
            raise Refused(403, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.")
        if ask.named[0] not in self.house.identity.projects:
            raise Refused(400, f"Project ID {ask.named[0]} is not a valid project.")
        return ask.named[0]

    def _quotas(self, ask: Ask) -> Reply:
        return Reply({"quota_set": self.quotas | {"id": self._quota_of(ask)}})

    def _quota_details(self, ask: Ask) -> Reply:
        project = self._quota_of(ask)
        servers, vcpus, ram = self._used(project)
        used = {"instances": servers, "cores": vcpus, "ram": ram, "server_groups": self._groups(project)}
        # (Key pairs are a user's: Nova says 0 of them here.)
        rows = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in self.quotas.items()}
        return Reply({"quota_set": rows | {"id": project}})

    def _statistics(self, ask: Ask) -> Reply:
        if ask.microversion >= (2, 88):
            raise Refused(404, "The resource could not be found.")
        self._admins(ask, "os-hypervisors:statistics")
        servers = [self.servers[id_] for id_ in self.servers]
        hosts = len(self.hypervisors)
        statistics = {
            "count": hosts,
            "vcpus": 8 * hosts,
            "vcpus_used": sum(row["flavor"]["vcpus"] for row in servers),
            "memory_mb": 16384 * hosts,
            "memory_mb_used": 512 * hosts + sum(row["flavor"]["ram"] for row in servers),
            "local_gb": 100 * hosts,
            "local_gb_used": sum(row["flavor"]["disk"] for row in servers),
            "running_vms": sum(1 for row in servers if row[VM_STATE] == "active"),
            "current_workload": 0,
            "disk_available_least": 90 * hosts,
            "free_disk_gb": 90 * hosts,
            "free_ram_mb": 15000 * hosts,
        }
        return Reply({"hypervisor_statistics": statistics})


def asked_version(said: str, oldest: tuple[int, int], newest: tuple[int, int]) -> tuple[int, int]:
    """A microversion from a header: `2.90`, `latest`, or nothing. Raises Refused."""
    if not said:
        return oldest
    if said == "latest":
        return newest
    major, _, minor = said.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise Refused(400, f"API Version String {said} is of invalid format. Must be of format MajorNum.MinorNum.")
    version = (int(major), int(minor))
    if not oldest <= version <= newest:
        low, high = _dotted(oldest), _dotted(newest)
        raise Refused(406, f"Version {said} is not supported by the API. Minimum is {low} and maximum is {high}.")
    return version


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _object(name: str, data: Row) -> Row:
    return {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": "1.0",
        "nova_object.data": data,
    }


# --- what a new one has ----------------------------------------------------------------------------------------------------


def _server(nova: Nova, fields: Row, project: str) -> Row:
    house = nova.house
    id_ = house.id()
    flavor_id = fields.get("_flavor") or next(iter(nova.flavors), "")
    flavor = nova.flavors.get(flavor_id, {})
    building = fields.get(VM_STATE) == "building"
    addresses: Row = {}
    for port in fields.get("ports", ()):
        row = nova._neutron.ports[port]
        label = nova._neutron.networks[row["network_id"]]["name"] if row["network_id"] in nova._neutron.networks else ""
        for ip in row["fixed_ips"]:
            addresses.setdefault(label, []).append(
                {
                    "version": 4,
                    "addr": ip["ip_address"],
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": row["mac_address"],
                }
            )
    name = fields.get("name") or f"server-{id_[:8]}"
    host = "" if building else "fake-1"
    return {
        "id": id_,
        "name": name,
        "status": "",
        "tenant_id": project,
        "user_id": house.someone(project),
        "metadata": {},
        "hostId": "",
        "image": {"id": nova.default_image} if nova.default_image else None,
        "flavor": {
            "vcpus": flavor.get("vcpus", 1),
            "ram": flavor.get("ram", 512),
            "disk": flavor.get("disk", 1),
            "ephemeral": 0,
            "swap": 0,
            "original_name": flavor.get("name", ""),
            "extra_specs": {},
        },
        "_flavor": flavor_id,
        "created": house.second(),
        "updated": house.second(),
        "addresses": addresses,
        "accessIPv4": "",
        "accessIPv6": "",
        "OS-DCF:diskConfig": "MANUAL",
        "progress": 0,
        "OS-EXT-AZ:availability_zone": "" if building else "nova",
        "config_drive": "",
        "key_name": None,
        "OS-SRV-USG:launched_at": None if building else house.micro(),
        "OS-SRV-USG:terminated_at": None,
        HOST: host or None,
        "OS-EXT-SRV-ATTR:instance_name": f"instance-{len(nova.servers) + len(nova.gone) + 1:08x}",
        NODE: host or None,
        "OS-EXT-SRV-ATTR:reservation_id": f"r-{id_[:8]}",
        "OS-EXT-SRV-ATTR:launch_index": 0,
        "OS-EXT-SRV-ATTR:hostname": name.lower(),
        "OS-EXT-SRV-ATTR:kernel_id": "",
        "OS-EXT-SRV-ATTR:ramdisk_id": "",
        "OS-EXT-SRV-ATTR:root_device_name": "/dev/sda",
        "OS-EXT-SRV-ATTR:user_data": None,
        TASK_STATE: None,
        VM_STATE: "active",
        POWER_STATE: 0 if building else 1,
        ATTACHED: [],
        "locked": False,
        "locked_reason": None,
        "description": None,
        "tags": [],
        "trusted_image_certificates": None,
        "host_status": "",
        "security_groups": [{"name": "default"}],
    }


def _flavor(nova: Nova, fields: Row, project: str) -> Row:
    return {
        "id": nova.house.id(),
        "name": "m1.tiny",
        "ram": 512,
        "disk": 1,
        "swap": 0,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "OS-FLV-DISABLED:disabled": False,
        "vcpus": 1,
        "os-flavor-access:is_public": True,
        "rxtx_factor": 1.0,
        "description": None,
        "extra_specs": {},
    }


def _aggregate(nova: Nova, fields: Row, project: str) -> Row:
    return {
        "id": str(len(nova.aggregates) + 1),
        "uuid": nova.house.id(),
        "name": "aggregate",
        "availability_zone": None,
        "hosts": [],
        "metadata": {},
        "created_at": nova.house.micro(),
        "updated_at": None,
        "deleted": False,
        "deleted_at": None,
    }


def _service(nova: Nova, fields: Row, project: str) -> Row:
    return {
        "binary": "nova-compute",
        "host": "fake-1",
        "id": nova.house.id(),
        "zone": "nova",
        "status": "enabled",
        "state": "up",
        "updated_at": nova.house.micro(),
        "disabled_reason": None,
        "forced_down": False,
    }


def _hypervisor(nova: Nova, fields: Row, project: str) -> Row:
    host = fields.get("hypervisor_hostname", "fake-1")
    service = next((id_ for id_ in nova.services if nova.services[id_]["host"] == host), "")
    return {
        "id": nova.house.id(),
        "hypervisor_hostname": host,
        "state": "up",
        "status": "enabled",
        "hypervisor_type": "fake",
        "hypervisor_version": 1000,
        "host_ip": "127.0.0.1",
        "service": {"id": service, "host": host, "disabled_reason": None},
        "uptime": None,
    }


def _server_group(nova: Nova, fields: Row, project: str) -> Row:
    policy = fields.get("policy", "anti-affinity")
    return {
        "id": nova.house.id(),
        "name": "group",
        "policy": policy,
        "rules": {},
        "policies": [policy],
        "metadata": {},
        "members": [],
        "project_id": project,
        "user_id": nova.house.someone(project),
    }


def _keypair(nova: Nova, fields: Row, project: str) -> Row:
    user, name = fields.get("_user") or nova.house.someone(project), fields.get("name", "key")
    return {
        "_key": f"{user}:{name}",
        "_user": user,
        "name": name,
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJustAFakeKeyOfAFakeCloudNobodyLogsInWith fake",
        "fingerprint": ":".join(f"{nova.house.number(256):02x}" for _ in range(16)),
        "type": "ssh",
        "created_at": nova.house.micro(),
        "deleted": False,
        "deleted_at": None,
        "updated_at": None,
    }


_DEFAULTS: dict[str, Callable[[Nova, Row, str], Row]] = {
    "server": _server,
    "flavor": _flavor,
    "aggregate": _aggregate,
    "service": _service,
    "hypervisor": _hypervisor,
    "server_group": _server_group,
    "keypair": _keypair,
}


def _said_flavor(row: Row, verb: str) -> tuple[str, str, Row]:
    data = {
        "flavorid": row["id"],
        "memory_mb": row["ram"],
        "vcpus": row["vcpus"],
        "root_gb": row["disk"],
        "ephemeral_gb": row["OS-FLV-EXT-DATA:ephemeral"],
        "name": row["name"],
        "swap": row["swap"] or 0,
        "rxtx_factor": row["rxtx_factor"],
        "vcpu_weight": 0,
        "disabled": row["OS-FLV-DISABLED:disabled"],
        "is_public": row["os-flavor-access:is_public"],
        "extra_specs": row["extra_specs"],
        "projects": [],
        "description": row["description"],
    }
    return f"flavor.{verb}", "FlavorPayload", data


def _said_aggregate(row: Row, verb: str) -> tuple[str, str, Row]:
    data = {"id": int(row["id"]), "uuid": row["uuid"], "name": row["name"], "hosts": row["hosts"], "metadata": row["metadata"]}
    return f"aggregate.{'updateprop' if verb == 'update' else verb}.end", "AggregatePayload", data


def _said_service(row: Row, verb: str) -> tuple[str, str, Row]:
    data = {
        "host": row["host"],
        "binary": row["binary"],
        "topic": "compute",
        "report_count": 1,
        "disabled": row["status"] == "disabled",
        "disabled_reason": row["disabled_reason"],
        "availability_zone": None,
        "last_seen_up": row["updated_at"][:19] + "Z",
        "forced_down": row["forced_down"],
        "version": 64,
        "uuid": row["id"],
    }
    return f"service.{verb}", "ServiceStatusPayload", data


def _said_group(row: Row, verb: str) -> tuple[str, str, Row]:
    names = ("name", "user_id", "project_id", "policies", "members", "policy", "rules")
    return f"server_group.{verb}", "ServerGroupPayload", {"uuid": row["id"], "hosts": None} | {name: row[name] for name in names}


def _said_keypair(row: Row, verb: str) -> tuple[str, str, Row]:
    data = {name: row[name] for name in ("name", "fingerprint", "public_key", "type")}
    return f"keypair.{verb}.end", "KeypairPayload", data | {"user_id": row["_user"]}


_OTHERS: dict[str, Callable[[Row, str], tuple[str, str, Row]]] = {
    "flavor": _said_flavor,
    "aggregate": _said_aggregate,
    "service": _said_service,
    "server_group": _said_group,
    "keypair": _said_keypair,
}


class Placement(Service):
    """Resource providers, one for each hypervisor."""

    type = "placement"
    name = "placement"
    root = ""

    def __init__(self, house: House, nova: Nova) -> None:
        self._nova = nova
        super().__init__(house)

    def discovery(self, path: str) -> Reply | None:
        if path != "/":
            return None
        version = {"id": "v1.0", "max_version": "1.39", "min_version": "1.0", "status": "CURRENT"}
        return Reply({"versions": [version | {"links": [{"rel": "self", "href": ""}]}]})

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"/resource_providers", self._list),
            ("GET", r"/resource_providers/([^/]+)", self._show),
            ("GET", r"/resource_providers/([^/]+)/inventories", self._inventories),
        )

    def error(self, why: Refused) -> Reply:
        title = {403: "Forbidden", 404: "Not Found"}.get(why.status, "Error")
        return Reply({"errors": [{"status": why.status, "title": title, "detail": str(why)}]}, why.status)

    def _list(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy does not allow placement:resource_providers:list to be performed.")
        hypervisors = [self._nova.hypervisors[id_] for id_ in self._nova.hypervisors.ordered()]
        return Reply({"resource_providers": [_provider(row) for row in hypervisors]})

    def _found(self, ask: Ask) -> Mapping[str, Any]:
        if not ask.who.admin:
            raise Refused(403, "Policy does not allow placement:resource_providers:show to be performed.")
        if ask.named[0] not in self._nova.hypervisors:
            raise Refused(404, f"No resource provider with uuid {ask.named[0]} found : Resource provider not found")
        return self._nova.hypervisors[ask.named[0]]

    def _show(self, ask: Ask) -> Reply:
        return Reply(_provider(self._found(ask)))

    def _inventories(self, ask: Ask) -> Reply:
        row = self._found(ask)
        inventories = {
            name: {
                "total": row.get(key, _USAGE[key]),
                "reserved": reserved,
                "min_unit": 1,
                "max_unit": row.get(key, _USAGE[key]),
                "step_size": 1,
                "allocation_ratio": ratio,
            }
            for name, key, reserved, ratio in (
                ("VCPU", "vcpus", 0, 16.0),
                ("MEMORY_MB", "memory_mb", 512, 1.5),
                ("DISK_GB", "local_gb", 0, 1.0),
            )
        }
        return Reply({"resource_provider_generation": 1, "inventories": inventories})


def _provider(row: Mapping[str, Any]) -> Row:
    at = f"/resource_providers/{row['id']}"
    links = [{"rel": "self", "href": at}, {"rel": "inventories", "href": f"{at}/inventories"}]
    root = {"parent_provider_uuid": None, "root_provider_uuid": row["id"]}
    return {"uuid": row["id"], "name": row["hypervisor_hostname"], "generation": 1, **root, "links": links}
