"""SMS from subscribers: joined, kept once, and done as they say."""

import asyncio
from datetime import timedelta

import pytest

from app.core import metrics
from app.core.clock import now
from app.core.ids import new_id
from app.core.wakeups import Wakeups
from app.sms import gsm
from app.tracking.inbound import GAP
from app.tracking.sweeps import Sweeper
from tests.builders.accounts import an_account
from tests.builders.inbound import a_policy, an_sms, come, joint8, parts_of
from tests.builders.messages import a_message, claim, one, rows, run, state_of
from tests.builders.receipts import a_receipt, a_submission

PHONE = "+79161234567"


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


async def texts(database):
    return [row.text for row in await rows(database, "SELECT text FROM inbound_message ORDER BY id")]


async def suppressed(database):
    return [tuple(row) for row in await rows(database, "SELECT channel, address, reason, by FROM suppression ORDER BY address, reason")]


async def acts(database):
    return [(row.act, row.address) for row in await rows(database, "SELECT act, address FROM consent ORDER BY id")]


async def pass_by(database, seconds):
    """So much time goes by since everything that has come."""
    await run(database, "UPDATE inbound_message SET at = at - make_interval(secs => :s)", s=seconds)
    await run(database, "UPDATE inbound_part SET at = at - make_interval(secs => :s)", s=seconds)


async def test_sms_is_kept_with_whatever_is_known_of_it(database):
    await come(database, an_sms("Когда включат?", "89161234567", "MyISP"), policy=a_policy("spare"))

    row = await one(database, "SELECT * FROM inbound_message")
    assert (row.gateway, row.source, row.destination, row.text, row.encoding) == ("spare", PHONE, "MyISP", "Когда включат?", "UCS2")
    assert (row.parts, row.is_complete, row.action, bytes(row.raw)) == (1, True, None, "Когда включат?".encode("utf-16-be"))
    assert await rows(database, "SELECT 1 FROM receipt") == []


async def test_receipts_of_the_same_flush_find_their_messages(database):
    message = await a_message(database, ended="accepted")
    await a_submission(database, message, "17")

    await come(database, an_sms("Привет"), a_receipt("17"))

    assert await state_of(database, message) == ("delivered", None)
    assert await texts(database) == ["Привет"]


async def test_long_sms_is_joined_in_its_order_whatever_the_order_of_its_parts_and_the_bind_they_came_by(database):
    first, second, third = parts_of("раз, ", "два, ", "три")

    await come(database, third, policy=a_policy("a", "pair"))
    await come(database, first, policy=a_policy("b", "pair"))
    assert await texts(database) == []
    await come(database, second, policy=a_policy("a", "pair"))

    row = await one(database, "SELECT * FROM inbound_message")
    assert (row.text, row.parts, row.is_complete, row.gateway) == ("раз, два, три", 3, True, "a")


async def test_last_two_parts_at_once_over_two_binds_make_one_message(database):
    for reference in range(10):
        first, second = parts_of("раз ", "два", reference=reference)
        await asyncio.gather(come(database, first, policy=a_policy("a", "pair")), come(database, second, policy=a_policy("b", "pair")))

    assert await texts(database) == ["раз два"] * 10


