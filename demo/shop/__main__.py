"""``python -m demo.shop --config FILE``: an example shop that is paid through the gateway."""

import argparse
import sys
from pathlib import Path

import httpx
import uvicorn

from config.logs import configure
from config.settings import SettingsError, ShopSettings, read_settings
from demo.shop.account import open_account
from demo.shop.orders import Orders
from demo.shop.pages import make_app
from demo.shop.till import Till
from node.protocol.genesis import read_genesis


def main() -> int:
    """Run until SIGTERM or SIGINT. Exit code 2: wrong settings; 1: the gateway does not give it an account."""
    parser = argparse.ArgumentParser(prog="python -m demo.shop", description="An example shop: checkout, webhooks, proofs.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings: config.settings.ShopSettings")
    try:
        settings = read_settings(ShopSettings, parser.parse_args().config)
        genesis = read_genesis(Path(settings.genesis))
    except (SettingsError, OSError, ValueError) as error:
        print(f"shop: {error}", file=sys.stderr)
        return 2
    configure("shop", "shop")
    gateway = httpx.Client(base_url=settings.gateway, timeout=10)
    try:
        account = open_account(gateway, Path(settings.data), settings.url)
    except httpx.HTTPError as error:
        print(f"shop: no account at {settings.gateway}: {error}", file=sys.stderr)
        return 1
    till = Till(gateway, account, Orders(Path(settings.data) / "orders.db"), genesis, settings.url)
    uvicorn.run(make_app(till, settings.gateway), host=settings.host, port=settings.port, log_config=None, access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
