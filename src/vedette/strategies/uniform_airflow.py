"""Takes servers off the host with the largest airflow: all if its fans blow though it is neither hot nor at work, else one.

Fans that blow for nothing are a fault of the machine. Where the air that comes in is warm, or the machine draws much, they blow
for its load.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import MetricName, Metrics, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, ended, held, migration
from vedette.strategies._measured import divided, first_that_takes, known, number, running

_METRICS: tuple[MetricName, ...] = ("host_airflow", "host_inlet_temp", "host_power")


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    return [Query(name, "mean", int(parameters["period"]), int(parameters["granularity"])) for name in _METRICS]


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    airflow, inlet, power = (metrics.get(query, {}) for query in _queries(snapshot, parameters))
    notes: list[str] = []
    windy, calm = divided(snapshot, airflow, parameters["threshold_airflow"], "airflow", notes)
    if not windy:
        notes.append("no host has too much airflow")
    for host in windy:
        temperature, watts = known(inlet, host.hostname), known(power, host.hostname)
        if temperature is None or watts is None:
            notes.append(
                f"host {host.hostname} is left alone: no {'inlet temperature' if temperature is None else 'power'} of it"
            )
            continue
        moves: list[tuple[Server, Host]] | None
        if temperature < parameters["threshold_inlet_t"] and watts < parameters["threshold_power"]:
            moves = _all(snapshot, host, calm, notes)
        else:
            moves = _one(snapshot, host, calm, notes)
        if moves:
            return Solution(actions=tuple(migration(one, "live", to.hostname) for one, to in moves), notes=ended(notes))
    return Solution(notes=ended(notes))


def _all(snapshot: Snapshot, host: Host, calm: Sequence[Host], notes: list[str]) -> list[tuple[Server, Host]]:
    """Every one that runs, large ones first; none if not all of them find a place."""
    room = Room(snapshot)
    live = [one for one in snapshot.servers_on[host.hostname] if one.live]
    stays = next((one for one in live if held(one)), None)
    if stays is not None:
        notes.append(f"host {host.hostname} can't be emptied: {called(stays)} {held(stays)}")
        return []
    moves: list[tuple[Server, Host]] = []
    for server in sorted(live, key=lambda one: (-one.vcpus, -one.memory, one.uuid)):
        target = first_that_takes(calm, server, room)
        if target is None:
            notes.append(f"host {host.hostname} can't be emptied: no host with less airflow has room for {called(server)}")
            return []
        room.take(target, server)
        moves.append((server, target))
    return moves


def _one(snapshot: Snapshot, host: Host, calm: Sequence[Host], notes: list[str]) -> list[tuple[Server, Host]]:
    room = Room(snapshot)
    for server in running(snapshot, host, notes):
        target = first_that_takes(calm, server, room)
        if target is not None:
            return [(server, target)]
        notes.append(f"{called(server)} stays on {host.hostname}: no host with less airflow has room for it")
    return []


STRATEGY = Strategy(
    name="uniform_airflow",
    display_name="Uniform airflow migration strategy",
    goal="airflow_optimization",
    doc="Moves servers off the host with the largest airflow: all of them if it is neither hot nor draws much power, else one.",
    schema={
        "properties": {
            "threshold_airflow": number("Airflow, in tenths of CFM, from which on there is too much of it.", 400.0),
            "threshold_inlet_t": number("Degrees Celsius of the air that comes in, up to which it is not warm.", 28.0),
            "threshold_power": number("Watts up to which a host draws little.", 350.0),
            "period": number("Seconds that measurements are of.", 300),
            "granularity": number("Seconds of one point.", 300),
        },
    },
    metrics=_queries,
    propose=propose,
)
