"""What a refusal means."""

from uuid import UUID

import pytest
from aiosmpplib import SmppCommandStatus

from app.gateways.profile import Profile
from app.sending.smpp import statuses
from app.sending.smpp.compose import Shipment
from app.sending.smpp.judge import Judge

COMMON = statuses.judge(Profile())


def to(address, attempt=1):
    return Shipment(UUID(int=1), address, "Hi", None, None, False, 1, attempt)


@pytest.mark.parametrize(
    ("status", "action", "attempts"),
    [
        (0x0B, "PERM", None),
        (0x62, "PERM", None),
        (0x112, "PERM", None),
        (0x04, "REBIND", None),
        (0x05, "REBIND", None),
        (0x58, "THROTTLE", None),
        (0x14, "THROTTLE", None),
        (0x08, "TEMP", 5),
        (0x64, "TEMP", 5),
        (0x45, "TEMP", 2),
        (0xFF, "TEMP", 2),
        (0x0412, "TEMP", 2),
        (0xDEADBEEF, "TEMP", 2),
        (0x0A, "BRK", None),
        (0xC4, "BRK", None),
        (0x104, "BRK", None),
        (0x103, "CONFIG", None),
    ],
)
def test_a_status_has_its_common_meaning(status, action, attempts):
    assert COMMON(status) == statuses.Verdict(action, attempts)


def test_an_override_wins_and_temporary_ones_follow_the_profile():
    judge = statuses.judge(Profile(temp_attempts=9, status_overrides={"0x45": "PERM", "255": "CONFIG", "0x0B": "TEMP"}))

    assert judge(0x45).action == "PERM"
    assert judge(0xFF).action == "CONFIG"
    assert judge(0x0B) == statuses.Verdict("TEMP", 9)
    assert judge(0x08) == statuses.Verdict("TEMP", 9)


def test_names_agree_with_the_library_and_every_number_has_one():
    renamed = {0xC0, 0xC1, 0xC2, 0xC3, 0xC4}  # "optional parameter" became "TLV" in SMPP 5.0
    theirs = {status.value: status.name for status in SmppCommandStatus if status.value not in renamed}

    assert {value: statuses.name_of(value) for value in theirs} == theirs
    assert statuses.name_of(0x0412) == "vendor"
    assert statuses.name_of(0x7FFFFFFF) == "reserved"
    assert statuses.code_of(0x0412) == "0x00000412"


def test_five_in_a_row_to_three_numbers_blame_the_settings():
    judge = Judge(Profile())

    actions = [judge.decide(0x0A, to(f"+7916000000{index % 3}"), 1)[0] for index in range(5)]

    assert actions == ["PERM"] * 4 + ["CONFIG"]


def test_one_number_that_is_always_refused_blames_nothing():
    judge = Judge(Profile())

    assert {judge.decide(0x0A, to("+79160000001"), 1)[0] for _ in range(20)} == {"PERM"}


@pytest.mark.parametrize("other", ["taken", "refused otherwise"])
def test_any_other_answer_in_between_clears_the_settings(other):
    judge = Judge(Profile())
    for index in range(4):
        judge.decide(0x0A, to(f"+7916{index}"), 1)

    if other == "taken":
        judge.passed()
    else:
        judge.decide(0x0B, to("+79169"), 1)

    assert judge.decide(0x0A, to("+79168"), 1)[0] == "PERM"


def test_an_unknown_command_rebinds_once_and_is_then_a_matter_of_settings():
    judge = Judge(Profile())

    assert [judge.decide(0x03, to("+7916"), session)[0] for session in (1, 1, 2)] == ["REBIND", "REBIND", "CONFIG"]
    judge.passed()
    assert judge.decide(0x03, to("+7916"), 3)[0] == "REBIND"
    assert [judge.decide(0x04, to("+7916"), session)[0] for session in (1, 2, 3)] == ["REBIND"] * 3


def test_the_pause_before_another_attempt_doubles_up_to_the_longest():
    judge = Judge(Profile(retry_backoff_min=30, retry_backoff_max=200))

    pauses = [judge.decide(0x08, to("+7916", attempt), 1)[1].retry_in.total_seconds() for attempt in (1, 2, 3, 4, 100)]

    assert pauses == [30, 60, 120, 200, 200]
