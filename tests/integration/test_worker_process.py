"""Real processes: whatever a plugin does in one (block, hang, die, leak, flood) harms nothing but its own call."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vedette.engine.worker import WorkerHandler, WorkerProcess, validate
from vedette.errors import GiveUp, PluginFailed, TargetUnavailable, TryLater, WorkerDied
from vedette.kit.clock import SystemClock
from vedette.kit.log import TextFormatter
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import Notice
from vedette.model.reading import Key
from vedette.ports import Event, WorkerCode
from vedette.testing.clock import FakeClock

LONG = 300.0
"""Seconds that no test waits for: on a clock that stands still, a deadline comes only when the test says so."""


class Rig:
    """A folder with a plugin in it, and workers that run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.telemetry = Telemetry()

    @asynccontextmanager
    async def worker(self, code: str, clock: Any = None, **more: Any) -> AsyncIterator[WorkerProcess]:
        settings = {name: more.pop(name) for name in ("max_memory", "start_timeout", "grace", "withheld") if name in more}
        (self.folder / "plug.py").write_text(code)
        what = WorkerCode(name="plug", module=str(self.folder / "plug.py"), **more)
        worker = WorkerProcess(what, clock=clock or SystemClock(), telemetry=self.telemetry, **settings)
        try:
            yield worker
        finally:
            await worker.close()

    def count(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"vedette_{name}", {"worker": "plug", **labels}) or 0.0

    async def file(self, name: str) -> str:
        """What a plugin wrote, once it has."""
        path = self.folder / name
        await until(lambda: path.exists() and path.read_text() != "")
        return path.read_text()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie that nobody has waited for yet (an orphan's new parent may be slow) is dead, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


async def ask(worker: WorkerProcess, message: Any, timeout: float = LONG) -> Any:
    return msgspec.json.decode(await worker.call(msgspec.json.encode(message), timeout))


class Memory:
    """A handler's context as the service has it."""

    timeout = LONG

    def __init__(self, **values: Any) -> None:
        self.values = values

    async def recall(self, name: str) -> Any:
        return self.values.get(name)

    def remember(self, name: str, value: Any) -> None:
        self.values[name] = value


def event(number: int = 1) -> Event:
    payload = msgspec.Raw(b'{"port": {"id": "p1"}}')
    return Event(
        handler="plug",
        idempotency_key=f"plug/{number}",
        revision=number,
        attempt=1,
        verb="ADDED",
        key=Key("one", "openstack.vedette.dev", "Port", "p1"),
        notice=Notice(id=str(number), source="one", event_type="port.create.end", sent_at=10**15, payload=payload),
        appended_at=10**15,
        raw_object=msgspec.Raw(b'{"metadata": {"name": "p1"}}'),
    )


# --- calls


async def test_a_handler_sees_the_event_and_its_few_words_come_back(rig: Rig) -> None:
    code = """
def handle(event, context):
    assert context.timeout == 300.0
    port, name = event.payload["port"]["id"], event.object["metadata"]["name"]
    return f"{event.verb} {event.key.id} {event.type} {port} {name} {event.old}"
"""
    async with rig.worker(code) as worker:
        assert await WorkerHandler(worker).handle(event(), Memory()) == "ADDED p1 port.create.end p1 p1 {}"


@pytest.mark.parametrize(("prefix", "wait"), [("", ""), ("async ", "await ")])
async def test_what_a_handler_remembered_is_recalled_at_its_next_event(rig: Rig, prefix: str, wait: str) -> None:
    code = f"""
{prefix}def handle(event, context):
    seen = ({wait}context.recall("seen")) or []
    context.remember("seen", seen + [event.revision])
    again = {wait}context.recall("seen")
    return str(again)
"""
    memory = Memory()
    async with rig.worker(code) as worker:
        handler = WorkerHandler(worker)
        assert await handler.handle(event(1), memory) == "[1]"
        assert await handler.handle(event(2), memory) == "[1, 2]"
    assert memory.values == {"seen": [1, 2]}


async def test_errors_come_back_as_what_they_were_and_the_process_lives_on(rig: Rig) -> None:
    code = """
import os, sys
from vedette.errors import GiveUp, TargetUnavailable, TryLater
def call(message):
    if message == "later":
        raise TryLater("come again", delay=17)
    if message == "nobody":
        raise TargetUnavailable("refused", delay=3)
    if message == "never":
        raise GiveUp("no such zone")
    if message == "exit":
        sys.exit(3)
    if message == "big":
        return "x" * 100_000
    if message == "pid":
        return os.getpid()
    return {}[message]
"""
    async with rig.worker(code) as worker:
        pid = await ask(worker, "pid")
        with pytest.raises(TryLater, match="come again") as later:
            await ask(worker, "later")
        assert (type(later.value), later.value.delay) == (TryLater, 17)
        with pytest.raises(TargetUnavailable, match="refused") as nobody:
            await ask(worker, "nobody")
        assert nobody.value.delay == 3
        with pytest.raises(GiveUp, match="no such zone"):
            await ask(worker, "never")
        with pytest.raises(PluginFailed, match=r"^KeyError: 'bug' \(plug\.py line 17, in call\)$"):
            await ask(worker, "bug")
        with pytest.raises(PluginFailed, match="SystemExit: 3"):
            await ask(worker, "exit")
        with pytest.raises(GiveUp, match="100002 bytes"):
            await ask(worker, "big")
        with pytest.raises(GiveUp, match="more than a plugin's process takes"):
            await ask(worker, "x" * 1024 * 1024)
        assert await ask(worker, "pid") == pid


async def test_a_thousand_calls_are_made_one_after_the_other_in_their_order(rig: Rig) -> None:
    code = """
seen = []
def call(message):
    seen.append(message)
    return seen if message == 999 else message
"""
    async with rig.worker(code) as worker:
        answers = await asyncio.gather(*(ask(worker, number) for number in range(1000)))
    assert answers[:999] == list(range(999))
    assert answers[999] == list(range(1000))
    assert rig.count("worker_calls_total", outcome="done") == 1000


async def test_async_code_has_as_many_calls_in_hand_as_it_may(rig: Rig) -> None:
    code = """
import asyncio
inside, most, gate = 0, 0, asyncio.Event()
async def call(message):
    global inside, most
    inside += 1
    most = max(most, inside)
    if inside == 3:
        gate.set()
    await gate.wait()
    await asyncio.sleep(0.01)
    inside -= 1
    return most
"""
    async with rig.worker(code, concurrency=3) as worker:
        assert max(await asyncio.gather(*(ask(worker, number) for number in range(12)))) == 3


async def test_a_blocking_call_blocks_nobody_else(rig: Rig, tmp_path: Path) -> None:
    code = """
import pathlib, time
def call(message):
    while not pathlib.Path(message).exists():
        time.sleep(0.01)
    return "seen"
"""
    async with rig.worker(code) as worker:
        blocked = asyncio.create_task(ask(worker, str(tmp_path / "go")))
        await until(lambda: rig.count("worker_running") == 1)
        (tmp_path / "go").touch()
        assert await blocked == "seen"


async def test_the_example_greets_every_server_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    example = Path(__file__).parents[2] / "examples" / "plugins" / "greet.py"
    caplog.set_level(logging.INFO, "vedette.engine.worker")
    worker = WorkerProcess(WorkerCode(name="greet", module=str(example)), clock=SystemClock(), telemetry=Telemetry())
    handler, memory = WorkerHandler(worker), Memory()
    server = msgspec.structs.replace(event(), raw_object=msgspec.Raw(b'{"status": {"name": "web-1"}}'))
    assert await handler.handle(server, memory) == "greeted web-1"
    assert await handler.handle(server, memory) == "greeted web-1"
    await handler.close()
    said = [record.getMessage() for record in caplog.records]
    assert "hello web-1, you are number 2" in said
    assert memory.values == {"greeted": 2}


# --- deaths

HANGS = """
import os, pathlib, time
def call(message):
    if message == "hang":
        pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
        time.sleep(1000)
    return message
"""


async def test_a_hang_is_killed_at_its_deadline_and_those_behind_it_notice_nothing(rig: Rig) -> None:
    clock = FakeClock()
    async with rig.worker(HANGS, clock) as worker:
        assert await ask(worker, "first") == "first"
        hung = asyncio.create_task(ask(worker, "hang", 30))
        behind = [asyncio.create_task(ask(worker, number, 30)) for number in range(50)]
        pid = int(await rig.file("pid"))
        await clock.advance(29)
        assert is_alive(pid)
        await clock.advance(2)
        with pytest.raises(WorkerDied, match="killed at its deadline of 30 s"):
            await hung
        assert await asyncio.gather(*behind) == list(range(50))
        assert not is_alive(pid)
    assert rig.count("worker_restarts_total", cause="deadline") == 1


async def test_async_code_is_cancelled_at_its_deadline_and_its_process_goes_on(rig: Rig) -> None:
    code = """
import asyncio, os
async def call(message):
    if message == "hang":
        await asyncio.sleep(1000)
    return os.getpid()
"""
    async with rig.worker(code, FakeClock(), concurrency=2) as worker:
        pid = await ask(worker, "first")
        with pytest.raises(PluginFailed, match=r"took longer than its 0\.05 s"):
            await ask(worker, "hang", 0.05)
        assert await ask(worker, "last") == pid


async def test_who_was_in_hand_beside_a_hang_is_called_again(rig: Rig) -> None:
    code = """
import asyncio, pathlib, time
tries = pathlib.Path(__file__).with_name("tries")
async def call(message):
    if message == "innocent":
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) == 1:
            await asyncio.sleep(1000)
        return "done"
    while not tries.exists():
        await asyncio.sleep(0.01)
    tries.with_name("hangs").write_text("yes")
    time.sleep(1000)
"""
    clock = FakeClock()
    async with rig.worker(code, clock, concurrency=2) as worker:
        hung = asyncio.create_task(ask(worker, "hang", 5))
        innocent = asyncio.create_task(ask(worker, "innocent"))
        await rig.file("hangs")
        await clock.advance(20)
        with pytest.raises(WorkerDied):
            await hung
        assert await innocent == "done"
    assert (rig.folder / "tries").read_text() == "xx"


async def test_a_process_that_ends_takes_only_the_call_in_its_hands_along(rig: Rig) -> None:
    code = """
import os, sys
def call(message):
    if message == "exit":
        print("I have had enough", file=sys.stderr)
        os._exit(3)
    if message == "segfault":
        import ctypes
        ctypes.string_at(0)
    return message
"""
    async with rig.worker(code) as worker:
        asked = ["a", "exit", "b", "segfault", "c"]
        told = await asyncio.gather(*(ask(worker, one) for one in asked), return_exceptions=True)
    assert [told[0], told[2], told[4]] == ["a", "b", "c"]
    assert isinstance(told[1], WorkerDied)
    assert "exit status 3; its last words: I have had enough" in str(told[1])
    assert isinstance(told[3], WorkerDied)
    assert "SIGSEGV" in str(told[3])
    assert rig.count("worker_restarts_total", cause="exit") == 1
    assert rig.count("worker_restarts_total", cause="signal") == 1


async def test_one_that_dies_at_every_call_is_started_ever_later(rig: Rig) -> None:
    clock = FakeClock()
    async with rig.worker("import os\ndef call(message):\n    os._exit(1)\n", clock) as worker:
        for _ in range(3):
            with pytest.raises(WorkerDied):
                await ask(worker, "x")
        held = asyncio.create_task(ask(worker, "x"))
        await until(lambda: clock.sleeping > 0)
        assert rig.count("worker_restarts_total", cause="exit") == 3
        await clock.advance(60)
        with pytest.raises(WorkerDied):
            await held


async def test_a_module_that_raises_is_told_at_once_and_tried_again_later(rig: Rig) -> None:
    clock = FakeClock()
    code = "import pathlib\nif not pathlib.Path(__file__).with_name('fixed').exists():\n    raise RuntimeError('no licence')\n"
    async with rig.worker(code + "def call(message):\n    return message\n", clock) as worker:
        told = await asyncio.gather(*(ask(worker, number) for number in range(5)), return_exceptions=True)
        assert all(isinstance(one, TargetUnavailable) and one.delay > 0 for one in told)
        assert "plug can't be started: RuntimeError: no licence (plug.py line 3" in str(told[0])
        with pytest.raises(TargetUnavailable):  # no process is started for this one
            await ask(worker, 1)
        assert rig.count("worker_restarts_total", cause="start") == 1
        await clock.advance(60)
        with pytest.raises(TargetUnavailable, match=r"2 times in a row"):
            await ask(worker, 1)
        (rig.folder / "fixed").touch()
        await clock.advance(60)
        assert await ask(worker, 1) == 1


async def test_one_that_dies_while_it_starts_leaves_its_last_words(rig: Rig) -> None:
    code = "import os, sys\nprint('the disk is full', file=sys.stderr, flush=True)\nos._exit(9)\n"
    async with rig.worker(code, FakeClock()) as worker:
        with pytest.raises(TargetUnavailable, match="exit status 9; its last words: the disk is full"):
            await ask(worker, 1)


async def test_a_start_that_never_ends_is_given_up(rig: Rig) -> None:
    clock = FakeClock()
    code = "import pathlib, time\npathlib.Path(__file__).with_name('pid').write_text('x')\ntime.sleep(1000)\n"
    async with rig.worker(code, clock, start_timeout=60, grace=0.1) as worker:
        asked = asyncio.create_task(ask(worker, 1))
        await rig.file("pid")
        await clock.advance(61)
        with pytest.raises(TargetUnavailable, match="took longer than 60 s"):
            await asked


async def test_a_leak_costs_a_new_process_and_no_call(rig: Rig) -> None:
    code = """
import os
kept = []
def call(message):
    kept.append(b"x" * 50_000_000)
    return os.getpid()
"""
    async with rig.worker(code, max_memory=150_000_000) as worker:
        pids = await asyncio.gather(*(ask(worker, number) for number in range(8)))
    assert len(set(pids)) > 1
    assert rig.count("worker_calls_total", outcome="done") == 8
    assert rig.count("worker_restarts_total", cause="leaving") >= 1


async def test_one_call_that_eats_all_memory_is_killed(rig: Rig) -> None:
    code = """
import time
def call(message):
    kept = []
    while len(kept) < 40:
        kept.append(b"x" * 10_000_000)
    time.sleep(1000)
"""
    async with rig.worker(code, max_memory=100_000_000) as worker:
        with pytest.raises(WorkerDied, match="of memory"):
            await ask(worker, 1)
    assert rig.count("worker_restarts_total", cause="memory") == 1


async def test_what_a_plugin_left_running_is_killed_with_it(rig: Rig) -> None:
    code = """
import os, subprocess, sys, time
def call(message):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with open(__file__ + ".pids", "a") as file:
        file.write(f"{child.pid}\\n")
    if message == "die":
        os._exit(0)
    if message == "hang":
        time.sleep(1000)
"""
    clock = FakeClock()
    async with rig.worker(code, clock) as worker:
        await ask(worker, "live")
        with pytest.raises(WorkerDied):
            await ask(worker, "die")
        hung = asyncio.create_task(ask(worker, "hang", 5))
        pids = rig.folder / "plug.py.pids"
        await until(lambda: pids.read_text().count("\n") == 3)
        await clock.advance(6)
        with pytest.raises(WorkerDied):
            await hung
        await ask(worker, "live")
    left = [int(line) for line in pids.read_text().split()]
    assert len(left) == 4
    await until(lambda: not any(is_alive(pid) for pid in left))


async def test_garbage_on_the_pipe_ends_the_process_and_not_us(rig: Rig) -> None:
    code = """
import os, socket, stat, time
def call(message):
    if message == "garbage":
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, b"GET / HTTP/1.1\\r\\n" * 100)
            except OSError:
                pass
        time.sleep(1000)
    return message
"""
    async with rig.worker(code) as worker:
        asked = [asyncio.create_task(ask(worker, one)) for one in ("garbage", "b")]
        with pytest.raises(WorkerDied, match="was killed: it sent a frame"):
            await asked[0]
        assert await asked[1] == "b"
    assert rig.count("worker_restarts_total", cause="protocol") == 1


# --- output


async def test_what_a_plugin_prints_and_logs_is_in_our_log_under_its_name(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    code = """
import logging, sys
def call(message):
    print("printed \\x1b[31m")
    print("complained", file=sys.stderr)
    logging.getLogger("dns").error("logged %s", message)
"""
    caplog.set_level(logging.INFO, "vedette.engine.worker")
    async with rig.worker(code) as worker:
        await ask(worker, "it")
    said = {(record.levelname, record.getMessage(), record.__dict__["kv"]["plugin"]) for record in caplog.records}
    assert {("INFO", "printed �[31m", "plug"), ("WARNING", "complained", "plug"), ("ERROR", "logged it", "plug")} <= said


async def test_a_flood_of_output_is_counted_and_costs_the_call_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    code = """
import logging, sys
def call(message):
    for number in range(100_000):
        print("x" * 20)
    sys.stdout.write("y" * 1_000_000)
    for number in range(10_000):
        logging.warning("z")
    return "done"
"""
    caplog.set_level(logging.INFO, "vedette.engine.worker")
    async with rig.worker(code) as worker:
        assert await ask(worker, 1) == "done"
    assert len(caplog.records) < 2000
    assert rig.count("worker_lines_dropped_total") > 90_000
    assert any("left out" in record.getMessage() for record in caplog.records)


# --- ends


async def test_closing_lets_the_call_in_hand_end_and_refuses_those_behind_it(rig: Rig) -> None:
    code = """
import pathlib, time
here = pathlib.Path(__file__)
class Plug:
    def call(self, message):
        here.with_name("began").write_text("x")
        while not here.with_name("go").exists():
            time.sleep(0.01)
        return message
    def close(self):
        here.with_name("closed").write_text("x")
def build(options, needs):
    return Plug()
"""
    async with rig.worker(code, grace=60) as worker:
        calls = [asyncio.create_task(ask(worker, number)) for number in range(3)]
        await rig.file("began")
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        (rig.folder / "go").touch()
        await closing
        told = await asyncio.gather(*calls, return_exceptions=True)
    assert told[0] == 0
    assert [type(one) for one in told[1:]] == [TargetUnavailable] * 2
    assert (rig.folder / "closed").exists()


async def test_closing_kills_what_does_not_end(rig: Rig) -> None:
    async with rig.worker(HANGS, grace=0.05) as worker:
        hung = asyncio.create_task(ask(worker, "hang"))
        pid = int(await rig.file("pid"))
        await worker.close()
        with pytest.raises(WorkerDied):
            await hung
        assert not is_alive(pid)


async def test_a_call_that_is_cancelled_before_its_turn_is_never_made(rig: Rig) -> None:
    code = "seen = []\ndef call(message):\n    seen.append(message)\n    return seen\n"
    async with rig.worker(code) as worker:
        first = asyncio.create_task(ask(worker, 1))
        second = asyncio.create_task(ask(worker, 2))
        await asyncio.sleep(0)
        second.cancel()
        await first
        assert await ask(worker, 3) == [1, 3]


async def test_the_process_dies_with_a_service_that_was_killed(rig: Rig) -> None:
    (rig.folder / "plug.py").write_text(HANGS)
    service = """
import asyncio, sys
from vedette.engine.worker import WorkerProcess
from vedette.kit.clock import SystemClock
from vedette.kit.log import TextFormatter
from vedette.kit.telemetry import Telemetry
from vedette.ports import WorkerCode
async def main():
    code = WorkerCode(name="p", module=sys.argv[1])
    await WorkerProcess(code, clock=SystemClock(), telemetry=Telemetry()).call(b'"hang"', 1000)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", service, str(rig.folder / "plug.py"))
    try:
        pid = int(await rig.file("pid"))
        assert is_alive(pid)
    finally:
        process.kill()
        await process.wait()
    await until(lambda: not is_alive(pid))


# --- how the code is found and built


async def test_options_become_the_plugins_own_struct(rig: Rig) -> None:
    code = """
import msgspec
from vedette.kit.secret import Secret
from vedette.kit.units import Seconds
class Options(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    token: Secret = Secret()
    every: Seconds = 1.0
class Plug:
    def __init__(self, options, needs):
        self.options, self.needs = options, needs
    async def call(self, message):
        return [self.options.url, self.options.token.reveal(), str(self.options.token), self.options.every, self.needs.name]
async def build(options, needs):
    return Plug(options, needs)
"""
    options: dict[str, Any] = {"url": "http://x", "token": "hunter2", "every": "2m"}
    async with rig.worker(code, options=options) as worker:
        assert await ask(worker, 1) == ["http://x", "hunter2", "***", 120.0, "plug"]
    for wrong, text in (
        ({}, "options: Object missing required field `url`"),
        ({"url": "x", "every": "often"}, "options.every: is not a duration"),
        ({"url": 5}, "options: Expected `str`, got `int` - at `$.url`"),
        ({"ulr": "x"}, "options.ulr: is no option of it; did you mean 'url'?"),
    ):
        what = WorkerCode(name="plug", module=str(rig.folder / "plug.py"), options=wrong)
        assert text in await validate(what, clock=SystemClock())
    fine = WorkerCode(name="plug", module=str(rig.folder / "plug.py"), options=options)
    assert await validate(fine, clock=SystemClock()) == ""


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("x = 1\n", "has neither build(options, needs) nor handle(event, context)"),
        ("def build(options, needs):\n    return 5\n", "what its build() gave has no handle()"),
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of_this_name' (plug.py line 1"),
        ("import sys\nsys.exit(4)\n", "SystemExit: 4"),
        ("import os\nos._exit(4)\n", "exit status 4"),
    ],
)
async def test_what_is_wrong_with_a_plugin_is_told_without_starting_the_service(rig: Rig, code: str, text: str) -> None:
    (rig.folder / "plug.py").write_text(code)
    assert text in await validate(WorkerCode(name="plug", module=str(rig.folder / "plug.py")), clock=SystemClock())


async def test_a_package_and_a_file_named_like_a_library_are_imported_beside_it(rig: Rig) -> None:
    package = rig.folder / "http"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import http.client, neighbour\nfrom .inner import word\ndef call(message):\n    return [word, neighbour.word]\n"
    )
    (package / "inner.py").write_text("word = 'inner'\n")
    (rig.folder / "neighbour.py").write_text("word = 'beside'\n")
    worker = WorkerProcess(WorkerCode(name="plug", module=str(package)), clock=SystemClock(), telemetry=rig.telemetry)
    try:
        assert await ask(worker, 1) == ["inner", "beside"]
    finally:
        await worker.close()


async def test_a_dotted_name_is_looked_for_in_the_given_folders(rig: Rig) -> None:
    (rig.folder / "greeting.py").write_text("class Plug:\n    @staticmethod\n    def call(message):\n        return 'hello'\n")
    what = WorkerCode(name="plug", module="greeting:Plug", path=(str(rig.folder),))
    worker = WorkerProcess(what, clock=SystemClock(), telemetry=rig.telemetry)
    try:
        assert await ask(worker, 1) == "hello"
    finally:
        await worker.close()


async def test_a_variable_that_is_withheld_is_not_in_its_environment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBIT_PASSWORD", "guest-of-honour")
    monkeypatch.setenv("SITE", "north")
    code = "import os\ndef call(message): return [os.environ.get(name) for name in ('RABBIT_PASSWORD', 'SITE')]"
    async with rig.worker(code, withheld=frozenset({"RABBIT_PASSWORD"})) as worker:
        assert await ask(worker, "x") == [None, "north"]


# --- a process that speaks for itself

PIPE = """
import os, sys, time

def say(frame):
    os.write(int(sys.argv[sys.argv.index("--pipe") + 1]), len(frame).to_bytes(4, "big") + frame)

"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("""say(b'{"type":"Done","number":1,"answer":' + b"[" * 30_000 + b"]" * 30_000 + b"}")""", "a frame that is none"),
        ("""say(b'{"type":"Done","number":7,"answer":1}')""", "an answer to call 7, which it did not have"),
        ("""say(b'{"type":"Recall","number":1,"call":7,"name":"x"}')""", "a question that belongs to no call"),
        ("""os.write(int(sys.argv[sys.argv.index("--pipe") + 1]), b"\\xff\\xff\\xff\\xff")""", "a frame of 4294967295 bytes"),
    ],
)
async def test_a_process_that_says_what_means_nothing_is_killed_and_its_call_told_so(rig: Rig, said: str, told: str) -> None:
    async with rig.worker(f"{PIPE}def call(message):\n    {said}\n    time.sleep(300)\n") as worker:
        with pytest.raises(WorkerDied, match=told):
            await ask(worker, "x")


async def test_a_process_that_leaves_with_a_call_in_its_hands_does_not_get_it_for_ever(rig: Rig) -> None:
    leaves = """
def call(message):
    for _ in range(1_000):
        say(b'{"type":"Leaving","text":"tired"}')
    os._exit(0)
"""
    async with rig.worker(PIPE + leaves) as worker:
        with pytest.raises(WorkerDied, match="is replaced: tired"):
            await ask(worker, "x")
    assert rig.count("worker_restarts_total", cause="leaving") == 4


async def test_what_a_process_calls_its_loggers_moves_no_cursor(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vedette.engine.worker")
    logs = """
def call(message):
    say(b'{"type":"Log","level":20,"logger":"a\\\\u001b[2J","text":"b\\\\u001b[2J"}')
"""
    async with rig.worker(PIPE + logs) as worker:
        await ask(worker, "x")
    [record] = [one for one in caplog.records if "b" in one.getMessage() and hasattr(one, "kv") and "logger" in one.kv]
    assert (record.getMessage(), record.kv["logger"]) == ("b�[2J", "a�[2J")
    assert "\x1b" not in TextFormatter().format(record)
