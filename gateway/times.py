"""Times as the API shows and takes them: ISO 8601 in UTC, with milliseconds. Inside they are milliseconds since 1970."""

from datetime import UTC, datetime

_LATEST = 253_402_300_799_999


def iso(milliseconds: int | None) -> str | None:
    """None beyond the year 9999, which a captured committee may name."""
    if milliseconds is None or milliseconds > _LATEST:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str) -> int:
    """A time, or a day: its beginning. UTC, unless it names an offset. Raises ValueError."""
    try:
        read = datetime.fromisoformat(text)
        milliseconds = round((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError("a time is written as 2026-11-22T09:30:00Z, or as a day") from None
    if milliseconds < 0:
        raise ValueError("there was nothing before 1970")
    return milliseconds
