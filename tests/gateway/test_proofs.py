"""Proofs as the gateway hands them out, checked without it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from gateway.proofs.command import main
from node.protocol.address import address_of, encode_address
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.waiting import until


def verify(world: World, answer: httpx.Response, folder: Path) -> int:
    """Exit code of the command."""
    assert answer.status_code == 200, answer.text
    (folder / "proof.json").write_bytes(answer.content)
    document = world.network.chains.document.hash.hex()
    return main([f"{folder}/proof.json", "--genesis", f"{world.folder}/genesis.json", "--document-1", document])


def test_a_payment_is_proven_to_who_has_the_genesis_and_the_answer(world: World, tmp_path: Path, capsys: Any) -> None:
    for other in (0, 1):
        made = world.deal(0, other)
        paid = made.pay("2.50", wait=15)
        assert paid["status"] == "committed"
        answer = world.gateway.http.get(f"/v1/transactions/{paid['id']}/proof")
        assert verify(world, answer, tmp_path) == 0
        said = capsys.readouterr().out
        assert f"transaction {paid['id']} is committed" in said
        assert f"2.50 USD from {made.purse['address']} to {made.till['address']}" in said
        assert [f"Committed in shard {shard}, block" in said for shard in (0, 1)] == [True, other == 1]
        claim = answer.json()["claim"]
        assert (claim["receipts"][0]["block"]["height"], len(claim["receipts"])) == (paid["height"], other + 1)
        assert claim["network"]["document"] == world.gateway.http.get("/v1/network").json()["document"]


def test_an_account_is_proven_as_of_its_latest_change(world: World, tmp_path: Path, capsys: Any) -> None:
    made = world.deal(0, 1)
    assert made.pay("4.00", wait=15)["status"] == "committed"
    for wallet, left in ((made.purse, "6.00"), (made.till, "4.00")):
        answer = world.gateway.http.get(f"/v1/accounts/{wallet['address']}/proof")
        assert verify(world, answer, tmp_path) == 0
        assert f"{left} USD available, 0.00 held: right after the change in shard {wallet['shard']}" in capsys.readouterr().out


def test_the_command_needs_no_network_and_no_settings(world: World, tmp_path: Path) -> None:
    paid = world.deal().pay("1.00", wait=15)
    proof = world.gateway.http.get(f"/v1/transactions/{paid['id']}/proof").json()
    forged = proof["transaction"][:-1] + ("1" if proof["transaction"][-1] == "0" else "0")
    (tmp_path / "proof.json").write_text(json.dumps({**proof, "transaction": forged}))
    command = [sys.executable, "-m", "gateway", "verify", f"{tmp_path}/proof.json", "--json"]
    ended = subprocess.run([*command, "--genesis", f"{world.folder}/genesis.json"], capture_output=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert json.loads(ended.stdout) == {"result": "refused", "reason": "transaction: a payer's signature does not fit"}


def test_what_no_block_says_has_no_proof(world: World) -> None:
    made = world.deal()
    http = world.gateway.http
    with world.network.switched(hold=True):
        pending = made.pay("1.00")
        undecided = http.get(f"/v1/transactions/{pending['id']}/proof")
    unsigned = made.pay("99.00")
    assert unsigned["status"] == "rejected"
    for path, expected in (
        (f"/v1/transactions/{unsigned['id']}/proof", (409, "not_in_a_block")),
        (f"/v1/transactions/{'00' * 32}/proof", (404, "transfer_not_found")),
        ("/v1/transactions/nothing/proof", (404, "transfer_not_found")),
        (f"/v1/accounts/{encode_address(bytes(20))}/proof", (404, "account_not_followed")),
        ("/v1/accounts/nobody/proof", (422, "invalid_address")),
    ):
        assert problem(http.get(path)) == expected
    assert problem(undecided) == (409, "not_final")
    assert made.ann.transfer(pending["id"], wait=15)["status"] == "committed"


def test_a_key_with_a_past_is_proven_from_its_next_change_on(world: World, tmp_path: Path) -> None:
    bob, pair, http = world.person(), world.network.chains.person(0, 7), world.gateway.http
    owner = encode_address(address_of(pair.public))
    world.network.hand_in(world.network.sign(USD_ISSUER, address_of(pair.public), 1000))
    until(lambda: http.get(f"/v1/accounts/{owner}").json()["balances"], "funded")
    height = world.network.height(0)
    until(lambda: world.network.height(0) > height + 1, "a block later")
    wallet = bob.wallet(key=pair)
    assert problem(http.get(f"/v1/accounts/{owner}/proof")) == (409, "not_in_a_block")
    assert bob.faucet(wallet, "1.00", wait=15).json()["status"] == "committed"
    assert verify(world, http.get(f"/v1/accounts/{owner}/proof"), tmp_path) == 0
