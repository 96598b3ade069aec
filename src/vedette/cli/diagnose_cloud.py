"""What `vedette doctor` looks at of a source's API: is it there, who are we, do we see every project, what can be listed, its
clocks; and with `--try-port`, whether what happens there is announced here.

`engine/confirm.py` knows what proves that an account sees everything, and the kinds list themselves, as in a resync: a little of
each list is asked for. The port is made in clients/openstack_port.py.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from vedette import config as settings
from vedette import plugins
from vedette.cli.certificates import check_certificate
from vedette.cli.finding import Asked, Broker, Finding, Findings, skew_of
from vedette.cli.show import say
from vedette.clients import rabbit_checks
from vedette.clients.openstack import OpenStackCloud
from vedette.clients.openstack_port import PortTrial
from vedette.engine.confirm import doubt
from vedette.errors import (
    CloudUnavailable,
    ConfigError,
    FixInput,
    NoService,
    NotAllowed,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.clock import SystemClock
from vedette.kit.tasks import cancel, closable
from vedette.kit.telemetry import Telemetry
from vedette.ports import CloudUse, Kind, Verified

if TYPE_CHECKING:
    from vedette.clients.openstack_sdk import Endpoint

MOST_TIMEOUT = 10.0
"""Seconds: a doctor doesn't wait as long as the service does."""
SKEW_SECONDS = 2.0
"""Between an API and us; half a second of it is the price of a Date in whole seconds."""
LISTEN_SECONDS = 60.0
"""How long making and binding a queue may take."""


class Looked(msgspec.Struct):
    """What one service said."""

    service: str
    kinds: Sequence[Kind]
    endpoint: Endpoint | None = None
    trouble: VedetteError | None = None
    """Why it can't be asked at all."""
    refused: dict[str, VedetteError] = {}
    """Kind → why it can't be listed."""
    doubts: dict[str, str] = {}
    """Kind → why its list may lack other projects' objects."""


async def check_cloud(source: settings.SourceConfig, asked: Asked, broker: Broker) -> Findings:
    """One source's API."""
    about = f"API of {source.name}"
    api = source.options.api
    if api is None:
        yield Finding(
            "note",
            about,
            "none is set, so notifications are all there is: nobody announces that a port went ACTIVE, what becomes of "
            "listeners, pools and members, or that a host died; and what is announced while the broker is down is lost",
            "under the source: api: {auth_url: …, username: …, password: …, user_domain_name: …, project_name: …, "
            "project_domain_name: …}\nwhich account that wants: docs/howto/openstack-api.md",
        )
        return
    # What the client would say in a log is among the findings.
    logging.getLogger("vedette.clients.openstack").setLevel(logging.CRITICAL)
    small = msgspec.structs.replace(api, timeout_s=min(api.timeout_s, MOST_TIMEOUT))
    options = msgspec.structs.replace(source.options, api=small)
    try:
        use = plugins.load("sources", source.type).cloud_use(options, clock=SystemClock(), telemetry=Telemetry())
    except ConfigError as why:
        yield Finding("fail", about, str(why), "correct `api:`")
        return
    try:
        async for finding in _check(about, use, use.cloud, broker, options, asked):
            yield finding
    finally:
        await use.cloud.close()


