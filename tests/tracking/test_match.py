"""Receipts find their messages."""

import asyncio
from datetime import timedelta

import pytest

from app.core import metrics
from app.core.clock import now
from app.core.ids import first_id_at, new_id
from app.core.wakeups import Wakeups
from app.notifications.history import history_of
from app.sending.outcome import Accepted
from app.tracking.sweeps import Sweeper
from tests.builders.messages import a_message, claim, one, rows, run, state_of, write
from tests.builders.receipts import a_receipt, a_submission, receive


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


async def an_accepted_message(database, *ids, state="accepted", **fields):
    message = await a_message(database, ended=state, parts=len(ids), **{name: fields.pop(name) for name in ("id", "reason") if name in fields})
    await a_submission(database, message, *ids, **fields)
    return message


async def statuses(database):
    return [row.status for row in await rows(database, "SELECT status FROM receipt ORDER BY id")]


@pytest.mark.parametrize(
    ("stat", "state"),
    [
        ("DELIVRD", ("delivered", None)),
        ("UNDELIV", ("undelivered", "undeliverable")),
        ("EXPIRED", ("expired", "expired")),
        ("DELETED", ("undelivered", "deleted")),
        ("REJECTD", ("undelivered", "rejected")),
        ("ENROUTE", ("accepted", None)),
        ("ACCEPTD", ("accepted", None)),
        ("WEIRD", ("accepted", None)),
    ],
)
async def test_receipt_moves_its_message_as_its_word_says(database, stat, state):
    message = await an_accepted_message(database, "17")

    await receive(database, a_receipt("17", stat))

    assert await state_of(database, message) == state
    assert (await one(database, "SELECT status, message_id, part, stat FROM receipt")) == ("matched", message, 1, stat)


async def test_many_receipts_of_a_flush_move_each_its_own_message(database):
    messages = [await an_accepted_message(database, str(number)) for number in range(30)]
    stats = ["DELIVRD", "UNDELIV", "EXPIRED"]

    await receive(database, *(a_receipt(str(number), stats[number % 3]) for number in range(30)))

    states = [(await state_of(database, message))[0] for message in messages]
    assert states == ["delivered", "undelivered", "expired"] * 10


async def test_repeated_receipt_changes_nothing_and_is_kept_once(database):
    message = await an_accepted_message(database, "17")
    await receive(database, a_receipt("17"), a_receipt("17"))
    before = await one(database, "SELECT * FROM message")

    await receive(database, a_receipt("17"))

    assert await one(database, "SELECT * FROM message WHERE id = :id", id=message) == before
    assert await statuses(database) == ["matched"]


async def test_receipt_that_was_stored_by_somebody_who_died_before_he_moved_the_message_moves_it_when_it_comes_again(database):
    bad, long = await an_accepted_message(database, "17"), await an_accepted_message(database, "18", "19")
    receipts = [("17", "UNDELIV"), ("18", "DELIVRD"), ("19", "DELIVRD")]
    await receive(database, *(a_receipt(*said) for said in receipts))
    await run(database, "UPDATE message SET state = 'accepted'")

    await receive(database, *(a_receipt(*said) for said in receipts))

    assert (await state_of(database, bad))[0] == "undelivered"
    assert (await state_of(database, long))[0] == "delivered"


@pytest.mark.parametrize("state", ["undelivered", "expired", "unknown"])
async def test_late_delivery_overwrites_what_was_believed(database, state):
    message = await an_accepted_message(database, "17", state=state, reason="x")

    await receive(database, a_receipt("17"))

    assert await state_of(database, message) == ("delivered", None)


@pytest.mark.parametrize("state", ["delivered", "failed", "cancelled"])
async def test_nothing_overwrites_what_is_final(database, state):
    message = await an_accepted_message(database, "17", state=state)

    await receive(database, a_receipt("17", "UNDELIV"), a_receipt("17", "ENROUTE"), a_receipt("17", "EXPIRED"))

    assert await state_of(database, message) == (state, None)


