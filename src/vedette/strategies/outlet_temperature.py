"""Takes one server off the hottest host, by the air that comes out of it, to the coolest one that has room."""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Query, Solution, Trigger
from vedette.model.snapshot import Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, ended, migration
from vedette.strategies._measured import divided, first_that_takes, number, running


def _query(parameters: JsonObject) -> Query:
    return Query("host_outlet_temp", "mean", int(parameters["period"]), int(parameters["granularity"]))


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    return [_query(parameters)]


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module. One server at a time: how much heat it takes along is only known afterwards."""
    notes: list[str] = []
    hot, cool = divided(snapshot, metrics.get(_query(parameters), {}), parameters["threshold"], "outlet temperature", notes)
    if not hot:
        notes.append("no host is too hot")
        return Solution(notes=ended(notes))
    room = Room(snapshot)
    for host in hot:
        for server in running(snapshot, host, notes):
            target = first_that_takes(cool, server, room)
            if target is not None:
                return Solution(actions=(migration(server, "live", target.hostname),), notes=ended(notes))
            notes.append(f"{called(server)} stays on {host.hostname}: no host that is cool enough has room for it")
    notes.append("no server can be taken off a host that is too hot")
    return Solution(notes=ended(notes))


STRATEGY = Strategy(
    name="outlet_temperature",
    display_name="Outlet temperature based strategy",
    goal="thermal_optimization",
    doc="Moves one server off the hottest host, by its outlet temperature, to the coolest host that has room for it.",
    schema={
        "properties": {
            "threshold": number("Degrees Celsius from which on a host is too hot.", 35.0),
            "period": number("Seconds that measurements are of.", 30),
            "granularity": number("Seconds of one point.", 300),
        },
    },
    metrics=_queries,
    propose=propose,
)
