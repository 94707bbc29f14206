"""One connection to the simulated SMSC: PDUs in, answers out, as its behaviour and its scenario say."""

import asyncio
import logging
import socket
import struct
import time
from typing import TYPE_CHECKING

from app.simulators import smsc_wire as wire
from app.simulators.smsc_answers import OPTIONAL, Answers, refusal
from app.simulators.smsc_scenario import LinkAction, OnBind, OnSubmit, OnTime

if TYPE_CHECKING:
    from app.simulators.smsc import SmscSimulator
    from app.simulators.smsc_receipts import Account

log = logging.getLogger(__name__)

SILENCE = -1  # as a status: no answer at all
SUBMIT_SM_RESP = wire.SUBMIT_SM | wire.RESPONSE
RECEIPT_ANSWERS = (wire.DELIVER_SM | wire.RESPONSE, wire.DATA_SM | wire.RESPONSE)


class Link(asyncio.Protocol):
    """One connection of one ESME."""

    def __init__(self, smsc: "SmscSimulator") -> None:
        self.smsc = smsc
        self.behaviour = smsc.behaviour
        self.account: Account | None = None
        self.mode = ""
        self.number = 0  # the n-th bind that was accepted
        self.unanswered = 0
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._answers = Answers(self, smsc.behaviour.answer_delay)
        self._next_part = 0.0
        self._sequence = 0
        self._frozen = False
        # Nothing but the destination and the fact is needed: then a submit costs a fifth.
        self._is_hurried = not (smsc.behaviour.keep_log or smsc.on_event is not None or smsc.answer is not None or smsc.player or smsc.log.is_on)

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
        self._answers.end()
        self.smsc.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._frozen:
            return
        data = self._rest + data
        end = 0
        try:
            for command, status, sequence, start, end in wire.frames(data):
                self._take((command, status, sequence), data, start, end)
                if self._transport is None or self._transport.is_closing() or self._frozen:
                    return
        except ValueError:
            log.warning("garbage from an ESME; reset")
            self.reset()
            return
        self._rest = data[end:]
        self.flush()

    def write(self, octets: bytes) -> None:
        if self._transport is not None and not self._frozen:
            self._transport.write(octets)

    def next_sequence(self) -> int:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        return self._sequence

    def answer(self, octets: bytes) -> None:
        """One submit is answered; it leaves with the next flush."""
        self.unanswered -= 1
        self._out.append(octets)

    def flush(self) -> None:
        if self._out:
            self.write(b"".join(self._out))
            self._out.clear()

    # -- how a link ends, or seems to live

    def reset(self) -> None:
        """RST, so that what is under way is lost on both sides."""
        if self._transport is not None:
            if (connection := self._transport.get_extra_info("socket")) is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            self._transport = None
            self.smsc.closed(self)

    def shut(self) -> None:
        """FIN: what was answered still leaves."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def freeze(self) -> None:
        """Half open: nothing goes in or out any more, and nobody hangs up."""
        self.flush()
        self._frozen = True
        self.smsc.unbound(self)

    def unbind(self) -> None:
        """Say unbind; answers wait for the unbind_resp, and after them the connection is closed."""
        self.flush()
        self._answers.hold()
        self.write(wire.frame(wire.UNBIND, 0, self.next_sequence()))

    def act(self, action: LinkAction | None) -> None:
        if action is not None and self._transport is not None:
            self.smsc.log.note("lost", bind=self.number, how=action)
            {"reset": self.reset, "close": self.shut, "freeze": self.freeze, "unbind": self.unbind}[action]()

    def say(self, rule: OnBind | OnSubmit | OnTime) -> None:
        """Write what a rule wants written, sensible or not."""
        self.flush()
        if rule.send:
            self.write(bytes.fromhex(rule.send))
        if rule.command is not None:
            self.write(wire.frame(rule.command, 0, self.next_sequence(), b"\0" * 8))
        if rule.length is not None:
            self.write(wire.HEADER.pack(rule.length, wire.DELIVER_SM, 0, self.next_sequence()) + b"\x7f" * 100)

    # -- PDUs

    def _take(self, header: tuple[int, int, int], data: bytes, start: int, end: int) -> None:
        command, status, sequence = header
        if command == wire.SUBMIT_SM:
            self._submit(sequence, data, start, end)
        elif command in RECEIPT_ANSWERS:
            if self.account is not None:
                self.account.answered(self, sequence, status)
        elif command == wire.ENQUIRE_LINK:
            self._enquire(sequence)
        elif command == wire.ENQUIRE_LINK | wire.RESPONSE:
            self.smsc.enquiries_answered += 1
        elif command in wire.BINDS:
            self._bind(command, sequence, data[start:end])
        elif command == wire.UNBIND:
            self.smsc.unbinds += 1
            self._out.append(wire.frame(wire.UNBIND | wire.RESPONSE, 0, sequence))
            self.shut()
        else:
            self.smsc.other.append((command, status, sequence))
            if command == wire.UNBIND | wire.RESPONSE and self._answers.release():
                asyncio.get_running_loop().call_later(0.2, self.shut)  # for answers that are delayed

    def _enquire(self, sequence: int) -> None:
        self.smsc.enquired += 1
        rule = self.smsc.player.on_enquire(self.number) if self.smsc.player else None
        if rule is None or not rule.silent:
            self._out.append(wire.frame(wire.ENQUIRE_LINK | wire.RESPONSE, 0, sequence))

    def _bind(self, command: int, sequence: int, body: bytes) -> None:
        smsc, behaviour = self.smsc, self.behaviour
        system_id, password = (field.decode("latin-1") for field in body.split(b"\0", 2)[:2])
        rule = smsc.player.on_bind(len(smsc.binds) + 1) if smsc.player else None
        status = 0
        if len(smsc.binds) < len(behaviour.bind_statuses):
            status = behaviour.bind_statuses[len(smsc.binds)]
        elif behaviour.system_id not in (None, system_id):
            status = 0x0F
        elif behaviour.password not in (None, password):
            status = 0x0E
        if rule is not None and not status:
            status = SILENCE if rule.silent else rule.status
        smsc.binds.append((time.monotonic(), system_id, password, status))
        smsc.log.note("bind", attempt=len(smsc.binds), system_id=system_id, status=status, mode=wire.BINDS[command])
        if status == SILENCE:
            return
        # SMPP 3.4, 4.1.2: after an error the body may be left out.
        body = b"simulator\0" + wire.tlv(0x0210, b"\x34") if not status else {"nul": b"\0", "tlv": b"\0" + OPTIONAL}.get(rule.body if rule else "", b"")
        octets = wire.frame(command | wire.RESPONSE, status, sequence, body)
        delay = smsc.player.seconds(rule.delay) if smsc.player and rule else 0.0
        if delay:
            asyncio.get_running_loop().call_later(delay, self._bound, octets, command, system_id, status, rule)
        else:
            self._bound(octets, command, system_id, status, rule)

    def _bound(self, octets: bytes, command: int, system_id: str, status: int, rule: OnBind | None) -> None:
        if self._transport is None:
            return
        self._out.append(octets)
        self.flush()
        smsc = self.smsc
        if status == 0:
            self.mode = wire.BINDS[command]
            self.number = smsc.next_bind()
            self.account = smsc.account(system_id)
            smsc.links.append(self)
            self.account.joined(self)
        if rule is not None and smsc.player is not None:
            asyncio.get_running_loop().call_later(smsc.player.seconds(rule.link_after), self._follow, rule)

    def _follow(self, rule: OnBind) -> None:
        self.say(rule)
        self.act(rule.link)

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
                self._answers.give(wire.frame(SUBMIT_SM_RESP, 0x02, sequence))
                return
            submit.at, submit.bind = time.monotonic(), self.number
            smsc.count(destination, submit.short_message + submit.tlvs.get(0x0424, b"") + submit.tlvs.get(0x020F, b""))
            if self.behaviour.keep_log:
                smsc.submits.append(submit)
        self.unanswered += 1
        smsc.most_unanswered = max(smsc.most_unanswered, self.unanswered)
        wants_receipt = self._wants_receipt(data, address_end, end)
        rule = smsc.player.on_submit(self.number, submit) if smsc.player is not None and submit is not None else None
        if rule is not None and submit is not None:
            self._play(rule, submit, destination, wants_receipt=wants_receipt)
            return
        status: int | bytes = self._verdict(destination.decode("latin-1"), submit)
        if submit is not None:
            submit.status = status if isinstance(status, int) and status != SILENCE else None
        if status == SILENCE:
            smsc.tell_of(submit, taken=False)
        elif isinstance(status, bytes):
            smsc.tell_of(submit, taken=False)
            self._answers.give(status)
        elif status:
            smsc.tell_of(submit, taken=False)
            self._answers.give(wire.frame(SUBMIT_SM_RESP, status, sequence))
        else:
            answer, lead = self._accept(sequence, submit, destination, wants_receipt=wants_receipt)
            self._answers.later(lead, answer) if lead else self._answers.give(answer)

    def _accept(self, sequence: int, submit: wire.Submit | None, destination: bytes, *, wants_receipt: bool) -> tuple[bytes, float]:
        """The answer that says yes, and how many seconds it has to wait for its receipt to be first."""
        smsc = self.smsc
        smsc.accepted += 1
        number = smsc.identities.number(_joint_of(submit) if submit is not None else None)
        identity = smsc.identities.of_answer(number)
        lead = 0.0
        if submit is not None:
            submit.identity = identity
            smsc.tell_of(submit, taken=True)
            smsc.keep(submit)
        if self.behaviour.receipts and self.account is not None and wants_receipt:
            lead = self.account.receipt(destination, number, submit, self)
        return wire.frame(SUBMIT_SM_RESP, 0, sequence, identity.encode() + b"\0"), lead

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
            smsc.window_violations += 1
            return behaviour.window_status
        if smsc.throttled_until and time.monotonic() < smsc.throttled_until:
            return smsc.throttle_status
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

    def _play(self, rule: OnSubmit, submit: wire.Submit, destination: bytes, *, wants_receipt: bool) -> None:
        """Answer one submit as a rule says. Whoever has a status, or is silent and not `taken`, has not got the message."""
        smsc, status = self.smsc, rule.status
        assert smsc.player is not None
        if rule.throttle_for:
            smsc.throttle_status = status = status or 0x58
            smsc.throttled_until = time.monotonic() + rule.throttle_for
        ends = rule.link in ("reset", "close", "freeze") or rule.silent
        refused = bool(status) or rule.nack is not None
        octets, lead = b"", 0.0
        if refused:
            status = status or 0x03
            octets = refusal(rule, status, submit.sequence)
        submit.status = None if ends else status
        if not refused and (rule.taken or not ends):
            octets, lead = self._accept(submit.sequence, submit, destination, wants_receipt=wants_receipt)
        else:
            smsc.tell_of(submit, taken=False)
        if not ends:
            self._answers.by_rule(rule, octets * rule.copies, max(lead, smsc.player.seconds(rule.delay)))
        self.say(rule)
        self.act(rule.link)


def _joint_of(submit: wire.Submit) -> tuple[str, str, int] | None:
    return (submit.source, submit.destination, submit.joint[0]) if submit.joint is not None else None
