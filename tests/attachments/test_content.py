"""What a file is, its contents say: an allow-list, and everything else is refused."""

import io
import struct

import pytest

from app.attachments import inside
from app.attachments.content import CSV, DOCX, GIF, ICS, JPEG, ODT, PDF, PNG, TEXT, WEBP, XLSX, content_type_of
from app.core.errors import WrongMediaType
from tests.builders import files


def told(data: bytes, name: str = "file") -> str:
    return content_type_of(io.BytesIO(data), name)


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (files.PDF, "a.pdf", PDF),
        (files.PNG, "a.png", PNG),
        (files.JPEG, "a.jpg", JPEG),
        (files.GIF, "a.gif", GIF),
        (files.WEBP, "a.webp", WEBP),
        (files.ICS, "a.ics", ICS),
        (files.a_docx(), "a.docx", DOCX),
        (files.an_xlsx(), "a.xlsx", XLSX),
        (files.an_odt(), "a.odt", ODT),
        ("Тариф «Дом»\r\n\tс 1 января\n".encode(), "a.txt", TEXT),
        ("Тариф;Цена\nДом;500\n".encode(), "a.CSV", CSV),
        (b"\xef\xbb\xbf" + "ID;Цена\n".encode(), "a.csv", CSV),
        (b"no extension at all", "README", TEXT),
    ],
)
def test_what_is_taken_is_known_by_its_contents(data, name, expected):
    assert told(data, name) == expected


@pytest.mark.parametrize("lie", ["a.exe", "a.html", "a", "a.docx"])
def test_the_name_does_not_change_what_a_picture_is(lie):
    assert told(files.PNG, lie) == PNG


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "logo.png"),
        (b"<?xml version='1.0'?><svg/>", "logo.txt"),
        (b"  \n <!DOCTYPE html><html></html>", "page.txt"),
        (b"\xef\xbb\xbf<html>", "page.txt"),
        (b"<script>alert(1)</script>", "a.csv"),
        (b"#!/bin/sh\nrm -rf /\n", "run.txt"),
        (b"@ECHO off\r\ndel *\r\n", "run.txt"),
        (b"{\\rtf1\\ansi}", "a.txt"),
        (b"%!PS-Adobe-3.0\n", "a.txt"),
        (b"alert(1)", "a.js"),
        (b"WScript.Echo 1", "a.vbs"),
        (b"plain words", "a.html"),
        (b"plain words", "a.txt.lnk"),
        (b"MZ\x90\x00\x03" + b"\0" * 100, "a.pdf"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 100, "a.txt"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "a.doc"),
        (b"Rar!\x1a\x07\x00" + b"\0" * 60, "a.rar"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 60, "a.gz"),
        (b"words with a \x00 in them", "a.txt"),
        (b"words with an \x1b[2J escape", "a.txt"),
        ("Тариф".encode("cp1251"), "a.txt"),
        ("Тариф".encode("utf-16"), "a.csv"),
        (b"cut off \xd0", "a.txt"),
        (b"junk before %PDF-1.4\n\x00\x01", "a.pdf"),
    ],
)
def test_what_could_do_harm_or_is_not_known_is_refused(data, name):
    with pytest.raises(WrongMediaType) as refusal:
        told(data, name)

    assert refusal.value.problem_code == "content_not_taken"


def test_a_text_is_read_to_its_end():
    long = "слово ".encode() * 20_000

    assert told(long, "a.txt") == TEXT
    with pytest.raises(WrongMediaType):
        told(long + b"\x00", "a.txt")


@pytest.mark.parametrize(
    "data",
    [
        files.an_archive("invoice.exe"),
        files.an_archive("word/document.xml"),
        files.a_docx("word/vbaProject.bin"),
        files.an_xlsx("xl/VBAProject.bin"),
        files.an_odt("Basic/Standard/Module1.xml"),
        files.an_archive("content.xml", "mimetype", stored_first="application/vnd.oasis.opendocument.text"),
        files.an_archive("mimetype", "content.xml", stored_first="application/vnd.oasis.opendocument.text-template"),
        b"PK\x03\x04" + b"\0" * 100,
    ],
    ids=["archive", "half a docx", "docx with macros", "xlsx with macros", "odt with macros", "mimetype not first", "another kind of odt", "no directory"],
)
def test_archives_and_documents_with_macros_are_refused(data):
    with pytest.raises(WrongMediaType):
        told(data, "a.docx")


def test_an_archive_with_more_entries_than_a_document_has_is_not_walked_through(monkeypatch):
    walked = files.a_docx(*(f"word/media/{n}.png" for n in range(20)))
    assert told(walked) == DOCX

    monkeypatch.setattr(inside, "MOST_ENTRIES", 10)

    with pytest.raises(WrongMediaType):
        told(walked)


@pytest.mark.parametrize("field", [8, 10, 12, 16])
def test_a_directory_that_lies_about_itself_is_not_believed(field):
    document = bytearray(files.a_docx())
    end = document.rfind(b"PK\x05\x06")
    struct.pack_into("<H" if field < 12 else "<L", document, end + field, 0xFFFF if field < 12 else 0xFFFFFFFF)

    if field == 8:  # entries on this disk: nobody reads that
        assert told(bytes(document)) == DOCX
    else:
        with pytest.raises(WrongMediaType):
            told(bytes(document))
