"""The far end of e-mail: a server that takes letters, keeps them to be looked at, and refuses, dawdles and hangs up as told."""

import asyncio
import logging
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Self, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from app.simulators.mailbox_http import LetterReader
from app.simulators.mailbox_letters import HANG_UP, ReceivedLetter, Rule, When
from app.simulators.mailbox_wire import MailboxSession

__all__ = ["HANG_UP", "Mailbox", "ReceivedLetter", "Rule", "serve"]


@dataclass
class Mailbox:
    """`async with Mailbox() as mailbox:` listens on `mailbox.port`; letters are in `mailbox.letters`, the latest `keep` of them.

    With `keep=0` they are only counted. `tls_context` is used at STARTTLS, or from the first octet when `implicit_tls`.
    `credentials` makes AUTH obligatory. `hang_up_after` closes every connection instead of giving one answer more than that.
    """

    port: int = 0
    host: str = "127.0.0.1"
    keep: int = 10_000
    rules: list[Rule] = field(default_factory=list)
    delay: float = 0.0
    hang_up_after: int | None = None
    tls_context: ssl.SSLContext | None = None
    implicit_tls: bool = False
    credentials: tuple[str, str] | None = None
    pipelining: bool = True
    smtputf8: bool = True
    size_limit: int = 32 * 1024 * 1024
    on_letter: Callable[[ReceivedLetter], None] | None = None

    def __post_init__(self) -> None:
        self.letters: deque[ReceivedLetter] = deque(maxlen=self.keep)
        self.count = 0
        self.connections = 0  # ever
        self.commands: Counter[str] = Counter()
        self.sessions: set[MailboxSession] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: MailboxSession(self), self.host, self.port, ssl=self.tls_context if self.implicit_tls else None)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def refuse(self, address: str, reply: str, *, when: When = "rcpt", times: int | None = None) -> None:
        """From now on letters to `address` (a pattern) are answered so."""
        self.rules.append(Rule(when, reply, address.lower(), times=times))

    def hang_up(self) -> None:
        """Resets every open connection."""
        for session in list(self.sessions):
            session.hang_up()

    @property
    def open_connections(self) -> int:
        return len(self.sessions)

    def receive(self, envelope: Envelope) -> None:
        self.count += 1
        if self.keep or self.on_letter is not None:
            recipients = tuple(envelope.rcpt_tos)
            letter = ReceivedLetter(cast("bytes", envelope.content), recipients[-1], envelope.mail_from or "", datetime.now(UTC), recipients)
            self.letters.append(letter)
            if self.on_letter is not None:
                self.on_letter(letter)

    def rule_for(self, when: When, addresses: Iterable[str]) -> Rule | None:
        """The first rule that fits; it is one use poorer."""
        if not self.rules:
            return None
        lowered = [address.lower() for address in addresses] or [""]
        for rule in self.rules:
            if rule.when == when and rule.times != 0 and any(fnmatchcase(address, rule.address) for address in lowered):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    async def handle_EHLO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> list[str]:  # noqa: ARG002, N802 -- aiosmtpd's
        session.host_name = hostname
        return [responses[0], *(["250-PIPELINING"] if self.pipelining else []), "250-ENHANCEDSTATUSCODES", *responses[1:]]

    def authenticate(self, server: object, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:  # noqa: ARG002 -- the shape is aiosmtpd's
        given = (data.login.decode(), data.password.decode()) if isinstance(data, LoginPassword) else None
        return AuthResult(success=given == self.credentials, handled=False)  # not handled: aiosmtpd answers 235 or 535 by itself


async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 2525,
    http_port: int | None = None,
    keep: int = 10_000,
    rules: Iterable[str] = (),
    delay: float = 0.0,
    username: str = "",
    password: str = "",
    on_letter: Callable[[ReceivedLetter], None] | None = None,
    on_ready: Callable[[Mailbox, int | None], None] | None = None,
) -> None:
    """Runs a mailbox until it is cancelled. `rules` are texts as Rule.parse takes them; `on_ready` gets the ports that it listens on."""
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd's own: a line of it for every command, and warnings about itself
    mailbox = Mailbox(
        host=host,
        port=port,
        keep=keep,
        rules=[Rule.parse(rule) for rule in rules],
        delay=delay,
        credentials=(username, password) if username else None,
        on_letter=on_letter,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(mailbox)
        reader = await stack.enter_async_context(LetterReader(mailbox.letters, host, http_port)) if http_port is not None else None
        if on_ready is not None:
            on_ready(mailbox, reader.port if reader is not None else None)
        await asyncio.Event().wait()
