"""Every shape a plug or a room can have, on one page. No code here does anything.

A *kind* says what an object is, and how it is read from a notice and from a *cloud*'s API. A *source* brings notices, and so
does a *webhook*, which is called. A *store* keeps the log. An *identity* says who a caller is. A *handler* reacts. A *meter*
measures, a *strategy* advises, an *action* changes the cloud and takes it back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import msgspec

from vedette.kit.clock import Clock
from vedette.kit.telemetry import Telemetry
from vedette.model.advice import Done as Done
from vedette.model.advice import Metrics, Query, Resource, Solution, Trigger
from vedette.model.change import Change, Object, Verb, Version
from vedette.model.delivery import Cursor, Delivery, Outcome, State, Work
from vedette.model.entry import Entry, NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.model.sample import Sample, Samples
from vedette.model.snapshot import Snapshot

JsonObject = dict[str, Any]

# --- a cloud's API ---------------------------------------------------------------------------------------------------------

Params = Sequence[tuple[str, str]]
"""A query's names and values, in order; a name may come several times (`id=a&id=b`)."""


class Answer(msgspec.Struct, frozen=True):
    """What the API said."""

    body: JsonObject
    as_of: int
    """When the request was sent, UTC microseconds on the API's clock."""


class Items(msgspec.Struct, frozen=True):
    """One page of a list."""

    items: Sequence[JsonObject]
    as_of: int


class Cloud(Protocol):
    """One cloud's API, as one reader with one account sees it. `service` is a type of the catalog (`network`, `compute`,
    `load-balancer`, `image`, `block-storage`, `orchestration`, `identity`), `path` is under that service's versioned root
    (`/ports`, `/servers/detail`, `/lbaas/loadbalancers`). `microversion`: the newest that the caller understands; an older
    service is asked with its own newest.

    All of it raises NotFound (404), Forbidden (403), BadRequest (other 4xx), Unauthenticated (our credentials are refused),
    NoService (the catalog doesn't have it), CloudUnavailable (nobody answers, also after retries).
    """

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer: ...

    def pages(self, service: str, path: str, key: str, params: Params = (), *, microversion: str = "") -> AsyncIterator[Items]:
        """The list under `key`, page by page, to its end. An error means that it isn't complete."""
        ...

    async def query(self, service: str, path: str, body: JsonObject | None = None, params: Params = ()) -> Any:
        """A question, as a POST where it has a body: asked again like a `get`, since it changes nothing. The answer as it is, a
        list for one."""
        ...

    async def send(
        self,
        method: str,
        service: str,
        path: str,
        body: JsonObject | None = None,
        *,
        microversion: str = "",
        request_id: str = "",
    ) -> JsonObject:
        """Ask for a change, once: no retry, since nobody knows what became of a request without an answer. The answer's body,
        `{}` for none. `request_id` (`req-…`) goes along as X-Openstack-Request-Id, so that what comes of it is known as ours.
        Also raises Refused (409: not in its present state). CloudUnavailable may mean that it was done."""
        ...

    async def account(self) -> Verified:
        """Who we are there."""
        ...

    async def close(self) -> None: ...


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """One cheap look at kinds that notifications never speak of, again and again while somebody follows one of them. Kinds that
    share a scan name the same object."""

    name: str
    service: str
    sees: Mapping[str, tuple[str, ...]]
    """Kind → the fields under `status` that `look` is shown of what is known."""
    look: Callable[[Cloud, Mapping[str, Mapping[str, JsonObject]], dict[str, Any]], AsyncIterator[Sequence[Reading]]]
    """`look(cloud, known, memory)`: `known` is kind → id → those fields; `memory` is the scan's own, empty at first and kept
    between looks. Yields what may be news; what is none costs nothing more. A
    `delete` among them is only a suspicion: it is confirmed by `Api.get` before anybody hears of it."""


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind is read from a cloud's API: in the same form as `Kind.read` gives."""

    service: str
    list: Callable[[Cloud], AsyncIterator[Sequence[Reading]]]
    """Every object of every project, page by page, as readings with the verb `create`. Of an object that is there and can't be
    shown now (a server in a cell that is down), a reading that says nothing: `update`, `only_known`, no fields."""
    get: Callable[[Cloud, str], Awaitable[Sequence[Reading]]]
    """One object (and what the same answer says of others). Raises NotFound when the service has none of this id."""
    some: Callable[[Cloud, Sequence[str]], Awaitable[Sequence[Reading]]] | None = None
    """Those of these (at most 50) ids that are there, in one request; None: they are asked for one by one."""
    proof: str = ""
    """A path that the service answers with 200 only to somebody whose lists hold every project's objects; "": the list
    itself is refused to others."""
    seldom: bool = False
    """Its listing costs a request per user or the like: not in every pass."""
    transient: Callable[[JsonObject], bool] | None = None
    """Pure. Whether an object with this `status` (as admins see it) will move on without a word. None: none does."""
    transient_fields: tuple[str, ...] = ()
    """The fields that `transient` looks at; it is shown no others."""
    scan: Scan | None = None


