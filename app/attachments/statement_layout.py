"""Where everything of a statement stands on its pages: A4, a table that goes on over pages with its head on each."""

from dataclasses import dataclass, field
from decimal import Decimal

from reportlab.lib.pagesizes import A4
from reportlab.pdfbase.pdfmetrics import stringWidth

from app.attachments.statement import Line, Statement
from app.attachments.words import Words, symbol

REGULAR, BOLD = "VestnikRoboto", "VestnikRoboto-Bold"
MARGIN, SIZE, SMALL, LEADING, PADDING = 42.0, 9.5, 8.0, 13.0, 4.0  # points
WIDTH, HEIGHT = A4
RIGHT, BOTTOM = WIDTH - MARGIN, MARGIN + 20
# The columns: date and charge from the left, sums to the right.
CHARGE, AMOUNT_ENDS, AFTER_ENDS = MARGIN + 72, RIGHT - 108, RIGHT
CHARGE_WIDTH = AMOUNT_ENDS - 102 - CHARGE  # the longest sum is 98 wide
MOST_HEAD_LINES = 3
MOST_LINES = 500  # what is more (a hundred daily charges) is one line: nobody reads it, and every letter would take a second

Colour = tuple[float, float, float]
INK, PALE, RED = (0.13, 0.15, 0.18), (0.42, 0.45, 0.5), (0.72, 0.11, 0.11)


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text from `x`, or to it."""

    x: float
    y: float
    text: str
    font: str = REGULAR
    size: float = SIZE
    colour: Colour = INK
    to: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A thin line across the page."""

    y: float


Mark = Text | Rule


def pages_of(statement: Statement, words: Words) -> list[list[Mark]]:
    """The marks of each page. The fonts have to be registered: how wide a text is, they say."""
    sheet = _Sheet(statement, words)
    sheet.top()
    if statement.lines:
        sheet.table_head()
        for line in statement.lines[:MOST_LINES]:
            sheet.row(line)
        sheet.total()
    else:
        sheet.say(words("none"))
    sheet.closing()
    for n, page in enumerate(sheet.pages, 1):
        page.append(Text(RIGHT, MARGIN - 10, words("page", n=n, all=len(sheet.pages)), size=SMALL, colour=PALE, to=True))
    return sheet.pages


def wrapped(text: str, width: float, font: str = REGULAR, size: float = SIZE) -> list[str]:
    """The text in lines that fit; a word that is too long by itself is broken. An empty text is one empty line."""
    lines, line = list[str](), ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if stringWidth(longer, font, size) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *whole, line = broken(word, width, font, size) if stringWidth(word, font, size) > width else [word]
        lines += whole
    return [*lines, line] if line or not lines else lines


def broken(word: str, width: float, font: str, size: float) -> list[str]:
    """A word in pieces that fit, at least a character each. A width is the sum of its characters': each is measured once."""
    pieces, piece, taken = list[str](), "", 0.0
    for character in word:
        step = stringWidth(character, font, size)
        if piece and taken + step > width:
            pieces.append(piece)
            piece, taken = "", 0.0
        piece += character
        taken += step
    return [*pieces, piece]


