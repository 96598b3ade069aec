"""Foreign code in a process of its own: what it does there (block, hang, leak, end) harms its own calls and nothing else.

Messages come in from whoever holds a `ports.Worker` (engine/dispatch.py, through a `WorkerHandler`); model/frames.py carries
them to `python -m vedette.worker`, which imports the code, and the answers back. The process is spawned, never forked, and leads
a group of its own, so that a kill takes along whatever it started. What it prints and logs goes to our log under its name.

A call's deadline counts from when the process began with it: when it was sent, or when the answer before it came. At the deadline
the group is killed; the call in hand is told (WorkerDied), those behind it go to the next process and notice nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, cast

import msgspec

from vedette.errors import GiveUp, NotUnderstood, PluginFailed, TargetUnavailable, TooBusy, TryLater, WorkerDied
from vedette.kit.allowance import Allowance
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.tasks import cancel, keep_running, spawn, wait_for_event
from vedette.kit.telemetry import Telemetry
from vedette.kit.units import show_size
from vedette.model.frames import (
    MAX_MESSAGE,
    MAX_TEXT,
    Call,
    Done,
    Failed,
    Handled,
    Leaving,
    Log,
    Raised,
    Ready,
    Recall,
    Recalled,
    Start,
    Up,
    frames_up,
    pack,
)
from vedette.ports import Context, Event, WorkerCode

log = logging.getLogger("vedette.engine.worker")

MAX_MEMORY = 512 * 1024 * 1024
"""Bytes of resident memory. Above it after a call the process is replaced; at twice as much it is killed in the middle of one."""
START_TIMEOUT = 60.0
"""Seconds for importing and building."""
GRACE = 5.0
"""Seconds to end by itself, once asked."""
CANCEL_GRACE = 2.0
"""Seconds that async code has after its deadline: it was cancelled at it, and only what doesn't end then is killed."""
AHEAD = 32
"""Calls sent to the process before it has answered those in its hands; the next one is there when it wants it."""
MAX_WAITING = 10_000
"""Calls waiting at one time; more are TooBusy."""
MAX_RECALLS = 100
"""Questions after remembered values at one time; more is a broken process."""
MAX_RESENT = 3
"""A call that was in hand beside one that hung, or of a process that left without it, is sent again this often, then it is
WorkerDied too."""
PATIENCE = 3
"""Deaths in a row after which a new process waits."""
WATCH_SECONDS = 1.0
"""Between two looks at the memory."""
DRAIN_SECONDS = 1.0
"""For what is still in the pipe of a process that ended. Only a child of its own that fled the group can hold it open."""

_Recall = Callable[[str], Awaitable[Any]]


