"""Statements as PDF: the same figures as on the page to print.

Fonts are not in the file, which would make it megabytes larger: Helvetica is every reader's own, and Chinese is set in
STSong-Light, for which a reader takes the Chinese font it has (it needs one); between them they have Greek, Cyrillic and kana,
too. Another Latin letter stands without its mark (z for ź), and what is left, such as Arabic, Korean or an emoji, is a question
mark: the page to print and CSV have all of it.
"""

import io
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from reportlab.lib.pagesizes import A4, landscape
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from gateway.problems import Problem
from gateway.reads.sheets import NOTHING_HELD, NUMBERS, PRINTED, heading, printed
from gateway.reads.statement import Statement

_LATIN, _CHINESE = "Helvetica", "STSong-Light"
_SIZE, _LEADING, _MARGIN = 7, 9, 36
_WIDE, _HIGH = landscape(A4)
MAX_LINES = 1000
"""Of all assets together: half a second of work."""
_BARE = str.maketrans("ŁłĐđĦħŦŧı", "LlDdHhTti")
"""Letters with a mark that Unicode does not take apart."""
_WIDTHS = (92, 58, 176, 180, 80, 80, 103)
"""Of the columns, in points; together what the page leaves."""
pdfmetrics.registerFont(UnicodeCIDFont(_CHINESE))


class _Run(NamedTuple):
    """Letters that are set in one font."""

    font: str
    text: str


class _Sheets:
    """Pages, written from top to bottom."""

    def __init__(self, title: str) -> None:
        self.file = io.BytesIO()
        self._canvas = Canvas(self.file, pagesize=(_WIDE, _HIGH), pageCompression=1, lang="en")
        self._canvas.setTitle(title)
        self._canvas.setProducer("shardpay")
        self._y, self._page = _HIGH - _MARGIN, 1
        self._head: list[str] | None = None

    def text(self, text: str, size: int = _SIZE) -> None:
        """A paragraph across the page."""
        for line in _lines(text, _WIDE - 2 * _MARGIN, size):
            self._room(1)
            self._write(_MARGIN, line, size)
            self._y -= size + 3

    def table(self, rows: list[list[str]]) -> None:
        """Rows below the names of columns, which every page repeats."""
        self._head = list(PRINTED)
        self._room(2)
        self._row(self._head)
        for row in rows:
            self._row(row)
        self._head = None
        self._y -= _LEADING

    def done(self) -> bytes:
        self._end_page()
        self._canvas.save()
        return self.file.getvalue()

    def _row(self, row: list[str]) -> None:
        cells = [list(_lines(text, width - 6, _SIZE)) for text, width in zip(row, _WIDTHS, strict=True)]
        self._room(max(map(len, cells)))
        x = float(_MARGIN)
        for name, cell, width in zip(PRINTED, cells, _WIDTHS, strict=True):
            for number, line in enumerate(cell):
                indent = width - 6 - _width(line, _SIZE) if name in NUMBERS else 0
                self._write(x + indent, line, _SIZE, number * _LEADING)
            x += width
        self._y -= max(map(len, cells)) * _LEADING + 2

    def _write(self, x: float, line: list[_Run], size: int, below: float = 0) -> None:
        text = self._canvas.beginText(x, self._y - size - below)
        for run in line:
            text.setFont(run.font, size)
            text.textOut(run.text)
        self._canvas.drawText(text)

    def _room(self, lines: int) -> None:
        """A new page, unless there is room for some lines on this one."""
        if self._y - lines * _LEADING < _MARGIN:
            self._end_page()
            self._canvas.showPage()
            self._y, self._page = _HIGH - _MARGIN, self._page + 1
            if self._head is not None:
                self._row(self._head)

    def _end_page(self) -> None:
        self._canvas.setFont(_LATIN, _SIZE)
        self._canvas.drawRightString(_WIDE - _MARGIN, _MARGIN - _LEADING, str(self._page))


def as_pdf(statement: Statement) -> bytes:
    """A whole document, without scripts, that loads nothing. Raises Problem (422): of too many lines."""
    if sum(len(account.entries) for account in statement.accounts) > MAX_LINES:
        raise Problem(422, "too_many_lines", f"at most {MAX_LINES} lines as PDF: choose a shorter time")
    title, facts = heading(statement)
    sheets = _Sheets(title)
    sheets.text(title, 14)
    for fact in facts:
        sheets.text(fact)
    for account in statement.accounts:
        sheets.text(account.asset, 10)
        sheets.table(printed(statement, account))
    if not statement.accounts:
        sheets.text(NOTHING_HELD)
    return sheets.done()


def _lines(text: str, width: float, size: int) -> Iterator[list[_Run]]:
    """A text in lines of so many points, broken after a space where there is one; one line at least."""
    rest = "".join(map(_shown, text))
    while True:
        end = _fitting(rest, width, size)
        if end == len(rest):
            yield [_Run(font, "".join(run)) for font, run in groupby(rest, _font)]
            return
        end = rest.rfind(" ", 1, end) + 1 or end
        yield [_Run(font, "".join(run)) for font, run in groupby(rest[:end], _font)]
        rest = rest[end:]


def _fitting(text: str, width: float, size: int) -> int:
    """How many letters of a text have room; one at least."""
    taken = 0.0
    for number, character in enumerate(text):
        taken += _letter(character) * size
        if taken > width and number:
            return number
    return len(text)


def _width(line: list[_Run], size: int) -> float:
    return sum(_letter(character) for run in line for character in run.text) * size


@lru_cache(maxsize=1 << 14)
def _letter(character: str) -> float:
    """The width of a letter, in parts of the size."""
    return float(pdfmetrics.stringWidth(character, _font(character), 1))


def _shown(character: str) -> str:
    """What stands for a letter."""
    bare = unicodedata.normalize("NFKD", character.translate(_BARE))[:1]
    return next((form for form in (character, bare) if _font(form)), "?")


@lru_cache(maxsize=1 << 14)
def _font(character: str) -> str:
    """In which font a letter is; empty when it is in neither."""
    for font, encoding in ((_LATIN, "cp1252"), (_CHINESE, "gbk")):
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            continue
        return font
    return ""
