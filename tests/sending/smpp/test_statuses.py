"""What a refusal means."""

from uuid import UUID

import pytest
from aiosmpplib import SmppCommandStatus

from app.gateways.profile import Profile
from app.sending.smpp import statuses
from app.sending.smpp.compose import Shipment
from app.sending.smpp.judge import Judge

COMMON = statuses.judge(Profile())


def to(address, attempt=1, sender=None):
    return Shipment(UUID(int=1), address, "Hi", sender, None, False, 1, attempt)


# The whole table: every number that somebody has given a meaning, and its common one.
TABLE = {
    "PERM": (0x01, 0x0B, 0x0C, 0x11, 0x13, 0x33, 0x34, 0x40, 0x42, 0x44, 0x55, 0x62, 0x65, 0x66, 0x67, 0xFE, *range(0x105, 0x113)),
    "BRK": (0x06, 0x07, 0x0A, 0x15, 0x43, 0x48, 0x49, 0x4A, 0x4B, 0x4E, 0x50, 0x51, 0x54, 0x61, 0x63, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0x104),
    "REBIND": (0x02, 0x03, 0x04, 0x05),
    "CONFIG": (0x0E, 0x0F, 0x4D, 0x53, 0x100, 0x101, 0x103),
    "THROTTLE": (0x14, 0x58),
}
TEMPORARY = {5: (0x08, 0x64, 0x102), 2: (0x45, 0xFF, 0x0D, 0x400, 0x412, 0x4FF, 0x500, 0x7FFFFFFF, 0xDEADBEEF, 0xFFFFFFFF)}


@pytest.mark.parametrize(("action", "status"), [(action, status) for action, line in TABLE.items() for status in line])
def test_a_status_has_its_common_meaning(action, status):
    assert COMMON(status) == statuses.Verdict(action)


@pytest.mark.parametrize(("attempts", "status"), [(attempts, status) for attempts, line in TEMPORARY.items() for status in line])
def test_a_temporary_refusal_deserves_so_many_attempts(attempts, status):
    assert COMMON(status) == statuses.Verdict("TEMP", attempts)


def test_every_status_with_a_name_is_in_the_table():
    placed = {status for line in (*TABLE.values(), *TEMPORARY.values()) for status in line}

    assert set(statuses.NAMES) - placed == {0x00}


@pytest.mark.parametrize(
    ("override", "verdict"),
    [
        ("PERM", ("PERM", None)),
        ("TEMP", ("TEMP", 9)),
        ("TEMP(3)", ("TEMP", 3)),
        ("TEMP(99)", ("TEMP", 99)),
        ("THROTTLE", ("THROTTLE", None)),
        ("REBIND", ("REBIND", None)),
        ("CONFIG", ("CONFIG", None)),
        ("BRK", ("BRK", None)),
    ],
)
def test_every_line_can_be_overridden(override, verdict):
    every = sorted(set(statuses.NAMES) | {0x0412, 0x7FFFFFFF})

    judge = statuses.judge(Profile(temp_attempts=9, status_overrides={str(status): override for status in every}))

    assert {judge(status) for status in every} == {statuses.Verdict(*verdict)}


def test_an_override_wins_and_temporary_ones_follow_the_profile():
    judge = statuses.judge(Profile(temp_attempts=9, status_overrides={"0x45": "PERM", "255": "CONFIG", "0x58": "TEMP(1)"}))

    assert judge(0x45).action == "PERM"
    assert judge(0xFF).action == "CONFIG"
    assert judge(0x58) == statuses.Verdict("TEMP", 1)
    assert judge(0x08) == statuses.Verdict("TEMP", 9)


def test_the_profile_names_the_statuses_that_ask_to_slow_down():
    judge = statuses.judge(Profile(throttle_statuses=["0x58", "0x61", "0x0412"]))

    assert [judge(status).action for status in (0x58, 0x61, 0x0412)] == ["THROTTLE"] * 3
    assert judge(0x14) == statuses.Verdict("TEMP", 5)


def test_names_agree_with_the_library_and_every_number_has_one():
    renamed = {0xC0, 0xC1, 0xC2, 0xC3, 0xC4}  # "optional parameter" became "TLV" in SMPP 5.0
    theirs = {status.value: status.name for status in SmppCommandStatus if status.value not in renamed}

    assert {value: statuses.name_of(value) for value in theirs} == theirs
    assert [statuses.name_of(value) for value in (0x4A, 0x50)] == ["ESME_RINVDSTTON"] * 2
    assert statuses.name_of(0x0412) == "vendor"
    assert statuses.name_of(0x7FFFFFFF) == "reserved"
    assert statuses.code_of(0x0412) == "0x00000412"


