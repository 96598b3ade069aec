"""The routes of a front end that are about money: credits, orders, invoices. For compat/concertim_api.py.

Requests carry no cloud credentials, only the front end's signature. An account is a team's, an order is a subscription of it, and
its tags are custom fields. Where no billing is configured, each answers 501.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from vedette.clients.killbill import KillBill
from vedette.compat._concertim_http import NoBilling, answer, inner, number, optional, text
from vedette.errors import BadRequest
from vedette.ports import JsonObject

MOST_INVOICES = 1_000
"""Of one page."""
ACCOUNTS = ("billing_acct_id", "billing_account_id")
"""The front end has both words for it, each in other routes."""

Work = Callable[[web.Request, JsonObject], Awaitable[web.Response]]


class Billing:
    """The routes; `bill` None: there is no billing."""

    def __init__(self, bill: KillBill | None, plan: str, currency: str) -> None:
        """`plan`: what is subscribed to with each order. `currency`: of credits and new accounts, such as `USD`."""
        self._bill = bill
        self._plan = plan
        self._currency = currency

    def routes(self) -> list[tuple[str, str, Work]]:
        return [
            ("POST", "/get_credits", self.get_credits),
            ("POST", "/credits", self.add_credits),
            ("POST", "/create_order", self.create_order),
            ("POST", "/delete_order", self.delete_order),
            ("POST", "/add_order_tag", self.add_order_tag),
            ("POST", "/get_draft_invoice", self.draft_invoice),
            ("POST", "/list_paginated_invoices", self.list_invoices),
            ("POST", "/get_account_invoice", self.show_invoice),
        ]

    async def account_for(self, project: str, name: str) -> str | None:
        """The id of a team's account, made if there is none; None: there is no billing."""
        if self._bill is None:
            return None
        return await self._bill.create_account(project, name, self._currency)

    async def get_credits(self, request: web.Request, body: JsonObject) -> web.Response:
        account = _account(inner(body, "credits"), "credits.")
        return answer(201, {"success": True, "credits": await self._credits(account)})

    async def add_credits(self, request: web.Request, body: JsonObject) -> web.Response:
        given = inner(body, "credits")
        account, amount = _account(given, "credits."), number(given, "amount", of="credits.")
        if amount <= 0:
            raise BadRequest("credits.amount is not more than 0")
        await self._known.add_credit(account, amount, self._currency)
        return answer(201, {"success": True, "credits": await self._credits(account)})

    async def create_order(self, request: web.Request, body: JsonObject) -> web.Response:
        order = await self._known.subscribe(_account(inner(body, "order"), "order."), self._plan)
        return answer(201, {"success": True, "order": order})

    async def delete_order(self, request: web.Request, body: JsonObject) -> web.Response:
        order = text(inner(body, "order"), "order_id", of="order.")
        await self._known.cancel(order)
        return answer(201, {"success": True, "order": order})

    async def add_order_tag(self, request: web.Request, body: JsonObject) -> web.Response:
        given = inner(body, "tag")
        order, name, value = (text(given, one, of="tag.") for one in ("order_id", "tag_name", "tag_value"))
        await self._known.set_field(order, name, value)
        return answer(201, {"success": True, "tag": {"name": name, "value": value}})

    async def draft_invoice(self, request: web.Request, body: JsonObject) -> web.Response:
        given = inner(body, "invoice")
        found = await self._known.draft(_account(given, "invoice."), optional(given, "target_date", of="invoice."))
        if found is None:
            return web.Response(status=204, body=b"")
        return answer(201, {"success": True, "draft_invoice": found})

    async def list_invoices(self, request: web.Request, body: JsonObject) -> web.Response:
        given = inner(body, "invoices")
        offset, limit = (
            int(number(given, name, of="invoices.", default=usual)) for name, usual in (("offset", 0), ("limit", 100))
        )
        if offset < 0 or not 1 <= limit <= MOST_INVOICES:
            raise BadRequest(f"invoices.limit is not between 1 and {MOST_INVOICES}, or the offset is less than 0")
        rows, total = await self._known.invoices(_account(given, "invoices."), offset, limit)
        return answer(201, {"success": True, "total_invoices": total, "invoices": list(rows)})

    async def show_invoice(self, request: web.Request, body: JsonObject) -> web.Response:
        given = inner(body, "invoice")
        account, id_ = _account(given, "invoice."), text(given, "invoice_id", of="invoice.")
        found = await self._known.invoice(id_)
        if found.get("accountId") != account:
            # One team's must not be shown to another.
            raise BadRequest("invoice.invoice_id is no invoice of this account")
        return answer(201, {"success": True, "invoice": found})

    @property
    def _known(self) -> KillBill:
        """Raises NoBilling."""
        if self._bill is None:
            raise NoBilling("there is no billing here: set faces.concertim.billing")
        return self._bill

    async def _credits(self, account: str) -> float:
        """What an account has, less what it owes."""
        found = await self._known.account(account)
        return -float(found.get("accountBalance") or 0.0) + 0.0


def _account(given: JsonObject, of: str) -> str:
    """Raises Missing, BadRequest."""
    return text(given, ACCOUNTS[0], of=of, others=ACCOUNTS[1:])
