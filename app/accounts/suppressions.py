"""Addresses that are not written to: who put them there, for what reason, until when; and what that stops.

A suppression is of an address, not of an account: it stays when the account is erased, and it holds for whoever has that address next.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Executor

# A letter came back, because the mailbox is not there; and its reader has called it junk.
HARD_BOUNCE, COMPLAINT = "hard_bounce", "complaint"
# A STOP by SMS: the one reason that its sender takes back himself, with START.
STOP_WORD = "stop_word"
# The address itself does not work: nothing at all goes there. Every other reason is somebody's wish, and mandatory types go all the same.
DEAD = (HARD_BOUNCE, "invalid_address")

DETAIL = 500  # characters

_IN_FORCE = "(until IS NULL OR until > now())"
_DEAD = ", ".join(f"'{reason}'" for reason in DEAD)


def barred(addresses: str) -> str:
    """SQL of (channel, address, dead) for those of the addresses (a query) that are suppressed; `dead`: nothing at all may go there.

    By a list of keys: a join would read the whole table as long as it has no statistics."""
    return f"""SELECT channel, address, bool_or(reason IN ({_DEAD})) AS dead FROM suppression
    WHERE address = ANY(ARRAY({addresses})) AND {_IN_FORCE} GROUP BY channel, address"""


ONE = sa.text(f"SELECT bool_or(reason IN ({_DEAD})) FROM suppression WHERE channel = :channel AND address = :address AND {_IN_FORCE}")
# One that had run out is a new one.
PUT = sa.text("""
INSERT INTO suppression AS s (channel, address, reason, detail, by, at, until) VALUES (:channel, :address, :reason, :detail, :by, :at, :until)
ON CONFLICT (address, channel, reason) DO UPDATE SET detail = excluded.detail, until = excluded.until,
    by = CASE WHEN s.until <= now() THEN excluded.by ELSE s.by END, at = CASE WHEN s.until <= now() THEN excluded.at ELSE s.at END
RETURNING channel, address, reason, detail, by, at, until, at = :at AS is_new
""")
# For so long at least: what somebody has put for longer, or for good, stays so.
LEAST = sa.text("""
INSERT INTO suppression AS s (channel, address, reason, detail, by, at, until) VALUES (:channel, :address, :reason, :detail, :by, :at, :until)
ON CONFLICT (address, channel, reason) DO UPDATE SET
    until = CASE WHEN s.until IS NULL OR excluded.until IS NULL THEN NULL ELSE GREATEST(s.until, excluded.until) END,
    detail = CASE WHEN s.until <= :at THEN excluded.detail ELSE s.detail END,
    by = CASE WHEN s.until <= :at THEN excluded.by ELSE s.by END, at = CASE WHEN s.until <= :at THEN excluded.at ELSE s.at END
RETURNING at = :at AND by = :by AS is_new
""")
# The lock is the order in which two STOPs of one flush, or of two, are written; a STOP that stands is not touched.
STOP = sa.text("""
INSERT INTO suppression AS s (channel, address, reason, detail, by, at)
SELECT 'sms', given.address, :reason, given.word, 'subscriber', :at FROM unnest(CAST(:addresses AS text[]), CAST(:words AS text[])) AS given(address, word)
ON CONFLICT (address, channel, reason) DO UPDATE SET detail = excluded.detail, by = excluded.by, at = excluded.at, until = NULL WHERE s.until IS NOT NULL
""")
START = sa.text("DELETE FROM suppression WHERE channel = 'sms' AND address = ANY(CAST(:addresses AS text[])) AND reason = :reason")
LIFT = sa.text("""
DELETE FROM suppression WHERE channel = :channel AND address = :address AND (CAST(:reason AS text) IS NULL OR reason = :reason) RETURNING reason
""")
LATELY = sa.text("SELECT address FROM suppression WHERE at > now() - interval '3 minutes' ORDER BY at DESC LIMIT 1000")
SHOWN = f"SELECT channel, address, reason, detail, by, at, until FROM suppression WHERE {_IN_FORCE}"


async def is_barred(session: Executor, channel: str, address: str, *, mandatory: bool) -> bool:
    """Whether a message of a (mandatory) type may not go to this address."""
    dead = (await session.execute(ONE, {"channel": channel, "address": address})).scalar()
    return dead is not None and (dead or not mandatory)


async def put(session: AsyncSession, values: dict[str, Any]) -> tuple[Any, bool]:
    """The suppression as it stands now, and whether it is a new one. The same again changes its detail and its end."""
    row = (await session.execute(PUT, values)).one()
    return row, row.is_new


async def put_for_mail(session: Executor, address: str, reason: str, detail: str, by: str, moment: datetime, until: datetime | None) -> bool:
    """This e-mail address is not written to until then at least (none: until it is lifted). Whether that is new."""
    values = {"channel": "email", "address": address, "reason": reason, "detail": detail[:DETAIL], "by": by, "at": moment, "until": until}
    return bool((await session.execute(LEAST, values)).scalar_one())


async def stop(session: Executor, words: dict[str, str], moment: datetime) -> None:
    """These numbers (with the word that each of them sent) are not written to by SMS any more. Again it changes nothing."""
    if words:
        addresses = sorted(words)
        await session.execute(STOP, {"addresses": addresses, "words": [words[address] for address in addresses], "reason": STOP_WORD, "at": moment})


async def start(session: Executor, addresses: list[str]) -> None:
    """What the subscribers' own STOP had suppressed is free again; what anybody else had is not."""
    if addresses:
        await session.execute(START, {"addresses": sorted(addresses), "reason": STOP_WORD})


async def lately_suppressed(session: Executor) -> list[str]:
    """The addresses that were suppressed within the last minutes: somebody may not have known it yet."""
    return list((await session.execute(LATELY)).scalars())


async def lift(session: AsyncSession, channel: str, address: str, reason: str | None) -> list[str]:
    """Take the suppressions of an address back, all or one. The reasons that stood there."""
    return list((await session.execute(LIFT, {"channel": channel, "address": address, "reason": reason})).scalars())


async def in_force(session: AsyncSession, limit: int, after: tuple[str, str, str] | None, channel: str | None, address: str | None) -> list[Any]:
    """The suppressions that hold now, by address, channel and reason."""
    conditions, values = [SHOWN], dict[str, Any](limit=limit)
    for name, value in (("channel", channel), ("address", address)):
        if value is not None:
            conditions.append(f"{name} = :{name}")
            values[name] = value
    if after is not None:
        conditions.append("(address, channel, reason) > (:after_address, :after_channel, :after_reason)")
        values |= dict(zip(("after_address", "after_channel", "after_reason"), after, strict=True))
    return list((await session.execute(sa.text(f"{' AND '.join(conditions)} ORDER BY address, channel, reason LIMIT :limit"), values)).all())
