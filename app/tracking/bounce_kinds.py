"""What a report of a mail server makes of a letter: one table of enhanced status codes (RFC 3463, and the registry of RFC 5248). Pure.

complaint   the subscriber's provider says that he called the letter junk
hard        the address does not work, and will not tomorrow: nothing goes there any more
soft        this letter was given up: a full mailbox, a server that was away, a policy. The next one may arrive
delayed     the server still tries
delivered   it arrived
unknown     nothing that says what became of the letter: an answer of a holiday, a report that it was passed on
"""

import re
from dataclasses import dataclass
from typing import Literal

from app.sending.smtp.replies import Reply, Stage, reason_for
from app.tracking.dsn import STATUS, About, Report

Kind = Literal["hard", "soft", "complaint", "delayed", "delivered", "unknown"]

# Subject and detail of a failure for good. 1.0: an address status that says no more; 1.5, 1.7, 1.8, 1.9 are about senders and good addresses.
HARD = frozenset({"1.0", "1.1", "1.2", "1.3", "1.4", "1.6", "1.10", "2.1", "4.4", "4.310"})
# What some servers say with a code that means something else by the standard, and others without any: the recipient is not there.
NOBODY = re.compile(
    r"user unknown|unknown user|unknown (?:local )?(?:recipient|mailbox)|no such (?:user|recipient|mailbox|address)|user (?:was )?not found"
    r"|mailbox (?:does not exist|not found)|(?:user|account|address) (?:does not|doesn't) exist|recipient address rejected: access denied",
    re.IGNORECASE,
)
VAGUE = ("0.0", "4.1")  # 5.0.0: anything at all; 5.4.1: no answer, or by Exchange Online a recipient that is not there

# RFC 5965, 7.3, and RFC 6430: somebody does not want the letters. `not-spam` is the contrary, `auth-failure` (RFC 6591) and `virus` are about senders.
COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "opt-out-list"})

# Of several recipients none of whom is ours (an alias, a list) the mildest counts: somebody has got it.
MILDEST = ("delivered", "delayed", "unknown", "soft", "hard")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason`: for the message, in the words of a mail server's answers."""

    kind: Kind
    reason: str = ""
    status: str = ""
    diagnostic: str = ""
    recipient: str = ""


def judge(report: Report, address: str) -> Verdict:
    """What the report says of a letter to this address. Pass "" where it is not known."""
    if report.source == "arf":
        kind: Kind = "complaint" if report.feedback in COMPLAINTS else "unknown"
        return Verdict(kind, "complaint" if kind == "complaint" else "", diagnostic=report.feedback, recipient=next(iter(report.complainers), ""))
    if not report.about:
        return Verdict("unknown")
    ours = [one for one in report.about if address and address.lower() in (one.original.lower(), one.final.lower())]
    return min(map(_verdict, ours or report.about), key=lambda verdict: MILDEST.index(verdict.kind))


def _verdict(about: About) -> Verdict:
    status = _status(about)
    kind = _kind(about.action, status, about.diagnostic)
    return Verdict(kind, reason_of(kind, status, about.diagnostic), status, about.diagnostic, about.original or about.final)


def reason_of(kind: Kind, status: str, diagnostic: str) -> str:
    """Why, for the message."""
    if kind == "hard" and status.partition(".")[2] in {*VAGUE, ""}:
        return "mailbox_unavailable"
    return reason_for(Reply(0, status, diagnostic), Stage.DOT) if status else "refused"


def is_dead(status: str, diagnostic: str) -> bool:
    """Whether a refusal for good, with this enhanced code (or none) and in these words, says that the address does not work."""
    return _kind("failed", status, diagnostic) == "hard"


def _status(about: About) -> str:
    """The more exact of the two that a report has: many gateways write 5.0.0, and the true one stands in the server's own words."""
    said = STATUS.search(about.diagnostic)
    vague = not about.status or about.status.endswith(".0.0")
    return said[1] if vague and said is not None and said[1][0] == (about.status or said[1])[0] else about.status


def _kind(action: str, status: str, diagnostic: str) -> Kind:
    permanence, _, detail = status.partition(".")
    if not action:
        action = {"2": "delivered", "4": "delayed", "5": "failed"}.get(permanence, "")
    if action in {"delayed", "delivered"}:
        return "delayed" if action == "delayed" else "delivered"
    if action != "failed":
        return "unknown"  # relayed, expanded: passed on, and nobody will say more
    if permanence == "4":
        return "soft"  # tried for days, and given up
    if detail in HARD or (detail in {*VAGUE, ""} and NOBODY.search(diagnostic)):
        return "hard"
    return "soft"
