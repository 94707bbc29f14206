"""`balance.restored`: whoever has been told that his money ends, or is low, is told once that it is all right again."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.core.money import money_string
from app.forecasts.tell import EVENTS, SOURCE
from app.forecasts.truth import RESTORED
from app.notifications.states import State

# Which of these spells somebody has really been told of, and with which balance last. A reminder that was cancelled in time was told to nobody; where the
# more serious one was told in the place of a threshold's, that one counts.
HEARD = sa.text("""
SELECT h.account_id, h.kind, (array_agg(h.inputs ->> 'balance' ORDER BY h.id DESC))[1] AS balance
FROM unnest(CAST(:accounts AS uuid[]), CAST(:kinds AS text[]), CAST(:episodes AS int[])) AS g(account_id, kind, episode)
JOIN forecast_hit h ON h.account_id = g.account_id AND h.kind = g.kind AND h.episode = g.episode
WHERE EXISTS (
    SELECT FROM forecast_hit t JOIN message m ON m.account_id = t.account_id AND m.event_id = t.event_id LEFT JOIN outbox o ON o.message_id = m.id
    WHERE t.account_id = h.account_id AND (t.id = h.id OR (h.outcome = 'covered' AND t.kind = 'exhaustion' AND t.as_of = h.as_of))
      AND CASE WHEN o.message_id IS NULL THEN m.state = ANY(CAST(:went AS text[])) ELSE o.state = 'sending' OR o.resent END
) GROUP BY h.account_id, h.kind
""")
WENT = [State.ACCEPTED.value, State.DELIVERED.value, State.UNKNOWN.value]

Lifted = tuple[Any, list[tuple[str, int]], Decimal | None]  # the account, the spells that it has come out of, what was paid


async def tell_restored(session: AsyncSession, lifted: Sequence[Lifted], moment: datetime) -> int:
    """An event for each account that had been told and has more money now, however many spells it has come out of. How many that were.

    A spell ends once, in this transaction, with its account locked: nobody is told twice. Whether it is still so is looked at when the event is planned."""
    spells = [(account.id, kind, number) for account, ended, _ in lifted for kind, number in ended]
    accounts, kinds, episodes = (list(column) for column in zip(*spells, strict=True))
    values = {"accounts": accounts, "kinds": kinds, "episodes": episodes, "went": WENT}
    heard: dict[UUID, dict[str, str | None]] = {}
    for row in (await session.execute(HEARD, values)).all():
        heard.setdefault(row.account_id, {})[row.kind] = row.balance
    keys, events, waiting = list[tuple[Any, ...]](), list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for account, _, paid in lifted:
        told = heard.get(account.id)
        if not told or not (paid is not None or has_more(account.balance, told)):
            continue
        event_id = new_id()
        data = {"balance": money_string(account.balance), "was": "exhaustion" if "exhaustion" in told else "threshold"}
        data |= {"amount": money_string(paid)} if paid is not None else {}
        keys.append((SOURCE, str(event_id), event_id))
        events.append((event_id, SOURCE, str(event_id), RESTORED, account.id, moment, orjson.dumps(data).decode()))
        waiting.append((event_id, account.id))
    await EVENTS.run(session, keys, events, waiting)
    return len(events)


def has_more(balance: Decimal, told: dict[str, str | None]) -> bool:
    """Than when he was told. A spell also ends when a charge or a threshold is taken away: that has restored nobody's balance."""
    return any(before is not None and balance > Decimal(before) for before in told.values())
