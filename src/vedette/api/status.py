"""Errors as Kubernetes says them: an exception comes in, HTTP status, headers and a `Status` object go out.

The table is the tree of errors.py; what isn't in it is a 500 that tells nothing of our insides (the caller logs it). Next is the
middleware that catches what routes raise. https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from vedette.errors import (
    BadRequest,
    BrokerUnavailable,
    CloudUnavailable,
    Conflict,
    Forbidden,
    IdentityUnavailable,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotAllowed,
    NotFound,
    NotUnderstood,
    Refused,
    StartOver,
    StoreUnavailable,
    TooBusy,
    TryLater,
    Unauthenticated,
    UnsupportedFormat,
)

__all__ = ["Invalid", "code_of", "error_event", "of_code", "status", "status_object"]

LONGEST_MESSAGE = 2000
"""Characters of a message: some repeat what the caller sent."""

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
"""Kubernetes' word for each code (apimachinery `metav1.StatusReason…`)."""

CODES: tuple[tuple[type[Exception], int], ...] = (
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotAllowed, 403),
    (NotFound, 404),
    (MethodNotAllowed, 405),
    (NotAcceptable, 406),
    (Conflict, 409),
    (Refused, 409),
    (StartOver, 410),
    (Invalid, 422),
    (BadRequest, 400),
    (UnsupportedFormat, 415),
    (NotUnderstood, 400),
    (TooBusy, 429),
    (TryLater, 503),
)
"""The first that fits counts. ConfigError and CannotStart are not the caller's doing: 500."""

OUTSIDE: tuple[tuple[type[Exception], str], ...] = (
    (StoreUnavailable, "the log can't be written or read now; try again"),
    (BrokerUnavailable, "the message broker can't be reached now; try again"),
    (CloudUnavailable, "the cloud's API can't be asked now; try again"),
    (IdentityUnavailable, "the identity service can't be asked now; try again"),
)
"""What callers read instead of a text that names hosts and paths of ours."""


def code_of(error: BaseException) -> int:
    """The HTTP status that says this error."""
    return next((code for type_, code in CODES if isinstance(error, type_)), 500)


def status_object(error: BaseException, *, group: str = "", kind: str = "", name: str = "") -> dict[str, Any]:
    """The `Status` of an error. `group`, `kind` (the plural, as Kubernetes has it) and `name`: what it is about, if one thing."""
    code = code_of(error)
    details: dict[str, Any] = {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}
    message = _message(error, code)
    if isinstance(error, NotFound) and kind and name:
        # kubectl prints it as it is, and scripts look for it.
        message = f'{kind}{"." if group else ""}{group} "{name}" not found'
    if isinstance(error, Invalid):
        details["causes"] = [{"reason": "FieldValueInvalid", "message": _short(error.cause), "field": error.field}]
    if isinstance(error, TryLater):
        details["retryAfterSeconds"] = _seconds(error)
    return _object(code, message, details)


def status(error: BaseException, *, group: str = "", kind: str = "", name: str = "") -> tuple[int, dict[str, str], bytes]:
    """(HTTP status, headers, JSON body) of an error; the arguments are `status_object`'s."""
    said = status_object(error, group=group, kind=kind, name=name)
    headers: dict[str, str] = {}
    if isinstance(error, TryLater):
        # client-go waits and asks again by itself when a 429 or 5xx has this.
        headers["Retry-After"] = str(_seconds(error))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="vedette"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    return said["code"], headers, msgspec.json.encode(said)


def of_code(code: int, message: str = "") -> tuple[int, dict[str, str], bytes]:
    """The same for an error that has only its HTTP status, such as the router's 404 and 405."""
    if code >= 500 or not message:
        message = _OURS if code >= 500 else REASONS.get(code, "the request can't be served")
    return code, {}, msgspec.json.encode(_object(code, message, {}))


def error_event(error: BaseException) -> bytes:
    """The line that tells it inside a watch whose HTTP status is already sent: `{"type":"ERROR","object":{Status}}`."""
    return msgspec.json.encode({"type": "ERROR", "object": status_object(error)}) + b"\n"


def _object(code: int, message: str, details: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": _short(message),
    }
    if code in REASONS:
        said["reason"] = REASONS[code]
    if details:
        said["details"] = details
    said["code"] = code
    return said


def _message(error: BaseException, code: int) -> str:
    for type_, text in OUTSIDE:
        if isinstance(error, type_):
            return text
    return _OURS if code == 500 else str(error) or REASONS[code]


def _short(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "…"


def _seconds(error: TryLater) -> int:
    """At least one: a client must never come back at once. At most an hour, and never infinity."""
    return max(1, math.ceil(min(error.delay, 3600.0)))


_OURS = "an error of Vedette's own; its log has the details"
