"""The settings: a YAML file and the environment come in, one frozen `Config` goes out; app.py builds the service from it.

`load` and `load_text` read, `show` writes it back with its secrets masked. What is wrong is a ConfigError that names the dotted
path and the line. The structs below are the contract: a key is a field, its type says what is taken, the sentence under it is
what docs/howto/configuration.md prints. Settings of a source are the `Options` of its own file in `sources/`, so a new source
needs nothing here.

How a field's type is read:

- `Seconds`, `Bytes`, `FilePath` (kit/units.py): `7d`, `256KiB`, a path beside the configuration file. A number called `expires_s`
  in the code is `expires` in the file, and a duration.
- `Secret`: text that never prints.
- A tuple of values takes a single one too.

`${NAME}` inside a value is replaced by the environment's, after the YAML is parsed: nothing in a variable can become YAML, and
nothing that it holds is looked at again. `$${` is a plain `${`.
"""

from __future__ import annotations

import ipaddress
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec
import yaml

from vedette import plugins
from vedette.engine import change_windows, conditions
from vedette.errors import ConfigError
from vedette.kit.clock import parse_us
from vedette.kit.secret import MASK, Secret, without_password
from vedette.kit.units import UNIT, Bytes, FilePath, Seconds, parse_duration, parse_size, show_duration, show_size
from vedette.model.reading import OPENSTACK, VEDETTE, VEDETTE_SOURCE
from vedette.ports import Kind

MAX_FILE = 256 * 1024
"""Bytes of a configuration file."""
MAX_NODES = 20_000
"""YAML values looked at, those behind aliases counted each time: a few lines of aliases can stand for billions."""
MAX_DEPTH = 40
"""Levels of nesting."""
SHORTEST_TOKEN = 16
"""Characters of a static token. It is the only thing between a stranger and the cloud's inventory."""

# --- the contract ----------------------------------------------------------------------------------------------------------


class Address(msgspec.Struct, frozen=True):
    """Where to listen."""

    host: str
    """A name or an IP address, without brackets."""
    port: int
    """0 for one that is free."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. Any name but `localhost` may be anything."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """The listener's certificate."""

    cert: FilePath
    """PEM file with the certificate and its chain; read again when it changes."""
    key: FilePath
    """PEM file with its private key."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much history is kept. The present state of every object is always kept."""

    max_age: Seconds = 7 * 86_400.0
    """Entries older than this, counted from when they were written, leave the log; 0: no limit."""
    max_bytes: Bytes = 20 * 1024**3
    """The oldest entries leave the log when it is larger than this; 0: no limit."""


class Keystone(msgspec.Struct, frozen=True, kw_only=True):
    """How callers' tokens are checked: Vedette needs a user of its own that may validate tokens."""

    auth_url: str = ""
    """Keystone's address, such as `https://keystone:5000/v3`."""
    cloud: str = ""
    """An entry of clouds.yaml instead of the keys below; what is also given here goes before it."""
    username: str = ""
    """Vedette's own user."""
    user_id: str = ""
    """Its id, instead of `username` and its domain."""
    password: Secret = Secret()
    """Its password."""
    user_domain_name: str = ""
    """The domain of `username`."""
    user_domain_id: str = ""
    """The same by id."""
    project_name: str = ""
    """The project to sign in to, such as `service`."""
    project_id: str = ""
    """The same by id."""
    project_domain_name: str = ""
    """The domain of `project_name`."""
    project_domain_id: str = ""
    """The same by id."""
    domain_name: str = ""
    """A domain to sign in to instead of a project."""
    domain_id: str = ""
    """The same by id."""
    system_scope: str = ""
    """`all`: sign in to the whole system instead of a project."""
    tenant_name: str = ""
    """What `project_name` was called in the days of Keystone v2."""
    tenant_id: str = ""
    """What `project_id` was called in the days of Keystone v2."""
    application_credential_id: str = ""
    """An application credential instead of a user and password."""
    application_credential_name: str = ""
    """The same by name; wants the user too."""
    application_credential_secret: Secret = Secret()
    """Its secret."""
    cacert: FilePath = ""
    """A file of certificates to trust; none: the system's."""
    cert: FilePath = ""
    """A client certificate, where Keystone wants one."""
    key: FilePath = ""
    """Its private key."""
    admin_roles: tuple[str, ...] = ("admin",)
    """Roles that make a caller see everything, at any project or system scope."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A caller known by a token from this file."""

    token: Secret
    """At least 16 printable characters; `openssl rand -hex 24` makes a good one."""
    name: str
    """Who this is, in logs."""
    projects: tuple[str, ...] = ()
    """Ids of the projects whose objects it sees; `["*"]`, with the role `admin`: everything."""
    roles: tuple[str, ...] = ()
    """`admin`, with the projects `["*"]`: sees what OpenStack shows admins only. Others mean nothing here."""


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """Who may ask."""

    mode: Literal["keystone", "tokens", "none"] = "none"
    """`keystone`: OpenStack's own tokens. `tokens`: those listed here. `none`: everybody sees everything, on loopback only."""
    keystone: Keystone | None = None
    """For mode `keystone`."""
    tokens: tuple[Token, ...] = ()
    """For mode `tokens`."""


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where news comes from. What else can be set depends on its type."""

    name: str
    """Its name in paths, labels, logs and metrics."""
    type: str
    """A file name in `sources/`."""
    default: bool = False
    """Served at `/apis/…` without its name. An only source is the default one anyway."""
    drop: tuple[str, ...] = ("*.exists",)
    """Patterns of event types that are counted and not kept."""
    options: Any = None
    """The `Options` of the type's own file; their keys stand beside the ones above."""


class HookConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who may send news over HTTP, at `/v1/hooks/{format}/{name}`. What else can be set depends on the format."""

    name: str
    """Its name in the path, and the source of its events in labels, logs and metrics."""
    format: str
    """A file name in `webhooks/`."""
    token: Secret = Secret()
    """The caller sends it as `Authorization: Bearer …` or `X-Auth-Token`; at least 16 characters."""
    hmac_secret: Secret = Secret()
    """The caller signs timestamp and body with it; at least 16 characters."""
    hmac_age: Seconds = 300.0
    """A signature's timestamp may differ this much from our clock."""
    keystone: bool = False
    """Take Keystone tokens with one of `roles`."""
    roles: tuple[str, ...] = ("admin", "service")
    """Roles that may call it with a Keystone token (an alarm's trust token has those of its owner)."""
    max_body: Bytes = 1024 * 1024
    """The largest body that is taken; more is answered with 413."""
    options: Any = None
    """The `Options` of the format's own file; their keys stand beside the ones above."""


