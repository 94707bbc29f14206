import asyncio
import base64
import os
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.desk import preview_api
from app.desk.preview import Killed, Previews
from app.desk.preview_child import SAMPLE
from app.rendering.models import Template
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import rows
from tests.builders.types import set_type

TABLES = ("message", "outbox", "event", "notification", "template_version", "attachment", "audit_record")


def an_sms(text, **more):
    return {"channel": "sms", "type": "payment.received", "locale": "ru", "text": text} | more


def a_letter(**more):
    return {"channel": "email", "type": "payment.received", "locale": "ru", "subject": "Платёж {{ amount|money }}", "text": "Получен."} | more


async def shown(api, body):
    answer = await api.post("/templates/preview", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def template_id_of(database, kind="payment.received", channel="sms", locale="ru"):
    (row,) = await rows(
        database, "SELECT id FROM template WHERE type = :kind AND channel = :channel AND locale = :locale", kind=kind, channel=channel, locale=locale
    )
    return str(row.id)


async def test_author_sees_a_draft_with_the_example_of_its_type(api):
    seen = await shown(api, an_sms("Платёж {{ amount|money }}, {{ account.number }}"))

    assert seen["text"] == "Платёж 500,00 руб., 100500"
    assert (seen["subject"], seen["html"], seen["template_id"], seen["version"], seen["problems"]) == (None, None, None, None, [])
    assert (seen["sms"]["encoding"], seen["sms"]["segments"]) == ("UCS2", 1)
    assert seen["price"] is None


async def test_author_sees_which_characters_force_ucs2_and_what_to_type_instead(api):
    seen = await shown(api, an_sms("Paid: «{{ amount }}»", locale="en"))

    assert [(one["character"], one["position"], one["instead"]) for one in seen["sms"]["forced_ucs2_by"]] == [("«", 6, '"'), ("»", 13, '"')]
    assert (seen["sms"]["encoding"], seen["sms"]["without_them"]["encoding"]) == ("UCS2", "GSM7")


async def test_author_sees_a_letter_as_text_and_not_as_a_page(api):
    answer = await api.post("/templates/preview", json=a_letter(html="<p>{{ account.name }}</p>"))

    assert answer.headers["content-type"] == "application/json"
    seen = answer.json()
    assert seen["subject"].startswith("Платёж 500,00")
    assert "<p>" in seen["html"]
    assert (seen["sms"], seen["price"]) == (None, None)


async def test_author_sees_a_letter_in_the_brand_and_the_layout_of_the_account(api, database):
    await an_account(database, "777", mails=("a@example.org",), attributes={"segment": "home"})
    layout = await api.put("/layouts/homely", json={"html": "<html><body><h1>{{ brand.name }}</h1>{{ content }}</body></html>"})
    brand = await api.put("/brands/home", json={"title": "Дом.ру", "layout": "homely", "match": {"attribute": "segment", "value": "home"}})
    assert (layout.status_code, brand.status_code) == (201, 201), (layout.text, brand.text)

    own = await shown(api, a_letter(html="<p>Слова</p>", account="777"))
    other = await shown(api, a_letter(html="<p>Слова</p>"))

    assert ("Дом.ру</h1>" in own["html"], "Дом.ру" in other["html"]) == (True, False)
    assert own["problems"] == other["problems"] == []


async def test_author_sees_a_draft_of_mjml_as_html(api):
    seen = await shown(api, a_letter(text=None, mjml="<mj-section><mj-column><mj-text>{{ amount|money }}</mj-text></mj-column></mj-section>"))

    assert seen["problems"] == []
    assert "mj-text" not in seen["html"]
    assert "500,00" in seen["html"]
    assert "500,00" in seen["text"]  # made from the HTML


async def test_author_sees_a_made_up_account_in_the_language_of_the_words(api, database):
    texts = [(await shown(api, an_sms("{{ account.name }}", locale=locale)))["text"] for locale in ("en", "ru-RU", "kk")]
    english = await shown(api, {"template_id": await template_id_of(database, channel="email", locale="en")})

    assert texts == ["Subscriber 100500", "Абонент 100500", "Subscriber 100500"]
    assert "Hello, Subscriber 100500" in english["text"]


async def test_author_writes_an_attribute_that_only_some_accounts_have(api, database):
    await an_account(database, "77", attributes={"floor": "3"})
    text = "{{ account.number }}: {{ account.attributes.floor }} {{ account.attributes.flat|default('-') }}"
    of_one, of_nobody = await shown(api, an_sms(text, account="77")), await shown(api, an_sms(text))

    assert (of_one["text"], of_nobody["text"]) == ("77: 3 -", "100500:  -")
    for seen in (of_one, of_nobody):
        assert seen["problems"] == []
        assert [(one["code"], "`account.attributes.floor` may be empty" in one["detail"]) for one in seen["warnings"]] == [("may_be_empty", True)]


async def test_author_sees_the_words_of_an_account_with_its_own_balance_and_language(api, database):
    await an_account(database, "777", name="ООО «Ромашка» <b>", balance=42, locale="en", attributes={"segment": "home"})

    seen = await shown(
        api, {"channel": "sms", "type": "payment.received", "text": "{{ account.name }} {{ balance|money }} {{ account.attributes.segment }}", "account": "777"}
    )

    assert seen["text"] == "ООО «Ромашка» <b> RUB 42.00 home"
    assert seen["locale"] == "en"


async def test_name_of_an_account_is_no_markup_in_a_letter_and_no_header_in_its_subject(api, database):
    await an_account(database, "777", name="Х\r\nBcc: all@example.org <img src=x onerror=alert(1)>")

    seen = await shown(api, a_letter(subject="{{ account.name }}", html="<p>{{ account.name }}</p>", account="777"))

    assert "\n" not in seen["subject"]
    assert "<img" not in seen["html"]


async def test_author_gives_the_data_of_the_event_himself(api):
    seen = await shown(api, an_sms("{{ amount|money }} {{ method }}", sample={"amount": "7.50", "method": "SBP"}))

    assert seen["text"] == "7,50 руб. SBP"


async def test_data_that_intake_would_refuse_are_refused_with_a_pointer(api):
    answer = await api.post("/templates/preview", json=an_sms("{{ amount }}", sample={"amount": "-1"}))

    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/sample/amount"]


async def test_author_sees_a_stored_version_the_newest_unless_he_names_one(api, database):
    template = await template_id_of(database)
    added = await api.post(f"/templates/{template}/versions", json={"text": "Вторая: {{ amount|money }}"})

    newest = await shown(api, {"template_id": template})
    first = await shown(api, {"template_id": template, "version": 1, "sample": {"amount": "1.00"}})

    assert (newest["version"], newest["text"], newest["channel"], newest["type"]) == (added.json()["version"], "Вторая: 500,00 руб.", "sms", "payment.received")
    assert first["version"] == 1
    assert "1,00" in first["text"]


async def test_every_template_that_is_there_from_the_start_previews_without_a_problem(api, database):
    async with database.transaction() as session:
        ids = (await session.scalars(sa.select(Template.id))).all()

    seen = [await shown(api, {"template_id": str(template)}) for template in ids]

    assert len(seen) > 30
    assert [one["problems"] for one in seen] == [[]] * len(seen)
    assert all(one["text"] for one in seen)


async def test_faults_of_a_draft_have_line_and_column_and_the_answer_is_no_error(api):
    seen = await shown(api, an_sms("Платёж\n{{ amuont|money }}"))

    (problem,) = seen["problems"]
    assert (problem["pointer"], problem["code"], problem["line"], problem["column"]) == ("/text", "undefined", 2, 4)
    assert problem["detail_ru"] != problem["detail"]
    assert (seen["text"], seen["sms"]) == (None, None)


async def test_draft_that_says_too_little_or_too_much_is_told_so(api):
    nothing = await shown(api, {"channel": "email", "type": "payment.received"})
    subject = await shown(api, an_sms("x", subject="y"))

    assert {problem["pointer"] for problem in nothing["problems"]} == {"/subject", "/text"}
    assert [(problem["pointer"], problem["code"]) for problem in subject["problems"]] == [("/subject", "not_taken")]


async def test_words_that_fail_only_where_data_are_absent_are_shown_with_the_problem(api):
    seen = await shown(api, an_sms("{{ balance + 1 }}"))

    assert seen["text"] == "613.30"
    assert [problem["code"] for problem in seen["problems"]] == ["render_failed"]


async def test_draft_without_a_type_has_the_names_of_its_sample(api):
    seen = await shown(api, {"channel": "sms", "locale": "ru", "text": "{{ city }} {{ account.number }}", "sample": {"city": "Тверь"}})
    wrong = await shown(api, {"channel": "sms", "locale": "ru", "text": "{{ town }}", "sample": {"city": "Тверь"}})

    assert seen["text"] == "Тверь 100500"
    assert [problem["code"] for problem in wrong["problems"]] == ["undefined"]


async def test_type_of_an_operator_without_a_schema_has_every_name_that_is_written(api):
    made = await api.put("/notification-types/works.planned", json={"titles": {"ru": "Работы", "en": "Works"}, "channels": ["sms"], "ttl_seconds": 3600})
    assert made.status_code in (200, 201), made.text

    seen = await shown(api, {"channel": "sms", "type": "works.planned", "locale": "ru", "text": "{{ street }} {{ account.number }}"})

    assert (seen["text"], seen["problems"]) == ("1 100500", [])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"channel": "sms", "type": "no.such", "text": "x"}, "/type"),
        ({"channel": "sms", "text": "x", "account": "nobody"}, "/account"),
        ({"template_id": str(uuid4())}, "/template_id"),
    ],
)
async def test_what_a_request_names_and_is_not_there_is_a_fault_of_the_request(api, body, pointer):
    answer = await api.post("/templates/preview", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "x"},
        {"channel": "sms", "text": "x", "version": 1},
        {"channel": "sms", "text": "x", "template_id": str(uuid4())},
        {"channel": "fax", "text": "x"},
        {"channel": "sms", "text": "x", "locale": "klingon"},
        {"channel": "sms", "text": "x", "sample": {"a": [1]}},
        {"channel": "sms", "text": "x", "send": True},
    ],
)
async def test_request_that_makes_no_sense_is_refused(api, body):
    assert (await api.post("/templates/preview", json=body)).status_code == 422


