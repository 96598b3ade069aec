"""Hooks over real HTTP: a 2xx is a promise, nobody gets in without leave, and every limit has its answer.

Left out: what each format reads (tests/unit/test_webhooks_*.py), the rules of who may (tests/unit/test_hooks_admit.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from hooking import BEARER, SECONDS, TOKEN, hook, hooked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import in_a_loop

from vedette.api.auth import KeystoneAuthenticator
from vedette.api.hooks import SIGNATURE, TIMESTAMP, signature
from vedette.api.routes import hooks as routes
from vedette.clients.keystone import Keystone, credentials
from vedette.errors import StoreUnavailable
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.kit.tasks import cancel
from vedette.model.notice import Notice
from vedette.ports import EVERYTHING, Offer, Selection
from vedette.store.sqlite import SqliteStore
from vedette.testing.clock import START_US, FakeClock
from vedette.testing.keystone import FakeKeystone
from vedette.webhooks import cloudevents, generic

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from webhook_requests import ALARM, EVENT, GROUP, REQUEST_ID

AODH = "/v1/hooks/aodh/one"
GENERIC = "/v1/hooks/generic/one"
BODY = json.dumps(ALARM)
SECRET = Secret("a-secret-of-its-own")


def said(body: bytes, code: int) -> str:
    """The message of the Status that this answer is."""
    status = json.loads(body)
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", code)
    message: str = status["message"]
    return message


class Gate:
    """Stands before the engine's `offer`: open, shut (news waits), or broken."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.broken: Exception | None = None
        self.waiting = 0
        self.arrived = asyncio.Event()

    def __call__(self, offer: Offer) -> Offer:
        async def offered(notices: Sequence[Notice]) -> None:
            self.waiting += 1
            self.arrived.set()
            try:
                await self.open.wait()
                if self.broken is not None:
                    raise self.broken
                await offer(notices)
            finally:
                self.waiting -= 1

        return offered


# --- a promise -------------------------------------------------------------------------------------------------------------


async def test_an_alarm_is_in_the_log_when_it_is_answered() -> None:
    async with hooked(hook("aodh", "aodh-1")) as place:
        code, _, body = await place.send("/v1/hooks/aodh/aodh-1", BODY, **BEARER, x_openstack_request_id=REQUEST_ID)
        assert (code, body) == (204, b"")
        (entry,) = await place.log()
        assert entry.entry.notice.source == "aodh-1"
        assert entry.entry.notice.event_type == "aodh.alarm.alarm"
        (change,) = entry.changes
        assert (change.verb, change.key.kind, change.key.id) == ("ADDED", "Alarm", ALARM["alarm_id"])
        code, _, listed = await place.send("/clusters/aodh-1/apis/openstack.vedette.dev/v1/alarms", method="GET")
        assert [item["status"]["state"] for item in json.loads(listed)["items"]] == ["alarm"]


async def test_nothing_is_answered_before_the_append() -> None:
    gate = Gate()
    gate.open.clear()
    async with hooked(hook("aodh"), offer=gate) as place:
        asked = asyncio.create_task(place.send(AODH, BODY))
        async with asyncio.timeout(SECONDS):
            await gate.arrived.wait()
        assert not asked.done()
        assert await place.log() == []
        gate.open.set()
        assert (await asked)[0] == 204
        assert len(await place.log()) == 1


async def test_a_store_that_refuses_is_a_503_with_a_time_to_come_back() -> None:
    gate = Gate()
    gate.broken = StoreUnavailable("no space on /some/secret/disk", delay=7.0)
    async with hooked(hook("aodh"), offer=gate) as place:
        code, headers, body = await place.send(AODH, BODY)
        assert (code, headers["Retry-After"]) == (503, "7")
        assert "disk" not in said(body, 503)
        assert await place.log() == []
        assert place.count("notices_received_total", source="one") == 0
        gate.broken = None
        assert (await place.send(AODH, BODY))[0] == 204
        assert place.count("hook_requests_total", hook="one", code="503") == 1
        assert place.count("hook_requests_total", hook="one", code="204") == 1


