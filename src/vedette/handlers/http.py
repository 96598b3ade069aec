"""Calls an address for each event: with the CloudEvent, the object, or a body of one's own.

An event comes in, one request goes out; its status decides what becomes of the delivery. Expected (2xx) is done. 408, 425, 429
and 5xx are tried later, when `Retry-After` says if it does. Any other answer, a redirect too, is a dead letter with the beginning
of what was said. Nobody there, or nobody that can be trusted: the handler waits.

A target that got a delivery twice knows it by `Idempotency-Key`. (RFC 9110; draft-ietf-httpapi-idempotency-key-header)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from vedette import __version__
from vedette.clients.http import Answer, HttpClient
from vedette.clients.tls import client_context
from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater
from vedette.handlers._target import Body, excerpt
from vedette.handlers._template import Missing, Template, Values, template
from vedette.kit.clock import Clock
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.ports import Context, Event, HandlerNeeds

TIMESTAMP, SIGNATURE = "X-Vedette-Timestamp", "X-Vedette-Signature"
LATER = frozenset({408, 425, 429})
"""Of 4xx, those that may be something else in a moment. 5xx are too."""
LONGEST_WAIT = 86_400.0
"""Seconds of a `Retry-After` that are believed."""
OURS = {
    *("authorization", "content-length", "host", "idempotency-key", "traceparent", "transfer-encoding"),
    *("x-openstack-request-id", TIMESTAMP.lower(), SIGNATURE.lower()),
}
"""Headers that the settings can't name."""
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_ORIGIN = re.compile(rf"https?://(?:{_LABEL}(?:\.{_LABEL}){{0,126}}\.?|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?(?=[/?])")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is called for each event."""

    url: str
    """The address, a template after its host and port: `https://cmdb.example.org/ports/{key.id}`. Values are percent-encoded, so
    that none leaves its segment of the path or its place in the query."""
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD"] = "POST"
    """The request's method. GET and HEAD have no body."""
    body: str = "cloudevent"
    """`cloudevent` (the event as a CloudEvent 1.0 in JSON), `object` (the object alone), or a template. A template of JSON has
    its own braces doubled: `{{"text": "{key.kind} {object.status.name} is {object.status.status}"}}`."""
    content_type: str = "application/json"
    """What a template gives. In JSON every value is encoded as JSON."""
    headers: dict[str, str] = {}
    """More headers; their values are templates."""
    secret_headers: dict[str, Secret] = {}
    """More headers with values that nobody should see, such as `X-Api-Key`; no templates."""
    username: str = ""
    """For basic authentication, with `password`."""
    password: Secret = Secret()
    """Its password."""
    token: Secret = Secret()
    """For `Authorization: Bearer …`."""
    hmac_secret: Secret = Secret()
    """Signs each request: `X-Vedette-Timestamp` has the seconds since 1970, `X-Vedette-Signature` has `sha256=` and the
    HMAC-SHA256 of timestamp, a dot, and body, in hex. A hook of another Vedette takes it."""
    allow_insecure: bool = False
    """Send passwords and tokens over plain http to other machines too."""
    ca: FilePath = ""
    """PEM file of the authorities to trust; none: the system's."""
    cert: FilePath = ""
    """PEM file of a client certificate, where the target wants one."""
    key: FilePath = ""
    """PEM file of its private key, if it is not in `cert`."""
    timeout: Seconds = 10.0
    """For one request, from its connection to the end of the answer."""
    expected: tuple[int, ...] = ()
    """Statuses that mean that it is done; none: every 2xx."""
    missing: Missing = "fail"
    """When the address names a value that an event doesn't have: `fail` (a dead letter), or `empty`."""


def build(options: Options, needs: HandlerNeeds) -> HttpHandler:
    """Raises ConfigError."""
    return HttpHandler(options, needs)


