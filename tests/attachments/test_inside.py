"""What is refused within a file of a kind that is taken: what acts by itself, what hides, and what is another file."""

import io
import struct
import zipfile

import pytest

from app.attachments import inside
from app.attachments.content import CSV, DOCX, PDF, TEXT, XLSX, content_type_of
from app.core.errors import WrongMediaType
from tests.builders import files

TYPES = '<Types><Default Extension="xml" ContentType="application/xml"/>{}</Types>'
OVERRIDE = '<Override PartName="/word/{}" ContentType="{}"/>'


def told(data: bytes, name: str = "file") -> str:
    return content_type_of(io.BytesIO(data), name)


def refusal(data: bytes, name: str = "file") -> str:
    with pytest.raises(WrongMediaType) as refused:
        told(data, name)
    assert refused.value.problem_code == "content_not_taken"
    return refused.value.detail


def a_document(types: str = "", main: str = "word/document.xml", **parts: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"[Content_Types].xml": TYPES.format(types).encode(), "_rels/.rels": b"<r/>", main: b"<w/>", **parts}.items():
            archive.writestr(name, data)
    return written.getvalue()


def a_pdf(*objects: bytes) -> bytes:
    return b"%PDF-1.7\n" + b"\n".join(b"%d 0 obj %s endobj" % (n, body) for n, body in enumerate(objects, 1)) + b"\ntrailer <<>>\n%%EOF\n"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<</Encrypt 5 0 R>>", "encrypted"),
        (b"<</S/JavaScript/JS(app.alert(1))>>", "scripts"),
        (b"<</OpenAction<</S/Java#53cript/JS 7 0 R>>>>", "scripts"),
        (b"<</AA<</O<</#4a#53 (x)>>>>>>", "scripts"),
        (b"<</S/Launch/F(cmd.exe)>>", "programs"),
        (b"<</Type/EmbeddedFile>>", "other files"),
        (b"<</Names<</#45mbeddedFiles 3 0 R>>>>", "other files"),
        (b"<</Subtype/RichMedia>>", "films"),
        (b"<</AcroForm<</XFA[1 0 R]>>>>", "XFA"),
    ],
)
def test_a_pdf_that_acts_or_hides_is_refused(body, sentence):
    assert sentence in refusal(a_pdf(b"<</Type/Catalog>>", body), "a.pdf")


def test_a_name_is_found_where_two_pieces_of_a_file_meet():
    for shift in range(-30, 3):
        filler = b"<<>>" + b" " * ((1 << 16) + shift - len(b"%PDF-1.7\n1 0 obj <<>>"))
        refusal(a_pdf(filler + b"<</S/#4a#61#76#61Script>>"), "a.pdf")


def test_a_pdf_whose_names_only_begin_alike_is_taken():
    assert told(a_pdf(b"<</EncryptMetadata true/JSx 1/Launcher 2/OpenAction[3 0 R/Fit]/A<</S/URI/URI(https://isp.example)>>>>"), "a.pdf") == PDF


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (a_document(OVERRIDE.format("thing.xml", "application/vnd.ms-office.vbaProject")), "macros"),
        (a_document(OVERRIDE.format("document.xml", "application/vnd.ms-word.document.macroEnabled.main+xml")), "macros"),
        (a_document(OVERRIDE.format("x.xml", "application/vnd.openxmlformats-officedocument.oleObject")), "macros"),
        (a_document('<!DOCTYPE Types [<!ENTITY m "x">]>'), "macros"),
        (a_document(OVERRIDE.format("x.xml", "application/vnd.ms-office.vb&#97;Project")), "macros"),
        (a_document(**{"word/embeddings/oleObject1.bin": b"\xd0\xcf\x11\xe0"}), "no part of a document"),
        (a_document(**{"word/embeddings/setup.exe": b"MZ"}), "no part of a document"),
        (a_document(**{"word/embeddings/more.zip": b"PK"}), "no part of a document"),
        (a_document(**{"word/media/page.html": b"<script>"}), "no part of a document"),
        (a_document(**{"word/noextension": b"MZ"}), "no part of a document"),
        (files.an_odt("Scripts/python/a.xml"), "macros"),
        (files.an_odt("Object 1"), "no part of a document"),
    ],
)
def test_a_document_with_what_is_none_is_refused(data, sentence):
    assert sentence in refusal(data, "a.docx")


