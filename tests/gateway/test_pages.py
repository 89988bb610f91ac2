"""The wallet page as files: what is served, under which policy, and that it has words for everything in every language."""

import ast
import json
import re
from pathlib import Path

import pytest

from gateway.api.pages import WEB
from node.protocol.codes import Code
from tests.gateway.world import World

SCRIPTS = sorted(WEB.rglob("*.js"))
MESSAGES = {path.stem: json.loads(path.read_text()) for path in (WEB / "messages").iterdir()}
OWN_PROBLEMS = {"offline", "required", "invalid_expiry", "other"}
"""What the page itself finds wrong."""
FREE = ("error.", "status.", "kind.", "event.", "decline.", "menu.", "scope.", "notify.", "tab.", "invalid.")
"""Groups from which a message is chosen by what the gateway says."""


def test_the_page_is_served_under_a_strict_policy_and_what_one_person_is_told_is_kept_nowhere(world: World) -> None:
    http = world.gateway.http
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/", "/web/place.json", *re.findall(r'(?:src|href)="(/web/[^"]+)"', page.text)):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
    origin = world.gateway.url.replace("127.0.0.1", "localhost")
    assert http.get("/web/place.json").json() == {"devnet": True, "shop": None, "passkeys": origin}
    person = world.person()
    for answer in (person.get("/v1/me"), person.post("/v1/auth/refresh", {"refresh_token": person.refresh_token})):
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [WEB / "index.html", WEB / "style.css", *SCRIPTS], ids=lambda path: path.name)
def test_a_file_loads_nothing_from_elsewhere_and_turns_no_data_into_markup_or_code(path: Path) -> None:
    text = path.read_text()
    assert not re.findall(r"(?:https?:)?//[a-z0-9][^\s\"'`)]*", re.sub(r"^\s*//.*", "", text, flags=re.MULTILINE), re.IGNORECASE)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc", "eval(", "Function("):
        assert word not in text
    assert not re.search(r"<[^>]+\son\w+=|<style|style=|<script(?![^>]*\ssrc=)", text)
    assert all((path.parent / module).exists() for module in re.findall(r'from "(\.[^"]+)"', text))


@pytest.mark.parametrize("language", ["de", "es", "zh"])
def test_every_language_has_the_same_messages_with_the_same_places_for_values(language: str) -> None:
    def places(messages: dict[str, str]) -> dict[str, set[str]]:
        return {key: set(re.findall(r"\{\w+\}", words)) for key, words in messages.items()}

    assert places(MESSAGES[language]) == places(MESSAGES["en"])
    assert all(words.strip() for words in MESSAGES[language].values())


def test_every_message_asked_for_is_there_and_none_is_left_over() -> None:
    text = "\n".join(path.read_text() for path in SCRIPTS)
    asked = set(re.findall(r'\bt\(\s*"([^"]+)"', text))
    assert asked <= MESSAGES["en"].keys()
    quoted = set(re.findall(r'"([a-z_]+\.[a-z_.]+)"', text))
    chosen = {key for key in MESSAGES["en"] if key.startswith(FREE)} | {
        "history.sent",
        "history.received",
        "frame.live",
        "frame.polling",
    }
    assert MESSAGES["en"].keys() - quoted - chosen == set()


def test_every_view_has_a_name_and_the_menu_leads_to_views() -> None:
    text = (WEB / "views.js").read_text()
    views = set(re.findall(r"^  (\w+): \{ view", text, re.MULTILINE))
    menu = set(json.loads(text.partition("export const MENU = ")[2].rstrip(";\n")))
    assert menu < views
    assert {f"menu.{name}" for name in views} <= MESSAGES["en"].keys()


def test_every_problem_the_gateway_answers_with_has_words() -> None:
    codes = OWN_PROBLEMS | {code.value for code in Code if code}
    for path in WEB.parent.rglob("*.py"):
        codes |= set(_codes(ast.parse(path.read_text())))
    assert {f"error.{code}" for code in codes} - MESSAGES["en"].keys() == set()


def _codes(tree: ast.AST) -> list[str]:
    """The second argument of each ``Problem(status, code, ...)`` and ``document(status, code, ...)``, where it is written out."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) > 1]
    codes = [call.args[1] for call in calls if ast.unparse(call.func) in ("Problem", "document", "problems.document")]
    return [code.value for code in codes if isinstance(code, ast.Constant) and isinstance(code.value, str)]
