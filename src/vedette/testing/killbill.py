"""A Kill Bill in memory, over real HTTP: accounts, credits, subscriptions, custom fields, invoices, for one tenant.

    async with FakeKillBill() as bill:
        client = KillBill(bill.url, bill.username, Secret(bill.password), bill.api_key, Secret(bill.api_secret))

It refuses what a real one refuses: without Basic authentication 401, without the tenant's key or who did it 400, an external key
that is taken 409. Its errors have `className`, `code` and `message`. (apidocs.killbill.io)
"""

from __future__ import annotations

import base64
import re
import uuid
from collections import Counter
from typing import Any

import msgspec
from aiohttp import web

Row = dict[str, Any]


class No(Exception):
    """An error in Kill Bill's form."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeKillBill:
    """See the module. What it holds is in plain attributes."""

    def __init__(self) -> None:
        self.username, self.password = "admin", "its password"
        self.api_key, self.api_secret = "bob", "lazar"
        self.plans = {"openstack-standard-monthly"}
        self.accounts: dict[str, Row] = {}
        self.subscriptions: dict[str, Row] = {}
        self.fields: dict[str, list[Row]] = {}
        """Subscription → its custom fields."""
        self.invoices: dict[str, Row] = {}
        self.usage: dict[str, float] = {}
        """Account → what its next invoice would be."""
        self.counts: Counter[str] = Counter()
        """`POST credits` → how often it was done."""
        self.fault = 0
        """Answer everything with this status."""
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeKillBill:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def add_invoice(self, account: str, amount: float) -> str:
        """Its id."""
        id_ = str(uuid.uuid4())
        item = {"invoiceItemId": str(uuid.uuid4()), "amount": amount, "itemType": "USAGE"}
        self.invoices[id_] = {"invoiceId": id_, "accountId": account, "amount": amount, "balance": amount, "items": [item]}
        return id_

    # --- answers

    async def _answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            if self.fault:
                raise No(self.fault, "out of order")
            self._admitted(request)
            for method, pattern, work in _ROUTES:
                found = re.fullmatch(f"/1\\.0/kb{pattern}", request.path)
                if found is not None and method == request.method:
                    body = msgspec.json.decode(raw) if raw else None
                    answer: web.Response = getattr(self, work)(request, body, *found.groups())
                    self.counts[f"{method} {pattern.split('/')[1]}"] += 1
                    return answer
            raise No(404, "no such resource")
        except No as why:
            said = {"className": "org.killbill.billing.ErrorCode", "code": 1, "message": str(why), "stackTrace": []}
            return web.json_response(said, status=why.status)

    def _admitted(self, request: web.Request) -> None:
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            raise No(401, "Unauthorized")
        if (request.headers.get("X-Killbill-ApiKey"), request.headers.get("X-Killbill-ApiSecret")) != (
            self.api_key,
            self.api_secret,
        ):
            raise No(401, "Unknown tenant")
        if request.method != "GET" and not request.headers.get("X-Killbill-CreatedBy"):
            raise No(400, "X-Killbill-CreatedBy header needs to be set")

    def _account(self, id_: str) -> Row:
        if id_ not in self.accounts:
            raise No(404, f"Account does not exist for id {id_}")
        return self.accounts[id_]

    def _subscription(self, id_: str) -> Row:
        if id_ not in self.subscriptions:
            raise No(404, f"Subscription with id {id_} doesn't exist")
        return self.subscriptions[id_]

    def create_account(self, request: web.Request, body: Any) -> web.Response:
        if any(one["externalKey"] == body["externalKey"] for one in self.accounts.values()):
            raise No(409, f"Account already exists for key {body['externalKey']}")
        id_ = str(uuid.uuid4())
        self.accounts[id_] = {"accountId": id_, "accountBalance": 0.0, "accountCBA": 0.0, **body}
        return web.Response(status=201, headers={"Location": f"{self.url}/1.0/kb/accounts/{id_}"})

    def find_account(self, request: web.Request, body: Any) -> web.Response:
        key = request.query.get("externalKey")
        found = next((one for one in self.accounts.values() if one["externalKey"] == key), None)
        if found is None:
            raise No(404, f"Account does not exist for key {key}")
        return web.json_response(found)

    def show_account(self, request: web.Request, body: Any, id_: str) -> web.Response:
        return web.json_response(self._account(id_))

    def add_credit(self, request: web.Request, body: Any) -> web.Response:
        for one in body:
            account = self._account(one["accountId"])
            if not one["amount"] > 0:
                raise No(400, f"Credit amount {one['amount']} should be greater than 0")
            account["accountCBA"] += one["amount"]
            account["accountBalance"] -= one["amount"]
        return web.json_response(body, status=201)

    def subscribe(self, request: web.Request, body: Any) -> web.Response:
        self._account(body["accountId"])
        if body.get("planName") not in self.plans:
            raise No(400, f"Could not find any plan with name {body.get('planName')}")
        id_ = str(uuid.uuid4())
        self.subscriptions[id_] = {"subscriptionId": id_, "state": "ACTIVE", **body}
        return web.Response(status=201, headers={"Location": f"{self.url}/1.0/kb/subscriptions/{id_}"})

    def show_subscription(self, request: web.Request, body: Any, id_: str) -> web.Response:
        return web.json_response(self._subscription(id_))

    def cancel(self, request: web.Request, body: Any, id_: str) -> web.Response:
        row = self._subscription(id_)
        if row["state"] == "CANCELLED":
            raise No(400, f"Subscription {id_} is already CANCELLED")
        row["state"] = "CANCELLED"
        return web.Response(status=204)

    def show_fields(self, request: web.Request, body: Any, id_: str) -> web.Response:
        self._subscription(id_)
        return web.json_response(self.fields.get(id_, []))

    def add_fields(self, request: web.Request, body: Any, id_: str) -> web.Response:
        self._subscription(id_)
        self.fields.setdefault(id_, []).extend(body)
        return web.Response(status=201)

    def show_invoice(self, request: web.Request, body: Any, id_: str) -> web.Response:
        if id_ not in self.invoices:
            raise No(404, f"No invoice could be found for id {id_}")
        return web.json_response(self.invoices[id_])

    def list_invoices(self, request: web.Request, body: Any, id_: str) -> web.Response:
        self._account(id_)
        rows = [{**one, "items": []} for one in self.invoices.values() if one["accountId"] == id_]
        start, limit = int(request.query.get("offset", "0")), int(request.query.get("limit", "100"))
        return web.json_response(rows[start : start + limit], headers={"X-Killbill-Pagination-TotalNbRecords": str(len(rows))})

    def draft(self, request: web.Request, body: Any) -> web.Response:
        account = request.query.get("accountId", "")
        self._account(account)
        amount = self.usage.get(account, 0.0)
        if not amount:
            return web.Response(status=204)
        return web.json_response(
            {"accountId": account, "amount": amount, "targetDate": request.query.get("targetDate"), "items": []}
        )


_ROUTES = (
    ("POST", "/accounts", "create_account"),
    ("GET", "/accounts", "find_account"),
    ("GET", "/accounts/([^/]+)", "show_account"),
    ("GET", "/accounts/([^/]+)/invoices/pagination", "list_invoices"),
    ("POST", "/credits", "add_credit"),
    ("POST", "/subscriptions", "subscribe"),
    ("GET", "/subscriptions/([^/]+)", "show_subscription"),
    ("DELETE", "/subscriptions/([^/]+)", "cancel"),
    ("GET", "/subscriptions/([^/]+)/customFields", "show_fields"),
    ("POST", "/subscriptions/([^/]+)/customFields", "add_fields"),
    ("POST", "/invoices/dryRun", "draft"),
    ("GET", "/invoices/([^/]+)", "show_invoice"),
)
