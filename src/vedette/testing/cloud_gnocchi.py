"""The fake cloud's Gnocchi: resources with metrics, and their measures. Not in the catalog until it is asked for
(`cloud.metric.in_catalog = True`).

A metric has what its archive policy keeps: aggregations, at granularities. Who asks for several metrics at once gets an error for
all of them if one lacks what is asked for, as from the real one.
https://gnocchi.osci.io/rest.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vedette.kit.clock import parse_us, rfc3339_us
from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Service

POLICIES: Mapping[str, tuple[frozenset[str], tuple[float, ...]]] = {
    "ceilometer-low": (frozenset({"mean"}), (300.0,)),
    "ceilometer-low-rate": (frozenset({"mean", "rate:mean"}), (300.0,)),
    "concertim-rate": (frozenset({"mean", "rate:mean"}), (5.0, 60.0, 3600.0)),
    "ceilometer-high": (frozenset({"mean", "min", "max", "count"}), (1.0, 60.0, 3600.0)),
}
"""Archive policy → (its aggregations, its granularities in seconds)."""


class Gnocchi(Service):
    type = "metric"
    name = "gnocchi"
    root = "/v1"

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.in_catalog = False
        self.resources: dict[str, Row] = {}
        """Id → resource, in the order of creation."""
        self.measures: dict[tuple[str, str, float], list[tuple[int, float]]] = {}
        """(metric, aggregation, granularity) → (UTC microseconds, value), oldest first."""
        self.archive_policies = set(POLICIES)
        """Those that it has."""
        self.policies: dict[str, str] = {}
        """Metric → its archive policy."""

    def resource(self, type_: str, name: str, *, id_: str = "", **more: Any) -> str:
        """`name`: its original id (of a host `NAME_NAME`); `more`: attributes of its type; its id."""
        id_ = id_ or self.house.id()
        plain: Row = {"id": id_, "type": type_, "original_resource_id": name or id_, "metrics": {}, "ended_at": None}
        self.resources[id_] = plain | more
        return id_

    def measured(
        self,
        resource: str,
        metric: str,
        values: Iterable[tuple[int, float]],
        *,
        policy: str = "ceilometer-low",
        how: str = "mean",
    ) -> None:
        """Measures of one aggregation, at each of its policy's granularities: (UTC microseconds, value)."""
        metrics = self.resources[resource]["metrics"]
        id_ = metrics.setdefault(metric, self.house.id())
        self.policies[id_] = policy
        for granularity in POLICIES[policy][1]:
            self.measures[id_, how, granularity] = sorted(values)

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path.rstrip("/"):
            return None
        links = [{"rel": "self", "href": f"{self.url}/v1/"}]
        return Reply({"versions": [{"status": "CURRENT", "links": links, "id": "v1.0", "updated": "2015-03-19"}]})

    def error(self, why: Refused) -> Reply:
        titles = {400: "Bad Request", 403: "Forbidden", 404: "Not Found"}
        said = {"cause": str(why), "detail": []} if why.more else str(why)
        return Reply({"code": why.status, "title": titles.get(why.status, "Error"), "description": said}, why.status)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("GET", r"/capabilities", self._capabilities),
            ("GET", r"/archive_policy/([^/]+)", self._archive_policy),
            ("POST", r"/search/resource/([^/]+)", self._search),
            ("POST", r"/aggregates", self._aggregates),
        )

    def _capabilities(self, ask: Ask) -> Reply:
        return Reply({"aggregation_methods": ["mean", "min", "max", "count", "rate:mean"]})

    def _archive_policy(self, ask: Ask) -> Reply:
        if ask.named[0] not in self.archive_policies:
            raise Refused(404, f"Archive policy {ask.named[0]} does not exist")
        return Reply({"name": ask.named[0], "definition": [], "aggregation_methods": ["mean"], "back_window": 0})

    def _search(self, ask: Ask) -> Reply:
        """`=` and `in` of an attribute; pages by `limit` and `marker`."""
        wanted = _filter(ask.body)
        found = [one for one in self.resources.values() if ask.named[0] in ("generic", one["type"]) and wanted(one)]
        if marker := ask.one("marker"):
            at = next((n for n, one in enumerate(found) if one["id"] == marker), None)
            if at is None:
                raise Refused(400, f"Invalid marker: {marker}")
            found = found[at + 1 :]
        return Reply(found[: int(ask.one("limit") or 1000)])

    def _aggregates(self, ask: Ask) -> Reply:
        """Several metrics by their ids: all of them, or an error."""
        operations = ask.body.get("operations") if isinstance(ask.body, dict) else None
        if not isinstance(operations, list) or operations[:1] != ["metric"] or len(operations) < 2:
            raise Refused(400, "Invalid input: operations")
        start, stop = parse_us(ask.one("start")), parse_us(ask.one("stop"))
        if start is None or stop is None:
            raise Refused(400, "Invalid input: start and stop")
        granularity = float(ask.one("granularity"))
        fill = ask.one("fill")
        if fill not in ("", "dropna", "null"):
            raise Refused(400, f"Invalid value for 'fill' : {fill}", more=True)
        times: set[frozenset[int]] = set()
        measures: dict[str, dict[str, list[list[Any]]]] = {}
        for id_, how in operations[1:]:
            policy = self.policies.get(id_)
            if policy is None:
                raise Refused(404, "Unknown metrics", more=True)
            aggregations, granularities = POLICIES[policy]
            if how not in aggregations:
                raise Refused(404, "Metrics with unknown aggregation", more=True)
            if granularity not in granularities:
                raise Refused(400, "Metrics can't being aggregated: Granularities are missing")
            points = [(at, value) for at, value in self.measures.get((id_, how, granularity), []) if start <= at < stop]
            times.add(frozenset(at for at, _ in points))
            # A measure is at the start of its span.
            measures.setdefault(id_, {})[how] = [
                [rfc3339_us(at), granularity, value] for at, value in points if fill != "dropna" or not math.isnan(value)
            ]
        if not fill and (len(times) > 1 or not any(times)):
            raise Refused(400, "Metrics can't being aggregated: No overlap", more=True)
        return Reply({"measures": measures})


def _filter(said: Any) -> Callable[[Row], bool]:
    """`{"=": {attribute: value}}`, `{"in": {attribute: [values]}}`, or `{"and": […]}` of them."""
    if not isinstance(said, dict) or len(said) != 1:
        raise Refused(400, "Invalid input: expected a dictionary")
    ((operator, pair),) = said.items()
    if operator == "and" and isinstance(pair, list):
        every = [_filter(one) for one in pair]
        return lambda row: all(one(row) for one in every)
    if operator not in ("=", "in") or not isinstance(pair, dict) or len(pair) != 1:
        raise Refused(400, f"Invalid input: {operator}")
    ((name, value),) = pair.items()
    wanted = frozenset(value if operator == "in" else [value])
    return lambda row: row.get(name) in wanted
