"""What people type, in the one form that is kept and compared.

Names, labels and memos: Unicode NFC, one line, nothing that does not show (control, bidirectional and zero-width characters), so
that none hides a part or reorders what stands around it. E-mail addresses: ASCII before the @, the domain by IDNA (UTS 46) in its
``xn--`` form, all in lower case. So a letter of another script that looks like one is refused or plain to see, and one address is
one account.
"""

import re
import unicodedata

import idna

from gateway.languages import Unfit

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""General categories: control, format (bidirectional and zero-width characters among them), surrogate, line and paragraph."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Letters and marks by their category that show nothing."""
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
MAX_EMAIL = 254


def one_line(text: str) -> str:
    """``text`` in NFC. Raises ValueError when it holds what does not show."""
    if text.isascii() and text.isprintable():
        return text
    for character in text:
        if unicodedata.category(character) in _UNSEEN or character in _BLANK:
            raise Unfit("invisible", f"one line of text without invisible characters, but it has U+{ord(character):04X}")
    return unicodedata.normalize("NFC", text)


def any_text(text: str) -> str:
    """``text`` as it is. Raises ValueError when it cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit("form", "not valid Unicode") from None
    return text


def email_address(text: str) -> str:
    """The form of an e-mail address that is kept. Raises ValueError when it is none, or not ASCII before the @."""
    local, _, domain = text.strip().lower().rpartition("@")
    if not _LOCAL.fullmatch(local) or len(local) > 64:
        raise Unfit("email", "not an e-mail address (before the @ only letters a to z, digits and . _ - + and the like)")
    try:
        domain = idna.encode(domain, uts46=True, std3_rules=True).decode().lower()
    except UnicodeError:
        raise Unfit("email", "not an e-mail address: after the @ stands no domain name") from None
    address = f"{local}@{domain}"
    if "." not in domain or domain.endswith(".") or len(address) > MAX_EMAIL:
        raise Unfit("email", "not an e-mail address: after the @ stands no domain name")
    return address
