"""The configuration: what is read, what is refused and where, and that no secret is ever shown."""

from __future__ import annotations

import copy
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette import plugins
from vedette.config import MAX_FILE, Address, Config, load, load_text, secret_variables, show
from vedette.errors import ConfigError
from vedette.kit.secret import Secret

ISSUE = """\
listen: 127.0.0.1:8470
tls: {cert: /etc/vedette/tls.crt, key: /etc/vedette/tls.key}
data_dir: /var/lib/vedette
retention: {max_age: 7d, max_bytes: 20GiB}
auth:
  mode: keystone
  keystone: {auth_url: https://keystone:5000/v3, cloud: mycloud, admin_roles: [admin]}
  tokens: [{token: "${VEDETTE_TOKEN}", name: ops, projects: ["*"], roles: [admin]}]
sources:
  - name: region-one
    type: openstack
    amqp: amqps://rabbit:5671/vhost
    username: vedette
    password: "${RABBIT_PASSWORD}"
    exchanges: [nova, neutron, octavia, heat, cinder, openstack, glance, keystone]
    topics: [notifications, versioned_notifications]
    queue: {name: vedette, type: quorum, max_length: 1000000, expires: 7d}
    prefetch: 2000
    drop: ["*.exists"]
  - {name: recorded, type: replay, path: captures/core-1.jsonl.gz, speed: 10, loop: false}
watch: {bookmark_seconds: 15, max_watchers: 10000, max_buffer_bytes: 256KiB, stall_timeout: 60s}
faces: {weaas: {listen: 127.0.0.1:5000, config: weaas.yml}}
log: {level: info, format: text}
"""
ENVIRON = {"VEDETTE_TOKEN": "0123456789abcdef", "RABBIT_PASSWORD": "guest-of-honour"}

SMALL = "sources: [{name: a, type: replay, path: x.jsonl}]\n"


def refused(text: str | bytes, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ or {})
    return caught.value


def outcome(text: str | bytes, environ: dict[str, str]) -> Config | ConfigError:
    """Anything but these two fails the test."""
    try:
        return load_text(text, environ)
    except ConfigError as why:
        return why


# --- what is read ----------------------------------------------------------------------------------------------------------


def test_the_contract_reads_as_it_is_written() -> None:
    config = load_text(ISSUE, ENVIRON)
    assert config.listen == (Address("127.0.0.1", 8470),)
    assert config.tls is not None
    assert config.tls.key == "/etc/vedette/tls.key"
    assert (config.retention.max_age, config.retention.max_bytes) == (7 * 86_400, 20 * 2**30)
    assert config.auth.keystone is not None
    assert config.auth.keystone.admin_roles == ("admin",)
    assert config.auth.tokens[0].token.reveal() == "0123456789abcdef"
    assert config.auth.tokens[0].projects == ("*",)
    rabbit, replay = config.sources
    assert (rabbit.name, rabbit.type, rabbit.drop, rabbit.default) == ("region-one", "openstack", ("*.exists",), False)
    assert rabbit.options.name == "region-one"
    assert rabbit.options.exchanges[:2] == ("nova", "neutron")
    assert rabbit.options.queue.expires_s == 7 * 86_400
    assert rabbit.options.prefetch == 2000
    assert (replay.options.speed, replay.options.loop) == (10.0, False)
    assert (config.watch.bookmark_seconds, config.watch.max_watchers) == (15.0, 10_000)
    assert (config.watch.max_buffer_bytes, config.watch.stall_timeout) == (256 * 1024, 60.0)
    assert config.faces.weaas is not None
    assert config.faces.weaas.listen == (Address("127.0.0.1", 5000),)
    assert (config.log.level, config.log.format) == ("info", "text")


