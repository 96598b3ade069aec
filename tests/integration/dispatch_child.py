"""A process with a store on disk and a dispatcher that calls an address, to be killed; and a target, to be killed too.

Run by test_dispatch_killed.py. The engine says what it has appended and, once nothing is owed any more, that it is idle.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from vedette import plugins
from vedette.engine import conditions
from vedette.engine.dispatch import Dispatch
from vedette.engine.line import Rule
from vedette.engine.matching import Match
from vedette.kit.clock import SystemClock
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.store.sqlite import SqliteStore
from vedette.testing.handling import handler_needs

HANDLER = "target"
OBJECTS = 24
ATTEMPTS = 20


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def entry_of(number: int) -> NewEntry:
    """News of one port; the same number is the same notice, offered again."""
    id_ = f"o{number % OBJECTS}"
    told = Reading(kind="Port", id=id_, verb="create", as_of=number, project="p", fields={"n": number})
    payload = msgspec.Raw(msgspec.json.encode({"n": number}))
    return NewEntry(Notice(id=f"m{number}", source="one", event_type="port.update.end", sent_at=number, payload=payload), (told,))


async def work(folder: Path, port: int, first: int, last: int, again: Sequence[int]) -> None:
    """Append `again`, then the numbers from `first` to `last`, a few at a time, and deliver them all."""
    clock, dice = SystemClock(), random.Random()
    store = await SqliteStore.open(folder, clock)
    plug = plugins.load("handlers", "http")
    needs = handler_needs(HANDLER)
    handler = plug.build(msgspec.convert({"url": f"http://127.0.0.1:{port}/{{key.id}}"}, plug.Options), needs)
    ports = Match(kinds=("port",), when=conditions.compile("object.status.n >= 0"))
    rule = Rule(
        name=HANDLER,
        use="http",
        handler=handler,
        on=(ports,),
        start="earliest",
        attempts=ATTEMPTS,
        timeout=5.0,
        max_pending=200,
    )
    dispatch = Dispatch(store, [rule], plugins.kinds(), clock, Telemetry())
    running = asyncio.create_task(dispatch.run())
    await dispatch.ready.wait()
    say(f"open {store.head}")

    async def offer(numbers: Sequence[int]) -> None:
        await store.append([entry_of(number) for number in numbers])
        say(f"acked {' '.join(map(str, numbers))}")

    if again:
        await offer(again)
    while first <= last:
        some = range(first, min(first + dice.randrange(1, 20), last + 1))
        say(f"offered {' '.join(map(str, some))}")
        await offer(some)
        first = some.stop
        await asyncio.sleep(dice.random() * 0.02)
    while any(one["pending"] or one["lag"] for one in dispatch.status()):
        assert not running.done(), running
        await asyncio.sleep(0.05)
    say("idle")
    await cancel(running)
    await dispatch.close()
    await store.close()


class Target(BaseHTTPRequestHandler):
    """Writes each delivery into a file, and then says yes."""

    protocol_version = "HTTP/1.1"
    file = -1

    def do_POST(self) -> None:
        body = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        what = [self.headers["Idempotency-Key"], self.path, body["data"]["object"]["status"]["n"]]
        os.write(self.file, msgspec.json.encode(what) + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that end in the middle are what this is about."""


def serve(port: int, file: Path) -> None:
    Target.file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    server = Server(("127.0.0.1", port), Target)
    say(f"open {server.server_address[1]}")
    server.serve_forever()


def main() -> None:
    what, *rest = sys.argv[1:]
    match what:
        case "work":
            port, first, last, *again = map(int, rest[1:])
            asyncio.run(work(Path(rest[0]), port, first, last, again))
        case "serve":
            serve(int(rest[0]), Path(rest[1]))


if __name__ == "__main__":
    main()
