"""Who is to be told, in one slice: the rules meet what each account has been told before. Nothing is written but a temporary table.

exhaustion  the stage is the smallest number of warning days that is reached; told when it is below the lowest one of this episode
threshold   told when the balance is at or below it, once an episode; covered where this very day's exhaustion is told, the more serious of the two
upcoming    told once for each due day
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor, as_utc
from app.core.money import money_string
from app.forecasts.rules import ANALYZE, AT_RISK, COUNTS, RULES, RUNS_OUT_SQL, Due, Span, due_of, missing_of, period_end, stage_of, total_of

TYPES = {"exhaustion": "balance.exhausting", "threshold": "balance.threshold_reached", "upcoming": "charges.upcoming"}
LISTED = 100  # charges that a hit lists
UPCOMING_DAYS = 3  # unless the operator says otherwise

EXHAUSTION = sa.text(f"""
SELECT o.id, o.exhausts_on, o.shortfall, a.balance, a.balance_as_of, a.credit_limit, coalesce(e.number, 0) AS number, coalesce(e.is_open, false) AS is_open, e.stage
FROM ({RUNS_OUT_SQL}) o JOIN account a ON a.id = o.id LEFT JOIN forecast_episode e ON e.account_id = o.id AND e.kind = 'exhaustion' ORDER BY o.id
""")
OF_SPAN = "a.id >= :first AND a.id < :last AND a.timezone = :zone AND a.status = 'active' AND (a.balance_as_of IS NULL OR a.balance_as_of >= :fresh)"
THRESHOLD = sa.text(f"""
SELECT a.id, a.balance, a.balance_as_of, a.credit_limit, a.threshold, coalesce(e.number, 0) AS number, EXISTS (
    SELECT FROM forecast_hit h WHERE h.account_id = a.id AND h.kind = 'exhaustion' AND h.as_of = :as_of
) AS covered
FROM account a LEFT JOIN forecast_episode e ON e.account_id = a.id AND e.kind = 'threshold'
WHERE {OF_SPAN} AND a.balance <= a.threshold AND NOT coalesce(e.is_open, false) ORDER BY a.id
""")
UPCOMING = sa.text(f"""
SELECT a.id, a.balance, a.balance_as_of, a.credit_limit, d.charges, d.total
FROM (
    SELECT c.account_id, sum(c.amount) AS total, array_agg(ARRAY[c.external_id, c.title, CAST(c.amount AS text)] ORDER BY c.external_id) AS charges
    FROM planned_charge c JOIN charge_calendar(CAST(:due_on AS date), CAST(:due_on AS date)) k ON k.key = c.calendar_key
    WHERE c.account_id >= :first AND c.account_id < :last AND c.announce AND (c.kind <> 'daily' OR :daily) AND {COUNTS}
    GROUP BY c.account_id
) d JOIN account a ON a.id = d.account_id
WHERE {OF_SPAN} AND d.total > 0 AND NOT EXISTS (
    SELECT FROM forecast_hit h WHERE h.account_id = a.id AND h.kind = 'upcoming' AND h.episode = 0 AND h.mark = :mark
) ORDER BY a.id
""")
COUNT = sa.text("""
SELECT count(*) FILTER (WHERE status = 'active') AS active, count(*) FILTER (WHERE status = 'suspended') AS frozen,
       count(*) FILTER (WHERE status = 'active' AND balance_as_of < :fresh) AS stale
FROM account WHERE id >= :first AND id < :last AND timezone = :zone
""")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator has set."""

    warning_days: tuple[int, ...] = (7, 3, 1)
    upcoming_days: int = UPCOMING_DAYS
    upcoming_daily: bool = False
    stale_after: timedelta | None = None

    @property
    def horizon(self) -> int:
        return max(self.warning_days)

    def fresh(self, moment: datetime) -> datetime:
        """Balances older than this are not spoken of."""
        return moment - self.stale_after if self.stale_after else datetime.min.replace(tzinfo=moment.tzinfo)


def wanted_from(settings: Mapping[str, Mapping[str, Any]]) -> Wanted:
    """From the settings of the notification types, by code."""
    exhausting, upcoming = settings.get(TYPES["exhaustion"], {}), settings.get(TYPES["upcoming"], {})
    stale = exhausting.get("stale_after_days")
    return Wanted(
        tuple(exhausting.get("days_before") or (7, 3, 1)),
        upcoming.get("days_before", UPCOMING_DAYS),
        bool(upcoming.get("daily")),
        timedelta(days=stale) if stale else None,
    )


@dataclass(frozen=True, slots=True)
class Hit:
    """Somebody to be told, once for (account, kind, episode, mark)."""

    account_id: UUID
    kind: str
    episode: int
    mark: str
    as_of: date
    data: dict[str, Any]
    inputs: dict[str, Any]
    stage: int | None = None
    covered: bool = False