async def test_author_learns_how_long_it_may_become_and_what_the_options_save(api):
    seen = await shown(api, an_sms("«Платёж» {{ amount|money }} {{ account.name }}", options={"translit": "always", "max_parts": 1}))

    assert (seen["text"].isascii(), seen["sms"]["encoding"], seen["sms"]["segments"]) == (True, "GSM7", 1)
    assert seen["worst_case"]["segments"] == 1
    assert (await shown(api, an_sms("{{ account.name }} " * 9)))["worst_case"]["segments"] > 5


async def test_more_parts_than_the_options_allow_are_a_problem_before_publishing(api):
    seen = await shown(api, an_sms("длинно " * 12, options={"max_parts": 1}))

    assert [problem["code"] for problem in seen["problems"]] == ["too_many_parts"]
    assert seen["sms"]["segments"] == 2


async def test_author_sees_the_price_on_the_way_that_it_would_go(api, database):
    await an_smpp_gateway(database, price_per_part="2.50")

    seen = await shown(api, an_sms("{{ 'очень '}}" + "длинно " * 12))

    assert seen["sms"]["segments"] == 2
    assert seen["price"] == {"gateway": "main", "route": None, "per_part": "2.50", "total": "5.00"}


async def test_author_sees_the_files_of_a_letter_and_gets_them_to_look_at(api, database):
    account = await an_account(database, "777", mails=("a@example.org",))

    seen = await shown(api, a_letter(account=account.number, attachments=[{"kind": "statement_csv"}]))

    (file,) = seen["attachments"]
    assert file["name"].endswith(".csv")
    assert len(base64.b64decode(file["content"])) == file["size"]


