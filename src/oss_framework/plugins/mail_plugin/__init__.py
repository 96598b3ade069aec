"""Sends an e-mail about each node that came or went, by the SMTP server of `[mail]`."""

from __future__ import annotations

import json
import logging
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate

from oslo_config import cfg

from oss_framework.plugins import base
from vedette.errors import GiveUp, TargetUnavailable, TryLater

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

TIMEOUT_SECONDS = 10.0


class MailNotify(base.BasePlugin):
    """One message to all `recipients`: the detail as lines, and as a JSON file with it."""

    def notify(self, node_detail: base.NodeDetail, created: bool) -> None:
        """Raises TargetUnavailable, TryLater (a 4xx of SMTP), GiveUp (a 5xx: this message will not be taken)."""
        where = f"{CONF.mail.host}:{CONF.mail.port}"
        mail = message(node_detail, created, CONF.mail.sender, CONF.mail.recipients, self.idempotency_key)
        try:
            self._send(mail)
        except smtplib.SMTPRecipientsRefused as why:
            codes = [code for code, _ in why.recipients.values()]
            raise _failure(f"{where} refused every recipient: {why.recipients}", min(codes, default=550)) from None
        except smtplib.SMTPAuthenticationError as why:
            # A person has to change the settings; until then mail waits.
            raise TryLater(f"{where} refused user and password: {why.smtp_code}", delay=60) from None
        except smtplib.SMTPResponseException as why:
            raise _failure(f"{where} answered {why.smtp_code} {why.smtp_error!r}", why.smtp_code) from None
        except smtplib.SMTPNotSupportedError as why:
            raise TryLater(f"{where}: {why}", delay=60) from None
        except (OSError, smtplib.SMTPServerDisconnected) as why:
            raise TargetUnavailable(f"{where} can't be reached: {why}") from None
        LOG.info("%s took a mail to %s", where, ", ".join(CONF.mail.recipients))

    def _send(self, mail: EmailMessage) -> None:
        trusted = ssl.create_default_context(cafile=CONF.mail.cacert or None)
        opened: smtplib.SMTP
        if CONF.mail.tls == "tls":
            opened = smtplib.SMTP_SSL(CONF.mail.host, CONF.mail.port, timeout=TIMEOUT_SECONDS, context=trusted)
        else:
            opened = smtplib.SMTP(CONF.mail.host, CONF.mail.port, timeout=TIMEOUT_SECONDS)
        with opened as server:
            if CONF.mail.tls == "starttls":
                server.starttls(context=trusted)
            if CONF.mail.user:
                server.login(CONF.mail.user, CONF.mail.password)
            server.send_message(mail, to_addrs=CONF.mail.recipients)


def message(node_detail: base.NodeDetail, created: bool, sender: str, recipients: list[str], key: str) -> EmailMessage:
    """The same call again gives a message with the same id, by which mail systems know it."""
    mail = EmailMessage()
    name = " ".join(str(node_detail.get("FQDN") or node_detail.get("id") or "a node").split())
    mail["Subject"] = f"{name} {'was created' if created else 'is gone'}"
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = formatdate()
    if key:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in key)
        mail["Message-ID"] = f"<{plain}@oss-framework>"
    mail.set_content("".join(f"{name}: {_shown(value)}\n" for name, value in node_detail.items()))
    mail.add_attachment(json.dumps(node_detail, indent=2).encode(), maintype="application", subtype="json", filename="node.json")
    return mail


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _failure(text: str, code: int) -> Exception:
    return GiveUp(text) if code >= 500 else TryLater(text, delay=60)
