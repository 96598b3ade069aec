"""Speaks to FreeIPA: enrols hosts, has certificates issued, takes hosts out again. Its JSON-RPC, in a session with a cookie.

In: names and a signing request. Out: what FreeIPA says, in its own names. A session that has ended is opened anew, once a call.
Whether a host is ours, and what becomes of a certificate, is decided by handlers/freeipa.py. Neither passwords nor requests nor
answers are logged, or quoted in errors beyond FreeIPA's own message.

Errors: TargetUnavailable (nobody answers, or our account is refused: everything waits), TryLater (the server or its CA is
unwell), GiveUp (this request will not be granted). https://freeipa.readthedocs.io/en/latest/api/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import textwrap
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from vedette.clients.tls import client_context
from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater
from vedette.kit.clock import Clock
from vedette.kit.secret import Secret

TIMEOUT_SECONDS = 30.0
"""For one request. A certificate takes FreeIPA's CA a second or two."""
LARGEST_ANSWER = 1024 * 1024
"""Bytes; a host with its certificates has some 20 kB."""
REFUSED_SECONDS = 60.0
"""After our account was refused: until the next attempt. FreeIPA locks an account after six failures within a minute."""
UNWELL_SECONDS = 10.0
"""After an error on its side: until the next attempt."""
CONNECTIONS = 10
"""Open at one time; further requests wait for one."""
VERSION = "2.231"
"""Of the API, as FreeIPA 4.6 has it: newer servers answer as that one did."""

# https://github.com/freeipa/freeipa/blob/master/ipalib/errors.py
NOT_FOUND = 4001
DUPLICATE = 4002
_UNWELL = frozenset((901, 903, 907, 4203, 4301))
"""InternalError, ServerInternalError, NetworkError, DatabaseError, CertificateOperationError (its CA does not answer)."""


