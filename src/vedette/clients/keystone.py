"""Asks Keystone (Identity v3) two things: whose token is this, and please a token for these credentials.

In: `Credentials`, from our settings, from clouds.yaml (the files that openstacksdk reads) or from OS_* variables. Out: `Verified`
tokens to `api/auth.py`, which remembers them and decides what they may see; `Issued` ones to the command line. What Keystone's
answers are worth, and for how long, is not decided here.

Plain aiohttp: two requests are all it takes, and they belong in the event loop. https://docs.openstack.org/api-ref/identity/v3/
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import yaml

from vedette.errors import ConfigError, IdentityUnavailable, Unauthenticated
from vedette.kit.clock import Clock, SystemClock, parse_us
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.ports import Verified as Verified

log = logging.getLogger("vedette.clients.keystone")

TIMEOUT_SECONDS = 10.0
"""For one request, everything included."""
PARALLEL = 32
"""Questions that Keystone is asked at the same time."""
WAITING = 10_000
"""Questions that wait for their turn; more are turned away."""
TURN_SECONDS = 30.0
"""How long one waits for its turn."""
REFUSED_SECONDS = 60.0
"""After our own credentials were refused: until the next attempt. Keystone locks accounts that fail too often."""
FAILED_SECONDS = 1.0
"""After Keystone could not be asked for a token of our own: until the next attempt."""
LONGEST_TOKEN = 8_000
"""Characters. Fernet tokens have about 250, JWS ones 1,000; Keystone's own front ends take no header above 8 KiB."""
LARGEST_ANSWER = 4_194_304
"""Bytes of one answer of Keystone's. A catalog of a large cloud is some hundred kB."""
LARGEST_FILE = 1_048_576

_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What fits into a header. Anything else was never issued."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """How to be somebody at a Keystone. Made by `credentials()`."""

    auth_url: str
    """Ends with `/v3`."""
    username: str = ""
    user_id: str = ""
    password: Secret = Secret()
    user_domain_id: str = ""
    user_domain_name: str = ""
    project_id: str = ""
    project_name: str = ""
    project_domain_id: str = ""
    project_domain_name: str = ""
    domain_id: str = ""
    domain_name: str = ""
    """A domain to be scoped to, where there is no project."""
    system_scope: str = ""
    """`all`"""
    trust_id: str = ""
    application_credential_id: str = ""
    application_credential_name: str = ""
    application_credential_secret: Secret = Secret()
    token: Secret = Secret()
    """Be who this token is (scoped anew)."""
    cacert: str = ""
    cert: str = ""
    key: str = ""
    """Files: the CA to trust instead of the system's; a client certificate and its key."""
    region_name: str = ""
    interface: str = ""
    """Which of the catalog's endpoints to use (`public`, `internal`, `admin`), for clients of other services."""


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A token for us. Its text, wherever it may end up, is without the token."""

    token: str
    expires_at: int
    """UTC microseconds, Keystone's clock."""
    seconds_left: float
    user_id: str
    user_name: str
    project_id: str = ""
    """Empty when it is not scoped to a project."""
    project_name: str = ""

    def __repr__(self) -> str:
        return f"Issued(token='***', user_name={self.user_name!r}, project_name={self.project_name!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("token", "***"), ("user_name", self.user_name), ("project_name", self.project_name)]


