"""One connection to the simulated SMSC: PDUs in, answers out, as its behaviour says."""

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from app.simulators import smsc_wire as wire

if TYPE_CHECKING:
    from app.simulators.smsc import SmscSimulator
    from app.simulators.smsc_receipts import Account

log = logging.getLogger(__name__)

SILENCE = -1  # as a status: no answer at all


class Link(asyncio.Protocol):
    """One connection of one ESME."""

    def __init__(self, smsc: "SmscSimulator") -> None:
        self.smsc = smsc
        self.behaviour = smsc.behaviour
        self.account: Account | None = None
        self.mode = ""
        self.unanswered = 0
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._later: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._next_part = 0.0
        self._sequence = 0
        # Nothing but the destination and the fact is needed: then a submit costs a fifth.
        self._is_hurried = not smsc.behaviour.keep_log and smsc.on_event is None and smsc.answer is None

    @property
    def receives(self) -> bool:
        return self.mode in ("receiver", "transceiver")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.smsc.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.smsc.closed(self)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        end = 0
        try:
            for command, status, sequence, start, end in wire.frames(data):
                self._take((command, status, sequence), data, start, end)
                if self._transport is None or self._transport.is_closing():
                    return
        except ValueError:
            log.warning("garbage from an ESME; reset")
            self.reset()
            return
        self._rest = data[end:]
        self.flush()

    def write(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)

    def reset(self) -> None:
        """RST, so that what is under way is lost on both sides."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self.smsc.closed(self)

    def next_sequence(self) -> int:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        return self._sequence

    def flush(self) -> None:
        if self._out:
            self.write(b"".join(self._out))
            self._out.clear()

    def _take(self, header: tuple[int, int, int], data: bytes, start: int, end: int) -> None:
        command, status, sequence = header
        if command == wire.SUBMIT_SM:
            self._submit(sequence, data, start, end)
        elif command == wire.DELIVER_SM | wire.RESPONSE:
            if self.account is not None:
                self.account.answered(self, sequence, status)
        elif command == wire.ENQUIRE_LINK:
            self.smsc.enquired += 1
            self._out.append(wire.frame(wire.ENQUIRE_LINK | wire.RESPONSE, 0, sequence))
        elif command in wire.BINDS:
            self._bind(command, sequence, data[start:end])
        elif command == wire.UNBIND:
            self.smsc.unbinds += 1
            self._out.append(wire.frame(wire.UNBIND | wire.RESPONSE, 0, sequence))
            self.flush()
            if self._transport is not None:
                self._transport.close()
        else:
            self.smsc.other.append((command, status, sequence))

    def _bind(self, command: int, sequence: int, body: bytes) -> None:
        smsc, behaviour = self.smsc, self.behaviour
        system_id, password = (field.decode("latin-1") for field in body.split(b"\0", 2)[:2])
        status = 0
        if len(smsc.binds) < len(behaviour.bind_statuses):
            status = behaviour.bind_statuses[len(smsc.binds)]
        elif behaviour.system_id not in (None, system_id):
            status = 0x0F
        elif behaviour.password not in (None, password):
            status = 0x0E
        smsc.binds.append((time.monotonic(), system_id, password, status))
        if status == SILENCE:
            return
        # SMPP 3.4, 4.1.2: after an error the body may be left out.
        self._out.append(wire.frame(command | wire.RESPONSE, status, sequence, b"" if status else b"simulator\0"))
        if status == 0:
            self.mode = wire.BINDS[command]
            self.account = smsc.account(system_id)
            smsc.links.append(self)
            self.flush()
            self.account.joined(self)

    def _submit(self, sequence: int, data: bytes, start: int, end: int) -> None:
        smsc = self.smsc
        address, address_end = wire.destination_of(data, start)
        destination = data[address:address_end]
        submit = None
        if self._is_hurried:
            smsc.count(destination, data[address_end + 4 : end])
        else:
            submit = wire.read_submit(sequence, data[start:end])
            if submit is None:
                self._reply(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0x02, sequence))
                return
            smsc.count(destination, submit.short_message + submit.tlvs.get(0x0424, b"") + submit.tlvs.get(0x020F, b""))
            if self.behaviour.keep_log:
                smsc.submits.append(submit)
        self.unanswered += 1
        smsc.most_unanswered = max(smsc.most_unanswered, self.unanswered)
        status: int | bytes = self._verdict(destination.decode("latin-1"), submit)
        if status == SILENCE:
            return
        if isinstance(status, bytes):
            self._reply(status)
            return
        if status:
            self._reply(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, status, sequence))
            return
        smsc.accepted += 1
        identity = smsc.next_id()
        self._reply(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0, sequence, identity.encode() + b"\0"))
        if submit is not None:
            smsc.keep(submit)
        if self.behaviour.receipts and self.account is not None and self._wants_receipt(data, address_end, end):
            self.account.receipt(destination, identity, submit)

    def _wants_receipt(self, data: bytes, address_end: int, end: int) -> bool:
        # esm_class, protocol_id and priority, two times, then registered_delivery
        first = data.index(b"\0", address_end + 4, end)
        second = data.index(b"\0", first + 1, end)
        return bool(data[second + 1] & 0x03)

    def _verdict(self, destination: str, submit: wire.Submit | None) -> int | bytes:
        """The status to answer with: what the test says, else what the options say."""
        smsc, behaviour = self.smsc, self.behaviour
        if smsc.answer is not None and submit is not None:
            return smsc.answer(submit)
        if behaviour.silent or (behaviour.silence_rate and smsc.random.random() < behaviour.silence_rate):
            return SILENCE
        if behaviour.drop_rate and smsc.random.random() < behaviour.drop_rate:
            self.reset()
            return SILENCE
        if behaviour.window is not None and self.unanswered > behaviour.window:
            return behaviour.window_status
        if behaviour.rate is not None:
            now = asyncio.get_running_loop().time()
            if now < self._next_part - 1 / behaviour.rate:
                return 0x58
            self._next_part = max(self._next_part, now) + 1 / behaviour.rate
        for suffix, status in behaviour.errors.items():
            if destination.endswith(suffix):
                return status
        if behaviour.error_rate and smsc.random.random() < behaviour.error_rate:
            return behaviour.error_status
        return 0

    def _reply(self, octets: bytes) -> None:
        if not self.behaviour.answer_delay:
            self.unanswered -= 1
            self._out.append(octets)
            return
        loop = asyncio.get_running_loop()
        self._later.append((loop.time() + self.behaviour.answer_delay, octets))
        if self._timer is None:
            self._timer = loop.call_later(self.behaviour.answer_delay, self._reply_late)

    def _reply_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._later and self._later[0][0] <= loop.time() + 0.0005:
            self.unanswered -= 1
            self._out.append(self._later.popleft()[1])
        self.flush()
        if self._later:
            self._timer = loop.call_at(self._later[0][0], self._reply_late)
