"""Consents: who allowed or refused to be written to, when and how. Only ever added, and read by the operator who must prove them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import sqlalchemy as sa

from app.core.db import BulkInsert, Executor
from app.core.ids import new_id

Act = Literal["allowed", "refused"]
DETAIL = 500

HOLDERS = sa.text("SELECT address, account_id FROM contact WHERE channel = :channel AND address = ANY(CAST(:addresses AS text[])) ORDER BY account_id")
ADD = BulkInsert("consent", id="uuid", account_id="uuid", channel="text", address="text", act="text", via="text", by="text", detail="text", at="timestamptz")


@dataclass(frozen=True, slots=True)
class Said:
    """What the holder of an address said: `words` are his own."""

    address: str
    act: Act
    words: str


async def record_consents(session: Executor, channel: str, said: Sequence[Said], *, via: str, by: str, moment: datetime) -> None:
    """One record for each account that has the address as a contact; for an address that nobody has, one without an account.

    Adds each time that it is called."""
    if not said:
        return
    holders: dict[str, list[UUID | None]] = defaultdict(list)
    for row in (await session.execute(HOLDERS, {"channel": channel, "addresses": sorted({one.address for one in said})})).all():
        holders[row.address].append(row.account_id)
    rows = [
        (new_id(), account, channel, one.address, one.act, via, by, one.words[:DETAIL], moment)
        for one in said
        for account in holders.get(one.address) or [None]
    ]
    await ADD.run(session, rows)
