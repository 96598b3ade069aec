"""What the objects look like: kinds come in, OpenAPI documents go out. routes/discovery.py serves them.

`kubectl explain` (since 1.29) reads `/openapi/v3/apis/{group}/v1`: it finds the kind at the operation of the list's path, and the
schema by the same x-kubernetes-group-version-kind. Version 2 is the same in Swagger's form, for client generators; older kubectls
want that one in protobuf, which isn't served: their `explain` says so, everything else they do works without.
https://spec.openapis.org/oas/v3.0.0, https://swagger.io/specification/v2/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vedette import __version__
from vedette.api.discovery import NAMESPACE, groups
from vedette.model.reading import has_namespaces
from vedette.ports import Field, Kind

ADMIN_ONLY = "Shown to admins only."
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


def v3_paths(kinds: Sequence[Kind], hashes: dict[str, str]) -> dict[str, Any]:
    """`/openapi/v3`: where each group's document is. `hashes`: its path (`apis/{group}/v1`) to a hash of its content, by which
    clients cache it."""
    paths = ["api/v1", *(f"apis/{name}/v1" for name in groups(kinds))]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hashes[path]}"} for path in paths}}


def v3(kinds: Sequence[Kind], group: str) -> dict[str, Any]:
    """`/openapi/v3/apis/{group}/v1`; group "" is `/openapi/v3/api/v1`."""
    served = _served(kinds, group)
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": {path: item for kind in served for path, item in _paths(kind, _V3).items()},
        "components": {
            "schemas": _definitions(served, _V3),
            "securitySchemes": {"BearerToken": {"type": "http", "scheme": "bearer", "description": _TOKEN}},
        },
        "security": [{"BearerToken": []}],
    }


def v2(kinds: Sequence[Kind]) -> dict[str, Any]:
    """`/openapi/v2`: every group in one document."""
    served = [kind for group in ("", *groups(kinds)) for kind in _served(kinds, group)]
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": {path: item for kind in served for path, item in _paths(kind, _V2).items()},
        "definitions": _definitions(served, _V2),
        "securityDefinitions": {
            "BearerToken": {"type": "apiKey", "name": "authorization", "in": "header", "description": _TOKEN}
        },
        "security": [{"BearerToken": []}],
    }


def nothing_v2() -> dict[str, Any]:
    """`/openapi/v2` where no schema is known."""
    return {"swagger": "2.0", "info": _INFO, "paths": {}, "definitions": {}}


_INFO = {"title": "Vedette", "version": __version__, "description": "An OpenStack cloud, to list and to watch."}
_TOKEN = "`Bearer` and a Keystone token or a configured one; X-Auth-Token is read too."  # noqa: S105 a description
_V2, _V3 = "#/definitions/", "#/components/schemas/"


def _served(kinds: Sequence[Kind], group: str) -> list[Kind]:
    return [kind for kind in (NAMESPACE, *kinds) if kind.group == group]


def _name(kind: Kind) -> str:
    """Of the schema: the group backwards, as Kubernetes does. `dev.vedette.openstack.v1.Port`."""
    if not kind.group:
        return f"io.k8s.api.core.v1.{kind.kind}"
    return ".".join((*reversed(kind.group.split(".")), "v1", kind.kind))


def _gvk(kind: Kind, suffix: str = "") -> dict[str, str]:
    return {"group": kind.group, "version": "v1", "kind": kind.kind + suffix}


# --- paths -----------------------------------------------------------------------------------------------------------------

_LIST_PARAMETERS: tuple[tuple[str, str, str], ...] = (
    ("labelSelector", "string", "Only objects with these labels."),
    (
        "fieldSelector",
        "string",
        "Only objects with these fields: metadata.name, metadata.namespace, object.id, any path under status.",
    ),
    ("limit", "integer", "How many objects a page has at most; metadata.continue leads to the next."),
    ("continue", "string", "From metadata.continue of the page before."),
    ("resourceVersion", "string", "List: not older than this. Watch: what came after this."),
    ("resourceVersionMatch", "string", "Exact or NotOlderThan."),
    ("timeoutSeconds", "integer", "Ends the watch after so many seconds."),
    ("watch", "boolean", "Stream changes, one JSON object a line, instead of listing."),
    ("allowWatchBookmarks", "boolean", "Send BOOKMARK events: places to resume from."),
    ("sendInitialEvents", "boolean", "Begin the watch with every object as ADDED."),
)


def _paths(kind: Kind, ref: str) -> dict[str, Any]:
    """List, list of one namespace, get. A watch is a list with `watch=true`."""
    if not kind.group:
        return {
            f"/api/v1/{kind.plural}": {"get": _operation(kind, ref, "list", "List"), "parameters": _query(ref)},
            f"/api/v1/{kind.plural}/{{name}}": {"get": _operation(kind, ref, "get"), "parameters": [_in_path("name", ref)]},
        }
    base = f"/apis/{kind.group}/v1"
    if not has_namespaces(kind.group):
        return {
            f"{base}/{kind.plural}": {"get": _operation(kind, ref, "list", "List"), "parameters": _query(ref)},
            f"{base}/{kind.plural}/{{name}}": {"get": _operation(kind, ref, "get"), "parameters": [_in_path("name", ref)]},
        }
    inside = f"{base}/namespaces/{{namespace}}/{kind.plural}"
    names = [_in_path("namespace", ref)]
    return {
        f"{base}/{kind.plural}": {"get": _operation(kind, ref, "list", "List", "ForAllNamespaces"), "parameters": _query(ref)},
        inside: {"get": _operation(kind, ref, "list", "List", "Namespaced"), "parameters": [*names, *_query(ref)]},
        f"{inside}/{{name}}": {
            "get": _operation(kind, ref, "get", "", "Namespaced"),
            "parameters": [_in_path("name", ref), *names],
        },
    }


def _operation(kind: Kind, ref: str, action: str, suffix: str = "", scope: str = "") -> dict[str, Any]:
    operation: dict[str, Any] = {
        "description": f"{action} objects of kind {kind.kind}" if suffix else f"{action} one object of kind {kind.kind}",
        "operationId": f"{action}V1{scope}{kind.kind}",
        "tags": [f"{kind.group or 'core'}_v1"],
        # As the CRD paths of a real server: the kind itself, also where a list is answered. `explain` starts here.
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    schema = {"$ref": ref + _name(kind) + suffix}
    if ref == _V2:
        operation["produces"] = ["application/json"]
        operation["responses"] = {"200": {"description": "OK", "schema": schema}}
    else:
        operation["responses"] = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    return operation


def _query(ref: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "description": doc, **({"type": type_} if ref == _V2 else {"schema": {"type": type_}})}
        for name, type_, doc in _LIST_PARAMETERS
    ]


def _in_path(name: str, ref: str) -> dict[str, Any]:
    what = "The project's id." if name == "namespace" else "The object's name: its id."
    typed = {"type": "string"} if ref == _V2 else {"schema": {"type": "string"}}
    return {"name": name, "in": "path", "required": True, "description": what, **typed}


# --- schemas ---------------------------------------------------------------------------------------------------------------


def _definitions(kinds: Sequence[Kind], ref: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in kinds:
        found[_name(kind)] = _object(kind, ref)
        found[_name(kind) + "List"] = _list(kind, ref)
    found[_META + "ObjectMeta"] = _OBJECT_META
    found[_META + "ListMeta"] = _LIST_META
    return found


def _object(kind: Kind, ref: str) -> dict[str, Any]:
    return {
        "description": kind.doc,
        "type": "object",
        "properties": {
            "apiVersion": _string(f"{kind.group}/v1" if kind.group else "v1"),
            "kind": _string(kind.kind),
            "metadata": _reference(
                ref + _META + "ObjectMeta", "Its name, namespace (the project) and revision, and where they are from.", ref
            ),
            "status": {
                "description": "The fields, named as OpenStack's API names them.",
                "type": "object",
                "properties": {"id": _string("The id that OpenStack gave it."), **{n: _field(f) for n, f in kind.fields.items()}},
            },
        },
        "x-kubernetes-group-version-kind": [_gvk(kind)],
    }


def _list(kind: Kind, ref: str) -> dict[str, Any]:
    return {
        "description": f"A list of {kind.plural}.",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": _string(f"{kind.group}/v1" if kind.group else "v1"),
            "kind": _string(f"{kind.kind}List"),
            "metadata": _reference(ref + _META + "ListMeta", "The list's own: its revision, and where it goes on.", ref),
            "items": {"description": "The objects.", "type": "array", "items": {"$ref": ref + _name(kind)}},
        },
        "x-kubernetes-group-version-kind": [_gvk(kind, "List")],
    }


def _field(field: Field) -> dict[str, Any]:
    """Its items and keys are OpenStack's own and not described any further."""
    schema: dict[str, Any] = {
        "description": f"{field.doc} {ADMIN_ONLY}" if field.admin else field.doc,
        "type": field.type,
        # OpenStack says null for nearly everything that has no value.
        "nullable": True,
    }
    if field.type == "array":
        schema["items"] = {}
    if field.type == "object":
        schema["x-kubernetes-preserve-unknown-fields"] = True
    return schema


