"""Every answer is counted by number and by name, and no far side can make series without end."""

from datetime import timedelta
from uuid import uuid4

import pytest

from app.core import metrics
from app.sending.answers import MOST_STRANGE, Answers
from app.sending.outcome import Accepted, Deferred, Refused, Unknown


@pytest.fixture
def gateway():
    return f"g{uuid4().hex}"


def series(gateway):
    return {
        (sample.labels["status"], sample.labels["name"]): sample.value
        for metric in metrics.STATUS.collect()
        for sample in metric.samples
        if sample.labels["gateway"] == gateway and sample.name.endswith("_total")
    }


def test_answers_are_counted_by_number_and_name(gateway):
    answers = Answers(gateway)

    for outcome in (Accepted(("1",)), Accepted(("2",)), Refused("refused", "0x0000000B"), Deferred("throttled", timedelta(0), code="0x00000058"), Unknown()):
        answers.count(outcome)
    answers.late()

    assert series(gateway) == {
        ("0x00000000", "ESME_ROK"): 3,
        ("0x0000000B", "ESME_RINVDSTADR"): 1,
        ("0x00000058", "ESME_RTHROTTLED"): 1,
        ("none", "none"): 1,
    }


def test_what_never_reached_the_far_side_is_no_answer(gateway):
    answers = Answers(gateway)

    answers.count(Deferred("not_bound", timedelta(0), spends_attempt=False))
    answers.count(Refused("bad_address"))

    assert series(gateway) == {}


def test_ever_new_codes_end_up_in_one_series_and_known_ones_keep_theirs(gateway):
    answers = Answers(gateway)

    for number in range(1000):
        answers.count(Refused("refused", f"0x{0x1000 + number:08X}"))
    answers.count(Refused("refused", "0x0000000B"))
    answers.count(Refused("refused", "0x00001000"))

    found = series(gateway)
    assert len(found) == MOST_STRANGE + 2
    assert found["other", "other"] == 1000 - MOST_STRANGE
    assert found["0x0000000B", "ESME_RINVDSTADR"] == 1
    assert found["0x00001000", "reserved"] == 2