# --- kinds -----------------------------------------------------------------------------------------------------------------

FieldType = Literal["string", "integer", "number", "boolean", "array", "object"]


class Field(msgspec.Struct, frozen=True):
    """One field under `status`, named as OpenStack's own API names it."""

    type: FieldType
    doc: str
    """A sentence, shown by `kubectl explain`."""
    admin: bool = False
    """Only admins see it."""


class Column(msgspec.Struct, frozen=True):
    """One column of a Table (kubectl get, vedette watch). `priority` 1 shows with `-o wide` only."""

    name: str
    path: tuple[str, ...]
    """Keys under `status`, e.g. `("fixed_ips", "*", "ip_address")`; `*` goes through a list and joins with commas."""
    type: FieldType = "string"
    priority: int = 0
    doc: str = ""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a file in `kinds/` exports as `KIND`."""

    kind: str
    """`Port`"""
    plural: str
    """`ports`"""
    singular: str
    """`port`: also the file's name and the word on the command line"""
    short_names: tuple[str, ...] = ()
    group: str = OPENSTACK
    doc: str
    """A sentence for `kubectl explain`."""
    events: tuple[str, ...]
    """fnmatch patterns of the event types this kind reads, e.g. `port.*.end`."""
    read: Callable[[Notice], Iterable[Reading]]
    """Pure. Raises nothing on odd payloads that it can skip; `NotUnderstood` when the payload is of the wrong shape."""
    fields: Mapping[str, Field]
    columns: tuple[Column, ...]
    audience: Literal["project", "shared", "owner", "admin"] = "project"
    """Who sees it: the project; also everybody when shared; also its owner; admins only."""
    api: Api | None = None
    """How to list it; None: notifications are all there is."""


# --- who is asking ---------------------------------------------------------------------------------------------------------


class Scope(msgspec.Struct, frozen=True):
    """What a caller may see. Goes into the store's query; it is never a filter in a route."""

    admin: bool = False
    projects: frozenset[str] = frozenset()
    user: str = ""

    def sees(self, version: Version) -> bool:
        return (
            self.admin
            or version.shared
            or (version.project != "" and version.project in self.projects)
            or (version.owner != "" and version.owner == self.user)
        )


EVERYTHING = Scope(admin=True)


class Identity(msgspec.Struct, frozen=True):
    """Who a token speaks for."""

    name: str
    scope: Scope
    key: str
    """Stable per token, never the token: for limits per caller and for dropping verdicts."""
    user: str = ""
    project: str = ""
    """The token's own project: the namespace of `vedette kubeconfig`."""
    roles: frozenset[str] = frozenset()
    expires_at: int = 0
    """UTC microseconds; 0: never."""
    reads_only: bool = False
    """It sees everything and changes nothing: `reader` at system scope, and no admin."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What Keystone says of a valid token."""

    user_id: str
    user_name: str
    project_id: str = ""
    project_name: str = ""
    domain_id: str = ""
    """Of a token scoped to a domain."""
    system: bool = False
    roles: tuple[str, ...] = ()
    admin_project: bool | None = None
    """Where the cloud names an admin project: whether the token is scoped to it."""
    expires_at: int
    """UTC microseconds, Keystone's clock."""
    seconds_left: float
    """By Keystone's clock when it answered, so a wrong clock here makes no token live longer."""