class On(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler is called for. Everything that is given has to hold. With `kinds` or `verbs` it is called for changes of
    objects, else for the notifications themselves."""

    sources: tuple[str, ...] = ()
    """Names of sources and hooks; none: all."""
    kinds: tuple[str, ...] = ()
    """Kinds of objects, by any of their names (`port`, `ports`); of a Kubernetes source as `routes.route.openshift.io`."""
    verbs: tuple[Literal["ADDED", "MODIFIED", "DELETED"], ...] = ()
    """What has to happen to them; none: anything."""
    types: tuple[str, ...] = ()
    """Patterns of event types, such as `port.*.end`."""
    projects: tuple[str, ...] = ()
    """Ids of the objects' projects; none: all."""
    when: str = ""
    """A condition in CEL over `event`, `object`, `old` and `changed`, such as `'status.host' in changed`."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How a failed call is made again: a random part of `first`, twice that, four times that … up to `most`."""

    attempts: int = 20
    """Calls in all; then it is a dead letter. (Twenty by the times below are about half an hour.)"""
    first: Seconds = 1.0
    """The longest wait after the first failure."""
    most: Seconds = 300.0
    """The longest wait of all."""
    deadline: Seconds = 86_400.0
    """Counted from the first call; what fails later is a dead letter, whatever attempts are left. 0: none."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the matching events call the handler, by what else happens to their group within a time. One rule of
    `once_within`, `once_after`, `accumulate_within` (with `threshold`), `absent_for`, or `all`, `any`, `not_all` (with
    `within`)."""

    group_by: tuple[str, ...] = ()
    """CEL expressions whose values make the group, such as `object.metadata.name`; none: one group for all."""
    once_within: Seconds = 0.0
    """The first calls; those that follow in this time don't."""
    once_after: Seconds = 0.0
    """The last calls, when this time has passed since the first."""
    accumulate_within: Seconds = 0.0
    """Calls with the one that makes `threshold` within this time."""
    threshold: int = 0
    """How many."""
    all: tuple[str, ...] = ()
    """CEL conditions that each have to hold for some event `within`, in any order; calls with the one that completes them."""
    any: tuple[str, ...] = ()
    """CEL conditions of which one has to hold; calls once `within`."""
    not_all: tuple[str, ...] = ()
    """CEL conditions; calls with the first event when they have not all held `within`."""
    within: Seconds = 0.0
    """The time of `all`, `any` and `not_all`, from a group's first event."""
    absent_for: Seconds = 0.0
    """Calls with the last event of a group when none has come for this time."""
    lateness: Seconds = 10.0
    """How much later than newer ones an event may come and still count."""
    max_groups: int = 10_000
    """Groups kept at one time; the one that is oldest is let go for a new one, and that is counted."""


class HandlerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A reaction: which plug is called for which events."""

    name: str
    """Its name in logs, metrics and commands. Its place in the log is kept under this name."""
    use: str
    """A file name in `handlers/`, in `plugins.folder`, or an entry point in the group `vedette.handlers`."""
    on: tuple[On, ...] = ()
    """One set of conditions or a list of them, of which one has to hold; none: every notification."""
    options: Any = None
    """The plug's own settings."""
    start: str = "now"
    """Where a new handler begins: `now`, `earliest`, a revision, or a time (`2026-11-20T15:00:00Z`)."""
    retry: Retry = Retry()
    """How failed calls are made again."""
    timeout: Seconds = 30.0
    """What a call may take."""
    concurrency: int = 10
    """Calls at one time, each for another object."""
    rate: float = 0.0
    """Calls a second at the most; 0: no limit."""
    coalesce: Seconds = 0.0
    """Wait this long for more changes of the same object, and call once with the last."""
    window: Window | None = None
    """Call for some of the matching events only."""
    max_pending: int = 10_000
    """Deliveries waiting at one time; then they wait in the log."""
    own_events: bool = False
    """Also handle events that this handler's own calls have caused."""
    users: tuple[str, ...] = ()
    """Ids of the users under which its target acts on the cloud: what they cause is its own."""
    max_depth: int = 5
    """Events that are caused by a handler's reaction to an event that … this many times are not handled any more."""


class MeterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where measurements come from. What else can be set depends on its type."""

    name: str
    """Its name in logs and metrics."""
    type: str
    """A file name in `meters/`."""
    options: Any = None
    """The `Options` of the type's own file; their keys stand beside the ones above."""


class MirrorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Another system that is kept equal to the cloud. What else can be set depends on its type."""

    name: str
    """Its name in logs, metrics and dead letters. Its place in the log is kept under this name, like a handler's."""
    type: str
    """A file name in `mirrors/`."""
    compare: Seconds = 150.0
    """Between two full comparisons; changes are written as they happen."""
    concurrency: int = 10
    """Changes that are written at one time; those of one object one after the other."""
    call_timeout: Seconds = 60.0
    """What the writes for one change may take; then it is tried again."""
    retry: Retry = Retry()
    """When the other system did not take a change."""
    options: Any = None
    """The `Options` of the type's own file; their keys stand beside the ones above."""


class OtlpConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements to an OpenTelemetry collector. Needs `pip install vedette[tracing]`."""

    endpoint: str
    """Where they are sent by OTLP over HTTP, such as `http://collector:4318/v1/metrics`."""
    service_name: str = "vedette"
    """The service's name in them."""


class PollingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of servers, read on a timer: shown at `/metrics/cloud`, and handed to mirrors."""

    meter: str
    """The name of a meter that can tell what every server uses (type `gnocchi`)."""
    source: str = ""
    """The source whose cloud it is; none: the default one."""
    interval: Seconds = 15.0
    """From the beginning of a round to the beginning of the next."""
    granularity: Seconds = 60.0
    """Of the measures that are read, as the archive policy has it."""
    per_vcpu: bool = False
    """A server's processor load for each of its vCPUs, 0 to 100, instead of 400 for four busy ones."""
    user: str = "concertim"
    """Servers of the projects are measured in which this user …"""
    role: str = "watcher"
    """… has this role."""
    projects: tuple[str, ...] = ()
    """Ids of projects, instead of those."""
    push: tuple[str, ...] = ()
    """Names of mirrors that are given the measurements."""
    otlp: OtlpConfig | None = None
    """A collector that is given them, too."""


class AuditConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is different for one audit; what isn't given is as `audits` has it."""

    name: str
    """The audit's name or uuid."""
    on_busy: Literal["coalesce", "queue", "reject"] | None = None
    """See `audits`."""
    rerun_failed: bool | None = None
    """See `audits`."""
    cooldown: Seconds | None = None
    """See `audits`."""
    object_cooldown: Seconds | None = None
    """See `audits`."""
    policy: Literal["stop", "continue", "rollback"] | None = None
    """See `audits`."""
    dry_run: bool | None = None
    """See `audits`."""
    planner: Literal["graph", "weight", "workload_stabilization", "node_resource_consolidation"] | None = None
    """See `audits`."""


class AuditRule(msgspec.Struct, frozen=True, kw_only=True):
    """Events that trigger an EVENT audit, without HTTP in between."""

    name: str
    """Its name in logs, metrics and triggers. Its place in the log is kept under this name, like a handler's."""
    audit: str
    """The audit's name or uuid; it may be made later."""
    on: tuple[On, ...] = ()
    """One set of conditions or a list of them, of which one has to hold."""
    window: Window | None = None
    """Only some of the matching events."""
    objects: tuple[str, ...] = ()
    """CEL expressions whose values are the ids or names of what is concerned, such as `event.payload.host`; none: the object's id
    and its host."""


class Audits(msgspec.Struct, frozen=True, kw_only=True):
    """Audits, action plans and OpenStack Watcher's API for them. They are on when this section is there."""

    source: str = ""
    """The source whose cloud is audited and changed; none: the default one."""
    on_busy: Literal["coalesce", "queue", "reject"] = "coalesce"
    """A trigger during a run: goes along with the others into one run after it, waits for a run of its own, or is refused as
    Watcher does."""
    max_queued: int = 1_000
    """Triggers of one audit that wait with `on_busy: queue`; more are refused for now (503)."""
    rerun_failed: bool = True
    """An EVENT audit that failed may be triggered again."""
    cooldown: Seconds = 0.0
    """Between the end of a run of an EVENT audit and the next; triggers wait."""
    object_cooldown: Seconds = 0.0
    """The same for triggers that all speak of one host or server."""
    planner: Literal["graph", "weight", "workload_stabilization", "node_resource_consolidation"] = "graph"
    """What puts actions into an order; a strategy may need one of its own. `weight` is Watcher's default."""
    weights: dict[str, int] = {}
    """Of the planner `weight`: actions with a higher weight come first, `{nop: 70, migrate: 30}`; no two may have the same, and
    what isn't named comes last. None: Watcher's own."""
    parallelization: dict[str, int] = {}
    """Of the planner `weight`: how many actions of a type run at one time; 1 of what isn't named. None: Watcher's own."""
    runs: int = 2
    """Audits that run at one time, each in a process of its own."""
    strategy_timeout: Seconds = 300.0
    """What a strategy may think."""
    max_cpu: Seconds = 120.0
    """The processor time that a strategy may use for one plan; a run that needs more has failed."""
    max_memory: Bytes = 2 * 1024**3
    """What such a process may have."""
    policy: Literal["stop", "continue", "rollback"] = "stop"
    """When an action of a plan fails: begin no others, go on with those that don't depend on it, or undo what was done."""
    dry_run: bool = False
    """Look at the preconditions of a plan's actions and do nothing."""
    approval: bool = False
    """A plan that was started waits until somebody approves it (`vedette plans approve`)."""
    change_windows: tuple[str, ...] = ()
    """When plans may be carried out, such as `mon-fri 22:00-04:00`; none: always."""
    timezone: str = "UTC"
    """The time zone of `change_windows`, such as `Europe/Berlin`."""
    parallel: int = 10
    """Actions at one time."""
    per_host: int = 2
    """Actions at one time that one host has a part in; 0: no limit."""
    per_pair: int = 1
    """Moves at one time from one host to another; 0: no limit."""
    per_pool: int = 2
    """Moves at one time that one storage pool has a part in; 0: no limit."""
    per_zone: int = 0
    """Actions at one time in one availability zone; 0: no limit."""
    action_timeout: Seconds = 3_600.0
    """What one action may take."""
    expiry: Seconds = 86_400.0
    """A plan that nobody started for so long is superseded."""
    enable_webhooks_auth: bool = True
    """`POST …/v1/webhooks/{audit}` wants a token of an admin or a service; false: anybody who reaches it may trigger an audit."""
    alarm_interval: Seconds = 300.0
    """Between two looks at Aodh's alarms, for transitions whose webhook never came; 0: none."""
    each: tuple[AuditConfig, ...] = ()
    """What is different for some audits."""
    rules: tuple[AuditRule, ...] = ()
    """Events that trigger audits."""


class Plugins(msgspec.Struct, frozen=True, kw_only=True):
    """Code of the operator's own. Each handler made of it runs in a process of its own."""

    folder: FilePath = ""
    """Where its files are: `greet.py`, or `greet/__init__.py`, is `use: greet`."""


class Tracing(msgspec.Struct, frozen=True, kw_only=True):
    """OpenTelemetry spans of handler calls, as children of the notification's own trace. Needs `pip install vedette[tracing]`."""

    endpoint: str
    """Where they are sent by OTLP over HTTP, such as `http://collector:4318/v1/traces`."""
    service_name: str = "vedette"
    """The service's name in them."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of streams."""

    bookmark_seconds: Seconds = 15.0
    """A watcher that asked for bookmarks gets one at least this often."""
    max_watchers: int = 10_000
    """Streams at one time; each is an open file, and a limit that the system doesn't allow is refused at the start."""
    max_streams: int = 100
    """Streams at one time with one token."""
    max_buffer_bytes: Bytes = 256 * 1024
    """Unsent bytes for one watcher; one that is further behind reads from the log at its own pace."""
    stall_timeout: Seconds = 60.0
    """A watcher whose connection took nothing for this long is cut; it can resume."""


class Weaas(msgspec.Struct, frozen=True, kw_only=True):
    """WEaaS' own paths, at a port of their own."""

    listen: tuple[Address, ...] = ()
    """Where to serve them at the root; none: only at the main port."""
    config: FilePath = ""
    """WEaaS' `config.yml`; none: the one that came with it."""


class InfraOptim(msgspec.Struct, frozen=True, kw_only=True):
    """Watcher's API, at a port of its own. It is at `/infra-optim` of the main port anyway, where there are `audits`."""

    listen: tuple[Address, ...] = ()
    """Where to serve it at the root, such as `0.0.0.0:9322`."""


class FrontEndUsers(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts that get roles in every project that is made for a front end's users."""

    concertim: str = "concertim"
    """Gets `watcher` and `member`: measurements are read for projects in which it has the first."""
    admin: str = "admin"
    """Gets `admin`."""
    cloudkitty: str = "cloudkitty"
    """Gets `rating`, where billing is on."""


class BillingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A Kill Bill: accounts of teams, credits, orders, invoices."""

    url: str
    """Where it is, such as `https://killbill.example.org`."""
    username: str = "admin"
    """An account of it."""
    password: Secret
    """Its password."""
    api_key: str
    """The tenant's."""
    api_secret: Secret
    """The tenant's."""
    plan: str
    """The plan in its catalog that each order subscribes to."""
    currency: str = "USD"
    """Of credits and of new accounts."""
    ca: FilePath = ""
    """The CA of its certificate, a PEM file; none: the system's."""


class Concertim(msgspec.Struct, frozen=True, kw_only=True):
    """The API that a Concertim front end asks: users, teams, key pairs, what its buttons do. At `/concertim` of the main port."""

    listen: tuple[Address, ...] = ()
    """Where to serve it at the root, too, such as `0.0.0.0:42356`."""
    jwt_secret: Secret = Secret()
    """What the front end signs its requests with (its `JWT_SECRET`)."""
    authenticate: bool = True
    """false: everybody who reaches it is believed to be the front end. The first generation of it sends no token."""
    source: str = ""
    """Whose cloud; none: the default source. It needs an API."""
    auth_urls: tuple[str, ...] = ()
    """Other addresses by which the front end knows the same Keystone. It is asked at the source's own all the same."""
    users: FrontEndUsers = FrontEndUsers()
    """Accounts that get roles in every new project."""
    billing: BillingConfig | None = None
    """Where credits and orders are kept; none: there is no billing."""
    create_missing: bool = False
    """Make the roles and the users that are missing, when the service starts; a user gets a password that nobody knows."""


class Faces(msgspec.Struct, frozen=True, kw_only=True):
    """Faces of the systems that Vedette replaces."""

    weaas: Weaas | None = None
    """Watch Events as a Service."""
    infra_optim: InfraOptim | None = None
    """OpenStack Watcher."""
    concertim: Concertim | None = None
    """Concertim's OpenStack service."""


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Vedette's own log lines, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set."""

    listen: tuple[Address, ...] = (Address("127.0.0.1", 8470),)
    """Where the API is served: one address or a list."""
    tls: Tls | None = None
    """Serve https. kubectl sends no token over plain http."""
    data_dir: FilePath = "/var/lib/vedette"
    """The folder of the log, for one process each; `""`: in memory, gone at the end."""
    retention: Retention = Retention()
    """How much history is kept."""
    auth: Auth = Auth()
    """Who may ask."""
    allow_insecure: bool = False
    """Take tokens over plain http from other machines too; say so only behind a proxy that speaks TLS."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may read the API in a browser, such as `https://portal.example.org`; `"*"`: any."""
    sources: tuple[SourceConfig, ...] = ()
    """Where news comes from."""
    hooks: tuple[HookConfig, ...] = ()
    """Who may send news over HTTP."""
    handlers: tuple[HandlerConfig, ...] = ()
    """What is called for which events."""
    mirrors: tuple[MirrorConfig, ...] = ()
    """Other systems that are kept equal to the cloud."""
    audits: Audits | None = None
    """Audits and action plans; none: off."""
    meters: tuple[MeterConfig, ...] = ()
    """Where measurements come from: the first that can tell one is asked."""
    polling: PollingConfig | None = None
    """Measurements of servers on a timer; none: off."""
    plugins: Plugins = Plugins()
    """Code of the operator's own."""
    tracing: Tracing | None = None
    """OpenTelemetry spans; none: off."""
    watch: Watch = Watch()
    """The limits of streams."""
    faces: Faces = Faces()
    """Faces of the systems that Vedette replaces."""
    log: Log = Log()
    """Vedette's own log lines."""


# --- reading ---------------------------------------------------------------------------------------------------------------


def load(path: Path | str, environ: Mapping[str, str]) -> Config:
    """The settings in a file. Relative paths in it are looked for beside it. Raises ConfigError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as why:
        raise ConfigError(f"the configuration {path} can't be read: {why.strerror}") from None
    except ValueError as why:
        raise ConfigError(f"the configuration can't be read: {why}") from None
    return load_text(raw, environ, folder=path.parent)


def load_text(text: str | bytes, environ: Mapping[str, str], *, folder: Path | None = None) -> Config:
    """The settings in a text (bytes are UTF-8); relative paths are looked for in `folder`, if given. Raises ConfigError."""
    reader = _Reader(environ, folder)
    config: Config = reader.read(_compose(text), Config, _Place("", 1))
    _check(config, reader.line)
    return _renamed(config)


def _compose(text: str | bytes) -> yaml.Node:
    """The YAML's nodes, which know their lines. Never shows a piece of the text: it may hold a password."""
    if len(text) > MAX_FILE:
        raise ConfigError(f"the configuration has more than {MAX_FILE} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        node = yaml.compose(text, yaml.SafeLoader)
    except UnicodeDecodeError as why:
        assert isinstance(text, bytes)
        raise ConfigError("the configuration is not UTF-8", line=text.count(b"\n", 0, why.start) + 1) from None
    except yaml.MarkedYAMLError as why:
        mark = why.problem_mark or why.context_mark
        raise ConfigError(f"not YAML: {why.problem or why.context}", line=mark.line + 1 if mark else 0) from None
    except yaml.reader.ReaderError as why:
        line = text.count("\n", 0, why.position) + 1 if isinstance(text, str) else 0
        raise ConfigError(f"not YAML: {why.reason}", line=line) from None
    except RecursionError:
        raise ConfigError(f"the configuration is nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, OverflowError):
        # A number or an escape in it that Python has no value for; which one, the parser doesn't say.
        raise ConfigError("not YAML: a number or an escape is out of range") from None
    if node is None:
        raise ConfigError("the configuration is empty")
    return node


class _Place(msgspec.Struct, frozen=True):
    """Where in the file: for what a person is told."""

    path: str
    line: int
    depth: int = 0

    def wrong(self, message: str) -> ConfigError:
        return ConfigError(message, path=self.path, line=self.line)


_PLUGS: dict[Any, tuple[str, str, str]] = {
    SourceConfig: ("sources", "type", "source"),
    HookConfig: ("webhooks", "format", "hook"),
    MeterConfig: ("meters", "type", "meter"),
    MirrorConfig: ("mirrors", "type", "mirror"),
}
"""Structs whose further keys are those of a plug: the slot, the key that names it, and what it is called."""


class _Reader:
    """Turns nodes into structs, by the types of their fields."""

    def __init__(self, environ: Mapping[str, str], folder: Path | None) -> None:
        self._environ = environ
        self._folder = folder
        self._nodes = 0
        self._lines: dict[str, int] = {}

    def line(self, path: str) -> int:
        """The line of a dotted path, or of the nearest one around it that stands in the file."""
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path, 0)

    def read(self, node: yaml.Node, hint: Any, place: _Place) -> Any:
        """One value of type `hint`. Raises ConfigError."""
        self._count(place)
        if node.tag not in _TAGS:
            raise place.wrong("YAML tags such as !!… are not taken here")
        unit, hint = _unit(hint)
        if _is_optional(hint):
            if node.tag == _NULL:
                return None
            unit, hint = _unit(next(one for one in get_args(hint) if one is not types.NoneType))
        if node.tag == _NULL:
            raise place.wrong("has no value: give it one, or leave the key out")
        if hint in _PLUGS:
            return self._plug(node, place, hint, *_PLUGS[hint])
        if hint is HandlerConfig:
            return self._handler(node, place)
        if hint is Address:
            return self._address(node, place)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self._struct(self._mapping(node, place), hint, place)
        origin = get_origin(hint)
        if origin in (tuple, list, frozenset, Sequence):
            return self._several(node, get_args(hint)[0], origin if origin is not Sequence else tuple, place)
        if origin in (dict, Mapping):
            entries = self._mapping(node, place)
            return {key: self.read(value, get_args(hint)[1], at) for key, (value, at) in entries.items()}
        return self._scalar(node, hint, unit, place)

    def _count(self, place: _Place) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES or place.depth > MAX_DEPTH:
            raise place.wrong(f"the configuration has more than {MAX_NODES} values, or more than {MAX_DEPTH} levels")
        self._lines[place.path] = place.line

    def _struct(self, entries: Mapping[str, tuple[yaml.Node, _Place]], struct: type[Any], place: _Place, **given: Any) -> Any:
        """A struct from a mapping's entries; `given` are fields that don't come from there."""
        hints = get_type_hints(struct, include_extras=True)
        fields = {_key(field.name, hints[field.name]): field for field in msgspec.structs.fields(struct)}
        values = dict(given)
        for key, (node, at) in entries.items():
            field = fields.get(key)
            if field is None or field.name in given:
                raise at.wrong(
                    _unknown(key, [name for name, one in fields.items() if one.name not in given], "there is no such key")
                )
            hint = hints[field.name]
            if key != field.name:
                value = self.read(node, Seconds, at)
                values[field.name] = self._whole(value, at) if _unit(hint)[1] is int else value
            else:
                values[field.name] = self.read(node, hint, at)
        for key, field in fields.items():
            if field.required and field.name not in values:
                raise place.wrong(f"{key} is missing")
        try:
            return struct(**values)
        except ConfigError as why:
            raise place.wrong(str(why)) from None
        except (ValueError, TypeError) as why:
            raise place.wrong(str(why)) from None

    def _plug(self, node: yaml.Node, place: _Place, struct: type[Any], slot: str, key: str, what: str) -> Any:
        """The keys of every plug of a slot, and the rest by its own `Options`."""
        entries = self._mapping(node, place)
        own = {field.name for field in msgspec.structs.fields(struct)} - {"options"}
        common = {_key(name, hint) for name, hint in get_type_hints(struct, include_extras=True).items() if name != "options"}
        plug = self._struct({name: entry for name, entry in entries.items() if name in common}, struct, place, options=None)
        name, there = getattr(plug, key), plugins.names(slot)
        if name not in there:
            raise entries[key][1].wrong(_unknown(name, there, f"there is no such {key} of {what}"))
        options = plugins.load(slot, name).Options
        hints = get_type_hints(options, include_extras=True)
        known = own | {_key(one, hint) for one, hint in hints.items()}
        rest = {one: entry for one, entry in entries.items() if one not in common}
        for one, (_, at) in rest.items():
            if one not in known:
                raise at.wrong(_unknown(one, known, f"a {what} of {key} {name} has no such key"))
        given = {one: getattr(plug, one) for one in own & hints.keys()}
        return msgspec.structs.replace(plug, options=self._struct(rest, options, place, **given))

    def _handler(self, node: yaml.Node, place: _Place) -> HandlerConfig:
        """A handler's `options` are read by the shipped plug's own `Options`; those of foreign code are taken as they are, since
        it is never imported here: its own process reads them."""
        entries = self._mapping(node, place)
        given = entries.pop("options", None)
        handler: HandlerConfig = self._struct(entries, HandlerConfig, place, options=None)
        if handler.use not in plugins.names("handlers"):
            options: Any = {} if given is None else self._anything(*given)
            if not isinstance(options, dict):
                assert given is not None
                raise given[1].wrong("wants keys with values")
        else:
            struct = plugins.load("handlers", handler.use).Options
            rest, at = ({}, place) if given is None else (self._mapping(*given), given[1])
            options = self._struct(rest, struct, at)
        return msgspec.structs.replace(handler, options=options)

    def _anything(self, node: yaml.Node, place: _Place) -> Any:
        """A value whose type nobody here knows: plain YAML, with the environment's variables in it."""
        self._count(place)
        if node.tag not in _TAGS:
            raise place.wrong("YAML tags such as !!… are not taken here")
        if isinstance(node, yaml.MappingNode):
            return {key: self._anything(value, at) for key, (value, at) in self._mapping(node, place).items()}
        if isinstance(node, yaml.SequenceNode):
            return [
                self._anything(one, _Place(f"{place.path}[{number}]", one.start_mark.line + 1, place.depth + 1))
                for number, one in enumerate(node.value)
            ]
        if node.tag == _NULL:
            return None
        assert isinstance(node, yaml.ScalarNode), "a node is one of three"
        value = _plain(node, place)
        return self._filled(value, place)[0] if isinstance(value, str) else value

    def _address(self, node: yaml.Node, place: _Place) -> Address:
        text = self._scalar(node, str, "", place)
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not colon or not host or (":" in host) != bracketed or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host, re.ASCII):
            raise place.wrong("wants an address with a port, such as 127.0.0.1:8470 or [::1]:8470")
        if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65_535:
            raise place.wrong("the port is not a number from 0 to 65535")
        return Address(host, int(port))

    def _several(self, node: yaml.Node, hint: Any, build: Callable[[Sequence[Any]], Any], place: _Place) -> Any:
        """A list; a single value counts as a list of one, where the values are no mappings (but one set of conditions is)."""
        if isinstance(node, yaml.SequenceNode):
            values = [
                self.read(one, hint, _Place(f"{place.path}[{number}]", one.start_mark.line + 1, place.depth + 1))
                for number, one in enumerate(node.value)
            ]
        elif isinstance(node, yaml.ScalarNode) or hint is On:
            values = [self.read(node, hint, place)]
        else:
            raise place.wrong("wants a list")
        return build(values)

    def _mapping(self, node: yaml.Node, place: _Place) -> dict[str, tuple[yaml.Node, _Place]]:
        """A mapping's entries by key, merged ones (`<<`) behind its own."""
        if not isinstance(node, yaml.MappingNode):
            raise place.wrong("wants keys and values, one `key: value` a line")
        entries: dict[str, tuple[yaml.Node, _Place]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            self._nodes += 1
            if key.tag == _MERGE:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise _Place(place.path, line).wrong("a key is not text")
            name = key.value
            at = _Place(f"{place.path}.{name}" if place.path else name, line, place.depth + 1)
            if name in entries:
                raise at.wrong(f"is given twice, first in line {entries[name][1].line}")
            entries[name] = (value, at)
        for other in merged:
            inner = _Place(place.path, other.start_mark.line + 1, place.depth + 1)
            if self._nodes > MAX_NODES or inner.depth > MAX_DEPTH:
                raise inner.wrong(f"the configuration has more than {MAX_NODES} values, or more than {MAX_DEPTH} levels")
            for name, entry in self._mapping(other, inner).items():
                entries.setdefault(name, entry)
        return entries

    def _scalar(self, node: yaml.Node, hint: Any, unit: str, place: _Place) -> Any:
        """A text, a number, a truth value, in the form that `hint` and `unit` want."""
        if not isinstance(node, yaml.ScalarNode):
            raise place.wrong(f"wants {_WANTED.get(unit) or _WANTED.get(hint, 'one value')}")
        value = _plain(node, place)
        filled = False
        if isinstance(value, str):
            value, filled = self._filled(value, place)
        if unit == "seconds" or unit == "bytes":
            if isinstance(value, bool):
                raise place.wrong(f"wants {_WANTED[unit]}")
            try:
                return parse_duration(value) if unit == "seconds" else parse_size(value)
            except ValueError as why:
                raise place.wrong(str(why)) from None
        if hint is Secret:
            return Secret(self._text(value, place))
        if unit == "path":
            return self._beside(self._text(value, place))
        if hint is str:
            return self._text(value, place)
        if filled and hint in (bool, int, float):
            value = _number(cast(str, value), place)
        if hint is float and type(value) is int:
            value = float(value)
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                raise place.wrong(_unknown(str(value), [str(one) for one in get_args(hint)], "there is no such value"))
            return value
        if hint in (bool, int, float) and (type(value) is not hint or value in (math.inf, -math.inf) or value != value):
            raise place.wrong(f"wants {_WANTED[hint]}")
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError as why:
            raise place.wrong(str(why)) from None

    def _text(self, value: Any, place: _Place) -> str:
        if not isinstance(value, str):
            raise place.wrong("wants text: put quotes around it")
        if _NO_TEXT.search(value):
            raise place.wrong("holds a character that is none (NUL, or half of a surrogate pair)")
        return value

    def _whole(self, seconds: float, place: _Place) -> int:
        if seconds != int(seconds):
            raise place.wrong("wants whole seconds")
        return int(seconds)

    def _beside(self, text: str) -> str:
        if not text or self._folder is None:
            return text
        return str(self._folder / text)

    def _filled(self, text: str, place: _Place) -> tuple[str, bool]:
        """The text with its `${NAME}` replaced, and whether there was one."""
        filled = False

        def value(match: re.Match[str]) -> str:
            nonlocal filled
            if match[0] == "$${":
                return "${"
            name = match["name"]
            if name is None:
                raise place.wrong("holds a ${ that no variable's name and } follow; a plain one is written $${")
            if name not in self._environ:
                raise place.wrong(f"the environment has no variable {name}")
            filled = True
            return self._environ[name]

        return _VARIABLE.sub(value, text), filled


_TAG = "tag:yaml.org,2002:"
_NULL, _MERGE = f"{_TAG}null", f"{_TAG}merge"
_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")}
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)\})?", re.ASCII)
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_WANTED: dict[Any, str] = {
    "seconds": "a duration such as 7d, 60s or 1h30m",
    "bytes": "a size such as 256KiB or 20GiB",
    "path": "a path",
    str: "text",
    Secret: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def _plain(node: yaml.ScalarNode, place: _Place) -> Any:
    """A scalar's value as YAML reads it; a date stays text, since no setting is one."""
    constructor = yaml.constructor.SafeConstructor()
    text: str = node.value
    try:
        match node.tag.removeprefix(_TAG):
            case "int":
                return constructor.construct_yaml_int(node)
            case "float":
                return constructor.construct_yaml_float(node)
            case "bool":
                return constructor.construct_yaml_bool(node)
    except (ValueError, KeyError, IndexError):
        raise place.wrong("is not a number or a truth value, as its tag says") from None
    return text


def _number(text: str, place: _Place) -> Any:
    """What a variable holds, where a number or a truth value is wanted."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[+-]?\d{1,18}\.\d{1,18}", text, re.ASCII):
        return float(text)
    raise place.wrong("the variable holds no number, true or false")


def _unit(hint: Any) -> tuple[str, Any]:
    """A type's unit, if it has one, and the type without it."""
    if get_origin(hint) is not Annotated:
        return "", hint
    extras = [one.extra for one in hint.__metadata__ if isinstance(one, msgspec.Meta) and one.extra]
    unit = next((str(extra[UNIT]) for extra in extras if UNIT in extra), "")
    return unit, (hint.__origin__ if unit else hint)


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and types.NoneType in get_args(hint)


def _key(name: str, hint: Any) -> str:
    """A field's key in the file: numbers that count seconds say so in the code (`expires_s`) and with their unit in the file."""
    return name[:-2] if name.endswith("_s") and _unit(hint)[1] in (int, float) else name


def _unknown(name: str, there: Iterable[str], what: str) -> str:
    """What to say of a name that is not there. `what` begins the sentence; `name` itself may be a secret, and is not shown."""
    near = get_close_matches(name, list(there), n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"{what}{meant} There are: {', '.join(sorted(there))}"


# --- what no single field can say ------------------------------------------------------------------------------------------


def _check(config: Config, line: Callable[[str], int]) -> None:
    """The settings must go together. Raises ConfigError."""

    def refuse(path: str, message: str) -> None:
        raise ConfigError(message, path=path, line=line(path))

    if not config.listen:
        refuse("listen", "wants at least one address")
    if not config.sources and not config.hooks:
        refuse("sources", "there is nothing to watch: add a source")
    _check_sources(config, refuse)
    _check_hooks(config, refuse)
    _check_handlers(config, refuse)
    _check_audits(config, refuse)
    _check_mirrors(config, refuse)
    _check_polling(config, refuse)
    _check_concertim(config, refuse)
    _check_auth(config, refuse)
    for path, number in (("max_watchers", config.watch.max_watchers), ("max_streams", config.watch.max_streams)):
        if number < 1:
            refuse(f"watch.{path}", "must be at least 1")
    if config.watch.max_buffer_bytes < 16 * 1024:
        refuse("watch.max_buffer_bytes", "must be at least 16KiB: one object has to fit")
    for path, seconds in (("bookmark_seconds", config.watch.bookmark_seconds), ("stall_timeout", config.watch.stall_timeout)):
        if seconds < 0.1:
            refuse(f"watch.{path}", "must be at least 0.1 seconds")
    for number, origin in enumerate(config.cors):
        if origin != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin, re.ASCII):
            refuse(f"cors[{number}]", 'wants an origin such as https://portal.example.org, without a path, or "*"')


def _renamed(config: Config) -> Config:
    """Old names of keys become today's, so that nobody else has to know them."""
    keystone = config.auth.keystone
    if keystone is None or not (keystone.tenant_name or keystone.tenant_id):
        return config
    keystone = msgspec.structs.replace(
        keystone,
        project_name=keystone.project_name or keystone.tenant_name,
        project_id=keystone.project_id or keystone.tenant_id,
        tenant_name="",
        tenant_id="",
    )
    return msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, keystone=keystone))


