"""WEaaS' own face: `GET /port` is a stream of what happens to ports. Its paths, its `config.yml`, its token places.

Requests come in on the main port, and at the root of a port of its own when `faces.weaas` says so; `engine/watch.py` serves
them like any other watch: resumable (`resourceVersion=`), bookmarked always, as lines that Kuryr's client reads.

| request | answer |
|---|---|
| `GET /` | 200, text: no endpoint specified, and which there are |
| `GET /{endpoint}` | the stream; token in `X-Auth-Token` or `Authorization` |
| `GET /{token}/{endpoint}`, `GET /{endpoint}/{token}` | the same, token in the path |
| `GET /{endpoint}/{project}` | one project, when the token is in a header, or none is needed |

Better than the original: errors have their codes (404, 401, 403, 503) and are JSON with the original's text in `message`; lines
are JSON, what is there first (not with `?sendInitialEvents=false`); `?format=raw` gives the notification itself and a blank line;
`?fieldSelector=object.id=X` one object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiohttp import web

from vedette.api.accept import truthy
from vedette.api.routes.events import for_tenants
from vedette.api.routes.objects import initial_events, json_form, revision_of, timeout_of
from vedette.api.server import IDENTITY, TOKEN, Needs
from vedette.api.streams import stream
from vedette.engine.watch import ChangeFeed, NoticeFeed
from vedette.errors import BadRequest, ConfigError, Forbidden, NotFound, TooBusy, TryLater, Unauthenticated
from vedette.kit.clock import rfc3339_us
from vedette.model.fold import id_of
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


def in_its_words(endpoints: Mapping[str, Endpoint], *, alone: bool = False) -> Callable[[web.Request, Exception], Exception]:
    """The errors of this face's paths (`alone`: of every path) with the texts that the original had. Too many streams are a
    503 here: its clients know no 429."""

    def said(request: web.Request, why: Exception) -> Exception:
        parts = request.path.strip("/").split("/")
        one = len(parts) == 1 and parts[0] not in RESERVED
        two = len(parts) == 2 and parts[0] not in RESERVED and not endpoints.keys().isdisjoint(parts)
        if not (alone or one or two):
            return why
        if isinstance(why, Unauthenticated):
            return Unauthenticated(f"Unable to authenticate token! ({why})")
        if isinstance(why, Forbidden):
            return Forbidden(f"Unauthorized request. ({why})")
        if isinstance(why, (NotFound, web.HTTPNotFound)):
            return NotFound("Invalid endpoint!")
        if isinstance(why, TooBusy):
            return TryLater(str(why), delay=why.delay)
        return why

    return said


LONGEST_PROJECT = 64
"""Characters of a project's id in Keystone; a token has more, but those of the old UUID kind."""


def routes(needs: Needs, endpoints: Mapping[str, Endpoint], *, open_to_all: bool) -> list[web.RouteDef]:
    """`open_to_all`: no authentication, so a second path segment is a project's id to look at, or a token that nobody needs."""

    async def root(_request: web.Request) -> web.Response:
        names = "\n".join(f"  /{name}" for name in endpoints)
        return web.Response(text=f"No endpoint specified in the URL!\nThere are:\n{names}\n")

    async def follow(request: web.Request) -> web.StreamResponse:
        endpoint = endpoints.get(request.match_info["endpoint"])
        if endpoint is None:
            raise NotFound("Invalid endpoint!")
        project = request.query.get("project") or _project_in_path(request, open_to_all)
        scope = request[IDENTITY].scope
        if project is not None and not scope.admin and project not in scope.projects:
            raise Forbidden("the token is not for this project")
        if endpoint.kind is None or request.query.get("format") == "raw":
            return await _raw(needs, request, endpoint, scope, project)
        return await _objects(needs, request, endpoint.kind, scope, project)

    ours = "(?!(?:" + "|".join(re.escape(name) for name in sorted(RESERVED)) + ")(?:/|$))[^/]+"
    one = "{endpoint:" + "|".join(re.escape(name) for name in endpoints) + "}"
    other = "{segment:" + ours + "}"
    return [
        web.get("/", root),
        web.get("/{endpoint:" + ours + "}", follow, allow_head=False),
        web.get(f"/{one}/{other}", follow, allow_head=False),
        web.get(f"/{other}/{one}", follow, allow_head=False),
    ]


def _project_in_path(request: web.Request, open_to_all: bool) -> str | None:
    """The path's other segment, when it isn't the token: the original's client sent the project's id there."""
    segment = request.match_info.get("segment")
    if segment is None:
        return None
    if open_to_all:
        return segment if len(segment) <= LONGEST_PROJECT else None
    return segment if segment != request[TOKEN] else None


async def _objects(needs: Needs, request: web.Request, kind: Kind, scope: Scope, project: str | None) -> web.StreamResponse:
    query = request.query
    selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    selection = Selection(scope=scope, group=kind.group, kind=kind.kind, source=needs.default_source, project=project)
    feed = ChangeFeed(selection, selector, json_form(kind))
    after = revision_of(query.get("resourceVersion", ""))
    wants_initial = query.get("sendInitialEvents", "")
    initial = None
    if truthy(wants_initial) or (not wants_initial and after == 0):
        after = needs.store.head
        initial = initial_events(needs, feed, after, end=True)
    return await stream(
        needs, request, feed,
        after=after or needs.store.head, content_type="application/json", bookmarks=True, initial=initial,
        timeout=timeout_of(query),
    )  # fmt: skip


async def _raw(needs: Needs, request: web.Request, endpoint: Endpoint, scope: Scope, project: str | None) -> web.StreamResponse:
    """The notifications themselves, as JSON and a blank line, from now (or after `resourceVersion`)."""
    query = request.query
    kind = endpoint.kind
    selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    if selector.status or selector.labels or any(term.path[1] != "name" or not term.equal for term in selector.meta):
        raise BadRequest("raw notifications can be selected by object.id only")
    selection = Selection(
        scope=scope,
        # Some events are news of several kinds (`tag.*`): those of this one.
        group=kind.group if kind is not None else "",
        kind=kind.kind if kind is not None else "",
        source=needs.default_source,
        project=project,
        id=id_of(selector.name) if selector.name is not None else "",
    )
    # What Vedette read from the API itself comes in the same form: a port that went ACTIVE was never announced.
    own = () if kind is None else (f"{kind.singular}.*.resync", f"{kind.singular}.*.verify")
    types = tuple(sorted((*kind.events, *own))) if kind is not None else (endpoint.pattern,)
    feed = NoticeFeed("weaas/raw", selection, types, lambda one: raw(one, scope), lambda _revision: b"\n")
    after = revision_of(query.get("resourceVersion", "")) or needs.store.head
    return await stream(
        needs, request, feed, after=after, content_type="application/json", bookmarks=True, timeout=timeout_of(query)
    )


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
