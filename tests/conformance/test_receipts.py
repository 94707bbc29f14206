"""C22 to C32: receipts early, late, twice, out of order, in every form, by every carrier, in bursts, and while the store is away."""

import asyncio
import time
from typing import get_args

import pytest
import sqlalchemy as sa

from app.core.ids import new_id
from app.simulators.smsc import Mobile
from app.simulators.smsc_scenario import Form
from tests.builders.messages import one, rows
from tests.conformance.conftest import until

FORMS = [
    "standard", "err_hex", "err_empty", "err_four", "seconds", "fourteen", "zeros", "submitdate", "short", "lower", "upper", "full_word", "labels_in_text", "free",
]  # fmt: skip


async def answered(smsc, count: int, *, seconds: float = 10) -> None:
    """Until so many receipts are acknowledged, and none is left."""
    await until(lambda: smsc.receipts_acknowledged >= count and not any(account.outstanding for account in smsc.accounts.values()), seconds)


async def test_c22_a_receipt_after_the_answer_delivers_the_message_and_is_acknowledged_when_it_is_stored(works, play, database):
    smsc = await play({"on": "receipt", "delay": 0.2})
    await works.open(smsc)
    await works.tell(1)
    await works.until(accepted=1)
    async with database.transaction() as session:  # no receipt can be stored while this stands
        await session.execute(sa.text("LOCK TABLE receipt IN EXCLUSIVE MODE"))
        await until(lambda: smsc.receipts_sent == 1)
        await asyncio.sleep(0.4)
        acknowledged_unsaved = smsc.receipts_acknowledged

    await works.until(delivered=1)
    await answered(smsc, 1)

    assert acknowledged_unsaved == 0
    assert smsc.receipt_answers == [0]


async def test_c23_a_receipt_before_the_answer_is_parked_and_delivers_the_message(works, play):
    smsc = await play({"on": "receipt", "lead": 0.6})
    await works.open(smsc)
    await works.tell(3)

    await until(lambda: smsc.receipts_acknowledged == 3)
    early = await works.states()
    await works.until(delivered=3)

    assert early == {"sending": 3}
    assert smsc.receipt_answers == [0, 0, 0]
    assert await works.receipts() == {"matched": 3}


async def test_c25_intermediate_states_close_nothing_and_repeated_ones_change_nothing(works, play):
    smsc = await play({"on": "receipt", "states": ["ENROUTE", "ACCEPTD", "DELIVRD"], "gap": 0.4, "copies": 2})
    await works.open(smsc)
    (message,) = await works.tell(1)

    await until(lambda: smsc.receipts_acknowledged == 4)
    midway = await works.states()
    await works.until(delivered=1)
    await answered(smsc, 6)

    assert midway == {"accepted": 1}
    assert smsc.receipt_answers == [0] * 6
    stats = [row.stat for row in await rows(works.database, "SELECT stat FROM receipt WHERE message_id = :id ORDER BY at", id=message)]
    assert stats == ["ENROUTE", "ACCEPTD", "DELIVRD"]


async def test_c25_what_comes_after_the_last_word_does_not_take_it_back(works, play):
    smsc = await play({"on": "receipt", "states": ["DELIVRD", "ENROUTE", "EXPIRED", "NONSENSE"], "gap": 0.1})
    await works.open(smsc)
    await works.tell(1)

    await answered(smsc, 4)

    assert await works.states() == {"delivered": 1}


@pytest.mark.parametrize("carrier", ["both", "text"])
async def test_c26_every_text_is_read(works, play, carrier):
    forms = FORMS if carrier == "both" else FORMS[:-1]  # free text without a TLV says nothing
    number = {form: f"{index:02d}" for index, form in enumerate(forms)}
    smsc = await play(*({"on": "receipt", "when": {"to_ends": ends}, "form": form, "carrier": carrier} for form, ends in number.items()))
    await works.open(smsc)
    await works.tell(len(forms))

    await answered(smsc, len(forms))

    states = await works.by_number()
    assert {form: states[f"+791600000{ends}"] for form, ends in number.items()} == dict.fromkeys(forms, "delivered")
    assert len(smsc.binds) == 1


@pytest.mark.parametrize("carrier", ["tlv", "payload", "data_sm", "ucs2"])
async def test_c27_a_receipt_is_found_wherever_it_stands(works, play, carrier):
    smsc = await play({"on": "receipt", "carrier": carrier})
    await works.open(smsc)
    await works.tell(3)

    await works.until(delivered=3)
    await answered(smsc, 3)

    assert len(smsc.binds) == 1


@pytest.mark.parametrize(("source", "expected"), [("tlv", "delivered"), ("text", "accepted")])
async def test_c27_where_text_and_tlv_differ_the_profile_says_which_one_is_right(works, play, source, expected):
    smsc = await play({"on": "receipt", "text_id": "999999"})
    await works.open(smsc, profile={"receipt_source": source})
    await works.tell(1)

    await answered(smsc, 1)

    assert await works.states() == {expected: 1}


