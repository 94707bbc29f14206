"""The gateways and the routes as they are now, for whoever has to choose: in memory, read again when they have changed."""

from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa
import structlog
from pydantic import ValidationError

from app.core.db import Executor
from app.gateways.cutting import cutting_of
from app.gateways.health import standing_of
from app.gateways.profile import Profile
from app.gateways.router import Road, Route, Router, Standing
from app.gateways.routes import compiled
from app.gateways.smpp import SmppSettings

log = structlog.get_logger()

# One row, one text: what may change from one second to the next, and the marks by which a change of the rest is seen.
ROADS = """
SELECT CAST(json_build_object('now', extract(epoch FROM now()), 'routing', (SELECT r.revision FROM routing r), 'gateways', (
    SELECT coalesce(json_agg(json_build_array(g.name, g.kind, g.revision, extract(epoch FROM g.created_at), extract(epoch FROM g.updated_at), g.paused, (
        SELECT json_agg(json_build_array(s.until > now(), extract(epoch FROM s.until), s.status ->> 'state', s.status -> 'health'))
        FROM bind_slot s WHERE s.gateway = g.name
    )) ORDER BY g.name), '[]') FROM gateway g WHERE g.enabled
)) AS text) AS roads
"""
LOOK = sa.text(ROADS)
SETTINGS = sa.text("SELECT name, kind, CAST(settings AS text) AS settings FROM gateway WHERE name = ANY(CAST(:names AS text[]))")
ROUTES = sa.text("SELECT CAST(routes AS text) FROM routing")


@dataclass(frozen=True, slots=True)
class Facts:
    """What choosing needs of a gateway's settings."""

    road: Road
    patience: float  # seconds that it may be down before what is queued goes elsewhere
    is_sending: bool = True  # a bind of the mode rx only receives


class Roads:
    """Knows nothing until the first look. `router` chooses."""

    def __init__(self) -> None:
        self.router = Router()
        self._mark: Any = None
        self._facts: dict[tuple[Any, ...], Facts] = {}

    async def look(self, session: Executor) -> Router:
        """The router, up to date with this session: one small query when nothing has changed."""
        return await self.refresh(session, (await session.execute(LOOK)).scalar_one())

    async def refresh(self, session: Executor, seen: str) -> Router:
        """The same for a caller who has asked for ROADS himself."""
        found = orjson.loads(seen)
        keys = [(name, revision, born) for name, _, revision, born, *_ in found["gateways"]]
        mark = (found["routing"], keys)
        if mark != self._mark:
            await self._read(session, keys, found["routing"])
            self._mark = mark
        self.router.now = {
            name: self._standing(self._facts[name, revision, born], slots, paused=paused, since=since, now=found["now"])
            for name, _, revision, born, since, paused, slots in found["gateways"]
        }
        return self.router

    @property
    def mark(self) -> Any:
        """Changes with whatever could lead to another choice; what heals by and by is seen in steps."""
        now = tuple(sorted((name, one.is_open, one.is_up, one.is_lost, round(one.share, 1)) for name, one in self.router.now.items()))
        return self._mark, now

    @staticmethod
    def _standing(facts: Facts, slots: list[Any] | None, *, paused: bool, since: float, now: float) -> Standing:
        if facts.road.kind == "smtp":  # the pool connects when there is something to send: nobody knows before
            return Standing(is_open=not paused)
        return standing_of(slots or [], paused=paused, patience=facts.patience, since=since, now=now)

    async def _read(self, session: Executor, keys: list[tuple[Any, ...]], revision: int | None) -> None:
        unknown = [key[0] for key in keys if key not in self._facts]
        if unknown:
            read = {row.name: facts_of(row.name, row.kind, orjson.loads(row.settings)) for row in (await session.execute(SETTINGS, {"names": unknown})).all()}
            # Deleted between two statements: as a gateway of no settings it is gone again with the next look.
            known = {key: self._facts.get(key) or read.get(key[0]) or Facts(Road(key[0], "smpp"), 0) for key in keys}
        else:
            known = {key: self._facts[key] for key in keys}
        kept = (await session.execute(ROUTES)).scalar() if revision is not None else None
        self._facts = known
        self.router = Router(read_kept(orjson.loads(kept) if kept else []), [facts.road for facts in known.values() if facts.is_sending])


def facts_of(name: str, kind: str, settings: dict[str, Any]) -> Facts:
    """Never fails: a row that today's rules would refuse must not stop the planning of everything else."""
    if kind != "smpp":
        return Facts(Road(name, kind), 0)
    try:
        given = SmppSettings.model_validate(settings)
    except ValidationError as error:
        log.error("gateway_settings_invalid", gateway=name, faults=error.error_count())
        return Facts(Road(name, kind, binds=int(settings.get("binds") or 1)), Profile().failover_after)
    cutting = cutting_of(given.profile)
    road = Road(name, kind, given.binds, price=given.price_per_part, cutting=None if cutting.is_usual else cutting)
    return Facts(road, given.profile.failover_after, is_sending=given.profile.bind_mode != "rx")


def profile_of(settings: dict[str, Any]) -> Profile:
    """The whole profile of an SMPP gateway's settings; the default one where they cannot be read."""
    try:
        return SmppSettings.model_validate(settings).profile
    except ValidationError:
        return Profile()


def read_kept(kept: list[dict[str, Any]]) -> list[Route]:
    """The stored routes; those that today's rules would refuse are left out, with a line in the log."""
    try:
        return compiled(kept)
    except ValidationError as error:
        log.error("routes_invalid", faults=error.error_count())
        return []
