"""The mail station: what a worker runs for `mail`. It serves every SMTP gateway, and takes over a changed one by itself."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import sqlalchemy as sa
import structlog

from app.accounts.unsubscribe import UnsubscribeLinks
from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.db import Database
from app.core.secrets import SecretBox
from app.gateways.models import Gateway
from app.gateways.settings import smtp_settings
from app.notifications.links import can_be_refused
from app.rendering.looks import brands_of
from app.sending.claim import Claimed, push_on
from app.sending.deliver import Delivery
from app.sending.flush import Flusher, Follow
from app.sending.lane import GRACE, WATCH, Lane, pause
from app.sending.mail_letters import Letters
from app.sending.mail_slots import MailSlot
from app.sending.settle import Policy
from app.sending.smtp.pool import Pool, PoolStatus
from app.sending.smtp.verp import Verp

log = structlog.get_logger()

# A mail server may take ten minutes to answer; the lease is short, and pushed on while this process lives.
MAIL_LEASE = timedelta(seconds=60)
MAIL_RENEW = 15.0


class MailStation:
    """Every enabled SMTP gateway, each with a pool of connections of this process. Any number of mail stations may run.

    `follow`: what is made of addresses that a server refuses for good."""

    def __init__(self, database: Database, secrets: SecretBox, links: UnsubscribeLinks, verp: Verp, follow: Follow | None = None) -> None:
        self._database, self._secrets, self._links, self._verp, self._follow_refusals = database, secrets, links, verp, follow
        self._catalogue, self._letters = Catalogue(), Letters(database)
        self._owners: set[UUID] = set()
        self._lanes: dict[str, tuple[int, Lane]] = {}
        self._slots: dict[str, MailSlot] = {}
        self._paused: set[str] = set()
        self._renewed = time.monotonic()
        self._stopping = asyncio.Event()

    def poke(self) -> None:
        for _, lane in self._lanes.values():
            lane.delivery.poke()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._follow()
                    await self._renew()
                    self._show()
                    await self._tell()
                except Exception as error:
                    log.error("mail_station", exc_info=error)
                await pause(self._stopping, WATCH)
        finally:
            await self._close(list(self._lanes), GRACE)

    async def _renew(self) -> None:
        """Push on the leases of what is in our hands."""
        if time.monotonic() - self._renewed > MAIL_RENEW:
            async with self._database.transaction() as session:
                ids = [message_id for _, lane in self._lanes.values() for message_id in lane.delivery.at_work]
                await push_on(session, list(self._owners), ids, MAIL_LEASE)
            self._renewed = time.monotonic()

    async def _tell(self) -> None:
        """Say how each gateway does. That it cannot be said keeps no letter back."""
        for name, (_, lane) in self._lanes.items():
            if isinstance(lane.wire, Pool):
                await self._slots[name].tell(lane.wire)

    async def _follow(self) -> None:
        """Open a lane for every gateway that wants one, close those that changed or went."""
        async with self._database.transaction() as session:
            found = (await session.execute(sa.select(Gateway).where(sa.text("kind = 'smtp' AND enabled")))).scalars().all()
            await self._catalogue.refresh(session)
            self._letters.follow(await brands_of(session))
        wanted = {gateway.name: gateway for gateway in found}
        self._paused = {gateway.name for gateway in found if gateway.paused}
        stale = [name for name, (revision, lane) in self._lanes.items() if name not in wanted or wanted[name].revision != revision or lane.is_broken]
        await self._close(stale, 10.0)
        for name, gateway in wanted.items():
            if name not in self._lanes:
                metrics.start_gateway(name, "smtp", self._catalogue.types, wire=True)
                lane = self._open(gateway)
                lane.start()
                self._lanes[name] = (gateway.revision, lane)

    async def _close(self, names: Sequence[str], grace: float) -> None:
        await asyncio.gather(*(self._lanes.pop(name)[1].stop(grace) for name in names))
        for name in names:  # a gateway that is gone or disabled is not down
            for gauge in (metrics.SMTP_UP, metrics.SMTP_CONNECTIONS):
                with contextlib.suppress(KeyError):
                    gauge.remove(name)
        with contextlib.suppress(Exception):  # what we said is over in a few seconds anyway
            for name in names:
                await self._slots.pop(name).leave()

    def _show(self) -> None:
        for name, (_, lane) in self._lanes.items():
            status = lane.wire.status
            metrics.SMTP_UP.labels(name).set(status.state == "bound")
            metrics.SMTP_CONNECTIONS.labels(name).set(getattr(status, "connections", 0))

    def _refusal(self, claimed: Claimed) -> str | None:
        """The link that refuses the type of this message; none for what nobody can refuse."""
        rules = self._catalogue.types.get(claimed.type)
        return None if rules is None or not can_be_refused(rules) else self._links.link_of_message(claimed.id)

    def _open(self, gateway: Gateway) -> Lane:
        settings = smtp_settings(gateway, self._secrets)
        profile = settings.profile
        policy = Policy(
            gateway=gateway.name,
            receipt_group=gateway.name,
            backoff_min=timedelta(seconds=profile.retry_backoff_min),
            backoff_max=timedelta(seconds=profile.retry_backoff_max),
            attempts=profile.temp_attempts,
        )

        def ship(claimed: Claimed) -> int:
            return_path = self._verp.sender(profile.return_path, claimed.id) if profile.return_path else None
            pool.ship(self._letters.letter(claimed, settings.from_, self._refusal(claimed), return_path))
            return 1

        def changed(status: PoolStatus) -> None:
            slot.changed(status)
            delivery.poke()

        slot = self._slots[gateway.name] = MailSlot(self._database, gateway.name)
        pool = Pool(settings, on_outcome=lambda sent, outcome: delivery.came(sent.key, outcome), on_change=changed)
        owner = uuid4()
        flusher = Flusher(
            self._database,
            owner,
            policy,
            release=lambda claimed, written: pool.release(delivery.done(claimed, written=written)),
            follow=self._follow_refusals,
        )
        delivery = Delivery(self._database, pool, owner, policy, flusher, ship=ship, lease=MAIL_LEASE, may_claim=lambda: gateway.name not in self._paused)
        self._owners.add(owner)
        return Lane(pool, delivery, flusher)
