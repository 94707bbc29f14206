"""A text in Latin letters: for those who would rather read "Schet" in one SMS than "Счёт" in three."""

import unicodedata

import iuliia

_SIGNS = str.maketrans({"«": '"', "»": '"', "„": '"', "“": '"', "”": '"', "—": "-", "–": "-", "№": "No.", "…": "...", "₽": "RUB", "\u00a0": " ", "\u202f": " "})
# What the words of a bill may contain besides: apostrophes, dashes and spaces of other widths, signs, and what only seems to be there.
_RARE_SIGNS = str.maketrans(
    dict.fromkeys("‘’‚‛′`´ʼ", "'")
    | dict.fromkeys("‟″‹›〝〞", '"')
    | dict.fromkeys("‐‑‒―−⁃", "-")
    | dict.fromkeys("\t\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u205f\u3000", " ")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f", "")
    | dict.fromkeys("•·●▪", "*")
    | {"×": "x", "÷": "/", "⁄": "/", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≈": "~", "°": "deg", "©": "(c)", "®": "(r)"}
    | {"\u2028": "\n", "\u2029": "\n", "¢": "c", "₸": "KZT", "₴": "UAH", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i"}
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
    written: str = iuliia.WIKIPEDIA.translate(text).translate(_SIGNS)
    return written


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
