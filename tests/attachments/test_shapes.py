"""What a version may have with it."""

from uuid import uuid4

import pytest
from pydantic import TypeAdapter, ValidationError

from app.attachments.shapes import MOST, AttachedFileIn, Attachments, read_specs

SHAPE = TypeAdapter(Attachments)
ID = str(uuid4())


def a_file(**more) -> dict:
    return {"kind": "file", "id": ID} | more


def test_files_and_made_ones_stand_in_one_list():
    given = [
        a_file(name="Прайс.pdf"),
        a_file(name="logo.png", inline=True),
        *({"kind": kind} for kind in ("statement_pdf", "statement_csv", "calendar", "payment_qr")),
    ]

    read = SHAPE.validate_python(given)

    assert isinstance(read[1], AttachedFileIn)
    assert [spec.kind for spec in read] == ["file", "file", "statement_pdf", "statement_csv", "calendar", "payment_qr"]
    assert read_specs(SHAPE.dump_python(read, mode="json", exclude_defaults=True)) == read


@pytest.mark.parametrize(
    "wrong",
    [
        [{"kind": "statement"}],
        [{}],
        ["statement_pdf"],
        [{"kind": "file"}],
        [a_file(id="1")],
        [a_file(name="")],
        [a_file(name="a" * 256)],
        [a_file(colour="red")],
        [{"kind": "calendar", "name": "x.ics"}],
        [a_file(inline="yes", name="a.png")],
        [a_file(inline=True)],
        [a_file(inline=True, name='a".png')],
        [a_file(inline=True, name="a>\r\nX: y")],
        [a_file(inline=True, name="лого.png")],
        [a_file(inline=True, name="a.png"), a_file(inline=True, name="a.png")],
        [a_file(inline=True, name="payment-qr.png")],
        [a_file(inline=True, name="brand-logo")],
        [{"kind": "calendar"}, {"kind": "calendar"}],
        [a_file()] * (MOST + 1),
    ],
)
def test_everything_else_is_refused(wrong):
    with pytest.raises(ValidationError):
        SHAPE.validate_python(wrong)


def test_what_a_message_has_may_be_a_brands_logo_more():
    assert len(read_specs([*[a_file()] * MOST, a_file(inline=True, name="brand-logo")])) == MOST + 1
