"""Messages of several parts under way: any answers in any order, and one outcome each. Without a socket, on a clock of its own."""

import math
import random
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.sending.smpp.compose import Composer, Shipment
from app.sending.smpp.flight import Flight
from app.sending.smpp.traffic import Traffic
from app.simulators import smsc_wire as wire

TIMEOUT = 60


class Wire:
    """A traffic that writes to nobody; the test answers, part by part, and keeps the books."""

    def __init__(self, window: int = 1000, **profile) -> None:
        self.settings = SmppSettings.model_validate(
            {"host": "h", "system_id": "isp", "sender": "MyISP", "window": window, "profile": {"response_timeout": TIMEOUT, **profile}}
        )
        self.now = 1000.0
        self.composer = Composer(self.settings)
        self.outcomes: dict[str, list] = {}
        self.written: list[tuple[int, wire.Submit]] = []
        self.traffic = Traffic(self.settings, on_outcome=self.came, wake=lambda: None, clock=lambda: self.now)
        self.traffic.open = True

    def came(self, shipment, outcome) -> None:
        self.outcomes.setdefault(shipment.address, []).append(outcome)

    def ship(self, number: int, parts: int, reference: int) -> None:
        text = "".join(f"{number:04d}{part:03d}" + "x" * 145 for part in range(parts))
        shipment = Shipment(UUID(int=number), f"+7916{number:07d}", text, None, None, False, reference)
        self.traffic.ship(Flight(shipment, self.composer.compose(shipment)))

    def write(self) -> list[tuple[int, wire.Submit]]:
        """What goes to the wire now: sequence number and submit_sm."""
        data, _ = self.traffic.write_due(self.now)
        fresh = [(sequence, wire.read_submit(sequence, data[start:end])) for _, _, sequence, start, end in wire.frames(data)]
        self.written += fresh
        return fresh

    def answer(self, sequence: int, kind: str, identity: str) -> None:
        entry = self.traffic.answered(sequence)
        assert entry is not None
        if kind == "taken":
            self.traffic.taken(entry, identity)
        elif kind == "refused":
            entry[0].refused(Refused("refused", "0x0000000B"))
            self.traffic.ended(entry[0])
        else:
            self.traffic.postponed(entry, Deferred("throttled" if kind == "throttled" else "refused_for_now", timedelta(0), kind == "later"))


def part_of(submit: wire.Submit) -> tuple[str, int]:
    return submit.destination, submit.joint[2] if submit.joint else 1


@pytest.mark.parametrize("kind", ["udh8", "udh16", "sar"])
def test_c36_long_messages_with_wrapping_references_do_not_mix(kind):
    at = Wire(long_messages=kind)
    for number in range(300):
        at.ship(number, 3, reference=0xFFFF - 20 + number)
    written = at.write()
    random.Random(7).shuffle(written)

    for sequence, submit in written:
        refused = submit.destination.endswith("7") and submit.joint[2] == 2
        at.answer(sequence, "refused" if refused else "taken", f"{submit.destination}-{submit.joint[2]}")

    assert len(written) == 900
    for number in range(300):
        to = f"7916{number:07d}"
        ids = tuple(f"{to}-{part}" for part in (1, 2, 3))
        expected = Refused("refused", "0x0000000B", ids=(ids[0], "", ids[2])) if to.endswith("7") else Accepted(ids)
        assert at.outcomes[f"+{to}"] == [expected]
    references = {submit.joint[0] for _, submit in written}
    assert len(references) == (256 if kind == "udh8" else 300)


def test_c35_after_a_refusal_for_good_nothing_more_of_the_message_is_written():
    at = Wire(window=2)
    at.ship(1, 5, reference=1)
    (first, _), (second, _) = at.write()

    at.answer(second, "refused", "")
    early = list(at.outcomes)
    at.answer(first, "taken", "A")

    assert early == []  # what is out is awaited
    assert at.outcomes == {"+79160000001": [Refused("refused", "0x0000000B", ids=("A", "", "", "", ""))]}
    assert at.write() == []


def test_a_refusal_wins_over_a_part_that_was_never_answered():
    at = Wire()
    at.ship(1, 3, reference=1)
    parts = at.write()

    at.answer(parts[0][0], "refused", "")
    at.answer(parts[1][0], "taken", "B")
    at.now += TIMEOUT + 1
    at.traffic.sweep(at.now)

    assert at.outcomes == {"+79160000001": [Refused("refused", "0x0000000B", ids=("", "B", ""))]}


