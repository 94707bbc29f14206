"""Typographic characters as a keyboard has them: what made a text pretty on paper makes an SMS cost more (3GPP TS 23.038, 6.2.1, has none of it)."""

import re

# What stands for each; of what only seems to be there, nothing.
MARKS: dict[str, str] = (
    dict.fromkeys("«»“”„‟″‹›〝〞", '"')
    | dict.fromkeys("‘’‚‛′`´ʼ", "'")
    | dict.fromkeys("‐‑‒–—―−⁃", "-")
    | dict.fromkeys("\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f", "")
    | {"…": "...", "№": "N", "\u2028": "\n", "\u2029": "\n"}
)
ROUBLE = "₽"
CYRILLIC = re.compile("[\u0400-\u052f]")
_TABLE = str.maketrans(MARKS)
_TOO_NEAR = re.compile(rf"(?<=\w)(?={ROUBLE})|(?<={ROUBLE})(?=\w)")


def plain(text: str, *, latin: bool | None = None) -> str:
    """The text with quotes, dashes, spaces, dots, the numero and the rouble sign as plain characters. Again, it changes nothing.

    `latin`: whether the rouble is to be `RUB` and not `р.`; None: where the text has no Cyrillic letter.

    >>> plain("«Домашний» — 600\u00a0₽, договор №5…"), plain("Balance: 600₽")
    ('"Домашний" - 600 р., договор N5...', 'Balance: 600 RUB')
    """
    if ROUBLE in text:
        if latin or (latin is None and not CYRILLIC.search(text)):
            text = _TOO_NEAR.sub(" ", text).replace(ROUBLE, "RUB")
        else:
            text = text.replace(ROUBLE + ".", "р.").replace(ROUBLE, "р.")  # one dot is enough where a sentence ends with it
    return text.translate(_TABLE)
