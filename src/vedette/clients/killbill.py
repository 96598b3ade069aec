"""Speaks to a Kill Bill: accounts, credits, subscriptions with their custom fields, invoices.

In: ids and amounts. Out: its JSON, in its own names. What a front end calls an order is a subscription here. A POST is made once:
whoever gets TargetUnavailable or TryLater does not know whether it was done. Neither the password, nor the API's secret, nor
bodies are logged or quoted in errors. (apidocs.killbill.io, version 1.0 of its API)

Errors: TargetUnavailable (nobody answers, or our account is refused), TryLater (it is unwell), NotFound, BadRequest (it does not
take what it was sent; its own words are with it).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from vedette.clients.http import Answer, HttpClient
from vedette.clients.tls import client_context
from vedette.errors import BadRequest, ConfigError, NotFound, TargetUnavailable, TryLater
from vedette.kit.secret import Secret
from vedette.model.paths import segment
from vedette.ports import JsonObject

TIMEOUT_SECONDS = 20.0
LARGEST = 16 * 1024 * 1024
"""Bytes of an answer: a page of invoices."""
LONGEST_WORDS = 300
CREATED_BY = "vedette"
"""Who did it, in Kill Bill's audit log."""
TOTAL = "X-Killbill-Pagination-TotalNbRecords"
NO_INVOICE = 204
"""A dry run with nothing to charge."""