class Authenticator(Protocol):
    """Turns a token into an identity."""

    on_forget: list[Callable[[], None]]
    """Called after each `forget`: who holds streams open asks again."""

    async def identify(self, token: str) -> Identity:
        """Raises Unauthenticated, IdentityUnavailable."""
        ...

    async def recheck(self, token: str) -> Identity:
        """For open streams, once a minute: the same, from a verdict of at most half its life. Raises the same."""
        ...

    def forget(self, *, user: str = "", project: str = "") -> None:
        """Drop verdicts about a user or a project (an `identity.*` notice came); both empty: all of them."""
        ...


# --- store -----------------------------------------------------------------------------------------------------------------


class Selection(msgspec.Struct, frozen=True):
    """Which objects. Everything here is part of the store's query."""

    scope: Scope
    group: str = ""
    kind: str = ""
    """"" for every kind of every group."""
    source: str = ""
    """"" for every source."""
    project: str | None = None
    """One namespace ("" for objects without a project); None: all that the scope allows."""
    id: str = ""
    prefix: str = ""
    """Ids that begin with this: `namespace/`, for objects of another Kubernetes API."""

    def holds(self, key: Key, version: Version) -> bool:
        """Whether this state of this object is selected; the same rule as the query's, for one change."""
        return (
            (not self.kind or (key.kind == self.kind and key.group == self.group))
            and (not self.source or key.source == self.source)
            and (not self.id or key.id == self.id)
            and (not self.prefix or key.id.startswith(self.prefix))
            and (self.project is None or version.project == self.project)
            and self.scope.sees(version)
        )

    def concerns(self, change: Change) -> bool:
        """Whether a follower has to look at the change: the selection holds before or after it."""
        return self.holds(change.key, change.now) or (change.before is not None and self.holds(change.key, change.before))

    def tells(self, appended: Appended) -> bool:
        """Whether an entry is news of something selected: of an object it changed, or of one that a reading speaks of.

        A notice is shown whole, so tenants get it only when every object in it is their own, as it is now: not what is shared
        with them, nor the notice that takes an object to another project, nor a bulk request for several projects.
        """
        if self.scope.admin and not (self.kind or self.id or self.prefix or self.source) and self.project is None:
            return True
        notice = appended.entry.notice
        if self.source and notice.source != self.source:
            return False
        if not self.scope.admin and not self._owns_all_of(appended):
            return False
        if any(self.concerns(change) for change in appended.changes):
            return True
        if not (self.kind or self.id or self.prefix) and self.project is None and self.scope.admin:
            return True
        return any(
            (not self.kind or (reading.kind == self.kind and reading.group == self.group))
            and (not self.id or reading.id == self.id)
            and (not self.prefix or reading.id.startswith(self.prefix))
            and (self.project is None or reading.project == self.project)
            and (self.scope.admin or (bool(reading.project) and reading.project in self.scope.projects))
            for reading in appended.entry.readings
        )

    def _owns_all_of(self, appended: Appended) -> bool:
        scope = self.scope
        owned: set[tuple[str, str, str]] = set()
        for change in appended.changes:
            now = change.now
            if now.project not in scope.projects and not (now.owner and now.owner == scope.user):
                return False
            owned.add((change.key.group, change.key.kind, change.key.id))
        # Of an object that did not change, what the reading says is all there is.
        return all(
            reading.project in scope.projects or (reading.group, reading.kind, reading.id) in owned
            for reading in appended.entry.readings
        )


class Page(msgspec.Struct, frozen=True):
    """Part of a list, as of one revision."""

    revision: int
    items: Sequence[tuple[Key, Version]]
    after: tuple[str, str] | None
    """Where the next page starts (source, id); None: this was the last."""


class Appended(msgspec.Struct, frozen=True):
    """One entry as followers get it: all changes of an entry together."""

    entry: Entry
    changes: tuple[Change, ...]


class Stats(msgspec.Struct, frozen=True):
    """Sizes for the status page and the metrics."""

    entries: int
    objects: int
    bytes: int
    oldest: int
    head: int


