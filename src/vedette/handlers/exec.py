"""Runs a program for each event, with the CloudEvent on its stdin. Never through a shell.

An event comes in; how the program ended decides what becomes of the delivery: 0 done, 75 (EX_TEMPFAIL of sysexits.h) try later,
one of `give_up_codes` dead letter, anything else a failed attempt. At its timeout the program and all that it started in its
process group are killed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from vedette.errors import ConfigError, GiveUp, TryLater, VedetteError
from vedette.handlers._target import cloud_event, excerpt
from vedette.handlers._template import Missing, Values, template
from vedette.kit.secret import Secret
from vedette.kit.tasks import wait_for_event
from vedette.kit.units import FilePath, Seconds
from vedette.ports import Context, Event, HandlerNeeds

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, and the `PATH` that they get."""
TEMPFAIL = 75
MAX_OUTPUT = 65_536
"""Bytes of stdout, and of stderr, that are kept; the rest is read and thrown away: no program is stuck with a full pipe."""
LEFT_BEHIND = 1.0
"""Seconds in which something that the program has left running may still hold its stdout; then that is killed as well."""
GOODBYE = 5.0
"""Seconds to wait for a killed program to be gone: the kernel may still be busy for it."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A program, run for each event with the event's CloudEvent on its stdin."""

    command: tuple[str, ...]
    """The program (an absolute path, or a name in /usr/local/bin, /usr/bin and the like) and its arguments, such as
    `["/opt/site/notify", "--kind", "{key.kind}"]`. Arguments are templates; the program is not, and there is no shell."""
    env: dict[str, str] = {}
    """Variables of its environment beside PATH, LANG, VEDETTE_HANDLER, VEDETTE_IDEMPOTENCY_KEY, VEDETTE_ATTEMPT,
    VEDETTE_REQUEST_ID and TRACEPARENT. Vedette's own environment does not reach it."""
    secret_env: dict[str, Secret] = {}
    """The same, for values that nobody should see."""
    cwd: FilePath = "/"
    """The folder that it starts in."""
    timeout: Seconds = 0.0
    """After this long it is killed, with all of its process group, and that is a failed attempt; 0: the handler's own timeout."""
    give_up_codes: tuple[int, ...] = ()
    """Exit codes that mean: no retry helps, this is a dead letter."""
    missing: Missing = "fail"
    """When an argument's template names a value that an event doesn't have: `fail` (a dead letter), or `empty`."""


def build(options: Options, needs: HandlerNeeds) -> ExecHandler:
    """Raises ConfigError: there is no such program, it may not be run, or a template can't be read."""
    return ExecHandler(options, needs)