class WorkerProcess:
    """A `ports.Worker`: see there, and the module. Starts with the first call. Close it, or the process stays."""

    def __init__(
        self,
        code: WorkerCode,
        *,
        clock: Clock,
        telemetry: Telemetry,
        max_memory: int = MAX_MEMORY,
        start_timeout: float = START_TIMEOUT,
        grace: float = GRACE,
        withheld: Collection[str] = (),
    ) -> None:
        """`withheld`: variables of our environment that the process does not get."""
        self._code = code
        self._clock = clock
        self._withheld = withheld
        self._max_memory, self._start_timeout, self._grace = max_memory, start_timeout, grace
        self._waiting: deque[_Call] = deque()
        self._wanted = asyncio.Event()
        self._life: _Life | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._pumping = False
        self._closed = False
        self._number = 0
        self._delays = delays()
        self._failures = 0
        """Starts in a row that failed."""
        self._deaths = 0
        """Processes in a row that ended without having answered anything."""
        self._not_before = 0.0
        self._trouble = ""
        """Why no process can be started, until `_not_before`."""
        self._restarts = telemetry.counter("worker_restarts_total", "Processes of plugins that ended", "worker", "cause")
        self._calls = telemetry.counter("worker_calls_total", "Calls to plugins, by how they ended", "worker", "outcome")
        self._running = telemetry.gauge("worker_running", "Whether the plugin's process runs", "worker").labels(code.name)
        self._memory = telemetry.gauge("worker_memory_bytes", "Resident memory of the plugin's process", "worker").labels(
            code.name
        )
        lines = telemetry.counter("worker_lines_dropped_total", "Lines of plugins' output beyond what the log takes", "worker")
        self._output = _Output(code.name, clock, lines.labels(code.name).inc)

    async def call(self, message: bytes, timeout: float, *, recall: _Recall | None = None) -> bytes:
        """See `ports.Worker`; also raises PluginFailed (any other exception of the code), TargetUnavailable (the process can't be
        started, with the reason; or this is closed) and TooBusy. `recall` answers the code's questions after remembered values.

        Don't put a deadline around it: it waits for its turn before the `timeout` begins. Cancelled when it has begun, the
        process goes on with it to its end or deadline.
        """
        name = self._code.name
        if self._closed:
            raise TargetUnavailable(f"the process of {name} was stopped")
        if len(message) > MAX_MESSAGE:
            raise GiveUp(f"a message of {len(message)} bytes is more than a plugin's process takes ({MAX_MESSAGE})")
        if len(self._waiting) >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} calls wait for the process of {name}")
        wait = self._not_before - self._clock.monotonic()
        if self._trouble and wait > 0:
            raise TargetUnavailable(self._trouble, delay=wait)
        call = _Call(message, timeout, recall)
        self._waiting.append(call)
        self._wanted.set()
        if self._supervisor is None:
            work = keep_running(f"the worker of {name}", self._supervise, sleep=self._clock.sleep)
            self._supervisor = asyncio.create_task(work, name=f"worker {name}")
        self._pump_soon()
        try:
            return await call.future
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._waiting.remove(call)
            raise

    async def close(self) -> None:
        """Ask the process to end after what it has in hand, then kill it. Calls that it never began are TargetUnavailable."""
        self._closed = True
        if self._supervisor is not None:
            await cancel(self._supervisor)
        self._refuse(TargetUnavailable(f"the process of {self._code.name} was stopped"))

    # --- one process after the other

    async def _supervise(self) -> None:
        while True:
            await self._wanted.wait()
            await self._clock.sleep(max(0.0, self._not_before - self._clock.monotonic()))
            self._wanted.clear()
            if self._waiting:
                await self._live()
            if self._waiting:
                self._wanted.set()

    async def _live(self) -> None:
        """One process from its start to its end."""
        life = _Life(self._code, self._clock, self._output, self._answered, self._max_memory, self._memory.set, self._withheld)
        trouble = "its start was interrupted"
        try:
            trouble = await life.start(self._start_timeout)
            if not trouble:
                self._failures, self._trouble, self._life = 0, "", life
                self._running.set(1)
                self._pump()
                await life.over()
        finally:
            self._life = None
            self._running.set(0)
            await life.stop(self._grace)
            if not trouble:
                self._told(life, again=not self._closed)
        if trouble:
            self._cannot_start(trouble)

    def _cannot_start(self, trouble: str) -> None:
        self._failures += 1
        delay = next(self._delays)
        self._not_before = self._clock.monotonic() + delay
        times = f" ({self._failures} times in a row)" if self._failures > 1 else ""
        self._trouble = f"{self._code.name} can't be started{times}: {trouble}"
        self._restarts.labels(self._code.name, "start").inc()
        log.error("a plugin's process can't be started: %s", trouble, extra=kv(plugin=self._code.name, next_in=round(delay, 1)))
        self._refuse(TargetUnavailable(self._trouble, delay=delay))

    def _told(self, life: _Life, *, again: bool) -> None:
        """The process ended: those in its hands hear of it, the others wait for the next one."""
        name = self._code.name
        resent: list[_Call] = []
        for call in life.in_hand.values():
            if call.future.done():
                continue
            anew = life.cause == "leaving" or (life.cause == "deadline" and call not in life.culprits)
            call.resent += anew
            if anew and call.resent <= MAX_RESENT:
                resent.append(call)
            else:
                self._calls.labels(name, "died").inc()
                call.future.set_exception(WorkerDied(life.why))
        resent += [call for call in life.behind if not call.future.done()]
        self._waiting.extendleft(reversed(resent))
        if not again:
            return
        self._restarts.labels(name, life.cause).inc()
        log.warning("a plugin's process is over: %s", life.why, extra=kv(plugin=name, cause=life.cause, sent_anew=len(resent)))
        if life.cause in ("deadline", "leaving") or life.answered:
            self._deaths, self._delays = 0, delays()
            return
        self._deaths += 1
        if self._deaths >= PATIENCE:
            self._not_before = self._clock.monotonic() + next(self._delays)

    def _refuse(self, why: TargetUnavailable) -> None:
        """Nobody who waits is called."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.future.done():
                call.future.set_exception(TargetUnavailable(str(why), delay=why.delay))

    # --- calls

    def _pump_soon(self) -> None:
        """Once a turn of the loop: what came in it goes to the process in one write."""
        if not self._pumping and self._life is not None:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._life is None:
            return
        frames: list[bytes] = []
        while self._waiting and self._life.takes():
            call = self._waiting.popleft()
            if call.future.done():
                continue
            self._number += 1
            frames.append(self._life.take(self._number, call))
        if frames:
            self._life.write(b"".join(frames))

    def _answered(self, call: _Call, said: Done | Raised) -> None:
        name = self._code.name
        self._calls.labels(name, "done" if isinstance(said, Done) else "raised").inc()
        if not call.future.done():
            if isinstance(said, Done):
                call.future.set_result(bytes(said.answer))
            else:
                call.future.set_exception(_raised(said))
        self._pump_soon()


class _Call:
    """One call on its way."""

    __slots__ = ("deadline", "future", "message", "recall", "resent", "timeout")

    def __init__(self, message: bytes, timeout: float, recall: _Recall | None) -> None:
        self.message, self.timeout, self.recall = message, timeout, recall
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.deadline = 0.0
        """Monotonic seconds, once the process has begun with it."""
        self.resent = 0


def _raised(said: Raised) -> Exception:
    match said.error:
        case "try_later":
            return TryLater(said.text, delay=said.delay)
        case "target_unavailable":
            return TargetUnavailable(said.text, delay=said.delay)
        case "give_up":
            return GiveUp(said.text)
    return PluginFailed(said.text)


class _Life(asyncio.Protocol):
    """One process, from its start to its end. Knows what is in its hands (`in_hand`) and what was sent ahead (`behind`)."""

    def __init__(
        self,
        code: WorkerCode,
        clock: Clock,
        output: _Output,
        answered: Callable[[_Call, Done | Raised], None],
        max_memory: int,
        memory: Callable[[float], None],
        withheld: Collection[str],
    ) -> None:
        self._withheld = withheld
        self._code, self._clock, self._output = code, clock, output
        self._on_answer, self._max_memory, self._on_memory = answered, max_memory, memory
        self.in_hand: dict[int, _Call] = {}
        self._behind: deque[tuple[int, _Call]] = deque()
        self._bytes_behind = 0
        self.culprits: list[_Call] = []
        self.cause = ""
        """deadline | memory | leaving | protocol | exit | signal, once it is known"""
        self.why = ""
        """For people; whose call it had reads it."""
        self.answered = False
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready | Failed] = loop.create_future()
        self._lost: asyncio.Future[None] = loop.create_future()
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._unpacker = frames_up()
        self._pipes: list[_Lines] = []
        self._ended: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._recalls = 0
        self._slots = 1
        self._extra = 0.0
        self._stopping = False
        self._wake = asyncio.Event()
        self._sleeps_until = float("inf")

    @property
    def behind(self) -> Iterable[_Call]:
        return [call for _, call in self._behind]

    # --- start and end

    async def start(self, timeout: float, *, validate: bool = False) -> str:
        """ "" when the code is imported and built, otherwise why it is not; the process may still be there then."""
        code = self._code
        begin = Start(code.name, code.module, code.options, code.path, code.concurrency, self._max_memory, validate)
        try:
            await self._spawn()
        except OSError as why:
            return f"no process can be made: {why}"
        self.write(pack(begin))
        assert self._ended is not None
        patience = spawn(self._tasks, self._clock.sleep(timeout), "worker start-up")
        first: set[asyncio.Future[Any]] = {self._ready, self._ended, patience}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        await cancel(patience)
        if not self._ready.done():
            words = self._words()
            return f"{self.why}{words}" if self._ended.done() else f"importing and building took longer than {timeout:g} s{words}"
        said = self._ready.result()
        if isinstance(said, Failed):
            return said.text
        self._slots, self._extra = max(1, said.slots), CANCEL_GRACE if said.cancels else 0.0
        spawn(self._tasks, self._watch(), f"watch of worker {code.name}")
        return ""

    async def _spawn(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        out, to_out = os.pipe()
        err, to_err = os.pipe()
        fd = str(theirs.fileno())
        # -P: the folder that the service was started in is no place to import from.
        command = (sys.executable, "-P", "-m", "vedette.worker", "--pipe", fd, "--parent", str(os.getpid()), self._code.name)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in self._withheld} | {"PYTHONUNBUFFERED": "1"},
            )
        except BaseException:
            ours.close()
            os.close(out)
            os.close(err)
            raise
        finally:
            theirs.close()
            os.close(to_out)
            os.close(to_err)
        self._pipes = [_Lines(out, self._output, logging.INFO), _Lines(err, self._output, logging.WARNING)]
        self._ended = asyncio.create_task(self._until_end(ours), name=f"end of worker {self._code.name}")
        await loop.create_unix_connection(lambda: self, sock=ours)

    async def over(self) -> None:
        """Returns when the process is gone and everything that it said was heard."""
        assert self._ended is not None
        await asyncio.shield(self._ended)

    async def stop(self, grace: float) -> None:
        """SIGTERM, some time, SIGKILL. The time is the system's: whoever tests with a clock that stands wants to end, too."""
        self._stopping = True
        if self._ended is not None:
            if not self._ended.done():
                self._signal(signal.SIGTERM)
                await asyncio.wait({self._ended}, timeout=grace)
            if not self._ended.done():
                self.kill("stop", f"the process of {self._code.name} was stopped")
            await self._ended
        await cancel(*self._tasks)

    def kill(self, cause: str, why: str) -> None:
        """The whole group, now."""
        if not self.cause:
            self.cause, self.why = cause, why
        self._stopping = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _until_end(self, ours: socket.socket) -> None:
        assert self._process is not None
        status = await self._process.wait()
        self._stopping = True
        self._signal(signal.SIGKILL)  # what it left behind
        if self._transport is None:
            ours.close()
        else:
            await asyncio.wait({self._lost}, timeout=DRAIN_SECONDS)
            self._transport.abort()
            await self._lost
        for pipe in self._pipes:
            pipe.close()
        self._output.say_dropped()
        if not self.cause:
            self.cause, self.why = _ending(self._code.name, status)
            self.why += self._words()
        self._on_memory(0)

    def _words(self) -> str:
        words = self._pipes[1].last_words() if self._pipes else ""
        return f"; its last words: {words}" if words else ""

    # --- calls

    def takes(self) -> bool:
        """Whether one more call may be sent now."""
        if self._stopping:
            return False
        return len(self.in_hand) < self._slots or (len(self._behind) < AHEAD and self._bytes_behind < MAX_MESSAGE)

    def take(self, number: int, call: _Call) -> bytes:
        """The call is this process' now; what to write."""
        if len(self.in_hand) < self._slots:
            self._begin(number, call)
        else:
            self._behind.append((number, call))
            self._bytes_behind += len(call.message)
        return pack(Call(number, call.timeout, msgspec.Raw(call.message)))

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _begin(self, number: int, call: _Call) -> None:
        self.in_hand[number] = call
        call.deadline = self._clock.monotonic() + call.timeout + self._extra
        if call.deadline < self._sleeps_until:
            self._wake.set()

    async def _watch(self) -> None:
        """Kills at deadlines, and before the memory of the machine is gone."""
        while True:
            now = self._clock.monotonic()
            self.culprits = [call for call in self.in_hand.values() if call.deadline <= now]
            if self.culprits:
                seconds = f"{self.culprits[0].timeout:g} s"
                self.kill("deadline", f"the process of {self._code.name} was killed at its deadline of {seconds} for one call")
                return
            assert self._process is not None
            held = _resident(self._process.pid)
            self._on_memory(held)
            if self._max_memory and held > 2 * self._max_memory:
                limit = show_size(2 * self._max_memory)
                self.kill("memory", f"the process of {self._code.name} was killed: it had more than {limit} of memory")
                return
            self._sleeps_until = min([now + WATCH_SECONDS, *(call.deadline for call in self.in_hand.values())])
            self._wake.clear()
            await wait_for_event(self._wake, self._sleeps_until - now, cast(Any, self._clock.sleep))

    # --- what it says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)
        if self._process is not None and self._process.returncode is None and not self._stopping:
            spawn(self._tasks, self._without_pipe(), "worker without its pipe")

    async def _without_pipe(self) -> None:
        """Usually it is just about to end."""
        await asyncio.wait({self._ended} if self._ended else set(), timeout=DRAIN_SECONDS)
        self.kill("protocol", f"the process of {self._code.name} closed its pipe and was killed")

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._unpacker.feed(data):
                self._heard(frame)
        except NotUnderstood as why:
            self.kill("protocol", f"the process of {self._code.name} was killed: it sent {why}")
            if self._transport is not None:
                self._transport.abort()

    def _heard(self, frame: Up) -> None:
        match frame:
            case Done() | Raised():
                self._answer(frame)
            case Ready() | Failed():
                if not self._ready.done():
                    self._ready.set_result(frame)
            case Log():
                self._output.line(frame.level, frame.text, frame.logger)
            case Recall():
                self._recall(frame)
            case Leaving() if not self.cause:
                self.cause, self.why = "leaving", f"the process of {self._code.name} is replaced: {frame.text}"
                self._stopping = True
                spawn(self._tasks, self._not_gone(), "worker that leaves")

    async def _not_gone(self) -> None:
        await self._clock.sleep(GRACE)
        self._signal(signal.SIGKILL)

    def _answer(self, said: Done | Raised) -> None:
        call = self.in_hand.pop(said.number, None)
        if call is None:
            raise NotUnderstood(f"an answer to call {said.number}, which it did not have")
        self.answered = True
        if self._behind:
            number, following = self._behind.popleft()
            self._bytes_behind -= len(following.message)
            self._begin(number, following)
        self._on_answer(call, said)

    def _recall(self, asked: Recall) -> None:
        call = self.in_hand.get(asked.call)
        if call is None or self._recalls >= MAX_RECALLS:
            raise NotUnderstood("a question that belongs to no call, or too many")
        self._recalls += 1
        spawn(self._tasks, self._recalled(asked, call.recall), "recall of a worker")

    async def _recalled(self, asked: Recall, recall: _Recall | None) -> None:
        try:
            value = await recall(asked.name) if recall is not None else None
            said = Recalled(asked.number, msgspec.Raw(msgspec.json.encode(value)))
        except Exception as why:  # noqa: BLE001 - it is the code's question, so it is told
            said = Recalled(asked.number, error=f"{type(why).__name__}: {why}"[:MAX_TEXT])
        finally:
            self._recalls -= 1
        self.write(pack(said))


