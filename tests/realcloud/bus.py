"""The cloud's RabbitMQ: stopped and started by the cloud's own scripts, and a queue cut off from its messages.

Only the processes that the scripts started are touched: they know them by pid and start time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from tenants import PASSWORD, until

FOLDER = Path(__file__).parent
PORT = os.environ.get("RC_RABBIT_PORT", "5679")
MANAGEMENT = f"http://127.0.0.1:{os.environ.get('RC_RABBIT_MGMT_PORT', '15679')}/api"
AMQP_URL = f"amqp://openstack:{PASSWORD}@127.0.0.1:{PORT}/%2F"


class Bus:
    """Blocking: for a thread, where the loop has other work."""

    def __init__(self) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.auth = ("openstack", PASSWORD)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self._http.request(method, MANAGEMENT + path, timeout=30, **more)
        if method == "DELETE" and answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def delete_queue(self, name: str) -> None:
        self._ask("DELETE", f"/queues/%2F/{quote(name, safe='')}")

    def bindings(self, queue: str) -> list[tuple[str, str]]:
        """(exchange, routing key) of each."""
        found = self._ask("GET", f"/queues/%2F/{quote(queue, safe='')}/bindings")
        return [(one["source"], one["routing_key"]) for one in found if one["source"]]

    @contextmanager
    def deaf(self, queue: str) -> Iterator[None]:
        """While this lasts, no message comes to the queue: as if they were lost on their way."""
        held = self.bindings(queue)
        assert held, f"{queue} is bound to nothing"
        name = quote(queue, safe="")
        try:
            for exchange, key in held:
                self._ask("DELETE", f"/bindings/%2F/e/{exchange}/q/{name}/{quote(key, safe='')}")
            assert not self.bindings(queue)
            yield
        finally:
            for exchange, key in held:
                self._ask("POST", f"/bindings/%2F/e/{exchange}/q/{name}", json={"routing_key": key})

    def stop(self) -> None:
        _script("stop rabbitmq 40")

    def start(self) -> None:
        _script("start_rabbitmq")
        until("RabbitMQ to answer", self._answers)

    def _answers(self) -> bool:
        try:
            self._ask("GET", "/overview")
        except requests.RequestException:
            return False
        return True


def _script(words: str) -> None:
    """A function of env.sh, as root."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n", "-E"]
    done = subprocess.run(
        [*root, "bash", "-c", f'. "$0/env.sh"; {words}', str(FOLDER)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
