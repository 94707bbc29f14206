"""(c) Letters without the wire: words, text and HTML of a default letter, and the letter as octets."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from app.catalogue.types import check_data
from app.rendering.compose import Version, variables
from app.rendering.defaults import templates
from app.sending.smtp.mime import Letter, build
from benchmarks.pure import rate

TYPE = "charges.upcoming"
DATA = {
    "due_on": "2026-12-01",
    "total": "850.00",
    "charges": [{"id": "1", "title": "Home 100", "amount": "600.00"}, {"id": "2", "title": "Телевидение", "amount": "250.00"}],
}
MJML = """<mjml><mj-head><mj-title>{{ account.name }}</mj-title></mj-head><mj-body>{% for n in range(5) %}<mj-section><mj-column>
<mj-text>{{ account.number }}</mj-text></mj-column></mj-section>{% endfor %}</mj-body></mjml>"""


def letters(messages: int) -> dict[str, Any]:
    """A letter of two charges, text and HTML, no files: variables, words, MIME; the rate is that of all of it. Then its parts, and what is done once."""
    words = next(words for words in templates() if (words["type"], words["channel"], words["locale"]) == (TYPE, "email", "ru"))
    version = Version(uuid4(), 1, "email", "ru", words["subject"], words["text"], words["html"], layout=words["layout"])
    without_text = Version(uuid4(), 1, "email", "ru", words["subject"], None, words["html"], layout=words["layout"])
    began = time.perf_counter()
    composed = version.compose(values())
    compiled = time.perf_counter() - began
    envelope = Letter(
        key=uuid4(), to="subscriber@example.org", sender="Мой Провайдер <noreply@isp.example>", subject=composed.subject or "", text=composed.text,
        html=composed.html, message_id=f"<{uuid4()}@isp.example>", date=datetime.now(UTC),
        headers={"List-Unsubscribe": f"<https://isp.example/unsubscribe/{'t' * 43}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "Feedback-ID": "t:b:vestnik"},
    )  # fmt: skip

    def whole() -> None:
        made = version.compose(values())
        build(replace(envelope, subject=made.subject or "", text=made.text, html=made.html))

    rates = {
        "rate_per_s": rate(whole, messages),
        "composed_per_s": rate(lambda: version.compose(values()), messages),
        "text_made_of_html_per_s": rate(lambda: without_text.compose(values()), messages // 4),
        "serialised_per_s": rate(lambda: build(envelope), messages),
    }
    return {
        "messages": messages,
        **rates,
        "us_a_letter": round(1e6 / rates["rate_per_s"]),
        "octets": len(build(envelope).data),
        "compiled_once_ms": round(compiled * 1e3, 1),
        "mjml_compiled_once_ms": round(1e3 / rate(compile_mjml, 20), 1),
    }


def compile_mjml() -> None:
    Version(uuid4(), 1, "email", "ru", "S", None, None, mjml=MJML).compose(values())


def values() -> dict[str, Any]:
    return variables(ACCOUNT, CONTACT, TYPE, NOW, CHECKED, NOW, LINKS)


def _checked() -> dict[str, Any]:
    checked = check_data(TYPE, DATA)
    assert not isinstance(checked, list), checked
    return checked.data


ACCOUNT = SimpleNamespace(
    number="100500", name="Юлия Щеглова", status="active", balance=Decimal("612.30"), credit_limit=Decimal(0), currency="RUB", locale="ru",
    timezone="Europe/Moscow", tariff="Home 100", threshold=None, attributes_json="{}",
)  # fmt: skip
CONTACT, NOW = SimpleNamespace(address="subscriber@example.org", label=""), datetime.now(UTC)
LINKS = {"cabinet": "https://isp.example/cabinet", "unsubscribe": f"https://isp.example/unsubscribe/{'t' * 43}"}
CHECKED = _checked()