class KillBill:
    """One tenant of one Kill Bill. Made anywhere, used in one event loop; `close` when done."""

    def __init__(
        self,
        url: str,
        username: str,
        password: Secret,
        api_key: str,
        api_secret: Secret,
        *,
        ca: str = "",
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """`url`: such as `https://killbill.example.org`. Raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError("wants an address such as https://killbill.example.org", path="url")
        self._url = url.rstrip("/")
        self._who = f"Kill Bill at {parts.netloc}"
        pair = base64.b64encode(f"{username}:{password.reveal()}".encode()).decode()
        self._headers = {
            "Accept": "application/json",
            "Authorization": f"Basic {pair}",
            "X-Killbill-ApiKey": api_key,
            "X-Killbill-ApiSecret": api_secret.reveal(),
            "X-Killbill-CreatedBy": CREATED_BY,
        }
        tls = client_context(ca=ca, whose="Kill Bill") if parts.scheme == "https" else None
        self._http = HttpClient(timeout=timeout, tls=tls, largest=LARGEST)

    # --- accounts

    async def account(self, id_: str) -> JsonObject:
        """With `accountBalance` and `accountCBA`. Raises NotFound."""
        return self._object(await self._ask("GET", f"/accounts/{segment(id_)}", (("accountWithBalanceAndCBA", "true"),)))

    async def account_of(self, external_key: str) -> str:
        """The id of the one with this key; "": there is none."""
        try:
            found = self._object(await self._ask("GET", "/accounts", (("externalKey", external_key),)))
        except NotFound:
            return ""
        return str(found.get("accountId") or "")

    async def create_account(self, external_key: str, name: str, currency: str) -> str:
        """Its id; of the one that there is with this key."""
        body = {"externalKey": external_key, "name": name, "currency": currency}
        answer = await self._ask("POST", "/accounts", body=body, allowed=(409,))
        if answer.status == 409:
            return await self.account_of(external_key)
        return self._made(answer) or await self.account_of(external_key)

    async def add_credit(self, account: str, amount: float, currency: str) -> None:
        body = [{"accountId": account, "amount": amount, "currency": currency, "description": "Added at the front end"}]
        await self._ask("POST", "/credits", (("autoCommit", "true"),), body=body)

    # --- subscriptions

    async def subscribe(self, account: str, plan: str) -> str:
        """The new subscription's id."""
        return self._made(await self._ask("POST", "/subscriptions", body={"accountId": account, "planName": plan}))

    async def cancel(self, subscription: str) -> None:
        """At once, and nothing is charged from here on. One that is cancelled already stays so."""
        path = f"/subscriptions/{segment(subscription)}"
        found = self._object(await self._ask("GET", path))
        if found.get("state") != "CANCELLED":
            await self._ask("DELETE", path, (("entitlementPolicy", "IMMEDIATE"), ("billingPolicy", "IMMEDIATE")))

    async def fields(self, subscription: str) -> dict[str, str]:
        """Its custom fields."""
        rows = self._list(await self._ask("GET", f"/subscriptions/{segment(subscription)}/customFields"))
        return {str(row["name"]): str(row["value"]) for row in rows if "name" in row and "value" in row}

    async def set_field(self, subscription: str, name: str, value: str) -> None:
        """One custom field more; nothing, if it is so already."""
        if (await self.fields(subscription)).get(name) == value:
            return
        await self._ask("POST", f"/subscriptions/{segment(subscription)}/customFields", body=[{"name": name, "value": value}])

    # --- invoices

    async def invoice(self, id_: str) -> JsonObject:
        """With its items. Raises NotFound."""
        return self._object(await self._ask("GET", f"/invoices/{segment(id_)}", (("withItems", "true"),)))

    async def invoices(self, account: str, offset: int, limit: int) -> tuple[Sequence[JsonObject], int]:
        """(a page of an account's invoices, how many there are)"""
        query = (("offset", str(offset)), ("limit", str(limit)))
        answer = await self._ask("GET", f"/accounts/{segment(account)}/invoices/pagination", query)
        rows = self._list(answer)
        total = answer.headers.get(TOTAL, "")
        return rows, int(total) if total.isdigit() else offset + len(rows)

    async def draft(self, account: str, target_date: str) -> JsonObject | None:
        """What an invoice would be on that day (`YYYY-MM-DD`; "": the next one); None: there is nothing to charge."""
        query = [("accountId", account)] + ([("targetDate", target_date)] if target_date else [])
        body = {"dryRunType": "TARGET_DATE" if target_date else "UPCOMING_INVOICE"}
        answer = await self._ask("POST", "/invoices/dryRun", query, body=body)
        if answer.status == NO_INVOICE or not answer.body.strip():
            return None
        return self._object(answer)

    async def close(self) -> None:
        await self._http.close()

    # --- inside

    async def _ask(
        self, method: str, path: str, query: Sequence[tuple[str, str]] = (), *, body: Any = None, allowed: Sequence[int] = ()
    ) -> Answer:
        url = f"{self._url}/1.0/kb{path}{'?' + urlencode(query) if query else ''}"
        data = b"" if body is None else msgspec.json.encode(body)
        headers = {**self._headers, **({"Content-Type": "application/json"} if data else {})}
        try:
            answer = await self._http.request(method, url, headers=headers, body=data, again=method != "POST")
        except TargetUnavailable as why:
            raise TargetUnavailable(f"{self._who}: {why}", delay=why.delay) from None
        except TryLater as why:
            raise TryLater(f"{self._who}: {why}", delay=why.delay) from None
        if answer.status < 400 or answer.status in allowed:
            return answer
        what = f"{self._who} answered {method} {path} with {answer.status}"
        if answer.status == 404:
            raise NotFound(f"{what}{_words(answer.body)}")
        if answer.status in (401, 403):
            raise TargetUnavailable(f"{what}: look at its username, password, api_key and api_secret", delay=60)
        if answer.status in (408, 429) or answer.status >= 500:
            raise TryLater(what, delay=5)
        raise BadRequest(f"{what}{_words(answer.body)}")

    def _made(self, answer: Answer) -> str:
        """The id of what was made is in its address."""
        return answer.headers.get("Location", "").rstrip("/").rpartition("/")[2]

    def _object(self, answer: Answer) -> JsonObject:
        found = self._decoded(answer)
        if not isinstance(found, dict):
            raise TryLater(f"{self._who} answered with no object", delay=5)
        return found

    def _list(self, answer: Answer) -> list[JsonObject]:
        found = self._decoded(answer)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise TryLater(f"{self._who} answered with no list", delay=5)
        return found

    def _decoded(self, answer: Answer) -> Any:
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise TryLater(f"{self._who} answered with no JSON", delay=5) from None


def _words(body: bytes) -> str:
    """Its own."""
    try:
        said: Mapping[str, Any] = msgspec.json.decode(body)
        return f": {str(said['message'])[:LONGEST_WORDS]}"
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError, UnicodeDecodeError):
        return ""