class Keystone:
    """One Keystone, asked with a token of our own that is renewed before it ends, or when Keystone no longer knows it.

    Made anywhere, used in one event loop; `close` when done.
    """

    def __init__(self, credentials: Credentials, clock: Clock | None = None, *, timeout_s: float = TIMEOUT_SECONDS) -> None:
        """Raises ConfigError for certificate files that can't be read."""
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._http = _Http(credentials, self._clock, timeout_s)
        self._own: _Own | None = None
        self._renewing: asyncio.Task[Exception | None] | None = None
        self._renew_not_before = 0.0
        self._why_not = ""
        self._turns = asyncio.Semaphore(PARALLEL)
        self._waiting = 0

    @property
    def url(self) -> str:
        return self._credentials.auth_url

    async def validate(self, token: str) -> Verified:
        """Whose token is it? Asks Keystone, always. Raises Unauthenticated, IdentityUnavailable.

        https://docs.openstack.org/api-ref/identity/v3/#validate-and-show-information-for-token
        """
        if len(token) > LONGEST_TOKEN or not _TOKEN.fullmatch(token):
            raise Unauthenticated("this is not a token")
        if self._waiting >= WAITING:
            raise IdentityUnavailable(f"{WAITING} tokens are waiting to be looked up")
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise IdentityUnavailable("too many tokens are waiting to be looked up") from None
        finally:
            self._waiting -= 1
        try:
            return await self._validate(token)
        finally:
            self._turns.release()

    async def _validate(self, token: str) -> Verified:
        for _attempt in (1, 2):
            own = await self._own_token()
            answer = await self._http.request(
                "GET", "/auth/tokens?nocatalog", {"X-Auth-Token": own.token, "X-Subject-Token": token}
            )
            if answer.status == 200:
                return _verified(answer)
            if answer.status in (400, 404):
                raise Unauthenticated("this token is not valid, or it has ended")
            if answer.status != 401:
                break
            # Ours is no longer known (revoked, keys rotated away). Of all that hear it at once, the first drops it.
            if self._own is own:
                self._own = None
        if answer.status == 401:
            # A brand-new token refused as well: not something that asking faster makes right.
            self._hold_back("Keystone issues tokens to us that it does not know then", FAILED_SECONDS * 5)
            raise IdentityUnavailable(self._why_not, delay=FAILED_SECONDS * 5)
        if answer.status == 403:
            raise IdentityUnavailable(
                f"Keystone does not let {_who(self._credentials)} look at tokens: it needs the role `service` or `admin`",
                delay=30,
            )
        raise IdentityUnavailable(f"Keystone at {self.url} answered {answer.status} to a token lookup")

    async def _own_token(self) -> _Own:
        """A token of ours that is still good. Whoever needs a new one waits for the same request."""
        own, now = self._own, self._clock.monotonic()
        if own is not None and now < own.renew_at:
            return own
        if now < self._renew_not_before:
            if own is not None and now < own.ends_at:
                return own
            raise IdentityUnavailable(self._why_not, delay=max(1.0, self._renew_not_before - now))
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="keystone: a token of our own")
        # Shielded: the first caller may go away, the others still want it.
        failed = await asyncio.shield(self._renewing)
        if self._own is not None and self._clock.monotonic() < self._own.ends_at:
            return self._own
        raise IdentityUnavailable(self._why_not, delay=max(1.0, self._renew_not_before - now)) from failed

    async def _renew(self) -> Exception | None:
        """Never raises: nobody may be left to hear it."""
        asked = self._clock.monotonic()
        try:
            issued = await _issue(self._http, self._credentials)
        except Unauthenticated as why:
            self._hold_back(str(why), REFUSED_SECONDS)
            log.error("Keystone refused our own credentials", extra=kv(who=_who(self._credentials), url=self.url))
            return why
        except IdentityUnavailable as why:
            self._hold_back(str(why), FAILED_SECONDS)
            return why
        else:
            if issued.seconds_left <= 0:
                self._hold_back("the tokens that Keystone issues to us have ended already", FAILED_SECONDS * 5)
                return None
            # Well before the end, but not all the time where tokens are short-lived.
            early = min(300.0, issued.seconds_left / 4)
            self._own = _Own(issued.token, asked + issued.seconds_left - early, asked + issued.seconds_left)
            log.debug("got a token of our own", extra=kv(seconds=round(issued.seconds_left)))
            return None
        finally:
            self._renewing = None

    def _hold_back(self, why: str, seconds: float) -> None:
        self._why_not = why
        self._renew_not_before = self._clock.monotonic() + seconds

    async def close(self) -> None:
        """Close the connections."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        await self._http.close()


async def issue_token(credentials: Credentials, *, clock: Clock | None = None, timeout_s: float = TIMEOUT_SECONDS) -> Issued:
    """One token for these credentials (`vedette token`). Raises Unauthenticated, IdentityUnavailable, ConfigError.

    https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management
    """
    http = _Http(credentials, clock or SystemClock(), timeout_s)
    try:
        return await _issue(http, credentials)
    finally:
        await http.close()


# --- credentials -----------------------------------------------------------------------------------------------------------

_NAMES: dict[str, tuple[str, ...]] = {
    "auth_url": (),
    "auth_type": ("auth_plugin",),
    "username": ("user_name", "user"),
    "user_id": (),
    "password": (),
    "user_domain_id": (),
    "user_domain_name": ("user_domain",),
    "project_id": ("tenant_id",),
    "project_name": ("tenant_name", "project", "tenant"),
    "project_domain_id": (),
    "project_domain_name": ("project_domain",),
    "domain_id": (),
    "domain_name": ("domain",),
    "default_domain_id": ("default_domain",),
    "default_domain_name": (),
    "system_scope": (),
    "trust_id": (),
    "application_credential_id": (),
    "application_credential_name": (),
    "application_credential_secret": (),
    "token": ("auth_token",),
    "cacert": ("ca_file",),
    "cert": (),
    "key": (),
    "region_name": ("region",),
    "interface": ("endpoint_type",),
    "verify": (),
    "insecure": (),
}
"""Each setting, and the older names it is known by (those of Identity v2.0: tenant)."""

_SECRETS = ("password", "application_credential_secret", "token")
_TYPES = {
    "password": "password",
    "v3password": "password",
    "v2password": "password",
    "v3applicationcredential": "application_credential",
    "token": "token",
    "v3token": "token",
    "v2token": "token",
}


def credentials(
    given: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folders: Sequence[Path] | None = None,
) -> Credentials:
    """Credentials from `given` (named as in clouds.yaml, plus `cloud`; secrets as texts or `Secret`s), completed from elsewhere.

    With `cloud` (or without any credential, OS_CLOUD): that entry of clouds.yaml. Without either, OS_* variables; without those,
    the only entry of clouds.yaml. What is given wins over what is found. Identity v2.0 names (`tenant_name`) and addresses are
    understood, and asked of v3; names without a domain are in the domain `default`. Raises ConfigError, which repeats no secret.
    """
    environ = os.environ if environ is None else environ
    settings = _known(given or {}, "auth.keystone", strict=True)
    cloud = str((given or {}).get("cloud") or "")
    if cloud or not any(settings.get(name) for name in _SECRETS):
        found = _found(cloud, environ, places(environ) if folders is None else folders)
        # An own domain or scope replaces the other's as a whole: an id of here with a name of there would be a third thing.
        for group in _TOGETHER:
            if any(settings.get(name) for name in group):
                for name in group:
                    found.pop(name, None)
        settings = {**found, **settings}
    return _credentials(settings)


_TOGETHER = (
    ("username", "user_id"),
    ("user_domain_id", "user_domain_name"),
    ("project_domain_id", "project_domain_name"),
    ("project_id", "project_name", "domain_id", "domain_name", "system_scope", "trust_id"),
    (*_SECRETS, "application_credential_id", "application_credential_name", "auth_type"),
)


def places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Folders that may have a clouds.yaml, in the order in which openstacksdk looks."""
    home = Path(environ.get("HOME") or Path.home())
    own = [home / ".config" / "openstack"]
    if environ.get("XDG_CONFIG_HOME"):
        own.insert(0, Path(environ["XDG_CONFIG_HOME"]) / "openstack")
    return (Path.cwd(), *own, Path("/etc/openstack"))


