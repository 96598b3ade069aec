"""The fake cloud's Heat.

As seen on a real one ("Zed"): its address has a project, and an admin may use any; `global_tenant` is refused to everybody by
default, while an admin's plain list has every project's stacks, with their `project`; one stack is a redirect away from its id;
and a stack that was deleted is in no list, but still there by its id, DELETE_COMPLETE.
https://docs.openstack.org/api-ref/orchestration/v1/
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Rows, Service, Who, joined, matches


class Heat(Service):
    type = "orchestration"
    name = "heat"
    root = "/v1"

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.global_index = False
        """Whether its policy lets admins say `global_tenant`."""
        self.largest_page = 1 << 40
        self.stacks = _stacks()
        self.gone: dict[str, Row] = {}
        """Stacks that were deleted."""
        self.rows = {"stack": self.stacks}
        self.resources: dict[str, list[Row]] = {}
        """Stack → its resources."""
        self.outputs: dict[str, dict[str, Any]] = {}
        """Stack → what it gives out."""
        self.seconds = 0.0
        """Of the cloud's clock, before Heat begins with what it was asked for, and again until it is over."""
        self.fails: set[str] = set()
        """Stacks whose next action fails."""
        self.refuses: set[str] = set()
        """Stacks that can't be suspended or resumed: something in them doesn't know how."""
        self.asked: Counter[tuple[str, str]] = Counter()
        """(suspend, resume, check, cancel_update or delete; stack) → how often it was asked for and taken."""
        self.on_servers: Callable[[str, str], str] = lambda action, server: ""
        """Called with each server of a stack that is suspended, resumed or deleted; why it can't be done, "": it is."""
        self._working: set[asyncio.Task[None]] = set()

    # --- state

    def create(self, kind: str, fields: Mapping[str, Any], *, project: str, announce: bool = True) -> str:
        """Its id. CREATE_COMPLETE, unless `stack_status` says otherwise."""
        id_ = self.house.id()
        row: Row = {
            "id": id_,
            "project": project,
            "stack_name": f"stack-{id_[:8]}",
            "description": "",
            "stack_status": "CREATE_COMPLETE",
            "stack_status_reason": "Stack CREATE completed successfully",
            "creation_time": self.house.second(),
            "updated_time": None,
            "deletion_time": None,
            "stack_owner": self.house.identity.users[self.house.someone(project)].name,
            "parent": None,
            "stack_user_project_id": self.house.hex_id(),
            "tags": None,
        } | dict(fields)
        self.stacks.put(row)
        if announce:
            self._say("create.start", row | {"stack_status": "CREATE_IN_PROGRESS", "stack_status_reason": "Stack CREATE started"})
            if row["stack_status"] == "CREATE_COMPLETE":
                self._say("create.end", row)
        return str(row["id"])

    def change(self, kind: str, id_: str, fields: Mapping[str, Any], *, announce: bool = True) -> None:
        """Raises KeyError."""
        was = self.stacks.copy(id_)
        row = was | dict(fields)
        done = row["stack_status"].endswith("_COMPLETE") and was["stack_status"].endswith("_IN_PROGRESS")
        if done and "stack_status_reason" not in fields:
            row["stack_status_reason"] = f"Stack {row['stack_status'].partition('_')[0]} completed successfully"
        if not row["stack_status"].startswith("CREATE"):
            row["updated_time"] = self.house.second()
        self.stacks.put(row)
        if announce:
            how = "end" if done else "error" if row["stack_status"].endswith("_FAILED") else "start"
            self._say(f"{row['stack_status'].partition('_')[0].lower()}.{how}", row)

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """Raises KeyError."""
        row = self.stacks.remove(id_)
        now = self.house.second()
        row |= {"stack_status": "DELETE_COMPLETE", "stack_status_reason": "Stack DELETE completed successfully"}
        row |= {"updated_time": now, "deletion_time": now}
        self.gone[id_] = row
        if announce:
            self._say("delete.start", row | {"stack_status": "DELETE_IN_PROGRESS", "stack_status_reason": "Stack DELETE started"})
            self._say("delete.end", row)

    def add_resource(self, stack: str, type_: str, physical_id: str, *, name: str = "") -> None:
        """As if Heat had made it. Nothing is announced: Heat says nothing of resources."""
        every = self.resources.setdefault(stack, [])
        word = name or f"{type_.rpartition('::')[2].lower()}-{len(every)}"
        every.append(
            {
                "resource_name": word,
                "logical_resource_id": word,
                "physical_resource_id": physical_id,
                "resource_type": type_,
                "resource_status": "CREATE_COMPLETE",
                "resource_status_reason": "state changed",
                "creation_time": self.house.second(),
                "updated_time": self.house.second(),
                "required_by": [],
            }
        )

    def remove_resource(self, stack: str, physical_id: str) -> None:
        every = self.resources.get(stack, [])
        self.resources[stack] = [one for one in every if one["physical_resource_id"] != physical_id]

    def _say(self, what: str, row: Row) -> None:
        user = self.house.user_id(row["stack_owner"])
        payload = {
            "tenant_id": row["project"],
            "user_id": row["stack_owner"],
            "user_identity": user,
            "username": row["stack_owner"],
            "stack_identity": row["id"],
            "stack_name": row["stack_name"],
            "state": row["stack_status"],
            "state_reason": row["stack_status_reason"],
            "create_at": row["creation_time"],
            "tags": row["tags"] or [],
            "updated_at": row["updated_time"],
            "description": row["description"] or "No description",
        }
        publisher, event = "orchestration.ctl", f"orchestration.stack.{what}"
        self.house.announce("heat", event, payload, publisher=publisher, project=row["project"], user=user)

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path != "/":
            return None
        link = {"rel": "self", "href": f"{self.url}/v1/"}
        return Reply({"versions": [{"id": "v1.0", "status": "CURRENT", "links": [link]}]}, 300)

    def endpoint(self, project: str) -> str:
        return f"{self.url}/v1/{project}" if project else f"{self.url}/v1"

    def under(self, path: str, who: Who | None) -> str | None:
        rest = super().under(path, who)
        if rest is None:
            return None
        project, _, more = rest[1:].partition("/")
        return f"/{more}" if who is None or who.admin or project == who.project else ""

    def error(self, why: Refused) -> Reply:
        title = {403: "Forbidden", 404: "Not Found"}.get(why.status, "Bad Request")
        explained = {403: "Access was denied to this resource.", 404: "The resource could not be found."}
        return Reply(
            {
                "code": why.status,
                "title": title,
                "explanation": explained.get(why.status, "The server could not comply with the request."),
                "error": {"type": why.kind or title.replace(" ", ""), "traceback": None, "message": str(why)},
            },
            why.status,
        )

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"", self._elsewhere),
            ("GET", r"/services", self._services),
            ("GET", r"/stacks", self._list),
            ("GET", r"/stacks/([^/]+)", self._find),
            ("GET", r"/stacks/([^/]+)/([^/]+)", self._show),
            ("GET", r"/stacks/([^/]+)/([^/]+)/resources", self._resources),
            ("POST", r"/stacks/([^/]+)/([^/]+)/actions", self._act),
            ("DELETE", r"/stacks/([^/]+)", self._find),
            ("DELETE", r"/stacks/([^/]+)/([^/]+)", self._delete),
        )

    def _services(self, ask: Ask) -> Reply:
        if not ask.who.admin:
            raise Refused(403, "You are not authorized to use service:index.", "Forbidden")
        return Reply({"services": []})

    def _elsewhere(self, ask: Ask) -> Reply:
        raise Refused(403, "Access was denied to this resource.", "HTTPForbidden")

    def _list(self, ask: Ask) -> Reply:
        every = ask.one("global_tenant").lower() in ("true", "1")
        if every and not (self.global_index and ask.who.admin):
            raise Refused(403, "You are not authorized to use stacks:global_index.", "Forbidden")
        names = {
            "id": "id",
            "status": "stack_status",
            "name": "stack_name",
            "stack_name": "stack_name",
            "username": "stack_owner",
        }
        wanted = {names[name]: ask.all(name) for name, _ in ask.query if name in names}
        nested = ask.one("show_nested").lower() in ("true", "1")

        def keep(row: Row) -> bool:
            return (nested or not row["parent"]) and all(matches(row, name, values) for name, values in wanted.items())

        rows = self.stacks
        if ask.one("show_deleted").lower() in ("true", "1"):
            rows = _stacks()
            for row in [*(self.stacks.copy(id_) for id_ in self.stacks), *self.gone.values()]:
                rows.put(row)
        marker = ask.one("marker")
        limit = self.limit(ask)
        # A marker that isn't there is as good as none.
        known = ask if rows.seen(marker, ask.who) else _without_marker(ask)
        found, _, last, full = self.page(
            known,
            rows,
            lambda row: self._shown(row, ask.who),
            plain=False,
            keep=keep,
            no_marker=Refused(400, "Invalid marker"),
            limit=limit,
        )
        more: Row = {}
        if full and ask.one("limit"):
            query = urlencode([*ask.but("marker"), ("marker", last)])
            more["links"] = [{"rel": "next", "href": f"{self.url}{ask.at}?{query}"}]
        return Reply(joined("stacks", found, **more))

    def _at(self, row: Mapping[str, Any]) -> str:
        return f"{self.url}/v1/{row['project']}/stacks/{row['stack_name']}/{row['id']}"

    def _shown(self, row: Row, who: Who) -> Row:
        public = {name: value for name, value in row.items() if who.admin or name != "project"}
        return public | {"links": [{"href": self._at(row), "rel": "self"}]}

    def _stack(self, ask: Ask, id_: str) -> Row:
        if self.stacks.seen(id_, ask.who):
            return self.stacks.copy(id_)
        gone = self.gone.get(id_)
        if gone is not None and (ask.who.admin or gone["project"] == ask.who.project):
            return dict(gone)
        raise Refused(404, f"The Stack ({id_}) could not be found.", "EntityNotFound")

    def _find(self, ask: Ask) -> Reply:
        named = ask.named[0]
        own = [
            id_
            for id_ in self.stacks
            if self.stacks[id_]["stack_name"] == named and self.stacks[id_]["project"] == ask.who.project
        ]
        row = self._stack(ask, own[0] if own else named)
        return Reply(b"<html>302 Found</html>", 302, {"Location": self._at(row)}, "text/html; charset=UTF-8")

    def _show(self, ask: Ask) -> Reply:
        row = self._stack(ask, ask.named[1])
        parameters = {"OS::stack_id": row["id"], "OS::project_id": row["project"], "OS::stack_name": row["stack_name"]}
        names = ("stack_name", "id", "creation_time", "updated_time", "deletion_time", "stack_owner", "parent")
        more = ("stack_user_project_id", "stack_status", "stack_status_reason")
        said: Row = {name: row[name] for name in (*names, *more)}
        said |= {
            "links": [{"href": self._at(row), "rel": "self"}],
            "notification_topics": [],
            "parameters": parameters,
            "description": row["description"] or "No description",
            "template_description": row["description"] or "No description",
            "capabilities": [],
            "disable_rollback": True,
            "timeout_mins": None,
            "tags": row["tags"] or [],
            "outputs": [
                {"output_key": key, "output_value": value, "description": "No description given"}
                for key, value in self.outputs.get(row["id"], {}).items()
            ],
        }
        return Reply({"stack": said})

    def _resources(self, ask: Ask) -> Reply:
        row = self._stack(ask, ask.named[1])
        depth = int(ask.one("nested_depth") or 0)
        found: list[Row] = []
        level = [row]
        for _ in range(depth + 1):
            for one in level:
                link = {"href": self._at(one), "rel": "stack"}
                found += [resource | {"links": [link]} for resource in self.resources.get(one["id"], ())]
            ids = {one["id"] for one in level}
            level = [self.stacks.copy(id_) for id_ in self.stacks if self.stacks[id_]["parent"] in ids]
        return Reply({"resources": found})

    def _there(self, ask: Ask) -> Row:
        """One that is not gone: nothing is done to those. Raises Refused."""
        row = self._stack(ask, ask.named[1])
        if row["id"] not in self.stacks:
            raise Refused(404, f"The Stack ({row['stack_name']}) could not be found.", "EntityNotFound")
        return row

    def _delete(self, ask: Ask) -> Reply:
        row = self._there(ask)
        self.asked["delete", row["id"]] += 1
        self._begin(row["id"], "delete")
        return Reply(status=204)

    def _act(self, ask: Ask) -> Reply:
        row = self._there(ask)
        if not isinstance(ask.body, dict) or len(ask.body) != 1:
            raise Refused(400, "No action specified" if not ask.body else "Multiple actions specified", "HTTPBadRequest")
        (action,) = ask.body
        if action not in ("suspend", "resume", "check", "cancel_update", "cancel_without_rollback"):
            raise Refused(400, f"Invalid action {action} specified", "HTTPBadRequest")
        verb, _, state = row["stack_status"].partition("_")
        if action.startswith("cancel"):
            if (verb, state) != ("UPDATE", "IN_PROGRESS"):
                text = f"Cancelling update when stack is ('{verb}', '{state}') is not supported."
                raise Refused(400, text, "NotSupported")
        elif state == "IN_PROGRESS":
            raise Refused(
                409, f"Stack {row['stack_name']} already has an action ({row['stack_status']}) in progress.", "ActionInProgress"
            )
        if action in ("suspend", "resume") and row["id"] in self.refuses:
            raise Refused(400, f"{action} is not supported for this stack.", "NotSupported")
        self.asked[action, row["id"]] += 1
        if action == "cancel_without_rollback":
            self.change("stack", row["id"], {"stack_status": "UPDATE_FAILED", "stack_status_reason": "Stack UPDATE cancelled"})
        else:
            self._begin(row["id"], "rollback" if action == "cancel_update" else action)
        return Reply(status=200, body=None)

    def _begin(self, id_: str, action: str) -> None:
        task = asyncio.create_task(self._done(id_, action), name=f"{action} of stack {id_}")
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _done(self, id_: str, action: str) -> None:
        """Heat answers first and begins then."""
        if self.seconds:
            await self.house.clock.sleep(self.seconds)
        if id_ not in self.stacks:
            return
        verb = action.upper()
        if action != "delete" or self.seconds or id_ in self.fails:
            reason = f"Stack {verb} started"
            self.change("stack", id_, {"stack_status": f"{verb}_IN_PROGRESS", "stack_status_reason": reason})
        if self.seconds:
            await self.house.clock.sleep(self.seconds)
        if id_ not in self.stacks:
            return
        if id_ in self.fails:
            self.fails.discard(id_)
            self.change("stack", id_, {"stack_status": f"{verb}_FAILED", "stack_status_reason": f"{verb} aborted"})
            return
        for one in self.resources.get(id_, ()) if action in ("suspend", "resume", "delete") else ():
            if one["resource_type"] != "OS::Nova::Server":
                continue
            if why := self.on_servers(action, one["physical_resource_id"]):
                reason = f"Resource {verb} failed: Conflict: resources.{one['resource_name']}: {why} (HTTP 409)"
                self.change("stack", id_, {"stack_status": f"{verb}_FAILED", "stack_status_reason": reason})
                return
            one |= {"resource_status": f"{verb}_COMPLETE", "updated_time": self.house.second()}
        if action == "delete":
            self.delete("stack", id_)
        else:
            self.change("stack", id_, {"stack_status": f"{verb}_COMPLETE"})

    async def stop(self) -> None:
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await super().stop()


def _stacks() -> Rows:
    return Rows(project=lambda row: row["project"], place=lambda row: row["creation_time"], newest_first=True)


def _without_marker(ask: Ask) -> Ask:
    return Ask(ask.method, ask.path, ask.at, ask.named, ask.but("marker"), ask.body, ask.who, ask.microversion)
