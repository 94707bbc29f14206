"""Who is to be told, in one slice: the rules meet what each account has been told before. Nothing is written but temporary tables.

exhaustion  the stage is the smallest number of warning days that is reached; told when it is below the lowest one of this episode
threshold   told when the balance is at or below it, once an episode; covered where this very day's exhaustion is told, the more serious of the two, unless its
            subscriber has refused that one
upcoming    told once for each due day

`count` walks through all accounts once and says how many are to be told, and who; `find` leaves those with their words in the table `found`, for `tell` or
a dry run.

Some have days of warning of their own. A slice is asked first whether anybody has (an index of those alone): where nobody has, the operator's days are
parameters as ever; where somebody has, the statements named `..._OWN` look at each account's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.forecasts.brake import SHARE
from app.forecasts.rules import COUNTS, RULES, RUNS_OUT_SQL, THESE, Span, These, period_end, whose

TYPES = {"exhaustion": "balance.exhausting", "threshold": "balance.threshold_reached", "upcoming": "charges.upcoming"}
LISTED = 100  # charges that a hit lists
UPCOMING_DAYS = 3  # unless the operator says otherwise

OF_THEM = "«a.id» AND a.status = 'active' AND (a.balance_as_of IS NULL OR a.balance_as_of >= :fresh)"
OF_THESE = re.sub("«a.id»", THESE.format(id="a.id"), OF_THEM)
# In one walk: how many there are, and who stands out: who could run out at all by an upper bound of the charges to come, ignoring start, end and what is
# posted (most accounts leave here), or is low.
_COUNT = """{before}
SELECT count(*) FILTER (WHERE a.status = 'active') AS active, count(*) FILTER (WHERE a.status = 'suspended') AS frozen,
       count(*) FILTER (WHERE a.status = 'active' AND a.balance_as_of < :fresh) AS stale,
       array_agg(a.id) FILTER (WHERE a.status = 'active' AND (a.balance_as_of IS NULL OR a.balance_as_of >= :fresh) AND {stands_out}) AS ids
FROM account a {beside} WHERE «a.id»
"""
_CHARGED = """
WITH calendar AS MATERIALIZED (SELECT key, count(*) AS times FROM charge_calendar(CAST(:as_of AS date), CAST(:upto AS date)) GROUP BY key), charged AS (
    SELECT c.account_id, sum(c.amount * k.times) AS total FROM planned_charge c JOIN calendar k ON k.key = c.calendar_key WHERE «c.account_id» GROUP BY c.account_id
)"""
_RUNS_OUT_AT_MOST = "a.balance + a.credit_limit < coalesce(greatest(d.total, 0), 0)"
COUNT = {
    "exhaustion": whose(_COUNT.format(before=_CHARGED, beside="LEFT JOIN charged d ON d.account_id = a.id", stands_out=_RUNS_OUT_AT_MOST)),
    "threshold": whose(_COUNT.format(before="", beside="", stands_out="a.balance <= a.warned_at")),
    "upcoming": whose(_COUNT.format(before="", beside="", stands_out="false")),
}
# The longest of their own days of warning, and all days on which charges to come are announced to somebody else than others.
OWN_DAYS = whose("""
SELECT max(d) AS horizon, array_agg(DISTINCT a.upcoming_days) FILTER (WHERE a.upcoming_days IS NOT NULL) AS upcoming
FROM account a LEFT JOIN LATERAL unnest(a.warning_days) AS d ON true WHERE «a.id» AND (a.warning_days IS NOT NULL OR a.upcoming_days IS NOT NULL)
""")
MEMORY = sa.text("SET LOCAL work_mem = '32MB'")
# Of a slice that is newer than the statistics the planner expects one row, and might walk through all its charges for each of its accounts, or each day.
WITHOUT_LOOPS, WITH_LOOPS = (sa.text(f"SET LOCAL enable_nestloop = {switch}") for switch in ("off", "on"))

# Who runs out within the warning days, and the stage: new when nothing or a higher one has been told in this episode.
_RUNNING_OUT = f"""
SELECT o.id, o.exhausts_on, o.shortfall, s.stage, CASE WHEN e.is_open THEN e.number ELSE coalesce(e.number, 0) + 1 END AS episode,
    e.is_open IS NOT TRUE OR s.stage < e.stage AS is_new