async def test_the_same_request_again_is_answered_alike_and_counted_once() -> None:
    async with hooked(hook("aodh"), hook("alertmanager", "am"), hook("cloudevents", "ce"), hook("generic", "any")) as place:
        for _ in range(3):
            for path, body, headers in (
                (AODH, BODY, {"x_openstack_request_id": REQUEST_ID}),
                ("/v1/hooks/alertmanager/am", json.dumps(GROUP), {}),
                ("/v1/hooks/cloudevents/ce", json.dumps(EVENT), {"Content_Type": cloudevents.STRUCTURED}),
                ("/v1/hooks/generic/any", '{"a": 1}', {}),
            ):
                assert (await place.send(path, body, **BEARER, **headers))[0] == 204, path
        assert len(await place.log()) == 4
        for name in ("one", "am", "ce", "any"):
            counts = [place.count(f"notices_{what}_total", source=name) for what in ("received", "events", "duplicates")]
            assert counts == [3, 1, 2], name


async def test_a_caller_that_is_gone_is_written_and_counted_all_the_same() -> None:
    gate = Gate()
    gate.open.clear()
    async with hooked(hook("aodh"), offer=gate) as place:
        asked = asyncio.create_task(place.send(AODH, BODY))
        async with asyncio.timeout(SECONDS):
            await gate.arrived.wait()
            asked.cancel()
            await asyncio.wait([asked])
            gate.open.set()
            while gate.waiting:
                await asyncio.sleep(0.005)
        assert len(await place.log()) == 1
        assert place.count("notices_events_total", source="one") == 1


async def test_killed_between_append_and_answer_a_retry_makes_no_second_event(tmp_path: Path) -> None:
    for number in range(3):
        body = json.dumps({**ALARM, "reason": f"number {number}"})
        headers = {**BEARER, "x-openstack-request-id": f"req-{number}"}
        (tmp_path / "die").touch()
        async with child(tmp_path) as url, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.post(url + AODH, data=body, headers=headers)
        (tmp_path / "die").unlink()
        async with child(tmp_path) as url, aiohttp.ClientSession() as session:
            async with session.post(url + AODH, data=body, headers=headers) as answer:
                assert answer.status == 204
            async with session.get(url + "/metrics") as answer:
                metrics = await answer.text()
        assert 'vedette_notices_duplicates_total{source="one"} 1.0' in metrics
        assert 'vedette_notices_events_total{source="one"}' not in metrics.replace('events_total{source="one"} 0.0', "")
    store = await SqliteStore.open(tmp_path / "store", SystemClock())
    found, _ = await store.entries(store.oldest)
    page = await store.objects(Selection(scope=EVERYTHING))
    await store.close()
    reasons = [json.loads(bytes(one.entry.notice.payload))["reason"] for one in found]
    assert reasons == ["number 0", "number 1", "number 2"]
    assert len(page.items) == 1