class Store(Protocol):
    """The log and its fold. All times are UTC microseconds."""

    @property
    def head(self) -> int:
        """Revision of the newest entry that is durable and folded."""
        ...

    @property
    def oldest(self) -> int:
        """The smallest revision one may follow from; anything smaller is Expired."""
        ...

    async def append(
        self, entries: Sequence[NewEntry], expect: Mapping[Key, int] | None = None, work: Sequence[Work] = ()
    ) -> Sequence[int | None]:
        """Make the entries durable, in order, all or none; each one's revision, None for a duplicate. `work` is done in the
        same transaction, in order; entries may be empty.

        Raises StoreUnavailable (nothing kept), Conflict (an object's revision is not the expected one; 0: must not exist),
        NotUnderstood (a notice that can't be stored at all, e.g. a lone surrogate in its id: no retry helps). An entry whose
        readings can't be folded is kept without them, and logged. Cancelled: it is written all the same.
        """
        ...

    async def adopt(self, entries: Sequence[Entry]) -> None:
        """Take over entries of another log with their revisions and times (a restore, a replica): the same log folds to
        the same bytes. Entries at or below `head` are skipped."""
        ...

    async def wait_folded(self, revision: int) -> None:
        """Return when `revision` shows in reads."""
        ...

    async def get(self, key: Key, scope: Scope) -> Version:
        """Raises NotFound, also for an object that the scope doesn't see."""
        ...

    async def held(self, keys: Sequence[Key]) -> Sequence[Object | None]:
        """What the fold would begin from, tombstones included, in the order of the keys; None: never seen. Not for callers:
        it knows no scope."""
        ...

    async def objects(
        self, selection: Selection, *, revision: int = 0, after: tuple[str, str] | None = None, limit: int = 500
    ) -> Page:
        """Objects as of `revision` (0: now), ordered by (source, id). Raises Expired."""
        ...

    async def changes(self, after: int, *, selection: Selection, limit: int = 500) -> tuple[Sequence[Change], int]:
        """Changes with a revision above `after`, whole entries, oldest first, where the selection holds before or after
        the change; and the revision up to which this is complete: below `head`, ask again from there, also when nothing was
        found (a store looks at so many at a time). Raises Expired."""
        ...

    async def entries(
        self,
        after: int,
        *,
        types: Sequence[str] = (),
        source: str = "",
        selection: Selection | None = None,
        limit: int = 500,
        before: int = 0,
    ) -> tuple[Sequence[Appended], int]:
        """Entries above `after` (and not above `before`, if given) with their changes; `types` are fnmatch patterns; with a
        `selection`, only those that tell of something it selects (`Selection.tells`).
        Also the revision up to which this is complete. Raises Expired."""
        ...

    async def revision_at(self, when: int) -> int:
        """The newest revision appended before `when` (microseconds); `oldest` when all are later."""
        ...

    async def projects(self) -> Sequence[str]:
        """Every project that has an object now."""
        ...

    def follow(self, wake: Callable[[Sequence[Appended]], None]) -> Callable[[], None]:
        """Call `wake` in the event loop with what each commit appended, in order; returns how to stop."""
        ...

    async def retain(self, *, horizon: int, max_bytes: int = 0, most: int = 1000) -> int:
        """Remove up to `most` entries appended before `horizon` (or while the store is above `max_bytes`); how many went.

        Age never passes a handler's cursor, nor a pending delivery that has no copy of its event; size does. Settled
        deliveries go with their entries; dead letters stay."""
        ...

    # What handlers owe (model/delivery.py); written by `append(work=…)`.

    async def cursors(self) -> Mapping[str, Cursor]:
        """Of every handler that ever was and was not dropped, and the shared one."""
        ...

    async def deliveries(
        self,
        *,
        handler: str = "",
        outcomes: Sequence[Outcome] = (),
        revision: int = 0,
        after: tuple[int, str, int] = (0, "", 0),
        limit: int = 1000,
    ) -> Sequence[Delivery]:
        """In the order of (revision, handler, number), those above `after`; "", () and 0 select all."""
        ...

    async def state(self, owner: str, space: str, key: str = "") -> Sequence[State]:
        """What an owner remembers, in the order of the keys; with `key`, that one alone."""
        ...

    async def stats(self) -> Stats: ...

    async def close(self) -> None: ...


