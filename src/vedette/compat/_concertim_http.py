"""How a Concertim front end speaks to its service: signed requests, credentials in the body, two generations of answers.

For compat/concertim_api.py. The front end of the second generation signs each request (JWT, HS256, a minute to live); the first
one's has no signature, statuses of its own (202 where the second says 201, 400 where it says 415), and no `success` in errors.
What is answered satisfies both where the path is the same; only the status is the generation's.
"""

from __future__ import annotations

import hmac
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec
from aiohttp import web

from vedette.api.status import OUTSIDE, code_of
from vedette.errors import (
    BadRequest,
    FixInput,
    Forbidden,
    GiveUp,
    NotFound,
    TryLater,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.secret import Secret
from vedette.ports import JsonObject

log = logging.getLogger("vedette.compat.concertim_api")

LEEWAY_SECONDS = 30
"""Between the front end's clock and ours."""
LONGEST_TOKEN = 8_192
LONGEST_TEXT = 255
"""Characters of a name, as Keystone takes it."""
LONGEST_KEY = 16_384
LONGEST_MESSAGE = 1_000


# Said once, when the service starts (app.py), and not with each request.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)
SHORTEST_SECRET = 32
"""Bytes of a secret that HS256 is as good as (RFC 7518 §3.2)."""


class Missing(BadRequest):
    """Something that the request needs is not in it."""


class InvalidCall(BadRequest):
    """What is asked for can't be: no such type, or no such action for it."""


class NoBilling(VedetteError):
    """It is about money, and no billing is configured."""


class BadToken(Unauthenticated):
    """The front end's own signature is missing or wrong."""


class Partial(VedetteError):
    """Some of it was done. `results` says of each what became of it."""

    def __init__(self, message: str, results: list[JsonObject]) -> None:
        super().__init__(message)
        self.results = results


# --- who asks ---------------------------------------------------------------------------------------------------------------


def check_signature(request: web.Request, secret: Secret) -> None:
    """Raises BadToken. The claims say nothing of who asks: only that it was the front end, just now."""
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    token = token.strip()
    if not token or scheme.lower() != "bearer":
        raise BadToken("no signed token: the front end and this service need the same JWT_SECRET")
    if len(token) > LONGEST_TOKEN or not token.isascii():
        raise BadToken("this is no token")
    try:
        jwt.decode(token, secret.reveal(), algorithms=["HS256"], options={"require": ["exp"]}, leeway=LEEWAY_SECONDS)
    except jwt.ExpiredSignatureError:
        raise BadToken("the token has ended: look at both clocks") from None
    except jwt.InvalidTokenError:
        raise BadToken("the token is not signed with our JWT_SECRET, or has no end") from None


def generation(request: web.Request) -> int:
    """1 or 2. Only the second one signs."""
    return 2 if "Authorization" in request.headers else 1


class CloudEnv(msgspec.Struct, frozen=True, kw_only=True):
    """Whose rights a request is carried out with: his credentials, for that request alone."""

    auth_url: str
    user_id: str = ""
    username: str = ""
    password: Secret = Secret()
    project_id: str = ""
    project_name: str = ""
    user_domain_name: str = ""
    project_domain_name: str = ""
    billing_enabled: bool = False

    @property
    def who(self) -> str:
        """For people and for the log."""
        return self.user_id or self.username


_TEXTS = ("user_id", "username", "project_id", "project_name", "user_domain_name", "project_domain_name")


def cloud_env_of(body: JsonObject, query: Mapping[str, str]) -> CloudEnv | None:
    """From the body, or from the query, where some clients of GET have it; None: neither has any. Raises Missing, BadRequest."""
    given: Any = body.get("cloud_env")
    if given is None and "auth_url" in query:
        given = dict(query)
    if given is None:
        return None
    if not isinstance(given, dict):
        raise BadRequest("cloud_env is no object")
    for name in ("auth_url", "password"):
        if not isinstance(given.get(name), str) or not given[name]:
            raise Missing(f"cloud_env.{name} is missing")
    texts = {name: given.get(name) or "" for name in _TEXTS}
    for name, value in texts.items():
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            raise BadRequest(f"cloud_env.{name} is no text of at most {LONGEST_TEXT} characters")
    if not (texts["user_id"] or texts["username"]):
        raise Missing("cloud_env.user_id is missing")
    if not (texts["project_id"] or texts["project_name"]):
        raise Missing("cloud_env.project_id is missing")
    if len(given["password"]) > LONGEST_KEY or len(given["auth_url"]) > 2048:
        raise BadRequest("cloud_env is too long")
    return CloudEnv(
        auth_url=given["auth_url"],
        password=Secret(given["password"]),
        billing_enabled=_yes(given.get("billing_enabled")),
        **texts,
    )


def _yes(value: Any) -> bool:
    """JSON, or a word as the first front end sends it. (Its service evaluated it as code.) Raises BadRequest."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    raise BadRequest("cloud_env.billing_enabled is neither true nor false")


# --- bodies ------------------------------------------------------------------------------------------------------------------


def body_of(raw: bytes) -> JsonObject:
    """The request's object; `{}` for none. Raises BadRequest."""
    if not raw.strip():
        return {}
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequest("the request is no JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the request is no JSON object")
    return body


def inner(body: JsonObject, name: str) -> JsonObject:
    """An object in the body. Raises Missing, BadRequest."""
    found = body.get(name)
    if found is None:
        raise Missing(f"{name} is missing")
    if not isinstance(found, dict):
        raise BadRequest(f"{name} is no object")
    return found


def text(body: JsonObject, name: str, *, of: str = "", longest: int = LONGEST_TEXT, others: tuple[str, ...] = ()) -> str:
    """A text that has to be there, also under one of its `others`' names. Raises Missing, BadRequest."""
    found = optional(body, name, of=of, longest=longest, others=others)
    if not found:
        raise Missing(f"{of}{name} is missing")
    return found


def optional(body: JsonObject, name: str, *, of: str = "", longest: int = LONGEST_TEXT, others: tuple[str, ...] = ()) -> str:
    """ "": it isn't there. Raises BadRequest."""
    found = next((body[one] for one in (name, *others) if body.get(one) is not None), "")
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)  # the front end's ids are numbers now and then
    if not isinstance(found, str) or len(found) > longest:
        raise BadRequest(f"{of}{name} is no text of at most {longest} characters")
    if any(character < " " and character not in "\n\r\t" for character in found):
        raise BadRequest(f"{of}{name} has control characters")
    return found.strip()


