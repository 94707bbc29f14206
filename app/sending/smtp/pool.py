"""A gateway's SMTP connections: a few lanes, each with a session that is used again, one letter at a time on each.

    ship() -> queue -> lane -> session -> on_outcome, once for every letter
                        `-- trouble: the lane pauses; the last one to fail takes the pool down, and the queue goes back unsent

State: connecting -> bound <-> down, draining -> stopped. `bound` means that the last thing heard of the server was good: a pool with
nothing to send keeps no connection open for long, because the server may close it at any moment (RFC 5321, 4.5.3.2.7) or need it for others.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from app.gateways.smtp import SmtpSettings
from app.sending.outcome import Deferred, Outcome
from app.sending.smtp.dkim import Signer
from app.sending.smtp.entry import SessionNotOpened, open_session, tls_context
from app.sending.smtp.lane import Lane
from app.sending.smtp.mime import Letter
from app.sending.smtp.pace import Pace
from app.sending.smtp.replies import Trouble
from app.sending.smtp.session import QUIT_TIMEOUT, Session
from app.sending.smtp.waiting import Waiting

log = logging.getLogger(__name__)

State = Literal["down", "connecting", "bound", "draining", "stopped"]

NOT_SENT = Deferred("not_sent", timedelta(0), spends_attempt=False)
WHILE_NO_ROOM = 1.0  # seconds: only release() and a change of state make room, and both are followed by a look at the allowance


@dataclass(frozen=True, slots=True)
class PoolError:
    """What last went wrong. `where` is the stage of the session, `code` what the server answered ("535 5.7.8") or ""."""

    at: datetime
    where: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A look at the pool, for people and metrics."""

    state: State
    host: str
    since: datetime
    last_error: PoolError | None
    window_in_use: int  # letters shipped and not yet released
    connections: int  # open now
    rate_now: float | None  # letters a second; None: no limit
    last_activity_at: datetime | None


