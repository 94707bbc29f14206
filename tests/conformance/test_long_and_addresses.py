"""C33 to C37: long messages whole on the other side, whatever ties their parts, and addresses in the form that the SMSC wants."""

import pytest

from app.sending.outcome import Refused
from tests.builders.messages import rows
from tests.conformance.conftest import until

SEPTETS_ALONE, OCTETS_ALONE = 160, 140
TEXTS = {
    "gsm 160": "a" * 160,
    "gsm 161": "a" * 161,
    "gsm 306": "b" * 306,
    "gsm 307": "b" * 307,
    "euro at the border": "a" * 152 + "€" + "b" * 200,
    "brackets all over": "[{}]" * 60,
    "ucs2 70": "я" * 70,
    "ucs2 71": "я" * 71,
    "ucs2 134": "я" * 134,
    "ucs2 135": "я" * 135,
    "emoji at the border": "я" * 66 + "😀" + "я" * 80,
    "emoji all over": "😀" * 100,
}


@pytest.mark.parametrize("joining", ["udh8", "udh16", "sar", "payload"])
async def test_c33_every_text_is_read_whole_and_no_part_is_too_long(call, play, joining):
    smsc = await play(receipts=False)
    caller = await call(smsc, window=50, profile={"long_messages": joining})
    caller.ship(*[caller.message(text) for text in TEXTS.values()])
    await caller.settled(len(TEXTS))

    assert caller.kinds == {"Accepted": len(TEXTS)}
    assert sorted(received.text for received in smsc.received) == sorted(TEXTS.values())
    for submit in smsc.submits:
        limit = SEPTETS_ALONE if submit.encoding == "GSM7" else OCTETS_ALONE
        header = 0 if submit.joint is None else {"udh8": 6, "udh16": 7}.get(joining, 0)
        # GSM 03.40, 9.2.3.24: the header takes its octets from the 140 of every part, which is seven or eight septets.
        room = limit if submit.joint is None else {"GSM7": 153 if joining != "udh16" else 152, "UCS2": 134 if joining != "udh16" else 132}[submit.encoding]
        assert len(submit.short_message) <= limit
        assert len(submit.short_message) - header <= room or joining == "payload"
        if submit.encoding == "GSM7":
            assert not submit.user_data.endswith(b"\x1b")
        else:
            submit.user_data.decode("utf-16-be")  # a pair that is split raises


async def test_c35_a_message_of_which_one_part_is_refused_fails_once_and_the_receipts_of_the_others_are_answered(works, play):
    smsc = await play({"on": "submit", "when": {"part": 2}, "status": 0x0B})
    await works.open(smsc)
    (message,) = await works.tell(1, text="Ж" * 200, parts=3)

    await works.until(failed=1)
    await until(lambda: smsc.receipts_sent and smsc.receipts_acknowledged == smsc.receipts_sent)

    assert await works.states() == {"failed": 1}
    assert max(submit.joint[2] for submit in smsc.submits) <= 3
    assert len({submit.joint for submit in smsc.submits}) == len(smsc.submits)
    found = await rows(works.database, "SELECT part, outcome FROM submission WHERE message_id = :id ORDER BY part", id=message)
    assert {row.part: row.outcome for row in found}[2] == "refused"


async def test_c36_hundreds_of_long_messages_in_flight_do_not_mix(works, play):
    smsc = await play({"on": "submit", "when": {"to_ends": "7", "part": 1}, "status": 0x0B}, {"on": "submit", "delay": [0, 0.3]})
    await works.open(smsc, window=600, profile={"long_messages": "udh8"})
    for number in range(300):
        await works.tell(1, first=number, text=f"{number:03d} " + "Ж" * 100, parts=2)

    await works.until(delivered=270, failed=30, seconds=30)

    states = await works.by_number()
    assert {number for number, state in states.items() if state == "failed"} == {f"+7916{number:07d}" for number in range(7, 300, 10)}
    whole = {received.destination: received.text for received in smsc.received}
    assert len(whole) == 270
    assert all(text.startswith(f"{int(number) - 79160000000:03d} ") and len(text) == 104 for number, text in whole.items())


async def test_c36_long_messages_to_one_number_never_share_a_reference(works, play):
    smsc = await play({"on": "submit", "delay": [0, 0.2]})
    await works.open(smsc, window=100, profile={"long_messages": "udh8"})
    for number in range(100):
        await works.tell(1, text=f"{number:03d} " + "Ж" * 100, parts=2)

    await works.until(delivered=100, seconds=30)

    assert sorted(received.text[:4] for received in smsc.received) == [f"{number:03d} " for number in range(100)]
    assert all(len(received.text) == 104 for received in smsc.received)


@pytest.mark.parametrize(
    ("sender", "profile", "expected"),
    [
        ("Bank", {}, (5, 0)),
        ("12345", {}, (3, 0)),
        ("12345", {"short_code_ton": 6, "short_code_npi": 0}, (6, 0)),
        ("+38591123456", {}, (1, 1)),
        ("38591123456", {}, (1, 1)),
        ("Bank", {"source_ton": 2, "source_npi": 1}, (2, 1)),
        ("+38591123456", {"source_ton": 0, "source_npi": 0}, (0, 0)),
    ],
)
async def test_c37_the_type_of_the_sender_follows_its_form_unless_the_profile_forces_it(call, play, sender, profile, expected):
    smsc = await play()
    caller = await call(smsc, sender=sender, profile=profile)
    caller.ship(caller.message())
    await caller.settled(1)

    (submit,) = smsc.submits
    assert submit.source_type == expected
    assert submit.source == sender.lstrip("+")


@pytest.mark.parametrize("sender", ["Провайдер", "a\0b", "TwelveLetter", "💬"])
async def test_c37_a_sender_that_cannot_be_written_is_refused_before_the_wire(call, play, sender):
    smsc = await play()
    caller = await call(smsc)
    caller.ship(caller.message(sender=sender))
    await caller.settled(1)

    assert isinstance(caller.order[0][1], Refused)
    assert smsc.submitted == 0


async def test_v30_a_half_taken_message_whose_rest_is_throttled_is_finished_and_no_part_goes_twice(works, play):
    smsc = await play({"on": "submit", "when": {"part": 2, "first": 3}, "status": 0x58})
    await works.open(smsc, profile={"throttle_pause_min": 0.1})
    await works.tell(3, text="Ж" * 200, parts=3)

    await works.until(delivered=3, seconds=20)

    taken = [(*submit.joint, submit.destination) for submit in smsc.submits if submit.identity]
    assert len(taken) == len(set(taken)) == 9


async def test_v31_a_part_that_is_never_answered_leaves_the_message_in_doubt_and_is_not_repeated(works, play):
    smsc = await play({"on": "submit", "when": {"part": 2}, "silent": True})
    await works.open(smsc, profile={"response_timeout": 0.4})
    await works.tell(1, text="Ж" * 200, parts=3)

    await works.until(unknown=1)
    await until(lambda: smsc.receipts_acknowledged == smsc.receipts_sent)

    parts = [submit.joint[2] for submit in smsc.submits]
    assert len(parts) == len(set(parts))
