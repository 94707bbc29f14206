"""What becomes of submits: answers of every kind, the window, long messages."""

import pytest

from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SILENCE, SmscSimulator

RESP = wire.SUBMIT_SM | wire.RESPONSE


async def test_c01_an_smsc_that_never_answers_gets_no_more_than_a_window(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, window=10)

        await caller.ship_as_allowed([caller.message() for _ in range(10)])
        refused_room = caller.bind.allowance()
        await caller.settled(10)

        assert refused_room == 0
        assert smsc.submitted == 10
        assert smsc.most_unanswered == 10
        assert caller.kinds == {"Unknown": 10}
        assert all(outcome == Unknown("no_answer", outcome.detail) for _, outcome in caller.order)
        await caller.until(lambda: len(smsc.binds) == 2)  # three in a row: the link is given up


async def test_a_part_whose_answer_is_overdue_still_fills_the_smscs_window(call):
    silenced = []

    def answer(submit):
        if not silenced:
            silenced.append(submit.sequence)
            return SILENCE
        return 0

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=4)
        caller.ship(caller.message())
        await caller.settled(1)

        assert caller.bind.allowance() == 3
        smsc.send(wire.frame(RESP, 0, silenced[0], b"late\0"))
        await caller.until(lambda: caller.bind.allowance() == 4)
        assert caller.kinds == {"Unknown": 1}
        assert len(smsc.binds) == 1


async def test_c02_answers_in_any_order_find_their_messages(call):
    held = []

    def answer(submit):
        held.append(submit)
        if len(held) == 20:
            smsc.send(b"".join(wire.frame(RESP, 0, one.sequence, one.destination.encode() + b"\0") for one in reversed(held)))
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=20)
        caller.ship(*[caller.message() for _ in range(20)])
        await caller.settled(20)

        assert caller.kinds == {"Accepted": 20}
        assert all(outcome == Accepted((address[1:],)) for address, outcome in caller.order)


async def test_c03_a_caller_that_commits_slowly_gets_each_outcome_once(call, smsc):
    caller = await call(smsc, window=5, commit_takes=0.05)

    await caller.ship_as_allowed([caller.message() for _ in range(15)])
    await caller.settled(15)

    assert caller.kinds == {"Accepted": 15}
    assert smsc.submitted == 15


async def test_c04_a_bad_number_fails_for_good_and_the_link_stays_up(call):
    async with SmscSimulator(errors={"5": 0x0B}) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message(to="+79160000005"), caller.message(to="+79160000006"))
        await caller.settled(2)

        (_, bad), (_, good) = caller.order
        assert bad == Refused("refused", "0x0000000B", "ESME_RINVDSTADR")
        assert isinstance(good, Accepted)
        assert smsc.submitted == 2
        assert len(smsc.binds) == 1


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0" + wire.tlv(0x001D, b"no such subscriber\0"), b"id\0", b"id"])
async def test_c09_a_refusal_means_the_same_with_any_body(call, tail):
    async with SmscSimulator(answer=lambda submit: wire.frame(RESP, 0x0B, submit.sequence, tail)) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message())
        await caller.settled(1)

        assert caller.order[0][1] == Refused("refused", "0x0000000B", "ESME_RINVDSTADR")


@pytest.mark.parametrize(
    ("body", "identity"),
    [
        (b"1234\0", "1234"),
        (b"1234", "1234"),
        (b"1234\0" + wire.tlv(0x001D, b"fine\0"), "1234"),
        (b"", ""),
        (b"\0", ""),
        (b"x" * 100 + b"\0", "x" * 100),
        ("ид-1\0".encode("cp1251"), "\xe8\xe4-1"),
    ],
)
async def test_the_id_of_an_accepted_message_is_read_whatever_follows_it(call, body, identity):
    async with SmscSimulator(answer=lambda submit: wire.frame(RESP, 0, submit.sequence, body)) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message())
        await caller.settled(1)

        assert caller.order[0][1] == Accepted((identity,))


