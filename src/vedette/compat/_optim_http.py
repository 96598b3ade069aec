"""How Watcher's API speaks: microversions, links, lists, JSON patches, errors. For compat/infra_optim.py.

(watcher/api/controllers/base.py, link.py, v1/utils.py, v1/types.py and middleware/parsable_error.py, release 17.)
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonpatch
import jsonpointer
import msgspec
from aiohttp import web

from vedette.api.status import code_of
from vedette.errors import BadRequest, Invalid, NotAcceptable, Unauthenticated, VedetteError

log = logging.getLogger("vedette.compat.infra_optim")

OLDEST, NEWEST = (1, 0), (1, 7)
VERSION, MIN_VERSION, MAX_VERSION = (
    "OpenStack-API-Version",
    "OpenStack-API-Minimum-Version",
    "OpenStack-API-Maximum-Version",
)
SERVICE_TYPE = "infra-optim"
MOST_OPERATIONS = 100
"""Of a JSON patch."""

Item = dict[str, Any]


# --- microversions ---------------------------------------------------------------------------------------------------------


def version_of(request: web.Request) -> tuple[int, int]:
    """Which one the caller asks for. Raises NotAcceptable."""
    for header in request.headers.getall(VERSION, []):
        for part in header.split(","):
            service, _, text = part.strip().partition(" ")
            if service == SERVICE_TYPE:
                return _parsed(text.strip())
    return OLDEST


def _parsed(text: str) -> tuple[int, int]:
    if text.lower() == "latest":
        return NEWEST
    if text == "1":
        # As old clients send it.
        return OLDEST
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text, re.ASCII)
    if found is None:
        raise NotAcceptable(f"Invalid value for {VERSION} header")
    version = int(found[1]), int(found[2])
    if not OLDEST <= version <= NEWEST:
        raise NotAcceptable(
            f"Version {text} was requested but the requested API version is not supported by this service. "
            f"The supported version range is: [{_dotted(OLDEST)}, {_dotted(NEWEST)}]."
        )
    return version


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def version_headers(request: web.Request) -> dict[str, str]:
    """What every answer carries."""
    try:
        version = version_of(request)
    except NotAcceptable:
        version = OLDEST
    return {
        VERSION: f"{SERVICE_TYPE} {_dotted(version)}",
        MIN_VERSION: f"{SERVICE_TYPE} {_dotted(OLDEST)}",
        MAX_VERSION: f"{SERVICE_TYPE} {_dotted(NEWEST)}",
        "Vary": VERSION,
    }


# --- answers ---------------------------------------------------------------------------------------------------------------


def answer(request: web.Request, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={**version_headers(request), **(headers or {})},
    )


def empty(request: web.Request, status: int) -> web.Response:
    return web.Response(status=status, headers=version_headers(request))


def error(request: web.Request, why: Exception) -> web.Response:
    """An error as Watcher's clients read it: a JSON text inside of JSON."""
    if isinstance(why, web.HTTPException):
        code, text = why.status, why.reason or "error"
    elif isinstance(why, Invalid):
        code, text = 400, str(why)
    elif isinstance(why, Unauthenticated):
        code, text = 401, "Authentication required"
    else:
        code = code_of(why)
        text = str(why) if isinstance(why, VedetteError) and code != 500 else "Internal error; the log has more"
    fault = {"faultcode": "Client" if code < 500 else "Server", "faultstring": text[:2000], "debuginfo": None}
    headers = version_headers(request)
    delay = getattr(why, "delay", None)
    if code in (429, 503) and isinstance(delay, float):
        headers["Retry-After"] = str(max(1, round(delay)))
    if code == 401:
        headers["WWW-Authenticate"] = "Keystone"
    return web.Response(
        status=code,
        body=msgspec.json.encode({"error_message": json.dumps(fault)}),
        content_type="application/json",
        headers=headers,
    )


def links(base: str, resource: str, ident: str) -> list[Item]:
    return [
        {"href": f"{base}/v1/{resource}/{ident}", "rel": "self"},
        {"href": f"{base}/{resource}/{ident}", "rel": "bookmark"},
    ]


# --- lists -----------------------------------------------------------------------------------------------------------------


