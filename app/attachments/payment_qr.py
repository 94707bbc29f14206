"""The QR code by which a banking application fills in the payment (GOST R 56042-2014, "Two-dimensional symbols for payments of individuals").

    ST00012|Name=..|PersonalAcc=..|BankName=..|BIC=..|CorrespAcc=..|PayeeINN=..|KPP=..|PersAcc=..|Sum=..|Purpose=..

`ST` and `0001` are the format and its version, `2` says UTF-8; the character behind them is what separates the fields, any that stands in none of their
values: `|` by choice (5.2). The first five are obligatory. Sums are in kopecks.
"""

import io
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import segno
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.attachments.event_data import SUMS, sum_in
from app.attachments.statement import Statement
from app.attachments.words import one_line

SERVICE_BLOCK = "ST00012"
SEPARATORS = "|~^#;{}!$%&*+@"
LONGEST_PURPOSE = 210  # characters
LEAST_PIXELS = 280
QUIET = 4  # modules of white round it (ISO/IEC 18004, 9.1)


def _cleaned(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value


class Payee(BaseModel):
    """Whom the payment goes to: the `payee` of a brand."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, BeforeValidator(_cleaned), Field(min_length=1, max_length=160)]
    personal_account: Annotated[str, Field(pattern=r"^[0-9]{20}$")]
    bank_name: Annotated[str, BeforeValidator(_cleaned), Field(min_length=1, max_length=45)]
    bic: Annotated[str, Field(pattern=r"^[0-9]{9}$")]
    correspondent_account: Annotated[str, Field(pattern=r"^([0-9]{20}|0)$", description="0 where the bank has none")]
    inn: Annotated[str, Field(pattern=r"^([0-9]{10}|[0-9]{12})$")] | None = None
    kpp: Annotated[str, Field(pattern=r"^[0-9]{9}$")] | None = None


class NoPayee(Exception):
    """The brand has no payee, or one that no bank would understand."""


def payee_of(brand_settings: Mapping[str, Any]) -> Payee:
    """NoPayee when there is none."""
    try:
        return Payee.model_validate(brand_settings.get("payee"))
    except ValidationError as error:
        faults = ", ".join(sorted({".".join(str(step) for step in fault["loc"]) or "payee" for fault in error.errors(include_input=False, include_url=False)}))
        raise NoPayee(f"the brand's payee is missing or not whole: {faults}") from None


def sum_to_pay(statement: Statement, data: Mapping[str, Any]) -> Decimal | None:
    """What the event recommends; nothing where it says no sum, or the account is not kept in roubles: the payer writes it himself."""
    return sum_in(data, *SUMS) if statement.currency == "RUB" else None


def payload(payee: Payee, account: str, amount: Decimal | None) -> str:
    """What the code says."""
    number = one_line(account)
    fields = {
        "Name": payee.name,
        "PersonalAcc": payee.personal_account,
        "BankName": payee.bank_name,
        "BIC": payee.bic,
        "CorrespAcc": payee.correspondent_account,
        "PayeeINN": payee.inn,
        "KPP": payee.kpp,
        "PersAcc": number,
        "Sum": str(int(amount * 100)) if amount is not None else None,
        # In Russian whatever the subscriber reads: it is the payee's bank and books that it is for.
        "Purpose": f"Оплата услуг связи, лицевой счёт {number}"[:LONGEST_PURPOSE],
    }
    said = [(name, value) for name, value in fields.items() if value]
    separator = next((sign for sign in SEPARATORS if not any(sign in value for _, value in said)), None)
    if separator is None:  # somebody has put every one of them into names: the fields stay whole, the names lose a sign
        separator = SEPARATORS[0]
        said = [(name, value.replace(separator, " ")) for name, value in said]
    return separator.join([SERVICE_BLOCK, *(f"{name}={value}" for name, value in said)])


def as_png(text: str) -> bytes:
    """The code, black on white, at least 280 pixels wide. One mask for all: choosing the best of eight takes five times as long, and every reader takes any."""
    code = segno.make_qr(text.encode(), error="m", mode="byte", mask=2, boost_error=False)
    written = io.BytesIO()
    code.save(written, kind="png", scale=-(-LEAST_PIXELS // code.symbol_size(border=QUIET)[0]), border=QUIET)
    return written.getvalue()
