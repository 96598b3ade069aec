"""Reads what servers use on a timer, and hands it on: to mirrored front ends, and to whoever asks (`/metrics/cloud`).

Which projects: those in which a user has a role (`watcher`), as Keystone says, looked up now and then. What they use comes from a
meter (`ports.Sampler`), all of it in a few questions; the next round begins `interval` after this one began, or at once when
this one took longer, and that is counted. What has no data is counted, and handed to nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from vedette.errors import NotFound, TryLater, VedetteError
from vedette.kit.clock import Clock, rfc3339_us
from vedette.kit.telemetry import Telemetry
from vedette.model.sample import UNITS, Sample, Samples
from vedette.ports import Cloud, Pushed, Sampler, TakesSamples

log = logging.getLogger("vedette.engine.polling")

IDENTITY = "identity"
PROJECTS_FOR = 300.0
"""Seconds for which Keystone's answer is good."""
STALE = 10
"""Intervals after which values that were not renewed are not shown any more."""


class Polling:
    """One cloud's. `run` until cancelled."""

    def __init__(
        self,
        sampler: Sampler,
        cloud: Cloud,
        sinks: Mapping[str, TakesSamples],
        clock: Clock,
        telemetry: Telemetry,
        *,
        interval: float,
        granularity: int,
        per_vcpu: bool,
        user: str,
        role: str,
        projects: Sequence[str] = (),
    ) -> None:
        """`sinks`: by name. `interval`, `granularity`: seconds. `projects`: these, and nobody is asked for them."""
        self._sampler, self._cloud, self._sinks, self._clock = sampler, cloud, sinks, clock
        self._interval, self._granularity, self._per_vcpu = interval, granularity, per_vcpu
        self._user, self._role, self._given = user, role, tuple(projects)
        self._projects: tuple[str, ...] = ()
        self._asked_at = float("-inf")
        self.last = Samples(0)
        self._told: dict[str, str] = {}
        """What went wrong where the last time: said once in the log."""
        self._rounds = telemetry.counter("polling_rounds_total", "Rounds of measurements of servers, by their end", "outcome")
        self._seconds = telemetry.gauge("polling_seconds", "What the last round took")
        self._late = telemetry.counter("polling_late_total", "Rounds that took longer than the interval")
        self._servers = telemetry.gauge("polling_servers", "Servers in the last round")
        self._samples = telemetry.counter("polling_samples_total", "Values read")
        self._missing = telemetry.counter("polling_missing_total", "Values that had no data, and were handed to nobody")
        self._pushed = telemetry.counter("polling_pushed_total", "Values handed on, by what became of them", "sink", "outcome")

        self.rounds = 0
        """That are over, with what they read handed on."""

    async def run(self) -> None:
        while True:
            began = self._clock.monotonic()
            await self.look()
            took = self._clock.monotonic() - began
            self._seconds.set(took)
            if took > self._interval:
                self._late.inc()
            await self._clock.sleep(max(0.0, self._interval - took))

    async def look(self) -> bool:
        """One round; whether there was an answer."""
        try:
            projects = await self._which()
            found = (
                await self._sampler.samples(projects, self._clock.now_us(), self._granularity, per_vcpu=self._per_vcpu)
                if projects
                else Samples(self._clock.now_us())
            )
        except VedetteError as why:
            self._rounds.labels("failed").inc()
            self._say("servers can't be measured", str(why))
            return False
        self._say("servers can't be measured", "")
        self._say("some servers have no data", found.trouble)
        self.last = found
        self._rounds.labels("done").inc()
        self._servers.set(found.servers)
        self._samples.inc(len(found.samples))
        self._missing.inc(found.missing)
        await asyncio.gather(*(self._push(name, sink, found.samples) for name, sink in self._sinks.items()))
        self.rounds += 1
        return True

    def status(self) -> dict[str, Any]:
        """For `/v1/status`."""
        last = self.last
        return {
            "readAt": rfc3339_us(last.at) if last.at else None,
            "servers": last.servers,
            "samples": len(last.samples),
            "missing": last.missing,
            "trouble": "; ".join(f"{what}: {why}" for what, why in self._told.items() if why),
        }

    def shown(self) -> Sequence[Sample]:
        """The last values; none when they are too old to be called present."""
        age = (self._clock.now_us() - self.last.at) / 1e6
        return self.last.samples if age < STALE * self._interval else ()

    async def _push(self, name: str, sink: TakesSamples, samples: Sequence[Sample]) -> None:
        what = f"measurements can't be handed to {name}"
        try:
            done: Pushed = await sink.push(samples)
        except VedetteError as why:
            self._pushed.labels(name, "failed").inc(len(samples))
            self._say(what, str(why))
            return
        self._say(what, done.trouble)
        for outcome in ("sent", "unknown", "failed"):
            self._pushed.labels(name, outcome).inc(getattr(done, outcome))

    def _say(self, what: str, trouble: str) -> None:
        if trouble and trouble != self._told.get(what):
            log.warning("%s, and it is tried again with the next round: %s", what, trouble)
        elif not trouble and self._told.get(what):
            log.info("it is over that %s", what)
        self._told[what] = trouble

    # --- projects ----------------------------------------------------------------------------------------------------------

    async def _which(self) -> tuple[str, ...]:
        if self._given:
            return self._given
        if self._clock.monotonic() - self._asked_at >= PROJECTS_FOR:
            self._projects = await self._with_role()
            self._asked_at = self._clock.monotonic()
        return self._projects

    async def _with_role(self) -> tuple[str, ...]:
        """Raises NotFound: Keystone has no such user, or no such role."""
        user = await self._named("users", self._user)
        role = await self._named("roles", self._role)
        answer = await self._cloud.get(IDENTITY, "/role_assignments", (("user.id", user), ("role.id", role), ("effective", "")))
        rows = answer.body.get("role_assignments")
        if not isinstance(rows, list):
            raise TryLater("Keystone's answer has no role assignments", delay=30)
        found = (_project_of(row) for row in rows)
        return tuple(dict.fromkeys(one for one in found if one))

    async def _named(self, plural: str, name: str) -> str:
        rows = (await self._cloud.get(IDENTITY, f"/{plural}", (("name", name),))).body.get(plural)
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and row.get("name") == name and row.get("id"):
                return str(row["id"])
        raise NotFound(f"Keystone has no {plural[:-1]} {name!r}: make it, or set polling.{plural[:-1]} or polling.projects")


def _project_of(row: Any) -> str:
    scope = row.get("scope") if isinstance(row, dict) else None
    project = scope.get("project") if isinstance(scope, dict) else None
    return str(project.get("id") or "") if isinstance(project, dict) else ""


def exposition(samples: Sequence[Sample]) -> bytes:
    """For Prometheus (text format 0.0.4): a gauge for each measurement, a line for each server."""
    lines: list[str] = []
    for name, unit in UNITS.items():
        some = [one for one in samples if one.name == name]
        if some:
            metric = f"openstack_server_{name}"
            lines += [f"# HELP {metric} {name.replace('_', ' ')} of a server, in {unit}.", f"# TYPE {metric} gauge"]
            lines += [f'{metric}{{server="{_label(one.server)}",project="{_label(one.project)}"}} {one.value!r}' for one in some]
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
