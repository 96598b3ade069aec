"""What there is, as Kubernetes' discovery documents: resources come in, dicts ready for JSON go out. routes/discovery.py serves
them, of our own kinds (`of_kind`) and of what a Kubernetes source has (clusters.py).

Plain discovery (`/api`, `/apis`, one list a group) is what kubectl 1.20, kr8s, kopf and the Python clients read; the aggregated
form (`APIGroupDiscoveryList`, KEP-3352) is what kubectl asks for since 1.26, two requests instead of one a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from vedette import __version__
from vedette.model.reading import OPENSTACK, VEDETTE, has_namespaces
from vedette.ports import Column, Field, Kind

VERBS = ("get", "list", "watch")
CATEGORIES: Mapping[str, tuple[str, ...]] = {OPENSTACK: ("openstack",), VEDETTE: ("vedette",)}
"""`kubectl get openstack` lists every kind of the cloud."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What may be asked for under a group and a version."""

    group: str
    """"" for the core group."""
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


def of_kind(kind: Kind) -> Resource:
    """One of our own; every group of ours has one version."""
    return Resource(
        group=kind.group,
        version="v1",
        plural=kind.plural,
        singular=kind.singular,
        kind=kind.kind,
        namespaced=has_namespaces(kind.group),
        short_names=kind.short_names,
        categories=CATEGORIES.get(kind.group, ()),
    )


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


class Grouped(Protocol):
    """A kind or a resource."""

    @property
    def group(self) -> str: ...


def groups(there: Iterable[Grouped]) -> list[str]:
    """The API groups but the core group, in the order in which they first come."""
    return list(dict.fromkeys(one.group for one in there if one.group))


def versions(there: Iterable[Resource], group: str) -> list[str]:
    """A group's versions, the preferred one first: as Kubernetes orders them, v2 before v1 before v1beta2 before the others."""
    return sorted({one.version for one in there if one.group == group}, key=_priority)


def group_list(there: Sequence[Resource]) -> dict[str, Any]:
    """`/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(there, name) for name in groups(there)]}


def group(there: Sequence[Resource], name: str) -> dict[str, Any]:
    """`/apis/{group}`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(there, name)}


def resources(there: Sequence[Resource], group: str, version: str = "v1") -> dict[str, Any]:
    """`/apis/{group}/{version}`; group "" is `/api/v1`. (kopf waits for ever without namespaces there.)"""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [_resource(one) for one in there if (one.group, one.version) == (group, version)],
    }


def aggregated(there: Sequence[Resource], version: str, *, core: bool = False) -> dict[str, Any]:
    """`/apis` (or with `core` `/api`) as APIGroupDiscoveryList; `version` is `v2` or `v2beta1`, which differ in nothing else."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": served,
                        "resources": [_discovered(one) for one in there if (one.group, one.version) == (name, served)],
                        "freshness": "Current",
                    }
                    for served in versions(there, name)
                ],
            }
            for name in ([""] if core else groups(there))
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


def _group(there: Sequence[Resource], name: str) -> dict[str, Any]:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions(there, name)]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


_VERSION = re.compile(r"v([0-9]+)(?:(alpha|beta)([0-9]+))?")


def _priority(version: str) -> tuple[int, int, int, str]:
    found = _VERSION.fullmatch(version)
    if found is None:
        return 3, 0, 0, version
    major, stage, minor = found.groups()
    return {None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version


def _resource(one: Resource) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "name": one.plural,
        "singularName": one.singular,
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": list(VERBS),
    }
    if one.short_names:
        resource["shortNames"] = list(one.short_names)
    if one.categories:
        resource["categories"] = list(one.categories)
    return resource


def _discovered(one: Resource) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resource": one.plural,
        "responseKind": {"group": one.group, "version": one.version, "kind": one.kind},
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.singular,
        "verbs": list(VERBS),
    }
    if one.short_names:
        resource["shortNames"] = list(one.short_names)
    if one.categories:
        resource["categories"] = list(one.categories)
    return resource