async def _check(about: str, use: CloudUse, cloud: OpenStackCloud, broker: Broker, options: Any, asked: Asked) -> Findings:
    made = cloud.credentials
    parts = urlsplit(made.auth_url)
    if parts.scheme == "https":
        async for finding in check_certificate(about, parts.hostname or "", parts.port or 443, made.cacert):
            yield finding
    elif not settings.Address(parts.hostname or "", 0).loopback:
        yield Finding("warn", about, f"{made.auth_url} is asked over plain http: passwords can be read on the way", "use https")
    try:
        account = await cloud.account()
    except Unauthenticated as why:
        who = f" --os-username {shlex.quote(made.username)}" if made.username else ""
        yield Finding(
            "fail",
            about,
            str(why),
            "correct username, password, their domain and the project under `api:`, and look whether the user has a role there\n"
            f"the same without Vedette: openstack --os-auth-url {made.auth_url}{who} token issue",
        )
        return
    except VedetteError as why:
        yield Finding("fail", about, str(why), f"curl -i {made.auth_url}")
        return
    where = f" in project {account.project_name}" if account.project_name else " in the whole system" if account.system else ""
    yield Finding(
        "ok", about, f"{made.auth_url}: {account.user_name}{where} has the roles {', '.join(account.roles) or '(none)'}"
    )
    services: dict[str, list[Kind]] = {}
    for kind in plugins.kinds():
        if kind.api is not None:
            services.setdefault(kind.api.service, []).append(kind)
    looking = [asyncio.ensure_future(_look(use, cloud, Looked(name, kinds))) for name, kinds in sorted(services.items())]
    looked: list[Looked] = []
    try:
        for one in asyncio.as_completed(looking):
            looked.append(await one)
            if not isinstance(looked[-1].trouble, NoService):
                yield _service(about, looked[-1])
    finally:
        await cancel(*looking)
    role = "admin" if "admin" in use.admin_roles else min(use.admin_roles, default="admin")
    for finding in (*_absent(about, looked), *_lists(about, looked, _grant(account, role)), *_clocks(cloud)):
        yield finding
    for host, port in sorted(_hosts(looked) - {(parts.hostname or "", parts.port or 443)}):
        async for finding in check_certificate(about, host, port, made.cacert):
            yield finding
    network = next((one for one in looked if one.service == "network"), None)
    if network is not None and network.trouble is None:
        async for finding in _port(about, cloud, broker, options, asked):
            yield finding


async def _look(use: CloudUse, cloud: OpenStackCloud, looked: Looked) -> Looked:
    """Ask one service for a little of everything."""
    try:
        looked.endpoint = await cloud.endpoint(looked.service)
        for kind in looked.kinds:
            assert kind.api is not None
            if why := await doubt(use, kind.api):
                looked.doubts[kind.singular] = why
            if kind.api.seldom:
                continue  # a request for each user or the like
            try:
                async with aclosing(closable(kind.api.list(cloud))) as pages:
                    async for _ in pages:
                        break
            except (NotAllowed, FixInput) as why:
                looked.refused[kind.singular] = why
    except VedetteError as why:
        looked.trouble = why
    return looked


def _service(about: str, one: Looked) -> Finding:
    """A service of the catalog: where it is, or why it can't be asked."""
    if one.trouble is None and one.endpoint is not None:
        versions = one.endpoint.microversions
        said = f", microversions {versions[0]} to {versions[1]}" if versions else ""
        return Finding("ok", about, f"{one.service}: {one.endpoint.url}{said}")
    return Finding(
        "fail",
        about,
        f"{one.trouble}. Not compared: {_names(kind.singular for kind in one.kinds)}",
        "is it up, and can this machine reach it? `openstack catalog list` has the addresses\n"
        "other addresses of the same: interface: internal (or public) under `api:`",
    )


def _absent(about: str, looked: Sequence[Looked]) -> Iterator[Finding]:
    """What the catalog doesn't have. A cloud without Heat is well; one without anything is the wrong region or interface."""
    absent = [one for one in looked if isinstance(one.trouble, NoService)]
    fix = "compare region_name and interface under `api:` with `openstack catalog list`"
    if absent and len(absent) == len(looked):
        others = ", ".join(one.service for one in absent[1:])
        yield Finding("fail", about, f"{absent[0].trouble}. Nor is there any other service: {others}", fix)
        return
    for one in absent:
        kinds = _names(kind.singular for kind in one.kinds)
        yield Finding("note", about, f"{one.trouble}. Not compared: {kinds}", f"if it should be there: {fix}")


