"""An account, a contact and an hour to write to."""

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def account(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "number": "100500",
            "name": "Юлия Щеглова",
            "balance": Decimal("612.30"),
            "credit_limit": Decimal("100.00"),
            "currency": "RUB",
            "locale": "ru",
            "timezone": "Asia/Yekaterinburg",
            "tariff": "Home 100",
            "threshold": None,
            "status": "active",
            "attributes": {"segment": "home"},
        }
        | changes
    )


@pytest.fixture
def values():
    """`values("payment.received", {...}, balance=...)`: the variables of an event of an account."""
    from app.rendering.compose import variables

    def made(code: str = "payment.received", data: dict | None = None, **changes: object) -> dict:
        contact = SimpleNamespace(address="+79161234567", label="work")
        return variables(
            account(**changes), contact, code, NOW, {"amount": "500.00"} if data is None else data, NOW, {"cabinet": "https://isp.example/cabinet"}
        )

    return made


@pytest.fixture
def render(values):
    """`render("{{ amount }}")`: what comes out; a list of problems where it does not compile."""
    from app.rendering.engine import compile_part
    from app.rendering.formats import style_of

    def rendered(source: str, kind: str = "text", locale: str = "ru", **given: object):
        part = compile_part(source, kind)
        if isinstance(part, list):
            return part
        return part.render(values() | given, style_of(locale, sms=kind == "sms"))

    return rendered
