"""The receipts that a simulated SMSC owes to an account: in time, within the window, and again until they are acknowledged."""

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.simulators import smsc_wire as wire
from app.simulators.smsc_forms import Told, body_of
from app.simulators.smsc_ids import FORMS
from app.simulators.smsc_scenario import OnReceipt

if TYPE_CHECKING:
    from app.simulators.smsc import SmscSimulator
    from app.simulators.smsc_link import Link

BURST_PATIENCE = 10.0  # seconds after which a burst goes, however small it is


@dataclass(slots=True)
class Owed:
    """One deliver_sm or data_sm body, and when it may go."""

    body: bytes
    due: float
    event: dict[str, Any] | None = None
    command: int = wire.DELIVER_SM
    facts: dict[str, Any] | None = None  # for the log
    avoid: "Link | None" = None  # not over this link, while there is another one


class Account:
    """What one system_id has coming, over whichever of its links is up."""

    def __init__(self, smsc: "SmscSimulator") -> None:
        self._smsc = smsc
        self._owed: deque[Owed] = deque()  # all with the same delay: in the order of their time
        self._again: deque[Owed] = deque()
        self._timed: list[tuple[float, int, Owed]] = []  # a heap: those of scenarios
        self._burst: list[Owed] = []
        self._links: dict[Link, dict[int, Owed]] = {}  # what each link has not acknowledged
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0

    @property
    def outstanding(self) -> int:
        """Receipts not acknowledged yet, sent or not."""
        return len(self._owed) + len(self._again) + len(self._timed) + len(self._burst) + sum(map(len, self._links.values()))

    def receipt(self, destination: bytes, number: int, submit: wire.Submit | None, via: "Link") -> float:
        """Owe the receipts for an accepted submit. How many seconds its answer has to wait, so that a receipt can be first."""
        smsc, behaviour = self._smsc, self._smsc.behaviour
        stat = "DELIVRD"
        if behaviour.outcomes:
            written = destination.decode("latin-1")
            stat = next((word for suffix, word in behaviour.outcomes.items() if written.endswith(suffix)), stat)
        if behaviour.failure_rate and smsc.random.random() < behaviour.failure_rate:
            stat = "UNDELIV"
        rule = smsc.player.on_receipt(via.number, submit) if smsc.player is not None and submit is not None else None
        if rule is not None and submit is not None:
            return self._play(rule, destination, number, submit, stat, via)
        identity = smsc.identities.of_receipt(number)
        sender = submit.source.encode("latin-1") if submit is not None else b""
        reference = submit.tlvs.get(0x0204) if submit is not None else None
        err = "000" if stat == "DELIVRD" else "001"
        body = wire.receipt_body(
            source=destination, destination=sender, identity=identity, stat=stat, err=err, reference=reference, with_tlvs=submit is not None
        )
        event = {"kind": "receipt", "id": identity, "to": destination.decode("latin-1"), "stat": stat} if smsc.on_event is not None else None
        facts = {"id": identity, "to": destination.decode("latin-1"), "stat": stat} if smsc.log.is_on else None
        self.owe(Owed(body, asyncio.get_running_loop().time() + behaviour.receipt_delay, event, facts=facts))
        return 0.0

    def owe(self, owed: Owed) -> None:
        self._owed.append(owed)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(owed.due, loop.time()), self._send)
        elif self._timed:
            self._send_soon(max(0.0, owed.due - asyncio.get_running_loop().time()))

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
        if owed.facts is not None:
            self._smsc.log.note("ack", status=status, bind=link.number, **owed.facts)
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

    # -- receipts of a scenario

    def _play(self, rule: OnReceipt, destination: bytes, number: int, submit: wire.Submit, stat: str, via: "Link") -> float:
        smsc = self._smsc
        if rule.lost:
            smsc.log.note("no_receipt", to=submit.destination, id=submit.identity)
            return 0.0
        assert smsc.player is not None
        due = asyncio.get_running_loop().time() + smsc.player.seconds(rule.delay)
        for state in rule.states or [stat]:
            told = self._told(rule, destination, number, submit, state)
            command, body = body_of(told)
            facts = {"id": told.tlv_id, "to": submit.destination, "stat": state, "carrier": rule.carrier, "echo": told.reference is not None}
            for _ in range(rule.copies):
                self._owe_at(Owed(body, due, command=command, facts=facts if smsc.log.is_on else None, avoid=via if rule.elsewhere else None), rule.burst)
            due += smsc.player.seconds(rule.gap)
        if rule.lead:
            self._send()
        return rule.lead

    def _told(self, rule: OnReceipt, destination: bytes, number: int, submit: wire.Submit, stat: str) -> Told:
        identity = FORMS[rule.ids](number) if rule.ids else self._smsc.identities.of_receipt(number)
        return Told(
            source=destination,
            destination=submit.source.encode("latin-1"),
            text_id=rule.text_id or identity,
            tlv_id=identity,
            stat=stat,
            err=rule.err if rule.err is not None else "000" if stat in ("DELIVRD", "ENROUTE", "ACCEPTD") else "001",
            form=rule.form,
            carrier=rule.carrier,
            esm_class=rule.esm_class,
            reference=submit.tlvs.get(0x0204) if rule.echo_reference else None,
            network_error=bytes.fromhex(rule.network_error),
        )

    def _owe_at(self, owed: Owed, burst: int) -> None:
        if burst:
            self._burst.append(owed)
            if len(self._burst) == 1:
                asyncio.get_running_loop().call_later(BURST_PATIENCE, self._release_burst)
            if len(self._burst) >= burst:
                self._release_burst()
            return
        self._count += 1
        heapq.heappush(self._timed, (owed.due, self._count, owed))
        self._send_soon(max(0.0, owed.due - asyncio.get_running_loop().time()))

    def _release_burst(self) -> None:
        self._again.extend(self._burst)
        self._burst.clear()
        self._send_soon(0.0)

    # -- sending

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
        # What one link had to leave to another one may have held up something of its own.
        while self._send_over_all(now) and len(self._links) > 1:
            pass
        heads = [queue[0].due for queue in (self._owed, self._again) if queue] + [due for due, _, _ in self._timed[:1]]
        # With no link, or a full one, the next bind or acknowledgement sends.
        if heads and min(heads) > now and self._links:
            self._send_soon(min(heads) - now)
        elif later := [due for due in heads if due > now]:
            self._send_soon(min(later) - now)

    def _send_over_all(self, now: float) -> int:
        return sum([self._send_over(link, now) for link in list(self._links)])

    def _send_over(self, link: "Link", now: float) -> int:
        """How many were sent."""
        limit, unacknowledged = self._smsc.behaviour.receipt_window, self._links.get(link, {})
        pieces: list[bytes] = []
        while limit is None or len(unacknowledged) < limit:
            owed = self._next(now, link)
            if owed is None:
                break
            sequence = link.next_sequence()
            unacknowledged[sequence] = owed
            pieces.append(wire.frame(owed.command, 0, sequence, owed.body))
            if owed.event is not None:
                self._smsc.tell(owed.event)
                owed.event = None  # told once, however often it is delivered
            if owed.facts is not None:
                self._smsc.log.note("receipt", bind=link.number, **owed.facts)
        if pieces:
            self._smsc.receipts_sent += len(pieces)
            link.write(b"".join(pieces))
        return len(pieces)

    def _next(self, now: float, link: "Link") -> Owed | None:
        others = len(self._links) > 1
        for queue in (self._again, self._owed):
            if queue and queue[0].due <= now and not (others and queue[0].avoid is link):
                return queue.popleft()
        if self._timed and self._timed[0][0] <= now and not (others and self._timed[0][2].avoid is link):
            return heapq.heappop(self._timed)[2]
        return None
