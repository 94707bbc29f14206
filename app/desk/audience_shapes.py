"""What is asked of an audience, and what is answered: figures, and what to know of them."""

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

# What the numbers leave out: (code, sentence, the same in Russian).
NOTES = {
    "preferences_of_now": (
        "Counted from contacts, preferences and suppressions as they are now; caps and hours are not asked.",
        "Посчитано по контактам, предпочтениям и запретам на этот момент; лимиты и часы не учтены.",
    ),
    "own_event": (
        "An account is told when something happens to it: nobody here is told by this count.",
        "Абонента уведомляют, когда у него что-то происходит: сам подсчёт никого не уведомляет.",
    ),
    "scaled_up": (
        "Parts and cost are an estimate from {sample} accounts, with an example of the type's data.",
        "Части и стоимость — оценка по {sample} абонентам, с примером данных этого типа.",
    ),
    "example_data": ("Parts and cost are of an example of the type's data.", "Части и стоимость посчитаны на примере данных этого типа."),
    "no_price": (
        "{unpriced} of {messages} messages of the sample have no price or no gateway: the cost is without them.",
        "У {unpriced} из {messages} сообщений выборки нет цены или шлюза: стоимость посчитана без них.",
    ),
    "render_failed": (
        "{failed} of {messages} messages of the sample could not be rendered: see a preview of it.",
        "{failed} из {messages} сообщений выборки не удалось составить: посмотрите предпросмотр.",
    ),
    "type_disabled": ("The type is disabled: as long as it is, nobody is told.", "Тип выключен: пока это так, не уведомят никого."),
    "not_its_channel": (
        "The type does not go by this channel: as long as this is so, nobody is told.",
        "Этот тип не отправляется по этому каналу: пока это так, не уведомят никого.",
    ),
    "one_channel_after_another": (
        "The type goes by one channel after another: some of these are told by another one.",
        "Тип идёт по каналам по очереди: часть абонентов получит его по другому каналу.",
    ),
}


class AttributeIs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    value: StrictStr | StrictBool | StrictInt | StrictFloat


class AudienceFilter(BaseModel):
    """Whom to count: every condition holds. Without any: everybody."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["active", "suspended", "closed"] | None = None
    attribute: AttributeIs | None = None
    tariff: Annotated[str, Field(max_length=300)] | None = None
    locale: Annotated[str, Field(min_length=1, max_length=16)] | None = Field(default=None, description="The account's own, as the billing says")

    @property
    def sql(self) -> tuple[str, dict[str, Any]]:
        """Conditions on an account, and their values."""
        wanted = None if self.attribute is None else orjson.dumps({self.attribute.name: self.attribute.value}).decode()
        conditions = {
            "who_status": ("a.status = :who_status", self.status),
            "who_attribute": ("a.attributes @> CAST(:who_attribute AS jsonb)", wanted),
            "who_tariff": ("a.tariff = :who_tariff", self.tariff),
            "who_locale": ("a.locale = :who_locale", self.locale),
        }
        given = {name: said for name, said in conditions.items() if said[1] is not None}
        return "".join(f" AND {condition}" for condition, _ in given.values()), {name: value for name, (_, value) in given.items()}


class AudienceIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="Whose parts and cost; the newest when left out")
    filter: AudienceFilter = Field(default_factory=AudienceFilter)


class AudienceNote(BaseModel):
    """What to know of the numbers."""

    code: str
    detail: str
    detail_ru: str


class AudienceSampleOut(BaseModel):
    accounts: int
    messages: int
    failed: int = Field(description="Messages that could not be rendered")
    unpriced: int = Field(description="SMS without a price or without a gateway")


class AudienceOut(BaseModel):
    """`accounts` and `messages` are counted; `parts` and `cost` are an estimate, null for e-mail and where nothing could be rendered."""

    template_id: UUID
    version: int
    type: str
    channel: Literal["sms", "email"]
    locale: str
    accounts: int = Field(description="Accounts that could be told in the words of this template")
    messages: int = Field(description="A message for each of their contacts")
    accounts_in_other_words: int = Field(description="Accounts that are told the same by the template of another language")
    parts: int | None
    cost: str | None
    sample: AudienceSampleOut
    notes: list[AudienceNote]
