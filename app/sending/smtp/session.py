"""One SMTP session from AUTH on: this protocol carries the letters.

aiosmtplib 5.1 does TCP, TLS, EHLO and AUTH well. Its transaction has two gaps that matter here, so after AUTH the transport is taken
over (`set_protocol`). It waits for each answer before the next command, although nearly every server offers PIPELINING (RFC 2920: two
round trips a letter instead of four, and half the CPU time). And when the connection is lost it does not say whether the final dot was
out, which is the difference between sending again and not knowing (RFC 5321, 6.1).
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import aiosmtplib

from app.gateways.smtp import SmtpSettings
from app.sending.outcome import Deferred, Outcome, Refused, Unknown
from app.sending.smtp.mime import Message
from app.sending.smtp.replies import DETAIL_LIMIT, Reply, Stage, Trouble, judge, read_reply, trouble_in

REPLY_LIMIT = 65_536  # octets of one answer; a server that sends more is broken or hostile
QUIT_TIMEOUT = 2.0
STALE = 1.0  # seconds of waiting after which a lost session is blamed on the wait


class SessionLost(Exception):
    """The session ended under a command: closed, reset, silent for too long, or it answered with something that is no SMTP."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one letter, and of the session. `is_untouched`: a session used before was lost without a word to this letter."""

    outcome: Outcome
    trouble: Trouble | None = None
    is_untouched: bool = False


