"""The worker process: the whole pipeline on one screen.

    queue                    station        what it does
    plan                     PlanStation    events -> messages
    mail                     MailStation    every SMTP gateway: claim, send, settle
    smpp:<gateway>:<slot>    BindStation    one bind: claim, submit, settle, receipts
    scan                     ScanStation    forecasts: who will have to be told, asked of all accounts
    reports                  ReportStation   reports that were asked for as files
    bounces                  BounceStation  mail that comes back, over LMTP or SMTP; only where VESTNIK_BOUNCE_LISTEN is set
    webhooks                 WebhookStation  what happened, told to the billing
    simulated                SimulatedStation what test keys send: answered here, and never sent
    cron                     SweepStation   held messages, leases, parked receipts, a look at the queues; partitions and retention beside it

A queue is an arq worker whose one job, `wake`, pokes the station; `cron` has arq's cron beside it. The work itself is in PostgreSQL: a station looks
round by itself every few seconds, so that a Redis that is down or flushed costs milliseconds of latency and nothing else.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Protocol, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import structlog
from arq import cron
from arq.worker import Worker, func

from app.accounts.preference_bulk import Bulk
from app.accounts.unsubscribe import UnsubscribeLinks
from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.audit_chain import Seal
from app.core.config import Settings
from app.core.db import Database
from app.core.errors import ConfigurationError
from app.core.ids import new_id
from app.core.key_limits import OldUsage
from app.core.metrics_port import MetricsPort, ProcessHealth
from app.core.pulse import Pulse
from app.core.secrets import SecretBox
from app.core.wakeups import BOUNCES, CRON, MAIL, PLAN, QUEUES, REPORTS, SCAN, SIMULATIONS, WEBHOOKS, Wakeups, bind_queue, pack, redis_settings, unpack
from app.core.watchdog import keep_watchdog
from app.desk.appraise import Appraiser
from app.forecasts.forget import OldScans
from app.forecasts.station import ScanStation
from app.notifications.bulk import Bulks
from app.notifications.forget import OldBulks
from app.notifications.hold import Holding
from app.notifications.one_time import OneTimeTexts
from app.notifications.plan import BATCH, Planner
from app.notifications.reminders import Reminders
from app.notifications.replan import Replanning
from app.notifications.stops import Switch
from app.sending.bind_station import BindStation
from app.sending.budget_watch import BudgetWatch
from app.sending.mail_station import MailStation
from app.sending.references import References
from app.sending.smtp.verp import Verp
from app.sending.trace_lines import Traces
from app.tracking.bounce_intake import BounceStation
from app.tracking.bounces import Bounces
from app.tracking.match import record
from app.tracking.refusals import suppress_dead
from app.tracking.reports.cells import Folding
from app.tracking.reports.recount import Backfill
from app.tracking.reports.station import ReportStation
from app.tracking.retention import Retention
from app.tracking.simulated import SimulatedStation
from app.tracking.sweeps import Sweeper
from app.webhooks.station import WebhookStation

log = structlog.get_logger()

IDLE = 2.0  # seconds between two looks round of the planner
# Under load events gather: a batch costs nearly the same for many as for few. Between two that were not full the planner rests at least PACE seconds,
# and twice as long as the last one took.
PACE, RESTS = 0.01, 2.0
FOLLOW = 1.0  # seconds between two looks at the gateways
ALIVE = 15.0  # seconds between two signs of life
LONG_SILENT = 3 * ALIVE  # seconds after which a database that was not reached makes us unready
UNDISTURBED = 15.0  # seconds without a tick of cron after which the sweeps run by themselves
TURN = 3.0  # seconds after which a step that always finds more leaves the rest to the next sweep: others are to have their turn

SEEN = sa.text("""
INSERT INTO worker_process (id, queues, host, metrics_port, started_at, seen_at) VALUES (:id, :queues, :host, :port, now(), now())
ON CONFLICT (id) DO UPDATE SET seen_at = now()
""")
LEFT = sa.text("DELETE FROM worker_process WHERE id = :id")


class Station(Protocol):
    """What a queue stands for."""

    def poke(self) -> None: ...
    def stop(self) -> None: ...
    async def run(self) -> None: ...


class PlanStation:
    """Plans whatever waits, batch after batch; then rests until it is poked."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._poked = asyncio.Event()
        self._stopping = False

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()

    async def run(self) -> None:
        while not self._stopping:
            try:
                # Shielded: a batch that has begun is finished; the end comes between two.
                planned = 1
                while planned and not self._stopping:
                    began = time.monotonic()
                    planned = await asyncio.shield(asyncio.ensure_future(self._planner.plan()))
                    if planned < BATCH:
                        await asyncio.sleep(max(PACE, RESTS * (time.monotonic() - began)))
            except Exception as error:
                log.error("plan_station", exc_info=error)
                await asyncio.sleep(0.5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), IDLE)
            self._poked.clear()


