"""WEaaS' own face: `GET /port` is a stream of what happens to ports. Its paths, its `config.yml`, its token places.

Requests come in on the main port, and at the root of a port of its own when `faces.weaas` says so; `engine/watch.py` serves
them like any other watch: resumable (`resourceVersion=`), bookmarked always, as lines that Kuryr's client reads.

| request | answer |
|---|---|
| `GET /` | 200, text: no endpoint specified, and which there are |
| `GET /{endpoint}` | the stream; token in `X-Auth-Token` or `Authorization` |
| `GET /{token}/{endpoint}`, `GET /{endpoint}/{token}` | the same, token in the path (a project's id without authentication) |

Better than the original: errors have their codes (404, 401, 403, 503) and are JSON with the original's text in `message`; lines
are JSON; `?format=raw` gives the notification itself and a blank line; `?fieldSelector=object.id=X` one object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiohttp import web

from vedette.api.routes.events import for_tenants
from vedette.api.routes.objects import initial_events, json_form
from vedette.api.server import IDENTITY, Needs
from vedette.api.streams import stream
from vedette.engine.watch import ChangeFeed, NoticeFeed
from vedette.errors import BadRequest, ConfigError, Forbidden, NotFound
from vedette.kit.clock import rfc3339_us
from vedette.model.selector import parse as parse_selector
from vedette.ports import Appended, Kind, Scope, Selection

DEFAULT = {"neutron": ["port"], "octavia": ["loadbalancer", "listener", "pool", "member"], "nova": ["compute"]}
"""The config.yml that came with WEaaS."""
OLD_NAMES = {"compute": "server"}
RESERVED = frozenset(
    ["api", "apis", "clusters", "openapi", "version", "v1", "infra-optim", "concertim", "healthz", "livez", "readyz", "metrics"]
)
"""First segments of the main port that are Vedette's own."""
MAX_CONFIG = 65_536


class Endpoint(msgspec.Struct, frozen=True):
    """A name in the path: a kind, or the event types of one fnmatch pattern (then the raw notifications)."""

    name: str
    kind: Kind | None
    pattern: str = ""