def _check_sources(config: Config, refuse: Callable[[str, str], None]) -> None:
    seen: set[str] = set()
    default = False
    for number, source in enumerate(config.sources):
        at = f"sources[{number}]"
        if not _NAME.fullmatch(source.name):
            refuse(f"{at}.name", _NAME_WANTED)
        if source.name in seen or source.name == VEDETTE_SOURCE:
            refuse(f"{at}.name", "another source has this name")
        seen.add(source.name)
        if source.default and default:
            refuse(f"{at}.default", "another source is the default one already")
        default = default or source.default


def _check_hooks(config: Config, refuse: Callable[[str, str], None]) -> None:
    seen = {source.name for source in config.sources} | {VEDETTE_SOURCE}
    for number, hook in enumerate(config.hooks):
        at = f"hooks[{number}]"
        if not _NAME.fullmatch(hook.name):
            refuse(f"{at}.name", _NAME_WANTED)
        if hook.name in seen:
            refuse(f"{at}.name", "another source or hook has this name")
        seen.add(hook.name)
        if not (hook.token or hook.hmac_secret or hook.keystone):
            refuse(at, "anybody could call it: give it a token, an hmac_secret, or say keystone: true")
        if hook.keystone and not hook.roles:
            refuse(f"{at}.roles", "keystone is true, and no role may call it")
        if hook.keystone and config.auth.mode != "keystone":
            refuse(f"{at}.keystone", "Keystone tokens can be checked only with auth.mode keystone")
        for key, secret in (("token", hook.token), ("hmac_secret", hook.hmac_secret)):
            if secret and len(secret.reveal()) < SHORTEST_TOKEN:
                refuse(f"{at}.{key}", f"wants at least {SHORTEST_TOKEN} characters; `openssl rand -hex 24` makes a good one")


