"""Addresses that a mail server refuses for good while it is still talking to us: they are suppressed as when the letter comes back later.

Many servers know their mailboxes and answer RCPT itself with `550 5.1.1`; no bounce is ever written then. What counts as a dead address, `bounce_kinds` says
for both. It is written in the transaction that settles the letters, so that a letter is never `failed` without it; again it changes nothing.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now
from app.sending.claim import Claimed
from app.sending.outcome import Refused
from app.tracking.bounce_kinds import Verdict, is_dead
from app.tracking.bounces import suppress

# Erased meanwhile: nothing of the account is written down anew.
THERE = sa.text("SELECT id FROM message WHERE id = ANY(CAST(:ids AS uuid[])) AND address <> ''")


async def suppress_dead(session: AsyncSession, refused: Sequence[tuple[Claimed, Refused]]) -> int:
    """Suppress the addresses that are dead by these refusals, and withdraw what waits for them. How many addresses there were."""
    verdicts = [(claimed, verdict) for claimed, outcome in refused if (verdict := verdict_of(outcome)) is not None]
    if not verdicts:
        return 0
    there = set((await session.execute(THERE, {"ids": [claimed.id for claimed, _ in verdicts]})).scalars())
    dead = {claimed.address: verdict for claimed, verdict in verdicts if claimed.id in there}
    moment = now()
    for address in sorted(dead):  # in one order: two who do this at once wait for each other
        await suppress(session, address, dead[address], "mail", moment)
    return len(dead)


def verdict_of(outcome: Refused) -> Verdict | None:
    """What the answer (`550 5.1.1`, and the server's own words) says of the address; nothing where it is another matter."""
    code, _, status = outcome.code.partition(" ")
    if not code.startswith("5") or not is_dead(status, outcome.detail):
        return None
    return Verdict("hard", outcome.reason, status or code, outcome.detail)
