"""How each mail station does with a gateway: a row beside those of the binds, for `GET /gateways/{name}/status` and for explanations.

Any number of stations may serve a mail gateway, so a slot is nobody's right to send: it is a place to write one's state down, gone with its station.
"""

import time
from typing import Any

import sqlalchemy as sa
import structlog

from app.core.db import Database, as_utc
from app.sending.slots import RENEW, Slot, take_slot
from app.sending.smtp.pool import Pool, PoolStatus

log = structlog.get_logger()

MOST = 64  # stations of one gateway that are shown
LEAVE = sa.text("DELETE FROM bind_slot WHERE gateway = :gateway AND slot = :slot AND fence = :fence")


class MailSlot:
    """What one station says of one gateway: at once when it changes, else every few seconds, which is how others see that it lives."""

    def __init__(self, database: Database, gateway: str) -> None:
        self._database, self._gateway = database, gateway
        self._slot: Slot | None = None
        self._said_at = 0.0
        self._is_news = True
        self._logged: tuple[str, ...] | None = None

    def changed(self, status: PoolStatus) -> None:
        """Takes note; a trouble is logged once, and once more when it is another one or comes again after all was well."""
        self._is_news = True
        error = status.last_error
        if status.state == "bound" and self._logged is not None:
            self._logged = None
            log.info("mail_gateway_up", gateway=self._gateway, host=status.host)
        elif status.state == "down" and error is not None and self._logged != (error.where, error.code, error.detail):
            self._logged = (error.where, error.code, error.detail)
            log.warning("mail_gateway_down", gateway=self._gateway, host=status.host, where=error.where, code=error.code, detail=error.detail)

    async def tell(self, pool: Pool) -> None:
        """Write it down where there is something to say."""
        if not self._is_news and time.monotonic() - self._said_at < RENEW:
            return
        self._is_news = False
        said = status_json(pool.status)
        if self._slot is None or not await self._slot.renew(self._database, said):
            self._slot = await self._place()
            if self._slot is not None:
                await self._slot.renew(self._database, said)
        self._said_at = time.monotonic()

    async def leave(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            async with self._database.transaction() as session:
                await session.execute(LEAVE, {"gateway": self._gateway, "slot": slot.number, "fence": slot.fence})

    async def _place(self) -> Slot | None:
        for number in range(MOST):
            if (slot := await take_slot(self._database, self._gateway, number)) is not None:
                return slot
        return None


def status_json(status: PoolStatus) -> dict[str, Any]:
    """A pool's state as `GET /gateways/{name}/status` shows it."""
    error = status.last_error
    return {
        "state": status.state,
        "host": status.host,
        "since": as_utc(status.since),
        "last_error": error and {"at": as_utc(error.at), "where": error.where, "command_status": error.code, "name": "", "detail": error.detail},
        "window_in_use": status.window_in_use,
        "connections": status.connections,
        "last_activity_at": as_utc(status.last_activity_at),
    }