# --- sources ---------------------------------------------------------------------------------------------------------------


class Offer(Protocol):
    """What a source is given to hand over news."""

    async def __call__(self, notices: Sequence[Notice | NewEntry]) -> None:
        """Returns when all of them are durable; only then may the source say yes upstream. What is an entry already, with its
        readings, is taken as it is: no kind reads it. Raises TryLater: nothing is promised, offer the same again after the
        delay."""
        ...


class SourceStatus(msgspec.Struct, frozen=True):
    """How a source is, for readiness and the status page."""

    name: str
    type: str
    ready: bool
    detail: str
    last_progress: int = 0
    """UTC microseconds of the last message or proof of life."""
    gaps: int = 0


class Source(Protocol):
    """Connects out and listens until it is cancelled; survives its upstream."""

    @property
    def name(self) -> str: ...

    async def run(self, offer: Offer) -> None:
        """Runs until cancelled. Recovers by itself from everything but CannotStart."""
        ...

    def status(self) -> SourceStatus: ...


class CloudUse(msgspec.Struct, frozen=True, kw_only=True):
    """A source's cloud, and how much of it we may ask for."""

    cloud: Cloud
    admin_roles: frozenset[str] = frozenset({"admin"})
    """In lower case: an account with one of them may see every project."""
    resync_seconds: float
    """Between two passes; 0: only on start, after gaps and on demand."""
    verify: bool
    requests_per_second: float
    """Of verify, for each service."""
    scan_seconds: float


# --- webhooks --------------------------------------------------------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook was called with, already authenticated and of bounded size."""

    name: str
    """The hook's name: the source of its notices."""
    headers: Mapping[str, str]
    """Names in lower case; without those that authenticate."""
    query: Mapping[str, str]
    body: bytes
    received_at: int
    """UTC microseconds, our clock."""


class Webhook(Protocol):
    """What a file in `webhooks/` gives by `build(options, needs)`: one format of a caller's requests. Pure: the route does
    the rest (who may, how large, the append, the answer)."""

    def parse(self, request: Request) -> Sequence[Notice]:
        """The notices in a request, each with an id that the same request sent again has too. Raises NotUnderstood with a text
        for the caller."""
        ...


# --- handlers --------------------------------------------------------------------------------------------------------------


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler is called with: a change of one object, or (`verb` "") a notice."""

    handler: str
    idempotency_key: str
    """`<handler>/<revision>`: the same when the same delivery is made again."""
    revision: int
    attempt: int
    """1 the first time."""
    verb: Verb | Literal[""]
    key: Key | None
    """The object; None: a notice that speaks of none."""
    notice: Notice
    appended_at: int
    """UTC microseconds."""
    raw_object: msgspec.Raw = msgspec.Raw(b"{}")
    """The object's JSON as admins are served it (of DELETED: the last content); `{}` for a notice."""
    raw_old: msgspec.Raw = msgspec.Raw(b"{}")
    """The state before; `{}` when there was none."""
    request_id: str = ""
    """`req-…`: send it along as `X-Openstack-Request-Id` when you change the cloud, and what comes of it is known as yours."""
    traceparent: str = ""
    """W3C trace context of this call, where there is a trace."""
    replay: bool = False
    """A person asked for it to be made again."""

    @property
    def object(self) -> JsonObject:
        """Decoded each time it is asked for."""
        return _json_object(self.raw_object)

    @property
    def old(self) -> JsonObject:
        return _json_object(self.raw_old)

    @property
    def payload(self) -> Any:
        """What the service said, decoded."""
        return msgspec.json.decode(self.notice.payload)

    @property
    def type(self) -> str:
        """The event type, e.g. `port.update.end`."""
        return self.notice.event_type


def _json_object(raw: msgspec.Raw) -> JsonObject:
    found: JsonObject = msgspec.json.decode(raw)
    return found


