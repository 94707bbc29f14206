"""Mail that comes back: what it makes of its message, and of the address that it was sent to."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from app.core import metrics
from app.core.clock import now
from app.core.wakeups import Wakeups
from app.notifications.follow import Following
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.sending.outcome import Accepted
from app.sending.smtp.verp import Verp
from app.tracking.bounces import HARD_FOR, Bounces, take
from tests.builders.accounts import MAIL, an_account
from tests.builders.bounces import a_complaint, a_dsn, a_recipient, envelope_of
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, claim, one, rows, run, state_of, write
from tests.notifications.test_chains import chained

FULL = a_recipient(MAIL, "failed", "5.2.2", "smtp; 552 5.2.2 mailbox full")
SLOW = a_recipient(MAIL, "delayed", "4.4.1", "smtp; timeout")
THERE = a_recipient(MAIL, "delivered", "2.0.0", "")


@pytest.fixture
def come_back(database, settings):
    """`await come_back(raw, of=message)`: handed over with the envelope sender of that message as its recipient."""

    async def come(raw, *envelope, of=None):
        return await take(database, Verp(settings), raw, [*envelope, *([envelope_of(settings, of)] if of else [])], by="test")

    return come


async def a_letter(database, account=None, **fields):
    given = {"channel": "email", "address": MAIL, "gateway": "post", "ended": "accepted"} | fields
    return await a_message(database, account, **{name: value for name, value in given.items() if value is not None})


async def suppressed(database):
    return {(row.address, row.reason): row for row in await rows(database, "SELECT * FROM suppression")}


async def notes(database, message):
    return [tuple(row) for row in await rows(database, "SELECT state, reason, detail FROM message_change WHERE message_id = :id ORDER BY id", id=message)]


async def test_a_dead_mailbox_ends_the_message_and_is_not_written_to_for_half_a_year(database, come_back):
    message = await a_letter(database)

    bounce = await come_back(a_dsn(a_recipient(MAIL)), of=message)

    assert (bounce.kind, bounce.source, bounce.message_id, bounce.recipient, bounce.status) == ("hard", "dsn", message, MAIL, "5.1.1")
    assert await state_of(database, message) == ("undelivered", "mailbox_unavailable")
    assert await notes(database, message) == [("undelivered", "mailbox_unavailable", "bounce 5.1.1 550 5.1.1 User unknown")]
    row = (await suppressed(database))[MAIL, "hard_bounce"]
    assert (row.channel, row.by, row.until - row.at) == ("email", "mail", HARD_FOR)
    audited = await one(database, "SELECT actor, action, changes FROM audit_record")
    assert (audited.actor, audited.action, audited.changes["reason"]) == ("test", "suppression.create", "hard_bounce")
    assert MAIL not in str(audited.changes)


async def test_what_waits_for_a_dead_mailbox_is_withdrawn(database, come_back):
    message, other = await a_letter(database), await a_letter(database, ended=None, state="held")
    elsewhere = await a_letter(database, ended=None, address="other@example.org")

    await come_back(a_dsn(a_recipient(MAIL)), of=message)

    assert await state_of(database, other) == ("cancelled", "suppressed")
    assert await state_of(database, elsewhere) == ("queued", None)


async def test_the_address_of_the_message_is_suppressed_and_never_the_one_that_a_report_names(database, come_back):
    message = await a_letter(database)

    await come_back(a_dsn(a_recipient("president@bank.example")), of=message)

    assert [address for address, _ in await suppressed(database)] == [MAIL]


async def test_a_full_mailbox_ends_the_message_and_nothing_more(database, come_back):
    message = await a_letter(database)

    bounce = await come_back(a_dsn(FULL), of=message)

    assert bounce.kind == "soft"
    assert await state_of(database, message) == ("undelivered", "mailbox_full")
    assert await suppressed(database) == {}


async def test_a_delay_is_noted_and_changes_nothing(database, come_back):
    message = await a_letter(database)

    await come_back(a_dsn(SLOW), of=message)

    assert await state_of(database, message) == ("accepted", None)
    assert await notes(database, message) == [("accepted", "delivery_delayed", "bounce 4.4.1 timeout")]


async def test_a_letter_that_arrived_after_all_is_delivered(database, come_back):
    message = await a_letter(database)
    await come_back(a_dsn(FULL), of=message)

    await come_back(a_dsn(THERE), of=message)

    assert await state_of(database, message) == ("delivered", None)
    await come_back(a_dsn(FULL, Subject="late"), of=message)
    assert await state_of(database, message) == ("delivered", None)


async def test_a_complaint_suppresses_for_good_and_is_a_consent_refused(database, settings, come_back):
    account = await an_account(database, mails=(MAIL,))
    message = await a_letter(database, account)

    bounce = await come_back(a_complaint(original_mail_from=f"<{envelope_of(settings, message)}>"))

    assert (bounce.kind, bounce.source, bounce.message_id) == ("complaint", "arf", message)
    row = (await suppressed(database))[MAIL, "complaint"]
    assert (row.until, row.by) == (None, "subscriber")
    consent = await one(database, "SELECT account_id, act, channel, address, via, by FROM consent")
    assert tuple(consent) == (account.id, "refused", "email", MAIL, "complaint", "subscriber")
    assert await state_of(database, message) == ("accepted", None)
    assert [(state, reason) for state, reason, _ in await notes(database, message)] == [("accepted", "complaint")]


async def test_a_second_complaint_of_the_same_reader_adds_no_second_consent(database, settings, come_back):
    one_letter, other = await a_letter(database), await a_letter(database)

    for message in (one_letter, other):
        await come_back(a_complaint(original_mail_from=envelope_of(settings, message)))

    assert len(await rows(database, "SELECT 1 FROM consent")) == 1


async def test_that_a_letter_is_no_junk_changes_nothing(database, come_back):
    message = await a_letter(database)

    bounce = await come_back(a_complaint("not-spam"), of=message)

    assert (bounce.kind, bounce.message_id) == ("unknown", message)
    assert await suppressed(database) == {}


async def test_the_same_mail_again_changes_nothing(database, come_back):
    message, raw = await a_letter(database), a_dsn(a_recipient(MAIL))
    first = await come_back(raw, of=message)
    await run(database, "DELETE FROM suppression")
    repeated = metrics.BOUNCES.labels("repeated")._value.get()

    again = await come_back(raw, of=message)
    by_another_road = await come_back(raw.replace(b"\r\n", b"\n"), of=message)

    assert (again.is_new, again.id, by_another_road.id) == (False, first.id, first.id)
    assert await suppressed(database) == {}
    assert len(await rows(database, "SELECT 1 FROM bounce")) == 1
    assert metrics.BOUNCES.labels("repeated")._value.get() == repeated + 2


async def test_the_same_mail_twice_at_once_is_taken_once(database, come_back):
    message, raw = await a_letter(database), a_dsn(a_recipient(MAIL))

    bounces = await asyncio.gather(*(come_back(raw, of=message) for _ in range(6)))

    assert sorted(bounce.is_new for bounce in bounces) == [False] * 5 + [True]
    assert len({bounce.id for bounce in bounces}) == 1
    assert len(await notes(database, message)) == 1


async def test_without_the_envelope_the_returned_header_says_which_letter_it_was(database, come_back):
    message = await a_letter(database)

    bounce = await come_back(a_dsn(a_recipient(MAIL), returned=f"Message-ID: <{message}@isp.example>\r\n"), "postmaster@isp.example")

    assert bounce.message_id == message
    assert await state_of(database, message) == ("undelivered", "mailbox_unavailable")


async def test_a_mail_of_which_only_the_header_has_our_address_is_ours_as_well(database, come_back, settings):
    message = await a_letter(database)

    bounce = await come_back(a_dsn(a_recipient(MAIL), To=f"<{envelope_of(settings, message)}>"))

    assert bounce.message_id == message


async def test_a_forged_envelope_moves_nothing_whatever_else_it_says(database, come_back, settings):
    message = await a_letter(database)
    real = envelope_of(settings, message)
    forged = f"{real.partition('.')[0]}.{'a' * 16}@mail.isp.example"
    raw = a_dsn(a_recipient(MAIL), returned=f"Message-ID: <{message}@isp.example>\r\n")

    by_envelope = await come_back(raw, forged)
    by_header = await come_back(a_dsn(a_recipient(MAIL), returned=f"Message-ID: <{message}@isp.example>\r\n", To=forged))

    assert [(bounce.kind, bounce.message_id) for bounce in (by_envelope, by_header)] == [("unknown", None)] * 2
    assert await state_of(database, message) == ("accepted", None)
    assert await suppressed(database) == {}


@pytest.mark.parametrize(
    "raw", [a_dsn(a_recipient("stranger@example.net")), a_complaint(), b"\xff\xfe nonsense", a_dsn(a_recipient(MAIL), returned="Message-ID: <x@y>\r\n")]
)
async def test_what_is_of_no_letter_of_ours_is_kept_and_changes_nothing(database, come_back, raw):
    await an_account(database, mails=(MAIL,))

    bounce = await come_back(raw, "bounces@mail.isp.example")

    assert (bounce.kind, bounce.message_id) == ("unknown", None)
    assert await suppressed(database) == {}
    assert len(await rows(database, "SELECT 1 FROM bounce")) == 1


async def test_a_message_that_is_no_letter_or_is_gone_is_not_touched(database, come_back):
    sms = await a_message(database, ended="accepted")

    for message in (sms, uuid4()):
        bounce = await come_back(a_dsn(a_recipient(MAIL), Subject=str(message)), of=message)
        assert (bounce.kind, bounce.message_id) == ("unknown", None)

    assert await state_of(database, sms) == ("accepted", None)


async def test_an_answer_of_a_holiday_is_kept_with_its_message(database, come_back):
    message = await a_letter(database)

    bounce = await come_back(b"Subject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nBack on Monday.", of=message)

    assert (bounce.kind, bounce.source, bounce.message_id) == ("unknown", "none", message)
    assert await state_of(database, message) == ("accepted", None)


async def test_an_operators_own_suppression_is_never_shortened(database, come_back):
    await run(
        database, "INSERT INTO suppression (channel, address, reason, detail, by, at) VALUES ('email', :a, 'hard_bounce', 'mine', 'key:x', now())", a=MAIL
    )

    await come_back(a_dsn(a_recipient(MAIL)), of=await a_letter(database))

    row = (await suppressed(database))[MAIL, "hard_bounce"]
    assert (row.until, row.detail, row.by) == (None, "mine", "key:x")


async def test_a_second_bounce_counts_the_half_year_anew(database, come_back):
    await come_back(a_dsn(a_recipient(MAIL)), of=await a_letter(database))
    await run(database, "UPDATE suppression SET at = at - interval '100 days', until = until - interval '100 days'")

    await come_back(a_dsn(a_recipient(MAIL)), of=await a_letter(database))
    await come_back(a_dsn(a_recipient(MAIL), Subject="again"), of=await a_letter(database))

    row = (await suppressed(database))[MAIL, "hard_bounce"]
    assert row.until > now() + HARD_FOR - timedelta(hours=1)
    assert row.at < now() - timedelta(days=99)


async def test_a_bounce_that_is_earlier_than_the_answer_to_its_letter_waits_for_it(database, come_back):
    message = await a_letter(database, ended=None)
    owner = uuid4()
    (claimed,) = await claim(database, owner=owner, gateway="post")

    await come_back(a_dsn(FULL), of=message)
    assert await Bounces(database).follow() == 0
    assert (await state_of(database, message))[0] == "sending"
    await write(database, owner, (claimed, Accepted(("4bQx",))))

    assert await Bounces(database).follow() == 1
    assert await state_of(database, message) == ("undelivered", "mailbox_full")
    assert await notes(database, message) == [("undelivered", "mailbox_full", "bounce 5.2.2 552 5.2.2 mailbox full")]
    assert await Bounces(database).follow() == 0


async def test_the_next_of_a_chain_goes_when_a_letter_comes_back(database, settings, come_back):
    await an_smpp_gateway(database, bound=True)
    await an_smtp_gateway(database)
    await chained(database, ("email", "sms"))
    account = await an_account(database, mails=(MAIL,))
    await a_waiting_event(database, account)
    wakeups = Wakeups(settings.redis_url, direct=lambda queue: True)
    await Planner(database, settings, wakeups).plan()
    letter, sms = (row.id for row in await rows(database, "SELECT id FROM message ORDER BY id"))
    owner = uuid4()
    (claimed,) = await claim(database, owner=owner, gateway="post")
    await write(database, owner, (claimed, Accepted(("4bQx",))))
    assert await state_of(database, sms) == ("held", "fallback")

    await come_back(a_dsn(a_recipient(MAIL)), of=letter)
    await Following(database).follow()
    await Holding(database, settings, wakeups).release()

    assert (await state_of(database, sms))[0] == "queued"


async def test_nothing_personal_comes_back_to_an_erased_account(database, api, come_back):
    account = await an_account(database, mails=(MAIL,))
    before, after = await a_letter(database, account), await a_letter(database, account)
    await come_back(a_dsn(a_recipient(MAIL)), of=before)
    stray = await come_back(a_dsn(a_recipient(MAIL), Subject="of nobody"))
    await run(database, "DELETE FROM suppression")

    assert (await api.delete(f"/accounts/{account.number}")).status_code == 204
    late = await come_back(a_dsn(a_recipient(MAIL), Subject="late"), of=after)

    assert (stray.recipient, late.recipient, late.diagnostic) == (MAIL, None, None)
    assert {(row.recipient, row.diagnostic) for row in await rows(database, "SELECT recipient, diagnostic FROM bounce")} == {(None, None)}
    assert await suppressed(database) == {}


# --- over the API ---

RAW = {"Content-Type": "message/rfc822"}


async def test_a_bounce_is_handed_over_and_looked_at(database, settings, api):
    message = await a_letter(database)

    made = await api.post("/bounces", params={"recipient": envelope_of(settings, message)}, content=a_dsn(a_recipient(MAIL)), headers=RAW)
    again = await api.post("/bounces", params={"recipient": envelope_of(settings, message)}, content=a_dsn(a_recipient(MAIL)), headers=RAW)

    assert (made.status_code, made.json()["kind"], made.json()["duplicate"]) == (201, "hard", False)
    assert (again.status_code, again.json()) == (200, made.json() | {"duplicate": True})
    shown = {name: value for name, value in made.json().items() if name != "duplicate"}
    assert (await api.get(f"/bounces/{shown['id']}")).json() == shown
    assert (await api.get("/bounces")).json() == {"items": [shown], "next_cursor": None}
    history = (await api.get(f"/messages/{message}")).json()["history"]
    assert (history[-1]["state"], history[-1]["reason"]) == ("undelivered", "mailbox_unavailable")
    lifted = await api.delete("/suppressions", params={"channel": "email", "address": MAIL, "reason": "hard_bounce"})
    assert lifted.status_code == 204


async def test_a_plus_that_came_unescaped_is_read(database, settings, api):
    message = await a_letter(database)

    made = await api.post(f"/bounces?recipient={envelope_of(settings, message)}", content=a_dsn(a_recipient(MAIL)), headers=RAW)

    assert made.json()["message_id"] == str(message)


async def test_bounces_are_found_by_address_kind_message_and_time(database, come_back, api):
    await an_account(database, mails=(MAIL,))
    letters = [await a_letter(database, address=f"{n}@example.org") for n in range(3)]
    for n, letter in enumerate(letters):
        await come_back(a_dsn(FULL if n else a_recipient(MAIL), Subject=str(n)), of=letter)

    async def found(**query):
        answer = await api.get("/bounces", params=query)
        assert answer.status_code == 200, answer.text
        return [item["recipient"] for item in answer.json()["items"]]

    assert await found() == ["2@example.org", "1@example.org", "0@example.org"]
    assert await found(address="1@EXAMPLE.org") == ["1@example.org"]
    assert await found(kind="hard") == ["0@example.org"]
    assert await found(message_id=str(letters[2])) == ["2@example.org"]
    later = (now() + timedelta(minutes=1)).isoformat()
    assert (await found(**{"from": later}), len(await found(to=later))) == ([], 3)
    first = (await api.get("/bounces", params={"limit": 2})).json()
    assert await found(limit=2, cursor=first["next_cursor"]) == ["0@example.org"]


async def test_what_cannot_be_taken_says_why(api, as_role):
    viewer = await as_role("viewer")

    async def refused(client=api, headers=RAW, **given):
        answer = await client.post("/bounces", headers=headers, **given)
        return answer.status_code, answer.json()["code"]

    assert await refused(content=b"") == (400, "empty_body")
    assert await refused(content=b"x", headers={"Content-Type": "application/json"}) == (415, "unsupported_media_type")
    assert await refused(content=b"x" * (1 << 20) + b"x") == (413, "too_large")
    assert await refused(viewer, content=b"x") == (403, "missing_scope")
    assert (await api.get(f"/bounces/{uuid4()}")).json()["code"] == "bounce_not_found"
    assert (await viewer.get("/bounces")).status_code == 200
    assert (await api.get("/bounces", params={"kind": "strange"})).status_code == 422


async def test_any_octets_are_kept(api):
    for content in (b"\0", bytes(range(256)) * 100, b"Content-Type: multipart/report; boundary=\0\n\n--\0\n"):
        assert (await api.post("/bounces", content=content, headers=RAW)).json()["kind"] == "unknown"
