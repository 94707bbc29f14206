"""Presets: what is known of a kind of SMSC, to start a gateway from. A file each in `presets/`.

A gateway keeps the name of its preset and its own keys alone, so a preset that a later version corrects is corrected for it, too.
A name that was once published stays: gateways hold it.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).parent / "presets"
GENERIC = "generic"


class Said(BaseModel):
    """A text in both languages."""

    model_config = ConfigDict(extra="forbid")

    ru: str
    en: str


class Preset(BaseModel):
    """Keys of a profile with a title, with what to know about them, and with the documents that they were taken from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: Said
    notes: Said
    sources: list[str]
    profile: dict[str, Any]


@cache
def presets() -> Mapping[str, Preset]:
    """All of them by name, `generic` first. Constant: the files are part of the product."""
    found = [Preset(name=file.stem, **tomllib.loads(file.read_text("utf-8"))) for file in sorted(FOLDER.glob("*.toml"))]
    return MappingProxyType({preset.name: preset for preset in sorted(found, key=lambda preset: preset.name != GENERIC)})


def a_preset(name: str) -> str:
    if name not in presets():
        raise ValueError(f"there is no preset {name!r}; the presets: {', '.join(presets())}")
    return name


def over(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's keys with the given ones on top. Tables, such as status_overrides, are joined entry by entry; a list takes the place of a list."""
    joined = dict(preset)
    for key, value in given.items():
        below = joined.get(key)
        joined[key] = below | value if isinstance(below, dict) and isinstance(value, dict) else value
    return joined
