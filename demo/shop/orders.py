"""The shop's orders, in a file of its own."""

import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

WAITING, PAID, REFUNDING, REFUNDED = "waiting", "paid", "refunding", "refunded"


class Order(NamedTuple):
    """``amount``: decimal string. ``paid_in``: the block that proves it, once paid."""

    id: str
    goods: str
    amount: str
    status: str
    intent_id: str
    paid_in: str


class Orders:
    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        columns = ", ".join(f"{name} TEXT NOT NULL" for name in Order._fields)
        self._database.execute(f"CREATE TABLE IF NOT EXISTS orders ({columns}, PRIMARY KEY (id))")

    def add(self, order: Order) -> None:
        with self._lock:
            self._database.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", order)

    def get(self, order_id: str) -> Order | None:
        with self._lock:
            row = self._database.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
        return row and Order(*row)

    def move(self, order_id: str, before: tuple[str, ...], status: str, paid_in: str | None = None) -> bool:
        """To another status, from one of those before; False when it has another: a webhook may come twice."""
        marks = ", ".join("?" * len(before))
        change = f"UPDATE orders SET status = ?, paid_in = coalesce(?, paid_in) WHERE id = ? AND status IN ({marks})"
        with self._lock:
            return self._database.execute(change, (status, paid_in, order_id, *before)).rowcount == 1
