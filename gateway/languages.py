"""The languages in which people are told what is wrong. The words are the wallet page's: one catalogue for both."""

import json
from pathlib import Path

LANGUAGES = ("en", "de", "es", "zh")
"""The first is what whoever wishes for none of them gets."""
_CATALOGUE = Path(__file__).parent / "web" / "messages"
_WORDS: dict[str, dict[str, str]] = {code: json.loads((_CATALOGUE / f"{code}.json").read_text()) for code in LANGUAGES}
_MAX_WISHES = 20


class Unfit(ValueError):
    """A value that is none of its kind: ``invalid.{kind}`` has the words in all languages, ``detail`` says more in English."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def words(language: str, key: str) -> str | None:
    """A message's words, if it has any."""
    return _WORDS[language].get(key)


def preferred(wishes: str) -> str:
    """The language that an ``Accept-Language`` header (RFC 9110, 12.5.4) likes best among ours."""
    best, weight = LANGUAGES[0], 0.0
    for wish in wishes.split(",")[:_MAX_WISHES]:
        spoken, _, quality = wish.partition(";")
        language = spoken.strip().lower().split("-")[0]
        if (liked := _weight(quality)) > weight and language in LANGUAGES:
            best, weight = language, liked
    return best


def _weight(text: str) -> float:
    name, _, value = text.strip().partition("=")
    if not text.strip():
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if name.strip().lower() == "q" and 0 <= weight <= 1 else 0.0