@dataclass(slots=True)
class _Sheet:
    """The place on the paper where one is: from the top down."""

    statement: Statement
    words: Words
    y: float = HEIGHT - MARGIN - 10
    pages: list[list[Mark]] = field(default_factory=lambda: [[]])

    def top(self) -> None:
        statement, words = self.statement, self.words
        self.say(words("statement"), BOLD, 17, 22)
        self.say(words("period", first=words.day(statement.as_of), last=words.day(statement.upto)), down=22, colour=PALE)
        for text in wrapped(words("account", number=statement.number), RIGHT - MARGIN, BOLD, 11)[:MOST_HEAD_LINES]:
            self.say(text, BOLD, 11, 15)
        for text in wrapped(statement.name, RIGHT - MARGIN)[:MOST_HEAD_LINES] if statement.name else ():
            self.say(text)
        self.y -= 8
        self._sum(words("balance", day=words.day(statement.as_of)), statement.ahead.balance)
        if statement.ahead.credit_limit:
            self._sum(words("credit_limit"), statement.ahead.credit_limit)
        self.y -= 14

    def table_head(self) -> None:
        currency = symbol(self.words.language, self.statement.currency)
        for x, text, to in (
            (MARGIN, self.words("date"), False),
            (CHARGE, self.words("charge"), False),
            (AMOUNT_ENDS, f"{self.words('amount')}, {currency}", True),
            (AFTER_ENDS, f"{self.words('after')}, {currency}", True),
        ):
            self._mark(Text(x, self.y, text, size=SMALL, colour=PALE, to=to))
        self._rule()

    def row(self, line: Line) -> None:
        texts = wrapped(line.title, CHARGE_WIDTH)
        self._need(len(texts) * LEADING + PADDING)
        self._mark(Text(MARGIN, self.y, self.words.day(line.on)))
        self._figure(AMOUNT_ENDS, line.amount)
        self._figure(AFTER_ENDS, line.after)
        for n, text in enumerate(texts):
            self._mark(Text(CHARGE, self.y - n * LEADING, text))
        self.y -= (len(texts) - 1) * LEADING
        self._rule()

    def total(self) -> None:
        if (more := len(self.statement.lines) - MOST_LINES) > 0:
            self._need(LEADING)
            self._mark(Text(CHARGE, self.y, self.words("more", n=more), colour=PALE))
            self._rule()
        self._need(LEADING)
        self._mark(Text(CHARGE, self.y, self.words("total"), BOLD))
        self._figure(AMOUNT_ENDS, self.statement.total, BOLD)
        self.y -= LEADING

    def closing(self) -> None:
        ahead, width = self.statement.ahead, RIGHT - MARGIN
        self.y -= 8
        if ahead.exhausts_on is not None and ahead.shortfall is not None:
            missing = self.words.money(ahead.shortfall, self.statement.currency)
            for text in wrapped(self.words("ends", day=self.words.day(ahead.exhausts_on), sum=missing), width, BOLD):
                self._need(LEADING, head=False)
                self.say(text, BOLD, down=16, colour=RED)
        for text in wrapped(self.words("note"), width, REGULAR, SMALL):
            self._need(LEADING, head=False)
            self.say(text, size=SMALL, down=11, colour=PALE)

    def say(self, text: str, font: str = REGULAR, size: float = SIZE, down: float = LEADING, colour: Colour = INK) -> None:
        self._mark(Text(MARGIN, self.y, text, font, size, colour))
        self.y -= down

    def _sum(self, name: str, amount: Decimal) -> None:
        self._mark(Text(MARGIN, self.y, name, colour=PALE))
        self._mark(Text(MARGIN + 300, self.y, self.words.money(amount, self.statement.currency), BOLD, colour=_colour(amount), to=True))
        self.y -= LEADING + 2

    def _figure(self, ends: float, amount: Decimal, font: str = REGULAR) -> None:
        self._mark(Text(ends, self.y, self.words.number(amount), font, colour=_colour(amount), to=True))

    def _rule(self) -> None:
        self.y -= PADDING
        self._mark(Rule(self.y))
        self.y -= LEADING - 1

    def _mark(self, mark: Mark) -> None:
        self.pages[-1].append(mark)

    def _need(self, height: float, *, head: bool = True) -> None:
        """Go on on a new page when there is not so much room on this one. The longest title, of 300 characters, takes a part of a page."""
        if self.y - height >= BOTTOM:
            return
        self.pages.append([])
        self.y = HEIGHT - MARGIN - 10
        if head:
            self.table_head()


def _colour(amount: Decimal) -> Colour:
    return RED if amount < 0 else INK
