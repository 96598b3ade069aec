"""The fake cloud's Ironic: machines that are switched on and off, in their own time. Not in the catalog until it is asked for
(`cloud.baremetal.in_catalog = True`): most clouds have none.

A change of power is answered with 202; until it is over `target_power_state` says what it is going to. A machine in `fails` stays
as it is, with a `last_error`.
https://docs.openstack.org/api-ref/baremetal/
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from vedette.testing.cloud_nova import asked_version
from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Service, joined

_POWER = {"power on", "power off", "rebooting"}


class Ironic(Service):
    type = "baremetal"
    name = "ironic"
    root = "/v1"
    oldest = (1, 1)

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.newest = (1, 78)
        self.in_catalog = False
        self.nodes = Rows(key="uuid", place=lambda row: row["created_at"])
        self.rows = {"node": self.nodes}
        self.seconds = 0.0
        """Of the cloud's clock, for each change of power."""
        self.fails: set[str] = set()
        """Machines whose next change fails."""
        self.asked: list[tuple[str, str]] = []
        """(machine, what it was asked to go to), of all that was taken."""
        self._working: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await super().stop()

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str = "", announce: bool = True) -> str:
        """A machine, on and available unless `fields` say otherwise; its uuid."""
        row = _node(self.house) | dict(fields)
        self.nodes.put(row)
        if announce:
            self._say("create.end", row)
        return str(row["uuid"])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.nodes.copy(id_) | dict(fields) | {"updated_at": self.house.micro()}
        self.nodes.put(row)
        if announce:
            self._say("update.end", row)

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.nodes.remove(id_)
        if announce:
            self._say("delete.end", row)

    def _say(self, what: str, row: Row) -> None:
        data = {name: value for name, value in row.items() if name not in ("driver_info", "links")}
        payload = {
            "ironic_object.name": "NodeCRUDPayload",
            "ironic_object.namespace": "ironic",
            "ironic_object.version": "1.13",
            "ironic_object.data": data,
        }
        self.house.announce("ironic", f"baremetal.node.{what}", payload, publisher="ironic-conductor.ctl")

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path.rstrip("/") not in ("", "/v1"):
            return None
        links = [{"rel": "self", "href": f"{self.url}/v1/"}]
        version = {"id": "v1", "links": links, "status": "CURRENT", "min_version": "1.1", "version": f"1.{self.newest[1]}"}
        if path.rstrip("/") == "/v1":
            return Reply({"id": "v1", "links": links, "version": version})
        return Reply({"name": "OpenStack Ironic API", "versions": [version], "default_version": version})

    def microversion(self, headers: Mapping[str, str]) -> tuple[int, int]:
        kind, _, said = headers.get("OpenStack-API-Version", "").partition(" ")
        return asked_version(said.strip() if kind == "baremetal" else "", self.oldest, self.newest)

    def headers(self, microversion: tuple[int, int]) -> Mapping[str, str]:
        return {"X-OpenStack-Ironic-API-Version": f"{microversion[0]}.{microversion[1]}"}

    def error(self, why: Refused) -> Reply:
        return Reply({"error_message": {"faultcode": "Client", "faultstring": str(why), "debuginfo": None}}, why.status)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"/nodes/detail", self._list),
            ("GET", r"/nodes/([^/]+)", self._show),
            ("PUT", r"/nodes/([^/]+)/states/power", self._power),
        )

    def _list(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy doesn't allow baremetal:node:list_all to be performed.")
        limit = min(int(ask.one("limit") or self.largest_page), self.largest_page)
        gone = Refused(404, f"Node {ask.one('marker')} could not be found.")
        found, _, last, full = self.page(ask, self.nodes, _shown, plain=False, keep=None, no_marker=gone, limit=limit)
        more: Row = {}
        if full:
            more["next"] = f"{self.url}/v1/nodes/detail?{urlencode([*ask.but('marker'), ('marker', last)])}"
        return Reply(joined("nodes", found, **more))

    def _found(self, ask: Ask) -> Row:
        if not ask.who.admin:
            raise Refused(403, "Policy doesn't allow baremetal:node:get to be performed.")
        if ask.named[0] not in self.nodes:
            raise Refused(404, f"Node {ask.named[0]} could not be found.")
        return self.nodes.copy(ask.named[0])

    def _show(self, ask: Ask) -> Reply:
        return Reply(_shown(self._found(ask)))

    def _power(self, ask: Ask) -> Reply:
        row = self._found(ask)
        target = ask.body.get("target") if isinstance(ask.body, dict) else None
        if target not in _POWER:
            raise Refused(400, f'The requested action "{target}" can not be performed on node.')
        if row["target_power_state"]:
            raise Refused(
                409, f"Node {row['uuid']} is locked by host ctl, please retry after the current operation is completed."
            )
        self.asked.append((row["uuid"], target))
        self.change("node", row["uuid"], {"target_power_state": target, "last_error": None}, announce=False)
        task = asyncio.get_running_loop().create_task(self._switched(row["uuid"], target), name="fake ironic at work")
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return Reply(status=202)

    async def _switched(self, id_: str, target: str) -> None:
        await self.house.clock.sleep(self.seconds)
        if id_ not in self.nodes:
            return
        done: Row = {"target_power_state": None}
        if id_ in self.fails:
            self.fails.discard(id_)
            done["last_error"] = "Failed to change power state: the management controller did not answer"
        else:
            done["power_state"] = target
        self.change("node", id_, done, announce=False)
        self._say("power_set.error" if done.get("last_error") else "power_set.end", self.nodes.copy(id_) | {"to_power": target})


def _node(house: House) -> Row:
    now = house.micro()
    return {
        "uuid": house.id(),
        "name": None,
        "power_state": "power on",
        "target_power_state": None,
        "provision_state": "available",
        "target_provision_state": None,
        "maintenance": False,
        "maintenance_reason": None,
        "fault": None,
        "resource_class": "baremetal",
        "instance_uuid": None,
        "conductor_group": "",
        "driver": "ipmi",
        "driver_info": {"ipmi_address": "192.0.2.7", "ipmi_password": "******"},
        "properties": {"cpus": 32, "memory_mb": 131_072, "local_gb": 800, "cpu_arch": "x86_64"},
        "traits": [],
        "last_error": None,
        "created_at": now,
        "updated_at": now,
    }


def _shown(row: Row) -> Row:
    return row | {"links": []}
