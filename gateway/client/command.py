"""``python -m gateway.client``: keep a key oneself, and pay with it through a gateway.

Passphrases, passwords and words are asked for, or read from files; they are no arguments, which everybody on a machine can see.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import getpass
from pathlib import Path
from typing import Any

import msgspec

from gateway.client.connection import Connection, NoAnswer, Refused, field
from gateway.client.folder import Folder, Place, network_id, write_new
from gateway.client.orders import in_words, order_of
from gateway.client.paying import CannotPay, Ended, UnderWay, account_proof_of, balances_of, finish, now_ms, pay, proof_of
from gateway.client.words import key_of, new_words
from gateway.keystore import MAX_PEM, decrypt_key, encrypt_key
from gateway.proofs import checking
from node.protocol.address import address_of, decode_address, encode_address
from node.protocol.crypto import KeyPair
from node.protocol.genesis import read_genesis

DONE, REFUSED, USAGE, UNDER_WAY = 0, 1, 2, 3
"""Exit codes. 2 is also argparse's. 3: a payment whose end is not known, which must not be made once more."""
SHORTEST_PASSPHRASE = 12
_MOST_SECRET = 1000
Options = argparse.Namespace


class Mistaken(Exception):
    """What was typed, or a file that was named, is of no use; the text says why."""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UnderWay as error:
        _tell(f"Not known yet: {error}.\nDo not pay again: python -m gateway.client resume {options.folder}")
        return UNDER_WAY
    except KeyboardInterrupt:
        _tell(f"Stopped. Should a payment be under way: python -m gateway.client resume {options.folder}")
        return UNDER_WAY
    except (CannotPay, Refused, NoAnswer) as error:
        _tell(f"Refused: {error}.")
    except checking.Refused as error:
        _tell(f"Refused, the gateway's proof is false: {error}.")
    except (Mistaken, OSError, ValueError, msgspec.MsgspecError) as error:
        _tell(str(error))
        return USAGE
    return REFUSED


def _create(options: Options) -> int:
    words = new_words()
    if options.words_file:
        write_new(options.words_file, f"{words}\n".encode())
    made = _keep(options, key_of(words))
    if not options.words_file:
        print(f"Whoever has these words has the money. Write them down, in this order; they are not shown again:\n\n{words}\n")
    return made


def _restore(options: Options) -> int:
    return _keep(options, key_of(_secret("Words: ", options.words_file)))


def _import(options: Options) -> int:
    pem = options.key.read_text("ascii")[: MAX_PEM + 1]
    if len(pem) > MAX_PEM:
        raise Mistaken(f"{options.key} is too long for a key")
    return _keep(options, decrypt_key(pem, _secret(f"Passphrase of {options.key}: ", options.key_passphrase_file)))


def _keep(options: Options, key: KeyPair) -> int:
    """Make the folder of a wallet with this key."""
    genesis, connection = read_genesis(options.genesis), Connection(options.gateway)
    told = connection.read("/v1/network")
    document = options.document_1.lower() if options.document_1 else field(told, "document_1")
    try:
        network = network_id(genesis, document).hex()
    except ValueError:
        raise Mistaken(f"not the hash of an epoch document: {document[:80]!r}") from None
    if tuple(field(told, name) for name in ("genesis", "document_1", "network")) != (genesis.hash.hex(), document, network):
        raise CannotPay("this gateway is of another network")
    address = encode_address(address_of(key.public))
    place = Place(options.gateway, document, address, key.public.hex())
    Folder.create(options.folder, key, _new_passphrase(options), place, genesis)
    print(f"{address}\nnetwork {network} ({genesis.name}), epoch document {document}: compare it with one you know.")
    return DONE


def _export(options: Options) -> int:
    key = Folder(options.folder).key(_passphrase(options))
    passphrase = _new_secret("Passphrase of the exported key: ", options.key_passphrase_file)
    write_new(options.key, encrypt_key(key, passphrase).encode())
    return DONE


def _register(options: Options) -> int:
    folder, connection = _opened(options)
    key = folder.key(_passphrase(options))
    with _authorized(options, connection):
        wallet = connection.register(key, folder.network, options.label)
    _show(f"wallet {wallet} shows {folder.place.address}")
    return DONE


def _balance(options: Options) -> int:
    folder, connection = _opened(options)
    print(f"{folder.place.address}\nThe gateway says, as more than f members of its committee tell:")
    for asset, held in sorted(balances_of(folder, connection).items()):
        _show(f"  {held.available} {asset} available, {held.held} held{', frozen' if held.frozen else ''}")
    _show(*account_proof_of(folder, connection))
    return DONE


def _pay(options: Options) -> int:
    folder, connection = _opened(options)
    payer = decode_address(folder.place.address)
    order = order_of(folder.genesis, folder.network, payer, options.to, options.asset, options.amount, options.memo, now_ms())
    print("\n".join(in_words(order, folder.genesis)))
    key = folder.key(_passphrase(options))
    with _authorized(options, connection):
        return _say(pay(folder, connection, key, order))


