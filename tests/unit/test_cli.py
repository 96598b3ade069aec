"""The command line's words: help, exit codes, errors in one line, and what needs no server.

Commands at work are in tests/e2e/test_cli_*.py.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from vedette.cli import app
from vedette.cli.certificates import certificate_end, expiry
from vedette.cli.diagnose_broker import skews
from vedette.cli.service import recordings
from vedette.cli.show import Lines, cell, plain
from vedette.errors import ConfigError, TryLater
from vedette.sources.openstack import decode
from vedette.testing.tls import Authority

COMMANDS = (
    "serve", "demo", "watch", "get", "events", "resync", "status", "kubeconfig", "token", "check-config", "doctor",
    "not-understood", "replay", "explain", "version",
)  # fmt: skip
CLEAN = {
    "VEDETTE_URL": None, "VEDETTE_TOKEN": None, "OS_TOKEN": None, "OS_CLOUD": None, "OS_AUTH_URL": None, "VEDETTE_CONFIG": None,
    "VEDETTE_DEBUG": None, "COLUMNS": "200", "HOME": "/nonexistent", "NO_PROXY": "*",
}  # fmt: skip
GOOD = "data_dir: /tmp/x\nsources: [{name: one, type: replay, path: x.jsonl}]\n"


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner(env=CLEAN)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_all_but_version_have_examples(runner: CliRunner, command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: vedette {command}" in result.output
    if command != "version":
        assert "Examples:" in result.output
        assert f"vedette {command}" in result.output.partition("Examples:")[2]


def test_the_help_lists_every_command(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wach", "port"], "watch"),
        (["watch"], "KIND"),
        (["watch", "port", "-o", "xml"], "xml"),
        (["watch", "port", "--since", "yesterday"], "--since"),
        (["not-understood", "--limit", "0"], "limit"),
        (["serve", "--nonsense"], "nonsense"),
        (["get", "port", "-A", "--project", "p"], "exclude each other"),
        (["watch", "port", "-A", "-p", "p"], "exclude each other"),
        (["get", "port", "--server", "vedette:8470"], "not the address of a server"),
        (["get", "port", "--ca", "/nonexistent.pem"], "/nonexistent.pem"),
        (["resync", "--confirm"], "--confirm wants the KIND"),
        (["resync", "port", "--no-wait", "--wait"], "--wait"),
        (["status", "-o", "yaml"], "yaml"),
        (["doctor", "--listen", "-1"], "listen"),
        (["serve", "--config", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (["demo", "--cloud", "mars"], "there are: recorded"),
    ],
)
def test_wrong_words_are_exit_code_2(runner: CliRunner, words: list[str], said: str) -> None:
    result = runner.invoke(app, words)
    assert result.exit_code == 2
    assert said.lower() in result.output.lower()
    assert "Traceback" not in result.output


def test_a_server_that_is_not_there_is_exit_code_1_and_one_line(runner: CliRunner) -> None:
    result = runner.invoke(app, ["get", "port", "--server", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: can't reach http://127.0.0.1:1: Connect")
    assert "vedette demo" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_kinds_are_completed(runner: CliRunner) -> None:
    words = {"_VEDETTE_COMPLETE": "complete_bash", "COMP_WORDS": "vedette resync server po", "COMP_CWORD": "3"}
    result = runner.invoke(app, [], env=words, prog_name="vedette")
    assert result.output.split() == ["pool", "port"]


def test_debug_lets_the_error_through(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--debug", "get", "port", "--server", "http://127.0.0.1:1"])
    assert isinstance(result.exception, TryLater)


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(app, ["version"]).output.startswith("vedette 0.")


# --- check-config ----------------------------------------------------------------------------------------------------------


def test_a_good_configuration_is_shown_with_its_secrets_masked(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "v.yaml"
    path.write_text(
        "auth: {mode: tokens, tokens: [{token: '${A_TOKEN}', name: ops, projects: ['*'], roles: [admin]}]}\n"
        "sources: [{name: one, type: openstack, amqp: 'amqp://me:hunter2@rabbit/', password: hunter3}]\n"
    )
    result = runner.invoke(app, ["check-config", str(path)], env={"A_TOKEN": "secret-of-sixteen-characters"})
    assert result.exit_code == 0, result.output
    shown = yaml.safe_load(result.stdout)
    assert shown["auth"]["tokens"][0]["token"] == "***"
    assert shown["watch"]["bookmark_seconds"] == "15s"
    assert f"{path} is well." in result.stderr
    for secret in ("secret-of-sixteen", "hunter2", "hunter3"):
        assert secret not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: []\n", "there is nothing to watch"),
        (GOOD + "retentoin: {max_age: 7d}\n", "retentoin (line 3)"),
        (GOOD + "listen: 0.0.0.0:8470\n", "auth.mode is none"),
        ("sources: [{name: one, type: openstack, amqp: 'http://rabbit'}]\n", "sources[0]"),
        ("a: [", "not YAML"),
        (GOOD + "log: {level: '${NOT_THERE}'}\n", "NOT_THERE"),
    ],
)
def test_a_bad_configuration_is_exit_code_2_and_names_the_place(runner: CliRunner, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "v.yaml"
    path.write_text(text)
    result = runner.invoke(app, ["check-config", str(path)])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


# --- tokens ----------------------------------------------------------------------------------------------------------------


def test_a_token_that_is_there_is_printed_vedettes_own_first(runner: CliRunner) -> None:
    both = {"VEDETTE_TOKEN": "ours", "OS_TOKEN": "theirs"}
    assert runner.invoke(app, ["token"], env=both).output == "ours\n"
    assert runner.invoke(app, ["token"], env={"OS_TOKEN": "theirs"}).output == "theirs\n"


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
def test_an_exec_credential_is_in_the_version_that_is_asked_for(runner: CliRunner, version: str) -> None:
    wanted = f"client.authentication.k8s.io/{version}"
    asked = json.dumps({"apiVersion": wanted, "kind": "ExecCredential", "spec": {"interactive": False}})
    result = runner.invoke(app, ["token", "--exec"], env={"VEDETTE_TOKEN": "ours", "KUBERNETES_EXEC_INFO": asked})
    assert json.loads(result.output) == {"apiVersion": wanted, "kind": "ExecCredential", "status": {"token": "ours"}}


@pytest.mark.parametrize("info", ["", "{", "[]", '{"apiVersion": "evil/v1"}', '{"apiVersion": 7}'])
def test_without_a_version_it_is_the_one_that_every_kubectl_takes(runner: CliRunner, info: str) -> None:
    result = runner.invoke(app, ["token", "--exec"], env={"VEDETTE_TOKEN": "ours", "KUBERNETES_EXEC_INFO": info})
    assert json.loads(result.output)["apiVersion"] == "client.authentication.k8s.io/v1beta1"


def test_without_anything_to_get_a_token_with_it_says_what_would_do(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["token"], env={"HOME": str(tmp_path)})
    assert result.exit_code == 2
    for word in ("VEDETTE_TOKEN", "OS_", "--os-cloud"):
        assert word in result.stderr


# --- the terminal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1", "web-1"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("Größe 東京 🦆", "Größe 東京 🦆"),
    ],
)
def test_names_from_the_cloud_move_no_cursor(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert cell(text) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "<none>"), ("", "<none>"), (True, "true"), (False, "false"), (0, "0")])
def test_cells_are_never_empty(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_lines_are_as_wide_as_the_widest_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(["A", "B"])
    lines.fit([["long enough", "x"]])
    lines.row(["a", "b"])
    lines.row(["wider than it was", "b"])
    lines.row(["c", "d"])
    assert capsys.readouterr().out.splitlines() == [
        "A            B",
        "a            b",
        "wider than it was  b",
        "c                  d",
    ]


# --- the recording ---------------------------------------------------------------------------------------------------------


def test_the_shipped_recording_is_found_small_understood_and_holds_no_secret() -> None:
    recorded = recordings()["recorded"]
    assert recorded.name == "recorded.jsonl.gz"
    with resources.as_file(recorded) as path:
        assert path.stat().st_size < 400_000
        import gzip

        lines = gzip.decompress(path.read_bytes()).splitlines()
    assert len(lines) > 1000
    for line in lines:
        body = msgspec.json.decode(line)["body"]
        assert "PRIVATE KEY" not in body
        assert "gAAAAA" not in body, "a Fernet token"
        for word in ('auth_token\\": \\"', 'auth_token": "'):
            for found in body.split(word)[1:]:
                assert found.startswith("recorded-token-")
        assert decode(body.encode(), "test").event_type


# --- doctor's arithmetic ---------------------------------------------------------------------------------------------------


def test_the_end_of_a_certificate_is_read_out_of_it(tmp_path: Path) -> None:
    from cryptography import x509

    authority = Authority(tmp_path)
    for days, level in ((-1, "fail"), (10, "warn"), (300, "ok")):
        pair = authority.server(f"d{days}", days=days)
        ends = certificate_end(pair.cert, pair.key)
        told = x509.load_pem_x509_certificate(pair.cert.read_bytes()).not_valid_after_utc
        assert ends == told.timestamp()
        assert expiry("tls", "it", ends).level == level


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    import ssl

    authority = Authority(tmp_path)
    one, other = authority.server("one"), authority.server("other")
    with pytest.raises(ssl.SSLError):
        certificate_end(one.cert, other.key)


def test_clocks_are_judged_by_the_message_that_was_fastest() -> None:
    found = list(skews({"well": [-40.0, -0.1], "behind": [-90.0, -60.0], "ahead": [30.0, 2.0]}))
    assert [(one.level, one.message.split(" is ")[0]) for one in found] == [
        ("warn", "the clock of ahead"),
        ("warn", "the clock of behind"),
    ]
    assert "30 s ahead of" in found[0].message
    assert "60 s behind" in found[1].message
    assert [one.level for one in skews({"well": [-0.2]})] == ["ok"]


def test_an_error_of_ours_knows_its_exit_code() -> None:
    from vedette.cli.errors import exit_code
    from vedette.errors import BadRequest, CannotStart, Expired, NotFound

    assert [exit_code(why) for why in (ConfigError("x"), BadRequest("x"))] == [2, 2]
    assert [exit_code(why) for why in (NotFound("x"), Expired("x"), CannotStart("x"), TryLater("x"))] == [1, 1, 1, 1]
