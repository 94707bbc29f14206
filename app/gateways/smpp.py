"""What an SMPP gateway is told: where it is, who we are there, how much it takes; `preset` and `profile` say how it differs from others."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from app.core.money import NonNegativeMoney, Price
from app.gateways.fit import sender_fault
from app.gateways.hosts import Endpoint, Hosts, endpoints_of
from app.gateways.preset import GENERIC, a_preset, over, presets
from app.gateways.profile import CString, Profile, c_octets


class SmppSettings(BaseModel):
    """The body of an SMPP gateway. `profile` is whole: the defaults, over them the preset, over it what was given, which `overrides` keeps."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["smpp"] = "smpp"
    host: Hosts = Field(description="name or address, with :port if it is another; or a list of them, tried in this order")
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
    price_per_part: Price | None = Field(None, description="what a part costs, in the operator's currency; a route may know better")
    daily_parts: int | None = Field(None, ge=0, description="parts a day; what exceeds them is held until midnight. Null: no budget")
    daily_cost: NonNegativeMoney | None = Field(None, description="money a day, by the prices of parts. Null: no budget")
    preset: Annotated[str, AfterValidator(a_preset)] = Field(GENERIC, max_length=64, description="the kind of SMSC; `profile` holds what differs from it")
    profile: Profile = Field(default_factory=Profile)
    enabled: bool = True

    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Put the given profile over its preset. Done whenever settings are read, so a preset that was corrected is taken over."""
        given = value.get("profile", {}) if isinstance(value, dict) else None
        if isinstance(given, Profile):
            given = given.model_dump(mode="json", exclude_unset=True)
        if not isinstance(given, dict):
            return handler(value)
        name = value.get("preset", GENERIC)
        preset = presets().get(name) if isinstance(name, str) else None
        settings = handler(value | {"profile": over(preset.profile, given) if preset is not None else given})
        settings._overrides = to_jsonable_python(given)  # noqa: SLF001 - our own
        return settings

    @model_validator(mode="after")
    def _sender_can_go_out(self) -> Self:
        if self.sender and (fault := sender_fault(self.sender, self.profile)):
            raise _wrong(("sender",), f"sender {self.sender!r}: {fault}")
        for number, name in enumerate(self.profile.allowed_senders):
            if fault := sender_fault(name, self.profile):
                raise _wrong(("profile", "allowed_senders", number), f"{name!r}: {fault}")
        return self

    @property
    def overrides(self) -> dict[str, Any]:
        """The profile as it was given."""
        return self._overrides

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Host and port of each place where the bind, or the transmitter of a pair, may be made, the preferred one first."""
        return endpoints_of(self.host, self.port)

    @property
    def rx_endpoints(self) -> tuple[Endpoint, ...]:
        """The same for the receiver of a pair."""
        rx_host, rx_port = self.profile.rx_host, self.profile.rx_port
        if rx_host is not None:
            return endpoints_of(rx_host, rx_port or self.port)
        # A port of its own at the same hosts: it counts for those that name one, too, or both would end at the transmitter's.
        return tuple(dict.fromkeys((host, rx_port or port) for host, port in self.endpoints))

    @property
    def rate_of_bind(self) -> float | None:
        """Parts a second that one bind may send: an even share of the total where that is less."""
        limits = [limit for limit in (self.rate_per_second, self.rate_total and self.rate_total / self.binds) if limit]
        return min(limits, default=None)


def _wrong(where: tuple[str | int, ...], sentence: str) -> ValidationError:
    """The fault of one field that only a look at the others shows."""
    fault = PydanticCustomError("value_error", "{sentence}", {"sentence": sentence})
    return ValidationError.from_exception_data("SmppSettings", [InitErrorDetails(type=fault, loc=where, input=None)])