def _lists(about: str, looked: Sequence[Looked], grant: str) -> Iterator[Finding]:
    """What the account may read, and whether it is everybody's. `grant`: how it gets what it lacks."""
    answered = [one for one in looked if one.trouble is None]
    forbidden = {name: str(why) for one in answered for name, why in one.refused.items() if isinstance(why, NotAllowed)}
    if forbidden:
        name, why = next(iter(forbidden.items()))
        said = (
            f"{_names(sorted(forbidden))}: the account may not list them, so they stay as notifications have them ({name}: {why})"
        )
        yield Finding("warn", about, said, grant)
    odd = {name: str(why) for one in answered for name, why in one.refused.items() if name not in forbidden}
    for reason, names in _by_reason(odd):
        yield Finding("warn", about, f"{_names(names)} can't be listed: {reason}", "the service's log says more")
    doubts: dict[str, str] = {}
    for one in answered:
        doubts |= {name: why for name, why in one.doubts.items() if name not in one.refused}
    for reason, names in _by_reason(doubts):
        yield Finding(
            "warn",
            about,
            f"{_names(sorted(names))}: {reason}. What it sees is kept up to date; nothing is taken for deleted on its word",
            grant,
        )
    well = [kind.singular for one in answered for kind in one.kinds if kind.singular not in (*one.doubts, *one.refused)]
    if well:
        yield Finding("ok", about, f"sees every project's objects: {_names(sorted(well))}")


def _grant(account: Verified, role: str) -> str:
    less = "with less than that: docs/howto/openstack-api.md#which-role"
    if account.domain_id:
        return f"sign in to a project (project_name under `api:`), as an admin\n{less}"
    place = f"--project {account.project_id}" if account.project_id else "--project <project>"
    return f"openstack role add --user {account.user_id} {place} {role}\n{less}"


def _by_reason(told: dict[str, str]) -> list[tuple[str, list[str]]]:
    reasons: dict[str, list[str]] = {}
    for name, why in told.items():
        reasons.setdefault(why, []).append(name)
    return list(reasons.items())


def _names(kinds: Any) -> str:
    return ", ".join(kinds)


def _clocks(cloud: OpenStackCloud) -> Iterator[Finding]:
    differences = cloud.clock_differences()
    off = {service: seconds for service, seconds in differences.items() if abs(seconds) > SKEW_SECONDS}
    for service, seconds in sorted(off.items()):
        yield skew_of(f"the clock of the {service} API", seconds, "chronyc makestep, here and there", most=SKEW_SECONDS)
    if differences and not off:
        yield Finding("ok", "clock", f"the APIs' clocks agree with this machine's ({_names(sorted(differences))})")


def _hosts(looked: Sequence[Looked]) -> set[tuple[str, int]]:
    """Who is asked over TLS."""
    parts = [urlsplit(one.endpoint.url) for one in looked if one.endpoint is not None]
    return {(one.hostname or "", one.port or 443) for one in parts if one.scheme == "https"}


# --- a port, announced -----------------------------------------------------------------------------------------------------


async def _port(about: str, cloud: OpenStackCloud, broker: Broker, options: Any, asked: Asked) -> Findings:
    """Make one, hear of it, delete it; whatever happens meanwhile."""
    if not asked.try_port:
        yield Finding(
            "note",
            about,
            "whether what happens there is announced here was not tried",
            "vedette doctor --try-port makes a network and a port, waits until it is announced, and deletes them",
        )
        return
    if broker.where is None or broker.looked is None:
        yield Finding("warn", about, "no port was made: there is no broker to hear of it on", "see above")
        return
    exchanges = [name for name, why in broker.looked.exchanges.items() if not why]
    if not exchanges:
        yield Finding("warn", about, "no port was made: no exchange is there that it could be announced on", "see above")
        return
    name = f"vedette-doctor-{secrets.token_hex(4)}"
    trial = PortTrial(cloud, name)
    ear = _Ear(broker, options, exchanges, name)
    stopped: BaseException | None = None
    found: Finding | None = None
    try:
        found = await _tried(about, trial, ear, options, asked.hear_s)
    except VedetteError as why:
        found = Finding("warn", about, f"no port could be made: {why}", "give the account the right to, or leave out --try-port")
    except BaseException as why:  # noqa: BLE001 - raised again, when what was made is gone
        stopped = why
        say(f"Deleting {name} …")
    ear.stop()
    # However often somebody asks to stop: what was made goes first.
    removing = asyncio.ensure_future(trial.remove())
    while not removing.done():
        try:
            await asyncio.shield(removing)
        except asyncio.CancelledError as why:
            stopped = why
    if found is not None:
        yield found
    if left := removing.result():
        yield Finding("warn", about, f"what was made for it ({name}) could not be deleted", "\n".join(left))
    await ear.closed()
    if stopped is not None:
        raise stopped


