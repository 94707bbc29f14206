"""What a new balance changes at once: a threshold that was crossed, a spell that a payment has ended.

The planner hands over the accounts that it has locked, with the balances that their events told, oldest first: a lift and a fall between two looks both
count. The daily scan only catches what was missed here.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.core.money import money_string
from app.forecasts.brake import room
from app.forecasts.find import TYPES, Hit, Wanted
from app.forecasts.rules import RULES, Due, RunsOut, due_of, period_end, runs_out_of, stage_of
from app.forecasts.tell import EPISODES, tell_hits
from app.forecasts.words import exhaustion_words, money_of

# As the planner's query reads them beside the account: "exhaustion:3:1" is the third, open, stage 1 told; "threshold:2:-" the second, closed.
EPISODES_OF = "ARRAY(SELECT kind || ':' || number || ':' || CASE WHEN is_open THEN CAST(coalesce(stage, 0) AS text) ELSE '-' END FROM forecast_episode WHERE account_id = a.id)"
WARNED = sa.text("SELECT account_id, episode, as_of FROM forecast_hit WHERE account_id = ANY(CAST(:ids AS uuid[])) AND kind = 'exhaustion'")


@dataclass(slots=True)
class Spell:
    """How far an account has been told of one kind. `began` is the number of the spell that was open at the beginning of this look; 0: none was."""

    number: int = 0
    is_open: bool = False
    stage: int | None = None
    changed: bool = False
    began: int = 0

    def close(self) -> None:
        if self.is_open:
            self.is_open, self.stage, self.changed = False, None, True

    def open(self, stage: int | None = None) -> None:
        self.number, self.is_open, self.stage, self.changed = self.number + 1, True, stage, True


@dataclass(slots=True)
class Watched:
    """A locked account, its balances as its events told them, and the episodes it had before. `today` is the day in its zone."""

    account: Any
    balances: list[Decimal]
    episodes: Sequence[str]
    today: date
    spells: dict[str, Spell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spells = {"exhaustion": Spell(), "threshold": Spell()}
        for written in self.episodes:
            kind, number, stage = written.split(":")
            is_open = stage != "-"
            self.spells[kind] = Spell(int(number), is_open, int(stage) if is_open else None, began=int(number) if is_open else 0)


@dataclass(slots=True)
class Seen:
    """`resolved`: account -> the types whose reminders are not true any more. `ended`: account -> kind and number of the spells that it has come out of,
    where it is in none any more."""

    resolved: dict[UUID, list[str]] = field(default_factory=dict)
    ended: dict[UUID, list[tuple[str, int]]] = field(default_factory=dict)
    told: int = 0


Ending = tuple[int, RunsOut]  # the stage that applies, and when the money ends


def concerns(account: Any, episodes: Sequence[str]) -> bool:
    """Whether a balance can change anything at all; most accounts leave here."""
    return account.status == "active" and (account.threshold is not None or in_spell(episodes))


def in_spell(episodes: Sequence[str]) -> bool:
    """Whether one of them is open."""
    return any(not written.endswith(":-") for written in episodes)


async def watch(session: Executor, accounts: Sequence[Watched], wanted: Wanted, moment: datetime, *, warns: Callable[[Any], bool] = lambda _: True) -> Seen:
    """Tell of thresholds that were crossed, end the episodes that balances have ended. For accounts that `concerns` lets through.

    `warns` is whether an account is told when its money ends: who would not be, is told of his threshold in any case."""
    crossed = [item for item in accounts if _walk_threshold(item)]
    left = crossed[await room(session, wanted.at_once_share, moment) :] if crossed else []
    for item in left:
        item.spells["threshold"].close()
    braked = {item.account.id for item in left}
    crossed = [item for item in crossed if item.account.id not in braked]
    endings = await _walk_exhaustion(session, accounts, crossed, wanted)
    hits = await _hits(session, crossed, {item.account.id: endings.get(item.account.id) for item in crossed if warns(item.account)})
    seen = Seen(told=(await tell_hits(session, hits, moment)).told)
    hit = {(one.account_id, one.kind) for one in hits}
    changed: list[tuple[Any, ...]] = []
    for item in accounts:
        account_id: UUID = item.account.id
        for kind, spell in item.spells.items():
            if spell.changed and (account_id, kind) not in hit:
                changed.append((account_id, kind, spell.number, spell.is_open, spell.stage, moment))
                if not spell.is_open:
                    seen.resolved.setdefault(account_id, []).append(TYPES[kind])
        ended = [(kind, spell.began) for kind, spell in item.spells.items() if spell.began and not spell.is_open]
        if ended and account_id not in braked and endings.get(account_id) is None and not any(spell.is_open for spell in item.spells.values()):
            seen.ended[account_id] = ended
    await EPISODES.run(session, changed)
    return seen


def _walk_threshold(item: Watched) -> bool:
    """Through all balances: armed again above the threshold, crossed at or below it. Whether the last one has just been crossed for the first time."""
    spell, limit = item.spells["threshold"], item.account.threshold
    before = spell.number
    for balance in item.balances:
        if limit is None or balance > limit:
            spell.close()
        elif not spell.is_open:
            spell.open()
    return spell.is_open and spell.number > before


async def _walk_exhaustion(session: Executor, accounts: Sequence[Watched], crossed: Sequence[Watched], wanted: Wanted) -> dict[UUID, Ending | None]:
    """The same for the money's end: a balance with which no warning applies closes the spell. What applies with the last balance of each that was asked for."""
    asked = [(item, balance) for item in accounts if item.spells["exhaustion"].is_open for balance in item.balances]
    asked += [(item, item.balances[-1]) for item in crossed if not item.spells["exhaustion"].is_open]
    found: dict[UUID, Ending | None] = {}
    for (item, _), out in zip(asked, await _runs_out(session, asked, wanted), strict=True):
        stage = stage_of((out.exhausts_on - item.today).days, wanted.of(item.account).warning_days) if out else None
        found[item.account.id] = (stage, out) if stage is not None and out is not None else None
        if stage is None:
            item.spells["exhaustion"].close()
    return found


