"""Tokens from the configuration, no authentication at all, and where in a request a token may be."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from vedette.api.auth import NoneAuthenticator, StaticToken, TokensAuthenticator, token_from
from vedette.errors import ConfigError, Unauthenticated
from vedette.kit.secret import Secret
from vedette.ports import EVERYTHING, Authenticator, Scope

OPS = "ops-token-0123456789abcdef"
TEAM = "team-token-0123456789abcde"


def static(token: str, name: str = "x", projects: tuple[str, ...] = (), roles: tuple[str, ...] = ()) -> StaticToken:
    return StaticToken(token=Secret(token), name=name, projects=projects, roles=roles)


async def test_each_token_sees_what_is_written_beside_it() -> None:
    authenticator: Authenticator = TokensAuthenticator(
        [static(OPS, "ops", ("*",), ("admin",)), static(TEAM, "team", ("one", "two"), ("member",))]
    )
    ops = await authenticator.identify(OPS)
    assert (ops.name, ops.scope, ops.project, ops.expires_at) == ("ops", EVERYTHING, "", 0)
    team = await authenticator.recheck(TEAM)
    assert (team.name, team.scope, team.project) == ("team", Scope(projects=frozenset(("one", "two"))), "one")
    assert ops.key != team.key
    authenticator.forget()
    assert await authenticator.identify(OPS) == ops


@pytest.mark.parametrize("token", [OPS[:-1], OPS + " ", OPS.upper(), "", "*", "ü" * 20, "\udcff" * 20])
async def test_nothing_but_the_token_itself_is_let_in(token: str) -> None:
    authenticator = TokensAuthenticator([static(OPS, projects=("*",), roles=("admin",))])
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.identify(token)
    assert not token or token not in str(refused.value)


async def test_a_token_without_projects_sees_what_everybody_sees() -> None:
    identity = await TokensAuthenticator([static(OPS)]).identify(OPS)
    assert identity.scope == Scope()


async def test_admin_roles_are_the_configured_ones() -> None:
    boss = static(OPS, projects=("*",), roles=("Cloud_Admin",))
    assert (await TokensAuthenticator([boss], admin_roles=["cloud_admin"]).identify(OPS)).scope.admin
    with pytest.raises(ConfigError, match="admin"):
        TokensAuthenticator([boss])


@pytest.mark.parametrize(
    ("entries", "where"),
    [
        ([], r"auth\.tokens:"),
        ([static(OPS, projects=("*",))], r"auth\.tokens\[0\]\.projects"),
        ([static(OPS, projects=("*",), roles=("member",))], r"auth\.tokens\[0\]\.projects"),
        ([static(OPS, projects=("*", "one"), roles=("admin",))], r"auth\.tokens\[0\]\.projects"),
        ([static(OPS, projects=("one",), roles=("admin",))], r"auth\.tokens\[0\]\.projects"),
        ([static(OPS, projects=("one", ""))], r"auth\.tokens\[0\]\.projects"),
        ([static(OPS), static(OPS)], r"auth\.tokens\[1\]\.token"),
        ([static(OPS), static("short")], r"auth\.tokens\[1\]\.token"),
        ([static(OPS), static("")], r"auth\.tokens\[1\]\.token"),
    ],
)
def test_a_list_that_says_two_things_is_refused(entries: list[StaticToken], where: str) -> None:
    with pytest.raises(ConfigError, match=where) as refused:
        TokensAuthenticator(entries)
    assert OPS not in str(refused.value)


async def test_no_text_shows_a_token() -> None:
    entry = static(OPS, "ops", ("one",))
    authenticator = TokensAuthenticator([entry])
    identity = await authenticator.identify(OPS)
    assert OPS not in f"{entry!r} {entry.__rich_repr__()} {vars(authenticator)} {identity!r}"


async def test_without_authentication_everybody_is_admin() -> None:
    authenticator: Authenticator = NoneAuthenticator()
    for token in ("", "anything"):
        assert (await authenticator.identify(token)).scope.admin
        assert (await authenticator.recheck(token)).scope.admin
    authenticator.forget(user="u")


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({"X-Auth-Token": "abc"}, "abc"),
        ({"x-auth-token": " abc "}, "abc"),
        ({"X-Auth-Token": ""}, None),
        ({"Authorization": "Bearer abc"}, "abc"),
        ({"Authorization": "bearer  abc"}, "abc"),
        ({"Authorization": "BEARER abc"}, "abc"),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": "Bearer "}, None),
        ({"Authorization": "Basic YTpi"}, None),
        ({"Authorization": "abc"}, None),
        ({"X-Auth-Token": "first", "Authorization": "Bearer second"}, "first"),
        ({"X-Auth-Token": "  ", "Authorization": "Bearer second"}, "second"),
    ],
)
def test_where_a_token_may_be(headers: dict[str, str], token: str | None) -> None:
    assert token_from(make_mocked_request("GET", "/v1/events?token=never&X-Auth-Token=never", headers=headers)) == token