@pytest.mark.parametrize(
    ("ids", "profile"),
    [
        ({"answer": "hex", "receipt": "dec", "first": 0x5F3A9C10}, {"msgid_resp_base": "hex", "msgid_rcpt_base": "dec"}),
        ({"answer": "dec", "receipt": "hex_lower", "first": 171}, {"msgid_resp_base": "dec", "msgid_rcpt_base": "hex"}),
        ({"answer": "hex", "receipt": "hex_zeros", "first": 171}, {"msgid_fold": ["zeros"]}),
        ({"answer": "hex", "receipt": "hex_lower", "first": 171}, {"msgid_fold": ["case"]}),
        ({"answer": "dec", "receipt": "zeros", "first": 171}, {"msgid_fold": ["zeros"]}),
        ({"answer": "uuid", "receipt": "uuid_plain"}, {"msgid_fold": ["hyphens"]}),
        ({"answer": "uuid", "receipt": "uuid_upper"}, {"msgid_fold": ["case", "hyphens", "zeros"]}),
        ({"answer": "uuid"}, {}),
    ],
    ids=["hex_dec", "dec_hex", "zeros", "case", "dec_zeros", "hyphens", "uuid_case", "uuid"],
)
async def test_c28_ids_that_are_written_otherwise_are_matched_by_profile(works, play, ids, profile):
    smsc = await play({"on": "receipt", "carrier": "text"}, ids=ids)
    await works.open(smsc, profile=profile)
    await works.tell(12)

    await works.until(delivered=12)

    assert await works.receipts() == {"matched": 12}


async def test_c28_folding_does_not_make_one_of_two_uuids(works, play):
    """Every second one gets no receipt: none of them may be delivered by another's."""
    smsc = await play({"on": "receipt", "when": {"every": 2}, "lost": True}, ids={"answer": "uuid", "receipt": "uuid_upper"})
    await works.open(smsc, profile={"msgid_fold": ["case", "hyphens", "zeros"], "msgid_resp_base": "hex", "msgid_rcpt_base": "dec"})
    await works.tell(20)

    await until(lambda: smsc.accepted == 20)
    await answered(smsc, 10)
    await works.until(delivered=10, accepted=10)

    lost = {f"+{line['to']}" for line in smsc.log.of("no_receipt")}
    assert {number for number, state in (await works.by_number()).items() if state == "accepted"} == lost
    assert len(lost) == 10


@pytest.mark.parametrize("carrier", ["empty", "garbage"])
async def test_c30_a_receipt_that_cannot_be_read_is_set_aside_whole_and_answered_once(works, play, carrier):
    smsc = await play({"on": "receipt", "carrier": carrier}, redelivery_delay=0.1)
    await works.open(smsc)
    await works.tell(1)

    await answered(smsc, 1)
    await asyncio.sleep(0.4)

    assert (smsc.receipts_sent, len(smsc.binds)) == (1, 1)
    found = await rows(works.database, "SELECT status, raw FROM receipt")
    if carrier == "empty":
        assert [(row.status, row.raw) for row in found] == [("quarantined", b"")]
    assert await works.states() == {"accepted": 1}


async def test_c31_receipts_that_come_while_the_store_fails_are_all_stored_in_the_end(works, play, database):
    smsc = await play({"on": "receipt", "delay": 2.5}, redelivery_delay=0.2)
    await works.open(smsc, window=40)
    await works.tell(40)
    await works.until(accepted=40)
    async with database.transaction() as session:
        await session.execute(sa.text("ALTER TABLE receipt RENAME TO receipt_away"))
    await until(lambda: smsc.receipts_sent >= 40)
    await asyncio.sleep(1.0)
    acknowledged_unsaved = smsc.receipts_acknowledged
    async with database.transaction() as session:
        await session.execute(sa.text("ALTER TABLE receipt_away RENAME TO receipt"))

    await works.until(delivered=40, seconds=20)
    await answered(smsc, 40)

    assert acknowledged_unsaved == 0
    assert await works.receipts() == {"matched": 40}


async def test_c32_five_thousand_receipts_at_once_are_stored_while_the_link_lives_on(works, play):
    """How long it takes is for a benchmark; here nothing may be lost, refused, or left without an answer."""
    smsc = await play(
        {"on": "receipt", "when": {"to": "7916"}}, {"on": "receipt", "burst": 5_000}, {"on": "time", "at": 1, "every": 0.25, "enquire": 1}, redelivery_delay=60
    )
    await works.open(smsc, window=500)
    await _many(works.database, 5_000)
    await until(lambda: smsc.accepted == 5_000, 60)
    began, asked = time.monotonic(), smsc.enquiries_answered

    await works.tell(20, first=9_000_000)
    await works.until(delivered=5_020, seconds=60)
    await answered(smsc, 5_020, seconds=60)

    assert set(smsc.receipt_answers) == {0}
    assert smsc.receipts_sent == 5_020
    assert len(smsc.binds) == 1
    # At least one for every second that it took, however slow the machine is.
    assert smsc.enquiries_answered - asked >= int(time.monotonic() - began)