class Pool:
    """Sends the letters of one gateway. Every letter shipped gets exactly one outcome, whatever becomes of it, of the server and of this process' tasks."""

    def __init__(
        self,
        settings: SmtpSettings,
        *,
        on_outcome: Callable[[Letter, Outcome], None],
        on_change: Callable[[PoolStatus], None] | None = None,
    ) -> None:
        self.queue = Waiting(settings.profile.per_domain)
        self.idle: list[Lane] = []  # the last is the warmest: it is used first, so that connections beyond the need go cold and close
        self.is_stopping = False
        self._settings = settings
        self._on_outcome = on_outcome
        self._on_change = on_change
        self._pace = Pace(settings.rate_per_second)
        signer = Signer(settings.dkim) if settings.dkim is not None else None
        self._lanes = [Lane(self, settings.profile, signer) for _ in range(settings.connections)]
        self._tasks: list[asyncio.Task[None]] = []
        self._spare: Session | None = None
        self._in_use = 0
        self._state: State = "down"
        self._since = datetime.now(UTC)
        self._last_error: PoolError | None = None
        self._active_at: datetime | None = None
        self._failures = 0
        self._paused_until = 0.0
        self._context: ssl.SSLContext | None = None
        self._went_down = asyncio.Event()
        self._is_stopped = asyncio.Event()

    # --- for the claim loop ---

    def ship(self, letter: Letter) -> None:
        """Takes a letter that allowance() permitted. Never blocks; the outcome comes through `on_outcome`, never from within this call."""
        loop = asyncio.get_running_loop()
        self._in_use += 1
        self.queue.append(letter, self._pace.book(loop.time()))
        if self._state != "bound":
            loop.call_soon(self._give_back_queue)
        elif self.idle:
            self.idle.pop().wake()

    def allowance(self) -> int:
        """How many letters may be claimed now: a few for each connection that works, and no more than the rate lets go within 100 ms."""
        if self._state != "bound":
            return 0
        working = sum(not lane.is_pausing for lane in self._lanes)
        room = working * (1 + self._settings.profile.claim_ahead) - self._in_use
        return max(0, min(room, self._pace.allowance(asyncio.get_running_loop().time())))

    def next_chance(self) -> float:
        """Seconds after which allowance() may be above 0 again; release() and a change of state may make it so earlier."""
        if self._state != "bound":
            return WHILE_NO_ROOM
        return self._pace.wait(asyncio.get_running_loop().time()) or WHILE_NO_ROOM

    def release(self, n: int) -> None:
        """The outcomes of `n` letters are committed: their room is free again."""
        self._in_use -= n

    @property
    def in_use(self) -> int:
        return self._in_use

    @property
    def status(self) -> PoolStatus:
        return PoolStatus(
            state=self._state,
            host=f"{self._settings.host}:{self._settings.port}",
            since=self._since,
            last_error=self._last_error,
            window_in_use=self._in_use,
            connections=sum(session is not None and session.is_open for session in self._sessions()),
            rate_now=self._settings.rate_per_second,
            last_activity_at=self._active_at,
        )

    # --- its life ---

    async def run(self) -> None:
        """Sends what is shipped until stop(), and connects again by itself. Raises nothing but CancelledError, and settles every letter even then."""
        self._tasks = [asyncio.create_task(self._keep_connected()), *(asyncio.create_task(lane.run()) for lane in self._lanes)]
        try:
            await self._is_stopped.wait()
        finally:
            await self.stop(0)

    async def stop(self, grace: float) -> None:
        """Drains. What has not begun goes back unsent at once; what is on the wire gets `grace` seconds, and is unknown if its final dot was out by then."""
        if self.is_stopping:
            await self._is_stopped.wait()
            return
        self.is_stopping = True
        self._change("draining")
        self._give_back_queue()
        if self._tasks:
            keeper, *lanes = self._tasks
            keeper.cancel()
            for lane, task in zip(self._lanes, lanes, strict=True):
                if not lane.is_on_wire:
                    task.cancel()
            await asyncio.wait(lanes, timeout=grace)
            await _end(self._tasks)
        self._change("stopped")
        self._is_stopped.set()

    async def _keep_connected(self) -> None:
        """Opens a first session at once and after every failure of the last one: the gateway's health is known before there is a letter."""
        while True:
            self._went_down.clear()
            self._change("connecting")
            try:
                self._spare = await self._open()
            except SessionNotOpened as error:
                self._go_down(error.trouble)
            else:
                self._change("bound")
                await self._until_down()
            await asyncio.sleep(self._pause())

    async def _until_down(self) -> None:
        """Waits; a first session that no letter has wanted for a while is closed meanwhile."""
        try:
            async with asyncio.timeout(self._settings.profile.idle_timeout):
                await self._went_down.wait()
        except TimeoutError:
            await self._close_spare()
            await self._went_down.wait()
        finally:
            await self._close_spare()

    def _sessions(self) -> list[Session | None]:
        return [self._spare, *(lane.session for lane in self._lanes)]

    async def _close_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.quit()

    async def _open(self) -> Session:
        if self._settings.tls != "none" and self._context is None:
            self._context = await tls_context(self._settings)
        try:
            session = await open_session(self._settings, self._context)
        except SessionNotOpened:
            self._context = None  # an authority that was missing may be in its file the next time
            if not self.is_stopping:
                raise
        else:
            if not self.is_stopping:
                return session
            session.abort()
        # wait_for of Python 3.11, inside aiosmtplib, loses a cancellation that meets its result. Here it is again.
        raise asyncio.CancelledError

    # --- for the lanes ---

    @property
    def is_bound(self) -> bool:
        return self._state == "bound"

    async def session(self) -> Session:
        """A session that nobody uses: the first one, if it still waits, or one of the lane's own. SessionNotOpened when there is none to be had."""
        spare, self._spare = self._spare, None
        return spare if spare is not None and spare.is_open else await self._open()

    def settle(self, letter: Letter, outcome: Outcome) -> None:
        self._call(self._on_outcome, letter, outcome)

    def heard(self) -> None:
        self._failures = 0
        self._active_at = datetime.now(UTC)

    def report(self, trouble: Trouble) -> float:
        """Notes the trouble of a lane. With another session still open only that lane pauses; otherwise, or when all would fare alike, the pool goes down."""
        if self._state != "bound":  # somebody was first
            return 0.0
        if trouble.of_gateway or not any(session is not None and session.is_open for session in self._sessions()):
            self._go_down(trouble)
            return 0.0
        self._note(trouble)
        self._tell()
        return self._pause()

    def _go_down(self, trouble: Trouble) -> None:
        self._note(trouble)
        self._change("down")
        self._went_down.set()
        self._give_back_queue()
        for lane in self.idle:
            lane.wake()  # to close its session

    def _note(self, trouble: Trouble) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._paused_until:  # a server that goes away takes all its sessions along: that is one failure
            self._failures += 1
            self._paused_until = now + self._pause()
        self._last_error = PoolError(datetime.now(UTC), trouble.stage.value, trouble.code, trouble.detail)

    def _pause(self) -> float:
        """Doubles from reconnect_min to reconnect_max with every failure since the server last answered a letter."""
        profile = self._settings.profile
        return min(profile.reconnect_max, profile.reconnect_min * 2.0 ** min(max(self._failures - 1, 0), 30))

    def _give_back_queue(self) -> None:
        while self.queue and self._state != "bound":
            self.settle(self.queue.give_back(), NOT_SENT)

    # --- news ---

    def _change(self, state: State) -> None:
        if state != self._state and (not self.is_stopping or state in {"draining", "stopped"}):
            self._state, self._since = state, datetime.now(UTC)
            self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._call(self._on_change, self.status)

    def _call(self, callback: Callable[..., None], *news: Any) -> None:
        """Nobody's failure to take the news may stop a lane."""
        try:
            callback(*news)
        except Exception:
            log.exception("smtp.callback_failed")


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancels them until they have ended: a cancellation may get lost in a library, and nobody should wait for that letter's time limit."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=QUIT_TIMEOUT)
