"""Somebody at the wallet page, who finds everything by the words it shows in their language."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from gateway.api.pages import WEB

PASSWORD = "a donkey counts blue umbrellas"
expect.set_options(timeout=30_000)  # other tests run beside these


class Device(NamedTuple):
    """What a browser says of where it runs."""

    name: str
    language: str
    locale: str
    size: tuple[int, int]
    dark: bool
    phone: bool


DESKTOP = Device("desktop", "en", "en-US", (1280, 900), dark=False, phone=False)
PHONE = Device("phone", "de", "de-DE", (390, 844), dark=True, phone=True)


class Visitor:
    def __init__(self, browser: Browser, device: Device, url: str, shots: Path | None) -> None:
        """``shots``: a folder for pictures of the views that were looked at."""
        size = {"width": device.size[0], "height": device.size[1]}
        self.context = browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            locale=device.locale,
            color_scheme="dark" if device.dark else "light",
            is_mobile=device.phone,
            has_touch=device.phone,
            reduced_motion="reduce",
        )
        self.page: Page = self.context.new_page()
        self.url, self._device, self._shots = url, device, shots
        self._words: dict[str, str] = json.loads((WEB / "messages" / f"{device.language}.json").read_text())
        self.broken: list[str] = []
        """Scripts that failed, and what was refused by the policy."""
        self.page.on("pageerror", lambda error: self.broken.append(str(error)))
        self.page.on("console", lambda line: self.broken.append(line.text) if "Content Security" in line.text else None)

    def t(self, key: str, **values: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], self._words[key])

    def number(self, amount: str) -> str:
        """As this language writes it."""
        return amount.replace(".", ",") if self._device.language == "de" else amount

    def open(self, path: str = "") -> None:
        self.page.goto(f"{self.url}/#/{path}")

    def log_in(self, email: str, password: str) -> None:
        """From the view that asks for it."""
        self.at("login")
        self.fill("field.email", email)
        self.fill("field.password", password)
        self.press("menu.login")

    def go(self, view: str) -> None:
        """By the menu."""
        if self._device.phone:
            self.press("frame.menu")
        self.page.get_by_role("navigation").get_by_role("link", name=self.t(f"menu.{view}"), exact=True).click()
        self.at(view)

    def at(self, view: str) -> None:
        """Wait for a view by its heading."""
        expect(self.page.get_by_role("heading", level=1, name=self.t(f"menu.{view}"))).to_be_visible()

    def fill(self, label: str, value: str, within: Locator | None = None) -> None:
        (within or self.page).get_by_label(self.t(label), exact=True).fill(value)

    def press(self, label: str, **values: str) -> None:
        self.page.get_by_role("button", name=self.t(label, **values), exact=True).click()

    def confirm(self, label: str) -> None:
        """In the dialog that asks again."""
        self.page.get_by_role("dialog").get_by_role("button", name=self.t(label), exact=True).click()

    def follow(self, label: str) -> None:
        self.page.get_by_role("link", name=self.t(label), exact=True).click()

    def sees(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_role("main")).to_contain_text(text)

    def passkeys(self) -> Callable[..., None]:
        """Gives the device an authenticator of its own; returns what makes it recognise its user, or not (``verified``)."""
        protocol = self.context.new_cdp_session(self.page)
        protocol.send("WebAuthn.enable")
        kind = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
        made = protocol.send("WebAuthn.addVirtualAuthenticator", {"options": kind | {"isUserVerified": True}})

        def recognise(verified: bool) -> None:
            protocol.send("WebAuthn.setUserVerified", {**made, "isUserVerified": verified})

        return recognise

    def looks_right(self, name: str) -> None:
        """Nothing that a screen reader or a keyboard stumbles over, and nothing wider than the window."""
        found: dict[str, Any] = Axe().run(self.page).response
        wrong = [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]
        if self._shots is not None:
            self.page.screenshot(path=self._shots / f"{self._device.name}-{name}.png", full_page=True)
        assert wrong == [], f"{name}: {wrong}"
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"

    def close(self) -> None:
        self.context.close()
        assert self.broken == []
