"""Calls of handlers, events from a log on disk, every outcome durable: in the loop, through a worker process, beside kopf.

For each figure a process of its own, in interleaved rounds. The log holds a backlog that live handlers come back to (they were
stopped, and start again); the time is from when they are ready to the last outcome that is durable. kopf gets its events from our
API, all of new objects so that none waits for another's, and is measured from its first call to its last; it keeps nothing.
`python bench/dispatch.py [rounds]`
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from peers import BUILD, running
from vedette import plugins
from vedette.app import Service
from vedette.config import load_text
from vedette.engine import conditions
from vedette.engine.dispatch import Dispatch
from vedette.engine.line import Rule
from vedette.engine.matching import Match
from vedette.engine.worker import WorkerHandler, WorkerProcess
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Context, Event, Handler, WorkerCode
from vedette.store.sqlite import SqliteStore

EVENTS = 30_000
KOPF_EVENTS = 4_000
OBJECTS = 4_000
HANDLERS, PAIRS = 1_000, 50
KINDS = ("Port", "Server", "Network", "Subnet", "Router", "Volume", "Image", "LoadBalancer", "FloatingIP", "SecurityGroup")
HERE = Path(__file__)
PROJECT = "e1f65416a4774cd380649215b9f46e17"


class Noop:
    async def handle(self, event: Event, context: Context) -> str | None:
        return None

    async def close(self) -> None:
        pass


class Counted:
    """Another handler, and how often it was called."""

    def __init__(self, handler: Handler) -> None:
        self.handle_it, self.close = handler.handle, handler.close
        self.calls = 0

    async def handle(self, event: Event, context: Context) -> str | None:
        self.calls += 1
        return await self.handle_it(event, context)


def entry(number: int) -> NewEntry:
    """One of fifty kind/type pairs in turn; a notice and an object of about 1 kB each."""
    pair = number % PAIRS
    kind, event_type = KINDS[pair % len(KINDS)], f"thing.update.{pair // len(KINDS)}"
    fields = {"n": number, "host": f"host-{number // PAIRS % (HANDLERS // PAIRS)}", "status": "ACTIVE", "description": "x" * 800}
    payload = msgspec.Raw(msgspec.json.encode({"thing": fields}))
    said = Reading(kind=kind, id=f"id-{number % OBJECTS}", verb="update", as_of=number, project=PROJECT, fields=fields)
    return NewEntry(Notice(id=str(number), source="s", event_type=event_type, sent_at=10**15 + number, payload=payload), (said,))


def one_for_all(handler: Handler) -> list[Rule]:
    kinds = tuple(kind.lower() for kind in KINDS)
    return [Rule(name="noop", use="noop", handler=handler, on=(Match(kinds=kinds),))]


def by_itself(handler: Handler) -> list[Rule]:
    """As for foreign code: the process keeps to its deadline."""
    return [msgspec.structs.replace(rule, counts_itself=True) for rule in one_for_all(handler)]


def a_thousand(handler: Handler) -> list[Rule]:
    """Twenty on each pair; the condition of one of them holds."""
    rules = []
    for number in range(HANDLERS):
        pair, host = number % PAIRS, number // PAIRS
        match = Match(
            kinds=(KINDS[pair % len(KINDS)].lower(),),
            types=(f"thing.update.{pair // len(KINDS)}",),
            when=conditions.compile(f"object.status.status == 'ACTIVE' && object.status.host == 'host-{host}'"),
        )
        rules.append(Rule(name=f"noop-{number}", use="noop", handler=handler, on=(match,)))
    return rules


async def dispatched(folder: Path, handler: Handler, made: Callable[[Handler], list[Rule]]) -> float:
    """Calls a second."""
    clock, counted = SystemClock(), Counted(handler)
    rules = made(counted)

    def over(dispatch: Dispatch) -> bool:
        return counted.calls >= EVENTS and not any(one["pending"] or one["lag"] for one in dispatch.status())

    store = await SqliteStore.open(folder, clock)
    await run(store, rules, lambda dispatch: True)  # from here on they are live
    for start in range(0, EVENTS, 1000):
        await store.append([entry(number) for number in range(start, start + 1000)])
    seconds = await run(store, rules, over)
    done, after = 0, (0, "", 0)
    while some := await store.deliveries(outcomes=("done",), after=after, limit=5_000):
        done, after = done + len(some), (some[-1].revision, some[-1].handler, some[-1].number)
    if done != EVENTS:
        raise RuntimeError(f"{done} of {EVENTS} events were handled")
    await store.close()
    return EVENTS / seconds


async def run(store: SqliteStore, rules: Sequence[Rule], over: Callable[[Dispatch], bool]) -> float:
    """Seconds since it was ready."""
    dispatch = Dispatch(store, rules, plugins.kinds(), SystemClock(), Telemetry())
    task = asyncio.create_task(dispatch.run())
    await dispatch.ready.wait()
    begin = time.perf_counter()
    while not over(dispatch):
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - begin
    await cancel(task)
    return seconds


async def measure(what: str, folder: Path) -> float:
    match what:
        case "loop":
            return await dispatched(folder / "data", Noop(), one_for_all)
        case "thousand":
            return await dispatched(folder / "data", Noop(), a_thousand)
        case "worker":
            (folder / "noop.py").write_text("def handle(event, context):\n    pass\n")
            code = WorkerCode(name="noop", module=str(folder / "noop.py"))
            worker = WorkerProcess(code, clock=SystemClock(), telemetry=Telemetry())
            try:
                return await dispatched(folder / "data", WorkerHandler(worker), by_itself)
            finally:
                await worker.close()
    raise ValueError(what)


# --- kopf ------------------------------------------------------------------------------------------------------------------

OPERATOR = """
import time
import kopf

