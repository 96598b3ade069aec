"""docs/kinds.md, from the kinds themselves. `python tests/unit/kinds/kinds_page.py` writes it; a test compares."""

from __future__ import annotations

from pathlib import Path

from vedette.model.reading import VEDETTE
from vedette.plugins import kinds
from vedette.ports import Kind

PAGE = Path(__file__).parents[3] / "docs" / "kinds.md"

WHO = {
    "project": "the members of its project",
    "shared": "the members of its project; everybody when it is shared",
    "owner": "its owner",
    "admin": "admins only",
}

HEAD = """# Kinds

Written by `python tests/unit/kinds/kinds_page.py` from `src/vedette/kinds/`; a test keeps it so. Fields stand under `status` and
are named as the service's own API names them. A notice that doesn't speak of a field leaves it as it was.

What holds for all:

- `.start` events are not read, but Heat's: they carry the stack with its new state and are the only news of it.
- Timestamps that a service sends in several forms end in `Z` with whole seconds.
- Nova's two formats give the same reading of one fact. What the versioned format alone knows (power state, lock, key, tags,
  description, volumes, addresses outside of actions) can still change with the second one.
- A server that is being deleted keeps the addresses it had, so that its DELETED shows them.
- An Octavia update is read for what can't change: it carries the other values as they were before it. A name or description that
  Octavia announces as null is empty, as in its API.
- Lists whose order means nothing (ids, addresses, rules, tags …) are sorted, by id or else by what they say: services give them
  in any order. Name servers, segments and what a user has put in order keep theirs.
- A security group's rules are without their tags and without the number of their row in Neutron's database: some of what Neutron
  says has them. A new router has no interfaces, though Neutron doesn't say so.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "| kind | plural | short | who sees it | events |\n|---|---|---|---|---|"]
    for kind in kinds():
        events = ", ".join(f"`{event}`" for event in kind.events) or (
            "none: Vedette's own" if kind.group == VEDETTE else "none: filled by listing"
        )
        short = ", ".join(f"`{name}`" for name in kind.short_names)
        parts.append(f"| [{kind.kind}](#{kind.kind.lower()}) | `{kind.plural}` | {short} | {WHO[kind.audience]} | {events} |")
    return "\n".join(parts) + "\n\n" + "\n".join(section(kind) for kind in kinds())


def section(kind: Kind) -> str:
    """One kind: its sentence and its fields."""
    rows = [
        f"| `{name}` | {field.type} | {'admin' if field.admin else ''} | {field.doc} |" for name, field in kind.fields.items()
    ]
    return "\n".join((f"## {kind.kind}\n", f"{kind.doc}\n", "| field | type | only | |\n|---|---|---|---|", *rows)) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
