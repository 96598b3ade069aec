"""What plugins of the OSS framework import: `oss_framework.plugins.base`, and the plugins that are shipped.

Vedette runs them, each in a process of its own (`vedette/compat/_oss_child.py`).
"""
