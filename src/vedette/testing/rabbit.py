"""A real RabbitMQ of one's own: started in a folder, on free ports of 127.0.0.1, stopped, killed and started again with its
state. And a small publisher that speaks like oslo.messaging.

Plain classes, for pytest fixtures and for `bench/`. Nothing here touches a RabbitMQ that runs on the machine: own node name,
own cookie, own epmd.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pika
import pika.exceptions

_BIN = Path("/usr/lib/rabbitmq/bin")
"""Debian's folder. The scripts in /usr/sbin would switch to the user `rabbitmq`."""


class RabbitMissing(Exception):
    """There is no rabbitmq-server on this machine; the text says how to get one."""


def find_server() -> Path:
    """The folder that holds rabbitmq-server and rabbitmqctl. Raises RabbitMissing."""
    if (_BIN / "rabbitmq-server").exists() and shutil.which("erl"):
        return _BIN
    found = shutil.which("rabbitmq-server")
    if found and shutil.which("erl"):
        return Path(found).resolve().parent
    raise RabbitMissing("no rabbitmq-server here; on Debian or Ubuntu: apt-get install rabbitmq-server")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class Rabbit:
    """One node. `start` returns when it takes connections; every wait has an end and says what the log's last lines are."""

    def __init__(self, folder: Path, *, config: Mapping[str, str] | None = None) -> None:
        """`folder` becomes its home; `config` are lines of rabbitmq.conf."""
        self.folder = folder
        self.port, self._dist_port, self._epmd_port = free_ports(3)
        self._bin = find_server()
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._config = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "log.file.level": "info",
            # A laptop with a nearly full disk is still good enough for tests.
            "disk_free_limit.absolute": "50MB",
            **(config or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        # Erlang wants the cookie to be nobody else's business.
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("vedette-tests")
            cookie.chmod(0o400)
        (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in self._config.items()))
        (folder / "enabled_plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self, timeout: float = 90.0) -> None:
        """Start the node and wait until an AMQP connection opens. Starting a stopped or killed one keeps its state."""
        if self._epmd is None:
            # Our own child: left alone, Erlang would start one that outlives the tests.
            self._epmd = subprocess.Popen(
                [_epmd(), "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                env=self._env(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with (self.folder / "console.log").open("ab") as console:
            self._server = subprocess.Popen(
                [str(self._bin / "rabbitmq-server")],
                env=self._env(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        end = time.monotonic() + timeout
        while not self._answers():
            if self._server.poll() is not None:
                raise RuntimeError(f"rabbitmq-server ended with {self._server.returncode}:\n{self._tail()}")
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"rabbitmq-server took more than {timeout} s to start:\n{self._tail()}")
            time.sleep(0.1)

    def stop(self, timeout: float = 60.0) -> None:
        """Stop it in order (SIGTERM: queues and messages that are durable are kept)."""
        server = self._server
        if server is None:
            return
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._server = None

    def kill(self) -> None:
        """kill -9."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(30)
            self._server = None

    def close(self) -> None:
        """Stop everything that was started. The folder stays."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(30)
            self._epmd = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def ctl(self, *args: str, timeout: float = 60.0) -> str:
        """rabbitmqctl, e.g. `ctl("list_queues", "name", "messages")`; its output. About a second each time."""
        done = subprocess.run(
            [str(self._bin / "rabbitmqctl"), "--quiet", *args],
            env=self._env(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def publisher(self) -> Publisher:
        return Publisher(self.url)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                probe.settimeout(5.0)
                # The listener is up before the node is: only an answer to the protocol header counts.
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def _env(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": folder,
            "RABBITMQ_NODENAME": f"vedette{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_PID_FILE": f"{folder}/rabbit.pid",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _tail(self) -> str:
        lines: list[str] = []
        for path in (self.folder / "console.log", *sorted((self.folder / "log").glob("*.log"))):
            if path.exists():
                lines += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-25:]]
        return "\n".join(lines)


def _epmd() -> str:
    found = shutil.which("epmd")
    if found:
        return found
    erl = shutil.which("erl")
    for path in sorted(Path(erl or "/usr/bin/erl").resolve().parent.parent.glob("**/epmd")):
        return str(path)
    raise RabbitMissing("no epmd beside erl; on Debian or Ubuntu: apt-get install rabbitmq-server")


class Publisher:
    """Speaks to a broker like a service, and looks at it like a test: blocking, for one thread at a time."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # It is silent for as long as a test wants.
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()

    def exchange(self, name: str, *, durable: bool = False) -> None:
        """As oslo.messaging declares it: topic, transient unless the deployment says otherwise."""
        self._channel.exchange_declare(name, exchange_type="topic", durable=durable, auto_delete=False)

    def delete_exchange(self, name: str) -> None:
        self._channel.exchange_delete(name)

    def queue(self, name: str, *, exchange: str = "", keys: Iterable[str] = (), **declare: Any) -> None:
        """A queue of somebody else's (`ceilometer`), bound."""
        self._channel.queue_declare(name, **declare)
        for key in keys:
            self._channel.queue_bind(name, exchange, key)

    def publish(
        self,
        exchange: str,
        bodies: Iterable[bytes],
        *,
        routing_key: str = "notifications.info",
        content_encoding: str = "utf-8",
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """As oslo.messaging does: persistent JSON. Returns how many, when the broker has them."""
        properties = pika.BasicProperties(
            content_type="application/json",
            content_encoding=content_encoding,
            delivery_mode=2,
            priority=0,
            headers=dict(headers) if headers else None,
        )
        count = 0
        for body in bodies:
            self._channel.basic_publish(exchange, routing_key, body, properties)
            count += 1
        # One channel, one order: an answered question means that everything before it was taken.
        self._channel.exchange_declare(exchange, passive=True)
        return count

    def depth(self, queue: str) -> int:
        """Messages ready; -1 when there is no such queue."""
        counts = self._counts(queue)
        return counts[0] if counts else -1

    def consumers(self, queue: str) -> int:
        counts = self._counts(queue)
        return counts[1] if counts else -1

    def drain(self, queue: str) -> list[bytes]:
        """Take everything that is ready, as another service would."""
        taken: list[bytes] = []
        while True:
            method, _, body = self._channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append(body)

    def consume(self, queue: str) -> None:
        """Be another consumer of a queue (that takes nothing further than its prefetch count of one)."""
        self._channel.basic_qos(prefetch_count=1)
        self._channel.basic_consume(queue, lambda *_: None)

    def delete_queue(self, name: str) -> None:
        self._channel.queue_delete(name)

    def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def _counts(self, queue: str) -> tuple[int, int] | None:
        channel = self._connection.channel()
        try:
            answer = channel.queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker as why:
            if why.reply_code != 404:
                raise
            return None
        channel.close()
        return answer.method.message_count, answer.method.consumer_count
