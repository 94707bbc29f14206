"""What may not stand within a file of a kind that is taken: things that act by themselves, other files, and what nobody can look into.

A PDF is searched as it lies there: what it keeps packed (object streams) is not unpacked. Of a document the directory, its list of content types and its
manifest are read, each only so far; nothing else is unpacked. A picture has to begin and to end as one. A table has no formulas.
"""

import csv
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import WrongMediaType

# ISO 32000-1, 7.3.5: any character of a name but NUL can be written as #xx; a name ends before a delimiter, white space or the end.
_ESCAPED = re.compile(rb"#([0-9A-Fa-f]{2})")
_PDF_NAMES: dict[bytes, str] = {
    b"Encrypt": "An encrypted PDF is not taken: nobody on its way can look into it",
    b"JavaScript": "A PDF with scripts is not taken",
    b"JS": "A PDF with scripts is not taken",
    b"Launch": "A PDF that starts programs is not taken",
    b"EmbeddedFile": "A PDF with other files in it is not taken",
    b"EmbeddedFiles": "A PDF with other files in it is not taken",
    b"RichMedia": "A PDF with films or programs in it is not taken",
    b"XFA": "A PDF with a form of XFA is not taken: it may have scripts",
}
# Three octets come by chance in packed data: what stands behind /JS is a string, a stream's number, or a comment before them.
_PDF = re.compile(
    rb"/(?:(JS)(?=[\x00\t\n\f\r ]{0,64}[(<%]|[\x00\t\n\f\r ]{1,64}\d)"
    rb"|(Encrypt|JavaScript|Launch|EmbeddedFiles?|RichMedia|XFA)(?=[\x00\t\n\f\r ()<>\[\]{}/%]))"
)
_PIECE, _OVERLAP = 1 << 16, 256  # of octets: more than the longest of these names is when each of its characters is escaped

# APPNOTE 4.3.16, 4.3.12 and 4.3.7: the end of the central directory, one entry of it, and what stands before an entry's octets.
_END, _ENTRY, _LOCAL = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
END_MARK = b"PK\x05\x06"
MOST_ENTRIES = 5_000
MOST_UNPACKED, MOST_RATIO = 50 << 20, 100  # a document that says it is larger than both, unpacked, is there to fill memories
MOST_LIST = 1 << 20  # octets of a list of content types, unpacked
PARTS = frozenset(
    "xml rels png jpg jpeg jpe jfif gif bmp tif tiff emf wmf wdp vml odttf ttf otf fntdata rdf".split()  # noqa: SIM905 - a list of words
)
# What OpenDocument names without an extension: its own mark, and the pictures that stand for charts.
_ODT_PARTS = re.compile(rb"mimetype|layout-cache|objectreplacements/[^/]+")
# Macros, whatever their entry is called; objects of other programs; controls that run code. What hides from this search (entities) is refused as well.
_ACTIVE_TYPES = re.compile(rb"macro|vba|oleobject|activex|\.ole|x-msdownload|<!|&#|\x00", re.IGNORECASE)

_MARKUP = re.compile(rb"<\s*(?:!doctype|html|script|body|iframe|svg)\b", re.IGNORECASE)
MARKUP_WITHIN = 1 << 16
_NUMBER = re.compile(r"[+-][\d\s.,:()%-]*")
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True, slots=True)
class Entry:
    """Of an archive's directory. `name` in lower case; sizes as the directory says them."""

    name: bytes
    flags: int
    method: int
    packed: int
    unpacked: int
    at: int


def refused(sentence: str) -> WrongMediaType:
    return WrongMediaType(f"{sentence}.", code="content_not_taken")


def look_into_pdf(file: BinaryIO) -> None:
    """WrongMediaType where a name that acts, hides or encloses stands anywhere, escaped or not."""
    kept = b""
    for piece in pieces(file):
        seen = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), kept + piece)
        if found := _PDF.search(seen):
            raise refused(_PDF_NAMES[found[1] or found[2]])
        kept = (kept + piece)[-_OVERLAP:]
    _no_archive_behind(file)


