"""Strategies on clouds of 100 to 1,000 hosts, beside OpenStack Watcher's own code on the same clouds and the same measurements.

Each run is a process of its own: seconds of the strategy alone, the peak of its memory, and what its plan comes to when it is
done: hosts that hold nothing any more, the deviation of the load, migrations, and whether a host was given more than it takes.
`python bench/strategies.py [--watcher=PYTHON] [SECONDS]`: the Python that python-watcher is installed in, and what a run of it
may take (120).
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from peers import BUILD
from vedette import plugins
from vedette.model.advice import Query
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.testing.strategy_suite import with_defaults

SIZES = ((100, 5_000), (1_000, 20_000), (1_000, 100_000))
GOALS = {(100, 5_000): 1.0, (1_000, 20_000): 5.0, (1_000, 100_000): 30.0}
STRATEGIES = ("basic", "vm_workload_consolidation", "workload_stabilization", "node_resource_consolidation")
PARAMETERS: dict[str, dict[str, Any]] = {
    "node_resource_consolidation": {
        "host_choice": "specify"
    },  # `auto` names no hosts: what it comes to is the scheduler's affair
    "workload_stabilization": {"thresholds": {"instance_cpu_usage": 0.03, "instance_ram_usage": 0.03}},
}
HERE = Path(__file__)


def cloud(hosts: int, servers: int) -> dict[str, Any]:
    """Hosts of 96 processors, some busy and some nearly idle; servers that use a part of their flavors."""
    dice = random.Random(hosts + servers)
    names = [f"host-{number:04}" for number in range(hosts)]
    weights = [dice.uniform(0.3, 1.7) for _ in names]
    there = [
        {"uuid": f"{n:08x}-0000-4000-8000-00000000000a", "hostname": name, "vcpus": 96, "vcpus_ratio": 4.0, "memory": 1_048_576,
         "disk": 20_000}
        for n, name in enumerate(names)
    ]  # fmt: skip
    instances, cpu, ram = [], {}, {}
    load, memory = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for n, on in enumerate(dice.choices(names, weights, k=servers)):
        id_, vcpus, much = f"{n:08x}-0000-4000-8000-00000000000b", dice.choice((1, 1, 2, 4)), dice.choice((1_024, 2_048, 4_096))
        instances.append({"uuid": id_, "name": f"server-{n}", "host": on, "vcpus": vcpus, "memory": much, "disk": 10})
        cpu[id_], ram[id_] = round(dice.uniform(1, 40), 2), round(much * dice.uniform(0.2, 0.9), 1)
        load[on] += cpu[id_] / 100 * vcpus
        memory[on] += ram[id_]
    values = {
        "instance_cpu_usage": cpu,
        "instance_ram_usage": ram,
        "host_cpu_usage": {name: round(100 * used / 96, 3) for name, used in load.items()},
        "host_ram_usage": {name: round(used, 1) for name, used in memory.items()},
    }
    return {"hosts": there, "servers": instances, "values": values, "parameters": PARAMETERS}


def ours(file: str, name: str) -> None:
    """In a process of its own."""
    said = json.loads(Path(file).read_text())
    snapshot = Snapshot(
        revision=1,
        hosts=tuple(msgspec.convert({**one, "service_host": one["hostname"]}, Host) for one in said["hosts"]),
        servers=tuple(msgspec.convert(one, Server) for one in said["servers"]),
    )
    strategy = plugins.strategies()[name]
    parameters = with_defaults(strategy, said["parameters"].get(name, {}))
    metrics: dict[Query, dict[str, float]] = {
        query: said["values"][query.metric] for query in strategy.metrics(snapshot, parameters)
    }
    begun = time.perf_counter()
    solution = strategy.propose(snapshot, metrics, parameters, ())
    seconds = time.perf_counter() - begun
    actions = [{"type": one.action_type, **one.parameters} for one in solution.actions]
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "actions": actions}))


def outcome(said: dict[str, Any], actions: list[dict[str, Any]]) -> dict[str, float]:
    """What the cloud is when the plan is done, counted alike for both."""
    at = {one["uuid"]: one["host"] for one in said["servers"]}
    by_id = {one["uuid"]: one for one in said["servers"]}
    names = {one["uuid"]: one["hostname"] for one in said["hosts"]}
    cpu = said["values"]["instance_cpu_usage"]
    moves = [one for one in actions if one["type"] == "migrate"]
    for one in moves:
        at[one["resource_id"]] = names.get(one["destination_node"], one["destination_node"])
    given = {at[one["resource_id"]] for one in moves}
    used = {one["hostname"]: [0, 0, 0] for one in said["hosts"]}
    load = dict.fromkeys(used, 0.0)
    for id_, host in at.items():
        for place, what in enumerate(("vcpus", "memory", "disk")):
            used[host][place] += by_id[id_][what]
        load[host] += cpu[id_] / 100 * by_id[id_]["vcpus"] / 96
    mean = sum(load.values()) / len(load)
    room = {one["hostname"]: (one["vcpus"] * one["vcpus_ratio"], one["memory"], one["disk"]) for one in said["hosts"]}
    return {
        "free": sum(not any(have) for have in used.values()),
        "deviation": math.sqrt(sum((one - mean) ** 2 for one in load.values()) / len(load)),
        "migrations": len(moves),
        "overfull": sum(any(have > most for have, most in zip(used[name], room[name], strict=True)) for name in given),
    }


def run(command: list[str], limit: float) -> dict[str, Any] | None:
    """What it printed; None: it was cut."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(watcher: str, limit: float) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        for size in SIZES:
            said = cloud(*size)
            file = Path(name) / "cloud.json"
            file.write_text(json.dumps(said))
            now = outcome(said, [])
            print(f"{size[0]:,} hosts, {size[1]:,} servers: {now['free']} hosts hold nothing, deviation {now['deviation']:.4f}")
            for strategy in STRATEGIES:
                mine = run([sys.executable, str(HERE), "--ours", str(file), strategy], 600)
                assert mine is not None, f"{strategy} does not end"
                line = f"  {strategy}: {told(said, mine)} (wanted: {GOALS[size]:g} s)"
                if watcher:
                    peer = str(HERE.with_name("strategies_watcher.py"))
                    theirs = run([watcher, "-W", "ignore", peer, str(file), strategy], limit)
                    line += f"\n    Watcher: {f'more than {limit:g} s' if theirs is None else told(said, theirs)}"
                    if theirs is not None:
                        line += f"; {theirs['seconds'] / mine['seconds']:.0f} times as long"
                print(line, flush=True)


def told(said: dict[str, Any], answer: dict[str, Any]) -> str:
    found = outcome(said, answer["actions"])
    overfull = f", {found['overfull']:.0f} hosts OVERFULL" if found["overfull"] else ""
    return (
        f"{answer['seconds']:.2f} s, {found['free']:.0f} hosts hold nothing, deviation {found['deviation']:.4f}, "
        f"{found['migrations']:.0f} migrations{overfull}, {answer['peak']:.0f} MB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        ours(*sys.argv[2:])
    else:
        options = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("--watcher=")]
        numbers = [float(word) for word in sys.argv[1:] if not word.startswith("--")]
        main(options[0] if options else "", numbers[0] if numbers else 120)
