"""Number ranges: imported whole, looked up one by one."""

import asyncio
import tracemalloc

import pytest

from app.gateways.operators import operators_of
from app.gateways.range_lines import LineReader, LineRejected
from app.gateways.ranges import import_ranges
from tests.builders.messages import one, rows, run

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
REGISTER = '''\ufeffАВС/ DEF;От;До;Емкость;Оператор;Регион;Территория ГАР;ИНН
916;0000000;9999999;10000000;ПАО "МТС";г. Москва;Москва;7740000076
926;0;4999999;5000000;ПАО "МегаФон";г. Москва;Москва;7812014560
926;5000000;9999999;5000000;"ООО ""Т2 Мобайл""";Московская область;Москва;7743895280
'''


@pytest.fixture
def send(api):
    async def send(body, headers=CSV, kind="range"):
        return await api.post(f"/number-ranges/import?kind={kind}", content=body if isinstance(body, bytes) else body.encode(), headers=headers)

    return send


@pytest.fixture
def operator_of(database):
    async def operator_of(*addresses):
        async with database.transaction() as session:
            found = await operators_of(session, addresses)
        return [found.get(address) for address in addresses]

    return operator_of


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
async def test_register_of_the_numbering_plan_is_read_as_it_is_published(send, operator_of, encoding):
    body = REGISTER.encode() if encoding == "utf-8" else REGISTER.removeprefix("\ufeff").encode("cp1251")

    answer = await send(body)

    assert answer.json() == {"kind": "range", "received": 3, "imported": 3, "rejected": [], "rejected_total": 0}
    assert await operator_of("+79161234567", "+79260000000", "+79264999999", "+79265000000", "+79270000000") == [
        'пао "мтс"',
        'пао "мегафон"',
        'пао "мегафон"',
        'ооо "т2 мобайл"',
        None,
    ]


async def test_ported_number_goes_before_the_range_that_it_was_taken_from(api, send, operator_of):
    await send("+79160000000,+79169999999,MTS,Moscow\n")
    await send('{"number": "+79161234567", "operator": "MegaFon"}\n{"number": "9161234568", "operator": "Tele2"}\n', NDJSON, kind="ported")

    assert await operator_of("+79161234567", "+79161234568", "+79161234569") == ["megafon", "tele2", "mts"]
    found = (await api.get("/number-ranges", params={"number": "+79161234567"})).json()["items"]
    assert [(item["kind"], item["operator"], item["first"], item["region"]) for item in found] == [
        ("ported", "MegaFon", "+79161234567", None),
        ("range", "MTS", "+79160000000", "Moscow"),
    ]


async def test_import_replaces_its_kind_and_leaves_the_other_alone(api, send):
    await send("79160000000,79169999999,MTS\n")
    await send("79161234567,MegaFon\n", kind="ported")

    await send("79260000000,79269999999,MegaFon\n")

    listed = (await api.get("/number-ranges")).json()["items"]
    assert [(item["kind"], item["first"]) for item in listed] == [("ported", "+79161234567"), ("range", "+79260000000")]


async def test_broken_and_overlapping_lines_are_rejected_with_their_numbers_and_the_rest_goes_on(send, api):
    body = "first,last,operator,region\n79160000000,79169999999,MTS\n\n79165000000,79175000000,MegaFon\nx,y,Z\n79260000000,79250000000,MegaFon\n79260000000,79269999999,\n79270000000,79279999999,MegaFon\n"

    answer = (await send(body)).json()

    assert [(line["line"], line["code"]) for line in answer["rejected"]] == [(4, "overlap"), (5, "not_a_number"), (6, "backwards"), (7, "operator_missing")]
    assert (answer["received"], answer["imported"], answer["rejected_total"]) == (6, 2, 4)
    assert [item["first"] for item in (await api.get("/number-ranges")).json()["items"]] == ["+79160000000", "+79270000000"]


async def test_number_that_was_ported_twice_is_rejected_the_second_time(send, api):
    answer = (await send("79161234567,MTS\n79161234567,MegaFon\n", kind="ported")).json()

    assert [(line["line"], line["code"]) for line in answer["rejected"]] == [(2, "overlap")]
    assert [item["operator"] for item in (await api.get("/number-ranges")).json()["items"]] == ["MTS"]


