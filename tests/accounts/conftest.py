from copy import deepcopy

import pytest

GIVEN = {
    "name": "Абонент 100500",
    "status": "active",
    "balance": "112.30",
    "balance_as_of": "2026-01-23T09:59:00+03:00",
    "credit_limit": "0.00",
    "currency": "RUB",
    "locale": "ru",
    "timezone": "Asia/Yekaterinburg",
    "tariff": "Home 100",
    "threshold": "50.00",
    "contacts": [{"channel": "sms", "address": "+79161234567"}, {"channel": "email", "address": "subscriber@example.org"}],
    "charges": [{"id": "s1", "title": "Home 100", "amount": "600.00", "kind": "monthly", "day": 1, "posted_through": "2026-01-01"}],
    "attributes": {"segment": "home"},
}


@pytest.fixture
def given_account():
    """`given_account(name="Иванов")`: an account as the billing sends it; a field given as ... is left out."""

    def given(**other):
        return {name: value for name, value in (deepcopy(GIVEN) | other).items() if value is not ...}

    return given
