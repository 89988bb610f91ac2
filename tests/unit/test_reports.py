"""What processes tell of themselves: what a reader accepts of it, and what it does with the numbers."""

import msgspec
import pytest

from gateway.reporter import latency
from node.metrics import HELP
from node.process import this_process
from node.protocol.codec import DecodeError, encode
from node.protocol.reports import COUNTERS, MAX_TEXT, Latency, Notable, Report, numbers, read_report
from tests.figures import COORDINATOR, DASHBOARD, GATEWAY, NODE, changed


@pytest.mark.parametrize("figures", [NODE, COORDINATOR, GATEWAY, DASHBOARD, changed(NODE, replica=None)])
def test_figures_arrive_as_they_were_sent(figures: msgspec.Struct) -> None:
    report = Report("node-1", 5, figures)  # type: ignore[arg-type]
    assert read_report(encode(report)) == report


@pytest.mark.parametrize(
    "content",
    [
        changed(NODE, cpu_ms=-1),
        changed(NODE, height=2**60),
        changed(NODE, height="high"),
        changed(NODE, height=1.5),
        changed(NODE, height=None),
        changed(NODE, latency_us=float("nan")),
        changed(NODE, phase="lunch"),
        changed(NODE, state_root=b"short"),
        changed(NODE, shard=1024),
        changed(NODE, doing=["list"]),
        changed(NODE, doing="x" * 5_000),
        changed(GATEWAY, intra=0),
        Notable("x" * 5_000),
        Notable("\u202e\x00 "),
        [*msgspec.to_builtins(COORDINATOR), 5],
        msgspec.to_builtins(COORDINATOR)[:-1],
        {"phase": "mining"},
        None,
    ],
)
def test_what_does_not_fit_the_figures_is_refused(content: object) -> None:
    with pytest.raises(DecodeError):
        read_report(encode(["node-1", 5, content]))


@pytest.mark.parametrize("source", ["", "a" * 33, "a\u202eb", "<b>", 5])
def test_a_source_is_a_name(source: object) -> None:
    with pytest.raises(DecodeError):
        read_report(encode([source, 5, NODE]))


def test_texts_become_one_printable_line_of_bounded_length() -> None:
    long = "a\nb\u202e" + "c" * 1_000
    for text in (
        read_report(encode(Report("a", 5, Notable(long)))).content.text,  # type: ignore[union-attr]
        read_report(encode(Report("a", 5, changed(NODE, doing=long)))).content.process.doing,  # type: ignore[union-attr]
    ):
        assert text.startswith("a b c")
        assert text.isprintable()
        assert len(text) == MAX_TEXT


def test_numbers_are_found_in_nested_figures_and_what_is_absent_is_left_out() -> None:
    found = numbers(NODE)
    assert (found["cpu_ms"], found["peers"], found["height"], found["catching_up"]) == (1_500, 7, 42, False)
    assert "height" not in numbers(changed(NODE, replica=None))
    assert "latency_us" not in numbers(changed(NODE, latency_us=None))


def test_counters_are_what_grows() -> None:
    assert {"cpu_ms", "committed", "bytes_in", "transfers"} <= COUNTERS
    assert not {"pid", "memory", "height", "mempool", "pending", "registered"} & COUNTERS


def test_prometheus_is_given_figures_that_a_node_has() -> None:
    assert set(HELP) <= set(numbers(NODE))


def test_percentiles_are_values_that_were_measured() -> None:
    assert latency([]) is None
    assert latency([7.0]) == Latency(p50_us=7_000, p99_us=7_000)
    assert latency(float(n) for n in range(100, 0, -1)) == Latency(p50_us=50_000, p99_us=99_000)


def test_a_process_measures_itself() -> None:
    before = this_process("working")
    sum(i * i for i in range(2_000_000))
    after = this_process("working")
    assert before.cpu_ms < after.cpu_ms < 3_600_000
    assert after.memory > 1 << 20
