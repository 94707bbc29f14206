"""A statement of what an account will be charged in the next 30 days, with what is left after each charge; and its CSV."""

import csv
import io
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.accounts.consents_api import safe_cell
from app.attachments.words import Words, one_line
from app.core.db import Executor
from app.forecasts.rules import DUE, Due, period_end
from app.forecasts.schedule import today_in
from app.forecasts.timeline import Forecast, reckon

DAYS = 30

# The account and its charges at once. Which day it is there, its zone says: the charges of a day more on either side are asked for.
ACCOUNT = sa.text(f"""
SELECT a.number, a.name, a.currency, a.timezone, a.balance, a.credit_limit, d.due_on, d.external_id, d.title, d.amount, d.announce, d.kind
FROM account a LEFT JOIN ({DUE.text}) d ON d.account_id = a.id
WHERE a.id = ANY(CAST(:ids AS uuid[])) AND a.status <> 'erased' ORDER BY d.due_on, d.external_id
""")


@dataclass(frozen=True, slots=True)
class Line:
    """One charge, and the balance after it (without the credit limit)."""

    on: date
    title: str
    amount: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    """`lines` are those from `as_of` to `upto`, both ends in. `ahead` has when the money ends, and what is missing."""

    number: str
    name: str
    currency: str
    upto: date
    lines: tuple[Line, ...]
    ahead: Forecast

    @property
    def as_of(self) -> date:
        return self.ahead.as_of

    @property
    def total(self) -> Decimal:
        return sum((line.amount for line in self.lines), Decimal("0.00"))


async def statement_of(session: Executor, account_id: UUID, moment: datetime) -> Statement | None:
    """The statement of an account on its own day; nothing when there is no such account. One query."""
    on = moment.date()
    # A zone is at most 14 hours off; the period of a recommended payment ends within 31 days.
    values = {"ids": [account_id], "as_of": on - timedelta(days=2), "upto": on + timedelta(days=2 + max(DAYS, 31))}
    rows = (await session.execute(ACCOUNT, values)).all()
    if not rows:
        return None
    due = [Due(row.due_on, row.external_id, row.title, row.amount, row.announce, row.kind) for row in rows if row.due_on is not None]
    return state(rows[0], due, today_in(rows[0].timezone, "UTC", moment).date())


def state(account: Any, due: list[Due], as_of: date) -> Statement:
    """From the account and its charges in the order of their days; those before `as_of` do not count. Pure."""
    coming, upto = [charge for charge in due if charge.due_on >= as_of], as_of + timedelta(days=DAYS)
    assert period_end(as_of) <= as_of + timedelta(days=31)
    left, lines = account.balance, list[Line]()
    for charge in coming:
        if charge.due_on <= upto:
            left -= charge.amount
            lines.append(Line(charge.due_on, one_line(charge.title), charge.amount, left))
    ahead = reckon(account.balance, account.credit_limit, as_of, upto, coming)
    return Statement(one_line(account.number), one_line(account.name), account.currency, upto, tuple(lines), ahead)


@dataclass(frozen=True, slots=True)
class _Specimen:
    number: str = "100500"
    name: str = ""
    currency: str = "RUB"
    balance: Decimal = Decimal("312.40")
    credit_limit: Decimal = Decimal("0.00")


def specimen(as_of: date, words: Words) -> Statement:
    """Somebody's, for a preview without an account."""
    title = "Интернет 100" if words.language == "ru" else "Internet 100"
    return state(_Specimen(), [Due(as_of + timedelta(days=days), title, title, Decimal("250.00"), True, "once") for days in (3, 17)], as_of)


def as_csv(statement: Statement, words: Words) -> bytes:
    """RFC 4180 in UTF-8 with a byte order mark, and semicolons: as spreadsheets open it in Russia by themselves. No text in it becomes a formula."""
    written = io.StringIO()
    rows = csv.writer(written, delimiter=";")
    rows.writerow([words("date"), words("charge"), f"{words('amount')}, {statement.currency}", f"{words('after')}, {statement.currency}"])
    for line in statement.lines:
        rows.writerow([line.on.isoformat(), safe_cell(line.title), words.plain_number(line.amount), words.plain_number(line.after)])
    return b"\xef\xbb\xbf" + written.getvalue().encode()