class Refused(GiveUp):
    """FreeIPA said no; `code` is its error code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class FreeIpa:
    """One server, one account. Made anywhere, used in one event loop; `close` when done."""

    def __init__(
        self, url: str, user: str, password: Secret, clock: Clock, *, ca: str = "", timeout_s: float = TIMEOUT_SECONDS
    ) -> None:
        """`url`: `https://ipa.example.org/ipa` (what is behind `/ipa` is added). Raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query:
            raise ConfigError("wants an address such as https://ipa.example.org/ipa: the password goes there", path="url")
        self._url = url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/ipa"
        self._who = f"FreeIPA at {parts.netloc}"
        self._user, self._password = user, password
        self._clock, self._timeout = clock, timeout_s
        self._tls = client_context(ca=ca, whose="FreeIPA")
        self._session: aiohttp.ClientSession | None = None
        self._entering = asyncio.Lock()
        self._logins = 0
        """How often we logged in: names the session that a request was made with."""
        self._refused_until = 0.0
        self._why_refused = ""

    async def host_show(self, fqdn: str) -> dict[str, Any] | None:
        """What is known of a host (FreeIPA's attributes, most of them lists); None: it isn't enrolled."""
        try:
            found = await self.call("host_show", [fqdn])
        except Refused as why:
            if why.code == NOT_FOUND:
                return None
            raise
        return found if isinstance(found, dict) else {}

    async def host_add(self, fqdn: str, *, description: str = "") -> bool:
        """Enrol a host, whether DNS knows it or not. False: it is there already."""
        more = {"description": description} if description else {}
        try:
            await self.call("host_add", [fqdn], force=True, **more)
        except Refused as why:
            if why.code == DUPLICATE:
                return False
            raise
        return True

    async def host_del(self, fqdn: str, *, updatedns: bool = False) -> bool:
        """Take a host out; FreeIPA revokes its certificates. `updatedns`: its DNS records go too. False: there was none."""
        more = {"updatedns": True} if updatedns else {}
        try:
            await self.call("host_del", [fqdn], **more)
        except Refused as why:
            if why.code == NOT_FOUND:
                return False
            raise
        return True

    async def cert_request(self, csr: str, principal: str) -> str:
        """Have a signing request (PEM) signed for `host/<fqdn>@<realm>`, which has to be enrolled. The certificate, PEM."""
        found = await self.call("cert_request", [csr], principal=principal, request_type="pkcs10", add=False)
        text = found.get("certificate") if isinstance(found, dict) else None
        try:
            raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except binascii.Error:
            raw = b""
        if not raw:
            raise TryLater(f"{self._who} answered cert_request without a certificate", delay=UNWELL_SECONDS)
        body = "\n".join(textwrap.wrap(base64.b64encode(raw).decode(), 64))
        return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"

    async def call(self, method: str, args: list[Any], **options: Any) -> Any:
        """One command; its `result`. Raises Refused for FreeIPA's own errors, and as the module says."""
        body = msgspec.json.encode({"method": method, "params": [args, {"version": VERSION, **options}], "id": 0})
        seen = 0
        for _ in ("with the session we have", "with a new one"):
            seen = await self._enter(seen)
            status, answer = await self._post("/session/json", body, "application/json")
            if status != 401:
                break
        else:
            raise TryLater(f"{self._who} knows no session, not even a new one", delay=UNWELL_SECONDS)
        if status != 200:
            raise self._complaint(status, method)
        return self._result(method, answer)

    async def close(self) -> None:
        session, self._session = self._session, None
        self._logins = 0
        if session is not None:
            await session.close()

    # --- the session

    async def _enter(self, seen: int) -> int:
        """Log in, unless somebody has since the login `seen`. Which one we are in."""
        async with self._entering:
            if self._logins > seen:
                return self._logins
            if self._clock.monotonic() < self._refused_until:
                raise TargetUnavailable(self._why_refused, delay=self._refused_until - self._clock.monotonic())
            form = aiohttp.FormData({"user": self._user, "password": self._password.reveal()})
            status, _, reason = await self._send("/session/login_password", form, {"Accept": "text/plain"})
            if status in (401, 403):
                self._refused_until = self._clock.monotonic() + REFUSED_SECONDS
                self._why_refused = f"{self._who} refuses the user {self._user!r}: {reason or 'no reason given'}"
                raise TargetUnavailable(self._why_refused, delay=REFUSED_SECONDS)
            if status != 200:
                raise self._complaint(status, "the login")
            self._logins += 1
            return self._logins

    async def _post(self, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        status, answer, _ = await self._send(path, body, {"Content-Type": content_type, "Accept": "application/json"})
        return status, answer

    async def _send(self, path: str, body: bytes | aiohttp.FormData, headers: dict[str, str]) -> tuple[int, bytes, str]:
        """Status, body, and why a login was refused. FreeIPA answers nothing without a Referer of its own."""
        session = self._opened()
        try:
            async with asyncio.timeout(self._timeout):
                async with session.post(
                    self._url + path, data=body, headers={**headers, "Referer": self._url}, allow_redirects=False
                ) as response:
                    answer = await response.content.read(LARGEST_ANSWER + 1)
                    while len(answer) <= LARGEST_ANSWER and (part := await response.content.read(LARGEST_ANSWER + 1)):
                        answer += part
                    if len(answer) > LARGEST_ANSWER:
                        response.close()
                        raise TryLater(f"{self._who} answered with more than {LARGEST_ANSWER} bytes", delay=UNWELL_SECONDS)
                    return response.status, answer, response.headers.get("X-IPA-Rejection-Reason", "")[:100]
        except TimeoutError:
            raise TargetUnavailable(f"{self._who} did not answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorCertificateError as why:
            raise TargetUnavailable(f"the certificate of {self._who} is not accepted: {why.certificate_error}") from None
        except aiohttp.ClientConnectorError as why:
            raise TargetUnavailable(f"{self._who} can't be reached: {why.os_error.strerror or why.os_error}") from None
        except (aiohttp.ClientError, OSError) as why:
            # Not its text: aiohttp's may hold what was sent.
            raise TargetUnavailable(f"the connection to {self._who} was lost ({type(why).__name__})") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._tls),
                # One server, perhaps known by its address.
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                trust_env=False,
            )
        return self._session

    # --- what it says

    def _complaint(self, status: int, doing: str) -> Exception:
        if status in (408, 429) or status >= 500:
            return TryLater(f"{self._who} answered {doing} with {status}", delay=UNWELL_SECONDS)
        return GiveUp(f"{self._who} answered {doing} with {status}: is the address right?")

    def _result(self, method: str, answer: bytes) -> Any:
        try:
            said = msgspec.json.decode(answer, type=_Said)
        except (msgspec.DecodeError, RecursionError):
            raise TryLater(f"{self._who} gave an answer to {method} that can't be read", delay=UNWELL_SECONDS) from None
        if said.error is not None:
            text = f"{self._who} refuses {method}: {said.error.message[:500]} ({said.error.name or said.error.code})"
            if said.error.code in _UNWELL:
                raise TryLater(text, delay=UNWELL_SECONDS)
            raise Refused(text, said.error.code)
        return said.result.get("result") if isinstance(said.result, dict) else None


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""
    name: str = ""


class _Said(msgspec.Struct):
    result: Any = None
    error: _Error | None = None
