"""One request to a cloud, in a thread: what Vedette uses of openstacksdk, keystoneauth and requests.

In: `Job`s of clients/openstack.py. Out: `Raw` answers; that module decides what they mean and what is asked again. Signing in,
the catalog, its aliases, versions and endpoints are openstacksdk's and keystoneauth's; sockets, limits and TLS are `_Wire`'s.

Only clients/openstack.py imports this, and only when the first request is made, in a worker thread: the libraries cost 0.3 s and
20 MB on top of Vedette's own 47, which nobody pays who has no `api:` in the configuration.
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3
from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1 import session as keystone_session
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity import v3
from openstack import exceptions as sdk_errors
from openstack.config import cloud_region
from openstack.connection import Connection
from requests.adapters import HTTPAdapter

from vedette import __version__
from vedette.clients.keystone import Credentials
from vedette.errors import CloudUnavailable, NoService, Unauthenticated, VedetteError
from vedette.kit.clock import Clock
from vedette.kit.log import kv

log = logging.getLogger("vedette.clients.openstack")

CHUNK = 65_536
"""Bytes read at a time."""

VERSIONED = frozenset(("block-storage", "compute", "identity", "image", "load-balancer", "network", "orchestration"))
"""Services whose root has a version in its path. keystoneauth takes what the catalog says where it finds no versions (the service
is down), and then a right path under a wrong root is answered with 404, as if the object were gone."""

ROOTED: Mapping[str, str] = {"alarming": "v2", "metric": "v1"}
"""Services that openstacksdk has no versions of: catalogs have their roots, and this is the version that is asked."""

REQUEST_ID = "X-Openstack-Request-Id"
"""In a request: what the service is to know it by, in its log and its notifications (oslo.middleware, global request ids)."""

_VERSION = re.compile(r"/v[0-9]+(\.[0-9]+)?(/|$)")
_LAST_VERSION = re.compile(r"/v[0-9]+(\.[0-9]+)?$")


class Job:
    """One request: what its thread has to keep to, and what it found out on the way."""

    def __init__(self, deadline: float, abandoned: threading.Event) -> None:
        self.deadline = deadline
        """time.monotonic(): nothing is sent or read after it."""
        self.abandoned = abandoned
        """Set when nobody waits for it any more."""
        self.sent = 0
        """Our clock when the last request began, microseconds."""
        self.received = 0
        self.problem = ""
        """Why the last request had no answer."""


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    body: bytes
    sent: int
    """Our clock, microseconds."""
    received: int
    date: str
    """The Date header."""
    retry_after: str
    url: str
    """Where it was asked, without its query."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What Keystone said of the token that it gave us."""

    user_id: str
    user_name: str
    project_id: str
    project_name: str
    domain_id: str
    system: bool
    roles: tuple[str, ...]
    expires_at: float
    """UTC, seconds."""
    left: float
    """Seconds until we take another."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service is asked, by the catalog and its own list of versions."""

    url: str
    """Its versioned root."""
    microversions: tuple[str, str] | None = None
    """The oldest and the newest; None: it has none."""


class _Unversioned(Exception):
    """It can't be found out which versions a service has."""