async def test_expired_is_not_made_undelivered_afterwards(database):
    message = await an_accepted_message(database, "17", state="expired", reason="expired")

    await receive(database, a_receipt("17", "UNDELIV"))

    assert await state_of(database, message) == ("expired", "expired")


async def test_sign_of_life_clears_up_what_was_in_doubt(database):
    message = await an_accepted_message(database, "17", state="unknown", reason="no_answer")

    await receive(database, a_receipt("17", "ENROUTE"))

    assert await state_of(database, message) == ("accepted", None)


async def test_bad_and_good_news_in_one_flush_end_well_in_either_order(database):
    first, second = await an_accepted_message(database, "1"), await an_accepted_message(database, "2")

    await receive(database, a_receipt("1", "UNDELIV"), a_receipt("1"), a_receipt("2"), a_receipt("2", "UNDELIV"))

    assert {(await state_of(database, message))[0] for message in (first, second)} == {"delivered"}


async def test_quick_receipt_waits_for_its_submission_and_is_matched_when_that_is_settled(database):
    await receive(database, a_receipt("17"))
    assert await statuses(database) == ["parked"]
    message = await an_accepted_message(database, "17")

    await receive(database, settled=["17"])

    assert await statuses(database) == ["matched"]
    assert (await state_of(database, message))[0] == "delivered"


async def test_quick_receipt_is_matched_by_the_sweeper_when_another_bind_settled(database, sweeper):
    await receive(database, a_receipt("17", "UNDELIV"), a_receipt("18"))
    message = await an_accepted_message(database, "17")

    assert await sweeper.match_parked() == 1

    assert await statuses(database) == ["matched", "parked"]
    assert await state_of(database, message) == ("undelivered", "undeliverable")
    assert await sweeper.match_parked() == 0


async def test_parked_receipts_of_all_parts_deliver_a_long_message(database, sweeper):
    await receive(database, a_receipt("18"), a_receipt("17"))
    message = await an_accepted_message(database, "17", "18")

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "delivered"
    assert await statuses(database) == ["matched", "matched"]


async def test_one_part_parked_and_the_other_known_deliver_a_long_message(database, sweeper):
    await receive(database, a_receipt("17"))
    message = await an_accepted_message(database, "17", "18")
    await receive(database, a_receipt("18"))
    assert (await state_of(database, message))[0] == "accepted"

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "delivered"


async def test_receipt_and_settle_that_cross_are_brought_together_by_the_sweeper(database, sweeper):
    message = await a_message(database, ended="accepted")

    await asyncio.gather(receive(database, a_receipt("17")), a_submission(database, message, "17"))
    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "delivered"


async def test_same_receipt_parked_twice_is_kept_once(database):
    await receive(database, a_receipt("17"), a_receipt("17"), a_receipt("17", "ENROUTE"))
    await receive(database, a_receipt("17"))

    assert await statuses(database) == ["parked", "parked"]


async def test_receipt_that_finds_nobody_for_ten_minutes_is_given_up(database, sweeper):
    await receive(database, a_receipt("17"), a_receipt("18"))
    await run(database, "UPDATE receipt SET id = :then WHERE gateway_message_id = '17'", then=first_id_at(now() - timedelta(minutes=11)))

    await sweeper.match_parked()

    assert await statuses(database) == ["unmatched", "parked"]


async def test_receipt_that_comes_again_after_it_was_given_up_has_another_chance(database, sweeper):
    await receive(database, a_receipt("17"))
    await run(database, "UPDATE receipt SET status = 'unmatched'")
    message = await an_accepted_message(database, "17")

    await receive(database, a_receipt("17"))

    assert (await state_of(database, message))[0] == "delivered"


async def test_of_a_reused_id_the_newest_submission_is_meant(database):
    old = await an_accepted_message(database, "17", at=now() - timedelta(days=2), id=first_id_at(now() - timedelta(days=2)))
    new = await an_accepted_message(database, "17")

    await receive(database, a_receipt("17"))

    assert [(await state_of(database, message))[0] for message in (old, new)] == ["accepted", "delivered"]


