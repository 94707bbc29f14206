"""One message between ship() and its outcome, part by part. Pure: no clock, no socket.

The rules for a message of several parts:

- all parts taken: Accepted.
- a part refused for good: nothing more of it is written, what is out is awaited, then Refused with the ids of the taken parts.
- a part unanswered (time-out, link lost after the write): likewise, then Unknown. A refusal beside it wins: the message cannot be whole.
- a part put off (throttled, temporary) while no part was taken: the whole message is Deferred.
- a part put off while another was taken: only what was not taken goes again, inside the bind, a few times within the response
  time-out; after that Unknown("partial"). A part that was taken or may have been taken is never written a second time.
"""

from dataclasses import replace

from app.sending.outcome import Accepted, Deferred, Outcome, Refused, Unknown
from app.sending.smpp.compose import Composed, Shipment


class Flight:
    """The parts of one message: unwritten, on the wire, taken, put off or lost."""

    __slots__ = ("bodies", "cost", "deferral", "ids", "lost", "on_wire", "parts", "put_off", "refusal", "shipment", "started_at", "tries", "unheard")

    def __init__(self, shipment: Shipment, composed: Composed) -> None:
        self.shipment = shipment
        self.bodies = composed.bodies
        self.parts = composed.parts
        self.cost = composed.parts if len(composed.bodies) == 1 else 1  # tokens for each PDU
        self.ids: list[str | None] = [None] * len(composed.bodies)
        self.on_wire = 0
        self.put_off: list[int] = []  # parts to be written (again) once something has been decided
        self.deferral: Deferred | None = None
        self.refusal: Refused | None = None
        self.lost: str = ""
        self.unheard = 0  # parts that were given up without an answer
        self.started_at = 0.0
        self.tries = 0

    @property
    def is_whole(self) -> bool:
        """Nothing of it was taken and nothing may have been: it can go again as if it had never gone."""
        return not self.lost and not self.on_wire and not any(identity is not None for identity in self.ids)

    def taken(self, index: int, identity: str) -> None:
        self.on_wire -= 1
        self.ids[index] = identity

    def refused(self, outcome: Refused) -> None:
        self.on_wire -= 1
        self.refusal = self.refusal or outcome

    def postponed(self, index: int, outcome: Deferred) -> None:
        self.on_wire -= 1
        self.put_off.append(index)
        if self.deferral is None or outcome.spends_attempt:
            self.deferral = outcome

    def unanswered(self, detail: str) -> None:
        self.on_wire -= 1
        self.unheard += 1
        self.lost = detail

    def found(self, index: int, identity: str) -> None:
        """A part that had been given up was taken after all, while others are still out."""
        self.ids[index] = identity
        self.unheard -= 1
        if not self.unheard:
            self.lost = ""

    def outcome(self) -> Outcome | None:
        """What came of the message, or None while parts are out or have to go (again)."""
        if self.on_wire:
            return None
        ids = tuple(identity or "" for identity in self.ids) if any(self.ids) else ()
        if self.refusal is not None:
            return replace(self.refusal, ids=ids)
        if self.lost:
            return Unknown("no_answer", detail=self.lost, ids=ids)
        if None not in self.ids:
            return Accepted(ids or ("",) * len(self.ids))
        return self.deferral if self.is_whole else None

    def partial(self, detail: str) -> Unknown:
        """The outcome of a message of which some parts were taken and the others will not be written any more."""
        return Unknown("partial", detail=detail, ids=tuple(identity or "" for identity in self.ids))
