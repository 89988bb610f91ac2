"""The key-encryption key is changed: killed in the middle it goes on, a gateway works meanwhile, and in the end the old key opens
nothing."""

import ast
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyotp
import pytest
from sqlalchemy import Engine, insert, select, update

import gateway
from gateway import rotation
from gateway.__main__ import main
from gateway.database import Base, Wallet, open_engine
from gateway.events.signatures import verify
from gateway.identity.tables import User
from gateway.identity.tokens import Tokens
from gateway.problems import Problem
from gateway.rotation import SEALED, STEP
from gateway.vault import KEY_ENCRYPTION_KEY, TOKEN_SECRET, SecretError, Vault, WrongKey, read_secrets
from scripts.devnet.layout import ROOT
from tests.gateway.world import World
from tests.person import PASSWORD
from tests.receiver import Receiver
from tests.waiting import until

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
IBAN = "DE89370400440532013000"
BOTH = f"{NEW.hex()},{OLD.hex()}"
SEALERS = {"wallets": 1, "receiving": 1, "money.payouts": 1, "events.webhooks": 1, "identity.second_factor": 1}
"""How often each part of the gateway seals something."""
Row = tuple[str, Any, bytes]


def rows(engine: Engine) -> list[Row]:
    """All that is sealed: (column, key, sealed)."""
    with engine.connect() as connection:
        found = [(sealed.name, row) for sealed in SEALED for row in connection.execute(select(sealed.key, sealed.column))]
    return [(name, key, value) for name, (key, value) in found if value]


def opened_by(vault: Vault, found: list[Row]) -> list[bytes | None]:
    """The secrets; None for what does not open."""

    def open_one(name: str, key: Any, value: bytes) -> bytes | None:
        owner = next(sealed.owner for sealed in SEALED if sealed.name == name)
        try:
            return vault.open(value, owner(key))
        except WrongKey:
            return None

    return [open_one(*row) for row in found]


def test_killed_in_the_middle_it_goes_on_and_then_the_old_key_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, old, new = f"sqlite:///{tmp_path}/gateway.db", Vault(OLD), Vault(NEW)
    engine = open_engine(url)
    keys = [secrets.token_bytes(32) for _ in range(10 * STEP)]
    with engine.begin() as connection:
        user = {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 1}
        connection.execute(insert(User), user)
        wallets = [
            {
                "id": key.hex()[:32],
                "user_id": "u",
                "label": "",
                "address": key[:20],
                "public_key": key,
                "sealed_key": old.seal(key, key[:20]),
                "archived": False,
                "created_at": 1,
            }
            for key in keys
        ]
        connection.execute(insert(Wallet), wallets)
    (tmp_path / "gateway.toml").write_text(f"genesis = ''\ndatabase = '{url}'\nbroker = ''\n")
    arguments, environment = ["--config", str(tmp_path / "gateway.toml")], {KEY_ENCRYPTION_KEY: BOTH}
    command = [sys.executable, "-m", "gateway", "rotate-key", *arguments]
    killed = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    first = select(Wallet.sealed_key).order_by(Wallet.address).limit(1)

    def has_begun() -> bool:
        with engine.connect() as connection:
            return (connection.execute(first).scalar() or b"").startswith(new.key_id)

    until(has_begun, "the first step", pause=0.0)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    half = rows(engine)
    assert set(opened_by(Vault(NEW, OLD), half)) == set(keys), "whatever it was doing, all can be read"
    assert all(None in opened_by(one, half) for one in (old, new)), "it was killed in the midst of it"
    monkeypatch.setenv(KEY_ENCRYPTION_KEY, BOTH)
    assert main(["rotate-key", *arguments]) == 0
    assert f"wallets.sealed_key: {len(keys)} open" in capsys.readouterr().out
    whole = rows(engine)
    assert set(opened_by(new, whole)) == set(keys)
    assert set(opened_by(old, whole)) == {None}
    engine.dispose()


def test_what_no_key_opens_is_named_and_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/gateway.db")
    foreign = Vault(bytes(32)).seal(b"secret", b"a" * 20)
    with engine.begin() as connection:
        connection.execute(insert(User), {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 1})
        row = {"id": "w", "user_id": "u", "label": "", "address": b"a" * 20, "public_key": b"", "archived": False}
        connection.execute(insert(Wallet), row | {"sealed_key": foreign, "created_at": 1})
    assert rotation.rotate(engine, Vault(NEW, OLD)) == 1
    assert (b"a" * 20).hex() in capsys.readouterr().err
    assert [value for _, _, value in rows(engine)] == [foreign]
    with pytest.raises(SecretError):
        rotation.check_key(engine, Vault(NEW, OLD))
    rotation.check_key(engine, Vault(bytes(32)))
    engine.dispose()


def test_what_a_gateway_changes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    engine, (wallet, *_) = open_engine(f"sqlite:///{tmp_path}/gateway.db"), SEALED
    old, other = Vault(OLD), Vault(NEW).seal(b"another", b"a" * 20)
    with engine.begin() as connection:
        connection.execute(insert(User), {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 1})
        row = {"id": "w", "user_id": "u", "label": "", "address": b"a" * 20, "public_key": b"", "archived": False}
        connection.execute(insert(Wallet), row | {"sealed_key": old.seal(b"secret", b"a" * 20), "created_at": 1})

    class Meddled(Vault):
        def seal(self, secret: bytes, owner: bytes) -> bytes:
            with engine.begin() as connection:
                connection.execute(update(Wallet).values(sealed_key=other))
            return super().seal(secret, owner)

    assert rotation.rotate_column(engine, Meddled(NEW, OLD), wallet).moved == 0
    assert [value for _, _, value in rows(engine)] == [other]
    engine.dispose()