async def test_character_that_lies_across_two_parts_is_whole(database):
    octets = "🙂".encode("utf-16-be")
    euro = gsm.encode("€")

    await come(database, *(an_sms(octets[i : i + 2], coding=8, udh=joint8(1, 2, 1 + i // 2)) for i in (0, 2)))
    await come(database, *(an_sms(euro[i : i + 1], coding=0, udh=joint8(2, 2, 1 + i)) for i in (0, 1)))

    assert await texts(database) == ["🙂", "€"]


async def test_part_that_comes_again_changes_nothing(database):
    first, second, third = parts_of("раз ", "два ", "три")

    await come(database, first, first, second)
    await come(database, first)
    await come(database, third)
    await come(database, third, first)
    await pass_by(database, 120)
    await come(database, second)

    assert await texts(database) == ["раз два три"]
    assert await rows(database, "SELECT 1 FROM inbound_part WHERE NOT joined") == []


async def test_reference_that_comes_round_begins_another_message(database):
    await come(database, *parts_of("раз ", "два"))
    await come(database, *parts_of("три ", "четыре"))

    assert await texts(database) == ["раз два", "три четыре"]


async def test_other_text_under_a_number_that_is_taken_ends_the_message_that_was_begun(database):
    await come(database, parts_of("раз ", "два ", "-")[0])
    await come(database, parts_of("раз ", "два ", "-")[1])

    await come(database, *parts_of("три ", "четыре ", "пять"))

    assert await texts(database) == [f"раз два {GAP}", "три четыре пять"]
    assert [row.is_complete for row in await rows(database, "SELECT is_complete FROM inbound_message ORDER BY id")] == [False, True]


async def test_same_reference_of_another_sender_or_with_another_total_is_another_message(database):
    await come(database, parts_of("а1", "а2")[0], parts_of("б1", "б2", source="79160000001")[1], parts_of("в1", "в2", "в3")[1])

    assert await texts(database) == []
    assert len(await rows(database, "SELECT 1 FROM inbound_part")) == 3


async def test_message_of_255_parts_is_joined(database):
    parts = parts_of(*(f"{number:03}" for number in range(255)))

    await come(database, *parts[::-1])

    row = await one(database, "SELECT text, parts FROM inbound_message")
    assert (row.parts, row.text) == (255, "".join(f"{number:03}" for number in range(255)))


async def test_incomplete_message_is_kept_as_it_is_after_a_day(database, sweeper):
    await come(database, *(parts_of("раз", "два", "три", "четыре", "пять")[number] for number in (1, 3)))
    await pass_by(database, 23 * 3600)
    await come(database, parts_of("х", "у", source="79160000001")[0])
    assert await sweeper.give_up_parts() == 0

    await pass_by(database, 3700)

    assert await sweeper.give_up_parts() == 1
    row = await one(database, "SELECT text, parts, is_complete FROM inbound_message")
    assert row == (f"{GAP}два{GAP}четыре{GAP}", 2, False)
    assert len(await rows(database, "SELECT 1 FROM inbound_part")) == 1
    assert await sweeper.give_up_parts() == 0


async def test_parts_that_were_joined_are_forgotten_after_a_while(database, sweeper):
    await come(database, *parts_of("раз ", "два"))
    await sweeper.give_up_parts()
    assert len(await rows(database, "SELECT 1 FROM inbound_part")) == 2

    await pass_by(database, 700)
    await sweeper.give_up_parts()

    assert await rows(database, "SELECT 1 FROM inbound_part") == []
    assert await texts(database) == ["раз два"]


async def test_sms_that_comes_again_at_once_is_kept_once_and_a_minute_later_twice(database):
    await come(database, an_sms("Да"), an_sms("Да"))
    await come(database, an_sms("Да"), policy=a_policy("other", "other"))
    assert await texts(database) == ["Да"]

    await pass_by(database, 60)
    await come(database, an_sms("Да"))

    assert await texts(database) == ["Да", "Да"]


async def test_same_words_to_another_number_or_by_another_sender_are_another_message(database):
    await come(database, an_sms("Да"), an_sms("Да", destination="777"), an_sms("Да", "79160000001"))

    assert await texts(database) == ["Да"] * 3


async def test_stop_suppresses_the_number_in_its_one_form_and_is_a_consent_refused(database):
    account, other = await an_account(database), await an_account(database, "100501")
    await an_account(database, "100502", phones=("+79160000001",))

    await come(database, an_sms(" Стоп! ", "89161234567"))

    assert await suppressed(database) == [("sms", PHONE, "stop_word", "subscriber")]
    found = await rows(database, "SELECT account_id, channel, address, act, via, by, detail FROM consent ORDER BY account_id")
    assert [tuple(row) for row in found] == [(i, "sms", PHONE, "refused", "sms", "subscriber", "Стоп!") for i in sorted((account.id, other.id))]
    assert (await one(database, "SELECT action FROM inbound_message")).action == "stop"


async def test_number_that_is_nobodys_contact_is_suppressed_all_the_same(database):
    await come(database, an_sms("STOP"))

    assert await suppressed(database) == [("sms", PHONE, "stop_word", "subscriber")]
    assert (await one(database, "SELECT account_id FROM consent")).account_id is None


async def test_stop_from_what_is_no_number_is_kept_and_suppresses_nobody(database):
    await come(database, an_sms("STOP", "MegaFon"), an_sms("STOP", "0890"))

    assert await texts(database) == ["STOP", "STOP"]
    assert await suppressed(database) == []
    assert await acts(database) == []


async def test_start_lifts_what_a_stop_had_done_and_nothing_else(database):
    await come(database, an_sms("STOP"))
    await run(database, "INSERT INTO suppression (channel, address, reason, detail, by, at) VALUES ('sms', :phone, 'operator', '', 'x', now())", phone=PHONE)

    await come(database, an_sms("старт"))

    assert await suppressed(database) == [("sms", PHONE, "operator", "x")]
    assert await acts(database) == [("refused", PHONE), ("allowed", PHONE)]


async def test_last_word_counts_also_when_all_come_at_once_or_again(database):
    await come(database, an_sms("STOP"), an_sms("START"), an_sms("STOP"))
    assert len(await suppressed(database)) == 1
    assert [act for act, _ in await acts(database)] == ["refused", "allowed", "refused"]

    await come(database, an_sms("START"))  # the acknowledgement of the first one was lost: it is no new one

    assert len(await suppressed(database)) == 1
    assert len(await acts(database)) == 3


async def test_stop_that_comes_again_is_one_act(database):
    await come(database, an_sms("STOP"))
    await come(database, an_sms("STOP"))

    assert len(await acts(database)) == 1


async def test_stop_cancels_what_waits_for_the_number_but_what_is_mandatory(database):
    await run(database, "UPDATE notification_type SET mandatory = true WHERE code = 'tariff.changed'")
    queued, held = await a_message(database), await a_message(database, state="held", not_before=now() + timedelta(hours=1))
    unknown_type = await a_message(database, type="gone.type")
    mandatory, other = await a_message(database, type="tariff.changed"), await a_message(database, address="+79160000001")
    letter = await a_message(database, channel="email", address="a@example.org")
    gone = await a_message(database, ended="accepted")

    await come(database, an_sms("стоп"))

    for message in (queued, held, unknown_type):
        assert await state_of(database, message) == ("cancelled", "suppressed")
    assert [await state_of(database, message) for message in (mandatory, other, letter)] == [("queued", None)] * 3
    assert await state_of(database, gone) == ("accepted", None)
    assert len(await rows(database, "SELECT 1 FROM message_change WHERE state = 'cancelled' AND reason = 'suppressed'")) == 3


async def test_message_on_the_wire_is_on_its_last_try_after_a_stop(database):
    message = await a_message(database)
    await claim(database)

    await come(database, an_sms("стоп"))

    assert await state_of(database, message) == ("sending", None)
    assert (await one(database, "SELECT expires_at <= now() AS over FROM outbox")).over


async def test_message_that_was_planned_at_the_very_moment_of_a_stop_is_withdrawn_by_the_sweep(database, sweeper):
    await come(database, an_sms("стоп"))
    message = await a_message(database)

    assert await sweeper.withdraw() == 1

    assert await state_of(database, message) == ("cancelled", "suppressed")
    assert await sweeper.withdraw() == 0


async def test_words_of_the_gateway_decide(database):
    await come(database, an_sms("STOP"), an_sms("хватит", "79160000001"), policy=a_policy(stop_words=["Хватит"]))

    assert await suppressed(database) == [("sms", "+79160000001", "stop_word", "subscriber")]


async def test_word_in_a_message_that_is_not_whole_means_nothing(database, sweeper):
    await come(database, parts_of("стоп", "нет")[0])
    await pass_by(database, 25 * 3600)

    await sweeper.give_up_parts()

    assert await suppressed(database) == []


async def test_nothing_is_stored_when_the_flush_fails_and_all_when_it_comes_again(database):
    await run(database, "ALTER TABLE consent ADD CONSTRAINT poison CHECK (address <> '+79161234567')")
    with pytest.raises(Exception, match="poison"):
        await come(database, *parts_of("раз ", "два"), an_sms("STOP"))
    assert await texts(database) == []
    assert await rows(database, "SELECT 1 FROM inbound_part") == []

    await run(database, "ALTER TABLE consent DROP CONSTRAINT poison")
    await come(database, *parts_of("раз ", "два"), an_sms("STOP"))

    assert await texts(database) == ["раз два", "STOP"]
    assert len(await suppressed(database)) == 1


async def test_hostile_ones_are_kept_and_keep_nobody_back(database):
    hostile = [
        an_sms(b"\0\0\0", "7" * 200, "\x01" * 60, coding=8),
        an_sms("x\0y", udh=joint8(1, 0, 0)),
        an_sms(b"\xd8\x00", coding=8),
        an_sms(b"x", coding=0, udh=b"\xff"),
        an_sms(b"", coding=0, udh=joint8(1, 255, 255)),
    ]

    await come(database, *hostile, an_sms("Привет", "79160000001"))

    assert "Привет" in await texts(database)
    assert len(await texts(database)) == 5


async def test_every_one_is_counted_by_what_it_did(database):
    gateway = f"g{new_id().hex[:8]}"

    await come(database, an_sms("STOP"), an_sms("START"), an_sms("Да"), an_sms("Да"), policy=a_policy(gateway))

    counted = {action: metrics.INBOUND.labels(gateway, action)._value.get() for action in metrics.INBOUND_ACTIONS}
    assert counted == {"stop": 1, "start": 1, "kept": 1, "incomplete": 0, "repeated": 1}


async def test_many_at_once_are_a_few_statements(database):
    await come(database, *(an_sms(f"Да {number}", f"7916000{number:04}") for number in range(400)))

    assert len(await texts(database)) == 400
