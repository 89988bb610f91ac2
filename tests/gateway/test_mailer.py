"""Sending mails: to a real mail server, with TLS, until it takes them; and no token is stored in clear."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from sqlalchemy import select, update

from config.settings import SettingsError
from gateway.database import Database
from gateway.identity.mail_texts import Letter
from gateway.identity.mailer import SMTP_PASSWORD, Mail, Mailer, NotTaken, SmtpMailer, Undeliverable
from gateway.identity.mails import Mails
from gateway.identity.tables import MailOrder, MailToken
from gateway.jobs import Jobs
from tests.gateway.registered import ann_registered
from tests.processes import free_port

MAIL = Mail("17", "ann@example.org", "请确认您的电子邮箱", "打开以下链接\nhttps://wallet.example.org/#/verify?token=abc\n")


class MailServer:
    """Takes mails after a login over TLS. What it is told to refuse it refuses, with this code."""

    def __init__(self) -> None:
        self.taken: list[tuple[bool, EmailMessage]] = []
        self.refusing = ""

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if self.refusing:
            return self.refusing
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        message = message_from_bytes(envelope.content, policy=default)
        self.taken.append((session.ssl is not None and session.authenticated, message))
        return "250 OK"

    def log_in(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=given == LoginPassword(b"gateway", b"the mail password"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def served(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MailServer, int]]:
    """A mail server, and its port; the certificate is trusted, the password known."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv(SMTP_PASSWORD, "the mail password")
    context, server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), MailServer()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    options: dict[str, Any] = {
        "require_starttls": True,
        "auth_required": True,
        "authenticator": server.log_in,
        "tls_context": context,
    }
    controller = Controller(server, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    yield server, controller.port
    controller.stop()


def test_a_mail_goes_to_the_server_by_tls_and_with_the_password(served: tuple[MailServer, int]) -> None:
    server, port = served
    asyncio.run(SmtpMailer(f"smtp://gateway@127.0.0.1:{port}", "Wallet@Example.org").send(MAIL))
    ((is_safe, message),) = server.taken
    assert is_safe
    assert (message["From"], message["To"], message["Subject"]) == ("wallet@example.org", MAIL.to, MAIL.subject)
    assert (message["Message-ID"], message["Auto-Submitted"]) == ("<17@example.org>", "auto-generated")
    assert message.get_content().replace("\r\n", "\n") == MAIL.text


def test_a_server_with_another_certificate_gets_neither_password_nor_mail(served: tuple[MailServer, int], tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    server, port = served
    with pytest.raises(ssl.SSLError):
        asyncio.run(SmtpMailer(f"smtp://gateway@127.0.0.1:{port}", "wallet@example.org").send(MAIL))
    assert server.taken == []


@pytest.mark.parametrize(("answer", "for_good"), [("550 nobody here", True), ("451 later", False)])
def test_only_what_a_server_refuses_for_good_is_not_tried_again(
    served: tuple[MailServer, int], answer: str, for_good: bool
) -> None:
    server, port = served
    server.refusing = answer
    with pytest.raises((Undeliverable, NotTaken), match=f"refused with {answer[:3]}$") as error:
        asyncio.run(SmtpMailer(f"smtp://gateway@127.0.0.1:{port}", "wallet@example.org").send(MAIL))
    assert isinstance(error.value, Undeliverable) is for_good


@pytest.mark.parametrize(
    ("url", "sender", "complaint"),
    [
        ("http://mail.example.org", "wallet@example.org", "smtps://"),
        ("smtp://", "wallet@example.org", "smtps://"),
        ("smtp://gateway:secret@mail.example.org", "wallet@example.org", SMTP_PASSWORD),
        ("smtp://gateway@mail.example.org", "wallet@example.org", f"{SMTP_PASSWORD} is not set"),
        ("smtp://mail.example.org", "", "mail_from"),
        ("smtp://mail.example.org:many", "wallet@example.org", "smtp"),
    ],
)
def test_wrong_settings_are_told_and_no_password(monkeypatch: pytest.MonkeyPatch, url: str, sender: str, complaint: str) -> None:
    monkeypatch.delenv(SMTP_PASSWORD, raising=False)
    with pytest.raises(SettingsError, match=complaint) as error:
        SmtpMailer(url, sender)
    assert "secret" not in str(error.value)


class Box:
    """A mailer that fails so many times before it takes mails; ``never``: it refuses them for good."""

    def __init__(self, failures: int = 0, never: bool = False) -> None:
        self.failures, self.never, self.taken = failures, never, list[Mail]()

    async def send(self, mail: Mail) -> None:
        if self.never:
            raise Undeliverable
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError
        self.taken.append(mail)


@asynccontextmanager
async def opened(folder: Path, box: Mailer) -> AsyncIterator[tuple[Mails, Jobs, Database]]:
    """Mails as a gateway has them."""
    async with ann_registered(folder) as database:
        jobs = Jobs(database)
        yield Mails(database, jobs, box, "https://wallet.example.org"), jobs, database


def order(folder: Path, letter: Letter, ago: int = 0) -> None:
    """Have a gateway take an order, so many ms ago, and end before it does anything about it."""

    async def story() -> None:
        async with opened(folder, Box()) as (mails, _, database):
            await mails.write(lambda c: mails.order(c, letter, "ann@example.org"))
            past = update(MailOrder).values(created_at=MailOrder.created_at - ago)
            await database.write(lambda c: c.execute(past) and None)

    asyncio.run(story())


def carry_out(folder: Path, box: Mailer) -> None:
    """Have the next gateway work until nothing is ordered any more."""

    async def story() -> None:
        async with opened(folder, box) as (_, jobs, database), asyncio.timeout(20):
            working = asyncio.create_task(jobs.run())
            while await database.read(lambda c: c.execute(select(MailOrder.id)).first()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            working.cancel()

    asyncio.run(story())


def test_what_was_ordered_is_sent_again_until_it_is_taken_also_by_the_next_gateway(tmp_path: Path) -> None:
    box = Box(failures=1)
    order(tmp_path, Letter.RESET)
    carry_out(tmp_path, box)
    assert [(mail.to, mail.subject) for mail in box.taken] == [("ann@example.org", "Choose a new password")]


@pytest.mark.parametrize(("box", "ago"), [(Box(never=True), 0), (Box(failures=1000), 3_700_000)], ids=["refused", "too old"])
def test_a_mail_that_nobody_takes_is_given_up(tmp_path: Path, box: Box, ago: int) -> None:
    order(tmp_path, Letter.VERIFY, ago)
    carry_out(tmp_path, box)
    assert box.taken == []


def test_a_link_that_is_too_old_proves_nothing(tmp_path: Path) -> None:
    async def proves(letter: Letter, token: str, hours: float) -> bool:
        async with opened(tmp_path, Box()) as (mails, _, database):
            sooner = update(MailToken).values(expires_at=MailToken.expires_at - int(hours * 3_600_000))
            await database.write(lambda c: c.execute(sooner) and None)
            return await mails.prove(token, letter) is not None

    for letter, lifetime in ((Letter.VERIFY, 24), (Letter.RESET, 1)):
        box = Box()
        order(tmp_path, letter)
        carry_out(tmp_path, box)
        token = box.taken[0].text.partition("token=")[2].split()[0]
        assert asyncio.run(proves(letter, token, lifetime - 0.05))
        assert not asyncio.run(proves(letter, token, 0.1))


def test_the_token_of_a_link_is_not_in_the_database(tmp_path: Path) -> None:
    box = Box()
    order(tmp_path, Letter.VERIFY)
    carry_out(tmp_path, box)
    found = re.search(r"token=(\S{43})", box.taken[0].text)
    assert found
    written = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.*"))
    assert b"mail_tokens" in written
    assert found[1].encode() not in written
