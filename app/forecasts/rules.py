"""The rules of what will happen, in SQL. Dates only: no clock can shift a day.

    RUNS_OUT  who of the given accounts runs out, on which day, and by how much
    DUE       the charges of given accounts, day by day

A charge counts on a due day when start_on <= due <= end_on and due > posted_through. The charges of one day are one sum. An account runs out on the first
day on which the sum to that day is greater than what is available (balance and credit limit): with exactly nothing left it is covered. An account that
owes more than its credit already has run out today. The calendar itself (month ends, leap days) is the SQL function `charge_calendar`.
"""

import calendar
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor

RULES = 1  # the version of this meaning; kept with every hit

COUNTS = "k.due_on > coalesce(c.posted_through, '-infinity') AND k.due_on BETWEEN coalesce(c.start_on, '-infinity') AND coalesce(c.end_on, 'infinity')"

# Whose accounts: between two ids, or given ones.
BETWEEN, THESE = "{id} >= :first AND {id} < :last", "{id} = ANY(CAST(:ids AS uuid[]))"


def whose(statement: str) -> dict[str, sa.TextClause]:
    """The statement for each way to say whose accounts: `«id»` in it becomes the condition on that column."""
    return {way: sa.text(re.sub("«(.+?)»", way.format(id=r"\1"), statement)) for way in (BETWEEN, THESE)}


MEMBERS = sa.text("SELECT id FROM account WHERE id >= :first AND id < :last AND timezone = ANY(CAST(:zones AS text[]))")
_RUNS_OUT = f"""
WITH calendar AS MATERIALIZED (SELECT * FROM charge_calendar(CAST(:as_of AS date), CAST(:upto AS date))), given AS MATERIALIZED ({{given}}), due AS (
    SELECT g.ref, g.id, g.available, k.due_on, c.amount FROM given g JOIN planned_charge c ON c.account_id = g.id JOIN calendar k ON k.key = c.calendar_key
    WHERE {{theirs}} AND {COUNTS}
    UNION ALL SELECT ref, id, available, CAST(:as_of AS date), 0 FROM given WHERE available < 0
), of_day AS (
    SELECT ref, id, available, due_on, sum(sum(amount)) OVER (PARTITION BY ref, id ORDER BY due_on) - available AS missing FROM due GROUP BY ref, id, available, due_on
)
SELECT DISTINCT ON (ref, id) ref, id, due_on AS exhausts_on, missing AS shortfall FROM of_day WHERE missing > 0 ORDER BY ref, id, due_on
"""
# Of these accounts with what they have at the moment. For many, and without nested loops: their charges are named by the array.
RUNS_OUT_SQL = _RUNS_OUT.format(
    given="""SELECT 0 AS ref, a.id, a.balance + a.credit_limit AS available FROM account a
    WHERE a.id = ANY(CAST(:ids AS uuid[])) AND a.status = 'active' AND (a.balance_as_of IS NULL OR a.balance_as_of >= :fresh)""",
    theirs="c.account_id = ANY(CAST(:ids AS uuid[]))",
)
# Of a few, with what each is said to have.
RUNS_OUT_OF = sa.text(
    _RUNS_OUT.format(
        given="SELECT * FROM unnest(CAST(:refs AS int[]), CAST(:ids AS uuid[]), CAST(:availables AS numeric[])) AS g(ref, id, available)", theirs="true"
    )
)
DUE = sa.text(f"""
SELECT c.account_id, k.due_on, c.external_id, c.title, c.amount, c.announce, c.kind
FROM planned_charge c JOIN charge_calendar(CAST(:as_of AS date), CAST(:upto AS date)) k ON k.key = c.calendar_key
WHERE c.account_id = ANY(CAST(:ids AS uuid[])) AND {COUNTS} ORDER BY c.account_id, k.due_on, c.external_id
""")


@dataclass(frozen=True, slots=True)
class RunsOut:
    """The first day that is not covered, and what is missing on it."""

    ref: int
    account_id: UUID
    exhausts_on: date
    shortfall: Decimal


@dataclass(frozen=True, slots=True)
class Due:
    """One charge on one day."""

    due_on: date
    id: str
    title: str
    amount: Decimal
    announce: bool
    kind: str


@dataclass(frozen=True, slots=True)
class Span:
    """Accounts between two ids, the last one excluded."""

    first: UUID
    last: UUID
    way: ClassVar[str] = BETWEEN

    @property
    def values(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}


@dataclass(frozen=True, slots=True)
class These:
    """Given accounts."""

    ids: Sequence[UUID]
    way: ClassVar[str] = THESE

    @property
    def values(self) -> dict[str, Any]:
        return {"ids": list(self.ids)}


async def members(session: Executor, span: Span, zones: Sequence[str]) -> These:
    """Those between two ids who live in these zones. Named one by one they are found by the index, whatever the statistics say of the zone."""
    return These((await session.execute(MEMBERS, span.values | {"zones": list(zones)})).scalars().all())


async def runs_out_of(session: Executor, asked: Sequence[tuple[UUID, Decimal]], as_of: date, horizon: int) -> dict[int, RunsOut]:
    """By the position in `asked` (account, what is available): those that run out from as_of to as_of + horizon days, both ends in."""
    if not asked:
        return {}
    values = {
        "refs": list(range(len(asked))),
        "ids": [account_id for account_id, _ in asked],
        "availables": [available for _, available in asked],
        "as_of": as_of,
        "upto": as_of + timedelta(days=horizon),
    }
    return {row.ref: RunsOut(*row) for row in (await session.execute(RUNS_OUT_OF, values)).all()}


async def due_of(session: Executor, ids: Sequence[UUID], as_of: date, upto: date) -> dict[UUID, list[Due]]:
    """The charges of these accounts that count from as_of to upto, both ends in, by day."""
    found: dict[UUID, list[Due]] = defaultdict(list)
    if ids:
        for account_id, *due in await session.execute(DUE, {"ids": list(ids), "as_of": as_of, "upto": upto}):
            found[account_id].append(Due(*due))
    return found


def stage_of(days_left: int, warning_days: Sequence[int]) -> int | None:
    """The smallest number of warning days that is reached, or nothing."""
    return min((days for days in warning_days if days_left <= days), default=None)


def period_end(as_of: date) -> date:
    """The last day of the month that begins on as_of: what a recommended payment covers."""
    year, month = divmod(as_of.year * 12 + as_of.month, 12)
    return date(year, month + 1, min(as_of.day, calendar.monthrange(year, month + 1)[1])) - timedelta(days=1)


def recommended_payment(available: Decimal, due: Sequence[Due], shortfall: Decimal | None) -> Decimal | None:
    """What is missing until `period_end`, at least the shortfall; nothing where nothing is missing."""
    return missing_of(available, sum((charge.amount for charge in due), Decimal("0.00")), shortfall)


def missing_of(available: Decimal, total: Decimal, shortfall: Decimal | None) -> Decimal | None:
    """The same from the sum of the charges."""
    missing = total - available
    wanted = max(missing, shortfall or Decimal("0.00"))
    return wanted if wanted > 0 else None
