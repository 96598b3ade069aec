"""Calls `notify(node_detail, created)` of a plugin of the OSS framework when an instance or a floating IP comes or goes.

In: notices, and what Vedette read from the API itself (`server.create.resync`): what was missed while nobody listened is told
once. Out: one message to the plugin's process (vedette/compat/_oss_child.py). What came is in the events of creation, what went
in those of deletion; of a floating IP it is its association that decides, whatever the event is called: it came when it got to an
instance, it went when it left it, and nothing else that happens to it calls anybody.

What is remembered, in the write that says that the event was handled: `node/<instance>` and `fip/<floating IP>`, each with the
detail that the plugin was given, so that a deletion tells of the same node as the creation did although its notification says
next to nothing; and `began`, since when this handler is at work: instances that are older and show up in a resync were there
before, and are no news.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import BadRequest, Forbidden, GiveUp, NoService, NotFound, TryLater, Unauthenticated
from vedette.handlers._oss_node import DetailOptions, Node, detail, from_api, from_flavor, from_payload, operating_system
from vedette.kit.clock import parse_us
from vedette.kit.units import FilePath
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import Context, Event, HandlerNeeds, JsonObject, WorkerCode

CHILD = "vedette.compat._oss_child"
CREATED = "compute.instance.create.end"
DELETED = "compute.instance.delete.end"
FLOATING = "floatingip."
OWN = (".resync", ".verify")
"""How the types end of what Vedette read from the API itself."""
MICROVERSION = "2.47"
"""The first that shows the sizes of a server's flavor."""
GONE = 10_000
"""Deleted instances known by id, so that the second format of a deletion calls nobody; the oldest are let go. After a restart
it may call once more, which is what at-least-once allows."""
UNWELL_SECONDS = 30.0
"""Until the next try, when the cloud's API refuses us: a person has to do something first."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one plugin of the OSS framework."""

    plugin: str
    """`<dir>.<Class>`, such as `rest_plugin.RESTNotify`."""
    conf: FilePath = ""
    """The oss.conf that the plugin's own settings are in."""
    plugins_dir: FilePath = ""
    """A folder with plugins of your own: `<dir>/__init__.py`."""
    events_creation: tuple[str, ...] = (CREATED, "floatingip.update.end")
    """Event types that call with created=True."""
    events_deletion: tuple[str, ...] = (DELETED, "floatingip.update.end")
    """Event types that call with created=False."""
    detail: DetailOptions = DetailOptions()
    """What `node_detail` is made of."""

    def __post_init__(self) -> None:
        if not all(part.isidentifier() for part in self.plugin.split(".")) or "." not in self.plugin:
            raise ValueError("plugin: wants <dir>.<Class>, such as rest_plugin.RESTNotify")
        for name in {unversioned(one) for one in self.events_creation} & {unversioned(one) for one in self.events_deletion}:
            if not name.startswith(FLOATING):
                raise ValueError(f"{name} is in events_creation and in events_deletion: nothing in it says which it is")


def event_types(creation: Iterable[str], deletion: Iterable[str]) -> tuple[str, ...]:
    """What a handler with these lists has to be called for: `on: {types: …}`."""
    listed = [*creation, *deletion]
    plain = [unversioned(one) for one in listed]
    types = [*listed, *plain, *(twin for one in plain if (twin := _versioned(one)))]
    if any(one.startswith(FLOATING) for one in plain):
        types += [f"floatingip.{word}.end" for word in ("create", "update", "delete")]
        types += [f"floatingip.*{own}" for own in OWN]
    if CREATED in plain or DELETED in plain:
        types += [f"server.*{own}" for own in OWN]
    return tuple(dict.fromkeys(types))


_TWINS = {
    "resize_finish": "finish_resize",
    "resize_confirm": "resize.confirm",
    "resize_prep": "resize.prep",
    "resize_revert": "resize.revert",
    "volume_attach": "volume.attach",
    "volume_detach": "volume.detach",
}
"""Nova's word in its versioned format, and in the older one, where they differ."""


def unversioned(event_type: str) -> str:
    """`instance.create.end` as `compute.instance.create.end`; any other type as it is."""
    if not event_type.startswith("instance."):
        return event_type
    _, word, *rest = event_type.split(".")
    return ".".join(("compute.instance", _TWINS.get(word, word), *rest))


