"""Starts the peers that figures are compared with, each on loopback in a folder of its own, and what reads all of them alike."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
BUILD.mkdir(exist_ok=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise LookupError("RssAnon")


@contextlib.contextmanager
def running(*command: str, cwd: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with (cwd / "output.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=output, env={**os.environ, **(env or {})})
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Drain:
    """bench/drain.c: N connections that count events."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "drain"
        subprocess.run(["gcc", "-O2", "-o", str(self._program), str(HERE / "drain.c")], check=True)

    def start(
        self, port: int, connections: int, events: int, marker: str, path: str, *headers: str, body: str = ""
    ) -> subprocess.Popen[str]:
        """Returns when every connection has its response header."""
        words = [str(self._program), "127.0.0.1", str(port), str(connections), str(events), str(ord(marker)), path, *headers]
        env = {**os.environ, "BODY": body}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            _, why = process.communicate()
            raise RuntimeError(f"drain: {why}")
        return process

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> tuple[float, int, int]:
        """(seconds from the first event to the last, events, bytes)."""
        out, why = process.communicate(timeout=150)
        if process.returncode:
            raise RuntimeError(f"drain: {out} {why}")
        seconds, events, size = out.split()
        return float(seconds), int(events), int(size)


NGINX = """
daemon off; pid nginx.pid; error_log stderr error; worker_processes 1; worker_rlimit_nofile 65536;
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
events {{ worker_connections 32768; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi; client_body_buffer_size 64k; nchan_shared_memory_size 128M;
  server {{ listen 127.0.0.1:{port} backlog=8192;
    location = /pub {{ nchan_publisher; nchan_channel_id one; nchan_message_buffer_length 100; nchan_message_timeout 1m; }}
    location = /sub {{ nchan_subscriber http-raw-stream; nchan_channel_id one; nchan_subscriber_first_message newest; }} }} }}
"""


@contextlib.contextmanager
def nchan(folder: Path) -> Iterator[tuple[int, int]]:
    """nginx with nchan, one worker: (port, pid of the worker)."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(port=port))
    with running("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), cwd=folder) as process:
        wait_for(port)
        children = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True, check=True)
        yield port, int(children.stdout.split()[0])


def publish_nchan(port: int, event: bytes, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        connection.request("POST", "/pub", body=event)
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"nchan answered {answer.status}")


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[tuple[int, int]]:
    """One etcd: (client port, pid)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    port, peer = free_port(), free_port()
    client, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    words = [
        "etcd", "--data-dir", str(folder / "data"), "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", other, "--initial-advertise-peer-urls", other, "--initial-cluster", f"default={other}",
        "--log-level", "error",
    ]  # fmt: skip
    env = {"ETCD_UNSUPPORTED_ARCH": ""}
    with running(*words, cwd=folder, env=env) as process:
        wait_for(port)
        yield port, process.pid


WATCH_KEY = base64.b64encode(b"kk").decode()
"""`a2s=`: one `=` an event, so that events can be counted by it (values are a multiple of three long)."""


def watch_etcd_body() -> str:
    return json.dumps({"create_request": {"key": WATCH_KEY}})


def publish_etcd(port: int, value: bytes, count: int) -> None:
    value = value[: len(value) // 3 * 3]
    body = json.dumps({"key": WATCH_KEY, "value": base64.b64encode(value).decode()})
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        connection.request("POST", "/v3/kv/put", body=body)
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"etcd answered {answer.status}")
