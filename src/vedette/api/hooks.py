"""Who may send news to a hook, and how much at a time. routes/hooks.py asks here before it reads a word of the body's meaning.

A request's headers come in; what goes out is leave to go on, or an error. Three ways, of which one has to hold: the hook's own
token, a signature over timestamp and body, a Keystone token with one of the hook's roles. A hook with none of them can't be made.

Signed requests: `X-Vedette-Timestamp: <seconds since 1970>` and `X-Vedette-Signature: sha256=<hex>`, HMAC-SHA256 over
`<timestamp>.<body>`. The other headers are not signed, so the webhook is not shown them; and the signed timestamp is when the
request came in, so that one that is played again within the window is the same in everything: a duplicate.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from vedette.api.auth import NO_TOKEN, REFUSED
from vedette.errors import ConfigError, Forbidden, Unauthenticated
from vedette.kit.clock import Clock
from vedette.kit.secret import Secret
from vedette.ports import Authenticator, Webhook

PATH = "/v1/hooks/{format}/{name}"
TIMESTAMP, SIGNATURE = "X-Vedette-Timestamp", "X-Vedette-Signature"

SHORTEST = 16
"""Characters of a token or a secret: who guesses is not slowed down, so there has to be enough to guess."""

AUTHENTICATES = frozenset(
    (
        *("authorization", "proxy-authorization", "cookie", "x-auth-token", "x-service-token", "x-subject-token"),
        *(TIMESTAMP.lower(), SIGNATURE.lower()),
    )
)
"""Headers that no webhook is shown."""

_SIGNED = re.compile(r"sha256=([0-9a-f]{64})")
_SECONDS = re.compile(r"[0-9]{1,12}")


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """One hook of the configuration, built."""

    name: str
    format: str
    webhook: Webhook
    token: Secret = Secret()
    hmac_secret: Secret = Secret()
    hmac_age: float = 300.0
    """Seconds."""
    keystone: bool = False
    roles: tuple[str, ...] = ("admin", "service")
    max_body: int = 1024 * 1024
    """Bytes."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        path = f"hooks.{self.name}"
        if not (self.token or self.hmac_secret or self.keystone):
            raise ConfigError("anybody could call it: give it a token, an hmac_secret, or keystone: true", path=path)
        for name in ("token", "hmac_secret"):
            if 0 < len(getattr(self, name).reveal()) < SHORTEST:
                raise ConfigError(f"must have at least {SHORTEST} characters", path=f"{path}.{name}")
        if self.keystone and not self.roles:
            raise ConfigError("keystone: true wants at least one role", path=f"{path}.roles")


@runtime_checkable
class Invites(Protocol):
    """A webhook whose callers ask by OPTIONS whether they may send here (CloudEvents' `http-webhook.md` §4)."""

    def invites(self, origin: str) -> bool:
        """Whether this sender (`WebHook-Request-Origin`) may."""
        ...


class Signed(msgspec.Struct, frozen=True):
    """What the headers of a signed request say; `fits` says whether the body is the one that was signed."""

    timestamp: str
    signature: bytes

    @property
    def at_us(self) -> int:
        return int(self.timestamp) * 1_000_000

    def fits(self, secret: Secret, body: bytes) -> bool:
        """In constant time."""
        return hmac.compare_digest(self.signature, signature(secret, self.timestamp, body))


def signature(secret: Secret, timestamp: str, body: bytes) -> bytes:
    """What a caller computes."""
    return hmac.digest(_bytes(secret.reveal()), b"%b.%b" % (timestamp.encode(), body), "sha256")


async def admit(hook: Hook, headers: Mapping[str, str], token: str, authenticator: Authenticator, clock: Clock) -> Signed | None:
    """Judge a request by its headers. None: it may go on. A `Signed`: if its body fits.

    Raises Unauthenticated, Forbidden (a good token without the role), IdentityUnavailable.
    """
    if hook.hmac_secret and SIGNATURE in headers:
        return _signed(hook, headers, clock)
    if not token:
        wanted = f"no signature: send {TIMESTAMP} and {SIGNATURE}" if hook.hmac_secret else NO_TOKEN
        raise Unauthenticated(wanted)
    if hook.token and hmac.compare_digest(_bytes(token), _bytes(hook.token.reveal())):
        return None
    if not hook.keystone:
        raise Unauthenticated(REFUSED)
    identity = await authenticator.identify(token)
    roles = {role.lower() for role in identity.roles}
    # As in the API: a role at a domain is not one in a project, nor in the whole system.
    if not (identity.project or identity.scope.admin) or roles.isdisjoint(role.lower() for role in hook.roles):
        raise Forbidden("this token has none of the roles that may call the hook")
    return None


def _signed(hook: Hook, headers: Mapping[str, str], clock: Clock) -> Signed:
    timestamp, given = headers.get(TIMESTAMP, ""), _SIGNED.fullmatch(headers[SIGNATURE].strip())
    if not _SECONDS.fullmatch(timestamp):
        raise Unauthenticated(f"{TIMESTAMP} has to be the time in seconds since 1970")
    if given is None:
        raise Unauthenticated(f"{SIGNATURE} has to be sha256= and 64 hex digits")
    if abs(clock.now_us() - int(timestamp) * 1_000_000) > hook.hmac_age * 1_000_000:
        raise Unauthenticated(f"{TIMESTAMP} differs by more than {hook.hmac_age:g} s from our clock")
    return Signed(timestamp, bytes.fromhex(given[1]))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