class child:
    """tests/e2e/hooking.py in a process of its own; its URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __aenter__(self) -> str:
        program = str(Path(__file__).with_name("hooking.py"))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, program, str(self._folder), stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        async with asyncio.timeout(SECONDS):
            await self._process.communicate()


# --- who may ---------------------------------------------------------------------------------------------------------------


async def test_a_hook_that_is_not_there_looks_the_same_to_everybody() -> None:
    async with hooked(hook("aodh")) as place:
        for path in ("/v1/hooks/aodh/other", "/v1/hooks/generic/one", "/v1/hooks/none/one", "/v1/hooks/aodh/o%6Ee%00"):
            for method in ("POST", "GET", "OPTIONS", "DELETE"):
                answers = [await place.send(path, BODY, method=method, **headers) for headers in (BEARER, {"X": "y"})]
                assert [code for code, _, _ in answers] == [404, 404], (path, method)
                assert answers[0][2] == answers[1][2]


async def test_only_post_is_taken() -> None:
    async with hooked(hook("aodh")) as place:
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            code, headers, _ = await place.send(AODH, method=method)
            assert (code, headers["Allow"]) == (405, "POST"), method


async def test_without_a_token_or_with_another_nothing_is_taken() -> None:
    async with hooked(hook("aodh")) as place:
        for headers in ({"X": "y"}, {"Authorization": "Bearer wrong"}, {"X_Auth_Token": "wrong"}, {"Cookie": f"token={TOKEN}"}):
            code, answered, body = await place.send(AODH, BODY, **headers)
            assert (code, answered["WWW-Authenticate"]) == (401, 'Bearer realm="vedette"')
            assert TOKEN not in said(body, 401)
        assert (await place.send(f"{AODH}?access_token={TOKEN}&token={TOKEN}", BODY, X="y"))[0] == 401
        assert await place.log() == []
        assert (await place.send(AODH, BODY, X_Auth_Token=TOKEN))[0] == 204


def signed(body: bytes, at: int, secret: Secret = SECRET) -> dict[str, str]:
    return {TIMESTAMP: str(at), SIGNATURE: "sha256=" + signature(secret, str(at), body).hex()}


async def test_a_signed_request_is_good_within_its_window_and_played_again_it_is_a_duplicate() -> None:
    clock = FakeClock()
    now = START_US // 1_000_000
    raw = b"{}"
    async with hooked(hook("aodh", hmac_secret=SECRET, hmac_age=60.0), clock=clock) as place:
        once = signed(raw, now)
        assert (await place.send(AODH, raw, **once))[0] == 204
        await clock.advance(50)
        # Header names are not signed: one that would make another event is not looked at.
        assert (await place.send(AODH, raw, **once, x_openstack_request_id="req-other"))[0] == 204
        assert len(await place.log()) == 1
        assert place.count("notices_duplicates_total", source="one") == 1
        await clock.advance(11)
        code, _, body = await place.send(AODH, raw, **once)
        assert "differs by more than 60 s" in said(body, 401)
        assert code == 401
        assert (await place.send(AODH, raw + b" ", **signed(raw, now + 61)))[0] == 401
        assert (await place.send(AODH, raw, **signed(raw, now + 61, Secret("another-secret-of-its-own"))))[0] == 401
        assert (await place.send(AODH, raw, **signed(raw, now + 122)))[0] == 401
        assert (await place.send(AODH, raw, **BEARER))[0] == 401
        assert (await place.send(AODH, raw, **signed(raw, now + 61)))[0] == 204
        assert len(await place.log()) == 2


async def test_headers_of_a_signed_request_make_no_event() -> None:
    ce = {"ce_specversion": "1.0", "ce_id": "1", "ce_type": "t", "ce_source": "s"}
    async with hooked(hook("cloudevents", hmac_secret=SECRET)) as place:
        code, _, body = await place.send("/v1/hooks/cloudevents/one", b"{}", **signed(b"{}", START_US // 1_000_000), **ce)
        assert "headers are not signed" in said(body, 400)
        assert code == 400


async def test_a_trusts_token_needs_one_of_the_roles() -> None:
    clock = SystemClock()
    async with FakeKeystone(clock) as keystone:
        project, service = keystone.add_project("p"), keystone.add_project("service")
        asker = keystone.add_user("vedette", "vedette-password")
        keystone.grant(asker, "service", project=service)
        owner, member = keystone.add_user("owner", "x"), keystone.add_user("member", "x")
        keystone.grant(owner, "alarmist", project=project)
        keystone.grant(member, "member", project=project)
        ours = {
            "auth_url": keystone.url,
            "username": "vedette",
            "password": "vedette-password",
            "user_domain_name": "Default",
            "project_name": "service",
            "project_domain_name": "Default",
        }
        client = Keystone(credentials(ours), clock)
        try:
            one = hook("aodh", keystone=True, roles=("alarmist",))
            async with hooked(one, authenticator=KeystoneAuthenticator(client, clock)) as place:
                assert (await place.send(AODH, BODY, X_Auth_Token=keystone.issue(owner, project=project)))[0] == 204
                code, _, body = await place.send(AODH, BODY, X_Auth_Token=keystone.issue(member, project=project))
                assert "none of the roles" in said(body, 403)
                assert code == 403
                assert (await place.send(AODH, BODY, X_Auth_Token="gAAAAAno-token-at-all"))[0] == 401
                keystone.fault = 503
                code, headers, _ = await place.send(AODH, BODY, X_Auth_Token="gAAAAAunknown-yet")
                assert code == 503
                assert int(headers["Retry-After"]) >= 1
        finally:
            await client.close()


async def test_tokens_and_secrets_are_neither_kept_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with hooked(hook("generic"), hook("generic", "signed", hmac_secret=SECRET)) as place:
        await place.send(GENERIC, '{"password": "hunter2", "a": 1}')
        await place.send(GENERIC, b"password=hunter2")
        await place.send(GENERIC, BODY, Authorization="Bearer a-token-that-is-wrong")
        raw = b'{"token": "hunter2"}'
        await place.send("/v1/hooks/generic/signed", raw, **signed(raw, START_US // 1_000_000))
        kept = repr(await place.log()) + caplog.text + place.telemetry.render().decode()
    assert len(kept) > 1000
    for secret in ("hunter2", TOKEN, "a-token-that-is-wrong", SECRET.reveal()):
        assert secret not in kept


async def test_the_documented_commands_are_taken(tmp_path: Path) -> None:
    for command in ("bash", "curl", "openssl"):
        if shutil.which(command) is None:
            assert "CI" not in os.environ, f"there is no {command}"
            pytest.skip(f"there is no {command}")
    page = (Path(__file__).parents[2] / "docs" / "howto" / "webhooks.md").read_text()
    (script,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (asked,) = re.findall(r"^\$ (curl .*?)^```", page, re.MULTILINE | re.DOTALL)
    backups = hook("cloudevents", "backups", token=Secret(TOKEN), hmac_secret=SECRET)
    async with hooked(backups, clock=SystemClock()) as place:
        for text in (asked, script, script):
            process = await asyncio.create_subprocess_exec(
                "bash", "-euc", text.replace("https://vedette.example:8470", place.url),
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOKEN": TOKEN, "SECRET": SECRET.reveal()},
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
            assert out.startswith(b"HTTP/1.1 204"), (out, err)
        assert [one.entry.notice.id for one in await place.log()] == ["/backups/nightly 17", "/backups/nightly 18"]


# --- limits ----------------------------------------------------------------------------------------------------------------


async def chunks(count: int, *, quoted: bool = False) -> AsyncIterator[bytes]:
    """A body of so many thousand bytes, whose length no header says; as JSON if `quoted`."""
    yield b'"' if quoted else b""
    for _ in range(count):
        yield b"x" * 1000
    yield b'"' if quoted else b""


async def test_a_body_above_the_hooks_own_limit_is_a_413() -> None:
    small, large = (
        hook("generic", max_body=1000, token=Secret(TOKEN)),
        hook("generic", "large", max_body=3 << 20, token=Secret(TOKEN)),
    )
    async with hooked(small, large) as place:
        code, _, body = await place.send(GENERIC, b'"' + b"x" * 999 + b'"')
        assert said(body, 413) == "the body has more than 1000 bytes"
        assert code == 413
        assert (await place.send(GENERIC, chunks(2)))[0] == 413
        assert (await place.send(GENERIC, b'"' + b"x" * 998 + b'"'))[0] == 204
        assert (await place.send("/v1/hooks/generic/large", chunks(2000, quoted=True)))[0] == 204
        assert len(await place.log()) == 2


async def test_who_may_not_call_is_not_read() -> None:
    async with hooked(hook("generic", max_body=10, token=Secret(TOKEN))) as place:
        assert (await place.send(GENERIC, b"x" * 1000, X="y"))[0] == 401


@pytest.mark.parametrize("rest", [b"ZZZ\r\n", b"2\r\n{}", b"ffffffffffffffffffffff\r\n"])
async def test_a_body_that_breaks_off_or_is_no_chunk_is_no_event(rest: bytes) -> None:
    async with hooked(hook("generic")) as place:
        host, _, port = place.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {GENERIC} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + rest)
        writer.write_eof()
        async with asyncio.timeout(SECONDS):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
        assert await place.log() == []
        assert place.count("hook_requests_total", hook="one", code="500") == 0
        assert (await place.send(GENERIC, "{}"))[0] == 204


async def test_compressed_bodies_are_not_taken() -> None:
    async with hooked(hook("generic")) as place:
        code, _, body = await place.send(GENERIC, b"\x1f\x8b", **BEARER, Content_Encoding="gzip")
        assert "compressed" in said(body, 415)
        assert code == 415


async def test_wrong_content_is_a_400_that_says_what_is_wrong() -> None:
    async with hooked(hook("aodh"), hook("cloudevents", "ce")) as place:
        code, _, body = await place.send(AODH, '{"current": "ok"}')
        assert said(body, 400) == "alarm_id is missing"
        assert code == 400
        code, _, body = await place.send("/v1/hooks/cloudevents/ce", b"x", **BEARER, Content_Type="application/cloudevents+avro")
        assert json.loads(body)["reason"] == "UnsupportedMediaType"
        assert code == 415
        assert await place.log() == []


async def test_bodies_that_anybody_may_have_begun_keep_nobody_out() -> None:
    """A signature can't be judged before its body is here: who is slow with it, and may be anybody, makes room."""
    clock = FakeClock()
    now = START_US // 1_000_000
    async with hooked(hook("generic", hmac_secret=SECRET, token=Secret(TOKEN)), clock=clock) as place:
        host, _, port = place.url.removeprefix("http://").rpartition(":")
        forged = "".join(f"{name}: {value}\r\n" for name, value in signed(b"?", now).items())
        head = f"POST {GENERIC} HTTP/1.1\r\nHost: x\r\n{forged}Content-Length: 100\r\n\r\n[".encode()
        slow = []
        async with asyncio.timeout(SECONDS):
            for _ in range(routes.MAX_IN_HAND):
                slow.append(await asyncio.open_connection(host, int(port)))
                slow[-1][1].write(head)
            while place.count("hook_requests_in_hand", hook="one") < routes.MAX_IN_HAND:
                await asyncio.sleep(0.005)
        assert (await place.send(GENERIC, "{}", **signed(b"{}", now)))[0] == 204
        assert (await place.send(GENERIC, "[]"))[0] == 204
        answers = [asyncio.create_task(reader.readline()) for reader, _ in slow]
        async with asyncio.timeout(SECONDS):
            await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        # (The room that the first one made is enough for the second, which comes after it.)
        assert [one.result()[:12] for one in answers if one.done()] == [b"HTTP/1.1 408"]
        await cancel(*answers)
        for _, writer in slow:
            writer.close()
        assert len(await place.log()) == 2


