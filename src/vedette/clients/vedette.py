"""A client of our own API: lists, watches, events and state of a running Vedette, over HTTP.

In: where the server is and how to get a token. Out: objects, changes, CloudEvents and how the service is, as values; `cli/`
prints them. What a watch promises (ordered, nothing lost, nothing twice) is kept across cuts: a place is remembered, the stream
is asked for again from there with growing pauses, and where the log has moved on (410) the client lists anew and tells the
difference.
(kubernetes.io/docs/reference/using-api/api-concepts, "Efficient detection of changes"; DESIGN §4.)
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from vedette.errors import (
    BadRequest,
    Conflict,
    Expired,
    FixInput,
    Forbidden,
    NotFound,
    TooBusy,
    TryLater,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.backoff import delays

PAGE = 500
"""Objects asked for at a time."""
MAX_LINE = 64 * 1024 * 1024
"""Bytes of one event; a longer line is no answer of a Vedette."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one page or document."""
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""For answers that are not streams."""
SILENT_SECONDS = 70.0
"""A stream that says nothing for so long is dead: bookmarks come every 15 s unless the server is set otherwise."""
MOST_SILENT_SECONDS = 600.0

GOES_ON = "the comparison goes on there, and `vedette status` tells how"

JSON = "application/json"
NDJSON = "application/x-ndjson, application/json, */*"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

_T = TypeVar("_T")
Form = Literal["json", "table"]
FindToken = Callable[[bool], Awaitable[str]]
"""Gives the token to send, "" for none. Called with True when the server refused the last one: find another."""


class Resource(msgspec.Struct, frozen=True):
    """What the server calls one kind."""

    group: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """`port.openstack.vedette.dev`, as `kubectl -o name` says it."""
        return f"{self.singular}.{self.group}" if self.group else self.singular


class Target(msgspec.Struct, frozen=True):
    """What to list or watch."""

    resource: Resource
    source: str = ""
    """"" for the default one, `*` for all."""
    project: str = ""
    """"" for every project that the token sees."""
    label_selector: str = ""
    field_selector: str = ""

    def path(self) -> str:
        prefix = f"/clusters/{quote(self.source, safe='*')}" if self.source else ""
        base = f"/{'apis' if self.resource.group else 'api'}/{self.resource.api_version}"
        space = f"/namespaces/{quote(self.project, safe='')}" if self.project and self.resource.namespaced else ""
        return f"{prefix}{base}{space}/{self.resource.plural}"

    def query(self) -> dict[str, str]:
        asked = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in asked.items() if value}


class Column(msgspec.Struct, frozen=True):
    """One column of a Table; `priority` above 0 is for wide output."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


class Item(msgspec.Struct, frozen=True):
    """One object; in table form `cells` go with the columns of its page."""

    namespace: str
    name: str
    revision: int
    cells: tuple[Any, ...]
    raw: msgspec.Raw
    """The object's JSON; in table form only what identifies it."""


class Page(msgspec.Struct, frozen=True):
    """Part of a list, as of one revision."""

    revision: int
    columns: tuple[Column, ...]
    items: tuple[Item, ...]
    more: str


class Columns(msgspec.Struct, frozen=True):
    """What the cells of the events mean; comes once, before the first event, in table form only."""

    columns: tuple[Column, ...]


class Listed(msgspec.Struct, frozen=True):
    """The state to begin with was given; what follows happened after `revision`."""

    revision: int


class Event(msgspec.Struct, frozen=True):
    """ADDED, MODIFIED or DELETED. `initial`: part of the state to begin with, not a change."""

    verb: str
    item: Item
    initial: bool = False


class Place(msgspec.Struct, frozen=True):
    """Everything up to this revision was given."""

    revision: int


class Cut(msgspec.Struct, frozen=True):
    """The stream ended; it is asked for again in `delay` seconds."""

    why: str
    delay: float


class Resumed(msgspec.Struct, frozen=True):
    """It goes on after `revision`; nothing was lost."""

    revision: int


class ListedAgain(msgspec.Struct, frozen=True):
    """The place was gone (`why`). The differences to what was known were given as events; steps in between are lost."""

    why: str
    revision: int


class Told(msgspec.Struct, frozen=True):
    """One CloudEvent of `/v1/events`."""

    revision: int
    type: str
    raw: msgspec.Raw


class Gap(msgspec.Struct, frozen=True):
    """Retention has removed events that were still to come; it goes on with the oldest there is."""

    why: str


class Missed(msgspec.Struct, frozen=True):
    """What notifications did not say, as a comparison with the cloud found it."""

    created: int = 0
    updated: int = 0
    deleted: int = 0


