"""/brands: which account is written to as whom."""

import asyncio
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.attachments.models import Attachment
from app.core.models import AuditRecord
from app.rendering.brands import Brands, BrandSettings
from app.rendering.brands_api import check
from app.rendering.compose import Templates
from app.rendering.models import Brand
from tests.builders.files import PNG, uploaded
from tests.builders.letters import PAGE, a_brand, a_layout, a_letter
from tests.builders.messages import a_message, run

WHOLE = {
    "title": "ТВ и Ко",
    "sender": "ТВ <hello@tv.example>",
    "reply_to": "help@tv.example",
    "colours": {"primary": "#112233", "background": "#ffffff", "text": "#000000"},
    "links": {"cabinet": "https://tv.example/my", "site": "https://tv.example"},
    "footer": {"ru": "Лицензия 1", "en": "Licence 1"},
    "payee": {
        "name": "ООО ТВ",
        "personal_account": "40702810900000000001",
        "bank_name": "Банк",
        "bic": "044525225",
        "correspondent_account": "30101810400000000225",
        "inn": "7700000000",
        "kpp": "770001001",
    },
    "match": {"attribute": "segment", "value": "tv"},
}


async def put(api, name="tv", read=None, **body):
    return await api.put(f"/brands/{name}", json=body, headers={"If-Match": read} if read else {})


async def test_a_brand_is_made_read_changed_and_deleted(api, database):
    made = await put(api, **WHOLE)
    read = await api.get("/brands/tv")
    changed = await put(api, read=read.headers["ETag"], **(WHOLE | {"title": "ТВ"}))
    same = await put(api, read=changed.headers["ETag"], **(WHOLE | {"title": "ТВ"}))
    gone = await api.delete("/brands/tv")

    assert [answer.status_code for answer in (made, read, changed, same, gone)] == [201, 200, 200, 200, 204]
    assert {name: read.json()[name] for name in WHOLE} == WHOLE
    assert [answer.json()["revision"] for answer in (made, changed, same)] == [1, 2, 2]
    assert (await api.get("/brands/tv")).json()["code"] == "brand_not_found"
    async with database.transaction() as session:
        records = (await session.execute(sa.select(AuditRecord).order_by(AuditRecord.id))).scalars().all()
    assert [record.action for record in records] == ["brand.create", "brand.update", "brand.delete"]
    assert records[1].changes == {"title": ["ТВ и Ко", "ТВ"]}


async def test_a_brand_of_nothing_is_as_the_built_in_one(api):
    made = (await put(api)).json()

    assert made["colours"] == {"primary": "#1f5fd0", "background": "#eef1f5", "text": "#3a4653"}
    assert (made["sender"], made["links"], made["is_default"]) == (None, {}, False)


