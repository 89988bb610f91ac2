"""Where a list goes on: the numbers of the last line that was shown, in a form that nobody is tempted to count with."""

import base64
import binascii

from gateway.problems import Problem


def write_cursor(*numbers: int) -> str:
    """After the line with these numbers."""
    return base64.urlsafe_b64encode(",".join(map(str, numbers)).encode()).decode().rstrip("=")


def read_cursor(text: str, count: int = 1) -> tuple[int, ...]:
    """The ``count`` numbers, each of 63 bits. Raises Problem (422)."""
    try:
        numbers = [int(part) for part in base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").split(",")]
        if len(numbers) == count and all(0 <= number < 1 << 63 for number in numbers):
            return tuple(numbers)
    except (ValueError, binascii.Error):
        pass
    raise Problem(422, "invalid_cursor", "this cursor is not one that was given out")
