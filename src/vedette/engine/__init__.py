"""The rules of the service: ingest, watch, retention. No vendor in sight."""
