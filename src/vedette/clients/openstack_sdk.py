"""One request to a cloud, in a thread: what Vedette uses of openstacksdk, keystoneauth and requests.

In: `Job`s of clients/openstack.py. Out: `Raw` answers; that module decides what they mean and what is asked again. Signing in,
the catalog, its aliases, versions and endpoints are openstacksdk's and keystoneauth's; sockets, limits and TLS are `_Wire`'s.

Only clients/openstack.py imports this, and only when the first request is made, in a worker thread: the libraries cost 0.3 s and
20 MB on top of Vedette's own 47, which nobody pays who has no `api:` in the configuration.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3
from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1 import session as keystone_session
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity import v3
from openstack.config import cloud_region
from openstack.connection import Connection
from requests.adapters import HTTPAdapter

from vedette import __version__
from vedette.clients.keystone import Credentials
from vedette.errors import NoService, Unauthenticated, VedetteError
from vedette.kit.clock import Clock

CHUNK = 65_536


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
    lives: float
    """Seconds from its issue to its end."""


class Sdk:
    """One account at one cloud. Used from several threads."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        *,
        name: str,
        region: str,
        interface: str,
        timeout_s: float,
        threads: int,
        largest: int,
        tls: ssl.SSLContext,
    ) -> None:
        self._where = f"the {interface} interface" + (f" in region {region}" if region else "")
        self._region, self._interface = region or None, interface
        self._wire = _Wire(clock, tls, threads, largest)
        http = requests.Session()
        # Proxies, CA bundles and netrc passwords of the environment are not this account's.
        http.trust_env = False
        # A small compressed answer can be a very large one.
        http.headers["Accept-Encoding"] = "identity"
        http.mount("https://", self._wire)
        http.mount("http://", self._wire)
        self._http = http
        self._auth = _plugin(credentials)
        self._url = credentials.auth_url
        self._session = keystone_session.Session(
            auth=self._auth,
            session=http,
            timeout=timeout_s,
            redirect=False,
            app_name="vedette",
            app_version=__version__,
        )
        region_config = cloud_region.from_session(
            self._session, name=name, region_name=self._region, interface=interface, app_name="vedette"
        )
        self._connection = Connection(config=region_config)
        self._adapters: dict[str, Any] = {}

    def get(self, job: Job, service: str, path: str, params: Sequence[tuple[str, str]], microversion: str) -> Raw | str:
        """The answer, or a text that says why there was none. Raises NoService, Unauthenticated."""
        self._wire.begin(job)
        try:
            adapter = self._adapter(service)
            # The SDK's own `request` adds a cache and statistics that nobody reads.
            response = Adapter.request(
                adapter,
                path,
                "GET",
                params=list(params),
                headers={"Accept": "application/json"},
                microversion=self._microversion(adapter, microversion),
                raise_exc=False,
                log=False,
                connect_retries=0,
                status_code_retries=0,
            )
        except Exception as why:  # noqa: BLE001 - three libraries' errors, told apart in one place
            self._adapters.pop(service, None)
            return self._failed(job, why)
        return Raw(
            status=response.status_code,
            body=response.content,
            sent=job.sent,
            received=job.received,
            date=response.headers.get("Date", ""),
            retry_after=response.headers.get("Retry-After", ""),
            url=str(response.url).partition("?")[0],
        )

    def account(self, job: Job) -> Account | str:
        """Whose token we have; or a text that says why nobody answered. Raises Unauthenticated."""
        self._wire.begin(job)
        try:
            access = self._auth.get_access(self._session)
        except Exception as why:  # noqa: BLE001 - three libraries' errors, told apart in one place
            return self._failed(job, why)
        return Account(
            user_id=access.user_id or "",
            user_name=access.username or "",
            project_id=access.project_id or "",
            project_name=access.project_name or "",
            domain_id=access.domain_id or "",
            system=bool(access.system_scoped),
            roles=tuple(access.role_names),
            expires_at=access.expires.timestamp(),
            lives=(access.expires - access.issued).total_seconds(),
        )

    def token(self) -> str:
        """The token that is used now, "" for none: to be left out of texts."""
        access = self._auth.auth_ref
        return str(access.auth_token) if access is not None else ""

    def close(self) -> None:
        self._http.close()

    def _adapter(self, service: str) -> Any:
        """The SDK's proxy of a service, with its endpoint found. Raises NoService and the libraries' errors."""
        adapter = self._adapters.get(service)
        if adapter is not None:
            return adapter
        catalog = self._auth.get_access(self._session).service_catalog
        if not any(
            catalog.get_endpoints_data(service_type=service, interface=self._interface, region_name=self._region).values()
        ):
            there = sorted(
                {
                    f"{kind} ({one.interface}, {one.raw_endpoint.get('region_id')})"
                    for kind, found in catalog.get_endpoints_data().items()
                    for one in found
                }
            )
            raise NoService(
                f"the catalog has no {service} on {self._where}; it has {', '.join(there) if there else 'nothing'}"[:2000]
            )
        # Made anew when it failed: the connection keeps one that could not look at its service for ever.
        self._connection._proxies.pop(service, None)
        adapter = getattr(self._connection, service.replace("-", "_"), None)
        if adapter is None:
            raise NoService(f"{service} is not a service that openstacksdk knows")
        self._adapters[service] = adapter
        return adapter

    def _microversion(self, adapter: Any, newest: str) -> str | None:
        """The newest that both understand; None where the service has none."""
        if not newest:
            return None
        data = adapter.get_endpoint_data()
        most = data.max_microversion if data is not None else None
        if not most:
            return None
        wanted = tuple(int(part) for part in newest.split("."))
        return ".".join(map(str, min(wanted, most)))

    def _failed(self, job: Job, why: Exception) -> str:
        """Raises what no repetition makes better; the libraries' errors hold requests and tokens and go no further."""
        if isinstance(why, VedetteError):
            raise why
        if isinstance(why, keystone_errors.Unauthorized):
            raise Unauthenticated(f"Keystone at {self._url} refused our credentials") from None
        if isinstance(why, keystone_errors.HttpError):
            return f"Keystone at {self._url} answered {why.http_status} to our login"
        return job.problem or f"{type(why).__name__} on the way to it"


def _plugin(made: Credentials) -> Any:
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
        return v3.ApplicationCredential(made.auth_url, **_set(given))
    if made.token:
        return v3.Token(made.auth_url, token=made.token.reveal(), **_set(scope))
    return v3.Password(made.auth_url, password=made.password.reveal(), **_set(user), **_set(scope))


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
