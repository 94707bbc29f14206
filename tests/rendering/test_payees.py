"""Payment codes and the brands whose payee they name: what is sent always has one."""

import asyncio

import pytest
import sqlalchemy as sa

from app.rendering.brands import BrandSettings
from app.rendering.brands_api import check
from tests.builders.letters import a_brand, a_letter

PAYEE = {
    "name": "ООО Связь",
    "personal_account": "40702810900000000001",
    "bank_name": "Банк",
    "bic": "044525225",
    "correspondent_account": "30101810400000000225",
}
CODE = [{"kind": "payment_qr"}]
WORDS = {"subject": "Оплата", "html": '<p><img src="cid:payment-qr.png"></p>', "attachments": CODE}


async def a_version(api, **words) -> str:
    """The path of a version that is not published yet."""
    template = (await api.post("/templates", json={"type": "balance.exhausting", "channel": "email", "locale": "de"})).json()["id"]
    added = await api.post(f"/templates/{template}/versions", json=WORDS | words)
    assert added.status_code == 201, added.text
    return f"/templates/{template}/versions/{added.json()['version']}"


async def put(api, name, read=None, **settings):
    return await api.put(f"/brands/{name}", json=settings, headers={"If-Match": read} if read else {})


async def test_author_cannot_publish_a_payment_code_that_nobody_is_paid_by(api):
    refused = await api.post(f"{await a_version(api)}/publish")

    assert (refused.status_code, refused.json()["code"]) == (422, "not_publishable")
    (fault,) = refused.json()["errors"]
    assert (fault["pointer"], fault["code"]) == ("/attachments", "no_payee")
    assert "(built-in)" in fault["detail"]


@pytest.mark.parametrize(
    ("brands", "lacking"),
    [
        ({"all": {"is_default": True, "payee": PAYEE}}, ""),
        ({"all": {"is_default": True, "payee": PAYEE}, "nobodys": {"title": "x"}}, ""),
        ({"all": {"is_default": True, "payee": PAYEE}, "tv": {"match": {"attribute": "s", "value": "tv"}}}, "`tv`"),
        ({"tv": {"match": {"attribute": "s", "value": "tv"}, "payee": PAYEE}}, "(built-in)"),
        ({"all": {"is_default": True}}, "`all`"),
    ],
)
async def test_author_publishes_a_payment_code_once_every_brand_that_an_account_may_have_has_a_payee(api, database, brands, lacking):
    for name, settings in brands.items():
        await a_brand(database, name, **settings)

    answer = await api.post(f"{await a_version(api)}/publish")

    assert answer.status_code == (422 if lacking else 200)
    assert lacking in answer.text


async def test_operator_cannot_take_the_payee_from_under_letters_that_are_sent(api, database):
    await put(api, "all", is_default=True, payee=PAYEE)
    await a_letter(database, "balance.exhausting", html="<p>x</p>", attachments=CODE)

    bare = await put(api, "all", read='"1"', is_default=True)
    nobodys = await put(api, "all", read='"1"', payee=PAYEE)
    other = await put(api, "tv", match={"attribute": "s", "value": "tv"})
    gone = await api.delete("/brands/all")
    paid = await put(api, "tv", match={"attribute": "s", "value": "tv"}, payee=PAYEE)

    assert [(answer.status_code, answer.json()["errors"][0]["code"]) for answer in (bare, nobodys, other)] == [(422, "no_payee")] * 3
    assert (gone.status_code, gone.json()["code"]) == (409, "brand_in_use")
    assert paid.status_code == 201


async def test_brands_change_freely_where_no_letter_shows_a_code(api, database):
    await put(api, "all", is_default=True, payee=PAYEE)
    await a_letter(database, "balance.exhausting", html="<p>x</p>", attachments=[{"kind": "statement_pdf"}])

    assert (await put(api, "all", read='"1"', is_default=True)).status_code == 200
    assert (await api.delete("/brands/all")).status_code == 204


async def test_preview_says_that_nobody_is_paid_and_shows_the_other_files(api, database):
    draft = {"channel": "email", "type": "balance.exhausting", "locale": "ru", **WORDS, "attachments": [*CODE, {"kind": "statement_csv"}]}

    without = (await api.post("/templates/preview", json=draft)).json()
    await a_brand(database, "all", is_default=True, payee=PAYEE)
    withal = (await api.post("/templates/preview", json=draft)).json()

    (problem,) = without["problems"]
    assert (problem["pointer"], problem["code"]) == ("/attachments", "no_payee")
    assert problem["detail_ru"].startswith("Для платёжного кода нет получателя")
    assert [file["content_type"] for file in without["attachments"]] == ["text/csv; charset=utf-8"]
    assert withal["problems"] == []
    assert "payment-qr.png" in [file["name"] for file in withal["attachments"]]


async def test_publication_waits_for_a_brand_that_is_just_being_changed(api, database):
    """The brand is changed first: its payee is gone by the time that the publication looks."""
    await put(api, "all", is_default=True, payee=PAYEE)
    version = await a_version(api)
    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE brand IN SHARE ROW EXCLUSIVE MODE"))
        await check(session, "all", BrandSettings(is_default=True))
        await session.execute(sa.text("UPDATE brand SET settings = settings - 'payee'"))
        publication = asyncio.create_task(api.post(f"{version}/publish"))
        async with database.transaction() as other:
            waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            while not await other.scalar(waiting):
                assert not publication.done()
                await asyncio.sleep(0.01)

    assert (await publication).json()["errors"][0]["code"] == "no_payee"
