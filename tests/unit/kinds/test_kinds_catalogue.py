"""What holds for every kind: names, columns, fields, and the page about them."""

from __future__ import annotations

from collections import Counter

import pytest
from kinds_fold import KINDS
from kinds_page import PAGE, page

from vedette.plugins import names
from vedette.ports import Kind

ALL = sorted(KINDS.values(), key=lambda kind: kind.kind)
EXPECTED = {
    *(
        "server",
        "port",
        "loadbalancer",
        "listener",
        "pool",
        "member",
        "healthmonitor",
        "floatingip",
        "network",
        "subnet",
        "router",
    ),
    *("securitygroup", "volume", "snapshot", "image", "stack", "flavor", "aggregate", "servergroup", "computeservice"),
    *(
        "hypervisor",
        "project",
        "user",
        "keypair",
        "alarm",
        "resource",
        "handler",
        "deadletter",
        "resourceprovider",
        "mirroredobject",
    ),
    *("storagepool", "volumetype", "baremetalnode"),
    *("goal", "strategy", "scoringengine", "audittemplate", "audit", "actionplan", "action"),
}


def test_every_kind_of_the_issue_is_there() -> None:
    assert sorted(EXPECTED) == names("kinds")


def test_no_word_names_two_kinds() -> None:
    words = Counter(word for kind in ALL for word in {kind.plural, kind.singular, *kind.short_names})
    assert [word for word, times in words.items() if times > 1] == []
    assert len({kind.kind for kind in ALL}) == len(ALL)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.singular)
def test_a_kind_is_called_as_its_file(kind: Kind) -> None:
    assert kind.singular in names("kinds")
    assert kind.kind.lower() == kind.singular
    assert kind.plural == kind.plural.lower()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.singular)
def test_every_column_shows_a_declared_field(kind: Kind) -> None:
    shown = [column.name for column in kind.columns]
    assert len(set(shown)) == len(shown)
    assert "Name" not in shown, "the Table adds metadata.name itself"
    for column in kind.columns:
        assert column.path[0] in kind.fields, column
        if column.path[1:] == ():
            assert column.type == kind.fields[column.path[0]].type, column
        if kind.fields[column.path[0]].admin:
            assert column.priority == 1, "a tenant's plain table has no column that is always empty"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.singular)
def test_every_field_is_explained_in_a_sentence(kind: Kind) -> None:
    assert "id" not in kind.fields, "the fold adds it"
    for name, field in kind.fields.items():
        assert field.doc.endswith(".") or field.doc.endswith("…"), (kind.kind, name)


def test_no_kind_declares_a_secret() -> None:
    words = ("password", "secret", "token", "private_key", "connection_info", "connector", "user_data", "admin_pass")
    assert [name for kind in ALL for name in kind.fields if any(word in name.lower() for word in words)] == []


def test_the_page_says_what_the_kinds_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/unit/kinds/kinds_page.py"
