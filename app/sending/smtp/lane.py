"""One of a pool's connections: takes a letter from the queue, sees it through, takes the next."""

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from app.gateways.smtp import SmtpProfile
from app.sending.outcome import Deferred, Outcome, Refused
from app.sending.smtp.dkim import Signer
from app.sending.smtp.entry import SessionNotOpened
from app.sending.smtp.mime import Letter, MalformedLetter, Message, NotReady, WithoutFile, build, finished
from app.sending.smtp.replies import Trouble
from app.sending.smtp.session import Sent, Session
from app.sending.smtp.waiting import Waiting

log = logging.getLogger(__name__)


class Office(Protocol):
    """What a lane needs of its pool."""

    queue: Waiting
    idle: list["Lane"]
    is_stopping: bool

    @property
    def is_bound(self) -> bool:
        """Whether letters may come. If not, sessions are of no use: what is wrong with one may be wrong with all."""

    async def session(self) -> Session:
        """A session that nobody uses. SessionNotOpened when there is none to be had."""

    def settle(self, letter: Letter, outcome: Outcome) -> None:
        """The one outcome of the letter."""

    def heard(self) -> None:
        """The server has answered a letter: it works."""

    def report(self, trouble: Trouble) -> float:
        """A session could not be opened or has ended in disorder. Returns how long the lane shall pause."""


class Lane:
    """`is_on_wire`: the letter in hand has begun, and what a cancellation makes of it is for the session to say."""

    def __init__(self, office: Office, profile: SmtpProfile, signer: Signer | None = None) -> None:
        self.session: Session | None = None
        self.is_on_wire = False
        self.is_pausing = False
        self._office = office
        self._profile = profile
        self._signer = signer
        self._letter: Letter | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Until the pool stops, or until cancelled; the letter in hand gets its outcome in either case."""
        try:
            while not self._office.is_stopping:
                self._letter, due = await self._next()
                if (early := due - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(early)
                trouble = await self._see_through(self._letter)
                if trouble is not None:
                    await self._pause(self._office.report(trouble))
        finally:
            if self._letter is not None:
                self._settle(self._fate("stopped before the answer"))
            await self._close()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _next(self) -> tuple[Letter, float]:
        """The next letter. A session that has to wait for it too long is closed."""
        loop = asyncio.get_running_loop()
        while (found := self._office.queue.take()) is None:
            if self.session is not None and not self._office.is_bound:
                await self._close()
                continue  # a letter may have come meanwhile
            self._waiter = loop.create_future()
            self._office.idle.append(self)
            timer = loop.call_later(self._profile.idle_timeout, self.wake) if self.session is not None else None
            try:
                await self._waiter
            finally:
                if timer is not None:
                    timer.cancel()
                if self in self._office.idle:
                    self._office.idle.remove(self)
            if self.session is not None and loop.time() - self.session.idle_since >= self._profile.idle_timeout:
                await self._close()
        return found

    async def _see_through(self, letter: Letter) -> Trouble | None:
        """Sends the letter and settles it. Returns what was wrong with the session, if anything."""
        try:
            message = build(await finished(letter))
            if self._signer is not None:
                message = await self._signer.sign(message)
            sent = await self._send(message)
            if sent.is_untouched:  # the server had closed an idle session, and the news had not reached us
                sent = await self._send(message)
        except MalformedLetter as error:
            self._settle(Refused("attachment_missing" if isinstance(error, WithoutFile) else "malformed", detail=str(error)))
            return None
        except NotReady as error:
            again = timedelta(seconds=self._profile.retry_backoff_min)
            self._settle(Deferred("attachment_not_ready", again, spends_attempt=False, detail=str(error)))
            return None
        except Exception as error:  # a mistake of ours: the letter spends an attempt on it, and the lane goes on
            log.exception("smtp.letter_failed")
            self._settle(self._fate(repr(error), Deferred("internal_error", timedelta(seconds=self._profile.retry_backoff_min))))
            await self._close()
            return None
        self._settle(sent.outcome)
        if sent.trouble is None:
            self._office.heard()
        return sent.trouble

    async def _send(self, message: Message) -> Sent:
        session = self.session
        if session is None or not session.is_open or session.letters >= self._profile.max_per_connection:
            await self._close()
            try:
                session = self.session = await self._office.session()
            except SessionNotOpened as error:
                detail = f"{error.trouble.code} {error.trouble.detail}".strip()
                return Sent(Deferred("not_connected", timedelta(0), spends_attempt=False, detail=detail), error.trouble)
        self.is_on_wire = True
        sent = await session.send(message)
        self.is_on_wire = False
        return sent

    def _settle(self, outcome: Outcome) -> None:
        letter, self._letter, self.is_on_wire = self._letter, None, False
        assert letter is not None
        self._office.settle(letter, outcome)
        if self._office.queue.done(letter) and self._office.idle:
            self._office.idle.pop().wake()  # this lane may pause

    def _fate(self, why: str, before: Deferred | None = None) -> Outcome:
        """What the letter in hand becomes when it is dropped here and now."""
        if self.is_on_wire and self.session is not None:
            self.session.abort()
            outcome = self.session.outcome_of_loss(why)
            return before if before is not None and isinstance(outcome, Deferred) else outcome
        return before or Deferred("not_sent", timedelta(0), spends_attempt=False)

    async def _pause(self, seconds: float) -> None:
        self.is_pausing = seconds > 0
        try:
            await asyncio.sleep(seconds)
        finally:
            self.is_pausing = False

    async def _close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            await session.quit()
