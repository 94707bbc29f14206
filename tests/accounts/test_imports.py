import asyncio
import json
import tracemalloc

import pytest
import sqlalchemy as sa

from app.accounts import imports
from app.accounts.imports import import_accounts, split_lines
from app.accounts.lines import LINE_OCTETS, Reader
from app.accounts.models import Account, Contact, PlannedCharge
from app.accounts.save import save
from app.accounts.snapshots import Snapshot
from app.core.models import AuditRecord

NDJSON = {"Content-Type": "application/x-ndjson"}


def line(number, **fields):
    return json.dumps({"number": number} | fields, ensure_ascii=False).encode() + b"\n"


def person(n, **fields):
    return line(str(n), name=f"Абонент {n}", balance=f"{n}.00", contacts=[{"channel": "sms", "address": f"+7916{n:07}"}], **fields)


async def send(api, *lines):
    answer = await api.post("/accounts/import", content=b"".join(lines), headers=NDJSON)
    assert answer.status_code == 200
    return answer.json()


async def in_pieces(body, size=100):
    for begin in range(0, len(body), size):
        yield body[begin : begin + size]


def counts(report):
    return {name: report[name] for name in ("received", "created", "updated", "unchanged", "rejected_total")}


async def test_import_makes_what_is_new_updates_what_differs_and_leaves_the_rest(api, given_account):
    first = await send(api, *(person(n) for n in range(20)), line("full", **given_account()))
    same = await send(api, *(person(n) for n in range(20)), line("full", **given_account()))
    some = await send(api, *(person(n) for n in range(10)), *(person(n, tariff="New") for n in range(10, 25)), line("full", contacts=[], charges=[]))

    assert counts(first) == {"received": 21, "created": 21, "updated": 0, "unchanged": 0, "rejected_total": 0}
    assert counts(same) == {"received": 21, "created": 0, "updated": 0, "unchanged": 21, "rejected_total": 0}
    assert counts(some) == {"received": 26, "created": 5, "updated": 11, "unchanged": 10, "rejected_total": 0}
    full = (await api.get("/accounts/full")).json()
    assert (full["contacts"], full["charges"], full["name"]) == ([], [], given_account()["name"])
    one = (await api.get("/accounts/12")).json()
    assert (one["balance"], one["tariff"], one["contacts"][0]["address"]) == ("12.00", "New", "+79160000012")


async def test_unchanged_accounts_are_not_written_at_all(api, database, given_account):
    await send(api, line("1", **given_account()))
    versions = sa.text(
        "SELECT 'a', ctid, xmin, xmax FROM account UNION ALL SELECT 'c', ctid, xmin, xmax FROM contact UNION ALL SELECT 'p', ctid, xmin, xmax FROM planned_charge ORDER BY 1, 2"
    )
    async with database.transaction() as session:
        before = (await session.execute(versions)).all()

    await send(api, line("1", **given_account()))

    async with database.transaction() as session:
        assert len(before) == 4
        assert (await session.execute(versions)).all() == before  # nor locked (xmax): events of these accounts need not wait


async def test_broken_line_is_rejected_with_its_number_and_the_rest_goes_on(api):
    report = await send(
        api,
        person(1),
        b"\n",
        b"{not json\n",
        b'{"number": "2", "balance": 5}\n',
        b'"a string"\n',
        line("a/b"),
        line("3", contacts=[{"channel": "sms", "address": "phone"}]),
        b'{"number": "4", "name": "\xff"}\n',
        b'{"number": "5", "attributes": {"a": "\\u0000"}}\n',
        b'{"number": "6", "name": "\\ud800"}\n',
        b'{"number": "7", "attributes": {"a": NaN}}\n',
        b"[" * 5000 + b"\n",
        line("8", name="x" * LINE_OCTETS),
        b'{"name": "without a number"}\n',
        person(9).removesuffix(b"\n"),
    )

    assert counts(report) == {"received": 14, "created": 2, "updated": 0, "unchanged": 0, "rejected_total": 12}
    assert [(rejected["line"], rejected["code"]) for rejected in report["rejected"]] == [
        (3, "malformed_json"),
        (4, "money"),
        (5, "model_type"),
        (6, "number_characters"),
        (7, "phone_malformed"),
        (8, "malformed_json"),
        (9, "nul_character"),
        (10, "malformed_json"),
        (11, "attribute"),
        (12, "malformed_json"),
        (13, "line_too_long"),
        (14, "missing"),
    ]
    assert "/contacts/0/address" in report["rejected"][4]["detail"]
    assert [item["number"] for item in (await api.get("/accounts")).json()["items"]] == ["1", "9"]


