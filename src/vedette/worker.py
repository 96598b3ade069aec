"""The inside of a worker process, `python -m vedette.worker`: one plugin's code, and nothing of the service.

Frames (model/frames.py) come in over a socket from engine/worker.py: first the code to import, then calls, one after the other
for blocking code, up to `concurrency` at a time for async code. Answers, log records and questions after remembered values go
back. What is printed goes through stdout and stderr, which the service reads too.

The code is a module with `build(options, needs)`, which gives an object with `handle(event, context)`, or with that function
itself. `handle` may be `async def` or not. In its place a `call(message)` takes any JSON and gives any JSON (undecoded, where its
attribute `takes_bytes` says so); if that runs other code still, its attribute `code_folder` says where that is.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import importlib
import importlib.util
import inspect
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from vedette.errors import ConfigError, GiveUp, NotUnderstood, TargetUnavailable, TryLater
from vedette.kit.allowance import Allowance
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.secret import Secret
from vedette.kit.units import UNIT, parse_duration, parse_size, show_size
from vedette.model.frames import (
    MAX_ANSWER,
    MAX_TEXT,
    Call,
    Done,
    Down,
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
    frames_down,
    pack,
)
from vedette.ports import Event

log = logging.getLogger("vedette.worker")

LOGS_PER_SECOND, LOGS_AT_ONCE = 50, 200
"""Log records that are sent; the others are counted, and their number is sent with the next one."""
LONGEST_OUTCOME = 1000
"""Characters of what `handle` returns; the rest is cut off."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What `build(options, needs)` of a plugin is given."""

    name: str
    """The handler's own name in the configuration."""
    clock: Clock


# --- the code --------------------------------------------------------------------------------------------------------------


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that is imported and built."""

    entry: Callable[..., Any]
    """`handle(event, context)` or `call(message)`."""
    takes_events: bool
    takes_bytes: bool
    """`call(message)` wants the JSON undecoded."""
    is_async: bool
    close: Callable[[], Any]
    where: str
    """The folder of its file: a traceback's line there says more than one in a library."""


async def load(start: Start) -> Code:
    """Import and build. Raises ConfigError with a text for the operator, and whatever the code itself raises."""
    sys.path[:0] = start.path
    module, thing = _module(start.module)
    where = str(Path(getattr(module, "__file__", None) or ".").parent)
    build = getattr(thing, "build", None)
    if build:
        thing = build(_options(getattr(thing, "Options", None), start.options), Needs(name=start.name, clock=SystemClock()))
        if inspect.isawaitable(thing):
            thing = await thing
    elif start.options:
        raise ConfigError("has no build(options, needs), so it takes no options", path=start.module)
    entry = thing if inspect.isroutine(thing) else getattr(thing, "handle", None) or getattr(thing, "call", None)
    if not callable(entry):
        missing = "neither build(options, needs) nor handle(event, context)"
        raise ConfigError("what its build() gave has no handle()" if build else f"has {missing}", path=start.module)
    return Code(
        entry=entry,
        takes_events=inspect.isroutine(thing) or hasattr(thing, "handle"),
        takes_bytes=bool(getattr(thing, "takes_bytes", False)),
        is_async=inspect.iscoroutinefunction(entry) or inspect.iscoroutinefunction(getattr(entry, "__call__", None)),  # noqa: B004
        close=getattr(thing, "close", None) or (lambda: None),
        where=str(getattr(thing, "code_folder", "") or where),
    )


def _module(name: str) -> tuple[types.ModuleType, Any]:
    """(the module, what in it is the plugin) of a dotted name, perhaps with `:attribute`, or of a path."""
    if os.sep in name or name.endswith(".py"):
        module = _from_path(Path(name))
        return module, module
    dotted, _, attribute = name.partition(":")
    module = importlib.import_module(dotted)
    found: Any = module
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return module, found


def _from_path(path: Path) -> types.ModuleType:
    """A file, or a folder with an `__init__.py`. Its neighbours can be imported, and stand in nobody's way."""
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there is no file {file}")
    # A plugin called http.py must not become what the others import as `http`.
    name = path.stem if importlib.util.find_spec(path.stem) is None else f"plugin_{path.stem}"
    sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(path)] if path.is_dir() else None)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _options(struct: Any, options: Mapping[str, Any]) -> Any:
    """As the module's own `Options` where it has such a struct, otherwise the plain values. Raises ConfigError."""
    if not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
        return struct(**options) if isinstance(struct, type) else dict(options)
    try:
        return msgspec.convert(_units(options, struct, "options"), struct, dec_hook=_secret)
    except msgspec.ValidationError as why:
        raise ConfigError(str(why), path="options") from None


