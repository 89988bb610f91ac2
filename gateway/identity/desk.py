"""The parts of identity, wired together."""

from gateway.database import Database
from gateway.identity.accounts import Accounts
from gateway.identity.api_keys import ApiKeys
from gateway.identity.closing import Closing
from gateway.identity.mailer import Mailbox, Mailer
from gateway.identity.mails import Mails
from gateway.identity.notices import Notices
from gateway.identity.passkeys import Passkeys
from gateway.identity.passkeys import forget as forget_passkeys
from gateway.identity.passwords import Passwords
from gateway.identity.second_factor import SecondFactor
from gateway.identity.sessions import Sessions
from gateway.identity.throttle import Throttle
from gateway.identity.tokens import Tokens
from gateway.identity.verification import Verification
from gateway.jobs import Jobs
from gateway.vault import Vault


class Identity:
    """Who somebody is. ``mailbox``: shows mails where no server sends them, else None."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        vault: Vault,
        tokens: Tokens,
        secret: bytes,
        throttle: Throttle,
        mailer: Mailer | None,
        public_url: str,
        must_verify: bool,
    ) -> None:
        self.tokens, self.throttle = tokens, throttle
        self.sessions, self.notices = Sessions(database, tokens), Notices(database, tokens)
        self.api_keys = ApiKeys(database, tokens, self.notices)
        self.passwords, self.mailbox = Passwords(), Mailbox(database) if mailer is None else None
        self.mails = Mails(database, jobs, mailer or Mailbox(database), public_url)
        self.second_factor = SecondFactor(database, vault, throttle)
        self.accounts = Accounts(database, self.passwords, self.second_factor, self.sessions, self.mails, must_verify)
        self.passkeys = Passkeys(database, self.mails, self.sessions, secret, public_url)
        self.verification = Verification(self.passwords, self.sessions, self.mails)
        self.closing = Closing(database, self.accounts, self.sessions, tokens)
        self.closing.erasers += [self.mails.forget, self.second_factor.forget, forget_passkeys]

    async def load(self) -> None:
        """Learn what the database has to say before the first request."""
        await self.notices.begin()
        await self.sessions.load()
        await self.api_keys.load()
