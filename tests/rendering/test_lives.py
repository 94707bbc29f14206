"""What becomes of templates: compared, copied, put away, taken back, deleted; and who hears of it."""

from uuid import UUID

import pytest
import sqlalchemy as sa

from app.core.models import AuditRecord
from app.rendering.compose import Templates
from tests.builders.messages import run

GERMAN = {"type": "payment.received", "channel": "sms", "locale": "de"}
TEXT = {"text": "Danke: {{ amount|money }}"}


async def made(api, *versions, publish: int | None = None, **changes) -> str:
    template = f"/templates/{(await api.post('/templates', json=GERMAN | changes)).json()['id']}"
    for version in versions:
        added = await api.post(f"{template}/versions", json=version)
        assert added.status_code == 201, added.text
    if publish is not None:
        assert (await api.post(f"{template}/versions/{publish}/publish")).status_code == 200
    return template


async def default(api, channel: str = "sms", locale: str = "ru", kind: str = "payment.received") -> str:
    found = (await api.get("/templates", params={"type": kind, "channel": channel, "locale": locale})).json()["items"]
    return f"/templates/{found[0]['id']}"


async def told(database) -> list[tuple[str, dict]]:
    async with database.transaction() as session:
        rows = (await session.execute(sa.select(AuditRecord).order_by(AuditRecord.id))).scalars().all()
    return [(row.action, row.changes) for row in rows]


async def test_operator_sees_what_differs_between_two_versions(api):
    words = {"subject": "Payment", "text": "Hello\n{{ amount|money }}\nBye", "attachments": [{"kind": "calendar"}]}
    letter = await made(api, words, words | {"text": "Hello\n{{ amount|money('USD') }}\nBye", "attachments": []}, channel="email")

    answer = await api.get(f"{letter}/diff", params={"from": 1, "to": 2})

    assert answer.json() == {
        "from_version": 1,
        "to_version": 2,
        "fields": [
            {"name": "text", "diff": "@@ -1,3 +1,3 @@\n Hello\n-{{ amount|money }}\n+{{ amount|money('USD') }}\n Bye"},
            {"name": "attachments", "diff": '@@ -1,5 +0,0 @@\n-[\n-  {\n-    "kind": "calendar"\n-  }\n-]'},
        ],
    }
    assert (await api.get(f"{letter}/diff", params={"from": 1, "to": 1})).json()["fields"] == []
    assert (await api.get(f"{letter}/diff", params={"from": 1, "to": 9})).status_code == 404
    assert (await api.get(f"{letter}/diff", params={"from": 1})).status_code == 422


async def test_one_version_is_read_by_its_number(api):
    template = await made(api, TEXT, {"text": "b"}, publish=1)

    assert (await api.get(f"{template}/versions/1")).json()["published"] is True
    assert (await api.get(f"{template}/versions/2")).json()["text"] == "b"
    assert (await api.get(f"{template}/versions/3")).status_code == 404


async def test_copy_in_another_language_begins_with_the_newest_words(api, database):
    template = await made(api, TEXT, {"text": "Neu", "options": {"max_parts": 1}}, publish=1)

    copy = await api.post(f"{template}/clone", json={"locale": "de-AT"})

    assert (copy.status_code, copy.json()["locale"], copy.json()["published_version"]) == (201, "de-AT", None)
    versions = (await api.get(f"/templates/{copy.json()['id']}/versions")).json()["items"]
    assert [(one["version"], one["text"], one["options"]) for one in versions] == [(1, "Neu", {"max_parts": 1})]
    action, changes = (await told(database))[-1]
    assert (action, changes["from"], changes["version"]) == ("template.clone", template.rpartition("/")[2], 2)


async def test_copy_to_another_channel_takes_what_that_one_has(api):
    letter = await made(api, {"subject": "S", "text": "T", "html": "<p>H</p>", "layout": "default", "attachments": [{"kind": "calendar"}]}, channel="email")

    sms = (await api.post(f"{letter}/clone", json={"channel": "sms"})).json()
    back = (await api.post(f"/templates/{sms['id']}/clone", json={"channel": "email", "locale": "fr", "name": "Paiement"})).json()

    (words,) = (await api.get(f"/templates/{sms['id']}/versions")).json()["items"]
    assert (words["text"], words["subject"], words["html"], words["layout"], words["attachments"]) == ("T", None, None, None, [])
    (words,) = (await api.get(f"/templates/{back['id']}/versions")).json()["items"]
    assert (words["subject"], words["text"]) == ("Paiement", "T")


