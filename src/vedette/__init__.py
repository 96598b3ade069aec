"""Vedette makes an OpenStack cloud watchable, and able to react."""

__version__ = "0.1.0"
