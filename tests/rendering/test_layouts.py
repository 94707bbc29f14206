"""/layouts: tried before they are taken, changed by who has read them, and kept while anything names them."""

import pytest
import sqlalchemy as sa

from app.core.models import AuditRecord
from app.rendering.compose import Templates
from tests.builders.letters import PAGE, a_brand, a_layout, a_letter

MJML = "<mjml><mj-head><mj-title>{{ subject }}</mj-title></mj-head><mj-body>{{ content }}</mj-body></mjml>"


async def put(api, name="own", match=None, **body):
    return await api.put(f"/layouts/{name}", json=body or {"html": PAGE}, headers={"If-Match": match} if match else {})


async def test_a_layout_is_made_read_changed_and_deleted(api, database):
    made = await put(api)
    read = await api.get("/layouts/own")
    changed = await put(api, mjml=MJML, match=read.headers["ETag"])
    same = await put(api, mjml=MJML, match=changed.headers["ETag"])
    gone = await api.delete("/layouts/own")

    assert [made.status_code, read.status_code, changed.status_code, same.status_code, gone.status_code] == [201, 200, 200, 200, 204]
    assert (read.json()["html"], read.json()["mjml"], read.json()["built_in"]) == (PAGE, None, False)
    assert [answer.json()["revision"] for answer in (made, changed, same)] == [1, 2, 2]
    assert (changed.json()["html"], changed.json()["mjml"]) == (None, MJML)
    assert (await api.get("/layouts/own")).json()["code"] == "layout_not_found"
    async with database.transaction() as session:
        actions = (await session.execute(sa.select(AuditRecord.action).order_by(AuditRecord.id))).scalars().all()
    assert actions == ["layout.create", "layout.update", "layout.delete"]


async def test_a_change_needs_the_version_that_was_read(api):
    await put(api)

    assert (await put(api, html=PAGE + " ")).status_code == 428
    assert (await put(api, html=PAGE + " ", match='"7"')).status_code == 412


async def test_the_default_layout_is_there_gives_way_and_comes_back(api):
    before = (await api.get("/layouts/default")).json()

    assert (before["built_in"], before["revision"]) == (True, 0)
    assert "{{ content }}" in before["html"]
    assert (await api.delete("/layouts/default")).json()["code"] == "layout_built_in"
    assert (await put(api, "default")).status_code == 201
    assert (await api.get("/layouts/default")).json()["html"] == PAGE
    assert (await api.delete("/layouts/default")).status_code == 204
    assert (await api.get("/layouts/default")).json() == before


async def test_layouts_are_listed_by_name_with_the_one_that_came_with_us(api):
    for name in ("a", "z", "d", "e"):
        await put(api, name)

    seen, cursor = [], None
    while cursor is not None or not seen:
        page = (await api.get("/layouts", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert seen == ["a", "d", "default", "e", "z"]


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ({"html": "<html><body>x</body></html>"}, "no_content", 1),
        ({"html": "<html>\n<body>{{ content }}{{ account.nick }}</body></html>"}, "undefined", 2),
        ({"html": "<html><body>{{ content }}{{ amount }}</body></html>"}, "undefined", 1),
        ({"html": "<html><body>{{ content }}{% if brand.logo %}{{ brand.lgoo }}{% endif %}</body></html>"}, "undefined", 1),
        ({"html": "<html><body>{{ content }}\n{{ account.number|money|date }}</body></html>"}, "render_failed", 2),
        ({"html": "<html><body>{{ content }}\n{% if %}</body></html>"}, "syntax", 2),
        ({"html": "<html><body>{{ content }}<script>x</script></body></html>"}, "not_allowed", 1),
        ({"mjml": "<mjml><mj-body>{{ content }}<mj-include path='/etc/passwd'/></mj-body></mjml>"}, "remote_style", 1),
        ({"mjml": "<mjml><mj-body>{{ content }}"}, "not_mjml", 1),
        ({"mjml": "<mj-section>{{ content }}</mj-section>"}, "not_mjml", 1),
    ],
)
async def test_a_layout_that_no_letter_could_stand_in_is_refused(api, body, code, line):
    answer = await put(api, **body)

    assert answer.status_code == 422
    fault = answer.json()["errors"][0]
    assert (fault["code"], fault["line"]) == (code, line)
    assert fault["pointer"] == f"/{next(iter(body))}"
    assert fault["detail_ru"] != fault["detail"]


