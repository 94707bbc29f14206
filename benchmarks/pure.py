"""What needs no server: rendering and segmenting."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from app.catalogue.types import check_data
from app.rendering.compose import Version, variables
from app.sms.segment import segment

TEXTS = {
    "gsm_one_part": "Payment of 500.00 RUB received. Balance 612.30 RUB. Account 100500.",
    "ucs2_one_part": "Платёж 500,00 руб. получен. Баланс 612,30 руб.",
    "ucs2_four_parts": "Средств на счёте хватит на три дня. Пополните счёт, чтобы услуги не прервались. " * 3,
}
TEMPLATE = "{{ account.number }}: платёж {{ amount | money }} получен. Баланс {{ account.balance | money }}"


def rendering(messages: int) -> dict[str, Any]:
    """(f) One SMS template with two sums, variables and segmenting included."""
    account = SimpleNamespace(
        number="100500", name="Абонент", status="active", balance=Decimal("612.30"), credit_limit=Decimal(0), currency="RUB", locale="ru",
        timezone="Europe/Moscow", tariff="Home 100", threshold=None, attributes_json="{}",
    )  # fmt: skip
    contact = SimpleNamespace(address="+79161234567", label="")
    checked = check_data("payment.received", {"amount": "500.00", "method": "card"})
    assert not isinstance(checked, list)
    version, now = Version(uuid4(), 1, "sms", "ru", None, TEMPLATE, None), datetime.now(UTC)

    def once() -> None:
        version.compose(variables(account, contact, "payment.received", now, checked.data, now, {}))

    return {"messages": messages, "rate_per_s": rate(once, messages)}


def segmenting(messages: int) -> dict[str, Any]:
    """(g) Texts cut into parts; the rate is that of the one-part GSM text."""
    rates = {f"{name}_per_s": rate(lambda text=text: segment(text), messages) for name, text in TEXTS.items()}  # type: ignore[misc]
    return {"messages": messages, "rate_per_s": rates["gsm_one_part_per_s"], **rates}


def rate(work: Callable[[], object], times: int) -> float:
    work()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return round(times / (time.perf_counter() - began))
