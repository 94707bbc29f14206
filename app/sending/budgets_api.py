"""Budgets over the API: what stands, what is spent of it today, how much it holds. They are set on gateways and notification types."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.catalogue.registry import Catalogue
from app.core.auth import MayReadGateways
from app.core.clock import now
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.sending.budget_watch import BudgetToday, held_today, today

router = APIRouter(prefix="/budgets", tags=["budgets"], route_class=Guarded)


class BudgetOut(BaseModel):
    """`parts` and `cost` are spent or on the wire today, on the clock of VESTNIK_TIMEZONE; `share` is the larger share of the two limits, 1 when all is spent.

    `held`: the messages of this gateway, or this type, that some budget holds until midnight."""

    scope: Literal["gateway", "type"]
    name: str
    day: date
    parts: int
    parts_limit: int | None
    cost: str
    cost_limit: str | None
    share: float
    held: int


@router.get("", operation_id="list_budgets", summary="The day's budgets of gateways and types, and what is spent of them")
async def list_budgets(caller: MayReadGateways, session: SessionDep, request: Request, paging: Paging) -> Page[BudgetOut]:
    catalogue, zone, moment = Catalogue(), ZoneInfo(request.app.state.settings.timezone), now()
    await catalogue.refresh(session)
    budgets, _ = await today(session, catalogue, moment, zone)
    if (after := paging.key(str, str)) is not None:
        budgets = [budget for budget in budgets if (budget.scope, budget.name) > (after[0], after[1])]
    page = budgets[: paging.limit]
    held = await held_today(session, moment, zone) if page else {}
    more = encode_cursor(page[-1].scope, page[-1].name) if len(budgets) > len(page) else None
    return Page(items=[shown(replace(budget, held=held.get((budget.scope, budget.name), 0))) for budget in page], next_cursor=more)


def shown(budget: BudgetToday) -> BudgetOut:
    return BudgetOut.model_validate(
        {
            "scope": budget.scope,
            "name": budget.name,
            "day": budget.day,
            "parts": budget.parts,
            "parts_limit": budget.limit.parts,
            "cost": money(budget.cost),
            "cost_limit": money(budget.limit.cost) if budget.limit.cost is not None else None,
            "share": round(float(budget.share), 4),
            "held": budget.held,
        }
    )


def money(amount: Decimal) -> str:
    """With the fractions of a price of parts, and two decimals at least."""
    return f"{amount:.4f}".removesuffix("00")
