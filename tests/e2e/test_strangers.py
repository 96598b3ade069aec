"""What somebody who may send a little could make of it: a hook's caller as Keystone, a web page as the operator's browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import A, asking, cloud, open_service

TOKEN = "a-token-of-its-own"
HOOK = {"name": "portal", "format": "generic", "type": "/type", "token": TOKEN}


@pytest.mark.parametrize("type_", ["identity.role.deleted", "identity.user.updated", "identity.project.deleted"])
async def test_a_hook_is_not_keystone_whatever_it_calls_its_events(tmp_path: Path, type_: str) -> None:
    """Each would have Keystone asked anew for every token that is in use: as often as a hook's caller likes."""
    async with cloud(tmp_path, hooks=[HOOK]) as place, asking(place) as ask:
        await ask.json("/apis/openstack.vedette.dev/v1/ports", headers=place.token("alice"))
        asked = place.keystone.validations
        body = json.dumps({"type": type_, "resource_info": place.users["alice"] if "user" in type_ else A})
        code, _, said = await ask.get(
            "/v1/hooks/generic/portal", method="POST", data=body, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert code == 204, said
        await ask.json("/apis/openstack.vedette.dev/v1/ports", headers=place.token("alice"))
        assert place.keystone.validations == asked


async def test_a_page_of_another_origin_changes_nothing_where_nobody_needs_a_token(tmp_path: Path) -> None:
    """A browser sends such a POST without asking first, to 127.0.0.1 too."""
    path, own = "/v1/deadletters/discard", "https://portal.example.org"
    async with open_service(tmp_path, cors=[own]) as place, asking(place) as ask:
        for origin in ("https://evil.example.org", "null", "http://127.0.0.1:1", "http://localhost"):
            plain = {"Origin": origin, "Content-Type": "text/plain"}
            said = await ask.status(path, 403, method="POST", data=b'{"all": true}', headers=plain)
            assert "another origin" in said["message"]
            assert (await ask.get("/v1/handlers", headers={"Origin": origin}))[0] == 200
        for origin in (own, place.url):
            assert (await ask.get(path, method="POST", data=b'{"all": true}', headers={"Origin": origin}))[0] == 200
        assert (await ask.get(path, method="POST", data=b'{"all": true}'))[0] == 200


async def test_a_limit_of_five_thousand_digits_is_a_bad_request(tmp_path: Path) -> None:
    async with open_service(tmp_path) as place, asking(place) as ask:
        for limit in ("9" * 5000, "000000001" + "9" * 5000):
            await ask.status(f"/v1/deadletters?limit={limit}", 400)
