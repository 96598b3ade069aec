"""docs/realcloud.md has the table and the figures that tests/realcloud/page.py puts there. (No cloud is needed for that.)"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "realcloud"))

import page

from vedette.plugins import kinds


def test_the_table_is_the_tests_own() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.part(text, "reasons") == page.api_only.table(), "run: python tests/realcloud/page.py"


def test_it_has_the_figures_of_all_parts() -> None:
    figures = page.part(page.PAGE.read_text(encoding="utf-8"), "figures")
    assert [number for number in "1234" if f"**{number}. " not in figures] == []


def test_reasons_are_of_kinds_and_fields_that_there_are() -> None:
    known = {kind.kind: kind for kind in kinds()}
    for reason in page.api_only.REASONS:
        for kind in reason.kinds:
            for field in reason.fields:
                assert field in known[kind].fields or field.startswith("metadata."), (kind, field)