def _units(value: Any, hint: Any, path: str) -> Any:
    """The same value with its durations and sizes as numbers; a key that no struct has is an error."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next((one for one in get_args(hint) if one is not types.NoneType), Any)
    if get_origin(hint) is Annotated:
        unit = next((one.extra[UNIT] for one in hint.__metadata__ if isinstance(one, msgspec.Meta) and one.extra), "")
        if isinstance(value, str | int | float) and not isinstance(value, bool) and unit in ("seconds", "bytes"):
            try:
                return parse_duration(value) if unit == "seconds" else parse_size(value)
            except ValueError as why:
                raise ConfigError(str(why), path=path) from None
        return value
    if isinstance(value, Mapping) and isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = get_type_hints(hint, include_extras=True)
        for key in value:
            if key not in hints:
                near = get_close_matches(str(key), hints, n=1)
                meant = f"did you mean {near[0]!r}? There are" if near else "there are"
                raise ConfigError(f"is no option of it; {meant}: {', '.join(sorted(hints)) or 'none'}", path=f"{path}.{key}")
        return {key: _units(one, hints[key], f"{path}.{key}") for key, one in value.items()}
    if isinstance(value, list) and get_origin(hint) in (list, tuple, Sequence) and get_args(hint):
        return [_units(one, get_args(hint)[0], f"{path}[{number}]") for number, one in enumerate(value)]
    return value


def _secret(hint: type, value: Any) -> Any:
    if hint is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(f"options can't hold a {hint.__name__}")


# --- the pipe --------------------------------------------------------------------------------------------------------------


class Link:
    """The socket to the service, and who waits for an answer to a question. Any thread may send."""

    def __init__(self, sock: socket.socket, gone: Callable[[], None]) -> None:
        self._sock, self._gone = sock, gone
        self._lock = threading.Lock()
        self._unpacker = frames_down()
        self._asked: dict[int, Future[Any]] = {}
        self._number = 0

    def send(self, frame: Up) -> None:
        data = pack(frame)
        try:
            with self._lock:
                self._sock.sendall(data)
        except OSError:
            self._gone()

    def receive(self) -> list[Down]:
        """Some frames, as soon as there are; none: the service is gone, or what it says can't be understood."""
        while True:
            try:
                data = self._sock.recv(256 * 1024)
                frames = self._unpacker.feed(data)
            except (OSError, NotUnderstood):
                return []
            if frames or not data:
                return frames

    def first(self) -> tuple[Start, list[Call]]:
        """What to run, and what came with it."""
        frames = self.receive()
        if not frames or not isinstance(frames[0], Start):
            raise SystemExit("no frame to start with: this program is run by `vedette serve`")
        return frames[0], [frame for frame in frames[1:] if isinstance(frame, Call)]

    def read(self, calls: Callable[[list[Call]], None]) -> None:
        """A thread's whole life: hands on calls and answers, until the service is gone."""
        while frames := self.receive():
            batch = [frame for frame in frames if isinstance(frame, Call)]
            for frame in frames:
                if isinstance(frame, Recalled):
                    self._tell(frame)
            if batch:
                calls(batch)
        self._gone()

    def recall(self, call: int, name: str) -> Future[Any]:
        asked: Future[Any] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            self._asked[number] = asked
        self.send(Recall(number, call, name))
        return asked

    def _tell(self, said: Recalled) -> None:
        asked = self._asked.pop(said.number, None)
        if asked is None or not asked.set_running_or_notify_cancel():
            return
        if said.error:
            asked.set_exception(RuntimeError(said.error))
        else:
            asked.set_result(msgspec.json.decode(said.value))


