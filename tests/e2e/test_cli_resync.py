"""`vedette resync` and `vedette status` against a whole service and a (fake) cloud that it has come to differ from."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_processes import COMMAND, SECONDS, run, running
from serving import Running, open_service, serving

from vedette.config import SourceConfig, load_text
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.plugins import kinds
from vedette.ports import Source
from vedette.sources.openstack import OpenStackSource
from vedette.testing.cloud import FakeCloud
from vedette.testing.cloud_life import on_a_broker

ABSENT = ["baremetalnode"]
"""This cloud has no Ironic."""
LISTED = sorted(kind.singular for kind in kinds() if kind.api is not None)


class Place(Running):
    """The service, and the cloud that it looks at. Nothing is compared but on demand, once the start is over."""

    cloud: FakeCloud

    async def cli(self, *words: str) -> tuple[int, str, str]:
        return await run(*words, VEDETTE_URL=self.url)

    def state(self, kind: str) -> str:
        assert self.service.resync is not None
        (one,) = self.service.resync.reports()
        return next(str(report.state) for report in one.kinds if report.kind == kind)

    async def idle(self) -> None:
        """Return when no pass is going on, and there was one."""
        assert self.service.resync is not None
        async with asyncio.timeout(SECONDS):
            while any(one.state != "idle" for one in self.service.resync.reports()):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def placed(folder: Path, user: str = "admin") -> AsyncIterator[Place]:
    async with FakeCloud(SystemClock()) as cloud:
        broker = on_a_broker(cloud)

        def build(one: SourceConfig, clock: Clock, telemetry: Telemetry) -> Source:
            return OpenStackSource(one.options, clock, telemetry, broker=broker)

        api = {**cloud.credentials(user), "resync": "0s"}
        settings = {
            "listen": "127.0.0.1:0",
            "data_dir": str(folder / "store"),
            "auth": {"mode": "none"},
            "sources": [{"name": "region-one", "type": "openstack", "amqp": "amqp://localhost", "api": api}],
        }
        async with serving(load_text(json.dumps(settings), {}), build_source=build) as service:
            place = Place(service.service)
            place.cloud = cloud
            await place.idle()
            yield place


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as one:
        yield one


def rows(out: str) -> dict[str, list[str]]:
    """The lines of the table: kind → the other cells."""
    heading, *lines = out.splitlines()
    assert heading.split() == ["KIND", "STATE", "LISTED", "CREATED", "UPDATED", "DELETED", "SECONDS"]
    return {cells[0]: cells[1:] for line in lines if len(cells := line.split()) == 7}


async def test_what_was_missed_is_counted_and_told_once(place: Place) -> None:
    place.cloud.ports(3)
    volume = place.cloud.create("volume", {}, announce=False)
    code, out, err = await place.cli("resync")
    assert code == 0
    table = rows(out)
    assert sorted(table) == LISTED
    assert table["port"][:5] == ["done", "3", "3", "0", "0"]
    assert re.search(rf"^\d+ objects of {len(LISTED) - len(ABSENT)} kinds in [\d.]+ s: 4 missed \(4 created\)", err), err
    place.cloud.delete("volume", volume, announce=False)
    code, out, err = await place.cli("resync", "volumes", "PORT")
    assert code == 0
    assert {kind: cells[:5] for kind, cells in rows(out).items()} == {
        "port": ["done", "3", "0", "0", "0"],
        "volume": ["done", "0", "0", "0", "1"],
    }
    assert ": 1 missed (1 deleted)." in err
    code, out, err = await place.cli("resync", "port", "-o", "json")
    assert (code, err) == (0, "")
    (told,) = [json.loads(line) for line in out.splitlines()]
    assert (told["kind"], told["state"], told["listed"], told["seesAll"]) == ("port", "done", 3, True)
    assert told["missed"] == {"created": 0, "updated": 0, "deleted": 0}


async def test_many_deletions_wait_for_a_person_who_confirms_one_kind(place: Place) -> None:
    ports = place.cloud.ports(40)
    await place.cli("resync", "port")
    for port in ports[:30]:
        place.cloud.delete("port", port, announce=False)
    code, out, err = await place.cli("resync")
    assert code == 1
    assert rows(out)["port"][0] == "held"
    assert "port: 30 of 40 objects are not in the listing: nothing was deleted" in out
    assert "Not well: port held." in err
    _, out, _ = await place.cli("status")
    assert "port: deletions wait for you: 30 of 40 objects" in out
    code, found, _ = await place.cli("doctor", "-o", "json")
    (held,) = [one for line in found.splitlines() if (one := json.loads(line))["level"] == "warn" and "port: " in one["message"]]
    assert code == 0
    assert "look first: `vedette get port --source region-one" in held["fix"]
    # What is printed works as it stands.
    command = re.search(r"vedette (resync port --source region-one --confirm)", out)
    assert command is not None
    code, out, err = await place.cli("resync", "--confirm")
    assert (code, out) == (2, "")
    assert "--confirm wants the KIND" in err
    code, out, err = await place.cli(*command[1].split())
    assert code == 0
    assert rows(out)["port"][:5] == ["done", "10", "0", "0", "30"]
    _, out, _ = await place.cli("status")
    assert "port" not in out


async def test_what_the_account_may_not_list_is_a_failure_that_says_where_to_look(tmp_path: Path) -> None:
    async with placed(tmp_path, user="demo") as place:
        code, out, err = await place.cli("resync", "hypervisor", "port")
        assert code == 1
        assert {kind: cells[0] for kind, cells in rows(out).items()} == {"hypervisor": "refused", "port": "done"}
        assert "hypervisor: compute answered 403" in out
        assert "1 kind: nothing is taken for deleted, since the account" in err
        assert "`vedette doctor` looks at the cloud's API and at the account" in err
        _, out, _ = await place.cli("status")
        assert "hypervisor: refused, never whole: compute answered 403" in out


async def test_a_service_that_is_out_of_order_and_one_that_is_not_there(place: Place) -> None:
    place.cloud.block_storage.garble(b"<html>", "/volumes/detail")
    code, out, err = await place.cli("resync", "volume", "snapshot")
    assert code == 1
    assert {kind: cells[0] for kind, cells in rows(out).items()} == {"snapshot": "done", "volume": "incomplete"}
    assert "Not well: volume incomplete." in err
    code, out, _ = await place.cli("status")
    assert code == 0
    assert re.search(r"volume: incomplete, last whole .* ago: block-storage", out), out
    place.cloud.orchestration.in_catalog = False
    place.cloud.identity.revoke_all()
    code, out, err = await place.cli("resync", "stack")
    assert code == 0
    assert rows(out)["stack"][0] == "absent"
    assert "This cloud has no stack." in err


async def test_a_kind_that_has_ended_is_told_while_another_goes_on(place: Place) -> None:
    held = place.cloud.block_storage.hold("/volumes/detail")
    async with running("resync", "port", "volume", VEDETTE_URL=place.url) as resync:
        await resync.line_with("port")
        assert place.state("volume") == "listing"
        held.set()
        await resync.line_with("volume")
        code, _, err = await resync.end()
    assert code == 0
    assert "2 kinds" in err


async def test_leaving_it_leaves_the_pass_running_and_says_so(place: Place) -> None:
    held = place.cloud.network.hold("/ports")
    async with running("resync", "port", VEDETTE_URL=place.url) as resync:
        await place.cloud.asked("network", "/ports", place.cloud.count("network", "/ports") + 1)
        resync.signal(signal.SIGINT)
        code, out, err = await resync.end()
    assert (code, out) == (1, "")
    assert "The server goes on comparing; `vedette status` tells how." in err
    assert place.state("port") == "listing"
    held.set()
    await place.idle()
    assert place.state("port") == "done"


async def test_asking_without_waiting(place: Place) -> None:
    held, before = place.cloud.network.hold("/ports"), place.cloud.count("network", "/ports")
    code, out, err = await place.cli("resync", "port", "--no-wait")
    assert (code, out) == (0, "")
    assert err == "region-one: port will be compared; `vedette status` tells how it goes.\n"
    await place.cloud.asked("network", "/ports", before + 1)
    _, out, _ = await place.cli("status")
    assert "comparing now" in out
    code, out, _ = await place.cli("resync", "--no-wait", "-o", "json")
    assert json.loads(out)["kinds"] == LISTED
    held.set()


async def test_words_that_mean_nothing_there_and_the_status_for_programs(place: Place) -> None:
    for words, code, said in (
        (("prt",), 2, "no kind is called 'prt'; did you mean 'port'? There are: aggregate, baremetalnode, "),
        (("port", "--source", "elsewhere"), 1, "source 'elsewhere' has no API to list from"),
    ):
        found, out, err = await place.cli("resync", *words)
        assert (found, out) == (code, "")
        assert said in err
        assert len(err.splitlines()) == 1
    code, out, err = await place.cli("status", "-o", "json")
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(out)
    assert {"sources", "store", "clouds", "watch"} <= told.keys()


async def test_a_service_without_an_api_says_how_to_give_it_one(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        code, _, err = await run("resync", VEDETTE_URL=service.url)
        assert code == 1
        assert "give one to a source (`api:`)" in err
        code, out, _ = await run("status", VEDETTE_URL=service.url)
        assert code == 0
        assert "API: no API is set: notifications are all there is" in out


async def test_on_a_terminal_the_table_moves_and_stays(place: Place) -> None:
    place.cloud.ports(3)
    ours, theirs = pty.openpty()
    environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "resync", stdin=theirs, stdout=theirs, stderr=theirs, env={**environ, "VEDETTE_URL": place.url}
    )
    os.close(theirs)
    said = await asyncio.to_thread(everything, ours)
    async with asyncio.timeout(SECONDS):
        assert await process.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    assert re.findall(r"port +(\w+) +(\d+) +(\d+)", plain)[-1] == ("done", "3", "3")
    assert "3 missed (3 created)" in plain.splitlines()[-1]
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") > 0, "the cursor is back"


def everything(terminal: int) -> str:
    """What is written until nobody has it open any more."""
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:
        pass  # the last one closed it
    os.close(terminal)
    return b"".join(parts).decode()
