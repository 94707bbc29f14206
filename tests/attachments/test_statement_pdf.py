"""The statement as a PDF, read back."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import pairwise

import pytest
from reportlab.pdfbase.pdfmetrics import stringWidth

from app.attachments.statement_layout import BOTTOM, CHARGE_WIDTH, MARGIN, RIGHT, Text, pages_of, wrapped
from app.attachments.statement_pdf import as_pdf
from app.attachments.words import words_of
from tests.builders.pdf_text import lines_of
from tests.builders.statements import a_statement

LARGEST = "999999999999.99"


def test_a_subscriber_reads_his_charges():
    statement = a_statement([(2, "700.00", "Интернет «Дом 100»"), (5, "1534.50", "Телевидение")], credit_limit=Decimal("50.00"))

    (page,) = lines_of(as_pdf(statement, words_of("ru")))

    assert page == [
        "Предстоящие начисления",
        "с 10.01.2026 по 09.02.2026",
        "Лицевой счёт 100500",
        "Иванов Иван",
        "Баланс на 10.01.2026",
        "1 000,00 ₽",
        "Кредитный лимит",
        "50,00 ₽",
        "Дата",
        "Начисление",
        "Сумма, ₽",
        "Останется, ₽",
        "12.01.2026",
        "700,00",
        "300,00",
        "Интернет «Дом 100»",
        "15.01.2026",
        "1 534,50",
        "−1 234,50",
        "Телевидение",
        "Итого",
        "2 234,50",
        "Деньги закончатся 15.01.2026: не хватит 1 184,50 ₽.",
        "Остаток посчитан без кредитного лимита и в расчёте на то, что других поступлений и списаний не будет.",
        "Страница 1 из 1",
    ]


def test_it_speaks_english_to_everybody_else():
    (page,) = lines_of(as_pdf(a_statement([(2, "1700.00", "Internet")], currency="EUR"), words_of("en-GB")))

    assert {"Upcoming charges", "10 Jan 2026 to 9 Feb 2026", "Account 100500", "Amount, €", "1,700.00", "−700.00", "Page 1 of 1"} <= set(page)


def test_without_charges_it_says_so():
    (page,) = lines_of(as_pdf(a_statement(), words_of("ru")))

    assert "На эти дни начислений нет." in page
    assert "Итого" not in page


def test_a_hundred_charges_go_on_over_pages_and_none_is_lost():
    statement = a_statement([(n % 30, "10.00", f"Услуга {n}") for n in range(100)])

    pages = lines_of(as_pdf(statement, words_of("ru")))

    assert len(pages) == 3
    assert [text for page in pages for text in page if text.startswith("Услуга")] == [f"Услуга {n}" for n in range(100)]
    assert all("Останется, ₽" in page for page in pages)
    assert [page[-1] for page in pages] == ["Страница 1 из 3", "Страница 2 из 3", "Страница 3 из 3"]


def test_charges_beyond_five_hundred_are_one_line_and_in_the_total():
    statement = a_statement([(n % 30, "10.00", f"Услуга {n}") for n in range(612)])

    texts = [text for page in lines_of(as_pdf(statement, words_of("ru"))) for text in page]

    assert sum(text.startswith("Услуга") for text in texts) == 500
    assert texts[texts.index("Ещё начислений: 112") + 1 :][:2] == ["Итого", "6 120,00"]


@pytest.mark.parametrize("charges", range(1, 90, 4))
@pytest.mark.parametrize("title", ["TV", "Ж" * 300, "слово " * 50])
def test_nothing_runs_off_the_paper_or_into_its_neighbour(charges, title):
    as_pdf(a_statement(), words_of("ru"))  # the fonts are registered
    words = words_of("ru")
    statement = a_statement([(n % 30, LARGEST, title) for n in range(charges)], name="Щ" * 300, number="9" * 64, balance=Decimal("-" + LARGEST))

    for page in pages_of(statement, words):
        texts = [mark for mark in page if isinstance(mark, Text)]
        spans = sorted((text.y, *span_of(text)) for text in texts)
        assert all(left >= MARGIN - 1 and right <= RIGHT + 1 for _, left, right in spans)
        assert all(text.y >= BOTTOM for text in texts[:-1])
        assert not [(one, other) for one, other in pairwise(spans) if one[0] == other[0] and one[2] > other[1]]


def span_of(text: Text) -> tuple[float, float]:
    width = stringWidth(text.text, text.font, text.size)
    return (text.x - width, text.x) if text.to else (text.x, text.x + width)


@pytest.mark.parametrize("name", ["<b>ООО «Рога & копыта»</b>", "\u202eevil\r\n\0name", "(\\) Tj ET Q", "𝔘𝔫𝔦 😀 名前 שם", "a\nb" * 100])
def test_hostile_names_are_only_text(name):
    statement = a_statement([(1, "5.00", name)], name=name)

    (page,) = lines_of(as_pdf(statement, words_of("ru")))

    assert "5,00" in page
    if name.startswith(("<", "(")):
        assert page.count(name) == 2


def test_the_same_statement_makes_the_same_octets_whoever_else_is_at_it():
    statements = [a_statement([(n, "5.00", f"{letter * 20} {n}") for n in range(20)]) for letter in "АБВГДЕЖЗ"]
    alone = [as_pdf(statement, words_of("ru")) for statement in statements]

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda statement: as_pdf(statement, words_of("ru")), statements * 3))

    assert together == alone * 3


def test_a_word_that_is_too_long_is_broken_and_stays_whole():
    as_pdf(a_statement(), words_of("ru"))
    lines = wrapped("короткое " + "Щ" * 200 + " конец", CHARGE_WIDTH)

    assert lines[0] == "короткое"
    assert "".join(lines[1:]).replace(" ", "") == "Щ" * 200 + "конец"
    assert wrapped("", CHARGE_WIDTH) == [""]
    assert "".join(wrapped("Щ" * 5, 1.0)) == "Щ" * 5