def test_a_source_is_all_that_is_needed() -> None:
    config = load_text(SMALL, {})
    assert config.listen == (Address("127.0.0.1", 8470),)
    assert config.auth.mode == "none"
    assert config.tls is None
    assert config.faces.weaas is None
    assert config.sources[0].drop == ("*.exists",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8470", [("127.0.0.1", 8470)]),
        ("[127.0.0.1:1, '[::1]:2']", [("127.0.0.1", 1), ("::1", 2)]),
        ("localhost:0", [("localhost", 0)]),
    ],
)
def test_listen_is_one_or_a_list(text: str, expected: list[tuple[str, int]]) -> None:
    config = load_text(f"{SMALL}listen: {text}", {})
    assert [(one.host, one.port) for one in config.listen] == expected
    assert all(one.loopback for one in config.listen)


def test_relative_paths_are_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "vedette.yaml").write_text(SMALL + "data_dir: state\ntls: {cert: tls.crt, key: /keys/tls.key}")
    config = load(tmp_path / "vedette.yaml", {})
    assert config.data_dir == str(tmp_path / "state")
    assert config.tls is not None
    assert (config.tls.cert, config.tls.key) == (str(tmp_path / "tls.crt"), "/keys/tls.key")


def test_in_memory_stays_in_memory(tmp_path: Path) -> None:
    (tmp_path / "vedette.yaml").write_text(SMALL + "data_dir: ''")
    assert load(tmp_path / "vedette.yaml", {}).data_dir == ""


def test_tenants_are_projects() -> None:
    text = (
        SMALL
        + "auth: {mode: keystone, keystone: {auth_url: 'http://k:5000/v2.0', username: v, password: p, tenant_name: service}}"
    )
    keystone = load_text(text, {}).auth.keystone
    assert keystone is not None
    assert (keystone.project_name, keystone.tenant_name) == ("service", "")


def test_merged_keys_stand_behind_own_ones() -> None:
    text = """
sources:
  - &first {name: a, type: replay, path: x, speed: 3}
  - {<<: *first, name: b}
"""
    first, second = load_text(text, {}).sources
    assert (first.options.name, second.options.name, second.options.speed) == ("a", "b", 3.0)


def test_two_configurations_share_nothing() -> None:
    one = load_text(SMALL, {})
    two = load_text(SMALL.replace("name: a", "name: b"), {})
    assert (one.sources[0].name, two.sources[0].name) == ("a", "b")
    with pytest.raises(AttributeError):
        one.data_dir = "/elsewhere"  # type: ignore[misc]


# --- the environment -------------------------------------------------------------------------------------------------------


def test_a_variable_is_a_value_and_never_yaml() -> None:
    nasty = 'x", roles: [admin]}]\nallow_insecure: true\n# ${HOME}'
    text = SMALL.replace("x.jsonl", '"${FILE}"')
    config = load_text(text, {"FILE": nasty})
    assert config.sources[0].options.path == nasty
    assert config.allow_insecure is False


def test_two_dollars_are_one() -> None:
    text = SMALL.replace("x.jsonl", '"$${HOME}/$PLAIN/$/$$/${A}$${A}"')
    assert load_text(text, {"A": "1"}).sources[0].options.path == "${HOME}/$PLAIN/$/$$/1${A}"


def test_numbers_and_truth_come_from_variables_too() -> None:
    text = SMALL + 'watch: {max_watchers: "${N}", stall_timeout: "${T}", max_buffer_bytes: "${B}"}\nallow_insecure: "${Y}"'
    config = load_text(text, {"N": "12", "T": "2m", "B": "1MiB", "Y": "true"})
    assert (config.watch.max_watchers, config.watch.stall_timeout, config.watch.max_buffer_bytes) == (12, 120.0, 2**20)
    assert config.allow_insecure is True


def test_a_missing_variable_is_named_with_its_place() -> None:
    why = refused("# first\n" + SMALL.replace("x.jsonl", '"${NOPE}"'), {"NOP": "1"})
    assert (why.path, why.line) == ("sources[0].path", 2)
    assert "NOPE" in str(why)


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${A-b}", "${1}", "a ${ b }"])
def test_a_broken_variable_is_refused(text: str) -> None:
    assert "$${" in str(refused(SMALL.replace("x.jsonl", f'"{text}"'), {"A": "1"}))


