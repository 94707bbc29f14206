"""What an SMPP gateway is told: where it is, who we are there, how much it takes; `profile` says how it differs from others."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from app.gateways.profile import CString, Profile, c_octets


class SmppSettings(BaseModel):
    """The body of an SMPP gateway."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["smpp"] = "smpp"
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(2775, ge=1, le=65_535)
    # SMPP allows 15 and 8 octets; real accounts have up to a hundred, so the length is not checked here.
    system_id: CString = Field(max_length=255)
    # Null clears it.
    password: Annotated[
        SecretStr,
        BeforeValidator(lambda value: "" if value is None else value),
        AfterValidator(lambda value: (c_octets(value.get_secret_value()), value)[1]),
    ] = SecretStr("")
    sender: str | None = Field(None, max_length=20, description="used where a message names none")
    rate_per_second: float | None = Field(None, gt=0, le=100_000, description="parts a second on each bind; null: no limit")
    rate_total: float | None = Field(None, gt=0, le=1_000_000, description="parts a second on all binds together")
    window: int = Field(10, ge=1, le=1000, description="submit_sm that may be unanswered on one bind")
    binds: int = Field(1, ge=1, le=32)
    price_per_part: Decimal | None = Field(
        None, ge=0, le=10_000, decimal_places=4, description="what a part costs, in the operator's currency; a route may know better"
    )
    daily_parts: int | None = Field(None, ge=0, description="parts a day; what exceeds them is held until midnight. Null: no budget")
    daily_cost: Decimal | None = Field(None, ge=0, decimal_places=2, description="money a day, by the prices of parts. Null: no budget")
    profile: Profile = Field(default_factory=Profile)
    enabled: bool = True

    @property
    def rate_of_bind(self) -> float | None:
        """Parts a second that one bind may send: an even share of the total where that is less."""
        limits = [limit for limit in (self.rate_per_second, self.rate_total and self.rate_total / self.binds) if limit]
        return min(limits, default=None)