async def test_newest_means_sent_last_and_not_planned_last(database):
    # Held overnight: planned before the other, sent after it, and after the SMSC had begun to count anew.
    slept = await an_accepted_message(database, "17", id=first_id_at(now() - timedelta(hours=12)), at=now() - timedelta(minutes=1))
    quick = await an_accepted_message(database, "17", id=first_id_at(now() - timedelta(hours=11)), at=now() - timedelta(hours=11))

    await receive(database, a_receipt("17"))

    assert [(await state_of(database, message))[0] for message in (slept, quick)] == ["delivered", "accepted"]


async def test_submission_of_last_month_is_not_looked_at(database):
    old = await an_accepted_message(database, "17", at=now() - timedelta(days=30), id=first_id_at(now() - timedelta(days=30)))

    await receive(database, a_receipt("17"))

    assert (await state_of(database, old))[0] == "accepted"
    assert await statuses(database) == ["parked"]


async def test_groups_of_gateways_that_share_an_id_do_not_mix(database):
    ours, theirs = await an_accepted_message(database, "17"), await an_accepted_message(database, "17", group="other")

    await receive(database, a_receipt("17", "UNDELIV"), group="other")

    assert [(await state_of(database, message))[0] for message in (ours, theirs)] == ["accepted", "undelivered"]
    await receive(database, a_receipt("99"))
    await receive(database, a_receipt("99"), group="other")
    assert await statuses(database) == ["matched", "parked", "parked"]


async def test_long_message_is_delivered_with_its_last_part(database):
    message = await an_accepted_message(database, "1", "2", "3")

    for identity, expected in (("3", "accepted"), ("1", "accepted"), ("2", "delivered")):
        await receive(database, a_receipt(identity))
        assert (await state_of(database, message))[0] == expected


async def test_long_message_with_a_lost_part_is_undelivered_once_all_parts_are_known(database):
    message = await an_accepted_message(database, "1", "2")

    await receive(database, a_receipt("2", "EXPIRED"))
    assert (await state_of(database, message))[0] == "accepted"
    await receive(database, a_receipt("1"))
    assert await state_of(database, message) == ("expired", "expired")

    await receive(database, a_receipt("2"))
    assert await state_of(database, message) == ("delivered", None)


async def test_part_that_was_delivered_stays_delivered_whatever_comes_after(database):
    message = await an_accepted_message(database, "1", "2")

    await receive(database, a_receipt("1"))
    await receive(database, a_receipt("1", "UNDELIV"))
    await receive(database, a_receipt("2"))

    assert (await state_of(database, message))[0] == "delivered"


async def test_intermediate_news_of_parts_does_not_make_the_whole(database):
    message = await an_accepted_message(database, "1", "2")

    await receive(database, a_receipt("1", "ENROUTE"), a_receipt("2"))

    assert (await state_of(database, message))[0] == "accepted"


async def test_half_taken_message_stays_in_doubt_when_only_its_taken_part_is_delivered(database):
    message = await an_accepted_message(database, "1", "", state="unknown", reason="partial")

    await receive(database, a_receipt("1"))

    assert await state_of(database, message) == ("unknown", "partial")


async def test_c30_what_cannot_be_read_is_put_in_quarantine_with_all_its_octets(database):
    cut, garbage = a_receipt(body=b"\0\x01\x01"), a_receipt(body=b"\xff" * 40)

    await receive(database, cut, a_receipt(body=b""), garbage, a_receipt("17"))

    found = await rows(database, "SELECT status, raw, message_id FROM receipt ORDER BY id")
    assert found[:3] == [("quarantined", cut.raw, None), ("quarantined", b"", None), ("quarantined", garbage.raw, None)]
    assert found[3].status == "parked"


async def test_poison_is_kept_as_octets_alone_and_moves_nothing(database):
    message = await an_accepted_message(database, "17")
    receipt = a_receipt("17")
    receipt.is_poison = True

    await receive(database, receipt)

    kept = await one(database, "SELECT status, gateway_message_id, stat, state, destination, raw FROM receipt")
    assert kept == ("quarantined", None, "", None, None, receipt.raw)
    assert (await state_of(database, message))[0] == "accepted"


