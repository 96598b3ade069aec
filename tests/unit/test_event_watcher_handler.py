"""handlers/event_watcher.py and the inside of its process: how a plugin is called, and what becomes of what it says."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.compat._event_watcher_child import Options as ChildOptions
from vedette.compat._event_watcher_child import Plugin, WatcherConfig, find, said, section, takes_three
from vedette.errors import ConfigError, GiveUp, TryLater
from vedette.handlers.event_watcher import CHILD, EventWatcherHandler, Options, at_origin, build
from vedette.kit.secret import Secret
from vedette.model.fold import ORIGIN_VERSION
from vedette.model.reading import Key
from vedette.ports import Event, WorkerCode
from vedette.testing.handling import FakeContext, change, handler_needs, notice_event

ROUTE = {
    "kind": "Route",
    "apiVersion": "route.openshift.io/v1",
    "spec": {"host": "web.example.org"},
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "u1",
        "annotations": {
            "openshift.io/host.generated": "true",
            ORIGIN_VERSION: "1717",
            "vedette.dev/source": "kubernetes",
            "vedette.dev/observed-at": "2026-11-20T15:00:00Z",
        },
        "resourceVersion": "1795187946000042",
    },
}


class FakeWorker:
    """Answers as a plugin did, and keeps what it was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[Any] = []
        self.codes: list[WorkerCode] = []

    def __call__(self, code: WorkerCode) -> FakeWorker:
        self.codes.append(code)
        return self

    async def call(self, message: bytes, timeout: float, *, recall: Callable[[str], Awaitable[Any]] | None = None) -> bytes:
        self.sent.append(json.loads(message))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()

    async def close(self) -> None:
        self.closed = True


def route_event(verb: str = "ADDED", old: Any = None) -> Event:
    return msgspec.structs.replace(
        change(verb=verb),  # type: ignore[arg-type]
        key=Key("kubernetes", "route.openshift.io", "Route", "shop/web"),
        raw_object=msgspec.Raw(json.dumps(ROUTE).encode()),
        raw_old=msgspec.Raw(json.dumps(old or {}).encode()),
    )


def handler_of(worker: FakeWorker, **options: Any) -> EventWatcherHandler:
    return build(Options(**options), msgspec.structs.replace(handler_needs("simple"), worker=worker))


# --- the handler -----------------------------------------------------------------------------------------------------------


async def test_the_event_is_as_the_clusters_own_watch_gives_it() -> None:
    worker = FakeWorker({"message": "fine", "level": "INFO"})
    assert await handler_of(worker).handle(route_event(), FakeContext()) == "fine"
    (sent,) = worker.sent
    assert sent["event"]["type"] == "ADDED"
    found = sent["event"]["object"]
    assert list(found) == ["kind", "apiVersion", "metadata", "spec"]
    assert found["metadata"]["resourceVersion"] == "1717"
    assert found["metadata"]["annotations"] == {"openshift.io/host.generated": "true"}
    assert sent["old"] is None


async def test_of_a_modified_object_the_state_before_comes_along() -> None:
    worker = FakeWorker({"message": "", "level": "INFO"})
    old = {**ROUTE, "spec": {"host": "old.example.org"}}
    assert await handler_of(worker).handle(route_event("MODIFIED", old), FakeContext()) is None
    assert worker.sent[0]["old"]["spec"]["host"] == "old.example.org"
    assert worker.sent[0]["old"]["metadata"]["resourceVersion"] == "1717"


async def test_an_object_without_annotations_of_its_own_has_none_and_openstacks_keeps_its_version() -> None:
    found = at_origin({"kind": "Port", "metadata": {"resourceVersion": "7", "annotations": {"vedette.dev/origin": "resync"}}})
    assert found == {"kind": "Port", "metadata": {"resourceVersion": "7"}}


ODD = (
    st.none()
    | st.integers()
    | st.text(max_size=5)
    | st.dictionaries(st.sampled_from(["annotations", "name"]), st.none() | st.text())
)


