"""The peer for bench/ingest.py: oslo.messaging's notification listener with an endpoint that does nothing. Prints JSON.

It reads the queue through a pool of that name, as a consumer of its own would.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import oslo_messaging
from oslo_config import cfg

seen = 0
begun: list[float] = []
done = threading.Event()


class Nothing:
    def info(self, ctxt, publisher_id, event_type, payload, metadata):  # type: ignore[no-untyped-def]
        global seen
        if not begun:
            begun.extend((time.perf_counter(), time.process_time()))
        seen += 1
        if seen >= int(sys.argv[2]):
            done.set()

    error = warn = info


def main(url: str, count: int) -> None:
    conf = cfg.ConfigOpts()
    conf([], project="bench")
    transport = oslo_messaging.get_notification_transport(conf, url=url.replace("amqp://", "rabbit://").replace("%2F", ""))
    targets = [oslo_messaging.Target(topic="notifications", exchange="nova")]
    listener = oslo_messaging.get_notification_listener(transport, targets, [Nothing()], executor="threading", pool="vedette")
    listener.start()
    if not done.wait(250):
        raise SystemExit(f"oslo.messaging delivered {seen} of {count}")
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    print(json.dumps({"rate": count / wall, "cpu": cpu / count * 1e6, "bytes": 0}), flush=True)
    listener.stop()
    listener.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
