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
import struct
from collections.abc import Iterator
from typing import BinaryIO

import puremagic

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
# APPNOTE 4.3.16 and 4.3.12: the end of the central directory, and one entry of it.
_END, _ENTRY = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L")
MOST_ENTRIES = 5_000

NOT_TAKEN = "Send a PDF, a picture (PNG, JPEG, GIF, WebP), a text, CSV or iCalendar in UTF-8, or a DOCX, XLSX or ODT without macros"


def content_type_of(file: BinaryIO, name: str) -> str:
    """The media type of an open file, one of EXTENSIONS; WrongMediaType for everything else. Leaves the position anywhere."""
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(ARCHIVE):
        return _document(file)
    likely = _by_magic(head)
    if likely in BEGINS and head.startswith(BEGINS[likely]):
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
    _, dot, extension = name.rpartition(".")
    if not dot:
        return TEXT
    for kind in (CSV, TEXT):
        if f".{extension.lower().strip()}" in EXTENSIONS[kind]:
            return kind
    # Anything can stand in a text (.js, .bat, .html): what it is to those who open it, its name says.
    raise WrongMediaType(f"A text is taken as .txt, .csv or .ics alone. {NOT_TAKEN}.", code="content_not_taken")


def _is_plain(file: BinaryIO) -> bool:
    """Whether all of it is UTF-8 without control characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in _pieces(file):
            if _CONTROL.search(decoder.decode(piece)):
                return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _pieces(file: BinaryIO, size: int = 1 << 16) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(size):
        yield piece


def _document(file: BinaryIO) -> str:
    """Which document this archive is. Its directory alone is read; nothing is unpacked."""
    names = _names_in(file)
    if any(name.endswith((b"vbaproject.bin", b"vbadata.xml")) or name.startswith(b"basic/") for name in names):
        raise WrongMediaType("Documents with macros are not taken: save it without them.", code="content_not_taken")
    if b"[content_types].xml" in names and b"word/document.xml" in names:
        return DOCX
    if b"[content_types].xml" in names and b"xl/workbook.xml" in names:
        return XLSX
    file.seek(0)
    # OpenDocument 1.3, part 2, 3.3: the first entry is `mimetype`, not packed, so that its text stands at octet 38.
    if names[:1] == [b"mimetype"] and file.read(HEAD)[38:].startswith(ODT.encode() + ARCHIVE[:2]):
        return ODT
    raise WrongMediaType(f"Archives are not taken. {NOT_TAKEN}.", code="content_not_taken")


def _names_in(file: BinaryIO) -> list[bytes]:
    """The names in an archive's central directory, in lower case; none where there is no directory that can be believed."""
    size = file.seek(0, 2)
    tail_at = max(0, size - _END.size - 0xFFFF)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        return []
    _, _, _, _, entries, length, offset, _ = _END.unpack_from(tail, at)
    if entries > MOST_ENTRIES or offset + length > tail_at + at:
        return []
    file.seek(offset)
    directory, place = file.read(length), 0
    names: list[bytes] = []
    while len(names) < entries and place + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, place)
        if fields[0] != b"PK\x01\x02":
            return []
        place += _ENTRY.size
        names.append(directory[place : place + fields[10]].lower())
        place += sum(fields[10:13])
    return names
