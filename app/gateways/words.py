"""What a form says of every key of a gateway, in Russian and English, and the JSON Schema that carries it."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.gateways.preset import Said, presets

Locale = Literal["ru", "en"]

FOLDER = Path(__file__).parent / "wording"


class Words(BaseModel):
    """Of one key: what it is called, one sentence on it, and the part of the form where it stands."""

    model_config = ConfigDict(extra="forbid")

    group: str
    title: Said
    help: Said


class Wording(BaseModel):
    """All there is to say. `groups` are in the order of the form; a section each for the models below."""

    model_config = ConfigDict(extra="forbid")

    groups: dict[str, Said]
    profile: dict[str, Words]
    data_coding: dict[str, Words]
    tlv: dict[str, Words]
    smpp: dict[str, Words]
    smtp: dict[str, Words]
    smtp_profile: dict[str, Words]
    dkim: dict[str, Words]


@cache
def wording() -> Wording:
    """Constant: the files are part of the product."""
    return Wording.model_validate({key: part for file in sorted(FOLDER.glob("*.toml")) for key, part in tomllib.loads(file.read_text("utf-8")).items()})


def form(profiles: Mapping[str, type[BaseModel]], bodies: Mapping[str, type[BaseModel]], locale: str) -> dict[str, Any]:
    """A schema of each kind's profile under its name, those of the bodies under `gateway`, the parts of the form and the presets."""
    said, tongue = wording(), _tongue(locale)
    drawn: dict[str, Any] = {}
    for kind, words in (("smpp", said.profile), ("smtp", said.smtp_profile), ("dkim", said.dkim)):
        drawn[kind] = _with_words(profiles[kind].model_json_schema(), words, tongue)
    for name, words in (("DataCoding", said.data_coding), ("Tlv", said.tlv)):
        _with_words(drawn["smpp"]["$defs"][name], words, tongue)
    drawn["gateway"] = {kind: _body(bodies[kind], kind, words, tongue) for kind, words in (("smpp", said.smpp), ("smtp", said.smtp))}
    drawn["groups"] = [{"name": name, "title": getattr(title, tongue), "x-titles": title.model_dump()} for name, title in said.groups.items()]
    drawn["presets"] = [preset.model_dump() for preset in presets().values()]
    return drawn


def _body(model: type[BaseModel], kind: str, words: Mapping[str, Words], tongue: Locale) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("$defs", None)
    schema["properties"]["profile"] = {"type": "object", "default": {}, "x-schema": kind}
    if "dkim" in schema["properties"]:
        schema["properties"]["dkim"] = {"type": ["object", "null"], "default": None, "x-schema": "dkim"}
    if "preset" in schema["properties"]:
        schema["properties"]["preset"]["enum"] = list(presets())
    return _with_words(schema, words, tongue)


def _with_words(schema: dict[str, Any], words: Mapping[str, Words], tongue: Locale) -> dict[str, Any]:
    for key, field in schema["properties"].items():
        said = words[key]
        field |= {"title": getattr(said.title, tongue), "description": getattr(said.help, tongue)}
        field |= {"x-titles": said.title.model_dump(), "x-help": said.help.model_dump(), "x-group": said.group}
    return schema


def preferred(accept_language: str) -> Locale | None:
    """The language of ours that the header likes best (RFC 9110, 12.5.4), or None."""
    best: tuple[float, Locale | None] = (0.0, None)
    for item in accept_language.lower().split(",")[:50]:
        name, _, weight = item.partition(";")
        tongue: Locale | None = "ru" if name.strip().startswith("ru") else "en" if name.strip().startswith("en") else None
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if tongue is not None and best[0] < quality <= 1:
            best = quality, tongue
    return best[1]


def _tongue(locale: str) -> Locale:
    return "ru" if locale.lower().startswith("ru") else "en"
