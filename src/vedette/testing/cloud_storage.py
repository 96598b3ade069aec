"""The fake cloud's Glance and Cinder.

As seen on real ones ("Zed"). Glance: 25 images a page unless more are asked for; links without a host; errors in HTML; community
images are listed only where `visibility` asks for them, hidden ones only with `os_hidden`. Cinder: its address has the asker's
project, and no other is answered; `all_tenants` of somebody who isn't an admin is ignored.
https://docs.openstack.org/api-ref/image/v2/ https://docs.openstack.org/api-ref/block-storage/v3/
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from vedette.testing.cloud_nova import asked_version
from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Service, Who, joined, matches

_encode = msgspec.json.Encoder().encode


class Glance(Service):
    type = "image"
    name = "glance"
    root = "/v2"

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.images = Rows(
            project=lambda row: row["owner"] or "",
            shared=lambda row: row["visibility"] in ("public", "community"),
            place=lambda row: row["created_at"],
            newest_first=True,
        )
        self.members: dict[str, set[str]] = {}
        """Image → projects that accepted it."""
        self.rows = {"image": self.images}

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str, announce: bool = True) -> str:
        """Its id. Active, unless `status` says otherwise; what isn't an image's own attribute is a property."""
        id_, now = self.house.id(), self.house.second()
        row: Row = {
            "name": f"image-{id_[:8]}",
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "shared",
            "size": 4096,
            "virtual_size": 4096,
            "status": "active",
            "checksum": "20439f79e4e9dc95be34b21029221f80",
            "protected": False,
            "min_ram": 0,
            "min_disk": 0,
            "owner": project,
            "os_hidden": False,
            "os_hash_algo": "sha512",
            "os_hash_value": None,
            "id": id_,
            "created_at": now,
            "updated_at": now,
            "tags": [],
        } | dict(fields)
        self.images.put(row)
        if announce:
            queued = row | {"status": "queued", "size": None, "virtual_size": None, "checksum": None}
            self._say("create", queued)
            if row["status"] == "active":
                self._say("activate", row)
        return str(row["id"])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.images.copy(id_) | dict(fields) | {"updated_at": self.house.second()}
        self.images.put(row)
        if announce:
            self._say("update", row)

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.images.remove(id_)
        if announce:
            now = self.house.second()
            self._say("delete", row | {"status": "deleted", "updated_at": now}, deleted_at=now)

    def _say(self, verb: str, row: Row, deleted_at: str | None = None) -> None:
        payload = {name: row[name] for name in _ANNOUNCED} | {
            "is_public": row["visibility"] == "public",
            "properties": {name: value for name, value in row.items() if name not in _IMAGE},
            "deleted": deleted_at is not None,
            "deleted_at": deleted_at,
        }
        self.house.announce("glance", f"image.{verb}", payload, publisher="image.localhost", context=False)

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path not in ("/", "/versions"):
            return None
        versions = [
            {
                "id": f"v2.{minor}",
                "status": "CURRENT" if minor == 15 else "SUPPORTED",
                "links": [{"rel": "self", "href": f"{self.url}/v2/"}],
            }
            for minor in (15, *range(13, -1, -1))
        ]
        return Reply({"versions": versions}, 300)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"/images", self._list),
            ("GET", r"/images/([^/]+)", self._show),
            ("DELETE", r"/images/([^/]+)", self._delete),
            ("GET", r"/tasks", self._tasks),
        )

    def _tasks(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "You are not authorized to complete get_tasks action.")
        return Reply({"tasks": [], "first": "/v2/tasks", "schema": "/v2/schemas/tasks"})

    def error(self, why: Refused) -> Reply:
        title = {400: "Bad Request", 403: "Forbidden", 404: "Not Found"}.get(why.status, "Error")
        text = f"<html>\n <head>\n  <title>{why.status} {title}</title>\n </head>\n <body>\n  <h1>{why.status} {title}</h1>\n"
        return Reply(f"{text}  {why}<br /><br />\n\n\n\n </body>\n</html>".encode(), why.status, content_type=HTML)

    def nobody(self) -> Reply:
        said = self.error(Refused(401, "This server could not verify that you are authorized to access the document."))
        return msgspec.structs.replace(said, headers={"WWW-Authenticate": f'Keystone uri="{self.house.identity.root}"'})

    def _seen(self, id_: str, who: Who) -> bool:
        return self.images.seen(id_, who) or (
            id_ in self.images and self.images[id_]["visibility"] == "shared" and who.project in self.members.get(id_, ())
        )

    def _list(self, ask: Ask) -> Reply:
        limit = min(self.limit(ask), self.largest_page) if ask.one("limit") else 25
        wanted = {name: value for name, value in ask.query if name not in ("limit", "marker", "sort", "sort_key", "sort_dir")}
        visibility, member_status = wanted.pop("visibility", ""), wanted.pop("member_status", "accepted")
        if member_status not in ("accepted", "pending", "rejected", "all"):
            raise Refused(400, f"Invalid status: {member_status}")
        hidden = wanted.pop("os_hidden", "false").lower() == "true"

        def keep(row: Row) -> bool:
            if visibility not in ("", "all") and row["visibility"] != visibility:
                return False
            if not visibility and row["visibility"] == "community" and wanted.get("owner") != row["owner"]:
                return False
            return row["os_hidden"] == hidden and all(_matches(row, name, value) for name, value in wanted.items())

        marker = ask.one("marker")
        found, _, last, full = self.page(
            ask,
            self.images,
            self._shown,
            plain=False,
            keep=keep,
            no_marker=Refused(400, f"No image found with ID {marker}"),
            limit=limit,
            visible=lambda id_: self._seen(id_, ask.who),
        )
        query = ask.but("marker")
        more = {"first": f"{ask.at}?{urlencode(query)}" if query else ask.at, "schema": "/v2/schemas/images"}
        if full:
            more["next"] = f"{ask.at}?{urlencode([*query, ('marker', last)])}"
        return Reply(joined("images", found, **more))

    def _shown(self, row: Row) -> Row:
        at = f"/v2/images/{row['id']}"
        return row | {"self": at, "file": f"{at}/file", "schema": "/v2/schemas/image", "stores": "file"}

    def _found(self, ask: Ask) -> Row:
        if not self._seen(ask.named[0], ask.who):
            raise Refused(404, f"No image found with ID {ask.named[0]}")
        return self.images.copy(ask.named[0])

    def _show(self, ask: Ask) -> Reply:
        return Reply(self._shown(self._found(ask)))

    def _delete(self, ask: Ask) -> Reply:
        row = self._found(ask)
        if not ask.who.admin and row["owner"] != ask.who.project:
            raise Refused(403, "You are not authorized to complete delete_image action.")
        self.delete("image", row["id"])
        return Reply(status=204)


HTML = "text/html; charset=UTF-8"
_ANNOUNCED = (
    *("id", "name", "status", "created_at", "updated_at", "min_disk", "min_ram", "protected", "checksum", "owner"),
    *("disk_format", "container_format", "size", "virtual_size", "visibility", "tags"),
)
_IMAGE = frozenset(_ANNOUNCED) | {"os_hidden", "os_hash_algo", "os_hash_value"}
"""An image's own attributes; the others are properties."""


