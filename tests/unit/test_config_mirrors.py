"""`mirrors:` and `polling:`: what is wrong is said with its place and with what to do."""

from __future__ import annotations

import pytest

from vedette.cli.diagnose_mirror import check_mirror
from vedette.config import MirrorConfig, load_text, show
from vedette.errors import ConfigError
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.mirrors import concertim
from vedette.ports import MirrorNeeds
from vedette.testing.concertim import PASSWORD, Dialect, FakeConcertim

GOOD = """
auth: {mode: none}
data_dir: ""
sources:
  - {name: one, type: openstack, amqp: "amqp://localhost"}
meters:
  - {name: gnocchi, type: gnocchi}
mirrors:
  - {name: racks, type: concertim, url: "https://front.example.org", password: "${PASSWORD}", rack_height: 40}
polling: {meter: gnocchi, push: [racks]}
"""


def test_what_is_good_is_read_and_its_password_is_not_shown() -> None:
    config = load_text(GOOD, {"PASSWORD": "xyzzy-plugh"})
    (mirror,) = config.mirrors
    assert (mirror.name, mirror.compare, mirror.options.rack_height) == ("racks", 150.0, 40)
    assert config.polling is not None
    assert (config.polling.interval, config.polling.user, config.polling.role) == (15.0, "concertim", "watcher")
    assert "xyzzy-plugh" not in show(config)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "type: concertim",
            "type: concertin",
            "mirrors[0].type (line 9): there is no such type of mirror; did you mean 'conc",
        ),
        (
            "rack_height",
            "rack_hight",
            "mirrors[0].rack_hight (line 9): a mirror of type concertim has no such key; did you mean 'rack_h",
        ),
        ("name: racks", "name: Racks!", "mirrors[0].name (line 9)"),
        ("rack_height: 40", "compare: 0s", "mirrors[0].compare (line 9): must be at least a second"),
        ("rack_height: 40", "concurrency: 0", "mirrors[0].concurrency (line 9): must be at least 1"),
        ("meter: gnocchi,", "meter: gnochi,", "polling.meter (line 10): there is no such meter; did you mean 'gnocchi'?"),
        ("push: [racks]", "push: [rack]", "polling.push[0] (line 10): there is no such mirror; did you mean 'racks'?"),
        ("push: [racks]", "interval: 0s", "polling.interval (line 10): must be at least a second"),
        ("push: [racks]", "granularity: 1500ms", "polling.granularity (line 10): is whole seconds"),
        ("meters:", "handlers: [{name: racks, use: log}]\nmeters:", "another mirror, handler or rule has this name"),
    ],
)
def test_what_is_wrong_is_said(before: str, after: str, said: str) -> None:
    assert before in GOOD
    with pytest.raises(ConfigError) as caught:
        load_text(GOOD.replace(before, after), {"PASSWORD": "x"})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "front.example.org"}, "url: wants an address such as https://concertim.example.org"),
        ({"url": "https://me:secret@front.example.org"}, "url: wants an address"),
        ({"rack_height": 73}, "rack_height: wants 1 to 72 units"),
        ({"ca": "/no/such/file.pem"}, "the TLS file /no/such/file.pem of the front end can't be read"),
        ({"source": "blind"}, "source: source 'blind' has no API, and only Heat knows what is in a stack: set its `api`"),
    ],
)
def test_what_only_building_finds(options: dict[str, object], said: str) -> None:
    async def nothing(*_: object) -> None:
        raise AssertionError("nobody is asked yet")

    cloud = object()
    needs = MirrorNeeds(
        name="racks",
        clock=SystemClock(),
        telemetry=Telemetry(),
        inventory=object(),  # type: ignore[arg-type]
        source=lambda name: name or "one",
        cloud=lambda name: None if name == "blind" else cloud,  # type: ignore[arg-type,return-value]
        absent=nothing,  # type: ignore[arg-type]
        keep=nothing,
        keep_only=nothing,
        recall=nothing,  # type: ignore[arg-type]
        remember=nothing,
    )
    given = {"url": "https://front.example.org", "password": concertim.Secret("x"), **options}
    with pytest.raises(ConfigError) as caught:
        concertim.build(concertim.Options(**given), needs)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("dialect", ["v1", "v2"])
async def test_doctor_looks_at_a_front_end(dialect: Dialect) -> None:
    async with FakeConcertim(dialect) as front:

        async def found(**options: object) -> list[tuple[str, str]]:
            given = {"url": front.url, "password": concertim.Secret(PASSWORD), **options}
            mirror = MirrorConfig(name="racks", type="concertim", options=concertim.Options(**given))  # type: ignore[arg-type]
            return [(one.level, one.message) async for one in check_mirror(mirror)]

        if dialect == "v1":
            assert await found() == [
                ("ok", f"{front.url}: a front end of v1, 0 of 1 users with a project, 0 templates"),
                ("warn", "none of its users has a project: there will be no racks"),
            ]
            front.add_user("ada", project_id="p")
            assert [level for level, _ in await found()] == ["ok"]
        else:
            front.add_team("a", "p")
            front.templates.clear()
            assert await found() == [
                ("ok", f"{front.url}: a front end of v2, 1 of 1 teams with a project, 0 templates"),
                ("warn", "it has no template with the tag 'volume': volumes can't be shown"),
                ("warn", "it has no template with the tag 'network': networks can't be shown"),
            ]
        ((level, said),) = await found(password=concertim.Secret("wrong"))
        assert (level, "refuses the login of 'admin'" in said, "wrong" in said) == ("fail", True, False)
        await front.stop()
        ((level, said),) = await found()
        assert (level, "no connection to 127.0.0.1" in said) == ("fail", True)
