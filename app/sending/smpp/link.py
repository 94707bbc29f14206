"""The SMPP session: aiosmpplib's ESME with its own receive, send and keep-alive paths.

The library keeps what it does well: the loop that connects, runs three tasks and connects again, its states, and its start and
stop. Its parsing, correlation, throttling, rate limiting and segmentation are not used at all: each of them loses messages or
ends the session for ever on answers that real SMSCs give. The names this class leans on are asserted by a canary test.
"""

import asyncio
import logging
import math
import socket
from asyncio import StreamWriter
from collections.abc import Callable
from typing import Protocol

from aiosmpplib import ESME, SmppSessionState

from app.gateways.smpp import SmppSettings
from app.sending.smpp import pdu
from app.sending.smpp.backoff import Backoff

log = logging.getLogger(__name__)

_READ_SIZE = 65_536
_UNBIND_TIMEOUT = 2.0
_RETIRE_GRACE = 5.0  # for the answers of what was on its way when the SMSC said unbind
_NACKS_WITHOUT_SEQUENCE = 3
_ACKS_HELD_BACK = 1_000_000  # octets; an SMSC that does not read our answers is not read either


class FarSide(Protocol):
    """What the session tells, and whom it asks for PDUs. Nothing here may block; errors must not leave."""

    def connecting(self) -> None: ...
    def not_connected(self, error: str) -> None: ...
    def bind_answered(self, status: int) -> None: ...
    def submit_answered(self, sequence: int, status: int, identity: bytes) -> None: ...
    def delivered(self, command: int, sequence: int, body: bytes) -> None: ...
    def write_due(self) -> tuple[bytes, float]: ...
    def tick(self, now: float) -> str | None: ...
    def retiring(self, why: str) -> None: ...
    def has_unanswered(self) -> bool: ...
    def lost(self, why: str) -> None: ...
    def next_sequence(self) -> int: ...


class LinkDownError(ConnectionError):
    """Ends a session; the session loop of the library waits and connects again."""


