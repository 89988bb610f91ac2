"""A stranger's view: ``python -m tests.stranger`` tries to learn, from outside, who has an account at a gateway, at which
address, and with how much. It says what it tried and what it learned; exit code 0: nothing.

The gateway is a real one, as it runs for the public: addresses must be verified, mails leave by SMTP, a proxy is in front. Its
people have accounts and wallets; for each there is somebody of whom the gateway has never heard. The stranger does the same to
both, in random order, and compares all it gets to see: status, headers, body, and how long it took. The rank test of Mann and
Whitney says whether times differ; beyond ``FAR`` standard deviations chance is no explanation any more (1 in 16,000 each).
"""

import argparse
import json
import random
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from email import message_from_bytes, policy
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
from aiosmtpd.controller import Controller
from webauthn.helpers import bytes_to_base64url

from node.protocol.address import decode_address
from tests.authenticator import Authenticator
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.world import World
from tests.person import PASSWORD
from tests.processes import free_port
from tests.waiting import until

FAR = 4.0
HOLDINGS = "31.41"
"""What each of the people holds: a figure that nothing else shows."""
OUTSIDE = {"X-Forwarded-For": "203.0.113.7"}
"""As the proxy tells the gateway where the stranger is, and everybody else."""
HOME = {"X-Forwarded-For": "192.0.2.1"}
_SETTINGS: dict[str, object] = {
    "devnet": False,
    "public_url": "https://wallet.example.org/",
    "mail_from": "wallet@example.org",
    "trusted_proxies": ["127.0.0.0/8"],
    "attempts_per_address": 1_000_000,
}
_VARYING = [
    (re.compile(r"spay1[a-z0-9]{38}"), "ADDRESS"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"\b\d+(\.\d+)?\b"), "NUMBER"),
]
_PASSING = ("date", "content-length", "x-request-id")