async def test_more_requests_at_one_time_than_a_hook_may_have_are_told_to_come_back() -> None:
    gate = Gate()
    gate.open.clear()
    async with hooked(hook("generic"), hook("generic", "other"), offer=gate) as place:
        asked = [asyncio.create_task(place.send(GENERIC, json.dumps({"number": number}))) for number in range(routes.MAX_IN_HAND)]
        async with asyncio.timeout(SECONDS):
            while gate.waiting < routes.MAX_IN_HAND:
                await asyncio.sleep(0.005)
        assert place.count("hook_requests_in_hand", hook="one") == routes.MAX_IN_HAND
        code, headers, body = await place.send(GENERIC, '{"number": -1}')
        assert f"{routes.MAX_IN_HAND} requests in hand" in said(body, 429)
        assert (code, headers["Retry-After"]) == (429, "1")
        other = asyncio.create_task(place.send("/v1/hooks/generic/other", "{}"))
        gate.open.set()
        assert {code for code, _, _ in await asyncio.gather(*asked, other)} == {204}
        assert place.count("hook_requests_in_hand", hook="one") == 0
        assert (await place.send(GENERIC, '{"number": -1}'))[0] == 204
        assert len(await place.log()) == routes.MAX_IN_HAND + 2


async def test_the_handshake_is_for_configured_origins() -> None:
    invited = hook(
        "cloudevents", "invited", options=cloudevents.Options(origins=("eventemitter.example.com",)), token=Secret(TOKEN)
    )
    path = "/v1/hooks/cloudevents/invited"
    async with hooked(invited, hook("cloudevents", "closed"), hook("aodh")) as place:
        asking = {"WebHook_Request_Origin": "eventemitter.example.com", "WebHook_Request_Rate": "120"}
        code, headers, _ = await place.send(path, method="OPTIONS", **asking)
        assert code == 204
        assert headers["WebHook-Allowed-Origin"] == "eventemitter.example.com"
        assert headers["WebHook-Allowed-Rate"] == "*"
        assert headers["Allow"] == "POST"
        for at, asked in (
            (path, {"WebHook_Request_Origin": "elsewhere.example.com"}),
            (path, {"Origin": "https://eventemitter.example.com"}),
            ("/v1/hooks/cloudevents/closed", asking),
            (AODH, asking),
        ):
            code, headers, _ = await place.send(at, method="OPTIONS", **asked)
            assert code == 405
            assert not any(name.lower().startswith("webhook-") for name in headers)
        assert await place.log() == []


