"""Notices, readings, objects, changes: frozen values and the pure fold. No I/O."""
