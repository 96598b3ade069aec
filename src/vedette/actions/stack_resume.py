"""Resumes a stack, and with it its servers."""

from __future__ import annotations

from vedette.actions._heat import switched

ACTION = switched("resume")