def _versioned(event_type: str) -> str:
    if not event_type.startswith("compute.instance."):
        return ""
    rest = event_type.removeprefix("compute.instance.")
    for versioned, older in _TWINS.items():
        if rest == older or rest.startswith(f"{older}."):
            return f"instance.{versioned}{rest[len(older) :]}"
    return f"instance.{rest}"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of an instance."""

    detail: JsonObject | None = None
    """What the plugin was last given; None: it was there before us."""
    here: bool = False
    """Whether the plugin was last told that it came."""
    fact: str = ""
    """What was last told, to know it in Nova's other format."""


class Association(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a floating IP."""

    port: str = ""
    """"": it is not associated; the rest is how it was."""
    fixed: str = ""
    address: str = ""
    node: str = ""
    """The instance; "": the port is no instance's, or it was associated before us."""
    detail: JsonObject | None = None
    """What the plugin was given; None: nothing."""


class _FloatingIP(msgspec.Struct):
    """What is read of one."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    port_id: str | UnsetType | None = UNSET
    fixed_ip_address: str | None = None
    floating_ip_address: str | None = None
    port_details: Any = None
    updated_at: Any = None


def code(name: str, options: Options) -> WorkerCode:
    """What the plugin's process runs."""
    return WorkerCode(
        name=name,
        module=CHILD,
        options={"plugin": options.plugin, "conf": options.conf, "plugins_dir": options.plugins_dir},
    )


def build(options: Options, needs: HandlerNeeds) -> OssHandler:
    """The handler; the plugin's process starts with the first call."""
    return OssHandler(options, needs)


class OssHandler:
    """See the module. One plugin."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        self._options = options
        self._needs = needs
        self._creation = frozenset(unversioned(one) for one in options.events_creation)
        self._deletion = frozenset(unversioned(one) for one in options.events_deletion)
        self._floating_came = any(one.startswith(FLOATING) for one in self._creation)
        self._floating_went = any(one.startswith(FLOATING) for one in self._deletion)
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._began = 0
        self._ignored = needs.telemetry.counter(
            "handler_oss_ignored_total", "Events of a handler that call no plugin, by why", "handler", "reason"
        )
        self._worker = needs.worker(code(needs.name, options))

    async def close(self) -> None:
        await self._worker.close()

    async def handle(self, event: Event, context: Context) -> str | None:
        """Raises what the plugin raised; TryLater when the cloud has to be asked and can't be; GiveUp for a notice that names no
        instance or floating IP."""
        await self._begin(event, context)
        if event.verb:
            return await self._changed(event, context)
        fact = unversioned(event.type)
        if fact.startswith("compute.instance."):
            return await self._instance(event, context, fact)
        if fact.startswith(FLOATING):
            return await self._floating(event, context)
        if fact.startswith("server.") and fact.endswith(OWN):
            return await self._found(event, context, fact.split(".")[1])
        return await self._other(event, context, fact)

    async def _begin(self, event: Event, context: Context) -> None:
        if not self._began:
            began = await context.recall("began")
            if isinstance(began, int):
                self._began = began
            else:
                context.remember("began", event.appended_at)

    def _is_older(self, created: Any, event: Event) -> bool:
        """Whether it was there before this handler. Nova says whole seconds: one of the same second is rather told than lost."""
        when = parse_us(created) if isinstance(created, str) else None
        return when is not None and when // 1_000_000 < (self._began or event.appended_at) // 1_000_000

    def _ignore(self, reason: str) -> str:
        self._ignored.labels(self._needs.name, reason).inc()
        return f"nobody was called: {reason}"

    async def _call(self, event: Event, context: Context, said: JsonObject, created: bool, *, part: str = "") -> str:
        """`part` tells two calls for one event from each other."""
        message = {"node_detail": said, "created": created, "idempotency_key": event.idempotency_key + part}
        await self._worker.call(msgspec.json.encode(message), context.timeout)
        name = said.get("FQDN") or said.get("id") or ""
        return f"{self._options.plugin}: {name} {said.get('IP', '')} {'came' if created else 'went'}".replace("  ", " ")

    # --- instances ---

    async def _instance(self, event: Event, context: Context, fact: str) -> str:
        payload = _mapping(event.payload, event)
        data = payload.get("nova_object.data")
        id_ = data.get("uuid") if isinstance(data, dict) else payload.get("instance_id")
        if not isinstance(id_, str) or not id_:
            raise GiveUp(f"{event.type} names no instance")
        if fact in self._creation:
            return await self._came(event, context, id_, fact, from_payload(payload))
        if fact in self._deletion:
            return await self._went(event, context, id_, fact, from_payload(payload))
        return self._ignore("not in a list")

    async def _came(self, event: Event, context: Context, id_: str, fact: str, said: Node) -> str:
        told = await self._told(context, id_)
        # Both formats of one fact have its request.
        this = f"{fact} {event.notice.request_id}"
        if not event.replay:
            if id_ in self._gone:
                return self._ignore("it is deleted")
            if told is not None and (told.here if fact == CREATED else event.notice.request_id and told.fact == this):
                return self._ignore("told already")
        found = detail(await self._known(event.notice.source, id_, said), self._options.detail)
        outcome = await self._call(event, context, found, True)
        if not event.replay or await self._is_here(event, id_):
            self._remember(context, id_, Told(detail=found, here=True, fact=this))
        return outcome

    async def _went(self, event: Event, context: Context, id_: str, fact: str, said: Node) -> str:
        told = await self._told(context, id_)
        this = f"{fact} {event.notice.request_id}"
        final = fact == DELETED
        if not event.replay:
            if id_ in self._gone:
                context.remember(f"node/{id_}", None)
                return self._ignore("told already")
            if told is not None and not final and event.notice.request_id and told.fact == this:
                return self._ignore("told already")
        found = told.detail if told is not None else None
        if found is None:
            found = detail(await self._known(event.notice.source, id_, said, gone=final), self._options.detail)
        outcome = await self._call(event, context, found, False)
        if final:
            if not event.replay or not await self._is_here(event, id_):
                self._forget(context, id_)
        elif not event.replay:
            self._remember(context, id_, Told(detail=found, fact=this))
        return outcome

    async def _found(self, event: Event, context: Context, word: str) -> str:
        """What a resync, or verify, says of a server: what its notification would have said, if it was missed."""
        server = _mapping(event.payload, event).get("server")
        id_ = server.get("id") if isinstance(server, dict) else None
        if not isinstance(server, dict) or not isinstance(id_, str):
            raise GiveUp(f"{event.type} names no server")
        told = await self._told(context, id_)
        if word == "delete":
            if DELETED not in self._deletion or (told is None and not event.replay):
                return self._ignore("nobody was told that it came")
            return await self._went(event, context, id_, DELETED, from_api(server))
        if CREATED not in self._creation or (told is not None and not event.replay):
            return self._ignore("told already")
        if not server.get("OS-SRV-USG:launched_at") and server.get("status") != "ACTIVE":
            return self._ignore("it is not built")
        if server.get("status") in ("SOFT_DELETED", "DELETED"):
            return self._ignore("it is deleted")
        if self._is_older(server.get("created"), event) and not event.replay:
            self._remember(context, id_, Told())
            return self._ignore("it was there before")
        return await self._came(event, context, id_, CREATED, from_api(server))

    async def _told(self, context: Context, id_: str) -> Told | None:
        remembered = await context.recall(f"node/{id_}")
        return None if remembered is None else msgspec.convert(remembered, Told)

    def _remember(self, context: Context, id_: str, told: Told) -> None:
        context.remember(f"node/{id_}", msgspec.to_builtins(told))

    def _forget(self, context: Context, id_: str) -> None:
        context.remember(f"node/{id_}", None)
        self._gone[id_] = None
        while len(self._gone) > GONE:
            self._gone.popitem(last=False)

    async def _is_here(self, event: Event, id_: str) -> bool:
        """A replay moves what is remembered only where what it says still holds."""
        return await self._needs.inventory.get(Key(event.notice.source, OPENSTACK, "Server", id_)) is not None

    # --- floating IPs ---

    async def _floating(self, event: Event, context: Context) -> str:
        word = event.type.split(".")[1]
        said = _floating_ip(event)
        if said is None or (word != "delete" and said.port_id is UNSET):
            return self._ignore("it says nothing of the association")
        port = "" if word == "delete" or said.port_id is UNSET else said.port_id or ""
        after = Association(port=port, fixed=said.fixed_ip_address or "", address=said.floating_ip_address or "")
        remembered = await context.recall(f"fip/{said.id}")
        before = None if remembered is None else msgspec.convert(remembered, Association)
        if before is None and not port:
            return self._ignore("it is not associated")
        if not event.replay:
            if before is not None and before.port == port:
                if word == "delete" or before.fixed != after.fixed:
                    self._associate(context, said.id, msgspec.structs.replace(before, fixed=after.fixed), word)
                return self._ignore("the association is the same")
            if word == "create" and event.type.endswith(OWN) and self._is_older(said.updated_at, event):
                # Whose port it is, is looked up when it leaves: by then every port is known.
                self._associate(context, said.id, after, word)
                return self._ignore("it was there before")
        outcome, now = await self._moved(event, context, before, after, said.port_details)
        if not event.replay or await self._is_associated(event, said.id, port):
            self._associate(context, said.id, now, word)
        return outcome

    async def _moved(
        self, event: Event, context: Context, before: Association | None, after: Association, details: Any
    ) -> tuple[str, Association]:
        """It left where it was `before`, and came to where it is `after`: one of them, or both; and what to remember."""
        outcomes: list[str] = []
        left = before or Association()
        node = await self._node_of(event, after.port, details) if after.port else ""
        stays = bool(node) and node == left.node
        if (left.port or event.replay) and not stays and before is not None:
            outcome, left = await self._left(event, context, left, part="/left" if after.port else "")
            outcomes.append(outcome)
        if not after.port:
            return outcomes[0], msgspec.structs.replace(left, port="", fixed="")
        if stays and left.port and not event.replay:
            # Another port of the same instance: its detail is the same.
            now = msgspec.structs.replace(after, node=node, detail=left.detail)
            return self._ignore("the instance is the same"), now
        outcome, now = await self._arrived(event, context, msgspec.structs.replace(after, node=node))
        return "; ".join([*outcomes, outcome]), now

    async def _left(self, event: Event, context: Context, before: Association, *, part: str) -> tuple[str, Association]:
        """It is not associated any more as it was `before`."""
        if not self._floating_went:
            return self._ignore("not in a list"), before
        node = before.node
        if not node:
            # A port may have been given to an instance after the floating IP was.
            found = await self._needs.inventory.last(Key(event.notice.source, OPENSTACK, "Port", before.port))
            node = _device(found["status"]) if found is not None else ""
        if not node:
            return self._ignore("the port is no instance's"), before
        said = before.detail
        if said is None:
            known = await self._known(event.notice.source, node, Node())
            said = detail(known, self._options.detail, address=before.address)
        outcome = await self._call(event, context, said, False, part=part)
        return outcome, msgspec.structs.replace(before, node=node, detail=said)

    async def _arrived(self, event: Event, context: Context, after: Association) -> tuple[str, Association]:
        """It is associated as `after` says; with its detail when somebody was told."""
        if not after.node:
            return self._ignore("the port is no instance's"), after
        if not self._floating_came:
            return self._ignore("not in a list"), after
        known = await self._known(event.notice.source, after.node, Node())
        said = detail(known, self._options.detail, address=after.address)
        outcome = await self._call(event, context, said, True)
        return outcome, msgspec.structs.replace(after, detail=said)

    def _associate(self, context: Context, id_: str, association: Association, word: str) -> None:
        """Of one that is deleted nothing is remembered."""
        context.remember(f"fip/{id_}", None if word == "delete" else msgspec.to_builtins(association))

    async def _is_associated(self, event: Event, id_: str, port: str) -> bool:
        found = await self._needs.inventory.get(Key(event.notice.source, OPENSTACK, "FloatingIP", id_))
        return (found["status"].get("port_id") or "" if found is not None else "") == port

    async def _node_of(self, event: Event, port: str, details: Any) -> str:
        """The instance behind the floating IP's port; "": it is a router's, a load balancer's, or nobody's."""
        key = Key(event.notice.source, OPENSTACK, "Port", port)
        # What Neutron put into the notification may be older than what the port's own said.
        for said in (await self._needs.inventory.get(key), {"status": details}):
            status = said.get("status") if said is not None else None
            if isinstance(status, dict) and status.get("device_id"):
                return _device(status)
        return _device(await self._asked(event.notice.source, "network", f"/ports/{quote(port, safe='')}", "port"))

    # --- what else may be in the lists ---

    async def _other(self, event: Event, context: Context, fact: str) -> str:
        """Any other event: the plugin gets what it says, since there is no node."""
        found = {"type": event.type, "source": event.notice.source, "payload": event.payload}
        if event.key is not None:
            found |= {"kind": event.key.kind, "id": event.key.id}
        return await self._call(event, context, found, fact not in self._deletion)

    async def _changed(self, event: Event, context: Context) -> str:
        """A change of an object, for a handler that is configured with kinds."""
        key = event.key
        assert key is not None
        status = event.object.get("status")
        if key.kind == "Server" and key.group == OPENSTACK and isinstance(status, dict):
            gone = event.verb == "DELETED"
            known = await self._known(key.source, key.id, from_api(status), gone=gone)
            return await self._call(event, context, detail(known, self._options.detail), not gone)
        found = {"type": event.verb, "source": key.source, "kind": key.kind, "id": key.id, "object": event.object}
        return await self._call(event, context, found, event.verb != "DELETED")

    # --- what the cloud knows ---

    async def _known(self, source: str, id_: str, said: Node, *, gone: bool = False) -> Node:
        """All that can be known of an instance: what was said, then the inventory, then the API. Of one that is `gone` the
        inventory comes first: its last notification has lost its addresses."""
        kept = await self._needs.inventory.last(Key(source, OPENSTACK, "Server", id_))
        known = from_api(kept["status"]) if kept is not None else Node()
        known = known.or_else(said) if gone else said.or_else(known)
        if not known.whole and not gone:
            asked = await self._asked(source, "compute", f"/servers/{quote(id_, safe='')}", "server")
            known = known.or_else(from_api(asked)) if asked is not None else known
        if not known.sized and known.flavor:
            path = f"/flavors/{quote(known.flavor, safe='')}"
            flavor = await self._kept_or_asked(Key(source, OPENSTACK, "Flavor", known.flavor), "compute", path, "flavor")
            known = known.or_else(from_flavor(flavor)) if flavor is not None else known
        if known.image and not operating_system(known.properties or {}, self._options.detail):
            path = f"/images/{quote(known.image, safe='')}"
            image = await self._kept_or_asked(Key(source, OPENSTACK, "Image", known.image), "image", path)
            if image is not None:
                beside = image.get("properties")
                properties = {**image, **(beside if isinstance(beside, dict) else {})}
                known = msgspec.structs.replace(known, properties=properties)
        return known

    async def _kept_or_asked(self, key: Key, service: str, path: str, name: str = "") -> JsonObject | None:
        kept = await self._needs.inventory.last(key)
        if kept is not None:
            status: JsonObject = kept["status"]
            return status
        return await self._asked(key.source, service, path, name)

    async def _asked(self, source: str, service: str, path: str, name: str = "") -> JsonObject | None:
        """The API's answer (what it has under `name`); None: there is no such object, or no API."""
        cloud = self._needs.cloud(source)
        if cloud is None:
            return None
        try:
            answer = await cloud.get(service, path, microversion=MICROVERSION if service == "compute" else "")
        except NotFound:
            return None
        except (Forbidden, Unauthenticated, BadRequest, NoService) as why:
            raise TryLater(f"the {service} API of {source} does not say: {why}", delay=UNWELL_SECONDS) from why
        found = answer.body.get(name) if name else answer.body
        return found if isinstance(found, dict) else None


def _floating_ip(event: Event) -> _FloatingIP | None:
    """None: a request that may yet fail. Raises GiveUp."""
    if event.type.endswith(".start"):
        return None
    payload = _mapping(event.payload, event)
    try:
        return msgspec.convert(payload.get("floatingip") or {"id": payload.get("floatingip_id")}, _FloatingIP)
    except msgspec.ValidationError as why:
        raise GiveUp(f"{event.type} says of no floating IP what it should: {why}") from None


def _device(port: Any) -> str:
    """The instance that a port belongs to; "": none."""
    if not isinstance(port, dict):
        return ""
    owner, device = port.get("device_owner"), port.get("device_id")
    return device if isinstance(owner, str) and owner.startswith("compute:") and isinstance(device, str) else ""


def _mapping(payload: Any, event: Event) -> Mapping[str, Any]:
    if not isinstance(payload, dict):
        raise GiveUp(f"{event.type} has a payload that is no object")
    return payload
