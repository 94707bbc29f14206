"""What a new balance changes at once: a threshold that was crossed, an episode that a payment has ended.

The planner hands over the accounts that it has locked, with the balances that their events told, oldest first: a lift and a fall between two looks both
count. The daily scan only catches what was missed here.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.core.db import Executor
from app.core.money import money_string
from app.forecasts.find import TYPES, Hit, Wanted, exhaustion_words, money_of
from app.forecasts.rules import RULES, RunsOut, due_of, period_end, runs_out_of, stage_of
from app.forecasts.tell import EPISODES, tell

# As the planner's query reads them beside the account: "exhaustion:3:1" is the third, open, stage 1 told; "threshold:2:-" the second, closed.
EPISODES_OF = "ARRAY(SELECT kind || ':' || number || ':' || CASE WHEN is_open THEN CAST(coalesce(stage, 0) AS text) ELSE '-' END FROM forecast_episode WHERE account_id = a.id)"


@dataclass(slots=True)
class Spell:
    """How far an account has been told of one kind."""

    number: int = 0
    is_open: bool = False
    stage: int | None = None
    changed: bool = False

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
            self.spells[kind] = Spell(int(number), stage != "-", int(stage) if stage != "-" else None)


@dataclass(slots=True)
class Seen:
    """`resolved`: account -> the types whose reminders are not true any more."""

    resolved: dict[UUID, list[str]] = field(default_factory=dict)
    told: int = 0


def concerns(account: Any, episodes: Sequence[str]) -> bool:
    """Whether a balance can change anything at all; most accounts leave here."""
    return account.status == "active" and (account.threshold is not None or any(not written.endswith(":-") for written in episodes))


async def watch(session: Executor, accounts: Sequence[Watched], wanted: Wanted, moment: datetime) -> Seen:
    """Tell of thresholds that were crossed, end the episodes that balances have ended. For accounts that `concerns` lets through."""
    seen, hits, changed = Seen(), list[Hit](), list[tuple[Any, ...]]()
    crossed = [item for item in accounts if _walk_threshold(item)]
    asked = [(item, balance) for item in accounts if item.spells["exhaustion"].is_open for balance in item.balances]
    asked += [(item, item.balances[-1]) for item in crossed if not item.spells["exhaustion"].is_open]
    out = await _runs_out(session, asked, wanted)
    stages: dict[UUID, tuple[int, RunsOut] | None] = {}
    for (item, _), found in zip(asked, out, strict=True):
        spell, stage = item.spells["exhaustion"], stage_of((found.exhausts_on - item.today).days, wanted.warning_days) if found else None
        stages[item.account.id] = (stage, found) if stage is not None and found is not None else None
        if stage is None:
            spell.close()
    for item in crossed:
        serious = stages.get(item.account.id)
        spell = item.spells["exhaustion"]
        if serious is not None and (not spell.is_open or (spell.stage or 0) > serious[0]):
            hits.append(await _exhaustion_hit(session, item, *serious))
            hits.append(_threshold_hit(item, covered=True))
        else:
            hits.append(_threshold_hit(item, covered=False))
    told = await tell(session, hits, None, moment)
    seen.told = told.told
    hit = {(one.account_id, one.kind) for one in hits}
    for item in accounts:
        for kind, spell in item.spells.items():
            if spell.changed and (item.account.id, kind) not in hit:
                changed.append((item.account.id, kind, spell.number, spell.is_open, spell.stage, moment))
                if not spell.is_open:
                    seen.resolved.setdefault(item.account.id, []).append(TYPES[kind])
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


async def _runs_out(session: Executor, asked: Sequence[tuple[Watched, Decimal]], wanted: Wanted) -> list[RunsOut | None]:
    by_day: dict[date, list[int]] = defaultdict(list)
    for n, (item, _) in enumerate(asked):
        by_day[item.today].append(n)
    found: list[RunsOut | None] = [None] * len(asked)
    for day, places in by_day.items():
        those = [(asked[n][0].account.id, asked[n][1] + asked[n][0].account.credit_limit) for n in places]
        for ref, out in (await runs_out_of(session, those, day, wanted.horizon)).items():
            found[places[ref]] = out
    return found


@dataclass(frozen=True, slots=True)
class _Money:
    """An account's money with the day that it runs out on."""

    balance: Decimal
    balance_as_of: datetime | None
    credit_limit: Decimal
    exhausts_on: date
    shortfall: Decimal


async def _exhaustion_hit(session: Executor, item: Watched, stage: int, out: RunsOut) -> Hit:
    account, spell = item.account, item.spells["exhaustion"]
    due = await due_of(session, [account.id], item.today, max(period_end(item.today), out.exhausts_on))
    row = _Money(item.balances[-1], account.balance_as_of, account.credit_limit, out.exhausts_on, out.shortfall)
    data, inputs = exhaustion_words(item.today, row, due.get(account.id, []))
    episode = spell.number if spell.is_open else spell.number + 1
    return Hit(account.id, "exhaustion", episode, str(stage), item.today, data, inputs, stage)


def _threshold_hit(item: Watched, *, covered: bool) -> Hit:
    account, spell = item.account, item.spells["threshold"]
    data = {"balance": money_string(item.balances[-1]), "threshold": money_string(account.threshold)}
    inputs = money_of(account) | data | {"as_of": item.today.isoformat(), "rules": RULES}
    return Hit(account.id, "threshold", spell.number, "low", item.today, data, inputs, covered=covered)
