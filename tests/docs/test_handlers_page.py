"""docs/handlers.md says what the handlers say, and every option of theirs has a sentence."""

from __future__ import annotations

import config_page
import handlers_page
import msgspec
import pytest

from vedette import plugins


def test_the_page_says_what_the_handlers_say() -> None:
    assert handlers_page.PAGE.read_text(encoding="utf-8") == handlers_page.page(), "run: python tests/docs/handlers_page.py"


@pytest.mark.parametrize("name", plugins.names("handlers"))
def test_every_option_has_a_sentence(name: str) -> None:
    options = plugins.load("handlers", name).Options
    for path, struct in [("", options), *config_page.structs(options, "")]:
        said = config_page.sentences(struct)
        silent = [field.name for field in msgspec.structs.fields(struct) if field.name not in said]
        assert not silent, f"{name} {path}: a sentence is missing under {', '.join(silent)}"


@pytest.mark.parametrize("name", plugins.names("handlers"))
def test_every_handler_has_its_section(name: str) -> None:
    assert f"\n## {name}\n" in handlers_page.PAGE.read_text(encoding="utf-8")