class Session(asyncio.Protocol):
    """Carries one letter at a time. Once `is_open` is false it is of no more use."""

    def __init__(self, transport: asyncio.Transport, settings: SmtpSettings, extensions: dict[str, str]) -> None:
        self.extensions = extensions  # of RFC 5321, 2.2, as EHLO told them: names in lower case, with their parameters
        self.pipelining = "pipelining" in extensions
        # RFC 1870, 4: no number or 0 says that there is a limit which the server does not tell.
        self.size_limit = int(extensions["size"]) if extensions.get("size", "").isdecimal() else 0
        self.letters = 0
        self.idle_since = asyncio.get_running_loop().time()
        self._settings = settings
        self._retry_in = timedelta(seconds=settings.profile.retry_backoff_min)
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._lost: str | None = None
        self._stage = Stage.IDLE
        self._unread = b""
        self._lines: list[bytes] = []
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_flushing = False
        self._in_transaction = False

    @classmethod
    def take_over(cls, client: aiosmtplib.SMTP, settings: SmtpSettings) -> "Session":
        """The connection of `client`, which is of no more use itself. SMTPServerDisconnected when it has just been lost."""
        if not client.is_connected:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        transport = cast("asyncio.Transport", client.transport)
        session = cls(transport, settings, client.esmtp_extensions)
        transport.set_protocol(session)
        transport.set_write_buffer_limits(high=0)  # then pause_writing tells that octets, the final dot the last of them, are still here
        return session

    @property
    def is_open(self) -> bool:
        return self._lost is None and not self._transport.is_closing()

    @property
    def tls_version(self) -> str | None:
        """Such as TLSv1.3; None in plain text."""
        secured = self._transport.get_extra_info("ssl_object")
        return secured.version() if secured else None

    # --- one letter ---

    async def send(self, message: Message) -> Sent:
        """Hands one letter over. The caller reads the fate of the letter and of the session from the answer; only cancellation raises."""
        refusal = self._refusal_of_our_own(message)
        if refusal is not None:
            return Sent(refusal)
        has_waited = self.letters > 0 or self._loop.time() - self.idle_since > STALE
        self.letters += 1
        try:
            sent = await self._transact(message)
        except SessionLost as loss:
            self.abort()
            is_heard = self._stage in {Stage.RCPT, Stage.DATA, Stage.DOT}
            sent = Sent(self.outcome_of_loss(str(loss)), Trouble(self._stage, str(loss)), is_untouched=has_waited and not is_heard)
        self._stage, self.idle_since = Stage.IDLE, self._loop.time()
        return sent

    def outcome_of_loss(self, detail: str) -> Outcome:
        """What a letter becomes when the session ends now. Only after the whole of its final dot was handed to the network is it unknown."""
        if self._stage is Stage.DOT and not self._is_flushing:
            return Unknown(detail=detail)
        return Deferred("connection_lost", timedelta(0), spends_attempt=False, detail=detail)

    def _refusal_of_our_own(self, message: Message) -> Refused | None:
        if message.smtputf8 and "smtputf8" not in self.extensions:
            return Refused("address_needs_smtputf8", detail="the address has non-ASCII characters before @ and the server does not offer SMTPUTF8 (RFC 6531)")
        if self.size_limit and len(message.data) > self.size_limit:
            return Refused("message_too_large", detail=f"{len(message.data)} octets; the server takes {self.size_limit} (RFC 1870)")
        return None

    async def _transact(self, message: Message) -> Sent:
        failed = await self._announce(message)
        if failed is not None:
            stage, reply = failed
            return Sent(judge(reply, stage, self._retry_in), self._close_for(trouble_in(reply, stage)))
        self._stage = Stage.DOT
        # RFC 5321, 4.5.2: a line that begins with a dot gets another one. The first line of a letter is a header.
        self._write(message.data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        reply = await self._reply(self._settings.profile.data_timeout)
        self._in_transaction = False
        return Sent(judge(reply, Stage.DOT, self._retry_in), None if reply.is_positive else self._close_for(trouble_in(reply, Stage.DOT)))

    async def _announce(self, message: Message) -> tuple[Stage, Reply] | None:
        """RSET if need be, MAIL, RCPT and DATA. The first refusal; None when the server waits for the letter."""
        commands = self._commands(message)
        if self.pipelining:
            self._write(b"".join(line for _, line in commands))
        failed, is_waiting = None, False
        self._in_transaction = True
        for stage, line in commands:
            if not self.pipelining:
                if failed is not None:
                    break
                self._write(line)
            # In a pipeline all of it is already out; the stage tells which answer is awaited, and therefore which were given.
            self._stage = stage
            reply = await self._reply(self._settings.profile.timeout)
            if (stage is Stage.RSET and not reply.is_positive) or (stage is Stage.MAIL and reply.closes):
                raise SessionLost(f"{reply.status} {reply.text}"[:DETAIL_LIMIT])
            if stage is Stage.DATA and reply.code == 354:
                is_waiting = True
            elif failed is None and (stage is Stage.DATA or not reply.is_positive):
                failed = (stage, reply)
            if reply.closes:
                break
        if failed is not None and is_waiting:
            # RFC 2920, 3.1: the recipient was refused and DATA taken all the same; an empty letter to nobody ends it.
            self._write(b".\r\n")
            await self._reply(self._settings.profile.timeout)
        return failed

    def _commands(self, message: Message) -> list[tuple[Stage, bytes]]:
        parameters = b" SMTPUTF8 BODY=8BITMIME" if message.smtputf8 else b""
        if "size" in self.extensions:
            parameters += b" SIZE=%d" % len(message.data)
        commands = [
            (Stage.MAIL, b"MAIL FROM:<%s>%s\r\n" % (message.mail_from.encode(), parameters)),
            (Stage.RCPT, b"RCPT TO:<%s>\r\n" % message.rcpt_to.encode()),
            (Stage.DATA, b"DATA\r\n"),
        ]
        # What a refused letter left half done is cleared together with the next one.
        return [(Stage.RSET, b"RSET\r\n"), *commands] if self._in_transaction else commands

    # --- the end ---

    async def quit(self) -> None:
        """Ends the session politely; never raises for what the server does."""
        try:
            if self.is_open:
                self._stage = Stage.IDLE
                self._write(b"QUIT\r\n")
                await self._reply(QUIT_TIMEOUT)
        except SessionLost:
            pass
        finally:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _close_for(self, trouble: Trouble | None) -> Trouble | None:
        if trouble is not None:
            self._transport.close()
        return trouble

    # --- octets ---

    def _write(self, data: bytes) -> None:
        if not self.is_open:
            raise SessionLost(self._lost or "the connection is closed")
        self._transport.write(data)

    async def _reply(self, timeout: float) -> Reply:  # noqa: ASYNC109 -- a timer and one future: asyncio.timeout costs a multiple, four times a letter
        if self._replies:
            return self._replies.popleft()
        if self._lost is not None:
            raise SessionLost(self._lost)
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(timeout, self._fail, f"no answer within {timeout:g} s")
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        if self._replies:
            return self._replies.popleft()
        raise SessionLost(self._lost or "the connection is closed")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
        self._transport.abort()
        self._wake()

    # asyncio.Protocol from here on

    def data_received(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._lines.append(line)
            if line[3:4] != b"-":
                self._finish_reply()
        if len(self._unread) + sum(map(len, self._lines)) > REPLY_LIMIT:
            self._fail("an answer without an end")

    def _finish_reply(self) -> None:
        lines, self._lines = self._lines, []
        try:
            reply = read_reply(lines)
        except ValueError:
            self._fail(f"not an SMTP answer: {lines[0][:80]!r}")
            return
        if self._stage is Stage.IDLE and self._waiter is None:
            self._lost = f"{reply.status} {reply.text}"[:DETAIL_LIMIT]  # 421 out of the blue: the server has had enough of waiting
            self._transport.close()
            return
        self._replies.append(reply)
        self._wake()

    def eof_received(self) -> bool:
        if self._lost is None:
            self._lost = "the server closed the connection"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost is None:
            self._lost = str(exc) if exc else "the connection is closed"
        self._wake()

    def pause_writing(self) -> None:
        self._is_flushing = True

    def resume_writing(self) -> None:
        self._is_flushing = False