FROM ({RUNS_OUT_SQL}) o {{accounts}}
CROSS JOIN LATERAL (SELECT min(days) AS stage FROM unnest({{days}}) AS days WHERE o.exhausts_on - CAST(:as_of AS date) <= days) s
LEFT JOIN forecast_episode e ON e.account_id = o.id AND e.kind = 'exhaustion' AND e.account_id = ANY(CAST(:ids AS uuid[]))
WHERE s.stage IS NOT NULL
"""
# By the operator's days, and by the account's own where it has any.
_RUNNING_OUT_BY = (
    _RUNNING_OUT.format(accounts="", days="CAST(:warning_days AS int[])"),
    _RUNNING_OUT.format(
        accounts="JOIN account a ON a.id = o.id AND a.id = ANY(CAST(:ids AS uuid[]))",
        days="coalesce(CAST(a.warning_days AS int[]), CAST(:warning_days AS int[]))",
    ),
)
COUNT_RUNNING_OUT, COUNT_RUNNING_OUT_OWN = (
    sa.text(f"SELECT count(*) FILTER (WHERE is_new) AS told, 0 AS covered, array_agg(id) AS candidates FROM ({one}) r") for one in _RUNNING_OUT_BY
)
RUNNING_OUT, RUNNING_OUT_OWN = (sa.text(f"CREATE TEMP TABLE running_out ON COMMIT DROP AS {one}") for one in _RUNNING_OUT_BY)
AFRESH = sa.text("DROP TABLE IF EXISTS pg_temp.running_out")

_LOW = f"""
FROM account a LEFT JOIN forecast_episode e ON e.account_id = a.id AND e.kind = 'threshold' LEFT JOIN LATERAL (
    SELECT true AS covered FROM forecast_hit h WHERE h.account_id = a.id AND h.kind = 'exhaustion' AND h.as_of = :as_of AND NOT EXISTS (
        SELECT FROM account_preference p WHERE p.account_id = a.id AND (
            p.document #> '{{types,balance.exhausting,enabled}}' = 'false'
            OR p.document #> '{{types,balance.exhausting,channels}}' @> '{{"sms": false, "email": false}}'
        )
    ) LIMIT 1
) h ON true
WHERE {OF_THESE} AND a.balance <= a.warned_at AND e.is_open IS NOT TRUE
"""
COUNT_LOW = sa.text(f"SELECT count(*) FILTER (WHERE h.covered IS NULL) AS told, count(h.covered) AS covered, array_agg(a.id) AS candidates {_LOW}")
_ANNOUNCED = f"""
FROM planned_charge c JOIN charge_calendar(CAST(:due_on AS date), CAST(:due_on AS date)) k ON k.key = c.calendar_key
WHERE «c.account_id» AND c.announce AND (c.kind <> 'daily' OR :daily) AND {COUNTS}
GROUP BY c.account_id HAVING sum(c.amount) > 0
"""
_ANNOUNCED_OWN = f"""
FROM planned_charge c JOIN account o ON o.id = c.account_id JOIN (
    SELECT d.days, k.key, k.due_on FROM unnest(CAST(:all_days AS int[])) AS d(days)
    CROSS JOIN LATERAL charge_calendar(CAST(:as_of AS date) + d.days, CAST(:as_of AS date) + d.days) k
) k ON k.key = c.calendar_key AND k.days = coalesce(o.upcoming_days, CAST(:days AS int))
WHERE «c.account_id» AND c.announce AND (c.kind <> 'daily' OR :daily) AND {COUNTS}
GROUP BY c.account_id, k.due_on HAVING sum(c.amount) > 0
"""
_UNTOLD = f"{OF_THEM} AND NOT EXISTS (SELECT FROM forecast_hit h WHERE h.account_id = a.id AND h.kind = 'upcoming' AND h.episode = 0 AND h.mark = {{mark}})"
_COUNT_UPCOMING = """
SELECT count(*) AS told, 0 AS covered, array_agg(a.id) AS candidates FROM (SELECT {what} {announced}) d JOIN account a ON a.id = d.account_id WHERE {untold}
"""
COUNT_UPCOMING = whose(_COUNT_UPCOMING.format(what="c.account_id", announced=_ANNOUNCED, untold=_UNTOLD.format(mark=":mark")))
_OWN_MARK = "CAST(d.due_on AS text)"
COUNT_UPCOMING_OWN = whose(_COUNT_UPCOMING.format(what="c.account_id, k.due_on", announced=_ANNOUNCED_OWN, untold=_UNTOLD.format(mark=_OWN_MARK)))

_FOUND = """
CREATE TEMP TABLE found ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY a.id) AS n, a.id AS account_id, CAST(:kind AS text) AS kind, CAST(:type AS text) AS type, CAST(:as_of AS date) AS as_of,
    {episode} AS episode, {mark} AS mark, {stage} AS stage, {covered} AS covered, jsonb_build_object({data}) AS data,
    jsonb_build_object(
        'balance', CAST(a.balance AS text), 'balance_as_of', (to_jsonb(a.balance_as_of AT TIME ZONE 'UTC') #>> '{{}}') || 'Z',
        'credit_limit', CAST(a.credit_limit AS text), 'as_of', CAST(:as_of AS date), 'rules', CAST(:rules AS int), {inputs}
    ) AS inputs
"""
FOUND_EXHAUSTION = sa.text(
    _FOUND.format(
        episode="r.episode",
        mark="CAST(r.stage AS text)",
        stage="r.stage",
        covered="false",
        data="""'days_left', r.exhausts_on - CAST(:as_of AS date), 'exhausts_on', r.exhausts_on, 'shortfall', CAST(r.shortfall AS text),
        'recommended_payment', CAST(greatest(coalesce(d.total, 0) - a.balance - a.credit_limit, r.shortfall) AS text), 'charges', coalesce(d.charges, '[]')""",
        inputs="'charges', coalesce(d.many, 0), 'covers_until', CAST(:ends AS date)",
    )
    + f"""
FROM running_out r JOIN account a ON a.id = r.id LEFT JOIN (
    SELECT r.id, sum(c.amount) FILTER (WHERE k.due_on <= CAST(:ends AS date)) AS total, count(*) FILTER (WHERE k.due_on <= r.exhausts_on) AS many,
        to_jsonb((array_agg(
            jsonb_build_object('id', c.external_id, 'title', c.title, 'amount', CAST(c.amount AS text), 'due_on', k.due_on) ORDER BY k.due_on, c.external_id
        ) FILTER (WHERE k.due_on <= r.exhausts_on))[1\\:{LISTED}]) AS charges
    FROM running_out r JOIN planned_charge c ON c.account_id = r.id
    JOIN charge_calendar(CAST(:as_of AS date), greatest(CAST(:ends AS date), CAST(:upto AS date))) k ON k.key = c.calendar_key
    WHERE r.is_new AND {COUNTS} GROUP BY r.id
) d ON d.id = r.id
WHERE r.is_new
"""
)
FOUND_THRESHOLD = sa.text(
    _FOUND.format(
        episode="coalesce(e.number, 0) + 1",
        mark="'low'",
        stage="CAST(NULL AS int)",
        covered="h.covered IS NOT NULL",
        data="'balance', CAST(a.balance AS text), 'threshold', CAST(a.warned_at AS text)",
        inputs="'threshold', CAST(a.warned_at AS text)",
    )
    + _LOW
)


def _found_upcoming(what: str, announced: str, due_on: str, mark: str) -> sa.TextClause:
    return whose(
        _FOUND.format(
            episode="0",
            mark=mark,
            stage="CAST(NULL AS int)",
            covered="false",
            data=f"'due_on', {due_on}, 'total', CAST(d.total AS text), 'charges', d.charges",
            inputs="'charges', d.many",
        )
        + f"""
FROM (
    SELECT {what}, sum(c.amount) AS total, count(*) AS many, to_jsonb((array_agg(
        jsonb_build_object('id', c.external_id, 'title', c.title, 'amount', CAST(c.amount AS text)) ORDER BY c.external_id
    ))[1\\:{LISTED}]) AS charges {announced}
) d JOIN account a ON a.id = d.account_id WHERE {_UNTOLD.format(mark=mark)}
"""
    )[THESE]


FOUND_UPCOMING = _found_upcoming("c.account_id", _ANNOUNCED, "CAST(:due_on AS date)", "CAST(:mark AS text)")
FOUND_UPCOMING_OWN = _found_upcoming("c.account_id, k.due_on", _ANNOUNCED_OWN, "d.due_on", _OWN_MARK)
FOUND = sa.text("SELECT account_id, kind, episode, mark, as_of, data, inputs, stage, covered FROM found WHERE n > :after AND n <= :upto ORDER BY n")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator has set."""

    warning_days: tuple[int, ...] = (7, 3, 1)
    upcoming_days: int = UPCOMING_DAYS
    upcoming_daily: bool = False
    stale_after: timedelta | None = None
    at_once_share: float = SHARE  # of all accounts, told of their threshold in a day at the event itself

    @property
    def horizon(self) -> int:
        return max(self.warning_days)

    def of(self, account: Any) -> "Wanted":
        """With the account's own days where it has any (`warning_days`, `upcoming_days` of its row)."""
        if account.warning_days is None and account.upcoming_days is None:
            return self
        days, upcoming = account.warning_days, account.upcoming_days
        return replace(
            self, warning_days=self.warning_days if days is None else tuple(days), upcoming_days=self.upcoming_days if upcoming is None else upcoming
        )

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
        settings.get(TYPES["threshold"], {}).get("at_once_share", SHARE),
    )


