"""What following the chain costs the gateway: ``python -m tests.measure_projection``.

One shard's blocks, real but for the consensus, with payments between wallets of this gateway that it has taken in before. A block
is handed over when the one before is in the database. CPU time is the whole process's, threads included.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import uvloop
from sqlalchemy import Connection

from gateway.database import Database, Wallet, insert, now_ms, open_engine
from gateway.events.outbox import Outbox
from gateway.follower import ShardFollower
from gateway.identity.tables import User
from gateway.ledger import Ledger
from gateway.owners import Owners
from gateway.projection import lines_of, tracked_order
from gateway.queries import Queries
from gateway.rows import owed_rows, put_postings, transfer_row
from gateway.statements import ADD_TRANSFER, OWE, PUT_CURSOR
from node.client.blocks import ProvenBlock
from node.client.epochs import Epochs
from node.client.line import Line
from node.protocol.address import address_of
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair, verify
from node.protocol.transaction import Transaction
from tests.chains import Network

_PEOPLE = 16


def check_cost() -> float:
    """CPU microseconds of a signature check, now."""
    pair, message = KeyPair(bytes(31) + b"\x01"), bytes(32)
    signature, began = pair.sign(message), time.thread_time()
    for _ in range(1000):
        verify(pair.public, message, signature)
    return (time.thread_time() - began) * 1e3


class Chain:
    """Blocks of shard 0 with ``each`` payments, and a gateway's ledger that follows it."""

    def __init__(self, folder: Path, each: int) -> None:
        self.network = Network()
        self.people = [self.network.person(0, number) for number in range(_PEOPLE)]
        self.each = each
        for person in self.people:
            self.network.fund(person, 10**9)
        self.shard = self.network.shards[0]
        self.database = Database(open_engine(f"sqlite:///{folder}/{each}.db"))
        self.ledger = Ledger(self.database, Outbox(self.database), Owners(), self.network.genesis.parameters.validity_window)
        self.ledger.documents = [self.network.document]
        electorate = self.shard.electorate
        queries = Queries(Line("redis://localhost"), Epochs(self.network.genesis), self.network.genesis.network)
        self.follower = ShardFollower(
            electorate, queries, queries, lambda: None, lambda: self.ledger.place(electorate.chain), self._apply
        )
        self.applied = asyncio.Event()

    async def _apply(self, blocks: list[ProvenBlock]) -> None:
        await self.ledger.apply(self.shard.electorate.chain, blocks)
        self.applied.set()

    async def open(self) -> None:
        self.wallets = {address_of(person.public): f"wallet {number}" for number, person in enumerate(self.people)}
        rows = [
            {
                "id": name,
                "user_id": "u",
                "label": "",
                "address": address,
                "public_key": b"",
                "sealed_key": None,
                "archived": False,
                "created_at": 0,
            }
            for address, name in self.wallets.items()
        ]
        user = {"id": "u", "email": "e", "name": "n", "password_hash": "h", "created_at": 0}

        def save(connection: Connection) -> None:
            connection.execute(insert(connection, User), [user])
            connection.execute(insert(connection, Wallet), rows)
            head = self.shard.head
            PUT_CURSOR.run(connection, {"epoch": 1, "shard": 0, "height": head.height, "hash": head.hash, "time": head.time})

        await self.database.write(save)
        await self.ledger.lead()

    async def block(self) -> bytes:
        """The next one, whose payments have been taken in."""
        until = self.shard.head.time + 30_000
        pairs = [(self.people[i % _PEOPLE], self.people[(i + 1) % _PEOPLE]) for i in range(self.each)]
        made = [self.network.pay(payer, payee, 1, valid_until=until) for payer, payee in pairs]
        for transaction in made:
            await self._take_in(transaction)
        return encode(self.shard.add(*made))

    async def _take_in(self, transaction: Transaction) -> None:
        tracked = tracked_order(transaction.order, transaction.id, encode(transaction), self.network.document, own=True)
        tracked.kind, tracked.created_at = "transfer", now_ms()
        lines = lines_of(tracked, self.wallets, ("sent",))

        def save(connection: Connection) -> None:
            ADD_TRANSFER.run(connection, transfer_row(tracked, "u"))
            OWE.run_all(connection, owed_rows(tracked.due().items()))
            put_postings(connection, lines, tracked.created_at)

        await self.database.write(save)
        self.ledger.remember(tracked)


async def measure(folder: Path, each: int, blocks: int) -> float:
    """CPU microseconds a block."""
    chain = Chain(folder, each)
    await chain.open()
    spent = 0.0
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(chain.follower.run())
        for number in range(blocks + 5):
            body = await chain.block()
            chain.applied.clear()
            began = time.process_time()
            chain.follower.hear(body)
            await chain.applied.wait()
            if number >= 5:
                spent += time.process_time() - began
        following.cancel()
    assert chain.ledger.finished["committed"] > 0
    chain.database.close()
    return spent / blocks * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--payments", type=int, default=100, help="in each of the fuller blocks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        light, full = (runner.run(measure(Path(folder), each, arguments.blocks)) for each in (1, arguments.payments))
    check = check_cost()
    payment = (full - light) / (arguments.payments - 1)
    print(f"a block with one payment: {light:.0f} us of CPU = {light / check:.1f} checks of {check:.0f} us")
    print(f"each payment more: {payment:.0f} us = {payment / check:.2f} checks")


if __name__ == "__main__":
    main()