# --- what is refused, and where --------------------------------------------------------------------------------------------

PLACES: list[tuple[str, str, int, str]] = [
    # the text after a first line with a source; path; line; a piece of the message
    ("lissten: 127.0.0.1:1", "lissten", 2, "did you mean 'listen'?"),
    ("watch:\n  max_watcher: 5", "watch.max_watcher", 3, "did you mean 'max_watchers'?"),
    ("watch:\n  max_watchers: many", "watch.max_watchers", 3, "wants a whole number"),
    ("watch: {max_watchers: true}", "watch.max_watchers", 2, "wants a whole number"),
    ("watch: {max_watchers: 1.5}", "watch.max_watchers", 2, "wants a whole number"),
    ("watch: {max_watchers: 0}", "watch.max_watchers", 2, "at least 1"),
    ("watch: {max_streams: -1}", "watch.max_streams", 2, "at least 1"),
    ("watch: {stall_timeout: 0}", "watch.stall_timeout", 2, "at least 0.1"),
    ("watch: {stall_timeout: soon}", "watch.stall_timeout", 2, "is not a duration"),
    ("watch: {stall_timeout: true}", "watch.stall_timeout", 2, "wants a duration"),
    ("watch: {stall_timeout: [1]}", "watch.stall_timeout", 2, "wants a duration"),
    ("watch: {stall_timeout: .inf}", "watch.stall_timeout", 2, "a hundred years"),
    ("watch: {max_buffer_bytes: 1 Kb}", "watch.max_buffer_bytes", 2, "is not a size"),
    ("watch: {max_buffer_bytes: 1KiB}", "watch.max_buffer_bytes", 2, "at least 16KiB"),
    ("retention: {max_age: -1}", "retention.max_age", 2, "between 0"),
    ("retention:\n", "retention", 2, "has no value"),
    ("retention: 7d", "retention", 2, "wants keys and values"),
    ("retention: [7d]", "retention", 2, "wants keys and values"),
    ("listen: 8470", "listen", 2, "wants text"),
    ("listen: '8470'", "listen", 2, "an address with a port"),
    ("listen: '::1:8470'", "listen", 2, "an address with a port"),
    ("listen: 127.0.0.1:99999", "listen", 2, "from 0 to 65535"),
    ("listen: []", "listen", 2, "at least one"),
    ("listen: {a: 1}", "listen", 2, "wants a list"),
    ("listen:\n- 127.0.0.1:1\n- nowhere", "listen[1]", 4, "an address with a port"),
    ("tls: {cert: a}", "tls", 2, "key is missing"),
    ("tls: {cert: a, key: [b]}", "tls.key", 2, "wants a path"),
    ("data_dir: 5", "data_dir", 2, "quotes"),
    ("data_dir: 2026-01-01", "", 0, ""),  # a date is text here
    ('data_dir: "a\\0b"', "data_dir", 2, "NUL"),
    ('data_dir: "\\ud800"', "data_dir", 2, "surrogate"),
    ("allow_insecure: 1", "allow_insecure", 2, "true or false"),
    ("allow_insecure: 'true'", "allow_insecure", 2, "true or false"),
    ("log: {level: loud}", "log.level", 2, "There are: debug, error, info, warning"),
    ("log: {level: infos}", "log.level", 2, "did you mean 'info'?"),
    ("log: {level: info}\nlog: {level: debug}", "log", 3, "given twice, first in line 2"),
    ("log: {level: info,\n  level: debug}", "log.level", 3, "given twice"),
    ("log: !!python/object:os.system {}", "log", 2, "tags"),
    ("log: !mine {}", "log", 2, "tags"),
    ("cors: [example.org]", "cors[0]", 2, "an origin"),
    ("cors: ['https://example.org/']", "cors[0]", 2, "an origin"),
    ("faces: {weas: {}}", "faces.weas", 2, "did you mean 'weaas'?"),
    ("? [a]\n: b", "", 2, "a key is not text"),
    # who may ask, and from where
    ("listen: 0.0.0.0:8470", "listen[0]", 2, "auth.mode is none"),
    ("listen: '[::]:8470'\nallow_insecure: true", "listen[0]", 2, "auth.mode is none"),
    ("faces: {weaas: {listen: 10.0.0.1:5000}}", "faces.weaas.listen[0]", 2, "auth.mode is none"),
    ("listen: rabbit:8470\nauth: {mode: tokens, tokens: [{token: 0123456789abcdefg, name: a}]}", "listen[0]", 2, "plain http"),
    ("auth: {mode: tokens}", "auth.tokens", 2, "there is none"),
    ("auth:\n  mode: tokens\n  tokens:\n  - {token: short, name: a}", "auth.tokens[0].token", 5, "at least 16"),
    ("auth: {tokens: [{token: a0123456789 abcdef, name: a}]}", "auth.tokens[0].token", 2, "without spaces"),
    ("auth: {tokens: [{token: '', name: a}]}", "auth.tokens[0].token", 2, "at least 16"),
    ("auth: {tokens: [{name: a}]}", "auth.tokens[0]", 2, "token is missing"),
    (
        "auth:\n  tokens:\n  - &a {token: a0123456789abcdef, name: a}\n  - {<<: *a, name: b}",
        "auth.tokens[1].token",
        4,
        "another caller's",
    ),
    ("auth: {tokens: [{token: a0123456789abcdef, name: a, roles: [admin]}]}", "auth.tokens[0].projects", 2, "go together"),
    ("auth: {tokens: [{token: a0123456789abcdef, name: a, projects: ['*']}]}", "auth.tokens[0].projects", 2, "go together"),
    ("auth: {tokens: [{token: a0123456789abcdef, name: a, projects: ['']}]}", "auth.tokens[0].projects", 2, "is empty"),
    ("auth: {mode: nobody}", "auth.mode", 2, "There are: keystone, none, tokens"),
    ("auth: {mode: keystone}", "auth.keystone", 2, "auth_url"),
    ("auth: {mode: keystone, keystone: {username: a}}", "auth.keystone", 2, "auth_url"),
    ("auth: {mode: keystone, keystone: {auth_url: keystone}}", "auth.keystone.auth_url", 2, "https://"),
    ("auth: {mode: keystone, keystone: {auth_url: 'http://k'}}", "auth.keystone", 2, "username and password"),
    (
        "auth: {mode: keystone, keystone: {cloud: c, tenant_name: a, project_name: b}}",
        "auth.keystone.tenant_name",
        2,
        "an older name of project_name",
    ),
]