async def _runs_out(session: Executor, asked: Sequence[tuple[Watched, Decimal]], wanted: Wanted) -> list[RunsOut | None]:
    by_day: dict[date, list[int]] = defaultdict(list)
    for n, (item, _) in enumerate(asked):
        by_day[item.today].append(n)
    found: list[RunsOut | None] = [None] * len(asked)
    for day, places in by_day.items():
        those = [(asked[n][0].account.id, asked[n][1] + asked[n][0].account.credit_limit) for n in places]
        horizon = max(wanted.of(asked[n][0].account).horizon for n in places)
        for ref, out in (await runs_out_of(session, those, day, horizon)).items():
            found[places[ref]] = out
    return found


async def _hits(session: Executor, crossed: Sequence[Watched], endings: dict[UUID, Ending | None]) -> list[Hit]:
    """Of each that has crossed its threshold. Where the money ends as well, that alone is told, unless it was told before; on one day, once."""
    if not crossed:
        return []
    serious = [(item, found) for item in crossed if (found := endings.get(item.account.id)) is not None and _is_news(item.spells["exhaustion"], found[0])]
    hits = await _exhaustion_hits(session, serious)
    news = {hit.account_id for hit in hits}
    warned = {tuple(row) for row in await session.execute(WARNED, {"ids": [item.account.id for item in crossed if item.spells["exhaustion"].is_open]})}
    for item in crossed:
        account_id: UUID = item.account.id
        covered = account_id in news or (account_id in endings and (account_id, item.spells["exhaustion"].number, item.today) in warned)
        hits.append(_threshold_hit(item, covered=covered))
    return hits


def _is_news(spell: Spell, stage: int) -> bool:
    return not spell.is_open or (spell.stage or 0) > stage


@dataclass(frozen=True, slots=True)
class _Money:
    """An account's money with the day that it runs out on."""

    balance: Decimal
    balance_as_of: datetime | None
    credit_limit: Decimal
    exhausts_on: date
    shortfall: Decimal


async def _exhaustion_hits(session: Executor, told: Sequence[tuple[Watched, Ending]]) -> list[Hit]:
    by_day: dict[date, list[tuple[Watched, Ending]]] = defaultdict(list)
    for item, ending in told:
        by_day[item.today].append((item, ending))
    hits: list[Hit] = []
    for day, those in by_day.items():
        upto = max([period_end(day), *(out.exhausts_on for _, (_, out) in those)])
        due = await due_of(session, [item.account.id for item, _ in those], day, upto)
        hits += [_exhaustion_hit(item, stage, out, due.get(item.account.id, [])) for item, (stage, out) in those]
    return hits


def _exhaustion_hit(item: Watched, stage: int, out: RunsOut, due: Sequence[Due]) -> Hit:
    account, spell = item.account, item.spells["exhaustion"]
    row = _Money(item.balances[-1], account.balance_as_of, account.credit_limit, out.exhausts_on, out.shortfall)
    data, inputs = exhaustion_words(item.today, row, due)
    episode = spell.number if spell.is_open else spell.number + 1
    return Hit(account.id, "exhaustion", episode, str(stage), item.today, data, inputs, stage)


def _threshold_hit(item: Watched, *, covered: bool) -> Hit:
    account, spell = item.account, item.spells["threshold"]
    data = {"balance": money_string(item.balances[-1]), "threshold": money_string(account.threshold)}
    inputs = money_of(account) | data | {"as_of": item.today.isoformat(), "rules": RULES}
    return Hit(account.id, "threshold", spell.number, "low", item.today, data, inputs, covered=covered)
