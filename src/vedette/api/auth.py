"""Who is asking? A token comes in, an `Identity` goes out, or an error: what the gate in server.py asks of every request.

Three ways, one port (`ports.Authenticator`): Keystone, tokens from the configuration, nobody. What an identity may see is its
`Scope`, which goes into the store's query. Open streams are looked at again by rights.py.

No token is kept, shown or logged here: verdicts are found by a keyed hash whose key dies with the process.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from vedette.errors import ConfigError, IdentityUnavailable, Unauthenticated
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import Notice
from vedette.ports import EVERYTHING, Authenticator, Identity, Scope, Verified

log = logging.getLogger("vedette.api.auth")

KEEP_SECONDS = 60.0
"""How long a verdict is good."""
REFUSE_SECONDS = 10.0
"""How long a refusal is: a script in a loop with an old token costs Keystone one question in that time."""
GRACE_SECONDS = 300.0
"""How much longer a verdict is good while Keystone can't be asked."""
PAUSE_SECONDS = 5.0
"""While Keystone can't be asked: how long known tokens are answered without trying again."""
MOST = 10_000
"""Verdicts, and refusals, that are remembered; the one not used for longest goes, and is asked for anew."""

NO_TOKEN = "no token: send it as X-Auth-Token, or as Authorization: Bearer"  # noqa: S105 (a sentence)
REFUSED = "this token is not valid, or it has ended"


def token_from(request: web.Request) -> str | None:
    """The request's token: `X-Auth-Token` (OpenStack), else `Authorization: Bearer` (RFC 6750). Never from the query."""
    token = request.headers.get("X-Auth-Token", "").strip()
    if not token:
        scheme, _, rest = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() == "bearer":
            token = rest.strip()
    return token or None


# --- Keystone --------------------------------------------------------------------------------------------------------------


class Validates(Protocol):
    """What is needed of `clients.keystone.Keystone`."""

    async def validate(self, token: str) -> Verified:
        """Raises Unauthenticated, IdentityUnavailable."""
        ...


class KeystoneAuthenticator:
    """Asks Keystone, and remembers what it said: see the times above. A verdict never outlives its token.

    However many requests bring one token, Keystone is asked once. While it can't be asked, tokens that were good live on for
    GRACE_SECONDS and others are told to come back (IdentityUnavailable).
    """

    def __init__(
        self,
        keystone: Validates,
        clock: Clock,
        *,
        admin_roles: Iterable[str] = ("admin",),
        telemetry: Telemetry | None = None,
        keep_seconds: float = KEEP_SECONDS,
        refuse_seconds: float = REFUSE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        most: int = MOST,
    ) -> None:
        self.on_forget: list[Callable[[], None]] = []
        self._keystone = keystone
        self._clock = clock
        self._admin_roles = frozenset(role.lower() for role in admin_roles)
        self._keep, self._refuse, self._grace, self._most = keep_seconds, refuse_seconds, grace_seconds, most
        self._pepper = secrets.token_bytes(32)
        self._known: OrderedDict[str, _Verdict] = OrderedDict()
        self._refused: OrderedDict[str, float] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._unwell_until = 0.0
        self.trouble = ""
        """Why Keystone can't be asked; empty while it can."""
        telemetry = telemetry or Telemetry()
        self._counted = telemetry.counter("token_lookups_total", "Tokens that Keystone was asked about", "outcome")
        telemetry.gauge("tokens_known", "Tokens with a verdict in memory").set_function(lambda: len(self._known))

    async def identify(self, token: str) -> Identity:
        return await self._judge(token, self._keep)

    async def recheck(self, token: str) -> Identity:
        # A verdict that somebody else asked for just before would else make this one look a minute old, twice.
        return await self._judge(token, self._keep / 2)

    async def _judge(self, token: str, not_older: float) -> Identity:
        if not token:
            raise Unauthenticated(NO_TOKEN)
        key = hmac.digest(self._pepper, token.encode("utf-8", "surrogateescape"), "sha256").hex()
        now = self._clock.monotonic()
        verdict = self._known.get(key)
        if verdict is not None:
            self._known.move_to_end(key)
            if now < min(verdict.fresh_until, verdict.asked + not_older):
                return verdict.identity
            if now < self._unwell_until and now < verdict.known_until:
                return verdict.identity
        if now < self._refused.get(key, now):
            raise Unauthenticated(REFUSED)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = _Lookup()
            # The name has no part of the token: names are shown in debug output.
            lookup.task = asyncio.create_task(self._look_up(key, token, lookup), name="look up a token")
        assert lookup.task is not None
        # Shielded: the request that began it may be gone before the others have their answer.
        outcome = await asyncio.shield(lookup.task)
        if isinstance(outcome, Identity):
            return outcome
        if isinstance(outcome, Unauthenticated):
            raise Unauthenticated(REFUSED)
        # What a `forget` dropped meanwhile is not there any more: then it is denied.
        verdict = self._known.get(key)
        if verdict is not None and self._clock.monotonic() < verdict.known_until:
            return verdict.identity
        raise IdentityUnavailable(str(outcome), delay=outcome.delay)

    async def _look_up(self, key: str, token: str, lookup: _Lookup) -> Identity | Unauthenticated | IdentityUnavailable:
        """Ask, and remember. Errors are returned: it may be that nobody waits any more."""
        try:
            for _attempt in (1, 2, 3):
                lookup.forgotten.clear()
                asked = self._clock.monotonic()
                verified = await self._keystone.validate(token)
                self._well()
                identity = self._identity(verified, key)
                # News of this user or project came while Keystone answered: the answer may be from before it.
                if not any(_concerns(identity, user, project) for user, project in lookup.forgotten):
                    self._remember(key, identity, asked, verified.seconds_left)
                    self._counted.labels("valid").inc()
                    return identity
            raise IdentityUnavailable("rights change faster than Keystone answers")
        except Unauthenticated as why:
            self._well()
            self._counted.labels("refused").inc()
            self._known.pop(key, None)
            self._refused[key] = self._clock.monotonic() + self._refuse
            self._refused.move_to_end(key)
            if len(self._refused) > self._most:
                self._refused.popitem(last=False)
            return why
        except IdentityUnavailable as why:
            self._counted.labels("unavailable").inc()
            if not self.trouble:
                log.warning("Keystone can't be asked; known tokens live on for a while: %s", why, extra=kv(seconds=self._grace))
            self.trouble = str(why)
            self._unwell_until = self._clock.monotonic() + PAUSE_SECONDS
            return why
        finally:
            del self._lookups[key]

    def _well(self) -> None:
        self._unwell_until = 0.0
        if self.trouble:
            log.info("Keystone answers again")
            self.trouble = ""

    def _remember(self, key: str, identity: Identity, asked: float, seconds_left: float) -> None:
        self._refused.pop(key, None)
        ends = asked + seconds_left
        fresh = asked + self._keep
        self._known[key] = _Verdict(identity, asked, min(fresh, ends), min(fresh + self._grace, ends))
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def _identity(self, verified: Verified, key: str) -> Identity:
        return Identity(
            name=verified.user_name or verified.user_id,
            scope=scope_of(verified, self._admin_roles),
            key=key,
            user=verified.user_id,
            project=verified.project_id,
            roles=frozenset(verified.roles),
            reads_only=verified.system and not self._admin_roles & {role.lower() for role in verified.roles},
            expires_at=verified.expires_at,
        )

    def forget(self, *, user: str = "", project: str = "") -> None:
        if not user and not project:
            self._known.clear()
            self._refused.clear()
        else:
            for key in [key for key, verdict in self._known.items() if _concerns(verdict.identity, user, project)]:
                del self._known[key]
        for lookup in self._lookups.values():
            lookup.forgotten.add((user, project))
            if len(lookup.forgotten) > 1000:
                lookup.forgotten = {("", "")}
        for call in tuple(self.on_forget):
            call()


