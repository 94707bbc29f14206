"""Which gateway a message takes: the first healthy enabled one of its channel, by name; the first enabled one when none is healthy."""

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.wakeups import MAIL, bind_queue

KINDS = {"sms": "smpp", "email": "smtp"}

# A bind says that it lives every few seconds; one that has not for so long is not counted on.
ROADS = """
SELECT g.name, g.kind, g.enabled AND NOT g.paused AS open, coalesce(CAST(g.settings ->> 'binds' AS int), 1) AS binds,
       g.kind = 'smtp' OR EXISTS (SELECT FROM bind_slot s WHERE s.gateway = g.name AND s.until > now() AND s.status ->> 'state' IN ('bound', 'throttled')) AS healthy
FROM gateway g WHERE g.enabled ORDER BY g.name
"""


@dataclass(frozen=True, slots=True)
class Road:
    name: str
    kind: str
    binds: int

    @property
    def queues(self) -> list[str]:
        """Whom to wake when it has work."""
        return [MAIL] if self.kind == "smtp" else [bind_queue(self.name, slot) for slot in range(self.binds)]


@dataclass(slots=True)
class Roads:
    """A look at the gateways at one moment."""

    by_channel: dict[str, Road] = field(default_factory=dict)

    def choose(self, channel: str) -> Road | None:
        return self.by_channel.get(channel)

    @classmethod
    async def look(cls, session: AsyncSession) -> "Roads":
        return cls.seen([dict(row._mapping) for row in (await session.execute(sa.text(ROADS))).all()])  # noqa: SLF001 - SQLAlchemy's name for it

    @classmethod
    def seen(cls, rows: list[dict[str, Any]]) -> "Roads":
        """From the rows of ROADS."""
        # Sorting is stable: by health, then openness, then name.
        rows = sorted(rows, key=lambda row: (not (row["healthy"] and row["open"]), not row["open"]))
        roads = cls()
        for channel, kind in KINDS.items():
            for row in rows:
                if row["kind"] == kind:
                    roads.by_channel[channel] = Road(row["name"], row["kind"], row["binds"])
                    break
        return roads
