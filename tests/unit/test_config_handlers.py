"""What is wrong in a handler or a hook is named by its path and its line, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.config import HandlerConfig, On, Retry, load_text, show
from vedette.errors import ConfigError

SMALL = "listen: 127.0.0.1:0\ndata_dir: ''\nsources:\n- {name: r, type: replay, path: x.jsonl}\n"


def handlers(text: str, more: str = "") -> HandlerConfig:
    return load_text(f"{SMALL}{more}handlers:\n- name: h\n  {text}\n", {"TOKEN": "from the environment"}).handlers[0]


@pytest.mark.parametrize(
    ("text", "path", "line", "message"),
    [
        ("use: htp", "handlers[0].use", 7, "did you mean 'http'?"),
        ("use: log\n  onn: {}", "handlers[0].onn", 8, "did you mean 'on'?"),
        ("use: log\n  options: {mesage: x}", "handlers[0].options.mesage", 8, "did you mean 'message'?"),
        ("use: log\n  on: {kinds: prot}", "handlers[0].on[0].kinds", 8, "did you mean 'port'?"),
        ("use: log\n  on: {verbs: CHANGED}", "handlers[0].on", 8, "ADDED, DELETED, MODIFIED"),
        ("use: log\n  on: {sources: q}", "handlers[0].on[0].sources", 8, "no such source or hook"),
        ("use: log\n  on:\n  - {kinds: port}\n  - {when: 'object.x = 1'}", "handlers[0].on[1].when", 10, "== compares"),
        ("use: log\n  on: {when: 'objekt.x == 1'}", "handlers[0].on[0].when", 8, "objekt"),
        ("use: log\n  start: yesterday", "handlers[0].start", 8, "a time such as"),
        ("use: log\n  concurrency: 0", "handlers[0].concurrency", 8, "at least 1"),
        ("use: log\n  rate: -1", "handlers[0].rate", 8, "no limit"),
        ("use: log\n  timeout: 0s", "handlers[0].timeout", 8, "10 milliseconds"),
        ("use: log\n  retry: {attempts: 0}", "handlers[0].retry.attempts", 8, "at least 1"),
        ("use: log\n  window: {}", "handlers[0].window", 8, "wants one of once_within"),
        ("use: log\n  window: {once_within: 5m, once_after: 1m}", "handlers[0].window", 8, "once_within and once_after"),
        ("use: log\n  window: {accumulate_within: 5m}", "handlers[0].window", 8, "goes together with accumulate_within"),
        ("use: log\n  window: {once_within: 5m, threshold: 3}", "handlers[0].window.threshold", 8, "goes together"),
        ("use: log\n  window: {all: ['true'], threshold: 3}", "handlers[0].window", 8, "goes together"),
        ("use: log\n  window: {all: ['event.type == \"a\"']}", "handlers[0].window", 8, "within"),
        ("use: log\n  window: {once_within: 5m, group_by: 'object.'}", "handlers[0].window.group_by[0]", 8, ""),
        ("use: log\n- name: h\n  use: log", "handlers[1].name", 8, "another handler has this name"),
        ("use: log\n- name: a/b\n  use: log", "handlers[1].name", 8, "letters"),
    ],
)
def test_what_is_wrong_in_a_handler_is_named(text: str, path: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        handlers(text)
    assert raised.value.path.startswith(path)
    assert raised.value.line == line
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("{name: x, format: aodhh, token: 0123456789abcdef}", "hooks[0].format", "did you mean 'aodh'?"),
        ("{name: x, format: aodh}", "hooks[0]", "anybody could call it"),
        ("{name: x, format: aodh, token: short}", "hooks[0].token", "at least 16"),
        ("{name: x, format: aodh, keystone: true}", "hooks[0].keystone", "auth.mode keystone"),
        ("{name: r, format: aodh, token: 0123456789abcdef}", "hooks[0].name", "another source or hook"),
        ("{name: vedette, format: aodh, token: 0123456789abcdef}", "hooks[0].name", "another source or hook"),
        ("{name: x, format: aodh, token: 0123456789abcdef, idd: /x}", "hooks[0].idd", "no such key"),
    ],
)
def test_what_is_wrong_in_a_hook_is_named(text: str, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(f"{SMALL}hooks:\n- {text}\n", {})
    assert (raised.value.path, raised.value.line) == (path, 6)
    assert message in str(raised.value)


def test_one_set_of_conditions_may_stand_alone_and_kinds_have_many_names() -> None:
    one = handlers("use: log\n  on: {kinds: [lb, ports.openstack.vedette.dev, Server, dl]}\n  retry: {attempts: 3}")
    assert one.on == (On(kinds=("lb", "ports.openstack.vedette.dev", "Server", "dl")),)
    assert one.retry == Retry(attempts=3)


def test_where_a_cluster_is_followed_kinds_may_be_called_anything(tmp_path: Path) -> None:
    cluster = "- {name: c, type: kubernetes, server: 'https://c:6443', token: x, resources: [{resource: routes}]}\n"
    assert handlers("use: log\n  on: {kinds: widgets.example.org}", cluster).on[0].kinds == ("widgets.example.org",)


def test_options_of_foreign_code_are_taken_as_they_are_with_the_environment_and_shown_masked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('this is never imported here')")
    text = (
        f"{SMALL}plugins: {{folder: {tmp_path}}}\nhandlers:\n- name: h\n  use: mine\n"
        "  options: {password: '${TOKEN}', list: [1, {deep: true}], none: null}\n"
    )
    config = load_text(text, {"TOKEN": "from the environment"})
    assert config.handlers[0].options == {"password": "from the environment", "list": [1, {"deep": True}], "none": None}
    assert "from the environment" not in show(config)
