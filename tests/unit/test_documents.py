"""What documents list is what the code has."""

import re
from pathlib import Path

import pytest
from msgspec import Struct

from node.ledger import rows
from node.metrics import HELP
from node.protocol import block, certificate, change, channel, epoch, messages, queries, reports, succession, topics, transaction

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = re.sub(r"\s+", " ", (ROOT / "docs/protocol.md").read_text().replace("`", "").replace(" or nil", ""))
DOCUMENTS = [path for path in ROOT.glob("**/*.md") if not path.relative_to(ROOT).parts[0].startswith(".")]
LISTED: list[type[Struct]] = [
    *(
        block.Block,
        block.CompactBlock,
        block.AssetTotal,
        block.PeerTotal,
        block.Totals,
        block.Balance,
        block.BalanceChange,
        block.Changes,
    ),
    *(block.Effects, certificate.Vote, certificate.Certificate, certificate.Finality, certificate.FinalBlock),
    *(certificate.CertifiedBlock, channel.Prepare, channel.Figure, channel.Bundle, channel.CertifiedBundle, epoch.EpochDocument),
    *(epoch.SignedDocument, epoch.PhaseNotice, epoch.Readiness, messages.Proposal, messages.Standing, messages.BodyRequest),
    *(messages.BundleRequest, queries.GetBlocks, queries.Query, queries.NodeStatus, queries.Reply, topics.Refusals),
    *(reports.Process, reports.ReplicaFigures, reports.NodeFigures, reports.CoordinatorFigures, reports.Latency),
    *(reports.GatewayFigures, reports.Report, transaction.Leg, transaction.Order, transaction.Transaction),
    *(rows.Waiting, rows.Prepared, rows.Flow, rows.Told),
    *(change.Change, change.Register, succession.Succession),
]


@pytest.mark.parametrize("struct", LISTED, ids=lambda struct: struct.__name__)
def test_the_specification_lists_the_fields_in_their_order(struct: type[Struct]) -> None:
    assert ", ".join(struct.__struct_fields__) in SPECIFICATION


def test_every_counter_of_a_node_is_a_metric() -> None:
    figures = {*reports.NodeFigures.__struct_fields__, *reports.ReplicaFigures.__struct_fields__}
    assert figures & reports.COUNTERS <= HELP.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_what_the_architecture_follows_through_the_code_is_there() -> None:
    named = re.findall(r"`([a-z_/]+\.py): (\w+)`", (ROOT / "docs/architecture.md").read_text())
    assert len(named) > 10
    for file, function in named:
        found = [path for folder in ("node", "gateway") for path in (ROOT / folder).rglob("*.py") if path.match(f"*/{file}")]
        assert any(f"def {function}(" in path.read_text() for path in found), f"{file}: {function}"