@dataclass(frozen=True, slots=True)
class Own:
    """The days of their own that the accounts of a slice have, beside the operator's. `horizon` 0: none has any of warning."""

    horizon: int = 0
    upcoming: tuple[int, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Counted:
    """What a slice showed: how many accounts, how many of them to be told, and whom to look at again for it."""

    accounts: int
    frozen: int
    stale: int
    told: int
    covered: int
    candidates: Sequence[UUID]


async def count(session: Executor, kind: str, them: Span | These, as_of: date, wanted: Wanted, moment: datetime) -> Counted:
    """How many are to be told in a slice. The session's snapshot is what it is counted from."""
    own = await _own(session, kind, them)
    values = them.values | _asked(kind, as_of, wanted, own, moment)
    await session.execute(MEMORY)
    await session.execute(WITHOUT_LOOPS)
    every = (await session.execute(COUNT[kind][them.way], values)).one()
    if kind == "exhaustion":
        found = (await session.execute(COUNT_RUNNING_OUT_OWN if own.horizon else COUNT_RUNNING_OUT, values | {"ids": every.ids or []})).one()
    await session.execute(WITH_LOOPS)
    if kind == "threshold":
        found = (await session.execute(COUNT_LOW, values | {"ids": every.ids or []})).one()
    elif kind == "upcoming":
        found = (await session.execute((COUNT_UPCOMING_OWN if own.upcoming else COUNT_UPCOMING)[them.way], values)).one()
    return Counted(every.active, every.frozen, every.stale, found.told, found.covered, found.candidates or [])


async def find(session: Executor, kind: str, candidates: Sequence[UUID], as_of: date, wanted: Wanted, moment: datetime) -> None:
    """Leave those of the candidates who are to be told in the temporary table `found`; of exhaustion, all who run out in `running_out`."""
    them = These(candidates)
    own = await _own(session, kind, them)
    values = them.values | _asked(kind, as_of, wanted, own, moment)
    if kind == "exhaustion":
        await session.execute(AFRESH)
        await session.execute(WITHOUT_LOOPS)
        await session.execute(RUNNING_OUT_OWN if own.horizon else RUNNING_OUT, values)
        await session.execute(WITH_LOOPS)
        await session.execute(FOUND_EXHAUSTION, values)
    elif kind == "threshold":
        await session.execute(FOUND_THRESHOLD, values)
    else:
        await session.execute(FOUND_UPCOMING_OWN if own.upcoming else FOUND_UPCOMING, values)


async def hits_found(session: Executor, after: int = 0, many: int = 1_000_000) -> list[Hit]:
    """What `find` has left, so many behind so many."""
    return [Hit(*row) for row in (await session.execute(FOUND, {"after": after, "upto": after + many})).all()]


async def _own(session: Executor, kind: str, them: Span | These) -> Own:
    if kind == "threshold":
        return Own()
    found = (await session.execute(OWN_DAYS[them.way], them.values)).one()
    return Own(found.horizon or 0, tuple(found.upcoming or ()))


def _asked(kind: str, as_of: date, wanted: Wanted, own: Own, moment: datetime) -> dict[str, Any]:
    due_on = as_of + timedelta(days=wanted.upcoming_days)
    asked: dict[str, Any] = {"as_of": as_of, "fresh": wanted.fresh(moment), "kind": kind, "type": TYPES[kind], "rules": RULES}
    if kind == "exhaustion":
        asked |= {"upto": as_of + timedelta(days=max(wanted.horizon, own.horizon)), "ends": period_end(as_of), "warning_days": list(wanted.warning_days)}
    elif kind == "upcoming":
        asked |= {"daily": wanted.upcoming_daily}
        every = {"days": wanted.upcoming_days, "all_days": sorted({wanted.upcoming_days, *own.upcoming})}
        asked |= every if own.upcoming else {"due_on": due_on, "mark": due_on.isoformat()}
    return asked