async def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    path = "/v1/hooks/generic/many"
    many = hook("generic", "many", options=generic.Options(batch=True, id="/id"), token=Secret(TOKEN))
    async with hooked(many) as place:
        assert (await place.send(path, json.dumps([{"id": "1"}, {}])))[0] == 400
        assert await place.log() == []
        assert (await place.send(path, "[]"))[0] == 204
        assert (await place.send(path, json.dumps([{"id": str(number)} for number in range(1000)])))[0] == 204
        assert len(await place.log()) == 500, "a store gives so many at a time"
        assert place.count("notices_events_total", source="many") == 1000


async def test_whatever_is_sent_is_never_an_error_of_ours() -> None:
    names = ("aodh", "alertmanager", "cloudevents", "generic")
    async with hooked(*(hook(name, name) for name in names)) as place:

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            name=st.sampled_from(names),
            body=st.one_of(st.binary(max_size=80), st.sampled_from([BODY, json.dumps(GROUP), json.dumps(EVENT)]).map(str.encode)),
            content_type=st.sampled_from(["application/json", cloudevents.STRUCTURED, cloudevents.BATCHED, "x"]),
            headers=st.dictionaries(
                st.sampled_from(["ce-id", "ce-specversion", "idempotency-key", "x-openstack-request-id", "traceparent"]),
                st.text(st.characters(min_codepoint=33, max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"]), max_size=9),
                max_size=4,
            ),
        )
        async def look(name: str, body: bytes, content_type: str, headers: dict[str, str]) -> None:
            code, _, _ = await place.send(f"/v1/hooks/{name}/{name}", body, **BEARER, Content_Type=content_type, **headers)
            assert code in (204, 400), code

        await asyncio.to_thread(in_a_loop, look, asyncio.get_running_loop())


async def test_metrics_tell_of_each_hook() -> None:
    async with hooked(hook("generic")) as place:
        await place.send(GENERIC, "{}")
        await place.send(GENERIC, "{")
        assert place.count("hook_requests_total", hook="one", code="204") == 1
        assert place.count("hook_requests_total", hook="one", code="400") == 1
        assert place.count("source_last_progress_timestamp_seconds", source="one") == START_US / 1_000_000
