"""Names of files are anybody's text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.attachments.content import CSV, EXTENSIONS, PDF, PNG
from app.attachments.names import apart, clean_name, disposition


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("price.pdf", "price.pdf"),
        ("Прайс-лист на январь.PDF", "Прайс-лист на январь.PDF"),
        ("../../etc/passwd", "passwd.pdf"),
        ("C:\\Users\\me\\price.pdf", "price.pdf"),
        ("invoice.exe", "invoice.exe.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe.pdf"),
        ("a\r\nBcc: all@example.org\r\n.pdf", "a Bcc_ all@example.org.pdf"),
        ('a"; filename="b.exe', "a_; filename=_b.exe.pdf"),
        ("a\0b\x1b[2J.pdf", "ab[2J.pdf"),
        (".pdf", "pdf.pdf"),
        ("...", "file.pdf"),
        ("", "file.pdf"),
        ("   .htaccess  ", "htaccess.pdf"),
    ],
)
def test_a_name_loses_what_could_do_harm_and_gets_its_extension(name, expected):
    assert clean_name(name, PDF) == expected


def test_a_long_name_keeps_its_extension():
    name = clean_name("я" * 400 + ".csv", CSV)

    assert len(name) == 255
    assert name.endswith("яя.csv")


@given(st.text(max_size=400), st.sampled_from(sorted(EXTENSIONS)))
def test_whatever_the_name_it_is_fit_for_a_header_and_a_disk(name, kind):
    cleaned = clean_name(name, kind)

    assert 1 <= len(cleaned) <= 255
    assert cleaned.isprintable()
    assert not set(cleaned) & set('/\\<>:"|?*\r\n\0')
    assert cleaned.lower().endswith(EXTENSIONS[kind])
    assert clean_name(cleaned, kind) == cleaned


@given(st.text(max_size=100))
def test_a_download_says_its_name_in_ascii_alone(name):
    header = disposition(clean_name(name, PNG))

    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


def test_a_download_says_its_name_twice():
    assert disposition("Счёт 1.pdf") == "attachment; filename=\"____ 1.pdf\"; filename*=UTF-8''%D0%A1%D1%87%D1%91%D1%82%201.pdf"


def test_no_two_files_of_a_letter_have_one_name():
    assert apart(["a.pdf", "A.PDF", "a.pdf", "a (2).pdf", "b"]) == ["a.pdf", "A (2).PDF", "a (3).pdf", "a (2) (2).pdf", "b"]
