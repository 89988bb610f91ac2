"""The bench's arithmetic and table."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

import pytest

from node.protocol.block import Outcome, Receipt
from node.protocol.chain import Chain
from scripts.benchmark import load, profiled
from scripts.benchmark.checks import Cost, cost_of
from scripts.benchmark.client import LoadClient, batches
from scripts.benchmark.empty import Quiet, empty_figures
from scripts.benchmark.gateway import Wallet, loop_figures, payments
from scripts.benchmark.http_client import NotHttp, Request, Seen, take_answer
from scripts.benchmark.load import BenchError, Sample, percentile
from scripts.benchmark.measure import Usage
from scripts.benchmark.network import Network
from scripts.benchmark.options import parse
from scripts.benchmark.postgres import postgres_figures, rate_of
from scripts.benchmark.profile import profile_figures
from scripts.benchmark.report import Costs, engine_figures, rate, table
from scripts.benchmark.run import went_wrong
from scripts.benchmark.series import markdown, settings
from scripts.benchmark.turns import compare, take_alternately, turns_table
from scripts.devnet import postgres, processes
from scripts.devnet.customer import Purse
from scripts.devnet.layout import Devnet, Folder, Ports, Program
from scripts.devnet.postgres import PostgresError, find_programs
from tests.waiting import until


def results(cross: int = 0, check: float = 50e-6) -> dict[str, object]:
    full = Sample(10.0, 900, 1000, cross, [0.1] * 10, [0.3] * 10, Counter())
    trickle = Sample(1.0, 4, 4, 2, [0.02, 0.02], [0.06, 0.06], Counter())
    before, after = Usage(1.0, 0.0, ()), Usage(1.0 + 0.4, 4_000_000.0, (100 << 20, 80 << 20))
    costs = Costs(before, after, Cost(check, check * 0.9, check * 1.2), Cost(30e-6, 29e-6, 31e-6), 200.0)
    return engine_figures(full, trickle, costs, committees=2, committee_size=4)


def test_cost_is_per_transaction_and_replica_that_keeps_one_of_its_shards() -> None:
    intra, crossing = results(), results(cross=1_000)
    assert (intra["tps"], intra["cpu_per_transaction_us"], intra["R1"]) == (90.0, 100.0, 2.0)
    assert (crossing["cpu_per_transaction_us"], crossing["R1"]) == (50.0, 1.0)
    assert intra["R4"] == 1 + 4_000_000 / (1_000 * 4) / 200


def test_the_unit_is_the_check_timed_during_the_load() -> None:
    assert results()["check_us"] == {
        "loaded": {"median": 50.0, "p10": 45.0, "p90": 60.0},
        "idle": {"median": 30.0, "p10": 29.0, "p90": 31.0},
    }
    assert results(check=100e-6)["R1"] == 1.0
    assert "50.0 us under full load (45.0 to 60.0), 30.0 us idle" in table(results())


def test_a_check_costs_the_median_of_all_bursts() -> None:
    assert cost_of([float(n) for n in reversed(range(11))]) == Cost(5.0, 1.0, 9.0)
    assert cost_of([7.0]) == Cost(7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no signature check"):
        cost_of([])


def test_memory_is_that_of_a_node() -> None:
    assert results()["memory_mb"] == {"mean": 90.0, "largest": 100.0}


def test_the_table_shows_dead_members_only_when_there_were_some() -> None:
    plain = results()
    assert "R5" not in table(plain)
    assert "0.8   throughput with 1 dead" in table(plain | {"R5": 0.8, "dead": 1})


class SteadyNetwork:
    """A client's view of a network that decides, in a block a second, whatever was sent before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now, self._sent = 0.0, list[bytes]()
        monkeypatch.setattr("scripts.benchmark.load.time.monotonic", lambda: self._now)

    def home_of(self, payer: bytes) -> Chain:
        return Chain(1, 0)

    def touched(self, epoch: int, addresses: Sequence[bytes]) -> int:
        return 1

    def send(self, home: Chain, encoded: Sequence[bytes]) -> None:
        self._sent += encoded

    def receipts(self, timeout: float) -> list[tuple[Chain, Receipt]]:
        self._now += 1.0
        sent, self._sent = self._sent, []
        return [(Chain(1, 0), Receipt(one, Outcome.COMMITTED)) for one in sent]