class Mails:
    """The mail server: what the links in its mails bring, by recipient."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        message = message_from_bytes(envelope.content, policy=policy.default)
        if found := re.search(r"verify\?token=(\S+)", message.get_content()):
            self.tokens[str(message["To"])] = found[1]
        return "250 OK"


class Somebody(NamedTuple):
    """With an account. ``private``: what nobody else is to see."""

    email: str
    wallet: dict[str, Any]
    private: tuple[str, ...]


class Gateway:
    """As it can be reached from outside, and the network behind it."""

    def __init__(self, world: World, mails: Mails) -> None:
        self.world, self._mails = world, mails
        self.seen: list[bytes] = []
        self._people = httpx.Client(base_url=world.gateway.url, timeout=40, headers=HOME)
        self.http = httpx.Client(base_url=world.gateway.url, timeout=40, headers=OUTSIDE)
        self.http.event_hooks = {"response": [self._look]}

    def _look(self, answer: httpx.Response) -> None:
        self.seen.append(answer.read())

    def person(self, email: str) -> tuple[httpx.Client, dict[str, Any]]:
        """Signed up, verified and logged in, with a wallet that holds HOLDINGS; his own connection, and the wallet."""
        made = self._people.post("/v1/auth/register", json={"email": email, "password": PASSWORD, "name": _name(email)})
        assert made.status_code == 202, made.text
        token = until(lambda: self._mails.tokens.get(email, ""), f"a mail to {email}")
        assert self._people.post("/v1/auth/verify", json={"token": token}).status_code == 204
        http = self.log_in(email)
        wallet = http.post("/v1/wallets", json={"label": "own"}).json()
        return http, wallet

    def log_in(self, email: str) -> httpx.Client:
        login = self._people.post("/v1/auth/login", json={"email": email, "password": PASSWORD}).json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        return httpx.Client(base_url=self.world.gateway.url, timeout=40, headers=HOME | bearer)

    def fund(self, http: httpx.Client, wallet: dict[str, Any], units: int) -> None:
        network = self.world.network
        network.hand_in(network.sign(USD_ISSUER, decode_address(wallet["address"]), units))
        until(lambda: "USD" in http.get(f"/v1/wallets/{wallet['id']}").json()["balances"], "money")


class Attempt(NamedTuple):
    """What the stranger did, and why it tells who has an account; "" if it does not."""

    what: str
    learned: str
    detail: str


class Stranger:
    def __init__(self, gateway: Gateway, people: Sequence[Somebody]) -> None:
        self._gateway, self._people = gateway, people
        self._label = secrets.token_hex(3)
        self.attempts: list[Attempt] = []
        self.http = gateway.http

    def nobody(self, number: int) -> str:
        """An address as long as somebody's, which the gateway has never heard of."""
        return _email(self._label, number)

    def compare(self, what: str, ask: Callable[[str], tuple[float, list[httpx.Response]]]) -> None:
        """Do the same to all people and to as many of whom nobody has heard."""
        seconds: dict[bool, list[float]] = {True: [], False: []}
        shapes: dict[bool, set[str]] = {True: set(), False: set()}
        for number, person in enumerate(self._people):
            pair = [(True, person.email), (False, self.nobody(number))]
            random.shuffle(pair)
            for is_known, email in pair:
                took, answers = ask(email)
                seconds[is_known].append(took)
                shapes[is_known].add("\n".join(shape(answer, email) for answer in answers))
        deviations = rank_test(seconds[True], seconds[False])
        times = [f"{1000 * median(seconds[is_known]):.2f}" for is_known in (True, False)]
        detail = f"{len(self._people)} of each, {times[0]} and {times[1]} ms, {deviations:+.1f} deviations"
        learned = "the times differ" if abs(deviations) > FAR else ""
        if shapes[True] != shapes[False]:
            learned = f"the answers differ: {min(shapes[True] ^ shapes[False], key=len)}"
        self.attempts.append(Attempt(what, learned, detail))

    def expect(self, what: str, learned: bool, detail: str) -> None:
        self.attempts.append(Attempt(what, "more than it should" if learned else "", detail))

    def timed(self, method: str, path: str, body: object = None) -> tuple[float, httpx.Response]:
        begun = time.perf_counter()
        answer = self.http.request(method, path, json=body)
        return time.perf_counter() - begun, answer

    # -- accounts

    def try_accounts(self) -> None:
        password = {"password": "a good long password 7", "name": "Ann"}
        for what, step, body in (
            ("log in with a wrong password", "login", {"password": "not the one"}),
            ("ask for a new password", "password/forgot", {}),
            ("ask for the verification mail", "verification", {}),
            ("register", "register", password),
            ("register with a weak password", "register", {**password, "password": "password"}),
        ):
            self.compare(what, lambda email, step=step, body=body: self._auth(step, email, body))  # type: ignore[misc]
        self.compare("what is written right after asking for a new password waits longer", self._after_forgot)

    def _auth(self, step: str, email: str, body: dict[str, str]) -> tuple[float, list[httpx.Response]]:
        took, answer = self.timed("POST", f"/v1/auth/{step}", {"email": email, **body})
        return took, [answer]

    def _after_forgot(self, email: str) -> tuple[float, list[httpx.Response]]:
        answers = [self.timed("POST", "/v1/auth/password/forgot", {"email": email})[1]]
        took, answer = self.timed("POST", "/v1/auth/verification", {"email": f"{secrets.token_hex(8)}@example.org"})
        return took, [*answers, answer]

    def try_throttle(self, log_in: Callable[[str], None]) -> None:
        """Whether the passwords that may be tried are fewer where others have just logged in. ``log_in``: as the person does."""
        person = self._people[-1].email
        log_in(person)
        left = []
        for email in (person, self.nobody(len(self._people) - 1)):
            clients = ({"X-Forwarded-For": f"198.51.100.{number // 9}"} for number in range(100))
            asked = {"email": email, "password": "not the one"}
            answers = (self.http.post("/v1/auth/login", json=asked, headers=client).status_code for client in clients)
            left.append(next(number for number, status in enumerate(answers) if status == 429))
        detail = f"{left[0]} and {left[1]} passwords until throttled"
        self.expect("see from the throttle that its owner has logged in", left[0] != left[1], detail)

    # -- payments

    def try_payments(self, wallet: dict[str, Any]) -> None:
        """``wallet``: the stranger's own, with money."""

        def pay(email: str, amount: str = "0.10", wait: float = 0, **more: Any) -> tuple[float, httpx.Response]:
            body = {"from_wallet": wallet["id"], **(more or {"to": email, "asset": "USD", "amount": amount})}
            return self.timed("POST", f"/v1/transfers?wait={wait}", body)

        def pay_and_look(email: str) -> tuple[float, list[httpx.Response]]:
            took, paid = pay(email, wait=15)
            found = paid.json()
            account = found["to"]
            looked = [f"/v1/transfers/{found['id']}", f"/v1/transactions/{found['id']}", f"/v1/transactions/{found['id']}/proof"]
            looked += [f"/v1/accounts/{account}", f"/v1/accounts/{account}/proof", f"/v1/transfers?counterparty={account}"]
            return took, [paid, *(self.http.get(path) for path in looked)]

        def pay_both(email: str) -> tuple[float, list[httpx.Response]]:
            legs = [{"to": to, "asset": "USD", "amount": "0.10"} for to in (email, f"{secrets.token_hex(8)}@example.org")]
            took, answer = pay(email, legs=legs)
            return took, [answer]

        def pay_quickly(email: str, amount: str = "0.10") -> tuple[float, list[httpx.Response]]:
            took, answer = pay(email, amount)
            return took, [answer]

        self.compare("pay an e-mail address", pay_quickly)
        self.compare("pay an e-mail address, wait, look at all there is of it", pay_and_look)
        self.compare("pay several at once", pay_both)
        self.compare("pay an e-mail address more than there is", lambda email: pay_quickly(email, "99999.00"))

    # -- the rest

    def try_the_rest(self) -> None:
        someone = self._people[0]
        random_id = secrets.token_hex(16)
        for what, method, path, body in (
            ("look at somebody's wallet", "GET", "/v1/wallets/{}", None),
            ("rename somebody's wallet", "PATCH", "/v1/wallets/{}", {"label": "mine"}),
            ("read somebody's statement", "GET", "/v1/statements/{}.csv", None),
            ("be paid in somebody's wallet", "PATCH", "/v1/me", {"default_wallet": "{}"}),
            ("ask to be paid there", "POST", "/v1/payment-intents", {"wallet_id": "{}", "asset": "USD", "amount": "1.00"}),
        ):
            answers = []
            for wallet_id in (someone.wallet["id"], random_id):
                filled = json.loads(json.dumps(body).replace("{}", wallet_id))
                answers.append(shape(self.http.request(method, path.format(wallet_id), json=filled), wallet_id))
            self.expect(what, answers[0] != answers[1] or " 404 " not in answers[0], answers[0].partition("\n")[0].strip())
        keys = [someone.wallet["public_key"], "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"]
        forged = [{"public_key": key, "signature": "11" * 64} for key in keys]
        found = [shape(self.http.post("/v1/wallets", json=body), "") for body in forged]
        self.expect("register somebody's key without having it", found[0] != found[1], found[0].partition("\n")[0].strip())
        self._try_passkeys(someone.private[1])
        for path in ("/metrics", "/v1/devnet/mails"):
            status = self.http.get(path).status_code
            self.expect(f"read {path}", status != 404, str(status))

    def _try_passkeys(self, user: str) -> None:
        """``user``: somebody's id, as if the stranger had learned it elsewhere."""
        asked = [self.http.post("/v1/auth/passkey/options").json() for _ in range(2)]
        self.expect("learn from the page's question whose passkeys there are", any(one["allowCredentials"] for one in asked), "")
        own, found = Authenticator("https://wallet.example.org"), []
        for options, claimed in zip(asked, (user, secrets.token_hex(16)), strict=True):
            credential = own.sign(options)
            credential["response"]["userHandle"] = bytes_to_base64url(claimed.encode())
            found.append(shape(self.http.post("/v1/auth/passkey", json={"credential": credential}), ""))
        learned = found[0] != found[1] or " 401 " not in found[0]
        self.expect("log in as somebody with a passkey of one's own", learned, found[0].partition("\n")[0].strip())

    def search(self) -> None:
        """All that was answered, for what only people themselves may know."""
        everything = b"\n".join(self._gateway.seen)
        found = [text for person in self._people for text in person.private if text.encode() in everything]
        detail = f"{len(self._gateway.seen)} answers, {len(everything) >> 10} KiB"
        self.expect("find a name, an id, an address or a balance in anything that was answered", bool(found), detail)