class Inventory(Protocol):
    """The present state of objects, for handlers. Knows no scope: handlers are the operator's."""

    async def get(self, key: Key) -> JsonObject | None:
        """As admins are served it; None: there is none now."""
        ...

    async def last(self, key: Key) -> JsonObject | None:
        """Also what was last known of one that is gone, as long as the log has it."""
        ...

    async def all(self, source: str, kind: str) -> Mapping[str, JsonObject]:
        """Every object of one of OpenStack's kinds, by its id, as admins are served it."""
        ...


class Context(Protocol):
    """What a handler has while it handles one event."""

    @property
    def timeout(self) -> float:
        """Seconds it may take in all; then it is cancelled, and that is a failed attempt."""
        ...

    async def recall(self, name: str) -> Any:
        """What this handler remembered under this name (JSON values); None: nothing."""
        ...

    def remember(self, name: str, value: Any) -> None:
        """Kept, in the write that says that this event was handled, when `handle` returns; None forgets. At most 64 KiB."""
        ...


class Handler(Protocol):
    """What a file in `handlers/` gives by `build(options, needs)`. It may be called again with an event that it has handled
    (at least once), with the same idempotency key; never twice at a time for one object."""

    async def handle(self, event: Event, context: Context) -> str | None:
        """Returns a few words for the outcome (`204 from https://…`), or None. Raises TryLater (its delay is kept to),
        TargetUnavailable (nobody is there: no attempt is spent), GiveUp (straight to the dead letters); any other exception is
        a failed attempt and is tried again."""
        ...

    async def close(self) -> None: ...


class Worker(Protocol):
    """A process of its own for foreign code, started when it is first needed and anew when it ends."""

    async def call(self, message: bytes, timeout: float) -> bytes:
        """Hand over one message (JSON) and get the answer. Calls may overlap; the process takes them in order.

        Raises TryLater, TargetUnavailable, GiveUp as the code raised them; WorkerDied when the process ended in the middle or
        was killed at the deadline (with this message being the one in its hands)."""
        ...

    async def close(self) -> None: ...


