"""Clock, backoff, tasks, logs, telemetry: knows nothing of clouds or events."""