def _check_handlers(config: Config, refuse: Callable[[str, str], None]) -> None:
    seen: set[str] = set()
    for number, one in enumerate(config.handlers):
        at = f"handlers[{number}]"
        if not _NAME.fullmatch(one.name):
            refuse(f"{at}.name", _NAME_WANTED)
        if one.name in seen:
            refuse(f"{at}.name", "another handler has this name")
        seen.add(one.name)
        folder = config.plugins.folder
        if not folder or Path(folder).is_dir():  # else it is said when the service starts, where the folder has to be
            try:
                plugins.find_handler(one.use, folder)
            except ConfigError as why:
                refuse(f"{at}.use", str(why))
        for key, least in (("concurrency", 1), ("max_pending", 1), ("max_depth", 1)):
            if getattr(one, key) < least:
                refuse(f"{at}.{key}", f"must be at least {least}")
        if one.retry.attempts < 1:
            refuse(f"{at}.retry.attempts", "must be at least 1")
        if one.rate < 0:
            refuse(f"{at}.rate", "is a number of calls a second; 0: no limit")
        if one.timeout < 0.01:
            refuse(f"{at}.timeout", "must be at least 10 milliseconds")
        if one.start not in ("now", "earliest") and not one.start.isdecimal() and parse_us(one.start) is None:
            refuse(f"{at}.start", "wants now, earliest, a revision, or a time such as 2026-11-20T15:00:00Z")
        _check_on(config, one.on, one.window, at, refuse)


