"""For whom a preview or a test message is rendered: an account, or a made-up one, and the data of an event that has not happened."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import read
from app.catalogue.models import NotificationType
from app.catalogue.types import EVENT_TYPES, check_data, sample_of
from app.core.clock import now
from app.core.config import Settings
from app.core.errors import FieldError, Invalid, field_invalid
from app.core.ids import NOBODY
from app.core.money import money_string
from app.notifications.plan import CHOSEN

ADDRESSES = {"sms": "+79161234567", "email": "subscriber@example.org"}
# Nothing that is rendered here may refuse anything in somebody's name: a real link would, and previews get passed about.
NO_REFUSAL = "/unsubscribe/sample"

ACCOUNT = sa.text(f"""
SELECT id, number, name, status, balance, credit_limit, currency, locale, timezone, tariff, warned_at AS threshold, CAST(attributes AS text) AS attributes_json,
       {CHOSEN} AS chosen_json
FROM account a WHERE number = :number AND status <> 'erased'
""")
CONTACT = sa.text("SELECT address, label FROM contact WHERE account_id = :account AND channel = :channel ORDER BY id LIMIT 1")


@dataclass(frozen=True, slots=True)
class Case:
    """`account` and `contact` are what templates see of them, as JSON; `locale` is the account's own; `invents`: nobody has said which data there are."""

    account_id: UUID
    account: Mapping[str, Any]
    contact: Mapping[str, str]
    locale: str
    data: Mapping[str, Any]
    invents: bool

    def job(self, settings: Settings) -> dict[str, Any]:
        """Its part of what `preview_child` is asked."""
        return of_job(settings, self.account, self.contact, self.data) | {"invents": self.invents}


def of_job(settings: Settings, account: Mapping[str, Any], contact: Mapping[str, str], data: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one rendering, as JSON."""
    links = {"cabinet": settings.cabinet_url, "unsubscribe": f"{settings.base_url}{NO_REFUSAL}"}
    return {"account": account, "contact": contact, "data": data, "links": links, "at": now().isoformat()}


async def case_of(
    session: AsyncSession,
    settings: Settings,
    channel: str,
    kind: NotificationType | None,
    number: str | None,
    sample: dict[str, Any] | None,
    locale: str | None = None,
) -> Case:
    """`locale`: of the words; a made-up account speaks it, too. Invalid where there is no such account, or where the sample is none of this type. `kind` is None for a draft that names no type."""
    row = None
    if number is not None:
        row = (await session.execute(ACCOUNT, {"number": number})).first()
        if row is None:
            raise field_invalid(("account",), "unknown_account", "There is no account of this number.")
    contact = (await session.execute(CONTACT, {"account": row.id, "channel": channel})).first() if row is not None else None
    schema = kind.data_schema if kind is not None else None
    return Case(
        account_id=row.id if row is not None else NOBODY,
        account=account_seen(row) if row is not None else _made_up(settings, locale or settings.locale),
        contact={"address": contact.address, "label": contact.label} if contact is not None else {"address": ADDRESSES[channel], "label": ""},
        locale=(read(row.chosen_json).locale or row.locale) if row is not None else settings.locale,
        data=data_of(kind.code if kind is not None else "", schema, sample, row),
        invents=sample is None and schema is None and (kind is None or kind.code not in EVENT_TYPES),
    )


def data_of(code: str, schema: dict[str, Any] | None, sample: dict[str, Any] | None, account: Any | None) -> dict[str, Any]:
    """The data as they would be stored. Without a sample the type's own example, with the balance that the account has."""
    if sample is None:
        made = sample_of(code, schema)
        return made | {"balance": money_string(account.balance)} if account is not None and "balance" in made else made
    checked = check_data(code, sample, schema)
    if isinstance(checked, list):
        faults = [FieldError("/sample" + fault.pointer.removeprefix("/data"), fault.code, fault.detail) for fault in checked]
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
    return checked.data


def account_seen(row: Any) -> dict[str, Any]:
    """A row of an account as templates see it, as JSON."""
    shown = {name: getattr(row, name) for name in ("number", "name", "currency", "tariff", "status", "timezone")}
    return shown | {
        "balance": money_string(row.balance),
        "credit_limit": money_string(row.credit_limit),
        "threshold": None if row.threshold is None else money_string(row.threshold),
        "attributes": orjson.loads(row.attributes_json),
    }


def _made_up(settings: Settings, locale: str) -> dict[str, Any]:
    return {
        "number": "100500",
        "name": "Абонент 100500" if re.match(r"ru\b", locale) else "Subscriber 100500",
        "balance": "612.30",
        "credit_limit": "0.00",
        "currency": settings.currency,
        "tariff": "Home 100",
        "threshold": "50.00",
        "status": "active",
        "timezone": settings.timezone,
        "attributes": {},
    }