def shape(answer: httpx.Response, asked: str) -> str:
    """An answer without what differs each time: whom it was asked about, ids, addresses, numbers, times."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in _PASSING)
    text = f"\n{answer.text}\n{headers}".replace(asked, "ASKED") if asked else f"\n{answer.text}\n{headers}"
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return f" {answer.status_code} {text}"


def rank_test(one: Sequence[float], other: Sequence[float]) -> float:
    """By how many standard deviations the sum of ranks of ``one`` is from what chance makes of it (Mann and Whitney's U)."""
    ranked = sorted([(value, True) for value in one] + [(value, False) for value in other])
    n, m = len(one), len(other)
    ranks = sum(rank for rank, (_, is_one) in enumerate(ranked, 1) if is_one)
    mean, variance = n * (n + m + 1) / 2, n * m * (n + m + 1) / 12
    return float((ranks - mean) / variance**0.5)


def attempts(folder: Path, samples: int, until_throttled: bool = True) -> list[Attempt]:
    """What a stranger tries at a gateway with so many people. ``until_throttled``: also 60 passwords each."""
    with ExitStack() as stack:
        mails, port = Mails(), free_port()
        controller = Controller(mails, hostname="127.0.0.1", port=port)
        controller.start()
        stack.callback(controller.stop)
        world = stack.enter_context(closing(World(folder, {**_SETTINGS, "smtp": f"smtp://127.0.0.1:{port}"})))
        world.start_gateway()
        gateway = Gateway(world, mails)
        stranger = Stranger(gateway, [_somebody(gateway, number) for number in range(samples)])
        stranger.try_accounts()
        if until_throttled:
            stranger.try_throttle(lambda email: gateway.log_in(email).close())
        own, wallet = gateway.person("stranger@example.org")
        gateway.fund(own, wallet, 100_000)
        stranger.http.headers["Authorization"] = own.headers["Authorization"]
        stranger.try_payments(wallet)
        stranger.try_the_rest()
        stranger.search()
        return stranger.attempts


def _somebody(gateway: Gateway, number: int) -> Somebody:
    email = _email("people", number)
    http, wallet = gateway.person(email)
    user = http.get("/v1/me").json()["id"]
    if number == 0:
        gateway.fund(http, wallet, int(HOLDINGS.replace(".", "")))
    # Neither their addresses nor their public keys: those are on the ledger, for everybody. That they are theirs is not.
    return Somebody(email, wallet, (_name(email), user, wallet["address"], HOLDINGS))


def _email(label: str, number: int) -> str:
    return f"{label:.6}-{number % 10_000:04}@example.org"


def _name(email: str) -> str:
    return f"Name-of-{email.partition('@')[0]}"


def told(found: Iterable[Attempt]) -> list[str]:
    """A line for each, and what was learned."""
    found = list(found)
    lines = [f"{'LEARNED' if one.learned else 'nothing':8} {one.what}: {one.learned or 'alike'} ({one.detail})" for one in found]
    learned = [one.what for one in found if one.learned]
    return [*lines, f"learned: {'; '.join(learned) or 'nothing'}"]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stranger", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--samples", type=int, default=100, metavar="N", help="people with an account, and as many without")
    samples = parser.parse_args(arguments).samples
    with tempfile.TemporaryDirectory() as folder:
        found = attempts(Path(folder), samples)
    print("\n".join(told(found)))
    return int(any(one.learned for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
