"""What a route is told: the body of PUT /routes, checked, in its one form. What only the database knows is checked in `routes_api`."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from app.core.errors import FieldError, Invalid, pointer
from app.core.money import Price
from app.core.problems import as_field_error
from app.gateways.router import Route

MOST = 1_000
PREFIX = re.compile(r"\+?([1-9][0-9]{0,14})")
FORMS = 'send {"items": [...]}, the routes in their order'


def _listed(value: Any) -> Any:
    """One thing stands for a list of one."""
    return value if isinstance(value, list) else [value]


def _prefix(value: str) -> str:
    found = PREFIX.fullmatch(value.strip())
    if found is None:
        raise ValueError("a prefix is the beginning of a number in international form, as +7916")
    return f"+{found[1]}"


def _unique(values: list[Any]) -> list[Any]:
    seen: list[Any] = []
    for value in values:
        if not any(type(value) is type(one) and value == one for one in seen):
            seen.append(value)
    return seen


def _choice(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def folded(operator: str) -> str:
    """Operators' names are compared without regard to case and spacing."""
    return " ".join(operator.split()).casefold()


def _one_line(value: str) -> str:
    if not (kept := " ".join(value.split())) or not kept.isprintable():
        raise ValueError("a name has letters, and no control characters")
    return kept


Name = Annotated[StrictStr, Field(min_length=1, max_length=64), AfterValidator(_one_line)]
Prefix = Annotated[StrictStr, AfterValidator(_prefix), Field(json_schema_extra={"pattern": r"^\+?[1-9][0-9]{0,14}$"})]
Code = Annotated[StrictStr, Field(min_length=1, max_length=100)]
Operator = Annotated[StrictStr, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Value = StrictStr | StrictBool | StrictInt
Listed = BeforeValidator(_listed)
Unique = AfterValidator(_unique)


class Preferred(BaseModel):
    """A gateway of a route; its name alone stands for a weight of 1."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    weight: StrictInt = Field(1, ge=1, le=1000, description="its part of the accounts, where `balance` is weights")


class RouteIn(BaseModel):
    """One rule: which messages, and through which gateways. What is left out is no condition."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, description="what a message remembers of it; without one its place in the order, as #3")
    channel: Literal["sms", "email"] = "sms"
    prefix: Annotated[list[Prefix], Listed, Unique, Field(max_length=1000)] = Field(
        default=[], description="how numbers begin, in international form: the longest one that matches wins"
    )
    type: Annotated[list[Code], Listed, Unique, Field(max_length=200)] = Field(default=[], description="notification types")
    attributes: dict[Code, Annotated[list[Value], Listed, Unique, Field(min_length=1, max_length=200)]] = Field(
        default={}, max_length=20, description='attributes of the account, each with the values that it may have: {"segment": ["vip"]}'
    )
    operator: Annotated[list[Operator], Listed, Unique, Field(max_length=200)] = Field(
        default=[], description="mobile operators, as the imported number ranges name them"
    )
    gateways: Annotated[list[Annotated[Preferred, BeforeValidator(_choice)]], Listed, Field(min_length=1, max_length=32)] = Field(
        description="names in the order of preference, or objects with a weight"
    )
    balance: Literal["order", "weights"] = Field("order", description="order: the first gateway in good order; weights: each its part of the accounts")
    sender: Annotated[StrictStr, Field(min_length=1, max_length=20)] | None = Field(None, description="sender's name of an SMS, instead of the gateway's")
    price_per_part: Price | None = Field(None, description="what a part costs on this route; left out: what the gateway says")

    @model_validator(mode="before")
    @classmethod
    def _name_the_known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and (unknown := sorted(str(key) for key in value if key not in cls.model_fields)):
            raise ValueError(f"unknown key {', '.join(unknown)}; known keys: {', '.join(cls.model_fields)}")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        names = [gateway.name for gateway in self.gateways]
        if len(set(names)) < len(names):
            raise ValueError("a gateway stands in a route once")
        if self.channel == "email":
            for key in ("prefix", "operator", "sender", "price_per_part"):
                if getattr(self, key):
                    raise ValueError(f"{key} is for SMS: leave it out of a route of e-mail")
        return self


class RoutesIn(BaseModel):
    """The body of PUT /routes in its one form."""

    model_config = ConfigDict(extra="forbid")

    items: list[RouteIn] = Field(max_length=MOST)


def read_routes(given: Any) -> tuple[list[RouteIn], tuple[str, ...]]:
    """The routes of a body in any of its forms, and where in the body they stand. Invalid, with a pointer for each fault."""
    root: tuple[str, ...] = ()
    if isinstance(given, dict):
        keys = [key for key in ("items", "routes") if key in given]
        if len(keys) != 1 or len(given) != 1:
            unknown = sorted(str(key) for key in given if key not in ("items", "routes"))
            raise Invalid(f"Unknown key {', '.join(unknown)}: {FORMS}." if unknown else f"{FORMS.capitalize()}.", errors=[FieldError("", "routes_form", FORMS)])
        root, given = (keys[0],), given[keys[0]]
    if not isinstance(given, list):
        raise Invalid(f"{FORMS.capitalize()}.", errors=[FieldError(pointer(*root), "list_type", FORMS)])
    if len(given) > MOST:
        raise Invalid(f"There are at most {MOST} routes.", errors=[FieldError(pointer(*root), "too_long", f"At most {MOST} routes.")])
    routes, faults = _each(given, root)
    names = [route.name for route in routes if route.name is not None]
    if not faults and len(set(names)) < len(names):
        twice = next(place for place, route in enumerate(routes) if route.name is not None and names.count(route.name) > 1)
        faults = [FieldError(pointer(*root, twice, "name"), "name_repeated", "Two routes have this name: a message remembers its route by it.")]
    if faults:
        raise refused(faults)
    return routes, root


def refused(faults: list[FieldError]) -> Invalid:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Invalid(f"{faults[0].pointer or 'The body'}: {faults[0].detail}{more}", errors=faults[:50])


def _each(given: list[Any], root: tuple[str, ...]) -> tuple[list[RouteIn], list[FieldError]]:
    routes, faults = [], list[FieldError]()
    for place, one in enumerate(given):
        try:
            routes.append(RouteIn.model_validate(one))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            faults += [as_field_error({**fault, "loc": ("body", *fault["loc"])}, (*root, str(place)), one) for fault in found]
    return routes, faults


def stored(routes: list[RouteIn]) -> list[dict[str, Any]]:
    """As the database keeps them, and as they are shown."""
    return [route.model_dump(mode="json") for route in routes]


def compiled(kept: list[dict[str, Any]]) -> list[Route]:
    """As the router takes them, from how the database keeps them."""
    return [_compiled(place, RouteIn.model_validate(one)) for place, one in enumerate(kept, 1)]


def _compiled(place: int, given: RouteIn) -> Route:
    return Route(
        name=given.name or f"#{place}",
        channel=given.channel,
        prefixes=tuple(prefix.removeprefix("+") for prefix in given.prefix),
        types=frozenset(given.type),
        attributes={name: tuple(values) for name, values in given.attributes.items()},
        operators=frozenset(folded(operator) for operator in given.operator),
        gateways=tuple((gateway.name, gateway.weight) for gateway in given.gateways),
        by_weights=given.balance == "weights",
        sender=given.sender,
        price=given.price_per_part,
    )