def _ending(name: str, status: int) -> tuple[str, str]:
    """(cause, text) of a process that ended without being asked."""
    if status >= 0:
        return "exit", f"the process of {name} ended with exit status {status}"
    try:
        number = signal.Signals(-status).name
    except ValueError:
        number = f"signal {-status}"
    hint = " (out of memory, or somebody killed it)" if status == -signal.SIGKILL else ""
    return "signal", f"the process of {name} was ended by {number}{hint}"


def _resident(pid: int) -> int:
    """Bytes of resident memory; 0 where the system doesn't say."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


# --- output ----------------------------------------------------------------------------------------------------------------

LINES_PER_SECOND, LINES_AT_ONCE = 50, 200
"""Of one plugin's output that the log takes; the others are counted."""
MAX_LINE = 2048
"""Bytes of a line of output; a longer one comes in pieces."""
_READ = 64 * 1024
_PAUSE = 0.005
"""Seconds between two reads of a pipe that was full: 13 MB/s of flood cost little, and whoever prints hardly waits."""
_TAIL = 2048
"""Bytes of stderr that are kept as last words."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Output:
    """What a plugin prints and logs, to our log, as much as it takes."""

    def __init__(self, name: str, clock: Clock, dropped: Callable[[float], None]) -> None:
        self._name, self._clock, self._dropped = name, clock, dropped
        self._allowance = Allowance(LINES_PER_SECOND, LINES_AT_ONCE)

    def line(self, level: int, text: str, logger: str = "") -> None:
        if not self._allowance.take(self._clock.monotonic()):
            self._dropped(1)
            return
        self.say_dropped()
        more = {"logger": _CONTROLS.sub("�", logger[:MAX_TEXT])} if logger else {}
        # Control characters could write to the terminal of whoever reads the log.
        plain = _CONTROLS.sub("�", text[:MAX_TEXT])
        log.log(level, "%s", plain, extra=kv(plugin=self._name, **more))

    def full(self) -> bool:
        """Whether lines are being dropped now: they need not be looked at one by one."""
        return self._allowance.refused > 0 and not self._allowance.would(self._clock.monotonic())

    def drop(self, lines: int) -> None:
        self._allowance.refused += lines
        self._dropped(lines)

    def say_dropped(self) -> None:
        if dropped := self._allowance.forgive():
            log.warning("lines of a plugin's output were left out", extra=kv(plugin=self._name, lines=dropped))


class _Lines:
    """One pipe that the process prints to, read as it comes and cut into lines."""

    def __init__(self, fd: int, output: _Output, level: int) -> None:
        self._fd, self._output, self._level = fd, output, level
        self._rest = b""
        self._tail = b""
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._readable)

    def last_words(self) -> str:
        """The last few lines, on one."""
        lines = self._tail.decode(errors="replace").splitlines()[-5:]
        return " | ".join(_CONTROLS.sub("�", line.strip()) for line in lines if line.strip())

    def close(self) -> None:
        """What is still in the pipe is read; not more than it holds, somebody may still write."""
        if self._fd < 0:
            return
        for _ in range(16):
            if not self._read():
                break
        self._end()

    def _readable(self) -> None:
        size = self._read()
        if size == 0:
            self._end()
        elif size >= _READ // 2:
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> int:
        """Bytes read; 0 at the end, -1 when there is nothing now."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return -1
        except OSError:
            return 0
        self._tail = (self._tail + data)[-_TAIL:]
        if self._output.full():
            self._output.drop(data.count(b"\n"))
            self._rest = b""
            return len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._rest) > MAX_LINE:
            self._line(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]
        return len(data)

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        for at in range(0, len(text), MAX_LINE):
            self._output.line(self._level, text[at : at + MAX_LINE])

    def _end(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._rest:
            self._line(self._rest)
            self._rest = b""


# --- what others see -------------------------------------------------------------------------------------------------------

_decode_handled = msgspec.json.Decoder(Handled).decode
_encode_event = msgspec.json.Encoder().encode


class WorkerHandler:
    """A `ports.Handler` whose code is in a worker process. `context.timeout` counts from when the process begins with it."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker

    async def handle(self, event: Event, context: Context) -> str | None:
        """See `ports.Handler`, and `WorkerProcess.call` for what it raises."""
        answer = await self._worker.call(_encode_event(event), context.timeout, recall=context.recall)
        handled = _decode_handled(answer)
        for name, value in handled.remember.items():
            context.remember(name, value)
        return handled.outcome

    async def close(self) -> None:
        await self._worker.close()


async def validate(code: WorkerCode, *, clock: Clock, timeout: float = START_TIMEOUT, withheld: Collection[str] = ()) -> str:
    """Import and build the code in a process, for `vedette check-config`: "" when that works, otherwise what is wrong."""
    output = _Output(code.name, clock, lambda lines: None)
    life = _Life(code, clock, output, lambda call, said: None, MAX_MEMORY, lambda size: None, withheld)
    try:
        return await life.start(timeout, validate=True)
    finally:
        await life.stop(GRACE)
