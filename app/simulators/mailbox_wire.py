# ruff: noqa: N802 -- aiosmtpd finds the commands by these names
"""A mailbox's side of one connection.

aiosmtpd does the protocol. Its MAIL, RCPT and DATA are replaced, because they parse addresses with the header parser of the standard
library and letters line by line: that costs more than everything the sending side does, on the same two cores in a benchmark.
"""

import asyncio
import re
from typing import TYPE_CHECKING, cast

from aiosmtpd.smtp import SMTP, Envelope

from app.simulators.mailbox_letters import HANG_UP, When

if TYPE_CHECKING:
    from app.simulators.mailbox import Mailbox

CHUNK = 65_536
MAIL = re.compile(r"FROM: ?<([^<>]*)>((?: [!-~]+)*)", re.IGNORECASE)
RCPT = re.compile(r"TO: ?<([^<>]+)>", re.IGNORECASE)


class MailboxSession(SMTP):
    """One connection to the mailbox."""

    # Of the stream's buffer: the default holds back reading after two lines' worth, many times a letter. What a line may be is checked below.
    line_length_limit = 256 * 1024

    def __init__(self, mailbox: "Mailbox") -> None:
        is_secure = mailbox.implicit_tls
        super().__init__(
            mailbox,
            hostname="mailbox.example",
            ident="simulated mailbox",
            data_size_limit=mailbox.size_limit,
            enable_SMTPUTF8=mailbox.smtputf8,
            tls_context=None if is_secure else mailbox.tls_context,
            # Where nobody has to authenticate, AUTH is not offered: this keeps it out of the answer to EHLO.
            auth_require_tls=mailbox.credentials is None or (mailbox.tls_context is not None and not is_secure),
            auth_exclude_mechanism=() if mailbox.credentials else ("LOGIN", "PLAIN"),
            authenticator=mailbox.authenticate,
            loop=asyncio.get_running_loop(),
        )
        self._mailbox = mailbox
        self._answers = 0
        self._is_greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self._mailbox.sessions:  # it is called once more after STARTTLS
            self._mailbox.connections += 1
            self._mailbox.sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._mailbox.sessions.discard(self)
        super().connection_lost(error)

    def hang_up(self) -> None:
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).abort()

    async def push(self, status: str | bytes) -> None:
        """Every answer passes here, the greeting first."""
        if not self._is_greeted:
            self._is_greeted = True
            if await self._answers_by_rule("connect"):
                self._close()
                return
        elif status[3:4] not in {"-", b"-"}:
            self._answers += 1
            if self._mailbox.hang_up_after is not None and self._answers > self._mailbox.hang_up_after:
                self.hang_up()
                return
        if self._mailbox.delay:
            await asyncio.sleep(self._mailbox.delay)
        await super().push(status.encode() if isinstance(status, str) else status)

    async def _answers_by_rule(self, when: When, *addresses: str) -> bool:
        """Whether a rule has given the answer."""
        rule = self._mailbox.rule_for(when, addresses)
        if rule is None:
            return False
        await asyncio.sleep(rule.delay)
        if rule.reply is None:
            return False
        if rule.reply == HANG_UP:
            self.hang_up()
            return True
        await self.push(rule.reply)
        if rule.reply.startswith("421"):
            self._close()
        return True

    def _close(self) -> None:
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).close()

    # --- commands ---

    async def smtp_EHLO(self, hostname: str) -> None:
        self._mailbox.commands["EHLO"] += 1
        if not await self._answers_by_rule("ehlo"):
            await super().smtp_EHLO(hostname)

    async def smtp_AUTH(self, arg: str) -> None:
        self._mailbox.commands["AUTH"] += 1
        if not await self._answers_by_rule("auth"):
            await super().smtp_AUTH(arg)

    async def smtp_NOOP(self, arg: str) -> None:
        self._mailbox.commands["NOOP"] += 1
        await super().smtp_NOOP(arg)

    async def smtp_RSET(self, arg: str) -> None:
        self._mailbox.commands["RSET"] += 1
        await super().smtp_RSET(arg)

    async def smtp_QUIT(self, arg: str) -> None:
        self._mailbox.commands["QUIT"] += 1
        await super().smtp_QUIT(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        self._mailbox.commands["MAIL"] += 1
        assert self.session is not None
        assert self.envelope is not None
        if await self.check_helo_needed():
            return
        if self._mailbox.credentials is not None and not self.session.authenticated:
            await self.push("530 5.7.0 Authentication required")
            return
        found = MAIL.fullmatch(arg or "")
        parameters = found[2].upper().split() if found else []
        size = next((int(value[5:]) for value in parameters if value.startswith("SIZE=") and value[5:].isdecimal()), 0)
        if found is None:
            await self.push("501 5.5.4 Syntax: MAIL FROM:<address>")
        elif self.envelope.mail_from is not None:
            await self.push("503 5.5.1 Nested MAIL command")
        elif not found[1].isascii() and "SMTPUTF8" not in parameters:
            await self.push("553 5.6.7 SMTPUTF8 was not asked for")
        elif size > self._mailbox.size_limit:
            await self.push("552 5.3.4 Message size exceeds fixed limit")
        elif not await self._answers_by_rule("mail", found[1]):
            self.envelope.mail_from = found[1]
            self.envelope.smtp_utf8 = "SMTPUTF8" in parameters
            await self.push("250 2.1.0 Ok")

    async def smtp_RCPT(self, arg: str | None) -> None:
        self._mailbox.commands["RCPT"] += 1
        assert self.envelope is not None
        found = RCPT.fullmatch(arg or "")
        if self.envelope.mail_from is None:
            await self.push("503 5.5.1 Need MAIL command")
        elif found is None:
            await self.push("501 5.5.4 Syntax: RCPT TO:<address>")
        elif not found[1].isascii() and not self.envelope.smtp_utf8:
            await self.push("553 5.6.7 SMTPUTF8 was not asked for")
        elif not await self._answers_by_rule("rcpt", found[1]):
            self.envelope.rcpt_tos.append(found[1])
            await self.push("250 2.1.5 Ok")

    async def smtp_DATA(self, arg: str) -> None:
        self._mailbox.commands["DATA"] += 1
        assert self.envelope is not None
        if arg or not self.envelope.rcpt_tos:
            await self.push("501 5.5.4 Syntax: DATA" if arg else "554 5.5.1 No valid recipients")
            return
        if await self._answers_by_rule("data", *self.envelope.rcpt_tos):
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        self.envelope.content = await self._read_letter()
        envelope, self.envelope = self.envelope, Envelope()
        if await self._answers_by_rule("dot", *envelope.rcpt_tos):
            return
        complaint = complaint_about(cast("bytes", envelope.content)) if self._mailbox.keep else None
        if complaint is None:
            self._mailbox.receive(envelope)
        await self.push(complaint or f"250 2.0.0 Ok: queued as {self._mailbox.count:08X}")

    async def _read_letter(self) -> bytes:
        """Octets up to the lone dot, without it and without the dots that were doubled (RFC 5321, 4.5.2). What follows stays in the stream."""
        data = bytearray(b"\r\n")  # as if a line had ended before: then an empty letter has the same end as any other
        while (end := data.find(b"\r\n.\r\n", max(0, len(data) - CHUNK - 5))) < 0:
            chunk = await self._reader.read(CHUNK)
            if not chunk:
                raise ConnectionResetError
            data += chunk
        if rest := data[end + 5 :]:
            self._reader.feed_data(bytes(rest))
        return bytes(data[2 : end + 2]).replace(b"\r\n..", b"\r\n.")


def complaint_about(letter: bytes) -> str | None:
    """The answer to a letter that strict servers refuse, each of them for one of these reasons."""
    if letter.count(b"\n") != letter.count(b"\r\n") or letter.count(b"\r") != letter.count(b"\r\n"):
        return "550 5.6.11 Bare CR or LF"
    if max(map(len, letter.split(b"\r\n"))) > 998:  # RFC 5322, 2.1.1
        return "500 5.6.0 Line too long"
    return None
