"""The steps of an explanation: each a code for programs and a sentence for people, in Russian or English."""

import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.core.masks import masked
from app.gateways.words import Locale
from app.notifications.words import Said, reason_in_words, state_in_words

FOLDER = Path(__file__).parent / "wording"
NONE = "—"


class Step(BaseModel):
    """One link of the chain. `code` is the reason where there is one, else the step itself."""

    model_config = ConfigDict(extra="forbid")

    at: datetime | None = Field(description="Null: now")
    step: str
    code: str
    words: str
    channel: str | None = None
    contact_id: UUID | None = None
    address: str | None = Field(default=None, description="Masked")
    message_id: UUID | None = None
    event_id: UUID | None = None
    gateway: str | None = None
    not_before: datetime | None = None
    detail: str | None = Field(default=None, description="What the far side said, the template's id, and the like")


@cache
def steps() -> dict[str, Said]:
    """Constant: the files are part of the product."""
    return _read("steps")


@cache
def pieces() -> dict[str, Said]:
    return _read("pieces")


def _read(name: str) -> dict[str, Said]:
    return TypeAdapter(dict[str, Said]).validate_python(tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")))


@dataclass(frozen=True, slots=True)
class Teller:
    """Says it in one language, on the clock of the account."""

    locale: Locale
    zone: ZoneInfo

    def step(self, name: str, at: datetime | None, *, reason: str | None = None, **values: Any) -> Step:
        """Values that are fields of a step stand there as well as in its sentence; `state` needs `reason` for its words."""
        said: dict[str, Any] = {key: self._shown(value) for key, value in values.items()}
        said["reason"] = reason_in_words(reason, self.locale) or NONE
        said["whom"] = self.whom(values.get("channel"), values.get("address"))
        if "state" in values:
            said["state"] = state_in_words(values["state"], reason, self.locale)
        if "not_before" in values:
            said["when"] = self._shown(values["not_before"])
        words = steps()[name].in_(self.locale).format_map(said)
        fields = {key: values[key] for key in Step.model_fields if key in values}
        if address := values.get("address"):
            fields["address"] = masked(address)
        return Step(at=at, step=name, code=reason or name, words=words, **fields)

    def piece(self, name: str, **values: Any) -> str:
        """Of a name that has no words (an operator's own reason of a suppression) the last part."""
        known = pieces().get(name)
        return known.in_(self.locale).format_map({key: self._shown(value) for key, value in values.items()}) if known else name.partition("_")[2]

    def whom(self, channel: str | None, address: str | None) -> str:
        if channel is None:
            return self.piece("nobody")
        return self.piece("to", channel=self.piece(channel), address=masked(address)) if address else self.piece(channel)

    def _shown(self, value: Any) -> str:
        if isinstance(value, datetime):
            return value.astimezone(self.zone).strftime("%d.%m.%Y %H:%M:%S" if self.locale == "ru" else "%Y-%m-%d %H:%M:%S")
        if isinstance(value, date):
            return value.strftime("%d.%m.%Y" if self.locale == "ru" else "%Y-%m-%d")
        return NONE if value is None or value == "" else str(value)
