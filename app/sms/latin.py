"""A text in Latin letters: for those who would rather read "Schet" in one SMS than "Счёт" in three."""

import re
import unicodedata
from functools import lru_cache

import iuliia

from app.sms.typography import MARKS

_WORD, _LONGEST_REMEMBERED = re.compile(r"\w+"), 40
_SIGNS = str.maketrans({"«": '"', "»": '"', "„": '"', "“": '"', "”": '"', "—": "-", "–": "-", "№": "No.", "…": "...", "₽": "RUB", "\u00a0": " ", "\u202f": " "})
# What the words of a bill may contain besides: typography, signs, and letters that do not decompose.
_RARE_SIGNS = str.maketrans(
    MARKS
    | dict.fromkeys("•·●▪", "*")
    | {"×": "x", "÷": "/", "⁄": "/", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≈": "~", "°": "deg", "©": "(c)", "®": "(r)"}
    | {"¢": "c", "₸": "KZT", "₴": "UAH", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i"}
)
# Letters of the neighbours, which the Russian table leaves alone.
_NEIGHBOURS = str.maketrans(
    {"і": "i", "І": "I", "ї": "yi", "Ї": "Yi", "є": "ye", "Є": "Ye", "ґ": "g", "Ґ": "G", "ў": "u", "Ў": "U"}
    | {
        "ә": "a",
        "Ә": "A",
        "ғ": "g",
        "Ғ": "G",
        "қ": "k",
        "Қ": "K",
        "ң": "n",
        "Ң": "N",
        "ө": "o",
        "Ө": "O",
        "ұ": "u",
        "Ұ": "U",
        "ү": "u",
        "Ү": "U",
        "һ": "h",
        "Һ": "H",
    }
)


def in_latin(text: str) -> str:
    """Russian in Latin letters as Wikipedia writes it, with the quotes, dashes and signs that GSM lacks."""
    if text.isascii():
        return text
    # iuliia goes letter by letter and knows no word from the next: remembered by words it is several times faster.
    return _WORD.sub(_in_latin, text).translate(_SIGNS)


def _in_latin(found: re.Match[str]) -> str:
    word = found[0]
    return word if word.isascii() else _remembered(word) if len(word) <= _LONGEST_REMEMBERED else _translated(word)


def _translated(word: str) -> str:
    written: str = iuliia.WIKIPEDIA.translate(word)
    return written


_remembered = lru_cache(maxsize=10_000)(_translated)


def as_ascii(text: str) -> str:
    """As `in_latin`, and whatever else has a likeness in ASCII; what has none stays as it is.

    >>> as_ascii("Счёт №5 — 12,50 ₽, Gómez")
    'Schyot No.5 - 12,50 RUB, Gomez'
    """
    written = in_latin(unicodedata.normalize("NFC", text).translate(_NEIGHBOURS)).translate(_RARE_SIGNS)
    return written if written.isascii() else "".join(_likeness(character) for character in written)


def _likeness(character: str) -> str:
    """A letter without its accents, a sign in simple ones: whatever decomposes into ASCII."""
    if character.isascii():
        return character
    if unicodedata.combining(character):
        return ""
    plain = "".join(piece for piece in unicodedata.normalize("NFKD", character) if not unicodedata.combining(piece))
    return plain if plain and plain.isascii() else character