async def test_receipt_with_a_nul_in_its_id_takes_nobody_along(database):
    message = await an_accepted_message(database, "17")

    await receive(database, a_receipt("x\0y", "DELI\0"), a_receipt("\0"), a_receipt("z" * 220), a_receipt("17"))

    assert (await state_of(database, message))[0] == "delivered"
    assert "matched" in await statuses(database)


async def test_id_is_cut_alike_when_it_is_settled_and_when_it_comes_back(database):
    message, owner = await a_message(database), new_id()
    (claimed,) = await claim(database, owner=owner)
    await write(database, owner, (claimed, Accepted(("a" * 210,))))

    await receive(database, a_receipt("a" * 210, with_tlvs=True))

    assert (await state_of(database, message))[0] == "delivered"


async def test_many_parked_receipts_are_all_tried_again(database, sweeper):
    await receive(database, *(a_receipt(f"x{number}") for number in range(40)))
    messages = [await an_accepted_message(database, f"x{number}") for number in range(40)]

    await asyncio.gather(sweeper.match_parked(), sweeper.match_parked())

    assert {(await state_of(database, message))[0] for message in messages} == {"delivered"}


async def test_id_that_was_given_twice_belongs_to_the_number_of_the_receipt(database):
    ours = await an_accepted_message(database, "17", destination=79161234567, at=now() - timedelta(minutes=5))
    newer = await an_accepted_message(database, "17", destination=79160000002)

    await receive(database, a_receipt("17", of="79161234567"))

    assert [(await state_of(database, message))[0] for message in (ours, newer)] == ["delivered", "accepted"]


async def test_number_of_the_receipt_is_not_asked_where_the_profile_ignores_it(database):
    ours = await an_accepted_message(database, "17", destination=79161234567, at=now() - timedelta(minutes=5))
    newer = await an_accepted_message(database, "17", destination=79160000002)

    await receive(database, a_receipt("17", of="79161234567"), address="ignore")

    assert [(await state_of(database, message))[0] for message in (ours, newer)] == ["accepted", "delivered"]


@pytest.mark.parametrize(("address", "state"), [("prefer", "delivered"), ("ignore", "delivered"), ("require", "accepted")])
async def test_lone_message_of_another_number_is_meant_unless_the_profile_requires_the_number(database, address, state):
    message = await an_accepted_message(database, "17", destination=79160000002)

    await receive(database, a_receipt("17", of="79161234567"), address=address)

    assert (await state_of(database, message))[0] == state


async def test_of_an_id_that_was_given_twice_to_one_number_the_newest_that_is_open_is_meant(database):
    open_one = await an_accepted_message(database, "17", destination=79161234567, at=now() - timedelta(minutes=5))
    ended = await an_accepted_message(database, "17", destination=79161234567, state="undelivered")

    await receive(database, a_receipt("17"))

    assert [(await state_of(database, message))[0] for message in (open_one, ended)] == ["delivered", "undelivered"]


async def test_repeated_receipt_of_a_reused_id_does_not_deliver_the_older_message(database):
    older = await an_accepted_message(database, "17", destination=79161234567, at=now() - timedelta(minutes=5))
    newest = await an_accepted_message(database, "17", destination=79161234567)
    await receive(database, a_receipt("17"))

    await receive(database, a_receipt("17"), a_receipt("17"))

    assert [(await state_of(database, message))[0] for message in (older, newest)] == ["accepted", "delivered"]


async def test_parked_receipt_prefers_its_number_as_well(database, sweeper):
    await receive(database, a_receipt("17", of="79161234567"))
    ours = await an_accepted_message(database, "17", destination=79161234567, at=now() - timedelta(minutes=5))
    newer = await an_accepted_message(database, "17", destination=79160000002)

    await sweeper.match_parked()

    assert [(await state_of(database, message))[0] for message in (ours, newer)] == ["delivered", "accepted"]


