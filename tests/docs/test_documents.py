"""The documents hold: links lead somewhere, every key and every plug is described, promises have tests, examples can be read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import config_page
import msgspec
import pytest
import yaml

from vedette import config, plugins
from vedette.config import load, load_text

ROOT = Path(__file__).parents[2]


def ours(pattern: str = "*") -> list[Path]:
    """The files that are, or are about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(path for path in (ROOT / name for name in listed.split("\0") if name) if path.is_file())


PAGES = ours("*.md")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


class Dummies(Mapping[str, str]):
    """An environment in which every variable is set, each to something else."""

    def __getitem__(self, key: str) -> str:
        return f"dummy-of-{key.lower()}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


# --- links -----------------------------------------------------------------------------------------------------------------

FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^()\s]+)\)")


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number, unique = 0, anchor
        while unique in found:
            number += 1
            unique = f"{anchor}-{number}"
        found.add(unique)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.finditer(prose(page)):
        to, _, anchor = link["to"].partition("#")
        if re.match(r"[a-z]+:", to):
            continue
        target = (page.parent / to).resolve() if to else page
        if not target.exists():
            broken.append(f"{link[0]}: there is no {to}")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            broken.append(f"{link[0]}: {to or 'the page'} has no heading #{anchor}")
        elif anchor and target.suffix == ".py" and not re.search(rf"\b(def|class) {re.escape(anchor)}\b", target.read_text()):
            broken.append(f"{link[0]}: {to} has no {anchor}")
    assert not broken, "\n".join(broken)


def test_the_check_of_links_finds_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Some `code` & more\n# Twice\n# Twice\n")
    assert anchors(tmp_path / "other.md") == {"some-code--more", "twice", "twice-1"}
    page = tmp_path / "page.md"
    for text in ("[a](nothing.md)", "[a](other.md#nowhere)", "[a](#nowhere)", "[`code`](nothing.md)"):
        page.write_text(text)
        with pytest.raises(AssertionError):
            test_links_lead_somewhere(page)
    page.write_text("[a](other.md#twice-1) [b](https://example.org/x) `[c](nothing.md)`\n```\n[d](nothing.md)\n```\n")
    test_links_lead_somewhere(page)


def test_every_page_is_found_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        links = (link["to"].partition("#")[0] for link in LINK.finditer(prose(page)))
        todo += [(page.parent / to).resolve() for to in links if to.endswith(".md") and ":" not in to]
    lost = [name(page) for page in PAGES if page not in seen and page.is_relative_to(ROOT / "docs")]
    assert not lost, f"no page leads to {', '.join(lost)}"


# --- settings --------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_settings_are() -> None:
    assert config_page.PAGE.read_text(encoding="utf-8") == config_page.page(), "run: python tests/docs/config_page.py"


def test_every_key_has_a_sentence() -> None:
    every = [("", config.Config), *config_page.structs(config.Config, "")]
    for source in plugins.names("sources"):
        options = plugins.load("sources", source).Options
        every += [(f"sources/{source}.py", options), *config_page.structs(options, f"sources/{source}.py")]
    silent = [
        f"{path}.{field.name}"
        for path, struct in every
        for field in msgspec.structs.fields(struct)
        if field.name not in config_page.sentences(struct) and not (path.endswith(".py") and field.name == "name")
    ]
    assert not silent, f"a sentence is missing under {', '.join(silent)}"


@pytest.mark.parametrize("source", plugins.names("sources"))
def test_every_source_has_its_section(source: str) -> None:
    assert f"\n## sources[] of type {source}\n" in config_page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", plugins.kinds(), ids=lambda kind: kind.singular)
def test_every_kind_has_its_section(kind: plugins.Kind) -> None:
    assert f"\n## {kind.kind}\n" in (ROOT / "docs" / "kinds.md").read_text(encoding="utf-8")


# --- examples --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ours("examples/*.yaml"), ids=name)
def test_examples_can_be_read(path: Path) -> None:
    load(path, Dummies())


def blocks() -> list[tuple[str, str]]:
    """(page, text) of the YAML in the documents that is a configuration, or a piece of one."""
    keys = {field.name for field in msgspec.structs.fields(config.Config)}
    found = []
    for page in PAGES:
        for block in re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            parsed = yaml.safe_load(block)
            if isinstance(parsed, dict) and parsed.keys() & keys:
                found.append((name(page), block))
    return found


@pytest.mark.parametrize(("page", "block"), blocks())
def test_configurations_in_the_documents_can_be_read(page: str, block: str) -> None:
    if "sources" not in yaml.safe_load(block):
        block += "\nsources: [{name: dummy, type: replay, path: none.jsonl}]\n"
    load_text(block, Dummies())


# --- promises --------------------------------------------------------------------------------------------------------------

GUARANTEES = ROOT / "docs" / "guarantees.md"
TEST_LINK = re.compile(r"\[`?(?P<text>[^\]`]*)`?\]\((?P<file>[^()\s#]*tests/[^()\s#]+\.py)(?:#(?P<anchor>\w+))?\)")


def test_every_promise_has_its_test() -> None:
    text = GUARANTEES.read_text(encoding="utf-8")
    promises = [line for line in re.split(r"\n(?=[-*] |\d+\. |\| )", text) if re.match(r"[-*] |\d+\. |\| *\**\d", line)]
    assert len(promises) >= 7, "guarantees are a list (or the rows of a table, with their numbers)"
    missing = []
    for promise in promises:
        links = list(TEST_LINK.finditer(promise))
        tests = [functions(link) for link in links]
        if not any(tests):
            missing.append(f"no test: {promise.splitlines()[0][:100]}")
        missing += [f"{link[0]}: no such test" for link, found in zip(links, tests, strict=True) if not found]
    assert not missing, "\n".join(missing)


def functions(link: re.Match[str]) -> list[str]:
    """The test functions of the linked file that the link names: by its anchor, else by its text."""
    path = (GUARANTEES.parent / link["file"]).resolve()
    if not path.is_file():
        return []
    there = set(re.findall(r"^ *(?:async )?def (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    named = [link["anchor"]] if link["anchor"] else re.findall(r"\b(?:test|check|suite)_\w+", link["text"])
    return [one for one in named if one in there]
