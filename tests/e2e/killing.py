"""A service in a process of its own that can be killed, as often as a test likes, and started again on the same data."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from serving import SECONDS

from vedette.testing.cloud import FakeCloud

TOKEN = "an-admins-token-of-these-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


class Process:
    """`vedette serve` on a fake cloud. `amqp`: its broker; none: it is away, and a pass waits for it before it begins. `more`:
    further sections of its configuration."""

    def __init__(self, folder: Path, cloud: FakeCloud, *, amqp: str = "", **more: Any) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        settings = {
            "listen": f"127.0.0.1:{port}",
            "data_dir": str(folder / "data"),
            "auth": {"mode": "tokens", "tokens": [{"token": TOKEN, "name": "admin", "projects": ["*"], "roles": ["admin"]}]},
            "sources": [
                {
                    "name": "one",
                    "type": "openstack",
                    "amqp": amqp or f"amqp://127.0.0.1:{free_port()}",
                    # One that every broker has: nothing is waited for, and nothing is said.
                    "exchanges": ["amq.topic"],
                    "api": {**cloud.credentials("admin"), "resync": "0s"},
                }
            ],
            **more,
        }
        self._file = folder / "vedette.yaml"
        self._file.write_text(yaml.safe_dump(settings))
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, session: aiohttp.ClientSession) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vedette.cli", "serve", "--config", str(self._file)], stdout=log, stderr=log
            )
        async with asyncio.timeout(SECONDS):
            while True:
                assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
                try:
                    async with session.get(f"{self.url}/livez") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            assert self._process.wait(30) == 0
