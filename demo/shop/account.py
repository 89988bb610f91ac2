"""The shop's account at the gateway: opened over the API at the first start, as any developer would."""

import os
import re
import secrets
import time
from pathlib import Path

import httpx
import msgspec

_PATIENCE = 120.0
"""Seconds for the gateway and its network to be ready."""


class Account(msgspec.Struct):
    """What the shop has to keep: the key to the API and the secret that webhooks are signed with."""

    wallet_id: str
    address: str
    api_key: str
    webhook_secret: str


def open_account(gateway: httpx.Client, folder: Path, url: str) -> Account:
    """The account kept in ``folder``, or a new one. ``url``: where the gateway reaches the shop. Raises httpx.HTTPError."""
    path = folder / "account.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Account)
    _wait_for(gateway)
    email, password = f"shop-{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(24)
    _post(gateway, "/v1/auth/register", {"email": email, "password": password, "name": "Corner Shop"})
    _post(gateway, "/v1/auth/verify", {"token": _mailed_token(gateway, email)})
    login = _post(gateway, "/v1/auth/login", {"email": email, "password": password})
    bearer = f"Bearer {login['access_token']}"
    wallet = _post(gateway, "/v1/wallets", {"label": "till"}, bearer)
    key = _post(gateway, "/v1/api-keys", {"name": "shop", "scopes": ["read", "checkout"]}, bearer)
    events = ["payment_intent.succeeded", "payment_intent.refunded"]
    endpoint = _post(gateway, "/v1/webhook-endpoints", {"url": f"{url}/webhook", "events": events}, bearer)
    account = Account(wallet["id"], wallet["address"], key["key"], endpoint["secret"])
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(account))
    draft.replace(path)
    return account


def _wait_for(gateway: httpx.Client) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            gateway.get("/readyz").raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _mailed_token(gateway: httpx.Client, email: str) -> str:
    """Out of the mail with the link that verifies the address: a development network shows it."""
    for _ in range(100):
        mails = gateway.get("/v1/devnet/mails", params={"to": email}).raise_for_status().json()["items"]
        if found := re.search(r"verify\?token=([\w-]+)", mails[0]["text"] if mails else ""):
            return found[1]
        time.sleep(0.1)
    raise httpx.ReadTimeout("no mail with a link came")


def _post(gateway: httpx.Client, path: str, body: dict[str, object], bearer: str = "") -> dict[str, str]:
    answer = gateway.post(path, json=body, headers={"Authorization": bearer} if bearer else {}).raise_for_status()
    made: dict[str, str] = answer.json() if answer.content else {}
    return made