def _found(cloud: str, environ: Mapping[str, str], folders: Sequence[Path]) -> dict[str, str]:
    variables = {key.removeprefix("OS_").lower(): value for key, value in environ.items() if key.startswith("OS_") and value}
    name = cloud or variables.get("cloud", "")
    from_environment = _known(variables, "OS_*")
    if not name and any(from_environment.get(key) for key in ("auth_url", *_SECRETS)):
        return from_environment
    clouds_file = _first("clouds", variables.get("client_config_file", ""), folders)
    entries = _entries(clouds_file)
    for key, entry in _entries(_first("secure", variables.get("client_secure_file", ""), folders)).items():
        entries[key] = _merged(entries.get(key, {}), entry)
    if not name:
        if len(entries) != 1:
            choice = f"; clouds.yaml has {', '.join(sorted(entries))}: name one (cloud:, or OS_CLOUD)" if entries else ""
            raise ConfigError(f"no Keystone credentials: neither settings, nor OS_* variables, nor one clear cloud{choice}")
        name = next(iter(entries))
    if name not in entries:
        where = clouds_file or "no clouds.yaml was found in " + ", ".join(str(folder) for folder in folders)
        there = f", which has {', '.join(sorted(entries))}" if entries else ""
        raise ConfigError(f"no cloud is called {name!r} ({where}{there})", path="cloud")
    entry = entries[name]
    auth = entry.get("auth") or {}
    if not isinstance(auth, dict):
        raise ConfigError(f"`auth` of the cloud {name!r} in {clouds_file} is not a mapping")
    return _known({**entry, **auth}, f"cloud {name}")


