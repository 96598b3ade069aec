"""Switches machines off that hold no server and aren't needed as spares, and on again when there are too few.

Spares are machines that are on and whose host is empty. Wanted are `free_used_percent` per cent of the hosts that hold servers,
rounded down, but at least `min_free_hosts_num`. It moves nothing: run a consolidation before.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Host, Machine, Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import ended

_On = tuple[Machine, Host]


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    busy = 0
    spare: list[_On] = []
    off: list[_On] = []
    notes: list[str] = []
    for machine in snapshot.machines:
        host = snapshot.host.get(machine.hostname)
        if host is None:
            continue  # no host of the audit's scope
        if snapshot.servers_on[host.hostname]:
            busy += 1
        elif machine.maintenance:
            notes.append(f"machine {_called(machine)} is in maintenance: it is left as it is")
        elif machine.power_state == "power on" and host.state == "up":
            spare.append((machine, host))
        elif machine.power_state == "power off":
            off.append((machine, host))
        elif machine.power_state == "power on":
            notes.append(f"machine {_called(machine)} is on, but its host is {host.state}: it counts as no spare")
        else:
            notes.append(f"machine {_called(machine)} says {machine.power_state or 'nothing'} of its power: it is left as it is")

    wanted = max(0, int(max(busy * parameters["free_used_percent"] / 100, parameters["min_free_hosts_num"])))
    # Watcher draws lots. Here those go first that serve least (a disabled host takes no servers), and come first that serve.
    spare.sort(key=lambda one: (one[1].usable, one[1].hostname))
    off.sort(key=lambda one: (one[1].status != "enabled", one[1].hostname))
    actions = [_switch(one, "off") for one in spare[: max(0, len(spare) - wanted)]]
    actions += [_switch(one, "on") for one in off[: max(0, wanted - len(spare))]]
    missing = wanted - len(spare) - len(off)
    if missing > 0:
        notes.append(f"{wanted} spare hosts are wanted, and {missing} of them are not to be had: no more machines are off")
    return Solution(actions=tuple(actions), notes=ended(notes))


def _called(machine: Machine) -> str:
    return f"{machine.name} ({machine.uuid})" if machine.name else machine.uuid


def _switch(one: _On, state: str) -> Proposed:
    machine, host = one
    return Proposed("change_node_power_state", {"resource_id": machine.uuid, "resource_name": host.hostname, "state": state})


STRATEGY = Strategy(
    name="saving_energy",
    display_name="Saving Energy Strategy",
    goal="saving_energy",
    doc="Switches machines without servers off, beyond the spares that are wanted, and on again when there are too few spares.",
    schema={
        "properties": {
            "free_used_percent": {
                "description": "Spares that are wanted, in per cent of the hosts that hold servers.",
                "type": "number",
                "default": 10.0,
            },
            "min_free_hosts_num": {
                "description": "Spares that are wanted at the least: hosts without servers whose machine is on.",
                "type": "number",
                "default": 1,
            },
        }
    },
    models=("compute", "baremetal"),
    propose=propose,
)