class ExecHandler:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        if not options.command:
            raise ConfigError("wants a program", path="command")
        self._program = _find(options.command[0])
        self._arguments = [
            template(text, missing=options.missing, path=f"command[{number}]")
            for number, text in enumerate(options.command[1:], start=1)
        ]
        if not Path(options.cwd).is_dir():
            raise ConfigError(f"there is no folder {options.cwd}", path="cwd")
        for code in options.give_up_codes:
            if not 1 <= code <= 255 or code == TEMPFAIL:
                raise ConfigError(
                    f"wants exit codes from 1 to 255 without {TEMPFAIL}, which means try later", path="give_up_codes"
                )
        self._env = {"PATH": PATH, "LANG": "C.UTF-8", **options.env}
        self._env |= {name: secret.reveal() for name, secret in options.secret_env.items()}
        for name, value in self._env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ConfigError("an environment's names have no = and no NUL, its values no NUL", path="env")
        self._options = options
        self._clock = needs.clock

    async def handle(self, event: Event, context: Context) -> str | None:
        arguments = self._filled(event)
        options, sleep = self._options, self._clock.sleep
        timeout = options.timeout or context.timeout
        try:
            transport, run = await asyncio.get_running_loop().subprocess_exec(
                _Run,
                self._program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=options.cwd,
                env={**self._env, **_said(event)},
                start_new_session=True,
            )
        except OSError as why:
            if why.errno == errno.E2BIG:
                raise GiveUp(f"{self._program} can't be started: its arguments are too long for the system") from None
            # It was there at the start: the disk, the limit of processes, or somebody is just replacing it.
            raise TryLater(f"{self._program} can't be started: {why.strerror}") from None
        try:
            stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
            if not stdin.is_closing():  # a quick program is gone by now, and uvloop raises on a write to it
                stdin.write(cloud_event(event))
                stdin.close()  # once all of it is written; a program may also end without having read it
            if not await wait_for_event(run.ended, timeout, sleep):
                raise VedetteError(f"{self._program} was killed: it took more than {timeout:g} s")
            await wait_for_event(run.drained, LEFT_BEHIND, sleep)
        finally:
            # Also when it went well, and when we are cancelled: nothing that was started outlives its call.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
            transport.close()
            await wait_for_event(run.ended, GOODBYE, sleep)
        return self._outcome(transport.get_returncode() or 0, run.kept[1], run.kept[2])

    async def close(self) -> None:
        """Nothing is open between calls."""

    def _filled(self, event: Event) -> list[str]:
        values = Values(event)
        arguments: list[str] = []
        for made in self._arguments:
            text = made.fill(values)
            if "\0" in text:
                raise GiveUp("an argument would hold a NUL byte")
            # A name such as `--delete-all` must not become an option; what the configuration itself writes may.
            ours = not made.parts or isinstance(made.parts[0], str)
            if text.startswith("-") and not ours and "--" not in arguments:
                raise GiveUp(f"the argument {excerpt(text, 40)!r} would be an option: put -- before it, or write --name={{…}}")
            arguments.append(text)
        return arguments

    def _outcome(self, code: int, out: bytearray, err: bytearray) -> str | None:
        said = _first_line(out)
        if code == 0:
            return said or None
        why = _first_line(err) or said
        how = f"exit code {code}" if code > 0 else f"ended by signal {_signal(-code)}"
        text = f"{how}: {why}" if why else how
        if code == TEMPFAIL:
            raise TryLater(text)
        if code in self._options.give_up_codes:
            raise GiveUp(text)
        raise VedetteError(text)


def _find(program: str) -> str:
    """The program's path. Raises ConfigError."""
    if "/" in program and not program.startswith("/"):
        raise ConfigError(f"{program} wants an absolute path, or a plain name", path="command")
    path = shutil.which(program, path=PATH)
    if path is None:
        there = program if program.startswith("/") else shutil.which(program, mode=os.F_OK, path=PATH)
        if there and Path(there).exists():
            raise ConfigError(f"{there} is no program that may be run here: chmod +x it, or name its interpreter", path="command")
        raise ConfigError(f"there is no program {program}", path="command")
    return path


def _said(event: Event) -> dict[str, str]:
    """What a program wants to know before it reads its stdin."""
    said = {
        "VEDETTE_HANDLER": event.handler,
        "VEDETTE_IDEMPOTENCY_KEY": event.idempotency_key,
        "VEDETTE_ATTEMPT": str(event.attempt),
        "VEDETTE_REQUEST_ID": event.request_id,
        "TRACEPARENT": event.traceparent,
    }
    return {name: value.replace("\0", "") for name, value in said.items() if value}


class _Run(asyncio.SubprocessProtocol):
    """What a program says, and its end."""

    def __init__(self) -> None:
        self.kept = {1: bytearray(), 2: bytearray()}
        self.ended = asyncio.Event()
        self.drained = asyncio.Event()
        """Nobody holds its stdout or stderr any more."""
        self._open = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self.kept[fd]
        kept += data[: MAX_OUTPUT - len(kept)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self.drained.set()

    def process_exited(self) -> None:
        self.ended.set()


def _first_line(said: bytes | bytearray) -> str:
    """The first line that isn't empty."""
    return next((text for line in said[:4096].splitlines() if (text := excerpt(bytes(line)))), "")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
