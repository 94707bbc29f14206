"""Slots: a bind of a gateway belongs to exactly one worker, by a row with an end that is pushed on while the worker lives.

An owner that cannot push it on stops claiming before the end comes, so two never send for one slot at a time. `fence` is new with every owner and
guards what it settles. A row, not a session lock: it works through a pooler, and it ends when a host dies.
"""

import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database

HOLD = timedelta(seconds=20)
RENEW = 5.0  # seconds between two renewals
SPARE = 6.0  # seconds before the end at which an owner that could not renew stops claiming

LOOK = sa.text("SELECT owner, fence, until < now() AS over FROM bind_slot WHERE gateway = :gateway AND slot = :slot FOR UPDATE")
TAKE = sa.text("""
INSERT INTO bind_slot (gateway, slot, owner, fence, until, status) VALUES (:gateway, :slot, :owner, :fence, now() + :hold, '{"state": "connecting"}')
ON CONFLICT (gateway, slot) DO UPDATE SET owner = excluded.owner, fence = excluded.fence, until = excluded.until, status = excluded.status
WHERE bind_slot.until < now() OR bind_slot.fence = :before RETURNING fence
""")
RENEWED = sa.text("""
UPDATE bind_slot SET until = now() + :hold, status = CAST(:status AS jsonb) WHERE gateway = :gateway AND slot = :slot AND fence = :fence RETURNING fence
""")
GIVE_UP = sa.text("UPDATE bind_slot SET until = now(), status = CAST(:status AS jsonb) WHERE gateway = :gateway AND slot = :slot AND fence = :fence")
# What the last owner had claimed is in doubt from now on: its lease ends here.
ORPHANS = sa.text("UPDATE outbox SET lease_until = now() WHERE claimed_by = :fence AND state = 'sending'")


def this_process() -> str:
    """Who we are, so that another worker on this machine can tell whether we are dead: host, boot, namespace, pid, start time."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    marks = [socket.gethostname(), boot.read_text().strip() if boot.exists() else "?", str(namespace.readlink()) if namespace.exists() else "?"]
    return "|".join([*marks, str(os.getpid()), started_at(os.getpid()) or "?"])


def started_at(pid: int) -> str | None:
    """A process' start in clock ticks since the boot (proc(5)), or nothing when there is no such process, or a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def is_surely_dead(owner: str) -> bool:
    """True only for a process of this very machine that exists no more."""
    theirs, ours = owner.split("|"), this_process().split("|")
    return len(theirs) == 5 and "?" not in theirs and theirs[:3] == ours[:3] and theirs[3].isdigit() and started_at(int(theirs[3])) != theirs[4]


@dataclass(slots=True)
class Slot:
    """Our hold on one slot. `fence` marks what we claim."""

    gateway: str
    number: int
    fence: UUID
    until: float = 0.0  # monotonic

    @property
    def is_sure(self) -> bool:
        """Ours for long enough that nobody else can have it when the next claim goes out."""
        return time.monotonic() < self.until - SPARE

    async def renew(self, database: Database, status: dict[str, Any]) -> bool:
        """Push the end on; false when the slot is somebody else's by now."""
        asked = time.monotonic()
        async with database.transaction() as session:
            values = {"hold": HOLD, "status": orjson.dumps(status).decode(), "gateway": self.gateway, "slot": self.number, "fence": self.fence}
            if (await session.execute(RENEWED, values)).first() is None:
                return False
        self.until = asked + HOLD.total_seconds()
        return True

    async def give_up(self, database: Database, status: dict[str, Any]) -> None:
        """Let the next owner have it at once."""
        async with database.transaction() as session:
            values = {"status": orjson.dumps(status).decode(), "gateway": self.gateway, "slot": self.number, "fence": self.fence}
            await session.execute(GIVE_UP, values)


async def take_slot(database: Database, gateway: str, number: int) -> Slot | None:
    """The slot, when it is free, its owner's time is over, or its owner is surely dead; else nothing."""
    async with database.transaction() as session:
        found = (await session.execute(LOOK, {"gateway": gateway, "slot": number})).first()
        if found is not None and not found.over and not is_surely_dead(found.owner):
            return None
        return await _take(session, gateway, number, found.fence if found is not None else None)


async def _take(session: AsyncSession, gateway: str, number: int, before: UUID | None) -> Slot | None:
    """Nothing when two saw the same empty place and the other was quicker."""
    asked = time.monotonic()
    slot = Slot(gateway, number, uuid4(), asked + HOLD.total_seconds())
    values = {"gateway": gateway, "slot": number, "owner": this_process(), "fence": slot.fence, "hold": HOLD, "before": before}
    if (await session.execute(TAKE, values)).first() is None:
        return None
    if before is not None:
        await session.execute(ORPHANS, {"fence": before})
    return slot
