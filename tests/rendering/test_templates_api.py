"""/templates: words are added, proved, published and rolled back."""

import sqlalchemy as sa

from app.core.models import AuditRecord

GERMAN = {"type": "payment.received", "channel": "sms", "locale": "de"}


async def made(api, **changes) -> str:
    answer = await api.post("/templates", json=GERMAN | changes)
    assert answer.status_code == 201, answer.text
    return f"/templates/{answer.json()['id']}"


async def test_the_default_templates_are_listed_and_filtered(api):
    everything = (await api.get("/templates", params={"limit": 500})).json()["items"]
    some = (await api.get("/templates", params={"type": "tariff.changed", "channel": "email", "locale": "en"})).json()["items"]

    assert len(everything) == 36
    assert all(item["published_version"] == 1 for item in everything)
    assert [(item["type"], item["channel"], item["locale"]) for item in some] == [("tariff.changed", "email", "en")]


async def test_the_list_goes_on_by_its_cursor(api):
    seen, cursor = [], None
    while cursor is not None or not seen:
        page = (await api.get("/templates", params={"limit": 10} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert len(seen) == len(set(seen)) == 36


async def test_words_are_added_published_and_rolled_back(api, database):
    template = await made(api, name="Zahlung")
    first = await api.post(f"{template}/versions", json={"text": "Danke: {{ amount|money }}"})
    second = await api.post(f"{template}/versions", json={"text": "Vielen Dank: {{ amount|money }}"})

    assert [first.status_code, first.json()["version"], second.json()["version"]] == [201, 1, 2]
    assert (await api.get(template)).json()["published_version"] is None
    assert (await api.post(f"{template}/versions/2/publish")).json()["published_version"] == 2
    assert (await api.post(f"{template}/versions/1/publish")).json()["published_version"] == 1
    versions = (await api.get(f"{template}/versions")).json()["items"]
    assert [(item["version"], item["published"], item["text"]) for item in versions] == [
        (2, False, "Vielen Dank: {{ amount|money }}"),
        (1, True, "Danke: {{ amount|money }}"),
    ]
    async with database.transaction() as session:
        actions = (await session.execute(sa.select(AuditRecord.action).order_by(AuditRecord.id))).scalars().all()
    assert actions == ["template.create", "template.add_version", "template.add_version", "template.publish", "template.publish"]


async def test_a_version_that_does_not_parse_is_refused_with_line_and_column(api):
    template = await made(api)

    answer = await api.post(f"{template}/versions", json={"text": "one\n{{ amount|nofilter }}"})

    assert answer.status_code == 422
    fault = answer.json()["errors"][0]
    assert (fault["pointer"], fault["code"], fault["line"], fault["column"]) == ("/text", "unknown_filter", 2, 11)
    assert fault["detail"].startswith("line 2, column 11: ")
    assert (await api.get(f"{template}/versions")).json()["items"] == []


async def test_a_name_that_is_not_there_is_found_at_publication_also_where_no_sample_goes(api):
    template = await made(api)
    sources = {
        "{{ amont }}": ("undefined", 1),
        "{% if amount > 10000000 %}\n{{ account.nick }}{% endif %}": ("undefined", 2),
        "{{ service.name }}": ("undefined", 1),
        "{{ account.name|money }}": ("render_failed", 1),
        "{% if method %}{% endif %}": ("render_failed", None),
    }
    for source in sources:
        assert (await api.post(f"{template}/versions", json={"text": source})).status_code == 201

    answers = [await api.post(f"{template}/versions/{number}/publish") for number in range(1, len(sources) + 1)]

    assert [answer.status_code for answer in answers] == [422] * len(sources)
    assert [(answer.json()["errors"][0]["code"], answer.json()["errors"][0]["line"]) for answer in answers] == list(sources.values())
    assert (await api.get(template)).json()["published_version"] is None


async def test_what_a_template_asks_about_first_it_may_name(api):
    template = await made(api)
    text = "{% if promo is defined %}{{ promo }}{% endif %}{{ account.attributes.segment|default('-') }}{{ method }}{% for n in range(2) %}{{ loop.index }}{% endfor %}"
    await api.post(f"{template}/versions", json={"text": text})

    assert (await api.post(f"{template}/versions/1/publish")).status_code == 200


async def test_attribute_that_an_account_may_lack_is_no_mistake_but_warned_of(api):
    template = await made(api)
    added = await api.post(f"{template}/versions", json={"text": "Thanks, {{ account.attributes.segment }}!"})

    published = await api.post(f"{template}/versions/1/publish")

    assert (added.status_code, published.status_code) == (201, 200)
    assert [(one["code"], one["line"]) for one in published.json()["warnings"]] == [("may_be_empty", 1)]


async def test_words_of_an_operators_type_are_proved_by_its_schema(api):
    schema = {"type": "object", "properties": {"code": {"type": "string"}, "until": {"type": "string", "format": "date"}}, "required": ["code"]}
    await api.put("/notification-types/promo.offer", json={"titles": {"en": "Offer"}, "channels": ["sms"], "data_schema": schema})
    template = await made(api, type="promo.offer")
    await api.post(f"{template}/versions", json={"text": "{{ code }} {{ until|date }} {{ data.until }}"})
    await api.post(f"{template}/versions", json={"text": "{{ kode }}"})

    assert (await api.post(f"{template}/versions/1/publish")).status_code == 200
    assert (await api.post(f"{template}/versions/2/publish")).json()["code"] == "not_publishable"


async def test_words_of_a_type_whose_data_nobody_has_described_may_name_them(api):
    await api.put("/notification-types/promo.offer", json={"titles": {"en": "Offer"}, "channels": ["sms"]})
    template = await made(api, type="promo.offer")
    await api.post(f"{template}/versions", json={"text": "{{ code }} for {{ account.number }}"})
    await api.post(f"{template}/versions", json={"text": "{{ account.nick }}"})

    assert (await api.post(f"{template}/versions/1/publish")).status_code == 200
    assert (await api.post(f"{template}/versions/2/publish")).status_code == 422


async def test_each_channel_has_its_parts(api):
    sms = await made(api)
    email = await made(api, channel="email")
    given = [
        (sms, {}, "/text"),
        (sms, {"text": " "}, "/text"),
        (sms, {"text": "x", "subject": "y"}, "/subject"),
        (sms, {"text": "x", "html": "y"}, "/html"),
        (sms, {"text": "x", "mjml": "y"}, "/mjml"),
        (email, {"text": "x"}, "/subject"),
        (email, {"subject": "x"}, "/text"),
        (email, {"subject": "x", "html": "y", "mjml": "<mjml></mjml>"}, "/mjml"),
        (email, {"subject": "x", "text": "y", "layout": "default"}, "/layout"),
        (email, {"subject": "x", "html": "y", "layout": "nowhere"}, "/layout"),
        (email, {"subject": "x", "text": "y", "options": {"translit": "always"}}, "/options"),
        (email, {"subject": "x", "text": "y", "attachments": [{"kind": "file", "id": "018f0000-0000-7000-8000-000000000000"}]}, "/attachments/0/id"),
        (email, {"subject": "x", "text": "y", "attachments": [{"kind": "calendar"}] * 11}, "/attachments"),
        (email, {"subject": "x", "text": "y", "attachments": [{"kind": "virus"}]}, "/attachments/0"),
        (email, {"subject": "x", "html": "<p>{{ amount }}<script>x</script></p>"}, "/html"),
        (sms, {"text": "x", "layout": "default"}, "/layout"),
        (sms, {"text": "x", "attachments": [{"kind": "calendar"}]}, "/attachments"),
        (sms, {"text": "x", "options": {"max_parts": 11}}, "/options/max_parts"),
        (sms, {"text": "x", "options": {"loud": True}}, "/options/loud"),
        (email, {"subject": "x", "text": "y", "html": "{{"}, "/html"),
    ]

    answers = [await api.post(f"{template}/versions", json=body) for template, body, _ in given]

    assert [answer.status_code for answer in answers] == [422] * len(given)
    assert [answer.json()["errors"][0]["pointer"] for answer in answers] == [pointer for _, _, pointer in given]
    taken = [
        (email, {"subject": "x", "text": "y", "html": "<b>{{ amount }}</b>", "layout": "default"}),
        (email, {"subject": "x", "text": "y", "attachments": [{"kind": "statement_pdf"}, {"kind": "payment_qr"}]}),
        (email, {"subject": "x", "html": "y"}),
        (sms, {"text": "x", "options": {"typography": True, "translit": "off", "max_parts": 2}}),
    ]
    kept = [(await api.post(f"{template}/versions", json=body)).json() for template, body in taken]
    assert [version["version"] for version in kept] == [1, 2, 3, 1]
    assert [kept[1]["attachments"], kept[2]["text"]] == [[{"kind": "statement_pdf"}, {"kind": "payment_qr"}], None]
    assert kept[3]["options"] == {"typography": True, "max_parts": 2}, "what changes nothing is not kept"


async def test_a_place_is_refused_twice_without_a_type_or_in_no_language(api):
    await made(api)

    assert (await api.post("/templates", json=GERMAN)).status_code == 409
    assert (await api.post("/templates", json=GERMAN | {"type": "promo.offer"})).json()["errors"][0]["pointer"] == "/type"
    assert (await api.post("/templates", json=GERMAN | {"channel": "fax"})).status_code == 422
    refused = [await api.post("/templates", json=GERMAN | {"locale": locale}) for locale in ("xx", "german", "DE", "de_DE", "", "d")]
    assert [answer.status_code for answer in refused] == [422] * 6


async def test_a_name_is_changed_by_whoever_has_read_it(api):
    template = await made(api)
    tag = (await api.get(template)).headers["ETag"]

    assert (await api.patch(template, json={"name": "Neu"})).status_code == 428
    assert (await api.patch(template, json={"name": "Neu"}, headers={"If-Match": '"9"'})).status_code == 412
    renamed = await api.patch(template, json={"name": "Neu"}, headers={"If-Match": tag})
    assert (renamed.status_code, renamed.json()["name"], renamed.headers["ETag"]) == (200, "Neu", '"2"')


async def test_if_match_is_honoured_where_it_is_not_asked_for(api):
    template = await made(api)
    tag = (await api.get(template)).headers["ETag"]

    added = await api.post(f"{template}/versions", json={"text": "x"}, headers={"If-Match": tag})
    late = await api.post(f"{template}/versions", json={"text": "y"}, headers={"If-Match": tag})
    published = await api.post(f"{template}/versions/1/publish", headers={"If-Match": added.headers["ETag"]})

    assert [added.status_code, late.status_code, published.status_code] == [201, 412, 200]


async def test_what_is_not_there_is_not_found(api):
    nowhere = "/templates/018f0000-0000-7000-8000-000000000000"
    template = await made(api)

    assert [(await api.get(nowhere)).status_code, (await api.get(f"{nowhere}/versions")).status_code] == [404, 404]
    assert (await api.post(f"{nowhere}/versions", json={"text": "x"})).status_code == 404
    assert (await api.post(f"{template}/versions/1/publish")).status_code == 404


async def test_who_may_read_and_who_may_write(as_role):
    viewer, billing = await as_role("viewer"), await as_role("billing")

    assert [(await viewer.get("/templates")).status_code, (await viewer.post("/templates", json=GERMAN)).status_code] == [200, 403]
    assert (await billing.get("/templates")).status_code == 403
