"""The Keystone client against a Keystone over HTTP: what it asks, how seldom, what it makes of answers, what it never shows."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from vedette.clients.keystone import PARALLEL, Credentials, Keystone, credentials, issue_token
from vedette.errors import ConfigError, IdentityUnavailable, Unauthenticated
from vedette.testing.clock import FakeClock
from vedette.testing.keystone import FakeKeystone
from vedette.testing.tls import Authority

PASSWORD = "hunter2-very-secret"
VALIDATE = "GET /v3/auth/tokens"
LOGIN = "POST /v3/auth/tokens"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def fake(clock: FakeClock) -> AsyncIterator[FakeKeystone]:
    async with FakeKeystone(clock) as keystone:
        furnish(keystone)
        yield keystone


def furnish(keystone: FakeKeystone) -> None:
    """A service user that may validate, and ann with a project."""
    service = keystone.add_project("service")
    vedette = keystone.add_user("vedette", PASSWORD)
    keystone.grant(vedette, "service", project=service)
    one = keystone.add_project("one")
    ann = keystone.add_user("ann", "ann's password")
    keystone.grant(ann, "member", project=one)


def ours(fake: FakeKeystone, **more: Any) -> Credentials:
    settings = {"auth_url": fake.url, "username": "vedette", "password": PASSWORD, "project_name": "service", **more}
    return credentials(settings, environ={}, folders=())


@pytest.fixture
async def client(fake: FakeKeystone, clock: FakeClock) -> AsyncIterator[Keystone]:
    keystone = Keystone(ours(fake), clock)
    yield keystone
    await keystone.close()


def id_of(fake: FakeKeystone, name: str) -> str:
    return next(one.id for one in (*fake.users.values(), *fake.projects.values()) if one.name == name)


def anns(fake: FakeKeystone, **more: Any) -> str:
    return fake.issue(id_of(fake, "ann"), project=id_of(fake, "one"), **more)


# --- validating


async def test_a_valid_token_tells_who_where_and_how_long(client: Keystone, fake: FakeKeystone, clock: FakeClock) -> None:
    verified = await client.validate(anns(fake, seconds=100))
    assert (verified.user_id, verified.user_name) == (id_of(fake, "ann"), "ann")
    assert (verified.project_id, verified.project_name, verified.domain_id) == (id_of(fake, "one"), "one", "")
    assert (verified.roles, verified.system, verified.admin_project) == (("member",), False, None)
    assert verified.expires_at == clock.now_us() + 100_000_000
    # Date has whole seconds: the moment could have been a second later, so this is the safe side.
    assert verified.seconds_left == 99


async def test_system_domain_unscoped_and_admin_project_tokens(client: Keystone, fake: FakeKeystone) -> None:
    ann = id_of(fake, "ann")
    fake.grant(ann, "reader", system=True)
    fake.grant(ann, "admin", domain="default")
    fake.admin_project = id_of(fake, "service")
    system = await client.validate(fake.issue(ann, system=True))
    assert (system.system, system.roles, system.project_id) == (True, ("reader",), "")
    domain = await client.validate(fake.issue(ann, domain="default"))
    assert (domain.system, domain.domain_id, domain.roles) == (False, "default", ("admin",))
    unscoped = await client.validate(fake.issue(ann))
    assert (unscoped.system, unscoped.domain_id, unscoped.project_id, unscoped.roles) == (False, "", "", ())
    assert (await client.validate(anns(fake))).admin_project is False


async def test_a_wrong_clock_here_makes_no_token_live_longer(client: Keystone, fake: FakeKeystone) -> None:
    ahead = FakeClock()
    ahead.step(-86_400)
    behind = Keystone(ours(fake), ahead)
    assert (await behind.validate(anns(fake, seconds=100))).seconds_left == 99
    await behind.close()


async def test_tokens_that_ended_were_revoked_or_never_were_are_not_valid(
    client: Keystone, fake: FakeKeystone, clock: FakeClock
) -> None:
    ended, revoked, without_role = anns(fake, seconds=10), anns(fake), anns(fake)
    clock.tick(11)
    fake.revoke(revoked)
    fake.ungrant(id_of(fake, "ann"), "member", project=id_of(fake, "one"))
    for token in (ended, revoked, without_role, "gAAAAABnever-issued"):
        with pytest.raises(Unauthenticated):
            await client.validate(token)


async def test_a_credential_for_other_services_only_is_not_valid_here(client: Keystone, fake: FakeKeystone) -> None:
    ann, one = id_of(fake, "ann"), id_of(fake, "one")
    free = fake.add_credential(ann, one)
    bound = fake.add_credential(ann, one, name="images only", access_rules=True)
    assert (await client.validate(fake.issue(ann, project=one, credential=free.id))).user_name == "ann"
    with pytest.raises(Unauthenticated):
        await client.validate(fake.issue(ann, project=one, credential=bound.id))


@pytest.mark.parametrize("text", ["", " ", "a b", "a\r\nX-Auth-Token: b", "ä", "\udcff", "\x00", "x" * 8001])
async def test_what_fits_into_no_header_is_never_sent(client: Keystone, fake: FakeKeystone, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await client.validate(text)
    assert not fake.requests


# --- a token of our own


async def test_one_login_serves_until_shortly_before_its_end(client: Keystone, fake: FakeKeystone, clock: FakeClock) -> None:
    token = anns(fake, seconds=90_000)
    for _ in range(3):
        await client.validate(token)
        await clock.advance(1000)
    assert (fake.logins, fake.validations) == (1, 3)
    await clock.advance(400)  # 200 s before its end
    await client.validate(token)
    assert fake.logins == 2
    # And it was never told that its token is unknown.
    assert fake.validations == 4


async def test_a_renewal_that_fails_is_no_harm_while_the_old_one_is_good(
    client: Keystone, fake: FakeKeystone, clock: FakeClock
) -> None:
    token = anns(fake, seconds=90_000)
    await client.validate(token)
    fake.users[id_of(fake, "vedette")].password = "changed"
    await clock.advance(3400)
    await client.validate(token)
    await client.validate(token)
    assert fake.logins == 2
    await clock.advance(200)
    with pytest.raises(IdentityUnavailable, match="refused the credentials of vedette"):
        await client.validate(token)


async def test_many_that_hear_our_token_is_unknown_log_in_once(client: Keystone, fake: FakeKeystone) -> None:
    tokens = [anns(fake) for _ in range(20)]
    await client.validate(tokens[0])
    fake.tokens[next(text for text, token in fake.tokens.items() if token.user == id_of(fake, "vedette"))].revoked = True
    everybody = await asyncio.gather(*(client.validate(token) for token in tokens))
    assert [one.user_name for one in everybody] == ["ann"] * 20
    assert fake.logins == 2


async def test_who_hears_it_late_does_not_throw_the_new_one_away(client: Keystone, fake: FakeKeystone) -> None:
    await client.validate(anns(fake))
    fake.tokens[next(text for text, token in fake.tokens.items() if token.user == id_of(fake, "vedette"))].revoked = True
    late = fake.held = asyncio.Event()
    waiting = asyncio.create_task(client.validate(anns(fake)))
    await fake.asked(VALIDATE, 2)
    fake.held = None
    await client.validate(anns(fake))
    late.set()
    assert (await waiting).user_name == "ann"
    assert fake.logins == 2


async def test_the_first_to_need_a_login_may_go_away(client: Keystone, fake: FakeKeystone) -> None:
    fake.held = asyncio.Event()
    first = asyncio.create_task(client.validate(anns(fake)))
    await fake.asked(LOGIN)
    second = asyncio.create_task(client.validate(anns(fake)))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fake.held.set()
    assert (await second).user_name == "ann"
    assert fake.logins == 1


async def test_refused_credentials_are_not_tried_again_for_a_minute(fake: FakeKeystone, clock: FakeClock) -> None:
    client = Keystone(ours(fake, password="wrong"), clock)
    for _ in range(5):
        with pytest.raises(IdentityUnavailable, match="refused the credentials of vedette"):
            await client.validate(anns(fake))
    assert fake.logins == 1
    await clock.advance(60)
    with pytest.raises(IdentityUnavailable):
        await client.validate(anns(fake))
    assert fake.logins == 2
    await client.close()


async def test_a_user_who_may_not_validate_is_told_which_role_is_missing(fake: FakeKeystone, clock: FakeClock) -> None:
    client = Keystone(ours(fake, username="ann", password="ann's password", project_name="one"), clock)
    with pytest.raises(IdentityUnavailable, match="role `service` or `admin`"):
        await client.validate(fake.issue(id_of(fake, "vedette"), project=id_of(fake, "service")))
    await client.close()


async def test_a_keystone_that_forgets_what_it_issues_is_not_hammered(
    client: Keystone, fake: FakeKeystone, clock: FakeClock
) -> None:
    fake.amnesia = True
    for _ in range(5):
        with pytest.raises(IdentityUnavailable, match="does not know"):
            await client.validate(anns(fake))
    assert (fake.logins, fake.validations) == (2, 2)
    fake.amnesia = False
    await clock.advance(5)
    assert (await client.validate(anns(fake))).user_name == "ann"


async def test_a_token_that_has_ended_when_it_is_issued_is_not_asked_for_over_and_over(
    client: Keystone, fake: FakeKeystone
) -> None:
    fake.seconds = 0
    for _ in range(5):
        with pytest.raises(IdentityUnavailable, match="have ended already"):
            await client.validate(anns(fake, seconds=100))
    assert (fake.logins, fake.validations) == (1, 0)


# --- when Keystone is not itself


@pytest.mark.parametrize("status", [301, 302, 429, 500, 502, 503, 504, 200, 204])
async def test_any_other_answer_means_try_later(client: Keystone, fake: FakeKeystone, status: int) -> None:
    token = anns(fake)
    await client.validate(token)
    fake.fault = status
    with pytest.raises(IdentityUnavailable):
        await client.validate(token)
    fake.fault = 0
    assert (await client.validate(token)).user_name == "ann"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b"{}",
        b'{"token": null}',
        b'{"token": {"user": {"id": "u"}, "expires_at": null}}',
        b'{"token": {"user": {"id": "u"}, "expires_at": "never at all"}}',
        b'{"token": {"user": {}, "expires_at": "2030-01-01T00:00:00.000000Z"}}',
        b"[" * 100_000,
        b'{"token": {"user": {"id": "u"}, "expires_at": "2030-01-01T00:00:00.000000Z", "roles": "admin"}}',
        b'{"token": {"user": {"id": "u"}, "expires_at": "2030-01-01T00:00:00.000000Z"}}' + b" " * 5_000_000,
    ],
    ids=range(10),
)
async def test_an_answer_that_is_not_understood_lets_nobody_in(client: Keystone, fake: FakeKeystone, body: bytes) -> None:
    token = anns(fake)
    await client.validate(token)
    fake.garbage = body
    with pytest.raises(IdentityUnavailable):
        await client.validate(token)


async def test_a_redirect_takes_no_token_along(client: Keystone, fake: FakeKeystone, clock: FakeClock) -> None:
    token = anns(fake)
    await client.validate(token)
    async with FakeKeystone(clock) as elsewhere:
        fake.fault, fake.location = 307, f"{elsewhere.url}/auth/tokens"
        with pytest.raises(IdentityUnavailable, match="answered 307"):
            await client.validate(token)
        assert not elsewhere.requests


async def test_down_and_up_again(client: Keystone, fake: FakeKeystone, clock: FakeClock) -> None:
    token = anns(fake)
    await client.validate(token)
    await fake.stop()
    with pytest.raises(IdentityUnavailable, match="can't be asked"):
        await client.validate(token)
    await fake.start()
    assert (await client.validate(token)).user_name == "ann"


async def test_down_from_the_start(fake: FakeKeystone, clock: FakeClock) -> None:
    token = anns(fake)
    await fake.stop()
    client = Keystone(ours(fake), clock)
    with pytest.raises(IdentityUnavailable, match="can't be asked"):
        await client.validate(token)
    await fake.start()
    with pytest.raises(IdentityUnavailable):  # for a second, nobody tries
        await client.validate(token)
    await clock.advance(1)
    assert (await client.validate(token)).user_name == "ann"
    await client.close()


async def test_no_answer_ends_in_time(fake: FakeKeystone, clock: FakeClock) -> None:
    client = Keystone(ours(fake), clock, timeout_s=0.05)
    fake.held = asyncio.Event()
    with pytest.raises(IdentityUnavailable, match=r"no answer in 0\.05 s"):
        await client.validate(anns(fake))
    fake.held.set()
    await client.close()


async def test_so_many_questions_at_a_time_and_the_others_wait(client: Keystone, fake: FakeKeystone) -> None:
    await client.validate(anns(fake))
    fake.held = asyncio.Event()
    asking = [asyncio.create_task(client.validate(anns(fake))) for _ in range(PARALLEL + 8)]
    await fake.asked(VALIDATE, 1 + PARALLEL)
    for _ in range(100):
        await asyncio.sleep(0)
    assert fake.validations == 1 + PARALLEL
    fake.held.set()
    assert len(await asyncio.gather(*asking)) == PARALLEL + 8


# --- TLS


async def test_certificates_are_verified(tmp_path: Path, clock: FakeClock) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    async with FakeKeystone(clock, tls=authority.server().server_context()) as fake:
        furnish(fake)
        trusting = Keystone(ours(fake, cacert=str(authority.ca)), clock)
        assert (await trusting.validate(anns(fake))).user_name == "ann"
        await trusting.close()
        for doubting in (ours(fake), ours(fake, cacert=str(stranger.ca))):
            client = Keystone(doubting, clock)
            with pytest.raises(IdentityUnavailable, match="certificate verify failed"):
                await client.validate(anns(fake))
            await client.close()


@pytest.mark.parametrize("how", [{"hosts": ["keystone.example"]}, {"days": -1}])
async def test_a_certificate_of_another_host_or_another_time_is_no_good(tmp_path: Path, clock: FakeClock, how: Any) -> None:
    authority = Authority(tmp_path)
    async with FakeKeystone(clock, tls=authority.server(**how).server_context()) as fake:
        furnish(fake)
        with pytest.raises(IdentityUnavailable, match="certificate verify failed"):
            await issue_token(ours(fake, cacert=str(authority.ca)), clock=clock)


async def test_certificate_files_that_cannot_be_read_are_named(fake: FakeKeystone, tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("no certificate")
    for path in (tmp_path / "missing.pem", tmp_path / "not.pem"):
        made = credentials(
            {"auth_url": "https://127.0.0.1:1/v3", "username": "a", "password": "b", "cacert": str(path)}, environ={}, folders=()
        )
        with pytest.raises(ConfigError, match=f"cacert: .*{path.name}"):
            Keystone(made)


async def test_plain_http_to_another_machine_is_warned_about(caplog: pytest.LogCaptureFixture, fake: FakeKeystone) -> None:
    Keystone(ours(fake))
    assert not caplog.records
    Keystone(ours(fake, auth_url="http://keystone.example:5000/v3"))
    assert "plain http" in caplog.text


# --- a token for the command line


async def test_issue_a_token_by_password_by_credential_and_by_token(fake: FakeKeystone, clock: FakeClock) -> None:
    ann, one = id_of(fake, "ann"), id_of(fake, "one")
    by_password = await issue_token(ours(fake, username="ann", password="ann's password", project_name="one"), clock=clock)
    assert (by_password.project_id, by_password.user_id, by_password.user_name) == (one, ann, "ann")
    assert by_password.expires_at == clock.now_us() + 3_600_000_000
    credential = fake.add_credential(ann, one, name="laptop")
    for more in ({"application_credential_id": credential.id}, {"application_credential_name": "laptop", "username": "ann"}):
        made = credentials({"auth_url": fake.url, "application_credential_secret": credential.secret, **more}, environ={})
        assert (await issue_token(made, clock=clock)).project_id == one
    again = credentials({"auth_url": fake.url, "token": by_password.token, "project_id": one}, environ={})
    by_token = await issue_token(again, clock=clock)
    assert by_token.project_id == one
    assert by_token.token != by_password.token


@pytest.mark.parametrize(
    "more",
    [
        {"password": "wrong"},
        {"username": "nobody"},
        {"project_name": "one"},
        {"project_name": "nowhere"},
        {"user_domain_name": "Elsewhere"},
        {"project_name": "", "system_scope": "all"},
    ],
)
async def test_wrong_credentials_are_refused_in_words(fake: FakeKeystone, clock: FakeClock, more: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated, match="refused the credentials of") as refused:
        await issue_token(ours(fake, **more), clock=clock)
    assert PASSWORD not in str(refused.value)


async def test_an_address_that_is_no_keystone(fake: FakeKeystone, clock: FakeClock) -> None:
    with pytest.raises(IdentityUnavailable, match="is it a Keystone's address"):
        await issue_token(ours(fake, auth_url=f"{fake.root}/somewhere"), clock=clock)


async def test_keystoneauth_gets_the_same_from_this_keystone(fake: FakeKeystone, clock: FakeClock) -> None:
    """The fake is held to what the OpenStack client asks, discovery included."""
    identity = pytest.importorskip("keystoneauth1.identity")
    session = pytest.importorskip("keystoneauth1.session")
    requests = pytest.importorskip("requests")

    def get() -> tuple[str, str, str, list[str]]:
        auth = identity.Password(
            auth_url=fake.root,
            username="ann",
            password="ann's password",
            project_name="one",
            user_domain_id="default",
            project_domain_id="default",
        )
        with requests.Session() as http:
            access = auth.get_access(session.Session(auth=auth, session=http, timeout=10))
            return access.auth_token, access.project_id, access.user_id, list(access.role_names)

    token, project, user, roles = await asyncio.to_thread(get)
    issued = await issue_token(ours(fake, username="ann", password="ann's password", project_name="one"), clock=clock)
    assert (project, user) == (issued.project_id, issued.user_id)
    client = Keystone(ours(fake), clock)
    verified = await client.validate(token)
    assert (verified.project_id, verified.user_id, list(verified.roles)) == (project, user, roles)
    await client.close()


# --- secrets


async def test_no_log_error_or_text_ever_holds_a_token_or_a_password(
    fake: FakeKeystone, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    client = Keystone(ours(fake), clock, timeout_s=0.5)
    token = anns(fake)
    await client.validate(token)
    said: list[str] = [repr(client), str(vars(client)), repr(await issue_token(ours(fake), clock=clock))]

    async def fails(subject: str = token) -> None:
        with pytest.raises((IdentityUnavailable, Unauthenticated)) as raised:
            await client.validate(subject)
        why = raised.value
        said.append("".join(traceback.format_exception(why)))
        chain: BaseException | None = why
        while chain is not None:
            said.append(f"{chain!r} {chain} {chain.args!r} {vars(chain)!r}")
            chain = chain.__cause__ or chain.__context__

    never = "gAAAAABnever-issued-but-somebody's"
    await fails(never)
    for status in (302, 401, 403, 500):
        fake.fault = status
        await fails()
        await clock.advance(120)
    fake.fault, fake.garbage = 0, b'{"token": "' + token.encode() + b'"}'
    await fails()
    fake.garbage = None
    fake.held = asyncio.Event()
    await fails()
    fake.held.set()
    fake.users[id_of(fake, "vedette")].password = "changed"
    fake.revoke_all()
    await fails()
    await fake.stop()
    await clock.advance(120)
    await fails()
    with socket.create_server(("127.0.0.1", 0)) as raw:  # speaks no HTTP at all
        rude = Keystone(ours(fake, auth_url=f"http://127.0.0.1:{raw.getsockname()[1]}"), clock, timeout_s=5)

        async def babble() -> None:
            loop = asyncio.get_running_loop()
            raw.setblocking(False)
            peer, _ = await loop.sock_accept(raw)
            with peer:
                peer.setblocking(False)
                await loop.sock_recv(peer, 65536)
                await loop.sock_sendall(peer, b"HTTP/9.9 what\r\n\r\n")

        babbling = asyncio.create_task(babble())
        with pytest.raises(IdentityUnavailable) as raised:
            await rude.validate(token)
        await babbling
        said.append("".join(traceback.format_exception(raised.value)))
        await rude.close()
    await client.close()
    text = caplog.text + "".join(said) + "".join(str(vars(record)) for record in caplog.records)
    assert "refused our own credentials" in text  # it was listening
    for secret in (PASSWORD, never, *fake.tokens):
        assert secret not in text
