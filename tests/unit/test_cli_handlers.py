"""The commands around handlers, on answers as the server gives them: what is said, asked, refused, completed.

Left out: the server itself (tests/e2e/test_handlers_api.py) and recorded events (tests/e2e/test_explain.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from vedette.cli import app
from vedette.cli.diagnose_service import judged
from vedette.cli.explain import lines
from vedette.cli.status import lines as status_lines
from vedette.clients.vedette import (
    About,
    DeliveryNow,
    Explanation,
    HandlerNow,
    HandlerSays,
    Part,
    StatusNow,
    Verdict,
)
from vedette.kit.clock import rfc3339_us

NOW = 1_795_187_946.0
SECONDS = 30.0
CLEAN = {
    "VEDETTE_TOKEN": None, "OS_TOKEN": None, "OS_CLOUD": None, "OS_AUTH_URL": None, "COLUMNS": "200", "HOME": "/nonexistent",
    "NO_PROXY": "*", "TZ": "UTC",
}  # fmt: skip

LETTER = {
    "id": "table.1795187946000042", "handler": "table", "revision": "1795187946000042", "number": 0, "attempts": 3,
    "idempotencyKey": "table/1795187946000042", "eventType": "port.create.end", "verb": "ADDED",
    "subject": {"source": "one", "group": "openstack.vedette.dev", "kind": "Port", "id": "p-1"},
    "error": "the table has\nno column mtu", "nextStep": "mend the cause", "firstAt": "2026-11-20T15:00:00Z",
    "failedAt": "2026-11-20T15:05:00Z",
}  # fmt: skip


class Server:
    """Answers what it is told to, and keeps what it was asked: (method, path with query, body)."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, str(request.rel_url), json.loads(body) if body else None))
        said = self.answers.get(request.path, {"message": "no such thing", "code": 404})
        if isinstance(said, list):
            text = b"".join(json.dumps(line).encode() + b"\n" for line in said)
            return web.Response(body=text, content_type="application/x-ndjson")
        return web.json_response(said, status=said.get("code", 200))


@pytest.fixture
def server() -> Iterator[Server]:
    """In a thread: commands have a loop of their own."""
    found = Server()
    with served(found):
        yield found


@contextmanager
def served(server: Server) -> Iterator[None]:
    started, loops = threading.Event(), []
    stopping: list[asyncio.Event] = []

    async def serve() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        loops.append(asyncio.get_running_loop())
        stopping.append(asyncio.Event())
        started.set()
        await stopping[0].wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(SECONDS)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stopping[0].set)
        thread.join(SECONDS)


def called(server: Server, *words: str, **environ: str) -> Result:
    return CliRunner(env={**CLEAN, "VEDETTE_URL": server.url, **environ}).invoke(app, list(words), prog_name="vedette")


def handler(name: str = "table", state: str = "ready", **more: Any) -> dict[str, Any]:
    counts = {"lag": 0, "pending": 0, "deadLetters": 0, "lastError": "", "detail": "", "position": "1"}
    return {"name": name, "use": "http", "state": state, **counts, **more}


def there(server: Server, *handlers: dict[str, Any]) -> None:
    server.answers["/v1/handlers"] = {"handlers": list(handlers)}


# --- handlers --------------------------------------------------------------------------------------------------------------


def test_handlers_are_listed_without_saying_list(server: Server) -> None:
    there(server, handler(), handler("mailer", "waiting", detail="503", pending=12, deadLetters=2, lag=7))
    for words in (("handlers",), ("handlers", "list")):
        result = called(server, *words)
        assert result.exit_code == 0
        heading, *rows = [line.split() for line in result.stdout.splitlines()]
        assert heading == ["NAME", "USE", "STATE", "LAG", "PENDING", "DEAD", "DETAIL"]
        assert rows == [["table", "http", "ready", "0", "0", "0"], ["mailer", "http", "waiting", "7", "12", "2", "503"]]
    result = called(server, "handlers", "-o", "json")
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["table", "mailer"]
    there(server)
    result = called(server, "handlers")
    assert (result.stdout, result.stderr) == ("", "No handler is configured.\n")


def test_a_word_that_is_no_command_of_the_group_is_refused(server: Server) -> None:
    result = called(server, "deadletters", "lst")
    assert result.exit_code == 2
    assert "No such command 'lst'" in result.stderr
    assert server.asked == []