@pytest.mark.parametrize(("more", "path", "line", "message"), PLACES, ids=[more[:40] for more, *_ in PLACES])
def test_what_is_wrong_is_named_by_path_and_line(more: str, path: str, line: int, message: str) -> None:
    if not message:
        load_text(SMALL + more, {})
        return
    why = refused(SMALL + more)
    assert (why.path, why.line) == (path, line), why
    assert message in str(why)
    assert str(why).startswith(f"{path} (line {line})".lstrip())


SOURCES: list[tuple[str, str, int, str]] = [
    ("sources: []", "sources", 1, "nothing to watch"),
    ("listen: 127.0.0.1:1", "sources", 1, "nothing to watch"),
    ("sources:\n- name: a", "sources[0]", 2, "type is missing"),
    ("sources:\n- name: a\n  type: opnstack", "sources[0].type", 3, "did you mean 'openstack'?"),
    ("sources:\n- type: replay", "sources[0]", 2, "name is missing"),
    ("sources:\n- name: a\n  type: replay", "sources[0]", 2, "path is missing"),
    ("sources:\n- name: a\n  type: replay\n  pth: x", "sources[0].pth", 4, "did you mean 'path'?"),
    ("sources:\n- name: a\n  type: replay\n  options: {}", "sources[0].options", 4, "has no such key"),
    ("sources:\n- name: a\n  type: replay\n  path: x\n  pause_s: 1", "sources[0].pause_s", 5, "did you mean 'pause'?"),
    ("sources:\n- name: a/b\n  type: replay\n  path: x", "sources[0].name", 2, "letters"),
    ("sources:\n- name: '*'\n  type: replay\n  path: x", "sources[0].name", 2, "letters"),
    ("sources:\n- {name: a, type: replay, path: x}\n- {name: a, type: replay, path: x}", "sources[1].name", 3, "another source"),
    (
        "sources:\n- {name: a, type: replay, path: x, default: true}\n- {name: b, type: replay, path: x, default: true}",
        "sources[1].default",
        3,
        "default one already",
    ),
    (
        "sources:\n- name: a\n  type: openstack\n  amqp: amqp://h\n  queue:\n    expires: never",
        "sources[0].queue.expires",
        6,
        "is not a duration",
    ),
    (
        "sources:\n- name: a\n  type: openstack\n  amqp: amqp://h\n  queue: {expires: 0.5}",
        "sources[0].queue.expires",
        5,
        "whole seconds",
    ),
    ("sources:\n- name: a\n  type: openstack\n  amqp: amqp://h\n  prefetch: 0", "sources[0]", 2, "prefetch: wants"),
    (
        "sources:\n- name: a\n  type: openstack\n  amqp: amqp://h\n  queue: {expires: 50d}",
        "sources[0].queue",
        5,
        "at most 49 days",
    ),
    ("sources:\n- name: a\n  type: openstack\n  amqp: amqp://h\n  queue: {type: fast}", "sources[0].queue.type", 5, "classic"),
    ("- a", "", 1, "keys and values"),
    ("just text", "", 1, "keys and values"),
    ("", "", 0, "empty"),
    ("# nothing", "", 0, "empty"),
    ("a: [b", "", 1, "not YAML"),
    ("a: 1\n---\nb: 2", "", 2, "not YAML"),
    ("a: *b", "", 1, "not YAML"),
    ("a: b\n\tc: d", "", 2, "not YAML"),
]


