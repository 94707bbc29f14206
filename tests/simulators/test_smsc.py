"""The simulated SMSC, spoken to in raw octets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.simulators import smsc_wire as wire
from app.simulators.smsc import SmscSimulator, serve

BIND_BODY = b"isp\0secret\0\0\x34\x00\x00\0"


class Esme:
    """A few lines of ESME: it writes what it is told and collects what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, command: int, sequence: int, body: bytes = b"", status: int = 0) -> None:
        self.writer.write(wire.frame(command, status, sequence, body))
        await self.writer.drain()

    async def read(self, timeout: float = 2) -> tuple[int, int, int, bytes]:
        async with asyncio.timeout(timeout):
            length, command, status, sequence = wire.HEADER.unpack(await self.reader.readexactly(16))
            return command, status, sequence, await self.reader.readexactly(length - 16)

    async def submit(self, sequence: int, to: str = "79160000001", text: bytes = b"hi", *, esm_class: int = 0, coding: int = 0, tail: bytes = b"") -> None:
        head = b"\0\x05\x00MyISP\0\x01\x01" + to.encode() + b"\0" + bytes((esm_class, 0, 0)) + b"\0\0"
        await self.send(wire.SUBMIT_SM, sequence, head + bytes((1, 0, coding, 0, len(text))) + text + tail)


@asynccontextmanager
async def connect(port: int, mode: int = 0x09, body: bytes = BIND_BODY, expected: int = 0) -> AsyncIterator[Esme]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    esme = Esme(reader, writer)
    try:
        await esme.send(mode, 1, body)
        assert (await esme.read())[:3] == (mode | wire.RESPONSE, expected, 1)
        yield esme
    finally:
        writer.close()


async def test_a_submit_is_answered_and_its_receipt_follows():
    async with SmscSimulator() as smsc, connect(smsc.port) as esme:
        await esme.submit(2, text=b"\x1b\x65 100")
        answer = await esme.read()
        command, _, sequence, body = await esme.read()
        await esme.send(command | wire.RESPONSE, sequence, b"\0")

        assert answer == (wire.SUBMIT_SM | wire.RESPONSE, 0, 2, b"1\0")
        assert b"id:1 sub:001 dlvrd:001" in body
        assert b"stat:DELIVRD err:000" in body
        assert [(message.source, message.destination, message.text) for message in smsc.received] == [("MyISP", "79160000001", "€ 100")]


async def test_outcomes_and_errors_follow_the_end_of_the_number():
    async with SmscSimulator(outcomes={"02": "UNDELIV"}, errors={"03": 0x0B}) as smsc, connect(smsc.port) as esme:
        await esme.submit(2, to="79160000002")
        await esme.submit(3, to="79160000003")
        seen = [await esme.read() for _ in range(3)]

        assert (wire.SUBMIT_SM | wire.RESPONSE, 0x0B, 3, b"") in seen
        assert any(b"stat:UNDELIV err:001" in body for _, _, _, body in seen)
        assert smsc.accepted == 1


@pytest.mark.parametrize(("mode", "gets_receipts"), [(0x01, True), (0x02, False)])
async def test_receipts_go_to_receivers_only(mode, gets_receipts):
    async with SmscSimulator() as smsc, connect(smsc.port, mode) as one, connect(smsc.port, 0x02) as transmitter:
        await transmitter.submit(2)
        await transmitter.read()
        if gets_receipts:
            assert (await one.read())[0] == wire.DELIVER_SM
        else:
            await asyncio.sleep(0.05)
            assert smsc.receipts_sent == 0


async def test_credentials_are_checked_when_they_are_set():
    async with SmscSimulator(system_id="isp", password="right") as smsc:
        async with connect(smsc.port, expected=0x0E):
            pass
        async with connect(smsc.port, body=b"you\0right\0\0\x34\x00\x00\0", expected=0x0F):
            pass
        async with connect(smsc.port, body=b"isp\0right\0\0\x34\x00\x00\0"):
            pass


@pytest.mark.parametrize("status", [0x58, 0x14])
async def test_what_exceeds_the_window_is_refused(status):
    async with SmscSimulator(window=2, window_status=status, answer_delay=0.05, receipts=False) as smsc, connect(smsc.port) as esme:
        for sequence in range(2, 6):
            await esme.submit(sequence)
        answers = [await esme.read() for _ in range(4)]

        assert [answer[1] for answer in answers] == [0, 0, status, status]
        assert smsc.most_unanswered == 4


async def test_what_exceeds_the_rate_is_throttled():
    async with SmscSimulator(rate=20, receipts=False) as smsc, connect(smsc.port) as esme:
        for sequence in range(2, 12):
            await esme.submit(sequence)
        answers = [(await esme.read())[1] for _ in range(10)]

        assert answers[0] == 0
        assert 0x58 in answers


