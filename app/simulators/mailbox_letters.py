"""What a mailbox is told to do, and what it got."""

from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import cached_property
from typing import Any, Literal, cast

When = Literal["connect", "ehlo", "auth", "mail", "rcpt", "data", "dot"]
HANG_UP = ""  # as a reply: close the connection without one


@dataclass
class Rule:
    """Instead of the usual answer: `reply` ("550 5.1.1 No such user", or HANG_UP) after `delay` seconds; None delays the usual one.

    `address` is a pattern (`*@full.example`) for the recipient, or for the sender at MAIL. `times` says how often; None: always.
    """

    when: When
    reply: str | None = None
    address: str = "*"
    delay: float = 0.0
    times: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """`nobody@*=550 5.1.1 No such user`, at RCPT, or with the command in front: `dot:*@slow.example=451 4.3.0 Later`."""
        pattern, equals, reply = text.partition("=")
        when, colon, address = pattern.partition(":")
        if not colon:
            when, address = "rcpt", pattern
        if not equals or when not in {"mail", "rcpt", "data", "dot"} or not reply[:3].isdecimal():
            raise ValueError(f"not a rule: {text!r}; expected address=reply, like nobody@*=550 5.1.1 No such user")
        return cls(cast("When", when), reply, address.lower())


@dataclass(frozen=True)
class ReceivedLetter:
    """A letter as it came. What needs parsing is parsed when asked for."""

    raw: bytes
    to: str
    sender: str
    at: datetime
    recipients: tuple[str, ...] = ()

    @cached_property
    def parsed(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=default)

    @property
    def subject(self) -> str:
        return str(self.parsed["subject"] or "")

    @property
    def text(self) -> str:
        return self._content("plain")

    @property
    def html(self) -> str:
        return self._content("html")

    def _content(self, subtype: str) -> str:
        part = self.parsed.get_body((subtype,))
        return str(part.get_content()).replace("\r\n", "\n") if part is not None else ""

    def as_json(self) -> dict[str, Any]:
        headers = {name: str(value) for name, value in self.parsed.items()}
        return {
            "at": self.at.isoformat(),
            "sender": self.sender,
            "to": self.to,
            "recipients": list(self.recipients),
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "headers": headers,
            "size": len(self.raw),
        }