class _ToService(logging.Handler):
    """Log records as frames."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._allowance = Allowance(LOGS_PER_SECOND, LOGS_AT_ONCE)

    def emit(self, record: logging.LogRecord) -> None:
        if not self._allowance.take(time.monotonic()):
            return
        try:
            text = self.format(record)
        except Exception as why:  # noqa: BLE001 - a bad format string in a plugin's log call
            text = f"a log record that can't be formatted: {why}"
        if left_out := self._allowance.forgive():
            text = f"({left_out} records before this one were left out) {text}"
        # A lone surrogate can't be sent.
        text = text[:MAX_TEXT].encode(errors="replace").decode()
        self._link.send(Log(record.levelno, record.name[:200], text))


# --- one call --------------------------------------------------------------------------------------------------------------


class _Memory:
    """What one call remembers; the common part of both contexts."""

    def __init__(self, link: Link, call: Call) -> None:
        self._link, self._call = link, call
        self.remembered: dict[str, Any] = {}

    @property
    def timeout(self) -> float:
        """Seconds that the call may take in all."""
        return self._call.timeout

    def remember(self, name: str, value: Any) -> None:
        """Kept when `handle` returns; None forgets. Raises TypeError (no JSON) and ValueError (too large) here and now."""
        size = len(msgspec.json.encode(value))
        if size > MAX_ANSWER:
            raise ValueError(f"{name!r} is {size} bytes; at most {MAX_ANSWER} can be remembered")
        self.remembered[name] = value


class BlockingContext(_Memory):
    """The context of a `handle` that is not `async def`: `recall` gives the value itself."""

    def recall(self, name: str) -> Any:
        if name in self.remembered:
            return self.remembered[name]
        return self._link.recall(self._call.number, name).result()


class AsyncContext(_Memory):
    """A `ports.Context`."""

    async def recall(self, name: str) -> Any:
        if name in self.remembered:
            return self.remembered[name]
        return await asyncio.wrap_future(self._link.recall(self._call.number, name))


_decode_event = msgspec.json.Decoder(Event).decode


def _arguments(code: Code, call: Call, context: _Memory) -> tuple[Any, ...]:
    if code.takes_events:
        return (_decode_event(call.message), context)
    return (call.message if code.takes_bytes else msgspec.json.decode(call.message),)


def _done(code: Code, call: Call, context: _Memory, gave: Any) -> Done | Raised:
    if code.takes_events:
        # Something odd that a handler gives back after it has done its work is no reason to do it again.
        outcome = None if gave is None else str(gave)[:LONGEST_OUTCOME].encode(errors="replace").decode()
        gave = Handled(outcome, context.remembered)
    answer = msgspec.json.encode(gave)
    if len(answer) > MAX_ANSWER:
        return Raised(call.number, "give_up", f"its answer has {len(answer)} bytes, more than {MAX_ANSWER}")
    return Done(call.number, msgspec.Raw(answer))


def _raised(code: Code, call: Call, why: BaseException) -> Raised:
    text = str(why)[:MAX_TEXT].encode(errors="replace").decode()
    if isinstance(why, TryLater):
        kind = "target_unavailable" if isinstance(why, TargetUnavailable) else "try_later"
        return Raised(call.number, kind, text, float(why.delay))  # type: ignore[arg-type]
    if isinstance(why, GiveUp):
        return Raised(call.number, "give_up", text)
    log.warning("a call raised", exc_info=why)
    return Raised(call.number, "other", told(why, code.where))


def told(why: BaseException, where: str) -> str:
    """`ValueError: no such zone (dns.py line 12, in handle)`: the deepest line in the plugin's own folder, else the deepest."""
    lines = traceback.extract_tb(why.__traceback__)
    own = [line for line in lines if line.filename.startswith(where + os.sep)]
    last = own[-1] if own else lines[-1] if lines else None
    place = f" ({Path(last.filename).name} line {last.lineno}, in {last.name})" if last else ""
    message = f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
    return message[: MAX_TEXT - 300].encode(errors="replace").decode() + place[:300]


