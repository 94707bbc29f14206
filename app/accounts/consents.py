"""Consents: who allowed or refused what, when and how. Only ever added, and read by the operator who must prove them.

record_consents   what the holder of an address said of the address itself, on each account that has it
record_switches   what was switched for one account: a type, a channel, a contact, or everything
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from app.core.db import BulkInsert, Executor
from app.core.ids import new_id

Act = Literal["allowed", "refused"]
DETAIL = 500

HOLDERS = sa.text("SELECT address, account_id FROM contact WHERE channel = :channel AND address = ANY(CAST(:addresses AS text[])) ORDER BY account_id")
ADD = BulkInsert(
    "consent",
    id="uuid",
    account_id="uuid",
    type="text",
    channel="text",
    address="text",
    act="text",
    via="text",
    by="text",
    text_version="text",
    detail="text",
    at="timestamptz",
)


@dataclass(frozen=True, slots=True)
class Said:
    """What the holder of an address said: `words` are his own."""

    address: str
    act: Act
    words: str


@dataclass(frozen=True, slots=True)
class Switch:
    """What was allowed or refused: nothing in a field means all of them. `detail` is for whoever must prove it: how it was said."""

    act: Act
    type: str | None = None
    channel: str | None = None
    address: str | None = None
    detail: str = ""
    text_version: str | None = None


async def record_switches(session: Executor, account_id: UUID, switches: Sequence[Switch], *, via: str, by: str, moment: datetime) -> None:
    """One record for each. `via`: cabinet, api, link; `by`: `subscriber`, or who acted for him. Adds each time that it is called."""
    await ADD.run(session, [switch_row(account_id, one, via=via, by=by, moment=moment) for one in switches])


def switch_row(account_id: UUID, one: Switch, *, via: str, by: str, moment: datetime) -> tuple[Any, ...]:
    """In the order of ADD's columns."""
    return (new_id(), account_id, one.type, one.channel, one.address, one.act, via, by, one.text_version, one.detail[:DETAIL], moment)


async def record_consents(session: Executor, channel: str, said: Sequence[Said], *, via: str, by: str, moment: datetime) -> None:
    """One record for each account that has the address as a contact; for an address that nobody has, one without an account.

    Adds each time that it is called."""
    if not said:
        return
    holders: dict[str, list[UUID | None]] = defaultdict(list)
    for row in (await session.execute(HOLDERS, {"channel": channel, "addresses": sorted({one.address for one in said})})).all():
        holders[row.address].append(row.account_id)
    rows = [
        (new_id(), account, None, channel, one.address, one.act, via, by, None, one.words[:DETAIL], moment)
        for one in said
        for account in holders.get(one.address) or [None]
    ]
    await ADD.run(session, rows)