async def test_file_that_is_not_there_is_a_problem(api):
    seen = await shown(api, a_letter(attachments=[{"kind": "file", "id": str(uuid4())}]))

    assert [(problem["pointer"], problem["code"]) for problem in seen["problems"]] == [("/attachments/0/id", "unknown_attachment")]


async def test_nothing_is_stored_and_no_link_refuses_anything(api, database):
    await an_account(database, "777", mails=("a@example.org",))
    before = {table: (await rows(database, f"SELECT count(*) AS n FROM {table}"))[0].n for table in TABLES}

    seen = await shown(api, a_letter(account="777", text="{{ links.unsubscribe }}"))

    assert seen["text"].endswith("/unsubscribe/sample")
    assert {table: (await rows(database, f"SELECT count(*) AS n FROM {table}"))[0].n for table in TABLES} == before


async def test_preview_is_for_those_who_read_templates(as_role):
    billing, viewer = await as_role("billing"), await as_role("viewer")

    assert (await billing.post("/templates/preview", json=an_sms("x"))).status_code == 403
    assert (await viewer.post("/templates/preview", json=an_sms("x"))).status_code == 200


# Those of the notes on Jinja's sandbox, and more of their kind: all within a second of the processor and 100 MB, or not at all.
BOMBS = {
    "times": '{{ "A" * 300000000 }}',
    "format": '{{ "{:>300000000}".format(1) }}',
    "percent": '{{ "%300000000d"|format(1) }}',
    "percent operator": '{{ "%300000000d" % 1 }}',
    "center": "{{ 'x'|center(300000000) }}",
    "join": "{{ ([1] * 100000)|join('x' * 100000) }}",
    "tojson": "{{ [1]|tojson(indent=100000000) }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "loops": "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
    "doubling": "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "nesting": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "ifs": "{% if 1 %}" * 800 + "{% endif %}" * 800,
    "range": "{{ range(1000000000)|list|length }}",
    "class": "{{ ''.__class__.__mro__ }}",
    "wide number": "{{ 10 * 10.0 ** 300 }}",
    "include": "{% include '/etc/passwd' %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_bomb_is_a_problem_and_the_next_preview_works(api, bomb):
    harmed = await shown(api, an_sms(BOMBS[bomb]))
    after = await shown(api, an_sms("{{ amount|money }}"))

    assert harmed["problems"]
    assert harmed["text"] is None
    assert after["text"] == "500,00 руб."


async def test_mail_with_bombs_in_every_part_is_a_problem(api):
    seen = await shown(api, a_letter(subject=BOMBS["loops"], text=BOMBS["doubling"], html="<p>" * 20_000 + BOMBS["times"]))

    assert seen["problems"]


def a_job(text):
    return SAMPLE | {"version": {"subject": None, "text": text, "html": None}}


@pytest.fixture
def harm(tmp_path, monkeypatch):
    """`harm("code")`: the word HARM in a template makes a child run this."""

    def planted(code):
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\n"
            "if 'app.desk.preview_child' in sys.orig_argv:\n"
            "    from app.rendering import compose\n"
            "    was = compose.Version.compose\n"
            "    def compose_(self, *given):\n"
            "        if 'HARM' in (self.text or '') :\n"
            f"            {code}\n"
            "        return was(self, *given)\n"
            "    compose.Version.compose = compose_\n"
        )
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    return planted


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: pass", "too_slow"),
        ("'A' * 3_000_000_000", "too_large"),
        ("import os; os._exit(3)", "too_large"),
        ("import os; os.kill(os.getpid(), 11)", "too_large"),
    ],
)
async def test_child_that_takes_too_much_is_killed_and_the_next_one_works(harm, code, why):
    harm(code)
    previews = Previews(children=1)

    harmed = await previews.render(a_job("HARM"))
    after = await previews.render(a_job("fine"))

    assert harmed == Killed(why)
    assert after["words"]["text"] == "fine"
    await previews.close()


