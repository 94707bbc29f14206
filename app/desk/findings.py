"""What `vestnik doctor` has found: a level, what it means and what to do, in Russian and English. The words stand in `wording/doctor.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from app.gateways.words import Locale

Level = Literal["ok", "warn", "fail"]
FOLDER = Path(__file__).parent / "wording"


class InBoth(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ru: str
    en: str

    def in_(self, locale: Locale, values: Mapping[str, object]) -> str:
        # A value is put in as it is: what stands in it is never looked at for braces.
        return (self.ru if locale == "ru" else self.en).format_map(values)


class Advice(BaseModel):
    """`level` is how bad it is; a finding that is well has nothing to do."""

    model_config = ConfigDict(extra="forbid")

    level: Level
    means: InBoth
    do: InBoth | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`area` is where it was looked: settings, database, redis, gateways, words, processes, queues. `values` go into the words, and never are secrets."""

    area: str
    code: str
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        return advice()[self.code].level

    def means(self, locale: Locale) -> str:
        return advice()[self.code].means.in_(locale, self.values)

    def do(self, locale: Locale) -> str:
        """What to do about it; empty when it is well."""
        todo = advice()[self.code].do
        return todo.in_(locale, self.values) if todo is not None else ""

    def as_json(self, locale: Locale) -> dict[str, object]:
        said = {"area": self.area, "code": self.code, "level": self.level, "means": self.means(locale), "do": self.do(locale)}
        return {**said, "values": {name: str(value) for name, value in self.values.items()}}


@cache
def advice() -> dict[str, Advice]:
    """Constant: the file is part of the product."""
    return TypeAdapter(dict[str, Advice]).validate_python(tomllib.loads((FOLDER / "doctor.toml").read_text("utf-8")))