@pytest.mark.parametrize(
    "words",
    [
        ("handlers", "--help"), ("handlers", "list", "--help"), ("handlers", "forget", "--help"), ("deadletters", "-h"),
        ("deadletters", "list", "-h"), ("deadletters", "show", "-h"), ("deadletters", "redrive", "-h"),
        ("deadletters", "discard", "-h"), ("replay", "-h"), ("explain", "-h"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_command_has_help_and_those_that_do_something_examples(server: Server, words: tuple[str, ...]) -> None:
    result = called(server, *words)
    assert result.exit_code == 0
    if words[:2] not in (("handlers", "--help"), ("deadletters", "-h")):
        assert f"vedette {' '.join(words[:-1]).removesuffix(' list')}" in result.output.partition("Examples:")[2]


# --- dead letters ----------------------------------------------------------------------------------------------------------


def test_letters_are_listed_and_no_text_of_theirs_breaks_a_line(server: Server) -> None:
    server.answers["/v1/deadletters"] = {
        "total": 3,
        "items": [LETTER, {**LETTER, "id": "lost.1", "subject": None, "eventType": ""}],
    }
    result = called(server, "deadletters", "--handler", "table", "--since", "2h", "--contains", "no column", "--limit", "2")
    assert server.asked == [("GET", "/v1/deadletters?handler=table&since=2h&contains=no+column&limit=2", None)]
    heading, first, lost = result.stdout.splitlines()
    assert heading.split() == ["ID", "EVENT", "OBJECT", "ATTEMPTS", "FAILED", "ERROR"]
    assert re.split(r"  +", first)[:4] == ["table.1795187946000042", "port.create.end", "port/p-1", "3"]
    assert "the table has\\nno column mtu" in first
    assert re.split(r"  +", lost)[:3] == ["lost.1", "-", "-"]
    assert result.stderr == "The first 2 of 3; --limit shows more.\n"
    server.answers["/v1/deadletters"] = {"total": 0, "items": []}
    assert called(server, "deadletters").stderr == "No dead letters.\n"


def test_a_letter_is_shown_with_its_event(server: Server) -> None:
    event = {"verb": "ADDED", "notification": {"payload": {"port": {"name": "\x1b[2J"}}}}
    server.answers[f"/v1/deadletters/{LETTER['id']}"] = {**LETTER, "event": event}
    result = called(server, "deadletters", "show", str(LETTER["id"]))
    assert result.exit_code == 0
    for text in (
        "event     port.create.end ADDED port/p-1", "key       table/1795187946000042", "attempts  3; first tried ",
        "error     the table has\\nno column mtu", "next      mend the cause", '"name": "\\u001b[2J"',
    ):  # fmt: skip
        assert text in result.stdout, text
    assert "\x1b" not in result.stdout
    whole = json.loads(called(server, "deadletters", "show", str(LETTER["id"]), "-o", "json").stdout)
    assert whole["event"] == event
    assert called(server, "deadletters", "show", "table.1").stderr == "Error: no such thing\n"


def test_a_redrive_says_what_it_did(server: Server) -> None:
    path = "/v1/deadletters/redrive"
    server.answers[path] = [{"type": "progress", "done": 1, "of": 2}, {"type": "end", "redriven": 2, "lost": []}]
    result = called(server, "deadletters", "redrive", "--handler", "table", "--until", "1h", "--rate", "5")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 dead letters redriven.\n")
    assert server.asked[-1] == ("POST", path, {"handler": "table", "until": "1h", "rate": 5.0})
    called(server, "deadletters", "redrive", "table.1", "table.2")
    assert server.asked[-1][2] == {"ids": ["table.1", "table.2"]}
    called(server, "deadletters", "redrive", "--all")
    assert server.asked[-1][2] == {"all": True}
    result = called(server, "deadletters", "redrive", "--all", "-o", "json")
    assert json.loads(result.stdout) == {"redriven": 2, "lost": []}
    server.answers[path] = [{"type": "end", "redriven": 0, "lost": []}]
    assert called(server, "deadletters", "redrive", "--all").stderr == "No dead letter matches.\n"
    server.answers[path] = [{"type": "end", "redriven": 1, "lost": ["table.1"]}]
    result = called(server, "deadletters", "redrive", "--all")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "1 dead letter redriven.", "The event of 1 letter is lost, they can only be discarded: table.1",
    ]  # fmt: skip


def test_an_answer_that_breaks_off_is_no_success(server: Server) -> None:
    path = "/v1/deadletters/redrive"
    server.answers[path] = [{"type": "progress", "done": 1, "of": 2}]
    result = called(server, "deadletters", "redrive", "--all")
    assert result.exit_code == 1
    assert "broke off; some were not redriven: the same command goes on with the rest" in result.stderr
    server.answers[path] += [{"type": "ERROR", "object": {"message": "the log can't be written", "code": 503}}]
    result = called(server, "deadletters", "redrive", "--all")
    assert (result.exit_code, result.stderr) == (1, "Error: the log can't be written\n")


@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_nobody_redrives_or_discards_all_by_saying_nothing(server: Server, verb: str) -> None:
    result = called(server, "deadletters", verb)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: no dead letter is chosen: name ids, or use --handler")
    result = called(server, "deadletters", verb, "table.1", "--handler", "table")
    assert (result.exit_code, "leave the options that choose out" in result.stderr) == (2, True)
    assert server.asked == []


def test_what_throws_away_never_asks_where_nobody_can_answer(server: Server) -> None:
    server.answers["/v1/deadletters"] = {"total": 2, "items": [LETTER]}
    server.answers["/v1/deadletters/discard"] = [{"type": "end", "discarded": 2, "lost": []}]
    result = called(server, "deadletters", "discard", "--handler", "table")
    assert (result.exit_code, result.stderr) == (2, "Error: this throws 2 dead letters away: say --yes\n")
    assert [method for method, _, _ in server.asked] == ["GET"]
    result = called(server, "deadletters", "discard", "--handler", "table", "--yes")
    assert (result.exit_code, result.stderr) == (0, "2 dead letters discarded.\n")
    result = called(server, "handlers", "forget", "old")
    assert (result.exit_code, "say --yes" in result.stderr) == (2, True)


@pytest.mark.parametrize(("answer", "code", "posted"), [(b"y\n", 0, 1), (b"n\n", 1, 0), (b"\n", 1, 0)])
def test_on_a_terminal_it_asks(server: Server, answer: bytes, code: int, posted: int) -> None:
    server.answers["/v1/deadletters/discard"] = [{"type": "end", "discarded": 1, "lost": []}]
    found, said = on_a_terminal(server, answer, "deadletters", "discard", "table.1")
    assert found == code
    assert "This throws 1 dead letter away. Go on? [y/N]" in said
    assert len(server.asked) == posted


def on_a_terminal(server: Server, answer: bytes, *words: str) -> tuple[int, str]:
    """Exit code, and what was on the screen."""
    terminal, theirs = pty.openpty()
    environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "dumb", "HOME": "/nonexistent", "VEDETTE_URL": server.url}
    command = (sys.executable, "-m", "vedette.cli", *words)
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    said = b""
    try:
        while select.select([terminal], [], [], SECONDS)[0]:
            part = os.read(terminal, 65_536)
            if not part:
                break
            said += part
            if b"[y/N]" in part:
                os.write(terminal, answer)
    except OSError:
        pass  # the other side is gone
    os.close(terminal)
    return child.wait(SECONDS), said.decode()


# --- replay ----------------------------------------------------------------------------------------------------------------

MATCH = {
    "type": "match", "revision": "1795187946000042", "eventType": "port.create.end", "verb": "ADDED",
    "subject": "one/openstack.vedette.dev/Port/p-1", "sentAt": "2026-11-20T15:00:00Z",
}  # fmt: skip


def test_a_dry_run_shows_each_event_and_that_nothing_was_delivered(server: Server) -> None:
    end = {"type": "end", "matched": 1, "upTo": MATCH["revision"], "dryRun": True}
    server.answers["/v1/handlers/table/replay"] = [{"type": "waiting", "matched": 0, "upTo": "0"}, MATCH, end]
    result = called(server, "replay", "table", "--from", "2h", "--dry-run")
    assert result.exit_code == 0
    heading, row = result.stdout.splitlines()
    assert heading.split() == ["REVISION", "SENT", "EVENT", "VERB", "OBJECT"]
    assert row.split() == ["1795187946000042", "2026-11-20", "15:00:00", "port.create.end", "ADDED", "port/p-1"]
    assert result.stderr == "1 event would be delivered to table again. Nothing was delivered.\n"
    assert server.asked == [("POST", "/v1/handlers/table/replay", {"from": "2h", "dryRun": True})]
    result = called(server, "replay", "table", "--from", "1", "--to", "2", "-o", "json")
    assert [json.loads(line)["verb"] for line in result.stdout.splitlines()] == ["ADDED"]
    assert server.asked[-1][2] == {"from": "1", "to": "2", "dryRun": False}


def test_a_replay_says_how_many_or_why_none(server: Server) -> None:
    server.answers["/v1/handlers/table/replay"] = [MATCH, {"type": "end", "matched": 1}]
    result = called(server, "replay", "table", "--from", "2h")
    assert (result.stdout, result.stderr) == ("", "1 event of the log will be delivered to table again (vedette handlers).\n")
    server.answers["/v1/handlers/table/replay"] = [{"type": "end", "matched": 0}]
    result = called(server, "replay", "table", "--from", "2h")
    assert "`vedette explain REVISION` says why" in result.stderr


def test_a_replay_that_is_cut_says_where_to_go_on(server: Server) -> None:
    server.answers["/v1/handlers/table/replay"] = [MATCH]
    result = called(server, "replay", "table", "--from", "2h")
    assert result.exit_code == 1
    place, error = result.stderr.splitlines()
    assert place == "1 event taken before it ended; go on with --from 1795187946000042"
    assert "broke off" in error
    gone = {"type": "ERROR", "object": {"message": "revision 7 has left the log", "code": 410}}
    server.answers["/v1/handlers/table/replay"] = [MATCH, gone]
    result = called(server, "replay", "table", "--from", "2h", "--dry-run")
    assert result.stderr.splitlines()[-1] == "Error: revision 7 has left the log"


def test_replay_wants_to_know_from_where(server: Server) -> None:
    result = called(server, "replay", "table")
    assert (result.exit_code, "--from" in result.output) == (2, True)
    assert server.asked == []


# --- explain ---------------------------------------------------------------------------------------------------------------


def explained(*handlers: HandlerSays, **more: Any) -> list[str]:
    told = Explanation(revision="7", type="port.create.end", source="one", id="n-1", handlers=handlers, **more)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines(told, NOW)]