async def test_child_that_sleeps_is_killed_by_the_clock(harm):
    harm("import time; time.sleep(1000)")
    previews = Previews(children=1, patience=0.5)

    assert await previews.render(a_job("HARM")) == Killed("too_slow")
    await previews.close()


async def test_child_writes_no_file(harm, tmp_path):
    harm(f"import os; os.write(os.open('{tmp_path}/left', os.O_CREAT | os.O_WRONLY), b'x')")
    previews = Previews(children=1)

    with pytest.raises(RuntimeError, match="OSError"):
        await previews.render(a_job("HARM"))

    assert (tmp_path / "left").read_bytes() == b""
    await previews.close()


async def test_child_has_no_secret(harm, monkeypatch):
    monkeypatch.setenv("VESTNIK_SECRET_KEYS", "topsecret")
    harm("import os; raise type(f\"{sorted(n for n in os.environ if 'VESTNIK' in n)}\".replace(' ', ''), (Exception,), {})()")
    previews = Previews(children=1)

    with pytest.raises(RuntimeError, match=r"the preview failed: \[\] "):
        await previews.render(a_job("HARM"))
    await previews.close()


async def test_fault_of_ours_is_not_the_author_s(harm):
    harm("raise KeyError('Иван Петров')")
    previews = Previews(children=1)

    with pytest.raises(RuntimeError, match="KeyError") as raised:
        await previews.render(a_job("HARM"))

    assert "Иван" not in str(raised.value)
    assert (await previews.render(a_job("fine")))["words"]["text"] == "fine"
    await previews.close()