@pytest.mark.parametrize("receipts", [1, 3])
async def test_one_id_for_all_parts_delivers_the_message_with_one_receipt_or_with_as_many_as_there_are_parts(database, receipts):
    message = await an_accepted_message(database, "17", "17", "17")

    for _ in range(receipts):
        await receive(database, a_receipt("17"))

    assert (await state_of(database, message))[0] == "delivered"
    assert await statuses(database) == ["matched"]


async def test_one_id_for_all_parts_of_a_quick_receipt_delivers_the_message_too(database, sweeper):
    await receive(database, a_receipt("17"))
    message = await an_accepted_message(database, "17", "17")

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "delivered"


@pytest.mark.parametrize("part", ["1", "3"])
async def test_receipt_speaks_for_the_whole_message_where_the_profile_says_so(database, part):
    message = await an_accepted_message(database, "1", "2", "3")

    await receive(database, a_receipt(part), one_receipt=True)

    assert (await state_of(database, message))[0] == "delivered"


async def test_part_on_its_way_clears_up_nothing_of_a_half_taken_message(database):
    message = await an_accepted_message(database, "1", "", state="unknown", reason="partial")

    await receive(database, a_receipt("1", "ENROUTE"))

    assert await state_of(database, message) == ("unknown", "partial")


async def test_error_is_kept_as_it_came_and_gives_the_message_its_reason(database):
    message = await an_accepted_message(database, "17")

    await receive(database, a_receipt("17", "UNDELIV", err="027"))

    assert await state_of(database, message) == ("undelivered", "absent_subscriber")
    assert (await one(database, "SELECT error, reason FROM receipt")) == ("027", "absent_subscriber")


async def test_c25_intermediate_states_and_repeated_deliveries_end_as_one_delivery(database):
    message, answers = await an_accepted_message(database, "17"), []
    for stat in ("ENROUTE", "ACCEPTD", "DELIVRD", "DELIVRD"):
        await receive(database, a_receipt("17", stat))
        answers.append((await state_of(database, message))[0])

    assert answers == ["accepted", "accepted", "delivered", "delivered"]
    assert [row.stat for row in await rows(database, "SELECT stat FROM receipt ORDER BY id")] == ["ENROUTE", "ACCEPTD", "DELIVRD"]


async def test_parked_receipt_that_says_what_is_known_already_is_dropped(database, sweeper):
    await receive(database, a_receipt("17"))
    message = await an_accepted_message(database, "17", "17")
    await receive(database, a_receipt("17", of="79990000000"))
    assert sorted(await statuses(database)) == ["matched", "parked"]

    await sweeper.match_parked()

    assert await statuses(database) == ["matched"]
    assert (await state_of(database, message))[0] == "delivered"


async def test_receipts_that_find_nobody_keep_none_of_the_others_waiting(database, sweeper, monkeypatch):
    monkeypatch.setattr("app.tracking.sweeps.PARKED_BATCH", 3)
    await receive(database, *(a_receipt(f"x{number}") for number in range(5)))
    message = await an_accepted_message(database, "x4")

    for _ in range(2):
        await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "delivered"


async def test_words_that_nobody_knows_are_counted(database):
    def counted():
        return metrics.RECEIPTS.labels("odd", "unknown_word")._value.get()

    before = counted()
    await receive(database, a_receipt("1", "NIEDOSTARCZ"), a_receipt("2", "UNKNOWN"), a_receipt("3"), group="odd")

    assert counted() == before + 1


async def test_history_says_that_one_receipt_delivered_all_parts(database):
    message = await an_accepted_message(database, "1", "2", "3")

    await receive(database, a_receipt("2", "ENROUTE"), one_receipt=True)
    await receive(database, a_receipt("3"), one_receipt=True)

    async with database.transaction() as session:
        history = await history_of(session, message, now() - timedelta(hours=1))
    assert [line.state for line in history][-2:] == ["accepted", "delivered"]
