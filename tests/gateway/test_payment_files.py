"""Payment files: checked as a whole, paid line by line, each line once, and stopped when somebody says so."""

import csv
import io
from contextlib import closing
from typing import Any

import httpx

from tests.gateway.listener import Listener
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import Deal, Person
from tests.waiting import until

HEAD = "to,asset,amount,memo,reference"
View = dict[str, Any]


def bring(made: Deal, *lines: str, head: str = HEAD, key: str | None = None, content: bytes | None = None) -> httpx.Response:
    """Ann's, to be paid from her purse."""
    headers = {"Content-Type": "text/csv"} | ({"Idempotency-Key": key} if key else {})
    body = "\r\n".join([head, *lines, ""]).encode() if content is None else content
    return made.ann.http.post(
        "/v1/payment-files", params={"wallet_id": made.purse["id"], "name": "x"}, content=body, headers=headers
    )


def act(person: Person, view: View, what: str) -> httpx.Response:
    return person.http.post(f"/v1/payment-files/{view['id']}/{what}")


def look(person: Person, view: View) -> View:
    found: View = person.get(f"/v1/payment-files/{view['id']}").json()
    return found


def ended(person: Person, view: View) -> View:
    return until(lambda: found if (found := look(person, view))["finished_at"] else None, "the file's end") or {}


def results(person: Person, view: View) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(person.get(f"/v1/payment-files/{view['id']}/result.csv").text)))


def told(person: Person, kind: str) -> Any:
    """The data of the first event of a kind."""
    with closing(Listener(person, after="0")) as listener:
        found = until(lambda: [one.data["data"] for one in listener.told if one.event == kind], kind)
    return found[0]


def test_a_file_is_paid_line_by_line_once_it_is_confirmed(world: World) -> None:
    made = world.deal()
    nobody = f"nobody-{made.bob.email}"
    lines = [f"{made.till['address']},USD,1.00,工资,a", f"{made.till['id']},USD,2.00,,=b", "", f"{nobody},USD,3,,"]
    view = bring(made, *lines, key="once").json()
    assert bring(made, *lines, key="once").json() == view
    counts = {"total": 3, "waiting": 3, "processing": 0, "paid": 0, "failed": 0, "canceled": 0}
    assert (view["status"], view["lines"], view["totals"]) == ("checked", counts, {"USD": {"amount": "6.00", "fees": "0.00"}})
    assert made.available() == ("10.00", "0.00"), "nothing is paid yet"
    assert [act(made.ann, view, "confirm").status_code for _ in "ab"] == [202, 200]
    done = ended(made.ann, view)
    assert (done["status"], done["lines"]) == ("completed", counts | {"waiting": 0, "paid": 3})
    assert act(made.ann, view, "confirm").json() == done
    assert problem(act(made.ann, view, "cancel")) == (409, "payment_file_not_open")
    until(lambda: made.available() == ("4.00", "3.00"), "all are paid, once")
    rows = results(made.ann, view)
    assert [(row["line"], row["status"], row["reference"]) for row in rows] == [
        ("2", "paid", "a"),
        ("3", "paid", "'=b"),
        ("5", "paid", ""),
    ]
    paid = made.ann.transfer(rows[0]["transfer_id"])
    assert (paid["status"], paid["memo"], paid["to"]) == ("committed", "工资", made.till["address"])
    assert told(made.ann, "payment_file.completed") == done


def test_every_fault_of_a_file_is_named_and_nothing_is_kept(world: World) -> None:
    made = world.deal()
    good = f"{made.till['address']},USD,1.00,,"
    lines = [good, good, f"{made.till['address']}x,USD,1.00,,", f"{made.till['id']},USD,0,,", f"{made.till['id']},XXX,1.001,,"]
    lines += ["0" * 32 + ",USD,1.00,,", "a b@example.org,USD,1.00,,", f"{made.purse['id']},USD,1,,", "one,two", f"{good}\u202e"]
    lines += [f"{made.till['id']},USD,1.001,{'ä' * 71},{'r' * 141}"]
    answer = bring(made, *lines)
    assert problem(answer) == (422, "invalid_payment_file")
    faults = [
        (fault["line"], fault["code"], fault["pointer"].removeprefix(f"/body/{fault['line']}"))
        for fault in answer.json()["errors"]
    ]
    assert faults == [
        (3, "duplicate_line", ""),
        (4, "invalid_address", "/to"),
        (5, "invalid_amount", "/amount"),
        (6, "unknown_asset", "/asset"),
        (7, "unknown_recipient", "/to"),
        (8, "invalid_recipient", "/to"),
        (9, "same_account", "/to"),
        (10, "wrong_number_of_fields", ""),
        (11, "invalid_text", "/reference"),
        (12, "invalid_text", "/memo"),
        (12, "invalid_text", "/reference"),
    ]
    whole = [(b"\n", "missing_column"), (b"to,asset,amount\n", "no_lines"), (b"to,asset,amount,pin\n", "unknown_column")]
    whole += [(b"to,asset,amount\n\xff\n", "not_utf8"), (b'to,asset,amount\n"a"b,USD,1', "invalid_text")]
    whole += [(b"to,asset,amount\n" + b"a@example.org,USD,1\n" * 2, "duplicate_line")]
    whole += [(b"to,asset,amount\n" + b"".join(b"a%d@example.org,USD,1\n" % n for n in range(1001)), "limit_exceeded")]
    for content, code in whole:
        assert code in [fault["code"] for fault in bring(made, content=content).json()["errors"]], content[:40]
    assert bring(made, content=b"x" * (256 << 10)).status_code in (413, 422)
    assert problem(bring(made, content=b"x" * (257 << 10))) == (413, "too_large")
    assert made.ann.get("/v1/payment-files").json() == {"items": [], "next_cursor": None}
    semicolons = bring(made, content=f"\ufeffAmount;To;Asset\n1.00;{made.till['address']};USD".encode())
    assert (semicolons.status_code, semicolons.json()["lines"]["total"]) == (201, 1)


