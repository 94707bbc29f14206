"""What the settings of any type may say about its sending: keys that every type shares, beside those of its own."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

import structlog
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from app.core.money import NonNegativeMoney

log = structlog.get_logger()


Kind = Literal["operation", "reminder", "service"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class SendingOptions(BaseModel):
    """Left out: the gateway decides, and there is no budget."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flash: StrictBool = Field(default=False, description="SMS that show at once and are not kept by the handset")
    on_response_timeout: Literal["keep", "resend_once"] | None = Field(default=None, description="as in a gateway's profile, which it overrides")
    daily_parts: Annotated[StrictInt, Field(ge=0)] | None = Field(default=None, description="parts of SMS a day; what exceeds them is held until midnight")
    daily_cost: NonNegativeMoney | None = Field(default=None, description="money a day for SMS, by the prices of parts")

    kind: Kind | None = Field(default=None, description="whose caps it counts towards; null: reminder for our own forecasts, else operation")
    opt_in: StrictBool = Field(default=False, description="nobody is told who has not chosen it")
    default_channels: Annotated[list[Literal["sms", "email"]], Field(max_length=2)] | None = Field(
        default=None, description="the channels of those who have chosen nothing; null: all of the type's"
    )
    ground: str | None = Field(default=None, max_length=300, description="why a mandatory type cannot be turned off")
    delivery: Literal["all", "first", "chain"] = Field(
        default="all",
        description="all channels; the first that is available; or one after the other until one is delivered, in the order of the type's channels",
    )
    fallback_minutes: Annotated[StrictInt, Field(ge=1, le=1440)] = Field(default=30, description="of a chain: how long each channel has for the delivery")
    min_interval_seconds: Annotated[StrictInt, Field(ge=0, le=2_592_000)] = Field(
        default=0, description="the least time between two of this type for one account"
    )

    @property
    def limits(self) -> tuple[int | None, Decimal | None]:
        """Parts and money a day; both None: no budget."""
        return self.daily_parts, self.daily_cost


DEFAULT = SendingOptions()
KEYS = frozenset(SendingOptions.model_fields)


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of sending among all that a type's settings say."""
    return {key: settings[key] for key in KEYS & settings.keys()}


def options_of(code: str, settings: Mapping[str, Any]) -> SendingOptions:
    """As stored. A row that was there before these keys had a meaning may say nonsense: then the defaults serve, and the log says so."""
    if not KEYS & settings.keys():
        return DEFAULT
    try:
        return SendingOptions.model_validate(known(settings))
    except ValidationError as error:
        log.warning("type_settings_ignored", type=code, keys=sorted({str(fault["loc"][0]) for fault in error.errors()}))
        return DEFAULT
