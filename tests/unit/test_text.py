"""What people type has one form, and what does not show is refused."""

import pytest

from gateway.identity.text import any_text, email_address, one_line


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("", ""),
        ("coffee", "coffee"),
        ("cafe\u0301", "café"),
        ("Zoë 李 Łukasz ☕️", "Zoë 李 Łukasz ☕️"),
        ("\u1112\u1161\u11ab", "한"),
    ],
)
def test_text_is_kept_in_one_form(typed: str, kept: str) -> None:
    assert one_line(typed) == kept


@pytest.mark.parametrize(
    "hidden",
    [*"\n\0\x7f\u0085\u2028\u200b\u200d\u200e\u202e\u2066\u061c\ufeff\u00ad\u2060\u034f\u3164\ud800\U000e0041"],
)
def test_what_does_not_show_is_refused(hidden: str) -> None:
    with pytest.raises(ValueError, match=f"{ord(hidden):04X}"):
        one_line(f"to Ann{hidden} Smith")


def test_what_cannot_be_encoded_is_refused() -> None:
    assert any_text("päss\u200bword ") == "päss\u200bword "
    with pytest.raises(ValueError, match="Unicode"):
        any_text("pass\ud800word")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" Ann.Smith+shop@Example.ORG ", "ann.smith+shop@example.org"),
        ("ann@münchen.de", "ann@xn--mnchen-3ya.de"),
        ("ann@XN--MNCHEN-3YA.de", "ann@xn--mnchen-3ya.de"),
        ("ann@mu\u0308nchen.de", "ann@xn--mnchen-3ya.de"),
        ("ann@ｅxample.org", "ann@example.org"),
        ("ann@ex\u0430mple.org", "ann@xn--exmple-4nf.org"),
        ("ann@例え.jp", "ann@xn--r8jz45g.jp"),
    ],
)
def test_an_email_address_has_one_form(typed: str, kept: str) -> None:
    assert email_address(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        *("", "@", "ann", "ann@", "@example.org", "ann@org", "ann@example.org.", "ann@.org", "ann@a..org", "ann@-a.org"),
        *("ann@a_b.org", "a b@example.org", ".ann@example.org", "a..b@example.org", "ann@b@example.org", "ann@☕.org"),
        *(
            "\u0430nn@example.org",
            "ａnn@example.org",
            "ann\u200b@example.org",
            "ann@exa\u200bmple\u202e.org",
            "ann\0@example.org",
        ),
        *('"ann"@example.org', "<ann@example.org>", "ann@[::1]", "\ud800@example.org", "a@\ud800.org"),
        *("a" * 65 + "@example.org", "ann@" + "a" * 64 + ".org", "ann@" + "abc." * 63 + "org"),
        "ann@example.org\nBcc: bob@example.org",
    ],
)
def test_what_is_no_email_address_or_looks_like_another_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        email_address(typed)