@pytest.mark.parametrize(("text", "path", "line", "message"), SOURCES, ids=[text[:40] for text, *_ in SOURCES])
def test_sources_and_broken_files_are_named_by_path_and_line(text: str, path: str, line: int, message: str) -> None:
    why = refused(text)
    assert (why.path, why.line) == (path, line), why
    assert message in str(why)


def test_tokens_on_other_machines_want_tls_or_a_word() -> None:
    open_ = SMALL + "listen: 0.0.0.0:1\nauth: {mode: tokens, tokens: [{token: 0123456789abcdefg, name: a}]}\n"
    refused(open_)
    assert load_text(open_ + "allow_insecure: true", {}).allow_insecure
    assert load_text(open_ + "tls: {cert: a, key: b}", {}).tls


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nothing.yaml", {})
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path, {})
    with pytest.raises(ConfigError):
        load("a\0b", {})


def test_not_utf8_is_named_by_its_line() -> None:
    assert refused(b"a: 1\nb: \xff").line == 2


# --- bounds ----------------------------------------------------------------------------------------------------------------


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "huge.yaml").write_text("#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match="more than"):
        load(tmp_path / "huge.yaml", {})


def test_aliases_that_stand_for_billions_are_refused() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    refused(text)
    merged = "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 12))
    why = refused("m0: &m0 {a: 1}\n" + merged + "<<: [*m11, *m11, *m11]")
    assert "values" in str(why)


@pytest.mark.parametrize(
    "text", ["cors: &a [*a]", "retention: &a {<<: *a}", "cors: " + "[" * 60 + "]" * 60, "a: " + "[" * 100_000]
)
def test_what_goes_round_or_deep_is_refused(text: str) -> None:
    refused(SMALL + text)


def test_many_values_are_refused() -> None:
    assert "values" in str(refused(SMALL + "cors: [" + "'*'," * 25_000 + "]"))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_configuration_or_an_error(raw: bytes) -> None:
    assert str(outcome(raw, {}))


PIECES = [
    *(
        "listen",
        "sources",
        "- ",
        "name",
        "type",
        "replay",
        "openstack",
        "amqp",
        "queue",
        "watch",
        "auth",
        "tokens",
        "cors",
        "log",
    ),
    *(
        ": ",
        "\n",
        "  ",
        "\n  ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!binary ",
        "!x ",
    ),
    *(
        '"',
        "'",
        "${A}",
        "${",
        "$${",
        "|\n",
        ">",
        "? ",
        "# ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "1",
        "1e9",
        ".nan",
        "0x",
        "1:2",
        "~",
    ),
    *("127.0.0.1:1", "7d", "1GiB", "true", "\\U99999999", "\\ud800", "\t", "\x00", "\x85", "é", "\U0001f40e", "=", "2001-01-01"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@settings(max_examples=600, deadline=None)
def test_any_shape_of_yaml_gives_a_configuration_or_an_error(text: str) -> None:
    for one in (text, SMALL + text):
        assert str(outcome(one, {"A": "x"}))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def keys(config: Any) -> list[str]:
    """Dotted paths of all keys of a parsed file."""
    if isinstance(config, dict):
        return [path for key, value in config.items() for path in (key, *(f"{key}.{one}" for one in keys(value)))]
    return []


@given(st.sampled_from(keys(yaml.safe_load(ISSUE))), json_like)
@settings(max_examples=300, deadline=None)
def test_any_value_at_any_key_gives_a_configuration_or_an_error(path: str, value: Any) -> None:
    parsed = yaml.safe_load(ISSUE)
    at = parsed
    *way, last = path.split(".")
    for key in way:
        at = at[key]
    at[last] = value
    got = outcome(yaml.safe_dump(parsed), ENVIRON)
    if isinstance(got, ConfigError):
        assert re.split(r"[.\[]", got.path)[0] in parsed, got
        assert got.line, got


def test_a_full_file_is_read_in_bounded_time() -> None:
    # No figure is asserted: the test would hang if reading were worse than quadratic.
    text = SMALL + "cors: ['https://a.example'" + ", 'https://a.example'" * 8_000 + "]"
    began = time.monotonic()
    config = load_text(text, {})
    print(f"{len(text)} bytes in {time.monotonic() - began:.1f} s")
    assert len(config.cors) == 8_001


# --- secrets ---------------------------------------------------------------------------------------------------------------


def test_show_masks_every_secret() -> None:
    text = ISSUE.replace("amqps://rabbit:5671/vhost", "[amqps://u:p%40ss-one@rabbit:5671/v, 'amqp://x:p@ss/two@h/']")
    text = text.replace("cloud: mycloud", "username: v, password: the-keystone-one, application_credential_secret: the-third")
    config = load_text(text, ENVIRON)
    for shown in (show(config), repr(config.auth), str(config.auth)):
        for secret in (*ENVIRON.values(), "the-keystone-one", "the-third"):
            assert secret not in shown
    assert "ss-one" not in show(config)
    assert "ss/two" not in show(config)
    assert "amqps://u:***@rabbit:5671/v" in show(config)


def test_show_masks_what_handlers_keep_as_plain_text(tmp_path: Path) -> None:
    (tmp_path / "table.py").touch()
    text = (
        f"{SMALL}plugins: {{folder: {tmp_path}}}"
        + """
handlers:
  - name: chat
    use: http
    options:
      url: https://chat.example.org/in?room=7&token=hidden-1
      headers: {Authorization: Bearer hidden-2, X-Api-Key: hidden-3, Cookie: a=hidden-4, X-Room: seen-1}
      secret_headers: {X-Other: hidden-5}
      hmac_secret: hidden-secret-6
  - name: own
    use: exec
    options:
      command: /bin/true
      env: {API_KEY: hidden-7, ROOM: seen-2}
  - name: table
    use: table
    options:
      database: {password: hidden-8, hosts: ["db://u:hidden-9@one/"], pins: [{pin: 47110815}]}
      tokens: [hidden-10, hidden-11]
      max_tokens: 4096
      token_file: /seen-3
"""
    )
    shown = show(load_text(text, {}))
    assert "hidden" not in shown
    assert "47110815" not in shown
    assert all(word in shown for word in ("seen-1", "seen-2", "seen-3", "max_tokens: 4096", "room=7&token=***"))


def test_variables_with_a_secret_are_known_by_what_is_in_them() -> None:
    text = ISSUE.replace("amqps://rabbit:5671/vhost", '"${RABBIT}"')
    environ = {
        **ENVIRON, "RABBIT": "amqps://u:p@rabbit:5671/v", "COPY": "password=guest-of-honour;", "OS_PASSWORD": "x",
        "PATH": "/bin", "OS_AUTH_URL": "https://keystone:5000", "EMPTY": "",
    }  # fmt: skip
    assert secret_variables(load_text(text, environ), environ) == {*ENVIRON, "RABBIT", "COPY", "OS_PASSWORD"}


def test_what_is_shown_reads_back() -> None:
    text = SMALL + "data_dir: /d\nretention: {max_age: 90m, max_bytes: 1500}\nlisten: ['[::1]:1']\nwatch: {stall_timeout: 1.5}"
    config = load_text(text, {})
    assert load_text(show(config), {}) == config


def test_a_replaced_mask_makes_the_whole_contract_read_back() -> None:
    config = load_text(ISSUE, ENVIRON)
    shown = (
        show(config).replace("token: '***'", "token: 0123456789abcdef").replace("password: '***'", "password: guest-of-honour")
    )
    assert load_text(shown, {}) == config


@given(
    secret=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=12, max_size=30).map(
        lambda text: f"S3{text}S3"
    ),
    path=st.sampled_from(["token", "password", "name", "type", "amqp", "expires", "mode", "speed", "listen"]),
)
@settings(max_examples=200, deadline=None)
def test_no_error_shows_what_a_variable_holds(secret: str, path: str) -> None:
    text = """
listen: "${listen}"
auth: {mode: "${mode}", keystone: {cloud: c}, tokens: [{token: "${token}", name: ops}]}
sources:
- {name: "${name}", type: "${type}", amqp: "${amqp}", password: "${password}", queue: {expires: "${expires}"}}
- {name: b, type: replay, path: x, speed: "${speed}"}
"""
    environ = {
        "listen": "127.0.0.1:1", "mode": "none", "token": "0123456789abcdef", "name": "a", "type": "openstack",
        "amqp": "amqp://h", "password": "p", "expires": "7d", "speed": "1",
    }  # fmt: skip
    load_text(text, environ)
    got = outcome(text, environ | {path: secret})
    if isinstance(got, ConfigError):
        assert secret not in f"{got} {got!r} {got.path}"


def test_a_broken_file_shows_nothing_of_itself() -> None:
    why = refused('auth: {tokens: [{token: "hunter2-hunter2-hunter2", name: a]}')
    assert "hunter2" not in str(why)


def test_secrets_do_not_print() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {secret:>20}"
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    assert secret not in (Secret("hunter3"), "hunter2")
    assert [bool(secret), bool(Secret())] == [True, False]
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)


# --- plugs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", plugins.names("sources"))
def test_every_source_has_options_that_the_configuration_can_read(type_: str) -> None:
    options = plugins.load("sources", type_).Options
    why = refused(f"sources: [{{name: a, type: {type_}, no-such-key: 1}}]")
    assert why.path == "sources[0].no-such-key"
    assert issubclass(options, msgspec.Struct)
    assert {"name"} <= {field.name for field in msgspec.structs.fields(options)}


def test_the_type_of_config_is_frozen_all_the_way_down() -> None:
    config: Config = load_text(ISSUE, ENVIRON)
    hash((config.listen, config.retention, config.auth, config.watch, config.faces, config.log))
