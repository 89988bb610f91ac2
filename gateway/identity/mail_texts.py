"""The gateway's mails in each language, see ``mail_texts.toml``."""

import tomllib
from enum import StrEnum
from pathlib import Path


class Letter(StrEnum):
    """What a mail is about."""

    VERIFY = "verify"
    KNOWN = "known"
    RESET = "reset"
    CHANGED = "changed"
    PASSKEY = "passkey"


_TEXTS: dict[str, dict[str, dict[str, str]]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def written(letter: Letter, language: str, link: str) -> tuple[str, str]:
    """Subject and text of a mail."""
    found = _TEXTS[language][letter.value]
    return found["subject"], found["text"].format(link=link)
