"""Which road a line takes, and that all of them end alike: COPY for new accounts, a half of the line passed over, the careful one when somebody is in the way."""

import asyncio
import json

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.accounts import imports
from app.accounts.imports import import_accounts
from app.accounts.lines import number_of
from app.accounts.save import save
from app.accounts.snapshots import Snapshot
from app.desk.erasure import erase

NDJSON = {"Content-Type": "application/x-ndjson"}
ROWS = """SELECT 'contact', id, ctid, xmin, xmax FROM contact UNION ALL SELECT 'charge', id, ctid, xmin, xmax FROM planned_charge ORDER BY 1, 2"""


def line(number, **fields):
    return json.dumps({"number": number} | fields, ensure_ascii=False).encode() + b"\n"


def later(day, balance="1.00"):
    return {"balance": balance, "balance_as_of": f"2026-02-{day:02}T00:00:00Z"}


async def send(api, *lines):
    answer = await api.post("/accounts/import", content=b"".join(lines), headers=NDJSON)
    assert answer.status_code == 200
    report = answer.json()
    return report["created"], report["updated"], report["unchanged"], report["rejected_total"]


async def all_of(database, statement):
    async with database.transaction() as session:
        return [tuple(row) for row in await session.execute(sa.text(statement))]


async def given(lines):
    for one in lines:
        yield one


async def test_new_balance_alone_touches_neither_contacts_nor_charges(api, database, given_account):
    await send(api, line("1", **given_account()))
    before = await all_of(database, ROWS)

    report = await send(api, line("1", **given_account(**later(1, "7.00"), name="Иванов")))

    assert report == (0, 1, 0, 0)
    one = (await api.get("/accounts/1")).json()
    assert (one["balance"], one["name"], len(one["contacts"]), len(one["charges"])) == ("7.00", "Иванов", 2, 1)
    assert len(before) == 3
    assert await all_of(database, ROWS) == before  # nor locked (xmax)


async def test_new_balance_alone_is_taken_without_a_look_at_contacts_and_charges(database, settings, given_account):
    """They are told by their digest: what they say is not even checked again."""
    await import_accounts(database, settings, given([line("1", **given_account())]))
    async with database.transaction() as session:
        await session.execute(sa.text("UPDATE planned_charge SET amount = 1"))

    await import_accounts(database, settings, given([line("1", **given_account(**later(1)))]))

    assert await all_of(database, "SELECT amount FROM planned_charge") == [(1,)]


@pytest.mark.parametrize("change", [{"contacts": []}, {"charges": []}, {"contacts": [{"channel": "sms", "address": "+79160000000", "label": "x"}]}])
async def test_after_a_change_of_contacts_or_charges_by_hand_a_new_balance_brings_the_lines_own_back(api, given_account, change):
    await send(api, line("1", **given_account()))
    before = (await api.get("/accounts/1")).json()
    assert (await api.patch("/accounts/1", json=change)).status_code == 200

    report = await send(api, line("1", **given_account(**later(1))))

    one = (await api.get("/accounts/1")).json()
    assert report == (0, 1, 0, 0)
    assert sorted(contact["address"] for contact in one["contacts"]) == sorted(contact["address"] for contact in before["contacts"])
    assert one["charges"] == before["charges"]


async def test_contact_deleted_by_hand_comes_back_with_a_new_balance(api, given_account):
    await send(api, line("1", **given_account(contacts=[])))
    contact = (await api.post("/accounts/1/contacts", json=given_account()["contacts"][0])).json()
    await send(api, line("1", **given_account()))
    assert (await api.delete(f"/accounts/1/contacts/{contact['id']}")).status_code == 204

    await send(api, line("1", **given_account(**later(1))))

    assert contact["address"] in [known["address"] for known in (await api.get("/accounts/1")).json()["contacts"]]