def _string(doc: str) -> dict[str, Any]:
    return {"description": doc, "type": "string"}


def _map(doc: str) -> dict[str, Any]:
    return {"description": doc, "type": "object", "additionalProperties": {"type": "string"}}


def _reference(to: str, doc: str, ref: str) -> dict[str, Any]:
    # Beside a $ref version 3.0 ignores every other key, hence the allOf that Kubernetes uses there too.
    return {"description": doc, "$ref": to} if ref == _V2 else {"description": doc, "allOf": [{"$ref": to}]}


_OBJECT_META: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _string("The id; bytes outside A-Z a-z 0-9 . _ : @ - are written as ~ and two hex digits."),
        "namespace": _string("The project's id; `no-project` when it has none, or while none is known."),
        "uid": _string("The id where it is a UUID, else a UUID made for it."),
        "resourceVersion": _string("The revision of its last change: a place in the log, comparable as a number."),
        "creationTimestamp": {**_string("When it was created."), "format": "date-time"},
        "labels": _map("vedette.dev/source: the source it was seen at."),
        "annotations": _map(
            "Where the last change was learnt: vedette.dev/origin, vedette.dev/event-type, vedette.dev/observed-at."
        ),
    },
}
_LIST_META: dict[str, Any] = {
    "type": "object",
    "properties": {
        "resourceVersion": _string("The revision that the list is as of: watch from here."),
        "continue": _string("Where the next page starts; empty on the last."),
        "remainingItemCount": {
            "description": "How many more there are, where it is known.",
            "type": "integer",
            "format": "int64",
        },
    },
}
