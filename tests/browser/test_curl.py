"""The same story without a browser: with curl, as the documents show it."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest

from tests.gateway.world import World
from tests.processes import ProgramProcess

STORY = Path(__file__).parent / "story.sh"


def test_the_shop_keeps_its_secrets_to_itself_and_believes_no_stranger(shop: ProgramProcess) -> None:
    account = shop.config.parent / "data" / "account.json"
    assert stat.S_IMODE(account.stat().st_mode) == 0o600
    secrets = msgspec.json.decode(account.read_bytes())
    assert not {secrets["api_key"], secrets["webhook_secret"]} & set(re.findall(r"[\w-]+", shop.log.read_text()))
    assert shop.http.post("/webhook", json={"type": "payment_intent.succeeded"}).status_code == 400


@pytest.mark.skipif(shutil.which("curl") is None and not os.environ.get("CI"), reason="no curl")
def test_the_story_with_curl(world: World, shop: ProgramProcess) -> None:
    environment = os.environ | {"GATEWAY": world.gateway.url, "SHOP": shop.url}
    told = subprocess.run(["bash", "-euo", "pipefail", STORY], env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    email, *lines = told.stdout.splitlines()
    assert email.endswith("@example.org")
    assert lines == ["completed", "succeeded", "shop: paid", "shop: refunded", "100.00", "bank: paid", "0.00"]