async def test_patch_of_other_fields_leaves_contacts_and_charges_passed_over(api, database, given_account):
    await send(api, line("1", **given_account()))
    before = await all_of(database, ROWS)
    remembered = await all_of(database, "SELECT imported_lists FROM account")
    assert (await api.patch("/accounts/1", json={"tariff": "New"})).status_code == 200

    assert await send(api, line("1", **given_account(**later(1)))) == (0, 1, 0, 0)

    assert await all_of(database, ROWS) == before
    assert await all_of(database, "SELECT imported_lists FROM account") == remembered
    assert remembered[0][0] is not None


async def test_contacts_that_change_while_the_line_waits_for_its_account_are_compared_after_all(api, database, settings, given_account):
    """The look-up has seen them as they were; the lock comes when somebody has taken them away."""
    whole = line("1", **given_account(**later(1)))
    await send(api, line("1", **given_account()))
    async with database.transaction() as session:
        await save(session, [Snapshot("1", {}, None, None, [], [])], settings)
        ours = asyncio.create_task(send(api, whole))
        await asyncio.sleep(0.5)

    assert await ours == (0, 1, 0, 0)
    one = (await api.get("/accounts/1")).json()
    assert (one["balance"], len(one["contacts"]), len(one["charges"])) == ("1.00", 2, 1)
    assert await send(api, whole) == (0, 0, 1, 0)


async def test_account_erased_while_its_line_waits_is_made_anew_and_whole(api, database, given_account):
    await send(api, line("1", **given_account()))
    async with database.transaction() as session:
        await session.execute(sa.text("SELECT FROM account FOR UPDATE"))
        ours = asyncio.create_task(send(api, line("1", **given_account(**later(1)))))
        await asyncio.sleep(0.5)
        for statement in ("DELETE FROM contact", "DELETE FROM planned_charge", "UPDATE account SET number = 'erased:x', status = 'erased', imported = NULL"):
            await session.execute(sa.text(statement))

    assert await ours == (1, 0, 0, 0)
    one = (await api.get("/accounts/1")).json()
    assert (one["balance"], len(one["contacts"]), len(one["charges"])) == ("1.00", 2, 1)


async def test_new_and_known_accounts_of_one_chunk_are_told_apart(api, given_account):
    """Enough new ones for COPY, among known ones, some twice."""
    await send(api, *(line(f"k{n:03}", **given_account()) for n in range(50)))

    mixed = [line(f"n{n:03}", **given_account(name="new")) for n in range(150)]
    mixed[10:10] = [line(f"k{n:03}", **given_account(**later(1))) for n in range(50)]
    report = await send(api, *mixed, line("n003", name="newer"), line("k003", tariff="t"))

    assert report == (150, 52, 0, 0)
    assert (await api.get("/accounts/n003")).json()["name"] == "newer"
    assert [(await api.get(f"/accounts/{number}")).json()["balance"] for number in ("n149", "k000")] == ["112.30", "1.00"]
    assert await send(api, *mixed) == (0, 2, 198, 0)


