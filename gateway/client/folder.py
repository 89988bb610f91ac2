"""A wallet's folder, which only its owner may read: the encrypted key, the network it is for, and the payments made with it.

A payment is on the disk before it is sent, and stays under way there until its end is known: what is sent again is the same
transaction, which counts once.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.keystore import decrypt_key, encrypt_key
from node.protocol.crypto import KeyPair, digest
from node.protocol.genesis import Genesis, read_genesis, write_genesis
from node.protocol.transaction import Transaction, decode_transaction


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """Where it pays. ``document``: hash of the network's document of epoch 1, hex."""

    gateway: str
    document: str
    address: str
    public_key: str


class Payment(Struct, frozen=True, forbid_unknown_fields=True):
    """``transaction``: the encoding, hex. ``status``: empty while it is under way."""

    transaction: str
    status: str = ""

    def decoded(self) -> Transaction:
        return decode_transaction(bytes.fromhex(self.transaction))


class Folder:
    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError when there is no wallet."""
        self._path = path
        self.place = msgspec.json.decode((path / "wallet.json").read_bytes(), type=Place)
        self.genesis: Genesis = read_genesis(path / "genesis.json")

    @staticmethod
    def create(path: Path, key: KeyPair, passphrase: str, place: Place, genesis: Genesis) -> "Folder":
        """Raises OSError, FileExistsError when there is something of that name already."""
        path.mkdir(mode=0o700)
        (path / "payments").mkdir(mode=0o700)
        write_genesis(path / "genesis.json", genesis)
        write_new(path / "key.pem", encrypt_key(key, passphrase).encode())
        write_new(path / "wallet.json", msgspec.json.format(msgspec.json.encode(place), indent=2))
        return Folder(path)

    @property
    def network(self) -> bytes:
        """What orders name as their network: 16 bytes."""
        return network_id(self.genesis, self.place.document)

    def key(self, passphrase: str) -> KeyPair:
        """Raises ValueError when the passphrase is another one."""
        pair = decrypt_key((self._path / "key.pem").read_text(), passphrase)
        if pair.public.hex() != self.place.public_key:
            raise ValueError("key.pem is not the key of this wallet")
        return pair

    def keep(self, transaction_id: bytes, payment: Payment) -> None:
        """Durable when this returns."""
        self._replaced(self._file(transaction_id), msgspec.json.encode(payment))

    def keep_proof(self, transaction_id: bytes, proof: bytes) -> Path:
        return self._replaced(self._file(transaction_id).with_suffix(".proof.json"), proof)

    def keep_account_proof(self, proof: bytes) -> Path:
        return self._replaced(self._path / "account.proof.json", proof)

    def under_way(self) -> list[Payment]:
        files = (path for path in sorted(self._path.glob("payments/*.json")) if not path.name.endswith(".proof.json"))
        payments = [msgspec.json.decode(path.read_bytes(), type=Payment) for path in files]
        return [payment for payment in payments if not payment.status]

    def _replaced(self, path: Path, content: bytes) -> Path:
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        write_new(part, content)
        part.replace(path)
        _sync(path.parent)
        return path

    def _file(self, transaction_id: bytes) -> Path:
        return self._path / "payments" / f"{transaction_id.hex()}.json"


def network_id(genesis: Genesis, document: str) -> bytes:
    """As docs/protocol.md, section 14, has it."""
    return digest("network", genesis.hash, bytes.fromhex(document))[:16]


def write_new(path: Path, content: bytes) -> None:
    """A file that only its owner may read. Raises FileExistsError rather than replace one."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