def test_an_encrypted_document_is_refused():
    packed = io.BytesIO(files.an_odt())
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("META-INF/manifest.xml", "<manifest:file-entry><manifest:encryption-data/></manifest:file-entry>")

    assert "Encrypted" in refusal(packed.getvalue())


def test_documents_as_they_are_written_are_taken():
    media = {f"word/media/image1.{kind}": b"x" for kind in ("png", "jpeg", "emf", "wmf")}
    assert told(a_document(**media, **{"word/fonts/font1.odttf": b"x", "docProps/thumbnail.jpeg": b"x"})) == DOCX
    assert told(a_document(main="xl/workbook.xml", **{"xl/printerSettings/printerSettings1.bin": b"x", "xl/drawings/vmlDrawing1.vml": b"x"})) == XLSX


def test_a_document_that_unpacks_to_a_mountain_is_refused_unread():
    data = bytearray(a_document(**{"word/media/image1.png": b"x"}))
    place = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, place + 24, 200 << 20)

    assert "unpacks to more" in refusal(bytes(data))
    many = a_document(" " * (inside.MOST_LIST + 10))
    assert "unpacks to more" in refusal(many)


@pytest.mark.parametrize("whole", [files.PNG, files.JPEG, files.GIF, files.WEBP], ids=["png", "jpeg", "gif", "webp"])
@pytest.mark.parametrize("change", ["cut", "archive behind", "script behind"])
def test_a_picture_that_does_not_end_as_one_is_refused(whole, change):
    refusal({"cut": whole[:-2], "archive behind": whole + files.an_archive("run.exe"), "script behind": whole + b"<?php 1 ?>"}[change], "a.png")


def test_an_archive_that_hides_within_a_picture_is_refused():
    hidden = files.an_archive("run.exe")
    chunk = struct.pack(">L", len(hidden)) + b"vpAg" + hidden + b"\0\0\0\0"

    assert "archive" in refusal(files.PNG[:-12] + chunk + files.PNG[-12:], "a.png")


@pytest.mark.parametrize("markup", ["<html>", "<SCRIPT src=x>", "< script>", "<!DOCTYPE html>", "<iframe src=x>"])
def test_a_text_with_markup_further_on_is_refused(markup):
    long = "Тариф «Дом»\n" * 2000

    assert "markup" in refusal((long + markup).encode(), "a.txt")
    assert "markup" in refusal((long + markup).encode(), "a.csv")
    assert told((long + "a < b, x<y").encode(), "a.txt") == TEXT


@pytest.mark.parametrize("cell", ["=1+1", "=HYPERLINK(1)", "+cmd|' /C calc'!A0", "-2+A1", "@SUM(A1)", "-cmd"])
@pytest.mark.parametrize("table", ["{}", "a;b\n1;{}\n", "a,b\n1,{}\n", "a\tb\n1\t{}\n", '\ufeffa;b\n1;"{}"\n'])
def test_a_table_with_a_formula_is_refused_with_the_cell_named(cell, table):
    assert repr(cell[:10])[:-1] in refusal(table.format(cell).encode(), "a.csv")


def test_numbers_with_a_sign_are_no_formulas():
    assert told("счёт;сумма;телефон;%\n100500;-5;+7 (916) 123-45-67;-1,5%\n7;-1 000,00;-;+3\n".encode(), "a.csv") == CSV
    assert told("=== не таблица ===\n".encode(), "a.txt") == TEXT
