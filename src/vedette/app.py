"""Builds everything from the configuration, once, and runs it. The only room that knows every concrete class.

No behaviour lives here: what is built is handed to each other, started, watched over, and stopped in the right order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec

from vedette import plugins
from vedette.api.auth import (
    KEEP_SECONDS,
    KeystoneAuthenticator,
    NoneAuthenticator,
    StaticToken,
    TokensAuthenticator,
    drop_verdicts,
)
from vedette.api.hooks import Hook
from vedette.api.rights import Rights
from vedette.api.server import Needs, Server, bare, build, reloading_context, together
from vedette.api.tickets import Tickets
from vedette.clients.keystone import Keystone, credentials
from vedette.clients.killbill import KillBill
from vedette.clients.openstack import OpenStackCloud
from vedette.clients.otlp_metrics import OtlpSamples
from vedette.clients.tracing import OtlpTracer
from vedette.compat import infra_optim, weaas
from vedette.compat._concertim_accounts import Names
from vedette.compat._concertim_billing import Billing
from vedette.compat._concertim_http import SHORTEST_SECRET
from vedette.compat.concertim_api import ConcertimApi, ConcertimNeeds
from vedette.compat.infra_optim import OptimNeeds
from vedette.config import (
    WINDOW_RULES,
    AuditRule,
    Concertim,
    Config,
    HandlerConfig,
    HookConfig,
    MirrorConfig,
    On,
    PollingConfig,
    default_source,
    secret_variables,
)
from vedette.config import Audits as AuditsConfig
from vedette.config import Keystone as KeystoneSettings
from vedette.config import SourceConfig as SourceSettings
from vedette.config import Window as WindowSettings
from vedette.engine import catalogue, conditions, windows
from vedette.engine.advising import Advising
from vedette.engine.alarms import Alarms
from vedette.engine.applier import Applier, ApplierSettings
from vedette.engine.audit_rules import RuleHandler
from vedette.engine.audits import Audits, AuditSettings
from vedette.engine.audits import Settings as AuditsSettings
from vedette.engine.dispatch import Dispatch
from vedette.engine.errands import Errands
from vedette.engine.ingest import Ingest
from vedette.engine.inventory import StoredObjects
from vedette.engine.line import Rule, Window
from vedette.engine.matching import Match
from vedette.engine.mirroring import Keeper, Mirroring, absent
from vedette.engine.planner import WEIGHTS, PlannerOptions
from vedette.engine.polling import Polling
from vedette.engine.prerequisites import POLICIES, Prerequisites, Wanted
from vedette.engine.records import Records
from vedette.engine.resync import Resync
from vedette.engine.retention import Keep, Retention
from vedette.engine.verify import Verify
from vedette.engine.watch import Hub, Limits
from vedette.engine.worker import WorkerHandler, WorkerProcess
from vedette.engine.zones import Zones
from vedette.errors import CannotStart, ConfigError, NoService
from vedette.kit.clock import Clock, SystemClock, rfc3339
from vedette.kit.tasks import cancel, keep_running
from vedette.kit.telemetry import Telemetry
from vedette.ports import (
    Appended,
    Authenticator,
    Cloud,
    CloudUse,
    Handler,
    HandlerNeeds,
    JsonObject,
    Meter,
    MeterNeeds,
    Mirror,
    MirrorNeeds,
    Sampler,
    Source,
    Store,
    TakesSamples,
    Tracer,
    WorkerCode,
)
from vedette.store.memory import MemoryStore
from vedette.store.sqlite import SqliteStore

log = logging.getLogger("vedette.app")

BuildSource = Callable[[SourceSettings, Clock, Telemetry], Source]

GRACE_SECONDS = 10.0
"""How long open streams get to end after SIGTERM."""


class Service:
    """Everything that runs, built and not yet started. No global state: two can live in one process."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        recheck_seconds: float = KEEP_SECONDS,
        build_source: BuildSource | None = None,
    ) -> None:
        """`recheck_seconds`: how long Keystone's word on a token is good, and how often the rights of open streams are looked
        at; other than a minute only for tests. `build_source`: what builds each source instead of its plug, for a source with a
        broker that isn't a real one."""
        self.config = config
        self._build_source = build_source or _source
        self._recheck_seconds = recheck_seconds
        self.clock = clock or SystemClock()
        self.telemetry = Telemetry()
        self.addresses: list[tuple[str, int]] = []
        """Where the main listener is, once started (port 0 was given one)."""
        self.face_addresses: dict[str, list[tuple[str, int]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._servers: list[Server] = []
        self.store: Store | None = None
        self.hub: Hub | None = None
        self.ingest: Ingest | None = None
        """Once started: what sources offer to."""
        self.sources: Sequence[Source] = ()
        self.resync: Resync | None = None
        self.dispatch: Dispatch | None = None
        self.records: Records | None = None
        """Of audits and plans, where there are `audits`."""
        self.audits: Audits | None = None
        self.applier: Applier | None = None
        self.alarms: Alarms | None = None
        self.mirrors: dict[str, Mirroring] = {}
        """By name."""
        self._advising: list[Advising] = []
        self._meters: dict[str, Meter] = {}
        """By name."""
        self.polling: Polling | None = None
        self.errands: Errands | None = None
        """What a front end's users asked for."""
        self.front_end: ConcertimApi | None = None
        self._bill: KillBill | None = None
        self._prerequisites: Prerequisites | None = None
        self._handlers: list[Handler] = []
        self._tracer: Tracer | None = None
        self._otlp: OtlpSamples | None = None
        self._uses: dict[str, CloudUse] = {}
        self._keystone: Keystone | None = None
        self.failed: asyncio.Future[None] | None = None
        """Done with an error when a part can't go on without a person."""

    async def start(self) -> None:
        """Raises CannotStart, ConfigError, OSError; then nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config, clock, telemetry = self.config, self.clock, self.telemetry
        _raise_open_files(config.watch.max_watchers)
        self.failed = asyncio.get_running_loop().create_future()
        kinds = plugins.kinds()
        store: Store
        if config.data_dir:
            store = await SqliteStore.open(Path(config.data_dir), clock)
        else:
            store = MemoryStore(clock)
        self.store = store
        sources = self.sources = [self._build_source(one, clock, telemetry) for one in config.sources]
        for source in sources:
            # One that compares what it lists with what the log knows (Kubernetes): also what went while we were down is news.
            remember: Callable[[Store], None] | None = getattr(source, "remember", None)
            if remember is not None:
                remember(store)
        authenticator, self._keystone = _authenticator(config, clock, telemetry, self._recheck_seconds)
        ingest = self.ingest = Ingest(store, kinds, telemetry, {one.name: one.drop for one in config.sources})
        hub = self.hub = Hub(
            store,
            Limits(
                bookmark_seconds=config.watch.bookmark_seconds,
                max_watchers=config.watch.max_watchers,
                max_buffer_bytes=config.watch.max_buffer_bytes,
                stall_timeout=config.watch.stall_timeout,
            ),
            telemetry,
        )
        uses = self._uses = {one.name: use for one in config.sources if (use := _cloud_use(one, clock, telemetry)) is not None}
        ready = {source.name: source for source in sources}
        resync = self.resync = Resync(
            store,
            ingest.record,
            kinds,
            uses,
            clock,
            telemetry,
            connected=lambda name: ready[name].status().ready,
        )
        self._measure()
        rules = [self._rule(one) for one in config.handlers]
        if config.audits is not None:
            rules += await self._optimize(config.audits, store)
        rules += [await self._mirror(one, store, resync) for one in config.mirrors]
        if config.polling is not None:
            self._poll(config.polling)
        if config.faces.concertim is not None:
            await self._serve_front_end(config.faces.concertim, store)
        dispatch = self.dispatch = Dispatch(store, rules, kinds, clock, telemetry, tracer=self._trace())
        verify = Verify(store, ingest.record, kinds, uses, hub.followed, clock, telemetry)
        hub.on_followed.append(verify.followers_changed)
        rights = Rights(authenticator, clock, self._recheck_seconds)
        authenticator.on_forget.append(rights.look_now)
        strangers = frozenset(one.name for one in config.hooks)
        store.follow(lambda appended: _drop_verdicts(authenticator, appended, strangers))
        _store_metrics(store, telemetry)
        retention = Retention(
            store, Keep(max_age=config.retention.max_age, max_bytes=config.retention.max_bytes), clock, telemetry
        )
        needs = Needs(
            store=store,
            hub=hub,
            resync=resync,
            verify=verify,
            dispatch=dispatch,
            kinds=kinds,
            clock=clock,
            telemetry=telemetry,
            rights=rights,
            tickets=Tickets(clock),
            sources=lambda: [source.status() for source in sources],
            source_names=(*(one.name for one in config.sources), *(one.name for one in config.hooks)),
            default_source=default_source(config),
            cors=tuple(config.cors),
            hosts=_hosts(config) if config.auth.mode == "none" else None,
            # Where nobody has a token all callers are one.
            max_streams=config.watch.max_watchers if config.auth.mode == "none" else config.watch.max_streams,
            hooks={one.name: _hook(one) for one in config.hooks},
            offer=ingest.offer,
            records=self.records,
            audits=self.audits,
            mirrors=lambda: [one.status() for one in self.mirrors.values()],
            polling=self.polling,
        )
        self._spawn("watch", partial(keep_running, "watch", hub.run))
        self._spawn("retention", partial(keep_running, "retention", retention.run))
        self._spawn("dispatch", partial(keep_running, "dispatch", dispatch.run, fatal=(CannotStart, ConfigError)))
        await asyncio.sleep(0)  # the hub follows from here on: nothing is appended before
        await self._handling(dispatch)
        if self.records is not None and self.audits is not None and self.applier is not None:
            await catalogue.sync(self.records, plugins.strategies(), plugins.scoring_engines())
            self._spawn("applier", partial(keep_running, "applier", self.applier.run))
            self._spawn("audits", partial(keep_running, "audits", self.audits.run))
        if self.errands is not None:
            self._spawn("errands", partial(keep_running, "errands", self.errands.run))
        if self._prerequisites is not None:
            self._spawn("prerequisites", partial(keep_running, "prerequisites", self._prerequisites.run))
        if self.alarms is not None:
            self._spawn("alarms", partial(keep_running, "alarms", self.alarms.run))
        await self._listen(needs, authenticator)
        for name, mirroring in self.mirrors.items():
            self._spawn(f"mirror {name}", partial(keep_running, f"mirror {name}", mirroring.run))
        if self.polling is not None:
            self._spawn("polling", partial(keep_running, "polling", self.polling.run))
        for source in sources:
            work = partial(source.run, ingest.offer)
            name = f"source {source.name}"
            self._spawn(name, partial(keep_running, name, work, fatal=(CannotStart, ConfigError)))
        for name in resync.sources:
            self._spawn(f"resync {name}", partial(keep_running, f"resync {name}", partial(resync.run, name)))
        for name in verify.sources:
            self._spawn(f"verify {name}", partial(keep_running, f"verify {name}", partial(verify.run, name)))

    async def _listen(self, needs: Needs, authenticator: Authenticator) -> None:
        config = self.config
        open_to_all = config.auth.mode == "none"
        tls = reloading_context(Path(config.tls.cert), Path(config.tls.key)) if config.tls else None
        face = config.faces.weaas
        endpoints = weaas.read_config(Path(face.config) if face and face.config else None, needs.kinds)
        faces = weaas.routes(needs, endpoints, open_to_all=open_to_all)
        in_path = weaas.path_token(endpoints)
        words = weaas.in_its_words(endpoints)
        optim, front_end = self._watchers_api(), self.front_end
        beside = [infra_optim.face(optim, "/infra-optim")] if optim is not None else []
        beside += [front_end.face("/concertim")] if front_end is not None else []
        app = build(needs, authenticator, faces=faces, path_token=in_path, in_its_words=words, face=together(beside))
        server = Server(app, listen=[(one.host, one.port) for one in config.listen], tls=tls, untaken=config.watch.stall_timeout)
        self._servers.append(server)
        await server.start()
        self.addresses = server.addresses
        if face and face.listen:
            old = Server(
                bare(
                    needs,
                    authenticator,
                    routes=weaas.routes(needs, endpoints, open_to_all=open_to_all),
                    path_token=in_path,
                    in_its_words=weaas.in_its_words(endpoints, alone=True),
                ),
                listen=[(one.host, one.port) for one in face.listen],
                tls=tls,
                untaken=config.watch.stall_timeout,
            )
            self._servers.append(old)
            await old.start()
            self.face_addresses["weaas"] = old.addresses
        own = config.faces.infra_optim
        if own and own.listen and optim is not None:
            app = bare(needs, authenticator, routes=(), face=infra_optim.face(optim))
            server = Server(app, listen=[(one.host, one.port) for one in own.listen], tls=tls, untaken=config.watch.stall_timeout)
            self._servers.append(server)
            await server.start()
            self.face_addresses["infra_optim"] = server.addresses
        theirs = config.faces.concertim
        if theirs and theirs.listen and front_end is not None:
            app = bare(needs, authenticator, routes=(), face=front_end.face())
            listen = [(one.host, one.port) for one in theirs.listen]
            server = Server(app, listen=listen, tls=tls, untaken=config.watch.stall_timeout)
            self._servers.append(server)
            await server.start()
            self.face_addresses["concertim"] = server.addresses

    def _watchers_api(self) -> OptimNeeds | None:
        """What Watcher's API stands on; None: there are no audits."""
        settings, records, audits = self.config.audits, self.records, self.audits
        if settings is None or records is None or audits is None:
            return None

        def services() -> list[dict[str, Any]]:
            # Both are this process: who can ask has it alive before him.
            now = rfc3339(self.clock.now_us())
            names = ("watcher-decision-engine", "watcher-applier")
            return [
                {"id": number, "name": name, "host": records.hostname, "status": "ACTIVE", "last_seen_up": now}
                for number, name in enumerate(names, 1)
            ]

        return OptimNeeds(
            records=records,
            clock=self.clock,
            trigger=audits.trigger,
            strategy_state=audits.strategy_state,
            data_model=audits.data_model,
            services=services,
            enable_webhooks_auth=settings.enable_webhooks_auth,
        )

    def _trace(self) -> Tracer | None:
        settings = self.config.tracing
        if settings is not None:
            self._tracer = OtlpTracer(settings.endpoint, settings.service_name)
        return self._tracer

    async def _handling(self, dispatch: Dispatch) -> None:
        """Until handlers follow: what sources say from here on reaches them. Raises what they can't start from."""
        assert self.failed is not None
        ready: asyncio.Future[Any] = asyncio.ensure_future(dispatch.ready.wait())
        await asyncio.wait({ready, self.failed}, return_when=asyncio.FIRST_COMPLETED)
        if self.failed.done():
            ready.cancel()
            self.failed.result()

    def _rule(self, one: HandlerConfig) -> Rule:
        """A handler as the dispatcher takes it. Raises ConfigError, CannotStart when its plug can't be built."""
        config, clock, telemetry = self.config, self.clock, self.telemetry
        found = plugins.find_handler(one.use, config.plugins.folder)
        handler: Handler

        def worker(code: WorkerCode) -> WorkerProcess:
            # Plugins of the systems that Vedette replaces found there what they were started with.
            return WorkerProcess(code, clock=clock, telemetry=telemetry)

        if found.kind == "shipped":
            assert self.store is not None
            needs = HandlerNeeds(
                name=one.name,
                clock=clock,
                telemetry=telemetry,
                inventory=StoredObjects(self.store),
                cloud=lambda name: use.cloud if (use := self._uses.get(name)) is not None else None,
                worker=worker,
            )
            try:
                handler = plugins.load("handlers", one.use).build(one.options, needs)
            except ConfigError as why:
                raise ConfigError(str(why), path=f"handlers ({one.name}).options") from None
        else:
            code = WorkerCode(name=one.name, module=found.module, options=one.options or {}, concurrency=one.concurrency)
            withheld = secret_variables(config, os.environ)
            handler = WorkerHandler(WorkerProcess(code, clock=clock, telemetry=telemetry, withheld=withheld))
        self._handlers.append(handler)
        return Rule(
            name=one.name,
            use=one.use,
            handler=handler,
            on=tuple(_match(on) for on in one.on),
            start=one.start,
            attempts=one.retry.attempts,
            first=one.retry.first,
            most=one.retry.most,
            deadline=one.retry.deadline,
            timeout=one.timeout,
            counts_itself=found.kind != "shipped",
            concurrency=one.concurrency,
            rate=one.rate,
            coalesce=one.coalesce,
            window=None if one.window is None else _window(one.window),
            max_pending=one.max_pending,
            own_events=one.own_events,
            users=frozenset(one.users) | getattr(handler, "acts_as", frozenset[str]()),
            max_depth=one.max_depth,
        )

    def _measure(self) -> None:
        """Meters. Raises ConfigError."""
        config = self.config
        default = (config.audits.source if config.audits is not None else "") or default_source(config)

        def cloud(name: str = "") -> Cloud | None:
            use = self._uses.get(name or default)
            return None if use is None else use.cloud

        for one in config.meters:
            needs = MeterNeeds(name=one.name, clock=self.clock, telemetry=self.telemetry, cloud=cloud)
            try:
                self._meters[one.name] = plugins.load("meters", one.type).build(one.options, needs)
            except ConfigError as why:
                raise ConfigError(str(why), path=f"meters ({one.name})") from None

    def _poll(self, settings: PollingConfig) -> None:
        """Raises ConfigError."""
        source = settings.source or default_source(self.config)
        use = self._uses.get(source)
        if use is None:
            raise ConfigError(f"source {source!r} has no API that could be asked", path="polling.source")
        meter = self._meters[settings.meter]
        if not hasattr(meter, "samples"):
            raise ConfigError(f"meter {settings.meter} can't tell what every server uses: gnocchi can", path="polling.meter")
        sinks: dict[str, TakesSamples] = {}
        for name in settings.push:
            sink = self.mirrors[name].mirror
            if not hasattr(sink, "push"):
                raise ConfigError(f"mirror {name} takes no measurements", path="polling.push")
            sinks[name] = cast("TakesSamples", sink)
        if settings.otlp is not None:
            self._otlp = OtlpSamples(settings.otlp.endpoint, settings.otlp.service_name, self.clock)
            sinks["otlp"] = self._otlp
        self.polling = Polling(
            cast("Sampler", meter),
            use.cloud,
            sinks,
            self.clock,
            self.telemetry,
            interval=settings.interval,
            granularity=int(settings.granularity),
            per_vcpu=settings.per_vcpu,
            user=settings.user,
            role=settings.role,
            projects=settings.projects,
        )

    async def _mirror(self, one: MirrorConfig, store: Store, resync: Resync) -> Rule:
        """A mirror, built and not yet compared, as the dispatcher takes it. Raises ConfigError."""
        kinds = {kind.kind: kind for kind in plugins.kinds()}
        named: list[str] = []

        def source(name: str) -> str:
            found = name or default_source(self.config)
            if found not in {source.name for source in self.config.sources}:
                raise ConfigError(
                    f"there is no source {found!r}" if found else "which source? None is the default one", path="source"
                )
            named.append(found)
            return found

        def cloud(name: str) -> Cloud | None:
            use = self._uses.get(name)
            return None if use is None else use.cloud

        keeper = Keeper(one.name, store, self.clock)
        await keeper.load()
        needs = MirrorNeeds(
            name=one.name,
            clock=self.clock,
            telemetry=self.telemetry,
            inventory=StoredObjects(store),
            source=source,
            cloud=cloud,
            absent=lambda key: absent(key, store, kinds, cloud(key.source)),
            keep=keeper.keep,
            keep_only=keeper.keep_only,
            recall=keeper.recall,
            remember=keeper.remember,
        )
        try:
            mirror: Mirror = plugins.load("mirrors", one.type).build(one.options, needs)
        except ConfigError as why:
            raise ConfigError(str(why), path=f"mirrors ({one.name})") from None
        self._handlers.append(mirror)
        followed = named[0]
        concerned = frozenset(kinds[kind].singular for kind in mirror.kinds)
        self.mirrors[one.name] = Mirroring(
            one.name,
            mirror,
            store,
            self.clock,
            self.telemetry,
            source=followed,
            every=one.compare,
            settled=lambda: resync.settled(followed, concerned),
        )
        return Rule(
            name=one.name,
            use=one.type,
            handler=mirror,
            on=(Match(sources=frozenset((followed,)), kinds=tuple(sorted(concerned))),),
            attempts=one.retry.attempts,
            first=one.retry.first,
            most=one.retry.most,
            deadline=one.retry.deadline,
            timeout=one.call_timeout,
            concurrency=one.concurrency,
            # What our own actions change is to be seen too.
            own_events=True,
        )

    async def _optimize(self, settings: AuditsConfig, store: Store) -> list[Rule]:
        """Audits and plans, built and not yet at work; the rules that trigger audits. Raises ConfigError."""
        config, clock, telemetry = self.config, self.clock, self.telemetry
        source = settings.source or default_source(config)

        def cloud(name: str = "") -> Cloud | None:
            use = self._uses.get(name or source)
            return None if use is None else use.cloud

        def changed() -> Cloud:
            found = cloud()
            if found is None:
                raise NoService(f"source {source} has no API that could be asked: give it an auth_url or a cloud")
            return found

        strategies, actions = plugins.strategies(), plugins.actions()
        records = await self._load_records(store)
        withheld = secret_variables(config, os.environ)
        options = {"max_memory": settings.max_memory, "max_cpu": settings.max_cpu, "planner": _planner_options(settings)}
        for number in range(settings.runs):
            code = WorkerCode(name=f"strategies-{number + 1}", module="vedette.advice", options=options)
            worker = WorkerProcess(code, clock=clock, telemetry=telemetry, max_memory=settings.max_memory, withheld=withheld)
            self._advising.append(Advising(store, worker, strategies, clock, timeout=settings.strategy_timeout))
        usual = _audit_settings(settings, AuditSettings())
        audits = self.audits = Audits(
            store,
            records,
            self._advising,
            strategies,
            actions,
            list(self._meters.values()),
            clock,
            telemetry,
            AuditsSettings(
                source=source,
                usual=usual,
                special={one.name: _audit_settings(one, usual) for one in settings.each},
                runs=settings.runs,
                remember_alarms=settings.alarm_interval > 0,
            ),
        )
        await audits.load()
        if settings.alarm_interval > 0:
            self.alarms = Alarms(store, cloud, audits.trigger, clock, telemetry, interval=settings.alarm_interval)
        zones = Zones(store, source)
        await zones.load()
        applier = self.applier = Applier(
            records,
            store,
            actions,
            changed,
            clock,
            telemetry,
            ApplierSettings(
                parallel=settings.parallel,
                per_host=settings.per_host,
                per_pair=settings.per_pair,
                per_pool=settings.per_pool,
                per_zone=settings.per_zone,
                policy=settings.policy,
                action_timeout=settings.action_timeout,
                approval=settings.approval,
                change_windows=settings.change_windows,
                timezone=settings.timezone,
                expiry=settings.expiry,
            ),
            zone_of=zones.of,
        )
        applier.on_ended.append(audits.plan_ended)
        return [_audit_rule(one, audits) for one in settings.rules]

    async def _load_records(self, store: Store) -> Records:
        """Of audits, plans and actions; there once, whoever needs them."""
        if self.records is None:
            self.records = Records(store, self.clock, socket.gethostname())
            await self.records.load()
        return self.records

    async def _serve_front_end(self, face: Concertim, store: Store) -> None:
        """Raises ConfigError."""
        source = face.source or default_source(self.config)
        use = self._uses.get(source)
        if use is None or not isinstance(use.cloud, OpenStackCloud):
            raise ConfigError(f"source {source!r} has no API: give it an auth_url or a cloud", path="faces.concertim.source")
        own = use.cloud
        errands = self.errands = Errands(
            await self._load_records(store), store, plugins.actions(), lambda: own, self.clock, self.telemetry
        )
        bill = face.billing
        if bill is not None:
            self._bill = KillBill(bill.url, bill.username, bill.password, bill.api_key, bill.api_secret, ca=bill.ca)
        self.front_end = ConcertimApi(
            ConcertimNeeds(
                errands=errands,
                own=own,
                source=source,
                clock=self.clock,
                telemetry=self.telemetry,
                jwt_secret=face.jwt_secret,
                authenticate=face.authenticate,
                auth_urls=face.auth_urls,
                billing=Billing(self._bill, bill.plan if bill else "", bill.currency if bill else ""),
                names=Names(concertim=face.users.concertim, admin=face.users.admin, cloudkitty=face.users.cloudkitty),
            )
        )
        self._prerequisites = Prerequisites(
            own, front_end_wants(self.config, face), self.clock, self.telemetry, create=face.create_missing
        )
        if face.authenticate and len(face.jwt_secret.reveal().encode()) < SHORTEST_SECRET:
            log.warning("faces.concertim.jwt_secret has less than %d bytes: take a longer one at both ends", SHORTEST_SECRET)
        if not face.authenticate:
            log.warning(
                "whoever reaches the front end's API is believed to be the front end (faces.concertim.authenticate: false)"
            )

    def _spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        async def watched() -> None:
            try:
                await work()
            except (CannotStart, ConfigError) as why:
                log.error("%s can't go on: %s", name, why)
                if self.failed is not None and not self.failed.done():
                    self.failed.set_exception(why)

        self._tasks.append(asyncio.create_task(watched(), name=name))

    async def wait(self, stopping: asyncio.Event) -> None:
        """Until it is asked to stop. Raises what a part can't go on from."""
        assert self.failed is not None, "not started"
        asked = asyncio.ensure_future(stopping.wait())
        either: set[asyncio.Future[Any]] = {asked, self.failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if self.failed.done():
            self.failed.result()

    async def stop(self) -> None:
        """Sources and readers first (nothing new), then the streams (each ends with its last chunk), the listeners, the store."""
        readers = [task for task in self._tasks if task.get_name().startswith(("source ", "resync ", "verify "))]
        others = [task for task in self._tasks if task not in readers]
        await cancel(*readers)
        if self.resync is not None:
            self.resync.close()
        if self.dispatch is not None:
            await self.dispatch.drain(GRACE_SECONDS)
        if self.hub is not None:
            self.hub.close()
            with suppress(TimeoutError):  # whoever does not end by then is cut with its connection
                async with asyncio.timeout(GRACE_SECONDS):
                    await self.hub.emptied()
        for server in self._servers:
            await server.stop()
        if self.front_end is not None:
            await self.front_end.close(GRACE_SECONDS)
        if self._bill is not None:
            await self._bill.close()
        await cancel(*others)
        for advising in self._advising:
            await advising.close()
        for meter in self._meters.values():
            await meter.close()
        for handler in self._handlers:
            try:
                await handler.close()
            except Exception:
                log.exception("a handler could not be closed")
        if self._otlp is not None:
            await self._otlp.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        for use in self._uses.values():
            await use.cloud.close()
        if self._keystone is not None:
            await self._keystone.close()
        if self.store is not None:
            await self.store.close()
        if self.failed is not None and self.failed.done() and not self.failed.cancelled():
            self.failed.exception()  # seen


async def serve(
    config: Config,
    *,
    ready: Callable[[Service], None] = lambda _service: None,
    build_source: BuildSource | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. Raises CannotStart when a part can't go on without a person."""
    service = Service(config, build_source=build_source)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await service.start()
    try:
        ready(service)
        await service.wait(stopping)
        log.info("stopping: streams end, the store is closed")
    finally:
        await service.stop()


def _source(one: SourceSettings, clock: Clock, telemetry: Telemetry) -> Source:
    source: Source = plugins.load("sources", one.type).build(one.options, clock=clock, telemetry=telemetry)
    return source


def _hook(one: HookConfig) -> Hook:
    return Hook(
        name=one.name,
        format=one.format,
        webhook=plugins.load("webhooks", one.format).build(one.options),
        token=one.token,
        hmac_secret=one.hmac_secret,
        hmac_age=one.hmac_age,
        keystone=one.keystone,
        roles=one.roles,
        max_body=one.max_body,
    )


def _match(on: On) -> Match:
    return Match(
        sources=frozenset(on.sources),
        kinds=tuple(kind.lower() for kind in on.kinds),
        verbs=frozenset(on.verbs),
        types=on.types,
        projects=frozenset(on.projects),
        when=conditions.compile(on.when) if on.when else None,
    )


def _window(window: WindowSettings) -> Window:
    kind = next(name for name in WINDOW_RULES if getattr(window, name))
    several = getattr(window, kind) if kind in ("all", "any", "not_all") else ()
    span = window.within if several else getattr(window, kind)
    rule = windows.Rule(
        kind=kind,
        span=round(span * 1_000_000),
        threshold=window.threshold,
        conditions=len(several),
        lateness=round(window.lateness * 1_000_000),
        max_groups=window.max_groups,
    )
    return Window(
        rule=rule,
        group_by=tuple(conditions.expression(text) for text in window.group_by),
        conditions=tuple(conditions.compile(text) for text in several),
    )


def _audit_settings(given: msgspec.Struct, usual: AuditSettings) -> AuditSettings:
    """What a section of the configuration says; None there means: as usual."""
    names = (field.name for field in msgspec.structs.fields(AuditSettings))
    said = {name: value for name in names if (value := getattr(given, name, None)) is not None}
    return msgspec.structs.replace(usual, **said)


def front_end_wants(config: Config, face: Concertim) -> Wanted:
    """What the cloud has to have for a front end."""
    return Wanted(
        roles=("admin", "member", "watcher", *(("rating",) if face.billing else ())),
        users=(face.users.admin, face.users.concertim, *((face.users.cloudkitty,) if face.billing else ())),
        # Where nobody reads measurements none have to be kept.
        policies=POLICIES if config.polling is not None else (),
    )


def _planner_options(settings: AuditsConfig) -> JsonObject:
    """Raises ConfigError."""
    given = {"weights": settings.weights, "parallelization": settings.parallelization}
    options: JsonObject = {name: dict(value) for name, value in given.items() if value}
    for name, value in options.items():
        unknown = sorted(value.keys() - plugins.actions().keys() - WEIGHTS.keys())
        if unknown:
            there = ", ".join(sorted(plugins.actions()))
            raise ConfigError(f"there is no action {unknown[0]!r}: there are {there}", path=f"audits.{name}")
    try:
        PlannerOptions(**options)
    except ConfigError as why:
        raise ConfigError(str(why), path="audits.weights") from None
    return options


def _audit_rule(one: AuditRule, audits: Audits) -> Rule:
    objects = tuple(conditions.expression(text) for text in one.objects)
    return Rule(
        name=one.name,
        use="audit",
        handler=RuleHandler(one.name, one.audit, audits.trigger, objects),
        on=tuple(_match(on) for on in one.on),
        window=None if one.window is None else _window(one.window),
    )


def _cloud_use(one: SourceSettings, clock: Clock, telemetry: Telemetry) -> CloudUse | None:
    """The source's API, where its type has one and its settings say which. Nothing is asked yet."""
    build = getattr(plugins.load("sources", one.type), "cloud_use", None)
    use: CloudUse | None = None if build is None else build(one.options, clock=clock, telemetry=telemetry)
    return use


def _drop_verdicts(authenticator: Authenticator, appended: Sequence[Appended], strangers: frozenset[str]) -> None:
    """Keystone announced that a role, a user or a project changed: whoever is concerned is judged anew. What hooks are sent
    (`strangers`) is not Keystone's word, whatever it is called: each such event would have Keystone asked for every token."""
    for one in appended:
        if one.entry.notice.event_type.startswith("identity.") and one.entry.notice.source not in strangers:
            drop_verdicts(authenticator, one.entry.notice)


def _hosts(config: Config) -> frozenset[str]:
    faces = [one.listen for one in (config.faces.weaas, config.faces.infra_optim, config.faces.concertim) if one]
    everywhere = [*config.listen, *(address for listen in faces for address in listen)]
    return frozenset({"localhost", "127.0.0.1", "::1"} | {one.host.lower() for one in everywhere})


def _store_metrics(store: Store, telemetry: Telemetry) -> None:
    telemetry.gauge("log_head_revision", "Revision of the newest entry").set_function(lambda: store.head)
    telemetry.gauge("log_oldest_revision", "The oldest revision one may follow from").set_function(lambda: store.oldest)
    telemetry.gauge("log_entries", "Entries in the log").set_function(lambda: store.head - store.oldest)
    if isinstance(store, SqliteStore):
        telemetry.gauge("store_bytes", "Bytes on disk, the write-ahead log included").set_function(store.size)


def _raise_open_files(max_watchers: int) -> None:
    """Each watcher is a descriptor. Raised to the hard limit; when that is not enough, said at the start and not at 3 a.m."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # (No limit at all is -1, and more than the kernel gives a process.)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    spare = 100
    if hard != resource.RLIM_INFINITY and max_watchers + spare > hard:
        raise CannotStart(
            f"watch.max_watchers is {max_watchers}, but this process may open {hard} files: "
            f"raise the limit (LimitNOFILE={max_watchers + spare} in the systemd unit, or `ulimit -n`), "
            f"or set watch.max_watchers to {max(1, hard - spare)}"
        )


def _authenticator(
    config: Config, clock: Clock, telemetry: Telemetry, keep_seconds: float
) -> tuple[Authenticator, Keystone | None]:
    """Who judges tokens; and the Keystone client to close at the end, if there is one."""
    auth = config.auth
    if auth.mode == "none":
        log.warning("authentication is off: everybody who reaches the listener sees everything")
        return NoneAuthenticator(), None
    if auth.mode == "tokens":
        tokens = [StaticToken(token=one.token, name=one.name, projects=one.projects, roles=one.roles) for one in auth.tokens]
        return TokensAuthenticator(tokens), None
    settings = auth.keystone or KeystoneSettings()
    given = {name: value for name, value in msgspec.structs.asdict(settings).items() if value and name != "admin_roles"}
    keystone = Keystone(credentials(given), clock)
    authenticator = KeystoneAuthenticator(
        keystone, clock, admin_roles=settings.admin_roles, telemetry=telemetry, keep_seconds=keep_seconds
    )
    return authenticator, keystone