def _check_on(config: Config, several: Sequence[On], window: Window | None, at: str, refuse: Callable[[str, str], None]) -> None:
    """What a handler or a rule is called for."""
    kinds = {name for kind in plugins.kinds() for one in _called(kind) for name in (one, f"{one}.{kind.group}")}
    singulars = [kind.singular for kind in plugins.kinds()]
    # What a cluster's kinds are called is known when it is followed.
    followed = any(source.type == "kubernetes" for source in config.sources)
    known = {VEDETTE_SOURCE, *(one.name for one in config.sources), *(one.name for one in config.hooks)}
    for index, on in enumerate(several):
        for name in on.sources:
            if name not in known:
                refuse(f"{at}.on[{index}].sources", _unknown(name, known, "there is no such source or hook"))
        for name in () if followed else on.kinds:
            # One of another group is a cluster's, which may be followed one day.
            if name.lower() not in kinds and ("." not in name or name.endswith(OWN_GROUPS)):
                refuse(f"{at}.on[{index}].kinds", _unknown(name, singulars, "there is no such kind"))
        if on.when:
            _condition(conditions.compile, on.when, f"{at}.on[{index}].when", refuse)
    if window is not None:
        _check_window(window, f"{at}.window", refuse)


def _check_mirrors(config: Config, refuse: Callable[[str, str], None]) -> None:
    seen = {one.name for one in config.handlers}
    if config.audits is not None:
        seen |= {rule.name for rule in config.audits.rules}
    for number, one in enumerate(config.mirrors):
        at = f"mirrors[{number}]"
        if not _NAME.fullmatch(one.name):
            refuse(f"{at}.name", _NAME_WANTED)
        if one.name in seen:
            refuse(f"{at}.name", "another mirror, handler or rule has this name")
        seen.add(one.name)
        for key, least in (("compare", 1), ("concurrency", 1), ("call_timeout", 1)):
            if getattr(one, key) < least:
                refuse(f"{at}.{key}", "must be at least a second" if key != "concurrency" else "must be at least 1")


