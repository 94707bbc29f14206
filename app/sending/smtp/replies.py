"""What a mail server's answer means for the letter, and for the gateway. Pure.

An answer is about the letter from RCPT on; before that it is about us: the address we come from, our password, our sender (RFC 5321, 4.3.2).
Two sentences of the standards turn a 5yz into "later": a full mailbox (RFC 3463, 3.3) and 552 to RCPT (RFC 5321, 4.5.3.1.10).
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.sending.outcome import Accepted, Deferred, Outcome, Refused, Unknown

DETAIL_LIMIT = 500


class Stage(StrEnum):
    """How far a session, or a letter in it, had come."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    TLS = "tls"
    AUTH = "auth"
    IDLE = "idle"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"  # the final dot is out: from here on the server may have taken the letter (RFC 5321, 6.1)


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer: `250 2.1.0 Ok` or several lines of it."""

    code: int
    enhanced: str = ""  # RFC 3463: "5.1.1", or "" where the server gives none
    text: str = ""

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def closes(self) -> bool:
        """RFC 5321, 3.8: 421 announces the end of the session, in answer to anything."""
        return self.code == 421

    @property
    def status(self) -> str:
        return f"{self.code} {self.enhanced}" if self.enhanced else str(self.code)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a session is of no more use. With `of_gateway` every other session would fare alike: wrong password, sender not allowed."""

    stage: Stage
    detail: str
    code: str = ""
    of_gateway: bool = False


# RFC 3463, 3.2-3.8, the extensions of RFC 7372 and RFC 7505. Where a subject.detail is missing, its subject decides.
REASONS = {
    "1.1": "mailbox_unavailable",
    "1.2": "domain_unavailable",
    "1.3": "address_invalid",
    "1.4": "address_invalid",
    "1.6": "mailbox_unavailable",
    "1.7": "sender_refused",
    "1.8": "sender_refused",
    "1.10": "domain_unavailable",
    "1": "mailbox_unavailable",
    "2.1": "mailbox_disabled",
    "2.2": "mailbox_full",
    "2.3": "message_too_large",
    "2": "mailbox_unavailable",
    "3.1": "server_full",
    "3.4": "message_too_large",
    "3": "server_unavailable",
    "4": "no_route",
    "5": "protocol_error",
    "6": "content_refused",
    "7.8": "authentication_failed",
    "7": "policy",
}

# Servers that do not give enhanced codes: RFC 5321, 4.2.3.
REASONS_BY_CODE = {
    421: "server_unavailable",
    450: "mailbox_busy",
    451: "server_error",
    452: "server_full",
    455: "protocol_error",
    550: "mailbox_unavailable",
    551: "mailbox_unavailable",
    552: "mailbox_full",
    553: "address_invalid",
}

RELAYING = re.compile(r"\brelay", re.IGNORECASE)

# RFC 4954, 6: authentication required, too weak, needs encryption. Not one of them is about a recipient.
CODES_ABOUT_US = frozenset({530, 534, 535, 538})


def reason_for(reply: Reply, stage: Stage) -> str:
    """One word for the answer, from its enhanced code if it has one."""
    _, _, subject = reply.enhanced.partition(".")
    if subject == "7.1" and RELAYING.search(reply.text):
        return "relay_denied"
    if subject:
        return REASONS.get(subject) or REASONS.get(subject.partition(".")[0], "refused")
    if reply.code == 552 and stage is not Stage.RCPT:  # RFC 1870, 6.1: the size of the letter, not of the mailbox
        return "message_too_large"
    return REASONS_BY_CODE.get(reply.code, "refused")


def judge(reply: Reply, stage: Stage, retry_in: timedelta) -> Outcome:
    """What the answer to `stage` makes of the letter. `retry_in` goes into every Deferred that spends an attempt."""
    reason, detail = reason_for(reply, stage), reply.text[:DETAIL_LIMIT]
    if reply.is_positive and stage is Stage.DOT:
        return Accepted(ids=(queue_id(reply),))
    if not is_refusal(reply) and stage is Stage.DOT:
        return Unknown(detail=f"{reply.status} {detail}")
    if is_about_us(reply, stage) or not is_refusal(reply):
        return Deferred(reason, timedelta(0), spends_attempt=False, code=reply.status, detail=detail)
    # A full mailbox is emptied one day, and a relay that the server does not know yet is entered there: both get their attempts.
    if reply.code < 500 or reason in {"mailbox_full", "relay_denied"}:
        return Deferred(reason, retry_in, code=reply.status, detail=detail)
    return Refused(reason, code=reply.status, detail=detail)


def trouble_in(reply: Reply, stage: Stage) -> Trouble | None:
    """What the answer means for the session, when it cannot go on: it closes, it makes no sense, or it is about our configuration."""
    of_gateway = is_about_us(reply, stage)
    if of_gateway or reply.closes or not is_refusal(reply):
        return Trouble(stage, reply.text[:DETAIL_LIMIT], reply.status, of_gateway)
    return None


def is_refusal(reply: Reply) -> bool:
    return 400 <= reply.code < 600


def is_about_us(reply: Reply, stage: Stage) -> bool:
    """Whether any other letter would be answered alike: no right to send, or not from this sender. The size of a letter is its own matter."""
    if reply.code in CODES_ABOUT_US:
        return True
    return stage is Stage.MAIL and reply.code >= 500 and reason_for(reply, stage) != "message_too_large"


# `250 2.0.0 Ok: queued as 4bQx`, `250 OK id=1rQ`, `250 2.0.0 49A8 Message accepted for delivery`, `250 ok 1700000000 qp 4711`.
QUEUE_ID = re.compile(
    r"(?:queued (?:mail for delivery )?as|\bid=|\bqp)\s*<?([\w.@+-]+)|^<?([\w.@+-]*\d[\w.@+-]*)>? (?:Message )?(?:accepted|queued)", re.IGNORECASE
)


def queue_id(reply: Reply) -> str:
    """The id under which the server queued the letter, as it wrote it; "" where it gave none."""
    found = QUEUE_ID.search(reply.text)
    return (found[1] or found[2])[:200] if found else ""


ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|$)")


def read_reply(lines: list[bytes]) -> Reply:
    """The answer that these lines, without their line ends, make up. ValueError when they are no SMTP answer."""
    code = int(lines[0][:3])
    if not 200 <= code < 600 or len(lines[0][:3].strip()) != 3:
        raise ValueError(f"not an SMTP answer: {lines[0][:80]!r}")
    enhanced, texts = "", []
    for line in lines:
        text = line[4:].decode("utf-8", "replace").strip()
        found = ENHANCED.match(text)
        if found:
            enhanced, text = found[1], text[found.end() :]
        texts.append(text)
    return Reply(code, enhanced, " ".join(texts))
