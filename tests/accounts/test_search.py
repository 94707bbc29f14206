import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.accounts.save import save
from app.accounts.search import address_beginnings, find, name_words, next_after, search
from app.accounts.shapes import AccountIn
from app.accounts.snapshots import snapshot

PEOPLE = {
    "100500": ("Иванов Пётр Ильич", "+79161234567", "petr@example.org"),
    "100501": ("Петрова Анна", "+79261234567", "Anna.P@example.org"),
    "200100": ("ООО «Ромашка-2» (филиал)", "+375291234567", "office@romashka.example"),
    "a_b%c": ("O'Neil \\ & | ! <-> :* Sean", "+14155550123", "sean@example.org"),
    "абонент 7": ("Smith John", "+79160000001", "js@example.org"),
}


@pytest.fixture
async def people(api):
    for number, (name, phone, email) in PEOPLE.items():
        contacts = [{"channel": "sms", "address": phone}, {"channel": "email", "address": email}]
        made = await api.put(f"/accounts/{number.replace('%', '%25')}", json={"name": name, "contacts": contacts})
        assert made.status_code == 201
    return PEOPLE


async def test_account_is_found_by_how_a_number_an_address_or_a_word_of_the_name_begins(api, people):
    expected = {
        "": sorted(people),
        "1005": ["100500", "100501"],
        "00500": [],
        "а": ["100501", "абонент 7"],
        "+7916": ["100500", "абонент 7"],
        "7916123": ["100500"],
        "8 (916) 123-45": ["100500"],
        "+8916": [],
        "+375 29": ["200100"],
        "petr@": ["100500"],
        "Anna.P@example.org": ["100501"],
        "anna.p@": [],
        "ПЕТР": ["100501"],
        "иль": ["100500"],
        "ванов": [],
        "ильич ива": ["100500"],
        "ильич анна": [],
        "ромаш": ["200100"],
        "o'n": ["a_b%c"],
        "a_b%": ["a_b%c"],
        "a%": [],
        "_": [],
        "\\": [],
        "& | !": [],
        "sean:* | smith": [],
        "john'": ["абонент 7"],
        "\U0010ffff": [],
    }

    found = {query: [item["number"] for item in (await api.get("/accounts", params={"query": query})).json()["items"]] for query in expected}

    assert found == expected


async def test_found_accounts_come_in_pages_each_once(api, people):
    seen, cursor = [], None
    for _ in range(10):
        page = (await api.get("/accounts", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        assert len(page["items"]) <= 2
        seen += [item["number"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == sorted(people)


async def test_erased_account_is_not_found_under_any_of_its_names(api, people):
    await api.delete("/accounts/100500")

    for query in ("100500", "иванов", "+79161234567", "petr@example.org", "erased"):
        assert (await api.get("/accounts", params={"query": query})).json()["items"] == []
    assert [item["number"] for item in (await api.get("/accounts")).json()["items"]] == sorted(people.keys() - {"100500"})


async def test_list_answers_as_the_single_account_does(api, people):
    listed = (await api.get("/accounts", params={"query": "200100"})).json()["items"][0]

    assert listed == (await api.get("/accounts/200100")).json()
    assert [contact["address"] for contact in listed["contacts"]] == ["+375291234567", "office@romashka.example"]


async def test_search_of_twenty_thousand_accounts_never_reads_a_whole_table(database, settings):
    await fill(database, settings)
    expected = {"100": 51, "+79160001": 51, "79160001": 51, "user1@": 1, "фамилия1777": 11, "имя999 фам": 20, "": 51, "нет такого": 0}

    async with database.transaction() as session:
        plans, found = {}, {}
        for query in expected:
            statement, values = search(query, "", 51, "RU")
            plans[query] = "\n".join(await session.scalars(sa.text("EXPLAIN " + statement), values))
            found[query] = len(await find(session, query, "", 51, "RU"))

    assert found == expected
    assert [query for query, plan in plans.items() if "Seq Scan" in plan] == []


async def fill(database, settings):
    def one(n):
        contacts = [{"channel": "sms", "address": f"+7916{n:07}"}, {"channel": "email", "address": f"user{n}@example.org"}]
        return snapshot(f"{100_000 + n}", AccountIn.model_validate({"name": f"Фамилия{n} Имя{n % 1000}", "contacts": contacts}), "RU")

    async with database.transaction() as session:
        await save(session, [one(n) for n in range(20_000)], settings)
    async with database.transaction() as session:
        await session.execute(sa.text("ANALYZE account, contact"))


@given(st.text(min_size=1), st.text())
def test_bound_comes_after_everything_with_the_beginning_and_before_all_else(beginning, more):
    def octets(text):
        return text.encode("utf-8", "surrogatepass")

    bound = next_after(beginning)
    if bound:
        assert octets(beginning) <= octets(beginning + more) < octets(bound)
        assert not bound.startswith(beginning)
    else:
        assert set(beginning) == {"\U0010ffff"}


@given(st.text())
def test_words_of_a_query_are_quoted_letters_and_digits(query):
    for word in filter(None, name_words(query).split(" & ")):
        assert word[0] == "'"
        assert word[-3:] == "':*"
        assert word[1:-3].isalnum()


def test_phone_is_looked_for_as_it_is_dialled_at_home_too():
    assert "+7916" in address_beginnings("8916", "RU")
    assert "+7916" in address_beginnings("7 916", "RU")
    assert "+7916" not in address_beginnings("+8916", "RU")
    assert "+4179" in address_beginnings("079", "CH")