@pytest.mark.parametrize(
    ("override", "expected", "state"),
    [
        ({}, Deferred, "bound"),
        ({"0x0412": "PERM"}, Refused, "bound"),
        ({"1042": "TEMP"}, Deferred, "bound"),
        ({"0x0412": "CONFIG"}, Deferred, "stopped"),
    ],
)
async def test_c07_a_vendors_status_acts_as_the_profile_says(call, override, expected, state):
    async with SmscSimulator(errors={"": 0x0412}) as smsc:
        caller = await call(smsc, profile={"status_overrides": override})
        caller.ship(caller.message(attempt=2))
        await caller.until(lambda: caller.order and caller.bind.status.state == state)

        outcome = caller.order[0][1]
        assert isinstance(outcome, expected)
        assert outcome.code == "0x00000412"
        if isinstance(outcome, Deferred) and state == "bound":
            assert outcome.spends_attempt
            assert outcome.retry_in.total_seconds() == 60  # the second attempt: 30 s doubled
            assert outcome.attempts == (5 if override else 2)
        if state == "stopped":
            assert not outcome.spends_attempt
            assert caller.bind.status.last_error.command_status == "0x00000412"
        assert len(smsc.binds) == 1


async def test_five_refusals_of_the_settings_in_a_row_stop_the_bind_and_not_the_campaign(call):
    async with SmscSimulator(errors={"": 0x0A}) as smsc:
        caller = await call(smsc)
        caller.ship(*[caller.message() for _ in range(5)])
        await caller.until(lambda: caller.bind.status.state == "stopped")

        assert caller.kinds == {"Refused": 4, "Deferred": 1}
        assert caller.bind.allowance() == 0
        assert caller.bind.status.last_error.name == "ESME_RINVSRCADR"


async def test_c11_a_generic_nack_resolves_its_submit(call):
    nacks = iter([0x58, 0x03])

    def answer(submit):
        status = next(nacks, 0)
        return wire.frame(wire.GENERIC_NACK, status, submit.sequence) if status else 0

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc)
        first, second = caller.message(), caller.message()
        caller.ship(first)
        await caller.settled(1)
        await caller.until(lambda: caller.bind.allowance() > 0)
        caller.ship(second)
        await caller.settled(2)
        await caller.until(lambda: len(smsc.binds) == 2)
        await caller.bound()

        throttled, rebind = (outcome for _, outcome in caller.order)
        assert (throttled.reason, throttled.spends_attempt) == ("throttled", False)
        assert (rebind.reason, rebind.spends_attempt, rebind.code) == ("rebind", False, "0x00000003")
        await caller.until(lambda: caller.bind.allowance() > 0)
        caller.ship(caller.message())
        await caller.settled(3)
        assert isinstance(caller.order[2][1], Accepted)


async def test_unknown_commands_are_answered_with_a_nack_and_the_link_stays_up(call, smsc):
    caller = await call(smsc)
    smsc.send(wire.frame(0x00000111, 0, 77, b"what") + wire.frame(0x00000102, 0, 78) + wire.frame(0x80000999, 0, 79))
    caller.ship(caller.message())
    await caller.settled(1)
    await caller.until(lambda: smsc.other)

    assert smsc.other == [(wire.GENERIC_NACK, 0x03, 77)]
    assert len(smsc.binds) == 1


async def test_a_message_that_can_never_go_is_refused_before_the_wire(call, smsc):
    caller = await call(smsc)
    caller.ship(
        caller.message(sender="Провайдер"),
        caller.message(to="0916"),
        caller.message(to="+7916abc"),
        caller.message(sender="a\0b"),
        caller.message(sender="TwelveLetter"),
        caller.message(text="a" * 2000),
        caller.message(),
    )
    refused_inside_ship = len(caller.order)
    await caller.settled(7)

    assert refused_inside_ship == 0
    assert [outcome.reason for _, outcome in caller.order if isinstance(outcome, Refused)] == [
        "bad_sender",
        "bad_address",
        "bad_address",
        "bad_sender",
        "bad_sender",
        "too_many_parts",
    ]
    assert smsc.submitted == 1
    await caller.until(lambda: caller.bind.in_use == 0)