def _check_polling(config: Config, refuse: Callable[[str, str], None]) -> None:
    one = config.polling
    if one is None:
        return
    if one.meter not in {meter.name for meter in config.meters}:
        refuse("polling.meter", _unknown(one.meter, [meter.name for meter in config.meters], "there is no such meter"))
    mirrors = [mirror.name for mirror in config.mirrors]
    for number, name in enumerate(one.push):
        if name not in mirrors:
            refuse(f"polling.push[{number}]", _unknown(name, mirrors, "there is no such mirror"))
    for key in ("interval", "granularity"):
        if getattr(one, key) < 1:
            refuse(f"polling.{key}", "must be at least a second")
    if one.granularity != int(one.granularity):
        refuse("polling.granularity", "is whole seconds")


def _check_audits(config: Config, refuse: Callable[[str, str], None]) -> None:
    audits = config.audits
    seen: set[str] = set()
    for number, meter in enumerate(config.meters):
        if not _NAME.fullmatch(meter.name):
            refuse(f"meters[{number}].name", _NAME_WANTED)
        if meter.name in seen:
            refuse(f"meters[{number}].name", "another meter has this name")
        seen.add(meter.name)
    if audits is None:
        if config.faces.infra_optim is not None:
            refuse("faces.infra_optim", "there is nothing to serve: add a section audits")
        return
    names = [one.name for one in config.sources]
    if audits.source and audits.source not in names:
        refuse("audits.source", _unknown(audits.source, names, "there is no such source"))
    if not audits.source and len(names) != 1 and not any(one.default for one in config.sources):
        refuse("audits", "say which source is audited (audits.source), or mark one as the default")
    for key in ("runs", "parallel", "max_queued"):
        if getattr(audits, key) < 1:
            refuse(f"audits.{key}", "must be at least 1")
    for key in ("per_host", "per_pair", "per_pool", "per_zone"):
        if getattr(audits, key) < 0:
            refuse(f"audits.{key}", "is a number; 0: no limit")
    for key in ("strategy_timeout", "action_timeout"):
        if getattr(audits, key) < 1:
            refuse(f"audits.{key}", "must be at least a second")
    if audits.max_memory < 128 * 1024**2:
        refuse("audits.max_memory", "must be at least 128MiB")
    try:
        change_windows.ChangeWindows(audits.change_windows, audits.timezone)
    except ConfigError as why:
        refuse("audits.change_windows", str(why))
    handlers = {one.name for one in config.handlers}
    rules: set[str] = set()
    for number, rule in enumerate(audits.rules):
        at = f"audits.rules[{number}]"
        if not _NAME.fullmatch(rule.name):
            refuse(f"{at}.name", _NAME_WANTED)
        if rule.name in rules or rule.name in handlers:
            refuse(f"{at}.name", "another rule or handler has this name")
        rules.add(rule.name)
        if not rule.on:
            refuse(f"{at}.on", "every event of every source would trigger the audit: say which")
        _check_on(config, rule.on, rule.window, at, refuse)
        for index, text in enumerate(rule.objects):
            _condition(conditions.expression, text, f"{at}.objects[{index}]", refuse)


