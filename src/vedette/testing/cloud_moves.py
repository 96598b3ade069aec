"""What the fake cloud's Nova does when it is asked to: moves, stops, resizes servers, switches services. In its own time.

Like the real one it answers 202 and goes to work: the server has a task until it is over, its status follows, and what it
announces is what Nova announces on the way. What fails leaves the server where it was, with a migration that is in `error`.
Steps take `seconds` of the cloud's clock, or happen at once.
https://docs.openstack.org/api-ref/compute/#servers-run-an-action-servers-action
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Who

HOST = "OS-EXT-SRV-ATTR:host"
NODE = "OS-EXT-SRV-ATTR:hypervisor_hostname"
VM_STATE = "OS-EXT-STS:vm_state"
TASK = "OS-EXT-STS:task_state"
POWER = "OS-EXT-STS:power_state"

_SWITCHES: dict[str, tuple[frozenset[str], str, str, int, str]] = {
    "os-stop": (frozenset({"active", "error"}), "powering-off", "stopped", 4, "power_off"),
    "os-start": (frozenset({"stopped"}), "powering-on", "active", 1, "power_on"),
    "pause": (frozenset({"active"}), "pausing", "paused", 3, "pause"),
    "unpause": (frozenset({"paused"}), "unpausing", "active", 1, "unpause"),
    "suspend": (frozenset({"active"}), "suspending", "suspended", 4, "suspend"),
    "resume": (frozenset({"suspended"}), "resuming", "active", 1, "resume"),
    "shelve": (frozenset({"active", "stopped", "paused", "suspended"}), "shelving", "shelved", 4, "shelve"),
    "unshelve": (frozenset({"shelved", "shelved_offloaded"}), "unshelving", "active", 1, "unshelve"),
}
"""Action → the vm_states it wants, its task, the vm_state and power state after it, and the event."""


class Nova(Protocol):
    """What of `testing/cloud_nova.py` is needed here."""

    house: House
    servers: Rows
    services: Rows
    hypervisors: Rows
    flavors: Rows

    def found(self, id_: str, who: Who) -> Row: ...

    def change(self, kind: str, id_: str, fields: Row) -> None: ...

    def state(self, id_: str, vm_state: str = "", task_state: str | None = None) -> None: ...

    def say(self, id_: str, action: str) -> None: ...


class Moves:
    """The part of a Nova that changes servers."""

    def __init__(self, nova: Nova) -> None:
        self._nova = nova
        self.seconds = 0.0
        """Of the cloud's clock, for each thing that is done."""
        self.fails: set[str] = set()
        """Servers whose next move fails."""
        self.hangs: set[str] = set()
        """Servers whose next move never ends (until it is aborted)."""
        self.migrations: list[Row] = []
        self.asked: Counter[tuple[str, str]] = Counter()
        """(action, server) → how often it was asked for and taken."""
        self.request_ids: list[str] = []
        self.working: set[asyncio.Task[None]] = set()
        self._aborted: dict[str, asyncio.Event] = {}

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("POST", r"/servers/([^/]+)/action", self._act),
            ("GET", r"/servers/([^/]+)/migrations", self._running),
            ("DELETE", r"/servers/([^/]+)/migrations/([^/]+)", self._abort),
            ("GET", r"/os-migrations", self._migrations),
            ("PUT", r"/os-services/([^/]+)", self._switch),
        )

    async def stop(self) -> None:
        """Whatever is under way ends in the middle."""
        for task in self.working:
            task.cancel()
        await asyncio.gather(*self.working, return_exceptions=True)

    # --- what is asked

    def _act(self, ask: Ask) -> Reply:
        row = self._nova.servers.copy(self._nova.found(ask.named[0], ask.who)["id"])
        if not isinstance(ask.body, dict) or len(ask.body) != 1:
            raise Refused(400, "There is no such action")
        ((action, given),) = ask.body.items()
        if row.get("locked") and not (ask.who.admin and action not in _MOVES):
            raise Refused(409, f"Instance {row['id']} is locked")
        handler = {
            "os-migrateLive": self._live,
            "migrate": self._cold,
            "resize": self._resize,
            "confirmResize": self._confirm,
            "revertResize": self._revert,
        }.get(action)
        if action in _MOVES and not ask.who.admin and action != "resize":
            raise Refused(403, f"Policy doesn't allow os_compute_api:{action} to be performed.")
        if handler is not None:
            handler(row, given if isinstance(given, dict) else {})
        elif action in _SWITCHES:
            self._switched(row, action)
        else:
            raise Refused(400, f"There is no such action: {action}")
        self.asked[action, row["id"]] += 1
        self.request_ids.append(ask.request_id)
        return Reply(status=202)

    def _busy(self, row: Row, action: str, *states: str) -> None:
        if row[TASK]:
            text = f"Cannot '{action.removeprefix('os-')}' instance {row['id']} while it is in task_state {row[TASK]}"
            raise Refused(409, text)
        if row[VM_STATE] not in states:
            text = f"Cannot '{action.removeprefix('os-')}' instance {row['id']} while it is in vm_state {row[VM_STATE]}"
            raise Refused(409, text)

    def _target(self, row: Row, host: str | None) -> str:
        """The host it goes to. Raises Refused as Nova does before it begins."""
        services = {
            one["host"]: one for one in map(self._nova.services.copy, self._nova.services) if one["binary"] == "nova-compute"
        }
        if host == row[HOST]:
            raise Refused(400, f"Unable to migrate instance ({row['id']}) to current host ({host}).")
        if host is not None:
            if host not in services:
                raise Refused(400, f"Compute host {host} could not be found.")
            if services[host]["state"] != "up":
                raise Refused(400, f"Compute service of {host} is unavailable at this time.")
            if services[host]["status"] != "enabled":
                raise Refused(400, f"No valid host was found. Compute service of {host} is disabled.")
            return str(host)
        free = sorted(
            name for name, one in services.items() if one["status"] == "enabled" and one["state"] == "up" and name != row[HOST]
        )
        if not free:
            raise Refused(400, "No valid host was found. There are not enough hosts available.")
        # The one with the fewest servers, as the weigher of a fresh cloud would.
        load = Counter(self._nova.servers[id_][HOST] for id_ in self._nova.servers)
        best: str = min(free, key=lambda name: (load[name], name))
        return best

    def _live(self, row: Row, given: Row) -> None:
        self._busy(row, "os-migrateLive", "active", "paused")
        target = self._target(row, given.get("host"))
        self._begin(
            row, "live-migration", target, lambda migration: self._move(row["id"], migration, "migrating", "live_migration")
        )

    def _cold(self, row: Row, given: Row) -> None:
        self._busy(row, "migrate", "active", "stopped")
        target = self._target(row, given.get("host"))
        self._begin(row, "migration", target, lambda migration: self._resized(row["id"], migration, {}))

    def _resize(self, row: Row, given: Row) -> None:
        self._busy(row, "resize", "active", "stopped")
        wanted = str(given.get("flavorRef"))
        if wanted not in self._nova.flavors:
            raise Refused(400, f"Flavor {wanted} could not be found.")
        if wanted == row["_flavor"]:
            raise Refused(400, "When resizing, instances must change flavor!")
        flavor = self._nova.flavors.copy(wanted)
        sizes: Row = {key: flavor[key] for key in ("vcpus", "ram", "disk") if key in flavor}
        fields: Row = {"_flavor": wanted, "flavor": {**row["flavor"], "original_name": flavor["name"], **sizes}}
        self._begin(row, "resize", self._target(row, None), lambda migration: self._resized(row["id"], migration, fields))

    def _confirm(self, row: Row, given: Row) -> None:
        self._busy(row, "confirmResize", "resized")
        self._work(self._confirmed(row["id"]))

    def _revert(self, row: Row, given: Row) -> None:
        self._busy(row, "revertResize", "resized")
        self._work(self._reverted(row["id"]))

    def _switched(self, row: Row, action: str) -> None:
        states, task, after, power, event = _SWITCHES[action]
        self._busy(row, action, *states)
        self._nova.state(row["id"], task_state=task)
        self._work(self._switch_on(row["id"], after, power, event))

    def _running(self, ask: Ask) -> Reply:
        self._nova.found(ask.named[0], ask.who)
        rows = [one for one in self.migrations if one["instance_uuid"] == ask.named[0] and one["status"] == "running"]
        return Reply({"migrations": [one for one in rows if one["migration_type"] == "live-migration"]})

    def _migrations(self, ask: Ask) -> Reply:
        wanted = ask.one("instance_uuid")
        return Reply({"migrations": [one for one in self.migrations if wanted in ("", one["instance_uuid"])]})

    def _abort(self, ask: Ask) -> Reply:
        for one in self.migrations:
            if str(one["id"]) == ask.named[1] and one["instance_uuid"] == ask.named[0]:
                if one["status"] != "running":
                    raise Refused(400, f"The migration state of instance {ask.named[0]} is {one['status']}")
                self._aborted.setdefault(ask.named[0], asyncio.Event()).set()
                return Reply(status=202)
        raise Refused(404, f"Migration {ask.named[1]} not found for instance {ask.named[0]}")

    def _switch(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "Policy doesn't allow os_compute_api:os-services:update to be performed.")
        if ask.named[0] not in self._nova.services:
            raise Refused(404, f"Service {ask.named[0]} not found")
        said = ask.body if isinstance(ask.body, dict) else {}
        fields: Row = {}
        if said.get("status") in ("enabled", "disabled"):
            fields |= {"status": said["status"], "disabled_reason": said.get("disabled_reason")}
        if isinstance(said.get("forced_down"), bool):
            fields |= {"forced_down": said["forced_down"], "state": "down" if said["forced_down"] else "up"}
        if not fields:
            raise Refused(400, "status or forced_down is wanted")
        self._nova.change("service", ask.named[0], fields)
        row = self._nova.services.copy(ask.named[0])
        for id_ in list(self._nova.hypervisors):
            hypervisor = self._nova.hypervisors.copy(id_)
            if hypervisor["hypervisor_hostname"] == row["host"]:
                hypervisor["status"] = row["status"]
                self._nova.hypervisors.put(hypervisor)
        self.asked[f"service {row['status']}", row["host"]] += 1
        return Reply({"service": row})

    # --- what is done

    def _begin(self, row: Row, kind: str, target: str, work: Callable[[Row], Coroutine[Any, Any, None]]) -> None:
        migration: Row = {
            "id": len(self.migrations) + 1,
            "uuid": self._nova.house.id(),
            "instance_uuid": row["id"],
            "source_compute": row[HOST],
            "source_node": row[NODE],
            "dest_compute": target,
            "dest_node": target,
            "migration_type": kind,
            "status": "running",
            "created_at": self._nova.house.micro(),
        }
        self.migrations.append(migration)
        # The task is there before the answer is: nobody can come in between.
        self._nova.state(row["id"], task_state="migrating" if kind == "live-migration" else "resize_prep")
        self._work(work(migration))

    def _work(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name="fake nova at work")
        self.working.add(task)
        task.add_done_callback(self.working.discard)

    async def _takes(self, id_: str) -> bool:
        """Whether it goes well, after its time."""
        if id_ in self.hangs:
            self.hangs.discard(id_)
            aborted = self._aborted.setdefault(id_, asyncio.Event())
            await aborted.wait()
        else:
            await self._nova.house.clock.sleep(self.seconds)
        aborted_event = self._aborted.pop(id_, None)
        failed = id_ in self.fails or (aborted_event is not None and aborted_event.is_set())
        self.fails.discard(id_)
        return not failed and id_ in self._nova.servers

    async def _move(self, id_: str, migration: Row, task: str, event: str) -> None:
        self._nova.say(id_, f"{event}.pre.start")
        if not await self._takes(id_):
            migration["status"] = "error"
            if id_ in self._nova.servers:
                self._nova.state(id_, task_state=None)
                self._nova.say(id_, f"{event}._rollback.end")
            return
        migration["status"] = "completed"
        target = migration["dest_compute"]
        self._nova.change("server", id_, {TASK: None, HOST: target, NODE: target})
        self._nova.say(id_, f"{event}._post.end")
        self._nova.say(id_, f"{event}.post.dest.end")

    async def _resized(self, id_: str, migration: Row, fields: Row) -> None:
        was = self._nova.servers.copy(id_)
        if not await self._takes(id_):
            migration["status"] = "error"
            if id_ in self._nova.servers:
                self._nova.state(id_, task_state=None)
            return
        migration["status"] = "finished"
        target = migration["dest_compute"]
        kept = {"_before": {key: was[key] for key in (HOST, NODE, "_flavor", "flavor", VM_STATE, POWER)}}
        self._nova.change("server", id_, {VM_STATE: "resized", TASK: None, HOST: target, NODE: target, **fields, **kept})
        self._nova.say(id_, "finish_resize.end")

    async def _confirmed(self, id_: str) -> None:
        row = self._nova.servers.copy(id_)
        was = row.pop("_before")[VM_STATE]
        self._nova.servers.put(row)
        self._nova.state(id_, was, None)
        self._nova.say(id_, "resize.confirm.end")
        for one in self.migrations:
            if one["instance_uuid"] == id_ and one["status"] == "finished":
                one["status"] = "confirmed"

    async def _reverted(self, id_: str) -> None:
        row = self._nova.servers.copy(id_)
        before = row.pop("_before")
        self._nova.servers.put(row)
        self._nova.change("server", id_, {**before, TASK: None})
        for one in self.migrations:
            if one["instance_uuid"] == id_ and one["status"] == "finished":
                one["status"] = "reverted"

    async def _switch_on(self, id_: str, after: str, power: int, event: str) -> None:
        if not await self._takes(id_):
            if id_ in self._nova.servers:
                self._nova.state(id_, task_state=None)
            return
        self._nova.change("server", id_, {VM_STATE: after, TASK: None, POWER: power})
        self._nova.say(id_, f"{event}.end")


_MOVES = frozenset({"os-migrateLive", "migrate", "resize"})
