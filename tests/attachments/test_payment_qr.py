"""The payment QR: what it says by GOST R 56042-2014, and that the picture shows just that."""

import struct
import zlib
from decimal import Decimal

import pytest
import segno

from app.attachments.payment_qr import LEAST_PIXELS, QUIET, SEPARATORS, NoPayee, Payee, as_png, payee_of, payload, sum_to_pay
from tests.builders.statements import a_statement

PAYEE = {
    "name": "ООО «Связь»",
    "personal_account": "40702810138250123017",
    "bank_name": "ПАО «Банк» г. Москва",
    "bic": "044525225",
    "correspondent_account": "30101810400000000225",
    "inn": "7700000001",
    "kpp": "770001001",
}


def said(amount: str | None = "1234.50", number: str = "100500", **changes) -> str:
    return payload(Payee(**PAYEE | changes), number, Decimal(amount) if amount else None)


def test_a_bank_reads_payee_account_and_sum():
    assert said() == (
        "ST00012|Name=ООО «Связь»|PersonalAcc=40702810138250123017|BankName=ПАО «Банк» г. Москва|BIC=044525225|CorrespAcc=30101810400000000225"
        "|PayeeINN=7700000001|KPP=770001001|PersAcc=100500|Sum=123450|Purpose=Оплата услуг связи, лицевой счёт 100500"
    )


def test_what_is_not_known_is_left_out():
    text = said(None, inn=None, kpp=None)

    assert [field.partition("=")[0] for field in text.split("|")] == ["ST00012", "Name", "PersonalAcc", "BankName", "BIC", "CorrespAcc", "PersAcc", "Purpose"]


def test_where_a_value_has_the_separator_in_it_another_one_separates():
    text = said(name="ООО «А|Б~В»")

    assert text.startswith("ST00012^Name=ООО «А|Б~В»^PersonalAcc=")
    assert len(text.split("^")) == 11


def test_where_every_separator_is_taken_the_name_loses_a_sign_and_no_field_is_torn():
    text = said(name=f"А{SEPARATORS}Б")

    assert len(text.split("|")) == 11
    assert f"Name=А {SEPARATORS[1:]}Б" in text


def test_a_hostile_account_number_adds_no_field():
    fields = said(number="1|Sum=1\r\nBIC=2")

    assert fields[7] == "~"
    assert "~PersAcc=1|Sum=1 BIC=2~Sum=123450~" in fields


@pytest.mark.parametrize(("amount", "kopecks"), [("0.01", "1"), ("999999999999.99", "99999999999999"), ("500", "50000"), ("19.99", "1999")])
def test_sums_are_in_kopecks(amount, kopecks):
    assert f"|Sum={kopecks}|" in said(amount)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"recommended_payment": "750.00", "shortfall": "50.00", "total": "9.00"}, "750.00"),
        ({"recommended_payment": "0.00", "shortfall": "50.00"}, "50.00"),
        ({"total": Decimal("9.00")}, "9.00"),
        ({"recommended_payment": "-5.00", "total": "9.00"}, "9.00"),
        ({"recommended_payment": 750, "total": "much"}, None),
        ({}, None),
    ],
)
def test_the_sum_is_what_the_event_recommends(data, expected):
    assert sum_to_pay(a_statement(), data) == (expected and Decimal(expected))


def test_in_another_currency_the_payer_writes_the_sum_himself():
    assert sum_to_pay(a_statement(currency="USD"), {"total": "9.00"}) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"bic": "1"},
        {"personal_account": "4070281013825012301a"},
        {"name": ""},
        {"name": "\r\n"},
        {"name": "a" * 161},
        {"inn": "123"},
        {"correspondent_account": ""},
    ],
)
def test_a_payee_that_no_bank_would_understand_is_none(wrong):
    with pytest.raises(NoPayee, match=next(iter(wrong))):
        payee_of({"payee": PAYEE | wrong})


@pytest.mark.parametrize("settings", [{}, {"payee": None}, {"payee": "me"}, {"payee": {}}])
def test_a_brand_without_a_payee_has_none(settings):
    with pytest.raises(NoPayee):
        payee_of(settings)


def test_what_a_fault_of_the_payee_says_has_no_value_in_it():
    with pytest.raises(NoPayee) as refused:
        payee_of({"payee": PAYEE | {"inn": "secret"}})

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", [said(), said(name="Щ" * 160, bank_name="Ы" * 45, number="9" * 64)])
def test_the_picture_is_the_code_with_white_round_it(text):
    rows = pixels(as_png(text))
    matrix = segno.make_qr(text.encode(), error="m", mode="byte", mask=2, boost_error=False).matrix

    scale, rest = divmod(len(rows), len(matrix) + 2 * QUIET)
    assert (rest, len({len(row) for row in rows}), len(rows[0])) == (0, 1, len(rows))
    assert LEAST_PIXELS <= len(rows) <= 2 * LEAST_PIXELS
    inner = [row[scale // 2 :: scale] for row in rows[scale // 2 :: scale]]
    assert [[not light for light in row[QUIET:-QUIET]] for row in inner[QUIET:-QUIET]] == [[bool(dark) for dark in row] for row in matrix]
    edge = [*inner[:QUIET], *inner[-QUIET:], *(row[:QUIET] + row[-QUIET:] for row in inner)]
    assert all(all(row) for row in edge)


def pixels(png: bytes) -> list[list[bool]]:
    """Rows of a PNG of one bit a pixel: True is light. A row stands for itself, or is added to the one above (filter 2)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, place = {}, 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        data = png[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", png, place + 8 + length)[0] == zlib.crc32(kind + data)
        chunks[kind] = chunks.get(kind, b"") + data
        place += 12 + length
    width, height, depth = struct.unpack_from(">IIB", chunks[b"IHDR"])
    assert depth == 1
    raw, stride = zlib.decompress(chunks[b"IDAT"]), (width + 7) // 8 + 1
    lines, above = [], bytes(stride - 1)
    for n in range(height):
        kind, line = raw[n * stride], raw[n * stride + 1 : (n + 1) * stride]
        assert kind in (0, 2)
        above = bytes((octet + upper) % 256 for octet, upper in zip(line, above, strict=True)) if kind == 2 else line
        lines.append(above)
    return [[bool(line[x // 8] >> (7 - x % 8) & 1) for x in range(width)] for line in lines]
