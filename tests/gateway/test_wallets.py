"""Wallets: keys that are kept elsewhere, taken along and brought along; names; what is put aside."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from Crypto.IO import PEM
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.database import Cursor, insert
from gateway.events.outbox import Outbox
from gateway.keystore import decrypt_key, encrypt_key, open_key, ownership, proves_ownership
from gateway.ledger import Ledger
from gateway.owners import Owners
from gateway.problems import Problem
from gateway.vault import Vault
from gateway.wallets import Wallets
from node.protocol.address import address_of, encode_address
from node.protocol.block import Balance
from node.protocol.chain import Chain
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate
from node.protocol.queries import Account
from tests.gateway.registered import ann_registered
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import PASSWORD

PASSPHRASE = "räksmörgås på bordet"


def test_a_key_is_registered_only_by_who_has_it(world: World) -> None:
    owner, other, pair = world.person(), world.person(), generate()
    proof = owner.proof_of(pair)
    assert problem(other.post("/v1/wallets", proof)) == (422, "bad_signature"), "made for somebody else"
    assert problem(other.post("/v1/wallets", {"public_key": proof["public_key"]})) == (422, "invalid_request")
    forged = {"public_key": proof["public_key"], "signature": other.proof_of(generate())["signature"]}
    assert problem(other.post("/v1/wallets", forged)) == (422, "bad_signature")
    assert owner.post("/v1/wallets", proof).json()["custodial"] is False


def test_an_account_that_nobody_tells_of_is_not_registered_until_somebody_does(world: World) -> None:
    owner, payer, pair = world.person(), world.person(), generate()
    till = payer.wallet(USD="3.00")
    with world.network.switched(silent=True):
        assert problem(owner.post("/v1/wallets", owner.proof_of(pair))) == (503, "no_agreement")
    assert owner.get("/v1/wallets").json()["items"] == []
    assert payer.pay(till, encode_address(address_of(pair.public)), "3.00", wait=20).json()["status"] == "committed"
    wallet = owner.wallet(key=pair)
    assert owner.balance(wallet) == ("3.00", "0.00")
    assert payer.pay(payer.wallet(USD="1.00"), wallet["address"], "1.00", wait=20).json()["status"] == "committed"
    assert owner.balance(wallet) == ("4.00", "0.00")


def test_what_a_key_holds_is_not_taken_from_an_epoch_that_another_process_has_gone_beyond(tmp_path: Path) -> None:
    home, pair = Chain(1, 0), generate()

    class Behind:
        """This process's epochs, and what the first one's committee says to the end: it has not heard of the second."""

        electorates: ClassVar[dict[Chain, None]] = {home: None}

        def home_of(self, _: bytes) -> Chain:
            return home

        async def account(self, *_: object) -> Account:
            return Account(5, (("USD", Balance(100, 0, False)),))

    async def story() -> None:
        async with ann_registered(tmp_path) as database:
            outbox, behind = Outbox(database), cast(Any, Behind())
            wallets = Wallets(database, Vault(bytes(32)), behind, Ledger(database, outbox, Owners(), 600_000), behind)

            async def followed(epoch: int, height: int) -> None:
                place = {"epoch": epoch, "shard": 0, "height": height, "hash": b"", "time": 0}
                await database.write(lambda c: c.execute(insert(c, Cursor).values(**place)) and None)

            await followed(1, 5)
            assert (await wallets.create("ann", "", generate().public)).sealed_key is None
            await followed(2, 0)
            with pytest.raises(Problem) as refused:
                await wallets.create("ann", "", pair.public)
            assert refused.value.code == "not_ready"

    asyncio.run(story())


def test_a_proof_of_ownership_is_good_for_one_user_of_one_network() -> None:
    pair = KeyPair(bytes(31) + b"\x07")
    signature = pair.sign(ownership(bytes(32), "ann"))
    assert proves_ownership(pair.public, signature, bytes(32), "ann")
    assert not proves_ownership(pair.public, signature, bytes(32), "bob")
    assert not proves_ownership(pair.public, signature, b"\x01" * 32, "ann")
    assert not proves_ownership(pair.public, b"", bytes(32), "ann")


def test_a_wallets_key_can_be_taken_along_with_the_password_and_openssl_reads_it(world: World) -> None:
    ann = world.person()
    wallet = ann.wallet()
    path, right = f"/v1/wallets/{wallet['id']}/export", {"password": PASSWORD, "passphrase": PASSPHRASE}
    assert problem(ann.post(path, right | {"password": "another"})) == (403, "wrong_password")
    assert problem(ann.post(path, right | {"passphrase": "short"})) == (422, "invalid_request")
    assert problem(world.person().post(path, right)) == (404, "wallet_not_found")
    taken: dict[str, Any] = ann.post(path, right).json()
    key = load_pem_private_key(taken["encrypted_key"].encode(), PASSPHRASE.encode())
    assert isinstance(key, EllipticCurvePrivateKey)
    pair = KeyPair(key.private_numbers().private_value.to_bytes(32, "big"))
    assert encode_address(address_of(pair.public)) == wallet["address"] == taken["address"]


def test_a_key_that_is_brought_along_pays(world: World) -> None:
    ann, pair = world.person(), generate()
    till, brought = ann.wallet(), {"encrypted_key": encrypt_key(pair, PASSPHRASE), "passphrase": PASSPHRASE}
    assert problem(ann.post("/v1/wallets", brought | {"passphrase": "another passphrase"})) == (422, "invalid_key")
    wallet = ann.post("/v1/wallets", brought | {"label": "from home"}).json()
    assert (wallet["address"], wallet["custodial"]) == (encode_address(address_of(pair.public)), True)
    assert ann.faucet(wallet, "2.00", wait=20).json()["status"] == "committed"
    assert ann.pay(wallet, till["address"], "2.00", wait=20).json()["status"] == "committed"
    assert problem(ann.post("/v1/wallets", brought)) == (409, "key_taken")


def test_an_encrypted_key_that_would_take_minutes_to_open_is_refused_at_once() -> None:
    pem = encrypt_key(KeyPair(bytes(31) + b"\x07"), PASSPHRASE)
    assert decrypt_key(pem, PASSPHRASE).secret == bytes(31) + b"\x07"
    wrapped, label, _ = PEM.decode(pem)
    slow = wrapped.replace((210_000).to_bytes(3, "big"), (0x7FFFFF).to_bytes(3, "big"))
    assert slow != wrapped
    with pytest.raises(ValueError, match="at most 2000000 iterations"):
        decrypt_key(PEM.encode(slow, label), PASSPHRASE)
    for junk in ("", "junk", PEM.encode(b"\x30\x00", label), PEM.encode(wrapped[:40], label), PEM.encode(wrapped, "PRIVATE KEY")):
        with pytest.raises(ValueError, match=r".+"):
            decrypt_key(junk, PASSPHRASE)


def test_a_user_brings_few_keys_a_minute_whether_or_not_they_can_be_opened(world: World) -> None:
    ann, bob, junk = world.person(), world.person(), {"encrypted_key": "junk", "passphrase": PASSPHRASE}
    assert {problem(ann.post("/v1/wallets", junk)) for _ in range(10)} == {(422, "invalid_key")}
    refused = ann.post("/v1/wallets", junk)
    assert problem(refused) == (429, "too_many_attempts")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert problem(bob.post("/v1/wallets", junk)) == (422, "invalid_key")
    assert ann.wallet()["custodial"], "a new key costs nothing"


def test_no_key_is_opened_for_who_may_have_no_more_wallets(world: World) -> None:
    ann = world.person()
    for _ in range(100):
        ann.wallet()
    assert problem(ann.post("/v1/wallets", {"encrypted_key": "junk", "passphrase": PASSPHRASE})) == (409, "limit_exceeded")


def test_keys_that_are_brought_along_take_no_threads_from_others() -> None:
    pem = encrypt_key(KeyPair(bytes(31) + b"\x07"), PASSPHRASE)

    async def story() -> tuple[int, bytes]:
        opening = [asyncio.create_task(open_key(pem, PASSPHRASE)) for _ in range(40)]
        await asyncio.sleep(0)  # all have begun
        await asyncio.to_thread(lambda: None)
        done = sum(task.done() for task in opening)
        pair = await opening[0]
        for task in opening:
            task.cancel()
        return done, pair.secret

    done, secret = asyncio.run(story())
    assert done < 5, "what others do in threads waits for few of them"
    assert secret == bytes(31) + b"\x07"


def test_a_wallet_is_renamed_and_put_aside(world: World) -> None:
    ann = world.person()
    wallet = ann.wallet()
    path = f"/v1/wallets/{wallet['id']}"
    changed = ann.http.patch(path, json={"label": "savings", "archived": True}).json()
    assert (changed["label"], changed["archived"]) == ("savings", True)
    assert ann.http.patch(path, json={"archived": False}).json() == changed | {"archived": False}
    assert ann.get("/v1/wallets").json()["items"] == [changed | {"archived": False}]
    assert problem(world.person().http.patch(path, json={"label": "mine"})) == (404, "wallet_not_found")
