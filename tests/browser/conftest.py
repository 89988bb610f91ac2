"""One browser for all stories, and one network whose gateway serves the page."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from tests.browser.visitor import Device, Visitor
from tests.gateway.world import World
from tests.person import PASSWORD, Person
from tests.processes import ProgramProcess, free_port

Make = Callable[[Device], Visitor]
Inside = Callable[..., tuple[Visitor, Person]]


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(World(tmp_path_factory.mktemp("browser"))) as shared:
        shared.start_gateway()
        yield shared


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, without a window. Where there is none: skipped for a person, failed in continuous integration."""
    with sync_playwright() as playwright:
        program = _chromium(playwright)
        if program is None:
            missing = "no Chromium found: apt install chromium, or python -m playwright install --with-deps chromium"
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with closing(playwright.chromium.launch(executable_path=program, args=arguments)) as launched:
            yield launched


def _chromium(playwright: Playwright) -> str | None:
    own = playwright.chromium.executable_path
    if Path(own).exists():
        return own
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="package")
def shop(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProgramProcess]:
    """The example shop, with an account at that gateway."""
    folder, port = tmp_path_factory.mktemp("shop"), free_port()
    files = {"genesis": world.folder / "genesis.json", "data": folder / "data"}
    places = {"gateway": world.gateway.url, "url": f"http://127.0.0.1:{port}"}
    lines = [f"{name} = '{value}'" for name, value in (files | places).items()]
    program = ProgramProcess("demo.shop", folder, "\n".join([*lines, f"port = {port}", ""]), port)
    program.start("/healthz")
    yield program
    program.stop()


@pytest.fixture
def visitor(browser: Browser, world: World) -> Iterator[Callable[[Device], Visitor]]:
    """Makes visitors, each in a browser profile of their own; no script of theirs may have failed. ``SHARDPAY_SHOTS`` names a
    folder for pictures of what they looked at."""
    shots = Path(os.environ["SHARDPAY_SHOTS"]) if "SHARDPAY_SHOTS" in os.environ else None
    with ExitStack() as stack:
        yield lambda device: stack.enter_context(closing(Visitor(browser, device, world.gateway.url, shots)))


@pytest.fixture
def inside(visitor: Make, world: World) -> Inside:
    """Somebody with an account, a wallet and some money, logged in at the page."""

    def enter(device: Device, **amounts: str) -> tuple[Visitor, Person]:
        person = world.person()
        person.wallet(None, None, **amounts)
        someone = visitor(device)
        someone.open()
        someone.log_in(person.email, PASSWORD)
        expect(someone.page.locator(".purse")).to_have_count(1)
        return someone, person

    return enter
