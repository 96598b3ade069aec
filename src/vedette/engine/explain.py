"""Why a handler was called for an entry, or why not, and what became of it: what `vedette explain` shows.

engine/dispatch.py gives the entry, the handlers and the deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from vedette.engine.letters import shown
from vedette.engine.line import Line
from vedette.engine.matching import Names, subject_of, verdict
from vedette.model.delivery import Delivery
from vedette.ports import Appended


def explained(appended: Appended, lines: Sequence[Line], names: Names, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """For each handler, of each change and of the notice: whether it matched, every `on:` taken apart; and its deliveries."""
    notice = appended.entry.notice
    told = []
    for line in lines:
        name = line.rule.name
        about = []
        for place in (*range(len(appended.changes)), -1):
            change = appended.changes[place] if place >= 0 else None
            verdicts = [verdict(match, names, appended, change) for match in line.on if match.of_changes == (change is not None)]
            if verdicts:
                about.append(
                    {
                        "of": "notification" if change is None else subject_of(appended, change),
                        "verb": "" if change is None else change.verb,
                        "matched": any(one.matched for one in verdicts),
                        "on": [msgspec.to_builtins(one) for one in verdicts],
                    }
                )
        own = [d for d in deliveries if d.handler == name]
        told.append(
            {
                "handler": name,
                "matched": any(one["matched"] for one in about),
                "about": about,
                "deliveries": [shown(d) for d in own],
            }
        )
    others = sorted({d.handler for d in deliveries} - {line.rule.name for line in lines})
    told += [
        {"handler": name, "matched": None, "about": [], "deliveries": [shown(d) for d in deliveries if d.handler == name]}
        for name in others
    ]
    return {
        "revision": str(appended.entry.revision),
        "type": notice.event_type,
        "source": notice.source,
        "id": notice.id,
        "handlers": told,
    }
