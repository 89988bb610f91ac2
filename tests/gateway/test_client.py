"""A wallet whose key is kept at home: paid, paying and proven through a gateway, over HTTP alone."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from gateway.client.command import DONE, REFUSED, UNDER_WAY, USAGE, main
from gateway.client.folder import Folder, Payment
from gateway.keystore import decrypt_key
from node.protocol.address import decode_address
from node.protocol.codec import encode
from node.protocol.transaction import Leg, Order
from tests.gateway.test_proofs import verify
from tests.gateway.world import World
from tests.person import PASSWORD, Person, Wallet
from tests.waiting import until

PASSPHRASE = "a passphrase of our own"
SOMEBODY = b"\1" * 20


class Home:
    """Ann's machine, where her key is; her account at the gateway is hers, too."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.wallet = world, folder, str(folder / "wallet")
        for name, text in (("passphrase", PASSPHRASE), ("password", PASSWORD)):
            (folder / name).write_text(f"{text}\n")
        self.ann = world.person()
        self.login = ("--email", self.ann.email, "--password-file", f"{folder}/password")
        self.opens = ("--passphrase-file", f"{folder}/passphrase")

    def make(self, command: str, *arguments: str, wallet: str = "", gateway: str = "") -> int:
        """Create, restore or import a wallet."""
        place = ("--gateway", gateway or self.world.gateway.url, "--genesis", f"{self.world.folder}/genesis.json")
        return main([command, wallet or self.wallet, *arguments, *place, *self.opens])

    def run(self, command: str, *arguments: str) -> int:
        return main([command, self.wallet, *arguments])

    def pay(self, to: str, amount: str, *more: str) -> int:
        return self.run("pay", to, amount, "USD", *self.opens, *(more or self.login))

    def payments(self) -> list[Payment]:
        """Those not ended."""
        return Folder(Path(self.wallet)).under_way()

    def place(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((Path(self.wallet) / "wallet.json").read_text())
        return found

    def registered(self, amount: str) -> Wallet:
        """Shown in her account, and with money."""
        assert self.make("create", "--words-file", f"{self.folder}/words") == DONE
        assert self.run("register", *self.opens, *self.login) == DONE
        shown: Wallet = next(w for w in self.ann.get("/v1/wallets").json()["items"] if w["address"] == self.place()["address"])
        assert not shown["custodial"]
        assert self.ann.faucet(shown, amount, wait=30).json()["status"] == "committed"
        return shown


@pytest.fixture
def home(world: World, tmp_path: Path) -> Home:
    return Home(world, tmp_path)


def test_a_key_kept_at_home_is_registered_paid_and_pays_with_proof(home: Home, world: World, tmp_path: Path, capsys: Any) -> None:
    shown = home.registered("10.00")
    bob = world.person()
    till = bob.wallet(1 - shown["shard"])
    capsys.readouterr()
    assert home.pay(till["address"], "2.50") == DONE
    said = capsys.readouterr()
    assert f"2.50 USD from {shown['address']} to {till['address']}" in said.out
    assert "Proven: transaction" in said.out
    assert (bob.balance(till), home.payments()) == (("2.50", "0.00"), [])
    proof = next(Path(home.wallet).glob("payments/*.proof.json"))
    assert verify(world, httpx.Response(200, content=proof.read_bytes()), tmp_path) == 0
    capsys.readouterr()
    assert home.run("balance") == DONE
    said = capsys.readouterr()
    assert said.out.count("7.50 USD available") == 2
    assert home.run("proof", proof.name.partition(".")[0]) == DONE
    # A session lasts as long as a command: the one left is the person's own.
    assert len(home.ann.get("/v1/sessions").json()["items"]) == 1
    files = [path for path in Path(home.wallet).rglob("*") if path.is_file()]
    assert [path for path in files if path.name not in ("genesis.json",) and path.stat().st_mode & 0o077] == []


def test_an_api_key_is_enough_to_pay(home: Home, world: World) -> None:
    home.registered("5.00")
    key = home.ann.verify().post("/v1/api-keys", {"name": "client", "scopes": ["payments"]}).json()["key"]
    (home.folder / "api-key").write_text(key)
    assert home.pay(world.person().wallet()["address"], "1.00", "--api-key-file", f"{home.folder}/api-key") == DONE


def test_what_cannot_be_paid_is_not_signed(home: Home, world: World, capsys: Any) -> None:
    shown = home.registered("1.00")
    bob = world.person().wallet()["address"]
    for to, amount, code, why in (
        (bob, "1.01", REFUSED, "1.01 USD are needed, 1.00 are there"),
        (bob, "1.001", USAGE, "at most 2 digits"),
        (bob, "0", USAGE, "an amount is positive"),
        (shown["address"], "1.00", USAGE, "payer and payee are the same"),
        (bob[:-1] + ("q" if bob[-1] != "q" else "p"), "1.00", USAGE, "mistyped"),
    ):
        assert home.pay(to, amount) == code
        assert why in capsys.readouterr().err
    (home.folder / "passphrase").write_text("another passphrase")
    assert home.pay(bob, "1.00") == USAGE
    assert list(Path(home.wallet).glob("payments/*")) == []


def test_a_payment_whose_client_was_killed_happens_once(home: Home, world: World, capsys: Any) -> None:
    home.registered("10.00")
    bob = world.person()
    till = bob.wallet()
    command = [sys.executable, "-m", "gateway.client", "pay", home.wallet, till["address"], "3.00", "USD", *home.opens]
    with world.network.switched(hold=True):
        paying = subprocess.Popen([*command, *home.login], stdout=subprocess.DEVNULL)
        until(home.payments, "a payment on the disk", 60)
        (kept,) = home.payments()
        path = f"/v1/transactions/{kept.decoded().id.hex()}"
        until(lambda: world.gateway.http.get(path).status_code == 200, "the gateway to have it")
        paying.kill()
        paying.wait()
        assert home.pay(till["address"], "3.00") == REFUSED
        assert "resume" in capsys.readouterr().err
    assert home.run("resume", *home.login) == DONE
    assert (home.payments(), bob.balance(till)) == ([], ("3.00", "0.00"))
    assert home.run("resume", *home.login) == DONE
    assert (home.pay(till["address"], "3.00"), bob.balance(till)) == (DONE, ("6.00", "0.00"))


def test_a_payment_that_no_block_can_take_any_more_ends(home: Home, world: World, capsys: Any) -> None:
    home.registered("10.00")
    folder = Folder(Path(home.wallet))
    leg = Leg(decode_address(folder.place.address), SOMEBODY, "USD", 100)
    old = Order(folder.network, (leg,), "", 1, bytes(8)).sign([folder.key(PASSPHRASE)])
    folder.keep(old.id, Payment(encode(old).hex()))
    assert home.run("resume", *home.login) == REFUSED
    assert "That is not proven" in capsys.readouterr().out
    assert home.payments() == []


def test_words_and_key_files_give_the_same_key_again(home: Home, capsys: Any) -> None:
    assert home.make("create", "--words-file", f"{home.folder}/words") == DONE
    words = (home.folder / "words").read_text().split()
    assert len(words) == 24
    (home.folder / "words").write_text("  ".join(words).upper())
    assert home.make("restore", "--words-file", f"{home.folder}/words", wallet=f"{home.folder}/restored") == DONE
    out = ("--key-passphrase-file", f"{home.folder}/passphrase")
    assert home.run("export", f"{home.folder}/key.pem", *home.opens, *out) == DONE
    assert home.make("import", f"{home.folder}/key.pem", *out, wallet=f"{home.folder}/imported") == DONE
    places = [json.loads((home.folder / name / "wallet.json").read_text()) for name in ("wallet", "restored", "imported")]
    assert places[0] == places[1] == places[2]
    assert decrypt_key((home.folder / "key.pem").read_text(), PASSPHRASE).public.hex() == places[0]["public_key"]
    mistyped = [words[1], words[0], *words[2:]]
    (home.folder / "words").write_text(" ".join(mistyped))
    assert home.make("restore", "--words-file", f"{home.folder}/words", wallet=f"{home.folder}/other") == USAGE
    assert "mistyped" in capsys.readouterr().err
    # Neither is a wallet written over.
    assert home.make("import", f"{home.folder}/key.pem", *out) == USAGE


class Liar(BaseHTTPRequestHandler):
    """Passes on what a gateway says, but for what ``lies`` make of it by the last part of the path."""

    gateway: str
    lies: dict[str, Callable[[Any], Any]]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        sent = {name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")}
        answer = httpx.request(self.command, self.gateway + self.path, content=body, headers=sent, timeout=40)
        content = answer.content
        if lie := self.lies.get(self.path.partition("?")[0].rpartition("/")[2]):
            content = json.dumps(lie(answer.json())).encode()
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _pass  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def liar(world: World) -> Iterator[tuple[str, dict[str, Callable[[Any], Any]]]]:
    """URL and lies of a gateway that lies."""
    lies: dict[str, Callable[[Any], Any]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Some", (Liar,), {"gateway": world.gateway.url, "lies": lies}))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", lies
    server.shutdown()
    server.server_close()


def test_a_gateway_that_lies_is_not_believed(
    home: Home, world: World, liar: tuple[str, dict[str, Callable[[Any], Any]]], capsys: Any
) -> None:
    url, lies = liar
    lies["network"] = lambda told: told | {"network": "00" * 16}
    assert home.make("create", "--words-file", f"{home.folder}/none", gateway=url) == REFUSED
    assert "another network" in capsys.readouterr().err
    lies.clear()
    home.registered("10.00")
    place = home.place()
    (Path(home.wallet) / "wallet.json").write_text(json.dumps(place | {"gateway": url}))
    bob: Person = world.person()
    till = bob.wallet()
    paid = bob.pay(bob.wallet(USD="2.00"), till["address"], "2.00", wait=15).json()["id"]
    another = world.gateway.http.get(f"/v1/transactions/{paid}/proof").json()
    for lie in (
        lambda _: another,
        lambda proof: proof | {"claim": proof["claim"] | {"status": "rejected"}},
    ):
        lies["proof"] = lie
        code = home.pay(till["address"], "1.00") if not home.payments() else home.run("resume", *home.login)
        assert code == UNDER_WAY
        assert "Do not pay again" in capsys.readouterr().err
    assert len(home.payments()) == 1
    lies.clear()
    assert home.run("resume", *home.login) == DONE
    assert bob.balance(till) == ("3.00", "0.00")


def test_the_client_needs_nothing_of_the_server(tmp_path: Path) -> None:
    script = "import sys, gateway.client.command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    ours = {name for name in loaded if name.startswith("gateway.")}
    allowed = ("gateway.client", "gateway.proofs", "gateway.keystore", "gateway.times")
    assert {name for name in ours if not name.startswith(allowed)} == set()
    assert not {"fastapi", "sqlalchemy", "uvicorn", "redis", "jwt"} & set(loaded)


def test_a_password_is_not_sent_in_clear(home: Home, capsys: Any) -> None:
    for gateway in ("http://wallet.example.org", "https://user:secret@wallet.example.org", "wallet.example.org"):
        assert home.make("create", "--words-file", f"{home.folder}/words", gateway=gateway) == USAGE
        (home.folder / "words").unlink()
    assert "https://" in capsys.readouterr().err
