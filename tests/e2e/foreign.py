"""What sources/kubernetes.py appends, appended by hand: objects of an API server that isn't there."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
from serving import Running

from vedette.kit.clock import SystemClock
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE, Reading

CREATED = "2026-11-20T15:00:00Z"
_numbers = itertools.count(100)


def resource(
    plural: str, kind: str, group: str = "", version: str = "v1", *, namespaced: bool = True, short: tuple[str, ...] = ()
) -> Reading:
    fields = {
        "plural": plural,
        "singular": kind.lower(),
        "kind": kind,
        "group": group,
        "version": version,
        "namespaced": namespaced,
        "shortNames": list(short),
        "categories": ["all"],
    }
    id_ = f"{plural}.{group}/{version}" if group else f"{plural}/{version}"
    return Reading(kind="Resource", group=VEDETTE, id=id_, verb="update", as_of=SystemClock().now_us(), fields=fields)


def thing(
    kind: str, api_version: str, id_: str, verb: str = "create", *, project: str | None = None, labels: Any = None, **rest: Any
) -> Reading:
    group, _, _ = api_version.rpartition("/")
    namespace, _, name = id_.rpartition("/")
    number = next(_numbers)
    metadata: dict[str, Any] = {"name": name, **({"namespace": namespace} if namespace else {})}
    metadata |= {"uid": f"uid-of-{name}", "creationTimestamp": CREATED, "labels": labels or {"app": name}}
    metadata |= {"annotations": {"vedette.dev/origin-resource-version": str(number)}}
    return Reading(
        kind=kind,
        group=group,
        id=id_,
        verb=verb,  # type: ignore[arg-type]
        as_of=SystemClock().now_us(),
        version=number,
        project=project,
        fields={"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest},
        whole=True,
    )


def route(id_: str, verb: str = "create", host: str = "shop.example", **rest: Any) -> Reading:
    return thing("Route", "route.openshift.io/v1", id_, verb, spec={"host": host}, status={"ingress": []}, **rest)


async def told(running: Running, *readings: Reading, source: str = "prod") -> int:
    notice = Notice(
        id=f"f{next(_numbers)}", source=source, event_type="kubernetes.change", sent_at=0, payload=msgspec.Raw(b"{}"),
        origin="watch",
    )  # fmt: skip
    assert running.service.store is not None
    (revision,) = await running.service.store.append([NewEntry(notice, readings)])
    assert revision is not None
    return revision


def sources(folder: Path) -> list[dict[str, Any]]:
    quiet = str(folder / "quiet.jsonl")
    names: list[dict[str, Any]] = [{"name": "one", "default": True}, {"name": "prod"}, {"name": "other"}]
    return [{"type": "replay", "path": quiet, **one} for one in names]