class SweepStation:
    """Runs the sweeps on every tick of arq's cron, and by itself when no tick has come for a while (Redis away)."""

    def __init__(
        self,
        holding: Holding,
        sweeper: Sweeper,
        switch: Switch,
        budgets: BudgetWatch,
        references: References,
        traces: Traces,
        reminders: Reminders,
        scans: OldScans,
        one_time: OneTimeTexts,
        bulk: Bulk,
        replanning: Replanning,
        bounces: Bounces,
        folding: Folding,
        backfill: Backfill,
        seal: Seal,
        usage: OldUsage,
        retention: Retention,
        message_bulks: Bulks,
        old_bulks: OldBulks,
    ) -> None:
        self._retention = retention
        self._often = (
            sweeper.follow_up,
            holding.release,
            sweeper.match_parked,
            reminders.follow,
            one_time.blank,
            bulk.follow,
            message_bulks.follow,
            replanning.follow,
            seal.run,
            folding.fold,
        )
        self._seldom: tuple[Callable[[], Awaitable[Any]], ...] = (
            switch.follow,
            sweeper.end_leases,
            sweeper.end_silence,
            holding.put_off,
            sweeper.withdraw,
            bounces.follow,
            holding.expire,
            holding.reroute,
            sweeper.give_up_parts,
            budgets.follow,
            references.forget,
            traces.forget,
            scans.forget,
            one_time.forget,
            sweeper.look,
            backfill.follow,
            folding.look,
            seal.look,
            usage.forget,
            old_bulks.forget,
        )
        self._ticked = time.monotonic()
        self._owed = False
        self._stopping = asyncio.Event()
        self._lock = asyncio.Lock()

    def poke(self) -> None: ...

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        retention = asyncio.create_task(self._retention.run(self._stopping))  # hours, perhaps: beside the sweeps, and cut short whenever it is
        try:
            while not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 5)
                if not self._stopping.is_set() and time.monotonic() - self._ticked > UNDISTURBED:
                    await self.sweep(seldom=True)
        finally:
            retention.cancel()
            await asyncio.gather(retention, return_exceptions=True)

    async def sweep(self, *, seldom: bool) -> None:
        """Each step on its own: one that fails does not keep the others back. A step that moved a full batch goes on at once, for its TURN.

        What is asked for while a sweep is at work is not forgotten: the next one does the seldom steps as well."""
        self._ticked = time.monotonic()
        self._owed = self._owed or seldom
        if self._lock.locked():
            return
        async with self._lock:
            seldom, self._owed = self._owed, False
            for step in (*self._often, *(self._seldom if seldom else ())):
                until = time.monotonic() + TURN
                try:
                    while ((await step()) or 0) >= 500 and not self._stopping.is_set() and time.monotonic() < until:
                        pass
                except Exception as error:
                    log.error("sweep_failed", step=step.__qualname__, error=type(error).__name__, detail=str(error)[:300])