def _first(name: str, override: str, folders: Sequence[Path]) -> Path | None:
    paths = [folder / f"{name}{suffix}" for folder in folders for suffix in (".yaml", ".yml", ".json")]
    if override:
        paths.insert(0, Path(override).expanduser())
    return next((path for path in paths if path.is_file()), None)


def _entries(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as why:
        raise ConfigError(f"{path} can't be read: {why.strerror}") from None
    if len(text) > LARGEST_FILE:
        raise ConfigError(f"{path} is larger than {LARGEST_FILE} bytes")
    line, read = 0, None
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError as why:
        # The error's own text repeats the line, and the line may be a password's.
        mark = getattr(why, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
    if line:
        raise ConfigError(f"{path} is not YAML", line=line)
    clouds = read.get("clouds") if isinstance(read, dict) else None
    if clouds is None:
        return {}
    if not isinstance(clouds, dict) or not all(isinstance(entry, dict) for entry in clouds.values()):
        raise ConfigError(f"`clouds` in {path} is not a mapping of clouds")
    return {str(name): entry for name, entry in clouds.items()}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` wins, key by key at every depth."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def _known(given: Mapping[str, Any], where: str, *, strict: bool = False) -> dict[str, str]:
    """The settings that mean something here, by their present names, as text; `strict` refuses others."""
    names = {alias: name for name, aliases in _NAMES.items() for alias in (name, *aliases)}
    known: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for key, value in given.items():
        plain = str(key).replace("-", "_")
        name = names.get(plain)
        if name is None:
            if strict and plain not in ("cloud", "admin_roles"):
                raise ConfigError("no such setting", path=f"{where}.{key}")
            continue
        if isinstance(value, Secret):
            value = value.reveal()
        if value is None or value == "":
            continue
        if not isinstance(value, str | int | bool):
            if name == "domain_name":  # `domain` is also something else in some files
                continue
            raise ConfigError("must be a text", path=f"{where}.{key}")
        rank = (name, *_NAMES[name]).index(plain)
        if rank <= ranks.get(name, rank):
            known[name], ranks[name] = str(value), rank
    return known


def _credentials(settings: dict[str, str]) -> Credentials:
    auth_type = settings.pop("auth_type", "")
    method = _TYPES.get(auth_type.lower(), "") if auth_type else ""
    if auth_type and not method:
        raise ConfigError(f"can't log in with {auth_type!r}; one of {', '.join(_TYPES)}", path="auth_type")
    verify, insecure = settings.pop("verify", "true").lower(), settings.pop("insecure", "false").lower()
    if verify in ("false", "0", "no") or insecure in ("true", "1", "yes"):
        raise ConfigError("certificates are always verified: name the CA in `cacert` (OS_CACERT) instead", path="verify")
    domain_id, domain_name = settings.pop("default_domain_id", ""), settings.pop("default_domain_name", "")
    if settings.get("project_id") or settings.get("project_name"):
        # With a project, a plain `domain` is where the names are, not a scope.
        domain_id = settings.pop("domain_id", "") or domain_id
        domain_name = settings.pop("domain_name", "") or domain_name
    for name in ("user", "project"):
        plain = f"{name}name" if name == "user" else "project_name"
        if settings.get(plain) and not (settings.get(f"{name}_domain_id") or settings.get(f"{name}_domain_name")):
            if domain_name and not domain_id:
                settings[f"{name}_domain_name"] = domain_name
            else:
                settings[f"{name}_domain_id"] = domain_id or "default"
    settings["auth_url"] = _auth_url(settings.get("auth_url", ""))
    if "interface" in settings:
        settings["interface"] = settings["interface"].lower().removesuffix("url")
    for name in ("cacert", "cert", "key"):
        if name in settings:
            settings[name] = str(Path(settings[name]).expanduser())
    fields: dict[str, Any] = {**settings, **{name: Secret(settings.get(name, "")) for name in _SECRETS}}
    return _one_way(Credentials(**fields), method)


_NO_SCOPE = dict.fromkeys(("project_id", "project_name", "domain_id", "domain_name", "system_scope", "trust_id"), "")


def _one_way(made: Credentials, method: str) -> Credentials:
    """Exactly one way to log in, complete."""
    if not method:
        method = "application_credential" if made.application_credential_secret else "password" if made.password else "token"
    user = made.user_id or made.username
    if method == "application_credential":
        if not made.application_credential_secret:
            raise ConfigError("missing", path="application_credential_secret")
        if not (made.application_credential_id or (made.application_credential_name and user)):
            raise ConfigError("missing (or application_credential_name with a user)", path="application_credential_id")
        # It has its own scope, for ever; Keystone refuses any other, even the same.
        return msgspec.structs.replace(made, password=Secret(), token=Secret(), **_NO_SCOPE)
    made = msgspec.structs.replace(made, application_credential_secret=Secret())
    scopes = (made.project_id or made.project_name, made.domain_id or made.domain_name, made.system_scope)
    if sum(map(bool, scopes)) > 1:
        raise ConfigError("a token has one scope: a project, a domain, or system_scope", path="system_scope")
    if method == "password":
        if not user:
            raise ConfigError("missing", path="username")
        if not made.password:
            raise ConfigError("missing", path="password")
        return msgspec.structs.replace(made, token=Secret())
    if not made.token:
        raise ConfigError(
            "no credentials: give username and password, or an application credential, or the name of a `cloud` in clouds.yaml"
        )
    return msgspec.structs.replace(made, password=Secret())


def _auth_url(text: str) -> str:
    """The v3 root of an address as people write it: with /v2.0, with /v3, with neither, with a slash."""
    if not text:
        raise ConfigError("missing (OS_AUTH_URL)", path="auth_url")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        port, host, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigError("must be the http:// or https:// address of Keystone", path="auth_url")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("must be an address only: no user, password or query in it", path="auth_url")
    path = re.sub(r"/(v2\.0|v3)\Z", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc}{path}/v3"


def _who(made: Credentials) -> str:
    return (
        made.application_credential_id
        or made.application_credential_name
        or made.username
        or made.user_id
        or "the owner of the given token"
    )


# --- requests --------------------------------------------------------------------------------------------------------------


class _Own(msgspec.Struct, frozen=True):
    token: str
    renew_at: float
    ends_at: float

    def __repr__(self) -> str:
        return "_Own(token='***')"


class _Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    issued: str
    """X-Subject-Token."""
    now_us: int
    """Keystone's clock when it answered, at the latest."""

    def __repr__(self) -> str:
        return f"_Answer(status={self.status})"


class _Named(msgspec.Struct):
    id: str = ""
    name: str = ""


class _TokenBody(msgspec.Struct):
    user: _Named
    expires_at: str
    project: _Named | None = None
    domain: _Named | None = None
    system: dict[str, Any] | None = None
    roles: list[_Named] = []
    is_admin_project: bool | None = None


class _TokenAnswer(msgspec.Struct):
    token: _TokenBody


_token_answer = msgspec.json.Decoder(_TokenAnswer)


def _decoded(answer: _Answer) -> tuple[_TokenBody, int]:
    """The token and when it ends. Raises IdentityUnavailable: whatever answered is no Keystone."""
    token = None
    with suppress(msgspec.DecodeError, RecursionError):  # said below, without the error: it holds the body
        token = _token_answer.decode(answer.body).token
    expires_at = parse_us(token.expires_at) if token is not None else None
    if token is None or expires_at is None or not token.user.id:
        raise IdentityUnavailable("Keystone's answer is not one of Identity v3")
    return token, expires_at


def _verified(answer: _Answer) -> Verified:
    token, expires_at = _decoded(answer)
    return Verified(
        user_id=token.user.id,
        user_name=token.user.name,
        project_id=token.project.id if token.project else "",
        project_name=token.project.name if token.project else "",
        domain_id=token.domain.id if token.domain else "",
        system=bool(token.system and token.system.get("all")),
        roles=tuple(role.name for role in token.roles),
        admin_project=token.is_admin_project,
        expires_at=expires_at,
        seconds_left=(expires_at - answer.now_us) / 1_000_000,
    )


async def _issue(http: _Http, made: Credentials) -> Issued:
    answer = await http.request("POST", "/auth/tokens?nocatalog", {}, msgspec.json.encode(_login(made)))
    if answer.status in (401, 403):
        raise Unauthenticated(f"Keystone at {made.auth_url} refused the credentials of {_who(made)}")
    if answer.status == 400:
        raise Unauthenticated(
            f"Keystone at {made.auth_url} can't use the credentials of {_who(made)} (are user, domain, scope right?)"
        )
    if answer.status != 201 or not answer.issued:
        raise IdentityUnavailable(f"{made.auth_url} answered {answer.status} to a login: is it a Keystone's address?")
    token, expires_at = _decoded(answer)
    return Issued(
        token=answer.issued,
        expires_at=expires_at,
        seconds_left=(expires_at - answer.now_us) / 1_000_000,
        user_id=token.user.id,
        user_name=token.user.name,
        project_id=token.project.id if token.project else "",
        project_name=token.project.name if token.project else "",
    )


def _login(made: Credentials) -> dict[str, Any]:
    """The body of `POST /v3/auth/tokens`."""
    user: dict[str, Any] = {"id": made.user_id} if made.user_id else {"name": made.username}
    if not made.user_id:
        user["domain"] = _domain(made.user_domain_id, made.user_domain_name)
    if made.application_credential_secret:
        credential: dict[str, Any] = {"secret": made.application_credential_secret.reveal()}
        if made.application_credential_id:
            credential["id"] = made.application_credential_id
        else:
            credential |= {"name": made.application_credential_name, "user": user}
        return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}}
    if made.token:
        identity: dict[str, Any] = {"methods": ["token"], "token": {"id": made.token.reveal()}}
    else:
        identity = {"methods": ["password"], "password": {"user": {**user, "password": made.password.reveal()}}}
    return {"auth": {"identity": identity, **({"scope": scope} if (scope := _scope(made)) else {})}}


def _scope(made: Credentials) -> dict[str, Any]:
    if made.trust_id:
        return {"OS-TRUST:trust": {"id": made.trust_id}}
    if made.project_id:
        return {"project": {"id": made.project_id}}
    if made.project_name:
        domain = _domain(made.project_domain_id, made.project_domain_name)
        return {"project": {"name": made.project_name, "domain": domain}}
    if made.domain_id or made.domain_name:
        return {"domain": _domain(made.domain_id, made.domain_name)}
    return {"system": {"all": True}} if made.system_scope else {}


def _domain(id_: str, name: str) -> dict[str, str]:
    return {"id": id_} if id_ else {"name": name}


class _Http:
    """Requests to one Keystone: verified, bounded in time and size, never redirected (a redirect would take the token along)."""

    def __init__(self, made: Credentials, clock: Clock, timeout_s: float) -> None:
        self._url = made.auth_url
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        if self._url.startswith("https:"):
            self._tls = _context(made)
        elif urlsplit(self._url).hostname not in ("localhost", "127.0.0.1", "::1"):
            log.warning("Keystone is asked over plain http: tokens and passwords can be read on the way", extra=kv(url=self._url))

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> _Answer:
        """Raises IdentityUnavailable. Errors are put in words here and their cause is left behind: aiohttp's own hold the
        request, and with it the tokens."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=PARALLEL + 4, ssl=self._tls if self._tls is not None else True),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        headers = {"Accept": "application/json", "User-Agent": "vedette", **headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method, self._url + path, headers=headers, data=body, allow_redirects=False
            ) as response:
                read = await _read(response)
                if read is not None:
                    return _Answer(
                        response.status,
                        read,
                        response.headers.get("X-Subject-Token", ""),
                        self._now(response.headers.get("Date")),
                    )
                why = f"an answer of more than {LARGEST_ANSWER} bytes"
        except TimeoutError:
            why = f"no answer in {self._timeout.total:g} s"
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorError) as error:
            why = str(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = type(error).__name__
        raise IdentityUnavailable(f"Keystone at {self._url} can't be asked: {why}", delay=5)

    def _now(self, date: str | None) -> int:
        """Keystone's clock (its Date header, whole seconds: the latest moment that it can mean), else our own."""
        try:
            return round(parsedate_to_datetime(date).timestamp() + 1) * 1_000_000 if date else self._clock.now_us()
        except (ValueError, OverflowError):
            return self._clock.now_us()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


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


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body; None when it is too large."""
    parts: list[bytes] = []
    left = LARGEST_ANSWER
    async for part in response.content.iter_any():
        parts.append(part)
        left -= len(part)
        if left < 0:
            return None
    return b"".join(parts)
