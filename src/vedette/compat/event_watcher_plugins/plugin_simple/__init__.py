"""Logs the kind and the name of each object that something happens to.

With `message_log_level` in `[plugin_simple]` the line has that level, and also says what happened, as the Event Watcher's later
versions had it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def handle_event(watcher: Any, event: Mapping[str, Any], config: Mapping[str, str], *args: Any, **kwargs: Any) -> tuple[str, str]:
    """(message, level)."""
    found = event["object"]
    message = f"Kind: {found['kind']}; Name: {found['metadata']['name']}"
    level = config.get("message_log_level")
    if level:
        message += f"; Event Type:{event['type']}"
    return message, level or "INFO"