@pytest.mark.parametrize("status", TABLE["BRK"])
def test_five_in_a_row_to_three_numbers_blame_the_settings(status):
    judge = Judge(Profile())

    actions = [judge.decide(status, to(f"+7916000000{index % 3}"), 1)[0] for index in range(7)]

    assert actions == ["PERM"] * 4 + ["CONFIG"] * 3


@pytest.mark.parametrize("status", [0x0A, 0x43])
def test_one_number_that_is_always_refused_blames_nothing(status):
    judge = Judge(Profile())

    assert {judge.decide(status, to("+79160000001"), 1)[0] for _ in range(20)} == {"PERM"}


@pytest.mark.parametrize("statuses", [(0x43, 0x15), (0x0A, 0x48)])
def test_five_refusals_that_differ_blame_nothing(statuses):
    judge = Judge(Profile())

    assert {judge.decide(statuses[index % 2], to(f"+7916{index}"), 1)[0] for index in range(20)} == {"PERM"}


@pytest.mark.parametrize("status", [0x0A, 0x48, 0x49])
def test_a_sender_that_is_refused_waits_while_another_one_passes(status):
    judge = Judge(Profile(config_probe_interval=900))
    decisions = []
    for index in range(6):
        judge.passed("Good")
        decisions.append(judge.decide(status, to(f"+7916{index}", sender="Bad"), 1))

    assert [action for action, _ in decisions] == ["PERM"] * 4 + ["HOLD"] * 2
    outcome = decisions[-1][1]
    assert (outcome.reason, outcome.retry_in.total_seconds(), outcome.spends_attempt) == ("sender_refused", 900, False)
    judge.passed("Bad")
    assert judge.decide(status, to("+79169", sender="Bad"), 1)[0] == "PERM"


def test_the_only_sender_is_a_matter_of_the_settings_even_if_it_passed_before():
    judge = Judge(Profile())
    judge.passed("Only")

    actions = [judge.decide(0x0A, to(f"+7916{index}", sender="Only"), 1)[0] for index in range(5)]

    assert actions == ["PERM"] * 4 + ["CONFIG"]


def test_two_senders_are_not_taken_for_one():
    judge = Judge(Profile())

    actions = {judge.decide(0x0A, to(f"+7916{index}", sender=f"S{index % 2}"), 1)[0] for index in range(8)}

    assert actions == {"PERM"}


def test_thousands_of_senders_do_not_fill_the_memory():
    judge = Judge(Profile())

    for index in range(5000):
        judge.passed(f"S{index}")
        judge.decide(0x0A, to("+7916", sender=f"T{index}"), 1)

    assert max(len(judge._senders), len(judge._good_senders)) <= 1000


@pytest.mark.parametrize("status", [0x0A, 0x43])
@pytest.mark.parametrize("other", ["taken", "refused otherwise"])
def test_any_other_answer_in_between_clears_the_settings(status, other):
    judge = Judge(Profile())
    for index in range(4):
        judge.decide(status, to(f"+7916{index}"), 1)

    if other == "taken":
        judge.passed(None)
    else:
        judge.decide(0x0B, to("+79169"), 1)

    assert judge.decide(status, to("+79168"), 1)[0] == "PERM"


def test_an_unknown_command_rebinds_once_and_is_then_a_matter_of_settings():
    judge = Judge(Profile())

    assert [judge.decide(0x03, to("+7916"), session)[0] for session in (1, 1, 2)] == ["REBIND", "REBIND", "CONFIG"]
    judge.passed(None)
    assert judge.decide(0x03, to("+7916"), 3)[0] == "REBIND"
    assert [judge.decide(0x04, to("+7916"), session)[0] for session in (1, 2, 3)] == ["REBIND"] * 3


def test_the_pause_before_another_attempt_doubles_up_to_the_longest():
    judge = Judge(Profile(retry_backoff_min=30, retry_backoff_max=200))

    pauses = [judge.decide(0x08, to("+7916", attempt), 1)[1].retry_in.total_seconds() for attempt in (1, 2, 3, 4, 100)]

    assert pauses == [30, 60, 120, 200, 200]
