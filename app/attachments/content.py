"""What a file is, by what stands in it. What the uploader calls it decides nothing but whether a text is a table.

Taken is what subscribers can open on any phone and what mail filters let through:

    PDF                              statements, contracts, price lists
    PNG, JPEG, GIF, WebP             pictures, also within the letter
    plain text, CSV                  in UTF-8
    iCalendar                        dates
    DOCX, XLSX, ODT                  documents, without macros

Not taken is what can do something by itself where it is opened (HTML, SVG and other XML, scripts, programs, documents with macros), what nobody can look
into on its way (archives, encrypted documents), and everything that is not known.
"""

import codecs
import re
from typing import BinaryIO

import puremagic

from app.attachments.inside import entries_of, look_at_picture, look_at_table, look_at_text, look_into_document, look_into_pdf, pieces
from app.core.errors import WrongMediaType

PDF, PNG, JPEG, GIF, WEBP = "application/pdf", "image/png", "image/jpeg", "image/gif", "image/webp"
TEXT, CSV, ICS = "text/plain", "text/csv", "text/calendar"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"

# The first is the one that is added where a name has none of them.
EXTENSIONS: dict[str, tuple[str, ...]] = {
    PDF: (".pdf",),
    PNG: (".png",),
    JPEG: (".jpg", ".jpeg", ".jpe", ".jfif"),
    GIF: (".gif",),
    WEBP: (".webp",),
    TEXT: (".txt", ".text", ".log", ".md"),
    CSV: (".csv",),
    ICS: (".ics",),
    DOCX: (".docx",),
    XLSX: (".xlsx",),
    ODT: (".odt",),
}
# With these a file of that kind begins: puremagic knows some of them further on as well, behind what might be something else.
BEGINS: dict[str, tuple[bytes, ...]] = {PDF: (b"%PDF-",), PNG: (b"\x89PNG\r\n\x1a\n",), JPEG: (b"\xff\xd8\xff",), GIF: (b"GIF87a", b"GIF89a"), WEBP: (b"RIFF",)}
IMAGES = frozenset({PNG, JPEG, GIF, WEBP})

HEAD = 8192
ARCHIVE = b"PK\x03\x04"
# A text that begins like this is markup, a script or a program for a printer, whatever its name.
ACTIVE = (b"<", b"#!", b"%!", b"{\\rtf", b"@echo")
# Control characters have no place in a text; tab, line feed, carriage return and form feed have.
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")

NOT_TAKEN = "Send a PDF, a picture (PNG, JPEG, GIF, WebP), a text, CSV or iCalendar in UTF-8, or a DOCX, XLSX or ODT without macros"


def content_type_of(file: BinaryIO, name: str) -> str:
    """The media type of an open file, one of EXTENSIONS; WrongMediaType for everything else. Leaves the position anywhere."""
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(ARCHIVE):
        return _document(file)
    likely = _by_magic(head)
    if likely in BEGINS and head.startswith(BEGINS[likely]):
        if likely == PDF:
            look_into_pdf(file)
        else:
            look_at_picture(file, likely)
        return likely
    return _text(file, head, name)


def in_header(content_type: str) -> str:
    """As Content-Type says it: texts are in UTF-8, for no others were taken."""
    return f"{content_type}; charset=utf-8" if content_type.startswith("text/") else content_type


def _by_magic(head: bytes) -> str:
    try:
        return str(puremagic.magic_string(head)[0].mime_type)
    except (puremagic.PureError, ValueError, IndexError):
        return ""


def _text(file: BinaryIO, head: bytes, name: str) -> str:
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if begins[:16].lower().startswith(ACTIVE):
        raise WrongMediaType(f"Markup and scripts are not taken. {NOT_TAKEN}.", code="content_not_taken")
    if not _is_plain(file):
        raise WrongMediaType(f"This is no file of a kind that is taken, or a text in another encoding than UTF-8. {NOT_TAKEN}.", code="content_not_taken")
    if begins[:15].upper() == b"BEGIN:VCALENDAR":
        return ICS
    look_at_text(file)
    _, dot, extension = name.rpartition(".")
    if not dot:
        return TEXT
    for kind in (CSV, TEXT):
        if f".{extension.lower().strip()}" in EXTENSIONS[kind]:
            if kind == CSV:
                look_at_table(file)
            return kind
    # Anything can stand in a text (.js, .bat, .html): what it is to those who open it, its name says.
    raise WrongMediaType(f"A text is taken as .txt, .csv or .ics alone. {NOT_TAKEN}.", code="content_not_taken")


def _is_plain(file: BinaryIO) -> bool:
    """Whether all of it is UTF-8 without control characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in pieces(file):
            if _CONTROL.search(decoder.decode(piece)):
                return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _document(file: BinaryIO) -> str:
    """Which document this archive is. Its directory is read, and of its entries those alone that say what the others are."""
    entries = entries_of(file)
    names = [entry.name for entry in entries]
    kind = _kind_of(file, names)
    if kind is None:
        raise WrongMediaType(f"Archives are not taken. {NOT_TAKEN}.", code="content_not_taken")
    look_into_document(file, entries)
    return kind


def _kind_of(file: BinaryIO, names: list[bytes]) -> str | None:
    if b"[content_types].xml" in names and b"word/document.xml" in names:
        return DOCX
    if b"[content_types].xml" in names and b"xl/workbook.xml" in names:
        return XLSX
    file.seek(0)
    # OpenDocument 1.3, part 2, 3.3: the first entry is `mimetype`, not packed, so that its text stands at octet 38.
    if names[:1] == [b"mimetype"] and file.read(HEAD)[38:].startswith(ODT.encode() + ARCHIVE[:2]):
        return ODT
    return None