async def test_a_change_needs_the_version_that_was_read(api):
    await put(api)

    assert (await put(api, title="x")).status_code == 428
    assert (await put(api, title="x", read='"9"')).status_code == 412


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"sender": "ТВ <hello@tv.example>\r\nBcc: x@y.example"}, "/sender"),
        ({"sender": "nobody"}, "/sender"),
        ({"sender": "иван@tv.example"}, "/sender"),
        ({"reply_to": "a@b.example\nX: y"}, "/reply_to"),
        ({"title": "a\u2028b"}, "/title"),
        ({"colours": {"primary": "red;background:url(https://x)"}}, "/colours/primary"),
        ({"colours": {"link": "#000000"}}, "/colours/link"),
        ({"links": {"cabinet": "javascript:alert(1)"}}, "/links/cabinet"),
        ({"links": {"cabinet": 'https://x.example/"onclick'}}, "/links/cabinet"),
        ({"links": {"unsubscribe": "https://x.example"}}, "/links"),
        ({"links": {"A b": "https://x.example"}}, "/links/A b"),
        ({"payee": {"name": "x"}}, "/payee/personal_account"),
        ({"layout": "nowhere"}, "/layout"),
        ({"logo": str(uuid4())}, "/logo"),
        ({"match": {"attribute": "a", "value": None}}, "/match/value"),
        ({"match": {"attribute": "a", "value": "b"}, "is_default": True}, ""),
        ({"footer": {"de": "x"}}, "/footer/de"),
        ({"css": "x"}, "/css"),
    ],
)
async def test_settings_that_no_letter_could_have_are_refused(api, body, pointer):
    answer = await put(api, **body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert (await api.get("/brands")).json()["items"] == []


async def test_a_logo_is_an_uploaded_picture(api, database):
    ids = {}
    async with database.transaction() as session:
        for kind in ("image/png", "application/pdf"):
            ids[kind] = uuid4()
            session.add(Attachment(id=ids[kind], sha256=kind.encode(), name="x", content_type=kind, size=1, created_by="test"))

    picture, paper = [await put(api, name, logo=str(ids[kind])) for name, kind in (("a", "image/png"), ("b", "application/pdf"))]

    assert picture.status_code == 201
    assert paper.json()["errors"][0]["code"] == "not_a_picture"


async def test_one_brand_is_the_default_one(api):
    await put(api, "a", is_default=True)

    assert (await put(api, "b", is_default=True)).json()["code"] == "default_brand_exists"
    assert (await put(api, "a", read='"1"', is_default=False)).status_code == 200
    assert (await put(api, "b", is_default=True)).status_code == 201


async def test_a_brand_in_whose_name_messages_wait_cannot_be_deleted(api, database):
    await put(api)
    await a_message(database, channel="email", address="a@example.org", brand="tv")
    await put(api, "other")
    await a_message(database, channel="email", address="a@example.org", brand="other", ended="delivered")

    assert (await api.delete("/brands/tv")).json()["code"] == "brand_in_use"
    assert (await api.delete("/brands/other")).status_code == 204


async def test_a_brand_may_name_a_layout_that_is_there(api, database):
    await a_layout(database, "own")

    assert [(await put(api, name, layout=layout)).status_code for name, layout in (("a", "own"), ("b", "default"))] == [201, 201]


async def test_brands_are_listed_by_name_and_only_for_readers(api, as_role):
    for name in ("b", "a", "c"):
        await put(api, name)
    viewer, billing = await as_role("viewer"), await as_role("billing")

    first = (await viewer.get("/brands", params={"limit": 2})).json()
    rest = (await viewer.get("/brands", params={"cursor": first["next_cursor"]})).json()

    assert [item["name"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert [(await put(viewer, "d")).status_code, (await viewer.delete("/brands/a")).status_code, (await billing.get("/brands")).status_code] == [403] * 3


# --- which account has which ---


@pytest.mark.parametrize(
    ("attributes", "brand"),
    [
        ({"segment": "tv"}, "b-tv"),
        ({"segment": "tv", "vip": True}, "a-vip"),
        ({"vip": 1}, "z-rest"),
        ({"vip": "true"}, "z-rest"),
        ({"segment": ["tv"]}, "z-rest"),
        ({"floor": 1}, "c-first"),
        ({"floor": True}, "z-rest"),
        ({}, "z-rest"),
    ],
)
def test_the_first_brand_by_name_that_fits_is_taken_else_the_default_one(attributes, brand):
    brands = Brands.read(
        [
            ("z-rest", {"is_default": True}),
            ("b-tv", {"match": {"attribute": "segment", "value": "tv"}}),
            ("a-vip", {"match": {"attribute": "vip", "value": True}}),
            ("c-first", {"match": {"attribute": "floor", "value": 1}}),
            ("y-tv", {"match": {"attribute": "segment", "value": "tv"}}),
        ]
    )

    assert brands.of(attributes).name == brand


def test_without_a_default_brand_the_built_in_one_is_left():
    brands = Brands.read([("tv", {"match": {"attribute": "segment", "value": "tv"}})])

    assert brands.of({}).name is None
    assert brands.named("gone").name is None


def test_a_brand_that_a_newer_service_has_written_stops_nobody():
    brands = Brands.read([("new", {"hologram": True}), ("tv", {"is_default": True})])

    assert brands.of({}).name == "tv"


def test_a_footer_in_one_language_serves_both():
    brand = Brands.read([("tv", {"footer": {"ru": "Лицензия"}})]).named("tv")

    assert [brand.values(locale)["footer"] for locale in ("ru", "ru-RU", "en", "kk")] == ["Лицензия"] * 4


async def test_words_are_written_as_the_accounts_brand(database, values):
    await a_brand(database, "tv", match={"attribute": "segment", "value": "home"}, links={"cabinet": "https://tv.example/my"})
    templates = Templates("ru")
    async with database.transaction() as session:
        await templates.refresh(session)

    letter = templates.compose("payment.received", "email", "ru", values())
    other = templates.compose("payment.received", "email", "ru", values(attributes={}))
    stranger = templates.compose("payment.received", "email", "ru", values(attributes={}), attributes={"segment": "home"})

    assert (letter.brand, other.brand, stranger.brand) == ("tv", None, "tv")
    assert "https://tv.example/my" in letter.html
    assert "https://isp.example/cabinet" in other.html


# --- what a brand may not do to letters that are sent ---

# Cells of a table, and a layout whose rules for cells are more than one letter may cost.
LONG = "<table>" + "".join(f"<tr><td style='color:red;padding:{n}px'>{'x' * 40}</td></tr>" for n in range(500)) + "</table>"
WIDE = PAGE.replace("<body>", "<body><style>td{" + "".join(f"--a{n}:1;" for n in range(60)) + "}</style>")


async def test_a_layout_that_a_published_letter_could_not_stand_in_is_refused_to_a_brand(api, database):
    await a_layout(database, "wide", html=WIDE)
    await a_letter(database, html=LONG)

    refused = await put(api, layout="wide")

    assert (refused.status_code, refused.json()["errors"][0]["pointer"], refused.json()["errors"][0]["code"]) == (422, "/layout", "breaks_template")
    assert (await api.get("/brands/tv")).status_code == 404


async def test_a_layout_that_was_broken_behind_the_back_of_the_api_is_refused_to_a_brand(api, database):
    await a_layout(database, "broken", html="<html><body>{{ content }}{{ nobody.knows }}</body></html>")

    assert (await put(api, layout="broken")).json()["errors"][0]["code"] == "undefined"


async def test_a_letter_that_the_layout_of_a_brand_cannot_hold_is_not_published(api, database):
    await a_layout(database, "wide", html=WIDE)
    await put(api, layout="wide")
    template = (await api.post("/templates", json={"type": "service.connected", "channel": "email", "locale": "de"})).json()["id"]
    bare = {"subject": "S", "html": LONG}
    for words in (bare, bare | {"html": "<p>x</p>"}):
        assert (await api.post(f"/templates/{template}/versions", json=words)).status_code == 201

    long, short = [await api.post(f"/templates/{template}/versions/{number}/publish") for number in (1, 2)]
    preview = await api.post("/templates/preview", json={"channel": "email", "type": "service.connected", "locale": "de", **bare})

    assert (long.status_code, long.json()["errors"][0]["code"], short.status_code) == (422, "too_long", 200)
    assert [problem["code"] for problem in preview.json()["problems"]] == ["too_long"]


async def test_a_logo_is_small(api, database):
    ids = [uuid4(), uuid4()]
    async with database.transaction() as session:
        for size, file_id in zip((1 << 20, (1 << 20) + 1), ids, strict=True):
            session.add(Attachment(id=file_id, sha256=file_id.bytes, name="x", content_type="image/png", size=size, created_by="test"))

    fits, large = [await put(api, name, logo=str(file_id)) for name, file_id in zip("ab", ids, strict=True)]

    assert fits.status_code == 201
    assert (large.json()["errors"][0]["pointer"], large.json()["errors"][0]["code"]) == ("/logo", "too_large")


async def test_deletion_of_a_logo_waits_for_a_brand_that_is_just_being_written(api, database):
    """The brand is written first: its logo is held until the commit, and is in use then."""
    logo = await uploaded(api, PNG, "logo.png")
    async with database.transaction() as session:
        await check(session, "tv", BrandSettings(logo=logo["id"]))
        session.add(Brand(name="tv", settings={"logo": logo["id"]}, updated_by="test"))
        deletion = asyncio.create_task(api.delete(f"/attachments/{logo['id']}"))
        async with database.transaction() as other:
            waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            while not await other.scalar(waiting):
                assert not deletion.done()
                await asyncio.sleep(0.01)

    assert (await deletion).json()["code"] == "attachment_in_use"


async def test_an_older_logo_stays_while_letters_with_it_wait(api, database):
    logo = await uploaded(api, PNG, "logo.png")
    shown = [{"kind": "file", "id": logo["id"], "name": "brand-logo", "inline": True}]
    message = await a_message(database, channel="email", address="a@example.org", attachments=shown)

    waiting = await api.delete(f"/attachments/{logo['id']}")
    await run(database, "DELETE FROM outbox WHERE message_id = :id", id=message)

    assert (waiting.status_code, waiting.json()["detail"]) == (409, "A letter that waits to be sent names this file.")
    assert (await api.delete(f"/attachments/{logo['id']}")).status_code == 204