class Sdk:
    """One account at one cloud. Used from several threads."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        *,
        name: str,
        timeout_s: float,
        threads: int,
        largest: int,
        tls: ssl.SSLContext,
    ) -> None:
        self._region, self._interface = credentials.region_name, credentials.interface or "public"
        self._wire = _Wire(clock, tls, threads, largest)
        http = requests.Session()
        # Proxies, CA bundles and netrc passwords of the environment are not this account's.
        http.trust_env = False
        http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # A small compressed answer can be a very large one.
        http.headers["Accept-Encoding"] = "identity"
        http.mount("https://", self._wire)
        http.mount("http://", self._wire)
        self._http = http
        self._auth = _plugin(credentials)
        self._url = credentials.auth_url
        # No redirects: they would take the token along.
        self._session = keystone_session.Session(
            auth=self._auth,
            session=http,
            timeout=timeout_s,
            redirect=False,
            app_name="vedette",
            app_version=__version__,
        )
        self._name = name
        self._adapters: dict[str, Any] = {}
        """Of the services that were asked with the present token: its successor's catalog may have them elsewhere."""
        self._clock = clock
        self._renewing = threading.Lock()
        self._ends: tuple[str, float] = ("", 0.0)
        """Our token, and when (monotonic) it is time for another."""
        # What these would say on stderr at their own discretion is in our errors already, once and with the source's name.
        for library in ("keystoneauth", "openstack", "urllib3"):
            logging.getLogger(library).setLevel(logging.CRITICAL)

    def get(self, job: Job, service: str, path: str, params: Sequence[tuple[str, str]], microversion: str) -> Raw | str:
        """The answer, or a text that says why there was none. Raises NoService, Unauthenticated."""
        return self._answer(job, service, lambda: self._response("GET", service, path, params, microversion))

    def query(
        self, job: Job, service: str, path: str, params: Sequence[tuple[str, str]], body: dict[str, Any] | None
    ) -> Raw | str:
        """The same for a question that is a POST where it has a body."""
        method = "GET" if body is None else "POST"
        return self._answer(job, service, lambda: self._response(method, service, path, params, "", body))

    def send(
        self,
        job: Job,
        method: str,
        service: str,
        path: str,
        body: dict[str, Any] | None = None,
        microversion: str = "",
        request_id: str = "",
    ) -> Raw | str:
        """The same for another method, with a JSON body; `request_id`: what the service is to call the request (a global one)."""
        return self._answer(job, service, lambda: self._response(method, service, path, (), microversion, body, request_id))

    def endpoint(self, job: Job, service: str) -> Endpoint | str:
        """Where it is asked; or a text that says why that can't be found out. Raises NoService, Unauthenticated."""
        self._wire.begin(job)
        failed: Exception | None = None
        try:
            adapter = self._adapter(service)
            url = str(Adapter.get_endpoint(adapter)).rstrip("/")
        except Exception as why:  # noqa: BLE001 - as in `_answer`
            failed = why
        if failed is not None:
            return self._failed(job, failed)
        oldest = newest = None
        # Octavia's list of versions is of a form that keystoneauth stumbles over; it has no microversions.
        with suppress(TypeError, KeyError, keystone_errors.ClientException):
            data = Adapter.get_endpoint_data(adapter)
            oldest, newest = (data.min_microversion, data.max_microversion) if data is not None else (None, None)
        return Endpoint(url=url, microversions=(_dotted(oldest), _dotted(newest)) if oldest and newest else None)

    def _answer(self, job: Job, service: str, ask: Callable[[], requests.Response]) -> Raw | str:
        self._wire.begin(job)
        # What the libraries raise holds requests with their tokens. Nothing is raised while one of theirs is being handled: that
        # one would be the context of ours.
        failed: Exception | None = None
        try:
            response = ask()
        except Exception as why:  # noqa: BLE001 - three libraries' errors, told apart in one place
            failed = why
        if failed is not None:
            self._adapters.pop(service, None)
            return self._failed(job, failed)
        return Raw(
            status=response.status_code,
            body=response.content,
            sent=job.sent,
            received=job.received,
            date=response.headers.get("Date", ""),
            retry_after=response.headers.get("Retry-After", ""),
            url=str(response.url).partition("?")[0],
        )

    def _response(
        self,
        method: str,
        service: str,
        path: str,
        params: Sequence[tuple[str, str]],
        microversion: str,
        body: dict[str, Any] | None = None,
        request_id: str = "",
    ) -> requests.Response:
        self._access()
        adapter = self._adapter(service)
        version = self._microversion(service, adapter, microversion)
        response = self._sent(adapter, method, path, params, version, body, request_id)
        if response.status_code == 401:
            # Revoked, or Keystone's keys were rotated away. keystoneauth's own way loses when several threads hear it at once.
            self._renew(str(response.request.headers.get("X-Auth-Token", "")))
            response = self._sent(adapter, method, path, params, version, body, request_id)
        return response

    def _sent(
        self,
        adapter: Any,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]],
        microversion: str | None,
        body: dict[str, Any] | None,
        request_id: str,
    ) -> requests.Response:
        # The SDK's own `request` adds a cache and statistics that nobody reads.
        response: requests.Response = Adapter.request(
            adapter,
            path,
            method,
            params=list(params),
            headers={"Accept": "application/json", **({REQUEST_ID: request_id} if request_id else {})},
            microversion=microversion,
            raise_exc=False,
            log=False,
            allow_reauth=False,
            connect_retries=0,
            status_code_retries=0,
            **({} if body is None else {"json": body}),
        )
        return response

    def _access(self) -> Any:
        """Our token and what Keystone said of it; a new one well before it ends. How long it lives is Keystone's own word, so
        a clock that differs from Keystone's makes no login for each request."""
        access = self._auth.get_access(self._session)
        token, ends = self._ends
        now = self._clock.monotonic()
        if access.auth_token == token and now >= ends:
            self._renew(token)
            access = self._auth.get_access(self._session)
        if access.auth_token != token:
            lives = _lives(access)
            self._ends = (access.auth_token, now + lives - min(60.0, lives / 4))
            self._adapters.clear()
        return access

    def _renew(self, token: str) -> None:
        """Log in, unless another thread did so since `token`."""
        with self._renewing:
            access = self._auth.auth_ref
            if access is None or access.auth_token == token:
                self._auth.auth_ref = self._auth.get_auth_ref(self._session)

    def account(self, job: Job) -> Account | str:
        """Whose token we have; or a text that says why nobody answered. Raises Unauthenticated."""
        self._wire.begin(job)
        failed: Exception | None = None
        try:
            access = self._access()
        except Exception as why:  # noqa: BLE001 - as above
            failed = why
        if failed is not None:
            return self._failed(job, failed)
        return Account(
            user_id=access.user_id or "",
            user_name=access.username or "",
            project_id=access.project_id or "",
            project_name=access.project_name or "",
            domain_id=access.domain_id or "",
            system=bool(access.system_scoped),
            roles=tuple(access.role_names),
            expires_at=access.expires.timestamp(),
            left=max(0.0, self._ends[1] - self._clock.monotonic()),
        )

    def token(self) -> str:
        """The token that is used now, "" for none: to be left out of texts."""
        access = self._auth.auth_ref
        return str(access.auth_token) if access is not None else ""

    def close(self) -> None:
        self._http.close()

    def _adapter(self, service: str) -> Any:
        """The SDK's proxy of a service, with its endpoint found. Raises NoService, _Unversioned, the libraries' errors."""
        adapter = self._adapters.get(service)
        if adapter is not None:
            return adapter
        self._check_catalog(service)
        # A connection of its own (it opens nothing, and costs a millisecond): it would keep the endpoint of its first look.
        if service in ROOTED:
            adapter = self._adapters[service] = self._rooted(service)
            return adapter
        region = cloud_region.from_session(
            self._session, name=self._name, region_name=self._region or None, interface=self._interface, app_name="vedette"
        )
        adapter = getattr(Connection(config=region), service.replace("-", "_"), None)
        if adapter is None:
            raise NoService(f"{service} is not a service that openstacksdk knows")
        root = str(Adapter.get_endpoint(adapter))
        if service in VERSIONED and not _VERSION.search(urlsplit(root).path):
            raise _Unversioned
        self._adapters[service] = adapter
        return adapter

    def _rooted(self, service: str) -> Any:
        """For a service that openstacksdk knows no more of than its name, if that: the version is ours to add."""
        catalog = self._access().service_catalog
        url = catalog.url_for(service_type=service, interface=self._interface, region_name=self._region or None)
        root = _LAST_VERSION.sub("", url.rstrip("/"))
        return Adapter(self._session, service_type=service, endpoint_override=f"{root}/{ROOTED[service]}")

    def _check_catalog(self, service: str) -> None:
        """Raises NoService, also where it is not clear which region is meant: another's objects would look like ours."""
        catalog = self._access().service_catalog
        every = [one for found in catalog.get_endpoints_data(service_type=service).values() for one in found]
        here = [one for one in every if one.interface == self._interface and self._region in ("", _region(one))]
        if len({one.url for one in here}) > 1 and len({_region(one) for one in here}) > 1:
            regions = ", ".join(sorted({_region(one) for one in here}))
            raise NoService(f"the catalog has {service} in {regions}: say in which one (region_name)")
        if here:
            return
        wanted = f"{service} with the interface {self._interface}" + (f" in region {self._region}" if self._region else "")
        if every:
            there = ", ".join(sorted({f"{one.interface} in {_region(one)}" for one in every}))
            raise NoService(f"the catalog has no {wanted}; it has {there}"[:1000])
        services = (
            ", ".join(sorted(catalog.get_endpoints_data())) or "nothing at all: has the account a scope, such as a project?"
        )
        raise NoService(f"the catalog has no {wanted}; it has {services}"[:1000])

    def _microversion(self, service: str, adapter: Any, newest: str) -> str | None:
        """The newest that both understand; None where the service has none. Raises _Unversioned when it can't be asked: an older
        form would be taken for the truth."""
        if not newest:
            return None
        data = Adapter.get_endpoint_data(adapter)
        # Where it could not read the versions, keystoneauth falls back to the catalog's, and says so in no other way.
        if data is None or data._disc is None:
            raise _Unversioned
        if not data.max_microversion:
            return None
        wanted = tuple(int(part) for part in newest.split("."))
        return ".".join(map(str, min(wanted, data.max_microversion)))

    def _failed(self, job: Job, why: Exception) -> str:
        """Why nobody answered; raises what no repetition makes better."""
        if isinstance(why, VedetteError):
            raise why
        keystone = f"Keystone at {self._url}"
        if isinstance(why, keystone_errors.HttpError):
            if why.http_status in (401, 403):
                raise Unauthenticated(f"{keystone} refused our credentials")
            if why.http_status == 400:
                raise Unauthenticated(f"{keystone} can't use our credentials (are user, domain, scope right?)")
            text = f"{keystone} answered {why.http_status} to our login"
            if why.http_status < 500 and why.http_status != 429:
                raise CloudUnavailable(f"{text}: is it a Keystone's address?", delay=30)
            return text
        if isinstance(why, keystone_errors.InvalidResponse):
            raise CloudUnavailable(
                f"{keystone} gave our login an answer that is none of Identity v3: is it a Keystone?", delay=30
            )
        if job.problem:
            return job.problem
        if isinstance(why, _Unversioned | keystone_errors.DiscoveryFailure | sdk_errors.SDKException):
            return "it doesn't say which versions of its API it has: is it up?"
        if not isinstance(why, keystone_errors.ClientException):
            log.error("a request to the cloud broke", exc_info=why, extra=kv(url=self._url))
        return f"{type(why).__name__}: {why}"[:300]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _region(endpoint: Any) -> str:
    return str(endpoint.region_name or "no region")