def read_config(path: Path | None, kinds: Sequence[Kind]) -> dict[str, Endpoint]:
    """WEaaS' config.yml: service → endpoint names. An entry may also be `name: kind` or `name: event pattern`
    (`- quota: "quota.*"`): a new endpoint needs no code. Raises ConfigError."""
    if path is None:
        return _endpoints(DEFAULT, kinds, "weaas")
    try:
        text = path.read_text()
        parsed = yaml.safe_load(text) if len(text) <= MAX_CONFIG else None
    except OSError as why:
        raise ConfigError(f"can't be read: {why.strerror}", path=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as why:
        raise ConfigError(f"is not YAML: {why}", path=str(path)) from None
    if not isinstance(parsed, dict) or not parsed:
        raise ConfigError("must map services to lists of endpoints, such as `neutron: [port]`", path=str(path))
    return _endpoints(parsed, kinds, str(path))


def _endpoints(config: Mapping[Any, Any], kinds: Sequence[Kind], where: str) -> dict[str, Endpoint]:
    by_name = {name: kind for kind in kinds for name in (kind.singular, kind.plural)}
    found: dict[str, Endpoint] = {}
    for service, entries in config.items():
        if not isinstance(entries, list):
            raise ConfigError("must be a list of endpoints", path=f"{where}: {service}")
        for entry in entries:
            name, meaning = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, entry)
            if not isinstance(name, str) or not isinstance(meaning, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
                raise ConfigError(
                    f"{entry!r} is not an endpoint: give a name, or `name: event pattern`", path=f"{where}: {service}"
                )
            if name in RESERVED:
                raise ConfigError(f"{name!r} is a path of Vedette itself", path=f"{where}: {service}")
            kind = by_name.get(OLD_NAMES.get(meaning, meaning))
            if kind is None and name == meaning:
                # The original's rule: the first word of the event type.
                meaning = f"{name}.*"
            found[name] = Endpoint(name, kind, "" if kind else meaning)
    return found


def path_token(endpoints: Mapping[str, Endpoint]) -> Callable[[web.Request], str | None]:
    """The token of `/{token}/{endpoint}` or `/{endpoint}/{token}`; the segment that is an endpoint decides."""

    def token(request: web.Request) -> str | None:
        parts = request.path.strip("/").split("/")
        if len(parts) != 2:
            return None
        first, second = parts
        if first in endpoints:
            return second
        return first if second in endpoints and first not in RESERVED else None

    return token


def routes(needs: Needs, endpoints: Mapping[str, Endpoint], *, open_to_all: bool) -> list[web.RouteDef]:
    """`open_to_all`: no authentication, so a second path segment is a project's id to look at."""

    async def root(_request: web.Request) -> web.Response:
        names = "\n".join(f"  /{name}" for name in endpoints)
        return web.Response(text=f"No endpoint specified in the URL!\nThere are:\n{names}\n")

    async def follow(request: web.Request) -> web.StreamResponse:
        endpoint = endpoints.get(request.match_info["endpoint"])
        if endpoint is None:
            raise NotFound("Invalid endpoint!")
        project = request.query.get("project")
        if open_to_all and request.match_info.get("token"):
            project = request.match_info["token"]
        scope = request[IDENTITY].scope
        if project is not None and not scope.admin and project not in scope.projects:
            raise Forbidden("Unauthorized request.")
        if endpoint.kind is None or request.query.get("format") == "raw":
            return await _raw(needs, request, endpoint, scope, project)
        return await _objects(needs, request, endpoint.kind, scope, project)

    ours = "(?!(?:" + "|".join(sorted(RESERVED)) + ")$)[^/]+"
    one = "{endpoint:" + "|".join(re.escape(name) for name in endpoints) + "}"
    other = "{token:" + ours + "}"
    return [
        web.get("/", root),
        web.get("/{endpoint:" + ours + "}", follow, allow_head=False),
        web.get(f"/{one}/{other}", follow, allow_head=False),
        web.get(f"/{other}/{one}", follow, allow_head=False),
    ]


async def _objects(needs: Needs, request: web.Request, kind: Kind, scope: Scope, project: str | None) -> web.StreamResponse:
    query = request.query
    selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    selection = Selection(scope=scope, group=kind.group, kind=kind.kind, source=needs.default_source, project=project)
    feed = ChangeFeed(selection, selector, json_form(kind))
    after = _place(query.get("resourceVersion", ""))
    initial = None
    if after == 0:
        after = needs.store.head
        initial = initial_events(needs, feed, after, end=True)
    return await stream(
        needs, request, feed,
        after=after, content_type="application/json", bookmarks=True, initial=initial, timeout=_timeout(query),
    )  # fmt: skip


async def _raw(needs: Needs, request: web.Request, endpoint: Endpoint, scope: Scope, project: str | None) -> web.StreamResponse:
    """The notifications themselves, as JSON and a blank line, from now (or after `resourceVersion`)."""
    kind = endpoint.kind
    types = tuple(sorted(kind.events)) if kind is not None else (endpoint.pattern,)
    selection = Selection(scope=scope, source=needs.default_source, project=project)
    feed = NoticeFeed("weaas/raw", selection, types, lambda one: raw(one, scope), lambda _revision: b"\n")
    after = _place(request.query.get("resourceVersion", "")) or needs.store.head
    return await stream(
        needs, request, feed,
        after=after, content_type="application/json", bookmarks=True, timeout=_timeout(request.query),
    )  # fmt: skip


def raw(appended: Appended, scope: Scope) -> bytes:
    """A notification as oslo.messaging's bare envelope has it, scrubbed; tenants don't get what tells of hosts."""
    notice = appended.entry.notice
    message = {
        "message_id": notice.id,
        "publisher_id": notice.publisher if scope.admin else None,
        "event_type": notice.event_type,
        "priority": notice.priority,
        "timestamp": rfc3339_us(notice.sent_at).replace("T", " ").rstrip("Z") if notice.sent_at else "",
        "payload": notice.payload if scope.admin else msgspec.Raw(for_tenants(notice.payload)),
        "_context_request_id": notice.request_id,
        "_context_project_id": notice.actor_project if scope.admin else None,
        "resourceVersion": str(appended.entry.revision),
    }
    return msgspec.json.encode(message) + b"\n\n"


def _place(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BadRequest(f"resourceVersion must be one that this server gave, not {text!r}")
    return int(text)


def _timeout(query: Mapping[str, str]) -> float | None:
    text = query.get("timeoutSeconds", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadRequest(f"timeoutSeconds must be a whole number, not {text!r}")
    return float(text) or None