class KindReport(msgspec.Struct, frozen=True, rename="camel"):
    """How one kind's last comparison with the cloud went, or how the present one goes."""

    kind: str
    state: str = "never"
    """`never`, `waiting`, `listing`, `confirming`; and how it ended: `done`, `absent`, `incomplete`, `refused`, `held`."""
    detail: str = ""
    listed: int = 0
    missed: Missed = Missed()
    completed: int = 0
    """Objects that got fields which no notification carries."""
    held: int = 0
    """Deletions that wait for a person."""
    sees_all: bool = False
    seconds: float = 0.0
    ended_at: str | None = None
    complete_at: str | None = None
    """When the last whole one ended; None: there was none."""

    @property
    def ended(self) -> bool:
        return self.state not in ("never", "waiting", "listing", "confirming")

    @property
    def well(self) -> bool:
        """Ended, and nothing is left to do: the inventory has what the cloud has, or the cloud has no such service."""
        return self.state in ("done", "absent")

    @property
    def partly(self) -> bool:
        """Well, but the account may not have seen every project's objects: nothing was taken for deleted."""
        return self.state == "done" and not self.sees_all


class SourceNow(msgspec.Struct, frozen=True, rename="camel"):
    """A source, as `/v1/status` tells it."""

    name: str
    type: str = ""
    ready: bool = False
    detail: str = ""
    last_progress: str | None = None
    gaps: int = 0


class ResyncNow(msgspec.Struct, frozen=True, rename="camel"):
    state: str = ""
    """`waiting` for its first pass, `running`, `idle`."""
    detail: str = ""
    next_in_seconds: float | None = None
    kinds: tuple[KindReport, ...] = ()


class VerifyNow(msgspec.Struct, frozen=True):
    followed: tuple[str, ...] = ()
    """Kinds that somebody follows."""
    waiting: dict[str, int] = {}
    """Kind → objects that are read until they have settled."""
    detail: str = ""
    """What keeps it from looking."""


class CloudNow(msgspec.Struct, frozen=True):
    """What is known of a source's API; `api` False: it has none."""

    source: str
    api: bool = False
    detail: str = ""
    resync: ResyncNow | None = None
    verify: VerifyNow | None = None


class StoreNow(msgspec.Struct, frozen=True, rename="camel"):
    entries: int = 0
    objects: int = 0
    bytes: int = 0
    head_revision: str = ""


class WatchNow(msgspec.Struct, frozen=True):
    position: str = ""
    watchers: int = 0


class HandlerNow(msgspec.Struct, frozen=True, rename="camel"):
    """A handler of the configuration, as `/v1/handlers` tells it."""

    name: str
    use: str = ""
    state: str = ""
    """`ready`; `behind` (it reads the log to where the others are); `waiting` for its target; `paused` by its dead letters."""
    detail: str = ""
    lag: int = 0
    """Entries of the log that were not sorted for it yet."""
    pending: int = 0
    """Deliveries that wait or are being made."""
    dead_letters: int = 0
    last_error: str = ""


class MirrorNow(msgspec.Struct, frozen=True, rename="camel"):
    """A mirror, and its last full comparison."""

    name: str
    compared_at: str | None = None
    objects: int = 0
    kept: int = 0
    """Not removed, because nobody confirms that the cloud has them no more."""
    failed: int = 0
    """Refused by the other system."""
    trouble: str = ""
    """Why it can't be compared now."""


class PollingNow(msgspec.Struct, frozen=True, rename="camel"):
    """The last round of measurements of servers."""

    read_at: str | None = None
    servers: int = 0
    samples: int = 0
    missing: int = 0
    """Values without data."""
    trouble: str = ""


class StatusNow(msgspec.Struct, frozen=True):
    """How the service is."""

    sources: tuple[SourceNow, ...] = ()
    store: StoreNow = StoreNow()
    clouds: tuple[CloudNow, ...] = ()
    handlers: tuple[HandlerNow, ...] = ()
    mirrors: tuple[MirrorNow, ...] = ()
    polling: PollingNow | None = None
    watch: WatchNow = WatchNow()