def test_secrets_are_one_or_two_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_SECRET, BOTH)
    assert read_secrets(TOKEN_SECRET, devnet=False) == (NEW, OLD)
    for wrong in (f"{BOTH},{secrets.token_hex(32)}", f"{NEW.hex()},{NEW.hex()}", f"{NEW.hex()},", f"{NEW.hex()},00", "," + BOTH):
        monkeypatch.setenv(TOKEN_SECRET, wrong)
        with pytest.raises(SecretError) as error:
            read_secrets(TOKEN_SECRET, devnet=False)
        assert NEW.hex() not in str(error.value)


def test_every_part_that_seals_is_known_to_the_rotation() -> None:
    """Who seals something more adds its column to ``SEALED`` and here, and to the story below, which looks for it everywhere."""
    folder, found = Path(gateway.__file__).parent, dict[str, int]()
    for path in folder.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        count = sum(isinstance(call.func, ast.Attribute) and call.func.attr == "seal" for call in calls)
        if count and path.name != "rotation.py":
            found[".".join(path.relative_to(folder).with_suffix("").parts)] = count
    assert found == SEALERS


class Holder:
    """Somebody who has something of all that is sealed, and uses it. The network must not make blocks after this."""

    def __init__(self, world: World, shop: Receiver) -> None:
        self.shop, self.ann = shop, world.person().verify()
        self.user = self.ann.get("/v1/me").json()["id"]
        self.purse = self.ann.wallet(USD="50.00")
        app = pyotp.TOTP(self.ann.post("/v1/me/totp", {"password": PASSWORD}).json()["secret"])
        self.codes = self.ann.post("/v1/me/totp/confirm", {"code": app.now()}).json()["recovery_codes"]
        assert self.ann.pay(self.purse, "nobody@example.org", "1.00", wait=20).status_code == 200
        made = self.ann.post("/v1/webhook-endpoints", {"url": shop.url, "events": ["transfer.committed"]}).json()
        self.endpoint = made["id"]
        assert self.ann.post(f"/v1/webhook-endpoints/{self.endpoint}/rotate-secret", {}).status_code == 200
        self.secret = made["secret"]
        world.network.hold = True
        payout = {"wallet_id": self.purse["id"], "asset": "USD", "amount": "5.00", "iban": IBAN, "name": "Ann"}
        self.payout = self.ann.post("/v1/payouts", payout).json()["id"]

    def use(self) -> None:
        """Pay, log in with the second factor, be told by webhook under the secret of before."""
        paid = self.ann.pay(self.purse, "other@example.org", "1.00", wait=20).json()
        assert paid["status"] == "committed"
        (got,) = self.shop.wait(1, lambda got: got.event["data"]["id"] == paid["id"])
        verify(got.body, got.headers["Shardpay-Signature"], self.secret, time.time())
        body = {"email": self.ann.email, "password": PASSWORD, "code": self.codes.pop()}
        session = self.ann.http.post("/v1/auth/login", json=body)
        assert session.status_code == 200, session.text
        self.ann.http.headers["Authorization"] = f"Bearer {session.json()['access_token']}"


def columns_that_hold(engine: Engine, key_id: bytes) -> set[str]:
    """Columns of all tables, whether known as sealed or not, in which a value begins so."""
    found = set[str]()
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for row in connection.execute(select(table)).mappings():
                blobs = [(name, value) for name, value in row.items() if isinstance(value, bytes)]
                found |= {f"{table.name}.{name}" for name, value in blobs if value.startswith(key_id)}
    return found


def test_a_gateway_works_while_its_secrets_are_changed(new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world, later = new_world(), secrets.token_bytes(32)
    former = bytes.fromhex(world.gateway.environment[TOKEN_SECRET])
    changed = {KEY_ENCRYPTION_KEY: f"{OLD.hex()},{NEW.hex()}", TOKEN_SECRET: f"{later.hex()},{former.hex()}"}
    world.gateway.environment = {**world.gateway.environment, **changed}
    world.start_gateway()
    engine = open_engine(f"sqlite:///{world.folder}/gateway.db")
    with closing(Receiver()) as shop:
        holder = Holder(world, shop)
        assert columns_that_hold(engine, Vault(OLD).key_id) == {sealed.name for sealed in SEALED}
        assert rotation.rotate(engine, Vault(NEW, OLD)) == 0
        assert columns_that_hold(engine, Vault(OLD).key_id) == set()
        world.network.hold = False
        until(lambda: holder.ann.get(f"/v1/payouts/{holder.payout}").json()["status"] == "paid")
        holder.use()
    for secret, status in ((later, 200), (former, 200), (bytes(32), 401)):
        holder.ann.http.headers["Authorization"] = f"Bearer {Tokens(secret, 60).make(holder.user, 'session')}"
        assert holder.ann.get("/v1/me").status_code == status
    for name, value in changed.items():
        monkeypatch.setenv(name, value.split(",")[-1])
    assert main(["--config", str(world.gateway.config)]) == 2, "it went on to seal with the first key: without it none starts"
    assert rotation.rotate(engine, Vault(NEW, OLD)) == 0
    rotation.check_key(engine, Vault(NEW))
    engine.dispose()


def test_a_token_is_good_while_the_secret_that_signed_it_is_kept() -> None:
    token, now = Tokens(OLD, 60).make("ann", "session"), Tokens(NEW, 60)
    with pytest.raises(Problem):
        now.caller(token)
    now.former = (OLD,)
    assert now.user_of(token) == "ann"
    with pytest.raises(Problem):
        now.user_of(Tokens(bytes(32), 60).make("ann", "session"))
