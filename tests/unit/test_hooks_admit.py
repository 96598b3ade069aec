"""Who may call a hook: its token, a signature over timestamp and body, a Keystone token with a role. Nobody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from multidict import CIMultiDict

from vedette.api.hooks import SHORTEST, SIGNATURE, TIMESTAMP, Hook, Signed, admit, signature
from vedette.errors import ConfigError, Forbidden, IdentityUnavailable, Unauthenticated
from vedette.kit.secret import Secret
from vedette.ports import EVERYTHING, Identity, Scope
from vedette.testing.clock import START_US, FakeClock
from vedette.webhooks.generic import Options, build

TOKEN, SECRET = Secret("a-token-of-its-own"), Secret("a-secret-of-its-own")
BODY = b'{"a":1}'
NOW = START_US // 1_000_000


class Known:
    """An authenticator that knows these tokens, and no other."""

    def __init__(self, **tokens: Identity) -> None:
        self.tokens = tokens
        self.asked: list[str] = []
        self.on_forget: list[Callable[[], None]] = []

    async def identify(self, token: str) -> Identity:
        self.asked.append(token)
        if token == "unwell":
            raise IdentityUnavailable("Keystone is away")
        if token not in self.tokens:
            raise Unauthenticated("this token is not valid")
        return self.tokens[token]

    async def recheck(self, token: str) -> Identity:
        return await self.identify(token)

    def forget(self, *, user: str = "", project: str = "") -> None:
        """Nothing is remembered."""


def someone(*roles: str, project: str = "p1", admin: bool = False) -> Identity:
    return Identity(name="x", scope=EVERYTHING if admin else Scope(), key="x", project=project, roles=frozenset(roles))


KEYSTONE = {
    "alarmist": someone("Service"),
    "member": someone("member"),
    "domain-admin": someone("admin", project=""),
    "system-admin": someone("admin", project="", admin=True),
}


def hook(**auth: Any) -> Hook:
    return Hook(name="one", format="generic", webhook=build(Options()), **auth)


async def judged(
    one: Hook, headers: Mapping[str, str] | None = None, token: str = "", known: Known | None = None
) -> Signed | None:
    return await admit(one, CIMultiDict(headers or {}), token, known or Known(), FakeClock())


def signed(body: bytes = BODY, at: int = NOW, secret: Secret = SECRET) -> dict[str, str]:
    return {TIMESTAMP: str(at), SIGNATURE.lower(): f"sha256={signature(secret, str(at), body).hex()}"}


def test_a_hook_that_anybody_could_call_can_not_be_made() -> None:
    with pytest.raises(ConfigError, match=r"hooks\.one: anybody could call it"):
        hook()
    for setting in ("token", "hmac_secret"):
        with pytest.raises(ConfigError, match=f"hooks.one.{setting}: must have at least {SHORTEST}"):
            hook(**{setting: Secret("short")})
    with pytest.raises(ConfigError, match=r"hooks.one.roles: keystone: true wants"):
        hook(keystone=True, roles=())
    assert "of-its-own" not in repr(hook(token=TOKEN, hmac_secret=SECRET))


async def test_its_own_token_is_enough_and_no_other_is() -> None:
    assert await judged(hook(token=TOKEN), token=TOKEN.reveal()) is None
    for wrong in ("", TOKEN.reveal()[:-1], TOKEN.reveal() + "x", "\udcff", "ü"):
        with pytest.raises(Unauthenticated):
            await judged(hook(token=TOKEN), token=wrong)


async def test_a_token_is_not_shown_to_keystone_where_the_hook_does_not_ask_it() -> None:
    known = Known(**KEYSTONE)
    with pytest.raises(Unauthenticated):
        await judged(hook(token=TOKEN), token="system-admin", known=known)
    assert await judged(hook(token=TOKEN, keystone=True), token=TOKEN.reveal(), known=known) is None
    assert known.asked == []


async def test_a_keystone_token_needs_one_of_the_roles_in_a_project_or_the_whole_system() -> None:
    one, known = hook(keystone=True), Known(**KEYSTONE)
    assert await judged(one, token="alarmist", known=known) is None
    assert await judged(one, token="system-admin", known=known) is None
    for refused in ("member", "domain-admin"):
        with pytest.raises(Forbidden, match="none of the roles"):
            await judged(one, token=refused, known=known)
    assert await judged(hook(keystone=True, roles=("MEMBER",)), token="member", known=known) is None
    with pytest.raises(Unauthenticated):
        await judged(one, token="nobody", known=known)
    with pytest.raises(IdentityUnavailable):
        await judged(one, token="unwell", known=known)


async def test_a_signature_is_good_for_its_body_and_timestamp_alone() -> None:
    found = await judged(hook(hmac_secret=SECRET), signed())
    assert found is not None
    assert found.fits(SECRET, BODY)
    assert found.at_us == NOW * 1_000_000
    assert not found.fits(SECRET, BODY + b" ")
    assert not found.fits(Secret("another-secret-than-that"), BODY)
    moved = await judged(hook(hmac_secret=SECRET), {**signed(), TIMESTAMP: str(NOW + 1)})
    assert moved is not None
    assert not moved.fits(SECRET, BODY)


@pytest.mark.parametrize("away", [-301, 301, 10**9])
async def test_a_signature_from_outside_the_window_is_refused(away: int) -> None:
    with pytest.raises(Unauthenticated, match="differs by more than 300 s from our clock"):
        await judged(hook(hmac_secret=SECRET), signed(at=NOW + away))


async def test_the_window_is_the_hooks_own() -> None:
    assert await judged(hook(hmac_secret=SECRET), signed(at=NOW - 300)) is not None
    assert await judged(hook(hmac_secret=SECRET, hmac_age=1000.0), signed(at=NOW + 1000)) is not None
    with pytest.raises(Unauthenticated):
        await judged(hook(hmac_secret=SECRET, hmac_age=10.0), signed(at=NOW - 11))


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1.5", "²", " 1", "1" * 13])
async def test_a_timestamp_has_to_be_seconds(timestamp: str) -> None:
    with pytest.raises(Unauthenticated, match=TIMESTAMP):
        await judged(hook(hmac_secret=SECRET), {**signed(), TIMESTAMP: timestamp})


@pytest.mark.parametrize("given", ["", "sha1=00", "sha256=", "sha256=" + "0" * 63, "sha256=" + "g" * 64, "0" * 64])
async def test_a_signature_has_to_be_one(given: str) -> None:
    with pytest.raises(Unauthenticated, match=SIGNATURE):
        await judged(hook(hmac_secret=SECRET), {TIMESTAMP: str(NOW), SIGNATURE: given})


async def test_without_any_of_them_a_caller_is_told_what_to_send() -> None:
    with pytest.raises(Unauthenticated, match=SIGNATURE):
        await judged(hook(hmac_secret=SECRET))
    with pytest.raises(Unauthenticated, match="X-Auth-Token"):
        await judged(hook(token=TOKEN), signed())
    with pytest.raises(Unauthenticated):
        await judged(hook(hmac_secret=SECRET), token=SECRET.reveal())
