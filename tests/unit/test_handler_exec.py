"""`exec`: real programs, and what their end means."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from vedette.errors import ConfigError, GiveUp, TryLater, VedetteError
from vedette.handlers.exec import MAX_OUTPUT, Options, build
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.ports import Event
from vedette.testing.clock import FakeClock
from vedette.testing.handling import FakeContext, change, handler_needs

SHELL = "/bin/sh"
"""Programs for the tests are shell scripts; the handler itself uses none."""


def program(folder: Path, text: str, *, name: str = "program") -> str:
    path = folder / name
    path.write_text(f"#!{SHELL}\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def run(*command: str, event: Event | None = None, clock: Any = None, timeout: float = 20.0, **more: Any) -> str | None:
    handler = build(Options(command=command, **more), handler_needs(clock=clock or SystemClock()))
    try:
        return await handler.handle(event or change({"name": "web"}), FakeContext(timeout=timeout))
    finally:
        await handler.close()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed orphan waits for whoever reaps it: a zombie has no memory map.
    return bool(Path(f"/proc/{pid}/cmdline").read_bytes()) if Path(f"/proc/{pid}").exists() else False


async def until_gone(pid: int) -> None:
    for _ in range(500):
        if not is_there(pid):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{pid} is still there")


async def test_the_event_is_on_stdin_and_the_first_line_is_the_outcome(tmp_path: Path) -> None:
    said = await run(program(tmp_path, f'cat > "{tmp_path}/event"; echo; echo " noted "; echo more'))
    assert said == "noted"
    event = json.loads((tmp_path / "event").read_bytes())
    assert event["type"] == "vedette.object.modified"
    assert event["data"]["object"]["status"]["name"] == "web"


async def test_arguments_are_filled_and_never_read_by_a_shell(tmp_path: Path) -> None:
    path = program(tmp_path, f'for one in "$@"; do echo "<$one>"; done > "{tmp_path}/args"')
    name = "$(touch /tmp/x) `id`; * 'a b' {object}"
    await run(path, "--kind", "{key.kind}", "--name={object.status.name}", "", event=change({"name": name}))
    assert (tmp_path / "args").read_text().splitlines() == ["<--kind>", "<Port>", f"<--name={name}>", "<>"]


async def test_a_name_does_not_become_an_option(tmp_path: Path) -> None:
    path = program(tmp_path, 'echo "$2"')
    event = change({"name": "--delete-all"})
    with pytest.raises(GiveUp, match="would be an option"):
        await run(path, "--name", "{object.status.name}", event=event)
    assert await run(path, "--", "{object.status.name}", event=event) == "--delete-all"


async def test_what_an_event_lacks_or_no_argument_can_hold_is_a_dead_letter(tmp_path: Path) -> None:
    path = program(tmp_path, 'echo "[$1]"')
    with pytest.raises(GiveUp, match="has no value"):
        await run(path, "{object.status.other}")
    assert await run(path, "{object.status.other}", missing="empty") == "[]"
    with pytest.raises(GiveUp, match="NUL"):
        await run(path, "{object.status.name}", event=change({"name": "a\0b"}))


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ("echo busy >&2; exit 75", TryLater, "exit code 75: busy"),
        ("echo out; echo bad >&2; exit 3", GiveUp, "exit code 3: bad"),
        ("echo out; exit 4", VedetteError, "exit code 4: out"),
        ("exit 1", VedetteError, "exit code 1"),
        ("kill -9 $$", VedetteError, "ended by signal SIGKILL"),
    ],
)
async def test_how_it_ends_decides(tmp_path: Path, script: str, error: type[Exception], text: str) -> None:
    with pytest.raises(VedetteError) as raised:
        await run(program(tmp_path, script), give_up_codes=(2, 3))
    assert type(raised.value) is error
    assert str(raised.value) == text


async def test_its_environment_is_ours_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_PASSWORD", "not for it")
    event = change({}, request_id="req-1", traceparent="00-aa-bb-01", attempt=2)
    path = program(tmp_path, f'env > "{tmp_path}/env"; pwd')
    cwd = await run(path, event=event, env={"SITE": "north"}, secret_env={"TOKEN": Secret("s3cret")}, cwd=str(tmp_path))
    assert cwd == str(tmp_path)
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert {"SITE": "north", "TOKEN": "s3cret", "LANG": "C.UTF-8", "VEDETTE_ATTEMPT": "2"}.items() <= env.items()
    assert (env["VEDETTE_HANDLER"], env["VEDETTE_IDEMPOTENCY_KEY"]) == ("here", event.idempotency_key)
    assert (env["VEDETTE_REQUEST_ID"], env["TRACEPARENT"]) == ("req-1", "00-aa-bb-01")
    assert "OS_PASSWORD" not in env
    assert "HOME" not in env


async def test_at_its_timeout_it_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = program(tmp_path, f'sleep 1000 & echo $$ $! > "{pids}.new"; mv "{pids}.new" "{pids}"; wait')
    clock = FakeClock()
    calling = asyncio.create_task(run(path, clock=clock, timeout=30.0))
    while not pids.exists():
        await asyncio.sleep(0.02)
    await clock.advance(29)
    assert not calling.done()
    await clock.advance(2)
    with pytest.raises(VedetteError, match="was killed: it took more than 30 s"):
        await calling
    for pid in pids.read_text().split():
        await until_gone(int(pid))


async def test_a_cancelled_call_leaves_nothing_running(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = program(tmp_path, f'sleep 1000 & echo $$ $! > "{pids}.new"; mv "{pids}.new" "{pids}"; wait')
    calling = asyncio.create_task(run(path))
    while not pids.exists():
        await asyncio.sleep(0.02)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    for pid in pids.read_text().split():
        await until_gone(int(pid))


async def test_what_a_program_leaves_behind_does_not_hold_the_call(tmp_path: Path) -> None:
    path = program(tmp_path, f'sleep 1000 & echo $! > "{tmp_path}/pid"; echo done')
    assert await run(path) == "done"
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_arguments_that_are_too_long_for_the_system_are_a_dead_letter(tmp_path: Path) -> None:
    long = change({"name": "x" * 300_000})
    with pytest.raises(GiveUp, match="too long for the system"):
        await run(program(tmp_path, "exit 0"), "{object.status.name}", event=long)


async def test_a_flood_of_output_is_read_and_cut(tmp_path: Path) -> None:
    path = program(tmp_path, "head -c 5000000 /dev/zero | tr '\\0' x; echo >&2 end; exit 1")
    with pytest.raises(VedetteError, match="exit code 1: end"):
        await run(path)
    said = await run(program(tmp_path, f"head -c {MAX_OUTPUT * 3} /dev/zero | tr '\\0' x"))
    assert said is not None
    assert len(said) <= 201


async def test_a_program_that_reads_nothing_is_fine(tmp_path: Path) -> None:
    big = change({"name": "x" * 3_000_000})
    assert await run(program(tmp_path, "exec 0<&-; echo ok"), event=big) == "ok"


async def test_a_program_that_went_away_is_tried_later(tmp_path: Path) -> None:
    path = program(tmp_path, "exit 0")
    handler = build(Options(command=(path,)), handler_needs(clock=SystemClock()))
    Path(path).unlink()
    with pytest.raises(TryLater, match="can't be started"):
        await handler.handle(change({}), FakeContext())


def test_what_can_not_be_run_is_said_at_the_start(tmp_path: Path) -> None:
    needs = handler_needs()
    plain = tmp_path / "plain"
    plain.write_text("x")
    for options, says in [
        (Options(command=()), "wants a program"),
        (Options(command=("no-such-program-anywhere",)), "there is no program no-such"),
        (Options(command=("/nowhere/at/all",)), "there is no program /nowhere"),
        (Options(command=("bin/relative",)), "absolute path"),
        (Options(command=(str(plain),)), "chmod"),
        (Options(command=(str(tmp_path),)), "no program that may be run"),
        (Options(command=(sys.executable, "{x")), r"command\[1\]: character 3"),
        (Options(command=("true",), cwd=str(tmp_path / "nowhere")), "no folder"),
        (Options(command=("true",), give_up_codes=(75,)), "without 75"),
        (Options(command=("true",), env={"A=B": "c"}), "no ="),
    ]:
        with pytest.raises(ConfigError, match=says):
            build(options, needs)


@pytest.mark.parametrize(
    "check",
    [
        test_the_event_is_on_stdin_and_the_first_line_is_the_outcome,
        test_at_its_timeout_it_is_killed_with_all_that_it_started,
        test_a_cancelled_call_leaves_nothing_running,
        test_what_a_program_leaves_behind_does_not_hold_the_call,
        test_a_program_that_reads_nothing_is_fine,
        test_a_program_that_went_away_is_tried_later,
    ],
)
def test_it_is_the_same_on_the_loop_that_the_service_runs_on(tmp_path: Path, check: Callable[[Path], Any]) -> None:
    uvloop.run(check(tmp_path))


def test_a_program_that_is_gone_before_it_was_written_to_is_judged_by_its_end(tmp_path: Path) -> None:
    async def many() -> None:
        for _ in range(10):
            assert await run("true") is None

    uvloop.run(many())
