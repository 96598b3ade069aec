"""Money: the front end's routes against a Kill Bill, and what a cluster builder asks in its order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fronting import Front, fronting

from vedette.clients.killbill import KillBill
from vedette.errors import BadRequest, ConfigError, NotFound, TargetUnavailable, TryLater
from vedette.kit.secret import Secret
from vedette.testing.killbill import FakeKillBill

PLAN = "openstack-standard-monthly"
NOBODY = "00000000-0000-4000-8000-000000000000"

ROUTES = [
    ("/get_credits", {"credits": {"billing_account_id": NOBODY}}),
    ("/credits", {"credits": {"billing_acct_id": NOBODY, "amount": 5}}),
    ("/create_order", {"order": {"billing_account_id": NOBODY}}),
    ("/delete_order", {"order": {"order_id": NOBODY}}),
    ("/add_order_tag", {"tag": {"order_id": NOBODY, "tag_name": "a", "tag_value": "b"}}),
    ("/get_draft_invoice", {"invoice": {"billing_acct_id": NOBODY}}),
    ("/list_paginated_invoices", {"invoices": {"billing_acct_id": NOBODY}}),
    ("/get_account_invoice", {"invoice": {"billing_acct_id": NOBODY, "invoice_id": NOBODY}}),
]


def settings(bill: FakeKillBill, **other: Any) -> dict[str, Any]:
    return {
        "url": bill.url, "username": bill.username, "password": bill.password, "api_key": bill.api_key,
        "api_secret": bill.api_secret, "plan": PLAN, **other,
    }  # fmt: skip


@asynccontextmanager
async def billing(folder: Path) -> AsyncIterator[tuple[Front, FakeKillBill]]:
    async with FakeKillBill() as bill, fronting(folder, billing=settings(bill)) as front:
        yield front, bill


async def ask(front: Front, path: str, body: Any) -> tuple[int, Any]:
    """As the front end does: with its signature alone."""
    return await front.ask("POST", path, body, user="")


async def good(front: Front, path: str, body: Any) -> Any:
    status, answer = await ask(front, path, body)
    assert status == 201, answer
    return answer


async def test_what_a_cluster_builder_asks_in_its_order(tmp_path: Path) -> None:
    """Credits, an order, the quotas, the stack; then its tags, or no order when the stack came to nothing."""
    async with billing(tmp_path) as (front, bill):
        team = await front.good("POST", "/team", {"name": "physics"})
        account = team["billing_acct_id"]
        assert bill.accounts[account]["externalKey"] == team["project_id"]
        again = await front.good("POST", "/team", {"name": "physics"})
        assert (again["billing_acct_id"], len(bill.accounts)) == (account, 1)
        assert (await good(front, "/get_credits", {"credits": {"billing_account_id": account}}))["credits"] == 0
        added = await good(front, "/credits", {"credits": {"billing_acct_id": account, "amount": "12.5"}})
        assert added == {"success": True, "credits": 12.5}
        assert (await good(front, "/get_credits", {"credits": {"billing_account_id": account}}))["credits"] == 12.5
        order = (await good(front, "/create_order", {"order": {"billing_account_id": account}}))["order"]
        assert bill.subscriptions[order]["planName"] == PLAN
        await front.good("GET", f"/team/{team['project_id']}/quotas", user="")
        for _ in range(10):
            for name, value in (("openstack_stack_id", "s-1"), ("openstack_stack_name", "cluster")):
                body = {"tag": {"order_id": order, "tag_name": name, "tag_value": value}}
                assert (await good(front, "/add_order_tag", body))["tag"] == {"name": name, "value": value}
        assert [one["name"] for one in bill.fields[order]] == ["openstack_stack_id", "openstack_stack_name"]
        for _ in range(10):
            assert (await good(front, "/delete_order", {"order": {"order_id": order}}))["order"] == order
        assert bill.subscriptions[order]["state"] == "CANCELLED"
        assert front.cloud.identity.named_roles >= {"rating"}


async def test_invoices(tmp_path: Path) -> None:
    async with billing(tmp_path) as (front, bill):
        one, two = [(await front.good("POST", "/team", {"name": name}))["billing_acct_id"] for name in ("one", "two")]
        status, answer = await ask(front, "/get_draft_invoice", {"invoice": {"billing_acct_id": one}})
        assert (status, answer) == (204, "")
        bill.usage[one] = 7.25
        body = {"invoice": {"billing_acct_id": one, "target_date": "2026-12-01"}}
        draft = (await good(front, "/get_draft_invoice", body))["draft_invoice"]
        assert (draft["amount"], draft["targetDate"]) == (7.25, "2026-12-01")
        ids = [bill.add_invoice(one, float(number)) for number in range(5)]
        page = await good(front, "/list_paginated_invoices", {"invoices": {"billing_acct_id": one, "offset": 3, "limit": 100}})
        assert (page["total_invoices"], [row["amount"] for row in page["invoices"]]) == (5, [3.0, 4.0])
        assert len((await good(front, "/list_paginated_invoices", {"invoices": {"billing_acct_id": one}}))["invoices"]) == 5
        found = await good(front, "/get_account_invoice", {"invoice": {"billing_acct_id": one, "invoice_id": ids[2]}})
        assert (found["invoice"]["amount"], len(found["invoice"]["items"])) == (2.0, 1)
        status, answer = await ask(front, "/get_account_invoice", {"invoice": {"billing_acct_id": two, "invoice_id": ids[2]}})
        assert (status, "no invoice of this account" in answer["message"]) == (400, True)


async def test_credits_whose_answer_was_lost_are_added_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with billing(tmp_path) as (front, bill):
        account = (await front.good("POST", "/team", {"name": "one"}))["billing_acct_id"]
        body = {"credits": {"billing_acct_id": account, "amount": 10}}
        answering = asyncio.Event()
        monkeypatch.setattr(KillBill, "add_credit", _held(KillBill.add_credit, answering))
        asking = asyncio.create_task(ask(front, "/credits", body))

        async def added() -> bool:
            return bill.counts["POST credits"] == 1

        await front.place.until(added)
        asking.cancel()
        await asyncio.wait([asking])
        second = asyncio.create_task(ask(front, "/credits", body))
        await asyncio.sleep(0.1)
        answering.set()
        status, answer = await second
        assert (status, answer["credits"], bill.counts["POST credits"]) == (201, 10.0, 1)
        # What was answered and taken is over: the same again is more of it.
        assert (await good(front, "/credits", body))["credits"] == 20.0


def _held(work: Any, until: asyncio.Event) -> Any:
    async def held(*args: Any) -> None:
        await work(*args)
        await until.wait()

    return held


async def test_without_billing_every_route_says_so(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        for path, body in ROUTES:
            status, answer = await ask(front, path, body)
            assert (status, answer["error"], answer["success"]) == (501, "NoBilling", False), path
            assert (await front.ask("POST", path, body, user="", token=""))[0] == 401
        assert (await front.good("POST", "/team", {"name": "one"}))["billing_acct_id"] is None


async def test_what_kill_bill_refuses_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with billing(tmp_path) as (front, bill):
        for path, body in ROUTES:
            status, answer = await ask(front, path, body)
            assert (status, answer["error"]) == (404, "NotFound"), (path, answer)
        account = (await front.good("POST", "/team", {"name": "one"}))["billing_acct_id"]
        for amount, words in (
            (0, "not more than 0"),
            ("much", "no number"),
            (True, "no number"),
            (None, "is missing"),
            (1e300, "number"),
        ):
            status, answer = await ask(front, "/credits", {"credits": {"billing_acct_id": account, "amount": amount}})
            assert (status in (400, 415), words in answer["message"]) == (True, True), answer
        for path, _ in ROUTES:
            assert (await ask(front, path, {}))[0] == 415
        bill.plans.clear()
        status, answer = await ask(front, "/create_order", {"order": {"billing_account_id": account}})
        assert (status, "any plan" in answer["message"]) == (400, True)
        for fault in (500, 429):
            bill.fault = fault
            assert (await ask(front, "/get_credits", {"credits": {"billing_account_id": account}}))[0] == 503
        bill.fault, bill.api_secret = 0, "another one"
        status, answer = await ask(front, "/get_credits", {"credits": {"billing_account_id": account}})
        assert status == 503
        assert bill.url not in str(answer)
    text = "\n".join(f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    assert bill.password not in text
    assert "lazar" not in text


async def test_the_client_alone() -> None:
    async with FakeKillBill() as bill:
        client = KillBill(bill.url, bill.username, Secret(bill.password), bill.api_key, Secret(bill.api_secret))
        try:
            assert await client.account_of("nobody") == ""
            id_ = await client.create_account("p1", "one", "USD")
            assert await client.create_account("p1", "one", "USD") == id_
            with pytest.raises(NotFound, match="does not exist"):
                await client.account(NOBODY)
            with pytest.raises(NotFound):
                await client.account("../accounts")
            with pytest.raises(BadRequest, match="any plan"):
                await client.subscribe(id_, "none")
            bill.fault = 500
            with pytest.raises(TryLater):
                await client.account(id_)
        finally:
            await client.close()
        wrong = KillBill(bill.url, "x", Secret("y"), "k", Secret("s"))
        bill.fault = 0
        with pytest.raises(TargetUnavailable, match="look at its username"):
            await wrong.account(id_)
        await wrong.close()
    with pytest.raises(ConfigError, match="wants an address"):
        KillBill("killbill", "x", Secret("y"), "k", Secret("s"))