async def test_copy_that_cannot_be_is_refused_and_leaves_nothing(api):
    html = await made(api, {"subject": "S", "html": "<p>H</p>"}, channel="email")
    long = await made(api, {"subject": "S", "text": "x" * 9000}, channel="email", locale="fr")
    before = len((await api.get("/templates", params={"limit": 500})).json()["items"])

    answers = [
        await api.post(f"{html}/clone", json={"channel": "sms"}),
        await api.post(f"{long}/clone", json={"channel": "sms"}),
        await api.post(f"{html}/clone", json={}),
        await api.post(f"{html}/clone", json={"type": "promo.offer"}),
        await api.post(f"{html}/clone", json={"colour": "red"}),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 409, 422, 422]
    assert [answer.json()["errors"][0]["pointer"] for answer in answers if answer.status_code == 422] == ["/text", "/text", "/type", "/colour"]
    assert len((await api.get("/templates", params={"limit": 500})).json()["items"]) == before


async def test_copy_of_a_template_without_words_has_none(api):
    copy = (await api.post(f"{await made(api)}/clone", json={"locale": "fr"})).json()

    assert (await api.get(f"/templates/{copy['id']}/versions")).json()["items"] == []


async def test_archived_template_is_not_sent_and_comes_back_as_it_was(api, database):
    template = await made(api, TEXT, publish=1)
    templates = Templates("ru")
    async with database.transaction() as session:
        await templates.refresh(session)
    before = templates._nearest(("payment.received", "sms", "de"))

    archived = await api.post(f"{template}/archive")
    again = await api.post(f"{template}/archive")

    assert (before.locale, archived.json()["published_version"]) == ("de", None)
    assert again.json() == archived.json(), "once is enough"
    async with database.transaction() as session:
        await templates.refresh(session)
    assert templates._nearest(("payment.received", "sms", "de")).locale == "ru"
    refused = [await api.post(f"{template}/versions", json=TEXT), await api.post(f"{template}/versions/1/publish")]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(409, "template_archived")] * 2
    listed = [(await api.get("/templates", params={"locale": "de", "archived": archived})).json()["items"] for archived in (False, True)]
    assert [len(items) for items in listed] == [0, 1]
    restored = (await api.post(f"{template}/restore")).json()
    assert (restored["archived_at"], restored["published_version"], restored["warnings"]) == (None, 1, [])
    assert (await told(database))[-2:] == [
        ("template.archive", {"published_version": [1, None], "force": False}),
        ("template.restore", {"published_version": [None, 1]}),
    ]


async def test_restored_template_that_cannot_be_published_today_says_why(api, database):
    template = await made(api, TEXT, {"text": "b"}, publish=1)
    unpublished = await made(api, TEXT, locale="fr")
    await api.post(f"{template}/archive")
    await api.post(f"{unpublished}/archive")
    await run(database, "UPDATE template_version SET text = '{{ no_such_name }}' WHERE text = :text", text=TEXT["text"])

    restored = (await api.post(f"{template}/restore")).json()
    other = (await api.post(f"{unpublished}/restore")).json()

    assert (restored["archived_at"], restored["published_version"]) == (None, None)
    assert "no_such_name" in restored["warnings"][0]["detail"]
    assert (other["published_version"], other["warnings"]) == (None, [])


async def test_last_words_of_a_type_are_not_put_away_by_mistake(api, database):
    russian, english = await default(api), await default(api, locale="en")

    first = await api.post(f"{english}/archive")
    last = await api.post(f"{russian}/archive")

    assert (first.status_code, last.status_code, last.json()["code"]) == (200, 409, "template_in_use")
    assert (await api.get(russian)).json()["published_version"] == 1
    assert (await api.post(f"{russian}/archive", params={"force": True})).status_code == 200
    assert (await told(database))[-1] == ("template.archive", {"published_version": [1, None], "force": True})


async def test_last_words_of_a_type_that_is_off_may_be_put_away(api):
    kind = await api.get("/notification-types/payment.received")
    body = {name: value for name, value in kind.json().items() if name not in ("code", "builtin", "revision", "updated_at")}
    await api.put("/notification-types/payment.received", json=body | {"enabled": False}, headers={"If-Match": kind.headers["ETag"]})

    assert [(await api.post(f"{await default(api, locale=locale)}/archive")).status_code for locale in ("en", "ru")] == [200, 200]


async def test_template_that_was_never_used_is_deleted_with_its_versions(api, database):
    template = await made(api, TEXT, TEXT)

    assert (await api.delete(template)).status_code == 204
    assert (await api.get(template)).status_code == 404
    assert (await told(database))[-1] == ("template.delete", {"type": "payment.received", "channel": "sms", "locale": "de"})
    assert (await api.post("/templates", json=GERMAN)).status_code == 201, "its place is free"


