"""Asks a cloud's API: `ports.Cloud` on a real OpenStack.

In: a service, a path and a query. Out: what the service said as plain JSON objects, with the moment of asking on its own clock;
or an error named for what the caller does next. Resync, verify and the kinds' `api` are who asks.

openstacksdk, because signing in, catalogs with their aliases, version discovery and microversions have been got right there for
every cloud that its users run. It blocks, so each request is made in one of a few threads (clients/openstack_sdk.py); waiting
between two tries, paging, limits and what an answer means are here, in the event loop. Its Resource objects are left out: they
cost more than everything else in a long list.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from vedette.clients.keystone import Credentials
from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    Forbidden,
    NotFound,
    Refused,
    Unauthenticated,
)
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.ports import Answer, Items, JsonObject, Params, Verified

if TYPE_CHECKING:
    from vedette.clients.openstack_sdk import Endpoint, Job, Raw, Sdk

log = logging.getLogger("vedette.clients.openstack")

TRIES = 4
"""How often one request is sent at the most."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, whatever Retry-After says."""
WHOLE = 4
"""One try may take so many times `timeout_s`, from waiting for a thread to the last byte."""
REFUSED_SECONDS = 60.0
"""After Keystone refused our credentials: until the next attempt. It locks accounts that fail too often."""
REFUSED_THERE_SECONDS = 5.0
"""After a service refused a token that Keystone had just made."""
SAID = 300
"""Characters of a service's own words in an error."""
WINDOW = 32
"""Answers whose Date is remembered, of each service."""
DRIFT = 1000
"""Two clocks that are being corrected move apart by a thousandth of the time at most: the kernel slews each by 500 ppm."""
QUIET_SECONDS = 60.0
"""A service that stays unwell in the same way is spoken of once in so long."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0)

LONGEST_ERROR = 65_536
"""Bytes of an error that are read for its message."""

BY_MARKER = {("orchestration", "/stacks")}
BY_OFFSET = {("compute", "/os-server-groups")}
"""Lists that are paged and give no links. They are read until a page is empty: the service may give fewer than were asked for."""

NO_SUCH_PATH = ("", "Not Found", "The resource could not be found.")
"""What services say of a path that they don't have, and Neutron also of what its policy hides."""

