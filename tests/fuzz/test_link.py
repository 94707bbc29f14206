"""A whole bind under fire: mutated PDUs over a real socket. It may hang up as often as it likes; it must always come back, whole."""

import asyncio
import tracemalloc

from app.sending.outcome import Accepted
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SmscSimulator
from tests.fuzz import pdus
from tests.sending.smpp.conftest import Caller

FIRE = 5_000
AT_ONCE = 20
IMPATIENT = {"reconnect_min": 0.01, "reconnect_max": 0.02, "pdu_read_timeout": 0.1, "response_timeout": 1, "inactivity_timeout": 0}


async def test_a_bind_survives_thousands_of_mutated_pdus_and_goes_on_sending():
    async with SmscSimulator(keep_log=True, redelivery_delay=60) as smsc:
        caller = Caller(smsc.port, profile=IMPATIENT)
        caller.running = asyncio.create_task(caller.bind.run())
        try:
            await caller.bound()
            tracemalloc.start()
            baseline, fire = 0, pdus.pdus(11, FIRE, whole=0.99)
            for start in range(0, FIRE, AT_ONCE):
                await caller.until(lambda: smsc.links and caller.bind.status.state == "bound")
                smsc.send(b"".join(fire[start : start + AT_ONCE]))
                if start % (AT_ONCE * 10) == 0:
                    caller.ship(caller.message())
                await asyncio.sleep(0.003)
                if start == FIRE // 5:
                    baseline = _traced(caller, smsc)
            grown = _traced(caller, smsc) - baseline
            tracemalloc.stop()

            await caller.until(lambda: len(caller.outcomes) == len(caller.parts), timeout=10)
            assert caller.kinds.keys() <= {"Accepted", "Refused", "Deferred", "Unknown"}  # each message has one outcome, whatever it is
            await asyncio.sleep(3 * IMPATIENT["pdu_read_timeout"])  # half a PDU may still be here, and end the link once more
            await caller.until(lambda: caller.bind.allowance() > 0)
            last = caller.message()
            caller.ship(last)
            await caller.until(lambda: last.key in caller.outcomes)
            assert isinstance(caller.outcomes[last.key][0], Accepted)
            assert len(caller.receipts) > FIRE // 4
            assert grown < 5_000_000
        finally:
            tracemalloc.stop()
            await caller.bind.stop(0.1)
            await caller.running


async def test_a_bind_is_answered_with_anything_and_binds_all_the_same():
    answers = [octets for octets in pdus.pdus(5, 200, whole=0.5) if len(octets) >= 16]
    left = list(answers)

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(16)
        await reader.readexactly(int.from_bytes(head[:4], "big") - 16)
        if left:
            writer.write(left.pop())
            writer.close()
            return
        writer.write(wire.frame(0x80000009, 0, int.from_bytes(head[12:], "big"), b"smsc\0"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        profile = IMPATIENT | {"bind_timeout": 0.2, "fatal_bind_statuses": [], "alybnd_wait": 0.01, "config_probe_interval": 1}
        caller = Caller(server.sockets[0].getsockname()[1], profile=profile)
        caller.running = asyncio.create_task(caller.bind.run())
        try:
            await caller.until(lambda: not left and caller.bind.status.state == "bound", timeout=40)
            assert caller.outcomes == {}
        finally:
            await caller.bind.stop(0.1)
            await caller.running


def _traced(caller: Caller, smsc: SmscSimulator) -> int:
    """What is in use but for what this test keeps itself."""
    caller.receipts = caller.receipts[:0] + [None] * len(caller.receipts)
    caller.changes.clear()
    smsc.receipt_answers.clear()
    smsc.other.clear()
    smsc.log.lines.clear()
    return tracemalloc.get_traced_memory()[0]
