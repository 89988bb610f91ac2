"""Signatures of webhooks: the vectors of the documentation, and what a receiver must refuse."""

import pytest

from gateway.events.signatures import BadSignature, new_secret, sign, verify

SECRET = "whsec_c2hhcmRwYXkgdGVzdCB2ZWN0b3I"
BODY = b'{"id":"1","type":"transfer.received","created_at":"2026-01-01T00:00:00.000Z","data":{}}'
AT = 1767225600
# printf '%s' "$AT.$BODY" | openssl dgst -sha256 -hmac "$SECRET"
MAC = "ec9ab65503272996eacd0bca6b0931a44961a247aa4e123ecd95221bfc050dfd"


def test_the_vector_of_the_documentation() -> None:
    header = sign(BODY, [SECRET], AT)
    assert header == f"t={AT},v1={MAC}"
    verify(BODY, header, SECRET, now=AT + 299)


def test_while_a_secret_is_being_replaced_both_are_good() -> None:
    old, new = new_secret(), new_secret()
    header = sign(BODY, [new, old], AT)
    for secret in (old, new):
        verify(BODY, header, secret, AT)
    assert old != new
    with pytest.raises(BadSignature):
        verify(BODY, header, new_secret(), AT)


@pytest.mark.parametrize(
    ("body", "header", "now", "reason"),
    [
        (BODY + b" ", f"t={AT},v1={MAC}", AT, "no signature"),
        (BODY, f"t={AT + 1},v1={MAC}", AT, "no signature"),
        (BODY, f"t={AT},v0={MAC}", AT, "form"),
        (BODY, f"v1={MAC}", AT, "form"),
        (BODY, f"t={AT},t={AT},v1={MAC}", AT, "form"),
        (BODY, f"t=²,v1={MAC}", AT, "form"),
        (BODY, f"t={AT},v1=é", AT, "no signature"),
        (BODY, "", AT, "form"),
        (BODY, f"t={AT},v1={MAC}", AT + 301, "too long ago"),
        (BODY, f"t={AT},v1={MAC}", AT - 301, "too long ago"),
        (BODY, f"t={AT}," + ",".join([f"v1={MAC}"] * 20), AT, "too long"),
    ],
)
def test_what_was_changed_or_is_old_is_refused(body: bytes, header: str, now: int, reason: str) -> None:
    with pytest.raises(BadSignature, match=reason):
        verify(body, header, SECRET, now)
