"""What a strategy is asked with and answers: measurements it wants, what set the audit off, and the actions that it proposes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

MetricName = Literal[
    "host_cpu_usage",
    "host_ram_usage",
    "host_outlet_temp",
    "host_inlet_temp",
    "host_airflow",
    "host_power",
    "instance_cpu_usage",
    "instance_ram_usage",
    "instance_ram_allocated",
    "instance_l3_cache_usage",
    "instance_root_disk_size",
]
"""Watcher's names. Units, whatever the datasource has: cpu in per cent (of a server: of its own vCPUs) 0…100; ram in MiB; disk in
GiB; temperatures in °C; airflow in tenths of CFM; power in W; cache in bytes."""


class Query(msgspec.Struct, frozen=True):
    """One measurement of every host, or of every server: meters answer it in as few requests as they can."""

    metric: MetricName
    aggregate: Literal["mean", "min", "max", "count"] = "mean"
    period: int = 300
    """Seconds that are looked at, up to the moment of the audit."""
    granularity: int = 300
    """Seconds of one point."""
    optional: bool = False
    """The strategy can do without: that no meter tells it is no reason not to run."""

    @property
    def of_hosts(self) -> bool:
        return self.metric.startswith("host_")


Metrics = Mapping[Query, Mapping[str, float]]
"""Query → host name (`Host.hostname`) or server id → value. What isn't there was not measured: it is neither 0 nor 100."""


class Resource(msgspec.Struct, frozen=True, gc=False):
    """A host or a server as a meter needs it."""

    id: str
    """Of a host its name, of a server its id: what the answer is keyed by."""
    uuid: str
    vcpus: int = 0
    memory: int = 0
    """MiB."""
    disk: int = 0
    """GiB."""


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What set an EVENT audit off."""

    at: int
    """UTC microseconds."""
    cause: Literal["webhook", "rule", "user", "reconcile"] = "webhook"
    """`reconcile`: an alarm whose webhook never came."""
    rule: str = ""
    """The rule's name."""
    alarm: Any = None
    """The body that the webhook was sent, or the event that the rule matched (as a CloudEvent)."""
    objects: tuple[str, ...] = ()
    """Ids and names of hosts and servers that it speaks of."""
    revision: int = 0
    """Of the entry of the log that tells of it."""


class Proposed(msgspec.Struct, frozen=True):
    """One action, not yet in any order. `parameters` are Watcher's `input_parameters`, `resource_id` among them."""

    action_type: str
    parameters: dict[str, Any]
    after: tuple[int, ...] = ()
    """Places in `Solution.actions` of earlier ones that it has to come after, where their parameters don't tell: a server after
    the volumes that are attached to it."""


class Solution(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy proposes: in the order in which it thought of it."""

    actions: tuple[Proposed, ...] = ()
    indicators: dict[str, float] = {}
    """Efficacy indicators of the strategy's goal (model/goals.py), by name."""
    notes: tuple[str, ...] = ()
    """Sentences for the operator: what was left out and why (no data for host x, server y is locked). At most 100 are kept."""


class Done(msgspec.Struct, frozen=True, gc=False):
    """What became of one action of a plan."""

    action_type: str
    parameters: dict[str, Any]
    state: str
    """SUCCEEDED, FAILED, SKIPPED, CANCELLED, PENDING; an action that was undone counts as CANCELLED."""