def look_at_picture(file: BinaryIO, kind: str) -> None:
    """WrongMediaType where it does not end as a picture of its kind, or where an archive stands in it."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(32)
    file.seek(max(0, size - 64))
    tail = file.read()
    match kind:
        case "image/png":  # PNG, 5.6: IHDR comes first, IEND last
            whole = head[8:16] == b"\x00\x00\x00\rIHDR" and tail.endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82")
        case "image/jpeg":
            whole = tail.rstrip(b"\x00").endswith(b"\xff\xd9")
        case "image/gif":
            whole = size > 13 and tail.rstrip(b"\x00").endswith(b"\x00;")
        case _:  # RFC 9649, 2.3: the size of what follows it
            whole = head[8:12] == b"WEBP" and int.from_bytes(head[4:8], "little") + 8 == size
    if not whole:
        raise refused("The picture is cut off, or something else stands behind it: save it anew")
    _no_archive_behind(file)


def look_at_text(file: BinaryIO) -> None:
    file.seek(0)
    if _MARKUP.search(file.read(MARKUP_WITHIN)):
        raise refused("A text with markup in it is not taken: some programs would show it as a page")


def look_at_table(file: BinaryIO) -> None:
    """WrongMediaType where a spreadsheet would take a cell for a formula, whichever separator it reads the table with. A signed number is none."""
    for delimiter in ";,\t":
        file.seek(0)
        lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
        try:
            for row in csv.reader(lines, delimiter=delimiter):
                for cell in row:
                    if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
                        raise refused(f"The table has a cell that a spreadsheet takes for a formula: {cell[:40]!r}. Put a word or an apostrophe before it")
        except csv.Error:
            raise refused("This is no table: a cell is too long, or a quotation mark has no end") from None
        finally:
            lines.detach()


def entries_of(file: BinaryIO) -> list[Entry]:
    """An archive's central directory; none where there is no directory that can be believed."""
    size = file.seek(0, 2)
    tail_at = max(0, size - _END.size - 0xFFFF)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(END_MARK)
    if at < 0 or len(tail) - at < _END.size:
        return []
    _, _, _, _, number, length, offset, _ = _END.unpack_from(tail, at)
    if number > MOST_ENTRIES or offset + length > tail_at + at:
        return []
    file.seek(offset)
    directory, place = file.read(length), 0
    found: list[Entry] = []
    while len(found) < number and place + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, place)
        if fields[0] != b"PK\x01\x02":
            return []
        place += _ENTRY.size
        found.append(Entry(directory[place : place + fields[10]].lower(), fields[3], fields[4], fields[8], fields[9], fields[16]))
        place += sum(fields[10:13])
    return found


def look_into_document(file: BinaryIO, entries: list[Entry]) -> None:
    """WrongMediaType where a DOCX, XLSX or ODT has what can act by itself, hides something, or unpacks to more than a document does."""
    size = file.seek(0, 2)
    names = [entry.name for entry in entries]
    if any(name.endswith((b"vbaproject.bin", b"vbadata.xml")) or name.startswith((b"basic/", b"scripts/")) for name in names):
        raise refused("Documents with macros are not taken: save it without them")
    unpacked = sum(entry.unpacked for entry in entries)
    if unpacked > MOST_UNPACKED and unpacked > MOST_RATIO * size:
        raise refused("The document says that it unpacks to more than any document has")
    if len(set(names)) < len(names) or any(entry.flags & 1 or entry.method not in (0, 8) for entry in entries):
        raise refused("The document has entries that are encrypted, packed in an unusual way, or there twice")
    for name in names:
        if not _is_part(name):
            raise refused(
                f"The document has something in it that is no part of a document: {name[-80:].decode(errors='replace')!r}. Save it without enclosed files"
            )
    for entry in entries:
        if entry.name == b"[content_types].xml" and _ACTIVE_TYPES.search(_unpacked(file, entry).removeprefix(b"\xef\xbb\xbf")):
            raise refused("Documents with macros, controls or objects of other programs are not taken: save it without them")
        if entry.name == b"meta-inf/manifest.xml" and b"encryption-data" in _unpacked(file, entry):
            raise refused("Encrypted documents are not taken")


def pieces(file: BinaryIO, size: int = _PIECE) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(size):
        yield piece


def _is_part(name: bytes) -> bool:
    if name.endswith(b"/") or _ODT_PARTS.fullmatch(name):
        return True
    leaf, _, extension = name.rpartition(b".")
    if extension == b"bin":  # a printer's settings; other binaries are programs and objects
        return b"printersettings" in leaf.rpartition(b"/")[2]
    return extension.decode(errors="replace") in PARTS


def _unpacked(file: BinaryIO, entry: Entry) -> bytes:
    """An entry's octets; WrongMediaType where they are too many, or no such."""
    file.seek(entry.at)
    local = file.read(_LOCAL.size)
    if len(local) < _LOCAL.size or local[:4] != b"PK\x03\x04":
        raise refused("The document is damaged")
    fields = _LOCAL.unpack(local)
    file.seek(fields[9] + fields[10], 1)
    packed = file.read(min(entry.packed, MOST_LIST + 1))
    if entry.method == 0:
        octets = packed
    else:
        try:
            octets = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, MOST_LIST + 1)
        except zlib.error:
            raise refused("The document is damaged") from None
    if len(octets) > MOST_LIST:
        raise refused("The document says that it unpacks to more than any document has")
    return octets


def _no_archive_behind(file: BinaryIO) -> None:
    """Programs that unpack look for an archive's directory at a file's end, whatever it begins with."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - 0xFFFF))
    if END_MARK in file.read():
        raise refused("An archive stands within or behind this file")
