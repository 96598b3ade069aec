"""The inside of the process in which snapshots are built and strategies run: questions of model/asked.py in, answers out.

`python -m vedette.worker` imports it like a plugin's code and hands over each message undecoded; engine/advising.py asks. It has
no store, no client and no clock: what a strategy answers depends on what was sent, and on nothing else.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

from vedette import plugins
from vedette.engine import planner
from vedette.engine.data_model import rows
from vedette.engine.planner import PlannerOptions
from vedette.engine.scope import narrowed
from vedette.engine.snapshots import Builder
from vedette.errors import BadRequest, GiveUp
from vedette.model.advice import Done, Query, Resource
from vedette.model.asked import (
    Answered,
    Build,
    Built,
    Did,
    Forget,
    Measure,
    Model,
    More,
    Propose,
    Question,
    Resources,
    Rows,
    Values,
    Wants,
)
from vedette.model.snapshot import Snapshot
from vedette.ports import Action, Strategy

log = logging.getLogger("vedette.advice")

MOST_NOTES = 100
LONGEST_NOTE = 400
"""Characters."""
PAGE = 40 * 1024
"""Bytes of an answer that is a page, roughly: below what a worker may answer (model/frames.py)."""

NICE = 5
"""Below the service's own priority: a plan can wait longer than an event or a watcher."""

_question = msgspec.json.Decoder(Question)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the service starts the process with."""

    max_memory: int = 0
    """Bytes that it may have; a strategy that wants more ends with a MemoryError of its own. 0: no limit."""
    max_cpu: float = 0.0
    """Seconds of processor time for each proposal; a strategy that wants more is interrupted. 0: no limit."""
    planner: PlannerOptions = PlannerOptions()


class CpuSpent(BaseException):
    """No `Exception`: a strategy that catches those must not go on."""


class Adviser:
    """Everything in hand between two `Forget`s."""

    takes_bytes = True

    def __init__(self, strategies: dict[str, Strategy], actions: dict[str, Action], options: Options) -> None:
        self._strategies, self._kinds, self._options = strategies, actions, options
        self._builders: dict[str, Builder] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._values: dict[Query, dict[str, float]] = {}
        self._planned: Sequence[planner.Planned] = ()
        self._done: list[Done] = []
        self._model: list[dict[str, Any]] = []

    def call(self, message: bytes) -> Any:
        """One answer. Raises GiveUp when what it refers to isn't in hand: the process was another one then."""
        asked = _question.decode(message)
        match asked:
            case Rows():
                self._builders.setdefault(asked.slot, Builder()).add(asked.kind, asked.rows)
            case Build():
                return self._build(asked)
            case Wants():
                strategy = self._strategy(asked.strategy)
                return list(strategy.metrics(self._snapshot(asked.slot), asked.parameters))
            case Resources():
                return self._resources(asked)
            case Values():
                self._values.setdefault(asked.query, {}).update(asked.values)
            case Propose():
                return self._propose(asked)
            case More():
                return _page(self._planned, asked.after)
            case Did():
                self._done += asked.done
            case Measure():
                return self._measure(asked)
            case Model():
                if asked.after == 0:
                    self._model = rows(self._snapshot(asked.slot))
                return _page(self._model, asked.after)
            case Forget():
                self.__init__(self._strategies, self._kinds, self._options)  # type: ignore[misc]
        return None

    def _build(self, asked: Build) -> Built:
        builder = self._builders.pop(asked.slot, None) or Builder()
        snapshot = self._snapshots[asked.slot] = narrowed(builder.snapshot(asked.revision), asked.scope)
        return Built(
            hosts=len(snapshot.hosts),
            servers=len(snapshot.servers),
            pools=len(snapshot.pools),
            volumes=len(snapshot.volumes),
            machines=len(snapshot.machines),
            odd=builder.odd,
        )

    def _resources(self, asked: Resources) -> list[Resource]:
        snapshot = self._snapshot(asked.slot)
        if asked.of_hosts:
            of = snapshot.hosts[asked.after : asked.after + 300]
            return [Resource(one.hostname, one.uuid, one.vcpus, one.memory, one.disk) for one in of]
        servers = snapshot.servers[asked.after : asked.after + 300]
        return [Resource(one.uuid, one.uuid, one.vcpus, one.memory, one.disk) for one in servers]

    def _propose(self, asked: Propose) -> Answered:
        strategy = self._strategy(asked.strategy)
        try:
            with cpu_limit(self._options.max_cpu):
                found = strategy.propose(self._snapshot(asked.slot), self._values, asked.parameters, tuple(asked.triggers))
                order = strategy.planner or asked.planner
                self._planned = planner.plan(found.actions, order, self._kinds, self._options.planner)
        except BadRequest as why:
            return Answered(0, {}, [], refused=str(why))
        except CpuSpent:
            limit = f"{self._options.max_cpu:g} s"
            return Answered(0, {}, [], refused=f"the strategy needs more processor time than the {limit} of audits.max_cpu")
        except MemoryError:
            return Answered(0, {}, [], refused="the strategy needs more memory than audits.max_memory allows")
        notes = [note[:LONGEST_NOTE] for note in found.notes[:MOST_NOTES]]
        return Answered(len(self._planned), found.indicators, notes)

    def _measure(self, asked: Measure) -> dict[str, float]:
        strategy = self._strategy(asked.strategy)
        if strategy.measure is None:
            return {}
        before, after = self._snapshot(asked.before), self._snapshot(asked.after)
        return strategy.measure(before, after, self._values, asked.parameters, self._done)

    def _strategy(self, name: str) -> Strategy:
        if name not in self._strategies:
            raise GiveUp(f"there is no strategy {name!r}")
        return self._strategies[name]

    def _snapshot(self, slot: str) -> Snapshot:
        if slot not in self._snapshots:
            raise GiveUp("the process that had the snapshot is gone")
        return self._snapshots[slot]


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises CpuSpent in the block once it has used so much processor time (in whole seconds, as setrlimit(2) counts it).
    Code that stays outside of Python is not interrupted: the service's deadline ends that with the process."""
    if not seconds:
        yield
        return

    def spent(number: int, frame: FrameType | None) -> None:
        raise CpuSpent

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    end = int(used.ru_utime + used.ru_stime + seconds) + 1
    before = signal.signal(signal.SIGXCPU, spent)
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (end if hard == resource.RLIM_INFINITY else min(end, hard), hard))
        yield
    finally:
        signal.signal(signal.SIGXCPU, before)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


def _page(items: Sequence[Any], after: int) -> list[msgspec.Raw]:
    """As many from this place on as fit, at least one."""
    page: list[msgspec.Raw] = []
    size = 0
    for item in items[after : after + 1000]:
        encoded = msgspec.json.encode(item)
        size += len(encoded)
        if page and size > PAGE:
            break
        page.append(msgspec.Raw(encoded))
    return page


def build(options: Options, needs: Any) -> Adviser:
    """What the worker calls."""
    if options.max_memory:
        # The service kills what grows beyond twice the limit; before that the strategy gets an error that it can tell of.
        resource.setrlimit(resource.RLIMIT_AS, (options.max_memory * 2, options.max_memory * 2))
    os.nice(NICE)
    return Adviser(plugins.strategies(), plugins.actions(), options)