class Which(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which dead letters: by id, or by what is given of the others."""

    ids: tuple[str, ...] = ()
    handler: str = ""
    since: str = ""
    """When they failed: a time (RFC 3339), or `2h`; so is `until`."""
    until: str = ""
    contains: str = ""
    """A piece of the error or of the event."""
    all: bool = False


class Letter(msgspec.Struct, frozen=True, rename="camel"):
    """A dead letter."""

    id: str
    handler: str
    revision: str = ""
    subject: dict[str, str] | None = None
    """source, group, kind, id of the object; None: a notification that speaks of none, or nobody knows."""
    event_type: str = ""
    verb: str = ""
    attempts: int = 0
    error: str = ""
    next_step: str = ""
    first_at: str | None = None
    failed_at: str | None = None
    idempotency_key: str = ""
    event: msgspec.Raw = msgspec.Raw(b"null")
    """JSON of the event that it keeps; `null` in a list, and when it is lost."""


class Letters(msgspec.Struct, frozen=True):
    """The first of them, and how many there are."""

    total: int
    items: tuple[Letter, ...]


class Settling(msgspec.Struct, frozen=True, tag="progress"):
    """So many of the letters are redriven or discarded."""

    done: int
    of: int


class Settled(msgspec.Struct, frozen=True, tag="end"):
    """That was all."""

    redriven: int = 0
    discarded: int = 0
    lost: tuple[str, ...] = ()
    """Letters without an event, which can only be discarded."""


class Match(msgspec.Struct, frozen=True, rename="camel", tag="match"):
    """What a replay delivers, or would deliver, again."""

    revision: str
    event_type: str = ""
    verb: str = ""
    subject: str = ""
    sent_at: str | None = None


class Waiting(msgspec.Struct, frozen=True, rename="camel", tag="waiting"):
    """Nothing matched for a while, or the handler has no room yet."""

    matched: int = 0
    up_to: str = ""


class Replayed(msgspec.Struct, frozen=True, rename="camel", tag="end"):
    """That was all."""

    matched: int = 0
    up_to: str = ""
    dry_run: bool = False


class Part(msgspec.Struct, frozen=True):
    """A piece of a condition between two top-level `&&`."""

    text: str
    verdict: bool | str = False
    """`error`: it could not be said, which is as if it were not so."""
    detail: str = ""


class Verdict(msgspec.Struct, frozen=True, rename="camel"):
    """What one `on:` of a handler says."""

    matched: bool
    why_not: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


class About(msgspec.Struct, frozen=True):
    """What a handler's `on:` say of a change, or of the notification."""

    of: str
    """`notification`, or the object as `source/group/Kind/id`."""
    verb: str = ""
    matched: bool = False
    on: tuple[Verdict, ...] = ()


class DeliveryNow(msgspec.Struct, frozen=True, rename="camel"):
    """A delivery of a handler, and what became of it."""

    id: str
    subject: str = ""
    outcome: str = ""
    attempts: int = 0
    detail: str = ""
    at: str | None = None
    next_at: str | None = None
    replay: bool = False


class HandlerSays(msgspec.Struct, frozen=True):
    """Whether a handler matches an event, and what it owes or did."""

    handler: str
    matched: bool | None = None
    """None: it is not configured, or the event is gone."""
    about: tuple[About, ...] = ()
    deliveries: tuple[DeliveryNow, ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    """Of one event."""

    revision: str
    type: str = ""
    source: str = ""
    id: str = ""
    gone: str = ""
    """Why no more than the deliveries can be told."""
    handlers: tuple[HandlerSays, ...] = ()


News = Columns | Listed | Event | Place | Cut | Resumed | ListedAgain
EventNews = Told | Place | Cut | Resumed | Gap


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    more: str | None = msgspec.field(default=None, name="continue")


class _Identified(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _Row(msgspec.Struct):
    cells: tuple[Any, ...]
    object: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))


class _Table(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    columns: tuple[Column, ...] | None = msgspec.field(default=None, name="columnDefinitions")
    rows: tuple[_Row, ...] | None = None


class _List(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    items: tuple[msgspec.Raw, ...] = ()


class _Line(msgspec.Struct):
    """A line of a watch, or of `/v1/events` (then without an object)."""

    type: str
    object: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    revision: str = ""


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0


_identified = msgspec.json.Decoder(_Identified).decode
_table = msgspec.json.Decoder(_Table).decode
_list = msgspec.json.Decoder(_List).decode
_line = msgspec.json.Decoder(_Line).decode
_document = msgspec.json.Decoder(dict[str, Any]).decode
_report = msgspec.json.Decoder(KindReport).decode
_status = msgspec.json.Decoder(StatusNow).decode
_handlers = msgspec.json.Decoder(dict[str, tuple[HandlerNow, ...]]).decode
_letters = msgspec.json.Decoder(Letters).decode
_letter = msgspec.json.Decoder(Letter).decode
_settling = msgspec.json.Decoder(Settling | Settled).decode
_replaying = msgspec.json.Decoder(Match | Waiting | Replayed).decode
_explanation = msgspec.json.Decoder(Explanation).decode


async def no_token(_refused: bool) -> str:
    """For servers that ask nobody who they are."""
    return ""


class VedetteClient:
    """Use it in `async with`. All methods raise VedetteError with a text for a person: TryLater when the server can't be reached,
    Unauthenticated, Forbidden, NotFound, BadRequest, Expired as it answered."""

    def __init__(
        self,
        url: str,
        *,
        token: FindToken = no_token,
        ca: Path | None = None,
        allow_insecure: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        """`ca`: a PEM file to trust instead of the system's. Tokens go over plain http to loopback only, unless
        `allow_insecure`."""
        self.url = url.rstrip("/")
        self._find_token = token
        self._sleep = sleep
        self._silent_seconds = silent_seconds
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FixInput(f"{url!r} is not the address of a server; it looks like https://vedette.example:8470")
        self._may_send_token = parts.scheme == "https" or allow_insecure or is_loopback(parts.hostname)
        self._ssl: ssl.SSLContext | bool = True
        if ca is not None:
            try:
                self._ssl = ssl.create_default_context(cafile=str(ca))
            except (OSError, ssl.SSLError) as why:
                raise FixInput(f"the certificate file {ca} can't be used: {why}") from None
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> VedetteClient:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    # --- documents ---

    async def document(
        self, path: str, query: Mapping[str, str] | None = None, *, accept: str = JSON, post: bytes | None = None
    ) -> bytes:
        """The body of one answer; with `post`, of one to a POST of this JSON."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._ask(path, query or {}, accept, post=post) as response:
                parts: list[bytes] = []
                size = 0
                async for part in response.content.iter_any():
                    size += len(part)
                    if size > MAX_ANSWER:
                        raise FixInput(f"{self.url}{path} answered more than {MAX_ANSWER} bytes")
                    parts.append(part)
                return b"".join(parts)
        except TimeoutError:
            raise TryLater(f"{self.url} didn't answer within {ANSWER_SECONDS:.0f} s") from None
        except aiohttp.ClientError as why:
            raise TryLater(f"the answer of {self.url} broke off: {why or type(why).__name__}") from None

    async def answers_anyone(self) -> bool:
        """Whether the server wants no token."""
        asked = VedetteClient(self.url)
        asked._ssl = self._ssl
        try:
            async with asked:
                await asked.document("/version")
        except Unauthenticated:
            return False
        return True

    async def resources(self, source: str = "") -> tuple[Resource, ...]:
        """Every kind that the server has; namespaces, of the core group, last."""
        prefix = f"/clusters/{quote(source, safe='*')}" if source else ""
        groups = self._decoded(await self.document(f"{prefix}/apis")).get("groups") or []
        versions = [(group["name"], group["preferredVersion"]["groupVersion"].rpartition("/")[2]) for group in groups]
        found: list[Resource] = []
        for name, version in [*versions, ("", "v1")]:
            listing = self._decoded(await self.document(f"{prefix}/{f'apis/{name}' if name else 'api'}/{version}"))
            found += [
                Resource(
                    group=name,
                    kind=one["kind"],
                    plural=one["name"],
                    singular=one.get("singularName") or one["kind"].lower(),
                    short_names=tuple(one.get("shortNames") or ()),
                    version=version,
                    namespaced=one.get("namespaced", True),
                )
                for one in listing.get("resources") or []
                if "/" not in one["name"]
            ]
        return tuple(found)

    async def resource(self, word: str, source: str = "") -> Resource:
        """The kind that a person means by `port`, `ports`, `Port`, `lb` or `ports.openstack.vedette.dev`. Raises NotFound."""
        wanted, _, group = word.lower().partition(".")
        found = await self.resources(source)
        for one in found:
            if wanted in (one.singular, one.plural, one.kind.lower(), *one.short_names) and group in ("", one.group):
                return one
        raise NotFound(f"no kind is called {word!r}; there are: {', '.join(sorted(one.singular for one in found))}")

    # --- lists ---

    async def pages(self, target: Target, *, form: Form = "json") -> AsyncGenerator[Page, None]:
        """The selected objects, all as of the first page's revision."""
        query = {**target.query(), "limit": str(PAGE)}
        while True:
            body = await self.document(target.path(), query, accept=TABLE if form == "table" else JSON)
            page = self._page(body, form)
            yield page
            if not page.more:
                return
            query["continue"] = page.more

    def _page(self, body: bytes, form: Form) -> Page:
        if form == "table":
            table = self._with(_table, body)
            items = tuple(_item(row.object, row.cells) for row in table.rows or ())
            return Page(_revision(table.metadata), table.columns or (), items, table.metadata.more or "")
        listing = self._with(_list, body)
        return Page(_revision(listing.metadata), (), tuple(_item(raw) for raw in listing.items), listing.metadata.more or "")

    # --- watch ---

    async def watch(self, target: Target, *, form: Form = "json", since: int = 0) -> AsyncGenerator[News, None]:
        """The state, then every change, for as long as one iterates; with `since` only what came after that revision.

        Raises what the first request raises; later only what no waiting mends (rights gone, kind gone).
        """
        known: dict[tuple[str, str], int] = {}
        told_columns = form != "table"
        # Changes of one entry share a revision, and a cut may fall between them. So the place to resume from is the revision
        # before the newest one seen, and as many changes of the newest as were seen are passed over.
        safe, newest, seen = since, 0, 0
        if not since:
            async for page in self.pages(target, form=form):
                if not told_columns:
                    told_columns = True
                    yield Columns(page.columns)
                safe = page.revision
                for item in page.items:
                    known[item.namespace, item.name] = item.revision
                    yield Event("ADDED", item, initial=True)
            yield Listed(safe)
        yield Place(safe)
        ever = not since  # the list was answered
        cut = False
        silent = self._silent_seconds
        waits = delays()
        query = {**target.query(), "watch": "true", "allowWatchBookmarks": "true"}
        accept = TABLE if form == "table" else JSON
        while True:
            delay = 0.0
            skip = seen
            try:
                async with self._ask(target.path(), {**query, "resourceVersion": str(safe)}, accept) as response:
                    ever = True
                    if cut:
                        cut = False
                        yield Resumed(newest or safe)
                    async for raw, whole in self._lines(response, silent):
                        if raw:
                            line = self._with(_line, raw)
                            if line.type == "ERROR":
                                _raise(msgspec.json.decode(line.object, type=_Status))
                            waits = delays()
                            if line.type == "BOOKMARK":
                                silent = self._silent_seconds
                                place = _bookmarked(line.object)
                                if place >= newest:
                                    safe, newest, seen, skip = max(safe, place), 0, 0, 0
                                    yield Place(safe)
                                continue
                            item, defined = _changed(line.object, form)
                            if not told_columns:
                                told_columns = True
                                yield Columns(defined)
                            if item.revision == newest and skip:
                                skip -= 1
                                continue
                            if item.revision > newest:
                                safe, newest, seen = max(safe, newest), item.revision, 0
                                skip = 0
                            seen += 1
                            if line.type == "DELETED":
                                known.pop((item.namespace, item.name), None)
                            else:
                                known[item.namespace, item.name] = item.revision
                            yield Event(line.type, item)
                        elif whole and newest:
                            # The server sends what belongs together as one chunk; good enough to tell a person the place.
                            yield Place(newest)
                why = "the server ended the stream"
            except Expired as gone:
                if since and not known and not ever:
                    raise
                yield Cut(f"the place {safe} is gone ({gone}); listing again", 0.0)
                async for news in self._list_again(target, form, known, since):
                    if isinstance(news, ListedAgain):
                        safe, newest, seen = news.revision, 0, 0
                    yield news
                yield Place(safe)
                continue
            except Unauthenticated:
                if not ever:
                    raise
                why = "the token has ended"
            except TryLater as later:
                if not ever:
                    raise
                why, delay = str(later), later.delay
            except _Silent:
                # Perhaps its bookmarks are rarer than we think: be more patient next time.
                why, silent = f"nothing was heard for {silent:.0f} s", min(silent * 2, MOST_SILENT_SECONDS)
            except msgspec.DecodeError as odd:
                raise self._odd(odd) from None
            except (aiohttp.ClientError, OSError) as broken:
                why = f"the connection broke ({broken or type(broken).__name__})"
            delay = max(delay, next(waits))
            cut = True
            yield Cut(why, delay)
            await self._sleep(delay)

    async def _list_again(self, target: Target, form: Form, known: dict[tuple[str, str], int], since: int) -> AsyncIterator[News]:
        """What is different from `known`, as events; `known` is brought up to date."""
        there: set[tuple[str, str]] = set()
        revision = 0
        waits = delays()
        pages = self.pages(target, form=form)
        while True:
            try:
                page = await anext(pages)
            except StopAsyncIteration:
                break
            except TryLater as later:
                delay = max(later.delay, next(waits))
                yield Cut(str(later), delay)
                await self._sleep(delay)
                pages, there = self.pages(target, form=form), set()
                continue
            revision = page.revision
            for item in page.items:
                key = (item.namespace, item.name)
                there.add(key)
                before = known.get(key)
                known[key] = item.revision
                if before is None:
                    yield Event("ADDED", item, initial=bool(since))
                elif before != item.revision:
                    yield Event("MODIFIED", item)
        for namespace, name in [key for key in known if key not in there]:
            del known[namespace, name]
            # The last content is not kept: memory for as many objects as there are would be the price.
            metadata = {"name": name, "namespace": namespace, "resourceVersion": str(revision)}
            raw = msgspec.json.encode(
                {"apiVersion": target.resource.api_version, "kind": target.resource.kind, "metadata": metadata}
            )
            yield Event("DELETED", Item(namespace, name, revision, (name,), msgspec.Raw(raw)))
        yield ListedAgain("the log no longer reaches back to the last place", revision)

    # --- events ---

    async def head(self) -> int:
        """The newest revision, as of now."""
        page = self._with(_list, await self.document("/api/v1/namespaces"))
        return _revision(page.metadata)

    async def events(
        self, query: Mapping[str, str], *, after: int | None = None, since: str = "", follow: bool = True
    ) -> AsyncGenerator[EventNews, None]:
        """CloudEvents after a revision (0: all there are), since a time (RFC 3339, or `15m`), or from now.

        `query`: type, source, project, kind, id, filter. Without `follow` it ends with the newest.
        """
        if after is None and not since:
            # "From now" must stay the same moment when the stream is cut before its first line.
            after = await self.head()
        ever = cut = False
        silent = self._silent_seconds
        waits = delays()
        while True:
            delay = 0.0
            place = {"since": since} if after is None else {"after": str(after)}
            asked = {**query, **place, "follow": "true" if follow else "false"}
            try:
                async with self._ask("/v1/events", asked, NDJSON) as response:
                    ever = True
                    if cut:
                        cut = False
                        yield Resumed(after or 0)
                    async for raw, _whole in self._lines(response, silent):
                        if not raw:
                            continue
                        line = self._with(_line, raw)
                        if line.type == "ERROR":
                            _raise(msgspec.json.decode(line.object, type=_Status))
                        waits = delays()
                        silent = self._silent_seconds
                        after = max(after or 0, int(line.revision))
                        if line.type != "vedette.bookmark":
                            yield Told(after, line.type, msgspec.Raw(raw))
                        yield Place(after)
                if not follow:
                    return
                why = "the server ended the stream"
            except Expired as gone:
                if not after:
                    raise
                after = 0
                yield Gap(str(gone))
                continue
            except Unauthenticated:
                if not ever:
                    raise
                why = "the token has ended"
            except TryLater as later:
                if not ever:
                    raise
                why, delay = str(later), later.delay
            except _Silent:
                why, silent = f"nothing was heard for {silent:.0f} s", min(silent * 2, MOST_SILENT_SECONDS)
            except msgspec.DecodeError as odd:
                raise self._odd(odd) from None
            except (aiohttp.ClientError, OSError) as broken:
                why = f"the connection broke ({broken or type(broken).__name__})"
            delay = max(delay, next(waits))
            cut = True
            yield Cut(why, delay)
            await self._sleep(delay)

    # --- the service itself ---

    async def status(self) -> StatusNow:
        """How it is; for admins."""
        return self._with(_status, await self.document("/v1/status"))

    async def resync(
        self, kinds: Sequence[str] = (), *, source: str = "", confirm: bool = False
    ) -> AsyncGenerator[KindReport, None]:
        """Have these kinds (none: all) of a source compared with the cloud: each one's report whenever it has got further, the
        last one is how it ended. `confirm`: delete however many are gone. The pass goes on when the caller goes away."""
        async with aclosing(self._posted("/v1/resync", _resync(kinds, source, confirm), GOES_ON)) as lines:
            async for raw in lines:
                yield self._with(_report, raw)

    async def ask_resync(self, kinds: Sequence[str] = (), *, source: str = "", confirm: bool = False) -> bytes:
        """The same without waiting for it; what the server will do: `{"source": …, "kinds": […]}`."""
        return await self.document("/v1/resync", {"wait": "false"}, post=_resync(kinds, source, confirm))

    # --- handlers ---

    async def handlers(self) -> tuple[HandlerNow, ...]:
        """Those of the configuration; for admins, as all that follows."""
        return self._with(_handlers, await self.document("/v1/handlers")).get("handlers", ())

    async def forget(self, handler: str) -> None:
        """Let go of the place and the dead letters of one that is not configured any more. Raises Conflict, NotFound."""
        await self.document(f"/v1/handlers/{quote(handler, safe='')}/forget", post=b"")

    async def dead_letters(self, which: Which, *, limit: int = PAGE) -> Letters:
        """Those that match; their ids are not asked for here."""
        asked = {"handler": which.handler, "since": which.since, "until": which.until, "contains": which.contains}
        query = {name: value for name, value in asked.items() if value}
        return self._with(_letters, await self.document("/v1/deadletters", {**query, "limit": str(limit)}))

    async def dead_letter(self, id_: str) -> Letter:
        """With its event."""
        return self._with(_letter, await self.document(f"/v1/deadletters/{quote(id_, safe='')}"))

    async def settle(
        self, verb: Literal["redrive", "discard"], which: Which, *, rate: float = 0.0
    ) -> AsyncGenerator[Settling | Settled, None]:
        """Have dead letters delivered again, at most `rate` a second (0: no limit), or taken out: how far it is, and the sum. It
        ends when the caller goes away."""
        asked = msgspec.to_builtins(which) | ({"rate": rate} if rate else {})
        stopped = f"some were not {'redriven' if verb == 'redrive' else 'discarded'}: the same command goes on with the rest"
        async with aclosing(self._posted(f"/v1/deadletters/{verb}", msgspec.json.encode(asked), stopped)) as lines:
            async for raw in lines:
                news = self._with(_settling, self._no_error(raw))
                yield news
                if isinstance(news, Settled):
                    return
        raise TryLater(f"the answer of {self.url} broke off; {stopped}")

    async def replay(
        self, handler: str, since: str, until: str = "", *, dry_run: bool = False
    ) -> AsyncGenerator[Match | Waiting | Replayed, None]:
        """Have what matches in a part of the log delivered again: each match, and the sum. `since`, `until`: revisions, times or
        spans. It ends when the caller goes away."""
        asked = {"from": since, "dryRun": dry_run} | ({"to": until} if until else {})
        path = f"/v1/handlers/{quote(handler, safe='')}/replay"
        async with aclosing(self._posted(path, msgspec.json.encode(asked), "the replay has stopped there")) as lines:
            async for raw in lines:
                news = self._with(_replaying, self._no_error(raw))
                yield news
                if isinstance(news, Replayed):
                    return
        raise TryLater(f"the answer of {self.url} broke off")

    async def explain(self, about: str) -> Explanation:
        """Why handlers were called for a revision, or the event of a dead letter, or why not."""
        return self._with(_explanation, await self.document(f"/v1/explain/{quote(about, safe='')}"))

    # --- inside ---

    async def _posted(self, path: str, post: bytes, otherwise: str) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that takes its time. `otherwise`: what it means that they stop too early."""
        try:
            async with self._ask(path, {}, NDJSON, post=post) as response:
                async for raw, _whole in self._lines(response, MOST_SILENT_SECONDS):
                    if raw:
                        yield raw
        except _Silent:
            raise TryLater(f"{self.url} said nothing for {MOST_SILENT_SECONDS:.0f} s; {otherwise}") from None
        except (aiohttp.ClientError, OSError) as broken:
            raise TryLater(f"the connection to {self.url} broke ({broken or type(broken).__name__}); {otherwise}") from None

    def _no_error(self, raw: bytes) -> bytes:
        """The line, unless it is the ERROR that ends an answer which has begun."""
        line = self._with(_line, raw)
        if line.type == "ERROR":
            _raise(msgspec.json.decode(line.object, type=_Status))
        return raw

    @asynccontextmanager
    async def _ask(
        self, path: str, query: Mapping[str, str], accept: str, *, post: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One GET, or a POST of JSON, whose answer is a 2xx. A refused token is replaced once."""
        if self._http is None:
            raise RuntimeError("VedetteClient is used outside of `async with`")
        url = URL(self.url + path, encoded=True).with_query(dict(query))
        token = await self._find_token(False)
        for last in (False, True):
            headers = {"Accept": accept}
            if token:
                if not self._may_send_token:
                    raise FixInput(
                        f"a token would go to {self.url} in clear text; use https, or --allow-insecure if you are sure"
                    )
                headers["Authorization"] = f"Bearer {token}"
            try:
                if post is None:
                    response = await self._http.get(url, headers=headers, allow_redirects=False)
                else:
                    headers["Content-Type"] = JSON
                    response = await self._http.post(url, headers=headers, data=post, allow_redirects=False)
            except (TimeoutError, aiohttp.ClientError, OSError) as why:
                raise _unreachable(self.url, why) from None
            async with response:
                if response.status in (200, 202):
                    yield response
                    return
                if response.status == 401 and not last:
                    another = await self._find_token(True)
                    if another and another != token:
                        token = another
                        continue
                await self._refused(response)

    async def _refused(self, response: aiohttp.ClientResponse) -> NoReturn:
        """Raise what any other answer means."""
        body = b""
        async for part in response.content.iter_any():
            body += part
            if len(body) > 65_536:
                break
        try:
            status = msgspec.json.decode(body, type=_Status)
        except msgspec.DecodeError:
            status = _Status()
        if not status.message:
            text = body.decode(errors="replace").strip().splitlines()
            status.message = (text[0][:200] if text else "") or response.reason or ""
        status.code = response.status
        retry = response.headers.get("Retry-After", "")
        _raise(status, delay=float(retry) if retry.isdigit() else 1.0, url=self.url)

    async def _lines(self, response: aiohttp.ClientResponse, silent: float) -> AsyncIterator[tuple[bytes, bool]]:
        """Lines as they come; (b"", True) where the server's chunk ended with a line. Raises _Silent."""
        buffer = bytearray()
        while True:
            try:
                async with asyncio.timeout(silent):
                    data, whole = await response.content.readchunk()
            except TimeoutError:
                raise _Silent from None
            if not data and not whole:
                # The end; half a line is worth nothing, it comes again.
                return
            buffer += data
            start = 0
            while (end := buffer.find(b"\n", start)) >= 0:
                line = bytes(buffer[start:end])
                start = end + 1
                if line:
                    yield line, False
            del buffer[:start]
            if len(buffer) > MAX_LINE:
                raise FixInput(f"a line of more than {MAX_LINE} bytes came from {self.url}: is it a Vedette?")
            if whole and not buffer:
                yield b"", True

    def _with(self, decode: Callable[[bytes], _T], body: bytes) -> _T:
        try:
            return decode(body)
        except msgspec.DecodeError as odd:
            raise self._odd(odd) from None

    def _odd(self, why: msgspec.DecodeError) -> FixInput:
        return FixInput(f"{self.url} answered something that is not a Vedette's ({why}); check the address")

    def _decoded(self, body: bytes) -> dict[str, Any]:
        return self._with(_document, body)


def _resync(kinds: Sequence[str], source: str, confirm: bool) -> bytes:
    asked: dict[str, Any] = {"kinds": list(kinds), "confirm": confirm}
    return msgspec.json.encode({**asked, "source": source} if source else asked)


class _Silent(Exception):
    """The stream said nothing for too long."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, judged by its name alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unreachable(url: str, why: BaseException) -> VedetteError:
    """The library's error as ours, with what to do."""
    if isinstance(why, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, aiohttp.ClientSSLError)):
        certificate = getattr(why, "certificate_error", None)
        reason = getattr(certificate, "verify_message", None) or getattr(certificate, "reason", None) or str(why)
        # Not TryLater: waiting mends no certificate.
        return FixInput(f"the certificate of {url} is not accepted: {reason}. Name the CA's file with --ca or VEDETTE_CACERT")
    if isinstance(why, TimeoutError):
        reason = f"no answer within {CONNECT_SECONDS:.0f} s"
    elif isinstance(why, aiohttp.ClientConnectorError):
        reason = why.os_error.strerror or str(why.os_error)
    else:
        reason = str(why) or type(why).__name__
    return TryLater(
        f"can't reach {url}: {reason}. Is Vedette running there? Name another with --server or VEDETTE_URL, "
        "or start one with `vedette demo`"
    )


def _raise(status: _Status, *, delay: float = 1.0, url: str = "") -> NoReturn:
    code, message = status.code, status.message or f"{url} answered {status.code}"
    if code == 401:
        raise Unauthenticated(message)
    if code == 403:
        raise Forbidden(message)
    if code == 404:
        raise NotFound(message)
    if code == 409:
        raise Conflict(message)
    if code == 410:
        raise Expired(message)
    if code == 429:
        raise TooBusy(message, delay=delay)
    if 400 <= code < 500:
        raise BadRequest(message)
    if 300 <= code < 400:
        raise FixInput(f"{url} answered a redirection ({code}); name the address it leads to")
    raise TryLater(message, delay=delay)


def _revision(meta: _Meta) -> int:
    return int(meta.resource_version) if meta.resource_version.isdigit() else 0


def _item(raw: msgspec.Raw, cells: tuple[Any, ...] = ()) -> Item:
    meta = _identified(raw).metadata
    return Item(meta.namespace, meta.name, _revision(meta), cells, raw)


def _changed(raw: msgspec.Raw, form: Form) -> tuple[Item, tuple[Column, ...]]:
    """The object of an event; and the columns, where it brings them."""
    if form == "json":
        return _item(raw), ()
    table = _table(raw)
    if not table.rows:
        raise FixInput("an event came without a row: is it a Vedette?")
    return _item(table.rows[0].object, table.rows[0].cells), table.columns or ()


def _bookmarked(raw: msgspec.Raw) -> int:
    """The place that a BOOKMARK names: an object's, or in table form perhaps only its row's."""
    place = _revision(_identified(raw).metadata)
    if not place and (rows := _table(raw).rows):
        place = _item(rows[0].object).revision
    return place
