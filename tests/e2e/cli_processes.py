"""The `vedette` command as a process, for the end-to-end tests of the command line; and recordings made by hand."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SECONDS = 60.0
"""Until a wait counts as broken; nothing here takes that long."""
COMMAND = (sys.executable, "-m", "vedette.cli")


class Running:
    """A command at work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return (await self._process.stdout.readline()).decode()

    async def line_with(self, text: str) -> str:
        """The first line that has it; says what came when none does."""
        seen: list[str] = []
        while line := await self.line():
            if text in line:
                return line
            seen.append(line)
        assert self._process.stderr is not None
        raise AssertionError(
            f"no line with {text!r} in {''.join(seen)!r}; stderr: {(await self._process.stderr.read()).decode()}"
        )

    async def said(self, text: str) -> str:
        """The first line on stderr that has it."""
        assert self._process.stderr is not None
        seen: list[str] = []
        async with asyncio.timeout(SECONDS):
            while line := (await self._process.stderr.readline()).decode():
                if text in line:
                    return line
                seen.append(line)
        raise AssertionError(f"nothing said {text!r}: {''.join(seen)!r}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def end(self) -> tuple[int, str, str]:
        """Exit code, what was left on stdout, stderr."""
        async with asyncio.timeout(SECONDS):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running(*args: str, **environ: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", **environ},
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(*args: str, **environ: str) -> tuple[int, str, str]:
    async with running(*args, **environ) as command:
        return await command.end()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def port_created(name: str, number: int, *, project: str = "p" * 32) -> str:
    """A line of a recording: a port was created."""
    port = {
        "id": f"00000000-0000-4000-8000-00000000000{number}", "name": name, "project_id": project, "revision_number": 1,
        "created_at": "2026-11-20T15:00:00Z", "updated_at": "2026-11-20T15:00:00Z", "network_id": "n", "fixed_ips": [],
    }  # fmt: skip
    message = {
        "message_id": f"m{number}", "publisher_id": "network.ctl", "event_type": "port.create.end", "priority": "INFO",
        "timestamp": f"2026-11-20 15:00:0{number}.000000", "payload": {"port": port},
    }  # fmt: skip
    return (
        json.dumps({"recv_ts": number, "exchange": "neutron", "routing_key": "notifications.info", "body": json.dumps(message)})
        + "\n"
    )