def _lives(access: Any) -> float:
    return float((access.expires - access.issued).total_seconds())


def _plugin(made: Credentials) -> Any:
    """keystoneauth's way to log in. When it is time for another token is `Sdk._access`' to say."""
    user = {"username": made.username, "user_id": made.user_id}
    user |= {"user_domain_id": made.user_domain_id, "user_domain_name": made.user_domain_name}
    scope = {
        "project_id": made.project_id,
        "project_name": made.project_name,
        "project_domain_id": made.project_domain_id if made.project_name else "",
        "project_domain_name": made.project_domain_name if made.project_name else "",
        "domain_id": made.domain_id,
        "domain_name": made.domain_name,
        "system_scope": made.system_scope,
        "trust_id": made.trust_id,
    }
    if made.application_credential_secret:
        given = {
            "application_credential_id": made.application_credential_id,
            "application_credential_name": made.application_credential_name,
            "application_credential_secret": made.application_credential_secret.reveal(),
            **user,
        }
        return v3.ApplicationCredential(made.auth_url, reauthenticate=False, **_set(given))
    if made.token:
        return v3.Token(made.auth_url, token=made.token.reveal(), reauthenticate=False, **_set(scope))
    return v3.Password(made.auth_url, password=made.password.reveal(), reauthenticate=False, **_set(user), **_set(scope))