class Tracer(Protocol):
    """Spans of handler calls, where tracing is configured."""

    def call(self, name: str, traceparent: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[str]:
        """Around one call: a child of `traceparent` ("": a trace of its own); gives the traceparent to hand on. An exception
        that goes through it marks the span as failed."""
        ...

    def close(self) -> None: ...


class WorkerCode(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs. The child imports `module` (a dotted name, or the path of a .py file or a package's folder) and calls
    its `build(options, needs)`; a module without one but with a function `handle(event, context)` is a handler as it is."""

    name: str
    """For the log, the process' title and metrics."""
    module: str
    options: JsonObject = {}
    path: tuple[str, ...] = ()
    """Folders put before `sys.path` in the child."""
    concurrency: int = 1
    """Messages it may have in hand at a time (async code); blocking code has one."""


class HandlerNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What `build(options, needs)` of a shipped handler is given."""

    name: str
    """The handler's own name."""
    clock: Clock
    telemetry: Telemetry
    inventory: Inventory
    cloud: Callable[[str], Cloud | None]
    """The API of a source, by the source's name; None: it has none."""
    worker: Callable[[WorkerCode], Worker]


# --- mirrors ---------------------------------------------------------------------------------------------------------------


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """One object that a mirror keeps elsewhere, as `mirroredobjects` shows it."""

    mirror: str
    """The mirror's name."""
    type: str
    """The other system's word for it: rack, device, template."""
    target_id: str
    """Its id there."""
    kind: str
    """What it shows: the kind …"""
    object_id: str
    """… and the id of the inventory's object."""
    name: str
    """What it is called there."""
    state: str = ""
    """The status it has there, if any."""


class Compared(msgspec.Struct):
    """What a full comparison did."""

    objects: int = 0
    """Looked at."""
    created: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    """Not removed, because nobody could confirm that the cloud has them no more."""
    failed: int = 0
    """Refused by the other system, each told in the log."""


class Mirror(Handler, Protocol):
    """What a file in `mirrors/` gives by `build(options, needs)`: another system that is kept equal to the inventory.

    As a handler it is given every change of its `kinds`, and makes equal what the change touches, by what the inventory says
    *then*: an old event does no harm, and twice is as good as once. It may be called before the first comparison is over."""

    kinds: frozenset[str]
    """The kinds that concern it."""

    async def compare(self) -> Compared:
        """Read everything there, and make it equal. Raises TargetUnavailable, TryLater."""
        ...


class Pushed(msgspec.Struct):
    """What became of samples that were handed on."""

    sent: int = 0
    unknown: int = 0
    """Of servers that are not shown there (yet): handed on again with the next round."""
    failed: int = 0
    trouble: str = ""
    """What went wrong with one that failed."""


class TakesSamples(Protocol):
    """Where engine/polling.py hands measurements on to, such as a mirror that shows them."""

    async def push(self, samples: Sequence[Sample]) -> Pushed:
        """Raises TargetUnavailable when nobody takes any."""
        ...


class MirrorNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What `build(options, needs)` of a mirror is given. Its module has a struct `Options`."""

    name: str
    clock: Clock
    telemetry: Telemetry
    inventory: Inventory
    source: Callable[[str], str]
    """The source that is meant ("": the default one). Raises ConfigError when there is none such."""
    cloud: Callable[[str], Cloud | None]
    """The API of a source, by the source's name; None: it has none."""
    absent: Callable[[Key], Awaitable[bool]]
    """Whether it is certain that there is no such object: it was announced, or the API says so. Not knowing is False."""
    keep: Callable[[Sequence[Mirrored], Sequence[Mirrored]], Awaitable[None]]
    """`keep(there, gone)`: tell the log which objects are mirrored now, and which are no more. What it knows already costs
    nothing."""
    keep_only: Callable[[Sequence[Mirrored]], Awaitable[None]]
    """The same after a comparison: these are all there are."""
    recall: Callable[[], Awaitable[Mapping[str, bytes]]]
    """Everything that was remembered."""
    remember: Callable[[Mapping[str, bytes | None]], Awaitable[None]]
    """Some more, durably; None forgets."""


# --- meters ----------------------------------------------------------------------------------------------------------------


class Meter(Protocol):
    """What a file in `meters/` gives by `build(options, needs)`: one datasource of measurements."""

    metrics: frozenset[str]
    """The names (model/advice.py) that it can tell."""

    async def read(self, query: Query, resources: Sequence[Resource], at: int) -> Mapping[str, float]:
        """The values of these hosts or servers, by `Resource.id`, in the units of `advice.MetricName`, for the period that ends
        `at` (UTC microseconds). Who has no data is missing. In as few requests as the datasource allows.

        Raises TryLater: it can't be asked (that is not "no data"); FixInput: it refuses the question."""
        ...

    async def state(self) -> str:
        """ "available", or why it can't be asked."""
        ...

    async def close(self) -> None: ...


class Sampler(Meter, Protocol):
    """A meter that also tells what every server of some projects uses, for engine/polling.py."""

    async def samples(self, projects: Sequence[str], at: int, granularity: int, *, per_vcpu: bool) -> Samples:
        """The last values before `at` (UTC microseconds). `granularity`: seconds, as the datasource keeps measures. What has no
        data is counted and is not there. Raises TryLater, FixInput."""
        ...


class MeterNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What `build(options, needs)` of a meter is given. Its module has a struct `Options`."""

    name: str
    clock: Clock
    telemetry: Telemetry
    cloud: Callable[[str], Cloud | None]
    """The API of a source, by the source's name ("": the one that audits are for): for datasources in its catalog."""


# --- strategies ------------------------------------------------------------------------------------------------------------

Model = Literal["compute", "storage", "baremetal"]


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """What a file in `strategies/` exports as `STRATEGY`: pure advice. The same input gives the same answer, in every process."""

    name: str
    """The file's name, and Watcher's."""
    display_name: str
    goal: str
    """A name of model/goals.py."""
    doc: str
    """Sentences for docs/plugs/strategies: what it does and when to use it."""
    schema: JsonObject = msgspec.field(default_factory=lambda: {"properties": {}})
    """JSON schema (draft 7) of its parameters, with `default`s and `description`s, as Watcher's `parameters_spec`."""
    models: tuple[Model, ...] = ("compute",)
    """What its snapshot has to hold; () for none."""
    metrics: Callable[[Snapshot, JsonObject], Sequence[Query]] = lambda snapshot, parameters: ()
    """What has to be measured before it is asked."""
    propose: Callable[[Snapshot, Metrics, JsonObject, Sequence[Trigger]], Solution]
    """`propose(snapshot, metrics, parameters, triggers)`: parameters are valid and have their defaults; `triggers` is what set
    the audit off, oldest first, () if nothing did. Raises BadRequest with a sentence when it can't answer (parameters that don't
    fit the cloud)."""
    measure: Callable[[Snapshot, Snapshot, Metrics, JsonObject, Sequence[Done]], dict[str, float]] | None = None
    """`measure(before, after, metrics, parameters, done)`: the indicators of the goal as they turned out: from the snapshot the
    plan was made for, one of now, measurements of now, and what became of the plan's actions. None: nothing to measure."""
    planner: str = ""
    """The planner (engine/planner.py) that its actions need; "": the configuration's."""


# --- actions ---------------------------------------------------------------------------------------------------------------


class Hands(msgspec.Struct, frozen=True, kw_only=True):
    """What an action works with while it does one thing."""

    cloud: Cloud
    clock: Clock
    request_id: str
    """For `Cloud.send`."""
    say: Callable[[str], None]
    """A few words on how far it is, for the plan's watchers (`migrating, 40 %`)."""
    wait: Callable[[Callable[[], Awaitable[bool]], float, str], Awaitable[None]]
    """`wait(ready, seconds, what)`: until `ready()` says so, asked again at growing intervals and whenever the log has news of an
    object of the action (`resource_id`). A cloud that can't be asked meanwhile (TryLater) is asked again. Raises GiveUp("… after
    … seconds") when the time is over."""


class Skip(msgspec.Struct, frozen=True):
    """There is nothing to do, and why: the action ends SKIPPED."""

    reason: str


class Ready(msgspec.Struct, frozen=True):
    """The pre-condition holds."""

    before: JsonObject = {}
    """What is there now and undoing needs; kept with the intent, before anything is done."""


Standing = Literal["done", "undone", "running", "unsure"]
"""`done`: what it was to bring about is so. `undone`: things are as before it. `running`: the cloud is at it."""


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What a file in `actions/` exports as `ACTION`. All functions are given valid `input_parameters`; all but `check` also what
    `check` found. They raise GiveUp (it failed, and why), and what `Cloud` raises (a failure too)."""

    name: str
    """Watcher's `action_type`, the file's name."""
    doc: str
    """A sentence: Watcher's description."""
    schema: JsonObject
    """JSON schema (draft 7) of `input_parameters`."""
    check: Callable[[Hands, JsonObject], Awaitable[Ready | Skip]]
    """The pre-condition, against the present state. Changes nothing."""
    run: Callable[[Hands, JsonObject, JsonObject], Awaitable[None]]
    """`run(hands, parameters, before)`: do it and wait for its end. May be called again after a crash: what is done already is
    not done twice."""
    verify: Callable[[Hands, JsonObject, JsonObject], Awaitable[None]]
    """The post-condition, by reading back. Raises GiveUp if it doesn't hold."""
    look: Callable[[Hands, JsonObject, JsonObject], Awaitable[Standing]]
    """After a crash in the middle: where does it stand? Changes nothing."""
    undo: Callable[[Hands, JsonObject, JsonObject], Awaitable[None]] | None = None
    """Take it back and wait. None: it can't be undone."""
    abort: Callable[[Hands, JsonObject, JsonObject], Awaitable[bool]] | None = None
    """End it in the middle; whether that worked. `run` is still waiting then, and ends by itself. None: it can't be aborted."""
    places: Callable[[JsonObject], tuple[str, ...]] = lambda parameters: ()
    """Where it puts a load: `host:NAME`, `pair:A>B`, `pool:NAME`. The applier and the planner have a limit for each kind."""
    resource: str = "server"
    """What `resource_id` names: server, volume, host, node, "" for nothing."""
