"""The SMPP session: aiosmpplib's ESME with its own receive, send and keep-alive paths.

The library keeps what it does well: the loop that connects, runs three tasks and connects again, its states, and its start and
stop. Its parsing, correlation, throttling, rate limiting and segmentation are not used at all: each of them loses messages or
ends the session for ever on answers that real SMSCs give. The names this class leans on are asserted by a canary test.
"""

import asyncio
import logging
import math
from asyncio import StreamWriter
from collections.abc import Callable, Sequence

from aiosmpplib import ESME, BindMode, SmppSessionState

from app.gateways.hosts import Endpoint, shown
from app.gateways.smpp import SmppSettings
from app.sending.smpp import pdu
from app.sending.smpp.backoff import Backoff
from app.sending.smpp.far_side import FarSide, Submits
from app.sending.smpp.opening import READ_SIZE, FarEnd, Mode, NotOpenedError, Opened, is_success, open_session
from app.sending.smpp.trace import Tracer

log = logging.getLogger(__name__)

_UNBIND_TIMEOUT = 2.0
_RETIRE_GRACE = 5.0  # seconds for the answers of what was on its way when the session was to end
_NACKS_WITHOUT_SEQUENCE = 3
_ACKS_HELD_BACK = 1_000_000  # octets; an SMSC that does not read our answers is not read either
_MODES = {"trx": BindMode.TRANSCEIVER, "tx": BindMode.TRANSMITTER, "rx": BindMode.RECEIVER}


class LinkDownError(ConnectionError):
    """Ends a session; the session loop of the library waits and connects again."""


