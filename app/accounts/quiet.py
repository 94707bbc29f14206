"""The operator's quiet hours by zone, in memory, read again when one has changed."""

from collections.abc import Mapping

import orjson
import sqlalchemy as sa

from app.accounts.window import Hours, Quiet
from app.core.config import parse_hours
from app.core.db import Executor

EVERYWHERE = ""  # the row that holds in every zone without one of its own
# All of it, in the order of its keys: a few dozen short words at most, and no two clocks that have to agree on what is newer.
STAMP = "SELECT coalesce(CAST(jsonb_object_agg(zone, jsonb_build_array(workdays, weekends)) AS text), '{}') FROM quiet_hours"


class QuietHoursNow:
    """Those of the settings, until somebody has set others."""

    def __init__(self, otherwise: Hours) -> None:
        self._otherwise = Quiet.alike(otherwise)
        self._stamp: str | None = None
        self._by_zone: Mapping[str, Quiet] = {}

    async def refresh(self, session: Executor, stamp: str | None = None) -> None:
        """Up to date with this session. One small query when nothing has changed; none when the caller has asked for the STAMP himself."""
        if stamp is None:
            stamp = (await session.execute(sa.text(STAMP))).scalar_one()
        if stamp != self._stamp:
            self._by_zone = {zone: Quiet(parse_hours(workdays), parse_hours(weekends)) for zone, (workdays, weekends) in orjson.loads(stamp).items()}
            self._stamp = stamp

    def of(self, zone: str) -> Quiet:
        """By the account's zone, as it is named there."""
        return self._by_zone.get(zone) or self._by_zone.get(EVERYWHERE) or self._otherwise
