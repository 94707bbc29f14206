"""A dry run: who would be told, in which words and for how much; and nothing is stored but the run itself."""

from datetime import date, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from app.core.db import Database
from app.desk.appraise import Appraiser
from app.forecasts.ask import ask_for
from app.forecasts.find import Wanted
from app.forecasts.scan import Alarm, Scanner
from tests.builders.accounts import an_account
from tests.builders.charges import a_charge
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import run
from tests.forecasts.test_scan import sql, the_run

DAY = date(2026, 11, 23)
MOSCOW, OMSK = "Europe/Moscow", "Asia/Omsk"
# Servers of their own write to these.
KEPT_APART = {"scan_run", "scan_slice", "worker_process"}


@pytest.fixture
async def three(database):
    """Two in Moscow and one in Omsk; the second has an e-mail as well, the third wants no SMS."""
    await an_smpp_gateway(database)
    for number, zone, mails in (("1", MOSCOW, ()), ("2", MOSCOW, ("b@example.org",)), ("3", OMSK, ())):
        account = await an_account(database, number, phones=(f"+7916000000{number}",), mails=mails, timezone=zone, balance=Decimal("100.00"))
        await a_charge(database, account, "600.00", on_date=date(2026, 11, 26))
    await run(database, "INSERT INTO suppression (channel, address, reason, detail, by, at) VALUES ('sms', '+79160000003', 'operator', '', 'test', now())")


async def dry_run(database: Database, settings, kind: str) -> dict:
    async def wanted(_session):
        return Wanted(), Alarm(multiple=1.1, least=0)

    async with database.transaction() as session:
        run_id = await ask_for(session, kind, origin="hand", by="test", days=dict.fromkeys((MOSCOW, OMSK), DAY), as_of=DAY, dry_run=True)
    scanner = Scanner(database, wanted, Appraiser(settings))
    while await scanner.step():
        pass
    return await the_run(database, run_id)


async def counts_of_all_tables(database: Database) -> dict[str, int]:
    names = [row.name for row in await sql(database, "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")]
    async with database.transaction() as session:
        return {name: (await session.execute(sa.text(f'SELECT count(*) FROM "{name}"'))).scalar_one() for name in set(names) - KEPT_APART}


async def test_it_counts_by_type_channel_and_zone_and_says_who_is_not_reached(database, settings, three):
    found = (await dry_run(database, settings, "exhaustion"))["found"]

    assert (found["accounts"], found["told"], found["covered"]) == (3, 3, 0)
    assert found["by_type"] == {"balance.exhausting": 3}
    assert found["by_channel"] == {"sms": 2, "email": 1}
    assert found["by_zone"] == {MOSCOW: 2, OMSK: 1}
    assert found["not_reached"] == {"suppressed": 1, "no_contact": 2}
    assert (found["sms_parts"], Decimal(found["cost"])) == (2, 0)


async def test_its_sample_has_the_words(database, settings, three):
    sample = (await dry_run(database, settings, "exhaustion"))["sample"]

    words = {(one["account"], one["channel"]): one for one in sample}
    assert words.keys() == {("1", "sms"), ("2", "sms"), ("2", "email")}
    assert words["1", "sms"]["text"] == "Счёт 1: денег на 3 дня. Пополните на 500,00 руб."
    assert words["1", "sms"]["parts"] == 1
    assert words["2", "email"]["subject"] == "Денег на счёте хватит на 3 дня"
    assert datetime.fromisoformat(words["1", "sms"]["not_before"])


@pytest.mark.parametrize("kind", ["exhaustion", "threshold", "upcoming"])
async def test_it_stores_nothing_but_itself(database, settings, three, kind):
    await run(database, "UPDATE account SET threshold = 200")
    before = await counts_of_all_tables(database)

    found = await dry_run(database, settings, kind)

    assert (found["state"], found["found"]["told"]) == ("done", 3)
    assert await counts_of_all_tables(database) == before


async def test_what_it_finds_is_no_reason_for_an_alarm_and_no_measure_of_the_usual(database, settings, three):
    for _ in range(4):
        assert (await dry_run(database, settings, "exhaustion"))["state"] == "done"

    assert [row.usual for row in await sql(database, "SELECT usual FROM scan_run")] == [None] * 4


async def test_one_that_finds_nobody_has_its_counts_as_well(database, settings):
    await an_account(database, phones=(), balance=Decimal("100.00"))

    found = (await dry_run(database, settings, "exhaustion"))["found"]

    assert (found["told"], found["by_channel"], found["sms_parts"], Decimal(found["cost"])) == (0, {}, 0, 0)
