"""How often Python looks for garbage in cycles, for a process that makes millions of short-lived values and few cycles."""

from __future__ import annotations

import gc


def look_for_cycles_seldom() -> None:
    """For the process that serves, once everything is imported.

    By default the collector runs after every 700 new containers, and a batch makes tens of thousands: 10–20 % of the ingest's
    CPU, for nothing (values here are freed by their reference counts). What was imported is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
