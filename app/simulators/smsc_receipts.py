"""The receipts that a simulated SMSC owes to an account: in time, within the window, and again until they are acknowledged."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.simulators import smsc_wire as wire

if TYPE_CHECKING:
    from app.simulators.smsc import SmscSimulator
    from app.simulators.smsc_link import Link


@dataclass(slots=True)
class Owed:
    """One deliver_sm body, and when it may go."""

    body: bytes
    due: float
    event: dict[str, Any] | None = None


class Account:
    """What one system_id has coming, over whichever of its links is up."""

    def __init__(self, smsc: "SmscSimulator") -> None:
        self._smsc = smsc
        self._owed: deque[Owed] = deque()
        self._again: deque[Owed] = deque()
        self._links: dict[Link, dict[int, Owed]] = {}  # what each link has not acknowledged
        self._timer: asyncio.TimerHandle | None = None

    @property
    def outstanding(self) -> int:
        """Receipts not acknowledged yet, sent or not."""
        return len(self._owed) + len(self._again) + sum(map(len, self._links.values()))

    def receipt(self, destination: bytes, identity: str, submit: wire.Submit | None) -> None:
        """Owe a receipt for an accepted submit, with the outcome that the options give this number."""
        smsc, behaviour = self._smsc, self._smsc.behaviour
        stat = "DELIVRD"
        if behaviour.outcomes:
            number = destination.decode("latin-1")
            stat = next((word for suffix, word in behaviour.outcomes.items() if number.endswith(suffix)), stat)
        if behaviour.failure_rate and smsc.random.random() < behaviour.failure_rate:
            stat = "UNDELIV"
        sender = submit.source.encode("latin-1") if submit is not None else b""
        reference = submit.tlvs.get(0x0204) if submit is not None else None
        err = "000" if stat == "DELIVRD" else "001"
        body = wire.receipt_body(
            source=destination, destination=sender, identity=identity, stat=stat, err=err, reference=reference, with_tlvs=submit is not None
        )
        event = {"kind": "receipt", "id": identity, "to": destination.decode("latin-1"), "stat": stat} if smsc.on_event is not None else None
        self.owe(Owed(body, asyncio.get_running_loop().time() + behaviour.receipt_delay, event))

    def owe(self, owed: Owed) -> None:
        self._owed.append(owed)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(owed.due, loop.time()), self._send)

    def joined(self, link: "Link") -> None:
        if link.receives:
            self._links[link] = {}
            self._send()

    def lost(self, link: "Link") -> None:
        """What this link did not acknowledge goes again over the next one."""
        for owed in self._links.pop(link, {}).values():
            self._again.append(owed)
        if self._again:
            self._send_soon(0.0)

    def answered(self, link: "Link", sequence: int, status: int) -> None:
        owed = self._links.get(link, {}).pop(sequence, None)
        if self._smsc.behaviour.keep_log:
            self._smsc.receipt_answers.append(status)
        if owed is None:
            return
        if status == 0:
            self._smsc.receipts_acknowledged += 1
        else:
            owed.due = asyncio.get_running_loop().time() + self._smsc.behaviour.redelivery_delay
            self._again.append(owed)
        if self._smsc.behaviour.receipt_window is not None or self._again:
            self._send_soon(0.0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _send_soon(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + delay
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._send)

    def _send(self) -> None:
        """Send what is due, as far as the links' windows go, all of it for one link in one write."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = asyncio.get_running_loop().time()
        limit = self._smsc.behaviour.receipt_window
        for link, unacknowledged in self._links.items():
            pieces: list[bytes] = []
            while limit is None or len(unacknowledged) < limit:
                owed = self._next(now)
                if owed is None:
                    break
                sequence = link.next_sequence()
                unacknowledged[sequence] = owed
                pieces.append(wire.frame(wire.DELIVER_SM, 0, sequence, owed.body))
                if owed.event is not None:
                    self._smsc.tell(owed.event)
                    owed.event = None  # told once, however often it is delivered
            if pieces:
                self._smsc.receipts_sent += len(pieces)
                link.write(b"".join(pieces))
        heads = [queue[0].due for queue in (self._owed, self._again) if queue]
        # With no link, or a full one, the next bind or acknowledgement sends.
        if heads and min(heads) > now and self._links:
            self._send_soon(min(heads) - now)

    def _next(self, now: float) -> Owed | None:
        for queue in (self._again, self._owed):
            if queue and queue[0].due <= now:
                return queue.popleft()
        return None