@pytest.mark.parametrize("seconds", [4.0, 4.9])
def test_a_rate_counts_from_a_full_network_to_the_last_commit_in_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    client = cast(LoadClient, SteadyNetwork(monkeypatch))
    payments = [load.Signed(bytes([i]), (b"payer",), bytes([i])) for i in range(200)]
    sample = load.run_load(client, payments, 10, seconds)
    assert (sample.committed, sample.seconds, rate(sample)) == (40, 4.0, 10.0)
    assert sample.done == sample.committed + 10 + 10, "what filled the network, and what was under way at the end"
    assert load.run_load(client, payments, 50).done == 200


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([], 0.5) is None


def test_batches_stay_below_the_brokers_limit() -> None:
    encoded = [bytes(1_000)] * 200
    made = list(batches(encoded))
    assert [one for batch in made for one in batch] == encoded
    assert max(sum(map(len, batch)) for batch in made) <= 64 << 10


def http(code: int, body: str) -> bytes:
    return f"HTTP/1.1 {code} Text\r\nserver: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_answers_are_cut_off_the_stream_one_by_one_however_they_arrive() -> None:
    sent = http(200, '{"id":"a","status":"committed"}') + http(202, '{"status":"queued"}')
    received, found = bytearray(), []
    for one in sent:
        received.append(one)
        if (answer := take_answer(received)) is not None:
            found.append(answer)
    assert found == ["committed", "accepted"]
    assert not received


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http(200, '{"status":"rejected","code":"insufficient_funds"}'), "200 rejected insufficient_funds"),
        (http(503, '{"status":503,"code":"overloaded"}'), "503 overloaded"),
        (http(500, "oh"), "500 not JSON"),
    ],
)
def test_what_is_not_committed_is_named(answer: bytes, outcome: str) -> None:
    assert take_answer(bytearray(answer)) == outcome


@pytest.mark.parametrize("nonsense", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_what_is_no_answer_with_a_length_is_refused(nonsense: bytes) -> None:
    with pytest.raises(NotHttp):
        take_answer(bytearray(nonsense))


def requests(shards: int, cross: float) -> list[list[Request]]:
    wallets = [Wallet(Purse(f"id{i}", f"address-{i % shards}", i % shards), "Bearer x") for i in range(4 * shards)]
    return payments(wallets, cross, 8080, "?wait=30")


def test_the_asked_share_of_http_payments_goes_to_another_shard() -> None:
    made = requests(2, 0.25)
    assert sum(request.cross for own in made for request in own) == 16
    for number, own in enumerate(made):
        assert all((f"address-{number % 2}".encode() not in request.encoded) == request.cross for request in own)
    assert not any(request.cross for own in requests(1, 1.0) for request in own)


def loop(expected: str, answers: dict[str, int], finished: dict[str, int]) -> dict[str, object]:
    seen = Seen(2.0, 0.001, answers, dict.fromkeys(answers, 10), [0.01] * 5, [0.03] * 5)
    return loop_figures(32, seen, expected, 0.1, 0.2, Cost(50e-6, 50e-6, 50e-6), Counter(finished), 4.0)


def test_an_http_payment_costs_what_the_gateway_used_for_all_that_came_through() -> None:
    waiting = loop("committed", {"committed": 20}, {"committed": 20})
    assert (waiting["R7"], waiting["gateway_cpu_us"], waiting["nodes_cpu_us"], waiting["client_cpu_us"]) == (100, 5e3, 1e4, 50)
    assert (waiting["accepted_per_s"], waiting["committed_per_s"], waiting["unexpected"]) == (5.0, 5.0, {})
    accepting = loop("accepted", {"accepted": 20}, {"committed": 18, "expired": 2})
    assert (accepting["accepted_per_s"], accepting["committed_per_s"], accepting["unexpected"]) == (5.0, 4.5, {"expired": 2})


SETTING = {"processes": 1, "database": "SQLite"}


def test_a_run_with_anything_unexpected_fails_and_says_what() -> None:
    good, bad = loop("committed", {"committed": 20}, {}), loop("committed", {"committed": 20, "503 overloaded": 2}, {})
    fine = results() | {"gateway": {"waiting": [good], "accepting": good, "R7": 100} | SETTING}
    wrong = results() | {"gateway": {"waiting": [good, bad], "accepting": good, "R7": 100} | SETTING}
    assert (went_wrong(fine), went_wrong(wrong), went_wrong(results() | {"failed": {"expired": 1}})) == (False, True, True)
    assert "503 overloaded" in table(wrong)
    assert "WRONG" not in table(fine)


def test_an_empty_block_costs_what_a_node_used_for_each_of_its_blocks_in_checks_as_dear_as_they_were_meanwhile() -> None:
    memory = (60 << 20,) * 8
    idle = Quiet(0.8, memory, 10.0, 80, Cost(50e-6, 50e-6, 50e-6))
    busy = Quiet(0.8, memory, 10.0, 1600, Cost(25e-6, 25e-6, 25e-6))
    found = empty_figures(idle, busy)
    assert (found["idle"]["checks_per_block"], found["idle"]["blocks_per_s"], found["idle"]["cpu_share"]) == (200.0, 1.0, 0.01)
    assert (found["R6"], found["busy"]["blocks_per_s"], found["busy"]["memory_mb"]["mean"]) == (20.0, 20.0, 60.0)
    shown = table(results() | {"empty": found})
    assert "1.0 blocks/s in each of 8 nodes: 1.0% of a core a node, 200.0 checks a block of 50.0 us, 60.0 MB" in shown


def test_the_ratio_to_postgres_is_to_the_mean_of_before_and_after() -> None:
    found = postgres_figures({"simple": 1000.0, "prepared": 2000.0}, {"simple": 3000.0, "prepared": 2000.0}, 3000.0)
    assert found["simple"] == {"before": 1000.0, "after": 3000.0, "ratio": 1.5}
    assert found["prepared"]["ratio"] == 1.5
    shown = table(results() | {"pgbench": found})
    assert "1.5 times PostgreSQL's TPC-B, simple: 1000.0/s before, 3000.0/s after" in shown


def test_pgbench_is_asked_for_its_rate_without_connecting() -> None:
    assert rate_of("latency average = 5 ms\ntps = 2980.5 (without initial connection time)\n") == 2980.5
    assert rate_of("tps = 10.0 (including connections establishing)\ntps = 12.0 (excluding ...)\n") == 12.0
    with pytest.raises(BenchError, match="could not connect"):
        rate_of("could not connect")


def test_without_postgres_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "PACKAGED", tmp_path)
    with pytest.raises(PostgresError, match="no postgres and no initdb and no pgbench"):
        find_programs("pgbench")
    newer = tmp_path / "16" / "bin"
    for folder in (tmp_path / "9.6" / "bin", newer):
        folder.mkdir(parents=True)
        for name in ("postgres", "initdb", "pgbench"):
            (folder / name).touch()
    assert find_programs("pgbench")["initdb"] == newer / "initdb"