def test_a_line_that_fails_does_not_stop_the_others(world: World) -> None:
    made = world.deal()
    view = bring(made, f"{made.till['id']},USD,9.00,,", f"{made.till['id']},USD,1.00,,").json()
    with world.network.switched(hold=True):
        spent = made.pay("5.00")
        assert act(made.ann, view, "confirm").status_code == 202, "by verified balances it could be paid"
        until(lambda: look(made.ann, view)["lines"]["failed"] == 1)
    done = ended(made.ann, view)
    assert (done["status"], done["failures"]) == ("completed", {"insufficient_funds": 1})
    assert [(row["status"], row["code"]) for row in results(made.ann, view)] == [("failed", "insufficient_funds"), ("paid", "")]
    made.ann.transfer(spent["id"], wait=20)
    until(lambda: made.available() == ("4.00", "6.00"))
    assert len(made.ann.history(made.purse)) == 3, "faucet, 5.00, 1.00: what could not be paid was no transfer"
    again = bring(made, f"{made.till['id']},USD,4.01,,").json()
    assert problem(act(made.ann, again, "confirm")) == (409, "insufficient_funds")
    assert look(made.ann, again)["status"] == "checked"


def test_what_is_not_handed_in_can_be_stopped(world: World) -> None:
    made = world.deal()
    view = bring(made, *(f"{made.till['id']},USD,0.01,,{number}" for number in range(500))).json()
    with world.network.switched(hold=True):
        act(made.ann, view, "confirm")
        stopped = act(made.ann, view, "cancel").json()
        assert stopped["status"] == "canceling"
        assert stopped["lines"]["waiting"] == 0 < stopped["lines"]["canceled"]
    done = ended(made.ann, view)
    paid = done["lines"]["paid"]
    assert (done["status"], done["lines"]["canceled"]) == ("canceled", 500 - paid)
    until(lambda: made.bob.balance(made.till)[0] == f"{paid / 100:.2f}")
    assert act(made.ann, view, "cancel").json() == done
    assert act(made.ann, view, "confirm").json() == done
    never = bring(made, f"{made.till['id']},USD,0.01,,").json()
    assert act(made.ann, never, "cancel").json()["status"] == "canceled"
    assert problem(act(made.ann, never, "confirm")) == (409, "payment_file_not_open")


def test_files_are_ones_own_and_so_many(world: World) -> None:
    made = world.deal()
    views = [bring(made, f"{made.till['id']},USD,0.01,,{number}").json() for number in range(10)]
    assert problem(bring(made, f"{made.till['id']},USD,0.01,,")) == (409, "limit_exceeded")
    first = made.ann.get("/v1/payment-files", limit=6).json()
    rest = made.ann.get("/v1/payment-files", limit=6, cursor=first["next_cursor"]).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == [view["id"] for view in reversed(views)]
    for path in ("", "/lines", "/result.csv"):
        assert problem(made.bob.get(f"/v1/payment-files/{views[0]['id']}{path}")) == (404, "payment_file_not_found")
    for what in ("confirm", "cancel"):
        assert problem(act(made.bob, views[0], what)) == (404, "payment_file_not_found")
    assert problem(made.bob.get("/v1/payment-files/x")) == (404, "payment_file_not_found")
    lines = made.ann.get(f"/v1/payment-files/{views[3]['id']}/lines", status="waiting").json()
    assert [(line["line"], line["reference"], line["amount"]) for line in lines["items"]] == [(2, "3", "0.01")]
