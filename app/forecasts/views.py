"""Forecasts and scans as they are shown."""

from datetime import date, datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.core.money import Money, money_string
from app.forecasts.timeline import Forecast


class DueChargeOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    title: str
    amount: Money


class DayOut(BaseModel):
    """A day with charges; days without are left out."""

    model_config = ConfigDict(extra="forbid")

    date: date
    charges: list[DueChargeOut]
    total: Money
    balance_after: Money = Field(description="The balance after the charges of the day, without the credit limit")


class NoticeOut(BaseModel):
    """What would be told on that day if nothing is paid."""

    model_config = ConfigDict(extra="forbid")

    date: date
    type: str
    mark: str


class ForecastOut(BaseModel):
    """`shortfall`, `exhausts_on` and `days_left` are null when the money lasts."""

    model_config = ConfigDict(extra="forbid")

    as_of: date
    balance: Money
    credit_limit: Money
    available: Money
    exhausts_on: date | None
    days_left: int | None
    shortfall: Money | None
    recommended_payment: Money | None
    timeline: list[DayOut]
    notices: list[NoticeOut]

    @classmethod
    def of(cls, told: Forecast) -> Self:
        def money(value: Any) -> str | None:
            return None if value is None else money_string(value)

        return cls.model_validate(
            {
                "as_of": told.as_of,
                "balance": money(told.balance),
                "credit_limit": money(told.credit_limit),
                "available": money(told.available),
                "exhausts_on": told.exhausts_on,
                "days_left": told.days_left,
                "shortfall": money(told.shortfall),
                "recommended_payment": money(told.recommended_payment),
                "timeline": [
                    {
                        "date": day.on,
                        "charges": [{"id": charge.id, "title": charge.title, "amount": money(charge.amount)} for charge in day.charges],
                        "total": money(day.total),
                        "balance_after": money(day.after - told.credit_limit),
                    }
                    for day in told.days
                ],
                "notices": [{"date": notice.on, "type": notice.type, "mark": notice.mark} for notice in told.notices],
            }
        )


class HitOut(BaseModel):
    """Somebody was to be told. `covered`: something more serious was told that day instead. `run_id` is null where a change of the balance showed it."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    kind: str
    episode: int = Field(description="The spell of a low balance that it belongs to, counted from 1; 0 for upcoming charges")
    mark: str = Field(description="The number of warning days, `low`, or the day that the charges are due on")
    as_of: date
    outcome: Literal["told", "covered"]
    inputs: dict[str, Any] = Field(description="Balance and its time, credit limit, how many charges were counted, the version of the rules")
    event_id: UUID | None
    run_id: UUID | None
    at: datetime


class ScanOut(BaseModel):
    """A run. `found.told` is who is to be told (in a dry run: who would be), `covered` who has been told something more serious that day,
    `frozen` and `stale` who was left out. `done_share` goes from 0 to 1."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    kind: str
    origin: str
    zone: str | None
    as_of: date | None
    dry_run: bool
    state: str
    phase: str
    done_share: float
    usual: int | None
    found: dict[str, Any]
    sample: list[dict[str, Any]]
    skipped_zones: list[str] = []
    requested_by: str
    confirmed_by: str | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