class Link(ESME):  # type: ignore[misc]  # the library has no types
    """One bound session after another, over one TCP connection each."""

    _writer: StreamWriter | None

    def __init__(self, settings: SmppSettings, far: FarSide, backoff: Backoff, clock: Callable[[], float]) -> None:
        quiet = logging.NullHandler()
        super().__init__(settings.host, settings.port, "", "", log_level=logging.CRITICAL, log_handler=quiet, retry_timer=backoff)
        # The library's constructor would refuse the longer ones that real accounts have.
        self.system_id = settings.system_id
        self.password = settings.password.get_secret_value()
        self._profile = settings.profile
        self._far = far
        self._clock = clock
        self._wake = asyncio.Event()
        self._gone = asyncio.Event()  # unbind_resp has come, or the far side closed
        self._outgoing: list[bytes] = []
        self._why = ""
        self._enquired_at: float | None = None
        self._begun_at: float | None = None  # a PDU is here in part since
        self._retire_at: float | None = None
        self._stray_nacks = 0
        self.last_received = clock()
        self.session = 0

    @property
    def is_bound(self) -> bool:
        return bool(self._session_state == self.bind_mode.session_state and self._writer is not None)

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

    def retire(self, why: str) -> None:
        """Write no more submits, use the answers that still come, then connect again."""
        if self._retire_at is None and self.is_bound:
            log.info("session retires", extra={"why": why})
            self._why = self._why or why
            self._retire_at = self._clock() + _RETIRE_GRACE
            self._far.retiring(why)
            self._wake.set()

    # -- what the library's session loop calls

    async def connect(self) -> None:
        """Open the connection and bind. The status is read from the header: a refusal often has no body, and may be any number."""
        self._hang_up("reconnect")
        self._far.connecting()
        try:
            async with asyncio.timeout(self._profile.connect_timeout):
                self._reader, self._writer = await asyncio.open_connection(self.smsc_host, self.smsc_port, limit=2 * _READ_SIZE)
        except (OSError, TimeoutError) as error:
            self._far.not_connected(_sentence(error, self._profile.connect_timeout))
            raise LinkDownError from error
        connection = self._writer.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._session_state = SmppSessionState.OPEN
        try:
            async with asyncio.timeout(self._profile.bind_timeout):
                status = await self._bind()
        except (OSError, TimeoutError, EOFError) as error:
            self._hang_up("no bind_transceiver_resp")
            self._far.not_connected(_sentence(error, self._profile.bind_timeout))
            raise LinkDownError from error
        if status:
            self._hang_up(f"bind refused with 0x{status:08X}")
            self._far.bind_answered(status)
            raise LinkDownError
        self.session += 1
        self._why = ""
        self._enquired_at = self._begun_at = self._retire_at = None
        self._stray_nacks = 0
        self._gone.clear()
        self.last_received = self._clock()
        self._session_state = self.bind_mode.session_state
        self._far.bind_answered(0)

    async def _receive_data(self) -> None:
        """Read whatever has come and hand it on PDU by PDU, without a task or an await for each."""
        reader, writer = self._reader, self._writer
        assert reader is not None
        assert writer is not None
        rest = b""
        while self.is_bound:
            chunk = await reader.read(_READ_SIZE)
            if not chunk:
                self._why = self._why or "the SMSC closed the connection"
                self._gone.set()
                return
            self.last_received = now = self._clock()
            self._enquired_at = None
            rest = self._take_apart(rest + chunk if rest else chunk)
            self._begun_at = now if rest else None
            if writer.transport.get_write_buffer_size() > _ACKS_HELD_BACK:
                await writer.drain()

    async def _dequeue_messages(self) -> None:
        """Write what is due, all of it at once, and sleep until the next token, answer or message."""
        loop = asyncio.get_running_loop()
        while self.is_bound:
            self._wake.clear()
            octets, wait = (b"", math.inf) if self._is_spent() else self._far.write_due()
            if octets and self._writer is not None:
                self._writer.write(octets)
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
                self._hang_up(self._why)
                return
            if self._enquired_at is None and now - self.last_received >= profile.enquire_interval:
                self._enquired_at = now
                self._send_soon(pdu.frame(pdu.ENQUIRE_LINK, self._far.next_sequence()))

    async def _end_task(self, task: asyncio.Task[None]) -> None:
        """The session has ended: its messages are told so at once, and nothing is written to a dead socket meanwhile."""
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            self._why = self._why or _sentence(error)
            if not isinstance(error, OSError):
                log.error("session task failed", exc_info=error)
        self._hang_up(self._why or "the session ended")
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    async def _disconnect(self) -> None:
        """Unbind, give the SMSC a moment to agree, and close."""
        if self.is_bound:
            self._send_soon(pdu.frame(pdu.UNBIND, self._far.next_sequence()))
            self._flush()
            try:
                async with asyncio.timeout(_UNBIND_TIMEOUT):
                    await self._gone.wait()
            except TimeoutError:
                log.info("no unbind_resp")
        self._hang_up("unbound")

    # -- details

    async def _bind(self) -> int:
        assert self._reader is not None
        assert self._writer is not None
        profile = self._profile
        request = pdu.bind_transceiver(
            self._far.next_sequence(),
            system_id=self.system_id,
            password=self.password,
            system_type=profile.system_type,
            version=profile.interface_version,
            ton=profile.bind_ton,
            npi=profile.bind_npi,
            address_range=profile.address_range,
        )
        self._writer.write(request)
        while True:
            header = await self._reader.readexactly(pdu.HEADER_LENGTH)
            length, command, status, sequence = pdu.HEADER.unpack(header)
            if not pdu.HEADER_LENGTH <= length <= pdu.MAX_PDU:
                raise LinkDownError(f"command_length {length} in the answer to the bind")
            await self._reader.readexactly(length - pdu.HEADER_LENGTH)
            if command == pdu.ENQUIRE_LINK:
                self._writer.write(pdu.frame(pdu.ENQUIRE_LINK_RESP, sequence))
            elif command == pdu.BIND_TRANSCEIVER_RESP or (command == pdu.GENERIC_NACK and status):
                return int(status)

    def _take_apart(self, data: bytes) -> bytes:
        """Hand on every whole PDU; returns what is left over."""
        start, size = 0, len(data)
        unpack = pdu.HEADER.unpack_from
        far = self._far
        while size - start >= 16:
            length, command, status, sequence = unpack(data, start)
            if not 16 <= length <= pdu.MAX_PDU:
                raise LinkDownError(f"command_length {length}")
            end = start + length
            if end > size:
                break
            if command == pdu.SUBMIT_SM_RESP:
                far.submit_answered(sequence, status, pdu.message_id_of(data, start + 16, end))
            elif command in (pdu.DELIVER_SM, pdu.DATA_SM):
                far.delivered(command, sequence, data[start + 16 : end])
            else:
                self._take_other(command, status, sequence)
            start = end
        return data[start:]

    def _take_other(self, command: int, status: int, sequence: int) -> None:
        if command == pdu.ENQUIRE_LINK:
            self._send_soon(pdu.frame(pdu.ENQUIRE_LINK_RESP, sequence))
        elif command == pdu.UNBIND:
            self._send_soon(pdu.frame(pdu.UNBIND_RESP, sequence))
            self.retire("the SMSC unbound us")
        elif command == pdu.UNBIND_RESP:
            self._gone.set()
        elif command == pdu.GENERIC_NACK:
            if sequence:
                self._far.submit_answered(sequence, status or 0x03, b"")
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

    def _is_spent(self) -> bool:
        return self._retire_at is not None

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
        if self._outgoing and self._writer is not None:
            self._writer.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _hang_up(self, why: str) -> None:
        """Close the socket now, and tell the far side once."""
        self._flush()
        writer, self._writer = self._writer, None
        self._session_state = SmppSessionState.CLOSED
        self._wake.set()
        if writer is None:
            return
        self._gone.set()
        # close() lets what was written leave; a far side that does not read must not keep the socket, so abort() follows.
        writer.close()
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()
        self._far.lost(why)


def _sentence(error: BaseException, seconds: float | None = None) -> str:
    if isinstance(error, TimeoutError) and seconds is not None:
        return f"no answer within {seconds:g} s"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the SMSC closed the connection"
    return str(error) or type(error).__name__