def listed(
    request: web.Request,
    items: Sequence[Item],
    *,
    base: str,
    resource: str,
    max_limit: int,
    keys: Sequence[str],
    filters: Sequence[str] = (),
    detail: bool = False,
    marker_field: str = "uuid",
) -> Item:
    """A page of items that are in the order of their creation: sorted, after the marker, with a link to the next.

    Raises BadRequest: a parameter that there is not, or one with a wrong value."""
    query = request.query
    known = {"marker", "limit", "sort_key", "sort_dir", *filters}
    for name in query:
        if name not in known:
            raise BadRequest(f'Unknown argument: "{name[:60]}"')
    limit = _limit(query.get("limit"), max_limit)
    sort_dir = query.get("sort_dir", "asc")
    if sort_dir not in ("asc", "desc"):
        raise BadRequest(f"Invalid sort direction: {sort_dir[:20]}. Acceptable values are 'asc' or 'desc'")
    sort_key = query.get("sort_key", "id")
    if sort_key not in ("id", *keys):
        raise BadRequest(f"Invalid sort key: {sort_key[:60]}")
    found = list(items)
    if sort_key != "id":
        found.sort(key=lambda item: _comparable(item.get(sort_key)), reverse=sort_dir == "desc")
    elif sort_dir == "desc":
        found.reverse()
    marker = query.get("marker")
    if marker:
        place = next((at for at, item in enumerate(found) if str(item[marker_field]) == marker), None)
        if place is None:
            raise BadRequest(f"Marker {marker[:60]} could not be found")
        found = found[place + 1 :]
    page = found[:limit]
    body: Item = {resource: page}
    if len(found) > limit:
        kept = "".join(f"{name}={query[name]}&" for name in ("sort_key", "sort_dir", *filters) if name in query)
        url = f"{base}/v1/{resource}" + ("/detail" if detail else "")
        body["next"] = f"{url}?{kept}limit={limit}&marker={page[-1][marker_field]}"
    return body


def _limit(text: str | None, most: int) -> int:
    if text is None or text == "" or text == "0":
        return most
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise BadRequest(f"Invalid input for field/attribute limit. Value: '{text[:20]}'. unable to convert to int")
    if int(text) < 0:
        raise BadRequest("Limit must be positive")
    return min(most, int(text))


def _comparable(value: Any) -> tuple[int, Any]:
    """None before numbers before texts before the rest."""
    if value is None:
        return 0, 0
    if isinstance(value, bool | int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 3, json.dumps(value, sort_keys=True, default=str)


# --- bodies ----------------------------------------------------------------------------------------------------------------


async def body_of(request: web.Request) -> Any:
    """The request's JSON. Raises BadRequest."""
    raw = await request.read()
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequest("Request is not in valid JSON format") from None


def fields_of(body: Any, shape: Mapping[str, Callable[[Any], bool]], required: Sequence[str] = ()) -> Item:
    """The fields of an object, None left out. Raises BadRequest: one that there is not, is missing or of a wrong type."""
    if not isinstance(body, dict):
        raise BadRequest("Request is not a JSON object")
    for name, value in body.items():
        if name not in shape:
            raise BadRequest(f"Unknown attribute for argument: {str(name)[:60]}")
        if value is not None and not shape[name](value):
            raise BadRequest(f"Invalid input for field/attribute {name}. Value: '{str(value)[:60]}'.")
    for name in required:
        if body.get(name) in (None, ""):
            raise BadRequest(f"Invalid input for field/attribute {name}. Value: 'None'. Mandatory field missing.")
    return {name: value for name, value in body.items() if value is not None}


def text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4096 and "\x00" not in value


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


_PATH = re.compile(r"(/[\w-]+)+", re.ASCII)
_INTERNAL = frozenset({"created_at", "id", "links", "updated_at", "deleted_at", "uuid"})


def patch_of(body: Any, *, internal: frozenset[str] = frozenset(), fixed: frozenset[str] = frozenset()) -> list[Item]:
    """A JSON patch (RFC 6902: add, replace, remove), checked. Raises BadRequest: one of another form, or of a field that only the
    service writes (`internal`) or that can't be changed (`fixed`)."""
    if not isinstance(body, list) or len(body) > MOST_OPERATIONS:
        raise BadRequest(f"a patch is a list of at most {MOST_OPERATIONS} operations")
    for one in body:
        if not isinstance(one, dict) or set(one) - {"op", "path", "value"}:
            raise BadRequest("an operation has op, path and value")
        op, path = one.get("op"), one.get("path")
        if op not in ("add", "replace", "remove"):
            raise BadRequest(
                f"Invalid input for field/attribute op. Value: '{str(op)[:20]}'. Value should be one of: add, remove, replace"
            )
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise BadRequest(f"Invalid input for field/attribute path. Value: '{str(path)[:60]}'.")
        first = path.split("/")[1]
        if first in _INTERNAL or first in internal:
            raise BadRequest(f"'{path[:60]}' is an internal attribute and can not be updated")
        if first in fixed:
            raise BadRequest(patch_error(body, f"{path} can't be updated."))
        if op != "remove" and "value" not in one:
            raise BadRequest("'add' and 'replace' operations needs value")
    return body


def patched(document: Item, patch: list[Item]) -> Item:
    """The document after the patch. Raises BadRequest."""
    for one in patch:
        if one["op"] == "add" and one["path"].count("/") == 1 and one["path"].lstrip("/") not in document:
            raise BadRequest(f"Adding a new attribute ({one['path'][:60]}) to the root of the resource is not allowed")
    try:
        after: Item = jsonpatch.apply_patch(document, jsonpatch.JsonPatch(patch))
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, KeyError, TypeError, ValueError) as why:
        raise BadRequest(patch_error(patch, str(why))) from None
    return after


def patch_error(patch: Any, reason: str) -> str:
    return f"Couldn't apply patch '{str(patch)[:500]}'. Reason: {reason[:500]}"