class HttpHandler:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        self._url = template(options.url, "url", missing=options.missing, path="url")
        self._origin = _origin(self._url)
        secret = bool(options.username or options.password or options.token or options.secret_headers)
        if secret and not options.allow_insecure and self._origin.startswith("http://") and not _is_here(self._origin):
            raise ConfigError(
                "a password or token would travel in plain http: use https, or say allow_insecure: true", path="url"
            )
        if options.token and (options.username or options.password):
            raise ConfigError("wants a token, or a username with its password, not both", path="token")
        if bool(options.username) != bool(options.password):
            raise ConfigError("username and password go together", path="username")
        for status in options.expected:
            if not 200 <= status <= 599:
                raise ConfigError("wants statuses from 200 to 599", path="expected")
        if options.timeout <= 0:
            raise ConfigError("must be more than 0", path="timeout")
        self._body = Body(options.body, _header_value(options.content_type, "content_type"))
        self._headers = {
            _header_name(name, "headers"): template(text, "line", path=f"headers.{name}")
            for name, text in options.headers.items()
        }
        self._fixed = {
            "User-Agent": f"vedette/{__version__}",
            "Accept-Encoding": "identity",
            "Content-Type": self._body.content_type,
        }
        self._fixed |= {
            _header_name(name, "secret_headers"): _header_value(secret.reveal(), f"secret_headers.{name}")
            for name, secret in options.secret_headers.items()
        }
        if options.method in ("GET", "HEAD"):
            del self._fixed["Content-Type"]
        if options.username:
            pair = f"{options.username}:{options.password.reveal()}".encode()
            self._fixed["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        if options.token:
            self._fixed["Authorization"] = f"Bearer {_header_value(options.token.reveal(), 'token')}"
        self._options = options
        self._clock = needs.clock
        tls = None
        if options.ca or options.cert or options.key:
            tls = client_context(ca=options.ca, cert=options.cert, key=options.key, whose=f"handler {needs.name}")
        self._client = HttpClient(timeout=options.timeout, tls=tls)

    async def handle(self, event: Event, context: Context) -> str:
        values = Values(event)
        body = b"" if self._options.method in ("GET", "HEAD") else self._body.fill(event, values)
        try:
            answer = await self._client.request(
                self._options.method,
                self._url.fill(values),
                headers=self._signed(event, values, body),
                body=body,
            )
        except TargetUnavailable as why:
            raise TargetUnavailable(f"{self._origin}: {why}") from None
        return self._outcome(answer)

    async def close(self) -> None:
        await self._client.close()

    def _signed(self, event: Event, values: Values, body: bytes) -> dict[str, str]:
        """All headers of one request."""
        headers = dict(self._fixed)
        headers |= {name: made.fill(values).strip() for name, made in self._headers.items()}
        headers["Idempotency-Key"] = event.idempotency_key
        if event.request_id:
            headers["X-Openstack-Request-Id"] = event.request_id
        if event.traceparent:
            headers["traceparent"] = event.traceparent
        if self._options.hmac_secret:
            timestamp = str(self._clock.now_us() // 1_000_000)
            secret = self._options.hmac_secret.reveal().encode()
            signature = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers |= {TIMESTAMP: timestamp, SIGNATURE: f"sha256={signature}"}
        return headers

    def _outcome(self, answer: Answer) -> str:
        status, expected = answer.status, self._options.expected
        if status in expected or (not expected and 200 <= status < 300):
            return f"{status} from {self._origin}"
        said = excerpt(answer.body)
        text = f"{status} from {self._origin}" + (f": {said}" if said else "")
        if status in LATER or status >= 500:
            delay = retry_after(answer.headers.get("Retry-After", ""), self._clock)
            raise TryLater(text, delay=delay or 0.0)  # without a word of the target's, `retry` says when
        if 300 <= status < 400 and "Location" in answer.headers:
            where = excerpt(answer.headers["Location"].partition("?")[0])
            raise GiveUp(f"{status} from {self._origin}, which points to {where}: redirects are not followed, set `url` to it")
        raise GiveUp(text)


def retry_after(text: str, clock: Clock) -> float | None:
    """Seconds from now that `Retry-After` names (a number, or an HTTP date), at most a day; None: it names none."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), LONGEST_WAIT)
    try:
        when = parsedate_to_datetime(text)
        seconds = when.timestamp() - clock.now_us() / 1_000_000
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _origin(url: Template) -> str:
    """Scheme, host and port, which outcomes name: what follows may hold a secret. Raises ConfigError."""
    first = url.parts[0] if url.parts and isinstance(url.parts[0], str) else ""
    found = _ORIGIN.match(first if not url.fixed else f"{first}/")
    if found is None:
        raise ConfigError(
            "wants an address such as https://host.example.org/path/{key.id}: scheme, host and port written out, "
            "without a user (there are `username` and `password`)",
            path="url",
        )
    if any(isinstance(part, str) and re.search(r"[#\s\x00-\x1f\x7f-\U0010ffff]", part) for part in url.parts):
        raise ConfigError("has a #, a space or a character that must be percent-encoded", path="url")
    try:
        parts = urlsplit(found[0])
        host = parts.hostname or ""
        if ":" in host:
            ipaddress.ip_address(host)
        if parts.port == 0:
            raise ValueError
    except ValueError:
        raise ConfigError("the host or the port is none", path="url") from None
    return found[0]


def _is_here(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _header_name(name: str, path: str) -> str:
    if not _TOKEN.fullmatch(name) or name.lower() in OURS:
        raise ConfigError("is no header's name, or one that is set otherwise", path=f"{path}.{name[:80]}")
    return name


def _header_value(text: str, path: str) -> str:
    if not _VALUE.fullmatch(text):
        raise ConfigError("holds a character that no header can", path=path)
    return text
