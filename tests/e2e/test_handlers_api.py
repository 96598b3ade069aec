"""What is served around handlers: how each is, its dead letters, replay and explain; over HTTP, with a plug that does as its
file says.

Left out: what the commands make of it (tests/unit/test_cli_handlers.py), the texts for recorded events (test_explain.py).
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_processes import run, running
from serving import SECONDS, Asker, Running, asking, cloud, open_service, uuid_of

HANDLER = """
import time
from pathlib import Path
from vedette.errors import GiveUp

BROKEN = Path(__file__).with_name("broken")
STUCK = Path(__file__).with_name("stuck")

def handle(event, context):
    while STUCK.exists():
        time.sleep(0.01)
    if BROKEN.exists():
        raise GiveUp("the table has no column mtu")
    with Path(__file__).with_name("seen").open("a") as seen:
        seen.write(event.idempotency_key + "\\n")
    return "written"
"""

LETTERS = "/apis/vedette.dev/v1/deadletters"


class Place(Running):
    """The service, and what its handler does."""

    folder: Path
    ask: Asker

    def broken(self, so: bool = True) -> None:
        file = self.folder / "broken"
        file.touch() if so else file.unlink()

    @property
    def seen(self) -> list[str]:
        file = self.folder / "seen"
        return file.read_text().splitlines() if file.exists() else []

    async def until_settled(self, name: str = "table") -> dict[str, Any]:
        """How the handler is when nothing waits any more."""
        async with asyncio.timeout(SECONDS):
            while True:
                (one,) = [one for one in (await self.ask.json("/v1/handlers"))["handlers"] if one["name"] == name]
                if not one["pending"] and not one["lag"]:
                    return dict(one)
                await asyncio.sleep(0.02)

    async def lines(self, path: str, body: Any = None) -> list[dict[str, Any]]:
        code, _, said = await self.ask.get(path, method="POST", data=json.dumps(body) if body is not None else b"")
        assert code == 200, said
        return [json.loads(line) for line in said.splitlines()]

    async def cli(self, *words: str) -> tuple[int, str, str]:
        return await run(*words, VEDETTE_URL=self.url)


def handlers(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "table.py").write_text(HANDLER)
    one = {"name": "table", "use": "table", "on": {"kinds": ["port"]}, "retry": {"attempts": 2, "first": "10ms"}, **more}
    return {"plugins": {"folder": str(folder)}, "handlers": [one]}


@asynccontextmanager
async def placed(folder: Path, **more: Any) -> AsyncIterator[Place]:
    plugs = folder / "plugs"
    plugs.mkdir()
    async with open_service(folder, **{**handlers(plugs), **more}) as service, asking(service) as ask:
        place = Place(service.service)
        place.folder, place.ask = plugs, ask
        yield place


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as one:
        yield one


def ids(told: Iterable[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in told]


async def test_a_poison_event_is_shown_redriven_after_the_fix_and_watchers_see_it_come_and_go(place: Place) -> None:
    place.broken()
    async with place.ask.watch(f"{LETTERS}?watch=true") as watch:
        revision = await place.port(uuid_of(1))
        assert await watch.change() == ("ADDED", f"table.{revision}")
        assert (await place.until_settled())["deadLetters"] == 1
        place.broken(False)
        await place.port(uuid_of(2))
        await place.until_settled()
        assert len(place.seen) == 1, "nothing behind it was delayed"

        listed = await place.ask.json("/v1/deadletters?handler=table")
        assert (listed["total"], ids(listed["items"])) == (1, [f"table.{revision}"])
        shown = await place.ask.json(f"/v1/deadletters/table.{revision}")
        assert (shown["attempts"], shown["verb"], shown["eventType"]) == (1, "ADDED", "port.create.end")
        assert "the table has no column mtu" in shown["error"]
        assert shown["nextStep"] == f"mend the cause, then: vedette deadletters redrive table.{revision}"
        assert shown["event"]["notification"]["payload"]["port"]["id"] == uuid_of(1)
        assert shown["event"]["object"]["status"]["id"] == uuid_of(1)

        code, out, err = await place.cli(*shown["nextStep"].partition("vedette ")[2].split())
        assert (code, out, err) == (0, "", "1 dead letter redriven.\n")
        assert await watch.change() == ("DELETED", f"table.{revision}")
    assert (await place.until_settled())["deadLetters"] == 0
    assert place.seen[-1] == f"table/{revision}", "with the key that it had"
    await place.ask.status(f"/v1/deadletters/table.{revision}", 404)


async def test_letters_are_chosen_by_handler_time_and_text_and_never_by_saying_nothing(place: Place) -> None:
    place.broken()
    revisions = [await place.port(uuid_of(number)) for number in range(3)]
    await place.until_settled()
    assert len((await place.ask.json("/v1/deadletters"))["items"]) == 3
    two = await place.ask.json("/v1/deadletters?limit=2")
    assert (two["total"], len(two["items"])) == (3, 2)
    assert not (await place.ask.json("/v1/deadletters?contains=teapot"))["items"]
    assert len((await place.ask.json("/v1/deadletters?contains=mtu&since=1h"))["items"]) == 3
    assert not (await place.ask.json("/v1/deadletters?until=1h"))["items"]
    assert len((await place.ask.json("/v1/deadletters?until=2100-01-01T00:00:00Z"))["items"]) == 3
    for verb in ("redrive", "discard"):
        for body in ("", "{}", '{"rate": 5}'):
            said = await place.ask.status(f"/v1/deadletters/{verb}", 400, method="POST", data=body)
            assert said["message"].startswith("no dead letter is chosen: give ids")
    said = await place.ask.status(
        "/v1/deadletters/discard", 404, method="POST", data=json.dumps({"ids": [f"table.{revisions[0]}", "table.7"]})
    )
    assert "'table.7'" in said["message"]
    assert len((await place.ask.json("/v1/deadletters"))["items"]) == 3, "nothing was done"
    assert await place.lines("/v1/deadletters/discard", {"ids": [f"table.{revisions[0]}"]}) == [
        {"type": "end", "discarded": 1, "lost": []}
    ]
    place.broken(False)
    assert (await place.lines("/v1/deadletters/redrive", {"all": True, "rate": 1000}))[-1] == {
        "type": "end", "redriven": 2, "lost": [],
    }  # fmt: skip
    await place.until_settled()
    assert place.seen == [f"table/{revision}" for revision in revisions[1:]]
    told = [
        json.loads(line)
        for line in (await place.ask.get("/v1/events?after=0&follow=false&type=vedette.deadletter.*"))[2].splitlines()
    ]
    assert [one["data"]["by"] for one in told if "by" in one["data"]] == ["everybody"] * 3


@pytest.mark.parametrize(
    ("path", "body", "code", "said"),
    [
        ("/v1/deadletters/redrive", "no", 400, "the body does not say which dead letters"),
        ("/v1/deadletters/redrive", '{"teapot": 1}', 400, "teapot"),
        ("/v1/deadletters/redrive", '{"ids": ["a"], "handler": "table"}', 400, "leave the other conditions out"),
        ("/v1/deadletters/redrive", '{"all": true, "rate": -1}', 400, "rate is a number of calls a second"),
        ("/v1/deadletters/redrive", '{"all": true, "rate": 1e-300}', 400, "rate is a number of calls a second"),
        ("/v1/deadletters/redrive", '{"handler": "tabel"}', 404, "no handler is called 'tabel'; there are: table"),
        ("/v1/deadletters/discard", '{"since": "soon"}', 400, "since must be a time"),
        ("/v1/handlers/tabel/replay", '{"from": "1h"}', 404, "no handler is called 'tabel'; there are: table"),
        ("/v1/handlers/table/replay", "[1]", 400, "the body is not what a replay takes"),
        ("/v1/handlers/table/replay", "", 400, "say from where"),
        ("/v1/handlers/table/replay", '{"from": "yesterday"}', 400, "from must be a time"),
        ("/v1/handlers/table/replay", '{"from": "9999999999999999999"}', 400, "is not in the log yet"),
        ("/v1/handlers/table/replay", '{"from": "7"}', 410, "revision 7 has left the log; the oldest one is "),
        ("/v1/handlers/table/replay", '{"from": "1m", "to": "1h"}', 400, "before its beginning"),
        ("/v1/handlers/table/forget", "", 409, "handler table is configured"),
        ("/v1/handlers/other/forget", "", 404, "no handler 'other' has a place in the log"),
    ],
)
async def test_what_can_not_be_done_is_said(place: Place, path: str, body: str, code: int, said: str) -> None:
    await place.port(uuid_of(1))
    await asyncio.sleep(0)
    if '"to": "1h"' in body:
        body = json.dumps({"from": str(place.head), "to": "1h"})
    status = await place.ask.status(path, code, method="POST", data=body)
    assert said in status["message"]


async def test_words_of_a_query_that_mean_nothing_are_refused(place: Place) -> None:
    for query, said in (
        ("hander=table", "there is no 'hander' here"),
        ("limit=0", "limit is a number"),
        ("limit=" + "9" * 5000, "limit is a number"),
        ("since=-1", "since must be a time"),
    ):
        assert said in (await place.ask.status(f"/v1/deadletters?{query}", 400))["message"]
    assert "neither a revision nor" in (await place.ask.status("/v1/explain/table", 400))["message"]
    assert "not in the log yet" in (await place.ask.status("/v1/explain/9999999999999999999", 404))["message"]
    assert "not in the log any more" in (await place.ask.status("/v1/explain/1", 410))["message"]
    assert "not in the log any more" in (await place.ask.status("/v1/explain/table.1", 410))["message"]


async def test_a_replay_tells_every_match_and_delivers_it_with_the_key_that_it_had(place: Place) -> None:
    first = await place.port(uuid_of(1))
    second = await place.port(uuid_of(2))
    await place.tell("compute.instance.update", {})
    await place.until_settled()
    assert place.seen == [f"table/{first}", f"table/{second}"]
    dry = await place.lines("/v1/handlers/table/replay", {"from": str(first), "dryRun": True})
    assert [(one["revision"], one["verb"], one["eventType"]) for one in dry[:-1]] == [
        (str(revision), "ADDED", "port.create.end") for revision in (first, second)
    ]
    assert dry[0]["subject"] == f"one/openstack.vedette.dev/Port/{uuid_of(1)}"
    assert dry[-1] == {"type": "end", "matched": 2, "upTo": str(second), "dryRun": True}
    assert (await place.until_settled())["pending"] == 0
    assert len(place.seen) == 2
    told = await place.lines("/v1/handlers/table/replay", {"from": "1h", "to": str(first)})
    assert [one.get("revision") for one in told] == [str(first), None]
    await place.until_settled()
    assert place.seen == [f"table/{first}", f"table/{second}", f"table/{first}"]


async def test_a_replay_ends_where_its_caller_leaves_it_and_goes_on_from_there(tmp_path: Path) -> None:
    plugs = tmp_path / "plugs"
    plugs.mkdir()
    async with open_service(tmp_path, **handlers(plugs, max_pending=1)) as service, asking(service) as ask:
        place = Place(service.service)
        place.folder, place.ask = plugs, ask
        revisions = [await place.port(uuid_of(number)) for number in range(4)]
        await place.until_settled()
        (plugs / "stuck").touch()
        async with running("replay", "table", "--from", str(revisions[0]), "-o", "json", VEDETTE_URL=place.url) as replay:
            assert json.loads(await replay.line())["revision"] == str(revisions[0])
            replay.signal(signal.SIGINT)
            code, _, err = await replay.end()
        assert (code, err) == (1, f"1 event taken before it ended; go on with --from {revisions[0]}\n")
        (plugs / "stuck").unlink()
        await place.until_settled()
        assert place.seen == [f"table/{one}" for one in (*revisions, revisions[0])]
        code, _, err = await place.cli("replay", "table", "--from", str(revisions[0]))
        assert (code, err) == (0, "4 events of the log will be delivered to table again (vedette handlers).\n")
        await place.until_settled()
        assert place.seen == [f"table/{one}" for one in (*revisions, revisions[0], *revisions)]


async def test_a_replay_settles_the_dead_letters_of_its_part_of_the_log(place: Place) -> None:
    place.broken()
    first, second = [await place.port(uuid_of(number)) for number in range(2)]
    assert (await place.until_settled())["deadLetters"] == 2
    place.broken(False)
    code, out, err = await place.cli("replay", "table", "--from", str(first), "--to", str(first))
    assert (code, out, err) == (0, "", "1 event of the log will be delivered to table again (vedette handlers).\n")
    assert (await place.until_settled())["deadLetters"] == 1
    assert await place.ask.names(LETTERS) == [f"table.{second}"]
    assert place.seen == [f"table/{first}"]


async def test_the_event_of_a_letter_may_be_explained_when_the_log_has_lost_it(place: Place) -> None:
    place.broken()
    revision = await place.port(uuid_of(1))
    await place.until_settled()
    await place.port(uuid_of(1), "update")
    await place.until_settled()
    store = place.service.store
    assert store is not None
    await store.retain(horizon=place.service.clock.now_us() + 1)
    await place.ask.status(f"/v1/explain/{revision}", 410)
    told = await place.ask.json(f"/v1/explain/table.{revision}")
    assert told["gone"].startswith(f"revision {revision} is not in the log any more")
    assert [one["outcome"] for one in told["handlers"][0]["deliveries"]] == ["dead"]
    code, out, _ = await place.cli("explain", f"table.{revision}")
    assert code == 0
    assert f"what the dead letter kept of it: vedette deadletters show table.{revision}" in out


async def test_explain_tells_of_every_handler(place: Place) -> None:
    revision = await place.port(uuid_of(1))
    await place.until_settled()
    told = await place.ask.json(f"/v1/explain/{revision}")
    assert (told["revision"], told["type"]) == (str(revision), "port.create.end")
    (handler,) = told["handlers"]
    assert (handler["handler"], handler["matched"]) == ("table", True)
    assert [(one["outcome"], one["detail"]) for one in handler["deliveries"]] == [("done", "written")]
    assert await place.ask.json(f"/v1/explain/table.{revision}") == told
    assert await place.ask.json(f"/v1/explain/table/{revision}") == told


async def test_the_status_has_the_handlers_and_a_target_that_is_down_leaves_the_service_ready(place: Place) -> None:
    (one,) = (await place.ask.json("/v1/status"))["handlers"]
    assert (one["name"], one["use"], one["state"]) == ("table", "table", "ready")
    place.broken()
    await place.port(uuid_of(1))
    await place.until_settled()
    code, _, body = await place.ask.get("/readyz")
    assert (code, b"table" in body) == (200, False)


async def test_a_handler_that_is_not_configured_any_more_is_let_go_of_by_hand(tmp_path: Path) -> None:
    data: dict[str, Any] = {"data_dir": str(tmp_path / "store")}
    async with placed(tmp_path, **data) as place:
        place.broken()
        await place.port(uuid_of(1))
        await place.until_settled()
    async with open_service(tmp_path, **data) as service, asking(service) as ask:
        assert (await ask.json("/v1/handlers"))["handlers"] == []
        (letter,) = (await ask.json("/v1/deadletters?handler=table"))["items"]
        said = await ask.status("/v1/deadletters/redrive", 404, method="POST", data=json.dumps({"ids": [letter["id"]]}))
        assert "handler table is not configured" in said["message"]
        code, _, err = await run("handlers", "forget", "table", VEDETTE_URL=service.url)
        assert (code, err) == (2, "Error: this throws away what handler table still owes, dead letters too: say --yes\n")
        code, _, err = await run("handlers", "forget", "table", "--yes", VEDETTE_URL=service.url)
        assert (code, err) == (0, "Handler table is forgotten.\n")
        assert (await ask.json("/v1/deadletters"))["total"] == 0
        assert await ask.names(LETTERS) == []


async def test_tenants_are_told_nothing_and_may_do_nothing(tmp_path: Path) -> None:
    plugs = tmp_path / "plugs"
    plugs.mkdir()
    async with cloud(tmp_path, **handlers(plugs)) as service, asking(service) as ask:
        for method, path in (
            ("GET", "/v1/handlers"),
            ("POST", "/v1/handlers/table/forget"),
            ("POST", "/v1/handlers/table/replay"),
            ("GET", "/v1/deadletters"),
            ("GET", "/v1/deadletters/table.1"),
            ("POST", "/v1/deadletters/redrive"),
            ("POST", "/v1/deadletters/discard"),
            ("GET", "/v1/explain/1"),
        ):
            for who in ("alice", "bob"):
                said = await ask.status(path, 403, method=method, headers=service.token(who))
                assert said["reason"] == "Forbidden"
            await ask.status(path, 401, method=method)
        (one,) = (await ask.json("/v1/handlers", headers=service.token("root")))["handlers"]
        assert one["name"] == "table"
