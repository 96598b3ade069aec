"""`mail`: what a server is handed, and what its answers mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater, VedetteError
from vedette.handlers.mail import MOST_KEPT, MailHandler, Options, build
from vedette.kit.secret import Secret
from vedette.ports import Event
from vedette.testing.handling import PORT, FakeContext, change, handler_needs
from vedette.testing.mail import FakeMail
from vedette.testing.rabbit import free_ports
from vedette.testing.tls import Authority

EVENT = change({"name": "web"}, {"name": "old"})


def handler(port: int, **more: Any) -> MailHandler:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "Vedette <vedette@example.org>",
        "recipients": ("Ops <ops@example.org>", "dev@example.org"),
        **more,
    }
    return build(Options(**given), handler_needs())


async def send(server: FakeMail, event: Event = EVENT, **more: Any) -> str:
    return await handler(server.port, **more).handle(event, FakeContext())


async def test_a_mail_says_what_happened_and_who_made_it() -> None:
    async with FakeMail() as server:
        assert await send(server, subject="Port {object.status.name}") == "sent to 2"
    [taken] = server.taken
    assert (taken.sender, taken.recipients) == ("vedette@example.org", ("ops@example.org", "dev@example.org"))
    message = taken.message
    assert message["From"] == "Vedette <vedette@example.org>"
    assert message["To"] == "Ops <ops@example.org>, dev@example.org"
    assert message["Subject"] == "Port web"
    assert message["Date"] == "Fri, 20 Nov 2026 15:19:06 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Vedette-Idempotency-Key"] == EVENT.idempotency_key
    text = message.get_content()
    assert "port.update.end MODIFIED" in text
    assert json.loads(text.strip().splitlines()[-1]) == EVENT.object


async def test_the_same_delivery_has_the_same_message_id_and_another_has_another() -> None:
    async with FakeMail() as server:
        await send(server)
        await send(server)
        await send(server, change({}, idempotency_key="here/2"))
    first, second, third = (one.message["Message-ID"] for one in server.taken)
    assert first == second != third
    assert first.endswith("@example.org>")


async def test_no_name_adds_a_header_or_a_recipient_or_ends_the_message() -> None:
    name = "x\r\nBcc: evil@example.org\r\n\r\nhello\r\n.\r\nMAIL FROM:<evil@example.org>"
    async with FakeMail() as server:
        await send(server, change({"name": name}), subject="{object.status.name}", body="{object.status.name}\n.\n..\nend")
    [taken] = server.taken
    assert taken.recipients == ("ops@example.org", "dev@example.org")
    assert taken.message["Bcc"] is None
    assert taken.message["Subject"].startswith("x Bcc: evil@example.org hello .")
    assert taken.message.get_content().replace("\r\n", "\n") == name.replace("\r\n", "\n") + "\n.\n..\nend\n"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text())
async def test_any_name_makes_one_mail(name: str, other: str) -> None:
    async with FakeMail() as server:
        await send(server, change({"name": name, "other": other}), subject="a {object.status.name}", body="{object.status.other}")
    [taken] = server.taken
    assert len(taken.message.get_all("Subject")) == 1
    assert sorted({key.lower() for key in taken.message}) == sorted(
        {"from", "to", "subject", "date", "message-id", "auto-submitted", "x-vedette-idempotency-key"}
        | {"content-type", "content-transfer-encoding", "mime-version"}
    )


@pytest.mark.parametrize(
    ("command", "answer", "error"),
    [
        ("MAIL", "451 not now", TryLater),
        ("MAIL", "550 not you", GiveUp),
        ("DATA", "452 full", TryLater),
        ("DATA", "554 no", GiveUp),
        (".", "451 not now", TryLater),
        (".", "552 too large", GiveUp),
        (".", "cut", TargetUnavailable),
        ("RCPT", "450 greylisted", TryLater),
        ("RCPT", "550 no such user", GiveUp),
        ("RCPT", "421 going down", TargetUnavailable),
        ("MAIL", "421 going down", TargetUnavailable),
        ("EHLO", "hang", TargetUnavailable),
        ("MAIL", "hang", TargetUnavailable),
        ("MAIL", "this is no answer", TargetUnavailable),
    ],
)
async def test_the_answer_decides(command: str, answer: str, error: type[Exception]) -> None:
    async with FakeMail() as server:
        server.answers = {command: answer}
        with pytest.raises(VedetteError) as raised:
            await send(server, timeout=0.4 if answer == "hang" else 10.0)
    assert type(raised.value) is error, raised.value
    if answer[0] in "45" and not answer.startswith("421"):  # after that the connection is gone, and so may be the reason
        assert answer in str(raised.value)
    assert not server.taken


async def test_a_banner_that_is_no_welcome_is_nobody_there() -> None:
    for banner in ("554 no service", "421 too many", "SSH-2.0-OpenSSH"):
        async with FakeMail() as server:
            server.banner = banner
            with pytest.raises(TargetUnavailable):
                await send(server)


async def test_nobody_there_is_no_attempt() -> None:
    [port] = free_ports(1)
    with pytest.raises(TargetUnavailable, match="connect"):
        await handler(port).handle(EVENT, FakeContext())


async def test_a_goodbye_that_fails_sends_nothing_twice() -> None:
    for answer in ("cut", "421 bye", "500 what?"):
        async with FakeMail() as server:
            server.answers = {"QUIT": answer}
            assert await send(server) == "sent to 2"
        assert len(server.taken) == 1


async def test_a_recipient_that_is_refused_for_good_is_named_and_the_others_have_it() -> None:
    async with FakeMail() as server:
        server.answers = {"RCPT TO:<dev@": "550 no such user"}
        assert await send(server) == "sent to 1; refused: dev@example.org (550 no such user)"
        server.answers["RCPT TO:<ops@"] = "551 moved"
        with pytest.raises(GiveUp, match=r"every recipient is refused: ops@example\.org \(551 moved\), dev@"):
            await send(server)
    assert [one.recipients for one in server.taken] == [("ops@example.org",)]


async def test_a_recipient_that_is_refused_for_now_gets_it_later_and_the_others_do_not_again() -> None:
    async with FakeMail() as server:
        made = handler(server.port, recipients=("a@x.org", "b@x.org", "c@x.org"))
        server.answers = {"RCPT TO:<b@": "450 greylisted", "RCPT TO:<c@": "550 no"}
        with pytest.raises(TryLater, match=r"1 of 3 have it; not yet: b@x\.org \(450 greylisted\)"):
            await made.handle(EVENT, FakeContext())
        with pytest.raises(TryLater, match="1 of 3"):
            await made.handle(EVENT, FakeContext())
        server.answers = {}
        assert await made.handle(EVENT, FakeContext()) == "sent to 2; refused: c@x.org (550 no)"
    assert [one.recipients for one in server.taken] == [("a@x.org",), ("b@x.org",)]
    assert len({one.message["Message-ID"] for one in server.taken}) == 1


async def test_what_is_remembered_of_half_delivered_mail_is_bounded() -> None:
    async with FakeMail() as server:
        made = handler(server.port)
        for number in range(MOST_KEPT + 5):
            made._keep(f"key/{number}", {})
        assert len(made._settled) == MOST_KEPT


async def test_tls_is_insisted_on_and_verified(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    context = authority.server().server_context()
    async with FakeMail(tls=context, users={"vedette": "s3cret"}) as server:
        secure = {"security": "starttls", "ca": str(authority.ca), "username": "vedette"}
        assert await send(server, **secure, password=Secret("s3cret")) == "sent to 2"
        with pytest.raises(TargetUnavailable, match="our user name or password is refused: 535"):
            await send(server, **secure, password=Secret("wrong"))
        with pytest.raises(TargetUnavailable, match=r"(?i)certificate"):
            await send(server, security="starttls", ca=str(other.ca))
    async with FakeMail() as plain:
        with pytest.raises(TargetUnavailable, match="STARTTLS"):
            await send(plain, security="starttls")
    assert [(one.tls, one.user) for one in server.taken] == [(True, "vedette")]
    assert not plain.taken


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"host": ""}, "host: wants"),
        ({"host": "a b"}, "host: wants"),
        ({"port": 70_000}, "port"),
        ({"sender": "nobody"}, "sender: 'nobody' is no address"),
        ({"sender": "a@b.org, c@d.org"}, "no address"),
        ({"sender": "a@b.org\r\nBcc: x@y.org"}, "no address"),
        ({"recipients": ()}, "1 to 100"),
        ({"recipients": ("a@b.org", "ü@b.org")}, "recipients"),
        ({"recipients": ("a@b.org>",)}, "recipients"),
        ({"recipients": tuple(f"a{number}@b.org" for number in range(101))}, "1 to 100"),
        ({"subject": "a\nb"}, "subject: must be one line"),
        ({"body": "{x}"}, "body: character 2"),
        ({"username": "x"}, "go together"),
        ({"username": "x", "password": Secret("y")}, "in the open"),
        ({"ca": "/nowhere"}, "can't be read"),
        ({"timeout": 0.0}, "more than 0"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        handler(**{"port": 25, **options})


def test_the_port_goes_with_the_kind_of_tls() -> None:
    for security, port in (("starttls", 587), ("tls", 465), ("none", 25)):
        assert handler(0, security=security)._client._port == port
    assert PORT in EVENT.object["metadata"]["name"]