async def test_unacknowledged_receipts_wait_within_the_window_and_come_again_on_the_next_link():
    async with SmscSimulator(receipt_window=2) as smsc:
        async with connect(smsc.port) as esme:
            for sequence in range(2, 5):
                await esme.submit(sequence, to=f"7916000000{sequence}")
            seen = [await esme.read() for _ in range(5)]
            assert sum(command == wire.DELIVER_SM for command, *_ in seen) == 2
            with pytest.raises(TimeoutError):
                await esme.read(timeout=0.1)
        async with connect(smsc.port) as esme:
            bodies = []
            for _ in range(3):
                command, _, sequence, body = await esme.read()
                bodies.append(body)
                await esme.send(command | wire.RESPONSE, sequence, b"\0")
            await asyncio.sleep(0.05)

            assert len(set(bodies)) == 3
            assert smsc.receipts_acknowledged == 3
            assert smsc.accounts["isp"].outstanding == 0


async def test_a_refused_receipt_comes_again_later():
    async with SmscSimulator(redelivery_delay=0.05) as smsc, connect(smsc.port) as esme:
        await esme.submit(2)
        await esme.read()
        command, _, sequence, _ = await esme.read()
        await esme.send(command | wire.RESPONSE, sequence, b"\0", status=0x64)

        assert (await esme.read())[0] == wire.DELIVER_SM
        assert smsc.receipts_acknowledged == 0


async def test_parts_are_put_together_whatever_their_order():
    async with SmscSimulator(receipts=False) as smsc, connect(smsc.port) as esme:
        await esme.submit(2, text=b"\x05\x00\x03\x07\x02\x02world", esm_class=0x40)
        await esme.submit(3, text=b"\x05\x00\x03\x07\x02\x01hello ", esm_class=0x40)
        await esme.submit(4, text="да".encode("utf-16-be"), coding=8, tail=wire.tlv(0x020C, b"\0\x09") + wire.tlv(0x020E, b"\2") + wire.tlv(0x020F, b"\1"))
        await esme.submit(5, text="!".encode("utf-16-be"), coding=8, tail=wire.tlv(0x020C, b"\0\x09") + wire.tlv(0x020E, b"\2") + wire.tlv(0x020F, b"\2"))
        await esme.submit(6, text=b"", tail=wire.tlv(0x0424, b"one payload"))
        for _ in range(5):
            await esme.read()

        assert [(message.text, message.parts, message.encoding) for message in smsc.received] == [
            ("hello world", 2, "GSM7"),
            ("да!", 2, "UCS2"),
            ("one payload", 1, "GSM7"),
        ]


async def test_duplicates_are_counted_also_when_nothing_is_kept():
    for keep_log in (True, False):
        async with SmscSimulator(keep_log=keep_log, receipts=False) as smsc, connect(smsc.port) as esme:
            for sequence, text in ((2, b"a"), (3, b"b"), (4, b"a")):
                await esme.submit(sequence, text=text)
                await esme.read()

            assert (smsc.submitted, smsc.duplicates) == (3, 1)
            assert bool(smsc.submits) == keep_log


async def test_a_hurried_simulator_sends_receipts_only_where_they_were_asked_for():
    async with SmscSimulator(keep_log=False) as smsc, connect(smsc.port) as esme:
        await esme.submit(2)
        answer, receipt = await esme.read(), await esme.read()
        assert (answer[0], receipt[0]) == (wire.SUBMIT_SM | wire.RESPONSE, wire.DELIVER_SM)
        head = b"\0\x05\x00MyISP\0\x01\x0179160000001\0\0\0\0\0\0"
        await esme.send(wire.SUBMIT_SM, 3, head + b"\0\0\0\0\x02hi")
        await esme.read()
        await asyncio.sleep(0.05)

        assert smsc.receipts_sent == 1


async def test_garbage_and_drops_end_the_connection_and_not_the_simulator():
    async with SmscSimulator(drop_rate=1.0) as smsc:
        async with connect(smsc.port) as esme:
            await esme.submit(2)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await esme.read()
        async with connect(smsc.port) as esme:
            esme.writer.write(b"\xff" * 64)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await esme.read()
        assert smsc.links == []


async def test_alone_it_tells_its_port_each_message_and_each_receipt():
    events, port = [], asyncio.get_running_loop().create_future()
    alone = asyncio.create_task(serve(events.append, ready=port.set_result, outcomes={"1": "EXPIRED"}, keep_log=False))
    async with connect(await port) as esme:
        await esme.submit(2, text=b"hello")
        await esme.read()
        command, _, sequence, _ = await esme.read()
        await esme.send(command | wire.RESPONSE, sequence, b"\0")
        await esme.send(wire.ENQUIRE_LINK, 9)
        await esme.read()
    alone.cancel()
    await asyncio.wait({alone})

    assert events == [
        {"kind": "message", "from": "MyISP", "to": "79160000001", "text": "hello", "parts": 1, "encoding": "GSM7"},
        {"kind": "receipt", "id": "1", "to": "79160000001", "stat": "EXPIRED"},
    ]
