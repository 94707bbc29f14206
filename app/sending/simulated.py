"""The far end of test keys: what becomes of a message is said by its address alone. Pure.

A real address, and whatever the tables do not name, is delivered. docs/keys.md has the same tables.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from app.gateways.router import SIMULATED
from app.sending.claim import Claimed
from app.sending.outcome import Accepted, Deferred, Outcome, Refused, Unknown
from app.sending.settle import Policy

Says = Literal["delivered", "undelivered", "expired", "rejected", "deleted", "hard_bounce", "soft_bounce", "nothing"]

NUMBERS, DOMAIN = "+799900000", "@simulator.example"
AGAIN = timedelta(seconds=2)  # a throttled message is tried again
POLICY = Policy(gateway=SIMULATED, receipt_group=SIMULATED, backoff_min=timedelta(seconds=1), backoff_max=timedelta(seconds=4), attempts=3)


@dataclass(frozen=True, slots=True)
class Fate:
    """What is answered to the first try, and to the others; and what is heard of it later."""

    first: Outcome | None = None  # nothing: it is taken
    others: Outcome | None = None
    says: Says = "delivered"


THROTTLED = Deferred("throttled", AGAIN, spends_attempt=False, code="0x00000058", detail="ESME_RTHROTTLED")
BUSY = Deferred("refused_for_now", AGAIN, code="0x00000014", detail="ESME_RMSGQFUL")
GREYLISTED = Deferred("policy", AGAIN, code="451 4.7.1", detail="simulated: greylisted")
SILENT = Unknown("no_answer", "simulated")
TAKEN = Fate()

# The last two digits of +7 999 000-00-xx.
SMS: dict[str, Fate] = {
    "00": TAKEN,
    "01": Fate(says="undelivered"),
    "02": Fate(says="expired"),
    "03": Fate(says="rejected"),
    "04": Fate(says="deleted"),
    "05": Fate(says="nothing"),
    "10": Fate(Refused("refused", "0x0000000B", "ESME_RINVDSTADR"), Refused("refused", "0x0000000B", "ESME_RINVDSTADR")),
    "11": Fate(THROTTLED),
    "12": Fate(BUSY),
    "13": Fate(BUSY, BUSY),
    "14": Fate(SILENT, SILENT),
}
# What stands before @simulator.example.
EMAIL: dict[str, Fate] = {
    "delivered": TAKEN,
    "bounce": Fate(says="hard_bounce"),
    "full": Fate(says="soft_bounce"),
    "refused": Fate(
        Refused("mailbox_unavailable", "550 5.1.1", "simulated: no such mailbox"), Refused("mailbox_unavailable", "550 5.1.1", "simulated: no such mailbox")
    ),
    "greylist": Fate(GREYLISTED),
    "busy": Fate(GREYLISTED, GREYLISTED),
    "silent": Fate(SILENT, SILENT),
}


def fate_of(channel: str, address: str) -> Fate:
    if channel == "sms":
        return SMS.get(address[-2:], TAKEN) if address.startswith(NUMBERS) and len(address) == len(NUMBERS) + 2 else TAKEN
    local, at, domain = address.lower().rpartition("@")
    return EMAIL.get(local, TAKEN) if at + domain == DOMAIN else TAKEN


def answer(claimed: Claimed) -> Outcome:
    """What comes of one try. An accepted SMS has an id for each part, a letter one."""
    fate = fate_of(claimed.channel, claimed.address)
    said = fate.first if claimed.tries == 0 else fate.others
    if said is not None:
        return said
    parts = claimed.parts if claimed.channel == "sms" else 1
    return Accepted(tuple(f"simulated-{claimed.id.hex}-{part + 1}" for part in range(parts)))


def heard_of(claimed: Claimed) -> Says:
    """What is heard later of a message that was taken. Of a letter that arrived nobody hears anything."""
    says = fate_of(claimed.channel, claimed.address).says
    return "nothing" if claimed.channel == "email" and says == "delivered" else says
