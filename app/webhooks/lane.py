"""One endpoint: what is due is claimed, sent side by side, and settled. It shares nothing with the others: a dead one slows nobody."""

import asyncio
from datetime import timedelta
from uuid import UUID

import structlog

from app.core import audit, metrics
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database
from app.core.outgoing import Outgoing
from app.core.secrets import SecretBox
from app.webhooks.attempt import CONNECTIONS, attempt, client_of, secrets_of
from app.webhooks.bodies import body_of, webhook_id
from app.webhooks.claim import DISABLE, Claimed, claim, record_health, settle
from app.webhooks.models import Webhook
from app.webhooks.pace import Health, Tried

log = structlog.get_logger()

GATHER = 0.01  # seconds in which answers gather, so that a commit writes several
SETTLE_AGAIN = (0.5, 2.0, 5.0)  # seconds; after that the lease ends, and it is sent once more under the same id


class Lane:
    """`follow` with every look at the endpoint; `work` until nothing is due or the endpoint needs a rest."""

    def __init__(self, database: Database, settings: Settings, box: SecretBox, owner: UUID, webhook: Webhook) -> None:
        self._database, self._box, self._owner = database, box, owner
        self._kept = timedelta(days=settings.webhook_days)
        self._client: Outgoing = client_of(webhook, settings)
        self._at_work: dict[asyncio.Task[Tried | None], Claimed] = {}
        self._more, self._stopping = True, False
        self.webhook, self._health, self._secrets = webhook, Health(), list[str]()
        self.follow(webhook)

    def follow(self, webhook: Webhook) -> None:
        """The endpoint as it is now; its URL is another lane's."""
        self.webhook = webhook
        self._health = Health(webhook.failures, webhook.failing_since, webhook.rests_until, webhook.last_error)
        self._secrets = secrets_of(webhook, self._box, now())

    def poke(self) -> None:
        self._more = True

    def stop(self) -> None:
        """Claim nothing more; `work` returns when what is out has been settled."""
        self._stopping = True

    async def close(self) -> None:
        await self._client.close()

    async def work(self) -> None:
        while True:
            room = self._room()
            if self._more and room > 0:
                await self._start(room)
            if not self._at_work:
                return
            await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(GATHER)
            await self._settle([task for task in self._at_work if task.done()])

    def _room(self) -> int:
        """How many may go out now: one to find out how a failing endpoint does, none while it rests."""
        if self._stopping or not self.webhook.enabled or self._health.rests(now()):
            return 0
        return (1 if self._health.is_failing else CONNECTIONS) - len(self._at_work)

    async def _start(self, room: int) -> None:
        async with self._database.transaction() as session:
            batch = await claim(session, self.webhook, self._owner, room, now())
        self._more = len(batch) == room
        for claimed in batch:
            self._at_work[asyncio.create_task(self._send(claimed))] = claimed

    async def _send(self, claimed: Claimed) -> Tried | None:
        if claimed.is_over(now()):
            return None
        try:
            tried, _ = await attempt(self._client, webhook_id(claimed), body_of(claimed), self._secrets)
        except Exception as error:  # a mistake of ours: the others go on, and this one is told of in its history
            log.error("webhook_not_sent", webhook=str(self.webhook.id), subject=str(claimed.subject_id), exc_info=error)
            tried = Tried("failed", now(), 0, error="not_sent")
        metrics.WEBHOOK_DELIVERIES.labels(tried.verdict).inc()
        return tried

    async def _settle(self, done: list[asyncio.Task[Tried | None]]) -> None:
        outcomes = [(self._at_work.pop(task), task.result()) for task in done]
        for pause in (*SETTLE_AGAIN, None):
            try:
                return await self._write(outcomes)
            except Exception as error:
                log.warning("webhook_not_settled", webhook=str(self.webhook.id), error=type(error).__name__, number=len(outcomes))
                if pause is None:
                    return None
                await asyncio.sleep(pause)
        return None

    async def _write(self, outcomes: list[tuple[Claimed, Tried | None]]) -> None:
        """What came of them and how the endpoint does, in one transaction."""
        tries = sorted((tried for _, tried in outcomes if tried is not None), key=lambda tried: tried.at)
        is_news = self._health != Health() or any(tried.verdict != "delivered" for tried in tries)
        moment = now()
        spell = None
        async with self._database.transaction() as session:
            if is_news and (spell := await record_health(session, self.webhook.id, tries)) is not None:
                gone = any(tried.verdict == "gone" for tried in tries)
                because = "gone" if gone else "failing" if spell[1].is_given_up(moment) else None
                if because is not None and (await session.execute(DISABLE, {"id": self.webhook.id, "because": because, "now": moment})).first():
                    await audit.record(session, "worker", "webhook.disable", f"webhook:{self.webhook.id}", {"enabled": [True, False], "because": because})
                    log.error("webhook_disabled", webhook=str(self.webhook.id), because=because, error=spell[1].last_error)
                    self.stop()
            await settle(session, self.webhook.id, self._owner, outcomes, self._kept, moment)
        if spell is not None:
            before, self._health = spell
            if self._health.is_failing and not before.is_failing:
                log.warning("webhook_failing", webhook=str(self.webhook.id), error=self._health.last_error, failures=self._health.failures)
        elif is_news:
            self.stop()  # deleted, or disabled by somebody