_TAGS = re.compile(r"<(style|script|head)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_T = TypeVar("_T")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What no set-up needs to change, and tests do."""

    waiting: int = 256
    """Requests that wait for a thread; more are turned away."""
    answer_bytes: int = 64 * 1024 * 1024
    """Of one answer."""
    pages: int = 10_000
    """Of one list. At 500 a page, five million objects."""


_LIMITS = Limits()


class ClockDifference:
    """How far a service's clock is from ours, from the Date of its answers.

    Date has whole seconds: when the service answered, its clock was in [Date, Date + 1 s), and ours between sending and
    receiving. Each answer gives bounds of (its clock - ours), that widen as they grow old, since clocks drift. The last ones
    hold together, until they contradict each other because one of the clocks was set.
    """

    def __init__(self) -> None:
        self._bounds: deque[tuple[int, int, int]] = deque(maxlen=WINDOW)
        """When (ours), the least and the most that it was then."""

    def saw(self, sent: int, received: int, date: int) -> None:
        """One answer; all in microseconds, `date` a whole second of theirs."""
        bounds = (received, date - received, date + 1_000_000 - sent)
        self._bounds.append(bounds)
        if self.low > self.high:
            self._bounds.clear()
            self._bounds.append(bounds)

    @property
    def low(self) -> int:
        return max((low - self._drift(when) for when, low, _ in self._bounds), default=0)

    @property
    def high(self) -> int:
        return min((high + self._drift(when) for when, _, high in self._bounds), default=0)

    def _drift(self, when: int) -> int:
        """By how much the two may have moved apart between then and the newest answer."""
        return abs(self._bounds[-1][0] - when) // DRIFT

    @property
    def known(self) -> bool:
        return bool(self._bounds)

    @property
    def estimate(self) -> int:
        """Microseconds to add to our clock. 0 where both may be the same: hosts that keep time keep our microseconds. Else the
        least that it can be: what was asked is rather taken for older than for newer than it is."""
        return 0 if self.low <= 0 <= self.high else self.low


class OpenStackCloud:
    """A cloud's API, as one account sees it. Made anywhere, used in one event loop; `close` when done."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        name: str,
        clock: Clock,
        telemetry: Telemetry,
        timeout_s: float = 30.0,
        threads: int = 4,
        page: int = 500,
        limits: Limits = _LIMITS,
    ) -> None:
        """`name`: the source's, for logs and metrics. Opens nothing. Raises ConfigError for certificates that can't be read."""
        self._credentials = credentials
        self._name = name
        self._clock = clock
        if credentials.interface not in ("", "public", "internal", "admin"):
            raise ConfigError("wants public, internal or admin", path="interface")
        self._timeout_s = timeout_s
        self._page = page
        self._limits = limits
        self._tls = _context(credentials)
        if credentials.auth_url.startswith("http:") and urlsplit(credentials.auth_url).hostname not in LOOPBACK:
            log.warning(
                "the cloud is asked over plain http: passwords can be read on the way", extra=kv(url=credentials.auth_url)
            )
        self._pool = _Threads(threads, limits.waiting, f"{name}: openstack")
        self._threads = threads
        self._making = threading.Lock()
        self._sdk: Sdk | None = None
        self._differences: dict[str, ClockDifference] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        """Service ("" for Keystone's own word) → until when (monotonic) nothing is tried, and why."""
        self._unwell: dict[str, tuple[int, float]] = {}
        """Service → with which status (0: no answer) it was last spoken of in the log, and until when it isn't again."""
        self._unlimited: set[tuple[str, str]] = set()
        """Lists that take no `limit`."""
        self._requests = telemetry.counter(
            "cloud_requests_total", "Requests to the cloud's API, by answer.", "source", "service", "status"
        )
        self._seconds = telemetry.histogram(
            "cloud_request_seconds", "How long the cloud's API took for one request.", "source", "service", buckets=BUCKETS
        )
        self._retries = telemetry.counter("cloud_retries_total", "Requests that were sent once more.", "source", "service")

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        raw = await self._ask(service, path, params, microversion)
        return Answer(self._object(service, raw), self._as_of(service, raw))

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        query, limit = self._limited(service, path, params)
        asked: set[tuple[tuple[str, str], ...]] = set()
        seen: set[Any] = set()
        for page in range(self._limits.pages):
            asked.add(tuple(query))
            try:
                raw = await self._ask(service, path, query, microversion)
            except (BadRequest, NotFound) as why:
                if page:
                    # The marker was deleted meanwhile (Nova: 400, Cinder: 404): the caller asked for a list, and there is one.
                    raise CloudUnavailable(f"the list of {key} changed while it was read: {why}") from None
                if not limit or isinstance(why, NotFound) or any(name == "limit" for name, _ in params):
                    raise
                # Some lists are never paged and refuse to be asked for it.
                query, limit = [one for one in query if one[0] != "limit"], 0
                raw = await self._ask(service, path, query, microversion)
                if len(self._unlimited) < 1000:
                    self._unlimited.add((service, path))
            body = self._object(service, raw)
            items = body.get(key)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise CloudUnavailable(f"{service} answered {path} without a list of {key}: is {raw.url} really its address?")
            names = [_name(item) for item in items]
            fresh = not seen.issuperset(names)
            if items and not fresh:
                return  # it pages by nothing that we know, and began again: that was all of it
            seen.update(names)
            yield Items(items, self._as_of(service, raw))
            following = next_query(body, key, query)
            if following is None:
                following = _after(service, path, query, items, limit)
            if following is None:
                if body.get("truncated") is True:
                    # Keystone's `list_limit`: it has more, and no way to ask for it.
                    raise CloudUnavailable(f"{service} cuts its list of {key} short: raise its list_limit")
                return
            if tuple(following) in asked:
                raise CloudUnavailable(f"the list of {key} that {service} gives goes in circles")
            query = following
        raise CloudUnavailable(f"the list of {key} that {service} gives has more than {self._limits.pages} pages")

    async def query(self, service: str, path: str, body: JsonObject | None = None, params: Params = ()) -> Any:
        raw = self._well(
            service, path, await self._try(service, path, lambda sdk, job: sdk.query(job, service, path, params, body))
        )
        try:
            return msgspec.json.decode(raw.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise CloudUnavailable(f"{service}'s answer is no JSON: is {raw.url} really its address?", delay=30) from None

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
        waits = islice(delays(most=LONGEST_WAIT), TRIES - 1)
        while True:
            self._check_refused(service)
            began = self._clock.monotonic()
            outcome = await self._once(
                service, lambda sdk, job: sdk.send(job, method, service, path, body, microversion, request_id)
            )
            status = 0 if isinstance(outcome, str) else outcome.status
            self._requests.labels(self._name, service, str(status or "none")).inc()
            self._seconds.labels(self._name, service).observe(self._clock.monotonic() - began)
            told = kv(source=self._name, service=service, method=method, path=path, request_id=request_id, status=status)
            log.info("the cloud was asked for a change", extra=told)
            if isinstance(outcome, str):
                raise CloudUnavailable(f"{service}: {outcome} to {method} {path}; it may have been done all the same", delay=5)
            wait = next(waits, None) if status == 429 else None
            if wait is None:
                break
            # It was turned away before anything was done.
            self._retries.labels(self._name, service).inc()
            await self._clock.sleep(min(max(wait, _retry_after(outcome.retry_after, self._clock)), LONGEST_WAIT))
        if status == 409:
            raise Refused(f"{service} answered 409 to {method} {path}{self._said(outcome.body)}")
        if status in (408, 429) or status >= 500:
            raise CloudUnavailable(f"{service} answered {status} to {method} {path}{self._said(outcome.body)}", delay=5)
        self._well(service, path, outcome)
        return self._object(service, outcome) if outcome.body.strip() else {}

    async def account(self) -> Verified:
        account = await self._try("identity", "/auth/tokens", lambda sdk, job: sdk.account(job))
        return Verified(
            user_id=account.user_id,
            user_name=account.user_name,
            project_id=account.project_id,
            project_name=account.project_name,
            domain_id=account.domain_id,
            system=account.system,
            roles=account.roles,
            expires_at=round(account.expires_at * 1e6),
            seconds_left=account.left,
        )

    @property
    def credentials(self) -> Credentials:
        """Who we are there; its secrets print nowhere."""
        return self._credentials

    async def endpoint(self, service: str) -> Endpoint:
        """Where a service is asked. Raises NoService, Unauthenticated, CloudUnavailable."""
        return await self._try(service, "its versions", lambda sdk, job: sdk.endpoint(job, service))

    def clock_differences(self) -> dict[str, float]:
        """Service → seconds that its clock is ahead of ours, as far as its answers prove it; 0 where both may be the same. Only
        services that were asked, and said what time it is."""
        return {service: one.estimate / 1_000_000 for service, one in self._differences.items() if one.known}

    async def close(self) -> None:
        """Requests that are under way end in their threads; nobody waits for them."""
        self._pool.close()
        if self._sdk is not None:
            self._sdk.close()

    # --- one request -------------------------------------------------------------------------------------------------------

    async def _ask(self, service: str, path: str, params: Params, microversion: str) -> Raw:
        """An answer with a 2xx status. Raises what ports.Cloud says."""
        return self._well(
            service, path, await self._try(service, path, lambda sdk, job: sdk.get(job, service, path, params, microversion))
        )

    def _well(self, service: str, path: str, raw: Raw) -> Raw:
        """The answer, if its status is a 2xx. Raises what ports.Cloud says."""
        if 200 <= raw.status < 300:
            return raw
        if raw.status == 401:
            why = f"{service} refused a token that Keystone had just made for us"
            self._refused[service] = (self._clock.monotonic() + REFUSED_THERE_SECONDS, why)
            raise Unauthenticated(why)
        text = f"{service} answered {raw.status} to {path}{self._said(raw.body)}"
        if raw.status < 400 or (raw.status == 404 and not is_gone(raw.body)):
            raise CloudUnavailable(f"{text} (is {raw.url} really an address of its?)", delay=30)
        raise {403: Forbidden, 404: NotFound}.get(raw.status, BadRequest)(text)

    async def _try(self, service: str, path: str, work: Callable[[Sdk, Job], _T | str]) -> _T:
        """What `work` gives, tried again while the other side is unwell. Raises CloudUnavailable, Unauthenticated, NoService."""
        waits = islice(delays(most=LONGEST_WAIT), TRIES - 1)
        while True:
            self._check_refused(service)
            began = self._clock.monotonic()
            outcome = await self._once(service, work)
            took = self._clock.monotonic() - began
            status = 0 if isinstance(outcome, str) else getattr(outcome, "status", 200)
            self._requests.labels(self._name, service, str(status or "none")).inc()
            self._seconds.labels(self._name, service).observe(took)
            log.debug("asked", extra=kv(source=self._name, service=service, path=path, status=status, ms=round(took * 1000)))
            if isinstance(outcome, str):
                problem, asked_for = outcome, 0.0
            elif status not in (408, 429) and status < 500:
                self._unwell.pop(service, None)
                return outcome
            else:
                problem = f"it answered {status} to {path}" + self._said(getattr(outcome, "body", b""))
                asked_for = _retry_after(getattr(outcome, "retry_after", ""), self._clock)
            wait = next(waits, None)
            if wait is None:
                self._gave_up(service, path, problem, status)
                raise CloudUnavailable(f"{service}: {problem}", delay=min(max(asked_for, 5.0), LONGEST_WAIT))
            self._retries.labels(self._name, service).inc()
            await self._clock.sleep(min(max(wait, asked_for), LONGEST_WAIT))

    def _gave_up(self, service: str, path: str, problem: str, status: int) -> None:
        """In the log; who asks again every second says it no more often."""
        now = self._clock.monotonic()
        before, until = self._unwell.get(service, (-1, 0.0))
        level = logging.DEBUG if status == before and now < until else logging.WARNING
        if level == logging.WARNING:
            self._unwell[service] = (status, now + QUIET_SECONDS)
        log.log(level, "gave up: %s", problem, extra=kv(source=self._name, service=service, path=path, tries=TRIES))

    async def _once(self, service: str, work: Callable[[Sdk, Job], _T | str]) -> _T | str:
        """One try in a thread; a text says why there was no answer."""
        whole = self._timeout_s * WHOLE
        try:
            async with asyncio.timeout(whole):
                return await self._pool.run(lambda stop: self._in_thread(work, whole, stop))
        except TimeoutError:
            return f"no answer in {whole:.0f} s"
        except Unauthenticated as why:
            self._refused[""] = (self._clock.monotonic() + REFUSED_SECONDS, str(why))
            log.error("%s", why, extra=kv(source=self._name))
            raise

    def _in_thread(self, work: Callable[[Sdk, Job], _T], whole: float, stop: threading.Event) -> _T:
        from vedette.clients.openstack_sdk import Job, Sdk

        with self._making:
            if self._sdk is None:
                self._sdk = Sdk(
                    self._credentials,
                    self._clock,
                    name=self._name,
                    timeout_s=self._timeout_s,
                    threads=self._threads,
                    largest=self._limits.answer_bytes,
                    tls=self._tls,
                )
        return work(self._sdk, Job(time.monotonic() + whole, stop))

    def _check_refused(self, service: str) -> None:
        for name in ("", service):
            until, why = self._refused.get(name, (0.0, ""))
            if self._clock.monotonic() < until:
                raise Unauthenticated(why)

    # --- what an answer says -----------------------------------------------------------------------------------------------

    def _object(self, service: str, raw: Raw) -> JsonObject:
        body: Any = None
        with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            body = msgspec.json.decode(raw.body)
        if not isinstance(body, dict):
            raise CloudUnavailable(f"{service}'s answer is no JSON object: is {raw.url} really its address?", delay=30)
        return body

    def _as_of(self, service: str, raw: Raw) -> int:
        difference = self._differences.setdefault(service, ClockDifference())
        with suppress(ValueError, OverflowError, TypeError):
            difference.saw(raw.sent, raw.received, int(parsedate_to_datetime(raw.date).timestamp()) * 1_000_000)
        return raw.sent + difference.estimate

    def _said(self, body: bytes) -> str:
        """`: ` and the service's own words, without what must not be seen."""
        text = service_words(body)
        made = self._credentials
        token = self._sdk.token() if self._sdk is not None else ""
        for secret in (token, made.password.reveal(), made.application_credential_secret.reveal(), made.token.reveal()):
            if secret:
                text = text.replace(secret, "***")
        return f": {text[:SAID]}" if text else ""

    def _limited(self, service: str, path: str, params: Params) -> tuple[list[tuple[str, str]], int]:
        """The first query, and how many items a page has when more may follow (0: nobody knows)."""
        given = dict(params).get("limit")
        if given == "0":
            return [one for one in params if one[0] != "limit"], 0
        if given is not None:
            return list(params), int(given) if given.isdecimal() else 0
        if (service, path) in self._unlimited:
            return list(params), 0
        return [*params, ("limit", str(self._page))], self._page


# --- paging ----------------------------------------------------------------------------------------------------------------


def next_query(body: JsonObject, key: str, query: Params) -> list[tuple[str, str]] | None:
    """What the link to the next page asks for, in any of the forms that services have; None: there is no link.

    Only its query is taken: behind a proxy a service gives a host, a scheme and a path that nobody outside can use.
    """
    href: Any = body.get("next")
    links = body.get(f"{key}_links", body.get("links"))
    if isinstance(links, dict):
        href = links.get("next")
    elif isinstance(links, list):
        href = next((one.get("href") for one in links if isinstance(one, dict) and one.get("rel") == "next"), None)
    if not isinstance(href, str) or not href:
        return None
    try:
        following = parse_qsl(urlsplit(href).query, keep_blank_values=True)
    except ValueError:
        return None
    there = {name for name, _ in following}
    # A link may leave out what the service doesn't page by (`fields`).
    return [one for one in query if one[0] not in there and one[0] not in ("marker", "limit", "offset")] + following


def _after(service: str, path: str, query: Params, items: Sequence[JsonObject], limit: int) -> list[tuple[str, str]] | None:
    """The next page of a list that gives no links: after the last one seen."""
    if not items:
        return None
    if (service, path) in BY_OFFSET:
        offset = int(dict(query).get("offset", "0")) + len(items)
        return [*(one for one in query if one[0] != "offset"), ("offset", str(offset))]
    last = items[-1].get("id")
    if not isinstance(last, str) or not ((limit and len(items) == limit) or (service, path) in BY_MARKER):
        return None
    return [*(one for one in query if one[0] != "marker"), ("marker", last)]


def _name(item: JsonObject) -> Any:
    """What tells one item of a list from the others."""
    return item["id"] if isinstance(item.get("id"), str | int) else msgspec.json.encode(item)


# --- words -----------------------------------------------------------------------------------------------------------------


def service_words(body: bytes) -> str:
    """The message in a service's error, in any of the forms that they have, on one line; "" for none."""
    body = body[:LONGEST_ERROR]
    try:
        text = _message(msgspec.json.decode(body), 4)
    except (msgspec.DecodeError, RecursionError):
        text = body.decode(errors="replace")
    return " ".join(_CONTROL.sub(" ", _TAGS.sub(" ", text)).split())


def _message(value: Any, depth: int) -> str:
    """`{"NeutronError": {"message": …}}`, `{"title": …, "error": {…}}`, `{"faultstring": …}`, `{"errors": [{"detail": …}]}`,
    `{"title": …, "description": {"cause": …}}`."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict) or not depth:
        return ""
    for name in ("message", "faultstring", "detail", "cause", "description"):
        if isinstance(value.get(name), str) and value[name]:
            return str(value[name])
    inner = next(filter(None, (_message(one, depth - 1) for one in value.values())), "")
    title = value.get("title")
    return inner or (title if isinstance(title, str) else "")


def is_gone(body: bytes) -> bool:
    """Whether a 404 says that there is no such object. It can also mean that there is no such path (a proxy's page, a service's
    word for a route that it doesn't have, a wrong address), or that we may not know; and nothing must be deleted for that."""
    said: Any = None
    with suppress(msgspec.DecodeError, RecursionError):
        said = msgspec.json.decode(body[:LONGEST_ERROR])
    return isinstance(said, dict) and ("itemNotFound" in said or service_words(body) not in NO_SUCH_PATH)


def _retry_after(text: str, clock: Clock) -> float:
    """Seconds; a number or a date. 0: nothing was said."""
    if text.isdecimal():
        return float(text[:6])
    with suppress(ValueError, OverflowError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - clock.now_us() / 1e6)
    return 0.0


def _context(made: Credentials) -> ssl.SSLContext:
    name = "cacert"
    try:
        context = ssl.create_default_context(cafile=made.cacert or None)
        if made.cert:
            name = "cert"
            context.load_cert_chain(made.cert, made.key or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"{getattr(made, name)} can't be used: {why.strerror or why}", path=name) from None
    return context


# --- threads ---------------------------------------------------------------------------------------------------------------


class _Threads:
    """A few threads that end with the process, whatever they are waiting for: those of concurrent.futures would hold it up."""

    def __init__(self, most: int, waiting: int, name: str) -> None:
        self._most = most
        self._may_wait = waiting
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._under_way = 0
        """Put into the queue and not yet finished by a thread, waited for or not."""
        self._threads: list[threading.Thread] = []
        self._closed = False

    async def run(self, work: Callable[[threading.Event], _T]) -> _T:
        """`work(stop)` in a thread; `stop` is set when nobody waits for it any more. Raises CloudUnavailable: too many wait."""
        if self._closed:
            raise CloudUnavailable("Vedette is stopping")
        if self._under_way >= self._may_wait + self._most:
            raise CloudUnavailable(f"{self._may_wait} requests to the cloud are waiting for their turn")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()
        stop = threading.Event()

        def settle(result: _T | None, why: BaseException | None) -> None:
            self._under_way -= 1
            if done.done():
                return
            if why is not None:
                done.set_exception(why)
            else:
                done.set_result(cast(_T, result))

        def call() -> None:
            result: _T | None = None
            failed: BaseException | None = None
            if not stop.is_set():
                try:
                    result = work(stop)
                except BaseException as why:  # noqa: BLE001 - it is raised where it is waited for
                    failed = why
            with suppress(RuntimeError):  # the loop is closed: nobody is there
                loop.call_soon_threadsafe(settle, result, failed)

        self._under_way += 1
        if len(self._threads) < min(self._most, self._under_way):
            thread = threading.Thread(target=self._serve, name=f"{self._name} {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.put(call)
        try:
            return await done
        finally:
            stop.set()

    def _serve(self) -> None:
        while (call := self._work.get()) is not None:
            call()

    def close(self) -> None:
        """The threads end after what they are at; what waits for its turn is not begun."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)
