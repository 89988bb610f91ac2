"""A wallet whose key is kept at home: paid, paying and proven through a gateway, over HTTP alone."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
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
from tests.person import PASSWORD
from tests.waiting import until

PASSPHRASE = "a passphrase of our own"
SOMEBODY = b"\1" * 20


class Home:
    """Ann's machine, where her key is; she has an account at the gateway, too."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.wallet = world, folder, str(folder / "wallet")
        for name, text in (("passphrase", PASSPHRASE), ("password", PASSWORD)):
            (folder / name).write_text(f"{text}\n")
        self.opens = ("--passphrase-file", f"{folder}/passphrase")

    def make(self, command: str, *arguments: str, wallet: str = "", gateway: str = "") -> int:
        """Create, restore or import a wallet."""
        place = ("--gateway", gateway or self.world.gateway.url, "--genesis", f"{self.world.folder}/genesis.json")
        return main([command, wallet or self.wallet, *arguments, *place, *self.opens])

    def run(self, command: str, *arguments: str) -> int:
        return main([command, self.wallet, *arguments])

    def place(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((Path(self.wallet) / "wallet.json").read_text())
        return found

    def payments(self) -> list[Payment]:
        """Those not ended."""
        return Folder(Path(self.wallet)).under_way()


class Funded(Home):
    """Her wallet is shown in her account and has money. Bob has a till in the other shard, in which nothing is yet."""

    def __init__(self, world: World, folder: Path) -> None:
        super().__init__(world, folder)
        self.ann, self.bob = world.person(), world.person()
        self.login = ("--email", self.ann.email, "--password-file", f"{folder}/password")
        assert self.make("create", "--words-file", f"{folder}/words") == DONE
        assert self.run("register", *self.opens, *self.login) == DONE
        (self.shown,) = self.ann.get("/v1/wallets").json()["items"]
        assert (self.shown["address"], self.shown["custodial"]) == (self.place()["address"], False)
        assert self.ann.faucet(self.shown, "100.00", wait=30).json()["status"] == "committed"
        self.till = self.bob.wallet(1 - self.shown["shard"])
        key = self.ann.verify().post("/v1/api-keys", {"name": "client", "scopes": ["payments"]}).json()["key"]
        (folder / "api-key").write_text(key)
        self.key = ("--api-key-file", f"{folder}/api-key")

    def pay(self, amount: str, to: str = "", authorized: Sequence[str] = ()) -> int:
        return self.run("pay", to or self.till["address"], amount, "USD", *self.opens, *(authorized or self.key))

    def took(self) -> str:
        """What is in Bob's till, which a payment of his own empties."""
        available, _ = self.bob.balance(self.till)
        if available != "0.00":
            assert self.bob.pay(self.till, self.ann_address, available, wait=15).json()["status"] == "committed"
        return available

    @property
    def ann_address(self) -> str:
        return self.place()["address"]


@pytest.fixture
def home(world: World, tmp_path: Path) -> Home:
    return Home(world, tmp_path)


@pytest.fixture(scope="module")
def funded(world: World, tmp_path_factory: pytest.TempPathFactory) -> Funded:
    """Shared: a test leaves no payment under way."""
    return Funded(world, tmp_path_factory.mktemp("home"))


def test_a_key_kept_at_home_is_registered_paid_and_pays_with_proof(
    funded: Funded, world: World, tmp_path: Path, capsys: Any
) -> None:
    capsys.readouterr()
    assert funded.pay("2.50", authorized=funded.login) == DONE
    said = capsys.readouterr()
    assert f"2.50 USD from {funded.shown['address']} to {funded.till['address']}" in said.out
    assert "Proven: transaction" in said.out
    assert (funded.took(), funded.payments()) == ("2.50", [])
    proof = next(Path(funded.wallet).glob("payments/*.proof.json"))
    assert verify(world, httpx.Response(200, content=proof.read_bytes()), tmp_path) == 0
    capsys.readouterr()
    assert funded.run("balance") == DONE
    assert capsys.readouterr().out.count("100.00 USD available") == 2, "told, and proven"
    assert funded.run("proof", proof.name.partition(".")[0]) == DONE
    # A session lasts as long as a command: the one left is the person's own.
    assert len(funded.ann.get("/v1/sessions").json()["items"]) == 1
    files = [path for path in Path(funded.wallet).rglob("*") if path.is_file() and path.name != "genesis.json"]
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_an_api_key_is_enough_to_pay(funded: Funded) -> None:
    assert (funded.pay("1.00"), funded.took()) == (DONE, "1.00")


def test_what_cannot_be_paid_is_not_signed(funded: Funded, capsys: Any) -> None:
    before = sorted(Path(funded.wallet).glob("payments/*"))
    bob = funded.till["address"]
    for to, amount, code, why in (
        (bob, "100.01", REFUSED, "100.01 USD are needed, 100.00 are there"),
        (bob, "1.001", USAGE, "at most 2 digits"),
        (bob, "0", USAGE, "an amount is positive"),
        (funded.ann_address, "1.00", USAGE, "payer and payee are the same"),
        (bob[:-1] + ("q" if bob[-1] != "q" else "p"), "1.00", USAGE, "mistyped"),
    ):
        assert funded.pay(amount, to) == code
        assert why in capsys.readouterr().err
    (funded.folder / "passphrase").write_text("another passphrase")
    assert funded.pay("1.00") == USAGE
    (funded.folder / "passphrase").write_text(PASSPHRASE)
    assert sorted(Path(funded.wallet).glob("payments/*")) == before


def test_a_payment_whose_client_was_killed_happens_once(funded: Funded, world: World, capsys: Any) -> None:
    command = [sys.executable, "-m", "gateway.client", "pay", funded.wallet, funded.till["address"], "3.00", "USD"]
    with world.network.switched(hold=True):
        paying = subprocess.Popen([*command, *funded.opens, *funded.key], stdout=subprocess.DEVNULL)
        until(funded.payments, "a payment on the disk", 60)
        (kept,) = funded.payments()
        path = f"/v1/transactions/{kept.decoded().id.hex()}"
        until(lambda: world.gateway.http.get(path).status_code == 200, "the gateway to have it")
        paying.kill()
        paying.wait()
        assert funded.pay("3.00") == REFUSED
        assert "resume" in capsys.readouterr().err
    assert funded.run("resume", *funded.key) == DONE
    assert (funded.payments(), funded.bob.balance(funded.till)) == ([], ("3.00", "0.00"))
    assert (funded.run("resume", *funded.key), funded.took()) == (DONE, "3.00")


def test_a_payment_that_no_block_can_take_any_more_ends_where_its_wallet_was_shown_when_one_could(
    funded: Funded, world: World, capsys: Any
) -> None:
    folder, now = Folder(Path(funded.wallet)), int(time.time() * 1000)
    leg = Leg(decode_address(folder.place.address), SOMEBODY, "USD", 100)
    old = Order(folder.network, (leg,), "", now - 5000, bytes(8)).sign([folder.key(PASSPHRASE)])
    folder.keep(old.id, Payment(encode(old).hex()))
    earliest = now - 5000 - folder.genesis.parameters.validity_window

    def shown_since(at: int) -> None:
        with closing(sqlite3.connect(world.folder / "gateway.db", timeout=10)) as database, database:
            database.execute("UPDATE wallets SET created_at = ? WHERE id = ?", (at, funded.shown["id"]))

    shown_since(earliest + 1)
    assert funded.run("resume", *funded.key) == UNDER_WAY
    said = capsys.readouterr()
    assert "cannot know whether a block has it" in said.err
    assert "no block has it" not in said.out + said.err
    assert len(funded.payments()) == 1
    shown_since(earliest)
    assert funded.run("resume", *funded.key) == REFUSED
    assert "That is not proven" in capsys.readouterr().out
    assert funded.payments() == []


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
    # And no wallet is written over.
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
    home: Home, funded: Funded, world: World, liar: tuple[str, dict[str, Callable[[Any], Any]]], capsys: Any
) -> None:
    url, lies = liar
    assert (funded.pay("1.00"), funded.took()) == (DONE, "1.00"), "there is a proof of an earlier payment"
    capsys.readouterr()
    lies["network"] = lambda told: told | {"network": "00" * 16}
    assert home.make("create", "--words-file", f"{home.folder}/none", gateway=url) == REFUSED
    assert "another network" in capsys.readouterr().err
    lies.clear()
    place = funded.place()
    (Path(funded.wallet) / "wallet.json").write_text(json.dumps(place | {"gateway": url}))
    earlier = next(Path(funded.wallet).glob("payments/*.proof.json"))
    another = json.loads(earlier.read_text())
    lies["proof"] = lambda _: another
    assert funded.pay("1.00") == UNDER_WAY
    assert "Do not pay again" in capsys.readouterr().err
    lies["proof"] = lambda proof: proof | {"claim": proof["claim"] | {"status": "rejected"}}
    assert funded.run("resume", *funded.key) == UNDER_WAY
    lies["proof"] = lambda proof: proof | {"transaction": proof["transaction"][:-2] + "00"}
    assert funded.run("resume", *funded.key) == UNDER_WAY
    assert len(funded.payments()) == 1
    (false,) = funded.payments()
    assert not list(Path(funded.wallet).glob(f"payments/{false.decoded().id.hex()}.proof.json")), "only what is true is kept"
    held = {"available": "1.00", "held": "0.00", "frozen": False}
    lies[place["address"]] = lambda told: told | {"balances": {"\x1b[2JUSD": held}}
    funded.run("balance")
    assert "\x1b" not in capsys.readouterr().out
    lies[place["address"]] = lambda _: ["nonsense"]
    assert funded.run("balance") == REFUSED
    lies.clear()
    assert (funded.run("resume", *funded.key), funded.took()) == (DONE, "1.00")


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