@pytest.mark.parametrize("kind", ["udh8", "udh16", "sar", "payload"])
@pytest.mark.parametrize("text", ["Tariff [new] {a} " + "€" * 150, "Уважаемый абонент! " * 12, "a" * 160, "я" * 70, "я" * 66 + "😀" + "я" * 66])
async def test_c33_a_long_message_is_read_whole_on_the_other_side(call, smsc, kind, text):
    caller = await call(smsc, profile={"long_messages": kind})
    caller.ship(caller.message(text))
    await caller.settled(1)

    (received,) = smsc.received
    assert received.text == text
    assert all(len(submit.short_message) <= (160 if submit.encoding == "GSM7" else 140) for submit in smsc.submits)
    assert len(caller.order[0][1].ids) == len(smsc.submits)
    await caller.until(lambda: caller.bind.in_use == 0)


async def test_c35_a_refused_part_fails_the_message_once_and_names_the_taken_ones(call):
    async with SmscSimulator(answer=lambda submit: 0x62 if submit.joint[2] == 2 else 0) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message("a" * 400))
        await caller.settled(1)
        await caller.until(lambda: caller.receipts)

        assert caller.order[0][1] == Refused("refused", "0x00000062", "ESME_RINVEXPIRY, part 2 of 3", ids=("1", "", "2"))
        await caller.until(lambda: smsc.receipts_acknowledged == 2)
        assert smsc.duplicates == 0


async def test_a_throttled_part_of_a_half_taken_message_goes_again_alone(call):
    seen = []

    def answer(submit):
        seen.append(submit.joint[2])
        return 0x58 if submit.joint[2] == 2 and seen.count(2) == 1 else 0

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, profile={"response_timeout": 5})
        caller.ship(caller.message("a" * 400))
        await caller.settled(1)

        assert caller.order[0][1] == Accepted(("1", "3", "2"))
        assert seen == [1, 2, 3, 2]
        assert smsc.received[0].text == "a" * 400


async def test_a_half_taken_message_whose_rest_stays_refused_is_unknown_and_nothing_is_sent_twice(call):
    seen = []

    def answer(submit):
        seen.append(submit.joint[2])
        return 0x08 if submit.joint[2] == 2 else 0

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message("a" * 300))
        await caller.settled(1)

        assert caller.order[0][1] == Unknown("partial", caller.order[0][1].detail, ids=("1", ""))
        assert seen.count(1) == 1


async def test_a_message_whose_every_part_was_put_off_is_put_off_whole(call):
    async with SmscSimulator(errors={"": 0x08}) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message("a" * 300))
        await caller.settled(1)

        outcome = caller.order[0][1]
        assert isinstance(outcome, Deferred)
        assert outcome.spends_attempt
        assert smsc.submitted == 2


async def test_c36_three_hundred_long_messages_do_not_mix(call):
    async with SmscSimulator(errors={"7": 0x0B}, answer_delay=0.02) as smsc:
        caller = await call(smsc, window=600)
        caller.ship(*[caller.message(f"{index:03d} " + "a" * 200) for index in range(300)])
        await caller.settled(300)

        assert caller.kinds == {"Accepted": 270, "Refused": 30}
        assert all(isinstance(outcome, Refused) == address.endswith("7") for address, outcome in caller.order)
        assert len({message.text for message in smsc.received}) == 270


async def test_a_message_longer_than_the_window_goes_over_an_idle_bind(call):
    async with SmscSimulator(answer_delay=0.02) as smsc:
        caller = await call(smsc, window=2)
        caller.ship(caller.message("a" * 1000))
        room = caller.bind.allowance()
        await caller.settled(1)

        assert room == 0
        assert smsc.most_unanswered == 2
        assert smsc.received[0].text == "a" * 1000
        await caller.until(lambda: caller.bind.allowance() == 2)
