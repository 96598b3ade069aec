"""Puts the figures of each part, from when it last passed (build/realcloud), and the table of api_only.py, into
docs/realcloud.md: `python tests/realcloud/page.py`. A test compares the table.
"""

from __future__ import annotations

import re
from pathlib import Path

import api_only

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "realcloud.md"
KEPT = ROOT / "build" / "realcloud"


def part(text: str, name: str) -> str:
    """What stands between the page's marks of this name."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->\n", text, re.DOTALL)
    assert found, f"the page has no {name}"
    return found[1]


def with_part(text: str, name: str, new: str) -> str:
    return text.replace(f"<!-- {name} -->\n{part(text, name)}<!--", f"<!-- {name} -->\n{new}<!--")


def page(text: str, figures: str) -> str:
    return with_part(with_part(text, "figures", figures), "reasons", api_only.table())


def figures(was: str) -> str:
    """Each part as it was kept last; one that was not, as the page has it."""
    head, *parts = re.split(r"^(?=\*\*\d+\. )", was, flags=re.MULTILINE)
    found = {one[2 : one.index(".")]: one.strip() for one in parts}
    found |= {file.stem.removeprefix("part-"): file.read_text(encoding="utf-8").strip() for file in KEPT.glob("part-*.md")}
    if (KEPT / "head.md").exists():
        head = (KEPT / "head.md").read_text(encoding="utf-8")
    return "\n\n".join([head.strip(), *(found[number] for number in sorted(found))]) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page(text, figures(part(text, "figures"))), encoding="utf-8")
