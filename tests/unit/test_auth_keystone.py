"""Verdicts: how long they live, who shares them, what ends them, what happens while Keystone is down. Time is a fake clock's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.api.auth import KeystoneAuthenticator, drop_verdicts, scope_of
from vedette.clients.keystone import Keystone, Verified, credentials
from vedette.errors import IdentityUnavailable, Unauthenticated, VedetteError
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import Notice
from vedette.ports import Authenticator, Identity
from vedette.testing.clock import FakeClock
from vedette.testing.keystone import FakeKeystone

VALIDATE = "GET /v3/auth/tokens"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def fake(clock: FakeClock) -> AsyncIterator[FakeKeystone]:
    async with FakeKeystone(clock) as keystone:
        service = keystone.add_project("service")
        keystone.grant(keystone.add_user("vedette", "pw"), "service", project=service)
        for name, project in (("ann", "one"), ("bob", "two")):
            keystone.grant(keystone.add_user(name), "member", project=keystone.add_project(project))
        yield keystone


@pytest.fixture
async def client(fake: FakeKeystone, clock: FakeClock) -> AsyncIterator[Keystone]:
    settings = {"auth_url": fake.url, "username": "vedette", "password": "pw", "project_name": "service"}
    keystone = Keystone(credentials(settings, environ={}, folders=()), clock)
    yield keystone
    await keystone.close()


@pytest.fixture
def authenticator(client: Keystone, clock: FakeClock) -> KeystoneAuthenticator:
    return KeystoneAuthenticator(client, clock)


def id_of(fake: FakeKeystone, name: str) -> str:
    return next(one.id for one in (*fake.users.values(), *fake.projects.values()) if one.name == name)


def token_of(fake: FakeKeystone, user: str = "ann", **more: Any) -> str:
    return fake.issue(id_of(fake, user), project=id_of(fake, {"ann": "one", "bob": "two"}[user]), **more)


# --- who it is


async def test_a_token_becomes_an_identity(authenticator: KeystoneAuthenticator, fake: FakeKeystone) -> None:
    token = token_of(fake)
    identity = await authenticator.identify(token)
    assert (identity.name, identity.user, identity.project) == ("ann", id_of(fake, "ann"), id_of(fake, "one"))
    assert identity.scope.projects == {id_of(fake, "one")}
    assert (identity.scope.admin, identity.scope.user, identity.roles) == (False, id_of(fake, "ann"), {"member"})
    assert identity.expires_at == fake.tokens[token].expires_at
    assert identity.key
    assert identity.key not in token
    assert token not in identity.key
    assert (await authenticator.identify(token)).key == identity.key
    assert (await authenticator.identify(token_of(fake))).key != identity.key


async def test_an_authenticator_is_the_port(authenticator: KeystoneAuthenticator) -> None:
    port: Authenticator = authenticator
    with pytest.raises(Unauthenticated, match="X-Auth-Token"):
        await port.identify("")


def verified(**more: Any) -> Verified:
    return Verified(**{"user_id": "u", "user_name": "ann", "expires_at": 1, "seconds_left": 100.0, **more})


@pytest.mark.parametrize(
    ("token", "admin"),
    [
        ({"project_id": "p", "roles": ("admin",)}, True),
        ({"project_id": "p", "roles": ("member", "Admin")}, True),
        ({"project_id": "p", "roles": ("cloud_admin",)}, True),
        ({"project_id": "p", "roles": ("member", "reader")}, False),
        ({"project_id": "p", "roles": ("administrator", "not-admin", "")}, False),
        ({"project_id": "p", "roles": ()}, False),
        ({"project_id": "p", "roles": ("admin",), "admin_project": True}, True),
        ({"project_id": "p", "roles": ("admin",), "admin_project": False}, False),
        ({"system": True, "roles": ("admin",)}, True),
        ({"system": True, "roles": ("reader",)}, True),
        ({"system": True, "roles": ("Reader",)}, True),
        ({"system": True, "roles": ("member",)}, False),
        ({"domain_id": "d", "roles": ("admin", "reader")}, False),
        ({"roles": ("admin",)}, False),
        ({}, False),
    ],
)
def test_who_is_admin(token: dict[str, Any], admin: bool) -> None:
    scope = scope_of(verified(**token), frozenset(("admin", "cloud_admin")))
    assert scope.admin is admin
    # Whose last role was just taken away has a token that Keystone still calls valid, with no roles in it.
    assert scope.projects == ({"p"} if "project_id" in token and token["roles"] else set())
    assert scope.user == "u"


@given(
    roles=st.lists(st.text(max_size=8)),
    project=st.sampled_from(["", "p"]),
    domain=st.sampled_from(["", "d"]),
    system=st.booleans(),
    admin_project=st.sampled_from([None, True, False]),
)
def test_without_an_admin_role_or_system_reader_nobody_is_admin(
    roles: list[str], project: str, domain: str, system: bool, admin_project: bool | None
) -> None:
    others = tuple(role for role in roles if role.lower() not in ("admin", "reader"))
    token = verified(roles=others, project_id=project, domain_id=domain, system=system, admin_project=admin_project)
    scope = scope_of(token, frozenset(("admin",)))
    assert not scope.admin
    assert scope.projects <= {"p"}


async def test_an_unscoped_and_a_domain_token_see_their_own_things_only(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone
) -> None:
    ann = id_of(fake, "ann")
    fake.grant(ann, "admin", domain="default")
    for token in (fake.issue(ann), fake.issue(ann, domain="default")):
        scope = (await authenticator.identify(token)).scope
        assert (scope.admin, scope.projects, scope.user) == (False, frozenset(), ann)


# --- how long a verdict lives


async def test_a_verdict_lives_a_minute(authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock) -> None:
    token = token_of(fake)
    for _ in range(6):
        await authenticator.identify(token)
        await clock.advance(9.9)
    assert fake.validations == 1
    await clock.advance(0.7)
    await authenticator.identify(token)
    assert fake.validations == 2


async def test_a_verdict_never_outlives_its_token(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    token = token_of(fake, seconds=20)
    await authenticator.identify(token)
    await clock.advance(18)
    await authenticator.identify(token)
    assert fake.validations == 1
    await clock.advance(2)
    with pytest.raises(Unauthenticated):
        await authenticator.identify(token)


async def test_a_step_of_the_wall_clock_neither_ends_nor_prolongs_a_verdict(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    token = token_of(fake, seconds=7200)
    await authenticator.identify(token)
    clock.step(3600)
    await authenticator.identify(token)
    assert fake.validations == 1
    clock.step(-7200)
    await clock.advance(61)
    await authenticator.identify(token)
    assert fake.validations == 2


async def test_a_revoked_token_and_lost_roles_are_seen_within_a_minute(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    revoked, demoted = token_of(fake), token_of(fake, "bob")
    two = id_of(fake, "two")
    fake.grant(id_of(fake, "bob"), "admin", project=two)
    await authenticator.identify(revoked)
    assert (await authenticator.identify(demoted)).scope.admin
    fake.revoke(revoked)
    fake.ungrant(id_of(fake, "bob"), "admin", project=two)
    await clock.advance(60)
    with pytest.raises(Unauthenticated):
        await authenticator.identify(revoked)
    assert not (await authenticator.identify(demoted)).scope.admin


async def test_a_refusal_is_remembered_for_ten_seconds(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    for _ in range(5):
        with pytest.raises(Unauthenticated, match="not valid"):
            await authenticator.identify("gAAAAABno-such-token")
    assert fake.validations == 1
    await clock.advance(10)
    with pytest.raises(Unauthenticated):
        await authenticator.identify("gAAAAABno-such-token")
    assert fake.validations == 2


async def test_open_streams_look_with_fresher_eyes(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    """Looked at every minute, a stream whose token another request had judged just before is judged at most 90 s late."""
    token = token_of(fake)
    await authenticator.identify(token)
    await clock.advance(29)
    await authenticator.recheck(token)
    assert fake.validations == 1
    await clock.advance(2)
    await authenticator.recheck(token)
    await authenticator.recheck(token)
    assert fake.validations == 2


# --- many at once


async def test_however_many_bring_one_token_keystone_is_asked_once(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone
) -> None:
    good, bad = token_of(fake), "gAAAAABno-such-token"
    fake.held = asyncio.Event()
    asking = [asyncio.create_task(authenticator.identify(token)) for token in (good, bad) * 50]
    await fake.asked("POST /v3/auth/tokens")
    fake.held.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(one, Identity) and one.name == "ann" for one in answers) == 50
    assert sum(isinstance(one, Unauthenticated) for one in answers) == 50
    # Each has an error of its own: a traceback that many share grows without end.
    assert len({id(one) for one in answers if isinstance(one, Exception)}) == 50
    assert (fake.logins, fake.validations) == (1, 2)


async def test_the_first_to_ask_may_go_away(authenticator: KeystoneAuthenticator, fake: FakeKeystone) -> None:
    token = token_of(fake)
    fake.held = asyncio.Event()
    first = asyncio.create_task(authenticator.identify(token))
    await fake.asked("POST /v3/auth/tokens")
    second = asyncio.create_task(authenticator.identify(token))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fake.held.set()
    assert (await second).name == "ann"
    assert fake.validations == 1


async def test_when_everybody_went_away_the_answer_is_kept_and_an_error_is_nobodys(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone
) -> None:
    await authenticator.identify(token_of(fake, "bob"))
    token = token_of(fake)
    for times, subject in enumerate((token, "gAAAAABno-such-token"), start=2):
        fake.held = asyncio.Event()
        lonely = asyncio.create_task(authenticator.identify(subject))
        await fake.asked(VALIDATE, times)
        lonely.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lonely
        fake.held.set()
    assert (await authenticator.identify(token)).name == "ann"
    with pytest.raises(Unauthenticated):
        await authenticator.identify("gAAAAABno-such-token")
    assert fake.validations == 3


async def test_what_is_remembered_is_bounded_and_the_least_used_goes(
    client: Keystone, fake: FakeKeystone, clock: FakeClock
) -> None:
    telemetry = Telemetry()
    authenticator = KeystoneAuthenticator(client, clock, most=3, telemetry=telemetry)
    tokens = [token_of(fake) for _ in range(4)]
    for token in (*tokens[:3], tokens[0], tokens[3]):
        await authenticator.identify(token)
    assert fake.validations == 4
    await authenticator.identify(tokens[0])
    assert fake.validations == 4
    await authenticator.identify(tokens[1])
    assert fake.validations == 5
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await authenticator.identify(f"gAAAAABguess-{number}")
    # Guesses push out guesses, never the verdicts of those who are known.
    await authenticator.identify(tokens[0])
    assert fake.validations == 25
    for number, asked in ((19, 25), (0, 26)):
        with pytest.raises(Unauthenticated):
            await authenticator.identify(f"gAAAAABguess-{number}")
        assert fake.validations == asked
    shown = telemetry.render().decode()
    assert "vedette_tokens_known 3.0" in shown
    assert 'vedette_token_lookups_total{outcome="refused"} 21.0' in shown


# --- Keystone is down


@pytest.fixture(params=["down", "500", "refuses us"])
def broken(request: pytest.FixtureRequest, fake: FakeKeystone) -> Callable[[], Any]:
    async def breaks() -> None:
        if request.param == "down":
            await fake.stop()
        elif request.param == "500":
            fake.fault = 500
        else:
            fake.users[id_of(fake, "vedette")].enabled = False

    return breaks


async def test_known_tokens_live_on_for_five_minutes_and_no_longer(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock, broken: Callable[[], Any]
) -> None:
    token = token_of(fake)
    await authenticator.identify(token)
    await broken()
    for _ in range(35):
        assert (await authenticator.identify(token)).name == "ann"
        assert (await authenticator.recheck(token)).name == "ann"
        await clock.advance(10)
    await clock.advance(9)
    assert (await authenticator.identify(token)).name == "ann"
    assert authenticator.trouble
    await clock.advance(1)
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(token)


async def test_new_tokens_are_told_to_come_back_and_are_not_held_against_them(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    await authenticator.identify(token_of(fake))
    token = token_of(fake)
    await fake.stop()
    with pytest.raises(IdentityUnavailable) as raised:
        await authenticator.identify(token)
    assert raised.value.delay > 0
    assert authenticator.trouble
    await fake.start()
    with pytest.raises(Unauthenticated):
        await authenticator.identify("gAAAAABno-such-token")
    assert not authenticator.trouble
    assert (await authenticator.identify(token)).name == "ann"


async def test_a_token_that_ends_while_keystone_is_down_has_ended(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    token = token_of(fake, seconds=120)
    await authenticator.identify(token)
    await fake.stop()
    await clock.advance(110)
    await authenticator.identify(token)
    await clock.advance(10)
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(token)


async def test_a_refused_token_stays_refused_and_a_revoked_one_gets_no_grace(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    token = token_of(fake)
    await authenticator.identify(token)
    fake.revoke(token)
    await clock.advance(60)
    with pytest.raises(Unauthenticated):
        await authenticator.identify(token)
    await fake.stop()
    with pytest.raises(Unauthenticated):
        await authenticator.identify(token)
    await clock.advance(10)
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(token)


async def test_while_keystone_is_down_it_is_asked_now_and_then_not_by_every_request(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock
) -> None:
    tokens = [token_of(fake) for _ in range(10)]
    for token in tokens:
        await authenticator.identify(token)
    fake.fault = 503
    await clock.advance(60)
    asked = fake.validations
    for _ in range(10):
        for token in tokens:
            await authenticator.identify(token)
    assert fake.validations == asked + 1
    await clock.advance(5)
    fake.fault = 0
    for token in tokens:
        await authenticator.identify(token)
    assert fake.validations == asked + 11


async def test_trouble_is_logged_when_it_begins_and_when_it_ends(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vedette.api.auth")
    token = token_of(fake)
    await authenticator.identify(token)
    fake.fault = 500
    for _ in range(3):
        await clock.advance(60)
        await authenticator.identify(token)
    fake.fault = 0
    await clock.advance(60)
    await authenticator.identify(token)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "can't be asked" in said[0]
    assert "answers again" in said[1]


# --- forgetting


async def test_forget_drops_at_once_whom_it_names_and_tells_who_listens(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone
) -> None:
    called: list[str] = []
    authenticator.on_forget.append(lambda: called.append("heard"))
    ann, bob = token_of(fake), token_of(fake, "bob")
    for token in (ann, bob):
        await authenticator.identify(token)
    authenticator.forget(user=id_of(fake, "ann"))
    await authenticator.identify(bob)
    assert fake.validations == 2
    await authenticator.identify(ann)
    assert fake.validations == 3
    authenticator.forget(project=id_of(fake, "two"))
    await authenticator.identify(ann)
    assert fake.validations == 3
    await authenticator.identify(bob)
    assert fake.validations == 4
    authenticator.forget()
    for token in (ann, bob):
        await authenticator.identify(token)
    assert fake.validations == 6
    assert called == ["heard"] * 3


async def test_what_was_forgotten_has_no_grace(authenticator: KeystoneAuthenticator, fake: FakeKeystone) -> None:
    token = token_of(fake)
    await authenticator.identify(token)
    await fake.stop()
    authenticator.forget(user=id_of(fake, "ann"))
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(token)


class Slow:
    """Answers when a test says so, with what was true when it was asked."""

    def __init__(self) -> None:
        self.roles: tuple[str, ...] = ("admin",)
        self.asked = 0
        self.answer = asyncio.Event()
        self.arrived = asyncio.Event()

    async def validate(self, token: str) -> Verified:
        roles = self.roles
        self.asked += 1
        self.arrived.set()
        await self.answer.wait()
        return verified(user_id="ann", project_id="one", roles=roles)


@pytest.mark.parametrize("whom", [{"user": "ann"}, {"project": "one"}, {}])
async def test_news_that_come_while_keystone_answers_make_it_be_asked_again(clock: FakeClock, whom: dict[str, str]) -> None:
    """The answer may be from before the change: kept, it would let a demoted admin see everything for another minute."""
    slow = Slow()
    authenticator = KeystoneAuthenticator(slow, clock)
    asking = asyncio.create_task(authenticator.identify("token"))
    await slow.arrived.wait()
    slow.roles = ("member",)
    authenticator.forget(**whom)
    slow.answer.set()
    assert not (await asking).scope.admin
    assert not (await authenticator.identify("token")).scope.admin
    assert slow.asked == 2


async def test_news_of_others_let_an_answer_be(clock: FakeClock) -> None:
    slow = Slow()
    authenticator = KeystoneAuthenticator(slow, clock)
    asking = asyncio.create_task(authenticator.identify("token"))
    await slow.arrived.wait()
    for number in range(900):
        authenticator.forget(user=f"other {number}", project=f"elsewhere {number}")
    slow.answer.set()
    await asking
    assert slow.asked == 1


async def test_rights_that_change_without_end_are_denied_rather_than_guessed(clock: FakeClock) -> None:
    class Changing(Slow):
        async def validate(self, token: str) -> Verified:
            self.asked += 1
            authenticator.forget(user="ann")
            return verified(user_id="ann", project_id="one", roles=self.roles)

    changing = Changing()
    authenticator = KeystoneAuthenticator(changing, clock)
    with pytest.raises(IdentityUnavailable, match="change faster"):
        await authenticator.identify("token")
    assert changing.asked == 3


# --- what Keystone announces


class Listening:
    """Remembers what it was told to forget."""

    def __init__(self) -> None:
        self.on_forget: list[Callable[[], None]] = []
        self.forgotten: list[tuple[str, str]] = []

    def forget(self, *, user: str = "", project: str = "") -> None:
        self.forgotten.append((user, project))

    async def identify(self, token: str) -> Identity:
        raise NotImplementedError

    async def recheck(self, token: str) -> Identity:
        raise NotImplementedError


CADF = {
    "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
    "outcome": "success",
    "initiator": {"user_id": "the admin who did it", "project_id": "and their project"},
    "target": {"id": "t"},
}


@pytest.mark.parametrize(
    ("event_type", "payload", "forgotten"),
    [
        ("identity.user.updated", {**CADF, "resource_info": "u1"}, [("u1", "")]),
        ("identity.user.disabled", {"resource_info": "u1"}, [("u1", "")]),
        ("identity.user.deleted", {"resource_info": "u1"}, [("u1", "")]),
        ("identity.project.updated", {**CADF, "resource_info": "p1"}, [("", "p1")]),
        ("identity.project.deleted", {"resource_info": "p1"}, [("", "p1")]),
        ("identity.role_assignment.created", {**CADF, "user": "u1", "project": "p1", "role": "r"}, [("u1", "")]),
        ("identity.role_assignment.deleted", {**CADF, "user": "u1", "project": "p1", "role": "r"}, [("u1", "")]),
        ("identity.role_assignment.deleted", {**CADF, "user": "u1", "domain": "d1", "inherited_to_projects": True}, [("u1", "")]),
        ("identity.role_assignment.deleted", {**CADF, "group": "g1", "project": "p1"}, [("", "p1")]),
        ("identity.role_assignment.deleted", {**CADF, "group": "g1", "project": "p1", "inherited_to_projects": True}, [("", "")]),
        ("identity.role_assignment.deleted", {**CADF, "group": "g1", "domain": "d1"}, [("", "")]),
        ("identity.group.deleted", {"resource_info": "g1"}, [("", "")]),
        ("identity.role.deleted", {"resource_info": "r1"}, [("", "")]),
        ("identity.domain.disabled", {"resource_info": "d1"}, [("", "")]),
        ("identity.OS-TRUST:trust.deleted", {"resource_info": "t1"}, [("", "")]),
        ("identity.application_credential.deleted", {"resource_info": "a1"}, [("", "")]),
        ("identity.something.new", b"[1]", [("", "")]),
        ("identity.user.updated", b"[1]", [("", "")]),
        ("identity.user.updated", {"resource_info": {"odd": 1}}, [("", "")]),
        ("identity.user.updated", b"[" * 100_000, [("", "")]),
        ("identity.authenticate", {**CADF, "resource_info": "u1"}, []),
        ("identity.user.created", {"resource_info": "u1"}, []),
        ("identity.project.created", {"resource_info": "p1"}, []),
        ("identity.endpoint.deleted", {"resource_info": "e1"}, []),
        ("port.update.end", {"resource_info": "u1"}, []),
    ],
)
def test_what_each_announcement_makes_us_forget(event_type: str, payload: Any, forgotten: list[tuple[str, str]]) -> None:
    raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    notice = Notice(id="n", source="s", event_type=event_type, sent_at=1, payload=msgspec.Raw(raw))
    authenticator = Listening()
    assert drop_verdicts(authenticator, notice) is bool(forgotten)
    assert authenticator.forgotten == forgotten


# --- secrets


async def test_no_token_is_in_memory_under_its_name_in_logs_or_in_errors(
    authenticator: KeystoneAuthenticator, fake: FakeKeystone, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    good, bad = token_of(fake), "gAAAAABsomebody-typed-this"
    said = [repr(await authenticator.identify(good))]
    fake.held = asyncio.Event()
    under_way = asyncio.create_task(authenticator.identify(bad))
    await fake.asked(VALIDATE, 2)
    said += [repr(task) for task in asyncio.all_tasks()]
    fake.held.set()
    with pytest.raises(Unauthenticated) as refused:
        await under_way
    said.append(f"{refused.value!r} {refused.value.__context__!r} {refused.value.__cause__!r}")
    fake.fault = 500
    with pytest.raises(VedetteError) as unwell:
        await authenticator.identify(token_of(fake, "bob"))
    said.append(f"{unwell.value!r} {unwell.value.__context__!r}")
    said += [repr(vars(authenticator)), repr(vars(authenticator)["_known"]), repr(vars(authenticator)["_refused"])]
    text = caplog.text + "".join(said) + "".join(str(vars(record)) for record in caplog.records)
    assert "can't be asked" in text
    for secret in (bad, *fake.tokens):
        assert secret not in text