@given(st.dictionaries(st.sampled_from(["kind", "apiVersion", "metadata", "spec"]), ODD))
def test_any_object_is_taken(found: dict[str, Any]) -> None:
    assert isinstance(at_origin(found)["metadata"], dict)


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
async def test_what_a_plugin_says_is_logged_at_its_level_on_one_line(level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vedette")
    worker = FakeWorker({"message": "Kind: Route; Name: web\n2026 CRITICAL forged", "level": level})
    await handler_of(worker, plugin="mine").handle(route_event(), FakeContext())
    (record,) = [one for one in caplog.records if one.name.endswith("plugin_mine")]
    assert (record.levelname, record.getMessage()) == (level, "Kind: Route; Name: web 2026 CRITICAL forged")


async def test_what_a_plugin_raised_goes_up(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TryLater):
        await handler_of(FakeWorker(TryLater("busy"))).handle(route_event(), FakeContext())


async def test_a_notification_that_changed_no_object_is_not_for_plugins() -> None:
    with pytest.raises(GiveUp, match="`kinds` or `verbs`"):
        await handler_of(FakeWorker()).handle(notice_event({}), FakeContext())


async def test_the_process_is_given_what_its_plugin_finds_in_watcher_config() -> None:
    worker = FakeWorker()
    await handler_of(
        worker, plugin="ipa", folders=("/srv/plugins",), config={"ipa_password": Secret("x")}, k8s_token=Secret("t")
    ).close()
    (code,) = worker.codes
    assert (code.module, code.name) == (CHILD, "simple")
    assert (code.options["plugin"], code.options["folders"]) == ("ipa", ["/srv/plugins"])
    assert (code.options["config"], code.options["k8s_token"]) == ({"ipa_password": "x"}, "t")


def test_a_name_that_no_module_has_is_refused() -> None:
    with pytest.raises(ValueError, match="plugin_"):
        Options(plugin="../x")


# --- inside of the process -------------------------------------------------------------------------------------------------


def seed(event: Any) -> Any: ...
def seeds_call(event: Any, *args: Any, **kwargs: Any) -> Any: ...
def anything(*args: Any, **kwargs: Any) -> Any: ...
def more_by_name(event: Any, retries: int = 3, other: int = 4) -> Any: ...
def with_old(event: Any, *, old: Any = None) -> Any: ...
def later(watcher: Any, event: Any, config: Any, *args: Any, **kwargs: Any) -> Any: ...
def three(w: Any, e: Any, c: Any) -> Any: ...
def no_config(watcher: Any, event: Any) -> Any: ...
def nothing() -> Any: ...
def four(a: Any, b: Any, c: Any, d: Any) -> Any: ...
def needs_a_name(event: Any, *, name: Any) -> Any: ...


@pytest.mark.parametrize("function", [seed, seeds_call, anything, more_by_name, with_old])
def test_a_plugin_with_one_argument_is_given_the_event(function: Any) -> None:
    assert takes_three(function, "x") is False


@pytest.mark.parametrize("function", [later, three])
def test_a_plugin_with_three_is_given_watcher_event_and_config(function: Any) -> None:
    assert takes_three(function, "x") is True


@pytest.mark.parametrize("function", [no_config, nothing, four, needs_a_name])
def test_any_other_form_is_refused_with_the_two_that_there_are(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"plugin_x has to have handle_event\(event\) or handle_event\(watcher, event, config"):
        takes_three(function, "x")


EVENT = {"type": "MODIFIED", "object": {"kind": "Route", "metadata": {"name": "web"}}}
OPTIONS = ChildOptions(
    plugin="x",
    config={"Some_Key": Secret("value"), "ipa_password": Secret("geheim-1")},
    k8s_endpoint="master:8443",
    k8s_namespace="shop",
    k8s_token=Secret("sha256~token"),
    k8s_ca="/ca.crt",
)


def test_the_later_form_finds_what_it_found() -> None:
    def handle_event(watcher: Any, event: Any, config: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
        assert event == EVENT
        assert (config["some_key"], config.get("missing"), dict(config)["some_key"]) == ("value", None, "value")
        found = [watcher.config.k8s_endpoint, watcher.config["k8s_namespace"], watcher.config.get("k8s_ca")]
        assert found == ["master:8443", "shop", "/ca.crt"]
        assert watcher.config.k8s_token == "sha256~token"
        assert "sha256" not in repr(watcher.config) + str(vars(watcher.config))
        with pytest.raises(KeyError):
            watcher.config["other"]
        watcher.logger.info("seen")
        return "ok", "DEBUG"

    assert Plugin(handle_event, OPTIONS).call({"event": EVENT, "old": None}) == {"message": "ok", "level": "DEBUG"}


def test_a_plugin_that_asks_for_old_is_given_it() -> None:
    def handle_event(event: Any, old: Any = None) -> Any:
        return old["spec"], "INFO"

    assert Plugin(handle_event, OPTIONS).call({"event": EVENT, "old": {"spec": "before"}})["message"] == "before"


@pytest.mark.parametrize(
    ("gave", "expected"),
    [
        (("m", "INFO"), ("m", "INFO")),
        (["m", "warn"], ("m", "WARNING")),
        (("m", logging.ERROR), ("m", "ERROR")),
        (("m", "fatal"), ("m", "CRITICAL")),
        (("m", "loud"), ("m", "INFO")),
        (("m", None), ("m", "INFO")),
        ((None, "INFO"), ("", "INFO")),
        (None, ("", "INFO")),
        ("m", ("m", "INFO")),
        ({"a": 1}, ("{'a': 1}", "INFO")),
    ],
)
def test_whatever_it_gives_back_its_work_is_done(gave: Any, expected: tuple[str, str]) -> None:
    assert said(gave) == expected


def test_no_message_and_no_record_holds_a_secret() -> None:
    def handle_event(watcher: Any, event: Any, config: Any) -> tuple[str, str]:
        return f"{watcher.config.k8s_token} {config['ipa_password']} {config['some_key']}", "INFO"

    plugin = Plugin(handle_event, OPTIONS)
    assert plugin.call({"event": EVENT, "old": None})["message"] == "*** *** value"
    record = logging.LogRecord("x", logging.DEBUG, "", 0, "header %s", ("Bearer sha256~token",), None)
    assert plugin.mask_record(record) is True
    assert record.getMessage() == "header Bearer ***"


class Stubborn(Exception):
    """Whose text is not made of its arguments."""

    def __str__(self) -> str:
        return "refused sha256~token"


@pytest.mark.parametrize(
    ("why", "type_"),
    [(ValueError("a sha256~token"), ValueError), (TryLater("b sha256~token"), TryLater), (Stubborn(), RuntimeError)],
)
def test_no_error_holds_a_secret(why: Exception, type_: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    def handle_event(event: Any) -> Any:
        raise why

    plugin = Plugin(handle_event, OPTIONS)
    with pytest.raises(type_, match=r"\*\*\*") as caught:
        plugin.call({"event": EVENT, "old": None})
    assert "sha256" not in str(caught.value)
    error = RuntimeError("sha256~token")
    record = logging.LogRecord("x", logging.WARNING, "", 0, "a call raised", None, (RuntimeError, error, None))
    plugin.mask_record(record)
    assert logging.Formatter().format(record) == "a call raised\nRuntimeError: ***"


def test_a_tokens_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    config = WatcherConfig(ChildOptions(plugin="x", k8s_token_file=str(file)))
    assert config.k8s_token == "one"
    file.write_text("two")
    assert (config.k8s_token, config["k8s_token"], config.token_seen) == ("two", "two", "two")
    file.unlink()
    with pytest.raises(TryLater, match="can't be read: No such file"):
        config.k8s_token  # noqa: B018


def test_a_section_is_configparsers() -> None:
    config = section("plugin_x", {"on": Secret("yes"), "n": Secret("5"), "p": Secret("100%")})
    assert (config.getboolean("on"), config.getint("n"), config["p"]) == (True, 5, "100%")


# --- finding ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_imports() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return str(folder)


@pytest.mark.usefixtures("clean_imports")
def test_an_operators_plugin_goes_before_a_shipped_one(tmp_path: Path) -> None:
    own = write(tmp_path, "plugin_simple", "def handle_event(event):\n    return 'mine', 'INFO'\n")
    assert find("simple", [own])({}) == ("mine", "INFO")


@pytest.mark.usefixtures("clean_imports")
@pytest.mark.parametrize("name", ["simple", "dns", "ipa"])
def test_the_shipped_ones_are_found_by_their_names(name: str) -> None:
    assert takes_three(find(name, []), name)


@pytest.mark.usefixtures("clean_imports")
def test_an_unknown_plugin_says_which_there_are(tmp_path: Path) -> None:
    own = write(tmp_path, "plugin_alerts", "")
    with pytest.raises(ConfigError, match="did you mean alerts\\? There are: alerts, dns, ipa, simple"):
        find("alert", [own])
    with pytest.raises(ConfigError, match="no such folder: /nonexistent"):
        find("simple", ["/nonexistent"])


@pytest.mark.usefixtures("clean_imports")
@pytest.mark.parametrize("text", ["", "handle_event = 1\n", "async def handle_event(event): ...\n"])
def test_a_module_that_is_no_plugin_is_refused(tmp_path: Path, text: str) -> None:
    own = write(tmp_path, "plugin_none", text)
    with pytest.raises(ConfigError, match=r"plugin_none is no plugin: it has to have a function handle_event\(event\)"):
        find("none", [own])