@pytest.mark.parametrize("body", [{}, {"html": PAGE, "mjml": MJML}, {"html": ""}, {"html": PAGE, "css": "x"}, {"html": "x" * 131_073}])
async def test_a_body_that_is_no_layout_is_refused(api, body):
    assert (await api.put("/layouts/own", json=body)).status_code == 422


@pytest.mark.parametrize("name", ["Own", "a b", "-a", "a" * 65, "%2e%2e"])
async def test_a_name_that_is_none_is_refused(api, name):
    assert (await api.put(f"/layouts/{name}", json={"html": PAGE})).status_code in (404, 422)


async def test_a_layout_that_something_names_cannot_be_deleted(api, database):
    await a_layout(database, "of-words")
    await a_layout(database, "of-brand")
    await a_letter(database, html="<p>x</p>", layout="of-words")
    await a_brand(database, "tv", layout="of-brand")

    answers = [await api.delete(f"/layouts/{name}") for name in ("of-words", "of-brand")]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "layout_in_use")] * 2


async def test_a_layout_that_a_published_letter_could_not_stand_in_any_more_is_refused(api, database):
    await put(api)
    long = "<table>" + "".join(f"<tr><td style='color:red;padding:{n}px'>{'x' * 40}</td></tr>" for n in range(1_200)) + "</table>"
    await a_letter(database, html=long, layout="own")
    wide = PAGE.replace("<body>", "<body><style>td{" + "".join(f"--a{n}:1;" for n in range(20)) + "}</style>")

    answer = await put(api, html=wide, match='"1"')

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "breaks_template")
    assert (await api.get("/layouts/own")).json()["html"] == PAGE


async def test_a_changed_layout_stands_around_the_next_letter(api, database, values):
    templates = Templates("ru")
    await put(api, html=PAGE.replace("{{ content }}", "<i>1</i>{{ content }}"))
    await a_letter(database, "payment.received", html="<p>x</p>", layout="own")
    written = []

    for number in (2, 3):
        async with database.transaction() as session:
            await templates.refresh(session)
        written.append(templates.compose("payment.received", "email", "ru", values()).html)
        await put(api, html=PAGE.replace("{{ content }}", f"<i>{number}</i>{{{{ content }}}}"), match=f'"{number - 1}"')

    assert ["<i>1</i><p>x</p>" in written[0], "<i>2</i><p>x</p>" in written[1]] == [True, True]


async def test_a_layout_deleted_and_another_made_at_once_is_seen(api, database, values):
    templates = Templates("ru")
    await put(api, "default", html=PAGE.replace("{{ content }}", "<i>1</i>{{ content }}"))
    await a_letter(database, "payment.received", html="<p>x</p>")
    async with database.transaction() as session:
        await templates.refresh(session)
    await api.delete("/layouts/default")
    await put(api, "default", html=PAGE.replace("{{ content }}", "<i>2</i>{{ content }}"))

    async with database.transaction() as session:
        await templates.refresh(session)

    assert "<i>2</i>" in templates.compose("payment.received", "email", "ru", values()).html


async def test_who_may_not_write_templates_may_not_write_layouts(as_role):
    viewer, billing = await as_role("viewer"), await as_role("billing")

    assert [(await viewer.get("/layouts")).status_code, (await put(viewer)).status_code, (await viewer.delete("/layouts/default")).status_code] == [
        200,
        403,
        403,
    ]
    assert (await billing.get("/layouts/default")).status_code == 403