class _Verdict(msgspec.Struct, frozen=True, gc=False):
    identity: Identity
    asked: float
    fresh_until: float
    known_until: float
    """While Keystone can't be asked."""


class _Lookup:
    """One question under way."""

    __slots__ = ("forgotten", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Identity | Unauthenticated | IdentityUnavailable] | None = None
        self.forgotten: set[tuple[str, str]] = set()
        """(user, project) of each `forget` since it was asked."""


def _concerns(identity: Identity, user: str, project: str) -> bool:
    return (not user and not project) or (bool(user) and identity.user == user) or (bool(project) and identity.project == project)


def scope_of(verified: Verified, admin_roles: frozenset[str]) -> Scope:
    """What a Keystone token may see. `admin_roles` in lower case: Keystone and oslo.policy don't tell cases apart.

    Admin: one of the roles at any project or at system scope, or `reader` at system scope. Not at a domain: that is somebody who
    administers one customer. And where the cloud names an admin project, the role counts only there.
    A token without a project (a domain's, an unscoped one) sees what its user owns, and what everybody sees. So does one that has
    no role at its project: Keystone calls it valid for another second after the last role was taken away.
    """
    roles = frozenset(role.lower() for role in verified.roles)
    if verified.system:
        admin = bool(roles & (admin_roles | {"reader"}))
    else:
        admin = bool(verified.project_id) and bool(roles & admin_roles) and verified.admin_project is not False
    projects = frozenset((verified.project_id,)) if verified.project_id and roles else frozenset[str]()
    return Scope(admin=admin, projects=projects, user=verified.user_id)


# --- when rights change ----------------------------------------------------------------------------------------------------

_NO_RIGHTS = ("identity.authenticate", "identity.service.", "identity.endpoint.", "identity.region.")
"""About logins and the catalog. Logins are the most frequent of all: they must not empty the memory."""


class _Said(msgspec.Struct, gc=False):
    """Of CADF and of basic notifications: what tells whose rights it is about."""

    resource_info: str = ""
    user: str = ""
    project: str = ""
    inherited_to_projects: bool = False


_said = msgspec.json.Decoder(_Said)


