"""``python -m gateway reconcile --config FILE``: whether money in and out adds up, beside a gateway that runs, or without it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from config.logs import configure
from config.settings import GatewaySettings, SettingsError, read_settings
from gateway.database import Database, open_engine
from gateway.epochs import StoredEpochs
from gateway.money.reconciliation import Reconciliation, Report
from gateway.money.testbank import TestBank
from gateway.money.testcards import TestProcessor
from gateway.queries import Queries
from node.client.line import Line
from node.protocol.genesis import read_genesis

DESCRIPTION = """Compares, per asset, what this gateway's payments minted and burned with what the card processor and the bank
say, and with the figures that the issuer's committee has certified. Names each difference. Exit code: 0 it adds up, 1 it does
not, 2 it cannot be told, because somebody does not answer."""
EXIT_CODES = {True: 0, False: 1, None: 2}
_CONNECTED_WITHIN = 2.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway reconcile", description=DESCRIPTION)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the gateway's settings (TOML)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(GatewaySettings, options.config)
        configure("reconcile", settings.name)
        report = asyncio.run(reconcile(settings))
    except (SettingsError, SQLAlchemyError, CommandError, OSError, ValueError, ImportError) as error:
        print(f"reconcile: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(json.dumps(report._asdict()) if options.json else table(report))
    return EXIT_CODES[report.balanced]


async def reconcile(settings: GatewaySettings) -> Report:
    """A report, over a connection to the broker of its own. Raises what ``main`` catches."""
    genesis = read_genesis(Path(settings.genesis))
    line, database = Line(settings.broker), Database(open_engine(settings.database))
    connected = asyncio.Event()
    line.on_change = connected.set
    try:
        epochs = StoredEpochs(genesis, database, lambda _: None)
        await epochs.load()
        queries = Queries(line, epochs, genesis.network)
        tasks = [asyncio.create_task(work()) for work in (line.run, queries.run)]
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECTED_WITHIN):
                await connected.wait()
        processor, rail = (TestProcessor(database), TestBank(database)) if settings.devnet else (None, None)
        assets = {asset.code: asset for asset in genesis.assets}
        report = await Reconciliation(database, assets, epochs, queries, processor, rail).run()
        for task in tasks:
            task.cancel()
        return report
    finally:
        database.close()


def table(report: Report) -> str:
    lines = []
    for asset, figures in report.assets.items():
        lines.append(asset)
        lines += [f"  {name.replace('_', ' '):<18}{amount:>24}" for name, amount in figures.items()]
    lines += [f"difference: {text}" for text in report.differences]
    lines += [f"cannot tell: {text}" for text in report.unknown]
    verdict = {True: "It adds up.", False: "IT DOES NOT ADD UP.", None: "Whether it adds up cannot be told now."}
    return "\n".join([*lines, verdict[report.balanced]])