def number(body: JsonObject, name: str, *, of: str = "", default: float | None = None) -> float:
    """A finite number, also as a text. Raises Missing, BadRequest."""
    found = body.get(name, default)
    if found is None:
        raise Missing(f"{of}{name} is missing")
    try:
        if isinstance(found, bool):
            raise ValueError
        value = float(found)
    except (TypeError, ValueError):
        raise BadRequest(f"{of}{name} is no number") from None
    if not abs(value) < 1e15:
        raise BadRequest(f"{of}{name} is no number that anybody has")
    return value


# --- answers ------------------------------------------------------------------------------------------------------------------


def answer(status: int, body: JsonObject) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


def error(request: web.Request, why: Exception, *, first: bool) -> web.Response:
    """`{success: false, error, message}`. `first`: with the first generation's statuses. Nothing of our insides, no secret."""
    status, word = _status(why, first=first, path=request.path)
    if isinstance(why, web.HTTPException):
        message = why.reason or "error"
    elif isinstance(why, TryLater):
        # Ours names hosts and paths, and this is shown to users.
        message = next((said for type_, said in OUTSIDE if isinstance(why, type_)), str(why))
    elif isinstance(why, VedetteError) and status != 500:
        message = str(why)
    else:
        message = "an error of the service's own; its log has the details"
    body: JsonObject = {"success": False, "error": word, "message": message[:LONGEST_MESSAGE]}
    if isinstance(why, Partial):
        body["results"] = why.results
    response = answer(status, body)
    if isinstance(why, TryLater):
        response.headers["Retry-After"] = str(max(1, round(min(why.delay, 3600.0))))
    if isinstance(why, BadToken):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(why, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = why.headers["Allow"]
    return response


def _status(why: Exception, *, first: bool, path: str) -> tuple[int, str]:
    match why:
        case web.HTTPException():
            return why.status, type(why).__name__.removeprefix("HTTP")
        case Partial():
            return 207, "PartialFailure"
        case NoBilling():
            return 501, "NoBilling"
        case BadToken():
            return 401, "APIAuthenticationError"
        case Missing():
            return (400, "MissingRequiredArgs") if first else (415, "MissingRequiredArgs")
        case InvalidCall():
            return (400, "InvalidAPICall") if first else (406, "InvalidAPICall")
        case Unauthenticated():
            # As the first one's service did: except where accounts are made, a wrong password is the request's fault.
            return (
                (401, "Unauthorized") if not first or path.endswith("/create_user_project") else (400, "OpStkAuthenticationError")
            )
        case GiveUp():
            return 409, "Conflict"
        case Forbidden():
            return 403, "Forbidden"
        case NotFound():
            return 404, "NotFound"
        case TryLater():
            return code_of(why), "ServiceUnavailable"
        case FixInput():
            return 400, "BadRequest"
        case VedetteError():
            status = code_of(why)
            return status, "Conflict" if status == 409 else "InternalError"
    return 500, "InternalError"


def same_url(one: str, other: str) -> bool:
    """Whether two addresses are one Keystone's: the version at the end, a slash and the case of the host don't matter."""
    return hmac.compare_digest(_plain(one).encode(), _plain(other).encode())


def _plain(url: str) -> str:
    scheme, _, rest = url.strip().partition("://")
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    for version in ("v3", "v2.0"):
        path = path.removesuffix(version).rstrip("/")
    port = {"http": ":80", "https": ":443"}.get(scheme.lower(), "")
    return f"{scheme.lower()}://{host.lower().removesuffix(port)}/{path}"