def drop_verdicts(authenticator: Authenticator, notice: Notice) -> bool:
    """Keystone announced something: forget whose rights it may have changed; whether there was anything to forget.

    Where it doesn't say whose (a group, a role, a domain, a trust), everybody is judged anew.
    """
    event = notice.event_type
    if not event.startswith("identity.") or event.startswith(_NO_RIGHTS):
        return False
    assignment = event.startswith("identity.role_assignment.")
    if event.endswith(".created") and not assignment:
        return False  # nobody has a token for what is new
    try:
        said = _said.decode(notice.payload)
    except (msgspec.DecodeError, RecursionError):
        said = _Said()
    if event.startswith("identity.user."):
        authenticator.forget(user=said.resource_info)
    elif event.startswith("identity.project."):
        authenticator.forget(project=said.resource_info)
    elif assignment:
        # A role of a user, anywhere: all tokens of that user. Of a group at a project: all that are for that project, unless
        # the projects below it have the role too.
        authenticator.forget(user=said.user, project="" if said.user or said.inherited_to_projects else said.project)
    else:
        authenticator.forget()
    return True


# --- tokens from the configuration -----------------------------------------------------------------------------------------


class StaticToken(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `auth.tokens`."""

    token: Secret
    name: str
    """Shown in logs."""
    projects: tuple[str, ...] = ()
    """Ids of the projects whose objects it sees; `("*",)`, with an admin role: everything."""
    roles: tuple[str, ...] = ()


SHORTEST_TOKEN = 16
"""Characters. Who guesses is not slowed down, so there has to be enough to guess."""


class TokensAuthenticator:
    """Tokens that the configuration lists: for a small set-up, or a machine without Keystone. They don't end."""

    def __init__(self, tokens: Sequence[StaticToken], *, admin_roles: Iterable[str] = ("admin",)) -> None:
        """Raises ConfigError."""
        self.on_forget: list[Callable[[], None]] = []
        self._pepper = secrets.token_bytes(32)
        admin = frozenset(role.lower() for role in admin_roles)
        if not tokens:
            raise ConfigError("at least one token is needed, else nobody can ask", path="auth.tokens")
        self._entries: list[tuple[bytes, Identity]] = []
        seen: set[bytes] = set()
        for index, entry in enumerate(tokens):
            path = f"auth.tokens[{index}]"
            digest = self._digest(entry.token.reveal())
            if len(entry.token.reveal()) < SHORTEST_TOKEN:
                raise ConfigError(f"must have at least {SHORTEST_TOKEN} characters", path=f"{path}.token")
            if digest in seen:
                raise ConfigError("the same token is listed twice", path=f"{path}.token")
            seen.add(digest)
            self._entries.append((digest, _static_identity(entry, path, admin, key=f"{index}:{entry.name}")))

    async def identify(self, token: str) -> Identity:
        if not token:
            raise Unauthenticated(NO_TOKEN)
        digest = self._digest(token)
        found: Identity | None = None
        for known, identity in self._entries:  # all of them, always: the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = identity
        if found is None:
            raise Unauthenticated(REFUSED)
        return found

    async def recheck(self, token: str) -> Identity:
        return await self.identify(token)

    def forget(self, *, user: str = "", project: str = "") -> None:
        """Nothing is remembered: what the configuration says does not change while running."""

    def _digest(self, token: str) -> bytes:
        return hashlib.sha256(self._pepper + token.encode("utf-8", "surrogateescape")).digest()


def _static_identity(entry: StaticToken, path: str, admin_roles: frozenset[str], *, key: str) -> Identity:
    admin = bool(admin_roles & {role.lower() for role in entry.roles})
    everything = "*" in entry.projects
    if everything and not admin:
        raise ConfigError(f'["*"] wants one of the admin roles: {", ".join(sorted(admin_roles))}', path=f"{path}.projects")
    if everything and len(entry.projects) > 1:
        raise ConfigError('["*"] is everything: name no other beside it', path=f"{path}.projects")
    if admin and not everything:
        raise ConfigError('an admin role sees every project: say projects: ["*"], or leave the role out', path=f"{path}.projects")
    if "" in entry.projects:
        raise ConfigError("an id is empty", path=f"{path}.projects")
    return Identity(
        name=entry.name,
        scope=Scope(admin=admin, projects=frozenset(() if everything else entry.projects)),
        key=key,
        project="" if everything or not entry.projects else entry.projects[0],
        roles=frozenset(entry.roles),
    )


# --- nobody ----------------------------------------------------------------------------------------------------------------


class NoneAuthenticator:
    """Everybody is admin, whatever token they send. For loopback only: the listener's address and the Host header are what
    protects it (config.py, server.py)."""

    def __init__(self) -> None:
        self.on_forget: list[Callable[[], None]] = []
        self._everybody = Identity(name="everybody", scope=EVERYTHING, key="everybody")

    async def identify(self, token: str) -> Identity:
        return self._everybody

    async def recheck(self, token: str) -> Identity:
        return self._everybody

    def forget(self, *, user: str = "", project: str = "") -> None:
        """There is nothing to forget."""