async def test_crlf_byte_order_mark_and_blank_lines_are_no_obstacle(api):
    report = await send(api, b"\xef\xbb\xbf", person(1).replace(b"\n", b"\r\n"), b"\r\n", b"   \n", person(2).replace(b"\n", b"\r\n"))

    assert counts(report) == {"received": 2, "created": 2, "updated": 0, "unchanged": 0, "rejected_total": 0}


async def test_later_line_of_a_number_wins_and_both_are_counted(api):
    report = await send(
        api,
        line("1", name="first", tariff="kept", contacts=[{"channel": "sms", "address": "+79160000001"}]),
        line("2", name="same"),
        line("1", name="second"),
        line("2", name="same"),
        line("1", balance="1.00", balance_as_of="2026-01-02T00:00:00Z"),
        line("1", balance="2.00", balance_as_of="2026-01-01T00:00:00Z"),
    )

    assert counts(report) == {"received": 6, "created": 2, "updated": 2, "unchanged": 2, "rejected_total": 0}
    one = (await api.get("/accounts/1")).json()
    assert (one["name"], one["tariff"], one["balance"], one["contacts"][0]["address"]) == ("second", "kept", "1.00", "+79160000001")


async def test_only_a_thousand_rejections_are_listed_and_all_are_counted(api):
    report = await send(api, b"nonsense\n" * 1500)

    assert (len(report["rejected"]), report["rejected_total"], report["received"]) == (1000, 1500, 1500)


async def test_nothing_at_all_is_a_whole_import(api):
    assert counts(await send(api)) == {"received": 0, "created": 0, "updated": 0, "unchanged": 0, "rejected_total": 0}


@pytest.mark.parametrize("kind", ["application/json", "text/plain", None])
async def test_other_content_types_are_not_taken(api, kind):
    answer = await api.post("/accounts/import", content=person(1), headers={"Content-Type": kind} if kind else {})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert (await api.get("/accounts/1")).status_code == 404


async def test_import_is_audited_once_by_its_counts(api, database):
    await send(api, person(1), b"nonsense\n")

    async with database.transaction() as session:
        record = await session.scalar(sa.select(AuditRecord).where(AuditRecord.action == "account.import"))
    assert record.changes == {"received": 2, "created": 1, "updated": 0, "unchanged": 0, "rejected_total": 1}


async def test_whoever_hangs_up_in_the_middle_leaves_whole_chunks(database, settings, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_LINES", 10)

    async def cut_off():
        for n in range(25):
            yield person(n)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await import_accounts(database, settings, cut_off())

    async with database.transaction() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(Account)) == 20
        assert await session.scalar(sa.select(sa.func.count()).select_from(Contact)) == 20