async def _many(database, count: int) -> None:
    """Queued messages, put there by one statement each for the two tables."""
    values = {"ids": [new_id() for _ in range(count)]}
    async with database.transaction() as session:
        made = "unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS g(id, n)"
        await session.execute(
            sa.text(
                "INSERT INTO message (id, account_id, type, channel, address, locale, state, gateway, parts, urgent, text, not_before, expires_at, updated_at)"
                " SELECT id, id, 'service.connected', 'sms', '+7917' || lpad(n::text, 7, '0'), 'ru', 'queued', 'main', 1, false, 'Баланс 10,00', now(),"
                f" now() + interval '1 hour', now() FROM {made}"
            ),
            values,
        )
        await session.execute(
            sa.text(
                "INSERT INTO outbox (message_id, state, channel, gateway, priority, parts, not_before, expires_at, tries, attempts)"
                f" SELECT id, 'queued', 'sms', 'main', 1, 1, now(), now() + interval '1 hour', 0, 0 FROM {made}"
            ),
            values,
        )


async def test_v20_receipts_come_over_the_other_bind_of_the_account(works, play):
    smsc = await play({"on": "receipt", "elsewhere": True})
    await works.open(smsc, binds=2, window=5)
    await until(lambda: len(smsc.links) == 2)
    await works.tell(40)

    await works.until(delivered=40)

    submitted = {line["id"]: line["bind"] for line in smsc.log.of("submit")}
    assert {submitted[line["id"]] != line["bind"] for line in smsc.log.of("receipt")} == {True}
    assert set(submitted.values()) == {1, 2}


async def test_v21_ids_that_are_used_again_belong_to_the_number_in_the_receipt(works, play):
    """Ten ids for thirty messages that are open at the same time: only the address tells whose receipt it is."""
    rules = {"on": "receipt", "when": {"to_ends": "1"}, "states": ["UNDELIV"], "delay": 0.6}, {"on": "receipt", "delay": 0.6}
    smsc = await play(*rules, ids={"wrap": 10})
    await works.open(smsc, window=30)
    await works.tell(30)

    await works.until(delivered=27, undelivered=3)

    assert {number for number, state in (await works.by_number()).items() if state == "undelivered"} == {f"+791600000{n}1" for n in range(3)}


@pytest.mark.parametrize("lead", [0, 0.3])
async def test_v22_one_id_for_all_parts_delivers_the_whole_message(works, play, lead):
    smsc = await play({"on": "receipt", "lead": lead}, ids={"one_for_all_parts": True})
    await works.open(smsc)
    await works.tell(3, text="Ж" * 200, parts=3)

    await works.until(delivered=3)


async def test_v23_one_receipt_speaks_for_the_whole_message_where_the_profile_says_so(works, play):
    smsc = await play({"on": "receipt", "when": {"part": 3}}, {"on": "receipt", "lost": True})
    await works.open(smsc, profile={"receipts_per": "message"})
    await works.tell(3, text="Ж" * 200, parts=3)

    await works.until(delivered=3)


async def test_v24_receipts_in_any_order_with_resets_between_them_are_each_counted_once(works, play):
    smsc = await play(
        {"on": "receipt", "when": {"every": 3}, "states": ["DELIVRD"], "copies": 3, "delay": [0, 0.5]},
        {"on": "receipt", "delay": [0, 0.5]},
        {"on": "time", "at": 0.8, "every": 0.3, "times": 3, "link": "reset"},
        redelivery_delay=0.2,
    )
    await works.open(smsc, window=10, rate_per_second=100)
    await works.tell(100)

    states = await works.finished()
    await answered(smsc, 100)

    assert states["delivered"] + states["unknown"] == 100
    found = await one(works.database, "SELECT count(*) AS n, count(DISTINCT message_id) AS messages FROM receipt WHERE status = 'matched'")
    assert found.n == found.messages


@pytest.mark.parametrize("joining", ["udh8", "udh16", "sar", "payload"])
async def test_v25_a_subscribers_long_message_is_put_together_from_parts_over_two_binds_in_any_order(works, play, joining):
    text = "Не могу войти в кабинет, помогите пожалуйста. 😀 " * 5
    smsc = await play(receipt_window=1)  # one at a time on each bind, so that the parts are divided among them
    await works.open(smsc, binds=2)
    await until(lambda: len(smsc.links) == 2)

    for _ in range(2):
        smsc.deliver_mobile(Mobile(source="79161234567", text=text, joining=joining, reverse=True))
        await until(lambda: not any(account.outstanding for account in smsc.accounts.values()))
    smsc.deliver_mobile(Mobile(source="79161234567", text="Спасибо"))
    await answered(smsc, 3)

    async with asyncio.timeout(10):
        while len(found := await rows(works.database, "SELECT source, text, is_complete FROM inbound_message ORDER BY id")) < 2:
            await asyncio.sleep(0.05)
    assert {row.source for row in found} == {"+79161234567"}
    assert {row.text for row in found} == {text, "Спасибо"}
    assert all(row.is_complete for row in found)
    assert set(smsc.receipt_answers) == {0}


def test_the_texts_are_all_there():
    assert set(FORMS) == set(get_args(Form))
