"""The notification types that are there from the start."""

from datetime import timedelta
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.catalogue.types import VERIFICATION
from app.core.clock import now

_DAY = timedelta(days=1)


def _type(
    code: str,
    ru: str,
    en: str,
    ttl: timedelta,
    *,
    urgent: bool = False,
    mandatory: bool = False,
    enabled: bool = True,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "code": code,
        "titles": {"ru": ru, "en": en},
        "urgent": urgent,
        "mandatory": mandatory,
        "enabled": enabled,
        "channels": ["sms", "email"],
        "ttl_seconds": int(ttl.total_seconds()),
        "settings": settings or {},
        "builtin": True,
    }


BUILTIN: tuple[dict[str, Any], ...] = (
    # A payer stands at the terminal and waits for it, at night too; by the next day he has seen his balance.
    _type("payment.received", "Платёж получен", "Payment received", _DAY, urgent=True),
    _type("service.connected", "Услуга подключена", "Service connected", 2 * _DAY),
    _type("service.disconnected", "Услуга отключена", "Service disconnected", 2 * _DAY),
    _type("tariff.changed", "Тариф изменён", "Tariff changed", 2 * _DAY),
    _type("balance.threshold_reached", "Баланс ниже порога", "Balance below the threshold", 2 * _DAY),
    _type("balance.exhausting", "Деньги на счёте заканчиваются", "Funds are running out", 2 * _DAY, settings={"days_before": [7, 3, 1]}),
    # A payer is told of his payment already: whoever wants this as well turns it on.
    _type("balance.restored", "Баланс восстановлен", "Balance restored", _DAY, enabled=False),
    _type("charges.upcoming", "Предстоящие списания", "Upcoming charges", 2 * _DAY, settings={"days_before": 3}),
    # Asked for a moment ago by whoever holds the address in his hand: there is no hour for it, and nothing to choose.
    _type(
        VERIFICATION,
        "Код подтверждения контакта",
        "Contact verification code",
        timedelta(minutes=10),
        urgent=True,
        mandatory=True,
        settings={"kind": "service", "ground": "Код запрашивает сам абонент / the subscriber himself asks for the code"},
    ),
)


async def seed(session: AsyncSession) -> None:
    """Add those that are missing. One that is there stays as the operator left it."""
    shared = {"coalesce_seconds": 0, "revision": 1, "updated_at": now()}
    await session.execute(insert(NotificationType).values([shared | kind for kind in BUILTIN]).on_conflict_do_nothing())