async def test_connection_that_breaks_during_the_upload_is_no_fault_of_ours(api, database, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_LINES", 10)
    arriving = iter([{"type": "http.request", "body": person(n), "more_body": True} for n in range(25)] + [{"type": "http.disconnect"}])
    headers = [(b"authorization", api.headers["authorization"].encode()), (b"content-type", b"application/x-ndjson")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/accounts/import", "raw_path": b"", "query_string": b"", "headers": headers}
    sent = []

    async def receive():
        return next(arriving)

    async def send(message):
        sent.append(message)

    await api.app(scope | {"http_version": "1.1", "scheme": "http", "server": ("vestnik", 80), "client": ("127.0.0.1", 1), "root_path": ""}, receive, send)

    assert sent[0]["status"] == 400
    async with database.transaction() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(Account)) == 20


async def test_progress_is_told_at_every_commit(database, settings, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_LINES", 10)
    told = []

    report = await import_accounts(database, settings, in_lines(25), lambda so_far: told.append(so_far.created))

    assert told == [10, 20, 25]
    assert report.created == 25


async def in_lines(many):
    for n in range(many):
        yield person(n)


async def test_two_imports_of_the_same_accounts_at_once_end_alike(database, settings, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_LINES", 50)

    async def shuffled(step, tariff):
        for n in range(300):
            yield person(n * step % 300, tariff=tariff, charges=[{"id": "s", "title": tariff, "amount": "1.00", "kind": "daily"}])

    reports = await asyncio.gather(import_accounts(database, settings, shuffled(7, "A")), import_accounts(database, settings, shuffled(11, "B")))

    assert sum(report.created for report in reports) == 300
    assert all(report.created + report.updated + report.unchanged == 300 for report in reports)
    async with database.transaction() as session:
        # An account's tariff and its charge come from the same import, whichever came last.
        mixed = (
            sa.select(sa.func.count())
            .select_from(Account)
            .join(PlannedCharge, PlannedCharge.account_id == Account.id)
            .where(Account.tariff != PlannedCharge.title)
        )
        assert await session.scalar(mixed) == 0
        assert await session.scalar(sa.select(sa.func.count()).select_from(PlannedCharge)) == 300
        assert await session.scalar(sa.select(sa.func.count()).select_from(Contact)) == 300


async def test_balance_of_an_event_is_not_undone_by_a_snapshot_made_before_it(api, database):
    await send(api, line("1", name="a"))
    async with database.transaction() as session:
        await session.execute(sa.text("UPDATE account SET balance = 99, balance_as_of = '2026-01-02T00:00:00Z'"))

    report = await send(api, line("1", name="b", balance="5.00", balance_as_of="2026-01-01T00:00:00Z"))

    assert report["updated"] == 1
    one = (await api.get("/accounts/1")).json()
    assert (one["name"], one["balance"]) == ("b", "99.00")


AS_OF = {"balance": "5.00", "balance_as_of": "2026-01-01T00:00:00Z"}


@pytest.fixture
def read_whole(monkeypatch):
    """The lines that were read, and not passed over by their digest."""
    read = []
    original = Reader.read

    def spied(self, line, digest=None, lists=None):
        read.append(json.loads(line)["number"])
        return original(self, line, digest, lists)

    monkeypatch.setattr(Reader, "read", spied)
    return read


async def test_line_that_has_not_changed_is_not_even_read(api, read_whole):
    lines = [line("1", name="a", **AS_OF), line("2", name="b"), line("3", balance="5.00")]
    await send(api, *lines)
    read_whole.clear()

    same = await send(api, *lines, b"\n", line("4"))

    assert counts(same) == {"received": 4, "created": 1, "updated": 0, "unchanged": 3, "rejected_total": 0}
    assert read_whole == ["3", "4"]  # a balance without its time is of the moment at which it comes


@pytest.mark.parametrize(
    "change",
    [
        lambda api: api.patch("/accounts/1", json={"tariff": "New"}),
        lambda api: api.put("/accounts/1", json={"contacts": []}),
        lambda api: api.patch("/accounts/1", json={"charges": []}),
        lambda api: api.patch("/accounts/1", json={"balance": "7.00"}),
    ],
)
async def test_whatever_changes_an_account_makes_its_line_be_read_again(api, given_account, read_whole, change):
    whole = line("1", **given_account())
    await send(api, whole)
    assert (await change(api)).status_code == 200
    read_whole.clear()

    report = await send(api, whole)

    assert read_whole == ["1"]
    one = (await api.get("/accounts/1")).json()
    assert (one["tariff"], len(one["contacts"]), len(one["charges"])) == ("Home 100", 2, 1)
    assert report["updated"] == (0 if one["balance"] == "7.00" else 1)  # the PATCH was newer


async def test_contact_that_was_deleted_comes_back_with_the_next_snapshot(api, given_account):
    whole = line("1", **given_account())
    await send(api, line("1", **given_account(contacts=[])))
    contact = (await api.post("/accounts/1/contacts", json=given_account()["contacts"][0])).json()
    await send(api, whole)
    assert (await api.delete(f"/accounts/1/contacts/{contact['id']}")).status_code == 204

    report = await send(api, whole)

    assert report["updated"] == 1
    assert contact["address"] in [known["address"] for known in (await api.get("/accounts/1")).json()["contacts"]]


async def test_erased_account_leaves_no_digest_and_its_line_makes_a_new_one(api, database, given_account):
    await send(api, line("1", **given_account()))
    assert (await api.delete("/accounts/1")).status_code == 204

    async with database.transaction() as session:
        assert (await session.execute(sa.text("SELECT imported FROM account"))).scalars().all() == [None]
    assert (await send(api, line("1", **given_account())))["created"] == 1


async def test_newer_balance_of_an_event_stays_and_its_line_need_not_be_read(api, read_whole):
    whole = line("1", name="a", **AS_OF)
    await send(api, whole)
    event = {
        "specversion": "1.0",
        "id": "e",
        "source": "/b",
        "type": "balance.changed",
        "subject": "1",
        "time": "2026-01-02T00:00:00Z",
        "data": {"balance": "99.00"},
    }
    assert (await api.post("/events", json=event, headers={"Content-Type": "application/cloudevents+json"})).status_code == 202
    read_whole.clear()

    report = await send(api, whole)

    assert (report["unchanged"], read_whole) == (1, [])
    assert (await api.get("/accounts/1")).json()["balance"] == "99.00"


async def test_line_that_comes_again_after_another_one_is_taken_again(api, monkeypatch):
    """Within a chunk, and in the chunk that is read while the one before it is being written."""
    first, second = line("1", name="first", **AS_OF), line("1", name="second", **AS_OF)
    await send(api, first)

    report = await send(api, second, first)
    assert (report["updated"], (await api.get("/accounts/1")).json()["name"]) == (1, "first")

    monkeypatch.setattr(imports, "CHUNK_LINES", 2)
    report = await send(api, second, line("2"), first, line("3"))
    assert (report["updated"], (await api.get("/accounts/1")).json()["name"]) == (2, "first")


async def test_same_said_in_other_words_changes_nothing_and_is_passed_over_the_next_time(api, read_whole, database):
    await send(api, line("1", name="a", tariff="t"))
    other = b'{"tariff": "t", "number": "1",   "name": "a"}\n'

    assert (await send(api, other))["unchanged"] == 1
    read_whole.clear()

    assert (await send(api, other))["unchanged"] == 1
    assert read_whole == []


async def test_other_region_reads_every_line_again(database, settings, read_whole):
    async def one():
        yield line("1", contacts=[{"channel": "sms", "address": "8 701 123 45 67"}])

    await import_accounts(database, settings, one())
    read_whole.clear()

    report = await import_accounts(database, settings.model_copy(update={"phone_region": "KZ"}), one())

    assert (report.unchanged, read_whole) == (1, ["1"])


async def test_many_new_accounts_are_stored_as_few_are(api, given_account):
    """COPY and INSERT write the same, backslashes and line ends in attributes included."""
    odd = given_account(name="back\\slash \u00a0 «a»", attributes={"text": "tab\tline\nback\\slash", "n": None}, threshold=None)
    odd["charges"][0] |= {"title": "\\N", "announce": False, "start_on": "2026-01-02"}

    await send(api, *(line(f"many-{n:03}", **odd) for n in range(200)), *(line(f"bare-{n:03}") for n in range(5)))
    await api.put("/accounts/few", json=odd)
    await api.put("/accounts/few-bare", json={})

    for many, few in (("many-123", "few"), ("bare-003", "few-bare")):
        found = [(await api.get(f"/accounts/{number}")).json() for number in (many, few)]
        for account in found:
            for name in ("number", "created_at", "updated_at"):
                del account[name]
            for contact in account["contacts"]:
                del contact["id"]
        assert found[0] == found[1]


async def test_number_that_is_taken_during_the_import_spoils_nothing(api, database, settings):
    """Another import has the number, uncommitted, when ours copies it."""
    async with database.transaction() as session:
        await save(session, [Snapshot("050", {"name": "theirs"}, None, None, None, None)], settings)
        ours = asyncio.create_task(send(api, *(line(f"{n:03}", name="ours", contacts=[{"channel": "sms", "address": "+79161234567"}]) for n in range(200))))
        await asyncio.sleep(0.5)

    report = await ours

    assert counts(report) == {"received": 200, "created": 199, "updated": 1, "unchanged": 0, "rejected_total": 0}
    one = (await api.get("/accounts/050")).json()
    assert (one["name"], len(one["contacts"])) == ("ours", 1)


async def test_balance_that_an_import_moves_is_looked_at_only_where_somebody_may_have_to_be_told(api, database):
    """Low ones, and those of whom something has been told; a million others cost nothing."""
    lines = [line("low", threshold="10.00", **AS_OF), line("none", **AS_OF), line("tariff", threshold="10.00", **AS_OF)]
    await send(api, *lines, *(line(number, threshold="1.00", **AS_OF) for number in ("high", "told", "over")))
    async with database.transaction() as session:
        spell = """INSERT INTO forecast_episode (account_id, kind, number, is_open, changed_at)
            SELECT id, 'exhaustion', 1, number = 'told', now() FROM account WHERE number IN ('told', 'over')"""
        await session.execute(sa.text(spell))
    later = {"balance": "6.00", "balance_as_of": "2026-01-02T00:00:00Z"}

    changed = [line(number, **later) for number in ("low", "none", "high", "told", "over")]
    await send(api, *changed, line("tariff", tariff="New"), line("new", threshold="10.00", **later))

    async with database.transaction() as session:
        moved = await session.scalars(sa.text("SELECT number FROM balance_moved m JOIN account a ON a.id = m.account_id ORDER BY number"))
        assert moved.all() == ["low", "told"]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_lines_are_the_same_however_the_stream_is_cut(size):
    body = person(1) + b"\n" + person(2).replace(b"\n", b"\r\n") + b"x" * 500 + b"\n\n" + person(3).removesuffix(b"\n")

    assert [found async for found in split_lines(in_pieces(body, size))] == body.split(b"\n")


async def test_endless_line_is_never_held_in_memory_whole():
    async def endless():
        for _ in range(1000):
            yield b"x" * 65536
        yield b"\n" + person(1)

    tracemalloc.start()
    lines = [len(found) async for found in split_lines(endless())]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert lines[0] > LINE_OCTETS
    assert lines[1] == len(person(1)) - 1
    assert peak < 2_000_000
