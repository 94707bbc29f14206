"""The cabinet: a subscriber's own forecast."""

from fastapi import APIRouter, Request

from app.accounts.cabinet import own_account
from app.core.auth import Subscriber
from app.core.db import SessionDep
from app.core.http import Guarded
from app.forecasts.api import AsOf, Days, forecast_of
from app.forecasts.views import ForecastOut

router = APIRouter(prefix="/me", tags=["cabinet"], route_class=Guarded)


@router.get("/forecast", operation_id="get_own_forecast", summary="What I will be charged, and when my money ends")
async def get_own_forecast(request: Request, session: SessionDep, caller: Subscriber, days: Days = 30, as_of: AsOf = None) -> ForecastOut:
    return await forecast_of(session, request, await own_account(session, caller), days, as_of)