class Link(ESME):  # type: ignore[misc]  # the library has no types
    """One bound session after another, over one TCP connection each."""

    _writer: StreamWriter | None

    def __init__(
        self,
        settings: SmppSettings,
        far: FarSide,
        submits: Submits,
        backoff: Backoff,
        clock: Callable[[], float],
        *,
        mode: Mode = "trx",
        endpoints: Sequence[Endpoint],
        source_port: int = 0,
    ) -> None:
        quiet = logging.NullHandler()
        host, port = endpoints[0]
        # The library's constructor would refuse the longer names and passwords that real accounts have; it is given none.
        super().__init__(host, port, "", "", bind_mode=_MODES[mode], log_level=logging.CRITICAL, log_handler=quiet, retry_timer=backoff)
        self._settings = settings
        self._profile = settings.profile
        self._longest = settings.profile.max_pdu
        self._far = far
        self._submits = submits
        self._clock = clock
        self._mode: Mode = mode
        self._endpoints = tuple(endpoints)
        self._source_port = source_port
        self._first = 0  # where the next round over the hosts begins
        self._host = 0  # the one in use, or tried last
        self._wake = asyncio.Event()
        self._gone = asyncio.Event()  # unbind_resp has come, or the far side closed
        self._outgoing: list[bytes] = []
        self._why = ""
        self._enquired_at: float | None = None
        self._begun_at: float | None = None  # a PDU is here in part since
        self._retire_at: float | None = None
        self._is_unbound = False  # by the SMSC
        self._stray_nacks = 0
        self._bound_at = clock()
        self.last_received = clock()
        self.session = 0
        self.tracer: Tracer | None = None
        self.far_end: FarEnd | None = None

    @property
    def is_bound(self) -> bool:
        return bool(self._session_state == self.bind_mode.session_state and self._writer is not None)

    @property
    def is_retiring(self) -> bool:
        return self._retire_at is not None

    @property
    def host(self) -> str:
        """Host and port in use, or those tried last."""
        return shown(self._endpoints[self._host])

    # -- what the bind asks of the session

    def wake(self) -> None:
        """There may be something to write."""
        self._wake.set()

    def answer(self, session: int, command: int, sequence: int, status: int) -> None:
        """Answer a deliver_sm of that session. Nothing happens when the session is over: the SMSC will deliver it again."""
        if session == self.session and self._writer is not None:
            self._send_soon(pdu.deliver_answer(command, sequence, status))

    def give_up(self, why: str) -> None:
        """Drop the connection; the session loop connects again."""
        self._hang_up(why)

    def retire(self, why: str, *, grace: float = _RETIRE_GRACE) -> None:
        """Write no more submits, use the answers that still come, then unbind and connect again."""
        if self._retire_at is None and self.is_bound:
            log.info("session retires", extra={"why": why})
            self._why = self._why or why
            self._retire_at = self._clock() + grace
            self._far.retiring(why)
            self._wake.set()

    # -- what the library's session loop calls

    async def connect(self) -> None:
        """Bind at the first host that lets us. A round over all of them is one attempt: only after it the session loop pauses."""
        self._hang_up("reconnect")
        if not self._far.connecting():
            raise LinkDownError
        count = len(self._endpoints)
        for index in [(self._first + turn) % count for turn in range(count)]:
            self._host = index
            opened = await self._knock(self._endpoints[index])
            if opened is None:
                continue
            if is_success(opened.status, self._profile):
                self._begin(opened)
                return
            opened.writer.transport.abort()
            if not self._far.refused(opened.status):
                break
        self._first = 0
        self._far.all_failed()
        raise LinkDownError

    async def _receive_data(self) -> None:
        """Read whatever has come and hand it on PDU by PDU, without a task or an await for each."""
        reader, writer = self._reader, self._writer
        assert reader is not None
        assert writer is not None
        rest = b""
        while self.is_bound:
            chunk = await reader.read(READ_SIZE)
            if not chunk:
                self._why = self._why or "the SMSC closed the connection"
                self._gone.set()
                return
            self.last_received = now = self._clock()
            self._enquired_at = None
            data = rest + chunk if rest else chunk
            if self.tracer is not None:
                self.tracer.saw(data, ours=False)
            rest = self._take_apart(data)
            if len(rest) < len(data):  # another PDU was whole: what is left, if anything, has begun just now
                self._begun_at = None
            if rest and self._begun_at is None:
                self._begun_at = now
            if writer.transport.get_write_buffer_size() > _ACKS_HELD_BACK:
                await writer.drain()

    async def _dequeue_messages(self) -> None:
        """Write what is due, all of it at once, and sleep until the next token, answer or message."""
        loop = asyncio.get_running_loop()
        while self.is_bound:
            self._wake.clear()
            octets, wait = (b"", math.inf) if self.is_retiring else self._submits.write_due()
            if octets:
                self._write(octets)
            timer = loop.call_later(wait, self._wake.set) if wait != math.inf else None
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _connection_keeper(self) -> None:
        """Ask a silent link whether it lives, and end one that does not; also the clock of everything that has a time-out."""
        profile = self._profile
        shortest = min(profile.enquire_interval, profile.enquire_timeout, profile.response_timeout, profile.pdu_read_timeout)
        tick = max(0.02, min(0.5, shortest / 5))
        while self.is_bound:
            await asyncio.sleep(tick)
            now = self._clock()
            if why := self._far.tick(now) or self._complaint(now):
                self._hang_up(why)
                return
            if self._retire_at is not None and (now >= self._retire_at or not self._far.has_unanswered()):
                await self._part()
                self._hang_up(self._why)
                return
            if self._enquired_at is None and now - self.last_received >= profile.enquire_interval:
                self._enquired_at = now
                self._send_soon(pdu.frame(pdu.ENQUIRE_LINK, self._submits.next_sequence()))

    async def _end_task(self, task: asyncio.Task[None]) -> None:
        """The session has ended: its messages are told so at once, and nothing is written to a dead socket meanwhile."""
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            self._why = self._why or str(error) or type(error).__name__
            if not isinstance(error, OSError):
                log.error("session task failed", exc_info=error)
        self._hang_up(self._why or "the session ended")
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    async def _disconnect(self) -> None:
        """Unbind, give the SMSC a moment to agree, and close."""
        if self.is_bound:
            await self._part()
        self._hang_up("unbound")

    # -- details

    async def _knock(self, endpoint: Endpoint) -> Opened | None:
        """One host: its answer to the bind, or None when there was none. `far_end` tells how far it got."""
        self.far_end = far_end = FarEnd(self._mode, shown(endpoint))
        try:
            return await open_session(
                endpoint, self._settings, far_end, sequence=self._submits.next_sequence(), source_port=self._source_port, on_pdu=self._trace
            )
        except NotOpenedError as error:
            self._far.not_opened(str(error), is_connected=bool(far_end.address))
            return None

    def _begin(self, opened: Opened) -> None:
        self._reader, self._writer, _ = opened
        self.session += 1
        self._why = ""
        self._enquired_at = self._begun_at = self._retire_at = None
        self._is_unbound = False
        self._stray_nacks = 0
        self._gone.clear()
        self._bound_at = self.last_received = self._clock()
        self._session_state = self.bind_mode.session_state
        self._far.bound()

    async def _part(self) -> None:
        """Unbind, unless the SMSC has done so, and wait for its consent."""
        if self._is_unbound:
            return
        self._send_soon(pdu.frame(pdu.UNBIND, self._submits.next_sequence()))
        self._flush()
        try:
            async with asyncio.timeout(_UNBIND_TIMEOUT):
                await self._gone.wait()
        except TimeoutError:
            log.info("no unbind_resp")

    def _take_apart(self, data: bytes) -> bytes:
        """Hand on every whole PDU; returns what is left over."""
        start, size, longest = 0, len(data), self._longest
        unpack = pdu.HEADER.unpack_from
        answered = self._submits.submit_answered
        while size - start >= 16:
            length, command, status, sequence = unpack(data, start)
            if not 16 <= length <= longest:
                raise LinkDownError(f"command_length {length}")
            end = start + length
            if end > size:
                break
            if command == pdu.SUBMIT_SM_RESP:
                answered(sequence, status, pdu.message_id_of(data, start + 16, end))
            elif command in (pdu.DELIVER_SM, pdu.DATA_SM):
                self._far.delivered(command, sequence, data[start + 16 : end])
            else:
                self._take_other(command, status, sequence)
            start = end
        return data[start:]

    def _take_other(self, command: int, status: int, sequence: int) -> None:
        if command == pdu.ENQUIRE_LINK:
            self._send_soon(pdu.frame(pdu.ENQUIRE_LINK_RESP, sequence))
        elif command == pdu.UNBIND:
            self._is_unbound = True
            self._send_soon(pdu.frame(pdu.UNBIND_RESP, sequence))
            self.retire("the SMSC unbound us")
        elif command == pdu.UNBIND_RESP:
            self._gone.set()
        elif command == pdu.GENERIC_NACK:
            if sequence:
                self._submits.submit_answered(sequence, status or 0x03, b"")
                return
            # Without a number nobody knows what was wrong; a link that goes on like this is out of step.
            self._stray_nacks += 1
            log.warning("generic_nack without a sequence number", extra={"status": f"0x{status:08X}"})
            if self._stray_nacks >= _NACKS_WITHOUT_SEQUENCE:
                raise LinkDownError("generic_nack without a sequence number, again and again")
        elif command in (pdu.ALERT_NOTIFICATION, pdu.OUTBIND):
            log.info("notice from the SMSC that has no answer", extra={"command": f"0x{command:08X}"})
        elif not command & pdu.RESPONSE:
            # SMPP 3.4, 3.3: a request that we do not know is answered by generic_nack with ESME_RINVCMDID.
            self._send_soon(pdu.frame(pdu.GENERIC_NACK, sequence, status=0x03))

    def _complaint(self, now: float) -> str | None:
        profile, silent = self._profile, now - self.last_received
        if self._enquired_at is not None and now - self._enquired_at >= profile.enquire_timeout:
            return f"no answer to enquire_link within {profile.enquire_timeout:g} s"
        if profile.inactivity_timeout and silent >= profile.inactivity_timeout:
            return f"nothing received for {silent:.0f} s"
        if self._begun_at is not None and now - self._begun_at >= profile.pdu_read_timeout:
            return f"half a PDU for {profile.pdu_read_timeout:g} s"
        return None

    def _send_soon(self, octets: bytes) -> None:
        """Everything that is answered in one turn of the event loop goes out in one write."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(octets)

    def _flush(self) -> None:
        if self._outgoing:
            self._write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _write(self, octets: bytes) -> None:
        if self._writer is not None:
            self._writer.write(octets)
            if self.tracer is not None:
                self.tracer.saw(octets, ours=True)

    def _trace(self, octets: bytes, ours: bool) -> None:
        if self.tracer is not None:
            self.tracer.saw(octets, ours=ours)

    def _hang_up(self, why: str) -> None:
        """Close the socket now, and tell the far side once."""
        self._flush()
        writer, self._writer = self._writer, None
        self._session_state = SmppSessionState.CLOSED
        self._wake.set()
        if writer is None:
            return
        self._gone.set()
        # A host that lets us in and throws us out is no better than one that does not let us in: the next one has its turn.
        is_stable = self._clock() - self._bound_at >= self._profile.stable_after
        self._first = 0 if is_stable else (self._host + 1) % len(self._endpoints)
        transport = writer.transport
        if not transport.is_closing():
            # close() lets what was written leave; a far side that does not read must not keep the socket, so abort() follows.
            is_stuck = transport.get_write_buffer_size() > 0
            transport.close()
            if is_stuck:
                transport.abort()
        self._far.lost(why)