OWN_GROUPS = (f".{OPENSTACK}", f".{VEDETTE}")


def _called(kind: Kind) -> tuple[str, ...]:
    return (kind.singular, kind.plural, kind.kind.lower(), *kind.short_names)


def _check_window(window: Window, at: str, refuse: Callable[[str, str], None]) -> None:
    rules = [name for name in WINDOW_RULES if getattr(window, name)]
    if len(rules) != 1:
        refuse(at, f"wants one of {', '.join(WINDOW_RULES)}, not {' and '.join(rules) or 'none of them'}")
    if (rules == ["accumulate_within"]) != bool(window.threshold) or window.threshold < 0:
        refuse(f"{at}.threshold", "goes together with accumulate_within, and is a number of events")
    if window.threshold > MOST_ACCUMULATED:
        refuse(f"{at}.threshold", f"is at most {MOST_ACCUMULATED}: each of their times is kept")
    several = rules[0] in ("all", "any", "not_all")
    if several != bool(window.within):
        refuse(f"{at}.within", "goes together with all, any or not_all")
    if window.max_groups < 1:
        refuse(f"{at}.max_groups", "must be at least 1")
    for index, text in enumerate(window.group_by):
        _condition(conditions.expression, text, f"{at}.group_by[{index}]", refuse)
    for name in ("all", "any", "not_all"):
        for index, text in enumerate(getattr(window, name)):
            _condition(conditions.compile, text, f"{at}.{name}[{index}]", refuse)


def _condition(read: Callable[[str], object], text: str, at: str, refuse: Callable[[str, str], None]) -> None:
    try:
        read(text)
    except ConfigError as why:
        refuse(at, str(why))


WINDOW_RULES: tuple[Literal["once_within", "once_after", "accumulate_within", "absent_for", "all", "any", "not_all"], ...]
WINDOW_RULES = ("once_within", "once_after", "accumulate_within", "absent_for", "all", "any", "not_all")
"""The keys of a window that are rules; each has one of them."""
MOST_ACCUMULATED = 1_000
"""The largest `threshold`."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
"""A label's value in Kubernetes, and a segment of a path."""
_NAME_WANTED = "wants at most 63 letters, digits, dots, dashes and underscores, a letter or digit at each end"


def _check_concertim(config: Config, refuse: Callable[[str, str], None]) -> None:
    face, at = config.faces.concertim, "faces.concertim"
    if face is None:
        return
    names = [one.name for one in config.sources]
    if face.source and face.source not in names:
        refuse(f"{at}.source", _unknown(face.source, names, "there is no such source"))
    if not face.source and len(names) != 1 and not any(one.default for one in config.sources):
        refuse(at, f"say whose cloud the front end is for ({at}.source), or mark a source as the default")
    if face.authenticate and not face.jwt_secret:
        refuse(f"{at}.jwt_secret", "is missing: what the front end signs its requests with (its JWT_SECRET)")
    if not face.authenticate and not config.allow_insecure:
        for number, one in enumerate((*config.listen, *face.listen)):
            if not one.loopback:
                where = f"listen[{number}]" if number < len(config.listen) else f"{at}.listen[{number - len(config.listen)}]"
                refuse(where, f"anybody who reaches this would be the front end ({at}.authenticate: false): set a jwt_secret")