async def test_answer_that_nobody_waits_for_is_not_given_to_the_next(harm):
    harm("import time; time.sleep(1000)")
    previews = Previews(children=1)
    assert (await previews.render(a_job("first")))["words"]["text"] == "first"

    asking = asyncio.create_task(previews.render(a_job("HARM")))
    await asyncio.sleep(0.1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert (await previews.render(a_job("second")))["words"]["text"] == "second"
    await previews.close()


async def test_child_that_somebody_has_killed_is_replaced(harm):
    previews = Previews(children=1)
    await previews.render(a_job("first"))
    process = previews._children[0].process
    process.kill()
    await process.wait()

    assert (await previews.render(a_job("second")))["words"]["text"] == "second"
    await previews.close()


async def test_who_comes_when_four_wait_is_asked_to_come_again(api, harm):
    harm("import time; time.sleep(0.5)")
    previews = api.app.state.previews
    crowd = [asyncio.create_task(previews.render(a_job("HARM"))) for _ in range(6)]
    await asyncio.sleep(0)

    refused = await api.post("/templates/preview", json=an_sms("x"))
    await asyncio.gather(*crowd)
    served = await api.post("/templates/preview", json=an_sms("x"))

    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "previews_busy", "1")
    assert served.status_code == 200


async def test_preview_that_is_refused_asks_the_database_nothing(api, harm, monkeypatch):
    harm("import time; time.sleep(0.5)")
    asked = []
    looked_up = preview_api._asked

    async def counted(*given):
        asked.append(given)
        return await looked_up(*given)

    monkeypatch.setattr(preview_api, "_asked", counted)

    answers = await asyncio.gather(*(api.post("/templates/preview", json=an_sms("HARM")) for _ in range(40)))

    codes = [answer.status_code for answer in answers]
    assert len(asked) == codes.count(200) == 40 - codes.count(503)
    assert codes.count(503) > 0


async def test_children_end_with_the_service():
    previews = Previews(children=2)
    await asyncio.gather(previews.render(a_job("a")), previews.render(a_job("b")))
    processes = [child.process for child in previews._children]

    await previews.close()

    assert [process.returncode for process in processes] == [-9, -9]


async def test_child_ends_when_its_parent_does():
    previews = Previews(children=1)
    await previews.render(a_job("a"))
    process = previews._children[0].process

    process.stdin.close()  # as the kernel does for a process that was killed

    assert await asyncio.wait_for(process.wait(), 10) == 0
    await previews.close()


async def test_type_that_is_disabled_can_be_previewed(api, database):
    await set_type(database, "payment.received", enabled=False)

    assert (await shown(api, an_sms("{{ amount|money }}")))["text"] == "500,00 руб."
