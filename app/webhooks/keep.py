"""Housekeeping: leases that ended, what is given up, what is forgotten, replays; and how many wait."""

from datetime import timedelta

import sqlalchemy as sa

from app.core import metrics
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database
from app.core.secrets import SecretBox
from app.webhooks.pace import GIVE_UP_AFTER
from app.webhooks.replays import go_on

BATCH = 5000
REPLAY_ROUNDS = 10  # batches of replays in one round: others want their turn

# A worker died with it in hand: whether it arrived nobody knows, so it goes again under the same id. It counts, or one that kills would kill for ever.
END_LEASES = sa.text("""
UPDATE webhook_delivery SET state = 'waiting', due_at = :now, claimed_by = NULL, attempts = attempts + 1
WHERE endpoint_id = ANY(ARRAY(SELECT id FROM webhook)) AND state = 'sending' AND due_at < :now
""")
# Behind a disabled or resting endpoint: whoever is tried by a lane is given up there.
GIVE_UP = sa.text("""
UPDATE webhook_delivery SET state = 'failed', due_at = :forget_at WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhook_delivery WHERE endpoint_id = ANY(ARRAY(SELECT id FROM webhook)) AND state = 'waiting' AND due_at < :before
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")
FORGET = sa.text("""
DELETE FROM webhook_delivery WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhook_delivery WHERE endpoint_id = ANY(ARRAY(SELECT id FROM webhook)) AND state IN ('delivered', 'failed') AND due_at < :now
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")
# From one endpoint to the next along the primary key: however many rows there are, it reads as many as there are endpoints.
OF_NOBODY = sa.text("""
WITH RECURSIVE there AS (
    (SELECT endpoint_id FROM webhook_delivery ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM webhook_delivery d WHERE d.endpoint_id > there.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
    FROM there WHERE there.endpoint_id IS NOT NULL
)
SELECT endpoint_id FROM there WHERE endpoint_id IS NOT NULL AND NOT EXISTS (SELECT FROM webhook WHERE id = endpoint_id)
""")
DROP = sa.text("""
DELETE FROM webhook_delivery WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhook_delivery WHERE endpoint_id = ANY(CAST(:gone AS uuid[])) LIMIT :batch FOR UPDATE SKIP LOCKED))
""")
FORGET_SECRETS = sa.text("UPDATE webhook SET old_secret = NULL, old_secret_until = NULL WHERE old_secret_until < :now")
SECRETS = sa.text("SELECT id, secret, old_secret FROM webhook ORDER BY id FOR UPDATE")
SEAL_ANEW = sa.text("UPDATE webhook SET secret = :secret, old_secret = :old WHERE id = :id")
DISABLED = sa.text("SELECT count(*) FROM webhook WHERE NOT enabled AND disabled_because IN ('gone', 'failing')")
FORGET_REPLAYS = sa.text(
    "DELETE FROM webhook_replay WHERE state = 'done' AND finished_at < :before OR NOT EXISTS (SELECT FROM webhook w WHERE w.id = endpoint_id)"
)
WAITING = sa.text("""
SELECT coalesce(sum(number), 0) AS number, min(oldest) AS oldest FROM webhook w CROSS JOIN LATERAL (
    SELECT count(*) AS number, min(due_at) AS oldest FROM webhook_delivery d WHERE d.endpoint_id = w.id AND d.state = 'waiting'
) AS of_one WHERE w.enabled
""")


class Keeping:
    """`round` is harmless as often as it runs, and in several processes at once."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._kept = timedelta(days=settings.webhook_days)
        self._box: SecretBox | None = SecretBox(settings.secret_keys)

    async def round(self) -> bool:
        """Whether there may be something to send that was not there before."""
        ended = await self._step(END_LEASES, now=now())
        metrics.SWEEPER_FOUND.labels("webhooks").inc(ended)
        metrics.WEBHOOKS_GIVEN_UP.inc(await self._step(GIVE_UP, before=now() - GIVE_UP_AFTER, forget_at=now() + self._kept, batch=BATCH))
        await self._seal_anew()
        await self._step(FORGET, now=now(), batch=BATCH)
        await self._step(FORGET_SECRETS, now=now())
        await self._step(FORGET_REPLAYS, before=now() - self._kept)
        async with self._database.transaction() as session:
            gone = list((await session.execute(OF_NOBODY)).scalars())
            if gone:
                await session.execute(DROP, {"gone": gone, "batch": BATCH})
        replayed = 0
        for _ in range(REPLAY_ROUNDS):
            async with self._database.transaction() as session:
                number = await go_on(session, now())
            if number is None:
                break
            replayed += number
        await self._count()
        return bool(ended or replayed)

    async def _seal_anew(self) -> None:
        """Once after the start, for keys change at no other time: then the old ones can be taken out of VESTNIK_SECRET_KEYS."""
        if self._box is None:
            return
        async with self._database.transaction() as session:
            for row in (await session.execute(SECRETS)).all():
                secret, old = self._box.renewed(row.secret), self._box.renewed(row.old_secret) if row.old_secret is not None else None
                if secret is not None or old is not None:
                    await session.execute(SEAL_ANEW, {"id": row.id, "secret": secret or row.secret, "old": old or row.old_secret})
        self._box = None

    async def _step(self, statement: sa.TextClause, **values: object) -> int:
        async with self._database.transaction() as session:
            moved: int = (await session.execute(statement, values)).rowcount  # type: ignore[attr-defined]
        return moved

    async def _count(self) -> None:
        async with self._database.transaction() as session:
            waiting = (await session.execute(WAITING)).one()
            metrics.WEBHOOKS_DISABLED.set((await session.execute(DISABLED)).scalar_one())
        metrics.WEBHOOK_BACKLOG.set(float(waiting.number))
        metrics.WEBHOOK_OLDEST.set(max(0.0, (now() - waiting.oldest).total_seconds()) if waiting.oldest is not None else 0.0)
