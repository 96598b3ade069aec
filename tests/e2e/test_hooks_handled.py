"""What is posted to a hook calls handlers like any other news: Aodh's alarms a program, Alertmanager's groups a line of ours."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_processes import free_port
from serving import SECONDS, Asker, asking, open_service

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from webhook_requests import ALARM, GROUP

TOKEN = "a-token-of-the-hooks-own"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def post(ask: Asker, path: str, body: Any, **headers: str) -> None:
    code, _, said = await ask.get(path, method="POST", data=json.dumps(body), headers={**BEARER, **headers})
    assert code in (202, 204), said


async def until_settled(ask: Asker) -> dict[str, dict[str, Any]]:
    """Handler → how it is, when none owes anything."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = (await ask.json("/v1/handlers"))["handlers"]
            if not any(one["pending"] or one["lag"] for one in found):
                return {one["name"]: one for one in found}
            await asyncio.sleep(0.02)


async def test_an_alarm_runs_a_program_and_a_group_is_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hooks = [
        {"name": "x", "format": "aodh", "token": TOKEN},
        {"name": "y", "format": "aodh", "token": TOKEN},
        {"name": "am", "format": "alertmanager", "token": TOKEN},
    ]
    program = ["tee", "-a"]
    file = {name: tmp_path / name for name in ("types", "sources", "both")}
    asked = {
        "types": {"types": ["aodh.alarm.*"]},
        "sources": {"sources": ["x"]},
        "both": {"types": ["aodh.alarm.ok"], "sources": ["y"]},
    }
    handlers: list[dict[str, Any]] = [
        {"name": name, "use": "exec", "on": on, "options": {"command": [*program, str(file[name])]}} for name, on in asked.items()
    ]
    message = "{event.payload.status}: {event.payload.commonAnnotations.summary} ({event.payload.alerts.0.labels.instance})"
    handlers.append(
        {"name": "group", "use": "log", "on": {"sources": ["am"]}, "options": {"message": message, "level": "warning"}}
    )
    caplog.set_level(logging.INFO, logger="vedette.handlers.log")
    async with open_service(tmp_path, hooks=hooks, handlers=handlers) as running, asking(running) as ask:
        await post(ask, "/v1/hooks/aodh/x", ALARM)
        await post(ask, "/v1/hooks/aodh/y", {**ALARM, "previous": "alarm", "current": "ok", "alarm_id": "another"})
        await post(ask, "/v1/hooks/alertmanager/am", GROUP)
        await post(ask, "/v1/hooks/alertmanager/am", GROUP)  # the same again: no news
        await running.port("00000000-0000-4000-8000-000000000001")
        states = await until_settled(ask)
        assert [one["deadLetters"] for one in states.values()] == [0] * 4

        def events(name: str) -> list[dict[str, Any]]:
            decoder, text, found = json.JSONDecoder(), file[name].read_text(), []
            while text := text.lstrip():
                event, end = decoder.raw_decode(text)
                found.append(event)
                text = text[end:]
            return found

        def said(event: dict[str, Any]) -> tuple[str, str]:
            return event["source"], event["type"].removeprefix("openstack.")

        assert sorted(map(said, events("types"))) == [("/sources/x", "aodh.alarm.alarm"), ("/sources/y", "aodh.alarm.ok")]
        assert [said(one) for one in events("sources")] == [("/sources/x", "aodh.alarm.alarm")]
        assert [said(one) for one in events("both")] == [("/sources/y", "aodh.alarm.ok")]
        (alarm,) = events("sources")
        assert {name: alarm["data"][name] for name in ALARM} == ALARM
        lines = [one.getMessage() for one in caplog.records if one.name == "vedette.handlers.log"]
        assert lines == ["firing: A disk is full (node-1)"]


async def test_handlers_that_call_hooks_of_ours_call_each_other_no_more_than_a_few_times(tmp_path: Path) -> None:
    port = free_port()

    def handler(name: str, source: str, target: str) -> dict[str, Any]:
        options = {"url": f"http://127.0.0.1:{port}/v1/hooks/{target}", "token": TOKEN}
        return {"name": name, "use": "http", "on": {"sources": [source]}, "options": options}

    formats = {"a": "cloudevents", "b": "cloudevents", "c": "generic"}
    more = {
        "listen": f"127.0.0.1:{port}",
        "hooks": [{"name": name, "format": format, "token": TOKEN} for name, format in formats.items()],
        "handlers": [
            handler("there", "a", "cloudevents/b"),
            handler("back", "b", "cloudevents/a"),
            handler("itself", "c", "generic/c"),
        ],
    }
    async with open_service(tmp_path, **more) as running, asking(running) as ask:
        event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "com.example.thing", "data": {"n": 1}}
        await post(ask, "/v1/hooks/cloudevents/a", event, **{"Content-Type": "application/cloudevents+json"})
        await post(ask, "/v1/hooks/generic/c", {"n": 1})
        await until_settled(ask)
        assert running.service.store is not None
        ended = {
            name: [one.outcome for one in await running.service.store.deliveries(handler=name)]
            for name in ("there", "back", "itself")
        }
        assert ended == {"there": ["done"] * 3, "back": ["done", "done", "suppressed"], "itself": ["done", "suppressed"]}
        _, _, body = await ask.get("/v1/events?after=0&follow=false")
        told = [json.loads(line) for line in body.splitlines()]
        assert {one["type"] for one in told if one["source"] in ("/sources/a", "/sources/b")} == {"openstack.com.example.thing"}
