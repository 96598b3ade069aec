"""Numbers on demand: one datasource of measurements a file."""