@pytest.mark.parametrize("used", ["published", "published once", "default", "published by an older service"])
async def test_template_that_was_used_stays(api, database, used):
    template = await default(api) if used == "default" else await made(api, TEXT, publish=1 if used.startswith("published") else None)
    if used in ("published once", "default"):
        await api.post(f"{template}/archive")
    if used == "published by an older service":
        await run(database, "UPDATE template SET published_version = 1, used_at = NULL WHERE id = :id", id=UUID(template.removeprefix("/templates/")))
        await api.post(f"{template}/archive")

    refused = await api.delete(template)

    assert (refused.status_code, refused.json()["code"]) == (409, "template_in_use")
    assert (await api.get(f"{template}/versions/1")).status_code == 200


async def test_worker_hears_of_a_template_in_the_place_of_a_deleted_one(api, database):
    """Count and revisions of both are the same."""
    first = await made(api, TEXT)
    await api.patch(first, json={"name": "x"}, headers={"If-Match": '"2"'})
    templates = Templates("ru")
    async with database.transaction() as session:
        await templates.refresh(session)

    await api.delete(first)
    await made(api, TEXT, publish=1)

    async with database.transaction() as session:
        await templates.refresh(session)
    assert templates._nearest(("payment.received", "sms", "de")).locale == "de"


async def test_whoever_has_read_an_older_one_changes_nothing(api):
    template = await made(api, TEXT)
    old = {"If-Match": '"1"'}

    answers = [
        await api.post(f"{template}/archive", headers=old),
        await api.post(f"{template}/restore", headers=old),
        await api.delete(template, headers=old),
    ]

    assert [answer.status_code for answer in answers] == [412] * 3


async def test_only_who_writes_templates_may_do_this(api, as_role):
    template, viewer = await made(api, TEXT), await as_role("viewer")

    answers = [await viewer.post(f"{template}/{step}", json={}) for step in ("clone", "archive", "restore")]

    assert [answer.status_code for answer in (*answers, await viewer.delete(template))] == [403] * 4
    assert (await viewer.get(f"{template}/versions/1")).status_code == 200


async def test_subscriber_is_written_to_in_the_nearest_language(api, database):
    wide, narrow = await default(api), await made(api, {"text": "{{ amount }}"}, publish=1, locale="ru-RU")
    await made(api, {"text": "{{ amount }}"}, publish=1, locale="kk")
    templates, spoken = Templates("ru"), []
    for archived in (None, narrow, wide):
        if archived is not None:
            assert (await api.post(f"{archived}/archive")).status_code == 200
        async with database.transaction() as session:
            await templates.refresh(session)
        spoken.append([templates._nearest(("payment.received", "sms", locale)).locale for locale in ("ru-RU", "ru-KZ", "kk-KZ", "fr")])

    assert spoken == [["ru-RU", "ru", "kk", "ru"], ["ru", "ru", "kk", "ru"], ["en", "en", "kk", "en"]]


async def test_author_of_an_sms_hears_of_its_parts_when_it_is_added(api):
    template = await made(api)
    short, long = "{{ service }}", "x" * 275 + " {{ amount|money }} {{ amount|money }}"

    doubtful = await api.post(f"{template}/versions", json={"text": long, "options": {"max_parts": 2}})
    wrong = await api.post(f"{template}/versions", json={"text": "y" * 200, "options": {"max_parts": 1}})
    unknown = await api.post(f"{template}/versions", json={"text": short})

    assert [answer.status_code for answer in (doubtful, wrong, unknown)] == [201] * 3
    warnings = [[(one["pointer"], one["code"]) for one in answer.json()["warnings"]] for answer in (doubtful, wrong, unknown)]
    assert warnings == [[("/text", "too_many_parts")], [("/text", "too_many_parts")], [("/text", "undefined")]]
    assert "самые длинные" in doubtful.json()["warnings"][0]["detail_ru"]
    assert "самые длинные" not in wrong.json()["warnings"][0]["detail_ru"]


async def test_warnings_come_with_the_version_and_with_its_publication(api):
    template = await made(api)

    added = (
        await api.post(f"{template}/versions", json={"text": "{{ amount }}\n {{ balance|money }}{% if method is defined %}{{ method }}{% endif %}"})
    ).json()
    published = (await api.post(f"{template}/versions/1/publish")).json()

    assert [(one["pointer"], one["code"], one["line"], one["column"]) for one in added["warnings"]] == [("/text", "may_be_empty", 2, 5)]
    assert published["warnings"] == added["warnings"]
    assert "`balance` здесь может оказаться пустым" in added["warnings"][0]["detail_ru"]
