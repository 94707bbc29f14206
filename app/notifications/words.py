"""States and reasons in words, Russian and English: for operators who ask why, and for subscribers who look at what was sent to them."""

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from app.gateways.words import Locale

FOLDER = Path(__file__).parent / "wording"


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ru: str
    en: str

    def in_(self, locale: Locale) -> str:
        return self.ru if locale == "ru" else self.en


class Reason(Said):
    """`subscriber`: he is told it as well. The others are about our gateways."""

    subscriber: bool = False


class StateWords(BaseModel):
    model_config = ConfigDict(extra="forbid")

    operator: Said
    subscriber: Said


@cache
def states() -> dict[str, StateWords]:
    """Constant: the files are part of the product."""
    return TypeAdapter(dict[str, StateWords]).validate_python(_read("states"))


@cache
def reasons() -> dict[str, Reason]:
    return TypeAdapter(dict[str, Reason]).validate_python(_read("reasons"))


def _read(name: str) -> object:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))


def reason_in_words(reason: str | None, locale: Locale) -> str:
    """A gateway's own reasons (`error_reasons` names them) have no words of ours: then it is the reason as it stands."""
    if not reason:
        return ""
    known = reasons().get(reason)
    return known.in_(locale) if known is not None else reason


def state_in_words(state: str, reason: str | None, locale: Locale) -> str:
    """For an operator: `Held: quiet hours`."""
    named, why = states()[state].operator.in_(locale), reason_in_words(reason, locale)
    return f"{named}: {why}" if why else named


def state_for_subscriber(state: str, reason: str | None, locale: Locale) -> tuple[str, str | None]:
    """The state in his words, and why, where that concerns him."""
    known = reasons().get(reason or "")
    return states()[state].subscriber.in_(locale), known.in_(locale) if known is not None and known.subscriber else None
