# ruff: noqa: N802 -- aiosmtpd finds the commands by these names
"""The door for mail that comes back: LMTP (RFC 2033) or SMTP on one port, for one's own mail server alone.

250   stored, and what follows from it is done and committed
451   the database is away, or something of ours went wrong: the mail server keeps it and comes again
550   the address looks like one of ours and was never made by us
552, 554   too large, or not to be stored: again it would be the same
"""

import asyncio
import contextlib
import logging
import re

import structlog
from aiosmtpd.smtp import SMTP
from aiosmtpd.smtp import Envelope as Transaction
from aiosmtpd.smtp import Session as Conversation
from sqlalchemy.exc import DBAPIError

from app.core.db import Database, is_away, is_conflict, is_datas_fault
from app.sending.smtp.verp import Verp
from app.tracking.bounces import MOST_OCTETS, take

log = structlog.get_logger()

AT_ONCE = 4  # mails in the making: more of them would take the database from those who send
CONNECTIONS = 50
RECIPIENTS = 20  # of one mail; what comes back has one
PATIENCE = 120.0  # seconds for a command, or for a whole mail
AGAIN = 5.0  # seconds until a port that is taken is tried once more: another worker's listener may have ended
GRACE = 10.0  # seconds for what is in the making when the station ends
ACTOR = "bounces"

MAIL = re.compile(r"FROM: ?<([^<>]{0,320})>(?: [!-~]+)*", re.IGNORECASE)
RCPT = re.compile(r"TO: ?<([^<>]{1,320})>(?: [!-~]+)*", re.IGNORECASE)


class BounceStation:
    """What a worker runs for `bounces`. Of several on one machine one has the port, and the next takes it over."""

    def __init__(self, database: Database, verp: Verp, host: str, port: int) -> None:
        self.verp = verp
        self.port: int | None = None  # where it listens, when it does
        self.conversations: set[IntakeConversation] = set()
        self._database, self._host, self._wanted = database, host, port
        self._room = asyncio.Semaphore(AT_ONCE)
        self._at_work: set[asyncio.Task[str]] = set()
        self._stopping = asyncio.Event()

    def poke(self) -> None: ...

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Listen until it is stopped; what is in the making then is answered first."""
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's own: its lines have the addresses of subscribers
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                server = await loop.create_server(lambda: IntakeConversation(self), self._host, self._wanted)
            except OSError as error:
                log.warning("bounces_not_listening", port=self._wanted, error=error.strerror or type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), AGAIN)
                continue
            self.port = server.sockets[0].getsockname()[1]
            await self._stopping.wait()
            server.close()
            await self._end()

    async def _end(self) -> None:
        self.port = None
        if self._at_work:
            await asyncio.wait(self._at_work, timeout=GRACE)
            await asyncio.sleep(0)  # the answers are written
        for conversation in list(self.conversations):
            conversation.hang_up()

    async def handle_DATA(self, _: SMTP, __: Conversation, transaction: Transaction) -> str:
        """The answer to a whole mail. It is seen through also when whoever brought it hangs up meanwhile."""
        raw = transaction.content if isinstance(transaction.content, bytes) else b""
        task = asyncio.create_task(self._answer(raw, list(transaction.rcpt_tos)))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _answer(self, raw: bytes, recipients: list[str]) -> str:
        try:
            async with self._room:
                bounce = await take(self._database, self.verp, raw, recipients, by=ACTOR)
        except Exception as error:
            if isinstance(error, DBAPIError) and not is_away(error) and not is_conflict(error) and is_datas_fault(error):
                log.error("bounce_not_storable", exc_info=error)
                return "554 5.6.0 It cannot be stored"
            log.warning("bounce_put_off", error=type(error).__name__, detail=str(error)[:200])
            return "451 4.3.0 Try again later"
        return f"250 2.0.0 {bounce.kind} {bounce.id}"


class IntakeConversation(SMTP):
    """One connection. It speaks LMTP to whoever begins with LHLO."""

    line_length_limit = 64 * 1024  # what comes back may have longer lines than a letter may

    def __init__(self, station: BounceStation) -> None:
        super().__init__(
            station,
            hostname="vestnik",
            ident="bounces",
            data_size_limit=MOST_OCTETS,
            timeout=PATIENCE,
            auth_exclude_mechanism=("LOGIN", "PLAIN"),
            loop=asyncio.get_running_loop(),
        )
        self._station = station
        self._is_lmtp = False
        self._answers = 1  # to the mail that is being read
        self._is_turned_away = False

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._station.conversations) >= CONNECTIONS and isinstance(transport, asyncio.WriteTransport):
            self._is_turned_away = True
            transport.write(b"421 4.3.2 Too many connections\r\n")
            transport.close()
            return
        self._station.conversations.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_turned_away:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        return False if self._is_turned_away else super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_turned_away:
            self._station.conversations.discard(self)
            super().connection_lost(error)

    def hang_up(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.close()

    async def push(self, status: str | bytes) -> None:
        """Every answer passes here. By LMTP each recipient of a mail gets his own (RFC 2033, 4.2)."""
        text = status if isinstance(status, str) else status.decode("ascii", "replace")
        if text.startswith("354"):
            self._answers = len(self.envelope.rcpt_tos) if self._is_lmtp and self.envelope is not None else 1
        elif self._answers > 1:
            text, self._answers = "\r\n".join([text] * self._answers), 1
        await super().push(text)

    # --- commands: aiosmtpd reads addresses with the parser of headers, which is slow and takes what is none ---

    async def smtp_LHLO(self, arg: str) -> None:
        self._is_lmtp = True
        await super().smtp_EHLO(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        assert self.envelope is not None
        found = MAIL.fullmatch(arg or "")
        if found is None:
            await self.push("501 5.5.4 Syntax: MAIL FROM:<address>")
        elif self.envelope.mail_from is not None:
            await self.push("503 5.5.1 Nested MAIL command")
        else:
            self.envelope.mail_from = found[1]
            await self.push("250 2.1.0 Ok")

    async def smtp_RCPT(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        assert self.envelope is not None
        found = RCPT.fullmatch(arg or "")
        if self.envelope.mail_from is None:
            await self.push("503 5.5.1 Need MAIL command")
        elif found is None:
            await self.push("501 5.5.4 Syntax: RCPT TO:<address>")
        elif self._station.verp.is_forged(found[1]):
            await self.push("550 5.1.1 No such address")
        elif len(self.envelope.rcpt_tos) >= RECIPIENTS:
            await self.push("452 4.5.3 Too many recipients")
        else:
            self.envelope.rcpt_tos.append(found[1])
            await self.push("250 2.1.5 Ok")
