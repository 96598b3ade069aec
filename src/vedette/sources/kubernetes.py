"""Objects of a Kubernetes or OpenShift cluster, by list and watch, to `offer`.

In: what the cluster's API lists and streams (clients/kubernetes.py speaks to it). Out: entries, each a notice
(`kubernetes.routes.modified`) with the reading of the whole object, offered in batches; a place in the stream is kept when the
offer has returned. Next is engine/ingest.py, which takes such entries as they are. One reflector for each resource:

- it begins with a streaming list, or with pages where the server can't stream, and follows from there;
- a place that the server has forgotten (410 in any form) means to list again; only what differs is offered, what is missing from
  a complete list is offered as deleted, and the time in between as a gap;
- a stream that says nothing for 70 s, bookmarks included, is cut and opened anew;
- nothing ends it: it waits, longer each time, and `status` says what a person can do.

Secrets stay where they are: of a Secret only the names of its keys enter, and no private key of any object.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from vedette.clients.kubernetes import (
    Enter,
    Kubernetes,
    Line,
    Metadata,
    Resource,
    Watching,
    decode_line,
    error,
    in_cluster,
    kubeconfig,
    metadata_of,
    static,
    status_of,
)
from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    Expired,
    Forbidden,
    NotFound,
    NotUnderstood,
    TryLater,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock, parse_us, rfc3339_us
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.kit.units import FilePath, Seconds
from vedette.model.entry import NewEntry
from vedette.model.fold import ORIGIN_VERSION
from vedette.model.notice import GAP, NOT_UNDERSTOOD, Notice
from vedette.model.reading import VEDETTE, Key, Reading
from vedette.model.scrub import MASK
from vedette.ports import EVERYTHING, JsonObject, Offer, Selection, SourceStatus, Store

log = logging.getLogger("vedette.sources.kubernetes")

BATCH = 500
"""Entries offered together at the most."""
BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of payload offered together, at the most (and one object more)."""
SLICE = 0.002
"""Seconds of decoding after which others get their turn."""
STEADY = 30.0
"""Seconds that a stream has to last for its end to be nothing to wait for."""
MOST_WAIT = 60.0
"""Seconds between two attempts, at the most (a longer Retry-After is kept to)."""
LATE = 5.0
"""Seconds that a sign of life may be late before a source is not ready."""
MOST_RESOURCES = 200
"""Resources of one source: each is an open connection."""
TRIES = 3
"""Streaming lists that may end before they are complete; then the pages are asked for instead."""
FORM = "1"
"""Of what is made of an object. Another one: everything is offered again, since what the log holds was made otherwise."""

RESOURCE = "vedette.resource"
"""Event type of what says that a resource is followed, and how the API names it."""

_INITIAL_END = "k8s.io/initial-events-end"

HEARTBEATS = {
    "leases.coordination.k8s.io": ("spec.renewTime",),
    "nodes": ("status.conditions.*.lastHeartbeatTime",),
    "endpoints": ("metadata.annotations['control-plane.alpha.kubernetes.io/leader']",),
    "configmaps": ("metadata.annotations['control-plane.alpha.kubernetes.io/leader']",),
}
"""What moves only to say that somebody is alive."""

SECRETS = {"secrets": ("data", "stringData")}
"""Resource of the core group → maps whose values never enter."""
LONGEST_MARK = 256
"""Characters of a Secret's annotation that enters."""

_encoder = msgspec.json.Encoder()
_object = msgspec.json.Decoder(JsonObject).decode
_annotations = msgspec.json.Decoder(dict[str, Any] | None).decode
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PATH_PART = re.compile(r"\.?(?:\[(['\"])([^'\"]+)\1\]|(\*|[^.\[\]*'\"]+))")


