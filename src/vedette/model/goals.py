"""Watcher's goals, their efficacy indicators, and what follows from these for the whole.

A strategy gives indicators (`Solution.indicators`); `overall` makes the global efficacy of them. Names, units and texts are
Watcher's (its goal/efficacy/specs.py); its inverted ratios and divisions by zero are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}


class Indicator(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    unit: str | None = None
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: _COUNT)


class Overall(msgspec.Struct, frozen=True, kw_only=True):
    """One number for the whole, from the indicators."""

    name: str
    description: str
    unit: str
    of: Callable[[Mapping[str, float]], float]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    display_name: str
    indicators: tuple[Indicator, ...] = ()
    overall: tuple[Overall, ...] = ()
    default_strategy: str = ""
    """Of audits that name none."""


def _share(part: str, whole: str) -> Callable[[Mapping[str, float]], float]:
    """Per cent; of nothing at all, 0."""

    def share(indicators: Mapping[str, float]) -> float:
        total = indicators.get(whole, 0)
        return 100.0 * indicators.get(part, 0) / total if total else 0.0

    return share


GOALS: tuple[Goal, ...] = (
    Goal(name="airflow_optimization", display_name="Airflow Optimization", default_strategy="uniform_airflow"),
    Goal(name="cluster_maintaining", display_name="Cluster Maintaining", default_strategy="host_maintenance"),
    Goal(name="dummy", display_name="Dummy goal", default_strategy="dummy"),
    Goal(
        name="hardware_maintenance",
        display_name="Hardware Maintenance",
        default_strategy="zone_migration",
        indicators=(
            Indicator(name="live_migrate_instance_count", description="The number of instances actually live migrated."),
            Indicator(name="planned_live_migrate_instance_count", description="The number of instances planned to live migrate."),
            Indicator(name="cold_migrate_instance_count", description="The number of instances actually cold migrated."),
            Indicator(name="planned_cold_migrate_instance_count", description="The number of instances planned to cold migrate."),
            Indicator(name="volume_migrate_count", description="The number of detached volumes actually migrated."),
            Indicator(name="planned_volume_migrate_count", description="The number of detached volumes planned to migrate."),
            Indicator(name="volume_update_count", description="The number of attached volumes actually migrated."),
            Indicator(name="planned_volume_update_count", description="The number of attached volumes planned to migrate."),
        ),
        overall=tuple(
            Overall(
                name=name,
                description=f"Ratio of actual {what} to planned {what}.",
                unit="%",
                of=_share(actual, planned),
            )
            for name, what, actual, planned in (
                (
                    "live_instance_migrate_ratio",
                    "live migrated instances",
                    "live_migrate_instance_count",
                    "planned_live_migrate_instance_count",
                ),
                (
                    "cold_instance_migrate_ratio",
                    "cold migrated instances",
                    "cold_migrate_instance_count",
                    "planned_cold_migrate_instance_count",
                ),
                ("volume_migrate_ratio", "detached volumes migrated", "volume_migrate_count", "planned_volume_migrate_count"),
                ("volume_update_ratio", "attached volumes migrated", "volume_update_count", "planned_volume_update_count"),
            )
        ),
    ),
    Goal(name="noisy_neighbor", display_name="Noisy Neighbor", default_strategy="noisy_neighbor"),
    Goal(name="saving_energy", display_name="Saving Energy", default_strategy="saving_energy"),
    Goal(
        name="server_consolidation",
        display_name="Server Consolidation",
        default_strategy="vm_workload_consolidation",
        indicators=(
            Indicator(name="compute_nodes_count", description="The total number of enabled compute nodes."),
            Indicator(name="released_compute_nodes_count", description="The number of compute nodes to be released."),
            Indicator(name="instance_migrations_count", description="The number of VM migrations to be performed."),
        ),
        overall=(
            Overall(
                name="released_nodes_ratio",
                description="Ratio of released compute nodes divided by the total number of enabled compute nodes.",
                unit="%",
                of=_share("released_compute_nodes_count", "compute_nodes_count"),
            ),
        ),
    ),
    Goal(name="thermal_optimization", display_name="Thermal Optimization", default_strategy="outlet_temperature"),
    Goal(name="unclassified", display_name="Unclassified", default_strategy="actuator"),
    Goal(
        name="workload_balancing",
        display_name="Workload Balancing",
        default_strategy="workload_stabilization",
        indicators=(
            Indicator(name="instance_migrations_count", description="The number of VM migrations to be performed."),
            Indicator(name="instances_count", description="The total number of audited instances in strategy."),
            Indicator(
                name="standard_deviation_after_audit",
                description="The value of resulted standard deviation.",
                schema=_NUMBER,
            ),
            Indicator(
                name="standard_deviation_before_audit",
                description="The value of original standard deviation.",
                schema=_NUMBER,
            ),
        ),
        overall=(
            Overall(
                name="live_migrations_count",
                description="Ratio of migrated virtual machines to audited virtual machines.",
                unit="%",
                of=_share("instance_migrations_count", "instances_count"),
            ),
        ),
    ),
)

BY_NAME: dict[str, Goal] = {goal.name: goal for goal in GOALS}


def shown(goal: Goal, indicators: Mapping[str, float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(efficacy_indicators, global_efficacy) as Watcher's API has them on a plan; those that were not given are left out."""
    each = [
        {"name": one.name, "description": one.description, "unit": one.unit, "value": indicators[one.name]}
        for one in goal.indicators
        if one.name in indicators
    ]
    if not indicators:
        return each, []
    return each, [
        {"name": one.name, "description": one.description, "unit": one.unit, "value": one.of(indicators)} for one in goal.overall
    ]
