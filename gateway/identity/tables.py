"""Users, their sessions and what else proves who somebody is. Of every token only the SHA-256 is stored."""

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class User(Base):
    """``verified_at``: when the e-mail address was proven; ``closed_at``: when nothing but the id was left;
    ``suspended_at``: since then he cannot log in; ms."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int]
    language: Mapped[str] = mapped_column(String(2), default="en")
    default_wallet: Mapped[str | None] = mapped_column(String(32))
    verified_at: Mapped[int | None]
    closed_at: Mapped[int | None]
    suspended_at: Mapped[int | None]


class Session(Base):
    """A login. ``expires_at``: of its newest refresh token; ``access_until``: of its newest access token, ms.

    One that has ended is kept until no access token of it can be good any more.
    """

    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[int]
    last_used_at: Mapped[int]
    expires_at: Mapped[int]
    access_until: Mapped[int]
    ended: Mapped[bool] = mapped_column(default=False)
    user_agent: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(45))


class RefreshToken(Base):
    """One link of a session's chain; ``used`` when it has been traded for the next."""

    __tablename__ = "refresh_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    expires_at: Mapped[int]
    used: Mapped[bool]


class MailOrder(Base):
    """A mail to be sent to an address, if anybody has it. What it says is written, and its token made, when it is sent."""

    __tablename__ = "mail_orders"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(12))
    email: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[int]


class MailToken(Base):
    """What a link in a mail proves, once."""

    __tablename__ = "mail_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    purpose: Mapped[str] = mapped_column(String(12))
    expires_at: Mapped[int]


class DevnetMail(Base):
    """A mail that a development network's gateway shows instead of sending it."""

    __tablename__ = "devnet_mails"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    recipient: Mapped[str] = mapped_column(String(254), index=True)
    subject: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    sent_at: Mapped[int]


class ApiKey(Base):
    """``scopes``: with spaces between them."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(String(100))
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[int]


class TotpSecret(Base):
    """``sealed``: in the vault. ``confirmed_at``: since when it counts, ms. ``last_step``: of time, whose code was used last."""

    __tablename__ = "totp_secrets"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    sealed: Mapped[bytes]
    confirmed_at: Mapped[int | None]
    last_step: Mapped[int]


class Passkey(Base):
    """``credential_id``: by which the device knows it. ``public_key``: in COSE form. ``sign_count``: of its latest signature, 0
    where the device does not count."""

    __tablename__ = "passkeys"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    credential_id: Mapped[bytes] = mapped_column(unique=True)
    public_key: Mapped[bytes]
    sign_count: Mapped[int]
    created_at: Mapped[int]
    last_used_at: Mapped[int | None]


class UsedChallenge(Base):
    """What has been signed, until it would not be taken any more anyway."""

    __tablename__ = "used_challenges"
    challenge_hash: Mapped[bytes] = mapped_column(primary_key=True)
    expires_at: Mapped[int] = mapped_column(index=True)


class RecoveryCode(Base):
    __tablename__ = "recovery_codes"
    code_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