async def _tried(about: str, trial: PortTrial, ear: _Ear, options: Any, hear_s: float) -> Finding:
    try:
        await ear.open()
    except VedetteError as why:
        return Finding("warn", about, f"no port was made, since a notification of it can't be heard: {why}", "see above")
    began = time.time()
    made = await trial.make()
    answered = time.time()
    what = "a port on a network of its own" if made.own_network else f"a port on the network {made.network}"
    try:
        heard = await ear.heard(hear_s)
    except VedetteError as why:
        return Finding("warn", about, f"made {what}, but could not go on listening: {why}", "look at the broker's log")
    if heard is not None:
        way = f"{heard.exchange} {heard.routing_key}"
        said = f"made {what} and heard of it {_took(heard.at, began, answered)} (port.create.end, {way})"
        return Finding("ok", about, said)
    return _unheard(about, f"made {what} ({made.id}), and nothing was announced of it in {hear_s:g} s", ear, options)


def _took(at: float, began: float, answered: float) -> str:
    if at <= answered:
        return f"{max(0.0, at - began):.2f} s after it was asked for, before Neutron had answered"
    return f"{at - answered:.2f} s after Neutron had answered"


def _unheard(about: str, said: str, ear: _Ear, options: Any) -> Finding:
    other = (
        ""
        if "neutron" in ear.exchanges
        else "\nthere is no exchange neutron: see control_exchange in neutron.conf, and set `exchanges:`"
    )
    return Finding(
        "fail",
        about,
        said,
        "neutron.conf of every neutron-server: [oslo_messaging_notifications] driver = messagingv2, topics = notifications\n"
        "(the topics that are listened to: " + ", ".join(options.topics) + ")\n"
        "transport_url there ([oslo_messaging_notifications], else [DEFAULT]) has to lead to this source's broker and vhost: "
        f"{ear.where}\n"
        f"then restart neutron-server{other}",
    )


class _Ear:
    """Hears on a throw-away queue of the source's broker, in a thread."""

    def __init__(self, broker: Broker, options: Any, exchanges: Sequence[str], name: str) -> None:
        assert broker.where is not None
        self.where = broker.where
        self.exchanges = exchanges
        self._options = options
        self._tls = broker.tls
        self._wanted = (name.encode(), b"port.create.end")
        self._stop = threading.Event()
        self._listening = asyncio.Event()
        self._thread: asyncio.Task[rabbit_checks.Heard | None] | None = None

    async def open(self) -> None:
        """Return when nothing can be missed. Raises NoConnection, NotAllowed."""
        loop = asyncio.get_running_loop()

        def listening() -> None:
            loop.call_soon_threadsafe(self._listening.set)

        options = self._options
        self._thread = asyncio.create_task(
            asyncio.to_thread(
                rabbit_checks.hear,
                self.where,
                tls=self._tls,
                exchanges=self.exchanges,
                routing_keys=[f"{topic}.{priority}" for topic in options.topics for priority in options.priorities],
                queue=options.queue.name,
                wanted=lambda body: all(part in body for part in self._wanted),
                listening=listening,
                stop=self._stop,
            )
        )
        ready = asyncio.ensure_future(self._listening.wait())
        try:
            await asyncio.wait({ready, self._thread}, return_when=asyncio.FIRST_COMPLETED, timeout=LISTEN_SECONDS)
        finally:
            ready.cancel()
        if self._thread.done():
            self._thread.result()
        if not self._listening.is_set():
            raise CloudUnavailable(f"a queue could not be made and bound in {LISTEN_SECONDS:.0f} s")

    async def heard(self, seconds: float) -> rabbit_checks.Heard | None:
        """What came; None: nothing. Raises NoConnection."""
        assert self._thread is not None
        await asyncio.wait({self._thread}, timeout=seconds)
        return self._thread.result() if self._thread.done() else None

    def stop(self) -> None:
        self._stop.set()

    async def closed(self) -> None:
        """Return when its connection is closed."""
        if self._thread is not None:
            await asyncio.gather(self._thread, return_exceptions=True)  # what it says was looked at, or is of no use