def delivery(outcome: str, **more: Any) -> list[str]:
    at = rfc3339_us(int((NOW - 300) * 1_000_000))
    one = DeliveryNow(**{"id": "h.7", "outcome": outcome, "attempts": 1, "at": at, **more})
    return explained(HandlerSays(handler="h", matched=True, deliveries=(one,)))[1:]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"outcome": "done"}, "done at the 1st attempt, 5 min ago"),
        ({"outcome": "done", "attempts": 12, "detail": "201"}, "done at the 12th attempt, 5 min ago: 201"),
        ({"outcome": "done", "attempts": 3, "replay": True}, "done at the 3rd attempt, 5 min ago, replayed"),
        ({"outcome": "dead", "attempts": 20, "detail": "500"}, "dead letter h.7 after 20 attempts, 5 min ago: 500"),
        ({"outcome": "pending", "attempts": 0, "at": None}, "waits to be delivered"),
        (
            {"outcome": "pending", "attempts": 2, "detail": "503", "next_at": rfc3339_us(int((NOW + 60) * 1_000_000))},
            "failed 2 times, last 5 min ago: 503; next try in 60 s",
        ),
        ({"outcome": "pending", "attempts": 1, "next_at": rfc3339_us(1)}, "failed 1 time, last 5 min ago; next try now"),
        ({"outcome": "suppressed", "detail": "suppressed by once_within until noon"}, "suppressed by once_within until noon"),
        ({"outcome": "coalesced", "detail": "coalesced: 9 stands for it"}, "coalesced: 9 stands for it"),
        (
            {"outcome": "discarded", "detail": "discarded by ops: 500"},
            "discarded after 1 attempt, 5 min ago: discarded by ops: 500",
        ),
        ({"outcome": "done", "detail": "\x1b[2J"}, "done at the 1st attempt, 5 min ago: \\x1b[2J"),
    ],
)
def test_each_delivery_says_what_became_of_it(given: dict[str, Any], said: str) -> None:
    assert delivery(**given) == ["✓ h  matched", f"    → {said}"]