@dataclass(slots=True)
class Looked:
    """What a slice showed. `still` are the accounts whose episode goes on, told today or not."""

    hits: list[Hit] = field(default_factory=list)
    still: list[UUID] = field(default_factory=list)


async def look(session: Executor, kind: str, span: Span, as_of: date, wanted: Wanted, moment: datetime, *, words: bool = True) -> Looked:
    """The hits of one kind in one slice. The session's snapshot is what they are made from. Where they are only counted, they need no words."""
    values: dict[str, Any] = {"zone": span.zone, "first": span.first, "last": span.last, "fresh": wanted.fresh(moment)}
    if kind == "exhaustion":
        return await _exhaustion(session, values, as_of, wanted, words=words)
    if kind == "threshold":
        return await _threshold(session, values, as_of)
    return await _upcoming(session, values, as_of, wanted)


async def _exhaustion(session: Executor, values: dict[str, Any], as_of: date, wanted: Wanted, *, words: bool) -> Looked:
    days = {"as_of": as_of, "upto": as_of + timedelta(days=wanted.horizon)}
    await session.execute(AT_RISK, values | days)
    await session.execute(ANALYZE)
    rows = (await session.execute(EXHAUSTION, days)).all()
    looked, told = Looked(), []
    for row in rows:
        stage = stage_of((row.exhausts_on - as_of).days, wanted.warning_days)
        if stage is not None:
            looked.still.append(row.id)
            if not row.is_open or stage < row.stage:
                told.append((row, stage))
    ids = [row.id for row, _ in told] if words else []
    due = await due_of(session, ids, as_of, days["upto"])
    totals = await total_of(session, ids, as_of, period_end(as_of))
    for row, stage in told:
        episode = row.number if row.is_open else row.number + 1
        data, inputs = exhaustion_words(as_of, row, due.get(row.id, []), totals.get(row.id, Decimal(0))) if words else ({}, {})
        looked.hits.append(Hit(row.id, "exhaustion", episode, str(stage), as_of, data, inputs, stage))
    return looked


def exhaustion_words(as_of: date, row: Any, due: Sequence[Due], total: Decimal | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data of a `balance.exhausting` event, and what they were made from. `row` has exhausts_on, shortfall and the account's money.

    `total` is what will be charged until `period_end`; without it the charges in `due` have to reach so far.
    """
    until = [charge for charge in due if charge.due_on <= row.exhausts_on]
    ends = period_end(as_of)
    if total is None:
        total = sum((charge.amount for charge in due if charge.due_on <= ends), Decimal(0))
    payment = missing_of(row.balance + row.credit_limit, total, row.shortfall)
    data = {
        "days_left": (row.exhausts_on - as_of).days,
        "exhausts_on": row.exhausts_on.isoformat(),
        "shortfall": money_string(row.shortfall),
        "recommended_payment": money_string(payment or Decimal(0)),
        "charges": [{"id": c.id, "title": c.title, "amount": money_string(c.amount), "due_on": c.due_on.isoformat()} for c in until[:LISTED]],
    }
    return data, money_of(row) | {"as_of": as_of.isoformat(), "rules": RULES, "charges": len(until), "covers_until": ends.isoformat()}


def money_of(row: Any) -> dict[str, Any]:
    return {"balance": money_string(row.balance), "balance_as_of": as_utc(row.balance_as_of), "credit_limit": money_string(row.credit_limit)}


async def _threshold(session: Executor, values: dict[str, Any], as_of: date) -> Looked:
    looked = Looked()
    for row in (await session.execute(THRESHOLD, values | {"as_of": as_of})).all():
        data = {"balance": money_string(row.balance), "threshold": money_string(row.threshold)}
        inputs = money_of(row) | data | {"as_of": as_of.isoformat(), "rules": RULES}
        looked.hits.append(Hit(row.id, "threshold", row.number + 1, "low", as_of, data, inputs, covered=row.covered))
    return looked


async def _upcoming(session: Executor, values: dict[str, Any], as_of: date, wanted: Wanted) -> Looked:
    due_on = as_of + timedelta(days=wanted.upcoming_days)
    looked, asked = Looked(), values | {"due_on": due_on, "mark": due_on.isoformat(), "daily": wanted.upcoming_daily}
    for row in (await session.execute(UPCOMING, asked)).all():
        charges = [{"id": id_, "title": title, "amount": amount} for id_, title, amount in row.charges[:LISTED]]
        data = {"due_on": due_on.isoformat(), "total": money_string(row.total), "charges": charges}
        inputs = money_of(row) | {"as_of": as_of.isoformat(), "rules": RULES, "charges": len(row.charges)}
        looked.hits.append(Hit(row.id, "upcoming", 0, due_on.isoformat(), as_of, data, inputs))
    return looked
