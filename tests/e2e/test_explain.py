"""`vedette explain` and `vedette replay --dry-run` on events that a real cloud sent: their text is what golden/ has.

After a change that is wanted: `VEDETTE_WRITE_GOLDEN=1 python -m pytest tests/e2e/test_explain.py`, and look at the difference.
Revisions differ from run to run (they count from when a store was made), and so does how long ago something was: both are
replaced.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_processes import run
from serving import SECONDS, Running, asking, serving

from vedette.config import load_text

CAPTURES = Path(__file__).parents[1] / "captures"
GOLDEN = Path(__file__).parent / "golden"

POISON = """
from vedette.errors import GiveUp

def handle(event, context):
    raise GiveUp("the table has no column " + sorted(event.object["status"])[0])
"""

SETTINGS = """
listen: 127.0.0.1:0
data_dir: ""
auth: {{mode: none}}
plugins: {{folder: {folder}}}
sources: [{{name: region-one, type: replay, path: {capture}, speed: 0}}]
handlers:
  - name: ports-up
    use: log
    start: earliest
    on: {{kinds: [port], when: "'status.status' in changed && object.status.status == 'ACTIVE'"}}
  - name: new-servers
    use: log
    start: earliest
    on: {{kinds: [server], verbs: [ADDED]}}
  - name: errors
    use: log
    start: earliest
    on:
      - {{types: ["compute.instance.*"], when: "event.payload.state == 'error' && event.payload.host != ''"}}
      - {{kinds: [server], when: "object.status.status == 'ERROR' && (!has(old.status) || old.status.status != 'ERROR')"}}
  - name: elsewhere
    use: log
    start: earliest
    on: {{kinds: [server, port], projects: [nobody]}}
  - name: poison
    use: poison
    start: earliest
    on: {{kinds: [port], verbs: [DELETED]}}
  - name: seldom
    use: log
    start: earliest
    on: {{kinds: [server], verbs: [MODIFIED]}}
    window: {{once_within: 1h, group_by: [object.metadata.name]}}
"""

EVENTS = {
    "core-1": (
        ("compute.instance.create.end", 0),
        ("compute.instance.update", 0),
        ("instance.update", 0),
        ("compute.instance.update", 1),
        ("compute.instance.update", 139),
        ("port.update.end", 0),
        ("port.delete.end", 3),
        ("network.create.end", 0),
    ),
    "core-2-errors": (
        ("compute.instance.update", 0),
        ("compute.instance.delete.start", 0),
        ("port.update.end", 1),
        ("port.delete.end", 0),
    ),
}
"""Which are explained, of each capture: the type, and which one of it."""


class Place(Running):
    revisions: list[tuple[str, str]]
    """(revision, type) of every entry that the cloud sent, in the log's order."""

    async def said(self, *words: str) -> str:
        code, out, err = await run(*words, VEDETTE_URL=self.url, TZ="UTC")
        assert code == 0, err
        return out + err


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path, request.param) as one:
        yield one


@asynccontextmanager
async def placed(folder: Path, capture: str) -> AsyncIterator[Place]:
    """All of a capture is in the log, and every delivery of it is settled."""
    (folder / "poison.py").write_text(POISON)
    file = CAPTURES / f"{capture}.jsonl.gz"
    settings = SETTINGS.format(folder=folder, capture=file)
    async with serving(load_text(settings, {})) as running, asking(running) as ask:
        place = Place(running.service)

        async def still() -> tuple[int, int]:
            status = await ask.json("/v1/status")
            waits = sum(one["lag"] + one["pending"] for one in status["handlers"])
            return waits, int(not status["sources"][0]["detail"].startswith("done"))

        async with asyncio.timeout(SECONDS):
            while any(await still()):
                await asyncio.sleep(0.05)
        _, _, body = await ask.get("/v1/events?after=0&follow=false&source=region-one")
        told = [json.loads(line) for line in body.splitlines()]
        place.revisions = [(one["revision"], one["type"].removeprefix("openstack.")) for one in told]
        yield place


def settled(text: str) -> str:
    """Without what differs from run to run; as wide as it was."""
    seen: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], f"revision-{len(seen) + 1:07}")

    text = re.sub(r"\b\d{16}\b", placeholder, text)
    return re.sub(r"\bjust now\b|\b\d+ (s|min) ago\b", "<when>", text)


def holds(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("VEDETTE_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{file} has another text"


@pytest.mark.parametrize("place", ["core-2-errors", "core-1"], indirect=True)
async def test_what_is_said_of_recorded_events_is_what_it_was(place: Place, request: pytest.FixtureRequest) -> None:
    capture = request.node.callspec.params["place"]
    parts = []
    for event_type, number in EVENTS[capture]:
        revision = [revision for revision, one in place.revisions if one == event_type][number]
        parts.append(f"$ vedette explain <{event_type} {number}>\n{await place.said('explain', revision)}")
    holds(f"explain-{capture}.txt", "\n".join(settled(part) for part in parts))

    first = place.revisions[0][0]
    parts = []
    for handler in ("ports-up", "errors", "poison", "elsewhere", "seldom"):
        said = await place.said("replay", handler, "--from", first, "--dry-run")
        parts.append(f"$ vedette replay {handler} --from <the first> --dry-run\n{said}")
    holds(f"replay-{capture}.txt", "\n".join(settled(part) for part in parts))


@pytest.mark.parametrize("place", ["core-1"], indirect=True)
async def test_a_dry_run_has_delivered_nothing(place: Place) -> None:
    def counts() -> dict[str, Any]:
        value = place.service.telemetry.registry.get_sample_value
        return {
            name: value("vedette_handler_attempts_total", {"handler": name, "result": "done"}) for name in ("ports-up", "seldom")
        }

    before = counts()
    assert all(before.values())
    await place.said("replay", "ports-up", "--from", place.revisions[0][0], "--dry-run")
    assert counts() == before
