"""The statement as a PDF.

The same statement makes the same octets: no hour and no random id is in them, so a letter that is built again is the same letter.
"""

import threading
from io import BytesIO

import font_roboto
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase.pdfmetrics import getRegisteredFontNames, registerFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from app.attachments.statement import Statement
from app.attachments.statement_layout import BOLD, MARGIN, REGULAR, RIGHT, Mark, Rule, pages_of
from app.attachments.words import Words

PALE_LINE = (0.82, 0.84, 0.87)

# A font remembers which of its characters each document uses, and a process has one register of fonts: one document at a time.
_ONE = threading.Lock()


def as_pdf(statement: Statement, words: Words) -> bytes:
    """The statement as a file. Some milliseconds of work: call it beside the event loop."""
    with _ONE:
        _register_fonts()
        written = BytesIO()
        canvas = Canvas(written, pagesize=A4, pageCompression=1, invariant=1, lang=words.language)
        canvas.setTitle(f"{words('statement')}: {statement.number}")
        canvas.setAuthor("")
        canvas.setCreator("Vestnik")
        for marks in pages_of(statement, words):
            for mark in marks:
                _draw(canvas, mark)
            canvas.showPage()
        canvas.save()
        return written.getvalue()


def _register_fonts() -> None:
    """Roboto has Cyrillic and the rouble sign (U+20BD); what it has not is drawn as an empty box."""
    if BOLD not in getRegisteredFontNames():
        registerFont(TTFont(REGULAR, font_roboto.Roboto))
        registerFont(TTFont(BOLD, font_roboto.RobotoBold))


def _draw(canvas: Canvas, mark: Mark) -> None:
    if isinstance(mark, Rule):
        canvas.setStrokeColorRGB(*PALE_LINE)
        canvas.setLineWidth(0.5)
        canvas.line(MARGIN, mark.y, RIGHT, mark.y)
        return
    canvas.setFillColorRGB(*mark.colour)
    canvas.setFont(mark.font, mark.size)
    (canvas.drawRightString if mark.to else canvas.drawString)(mark.x, mark.y, mark.text)
