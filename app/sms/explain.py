"""Why a text costs what it costs, and what would make it cheaper: for the author of a template."""

import re
import unicodedata
from typing import TypedDict

from app.sms import gsm
from app.sms.cutting import Cutting
from app.sms.latin import as_ascii, in_latin
from app.sms.segment import Encoding
from app.sms.typography import CYRILLIC, plain

MOST_NAMED = 100  # characters that one analysis names
_COMMON = Cutting()
_WORD, _LATIN = re.compile(r"\w+"), re.compile("[A-Za-z]")
# Cyrillic letters that look just like Latin ones: typed in a Latin word they are seen by nobody, and double the price.
_TWINS = dict(zip("АВЕЅІЈКМНОРСТУХЬаеѕіјорсух", "ABESIJKMHOPCTYXbaesijopcyx", strict=True))


class Foreign(TypedDict):
    """A character that the gateway's narrow alphabet lacks. `position` counts characters (code points) from 0; `name` is Unicode's.

    `instead` is what to type there; `""`: nothing at all, null: it has no likeness."""

    character: str
    position: int
    name: str
    instead: str | None


class Without(TypedDict):
    encoding: Encoding
    segments: int


class Saving(TypedDict):
    """What the text would take. `saved` parts; below zero where it would take more."""

    segments: int
    saved: int


class Analysis(TypedDict):
    """`units` are septets, or UTF-16 units, of the whole; `units_left` fit into the last part. `segments` are billed.

    `forced_ucs2_by` names the first 100 characters that force UCS-2, each where it stands, or that cannot be written at all where the gateway has no UCS-2;
    `without_them` is what the text would be with each `instead` in its place, and without those that have none."""

    encoding: Encoding
    units: int
    segments: int
    units_left: int
    forced_ucs2_by: list[Foreign]
    without_them: Without
    typography: Saving
    translit: Saving


def analyse(text: str, cutting: Cutting | None = None) -> Analysis:
    """Everything about a finished text, as a common gateway cuts it, or one that cuts in this way. It may transliterate by itself: then there is nothing to save."""
    cutting = cutting or _COMMON
    segments = cutting.reckon(text)
    positions = cutting.misfits(text)
    instead = dict(zip(positions, _instead(text, positions, cutting), strict=True))
    encoding, count = cutting.count("".join(instead.get(position, character) or "" for position, character in enumerate(text)))
    return {
        "encoding": segments.encoding,
        "units": segments.units,
        "segments": segments.count,
        "units_left": cutting.units_left(segments),
        "forced_ucs2_by": [
            {"character": text[position], "position": position, "name": _name(text[position]), "instead": instead[position]}
            for position in positions[:MOST_NAMED]
        ],
        "without_them": {"encoding": encoding, "segments": count},
        "typography": _saving(segments.count, plain(text), cutting),
        "translit": _saving(segments.count, in_latin(text), cutting),
    }


def forced_ucs2_by(text: str) -> list[str]:
    """The characters, each once and in their order, that keep a text out of the GSM alphabet; empty when it fits."""
    return list(dict.fromkeys(gsm.foreign_characters(text)))


def _saving(now: int, changed: str, cutting: Cutting) -> Saving:
    then = cutting.count(changed)[1]
    return {"segments": then, "saved": now - then}


def _instead(text: str, positions: list[int], cutting: Cutting) -> list[str | None]:
    """What to type for each of these."""
    in_latin_words = {
        position
        for word in (_WORD.finditer(text) if positions else ())
        if _LATIN.search(word[0]) and CYRILLIC.search(word[0])
        for position in range(*word.span())
    }
    likeness: dict[tuple[str, str, bool], str | None] = {}
    found: list[str | None] = []
    for position in positions:
        before = text[position - 1] if position and text[position - 1].isalpha() else ""
        key = before, text[position], position in in_latin_words
        if key not in likeness:
            likeness[key] = _likeness(*key, cutting)
        found.append(likeness[key])
    return found


def _likeness(before: str, character: str, is_in_latin_word: bool, cutting: Cutting) -> str | None:
    found = _TWINS.get(character) if is_in_latin_word else None
    if found is None:
        # How a letter is written in Latin hangs on the one before it: "ye" begins a word, "e" goes on with it.
        found = as_ascii(before + plain(character, latin=True)).removeprefix(as_ascii(before))
    return None if cutting.misfits(found) else found


def _name(character: str) -> str:
    return unicodedata.name(character, f"U+{ord(character):04X}")