class _Appetite:
    """Whether the process holds too much memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._page = resource.getpagesize()
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC) if limit else -1
        except OSError:
            self._file = -1

    def too_much(self) -> str:
        """ "" or what to say."""
        if self._file < 0:
            return ""
        held = int(os.pread(self._file, 128, 0).split()[1]) * self._page
        if held <= self._limit:
            return ""
        return f"it holds {held >> 20} MiB of memory after a call, more than {show_size(self._limit)}"


# --- serving ---------------------------------------------------------------------------------------------------------------


def serve_blocking(code: Code, link: Link, first: list[Call], appetite: _Appetite) -> None:
    """One call after the other, in the main thread, until SIGTERM or too much memory."""
    calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # as long as engine/worker.AHEAD
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        calls.put(None)

    def more(batch: list[Call]) -> None:
        for call in batch:
            calls.put(call)

    signal.signal(signal.SIGTERM, stop)
    _start_reading(link, more, first)
    link.send(Ready(1, False))
    leaving = "it was asked to end"
    while (call := calls.get()) is not None and not stopping:
        context = BlockingContext(link, call)
        try:
            gave = code.entry(*_arguments(code, call, context))
            if inspect.iscoroutine(gave):
                gave.close()
                raise TypeError("handle gave a coroutine, and is not `async def` itself")
            said = _done(code, call, context, gave)
        except BaseException as why:  # noqa: BLE001 - also sys.exit() in a plugin is only a call that failed
            said = _raised(code, call, why)
        link.send(said)
        if text := appetite.too_much():
            leaving = text
            break
    link.send(Leaving(leaving))
    closed = code.close()
    if inspect.isawaitable(closed):
        asyncio.run(_awaited(closed))


async def serve_async(code: Code, link: Link, first: list[Call], appetite: _Appetite, concurrency: int) -> None:
    """Up to `concurrency` calls at a time, begun in their order, until SIGTERM or too much memory."""
    loop = asyncio.get_running_loop()
    waiting: deque[Call] = deque()  # as long as engine/worker.AHEAD
    tasks: set[asyncio.Task[None]] = set()
    over = asyncio.Event()
    leaving = "it was asked to end"

    def more(batch: list[Call]) -> None:
        waiting.extend(batch)
        while waiting and len(tasks) < concurrency and not over.is_set():
            task = loop.create_task(one(waiting.popleft()))
            tasks.add(task)
            task.add_done_callback(ended)

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        more([])

    async def one(call: Call) -> None:
        nonlocal leaving
        link.send(await _handled(code, link, call))
        if text := appetite.too_much():
            leaving = text
            over.set()

    loop.add_signal_handler(signal.SIGTERM, over.set)
    _start_reading(link, lambda batch: loop.call_soon_threadsafe(more, batch), first)
    link.send(Ready(concurrency, True))
    await over.wait()
    while tasks:
        await asyncio.wait(tasks)
    link.send(Leaving(leaving))
    closed = code.close()
    if inspect.isawaitable(closed):
        await closed


async def _handled(code: Code, link: Link, call: Call) -> Done | Raised:
    context = AsyncContext(link, call)
    try:
        async with asyncio.timeout(call.timeout) as deadline:
            gave = await code.entry(*_arguments(code, call, context))
        return _done(code, call, context, gave)
    except BaseException as why:  # noqa: BLE001 - also sys.exit() in a plugin is only a call that failed
        if isinstance(why, TimeoutError) and deadline.expired():
            return Raised(call.number, "other", f"it took longer than its {call.timeout:g} s and was cancelled")
        return _raised(code, call, why)


async def _awaited(thing: Any) -> Any:
    return await thing


def _start_reading(link: Link, calls: Callable[[list[Call]], Any], first: list[Call]) -> None:
    if first:
        calls(first)
    threading.Thread(target=link.read, args=(calls,), name="frames", daemon=True).start()


# --- the process -----------------------------------------------------------------------------------------------------------


def _end_with(parent: int) -> None:
    """Die when the service does, also in code that never comes back to Python. Where the system can't, the pipe's end does it."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _gone() -> None:
    """The service is gone: so is this, and whatever it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vedette.worker", description="Runs one plugin; started by the service itself.")
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("name", help="shown by ps")
    chosen = parser.parse_args(arguments)
    # Ctrl-C in a terminal is for the service, which then asks us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(chosen.parent)
    faulthandler.enable()
    os.set_inheritable(chosen.pipe, False)
    link = Link(socket.socket(fileno=chosen.pipe), _gone)
    start, first = link.first()
    logging.basicConfig(handlers=[_ToService(link)], level=logging.INFO, format="%(message)s")
    logging.captureWarnings(True)
    with asyncio.Runner() as runner:
        try:
            code = runner.run(load(start))
        except ConfigError as why:
            link.send(Failed(str(why)))
            raise SystemExit(1) from None
        except BaseException as why:
            if not start.validate:
                log.exception("the plugin can't be imported or built")
            link.send(Failed(told(why, str(Path(start.module).parent))))
            raise SystemExit(1) from None
        if start.validate:
            link.send(Ready(1, False))
            return
        appetite = _Appetite(start.max_memory)
        if code.is_async:
            runner.run(serve_async(code, link, first, appetite, max(1, start.concurrency)))
            return
    serve_blocking(code, link, first, appetite)


if __name__ == "__main__":
    main()
