"""The service is killed while alarms come in: whatever was answered with 202 is taken up by a run, after however many deaths."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from killing import HEADERS, Process
from serving import SECONDS

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud

DEATHS = 6


async def asked(session: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    async with session.request(method, url, json=body) as answer:
        assert answer.status < 300, await answer.text()
        raw = await answer.read()
        return json.loads(raw) if raw else None


async def test_what_was_answered_with_202_is_in_a_run_after_any_number_of_deaths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    accepted: set[int] = set()
    sent = 0
    async with FakeCloud(SystemClock()) as cloud, aiohttp.ClientSession(headers=HEADERS) as session:
        process = Process(tmp_path, cloud, audits={})
        try:
            await process.start(session)
            api = f"{process.url}/infra-optim/v1"
            audit = await asked(session, "POST", f"{api}/audits", {"name": "e", "audit_type": "EVENT", "goal": "dummy"})

            async def alarms(first: int, number: int) -> None:
                for n in range(first, first + number):
                    try:
                        async with session.post(f"{api}/webhooks/e", json={"n": n}) as answer:
                            assert answer.status == 202, await answer.text()
                            accepted.add(n)
                    except aiohttp.ClientError:
                        return

            for _ in range(DEATHS):
                # Fewer than a run shows to its strategy, so that each can be found again.
                callers = [asyncio.create_task(alarms(sent + 5 * caller, 5)) for caller in range(3)]
                sent += 15
                await asyncio.sleep(dice.uniform(0.0, 0.06))
                await asyncio.to_thread(process.kill)
                await asyncio.gather(*callers)
                await process.start(session)

            async def seen() -> set[int]:
                listed = await asked(session, "GET", f"{process.url}/apis/vedette.dev/v1/actionplans")
                return {one["alarm"]["n"] for plan in listed["items"] for one in plan["status"]["trigger"]}

            end = time.monotonic() + SECONDS
            while not (found := await seen()) >= accepted:
                assert time.monotonic() < end, f"seed {seed}: lost {sorted(accepted - found)[:20]}"
                await asyncio.sleep(0.1)
            while (state := await asked(session, "GET", f"{api}/audits/{audit['uuid']}"))["state"] != "SUCCEEDED":
                assert time.monotonic() < end, (seed, state)
                await asyncio.sleep(0.1)
            plans = await asked(session, "GET", f"{process.url}/apis/vedette.dev/v1/actionplans")
            taken = sum(plan["status"]["triggers"] for plan in plans["items"])
        finally:
            await asyncio.to_thread(process.stop)
    with capsys.disabled():
        number = len(plans["items"])
        print(f"\n{DEATHS} deaths (seed {seed}): {len(accepted)} alarms accepted, {taken} taken up in {number} plans, lost 0")
    assert accepted
    assert taken >= len(accepted)
