"""engine/polling.py: which projects, what goes where, and what is said when it can't."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vedette.engine.polling import Polling, exposition
from vedette.errors import CloudUnavailable, TargetUnavailable
from vedette.kit.telemetry import Telemetry
from vedette.model.sample import UNITS, Sample, Samples
from vedette.ports import Answer, Pushed
from vedette.testing.clock import FakeClock


class Cloud:
    """Of a cloud, Keystone's lists."""

    def __init__(self) -> None:
        self.users = {"concertim": "u1", "other": "u2"}
        self.roles = {"watcher": "r1", "member": "r2"}
        self.grants = [("u1", "r1", "p1"), ("u1", "r1", "p2"), ("u1", "r2", "p3"), ("u2", "r1", "p4")]
        self.asked: list[str] = []

    async def get(self, service: str, path: str, params: Sequence[tuple[str, str]] = (), microversion: str = "") -> Answer:
        assert service == "identity"
        self.asked.append(path)
        given = dict(params)
        if path == "/role_assignments":
            rows: list[Any] = [
                {"scope": {"project": {"id": project}}}
                for user, role, project in self.grants
                if (user, role) == (given["user.id"], given["role.id"])
            ]
            rows.append({"scope": {"system": {"all": True}}})
        else:
            known = self.users if path == "/users" else self.roles
            rows = [{"name": name, "id": id_} for name, id_ in known.items() if name == given["name"]]
        return Answer(body={path[1:]: rows}, as_of=0)


class Place:
    """A sampler, a sink, and the polling between them."""

    def __init__(self, **more: Any) -> None:
        self.clock, self.cloud, self.telemetry = FakeClock(), Cloud(), Telemetry()
        self.asked: list[tuple[tuple[str, ...], int, int, bool]] = []
        self.trouble: Exception | None = None
        self.sink_trouble: Exception | None = None
        self.got: list[Sample] = []
        settings: dict[str, Any] = {
            "interval": 15.0,
            "granularity": 60,
            "per_vcpu": False,
            "user": "concertim",
            "role": "watcher",
        }
        sampler: Any = self
        cloud: Any = self.cloud
        self.polling = Polling(sampler, cloud, {"racks": self}, self.clock, self.telemetry, **{**settings, **more})

    async def samples(self, projects: Sequence[str], at: int, granularity: int, *, per_vcpu: bool) -> Samples:
        self.asked.append((tuple(projects), at, granularity, per_vcpu))
        if self.trouble is not None:
            raise self.trouble
        return Samples(at, (Sample("s1", "p1", "cpu_load", 12.5), Sample("s2", "p2", "iops", 0.0)), 2, 3)

    async def push(self, samples: Sequence[Sample]) -> Pushed:
        if self.sink_trouble is not None:
            raise self.sink_trouble
        self.got += samples
        return Pushed(sent=1, unknown=1)

    def count(self, line: str) -> float:
        found = [one for one in self.telemetry.render().decode().splitlines() if one.startswith(line + " ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


async def test_projects_in_which_the_user_has_the_role() -> None:
    here = Place()
    assert await here.polling.look()
    assert [one[0] for one in here.asked] == [("p1", "p2")]
    # Keystone is not asked each time, and it is asked again.
    await here.polling.look()
    assert here.cloud.asked.count("/role_assignments") == 1
    here.cloud.grants = [("u1", "r1", "p9")]
    await here.clock.advance(301)
    await here.polling.look()
    assert here.asked[-1][0] == ("p9",)
    assert len(here.got) == 6


async def test_without_such_a_project_nothing_is_asked() -> None:
    here = Place()
    here.cloud.grants = []
    assert await here.polling.look()
    assert here.asked == []
    assert here.polling.shown() == ()


async def test_who_is_missing_in_keystone_is_named(caplog: pytest.LogCaptureFixture) -> None:
    here = Place()
    del here.cloud.users["concertim"]
    for _ in range(3):
        assert not await here.polling.look()
    (line,) = [one.message for one in caplog.records]
    assert "Keystone has no user 'concertim': make it, or set polling.user or polling.projects" in line


async def test_projects_may_be_given() -> None:
    here = Place(projects=("a", "b"))
    await here.polling.look()
    assert here.asked[0][0] == ("a", "b")
    assert here.cloud.asked == []


async def test_what_was_read_is_counted_and_what_was_not() -> None:
    here = Place()
    await here.polling.look()
    assert here.count("vedette_polling_servers") == 2
    assert here.count("vedette_polling_samples_total") == 2
    assert here.count("vedette_polling_missing_total") == 3
    assert here.count('vedette_polling_pushed_total{outcome="sent",sink="racks"}') == 1
    assert here.count('vedette_polling_pushed_total{outcome="unknown",sink="racks"}') == 1


async def test_trouble_is_said_once_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    here = Place()
    await here.polling.look()
    here.trouble = CloudUnavailable("Gnocchi does not answer")
    for _ in range(3):
        assert not await here.polling.look()
    assert here.polling.shown()  # for a while what was read last is as good as anything
    here.trouble = None
    here.sink_trouble = TargetUnavailable("the front end is away")
    for _ in range(2):
        assert await here.polling.look()
    here.sink_trouble = None
    await here.polling.look()
    said = [one.message.partition(", and")[0] for one in caplog.records]
    assert said == [
        "servers can't be measured",
        "it is over that servers can't be measured",
        "measurements can't be handed to racks",
        "it is over that measurements can't be handed to racks",
    ]
    assert here.count('vedette_polling_pushed_total{outcome="failed",sink="racks"}') == 4


async def test_old_values_are_not_shown_as_present_ones() -> None:
    here = Place()
    await here.polling.look()
    await here.clock.advance(149)
    assert len(here.polling.shown()) == 2
    await here.clock.advance(2)
    assert here.polling.shown() == ()


def test_prometheus_reads_what_is_shown() -> None:
    odd = 'a"b\\c\nd'
    text = exposition([Sample("s1", "p1", "cpu_load", 12.5), Sample(odd, "p1", "iops", 0.0)]).decode()
    found = {
        (family.name, sample.labels["server"], sample.labels["project"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found == {("openstack_server_cpu_load", "s1", "p1"): 12.5, ("openstack_server_iops", odd, "p1"): 0.0}
    assert exposition([]) == b""
    assert set(UNITS) == {"cpu_load", "ram_usage", "network_usage", "throughput", "iops"}