def test_why_a_handler_was_not_called() -> None:
    part, other = Part("a == 1", True, "a is 1"), Part("b == 2", "error", "b is not there")
    verdict = Verdict(False, ("not so: b == 2",), (part, other))
    assert explained(
        HandlerSays("condition", False, (About("one/g/Port/p", "ADDED", False, (verdict, verdict)),)),
        HandlerSays("kind", False, (About("one/g/Port/p", "ADDED", False, (Verdict(False, ("the kind is Port",)),)),)),
        HandlerSays("none", False),
        HandlerSays("gone", None),
    ) == [
        "revision 7: port.create.end from one, id n-1",
        "· condition  no: not so: b == 2",
        "    ✓ a == 1   (a is 1)",
        "    ✗ b == 2   (b is not there)",
        "    or",
        "    ✓ a == 1   (a is 1)",
        "    ✗ b == 2   (b is not there)",
        "· kind       no: the kind is Port",
        "· none       no: it is called for changes of objects, and this notification changed none",
        "? gone       not in the configuration any more",
    ]


def test_an_entry_that_changed_several_objects_is_told_object_by_object() -> None:
    part = Part("a == 1", True)
    every = tuple(About(f"one/g/Port/{name}", "ADDED", True, (Verdict(True, (), (part,)),)) for name in "ab")
    assert explained(HandlerSays("h", True, every))[1:] == [
        "✓ h  matched", "    ✓ ADDED port/a", "      ✓ a == 1", "    ✓ ADDED port/b", "      ✓ a == 1",
    ]  # fmt: skip