async def test_chunk_that_fails_ends_the_import_and_none_comes_after_it(database, settings, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_LINES", 10)
    async with database.transaction() as session:
        await session.execute(sa.text("ALTER TABLE account ADD CONSTRAINT none CHECK (number <> '15')"))
    told = []

    with pytest.raises(DBAPIError):
        await import_accounts(database, settings, given([line(str(n)) for n in range(100)]), lambda report: told.append(report.created))

    assert told == [10]
    assert await all_of(database, "SELECT count(*) FROM account") == [(10,)]


async def test_number_with_a_nul_or_a_line_break_is_a_rejected_line_and_no_more(api):
    report = await send(api, b'{"number": "a\\u0000"}\n', b'{"number": "a\\nb"}\n', b'{"number": ""}\n', line("1"))

    assert report == (1, 0, 0, 3)


async def test_number_that_is_said_twice_in_one_line_keeps_its_place_among_the_others(api):
    """The last of two equal keys counts, however they are written."""
    whole = line("1", name="first")
    await send(api, whole)

    report = await send(api, b'{"number": "9", "name": "second", "number": "1"}\n', b'{"number": "9", "name": "third", "n\\u0075mber": "1"}\n', whole)

    assert report[:2] == (0, 2)
    assert (await api.get("/accounts/1")).json()["name"] == "first"
    assert (await api.get("/accounts/9")).status_code == 404


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (b'{"number": "1", "name": "x"}', "1"),
        (b'{"number":"1"}', "1"),
        (b'{"name": "x", "number": "1"}', "1"),
        (b'{"number": "1", "attributes": {"number": "2"}}', "1"),
        (b'{"number": "1", "number": "2"}', "2"),
        (b'{"number": "1", "n\\u0075mber": "2"}', "2"),
        (b'{"number": "\\u0031"}', "1"),
        ('{"number": "Ж-1", "name": "\\u0410"}'.encode(), "Ж-1"),
        (b'{"number": "a\\\\b"}', "a\\b"),
        (b'{"number": "\xff"}', None),
        (b'{"number": 1}', None),
        (b'{"number": ["1"]}', None),
        (b'["number"]', None),
        (b"nonsense", None),
    ],
)
def test_number_of_a_line_can_be_told_without_reading_it(said, number):
    assert number_of(said) == number


OTHER = [{"channel": "sms", "address": "+79162222222"}]
CHARGE = [{"id": "new", "title": "T", "amount": "1.00", "kind": "daily"}]
WAYS = {
    "put": lambda api, whole: api.put("/accounts/1", json=whole | {"contacts": OTHER}),
    "patch of contacts": lambda api, _: api.patch("/accounts/1", json={"contacts": OTHER}),
    "patch of charges": lambda api, _: api.patch("/accounts/1", json={"charges": CHARGE}),
    "contact": lambda api, _: api.post("/accounts/1/contacts", json=OTHER[0]),
    "import": lambda api, whole: send(api, line("1", **whole | {"contacts": OTHER, "charges": CHARGE})),
    "import of many": lambda api, whole: send(api, line("1", **whole | {"contacts": OTHER}), *(line(f"n{n}", **whole) for n in range(120))),
}
ORPHANS = """SELECT x.kind, x.account_id FROM (SELECT 'contact' AS kind, account_id FROM contact UNION ALL SELECT 'charge', account_id FROM planned_charge) x
LEFT JOIN account a ON a.id = x.account_id WHERE a.id IS NULL OR a.status = 'erased'"""


@pytest.mark.parametrize("way", WAYS)
async def test_who_writes_to_an_account_that_is_being_erased_leaves_nothing_with_it(api, database, settings, given_account, way):
    """There is no foreign key: contacts and charges belong to a living account because everybody locks it first."""
    whole = given_account()
    await send(api, line("1", **whole))
    async with database.transaction() as session:
        await erase(session, "test", "1", settings)
        writing = asyncio.create_task(WAYS[way](api, whole))
        await asyncio.sleep(0.5)
        assert not writing.done()

    await writing

    assert await all_of(database, ORPHANS) == []
    assert await all_of(database, "SELECT count(*) FROM account WHERE status = 'erased'") == [(1,)]


@pytest.mark.parametrize("way", WAYS)
async def test_erasure_takes_what_was_being_written_when_it_came(api, database, settings, given_account, way):
    """The writer stands in the middle of its transaction, with the account locked."""
    whole = given_account()
    await send(api, line("1", **whole))
    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE contact IN SHARE MODE"))  # no contact and no charge can be written as long as we are here
        await session.execute(sa.text("LOCK TABLE planned_charge IN SHARE MODE"))
        writing = asyncio.create_task(WAYS[way](api, whole))
        await asyncio.sleep(0.5)
        erasing = asyncio.create_task(api.delete("/accounts/1"))
        await asyncio.sleep(0.3)
        assert not writing.done()
        assert not erasing.done()

    await writing

    assert (await erasing).status_code == 204
    assert await all_of(database, ORPHANS) == []