# --- settings --------------------------------------------------------------------------------------------------------------


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A resource to follow."""

    resource: str
    """`plural.group/version`, such as `routes.route.openshift.io/v1` or `pods/v1`. Group and version may be left out (`routes`),
    and a kind or a short name will do: the API says what is meant."""
    namespace: str = ""
    """Only this namespace; none: all of them."""
    label_selector: str = ""
    """Only objects with these labels, such as `app=web,tier!=test`."""
    field_selector: str = ""
    """Only objects with these fields, such as `metadata.name=web`; the API says which fields it can select by."""
    ignore: tuple[str, ...] = ()
    """Paths such as `status.lastSeen`; an update that changes nothing else is no news. Known heartbeats are ignored anyway, see
    `heartbeats`."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9.-]+)?(/[A-Za-z0-9]+)?", self.resource, re.ASCII):
            raise ValueError("resource: wants plural.group/version, such as routes.route.openshift.io/v1")
        if "/" in self.namespace:
            raise ValueError("namespace: wants a name without a slash")
        for path in self.ignore:
            path_of(path)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one Kubernetes source. How to get in is one of `server`, `kubeconfig` and `in_cluster`."""

    name: str
    resources: tuple[Watched, ...]
    """What to follow; the account needs the rights to get, list and watch exactly these."""
    server: str = ""
    """The API's address, such as `https://api.example.com:6443`; a path may follow it."""
    token: Secret = Secret()
    """Sent to `server` as a bearer token."""
    token_file: FilePath = ""
    """A file with the token, read again as it is replaced."""
    ca: FilePath = ""
    """A file of certificates to trust; none: the system's. Certificates are always verified."""
    kubeconfig: FilePath = ""
    """A kubeconfig file; everything in it is understood but `insecure-skip-tls-verify`."""
    context: str = ""
    """One of its contexts; none: its current one."""
    in_cluster: bool = False
    """Vedette runs as a pod of the cluster: its service account is used."""
    projects: dict[str, str] = {}
    """Namespace → the id of the OpenStack project whose users may see its objects. Other namespaces are for admins only."""
    drop_fields: tuple[str, ...] = ()
    """Paths that are left out of every object, such as `status.podIPs` or `metadata.annotations['example.com/notes']`; `*` stands
    for every item. `metadata.managedFields` is always left out."""
    heartbeats: bool = False
    """Take also updates that only say that somebody is alive: a lease's `renewTime`, a node's `lastHeartbeatTime`."""
    page: int = 500
    """Objects asked for at a time, where the API can't stream a list."""
    inactivity_s: float = 70.0
    """A stream that says nothing for this long is opened anew. The API sends a sign of life about every 60 seconds."""
    watch_s: float = 290.0
    """A stream is opened anew after about this long: rights that were taken away are noticed then."""
    relist: Seconds = 6 * 3600.0
    """Between two complete lists, of which only the differences are news; 0: only when the API has forgotten our place."""
    timeout_s: float = 30.0
    """For connecting and for each silence of the other side; an answer as a whole may take four times as long."""

    def __post_init__(self) -> None:
        ways = [name for name in ("server", "kubeconfig", "in_cluster") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError("server: give exactly one of server, kubeconfig and in_cluster")
        if not self.server and (self.token or self.token_file or self.ca):
            raise ValueError("token: token, token_file and ca belong to server")
        if self.token and self.token_file:
            raise ValueError("token: give one of token and token_file")
        if self.context and not self.kubeconfig:
            raise ValueError("context: belongs to kubeconfig")
        if not 1 <= len(self.resources) <= MOST_RESOURCES:
            raise ValueError(f"resources: wants 1 to {MOST_RESOURCES}")
        for path in self.drop_fields:
            path_of(path)
        if not 1 <= self.page <= 10_000:
            raise ValueError("page: wants a number from 1 to 10000")
        if not 1 <= self.timeout_s <= 600:
            raise ValueError("timeout: wants 1 second to 10 minutes")
        if not 1 <= self.inactivity_s <= 3600:
            raise ValueError("inactivity: wants 1 second to 1 hour")
        if not 1 <= self.watch_s <= 3600:
            raise ValueError("watch: wants 1 second to 1 hour")
        if 0 < self.relist < 60:
            raise ValueError("relist: wants 1 minute or more, or 0")


def build(options: Options, *, clock: Clock, telemetry: Telemetry) -> KubernetesSource:
    """The source for these settings; nothing is opened yet. Raises ConfigError."""
    return KubernetesSource(options, clock, telemetry, client=Kubernetes(way_in(options), clock, timeout_s=options.timeout_s))


def way_in(options: Options) -> Enter:
    """How these settings get into the cluster. Raises ConfigError."""
    if options.in_cluster:
        return in_cluster()
    if options.kubeconfig:
        return kubeconfig(options.kubeconfig, options.context)
    return static(options.server, token=options.token, token_file=options.token_file, ca_file=options.ca)


# --- the source ------------------------------------------------------------------------------------------------------------


class KubernetesSource:
    """Follows the resources of one cluster until it is cancelled."""

    def __init__(
        self, options: Options, clock: Clock, telemetry: Telemetry, *, client: Kubernetes, rng: random.Random | None = None
    ) -> None:
        self.options = options
        self.clock = clock
        self.client = client
        self.rng = rng or random.Random()
        self.store: Store | None = None
        self.numbers = _Numbers(telemetry, options.name)
        self._reflectors: list[Reflector] = []
        self._claimed: dict[tuple[str, str], list[tuple[Reflector, str]]] = {}
        self._as_of = 0
        self._gaps = 0
        self._said = "not started"

    @property
    def name(self) -> str:
        return self.options.name

    def remember(self, store: Store) -> None:
        """Where to look up, at the start, what the log knows of this cluster: what is there already isn't offered again, and what
        was deleted meanwhile is found. Without it everything is offered, and such deletions are not noticed."""
        self.store = store

    def status(self) -> SourceStatus:
        """Ready when every resource is listed and followed; else the detail says of the first that isn't what to do."""
        late = self.clock.now_us() - int((self.options.inactivity_s + LATE) * 1_000_000)
        waiting = [one for one in self._reflectors if not one.ready or one.last_progress < late]
        detail = f"following {len(self._reflectors)} resources" if self._reflectors else self._said
        if waiting:
            detail = f"{waiting[0].text}: {'nothing was heard lately' if waiting[0].ready else waiting[0].detail}"
            detail += f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
        return SourceStatus(
            name=self.name,
            type="kubernetes",
            ready=bool(self._reflectors) and not waiting,
            detail=detail,
            # The one that has been quiet the longest: nobody else's news hides it.
            last_progress=min((one.last_progress for one in self._reflectors), default=0),
            gaps=self._gaps,
        )

    async def run(self, offer: Offer) -> None:
        """Raises ConfigError when the settings can't be used at all."""
        self._claimed.clear()
        self._reflectors = [Reflector(self, watched) for watched in self.options.resources]
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._reflectors:
                    group.create_task(one.run(offer), name=f"{self.name}: {one.text}")
        except BaseExceptionGroup as several:
            # The group is how they ended together; what to do about it is in the first one.
            why = several.exceptions[0]
            if isinstance(why, ConfigError):
                self._said = str(why)
                raise ConfigError(f"source {self.name!r}: {why}") from None
            raise why from None
        finally:
            self._reflectors = []
            await self.client.close()

    def claim(self, reflector: Reflector, resource: Resource, namespace: str) -> None:
        """Two reflectors of one object would undo each other's work. Raises ConfigError."""
        taken = self._claimed.setdefault((resource.group, resource.kind), [])
        taken[:] = [(other, where) for other, where in taken if other is not reflector]
        for other, where in taken:
            if not where or not namespace or where == namespace:
                raise ConfigError(
                    f"resources: {reflector.text} and {other.text} are both {resource.name}; name it once, "
                    "or once for each namespace"
                )
        taken.append((reflector, namespace))

    def now(self) -> int:
        """UTC microseconds, later each time it is asked: readings without a comparable version are ordered by it."""
        self._as_of = max(self.clock.now_us(), self._as_of + 1)
        return self._as_of

    def later_than(self, as_of: int) -> None:
        """What was read before this start was read earlier, also when the clock was ahead then: else a deletion that shows only
        in a list would be taken for old news."""
        self._as_of = max(self._as_of, as_of)

    async def keep(self, offer: Offer, batch: Sequence[Notice | NewEntry]) -> None:
        """Offer until it is durable: nothing is read meanwhile, so a full log holds the cluster's stream back."""
        while True:
            try:
                await offer(batch)
                return
            except TryLater as why:
                await self.clock.sleep(why.delay)

    def gap(self, resource: str, cause: str, since: int) -> Notice:
        """A time whose changes are only known by what they led to."""
        self._gaps += 1
        self.numbers.gap(cause)
        until = self.now()
        payload = {"cause": cause, "from": rfc3339_us(since) if since else None, "to": rfc3339_us(until), "detail": resource}
        return Notice(
            id=str(uuid.uuid4()),
            source=self.name,
            event_type=GAP,
            sent_at=until,
            payload=msgspec.Raw(_encoder.encode(payload)),
            origin="vedette",
        )


# --- one resource ----------------------------------------------------------------------------------------------------------


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of each object: some 200 bytes."""

    uid: str
    version: str
    digest: bytes = b""
    """Of what isn't ignored, where something is."""
    project: str = ""


class _CannotStream(Exception):
    """The server has no streaming lists."""


class Reflector:
    """One resource: list, then watch from there, for ever."""

    def __init__(self, source: KubernetesSource, watched: Watched) -> None:
        self.source = source
        self._watched = watched
        self._client = source.client
        self._clock = source.clock
        self.text = f"{watched.resource} in {watched.namespace}" if watched.namespace else watched.resource
        self.ready = False
        self.detail = "not started"
        self.last_progress = 0
        self._warned = ""
        self._resource: Resource | None = None
        self._form: Form | None = None
        self._known: dict[str, _Known] = {}
        """id → what was offered last."""
        self._recalled = False
        self._told: JsonObject | None = None
        self._place = ""
        """Up to where everything was offered, as the server names it; "": list first."""
        self._listed_at = 0.0
        self._streams = True
        self._broken_starts = 0
        self._quiet = False
        """The last stream said nothing: is the server behind our place?"""
        self._missed_since: int | None = None
        """Since when changes may be missing one by one; None: none are."""
        self._gap_cause = ""
        self._highest = 0
        """The highest version that this cluster has given, as far as they can be compared."""
        self._ceiling = 0
        """Versions up to here were given twice by this cluster (etcd was restored): they order nothing."""
        self._selectors = {
            name: text
            for name, text in (("labelSelector", watched.label_selector), ("fieldSelector", watched.field_selector))
            if text
        }

    async def run(self, offer: Offer) -> None:
        """Raises ConfigError when a person has to act before anything can work."""
        waits = delays(1.0, MOST_WAIT, rng=self.source.rng)
        while True:
            began, delay, clean = self._clock.monotonic(), 0.0, False
            try:
                await self._session(offer)
                clean = True
            except Expired as why:
                self._forget("expired", why)
            except ConfigError as why:
                if not self.last_progress:
                    raise
                self._down(str(why), why)  # a file that is being replaced
            except (NotFound, BadRequest) as why:
                # Served differently than before, or a place that means nothing there.
                self._forget("refused", why)
                self._down(_advice(why, self._watched.resource), why)
            except (Forbidden, Unauthenticated) as why:
                self._down(_advice(why, self._watched.resource), why)
            except NotUnderstood as why:
                self._forget("not-understood", why)  # it may have been anything: what it did shows in a list
            except VedetteError as why:
                delay = why.delay if isinstance(why, TryLater) else 0.0
                self._down(str(why), why)
            finally:
                self.source.numbers.ready(self.text, self.ready)
            if self._clock.monotonic() - began >= STEADY:
                waits = delays(1.0, MOST_WAIT, rng=self.source.rng)
                if clean:
                    continue
            # (A server that says when to come back means everybody: not all at the same moment.)
            await self._clock.sleep(max(next(waits), delay * self.source.rng.uniform(1.0, 1.25)))

    def _down(self, detail: str, why: Exception | None) -> None:
        if detail != self._warned:  # once, and not at every attempt
            log.warning("not following %s: %s", self.text, why or detail, extra=kv(source=self.source.name))
        self.ready, self.detail, self._warned = False, detail, detail

    def _forget(self, cause: str, why: Exception) -> None:
        """List again; what is known stays, so that only differences are news."""
        log.info("listing %s again: %s", self.text, why, extra=kv(source=self.source.name))
        if self._place:
            self._missed_since, self._gap_cause = self.last_progress, cause
        self._place = ""
        self.ready, self.detail = False, "listing again"

    # --- one stream

    async def _session(self, offer: Offer) -> None:
        """From where we are to the end of one stream. Returns when the server ended it cleanly."""
        options = self.source.options
        if self._place and options.relist and self._clock.monotonic() - self._listed_at >= options.relist:
            self._place = ""  # nothing is missing: no gap
        if self._place:
            if self._quiet:
                await self._look()
                self._quiet = False
            await self._follow(offer, {"resourceVersion": self._place})
            return
        await self._begin(offer)
        if self._streams and self._broken_starts < TRIES:
            try:
                await self._follow(offer, {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}, start=_Start())
                return
            except (_CannotStream, BadRequest) as why:
                log.info("%s has no streaming list, pages are asked for: %s", self.text, why, extra=kv(source=self.source.name))
                self._streams = False
            except CloudUnavailable:
                self._broken_starts += 0 if self._place else 1
                raise
        self._broken_starts = 0
        await self._list(offer)
        await self._follow(offer, {"resourceVersion": self._place})

    async def _begin(self, offer: Offer) -> None:
        """What the resource is, told to the log when it is new; and what the log knows of its objects."""
        source = self.source
        resource = await self._client.resolve(self._watched.resource)
        lacking = [verb for verb in ("list", "watch") if resource.verbs and verb not in resource.verbs]
        if lacking:
            raise BadRequest(f"{resource.name} can't be followed: the API has no {' and no '.join(lacking)} for it")
        source.claim(self, resource, self._watched.namespace if resource.namespaced else "")
        if resource != self._resource:
            self._resource = resource
            self._form = Form(source.options, self._watched, resource)
        assert self._form is not None
        if not self._recalled:
            await self._recall(resource, self._form)
            self._recalled = True
        await self._tell(offer, resource, self._form.name if self._told is None else self._told["form"])
        if self._missed_since is not None:
            await source.keep(offer, [source.gap(resource.name, self._gap_cause, self._missed_since)])
            self._missed_since = None

    async def _tell(self, offer: Offer, resource: Resource, form: str) -> None:
        source = self.source
        fields: JsonObject = {
            "plural": resource.plural,
            "singular": resource.singular,
            "kind": resource.kind,
            "group": resource.group,
            "version": resource.version,
            "namespaced": resource.namespaced,
            "shortNames": list(resource.short_names),
            "categories": list(resource.categories),
            "form": form,
        }
        if fields == self._told:
            return
        now = source.now()
        raw = _encoder.encode(fields)
        notice = Notice(
            id=f"{resource.name}/{hashlib.sha256(raw).hexdigest()[:16]}",
            source=source.name,
            event_type=RESOURCE,
            sent_at=now,
            payload=msgspec.Raw(raw),
            origin="vedette",
        )
        reading = Reading(kind="Resource", group=VEDETTE, id=resource.name, verb="update", as_of=now, fields=fields)
        await source.keep(offer, [NewEntry(notice, (reading,))])
        self._told = fields

    async def _recall(self, resource: Resource, form: Form) -> None:
        """What the log holds of this resource. Made in another form it is known by its name alone, and offered again."""
        store = self.source.store
        if store is None:
            return
        key = Key(self.source.name, VEDETTE, "Resource", resource.name)
        with suppress(NotFound):
            told = msgspec.json.decode((await store.get(key, EVERYTHING)).body)["status"]
            self._told = {name: value for name, value in told.items() if name != "id"}
            self._told.setdefault("form", "")
        same = self._told is not None and self._told["form"] == form.name
        if self._told is None:
            self._told = {"form": ""}  # nobody says how what is there was made
        namespace = self._watched.namespace if resource.namespaced else ""
        selection = Selection(
            scope=EVERYTHING,
            source=self.source.name,
            group=resource.group,
            kind=resource.kind,
            prefix=f"{namespace}/" if namespace else "",
        )
        after: tuple[str, str] | None = None
        while True:
            page = await store.objects(selection, after=after, limit=BATCH)
            held = await store.held([key for key, _ in page.items])
            for (key, version), state in zip(page.items, held, strict=True):
                metadata = metadata_of(version.body)
                origin = str(_marks(metadata).get(ORIGIN_VERSION, ""))
                # (What moved only to say that somebody is alive is no news after a start either.)
                digest = form.digest(state.fields) if same and state is not None else b""
                self._known[key.id] = _Known(metadata.uid, origin if same else "", digest, version.project)
                self._highest = max(self._highest, _number(origin) or 0)
                if state is not None:
                    self.source.later_than(state.as_of)
            after = page.after
            if after is None:
                break
            await asyncio.sleep(0)
        if not self._known and not same:
            self._told = None

    async def _look(self) -> None:
        """After a silence: is the server alive, are we still let in, and is our place one that it has come to? (One that was
        restored from a backup is silent to whoever is ahead of it.) Raises Expired."""
        assert self._resource is not None
        page = await self._client.page(self._resource, self._watched.namespace, {**self._selectors, "limit": "1"})
        number = _number(page.metadata.resourceVersion)
        if number is not None and number < self._highest:
            raise Expired(f"the server is at {number} and was at {self._highest}")

    async def _list(self, offer: Offer) -> None:
        """Every object, page by page, as differences from what is known; then the deletions, and the place."""
        assert self._resource is not None
        assert self._form is not None
        out = _Batch(self, offer)
        start = _Start()
        self.detail = "listing"
        limit = self.source.options.page
        while True:
            try:
                head = ""
                async for page in self._client.pages(self._resource, self._watched.namespace, self._selectors, limit=limit):
                    if not head:
                        head = page.metadata.resourceVersion
                        self._check_not_set_back(head)
                    self._heard()
                    for item in page.items:
                        raw = bytes(item)
                        try:
                            await out.add(self._listed(raw, start))
                        except NotUnderstood as why:
                            await out.add([self._puzzle(str(why), raw)])  # the others are news all the same
                break
            except VedetteError as why:
                # What was listed is known from here on, so it has to be offered, however the list ends.
                await out.flush()
                if not isinstance(why, Expired) or not limit or not head:
                    raise
                # A page came too late; all in one answer can't come too late.
                limit = 0
                start = _Start()
        await self._complete(out, start, head)

    async def _complete(self, out: _Batch, start: _Start, place: str) -> None:
        """A complete list: whatever isn't in it is gone."""
        for id_ in [id_ for id_ in self._known if id_ not in start.seen]:
            await out.add([self._gone(id_)])
        await out.flush()
        self.moved(place)
        self._listed_at = self._clock.monotonic()
        self._broken_starts = 0
        assert self._resource is not None
        assert self._form is not None
        await self._tell(out.offer, self._resource, self._form.name)
        self._following()

    def _following(self) -> None:
        if self._warned:
            log.info("following %s again", self.text, extra=kv(source=self.source.name))
        self.ready, self.detail, self._warned = True, "following", ""
        self.source.numbers.objects(self.text, len(self._known))

    def _check_not_set_back(self, head: str) -> None:
        """When the server's newest version is older than what it gave us, etcd was restored from a backup: versions up to the
        highest we saw order nothing, and everything has to be looked at again. Raises Expired."""
        number = _number(head)
        if number is None or number >= self._highest:
            self._highest = number or self._highest
            return
        self._missed_since, self._gap_cause = self.last_progress, "set-back"
        self._ceiling, self._highest = max(self._ceiling, self._highest), 0
        self._known = {id_: msgspec.structs.replace(one, version="", digest=b"") for id_, one in self._known.items()}
        raise Expired(f"the cluster is at version {head} and was at {self._ceiling}: it was set back")

    def moved(self, place: str) -> None:
        """Everything up to there is durable."""
        self._place = place
        self._highest = max(self._highest, _number(place) or 0)

    async def _follow(self, offer: Offer, params: dict[str, str], *, start: _Start | None = None) -> None:
        """One stream, to its end. With `start` it brings a list first. Place by place as the offers return."""
        assert self._resource is not None
        options = self.source.options
        # Below the server's own limit, so that an end is ours; and never all streams at the same moment.
        seconds = max(1, round(options.watch_s * self.source.rng.uniform(0.75, 1.0)))
        asked = {**self._selectors, **params, "timeoutSeconds": str(seconds)}
        async with await self._client.watch(
            self._resource, self._watched.namespace, asked, inactivity_s=options.inactivity_s
        ) as watching:
            if start is None:
                self._following()
            else:
                self.detail = "listing"
            self._heard()
            try:
                await self._read(watching, _Batch(self, offer), start)
            except CloudUnavailable as why:
                if not watching.silent:
                    raise
                if start is not None and not start.complete:
                    raise _CannotStream(str(why)) from None
                # Maybe nothing happened, and it is a server (or a resource: Events) without bookmarks: looked at before the next.
                self._quiet = True
                return
            if start is not None and not start.complete:
                raise _CannotStream("the stream ended before the end of the list")

    async def _read(self, watching: Watching, out: _Batch, start: _Start | None) -> None:
        until = time.perf_counter() + SLICE
        while lines := await watching.lines():
            self._heard()
            try:
                for number, raw in enumerate(lines):
                    try:
                        await self._take(decode_line(raw), out, start)
                    except NotUnderstood as why:
                        await out.add([self._puzzle(str(why), raw)])
                        if start is None or start.complete:
                            raise
                    if not number & 15 and time.perf_counter() >= until:
                        await asyncio.sleep(0)
                        until = time.perf_counter() + SLICE
            except (VedetteError, _CannotStream):
                await out.flush()  # what came before the line that ends the stream has happened
                raise
            await out.flush()

    async def _take(self, line: Line, out: _Batch, start: _Start | None) -> None:
        """One event. Raises what an ERROR says, _CannotStream, NotUnderstood."""
        kind = line.type
        if kind == "ERROR":
            status = status_of(line.object)
            why = error(status, doing=f"watching {self.text}")
            if start is not None and not start.complete and status.code >= 500 and isinstance(why, CloudUnavailable):
                raise _CannotStream(str(why))
            raise why
        metadata = metadata_of(line.object)
        if kind == "BOOKMARK":
            if start is not None and not start.complete:
                if _marks(metadata).get(_INITIAL_END) != "true":
                    raise _CannotStream("it was asked for a list and then an end of it, and gave none")
                await self._ended(out, start, metadata.resourceVersion)
            out.place = metadata.resourceVersion
            return
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            raise NotUnderstood(f"a watch event of the type {kind[:40]!r}")
        if start is not None and not start.complete:
            await out.add(self._started(line, metadata, start))
            return  # until it is complete, there is no place to go on from
        if kind == "DELETED":
            await out.add([self._deleted(line.object, metadata)])
        else:
            await out.add(self._seen(bytes(line.object), metadata, added=kind == "ADDED"))
        out.place = metadata.resourceVersion

    async def _ended(self, out: _Batch, start: _Start, place: str) -> None:
        """The streaming list is complete."""
        self._check_not_set_back(place)
        if start.behind:
            # It never came to what we knew, although it says that it has.
            for id_ in start.behind & self._known.keys():
                self._known[id_] = msgspec.structs.replace(self._known[id_], version="")
            raise Expired(f"{len(start.behind)} objects were listed in an older state")
        start.complete = True
        await self._complete(out, start, place)

    # --- one object

    def _listed(self, raw: bytes, start: _Start) -> list[NewEntry]:
        metadata = metadata_of(raw)
        start.seen.add(id_of(metadata))
        return self._seen(raw, metadata, added=True, resync=True)

    def _started(self, line: Line, metadata: Metadata, start: _Start) -> list[NewEntry]:
        """Before a streaming list is complete: it may begin from a cache that is older than what we know, and catch up."""
        id_ = id_of(metadata)
        known = self._known.get(id_)
        if known is not None and _older(metadata.resourceVersion, known.version):
            start.behind.add(id_)
            if line.type != "DELETED":
                start.seen.add(id_)
            return []
        start.behind.discard(id_)
        if line.type == "DELETED":
            start.seen.discard(id_)
            return [self._deleted(line.object, metadata)] if known is not None else []
        start.seen.add(id_)
        return self._seen(bytes(line.object), metadata, added=True, resync=True)

    def _seen(self, raw: bytes, metadata: Metadata, *, added: bool, resync: bool = False) -> list[NewEntry]:
        """What is news of an object that is there."""
        form, source = self._form, self.source
        assert form is not None
        id_ = id_of(metadata)
        known = self._known.get(id_)
        project = form.project(metadata)
        if (
            known is not None
            and known.uid == metadata.uid
            and known.version == metadata.resourceVersion
            and known.project == project
        ):
            return []  # it came again
        fields, payload, manager = form.read(raw, metadata)
        digest = form.digest(fields)
        self._known[id_] = _Known(metadata.uid, metadata.resourceVersion, digest, project)
        if known is not None and known.uid == metadata.uid and known.project == project and digest and known.digest == digest:
            source.numbers.ignored()
            return []
        entries = []
        if known is not None and known.uid != metadata.uid:
            entries.append(self._gone_of(id_, known))  # another object of that name: the one that was known is gone
            known = None
        # A list says nothing of what happened: `create` also brings back what was taken for deleted.
        verb: Literal["create", "update"] = "create" if added or known is None else "update"
        word: Literal["added", "modified"] = "added" if known is None else "modified"
        # (A list may stand for several changes: whose the last was says nothing of the others.)
        actor = "" if resync else manager
        entries.append(self._entry(id_, metadata, verb, word, fields, payload, project, resync=resync, actor=actor))
        return entries

    def _deleted(self, raw: msgspec.Raw, metadata: Metadata) -> NewEntry:
        assert self._form is not None
        id_ = id_of(metadata)
        self._known.pop(id_, None)
        fields, payload, _ = self._form.read(bytes(raw), metadata)
        return self._entry(id_, metadata, "delete", "deleted", fields, payload, self._form.project(metadata))

    def _gone(self, id_: str) -> NewEntry:
        return self._gone_of(id_, self._known.pop(id_))

    def _gone_of(self, id_: str, known: _Known) -> NewEntry:
        """A deletion that nobody told us of: with what is known of the object by its name, and no version to compare."""
        resource = self._resource
        assert resource is not None
        namespace, _, name = id_.rpartition("/")
        metadata = Metadata(name=name, namespace=namespace, uid=known.uid, resourceVersion=known.version)
        names = {"name": name, **({"namespace": namespace} if namespace else {}), "uid": known.uid}
        payload = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": names}
        return self._entry(id_, metadata, "delete", "deleted", {}, _encoder.encode(payload), None, resync=True, versioned=False)

    def _entry(
        self,
        id_: str,
        metadata: Metadata,
        verb: Literal["create", "update", "delete"],
        word: Literal["added", "modified", "deleted"],
        fields: JsonObject,
        payload: bytes,
        project: str | None,
        *,
        resync: bool = False,
        versioned: bool = True,
        actor: str = "",
    ) -> NewEntry:
        resource, source = self._resource, self.source
        assert resource is not None
        now = source.now()
        number = _number(metadata.resourceVersion) if versioned else None
        notice = Notice(
            id=f"{metadata.uid}/{metadata.resourceVersion}/{word}",
            source=source.name,
            event_type=f"kubernetes.{resource.plural}.{word}",
            sent_at=now,
            payload=msgspec.Raw(payload),
            actor_user=actor,
            origin="resync" if resync else "notification",
        )
        reading = Reading(
            kind=resource.kind,
            group=resource.group,
            id=id_,
            verb=verb,
            as_of=now,
            version=number if number is not None and number > self._ceiling else None,
            created=parse_us(metadata.creationTimestamp) if metadata.creationTimestamp else None,
            project=project or None,
            fields=fields,
            whole=True,
        )
        return NewEntry(notice, (reading,))

    def _puzzle(self, reason: str, raw: bytes) -> Notice:
        """What can't be read, set aside once. Nothing of it is shown: it may have been a Secret."""
        told = {"reason": f"{self.text}: {reason}", "body": "", "bytes": len(raw)}
        return Notice(
            id=hashlib.sha256(raw).hexdigest(),
            source=self.source.name,
            event_type=NOT_UNDERSTOOD,
            sent_at=0,
            payload=msgspec.Raw(_encoder.encode(told)),
        )

    def _heard(self) -> None:
        self.last_progress = self._clock.now_us()
        self.source.numbers.heard(self.text, self.last_progress)


class _Start:
    """A list that comes by a stream, until it is complete."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.behind: set[str] = set()
        """Listed in a state older than the one that is known."""
        self.complete = False


class _Batch:
    """Entries that wait to be offered together."""

    def __init__(self, reflector: Reflector, offer: Offer) -> None:
        self._reflector = reflector
        self.offer = offer
        self.place = ""
        """After the last entry here; "": none yet."""
        self.entries: list[Notice | NewEntry] = []
        self._bytes = 0

    async def add(self, entries: Iterable[Notice | NewEntry]) -> None:
        for entry in entries:
            self.entries.append(entry)
            self._bytes += len(entry.payload if isinstance(entry, Notice) else entry.notice.payload)
            if len(self.entries) >= BATCH or self._bytes >= BATCH_BYTES:
                await self.flush()

    async def flush(self) -> None:
        if self.entries:
            # (Emptied only after it is durable: cancelled in between, nothing is taken for offered.)
            await self._reflector.source.keep(self.offer, tuple(self.entries))
            self.entries.clear()
            self._bytes = 0
        if self.place:
            self._reflector.moved(self.place)


def id_of(metadata: Metadata) -> str:
    """`namespace/name`, or `name` of what has no namespace. Raises NotUnderstood for an object without a name."""
    if not metadata.name:
        raise NotUnderstood("an object without a name")
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name


def _marks(metadata: Metadata) -> JsonObject:
    try:
        return _annotations(metadata.annotations) or {}
    except msgspec.DecodeError:
        return {}


def _number(version: str) -> int | None:
    """A resourceVersion as one that can be compared: since Kubernetes 1.35 they are promised to be decimal; others are opaque."""
    return int(version) if version.isascii() and version.isdecimal() and len(version) <= 18 else None


def _older(one: str, other: str) -> bool:
    """False as well when they can't be compared."""
    a, b = _number(one), _number(other)
    return a is not None and b is not None and a < b


def _advice(why: VedetteError, resource: str) -> str:
    if isinstance(why, Forbidden):
        return f"not allowed: give the account get, list and watch on {resource}: {why}"
    if isinstance(why, Unauthenticated):
        return f"the API refuses our token: {why}"
    if isinstance(why, NotFound):
        return f"there is no such resource (its definition may come later; what was known of it stays): {why}"
    return str(why)


# --- what is made of an object ---------------------------------------------------------------------------------------------

Path = tuple[str, ...]


def path_of(text: str) -> Path:
    """`spec.renewTime`, `status.conditions.*.lastHeartbeatTime`, `metadata.annotations['a.b/c']` as keys. Raises ValueError."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        match = _PATH_PART.match(text, at)
        if match is None or (text[at] == "." and at == 0):
            break
        parts.append(match[2] or match[3])
        at = match.end()
    if at < len(text) or not parts:
        raise ValueError(f"{text!r} is no path such as spec.renewTime or metadata.annotations['example.com/notes']")
    if (
        parts[0] in ("apiVersion", "kind")
        or parts == ["metadata"]
        or parts[:2] in (["metadata", "name"], ["metadata", "namespace"])
    ):
        raise ValueError(f"{text!r} is what an object is known by")
    return tuple(parts)


def without(value: Any, path: Path) -> Any:
    """The value without what stands there; copied along the path only, the very same when nothing stands there."""
    name, rest = path[0], path[1:]
    if isinstance(value, list):
        if name != "*":
            return value
        return [without(one, rest) for one in value] if rest else []
    if not isinstance(value, dict):
        return value
    names = list(value) if name == "*" else [name] if name in value else []
    if not names:
        return value
    if not rest:
        return {key: part for key, part in value.items() if key not in names}
    return {**value, **{key: without(value[key], rest) for key in names}}


class Form:
    """What enters the log of the objects of one resource."""

    def __init__(self, options: Options, watched: Watched, resource: Resource) -> None:
        self._resource = resource
        self._projects = options.projects
        self._drop = tuple(path_of(path) for path in options.drop_fields)
        word = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        beats = () if options.heartbeats else HEARTBEATS.get(word, ())
        self._ignore = tuple(path_of(path) for path in (*beats, *watched.ignore))
        self._secret = SECRETS.get(word, ())
        said = "\0".join((FORM, resource.api_version, resource.kind, *options.drop_fields))
        self.name = hashlib.sha256(said.encode()).hexdigest()[:16]
        """The same for what makes the same of an object."""

    def project(self, metadata: Metadata) -> str:
        """ "" where nobody is said to see it. A Namespace is its own."""
        resource = self._resource
        space = metadata.name if resource.plural == "namespaces" and not resource.group else metadata.namespace
        return self._projects.get(space, "")

    def read(self, raw: bytes, metadata: Metadata) -> tuple[JsonObject, bytes, str]:
        """The fields of the reading, the payload of the notice, and who made the object what it is. Raises NotUnderstood."""
        try:
            said = _object(raw)
        except (msgspec.DecodeError, RecursionError) as why:
            raise NotUnderstood(f"an object that can't be read: {type(why).__name__}") from None
        resource = self._resource
        # Items of built-in lists don't say what they are.
        obj: JsonObject = {"apiVersion": resource.api_version, "kind": resource.kind, **said}
        theirs = obj["metadata"] = dict(obj["metadata"])
        manager = last_manager(theirs.pop("managedFields", None))
        for path in self._drop:
            obj = without(obj, path)
        if self._secret:
            obj = self._masked(obj)
        if b"PRIVATE KEY-----" in raw:
            obj = _without_keys(obj)
        payload = _encoder.encode(obj)
        theirs = obj["metadata"]
        origin = theirs.pop("resourceVersion", "")
        marks = theirs.get("annotations")
        theirs["annotations"] = {**(marks if isinstance(marks, dict) else {}), ORIGIN_VERSION: origin}
        return obj, payload, manager

    def digest(self, fields: JsonObject) -> bytes:
        """Of all that isn't ignored; b"" where nothing is."""
        if not self._ignore:
            return b""
        seen: Any = fields
        # (Where an API counts generations, an ignored field of the spec counts too.)
        for path in (*self._ignore, ("metadata", "annotations", ORIGIN_VERSION), ("metadata", "generation")):
            seen = without(seen, path)
        return hashlib.blake2b(msgspec.json.encode(seen, order="deterministic"), digest_size=12).digest()

    def _masked(self, obj: JsonObject) -> JsonObject:
        for name in self._secret:
            held = obj.get(name)
            if name in obj:
                obj = {**obj, name: dict.fromkeys(held, MASK) if isinstance(held, dict) else MASK}
        theirs = obj["metadata"]
        if isinstance(marks := theirs.get("annotations"), dict):
            obj["metadata"] = {**theirs, "annotations": {key: one for key, one in marks.items() if _is_plain(one)}}
        return obj


def _is_plain(mark: Any) -> bool:
    """Whether an annotation of a Secret can be no copy of it: kubectl, kapp, Rancher and others keep what they applied last as
    JSON, or as base64 of it."""
    return not isinstance(mark, str) or (len(mark) <= LONGEST_MARK and "{" not in mark and "\n" not in mark)


def last_manager(managed: Any) -> str:
    """The field manager of the newest of `metadata.managedFields`; "": it can't be told (their times are whole seconds).
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management"""
    newest, names = "", set[str]()
    for one in managed if isinstance(managed, list) else ():
        when, name = (one.get("time"), one.get("manager")) if isinstance(one, dict) else (None, None)
        if isinstance(when, str) and isinstance(name, str) and when >= newest:
            names = {name} if when > newest else names | {name}
            newest = when
    return names.pop() if len(names) == 1 else ""


def _without_keys(value: Any) -> Any:
    """Private keys in PEM replaced, in every text at every depth (also in JSON inside a text)."""
    if isinstance(value, str):
        return _PEM.sub(MASK, value) if "PRIVATE KEY-----" in value else value
    if isinstance(value, dict):
        return {key: _without_keys(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_keys(part) for part in value]
    return value


class _Numbers:
    """What an operator sees of one source."""

    def __init__(self, telemetry: Telemetry, source: str) -> None:
        self._source = source
        self._progress = telemetry.gauge(
            "source_last_progress_timestamp_seconds", "When a source last heard something (Unix time).", "source"
        ).labels(source)
        self._heard = telemetry.gauge(
            "kubernetes_last_heard_timestamp_seconds",
            "When something was last heard of a resource (Unix time).",
            "source",
            "resource",
        )
        self._ready = telemetry.gauge("kubernetes_following", "1 while a resource is followed.", "source", "resource")
        self._objects = telemetry.gauge(
            "kubernetes_objects", "Objects of a resource when it was last listed.", "source", "resource"
        )
        self._ignored = telemetry.counter(
            "kubernetes_heartbeats_total", "Updates that only said that somebody is alive.", "source"
        ).labels(source)
        self._gaps = telemetry.counter("source_gaps", "Times in which news may have been missed.", "source", "cause")

    def heard(self, resource: str, at: int) -> None:
        self._progress.set(at / 1_000_000)
        self._heard.labels(self._source, resource).set(at / 1_000_000)

    def ready(self, resource: str, ready: bool) -> None:
        self._ready.labels(self._source, resource).set(1 if ready else 0)

    def objects(self, resource: str, count: int) -> None:
        self._objects.labels(self._source, resource).set(count)
        self.ready(resource, True)

    def ignored(self) -> None:
        self._ignored.inc()

    def gap(self, cause: str) -> None:
        self._gaps.labels(self._source, cause).inc()
