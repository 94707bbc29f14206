"""The states of a message: one table that the code, the SQL and the CHECK agree on.

    held <-> queued -> sending -> accepted -> delivered | undelivered | expired
      |         |         |-> queued     not sent, throttled, bind lost (not counted); refused for now (counted)
      |         |         |-> held       put off, and its window has closed meanwhile
      |         |         |-> failed     refused for good, or attempts used up
      |         |         `-> unknown    submitted, no answer -> accepted | delivered | undelivered | expired
      `---------`-> cancelled | expired  nobody needs it any more | too late to be of use

A message that waits `queued` for the one second try after a silence (`resend_once`) is in doubt as well: an answer or a receipt for its first try ends
it as they would end an `unknown` one, and when its time is over, or when it is cancelled, it is `unknown`. So is everything that may have gone before a
restore of the database (app/desk/after_restore.py).

`held`, `queued` and `sending` live in the outbox (a row there is a message that is still ours to send); the others live on the message.
"""

from enum import StrEnum


class State(StrEnum):
    HELD = "held"
    QUEUED = "queued"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    EXPIRED = "expired"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


NEXT: dict[State, frozenset[State]] = {
    State.HELD: frozenset({State.QUEUED, State.CANCELLED, State.EXPIRED}),
    State.QUEUED: frozenset({State.HELD, State.SENDING, State.CANCELLED, State.EXPIRED}),
    State.SENDING: frozenset({State.QUEUED, State.HELD, State.ACCEPTED, State.FAILED, State.UNKNOWN, State.EXPIRED}),
    State.ACCEPTED: frozenset({State.DELIVERED, State.UNDELIVERED, State.EXPIRED}),
    # A late receipt, or a late answer, is the only thing that can clear up an unanswered submit.
    State.UNKNOWN: frozenset({State.ACCEPTED, State.DELIVERED, State.UNDELIVERED, State.EXPIRED}),
    # Late truth: a handset that came back after the SMSC had given up. Nothing else overwrites a final state.
    State.UNDELIVERED: frozenset({State.DELIVERED}),
    State.EXPIRED: frozenset({State.DELIVERED}),
    State.DELIVERED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

# Beside NEXT, for messages that wait for their one second try: silence has left them in doubt already. Not a part of it, for its rows are the guards of
# messages that have left the outbox.
SECOND_TRY: dict[State, frozenset[State]] = {
    State.HELD: frozenset({State.UNKNOWN, State.ACCEPTED}),
    State.QUEUED: frozenset({State.UNKNOWN, State.ACCEPTED}),
}

IN_OUTBOX = frozenset({State.HELD, State.QUEUED, State.SENDING})


def before(state: State) -> list[str]:
    """The states from which this one may be entered: the guard of an UPDATE, passed as a parameter."""
    return [earlier.value for earlier, later in NEXT.items() if state in later]
