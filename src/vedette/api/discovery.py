"""What there is, as Kubernetes' discovery documents: kinds come in, dicts ready for JSON go out. routes/discovery.py serves them.

Plain discovery (`/api`, `/apis`, one list a group) is what kubectl 1.20, kr8s, kopf and the Python clients read; the aggregated
form (`APIGroupDiscoveryList`, KEP-3352) is what kubectl asks for since 1.26, two requests instead of one a group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vedette import __version__
from vedette.ports import Column, Field, Kind

VERBS = ("get", "list", "watch")
CATEGORIES = ("openstack",)
"""`kubectl get openstack` lists every kind."""

NAMESPACE = Kind(
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    short_names=("ns",),
    group="",
    doc="A project that the caller may look into; its name is the project's id.",
    events=(),
    read=lambda notice: (),
    fields={"phase": Field("string", "Always Active: a project that is gone is not listed.")},
    columns=(Column("Status", ("phase",)),),
)
"""The one kind of the core group. It isn't read from notices; it is made of the projects in the store."""

KUBERNETES_MINOR = 32
"""The Kubernetes release whose API we speak. Clients compare it with their own: kr8s warns outside 1.28–1.35, `kubectl version`
when it is more than one away."""


def api_versions() -> dict[str, Any]:
    """`/api`. No serverAddressByClientCIDRs: clients stay at the address they came to."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def core_resources() -> dict[str, Any]:
    """`/api/v1`: namespaces. (kopf waits for ever without them.)"""
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [_resource(NAMESPACE)]}


def groups(kinds: Sequence[Kind]) -> list[str]:
    """The API groups, in the order of their first kind."""
    return list(dict.fromkeys(kind.group for kind in kinds if kind.group))


def group_list(kinds: Sequence[Kind]) -> dict[str, Any]:
    """`/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups(kinds)]}


def group(name: str) -> dict[str, Any]:
    """`/apis/{group}`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def resources(kinds: Sequence[Kind], group: str) -> dict[str, Any]:
    """`/apis/{group}/v1`."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/v1",
        "resources": [_resource(kind) for kind in kinds if kind.group == group],
    }


def aggregated(kinds: Sequence[Kind], version: str, *, core: bool = False) -> dict[str, Any]:
    """`/apis` (or with `core` `/api`) as APIGroupDiscoveryList; `version` is `v2` or `v2beta1`, which differ in nothing else."""
    names = [""] if core else groups(kinds)
    served = (NAMESPACE,) if core else kinds
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": "v1",
                        "resources": [_discovered(kind) for kind in served if kind.group == name],
                        "freshness": "Current",
                    }
                ],
            }
            for name in names
        ],
    }


def aggregated_type(version: str) -> str:
    """The Content-Type by which a client knows that it got the aggregated form."""
    return f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def version() -> dict[str, str]:
    """`/version`. Every key is there and a string: kubernetes_asyncio refuses null; semver and PEP 440 both read gitVersion."""
    ours = re.sub(r"[^0-9A-Za-z.]+", ".", __version__)
    return {
        "major": "1",
        "minor": str(KUBERNETES_MINOR),
        "gitVersion": f"v1.{KUBERNETES_MINOR}.0+vedette-{ours}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    }


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resource(kind: Kind) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.group != "",
        "kind": kind.kind,
        "verbs": list(VERBS),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.group:
        resource["categories"] = list(CATEGORIES)
    return resource


def _discovered(kind: Kind) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": "v1", "kind": kind.kind},
        "scope": "Namespaced" if kind.group else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(VERBS),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.group:
        resource["categories"] = list(CATEGORIES)
    return resource
