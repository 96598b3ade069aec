"""Logs on stderr, as text or as one JSON object a line. Key-values go in `extra={"kv": {...}}`, through `kv()`."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def kv(**values: Any) -> dict[str, Any]:
    """`log.info("bound", extra=kv(exchange="nova"))`: the values follow the text, or are keys in JSON."""
    return {"kv": values}


class TextFormatter(logging.Formatter):
    """`2026-11-20 15:18:30.420 INFO  sources.openstack: connected host=rabbit port=5671`."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        values = getattr(record, "kv", None) or {}
        tail = "".join(f" {key}={_plain(value)}" for key, value in values.items())
        name = record.name.removeprefix("vedette.")
        # What others say is in many a text: it must not move the cursor of whoever reads the log.
        line = f"{when} {record.levelname:<7} {name}: {_CONTROLS.sub('�', record.getMessage())}{tail}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, the key-values, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "kv", None) or {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str = "info", form: str = "text") -> None:
    """Send our loggers to stderr. Called once by the command line; a library user keeps their own set-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger("vedette")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def _plain(value: Any) -> str:
    text = str(value)
    return json.dumps(text) if not text or not text.isprintable() or any(c in text for c in ' "=') else text
