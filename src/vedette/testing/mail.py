"""Mail servers for tests: one in memory that answers as it is told, and a real Exim of one's own.

`FakeMail` keeps what it was given. `Exim` is started in a folder of its own, on a free port of 127.0.0.1, delivers into a Maildir
there, and is stopped; it touches no mail system that runs on the machine.
"""

from __future__ import annotations

import asyncio
import base64
import grp
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import msgspec

from vedette.testing.rabbit import free_ports
from vedette.testing.tls import Pair


class Taken(msgspec.Struct, frozen=True):
    """A message that a server took."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    tls: bool
    user: str


class FakeMail:
    """An SMTP server. `answers` maps the beginning of a command (`RCPT TO:<a@b>`, `DATA`, `.` for the end of a message) to what
    is said instead of yes; the longest that fits counts, `hang` for no answer at all, `cut` for the end of the connection."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, users: Mapping[str, str] | None = None) -> None:
        self.taken: list[Taken] = []
        self.answers: dict[str, str] = {}
        self.banner = "220 fake ESMTP"
        self.port = 0
        self._tls = tls
        self._users = users
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakeMail:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks.copy():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            # What was written is the kernel's already; a polite close waits for a TLS goodbye that may never come.
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self.banner}\r\n".encode())
        sender, recipients, user, secure = "", list[str](), "", False
        while line := (await reader.readuntil(b"\r\n")).decode().rstrip("\r\n"):
            verb = line.upper()
            said = self._said(line)
            if said == "hang":
                await asyncio.Event().wait()
            if said == "cut":
                return
            if said:
                writer.write(f"{said}\r\n".encode())
                if said.startswith("421"):
                    return
                continue
            if verb.startswith("EHLO"):
                more = ["fake", *(["STARTTLS"] if self._tls and not secure else []), *(["AUTH PLAIN"] if self._users else [])]
                lines = [f"250{' ' if at == len(more) - 1 else '-'}{one}\r\n" for at, one in enumerate(more)]
                writer.write("".join(lines).encode())
                continue
            if verb == "STARTTLS" and self._tls:
                writer.write(b"220 go ahead\r\n")
                await writer.drain()
                await writer.start_tls(self._tls)
                secure = True
                continue
            if verb.startswith("AUTH PLAIN "):
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                good = self._users is not None and self._users.get(user) == password
                writer.write(b"235 welcome\r\n" if good else b"535 who are you?\r\n")
                continue
            if verb.startswith("MAIL FROM:"):
                sender, recipients = _path(line), []
            elif verb.startswith("RCPT TO:"):
                recipients.append(_path(line))
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                body = (await reader.readuntil(b"\r\n.\r\n"))[:-3].replace(b"\r\n..", b"\r\n.")
                said = self._said(".")
                if said == "cut":
                    return
                if said:
                    writer.write(f"{said}\r\n".encode())
                    continue
                self.taken.append(Taken(sender, tuple(recipients), _parsed(body), secure, user))
            writer.write(b"221 bye\r\n" if verb == "QUIT" else b"250 fine\r\n")

    def _said(self, line: str) -> str:
        fitting = [one for one in self.answers if line.upper().startswith(one.upper())]
        return self.answers[max(fitting, key=len)] if fitting else ""


def _path(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]


def _parsed(body: bytes) -> EmailMessage:
    message = message_from_bytes(body, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


class EximMissing(Exception):
    """There is no exim4 on this machine; the text says how to get one."""


_CONFIG = """\
exim_path = {exim}
exim_user = {user}
exim_group = {group}
admin_groups = {group}
never_users =
deliver_drop_privilege = true
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/exim.pid
primary_hostname = mail.vedette.test
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
domainlist here = vedette.test
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
tls_advertise_hosts = {tls_hosts}
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
message_size_limit = 1M
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data

begin acl
check_rcpt:
  deny   domains = !+here
         message = no relaying here
  defer  local_parts = greylisted
         condition = ${{if exists{{{folder}/open}}{{no}}{{yes}}}}
         message = come again
  deny   local_parts = nobody
         message = no such user
  accept
check_data:
  deny   condition = ${{if match{{$h_subject:}}{{poison}}{{yes}}{{no}}}}
         message = not this
  accept

begin routers
all:
  driver = accept
  domains = +here
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  envelope_to_add
  user = {user}
  group = {group}

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{vedette}}}}{{eq{{$auth3}}{{s3cret}}}}}}}}
  server_advertise_condition = ${{if def:tls_in_cipher}}
"""


class Exim:
    """A real Exim 4. It takes mail for `vedette.test` and nothing else; `nobody@` is refused, `greylisted@` too until `open_up`,
    and a message with `poison` in its subject. `vedette` with the password `s3cret` may sign in, over TLS.

    `start` returns when it takes connections; every wait has an end.
    """

    def __init__(self, *, tls: Pair | None = None) -> None:
        """Raises EximMissing."""
        found = shutil.which("exim4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found is None:
            raise EximMissing("no exim4 here; on Debian or Ubuntu: apt-get install exim4-daemon-light")
        self._exim = found
        self.port = free_ports(1)[0]
        self._server: subprocess.Popen[bytes] | None = None
        # Not in pytest's folder, which is root's alone where root runs the tests: Exim then runs as nobody.
        self.folder = Path(tempfile.mkdtemp(prefix="vedette-exim-"))
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(self._user.pw_gid).gr_name
        for name in ("spool", "mail"):
            (self.folder / name).mkdir()
        if tls is not None:
            shutil.copy(tls.cert, self.folder / "cert.pem")
            shutil.copy(tls.key, self.folder / "key.pem")
        text = _CONFIG.format(
            exim=self._exim,
            folder=self.folder,
            port=self.port,
            tls_hosts="*" if tls else "",
            user=self._user.pw_name,
            group=group,
        )
        (self.folder / "exim.conf").write_text(text)
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def start(self, timeout: float = 30.0) -> None:
        """Also again, after `stop`: at the same port, with what it had."""
        root = os.geteuid() == 0
        with (self.folder / "console.log").open("ab") as console:
            self._server = subprocess.Popen(
                [self._exim, "-C", str(self.folder / "exim.conf"), "-bdf"],
                user=self._user.pw_uid if root else None,
                group=self._user.pw_gid if root else None,
                extra_groups=[] if root else None,
                env={"PATH": "/usr/bin:/bin"},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        end = time.monotonic() + timeout
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"exim4 did not start:\n{self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """With what it has started for deliveries. Nothing that it has taken is lost."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)

    def close(self) -> None:
        """Stop it, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def open_up(self) -> None:
        """Take mail for `greylisted@` from now on."""
        (self.folder / "open").touch()

    def delivered(self, count: int, timeout: float = 30.0) -> list[EmailMessage]:
        """The mail in the Maildir, oldest first, once there are so many. `Envelope-To` says who each one is for."""
        end = time.monotonic() + timeout
        new = self.folder / "mail" / "new"
        while True:
            there = sorted(new.iterdir()) if new.exists() else []
            if len(there) >= count:
                return [_parsed(path.read_bytes()) for path in there]
            if time.monotonic() > end:
                raise RuntimeError(f"{len(there)} mails instead of {count}:\n{self._tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                probe.settimeout(5.0)
                return probe.recv(3) == b"220"
        except OSError:
            return False

    def _tail(self) -> str:
        lines: list[str] = []
        for path in (self.folder / "console.log", self.folder / "mainlog", self.folder / "paniclog"):
            if path.exists():
                lines += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-25:]]
        return "\n".join(lines)
