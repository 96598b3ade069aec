"""When an audit runs: its interval in seconds or as a cron expression (five fields, UTC), its beginning and its end. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from vedette.errors import Invalid
from vedette.kit.clock import parse_us
from vedette.model.audit import Audit

LONGEST_SECONDS = 366 * 86_400


def check_interval(interval: str) -> None:
    """Raises Invalid."""
    if interval.isascii() and interval.isdigit():
        if not 1 <= int(interval) <= LONGEST_SECONDS:
            raise Invalid("interval", f"a number of seconds from 1 to {LONGEST_SECONDS}, not {interval[:20]}")
        return
    if len(interval.split()) != 5:
        raise Invalid("interval", f"seconds, or a cron expression of five fields such as '0 */2 * * *', not {interval[:60]!a}")
    try:
        next(CronSim(interval, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration, ValueError) as why:
        raise Invalid("interval", f"{interval[:60]!a} is no cron expression that comes about: {why}") from None


def next_run(interval: str, started: int, now: int) -> int:
    """When the next run is due, after one that started then (all UTC microseconds). Runs that were missed are one."""
    if interval.isdigit():
        return max(started + int(interval) * 1_000_000, now)
    return _cron_after(interval, now)


def run_is_due(audit: Audit, now: int) -> int | None:
    """When a CONTINUOUS audit is to be looked at next: a run, or its end; None: not until somebody changes it."""
    if audit.state not in ("PENDING", "ONGOING") or audit.interval is None:
        return None
    due = parse_us(audit.next_run_time or "") or 0
    if not due and not audit.interval.isdigit():
        # As in Watcher, the first run is on the first date of the expression; otherwise it is at once.
        due = _cron_after(audit.interval, parse_us(audit.created_at) or now)
    due = max(due, parse_us(audit.start_time or "") or 0)
    end = parse_us(audit.end_time or "")
    return due if end is None else min(due, end)


def _cron_after(expression: str, moment: int) -> int:
    found = next(CronSim(expression, datetime.fromtimestamp(moment / 1_000_000, UTC)))
    return round(found.timestamp()) * 1_000_000