def _check_auth(config: Config, refuse: Callable[[str, str], None]) -> None:
    auth = config.auth
    listens = {f"listen[{number}]": one for number, one in enumerate(config.listen)}
    if config.faces.weaas:
        listens |= {f"faces.weaas.listen[{number}]": one for number, one in enumerate(config.faces.weaas.listen)}
    if config.faces.infra_optim:
        listens |= {f"faces.infra_optim.listen[{number}]": one for number, one in enumerate(config.faces.infra_optim.listen)}
    if config.faces.concertim:
        listens |= {f"faces.concertim.listen[{number}]": one for number, one in enumerate(config.faces.concertim.listen)}
    open_to_others = [path for path, one in listens.items() if not one.loopback]
    for path in open_to_others:
        if auth.mode == "none":
            refuse(path, "other machines can reach this, and auth.mode is none: listen on 127.0.0.1, or set auth.mode")
        if not config.tls and not config.allow_insecure:
            refuse(path, "tokens would travel in plain http: set tls, listen on 127.0.0.1, or say allow_insecure: true")
    if auth.mode == "tokens" and not auth.tokens:
        refuse("auth.tokens", "mode is tokens, and there is none")
    if auth.mode == "keystone":
        _check_keystone(auth.keystone, refuse)
    texts: set[str] = set()
    names: set[str] = set()
    for number, one in enumerate(auth.tokens):
        text = one.token.reveal()
        if len(text) < SHORTEST_TOKEN or not re.fullmatch(r"[!-~]+", text, re.ASCII):
            refuse(f"auth.tokens[{number}].token", f"wants at least {SHORTEST_TOKEN} printable characters without spaces")
        if text in texts:
            refuse(f"auth.tokens[{number}].token", "is another caller's token too")
        if one.name in names or not one.name:
            refuse(f"auth.tokens[{number}].name", "wants a name of its own")
        texts.add(text)
        names.add(one.name)
        admin, everything = "admin" in {role.lower() for role in one.roles}, "*" in one.projects
        if admin != everything or (everything and len(one.projects) > 1):
            refuse(f"auth.tokens[{number}].projects", 'the role admin and the projects ["*"] go together, or neither is there')
        if "" in one.projects:
            refuse(f"auth.tokens[{number}].projects", "an id is empty")


def _check_keystone(keystone: Keystone | None, refuse: Callable[[str, str], None]) -> None:
    at = "auth.keystone"
    if keystone is None:
        refuse(at, "mode is keystone: say where it is (auth_url), or which cloud of clouds.yaml (cloud)")
        return
    if not keystone.auth_url and not keystone.cloud:
        refuse(at, "wants auth_url, or a cloud of clouds.yaml")
    if keystone.auth_url and not re.match(r"https?://[^/]", keystone.auth_url):
        refuse(f"{at}.auth_url", "wants an address such as https://keystone:5000/v3")
    if keystone.tenant_name and keystone.project_name:
        refuse(f"{at}.tenant_name", "is an older name of project_name: give one of them")
    if keystone.tenant_id and keystone.project_id:
        refuse(f"{at}.tenant_id", "is an older name of project_id: give one of them")
    if keystone.cloud:
        return
    if keystone.application_credential_id or keystone.application_credential_name:
        if not keystone.application_credential_secret:
            refuse(at, "wants application_credential_secret")
    elif not (keystone.username or keystone.user_id) or not keystone.password:
        refuse(at, "wants username and password, an application credential, or a cloud of clouds.yaml")


# --- showing ---------------------------------------------------------------------------------------------------------------


def show(config: Config) -> str:
    """The settings as YAML, defaults included, secrets as `***`."""
    text: str = yaml.safe_dump(_shown(config, Config), sort_keys=False, allow_unicode=True, width=130)
    return text


def default_source(config: Config) -> str:
    """The name of the source that is meant where none is said; "": there are several."""
    marked = [one.name for one in config.sources if one.default]
    if marked:
        return marked[0]
    return config.sources[0].name if len(config.sources) == 1 else ""


def secret_variables(config: Config, environ: Mapping[str, str]) -> frozenset[str]:
    """Names of the environment's variables with a secret of these settings in them, and of those that OpenStack's clients read
    one from: what the operator's own plugins don't get. (What is in a plugin's own options, it has anyway.)"""
    secrets = set(_secrets(config))
    long = [one for one in secrets if len(one) >= SHORTEST_HELD]
    return frozenset(
        name for name, value in environ.items() if name in _CLIENTS or value in secrets or any(one in value for one in long)
    )


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield from (value.reveal(),) if value else ()
    elif isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            yield from _secrets(getattr(value, field.name))
    elif isinstance(value, tuple | list | frozenset):
        for one in value:
            yield from _secrets(one)
    elif isinstance(value, dict):
        yield from (one.reveal() for one in value.values() if isinstance(one, Secret) and one)
    elif isinstance(value, str) and without_password(value) != value:
        yield value


SHORTEST_HELD = 8
"""Characters of a secret that is looked for inside of variables too."""
_CLIENTS = frozenset(
    {"OS_PASSWORD", "OS_TOKEN", "OS_AUTH_TOKEN", "OS_APPLICATION_CREDENTIAL_SECRET", "OS_PASSCODE", "VEDETTE_TOKEN"}
)


def _shown(value: Any, hint: Any) -> Any:
    """One value in plain types, in the form that `load` takes."""
    unit, hint = _unit(hint)
    if isinstance(value, Secret) or value is None:
        return None if value is None else str(value)
    if isinstance(value, Address):
        return str(value)
    if type(value) in _PLUGS:
        own = {name: one for name, one in _fields(value).items() if name != "options"}
        return {**own, **{name: one for name, one in _fields(value.options).items() if name not in own}}
    if isinstance(value, msgspec.Struct):
        return _fields(value)
    if isinstance(value, tuple | list | frozenset):
        inner = get_args(hint)[0] if get_args(hint) else Any
        return [_shown(one, inner) for one in value]
    if isinstance(value, dict):
        return {key: _masked(key, _shown(one, Any)) for key, one in value.items()}
    if unit == "seconds":
        return show_duration(value)
    if unit == "bytes":
        return show_size(value)
    return without_password(value) if isinstance(value, str) else value


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    hints = get_type_hints(type(struct), include_extras=True)
    shown: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        key = _key(field.name, hints[field.name])
        value = _shown(getattr(struct, field.name), Seconds if key != field.name else hints[field.name])
        if value is not None and (value != "" or field.default):
            shown[key] = _masked(key, value)
    return shown


def _masked(key: str, value: Any) -> Any:
    """A plug may keep a password as a plain text, or a header or a variable may be one: its key gives it away."""
    if not value or not _SECRET_KEY.search(key):
        return value
    if isinstance(value, list):
        return [_masked(key, one) for one in value]
    return MASK if isinstance(value, str) or (type(value) is int and not _COUNTS.search(key)) else value


_SECRET_KEY = re.compile(
    r"password|passwd|passphrase|passcode|secret|tokens?$|authorization|cookie|credential|(api|access|private|auth|signing)[._-]?key$"
    r"|signature$|[._-]pass$|^(pass|pwd|pin)$",
    re.IGNORECASE,
)
_COUNTS = re.compile(r"tokens$|cookie", re.IGNORECASE)
"""Keys whose numbers are numbers: `max_tokens`."""
