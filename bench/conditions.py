"""Evaluating a condition, what it looks at included: µs, beside a plain comparison in Python on the decoded object.

The event is one port update of 30 fields. "view" is made anew for each evaluation, as for the first handler that asks; the goal
is ≤ 30 µs for a typical `when:`, ≤ 2 µs for one that is false by its event type. `python bench/conditions.py`
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec

from vedette.engine.conditions import View, compile
from vedette.model.change import Change, Version
from vedette.model.entry import Entry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import Appended

CONDITIONS = {
    "typical, true": "event.type == 'port.update.end' && object.status.status == 'ACTIVE' && 'status.host' in changed",
    "false by its type": "event.type == 'router.update.end' && object.status.status == 'ACTIVE'",
    "false by a field": "event.type == 'port.update.end' && object.status.status == 'ERROR'",
    "through CEL": "event.type == 'port.update.end' && (object.status.mtu > 1400 || 'status.host' in changed)",
    "a macro in CEL": "object.status.fixed_ips.exists(ip, ip.ip_address.startsWith('10.'))",
}
ROUNDS, CALLS = 7, 3000


def version(revision: int, host: str) -> Version:
    fields = {f"field_{number}": f"value of {number}" for number in range(26)}
    ips = [{"subnet_id": "5b000000-0000-4000-8000-000000000001", "ip_address": "10.0.0.5"}]
    status = {"id": "p1", "status": "ACTIVE", "host": host, "mtu": 1500, "fixed_ips": ips, **fields}
    metadata = {"resourceVersion": str(revision), "name": "p1", "namespace": "a", "annotations": {"vedette.dev/origin": "x"}}
    body = msgspec.json.encode({"apiVersion": "v1", "kind": "Port", "metadata": metadata, "status": status})
    return Version(revision, body, len(body) - 2, "a", False, "")


def event() -> tuple[Appended, Change]:
    change = Change(2, Key("one", OPENSTACK, "Port", "p1"), "MODIFIED", version(2, "b"), version(1, "a"))
    payload = msgspec.Raw(b'{"port":{"id":"p1"}}')
    notice = Notice(id="n", source="one", event_type="port.update.end", sent_at=1_795_187_946_000_042, payload=payload)
    return Appended(Entry(2, 1_795_187_946_000_042, notice), (change,)), change


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """µs a call: the median of the rounds, and the least."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append((time.perf_counter() - start) / CALLS * 1e6)
    return statistics.median(rounds), min(rounds)


def main() -> None:
    appended, change = event()
    before = change.before
    assert before is not None

    def floor() -> bool:
        now, old = msgspec.json.decode(change.now.body)["status"], msgspec.json.decode(before.body)["status"]
        typed = appended.entry.notice.event_type == "port.update.end"
        return typed and now["status"] == "ACTIVE" and bool(now["host"] != old["host"])

    least = timed(floor)
    print(f"conditions: floor (decode both, compare in Python) {least[0]:.1f} µs (min {least[1]:.1f})")
    for name, text in CONDITIONS.items():
        condition = compile(text)
        median, fastest = timed(lambda condition=condition: condition.holds(View(appended, change)))  # type: ignore[misc]
        print(f"conditions: {name}: {median:.1f} µs (min {fastest:.1f}), {median / least[0]:.2f} of the floor")


if __name__ == "__main__":
    main()
