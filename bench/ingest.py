"""Durable ingest: RabbitMQ → decoded, scrubbed, folded → fsynced → acknowledged, beside a raw socket and oslo.messaging.

For each queue type and body size, interleaved rounds: the queue is filled, then emptied by one of the three, each in a process
of its own that measures from its first message to its last acknowledgement. `python bench/ingest.py [rounds]`
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from messages import bodies
from peers import BUILD
from vedette.testing.rabbit import Rabbit

COUNTS = {"2K": 20_000, "6K": 10_000}
OSLO_COUNTS = {"2K": 3_000, "6K": 2_000}
QUEUE = "vedette"
SETTINGS = {"x-max-length": 1_000_000, "x-expires": 604_800_000, "x-overflow": "drop-head"}
GOALS = {"2K": 0.4, "6K": 0.25}
HERE = Path(__file__).parent


def consume(program: str, *words: str, python: str = sys.executable) -> dict[str, float]:
    done = subprocess.run(
        [python, str(HERE / program), *words], capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fill(rabbit: Rabbit, kind: str, size: str, count: int) -> None:
    publisher = rabbit.publisher()
    channel = publisher._channel
    channel.queue_delete(QUEUE)
    if kind == "oslo":  # the queue that oslo.messaging declares for a pool: transient, so it has the easier job
        channel.queue_declare(QUEUE, durable=False)
    else:
        channel.queue_declare(QUEUE, durable=True, arguments=SETTINGS | {"x-queue-type": kind})
    publisher.exchange("nova")
    channel.queue_bind(QUEUE, "nova", "notifications.info")
    publisher.publish("nova", bodies(size, count))
    until = time.monotonic() + 30
    while publisher.depth(QUEUE) < count and time.monotonic() < until:
        time.sleep(0.2)  # a quorum queue counts a message when its log has it
    if publisher.depth(QUEUE) != count:
        raise RuntimeError(f"{publisher.depth(QUEUE)} of {count} messages are in the queue")
    publisher.close()


def main(rounds: int, oslo: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        rabbit = Rabbit(Path(name).absolute() / "rabbit")
        rabbit.start()
        try:
            for kind in ("classic", "quorum"):
                for size, count in COUNTS.items():
                    compare(rabbit, kind, size, count, rounds, oslo, Path(name))
        finally:
            rabbit.close()


def compare(rabbit: Rabbit, kind: str, size: str, count: int, rounds: int, oslo: str | None, folder: Path) -> None:
    raw, ours, peer = [], [], []
    for number in range(rounds):
        fill(rabbit, kind, size, count)
        raw.append(consume("ingest_raw.py", str(rabbit.port), str(count)))
        fill(rabbit, kind, size, count)
        data = folder / f"data-{kind}-{size}-{number}"
        ours.append(consume("ingest_ours.py", rabbit.url, str(count), kind, str(data)))
        if oslo:
            fill(rabbit, "oslo", size, OSLO_COUNTS[size])
            peer.append(consume("ingest_oslo.py", rabbit.url, str(OSLO_COUNTS[size]), python=oslo))

    def median(some: list[dict[str, float]], key: str) -> float:
        return statistics.median(one[key] for one in some)

    ratios = [mine["rate"] / floor["rate"] for mine, floor in zip(ours, raw, strict=True)]
    line = (
        f"ingest, {kind} queue, {size} (mean {median(ours, 'bytes'):.0f} B): {median(ours, 'rate'):,.0f}/s, "
        f"{median(ours, 'cpu'):.1f} µs CPU, {median(ours, 'batch'):.0f} an offer | "
        f"raw socket {median(raw, 'rate'):,.0f}/s, {median(raw, 'cpu'):.1f} µs | "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}; wanted ≥ {GOALS[size]})"
    )
    if peer:
        times = [mine["rate"] / other["rate"] for mine, other in zip(ours, peer, strict=True)]
        line += f" | oslo.messaging {median(peer, 'rate'):,.0f}/s, {median(peer, 'cpu'):.0f} µs: "
        line += f"{statistics.median(times):.1f}x (wanted ≥ 5)"
    print(line, flush=True)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--oslo=")]
    oslo = next((word.removeprefix("--oslo=") for word in sys.argv[1:] if word.startswith("--oslo=")), None)
    main(int(words[0]) if words else 3, oslo)