async def test_file_of_which_no_line_can_be_taken_changes_nothing(send, api, database):
    await send("79160000000,79169999999,MTS\n")

    for body in ("", "\n\n", "nonsense\nmore of it\n", "<html></html>"):
        answer = await send(body)
        assert (answer.status_code, answer.json()["code"]) == (422, "nothing_to_import"), body

    assert len((await api.get("/number-ranges")).json()["items"]) == 1
    assert await rows(database, "SELECT import_id FROM number_range_import") == []


async def test_body_that_breaks_off_changes_nothing(database):
    async def lines():
        for number in range(20_000):
            yield b"%d,MTS" % (79_160_000_000 + number)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await import_ranges(database, lines(), LineReader("ported", is_csv=True), "ported")

    assert await rows(database, "SELECT first FROM number_range") == []
    assert await rows(database, "SELECT line FROM number_range_import") == []


async def test_what_a_killed_process_left_is_swept_by_a_later_import(database, send):
    await run(database, "INSERT INTO number_range_import VALUES ('01800000-0000-7000-8000-000000000000', 1, 1, 1, 'X', NULL)")

    await send("79160000000,79169999999,MTS\n")

    assert await rows(database, "SELECT line FROM number_range_import") == []


async def test_two_imports_at_once_leave_one_of_them_whole(database):
    async def ported(operator):
        async def lines():
            for number in range(3_000):
                yield b"%d,%s" % (79_160_000_000 + number, operator)

        return await import_ranges(database, lines(), LineReader("ported", is_csv=True), "ported")

    await asyncio.gather(ported(b"MTS"), ported(b"MegaFon"))

    assert (await one(database, "SELECT count(*) AS n, count(DISTINCT operator) AS operators FROM number_range")) == (3_000, 1)


async def test_long_import_takes_memory_for_a_chunk_and_not_for_the_whole(database):
    async def lines(count):
        for number in range(count):
            yield b"%d;mMTS;25001" % (9_000_000_000 + number)

    peaks = []
    for count in (40_000, 160_000):
        tracemalloc.start()
        report = await import_ranges(database, lines(count), LineReader("ported", is_csv=True), "ported")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (report.imported, report.rejected_total) == (count, 0)

    assert peaks[1] < peaks[0] * 1.5


async def test_ranges_are_listed_page_by_page(api, send):
    await send("".join(f"7916{number:03}0000,7916{number:03}9999,MTS\n" for number in range(5)))

    seen, cursor = [], None
    while True:
        page = (await api.get("/number-ranges", params={"limit": 2, "kind": "range"} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["first"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert seen == [f"+7916{number:03}0000" for number in range(5)]


async def test_ranges_of_a_kind_are_forgotten_on_demand(api, send):
    await send("79160000000,79169999999,MTS\n")

    assert (await api.delete("/number-ranges", params={"kind": "range"})).status_code == 204
    assert (await api.get("/number-ranges")).json()["items"] == []


async def test_who_may_read_gateways_may_look_up_and_not_import(as_role):
    viewer = await as_role("viewer")

    assert (await viewer.get("/number-ranges")).status_code == 200
    assert (await viewer.post("/number-ranges/import", content=b"x", headers=CSV)).status_code == 403
    assert (await (await as_role("admin")).post("/number-ranges/import", json={})).status_code == 415


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"first": "+7916", "operator": ["MTS"]}', "not_a_text"),
        (b"[1, 2]", "not_an_object"),
        (b"{", "malformed_json"),
        (b'{"first": 79160000000, "last": 79169999999, "operator": "MTS", "colour": 1}', "unknown_key"),
        (b'{"operator": "MTS"}', "number_missing"),
        (b'{"code": "916", "from": "0", "to": "99999999", "operator": "MTS"}', "not_a_range"),
        (b'{"first": "1", "operator": "\\ud800"}', "malformed_json"),
        ('{"first": "٧٩١٦", "operator": "MTS"}'.encode(), "not_a_number"),
        (b'{"first": true, "operator": "MTS"}', "not_a_text"),
        (b"x" * 70_000, "line_too_long"),
    ],
)
def test_hostile_line_is_rejected_with_its_reason(line, code):
    with pytest.raises(LineRejected) as rejected:
        LineReader("range", is_csv=False).read(line)

    assert rejected.value.code == code


@pytest.mark.parametrize("written", ["89161234567", "9161234567", "8 (916) 123-45-67", "7 916 123 45 67", "+79161234567"])
def test_number_is_read_as_people_dial_it(written):
    assert LineReader("ported", is_csv=True).read(f"{written},MTS".encode()).first == 79161234567
    assert LineReader("ported", is_csv=True, country_code="81").read(b"81312345678,NTT").first == 81312345678