def frame_of(file: str) -> FrameType:
    """One of code that seems to be in ``file``, called from here."""
    values: dict[str, FrameType] = {}
    exec(compile("import sys\nframe = sys._getframe()", file, "exec"), values)
    return values["frame"]


def test_cpu_time_is_put_down_to_the_innermost_file_of_the_project_or_library() -> None:
    assert profiled.place(frame_of(f"{profiled.ROOT}node/ledger/state.py")) == "node/ledger/state.py"
    assert profiled.place(frame_of("/x/site-packages/libp2p/stream/yamux.py")) == "libp2p"
    assert profiled.place(frame_of("/x/lib/python3.11/selectors.py")) == "tests/unit/test_benchmark.py"
    assert profiled.place(None) == "python"


def test_a_program_tells_where_its_cpu_time_went(tmp_path: Path) -> None:
    output = tmp_path / "profile"
    command = [sys.executable, "-m", "scripts.benchmark.profiled", str(output), "scripts.benchmark.checks"]
    with subprocess.Popen(command, cwd=profiled.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        seconds: dict[str, float] = {}

        def told() -> bool:
            program.send_signal(signal.SIGUSR2)
            if output.exists():
                seconds.update(json.loads(output.read_text()))
            return seconds.get("node/protocol/crypto.py", 0.0) > 0.01

        until(told, "it checks signatures")
        program.communicate()
    assert program.returncode == 0, "it ends as it would without"


def test_a_profile_that_is_asked_for_while_it_is_written_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take the draft away from the one that it has interrupted, and that end the program."""
    sampler, output, replace = profiled.Sampler(), tmp_path / "profile", Path.replace

    def interrupted(draft: Path, target: Path) -> Path:
        sampler.write(None, output)
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    for _ in range(2):
        sampler.write(None, output)
        assert json.loads(output.read_text()).keys() == sampler.seconds.keys()
        output.unlink()


def test_parts_are_folders_and_libraries_with_their_dearest_files() -> None:
    seconds = {"node/ledger/state.py": 3.0, "node/ledger/rules.py": 1.0, "node/runtime.py": 1.0, "trio": 2.95, "msgspec": 0.05}
    seconds |= {"thread write": 0.5, "thread verdicts": 1.5}
    parts = profile_figures(seconds, 100.0)
    assert [(part["part"], part["share"], part["us"]) for part in parts] == [
        ("node/ledger", 0.4, 40.0),
        ("trio", 0.295, 29.5),
        ("threads", 0.2, 20.0),
        ("node/runtime.py", 0.1, 10.0),
        ("rest", 0.005, 0.5),
    ]
    shown = table(results() | {"profile": parts})
    assert " 40.0%     40.0 us  node/ledger              state.py, rules.py\n" in shown
    assert "threads                  thread verdicts, thread write\n" in shown


def test_the_table_has_a_column_for_each_run_and_a_row_for_each_figure_that_one_has() -> None:
    http = loop("committed", {"committed": 20}, {"committed": 20})
    second = results(cross=500) | {"gateway": {"waiting": [http, http], "accepting": http, "R7": 100} | SETTING}
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown([results(), second]).splitlines()]
    assert lines[0] == ["", "2 x 4, 0% across", "2 x 4, 50% across"]
    rows = {line[0]: line[1:] for line in lines[2:]}
    assert rows["transactions/s"] == ["90.0", "90.0"]
    assert rows["R7: CPU of an HTTP payment in the gateway, in checks"] == ["-", "100"]
    assert rows["latency across shards, light load"] == ["60 / 60", "60 / 60"]
    assert not any(name.startswith(("R5", "R6", "PostgreSQL")) for name in rows)


def test_a_table_runs_one_two_and_four_committees() -> None:
    runs = settings(parse(["--table", "--seconds", "3", "--committee-size", "7"]))
    assert {(one.committees, one.cross) for one in runs} == {(1, 0.0)} | {(k, c) for k in (2, 4) for c in (0.0, 0.5, 1.0)}
    assert {(one.seconds, one.committee_size) for one in runs} == {(3.0, 7)}
    assert [(one.committees, one.cross) for one in settings(parse(["--committees", "3", "--cross", "0.1"]))] == [(3, 0.1)]


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            "--cross 1.5",
            "--seconds 0",
            "--empty 0",
            "--table --data x",
            "--profile --data x",
            "--table --profile",
            "--port-base 5",
        ),
        *("--turns 1", "--against x --table", "--against x --empty", "--against x --pgbench", "--against x --dead 1"),
        *("--gateways 0", "--gateways 99", "--gateways 2 --data x", "--postgresql --data x"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments.split())
    assert ended.value.code == 2
    assert "usage: ./scripts/bench" in capsys.readouterr().err


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    assert "--pgbench" in capsys.readouterr().out


def test_nodes_and_every_process_of_the_gateway_are_profiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[Program] = []
    monkeypatch.setattr(processes, "start_missing", lambda _folder, programs: started.extend(programs))
    names = ["broker", "node-0", "gateway", "gateway-2"]
    programs = [Program(name, ("python", "-m", name), tmp_path / "log", ()) for name in names]
    devnet = Devnet(Folder(tmp_path), Ports(20_000), 1, (), gateways=2)
    Network(devnet, programs, is_profiled=True).start(*names)
    assert {program.name for program in started if "scripts.benchmark.profiled" in program.argv} == {*names} - {"broker"}


def test_two_networks_take_turns_and_who_was_last_is_first_in_the_next() -> None:
    order: list[str] = []
    rates = {"this": iter([9.0, 110.0, 130.0, 120.0]), "other": iter([9.0, 100.0, 100.0, 200.0])}

    def run(name: str) -> dict[str, float]:
        order.append(name)
        return {"tps": next(rates[name])}

    found = take_alternately("full load", [partial(run, "this"), partial(run, "other")], 3)
    assert order == ["other", "this", "this", "other", "other", "this", "this", "other"]
    assert [(this["tps"], other["tps"]) for this, other in found] == [(110, 100), (130, 100), (120, 200)], "the first warms up"


def test_the_ratio_is_the_mean_of_those_within_the_turns_and_has_an_error() -> None:
    turns = [({"tps": 110.0}, {"tps": 100.0}), ({"tps": 260.0}, {"tps": 200.0})]
    compared = compare(turns)
    assert compared == {"tps": {"this": 185.0, "other": 150.0, "ratio": pytest.approx(1.2), "error": pytest.approx(0.1)}}
    shown = turns_table({"turns": 2, "seconds": 5.0, "cross_share": 0.5, "engine": compared})
    assert shown.splitlines()[0] == "2 turns of 5 s each, 50% cross-shard"
    assert "185.0 against    150.0   ratio 1.200, standard error 0.100" in shown