def test_a_silent_part_does_not_stop_the_part_that_goes_alone_after_a_pause():
    at = Wire(window=10, reconnect_after_timeouts=100)
    at.ship(1, 1, reference=1)
    at.write()
    at.now += TIMEOUT - 1
    at.ship(2, 1, reference=2)
    ((throttled, _),) = at.write()
    at.traffic.throttle.refused(at.now, at.now, growing=True)
    at.answer(throttled, "throttled", "")
    at.traffic.in_use = 0  # both are settled a moment later

    at.now += TIMEOUT
    hopeless = at.traffic.sweep(at.now)
    room = at.traffic.room(at.now)
    at.ship(3, 1, reference=3)
    written = at.write()

    assert (hopeless, room, at.traffic.next_chance(at.now)) == (False, 1, math.inf)
    assert [submit.destination for _, submit in written] == ["79160000003"]


def test_a_part_that_could_not_be_answered_in_time_is_not_written_again():
    at = Wire()
    at.ship(1, 2, reference=1)
    first, second = at.write()
    at.traffic.throttle.refused(at.now, at.now, growing=True)
    at.traffic.throttle.until = at.now + TIMEOUT + 1

    at.answer(first[0], "taken", "A")
    at.answer(second[0], "throttled", "")

    assert at.outcomes == {"+79160000001": [Unknown("partial", "the rest was not taken in time: ", ("A", ""))]}
    assert at.traffic.is_idle


def test_a_part_that_a_second_pause_keeps_back_for_too_long_is_not_written_either():
    at = Wire()
    at.ship(1, 2, reference=1)
    first, second = at.write()
    at.answer(first[0], "taken", "A")
    at.answer(second[0], "throttled", "")
    at.now += 2
    at.traffic.sweep(at.now)
    at.traffic.throttle.until = at.now + 2 * TIMEOUT

    at.now += TIMEOUT
    at.traffic.sweep(at.now)

    assert at.outcomes == {"+79160000001": [Unknown("partial", "the rest could not be written in time", ("A", ""))]}
    assert at.traffic.is_idle


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.integers(1, 12),
    st.lists(st.sampled_from(["taken", "taken", "taken", "refused", "later", "throttled", "silent"]), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None)
def test_whatever_the_answers_every_message_has_one_outcome_and_no_taken_part_goes_twice(lengths, window, kinds, order):
    at = Wire(window=window)
    for number, parts in enumerate(lengths):
        at.ship(number, parts, reference=number)
    answers = iter(kinds * 1000)
    taken: dict[tuple[str, int], str] = {}
    silent: set[tuple[str, int]] = set()

    for _ in range(400):
        written = at.write()
        order.shuffle(written)
        for sequence, submit in written:
            assert part_of(submit) not in taken
            assert part_of(submit) not in silent
            kind = next(answers)
            if kind == "silent":
                silent.add(part_of(submit))
                continue
            if kind == "taken":
                taken[part_of(submit)] = f"id{sequence}"
            at.answer(sequence, kind, f"id{sequence}")
        at.now += 1.1
        at.traffic.sweep(at.now)
        if at.traffic.is_idle:
            break
        if at.traffic._ghosts and not at.traffic.unanswered and not written:
            at.traffic.link_lost("a window of unanswered submits")
            at.traffic.open = True

    at.traffic.link_lost("the end")
    assert {len(outcomes) for outcomes in at.outcomes.values()} == {1}
    assert len(at.outcomes) == len(lengths)
    for number, parts in enumerate(lengths):
        to = f"7916{number:07d}"
        (outcome,) = at.outcomes[f"+{to}"]
        ids = tuple(taken.get((to, part), "") for part in range(1, parts + 1))
        doubtful = any((to, part) in silent for part in range(1, parts + 1))
        if isinstance(outcome, Accepted):
            assert outcome.ids == ids
            assert all(ids)
        elif isinstance(outcome, Deferred):
            assert not any(ids)
            assert not doubtful
        else:
            assert isinstance(outcome, Refused | Unknown)
            assert (outcome.ids or ("",) * parts) == ids
