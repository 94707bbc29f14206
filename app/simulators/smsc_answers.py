"""When the answers of one link leave: at once, late, in reverse, or only after an unbind_resp."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from app.simulators import smsc_wire as wire
from app.simulators.smsc_scenario import OnSubmit

if TYPE_CHECKING:
    from app.simulators.smsc_link import Link

REORDER_PATIENCE = 0.3  # seconds after which collected answers leave, however few there are
OPTIONAL = wire.tlv(0x001D, b"as the scenario says\0") + wire.tlv(0x1401, b"\x01\xff\x00")  # additional_status_info_text, and a vendor's


class Answers:
    """`delay`: of every answer, in seconds."""

    def __init__(self, link: "Link", delay: float) -> None:
        self._link, self._delay = link, delay
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._collected: list[bytes] = []  # they leave in reverse
        self._held: list[bytes] | None = None  # they wait for an unbind_resp

    def give(self, octets: bytes) -> None:
        """In the ordinary way."""
        if self._held is not None:
            self._held.append(octets)
        elif not self._delay:
            self._link.answer(octets)
        else:
            loop = asyncio.get_running_loop()
            self._delayed.append((loop.time() + self._delay, octets))
            if self._timer is None:
                self._timer = loop.call_later(self._delay, self._give_delayed)

    def later(self, seconds: float, octets: bytes) -> None:
        asyncio.get_running_loop().call_later(seconds, self._give_now, [octets])

    def by_rule(self, rule: OnSubmit, octets: bytes, delay: float) -> None:
        if rule.reorder > 1:
            self._collected.append(octets)
            if len(self._collected) == 1:
                asyncio.get_running_loop().call_later(REORDER_PATIENCE, self._give_collected)
            if len(self._collected) >= rule.reorder:
                self._give_collected()
        elif delay:
            self.later(delay, octets)
        else:
            self.give(octets)

    def hold(self) -> None:
        """Nothing leaves until `release()`."""
        self._held = []

    def release(self) -> bool:
        """Give what was held; false when nothing was to be held."""
        held, self._held = self._held, None
        for octets in held or ():
            self._link.answer(octets)
        return held is not None

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _give_now(self, answers: list[bytes]) -> None:
        for octets in answers:
            self.give(octets)
        self._link.flush()

    def _give_collected(self) -> None:
        collected, self._collected = self._collected, []
        self._give_now(collected[::-1])

    def _give_delayed(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._delayed and self._delayed[0][0] <= loop.time() + 0.0005:
            self._link.answer(self._delayed.popleft()[1])
        self._link.flush()
        if self._delayed:
            self._timer = loop.call_at(self._delayed[0][0], self._give_delayed)


def refusal(rule: OnSubmit, status: int, sequence: int) -> bytes:
    """A PDU that says no, with the body that the rule wants."""
    if rule.nack is not None:
        return wire.frame(wire.GENERIC_NACK, status, sequence if rule.nack == "ours" else 0)
    body = {"header": b"", "nul": b"\0", "tlv": b"\0" + OPTIONAL, "garbage": b"\xff\x00\x1e\xff\xff" * 9}[rule.body]
    return wire.frame(wire.SUBMIT_SM | wire.RESPONSE, status, sequence, body)