def test_an_event_that_is_gone_is_said_to_be() -> None:
    assert explained(HandlerSays("h", None), gone="revision 7 is not in the log any more")[1:] == [
        "revision 7 is not in the log any more",
        "? h",
    ]


def test_explain_takes_a_letter_and_json(server: Server) -> None:
    server.answers["/v1/explain/table.7"] = {"revision": "7", "type": "t", "source": "s", "id": "i", "handlers": []}
    result = called(server, "explain", "table.7")
    assert (result.stdout, result.stderr) == ("revision 7: t from s, id i\n", "No handler is configured.\n")
    assert json.loads(called(server, "explain", "table.7", "-o", "json").stdout)["id"] == "i"


_words = st.text(max_size=20)
_parts = st.builds(Part, text=_words, verdict=st.booleans() | _words, detail=_words)
_verdicts = st.builds(Verdict, matched=st.booleans(), why_not=st.tuples(_words), parts=st.lists(_parts, max_size=2).map(tuple))
_about = st.builds(About, of=_words, verb=_words, matched=st.booleans(), on=st.lists(_verdicts, max_size=2).map(tuple))
_deliveries = st.builds(
    DeliveryNow, id=_words, outcome=_words | st.just("pending"), attempts=st.integers(0, 99), detail=_words,
    at=st.none() | _words, next_at=st.none() | _words,
)  # fmt: skip
_says = st.builds(
    HandlerSays, handler=_words, matched=st.none() | st.booleans(), about=st.lists(_about, max_size=3).map(tuple),
    deliveries=st.lists(_deliveries, max_size=2).map(tuple),
)  # fmt: skip


@given(st.lists(_says, max_size=3).map(tuple))
def test_whatever_an_explanation_says_it_moves_no_cursor(handlers: tuple[HandlerSays, ...]) -> None:
    for line in explained(*handlers):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)


# --- status and doctor -----------------------------------------------------------------------------------------------------


def now(*handlers: HandlerNow) -> list[str]:
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in status_lines(StatusNow(handlers=handlers), NOW)]
    return shown[: shown.index("log       0 entries, 0 objects, 0 B")]


def test_the_status_names_handlers_that_are_not_well_and_no_others() -> None:
    fine = [HandlerNow(f"h{number}", state="ready") for number in range(100)]
    assert now(*fine) == ["handlers  100 ready; 0 deliveries pending"]
    assert now() == []
    waits = HandlerNow("table", state="waiting", detail="connection refused", pending=1200, dead_letters=2)
    paused = HandlerNow("mailer", state="paused", dead_letters=10_000)
    late = HandlerNow("late", state="behind", lag=5000)
    assert now(*fine, waits, paused, late) == [
        "handlers  100 ready, 1 waiting, 1 paused, 1 behind; 1,200 deliveries pending",
        "          table: waits for its target: connection refused; 1,200 pending; "
        "2 dead letters (vedette deadletters --handler table)",
        "          mailer: paused by its dead letters; 10,000 dead letters (vedette deadletters --handler mailer)",
        "          late: behind; 5,000 entries behind",
    ]
    assert now(*[waits] * 30)[-1] == "          and 10 more that are not well (vedette handlers)"