def _matches(row: Row, name: str, value: str) -> bool:
    operator, _, text = value.partition(":")
    if operator == "in" and name in ("id", "name", "status", "container_format", "disk_format"):
        return matches(row, name, [one.strip('"') for one in text.split(",")])
    if name == "tag":
        return value in row["tags"]
    return matches(row, name, [value])


class Cinder(Service):
    type = "block-storage"
    name = "cinder"
    root = "/v3"
    oldest = (3, 0)

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.catalog_type = "volumev3"
        self.newest = (3, 70)
        self.volumes = Rows(project=lambda row: row[TENANT], place=lambda row: row["created_at"], newest_first=True)
        self.snapshots = Rows(project=lambda row: row[OWNER], place=lambda row: row["created_at"], newest_first=True)
        self.rows = {"volume": self.volumes, "snapshot": self.snapshots}
        self.pools: dict[str, Row] = {"ctl@fake#fake": _pool("fake"), "ctl@slow#slow": _pool("slow")}
        """Name → capabilities."""
        self.types: list[Row] = [
            {"id": TYPE, "name": "fake", "extra_specs": {"volume_backend_name": "fake"}},
            {"id": SLOW_TYPE, "name": "slow", "extra_specs": {"volume_backend_name": "slow"}},
        ]
        self.moves = VolumeMoves(self)
        self.quotas: Row = {
            "volumes": 10,
            "gigabytes": 1000,
            "snapshots": 10,
            "backups": 10,
            "backup_gigabytes": 1000,
            "per_volume_gigabytes": -1,
            "groups": 10,
        }
        """What every project may use; -1: as much as it likes."""
        self.detach_guarded = False
        """True: as since CVE-2023-2088, what a server uses is detached by asking Nova only."""

    async def stop(self) -> None:
        await self.moves.stop()
        await super().stop()

    def pool_told(self, name: str) -> None:
        """Its back end tells what it has, as each does now and then."""
        has = self.pools[name]
        payload = {
            "name_to_id": name,
            "type": "pool",
            "total": has["total_capacity_gb"],
            "free": has["free_capacity_gb"],
            "allocated": has["allocated_capacity_gb"],
            "provisioned": has["provisioned_capacity_gb"],
            "virtual_free": has["free_capacity_gb"],
            "reported_at": self.house.micro(),
        }
        self.house.announce("openstack", "capacity.pool", payload, publisher=f"capacity.{name.partition('#')[0]}")

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str, announce: bool = True) -> str:
        """Its id. Available, unless `status` says otherwise."""
        row = (_volume if kind == "volume" else _snapshot)(self, dict(fields), project) | dict(fields)
        self.rows[kind].put(row)
        if announce:
            self._say(kind, "create.start", row | {"status": "creating"})
            if row["status"] != "creating":
                self._say(kind, "create.end", row)
        return str(row["id"])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, announce: bool = True) -> None:
        """Raises KeyError."""
        was = self.rows[kind].copy(id_)
        row = was | dict(fields) | {"updated_at": self.house.micro()}
        self.rows[kind].put(row)
        if announce:
            done = was["status"] == "creating" and row["status"] == "available"
            self._say(kind, "create.end" if done else "update.end", row)

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.rows[kind].remove(id_)
        if announce:
            self._say(kind, "delete.start", row | {"status": "deleting"})
            self._say(kind, "delete.end", row | {"status": "deleting"})

    def _say(self, kind: str, what: str, row: Row) -> None:
        created = f"{row['created_at'][:19]}+00:00"
        if kind == "volume":
            project = row[TENANT]
            payload: Row = {
                "host": row["os-vol-host-attr:host"],
                "user_id": row["user_id"],
                "availability_zone": row["availability_zone"],
                "volume_id": row["id"],
                "volume_type": row["volume_type_id"],
                "display_name": row["name"],
                "launched_at": created,
                "status": row["status"],
                "snapshot_id": row["snapshot_id"],
                "size": row["size"],
                "replication_status": None,
                "replication_extended_status": None,
                "replication_driver_data": None,
                "metadata": [{"key": name, "value": value} for name, value in row["metadata"].items()],
                "volume_attachment": [],
            }
            publisher = "volume.ctl@fake#fake"
        else:
            project = row[OWNER]
            payload = {
                "user_id": row["user_id"],
                "availability_zone": "nova",
                "volume_id": row["volume_id"],
                "volume_size": row["size"],
                "snapshot_id": row["id"],
                "display_name": row["name"],
                "status": row["status"],
                "deleted": "",
                "metadata": "",
            }
            publisher = "snapshot.ctl@fake"
        payload |= {"tenant_id": project, "created_at": created}
        user = row["user_id"]
        self.house.announce("openstack", f"{kind}.{what}", payload, publisher=publisher, project=project, user=user)

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path.rstrip("/") not in ("", "/v3"):
            return None
        version = {
            "id": "v3.0",
            "status": "CURRENT",
            "version": f"3.{self.newest[1]}",
            "min_version": "3.0",
            "updated": "2022-08-31T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.url}/v3/"}],
        }
        return Reply({"versions": [version]}, 300 if path == "/" else 200)

    def endpoint(self, project: str) -> str:
        return f"{self.url}/v3/{project}" if project else f"{self.url}/v3"

    def under(self, path: str, who: Who | None) -> str | None:
        rest = super().under(path, who)
        if rest is None:
            return None
        first, _, more = rest[1:].partition("/")
        # What isn't the asker's own project is refused below, by the path "".
        return f"/{more}" if who is None or first == who.project else ""

    def microversion(self, headers: Mapping[str, str]) -> tuple[int, int]:
        kind, _, said = headers.get("OpenStack-API-Version", "").partition(" ")
        return asked_version(said.strip() if kind == "volume" else "", self.oldest, self.newest)

    def headers(self, microversion: tuple[int, int]) -> Mapping[str, str]:
        return {"OpenStack-API-Version": f"volume {microversion[0]}.{microversion[1]}", "Vary": "OpenStack-API-Version"}

    def error(self, why: Refused) -> Reply:
        names = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest"}
        return Reply({names.get(why.status, "computeFault"): {"code": why.status, "message": str(why)}}, why.status)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"", self._malformed),
            ("GET", r"/(volumes|snapshots)(?:/detail)?", self._list),
            ("GET", r"/(volumes|snapshots)/([^/]+)", self._show),
            ("DELETE", r"/(volumes|snapshots)/([^/]+)", self._delete),
            ("GET", r"/os-services", self._services),
            ("GET", r"/types", self._types),
            ("GET", r"/types/([^/]+)", self._type),
            ("GET", r"/scheduler-stats/get_pools", self._pools),
            ("POST", r"/volumes/([^/]+)/action", self._act),
            ("GET", r"/limits", self._limits),
            ("GET", r"/os-quota-sets/([^/]+)", self._quotas),
        )

    def _malformed(self, ask: Ask) -> Reply:
        raise Refused(400, "Malformed request url")

    def _list(self, ask: Ask) -> Reply:
        plural = ask.named[0]
        kind = plural[:-1]
        every = ask.who.admin and ask.one("all_tenants").lower() in ("1", "true")
        rows = self.rows[kind]
        mine = ask.who if every else Who(ask.who.user, ask.who.project, frozenset())
        names = ("status", "name", "availability_zone", "user_id", "volume_id", "id")
        wanted = {name: [value] for name, value in ask.query if name in names}
        if every and ask.one("project_id"):
            wanted[TENANT if kind == "volume" else OWNER] = [ask.one("project_id")]
        marker = ask.one("marker")
        found, _, last, full = self.page(
            ask,
            rows,
            lambda row: self._shown(kind, row, ask),
            plain=False,
            keep=(lambda row: all(matches(row, name, value) for name, value in wanted.items())) if wanted else None,
            no_marker=Refused(404, f"{kind.capitalize()} {marker} could not be found."),
            limit=self.limit(ask),
            visible=lambda id_: rows.seen(id_, mine),
        )
        more: Row = {}
        if full:
            query = urlencode([*ask.but("marker"), ("marker", last)])
            more[f"{plural}_links"] = [{"rel": "next", "href": f"{self.url}{ask.at}?{query}"}]
        return Reply(joined(plural, found, **more))

    def _shown(self, kind: str, row: Row, ask: Ask) -> Row:
        public = {
            name: value
            for name, value in row.items()
            if not name.startswith("_")
            and (ask.who.admin or name not in _CINDER_ADMIN)
            and ask.microversion >= _CINDER_SINCE[kind].get(name, (3, 0))
        }
        if kind == "snapshot":
            return public
        links = [
            {"rel": "self", "href": f"{self.url}/v3/{ask.who.project}/volumes/{row['id']}"},
            {"rel": "bookmark", "href": f"{self.url}/{ask.who.project}/volumes/{row['id']}"},
        ]
        return public | {"links": links}

    def _found(self, ask: Ask) -> tuple[str, Row]:
        kind = ask.named[0][:-1]
        if not self.rows[kind].seen(ask.named[1], ask.who):
            raise Refused(404, f"{kind.capitalize()} {ask.named[1]} could not be found.")
        return kind, self.rows[kind].copy(ask.named[1])

    def _show(self, ask: Ask) -> Reply:
        kind, row = self._found(ask)
        return Reply({kind: self._shown(kind, row, ask)})

    def _delete(self, ask: Ask) -> Reply:
        kind, row = self._found(ask)
        free = row["status"] in ("available", "downloading") or row["status"].startswith("error")
        of_it = [id_ for id_ in self.snapshots if self.snapshots[id_]["volume_id"] == row["id"]]
        cascade = ask.one("cascade").lower() in ("true", "1")
        if kind == "volume" and (row.get("attachments") or not free or (of_it and not cascade)):
            raise Refused(
                400,
                "Invalid volume: Volume status must be available or error or error_restoring or error_extending or "
                "error_managing and must not be migrating, attached, belong to a group, have snapshots or be disassociated "
                "from snapshots after volume transfer.",
            )
        for id_ in of_it if kind == "volume" else ():
            self.delete("snapshot", id_)
        self.delete(kind, row["id"])
        return Reply(status=202)

    def attachments(self, server: str) -> list[Row]:
        """Those of one server."""
        every = (one for id_ in self.volumes for one in self.volumes[id_]["attachments"])
        return [one for one in every if one["server_id"] == server]

    def attach(self, volume: str, server: str) -> None:
        """As Nova and Cinder do it together. Nobody is told."""
        row = self.volumes.copy(volume)
        one = {"id": volume, "attachment_id": self.house.id(), "volume_id": volume, "server_id": server, "device": "/dev/vdb"}
        self.volumes.put(row | {"status": "in-use", "attachments": [*row["attachments"], one]})

    def detach(self, volume: str, server: str = "") -> bool:
        """From this server, or from all of them; False: it isn't attached there."""
        row = self.volumes.copy(volume) if volume in self.volumes else {"attachments": []}
        left = [one for one in row["attachments"] if server and one["server_id"] != server]
        if len(left) == len(row["attachments"]):
            return False
        self.volumes.put(row | {"status": "in-use" if left else "available", "attachments": left})
        return True

    def _used(self, project: str) -> dict[str, int]:
        """Snapshots count for GiB too, as Cinder counts by default."""
        volumes = [self.volumes[id_]["size"] for id_ in self.volumes if self.volumes[id_][TENANT] == project]
        snapshots = [self.snapshots[id_]["size"] for id_ in self.snapshots if self.snapshots[id_][OWNER] == project]
        return {"volumes": len(volumes), "snapshots": len(snapshots), "gigabytes": sum(volumes) + sum(snapshots)}

    def _limits(self, ask: Ask) -> Reply:
        used, quotas = self._used(ask.who.project), self.quotas
        absolute = {
            "maxTotalVolumes": quotas["volumes"],
            "maxTotalVolumeGigabytes": quotas["gigabytes"],
            "maxTotalSnapshots": quotas["snapshots"],
            "maxTotalBackups": quotas["backups"],
            "maxTotalBackupGigabytes": quotas["backup_gigabytes"],
            "totalVolumesUsed": used["volumes"],
            "totalGigabytesUsed": used["gigabytes"],
            "totalSnapshotsUsed": used["snapshots"],
            "totalBackupsUsed": 0,
            "totalBackupGigabytesUsed": 0,
        }
        return Reply({"limits": {"rate": [], "absolute": absolute}})

    def _quotas(self, ask: Ask) -> Reply:
        if not ask.who.admin and ask.named[0] != ask.who.project:
            raise Refused(403, "Policy doesn't allow volume_extension:quotas:show to be performed.")
        quotas: Row = dict(self.quotas)
        if ask.one("usage").lower() in ("true", "1"):
            used = self._used(ask.named[0])
            quotas = {
                name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0, "allocated": 0}
                for name, limit in quotas.items()
            }
        return Reply({"quota_set": quotas | {"id": ask.named[0]}})

    def _types(self, ask: Ask) -> Reply:
        return Reply({"volume_types": [_type(row, ask.who) for row in self.types]})

    def _type(self, ask: Ask) -> Reply:
        for row in self.types:
            if row["id"] == ask.named[0]:
                return Reply({"volume_type": _type(row, ask.who)})
        raise Refused(404, f"Volume type {ask.named[0]} could not be found.")

    def _pools(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy doesn't allow scheduler_extension:scheduler_stats:get_pools to be performed.")
        detail = ask.one("detail").lower() in ("1", "true")
        return Reply({"pools": [{"name": name} | ({"capabilities": has} if detail else {}) for name, has in self.pools.items()]})

    def _act(self, ask: Ask) -> Reply:
        id_ = ask.named[0]
        if not self.volumes.seen(id_, ask.who):
            raise Refused(404, f"Volume {id_} could not be found.")
        if not isinstance(ask.body, dict) or len(ask.body) != 1:
            raise Refused(400, "There is no such action")
        ((action, given),) = ask.body.items()
        if action in ("os-detach", "os-force_detach"):
            return self._detach(ask, self.volumes.copy(id_), action, given if isinstance(given, dict) else {})
        if action == "os-migrate_volume" and not ask.who.admin:
            raise Refused(403, "Policy doesn't allow volume_extension:volume_admin_actions:migrate_volume to be performed.")
        self.moves.act(self.volumes.copy(id_), action, given if isinstance(given, dict) else {})
        return Reply(status=202)

    def _detach(self, ask: Ask, row: Row, action: str, given: Row) -> Reply:
        if action == "os-force_detach" and not ask.who.admin:
            raise Refused(403, "Policy doesn't allow volume_extension:volume_admin_actions:force_detach to be performed.")
        there, wanted = row["attachments"], given.get("attachment_id")
        if not there:
            text = "Volume status must be 'in-use' and attach_status must be 'attached' to detach."
            raise Refused(400, f"Invalid volume: Unable to detach volume. {text}")
        if wanted is None and len(there) > 1:
            text = "Volume is attached to multiple instances, but no attachment_id is provided."
            raise Refused(400, f"Invalid volume: Detach volume failed: {text}")
        one = next((one for one in there if wanted in (None, one["attachment_id"])), None)
        if one is None:
            raise Refused(404, f"Volume attachment could not be found with filter: attachment_id = {wanted}.")
        if self.detach_guarded and one["server_id"]:
            raise Refused(409, f"Detach volume from instance {one['server_id']} using the Compute API")
        self.detach(row["id"], one["server_id"])
        return Reply(status=202)

    def _services(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy doesn't allow volume_extension:services:index to be performed.")
        common: Row = {
            "zone": "nova",
            "status": "enabled",
            "state": "up",
            "updated_at": self.house.micro(),
            "disabled_reason": None,
        }
        volume: Row = {"frozen": False, "active_backend_id": None, "replication_status": "disabled"}
        if ask.microversion >= (3, 7):
            common["cluster"] = None
        if ask.microversion >= (3, 49):
            volume["backend_state"] = "up"
        hosts = sorted({name.partition("#")[0] for name in self.pools})
        volumes = [volume | {"binary": "cinder-volume", "host": host} | common for host in hosts]
        services = [*volumes, {"binary": "cinder-scheduler", "host": "ctl"} | common]
        wanted = ask.one("binary")
        return Reply({"services": [one for one in services if wanted in ("", one["binary"])]})


_MOVING = "os-vol-mig-status-attr:migstat"


class VolumeMoves:
    """What Cinder does with volumes when it is asked to: migrations and retypes, in its own time. What fails leaves the volume
    where it was."""

    def __init__(self, cinder: Cinder) -> None:
        self._cinder = cinder
        self.seconds = 0.0
        """Of the cloud's clock, for each thing that is done."""
        self.fails: set[str] = set()
        """Volumes whose next move fails."""
        self.asked: list[tuple[str, str]] = []
        """(action, volume), of all that was taken."""
        self._working: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    def act(self, row: Row, action: str, given: Row) -> None:
        """Raises Refused."""
        if row["status"] not in ("available", "in-use") or row[_MOVING] in ("starting", "migrating"):
            raise Refused(400, f"Volume {row['id']} status must be available or in-use, and it must not be migrating.")
        if action == "os-migrate_volume":
            self._migrate(row, given)
        elif action == "os-retype":
            self._retype(row, given)
        else:
            raise Refused(400, f"There is no such action: {action}")
        self.asked.append((action, row["id"]))

    def _migrate(self, row: Row, given: Row) -> None:
        target = given.get("host")
        if target not in self._cinder.pools:
            raise Refused(404, f"Service {target} could not be found.")
        if target == row[POOL]:
            raise Refused(400, "Invalid host: destination is the same as the present host.")
        if any(one["volume_id"] == row["id"] for one in map(self._cinder.snapshots.copy, self._cinder.snapshots)):
            raise Refused(400, f"Volume {row['id']} must not have snapshots.")
        self._begin(row["id"], {_MOVING: "starting", "migration_status": "starting"}, {POOL: target})

    def _retype(self, row: Row, given: Row) -> None:
        wanted = next((one for one in self._cinder.types if given.get("new_type") in (one["id"], one["name"])), None)
        if wanted is None:
            raise Refused(404, f"Volume type {given.get('new_type')} could not be found.")
        after: Row = {"volume_type": wanted["name"], "volume_type_id": wanted["id"]}
        back_end = wanted["extra_specs"].get("volume_backend_name")
        pools = [name for name, has in self._cinder.pools.items() if back_end in (None, has["volume_backend_name"])]
        if pools and row[POOL] not in pools:
            after[POOL] = pools[0]
        self._begin(row["id"], {"status": "retyping"}, after | {"status": row["status"]})

    def _begin(self, id_: str, now: Row, after: Row) -> None:
        before = self._cinder.volumes.copy(id_)
        self._cinder.change("volume", id_, now, announce=False)
        task = asyncio.get_running_loop().create_task(self._done(id_, before, after), name="fake cinder at work")
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _done(self, id_: str, before: Row, after: Row) -> None:
        await self._cinder.house.clock.sleep(self.seconds)
        if id_ not in self._cinder.volumes:
            return
        failed = id_ in self.fails
        self.fails.discard(id_)
        end = "error" if failed else "success"
        moved: Row = {_MOVING: end, "migration_status": end} if POOL in after else {}
        kept = {"status": before["status"]}
        self._cinder.change("volume", id_, moved | (kept if failed else after), announce=not failed)


def _pool(back_end: str) -> Row:
    return {
        "volume_backend_name": back_end,
        "total_capacity_gb": 1000.0,
        "free_capacity_gb": 900.0,
        "allocated_capacity_gb": 100,
        "provisioned_capacity_gb": 100.0,
        "max_over_subscription_ratio": "20.0",
        "reserved_percentage": 0,
        "storage_protocol": "fake",
        "vendor_name": "Open Source",
        "driver_version": "1.0.0",
        "location_info": "",
        "timestamp": "2026-11-20T15:42:14.000000",
    }


def _type(row: Row, who: Who) -> Row:
    more: Row = {"is_public": True, "description": None, "os-volume-type-access:is_public": True}
    private: Row = {"qos_specs_id": None} if who.admin else {"extra_specs": {}}
    return row | more | private


TENANT = "os-vol-tenant-attr:tenant_id"
TYPE = "ca617801-bbd7-49cb-a323-6300b1bd3efa"
"""The id of its volume type."""
SLOW_TYPE = "0e8a3a5f-0d3c-4a58-9a55-3a1f7b0e4c11"
POOL = "os-vol-host-attr:host"
OWNER = "os-extended-snapshot-attributes:project_id"
_CINDER_ADMIN = frozenset({"os-vol-host-attr:host", "migration_status", "provider_id", "cluster_name"}) | {
    f"os-vol-mig-status-attr:{name}" for name in ("migstat", "name_id")
}
_CINDER_SINCE: dict[str, dict[str, tuple[int, int]]] = {
    "volume": {"group_id": (3, 13), "provider_id": (3, 21), "shared_targets": (3, 48), "service_uuid": (3, 48)}
    | {"cluster_name": (3, 61), "volume_type_id": (3, 63), "consumes_quota": (3, 65)},
    "snapshot": {"group_snapshot_id": (3, 14), "user_id": (3, 41), "consumes_quota": (3, 65)},
}


def _volume(cinder: Cinder, fields: Row, project: str) -> Row:
    now = cinder.house.micro()
    return {
        "id": cinder.house.id(),
        "status": "available",
        "size": 1,
        "availability_zone": "nova",
        "created_at": now,
        "updated_at": now,
        "name": "",
        "description": None,
        "volume_type": "fake",
        "volume_type_id": TYPE,
        "cluster_name": None,
        "consumes_quota": True,
        "snapshot_id": None,
        "source_volid": None,
        "metadata": {},
        "user_id": cinder.house.someone(project),
        "bootable": "false",
        "encrypted": False,
        "replication_status": None,
        "consistencygroup_id": None,
        "multiattach": False,
        "attachments": [],
        "migration_status": None,
        "group_id": None,
        "provider_id": None,
        "shared_targets": False,
        "service_uuid": None,
        TENANT: project,
        "os-vol-mig-status-attr:migstat": None,
        "os-vol-mig-status-attr:name_id": None,
        "os-vol-host-attr:host": "ctl@fake#fake",
    }


def _snapshot(cinder: Cinder, fields: Row, project: str) -> Row:
    volume = cinder.volumes.get(fields.get("volume_id", ""))
    now = cinder.house.micro()
    return {
        "id": cinder.house.id(),
        "created_at": now,
        "updated_at": now,
        "name": "",
        "description": None,
        "volume_id": None,
        "status": "available",
        "size": volume["size"] if volume else 1,
        "metadata": {},
        OWNER: volume[TENANT] if volume else project,
        "os-extended-snapshot-attributes:progress": "100%",
        "group_snapshot_id": None,
        "consumes_quota": True,
        "user_id": volume["user_id"] if volume else cinder.house.someone(project),
    }