def _set(given: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value}


class _Wire(HTTPAdapter):
    """Every byte to and from the cloud, logins and discovery included: verified, bounded in time and size, and stamped."""

    def __init__(self, clock: Clock, tls: ssl.SSLContext, threads: int, largest: int) -> None:
        self._clock = clock
        self._tls = tls
        self._largest = largest
        self._here = threading.local()
        super().__init__(pool_connections=32, pool_maxsize=threads)

    def begin(self, job: Job) -> None:
        """What this thread sends from now on is for `job`."""
        self._here.job = job

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **more: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._tls, **more)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing is added to our own context: requests would bring its own list of authorities."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **more: Any) -> requests.Response:
        """Raises requests.ConnectionError, with `problem` written into the job."""
        job: Job = self._here.job
        parts = urlsplit(request.url)
        where = f"{parts.scheme}://{parts.netloc}"
        began = time.monotonic()
        job.problem = ""
        try:
            left = job.deadline - began
            if left <= 0 or job.abandoned.is_set():
                raise requests.Timeout
            job.sent = self._clock.now_us()
            response = super().send(request, True, min(timeout, left), *args, **more)
            job.received = self._clock.now_us()
            try:
                response._content = self._read(response, job)
                response._content_consumed = True
            finally:
                response.close()
            return response
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as why:
            job.problem = f"{where} can't be asked: {_reason(why, time.monotonic() - began)}"
        raise requests.ConnectionError(job.problem)

    def _read(self, response: requests.Response, job: Job) -> bytes:
        """The whole body. Raises ValueError, what urllib3 and sockets raise."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Odd("it compresses what it was asked not to")
        parts: list[bytes] = []
        size = 0
        while part := response.raw.read1(CHUNK):
            parts.append(part)
            size += len(part)
            if size > self._largest:
                raise _Odd(f"an answer of more than {self._largest} bytes")
            if job.abandoned.is_set() or time.monotonic() > job.deadline:
                raise requests.Timeout
        return b"".join(parts)


class _Odd(ValueError):
    """An answer that we don't take; the text says why."""


def _reason(why: BaseException, seconds: float) -> str:
    """One short sentence of what requests and urllib3 wrap in several."""
    if isinstance(why, _Odd):
        return str(why)
    if isinstance(why, requests.Timeout | TimeoutError | urllib3.exceptions.TimeoutError):
        return f"no answer in {seconds:.0f} s"
    inner: BaseException | None = why
    for _ in range(8):
        if isinstance(inner, ssl.SSLError):
            return getattr(inner, "verify_message", "") or inner.reason or "TLS failed"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        args = getattr(inner, "args", ())
        reason = getattr(inner, "reason", None)
        following = (
            reason
            if isinstance(reason, BaseException)
            else next((one for one in reversed(args) if isinstance(one, BaseException)), None)
        )
        following = (
            following or (inner.__cause__ if inner is not None else None) or (inner.__context__ if inner is not None else None)
        )
        if following is None:
            break
        inner = following
    return type(inner).__name__