def _resume(options: Options) -> int:
    folder, connection = _opened(options)
    with _authorized(options, connection):
        codes = [_say(finish(folder, connection, payment.decoded())) for payment in folder.under_way()]
    if not codes:
        print("nothing is under way")
    return max(codes, default=DONE)


def _proof(options: Options) -> int:
    folder, connection = _opened(options)
    if len(transaction_id := bytes.fromhex(options.transaction)) != 32:
        raise Mistaken("a transaction's id has 64 digits in base 16")
    _show(*proof_of(folder, connection, transaction_id)[1])
    return DONE


def _say(ended: Ended) -> int:
    if ended.words:
        _show(*ended.words)
    else:
        print("Expired: the gateway says that no block has it, and its time is over. That is not proven.")
    return DONE if ended.status == "committed" else REFUSED


def _opened(options: Options) -> tuple[Folder, Connection]:
    folder = Folder(options.folder)
    return folder, Connection(folder.place.gateway)


@contextmanager
def _authorized(options: Options, connection: Connection) -> Iterator[None]:
    if options.api_key_file:
        with connection.bearer(_secret("", options.api_key_file)):
            yield
        return
    email = options.email or input("E-mail address at the gateway: ")
    password = _secret("Password at the gateway: ", options.password_file)
    with connection.session(email, password, lambda: input("Code of the authenticator app: ")):
        yield


def _passphrase(options: Options) -> str:
    return _secret("Passphrase of the key: ", options.passphrase_file)


def _new_passphrase(options: Options) -> str:
    return _new_secret("Passphrase to keep the key under: ", options.passphrase_file)


def _new_secret(prompt: str, file: Path | None) -> str:
    passphrase = _secret(prompt, file)
    if file is None and getpass("Once more: ") != passphrase:
        raise Mistaken("these are two passphrases")
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise Mistaken(f"a passphrase has at least {SHORTEST_PASSPHRASE} characters")
    return passphrase


def _secret(prompt: str, file: Path | None) -> str:
    """Out of a file, without the end of its line, or typed."""
    if file is None:
        return getpass(prompt)
    with file.open() as opened:
        text = opened.read(_MOST_SECRET + 1)
    if len(text) > _MOST_SECRET:
        raise Mistaken(f"{file} has more than {_MOST_SECRET} characters")
    return text.rstrip("\r\n")


def _show(*lines: str) -> None:
    print("\n".join(map(_plain, lines)))


def _tell(text: str) -> None:
    print(_plain(text), file=sys.stderr)


def _plain(text: str) -> str:
    """What a gateway says reaches the terminal as text only."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.client", description=(__doc__ or "").partition("\n\n")[2])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Options], int], text: str, *arguments: tuple[str, dict[str, Any]]) -> None:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("folder", type=Path, metavar="FOLDER", help="of the wallet")
        for argument, settings in arguments:
            added.add_argument(argument, **settings)
        added.set_defaults(run=run)

    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    passphrase = ("--passphrase-file", file | {"help": "instead of asking for the key's passphrase"})
    network = (
        ("--gateway", {"required": True, "metavar": "URL"}),
        ("--genesis", file | {"required": True, "help": "of the network you trust"}),
        ("--document-1", {"metavar": "HASH", "help": "of the document of epoch 1, if you know it"}),
        passphrase,
    )
    login = (
        ("--email", {"metavar": "ADDRESS", "help": "of the account at the gateway"}),
        ("--password-file", file | {"help": "instead of asking for the account's password"}),
        ("--api-key-file", file | {"help": "instead of e-mail address and password: an API key with the scope payments"}),
    )
    key_passphrase = ("--key-passphrase-file", file | {"help": "instead of asking for the passphrase of FILE"})
    command(
        "create", _create, "a new key", *network, ("--words-file", file | {"help": "write the words there instead of showing"})
    )
    command("restore", _restore, "the key of 24 words", *network, ("--words-file", file | {"help": "instead of asking for them"}))
    command("import", _import, "the key of an encrypted PKCS #8 PEM file", ("key", file), *network, key_passphrase)
    command("export", _export, "write the key as encrypted PKCS #8 PEM", ("key", file), passphrase, key_passphrase)
    label = ("--label", {"default": "own key", "help": "of the wallet"})
    command("register", _register, "show this wallet in an account at the gateway", label, passphrase, *login)
    command("balance", _balance, "what the account holds, and what of that is proven")
    payment: tuple[tuple[str, dict[str, Any]], ...] = (("to", {"metavar": "ADDRESS"}), ("amount", {}), ("asset", {}))
    command("pay", _pay, "sign a payment here, and see it proven", *payment, ("--memo", {"default": ""}), passphrase, *login)
    command("resume", _resume, "hand in again what is under way, and wait for its end", *login)
    command("proof", _proof, "fetch the proof of a transaction, check and keep it", ("transaction", {"metavar": "ID"}))
    return parser
