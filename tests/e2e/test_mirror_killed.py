"""kill -9 while a front end is being filled and changed, again and again: nothing is there twice, and in the end it equals the
cloud."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from killing import HEADERS, Process
from serving import SECONDS

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.concertim import PASSWORD, FakeConcertim
from vedette.testing.rabbit import Rabbit

STACKS, EACH, DEATHS = 25, 4, 6


async def test_killed_again_and_again_and_nothing_is_there_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rabbit: Rabbit
) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    async with FakeCloud(SystemClock()) as cloud, FakeConcertim() as front, aiohttp.ClientSession(headers=HEADERS) as session:
        front.add_team("demo", cloud.project_id("demo"))
        servers: list[str] = []
        for _ in range(STACKS):
            stack = cloud.create("stack")
            for _ in range(EACH):
                servers.append(cloud.server(name="node"))
                cloud.orchestration.add_resource(stack, "OS::Nova::Server", servers[-1])
        mirror = {"name": "racks", "type": "concertim", "url": front.url, "password": PASSWORD, "compare": "1s"}
        process = Process(tmp_path, cloud, amqp=rabbit.url, mirrors=[mirror])
        died_at: list[int] = []
        try:
            for _ in range(DEATHS):
                await process.start(session)
                before = len(front.devices)
                some = dice.randrange(1, 20)
                async with asyncio.timeout(SECONDS):
                    while len(front.devices) < min(before + some, len(servers)):
                        await asyncio.sleep(0.002)
                process.kill()
                died_at.append(len(front.devices))
                # Meanwhile the cloud goes on.
                cloud.delete("server", servers.pop(dice.randrange(len(servers))))
            await process.start(session)
            began = time.monotonic()
            while {row["metadata"]["openstack_instance_id"] for row in front.devices.values()} != set(servers):
                assert time.monotonic() - began < SECONDS, f"seed {seed}: {len(front.devices)} devices of {len(servers)}"
                await asyncio.sleep(0.02)
        finally:
            process.stop()
        stacks = Counter(row["metadata"]["openstack_stack_id"] for row in front.racks.values())
        devices = Counter(row["metadata"]["openstack_instance_id"] for row in front.devices.values())
        assert (len(stacks), max(stacks.values())) == (STACKS, 1), f"seed {seed}"
        assert (len(devices), max(devices.values())) == (len(servers), 1), f"seed {seed}"
        with capsys.disabled():
            print(f"\n  killed with {died_at} devices there; {len(front.racks)} racks, {len(front.devices)} devices, each once")