def test_the_doctor_has_a_finding_and_a_fix_for_each_that_is_not_well() -> None:
    waits = HandlerNow("table", state="waiting", detail="connection refused", pending=12)
    paused = HandlerNow("mailer", state="paused", dead_letters=10_000)
    dead = HandlerNow("dns", state="ready", dead_letters=1, last_error="REFUSED")
    late = HandlerNow("late", state="behind", lag=5000)
    told = judged(StatusNow(handlers=(waits, paused, dead, late)), None, NOW)
    found = {one.about: one for one in told if one.about.startswith("handler")}
    assert {about: one.level for about, one in found.items()} == {
        "handler table": "warn", "handler mailer": "fail", "handler dns": "warn", "handler late": "note", "handlers": "ok",
    }  # fmt: skip
    assert found["handler table"].message == "its target does not answer: connection refused; 12 deliveries wait"
    assert "tries again by itself" in found["handler table"].fix
    assert "vedette deadletters redrive --handler mailer" in found["handler mailer"].fix
    assert found["handler dns"].message == "1 dead letter, the last error is: REFUSED"
    assert found["handlers"].message.startswith("1 handler without dead letters")
    assert not any(one.about.startswith("handler") for one in judged(StatusNow(), None, NOW))


# --- tab completion --------------------------------------------------------------------------------------------------------


def completed(server: Server, words: str, url: str = "") -> list[str]:
    count = str(len(words.split(" ")) - 1)
    environ = {"_VEDETTE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count, "VEDETTE_URL": url or server.url}
    return CliRunner(env={**CLEAN, **environ}).invoke(app, [], prog_name="vedette").output.split()


def test_names_of_handlers_and_ids_of_letters_are_completed(server: Server) -> None:
    there(server, handler(), handler("tables"), handler("mailer"))
    server.answers["/v1/deadletters"] = {"total": 1, "items": [LETTER]}
    assert completed(server, "vedette replay ta") == ["table", "tables"]
    assert completed(server, "vedette deadletters list --handler ma") == ["mailer"]
    assert completed(server, "vedette deadletters show tab") == [LETTER["id"]]
    assert completed(server, "vedette explain tab") == [LETTER["id"]]


def test_a_server_that_is_not_there_completes_nothing_and_says_nothing(server: Server) -> None:
    assert completed(server, "vedette replay ta", "http://127.0.0.1:1") == []
    assert completed(server, "vedette explain tab", "nonsense") == []


# --- check-config ----------------------------------------------------------------------------------------------------------


def checked(folder: Any, handlers: str) -> Result:
    file = folder / "v.yaml"
    file.write_text(
        f"sources: [{{name: one, type: replay, path: x.jsonl}}]\nplugins: {{folder: {folder}}}\nhandlers: {handlers}\n"
    )
    return CliRunner(env=CLEAN).invoke(app, ["check-config", str(file)])


def test_check_config_builds_handlers_foreign_ones_in_a_process(tmp_path: Any) -> None:
    (tmp_path / "greet.py").write_text("def handle(event, context):\n    return 'hello'\n")
    (tmp_path / "broken.py").write_text("import os\nraise LookupError(f'in {os.getppid() > 0}')\n")
    assert checked(tmp_path, "[{name: a, use: greet}, {name: b, use: log}]").exit_code == 0
    result = checked(tmp_path, "[{name: a, use: greet}, {name: b, use: broken}]")
    assert result.exit_code == 2
    assert f"handlers[1]: broken ({tmp_path}/broken.py) can't be used: LookupError: in True" in result.stderr
    result = checked(tmp_path, "[{name: a, use: http, options: {url: 'http://127.0.0.1/{object.status.id'}}]")
    assert (result.exit_code, result.stderr) == (2, "Error: handlers[0].options: url: character 35: the } is missing\n")


def test_what_the_commands_read_is_what_the_server_says() -> None:
    """Names of fields: the client's structs have those of engine/letters.py."""
    from vedette.clients.vedette import Letter
    from vedette.engine.letters import fields_of
    from vedette.model.delivery import Delivery

    told = {"id": "h.1", **fields_of(Delivery("h", 1, 0, "s/g/K/i", 0, outcome="dead", at=1), None)}
    read = msgspec.convert(told, Letter)
    assert (read.handler, read.revision, read.subject) == ("h", "1", {"source": "s", "group": "g", "kind": "K", "id": "i"})
    assert {field.encode_name for field in msgspec.structs.fields(Letter)} - {"event"} <= told.keys()