class Office:
    """What the stations of one process share, and the arq workers that poke them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database.of(settings, name="vestnik-worker", pool_size=10)
        self.secrets = SecretBox(settings.secret_keys)
        self.stations: dict[str, Station] = {}
        self.wakeups = Wakeups(settings.redis_url, direct=self.poke)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.looked_at = time.monotonic()  # the database, with success

    def health(self) -> ProcessHealth:
        """A station that broke will not come back by itself. A database or an SMSC that is away will, and starting us again would not help."""
        broken = sorted(queue for queue, task in self._tasks.items() if task.done() and not task.cancelled() and task.exception() is not None)
        silent = time.monotonic() - self.looked_at
        binds = {queue: station.health() for queue, station in self.stations.items() if isinstance(station, BindStation)}
        bound = not binds or len(binds) < len(self.stations) or any(bind["state"] in ("bound", "throttled", "spare", "stopped") for bind in binds.values())
        detail = {"queues": sorted(self.stations), "broken": broken, "database_seconds": round(silent, 1), "binds": binds}
        return ProcessHealth(not broken, not broken and silent < LONG_SILENT and bound, detail)

    def poke(self, queue: str) -> bool:
        """Poke a station of this process; false when it is another's."""
        station = self.stations.get(queue)
        if station is not None:
            station.poke()
        return station is not None

    def make(self, queue: str) -> Station:
        """The station of a queue. ConfigurationError when there is no such queue."""
        if queue == PLAN:
            return PlanStation(Planner(self.database, self.settings, self.wakeups))
        if queue == MAIL:
            return MailStation(self.database, self.secrets, UnsubscribeLinks(self.settings), Verp(self.settings), suppress_dead)
        if queue == CRON:
            return SweepStation(
                Holding(self.database, self.settings, self.wakeups),
                Sweeper(self.database, self.wakeups),
                Switch(self.database),
                BudgetWatch(self.database, ZoneInfo(self.settings.timezone)),
                References(self.database),
                Traces(self.database),
                Reminders(self.database, self.settings, self.wakeups),
                OldScans(self.database, timedelta(days=self.settings.retention_days_record)),
                OneTimeTexts(self.database),
                Bulk(self.database),
                Replanning(self.database, self.settings),
                Bounces(self.database),
                Folding(self.database, self.settings.timezone),
                Backfill(self.database, self.settings.timezone),
                Seal(self.database),
                OldUsage(self.database),
                Retention(self.database, self.settings),
                Bulks(self.database, self.settings, self.wakeups),
                OldBulks(self.database, timedelta(days=self.settings.retention_days_record)),
            )
        if queue == SIMULATIONS:
            return SimulatedStation(self.database)
        if queue == SCAN:
            return ScanStation(self.database, self.settings, self.wakeups, Appraiser(self.settings))
        if queue == REPORTS:
            return ReportStation(self.database, self.settings.timezone)
        if queue == WEBHOOKS:
            return WebhookStation(self.database, self.settings, self.secrets)
        if queue == BOUNCES:
            if self.settings.bounce_endpoint is None:
                raise ConfigurationError("VESTNIK_BOUNCE_LISTEN must be set: bounces are listened for there")
            return BounceStation(self.database, Verp(self.settings), *self.settings.bounce_endpoint)
        kind, _, rest = queue.partition(":")
        gateway, _, slot = rest.rpartition(":")
        if kind == "smpp" and gateway and slot.isdigit():
            return BindStation(self.database, self.secrets, gateway, int(slot), record, ZoneInfo(self.settings.timezone))
        raise ConfigurationError(f"there is no queue {queue!r}: plan, mail, cron, scan, simulated, reports, webhooks, bounces, or smpp:<gateway>:<slot>")

    def open(self, queue: str) -> None:
        self.stations[queue] = station = self.make(queue)
        self._tasks[queue] = asyncio.create_task(self._run(queue, station), name=queue)

    async def shut(self, *queues: str) -> None:
        """Ask these stations to end, and wait until they have settled what they had."""
        for queue in queues:
            self.stations[queue].stop()
        await asyncio.gather(*(self._tasks.pop(queue) for queue in queues), return_exceptions=True)
        for queue in queues:
            self.stations.pop(queue, None)

    def ended(self, queue: str) -> bool:
        return self._tasks[queue].done()

    async def _run(self, queue: str, station: Station) -> None:
        poker = asyncio.create_task(self._arq(queue, station))
        try:
            await station.run()
        finally:
            poker.cancel()
            await asyncio.gather(poker, return_exceptions=True)

    async def _arq(self, queue: str, station: Station) -> None:
        """The queue's arq worker, started again whenever Redis has thrown it out."""
        while True:
            worker = arq_worker(self.settings.redis_url, queue, station)
            try:
                await worker.async_run()
            except Exception as error:
                log.warning("arq_worker_restarts", queue=queue, error=type(error).__name__)
            finally:
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await asyncio.wait_for(worker.close(), 2)
            await asyncio.sleep(1)


