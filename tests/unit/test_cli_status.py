"""What `vedette status` makes of a server's answer: one screen, on which only what is not well takes room."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vedette.cli.diagnose_service import judged as findings
from vedette.cli.show import ago, coming, size, span
from vedette.cli.status import lines
from vedette.clients.vedette import (
    CloudNow,
    KindReport,
    MirrorNow,
    PollingNow,
    ResyncNow,
    SourceNow,
    StatusNow,
    StoreNow,
    VerifyNow,
    WatchNow,
)
from vedette.config import Config, load_text
from vedette.kit.clock import rfc3339_us

NOW = 1_795_187_946.0
SOURCE = SourceNow(name="one", type="openstack", ready=True, detail="consuming")


def at(seconds_ago: float) -> str:
    return rfc3339_us(int((NOW - seconds_ago) * 1_000_000))


def kind(name: str, state: str = "done", **more: Any) -> KindReport:
    return KindReport(kind=name, state=state, **{"complete_at": at(60), "ended_at": at(60), "sees_all": True, **more})


def status(*kinds: KindReport, state: str = "idle", verify: VerifyNow | None = None, **more: Any) -> StatusNow:
    resync = ResyncNow(state=state, detail="", next_in_seconds=more.pop("next_in", 480.0), kinds=kinds)
    cloud = CloudNow(source="one", api=True, resync=resync, verify=verify or VerifyNow())
    return StatusNow(**{"sources": (SOURCE,), "clouds": (cloud,), **more})


def shown(now: StatusNow) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines(now, NOW)]


def test_a_service_that_is_well_is_five_lines() -> None:
    now = status(
        kind("port"),
        kind("server", complete_at=at(400)),
        verify=VerifyNow(followed=("port",), waiting={"port": 1200}),
        store=StoreNow(entries=12345, objects=67, bytes=3 << 20, head_revision="2000"),
        watch=WatchNow(position="2000", watchers=3),
    )
    assert shown(now) == [
        "source    one: ready: consuming",
        "          API: 2 kinds compared as a whole, the oldest 7 min ago; next in 8 min",
        "               looked after while followed: port; 1,200 objects yet to settle",
        "log       12,345 entries, 67 objects, 3.0 MiB",
        "watchers  3",
    ]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (kind("port", "held", held=30, detail="30 of 100 …"), "port: deletions wait for you: 30 of 100 …"),
        (kind("stack", "incomplete", complete_at=at(7200), detail="503"), "stack: incomplete, last whole 2 h ago: 503"),
        (kind("user", "refused", complete_at=None, detail="403"), "user: refused, never whole: 403"),
        (kind("port", detail="3 objects stay"), "port: 3 objects stay"),
        (kind("port", "never", complete_at=None, ended_at=None), "port: never compared"),
        (kind("port", "new-word"), "port: new-word, last whole 60 s ago: "),
    ],
)
def test_a_kind_that_is_not_well_is_named(report: KindReport, said: str) -> None:
    assert any(line.strip() == said.strip() for line in shown(status(report, kind("server"))))


@pytest.mark.parametrize("report", [kind("port"), kind("port", "absent", detail="no such service"), kind("port", "listing")])
def test_a_kind_that_is_well_is_not(report: KindReport) -> None:
    assert "port" not in "\n".join(shown(status(report, kind("server"))))


def test_how_old_the_truth_is() -> None:
    def said(*kinds: KindReport, **more: Any) -> str:
        return next(line for line in shown(status(*kinds, **more)) if "API: " in line).partition("API: ")[2]

    assert said(kind("port"), state="running") == "1 kind compared as a whole, the oldest 60 s ago; comparing now"
    assert said(kind("port"), next_in=None).endswith("next on demand only")
    assert said(kind("port", "never", complete_at=None), state="waiting").startswith("the first comparison has yet to come")
    assert said(kind("port", "incomplete", complete_at=None)).startswith("no kind was ever compared as a whole")


def test_sources_that_are_not_well() -> None:
    bad = SourceNow(name="one", detail="no connection", gaps=2, last_progress=at(90_000))
    alone = CloudNow(source="one", api=False, detail="no API is set: notifications are all there is")
    now = StatusNow(sources=(bad,), clouds=(alone,), store=StoreNow(head_revision="90000"), watch=WatchNow(position="1000"))
    assert shown(now)[:3] == [
        "source    one: NOT READY: no connection, last sign of life 25 h ago",
        "          2 times since the start news may have been missed (vedette events --type vedette.gap --since 24h)",
        "          API: no API is set: notifications are all there is",
    ]
    assert shown(now)[-1] == "watchers  0; 89,000 entries are still to be told"


def test_what_keeps_verify_from_looking() -> None:
    now = status(kind("port"), verify=VerifyNow(detail="network can't be asked"))
    assert shown(now)[2].strip() == "nothing is followed; network can't be asked"


def test_names_of_a_server_move_no_cursor() -> None:
    now = status(kind("port", "held", detail="\x1b[2J"), sources=(SourceNow(name="one", detail="\x1b]0;x\x07"),))
    assert "\\x1b[2J" in "".join(shown(now))
    assert "\x1b" not in "".join(shown(now))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 days")],
)
def test_spans_are_in_the_largest_unit_that_tells(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_times() -> None:
    assert ago(at(300), NOW) == "5 min ago"
    assert ago(at(-3), NOW) == "just now"
    assert ago(None, NOW) == ago("soon", NOW) == "never"
    assert coming(0.1) == "in 1 s"
    assert [size(number) for number in (0, 1023, 1536, 3 << 40)] == ["0 B", "1023 B", "1.5 KiB", "3.0 TiB"]


# --- what the doctor makes of it -------------------------------------------------------------------------------------------


def configured(resync: str = "10m") -> Config:
    api = f"{{auth_url: 'http://k/v3', username: u, password: p, project_name: x, resync: {resync}}}"
    return load_text(f"sources: [{{name: one, type: openstack, amqp: 'amqp://rabbit', api: {api}}}]", {})


def about_the_api(now: StatusNow, config: Config | None = None) -> list[tuple[str, str, str]]:
    found = findings(now, config, NOW)
    return [(one.level, one.message, one.fix) for one in found if one.about == "API of one"]


def test_the_doctor_is_content_with_what_is_compared() -> None:
    assert about_the_api(status(kind("port"), kind("stack", "absent", detail="none")), configured()) == [
        ("ok", "2 kinds compared as a whole, the oldest 60 s ago", "")
    ]


def test_the_doctor_names_deletions_that_wait_and_how_to_look_first() -> None:
    (held,) = about_the_api(status(kind("port", "held", held=30, detail="30 of 100 objects are not in the listing")))
    assert held[:2] == ("warn", "port: 30 of 100 objects are not in the listing")
    assert "vedette get port --source one" in held[2]


def test_the_doctor_says_one_reason_once() -> None:
    kinds = [kind(name, "incomplete", detail="network: 503", complete_at=at(7200)) for name in ("port", "router")]
    (odd,) = about_the_api(status(*kinds, kind("user", complete_at=at(10))), configured("0s"))
    assert odd == (
        "warn",
        "the last comparison is incomplete (last whole 2 h ago): port, router: network: 503",
        "it tries again by itself; now: vedette resync port router --source one",
    )


def test_what_concerns_every_kind_is_said_once() -> None:
    names = ("port", "router", "server", "user", "image")
    kinds = [kind(name, "refused", complete_at=None, detail="Keystone refused our credentials") for name in names]
    now = status(*kinds)
    assert "               all 5 kinds: refused, never whole: Keystone refused our credentials" in shown(now)
    (refused,) = about_the_api(now)
    assert refused[:2] == (
        "warn",
        "the service's account may not list all 5 kinds (such as port: Keystone refused our credentials)",
    )
    kinds = [kind(name, "incomplete", detail="no answer") for name in names]
    assert about_the_api(status(*kinds))[0][2] == "it tries again by itself; now: vedette resync --source one"


def test_the_doctor_speaks_of_an_account_that_sees_too_little() -> None:
    refused = [kind(name, "refused", complete_at=None, detail=f"403 to /{name}s") for name in ("user", "hypervisor")]
    now = status(*refused, kind("port", sees_all=False), kind("router", sees_all=False))
    said, partly = about_the_api(now)
    assert said[1] == "the service's account may not list user, hypervisor (such as user: 403 to /users)"
    assert partly[1].startswith("port, router: the service's account does not see every project's objects")
    assert "               2 kinds: nothing is taken for deleted, since the account" in "\n".join(shown(now))


def test_the_doctor_sees_what_the_timer_does_not_explain() -> None:
    # Pauses grow to four times `resync`; keypairs are part of every sixth pass.
    now = status(kind("port", complete_at=at(4 * 600)), kind("keypair", complete_at=at(20 * 600)))
    assert about_the_api(now, configured())[0][0] == "ok"
    now = status(kind("port", complete_at=at(6 * 600)), kind("keypair", complete_at=at(31 * 600)))
    (old,) = about_the_api(now, configured())
    assert old[:2] == ("warn", "not compared for long: port (60 min ago), keypair (5 h ago)")
    assert about_the_api(now, configured("0s"))[0][0] == "ok", "on demand only"
    assert about_the_api(now)[0][0] == "ok", "nobody knows what is long"


def test_the_doctor_sees_an_api_that_came_after_the_start() -> None:
    now = StatusNow(sources=(SOURCE,), clouds=(CloudNow(source="one", api=False),))
    assert about_the_api(now, configured()) == [("warn", "the running service doesn't know of `api:` yet", "restart it")]
    assert about_the_api(now) == []


def test_the_doctor_tells_what_keeps_verify_from_looking_and_what_has_yet_to_come() -> None:
    found = about_the_api(status(kind("port"), verify=VerifyNow(detail="refused")), configured())
    assert ("warn", "what changes without a word can't be looked after: refused") in [one[:2] for one in found]
    now = status(kind("port", "never", complete_at=None), state="waiting")
    assert about_the_api(now, configured())[0][:2] == ("note", "nothing was compared yet: ")


def test_mirrors_and_measurements_have_a_line_each() -> None:
    now = status(
        kind("port"),
        mirrors=(
            MirrorNow("racks", compared_at=at(5), objects=12),
            MirrorNow("other", trouble="the front end is away", failed=2, kept=1),
        ),
        polling=PollingNow(at(9), 30, 140, 10),
    )
    assert shown(now)[3:6] == [
        "mirror    racks: 12 objects, compared 5 s ago",
        "mirror    other: 0 objects, not compared yet; the front end is away; 2 refused there (the log names them); "
        "1 left, since nobody confirms that the cloud has them no more",
        "measured  9 s ago: 30 servers, 140 values, 10 without data",
    ]
    (line,) = [one for one in shown(status(kind("port"), polling=PollingNow(trouble="no Gnocchi"))) if one.startswith("measured")]
    assert line == "measured  not yet: 0 servers, 0 values; no Gnocchi"
