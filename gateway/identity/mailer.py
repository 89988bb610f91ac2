"""How mails leave: by SMTP, or on a development network into a box that the API shows."""

import os
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import aiosmtplib
from sqlalchemy import Connection, Row, delete, func, select

from config.settings import SettingsError
from gateway.database import Database, insert, now_ms
from gateway.identity.tables import DevnetMail
from gateway.identity.text import email_address

SMTP_PASSWORD = "SHARDPAY_SMTP_PASSWORD"
_TIMEOUT = 20.0
_KEPT = 1000
"""Mails on a development network."""


class Mail(NamedTuple):
    """``id``: the same whenever this mail is sent again."""

    id: str
    to: str
    subject: str
    text: str


class Undeliverable(Exception):
    """The mail server says that this mail will never be taken."""


class NotTaken(Exception):
    """The mail server does not take a mail now. The text names nobody: it is logged."""


class Mailer(Protocol):
    async def send(self, mail: Mail) -> None:
        """Hand a mail over. Raises Undeliverable, NotTaken, or OSError and the like, when the server is not there."""


class SmtpMailer:
    """A mail server: ``smtps://`` with TLS from the beginning, ``smtp://`` with STARTTLS, which only this host may lack."""

    def __init__(self, url: str, sender: str) -> None:
        """``sender``: the e-mail address that mails come from. The password is in the environment. Raises SettingsError."""
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port or (465 if parts.scheme == "smtps" else 587)
            self._sender = email_address(sender)
        except ValueError as error:
            raise SettingsError(f"smtp, mail_from: {error}") from None
        if parts.scheme not in ("smtp", "smtps") or not self._host or parts.password or parts.path or parts.query:
            raise SettingsError(f"smtp: must look like smtps://user@host:465, the password is in {SMTP_PASSWORD}")
        self._tls, self._user = parts.scheme == "smtps", parts.username
        self._password = os.environ.get(SMTP_PASSWORD)
        if self._user and not self._password:
            raise SettingsError(f"{SMTP_PASSWORD} is not set")
        self._context = ssl.create_default_context()

    async def send(self, mail: Mail) -> None:
        """See Mailer."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, mail.to, mail.subject
        message["Date"], message["Auto-Submitted"] = formatdate(), "auto-generated"
        message["Message-ID"] = f"<{mail.id}@{self._sender.partition('@')[2]}>"
        message.set_content(mail.text)
        local = self._host in ("localhost", "127.0.0.1", "::1")
        try:
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password if self._user else None,
                use_tls=self._tls,
                start_tls=False if self._tls else None if local else True,
                tls_context=self._context,
                timeout=_TIMEOUT,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            code = min(refused.code for refused in error.recipients)
            raise (Undeliverable if code >= 500 else NotTaken)(f"refused with {code}") from None
        except aiosmtplib.SMTPException as error:
            raise NotTaken(type(error).__name__) from None


class Mailbox:
    """The mails of a development network, the latest thousand, for everybody to read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(self, mail: Mail) -> None:
        """See Mailer."""
        row = {"recipient": mail.to, "subject": mail.subject, "text": mail.text, "sent_at": now_ms()}

        def save(connection: Connection) -> None:
            connection.execute(insert(connection, DevnetMail).values(**row))
            latest = connection.execute(select(func.max(DevnetMail.id))).scalar_one()
            connection.execute(delete(DevnetMail).where(DevnetMail.id <= latest - _KEPT))

        await self._database.write(save)

    async def read(self, to: str | None, limit: int) -> "list[Row[str, str, str, str, int]]":
        """The latest, the newest first."""
        query = select(DevnetMail.__table__).order_by(DevnetMail.id.desc()).limit(limit)
        if to is not None:
            query = query.where(DevnetMail.recipient == to)
        return list(await self._database.read(lambda c: c.execute(query).all()))
