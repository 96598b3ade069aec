"""Hosts of ten vCPUs and servers of one, and what a solution says of them in a word: for golden tests."""

from __future__ import annotations

from typing import Any

from vedette.model.advice import Query, Solution
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Strategy
from vedette.testing.strategy_suite import with_defaults


def host(name: str, **more: Any) -> Host:
    return Host(uuid=f"u-{name}", hostname=name, service_host=name, **{"vcpus": 10, "memory": 10_000, "disk": 1_000, **more})


def server(name: str, on: str, **more: Any) -> Server:
    return Server(uuid=name, name=name, host=on, **{"vcpus": 1, "memory": 100, "disk": 1, **more})


def found(
    strategy: Strategy, hosts: list[Host], servers: list[Server], values: dict[str, dict[str, float]], **given: Any
) -> Solution:
    """`values`: metric → id → value."""
    snapshot = Snapshot(revision=1, hosts=tuple(hosts), servers=tuple(servers))
    parameters = with_defaults(strategy, given)
    metrics = {query: values[query.metric] for query in strategy.metrics(snapshot, parameters) if query.metric in values}
    return strategy.propose(snapshot, metrics, parameters, ())


def moves(solution: Solution) -> list[str]:
    """`server:from>to`, or `enabled:host`, in their order."""
    return [
        f"{one.parameters['resource_id']}:{one.parameters['source_node']}>{one.parameters.get('destination_node', '')}"
        if one.action_type == "migrate"
        else f"{one.parameters['state']}:{one.parameters['resource_name']}"
        for one in solution.actions
    ]


def query(strategy: Strategy, at: int = 0, **given: Any) -> Query:
    """The one that it asks in this place."""
    return strategy.metrics(Snapshot(revision=1), with_defaults(strategy, given))[at]
