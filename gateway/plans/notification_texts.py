"""Mails about events in each language, see ``notification_texts.toml``."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

NotificationType = Literal[
    "transfer.received",
    "scheduled_payment.retrying",
    "scheduled_payment.failed",
    "payment_file.completed",
    "payout.returned",
    "purchase.disputed",
]
"""The events that can be told by mail."""
TYPES: tuple[NotificationType, ...] = get_args(NotificationType)
_TEXTS: dict[str, Mapping[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def written(kind: str, language: str, amount: str, is_last: bool, link: str) -> tuple[str, str]:
    """Subject and text of a mail. ``amount``: empty when it is not to be told. ``link``: to the page, up to its view."""
    texts = _TEXTS[language]
    found = texts[kind]
    parts = [found["text"].strip()]
    if amount:
        parts.append(texts["amount"].format(amount=amount))
    parts.append(link + "history")
    if is_last:
        parts.append(texts["last"].strip())
    parts.append(texts["choose"].strip().format(link=f"{link}settings"))
    return found["subject"], "\n\n".join(parts) + "\n"