begin, count = 0.0, 0

@kopf.on.startup()
def settings(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.batching.batch_window = 0

@kopf.on.event("openstack.vedette.dev", "v1", "ports")
async def told(**_):
    global begin, count
    count += 1
    if count == 1:
        begin = time.perf_counter()
    if count == %d:
        print("RATE", count / (time.perf_counter() - begin), flush=True)
"""


async def kopf(folder: Path) -> float:
    """Our API serves, from memory; the operator runs in a process of its own."""
    (folder / "quiet.jsonl").touch()
    source = {"name": "s", "type": "replay", "path": str(folder / "quiet.jsonl")}
    settings = {"listen": "127.0.0.1:0", "data_dir": "", "auth": {"mode": "none"}, "sources": [source]}
    service = Service(load_text(json.dumps(settings), {}))
    await service.start()
    try:
        return await told_to_kopf(folder, service)
    finally:
        await service.stop()


async def told_to_kopf(folder: Path, service: Service) -> float:
    store, hub, port = service.store, service.hub, service.addresses[0][1]
    assert store is not None
    assert hub is not None
    (folder / "told.py").write_text(OPERATOR % KOPF_EVENTS)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "v", "users": [{"name": "v", "user": {}}],
        "clusters": [{"name": "v", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "v", "context": {"cluster": "v", "user": "v"}}],
    }  # fmt: skip
    (folder / "config").write_text(json.dumps(config))
    command = [sys.executable, "-m", "kopf", "run", "-A", "--standalone", "--quiet", str(folder / "told.py")]
    env = {**os.environ, "HOME": str(folder), "KUBECONFIG": str(folder / "config")}
    with running(*command, cwd=folder, env=env):
        output, until = folder / "output.log", time.monotonic() + 40
        while hub.watchers < 1:
            await asyncio.sleep(0.05)
            if time.monotonic() > until:
                raise TimeoutError(f"kopf does not watch: {output.read_text()[-2000:]}")
        await asyncio.sleep(0.5)
        for number in range(KOPF_EVENTS):
            said = entry(number)
            reading = msgspec.structs.replace(said.readings[0], kind="Port", id=f"id-{number}", verb="create")
            await store.append([NewEntry(said.notice, (reading,))])
        while "RATE" not in output.read_text():
            await asyncio.sleep(0.1)
            if time.monotonic() > until:
                raise TimeoutError(f"kopf does not end: {output.read_text()[-2000:]}")
        words = output.read_text().split()
    return float(words[words.index("RATE") + 1])


# --- together --------------------------------------------------------------------------------------------------------------


def child(what: str) -> float:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        done = subprocess.run([sys.executable, str(HERE), what, name], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr[-3000:]}")
    return float(done.stdout.split()[-1])


def main(rounds: int) -> None:
    found: dict[str, list[float]] = {"loop": [], "worker": [], "thousand": [], "kopf": []}
    for _ in range(rounds):
        for what, rates in found.items():
            rates.append(child(what))
    loop, worker, thousand, peer = (statistics.median(rates) for rates in found.values())
    beside = statistics.median(mine / other for mine, other in zip(found["loop"], found["kopf"], strict=True))
    share = statistics.median(many / one for many, one in zip(found["thousand"], found["loop"], strict=True))
    print(f"handler calls: {loop:,.0f}/s (wanted ≥ 5,000) | kopf {peer:,.0f}/s | ratio {beside:.1f} (wanted ≥ 1)")
    print(f"through a worker process: {worker:,.0f}/s (wanted ≥ 2,000)")
    print(f"{HANDLERS:,} handlers on {PAIRS} kind/type pairs: {thousand:,.0f}/s | one: {loop:,.0f}/s | ratio {share:.2f} (≥ 0.5)")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "3"
    if what.isdecimal():
        main(int(what))
    else:
        look_for_cycles_seldom()
        place = Path(sys.argv[2]).absolute()
        print(uvloop.run(kopf(place) if what == "kopf" else measure(what, place)))
