"""Jobs on many messages: asked for, worked to their end; and messages that were made before them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from app.accounts.models import Account
from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at
from app.notifications.bulk import Bulks
from tests.builders.messages import a_message

DAY = timedelta(days=1)


class Past:
    """Makes messages whose ids are in the order in which they are made here, all of them an hour old, or as old as is said."""

    def __init__(self, database: Database, account: Account) -> None:
        self._database, self._account, self._made, self._moment = database, account, 0, now()

    async def message(self, ended: str | None = "failed", *, ago: timedelta = timedelta(hours=1), account: Account | None = None, **fields: Any) -> UUID:
        self._made += 1
        made = UUID(int=first_id_at(self._moment - ago).int + self._made)
        return await a_message(self._database, account or self._account, ended=ended, id=made, **fields)


def period(**more: Any) -> dict[str, Any]:
    """A filter of the last two days."""
    return {"from": (now() - 2 * DAY).isoformat(), "to": (now() + DAY).isoformat()} | more


async def ask(api: httpx.AsyncClient, action: str, filter_: dict[str, Any] | None = None, *, dry_run: bool = False, **more: Any) -> str:
    """The id of a job that was taken."""
    body = {"action": action, "filter": period() if filter_ is None else filter_, "dry_run": dry_run} | more
    answer = await api.post("/messages/bulk", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def shown(api: httpx.AsyncClient, bulk_id: str) -> dict[str, Any]:
    answer = await api.get(f"/messages/bulk/{bulk_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def worked(api: httpx.AsyncClient, bulks: Bulks, bulk_id: str) -> dict[str, Any]:
    """What has become of it in the end."""
    for _ in range(100):
        if (now_shown := await shown(api, bulk_id))["state"] != "running":
            return now_shown
        await bulks.follow()
    raise AssertionError(now_shown)