def arq_worker(redis_url: str, queue: str, station: Station) -> Worker:
    async def wake(_: dict[Any, Any]) -> None:
        station.poke()

    jobs = []
    if isinstance(station, SweepStation):

        async def often(_: dict[Any, Any]) -> None:
            await station.sweep(seldom=False)

        async def seldom(_: dict[Any, Any]) -> None:
            await station.sweep(seldom=True)

        fives = set(range(0, 60, 5))
        jobs = [
            cron(cast("Any", often), name="sweep_often", second=set(range(60)) - fives, keep_result=0, timeout=60, max_tries=1),
            cron(cast("Any", seldom), name="sweep_seldom", second=fives, keep_result=0, timeout=60, max_tries=1),
        ]
    return Worker(
        functions=[func(cast("Any", wake), name="wake", keep_result=0, max_tries=1)],
        cron_jobs=jobs,
        queue_name=f"vestnik:{queue}",
        redis_settings=redis_settings(redis_url),
        poll_delay=0.2,
        queue_read_limit=1000,
        max_jobs=20,
        job_timeout=120,
        job_completion_wait=5,
        keep_result=0,
        health_check_interval=30,
        handle_signals=False,
        job_serializer=pack,
        job_deserializer=unpack,
    )


async def run_worker(settings: Settings, queues: list[str], metrics_port: int | None = None) -> int:
    """Serve these queues (without any: all of them, the gateways followed) until SIGTERM or SIGINT; then drain. The exit code."""
    office, stopping = Office(settings), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    everything = not queues
    metrics_server, pulse = MetricsPort(settings, office.health), Pulse(office.database, settings.redis_url)
    try:
        port = await metrics_server.start(metrics_port)
        pulse.start()
        await start_series(office, all_gateways=everything or CRON in queues)
        for queue in queues or (*QUEUES, *((BOUNCES,) if settings.bounce_endpoint is not None else ())):
            office.open(queue)
        listener = asyncio.create_task(office.wakeups.listen(office.poke))
        watchdog = asyncio.create_task(keep_watchdog(lambda: office.health().is_alive))
        await follow(office, stopping, everything=everything, queues=queues, port=port)
        listener.cancel()
        await office.shut(*office.stations)
        watchdog.cancel()
        await asyncio.gather(listener, watchdog, return_exceptions=True)
    finally:
        await pulse.stop()
        await office.wakeups.close()
        await metrics_server.stop()
        await office.database.close()
    return 0


async def start_series(office: Office, *, all_gateways: bool) -> None:
    """Known series begin at zero. Whoever has the wire of a gateway starts those of that one."""
    metrics.BUILD.info({"version": version("vestnik")})
    catalogue = Catalogue()
    try:
        async with office.database.transaction() as session:
            await catalogue.refresh(session)
            found = await session.execute(sa.text("SELECT name, kind FROM gateway WHERE :all"), {"all": all_gateways})
            gateways = {row.name: row.kind for row in found}
    except Exception as error:
        log.warning("series_not_started", error=type(error).__name__)
        return
    metrics.start_at_zero(gateways=gateways, types=list(catalogue.types))


async def follow(office: Office, stopping: asyncio.Event, *, everything: bool, queues: list[str], port: int | None) -> None:
    """Say that we live; with `everything`, keep one station for each slot of each enabled SMPP gateway. Ends when asked to, or when all stations have ended."""
    me, said = new_id(), 0.0
    while not stopping.is_set():
        try:
            if everything:
                await follow_gateways(office)
            if time.monotonic() - said > ALIVE:
                await say_alive(office, me, ",".join(queues) or "all", port)
                said = office.looked_at = time.monotonic()
        except Exception as error:
            log.warning("database_away", error=type(error).__name__)
        if not everything and all(office.ended(queue) for queue in queues):
            break  # the gateway is gone or disabled: whoever started us will start us again when it is wanted
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), FOLLOW)
    with contextlib.suppress(Exception):
        async with office.database.transaction() as session:
            await session.execute(LEFT, {"id": me})


async def say_alive(office: Office, me: UUID, queues: str, port: int | None) -> None:
    host = office.settings.http_host if office.settings.env == "local" else socket.gethostname()
    async with office.database.transaction() as session:
        await session.execute(SEEN, {"id": me, "queues": queues[:1000], "host": host, "port": port})


async def wanted_binds(database: Database) -> set[str]:
    """A queue for each slot of each enabled SMPP gateway."""
    async with database.transaction() as session:
        rows = await session.execute(sa.text("SELECT name, CAST(settings ->> 'binds' AS int) FROM gateway WHERE kind = 'smpp' AND enabled"))
        return {bind_queue(name, slot) for name, number in rows for slot in range(number or 1)}


async def follow_gateways(office: Office) -> None:
    wanted = await wanted_binds(office.database)
    running = {queue for queue in office.stations if queue.startswith("smpp:")}
    await office.shut(*(queue for queue in running if queue not in wanted or office.ended(queue)))
    for queue in wanted - set(office.stations):
        office.open(queue)
